"""Encode and decode: images chained on one stack, and everything that must be the same on both sides."""

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Int, Integer
from torch import Tensor

from diffenc_ct.calibration import Calibration
from diffenc_ct.coding.bits_back import BitsBack
from diffenc_ct.coding.file import Header, read, write
from diffenc_ct.coding.stack import Stack, initial_words
from diffenc_ct.coding.tiles import Size, check_sizes
from diffenc_ct.distributed import Progress, silent
from diffenc_ct.elbo import FiniteDepth
from diffenc_ct.model import DiffEnc, evaluating
from diffenc_ct.model.fingerprint import fingerprint
from diffenc_ct.process import Estimates

# Before it leaves any bits, an example pops a latent for each step and one more, each of the grid's few bits beside the
# noise's own; what the examples before it left must pay for that: so many of them a latent.
PAID = 4

AnySteps = int | Tensor | Calibration | FiniteDepth


@dataclass(frozen=True)
class CodingOptions:
    """How a message is made.

    Attributes:
        bits: b; the latents' grids have the width S 2^-b. One more costs one initial bit a latent.
        batch: most examples at a time: more is faster.
        seed: of the initial bits.

    Raises:
        ValueError: for a grid that is coarser than the noise or finer than probabilities are, and no batch.
    """

    bits: int = 4
    batch: int = 16
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.bits <= 10:
            raise ValueError(
                f"bits={self.bits}; the latents' grid has 0 to 10 bits below the noise"
            )
        if self.batch < 1:
            raise ValueError(f"batch={self.batch}; at least 1 example is coded at a time")
        if not 0 <= self.seed < 2**63:
            raise ValueError(f"seed={self.seed} must be in 0..2^63 - 1")


