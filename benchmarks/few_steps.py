"""What a bound of few steps costs beyond infinitely many: L_T - L_inf in bits per dimension, on test images.

    python benchmarks/few_steps.py [--data-root ROOT] [--models digits-vdm ...] [--mnist-images 32] [--write]

Rows: Gaussian steps on the uniform grid with w = 1; Gaussian steps calibrated with w*(x_hat), eta* and a grid; mixture
steps on the uniform grid and on a calibrated one. Columns: T = 4 ... 64 network evaluations an image. Grids, ratios and
noise levels are fitted to training images. Every test image visits all T steps, and L_inf is the same image's own, from
256 stratified depths, so that what images differ in cancels; errors are those of the mean over images.

Independent pixels: a posterior head whose network says nothing, with the digits' own histograms as its prior, on images
drawn from these histograms. Its heads are exact, so a mixture step is the true reverse transition, and the excess is 0.

Last line: JSON. worst_ratio_at_16 is the largest share of the first row's excess that the best mixture row leaves at
T = 16, over the models; worst_excess_at_16 and worst_excess_at_4 are in bits per dimension.
"""

import argparse
import json
import math
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

import diffenc_ct as dc
from diffenc_ct.calibration import (
    Calibration,
    Measurement,
    fit_values,
    measure_mixture_steps,
    measure_steps,
    plan,
)
from diffenc_ct.calibration.ratios import KEPT
from diffenc_ct.data import load_dataset
from diffenc_ct.model import evaluating, log_histogram
from diffenc_ct.process import as_noise_level

DEPTHS = (4, 8, 16, 32, 64)
NODES = 16
MODELS = ("digits-vdm", "digits-diffenc", "mnist-vdm", "mnist-diffenc")
ROWS = ("Gaussian, uniform, w = 1", "Gaussian, calibrated, w*(x_hat)")
MIXTURES = ("mixture, uniform", "mixture, calibrated")
RESULTS = Path(__file__).parent / "results"


class Silent(nn.Module):
    """A network that says nothing: heads are left with their prior."""

    def __init__(self, outputs: int) -> None:
        super().__init__()
        self.outputs = outputs

    def forward(self, z: Tensor, gamma: Tensor) -> Tensor:
        return z.new_zeros(len(z), self.outputs * z.shape[1], *z.shape[2:])


@torch.no_grad()
def visited(
    model: dc.DiffEnc, x: Tensor, bound: object, times: list[Tensor], g: torch.Generator
) -> Tensor:
    """The mean diffusion term of each image over depths that all of them visit, in bits per dimension."""
    total = torch.zeros(len(x), dtype=torch.float64)
    with evaluating(model):
        for rows in torch.arange(len(x)).split(64):
            for t in times:
                terms = dc.elbo(model, x[rows], bound, draws=dc.Draws(t=t[rows]), generator=g)
                total[rows] += terms.bits_per_dimension().diffusion.double()
    return total / len(times)


def all_steps(model: dc.DiffEnc, x: Tensor, bound: dc.FiniteDepth, g: torch.Generator) -> Tensor:
    """L_T of each image: every step once."""
    T = bound.depth
    return visited(model, x, bound, [torch.full((len(x),), (i + 0.5) / T) for i in range(T)], g)


def infinite(model: dc.DiffEnc, x: Tensor, depths: int, g: torch.Generator) -> Tensor:
    """L_inf of each image: so many stratified depths."""
    times = [(i + torch.rand(len(x), generator=g)) / depths for i in range(depths)]
    return visited(model, x, dc.InfiniteDepth(), times, g)


def gaussian_calibrations(
    model: dc.DiffEnc, train: Tensor, candidates: int
) -> Callable[[int], Calibration]:
    """One measurement for every T; the ratios of each grid are fitted in a second pass."""
    g = torch.Generator().manual_seed(0)
    how = Measurement(candidates, shared_noise=True, keep=KEPT)
    tables = measure_steps(model, train, how, generator=g)

    def calibration(T: int) -> Calibration:
        found = plan(tables, T, dc.CalibrationOptions(ratio="value"))
        fitted = fit_values(
            found.ratio_per_value, model, train, found.grid, found.noise_level, generator=g
        )
        return replace(found, ratio_per_value=fitted)

    return calibration


def mixture_calibrations(
    model: dc.DiffEnc, train: Tensor, candidates: int, keep: int, tried: list[float]
) -> Callable[[int], Calibration]:
    """The same of mixture steps."""
    how = Measurement(candidates, shared_noise=True, keep=keep)
    levels = [as_noise_level(e**0.5) for e in tried]
    g = torch.Generator().manual_seed(0)
    costs = measure_mixture_steps(model, train, levels, how, nodes=4, generator=g)
    return lambda T: costs.plan(T, levels, uniform=False)


