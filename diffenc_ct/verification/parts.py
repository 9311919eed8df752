"""Are plugged-in parts what the formulas take them for? Asked once, before they are believed.

Nothing in a loss shows that a schedule's rate is not its derivative, that an encoder jumps in gamma, or that a network
lets the examples of a batch see each other: the number is finite, and wrong. So parts that are not this library's own
are tried on a few examples in float64:

    schedule   gamma(t) increases, one t at a time, and gamma(b) - gamma(a) = int_a^b rate dt
    encoder    shapes, one example at a time, and x_a - x_b = int_a^b x' dgamma, for x' = dx/dlambda, lambda = -gamma
    heads      shapes, one example at a time, in training mode (batch normalisation fails here) and in evaluation mode

The integrals run over intervals that fill the whole range, so that jumps are seen as well as wrong derivatives.
"""

import copy
from collections.abc import Callable, Iterator

import torch
from jaxtyping import Shaped
from torch import Tensor, nn

from diffenc_ct.encoders import Encoder
from diffenc_ct.model import DiffEnc
from diffenc_ct.schedules import Schedule, alpha, expand, sigma

OWN = __name__.partition(".")[0]
# Nodes and weights of Gauss and Legendre's rule on (0, 1), exact to degree 9.
_NODES = (0.04691007703067, 0.23076534494716, 0.5, 0.76923465505284, 0.95308992296933)
_WEIGHTS = (0.11846344252810, 0.23931433524968, 0.28444444444444, 0.23931433524968, 0.11846344252810)  # fmt: skip
# Of a change over an interval; quadrature of smooth parts is far closer, what is wrong is far off.
_SHARE = 0.05
_EXAMPLES = 3


def check_parts(model: DiffEnc, data: Shaped[Tensor, "examples *data"]) -> None:
    """Refuse parts of a model that are not what the formulas take them for; the library's own are not looked at.

    Costs some thirty evaluations of a foreign encoder on three examples, and four of foreign heads or networks. The
    model is left as it is: copies are tried.

    Args:
        model: whose parts they are.
        data: levels or reals, two or more examples.
    Raises:
        ValueError: naming the part, what is wrong, and by how much.

    Example:
        >>> import diffenc_ct as dc
        >>> heads = dc.Single(dc.networks.MLP(2))
        >>> model = dc.DiffEnc(dc.LinearSchedule(), dc.IdentityEncoder(), heads, dc.Reals())
        >>> check_parts(model, torch.zeros(3, 2))  # nothing in it is foreign
    """
    foreign = [part for part in (model.schedule, model.encoder, model.heads) if _is_foreign(part)]
    if not foreign:
        return
    tried = copy.deepcopy(model).double()
    x = tried.scale(data[:_EXAMPLES].to(next(_tensors(tried), data).device)).double()
    with torch.random.fork_rng():
        if model.schedule in foreign:
            _check_schedule(tried.schedule)
        start, end = (float(tried.schedule.at(t, x).gamma) for t in (0.0, 1.0))
        if model.encoder in foreign:
            _check_encoder(tried.encoder, x, start, end)
        if model.heads in foreign:
            for training in (False, True):
                tried.train(training)
                _check_heads(tried, x, start, end)


def _is_foreign(part: nn.Module) -> bool:
    """Whether the part or something in it is neither this library's nor PyTorch's."""
    known = (OWN, "torch")
    return any(type(module).__module__.partition(".")[0] not in known for module in part.modules())


def _tensors(module: nn.Module) -> Iterator[Tensor]:
    yield from module.parameters()
    yield from module.buffers()


@torch.no_grad()
def _check_schedule(schedule: Schedule) -> None:
    name = f"schedule {type(schedule).__name__}"
    edges = torch.linspace(0, 1, 65, dtype=torch.float64)
    point = schedule(edges)
    for what, value in (("gamma", point.gamma), ("rate", point.rate)):
        if value.shape != edges.shape:
            raise ValueError(
                f"{name}: {what} has shape {tuple(value.shape)} for depths {tuple(edges.shape)}"
            )
        if not value.isfinite().all():
            raise ValueError(
                f"{name}: {what} is not finite at t = {edges[~value.isfinite()][0]:.3f}"
            )
    change = point.gamma.diff()
    if not (change > 0).all():
        worst = int((change <= 0).nonzero()[0])
        raise ValueError(
            f"{name}: gamma(t) must increase with t; it falls by {-change[worst]:.3g} from t = {edges[worst]:.3f}"
        )
    apart = (schedule(edges[3:4]).gamma[0] - point.gamma[3]).abs()
    if apart > 1e-6 * (1 + point.gamma[3].abs()):
        raise ValueError(f"{name}: gamma(t) depends on the other t of its batch, by {apart:.3g}")
    _check_integral(name, "rate", edges, point.gamma, lambda t: schedule(t).rate, 1.0)