def batches(count: int, most: int, depth: int) -> list[int]:
    """How many examples are coded at a time: one at first, since each pops bits that nobody has paid for.

    Args:
        count: of all.
        most: at a time.
        depth: T, the number of steps.

    Example:
        >>> sizes = batches(400, 4, depth=15)
        >>> sizes[127], sizes[128], sum(sizes), max(sizes)
        (1, 2, 400, 4)
    """
    sizes, done = [], 0
    while done < count:
        sizes.append(min(max(1, done // (PAID * (depth + 1))), most, count - done))
        done += sizes[-1]
    return sizes


@torch.no_grad()
def encode(
    model: DiffEnc,
    x: Integer[Tensor, "batch *data"],
    steps: AnySteps,
    options: CodingOptions | None = None,
    *,
    sizes: Sequence[Size] = (),
    run: dict[str, Any] | None = None,
    progress: Progress = silent,
) -> bytes:
    """Examples as bytes, L_0 + L_1 + L_T of them and the initial bits of the first.

    Takes T evaluations of the network an example. `read(data).net` is the length in bits per dimension.

    Args:
        model: of levels; where it is given conditions, decode with the same.
        x: levels.
        steps: FiniteDepth, or what it takes: T, a grid, a Calibration.
        options: CodingOptions() by default.
        sizes: of the images whose tiles the examples are, as `cut` returned them; kept in the header.
        run: kept in the header, JSON.
        progress: called with the number of examples that were done.

    Raises:
        ValueError: for a model of reals, levels that are out of range, and sizes that are not those of the tiles.
        MissingExtra: constriction is not installed.

    Example:
        >>> import torch, diffenc_ct as dc
        >>> network = dc.networks.MLP(3, outputs=3 * dc.Posterior.outputs_for(levels=16))
        >>> model = dc.DiffEnc(dc.LinearSchedule(), dc.IdentityEncoder(), dc.Posterior(network, 16), dc.Levels(16))
        >>> x = torch.randint(0, 16, (5, 3))
        >>> steps = dc.FiniteDepth(4, step="mixture")
        >>> torch.equal(decode(model, encode(model, x, steps), steps), x)
        True
    """
    options, loss = CodingOptions() if options is None else options, _finite(steps)
    levels = _levels(model)
    model.decoder.check(x)
    if x.ndim < 2 or not x.numel():
        raise ValueError(
            f"x has shape {tuple(x.shape)}; it must be (batch, *data), one example or more"
        )
    check_sizes(sizes, x.shape[1:], len(x))
    shape, stack = tuple(x.shape[1:]), Stack(options.seed)
    with evaluating(model):
        for rows in _rows(batches(len(x), options.batch, loss.depth)):
            BitsBack(model.rows(rows), loss, shape, options.bits).push(stack, x[rows.to(x.device)])
            progress(len(rows))
    words = stack.words
    header = Header(
        len(x), list(shape), levels, loss.depth, _grid(loss), str(loss.level), _ratio(loss), loss.step_kind,
        _steps_digest(model, loss, shape), fingerprint(model), _digest(x, sizes), options.bits, options.batch,
        options.seed, stack.dug, torch.__version__, torch.get_num_threads(), _device(model), run or {},
        [list(size) for size in sizes],
    )  # fmt: skip
    return write(header, words)


@torch.no_grad()
def decode(
    model: DiffEnc, data: bytes, steps: AnySteps, *, progress: Progress = silent
) -> Int[Tensor, "batch *data"]:
    """The examples that `encode` was given, or an error; never others.

    Runs on as many threads as the encoder did.

    Args:
        model: the same.
        data: what `encode` returned.
        steps: the same.
        progress: called with the number of examples that were done.

    Raises:
        ValueError: where the file is damaged or another's, the model or its steps are others than the encoder's, or
            this machine's floats differ from its.
        MissingExtra: constriction is not installed.
    """
    coded, loss = read(data), _finite(steps)
    header = coded.header
    _check(header, model, loss)
    stack, found = Stack(header.seed, coded.words), list[Tensor]()
    floor = initial_words(header.seed, header.initial)
    with evaluating(model), _threads(header.threads):
        for rows in reversed(list(_rows(batches(header.count, header.batch, header.depth)))):
            code = BitsBack(model.rows(rows), loss, tuple(header.shape), header.bits)
            try:
                found.insert(0, code.pop(stack, len(rows)))
            except ValueError:  # nonsense where floats differ
                raise ValueError(_differs(header, model)) from None
            progress(len(rows))
    x = torch.cat(found)
    if _digest(x, header.sizes) != header.images or not np.array_equal(stack.words, floor):
        raise ValueError(_differs(header, model))
    return x


def _finite(steps: AnySteps) -> FiniteDepth:
    return steps if isinstance(steps, FiniteDepth) else FiniteDepth(steps)


def _levels(model: DiffEnc) -> int:
    if model.decoder.levels is None:
        raise ValueError(
            "the model is one of reals, which have no code of finite length: code data of levels"
        )
    return model.decoder.levels


def _rows(sizes: list[int]) -> Iterator[Tensor]:
    yield from torch.split(torch.arange(sum(sizes)), sizes)


def _device(model: DiffEnc) -> str:
    return next(model.parameters(), torch.empty(0)).device.type


@contextmanager
def _threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


# What must be the same -----------------------------------------------------------------------------------


def _check(header: Header, model: DiffEnc, loss: FiniteDepth) -> None:
    """Refuse another model or other steps than the encoder's."""
    if header.model != fingerprint(model):
        raise ValueError("the images were coded by a model of other weights: decode with that one")
    given = {
        "depth": loss.depth, "grid": _grid(loss), "step": loss.step_kind, "noise_level": str(loss.level),
        "ratio": _ratio(loss),
    }  # fmt: skip
    for name, value in given.items():
        if getattr(header, name) != value:
            raise ValueError(
                f"the images were coded with {name} {_short(getattr(header, name))}, not {_short(value)}: decode with "
                "the same steps"
            )
    if header.steps != _steps_digest(model, loss, tuple(header.shape)):
        raise ValueError(
            "the images were coded with another noise level or variance ratio: decode with the same steps"
        )


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _grid(loss: FiniteDepth) -> list[float] | str:
    grid = loss.grid(torch.empty(0, dtype=torch.float64))
    uniform = FiniteDepth(loss.depth).grid(grid)
    return "uniform" if torch.equal(grid, uniform) else [float(t) for t in grid]


def _ratio(loss: FiniteDepth) -> str:
    ratio = loss.variance_ratio
    if callable(ratio):
        return "a function of the estimates"
    w = torch.as_tensor(ratio)
    return (
        f"{float(w.flatten()[0]):g}" if bool((w == w.flatten()[0]).all()) else f"{tuple(w.shape)}"
    )


def _steps_digest(model: DiffEnc, loss: FiniteDepth, shape: tuple[int, ...]) -> str:
    """Of all numbers of the steps: gamma, the integrals of eta^2, and w at some estimates."""
    code = BitsBack(model, loss, shape, 0)
    gamma, digest = code.gamma, hashlib.sha256()
    ratio, steps = loss.variance_ratio, torch.arange(loss.depth, device=gamma.device)
    if callable(ratio):
        line = torch.linspace(-1, 1, 257, dtype=torch.float64, device=gamma.device)
        each = line.repeat(loss.depth, 1)
        ratio = ratio(steps, Estimates(each, each))
    integrals = loss.level.integral(gamma[:-1], gamma[1:])
    for part in (gamma, integrals, torch.as_tensor(ratio, dtype=torch.float64)):
        digest.update(part.detach().cpu().double().numpy().astype("<f8").tobytes())
    return digest.hexdigest()


def _digest(x: Tensor, sizes: Sequence[Size]) -> str:
    parts = x.cpu().contiguous().numpy(), np.array(sizes)
    return hashlib.sha256(b"".join(part.astype("<i8").tobytes() for part in parts)).hexdigest()


def _differs(header: Header, model: DiffEnc) -> str:
    return (
        "the decoded images are not those that were coded, since floats differ here: coded with torch "
        f"{header.torch} on {header.device}, {header.threads} threads; this is torch {torch.__version__} on "
        f"{_device(model)}"
    )
