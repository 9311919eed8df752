"""The same losses by ways that share no code but the model's predictions, nats, example by example.

    L_inf       Monte Carlo over t; the path KL, by torchsde's logqp; the limit of L_T by Richardson's extrapolation
    L_T         from tables of mean differences; from the Gaussians q(z_s|z_t, x) and p(z_s|z_t) themselves

Monte Carlo uses model.errors, the path KL model.predict and dynamics.

Reference: Nielsen et al. 2024, section 3; Li et al. 2020 (torchsde's logqp).
"""

from collections.abc import Sequence

import torch
import torchsde
from jaxtyping import Float, Shaped
from torch import Tensor

from diffenc_ct.calibration import StepTables
from diffenc_ct.dynamics import ConditionalReverseSDE, ReverseSDE
from diffenc_ct.elbo import infinite_depth_integrand, uniform_grid
from diffenc_ct.model import DiffEnc
from diffenc_ct.process import ConstantNoiseLevel, kl_divergence, marginal, normal_like, posterior
from diffenc_ct.schedules import Schedule, SchedulePoint

Data = Shaped[Tensor, "examples *data"]
Losses = Float[Tensor, " examples"]
Ladder = Float[Tensor, "groups depths"]


def richardson(
    once: Float[Tensor, "*shape"],
    twice: Float[Tensor, "*shape"],
    four_times: Float[Tensor, "*shape"],
) -> Float[Tensor, "*shape"]:
    """The limit of L_T = L_inf + a/T + b/T^2, elementwise.

    Args:
        once: L_T.
        twice: L_2T.
        four_times: L_4T.
    Example:
        >>> richardson(*(torch.tensor(5 + 3 / T - 7 / T**2) for T in (1, 2, 4)))
        tensor(5.)
    """
    return (8 * four_times - 6 * twice + once) / 3


def ladder_losses(tables: StepTables, depths: Sequence[int]) -> tuple[Ladder, Ladder]:
    """L_T and L_T(w*) on uniform grids; w* from all groups.

    Args:
        tables: measured steps, in groups.
        depths: T, each a divisor of the tables' number of steps.
    """
    each, mean, half = tables.excess(groups=True), tables.excess(), tables.dimensions / 2
    losses, best = [], []
    for T in depths:
        nodes = torch.arange(0, len(tables.t), (len(tables.t) - 1) // T)
        s, t = nodes[:-1], nodes[1:]
        w = 1 + mean[s, t]
        losses.append(half * each[:, s, t].sum(1))
        best.append(half * (1 / w - 1 + w.log() + each[:, s, t] / w).sum(1))
    return torch.stack(losses, 1), torch.stack(best, 1)


def monte_carlo(
    model: DiffEnc, schedule: Schedule, x: Data, draws: int, generator: torch.Generator | None
) -> Losses:
    """L_inf at eta = 1 from stratified depths.

    Args:
        model: whose encoder and errors it is.
        schedule: along which t is drawn, the model's or another.
        x: data.
        draws: depths of each example.
        generator: of depths and noises.
    """
    data, level, total = model.scale(x), ConstantNoiseLevel(1.0), torch.zeros(())
    for k in range(draws):
        u = torch.rand(len(data), generator=generator, dtype=data.dtype, device=data.device)
        point: SchedulePoint = schedule((k + u) / draws)
        encoding, noise = model.encoder(data, point.gamma), normal_like(data, generator)
        z = marginal(encoding.value, point.gamma).sample(noise=noise)
        errors = model.errors(z, noise, encoding, point.gamma)
        total = total + infinite_depth_integrand(errors, point, level) / draws
    return total


class _PathKL(ConditionalReverseSDE):
    """The reverse SDE given x, with the generative drift as torchsde's prior drift h."""

    def __init__(self, model: DiffEnc, x: Float[Tensor, "examples *data"]) -> None:
        super().__init__(model.schedule, model.encoder, x, sde_type="stratonovich")
        self.prior = ReverseSDE(model, shape=tuple(x.shape[1:]), sde_type="stratonovich")

    def h(self, tau: Float[Tensor, ""], y: Float[Tensor, "examples d"]) -> Tensor:
        return self.prior.f(tau, y)


def path_kl(model: DiffEnc, x: Data, steps: int, generator: torch.Generator | None) -> Losses:
    """L_inf as the KL of the paths from z_1 ~ q(z_1|x) down to z_0, reverse SDE given x against generative SDE.

    Args:
        model: whose predictions it is.
        x: data.
        steps: of the solver; the result is biased by O(1/steps^2).
        generator: of z_1 and the Brownian motion.
    """
    data = model.scale(x)
    end: SchedulePoint = model.schedule(data.new_ones(len(data)))
    z_1 = marginal(model.encoder.encode(data, end.gamma), end.gamma).sample(generator)
    y, ts = z_1.flatten(1), data.new_tensor([0.0, 1.0])
    entropy = int(torch.randint(2**31 - 1, (), generator=generator, device=data.device))
    # torchsde appends the log ratio to the state, as one more noiseless dimension.
    size = (len(y), y.shape[1] + 1)
    motion = torchsde.BrownianInterval(
        0.0, 1.0, size=size, dtype=y.dtype, device=y.device, entropy=entropy
    )
    sde = _PathKL(model, data)
    # Heun, not midpoint: a midpoint sees half of a step's noise, and squares of it are biased by O(1/steps).
    _, log_ratio = torchsde.sdeint(sde, y, ts, bm=motion, method="heun", dt=1 / steps, logqp=True)
    found: Tensor = log_ratio.sum(0)
    return found


def gaussian_steps(
    model: DiffEnc, x: Data, depth: int, generator: torch.Generator | None
) -> Losses:
    """L_T from the Gaussians themselves: the sum of KL(q(z_s|z_t, x) || p(z_s|z_t)) over the steps.

    Args:
        model: whose steps p are.
        x: data.
        depth: T.
        generator: of z_t.
    """
    data = model.scale(x)
    gamma = model.schedule(uniform_grid(depth, data)).gamma
    total = data.new_zeros(len(data))
    for i in range(depth):
        s, t = gamma[i].expand(len(data)), gamma[i + 1].expand(len(data))
        x_s, x_t = model.encoder.encode(data, s), model.encoder.encode(data, t)
        z = marginal(x_t, t).sample(generator)
        total = total + kl_divergence(posterior(z, x_s, x_t, s, t), model.reverse(z, s, t))
    return total
