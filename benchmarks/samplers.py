"""Quality against evaluations: how far a sampler's distribution is from the truth after n network evaluations.

    python benchmarks/samplers.py [--digits] [--quick]

A Gaussian world of 16 variances log-spaced from 1e-4 to 1, mean 0.3, gamma linear from -13.3 to 5, start N(0, I):
what a sampler produces there is a Gaussian, computed exactly, so KL per dimension to q(z_0) has no sampling error.
Three encoders: identity (VDM), non-trainable, and a trainable one's form with a linear y; paired heads. azula, if
installed, runs beside ours for VDM. --digits adds the mixture of digits, by sliced Wasserstein distance in units of
that between two true samples. The last line is JSON.
"""

import argparse
import json
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.distributions import MultivariateNormal

import diffenc_ct as dc
from diffenc_ct.cli.solvers import make_solver
from diffenc_ct.sampling.linear import kl_per_dimension, produced_gaussian
from diffenc_ct.schedules import alpha
from diffenc_ct.worlds import GaussianWorld, LinearEncoder, MixtureWorld

D, F64 = 16, torch.float64
SCHEDULE = dc.LinearSchedule(-13.3, 5.0)
COUNTS = (6, 8, 10, 14, 20, 50)
OURS = [
    ("exponential", 0.0),
    ("exponential-2", 0.0),
    ("exponential-corrected-3", 0.0),
    ("exponential-single-3", 0.0),
    ("ancestral", 0.0),
    ("ancestral", 1.0),
    ("exponential", 1.0),
    ("exponential", 0.7),
]
PER_STEP = {"exponential-single-3": 3, "exponential-single-2": 2}


def matrix(gamma: Tensor) -> Tensor:
    """alpha^2 I + sigma^2 (1/2 + 3/10 sin(lambda/4)) Q with Q orthogonal."""
    Q = torch.linalg.qr(torch.randn(D, D, dtype=F64, generator=torch.Generator().manual_seed(0)))[0]
    s = torch.sigmoid(gamma)[:, None, None]
    return (1 - s) * torch.eye(D, dtype=F64) + s * (0.5 - 0.3 * torch.sin(gamma / 4))[
        :, None, None
    ] * Q


def worlds() -> dict[str, GaussianWorld]:
    mean, variances = torch.full((D,), 0.3, dtype=F64), torch.logspace(-4, 0, D, dtype=F64)
    encoders = {
        "VDM": dc.IdentityEncoder(),
        "DiffEnc-nt": dc.NonTrainableEncoder(),
        "DiffEnc": LinearEncoder(matrix),
    }
    return {name: GaussianWorld(mean, variances, encoder) for name, encoder in encoders.items()}


