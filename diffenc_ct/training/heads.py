"""Fitting a head for E[x_t | z_t] to a trained model of one sum, leaving its ELBO untouched: its heads become Separate.

One network trained by the paper's loss learns x_hat = E[x_t + x_t' | z]/(1 + c). The probability flow needs
the two parts: a second network under the same heads, with estimate s_hat, is fitted to

    E_{t, eps} [ weight ||x_t - s_hat(z_t)||^2 ],       minimised by s_hat = E[x_t | z_t] at every depth

with encoder and network frozen; then r_hat = (1 + c) x_hat - s_hat. The weight is 1/sigma^2 (alpha^2/sigma^2 for
"eps"): ||u - v||^2 (||u - eps||^2) in the units of a network that predicts v (eps).

Variants, all starting from the trained network:
    "detached trunk"   a copy, its last layer fitted and the trunk frozen (the default)
    "own network"      a copy, all of it fitted
Or any module head(z, gamma) -> u of z's shape. The larger ones have the smaller regression loss and the worse flow:
r_hat is a difference of two networks' outputs, and those on one trunk share their errors, which cancel in it.

Reference: regression onto a posterior mean; theory/calibration.py, optimal_head.
"""

import copy
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import torch
from jaxtyping import Shaped
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from diffenc_ct.distributed import Progress, silent
from diffenc_ct.elbo import LowDiscrepancyDepths
from diffenc_ct.encoders import Encoding
from diffenc_ct.model import DiffEnc, Heads, Separate, evaluating
from diffenc_ct.model.fingerprint import check_fitted_to, fingerprint
from diffenc_ct.process import marginal, normal_like
from diffenc_ct.report.files import write_atomically

AGAIN = "fit one to these with `diffenc fit-head RUN`, or delete it"

Variant = Literal["detached trunk", "own network"]
VARIANTS: tuple[Variant, ...] = get_args(Variant)


@dataclass(frozen=True)
class HeadFitting:
    """How a head is fitted: by Adam, the learning rate falling to zero along a cosine.

    Attributes:
        variant: "detached trunk" or "own network", of a copy of the model's network.
        steps: of Adam.
        batch_size: examples a step.
        learning_rate: at the start.

    Raises:
        ValueError: for an unknown variant, and for numbers that are not positive and finite.
    """

    variant: Variant = "detached trunk"
    steps: int = 1000
    batch_size: int = 64
    learning_rate: float = 1e-3

    def __post_init__(self) -> None:
        if self.variant not in VARIANTS:
            raise ValueError(
                f"variant={self.variant!r}; choose one of {', '.join(VARIANTS)}, or give `head`"
            )
        if min(self.steps, self.batch_size) < 1 or not 0 < self.learning_rate < math.inf:
            raise ValueError(
                f"steps={self.steps}, batch_size={self.batch_size} must be at least 1, "
                f"learning_rate={self.learning_rate} positive and finite"
            )


@dataclass(frozen=True)
class FittedHead:
    """A model with its head, and how the fit went.

    Attributes:
        model: shares schedule, encoder and network with the one it was fitted to.
        losses: of every step, mean per dimension, in the network's units.
    """

    model: DiffEnc
    losses: list[float]


def fit_head(
    model: DiffEnc,
    data: Shaped[Tensor, "examples *data"],
    fitting: HeadFitting | None = None,
    *,
    head: nn.Module | None = None,
    generator: torch.Generator | None = None,
    progress: Progress = silent,
) -> FittedHead:
    """A new DiffEnc that shares schedule, encoder and network with `model`, and has a fitted head besides.

    The model's own parameters are neither changed nor given gradients. Theorem: calibration.optimal_head.

    Args:
        model: with heads of one sum, Single or posterior heads that are not paired.
        data: training data, levels or reals.
        fitting: HeadFitting() by default.
        head: a module head(z, gamma) of your own to be fitted, whole, instead of a variant.
        generator: of batches, depths and noise.
        progress: called with the number of steps that were done.

    Raises:
        ValueError: for a model that estimates both quantities already, no data, or a loss that is not finite.
    """
    fitting = HeadFitting() if fitting is None else fitting
    tied = _tied(model)
    if not len(data):
        raise ValueError("data holds no examples")
    whole = head is not None or fitting.variant == "own network"
    head = copy.deepcopy(tied.get_submodule("network")) if head is None else head
    fitted = with_head(model, head)
    part = head if whole else _last_layer(head)
    head.requires_grad_(False)
    part.requires_grad_(True)
    trained, steps = list(part.parameters()), fitting.steps
    optimiser = torch.optim.Adam(trained, lr=fitting.learning_rate)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimiser, lambda step: 0.5 * (1 + math.cos(math.pi * step / steps))
    )
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    fitted_heads, losses = tied.on(head), []
    with evaluating(fitted):
        head.train()
        for _ in range(steps):
            index = torch.randint(
                len(data), (fitting.batch_size,), generator=generator, device=data.device
            )
            loss = _loss(model, fitted_heads.rows(index), data[index].to(device), generator)
            optimiser.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            schedule.step()
            losses.append(loss.item())
            progress(1)
            if not math.isfinite(losses[-1]):
                raise ValueError(
                    f"the loss became {losses[-1]} at step {len(losses)}; lower learning_rate={fitting.learning_rate}"
                )
    # The last loss was that of the weights before the last step.
    if not all(bool(parameter.isfinite().all()) for parameter in trained):
        raise ValueError(
            f"the head is not finite after {steps} steps; lower learning_rate={fitting.learning_rate}"
        )
    return FittedHead(fitted, losses)


