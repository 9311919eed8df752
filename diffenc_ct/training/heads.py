"""Fitting a head for E[x_t | z_t] to a trained single-head model, leaving its ELBO untouched.

One network trained by the paper's loss learns x_hat = E[x_t + x_t' | z]/(1 + c). The probability flow needs
the two parts: a second network s_hat, of the same prediction type, is fitted to

    E_{t, eps} [ weight ||x_t - s_hat(z_t)||^2 ],       minimised by s_hat = E[x_t | z_t] at every depth

with encoder and network frozen; then r_hat = (1 + c) x_hat - s_hat. The weight, 1/sigma^2 (alpha^2/sigma^2 for
"eps"), makes the loss ||u - v||^2 (||u - eps||^2) in the network's own units.

Variants, all starting from the trained network:
    "detached trunk"   a copy, its last layer fitted and the trunk frozen (the default)
    "own network"      a copy, all of it fitted
Or any module head(z, gamma) -> u of z's shape. The larger ones have the smaller regression loss and the worse flow:
r_hat is a difference of two networks' outputs, and those on one trunk share their errors, which cancel in it.

Reference: regression onto a posterior mean; theory/calibration.py, optimal_head.
"""

import copy
import hashlib
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from diffenc_ct.elbo import LowDiscrepancyDepths
from diffenc_ct.model import DiffEnc, Prediction
from diffenc_ct.process import marginal, normal_like
from diffenc_ct.schedules import alpha2, sigma2

Variant = Literal["own network", "detached trunk"]
VARIANTS = ("detached trunk", "own network")


@dataclass(frozen=True)
class FittedHead:
    """The model with its head, and the loss of every step (mean per dimension, in the network's units)."""

    model: DiffEnc
    losses: list[float]


def fit_head(
    model: DiffEnc,
    data: Tensor,
    *,
    variant: Variant = "detached trunk",
    head: nn.Module | None = None,
    steps: int = 1000,
    batch_size: int = 64,
    learning_rate: float = 1e-3,
    generator: torch.Generator | None = None,
    progress: Callable[[Iterable[int]], Iterable[int]] = iter,
) -> FittedHead:
    """A new DiffEnc that shares schedule, encoder and network with `model`, and has a fitted head besides.

    data: training data as the model expects, (N, *data). head: a module of your own to be fitted, whole, instead of a
    variant. Adam, the learning rate falling to zero along a cosine. The model's own parameters are neither
    changed nor given gradients. Raises ValueError for a model whose heads are paired already, an unknown
    variant, steps or sizes below 1. Theorem: calibration.optimal_head.
    """
    if model.paired:
        raise ValueError(
            "the model has paired heads already; a head is fitted to a single-head model"
        )
    if head is None and variant not in VARIANTS:
        raise ValueError(
            f"variant={variant!r}; choose one of {', '.join(VARIANTS)}, or give `head`"
        )
    if min(steps, batch_size, len(data)) < 1 or not learning_rate > 0:
        raise ValueError(
            f"steps={steps}, batch_size={batch_size}, {len(data)} examples must be at least 1, "
            f"learning_rate={learning_rate} positive"
        )
    whole = head is not None or variant == "own network"
    head = copy.deepcopy(model.network) if head is None else head
    fitted = with_head(model, head)
    part = head if whole else _last_layer(head)
    head.requires_grad_(False)
    part.requires_grad_(True)
    trained = list(part.parameters())
    optimiser = torch.optim.Adam(trained, lr=learning_rate)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimiser, lambda step: 0.5 * (1 + math.cos(math.pi * step / steps))
    )
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    training, losses = model.training, []
    model.eval()
    head.train()
    for _ in progress(range(steps)):
        index = torch.randint(len(data), (batch_size,), generator=generator, device=data.device)
        loss = _loss(fitted, head, data[index].to(device), generator)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        schedule.step()
        losses.append(loss.item())
        if not math.isfinite(losses[-1]):
            raise ValueError(
                f"the loss became {losses[-1]} at step {len(losses)}; lower learning_rate={learning_rate}"
            )
    model.train(training)
    fitted.train(training)
    return FittedHead(fitted, losses)


def save_head(fitted: DiffEnc, path: str | Path) -> None:
    """Write a fitted head, and which network it belongs to, as safetensors."""
    assert fitted.head is not None
    tensors = {name: value.contiguous() for name, value in fitted.head.state_dict().items()}
    save_file(tensors, str(path), metadata={"network": fingerprint(fitted.network)})


def load_head(model: DiffEnc, path: str | Path, *, head: nn.Module | None = None) -> DiffEnc:
    """`model` with the head that `save_head` wrote; head: its module, if it is not a copy of the network.

    Raises ValueError where the head was fitted to other weights than the model's, for then r_hat would be wrong.
    """
    with safe_open(str(path), framework="pt") as file:
        network = (file.metadata() or {}).get("network")
        tensors = {name: file.get_tensor(name) for name in file.keys()}
    if network != fingerprint(model.network):
        raise ValueError(
            f"{path} was fitted to other weights than this model's; fit a head to them with fit_head"
        )
    head = copy.deepcopy(model.network) if head is None else head
    head.load_state_dict(tensors)
    return with_head(model, head).train(model.training)


def fingerprint(network: nn.Module) -> str:
    """A digest of a network's tensors."""
    digest = hashlib.sha256()
    for name, value in network.state_dict().items():
        digest.update(name.encode() + value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def with_head(model: DiffEnc, head: nn.Module) -> DiffEnc:
    """A DiffEnc that shares schedule, encoder and network with a single-head model, and has `head` besides."""
    return DiffEnc(
        model.schedule,
        model.encoder,
        model.network,
        levels=model.levels,
        prediction=model.prediction,
        head=head,
        shape=model.shape,
    )


def regression_loss(error: Tensor, gamma: Tensor, prediction: Prediction) -> Tensor:
    """weight ||x_t - s_hat||^2 / d from the error x_t - s_hat, (batch,): ||u - v||^2/d, ||u - eps||^2/d or SNR-free
    ||x_t - x_hat||^2/(sigma^2 d), by the prediction. Theorem: calibration.optimal_head.
    """
    weight = (alpha2(gamma) if prediction == "eps" else 1) / sigma2(gamma)
    return weight * error.square().flatten(1).mean(1)


def _loss(model: DiffEnc, head: nn.Module, x: Tensor, generator: torch.Generator | None) -> Tensor:
    """weight ||x_t - s_hat||^2, mean over examples and dimensions."""
    with torch.no_grad():
        data = model.scale(x)
        t, _ = LowDiscrepancyDepths().draw(len(data), like=data, generator=generator)
        gamma, noise = model.schedule(t).gamma, normal_like(data, generator)
        x_t = model.encoder.encode(data, gamma)
        z = marginal(x_t, gamma).sample(noise=noise)
    error = model.x_error(head(z, gamma), noise, x_t, gamma)
    return regression_loss(error, gamma, model.prediction).mean()


def _last_layer(network: nn.Module) -> nn.Module:
    """The last module with parameters of its own, in order of registration."""
    own = [m for m in network.modules() if any(True for _ in m.parameters(recurse=False))]
    if not own:
        raise ValueError("the network has no parameters: nothing to fit")
    return own[-1]