def ours(world: GaussianWorld, name: str, eta: float, evaluations: int) -> float:
    solver = make_solver(name, steps=evaluations // PER_STEP.get(name, 1), noise_level=eta)
    made, _ = produced_gaussian(world.model(SCHEDULE), D, solver)
    return kl_per_dimension(made, world, solver.grid(SCHEDULE).gamma[-1])


def azula_samplers(world, dtype: torch.dtype) -> dict[str, Callable[[int], Any]]:
    """azula's samplers of a VDM world by name, from the number of evaluations; empty where it is not installed."""
    try:
        from azula import sample as peers
        from azula.denoise import Denoiser, DiracPosterior
        from azula.noise import Schedule
    except ImportError as error:
        print(f"(azula is not here: {error})")
        return {}

    class Linear(Schedule):
        def __call__(self, t: Tensor) -> tuple[Tensor, Tensor]:
            gamma = -13.3 + 18.3 * t
            return torch.sigmoid(-gamma).sqrt(), torch.sigmoid(gamma).sqrt()

        def alpha(self, t: Tensor) -> Tensor:
            return self(t)[0]

        def sigma(self, t: Tensor) -> Tensor:
            return self(t)[1]

    class Exact(Denoiser):
        schedule = Linear()

        def forward(self, x_t: Tensor, t: Tensor, **_) -> DiracPosterior:
            gamma = (-13.3 + 18.3 * t).to(x_t).expand(len(x_t))
            return DiracPosterior(world.estimates(x_t, gamma).x_hat)

    options = {"silent": True, "dtype": dtype}
    bashforth = sorted(name for name in dir(peers) if name.endswith("ABSampler"))
    return {
        "azula DDIM": lambda n: peers.DDIMSampler(Exact(), eta=0.0, steps=n, **options),
        "azula Heun": lambda n: peers.HeunSampler(Exact(), steps=n // 2, **options),
        **{
            f"azula {kind} {k}": lambda n, kind=kind, k=k: getattr(peers, kind)(
                Exact(), order=k, steps=n, **options
            )
            for kind in bashforth
            for k in (2, 3)
        },
    }


def azula_rows(world: GaussianWorld, counts: tuple[int, ...]) -> dict[str, list[float]]:
    """azula's samplers on the same world, by basis vectors as ours."""
    rows: dict[str, list[float]] = {}
    z_1 = torch.cat([torch.zeros(1, D, dtype=F64), torch.eye(D, dtype=F64)])
    for name, make in azula_samplers(world, F64).items():
        rows[name] = []
        for n in counts:
            with torch.no_grad():
                z_0 = make(n)(z_1)
            J = z_0[1:] - z_0[0]
            made = MultivariateNormal(z_0[0], J.mT @ J + 1e-14 * torch.eye(D, dtype=F64))
            rows[name].append(kl_per_dimension(made, world, torch.tensor(-13.3, dtype=F64)))
    return rows


def sliced_wasserstein(
    a: Tensor, b: Tensor, generator: torch.Generator, slices: int = 256
) -> float:
    """Root mean square over random directions of the 2-Wasserstein distance of projections; equal sample sizes."""
    direction = torch.randn(a.flatten(1).shape[1], slices, generator=generator, dtype=a.dtype)
    direction = direction / direction.norm(dim=0)
    sorted_a, sorted_b = ((v.flatten(1) @ direction).sort(0).values for v in (a, b))
    return float((sorted_a - sorted_b).square().mean().sqrt())


def digits_rows(n: int, counts: tuple[int, ...], root: str | None) -> dict[str, list[float]]:
    """Sliced Wasserstein distance to true samples of the mixture of 1,000 digits, over that of two true samples."""
    from diffenc_ct.data import load_dataset

    data = load_dataset("mnist", root=root)
    means = 2 * (data.train[:1000].float() + 0.5) / data.levels - 1
    g = torch.Generator().manual_seed(0)
    rows: dict[str, list[float]] = {}
    for label, encoder in (("VDM", dc.IdentityEncoder()), ("DiffEnc-nt", dc.NonTrainableEncoder())):
        world = MixtureWorld(means, 0.05, encoder)
        model = world.model(SCHEDULE)
        truth, other = world.sample(n, g), world.sample(n, g)
        unit = sliced_wasserstein(truth, other, torch.Generator().manual_seed(1))
        for name, eta in (
            ("exponential", 0.0),
            ("exponential", 1.0),
            ("ancestral", 0.0),
            ("ancestral", 1.0),
        ):
            rows[f"{label} {name} eta={eta:g}"] = [
                sliced_wasserstein(
                    dc.sample(
                        model, n, shape=(1, 28, 28), generator=torch.Generator().manual_seed(2),
                        solver=make_solver(name, steps=k, noise_level=eta),
                    ).samples,
                    truth,
                    torch.Generator().manual_seed(1),
                ) / unit
                for k in counts
            ]  # fmt: skip
        if label != "VDM":
            continue
        z_1 = torch.randn(n, 1, 28, 28, generator=torch.Generator().manual_seed(2))
        for name, make in azula_samplers(world, torch.float32).items():
            with torch.no_grad():
                made = [make(k)(z_1) / alpha(torch.tensor(-13.3)) for k in counts]
            rows[name] = [
                sliced_wasserstein(x, truth, torch.Generator().manual_seed(1)) / unit for x in made
            ]
    return rows


def show(title: str, counts: tuple[int, ...], rows: dict[str, list[float]]) -> None:
    print(f"\n{title}\n{'evaluations':<34}" + "".join(f"{n:>11}" for n in counts))
    for name, values in rows.items():
        print(f"{name:<34}" + "".join(f"{v:>11.2e}" for v in values), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--digits", action="store_true", help="also the mixture of digits")
    parser.add_argument("--quick", action="store_true", help="only what the last line needs")
    parser.add_argument("--data-root", help="folder of the downloaded data sets")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    found: dict[str, dict[str, list[float]]] = {}
    for label, world in worlds().items():
        start = MultivariateNormal(torch.zeros(D, dtype=F64), torch.eye(D, dtype=F64))
        floor = kl_per_dimension(start, world, torch.tensor(5.0, dtype=F64))
        solvers = [OURS[0], OURS[6], OURS[7]] if arguments.quick else OURS
        rows = {
            f"{name} eta={eta:g}": [ours(world, name, eta, n) for n in COUNTS]
            for name, eta in solvers
        }
        if label == "VDM":
            rows |= azula_rows(world, COUNTS)
        show(f"{label}: KL per dimension, nats (mismatch of the start: {floor:.2e})", COUNTS, rows)
        found[label] = rows
    if arguments.digits:
        counts = (10, 20, 50)
        rows = digits_rows(1000, counts, arguments.data_root)
        show(
            "Mixture of digits: sliced Wasserstein distance / that of two true samples",
            counts,
            rows,
        )
    at10, at14, at50 = (COUNTS.index(n) for n in (10, 14, 50))
    vdm, diffenc = found["VDM"], found["DiffEnc"]
    peers = [row[at10] for name, row in vdm.items() if name.startswith("azula")]
    last = {
        "default_kl_at_10": vdm["exponential eta=0"][at10],
        "default_kl_at_14": vdm["exponential eta=0"][at14],
        "diffenc_kl_at_10": diffenc["exponential eta=0"][at10],
        "diffenc_kl_at_14": diffenc["exponential eta=0"][at14],
        "sde_kl_at_50": min(row[at50] for n, row in vdm.items() if "eta=0.7" in n or "eta=1" in n),
        "azula_best_kl_at_10": min(peers) if peers else None,
    }
    print(json.dumps(last))


if __name__ == "__main__":
    main()
