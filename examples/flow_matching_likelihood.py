"""A flow trained by flow_matching's own loop on a 2-D set: its log p by their solver and by ours.

python examples/flow_matching_likelihood.py --steps 2000

Needs pip install 'diffenc-ct[adapters,data]'.
"""

import argparse

import torch
from flow_matching.path import CondOTProbPath
from flow_matching.solver import ODESolver
from flow_matching.utils import ModelWrapper
from torch import nn

import diffenc_ct as dc
from diffenc_ct.data import load_dataset


class Velocity(nn.Module):
    """A plain network u(x, t) that counts its evaluations."""

    def __init__(self) -> None:
        super().__init__()
        layers = [nn.Linear(3, 64), nn.SiLU(), nn.Linear(64, 64), nn.SiLU(), nn.Linear(64, 2)]
        self.net, self.calls = nn.Sequential(*layers), 0

    def forward(self, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        return self.net(torch.cat([x, t.expand(len(x))[:, None]], 1))


def trained(x: torch.Tensor, steps: int) -> Velocity:
    """The loop of flow_matching's examples: (x_t, dx_t) of a conditional path, squared error."""
    network, path = Velocity(), CondOTProbPath()
    optimizer = torch.optim.Adam(network.parameters(), 2e-3)
    for _ in range(steps):
        data = x[torch.randint(len(x), (256,))]
        sample = path.sample(t=torch.rand(256), x_0=torch.randn_like(data), x_1=data)
        loss = (network(sample.x_t, sample.t) - sample.dx_t).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return network.double()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=200)
    torch.manual_seed(0)
    levels, data = dc.Levels(256), load_dataset("swirl")
    network = trained(levels.scale(data.train, torch.float32) * 2, parser.parse_args().steps)
    x = levels.scale(data.test[:20], torch.float64) * 2
    prior = torch.distributions.MultivariateNormal(torch.zeros(2).double(), torch.eye(2).double())

    def theirs(method: str, step: float | None = None, atol: float = 1e-10) -> torch.Tensor:
        network.calls, ends = 0, torch.tensor([1.0, 0.0]).double()
        solve = ODESolver(ModelWrapper(network)).compute_likelihood
        options = {"atol": atol, "rtol": atol, "time_grid": ends, "exact_divergence": True}
        return solve(x, prior.log_prob, step, method, **options)[1].detach()

    exact = theirs("dopri5")

    def row(name: str, nats: torch.Tensor, count: float, estimate: str = "none") -> None:
        error = float((nats - exact).abs().mean())
        print(f"{name:28}{error:12.1e}{estimate:>12}{count:14.0f}")

    print("solver                        mean error   estimated   evaluations")
    row("theirs, midpoint, step 0.05", theirs("midpoint", 0.05), network.calls)
    for tolerance in (1e-3, 1e-4, 1e-5):
        row(f"theirs, dopri5, {tolerance:.0e}", theirs("dopri5", atol=tolerance), network.calls)
    model = dc.adapters.flow_matching(network, margin=1e-6, shape=(2,))
    for tolerance in (1e-2, 1e-4, 1e-6):
        found = dc.log_likelihood(model, x, solver=dc.Adams(atol=tolerance))
        count, error = found.evaluations.double().mean(), found.solver_error.mean()
        row(f"ours, Adams, {tolerance:.0e}", found.nats, float(count), f"{float(error):.1e}")


if __name__ == "__main__":
    main()