def _check_encoder(encoder: Encoder, x: Tensor, start: float, end: float) -> None:
    name = f"encoder {type(encoder).__name__}"
    gamma = torch.linspace(start, end, len(x), dtype=x.dtype, device=x.device)
    found = encoder(x, gamma)
    for what, value in (("value", found.value), ("rate", found.rate)):
        if value.shape != x.shape:
            raise ValueError(
                f"{name}: {what} has shape {tuple(value.shape)} for data {tuple(x.shape)}"
            )
        _check_alone(f"{name}: its {what}", value, getattr(encoder(*_others(x, gamma)), what))
    edges = torch.linspace(start, end, 7, dtype=x.dtype, device=x.device)
    one = x[:1]

    def values(gammas: Tensor) -> Tensor:
        return encoder.encode(one.expand(len(gammas), *one.shape[1:]), gammas).detach()

    def rates(gammas: Tensor) -> Tensor:
        rate: Tensor = encoder(one.expand(len(gammas), *one.shape[1:]), gammas).rate
        return rate.detach()

    _check_integral(name, "rate dx/dlambda", edges, values(edges), rates, -1.0)


@torch.no_grad()
def _check_heads(model: DiffEnc, x: Tensor, start: float, end: float) -> None:
    name = f"heads {type(model.heads).__name__}"
    gamma = torch.linspace(start, end, len(x) + 2, dtype=x.dtype, device=x.device)[1:-1]
    noise = torch.linspace(-1.5, 1.5, x.numel(), dtype=x.dtype).to(x.device).view_as(x)
    z = expand(alpha(gamma), x) * x + expand(sigma(gamma), x) * noise

    def estimates(z: Tensor, gamma: Tensor) -> tuple[Tensor, ...]:
        torch.manual_seed(0)  # the same dropout
        found = model.heads(z, gamma, model.encoder)
        return found.x_hat, found.r_hat

    mode = "training" if model.training else "evaluation"
    pairs = zip(("x_hat", "r_hat"), estimates(z, gamma), estimates(*_others(z, gamma)), strict=True)
    for what, value, beside_others in pairs:
        if value.shape != z.shape:
            raise ValueError(
                f"{name}: {what} has shape {tuple(value.shape)} for latents {tuple(z.shape)}"
            )
        _check_alone(f"{name} in {mode} mode: {what}", value, beside_others)


def _others(x: Tensor, gamma: Tensor) -> tuple[Tensor, Tensor]:
    """The first example as it was, beside others."""
    other, depth = x.clone(), gamma.clone()
    other[1:] = 0.5 * x[1:].flip(-1) - 0.3
    depth[1:] = gamma[0]
    return other, depth


def _check_alone(what: str, value: Tensor, beside_others: Tensor) -> None:
    apart = (value[0] - beside_others[0]).abs().max()
    if apart > 1e-5 * (1 + value[0].abs().max()):  # what is not finite is told elsewhere
        raise ValueError(
            f"{what} of an example depends on the other examples of its batch, by {apart:.3g}; losses and likelihoods "
            "are each example's own (batch normalisation does this: take group or layer normalisation)"
        )


def _check_integral(
    name: str,
    what: str,
    edges: Tensor,
    values: Tensor,
    rates: Callable[[Tensor], Tensor],
    sign: float,
) -> None:
    """values(b) - values(a) = sign int rates over every interval of edges."""
    widths = edges.diff()
    nodes = torch.tensor(_NODES, dtype=edges.dtype, device=edges.device)
    weights = torch.tensor(_WEIGHTS, dtype=edges.dtype, device=edges.device)
    at = edges[:-1, None] + widths[:, None] * nodes
    found = rates(at.flatten()).reshape(*at.shape, -1) * (widths[:, None] * weights)[..., None]
    change = values.reshape(len(edges), -1).diff(dim=0)
    miss = (change - sign * found.sum(1)).abs().amax(1)
    size = torch.maximum(found.abs().sum(1), change.abs()).amax(1)
    wrong = ~(miss <= _SHARE * size + 1e-9)
    if wrong.any():
        i = int(wrong.nonzero()[0])
        raise ValueError(
            f"{name}: {what} is not the derivative of the value, which changes by {change[i].abs().max():.3g} between "
            f"{edges[i]:.3f} and {edges[i + 1]:.3f}; the rate's integral misses that by {miss[i]:.3g}"
        )