def table(name: str, x: Tensor, l_inf: Tensor, rows: dict[str, list[Tensor]]) -> dict[str, list]:
    """Print L_T - L_inf of each row and T; the means."""
    print(
        f"\n{name}: {len(x)} test images, L_inf {float(l_inf.mean()):.4f}; L_T - L_inf in bits per dimension"
    )
    print(f"{'':<34}" + "".join(f"{f'T = {T}':>19}" for T in DEPTHS))
    for label, losses in rows.items():
        apart = [loss - l_inf for loss in losses]
        cells = [f"{float(a.mean()):.4f} ± {float(a.std()) / math.sqrt(len(a)):.4f}" for a in apart]
        print(f"{label:<34}" + "".join(f"{c:>19}" for c in cells), flush=True)
    return {k: [float((loss - l_inf).mean()) for loss in v] for k, v in rows.items()}


def trained(name: str, settings: argparse.Namespace) -> dict[str, list[float]]:
    """The table of a packaged model."""
    large = name.startswith("mnist")
    model, data = dc.load(name), load_dataset(name.split("-")[0], root=settings.data_root)
    x = data.test[: settings.mnist_images if large else settings.digits_images]
    train = data.train[: 64 if large else 512]
    g = torch.Generator().manual_seed(1)
    l_inf = infinite(model, x, settings.infinite, g)
    rows: dict[str, list[Tensor]] = {}
    # At eta = 1 without an encoder no other noise level costs less (theorem elbo.mixture_noise_level).
    tried = [1.0] if name.endswith("vdm") else [0.5**0.5, 1.0, 2**0.5]
    makers = {
        ROWS[0]: lambda T: dc.FiniteDepth(T),
        MIXTURES[0]: lambda T: dc.FiniteDepth(T, step="mixture", nodes=NODES),
    }
    keep = 1024 if large else KEPT
    found = mixture_calibrations(model, train, settings.candidates, keep, tried)
    makers[MIXTURES[1]] = lambda T: dc.FiniteDepth(found(T), nodes=NODES)
    if not settings.mixtures_only:
        gaussian = gaussian_calibrations(model, train[:32] if large else train, 128)
        makers[ROWS[1]] = lambda T: dc.FiniteDepth(gaussian(T))
    for label in (*ROWS, *MIXTURES):
        if label in makers:
            rows[label] = [all_steps(model, x, makers[label](T), g) for T in DEPTHS]
    means = table(name, x, l_inf, rows)
    for T in (4, 16):
        at = found(T)
        print(f"grid of T = {T}, gamma: {[round(float(v), 2) for v in at.gamma]}, eta^2: "
              f"{[round(float(v), 2) for v in at.eta_squared]}")  # fmt: skip
    return means


def independent(settings: argparse.Namespace) -> dict[str, list[float]]:
    """The table of independent pixels."""
    data = load_dataset("digits")
    prior = log_histogram(data.train, data.levels)
    heads = dc.Posterior(Silent(dc.Posterior.outputs_for(data.levels)), data.levels, prior=prior)
    schedule = dc.LinearSchedule(-7.9, 5.0)
    model = dc.DiffEnc(schedule, dc.IdentityEncoder(), heads, dc.Levels(data.levels))
    g = torch.Generator().manual_seed(0)
    n = settings.independent_images
    x = torch.multinomial(prior.flatten(0, -2).exp(), n, replacement=True, generator=g)
    x = x.T.reshape(n, *data.test.shape[1:])
    l_inf = infinite(model, x, settings.infinite, g)
    rows = {
        ROWS[0]: [all_steps(model, x, dc.FiniteDepth(T), g) for T in DEPTHS],
        MIXTURES[0]: [
            all_steps(model, x, dc.FiniteDepth(T, step="mixture", nodes=NODES), g) for T in DEPTHS
        ],
    }
    return table("independent pixels, exact heads", x, l_inf, rows)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--data-root", help="folder of the downloaded data sets")
    parser.add_argument("--models", nargs="*", default=MODELS)
    parser.add_argument("--digits-images", type=int, default=360)
    parser.add_argument("--mnist-images", type=int, default=32)
    parser.add_argument("--independent-images", type=int, default=2000)
    parser.add_argument("--infinite", type=int, default=256, help="depths of L_inf an image (256)")
    parser.add_argument(
        "--candidates", type=int, default=64, help="depths of a mixture's grid (64)"
    )
    parser.add_argument(
        "--mixtures-only", action="store_true", help="without the calibrated Gaussian steps"
    )
    parser.add_argument(
        "--write", action="store_true", help="keep the last line in benchmarks/results/"
    )
    settings = parser.parse_args()
    torch.set_num_threads(1)
    exact = independent(settings)[MIXTURES[0]]
    ratios, at_16, at_4 = [], [], []
    for name in settings.models:
        began = time.time()
        rows = trained(name, settings)
        best = [min(cells) for cells in zip(*(rows[k] for k in MIXTURES), strict=True)]
        ratios.append(best[2] / rows[ROWS[0]][2])
        at_16.append(best[2])
        at_4.append(best[0])
        print(f"{time.time() - began:.0f} s", flush=True)
    result = {
        "worst_ratio_at_16": max(ratios, default=None),
        "worst_excess_at_16": max(at_16, default=None),
        "worst_excess_at_4": max(at_4, default=None),
        "independent_excess_at_8": exact[1],
    }
    line = json.dumps(result)
    if settings.write:
        (RESULTS / "few-steps.json").write_text(line + "\n")
    print(line)


if __name__ == "__main__":
    main()