def _tied(model: DiffEnc) -> Heads:
    if model.heads.tells_apart or not isinstance(getattr(model.heads, "network", None), nn.Module):
        raise ValueError(
            f"the model's heads are {type(model.heads).__name__}; a head is fitted beside heads with one network that "
            "estimate one sum only, such as Single"
        )
    return model.heads


def save_head(fitted: DiffEnc, path: str | Path) -> None:
    """Write a fitted head, and which weights it belongs to, as safetensors.

    Args:
        fitted: a model with Separate heads.
        path: of the file.
    """
    heads = fitted.heads
    assert isinstance(heads, Separate)
    own = heads.head.get_submodule("network")
    tensors = {name: value.contiguous().cpu() for name, value in own.state_dict().items()}
    owner = DiffEnc(fitted.schedule, fitted.encoder, heads.tied, fitted.decoder, shape=fitted.shape)
    write_atomically(Path(path), save(tensors, metadata={"fitted_to": fingerprint(owner)}))


def load_head(model: DiffEnc, path: str | Path, *, head: nn.Module | None = None) -> DiffEnc:
    """`model` with the head that `save_head` wrote.

    Args:
        model: with heads of one sum.
        path: of the file.
        head: its module, if it is not a copy of the network.

    Raises:
        ValueError: where the head was fitted to other weights than the model's, for then r_hat would be wrong, and
            where the file is truncated or something else.
    """
    network = _tied(model).get_submodule("network")
    head = copy.deepcopy(network) if head is None else head
    try:
        with safe_open(str(path), framework="pt") as file:
            known = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}
        # Version 0.1 kept the fingerprint of the network alone.
        owner, whole = known.get("fitted_to", known.get("network", "")), "fitted_to" in known
        check_fitted_to(owner, model if whole else network, str(path), AGAIN)
        head.load_state_dict(tensors)
    except (SafetensorError, RuntimeError) as error:
        raise ValueError(
            f"{path} is truncated, altered or no head of this model ({error}); {AGAIN}"
        ) from error
    return with_head(model, head.train(model.training))


def with_head(model: DiffEnc, head: nn.Module) -> DiffEnc:
    """A DiffEnc that shares schedule, encoder and network with a model of one sum, and has `head` besides."""
    tied = _tied(model)
    heads = Separate(tied, tied.on(head))
    fitted = DiffEnc(model.schedule, model.encoder, heads, model.decoder, shape=model.shape)
    heads.training = fitted.training = (
        model.training
    )  # of what is new; shared parts stay as they are
    return fitted


def _loss(
    model: DiffEnc,
    head: Heads,
    x: Tensor,
    generator: torch.Generator | None,
) -> Tensor:
    """weight ||x_t - s_hat||^2, mean over examples and dimensions."""
    with torch.no_grad():
        data = model.scale(x)
        t, _ = LowDiscrepancyDepths().draw(len(data), like=data, generator=generator)
        gamma, noise = model.schedule(t).gamma, normal_like(data, generator)
        x_t = model.encoder.encode(data, gamma)
        z = marginal(x_t, gamma).sample(noise=noise)
    errors = head.errors(z, noise, Encoding(x_t, torch.zeros_like(x_t)), gamma, model.encoder)
    return head.x_loss(errors.x, gamma).mean()


def _last_layer(network: nn.Module) -> nn.Module:
    """The last module with parameters of its own, in order of registration."""
    own = [m for m in network.modules() if any(True for _ in m.parameters(recurse=False))]
    if not own:
        raise ValueError("the network has no parameters: nothing to fit")
    return own[-1]
