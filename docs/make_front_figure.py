"""The first picture of README: figures/front.png, and its numbers: benchmarks/results/front.json.

    python docs/make_front_figure.py --data-root data [--images 60] [--draws 64]

Left: a test image of MNIST as `mnist-diffenc` encodes it, x_t, and what noise leaves of that, z_t. Right: the bound of
a model of T steps of `digits-diffenc` closing on that of infinite depth, and the exact likelihood of the probability
flow; test images, the same for all.
"""

import argparse
import json
import math
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import torch
from matplotlib.axes import Axes
from torch import Tensor

import diffenc_ct as dc
from diffenc_ct.cli.options import load_data
from diffenc_ct.process import marginal
from diffenc_ct.report.files import as_json
from diffenc_ct.training.config import replace
from diffenc_ct.training.evaluation import evaluate
from diffenc_ct.training.runs import open_run

HERE = Path(__file__).parent
PICTURE, RESULT = HERE / "figures/front.png", HERE.parent / "benchmarks/results/front.json"
SHOWN, EXAMPLE, MEASURED = "mnist-diffenc", 1, "digits-diffenc"
DEPTHS, STEPS = (0.0, 0.4, 0.6, 0.7, 0.85, 1.0), (4, 8, 16, 32, 64, 128)
KINDS = {"gaussian": "Gaussian steps", "mixture": "mixture steps"}


@torch.no_grad()
def pictures(model: dc.DiffEnc, x: Tensor) -> tuple[list[Tensor], list[Tensor]]:
    """x_t and z_t of one example at each of DEPTHS, (height, width), with one noise."""
    data = model.scale(x[None])
    noise = torch.randn(data.shape, generator=torch.Generator().manual_seed(0))
    encoded, noisy = [], []
    for t in DEPTHS:
        gamma = model.schedule(torch.tensor([t])).gamma
        x_t = model.encoder.encode(data, gamma)
        encoded.append(x_t[0, 0])
        noisy.append(marginal(x_t, gamma).sample(noise=noise)[0, 0])
    return encoded, noisy


def measure(model: dc.DiffEnc, test: Tensor, draws: int) -> dict[str, Any]:
    """Bits per dimension of bounds and flow, and what sets the flow apart, with standard errors over images."""
    infinite = evaluate(model, test, dc.InfiniteDepth(), draws=4 * draws)
    found: dict[str, Any] = {"images": len(test), "draws": draws, "model": MEASURED}
    found["infinite"] = [infinite.mean("total"), infinite.error("total")]
    for kind in KINDS:
        found[kind] = {
            str(T): evaluate(model, test, dc.FiniteDepth(T, step=kind), draws=draws).mean("total")
            for T in STEPS
        }
    flow = dc.log_likelihood(model, test, generator=torch.Generator().manual_seed(0))
    apart = flow.bits_per_dimension - infinite.terms["total"]
    found["flow"] = flow.bits_per_dimension.mean().item()
    found["flow_less_bound"] = [apart.mean().item(), apart.std().item() / math.sqrt(len(apart))]
    found["evaluations"] = flow.evaluations.double().mean().item()
    return found


def draw_bounds(axis: Axes, found: dict[str, Any]) -> None:
    infinite, flow = found["infinite"][0], found["flow"]
    for (kind, label), colour in zip(KINDS.items(), ("#d55e00", "#0072b2"), strict=True):
        axis.plot(STEPS, list(found[kind].values()), "o-", ms=3, color=colour, label=label)
    axis.axhline(infinite, color="black", lw=1, ls="--", label="infinite depth")
    axis.axhline(flow, color="#009e73", lw=1, label="probability flow, exact")
    axis.set(xscale="log", yscale="log", xlabel="steps T", title="bits per dimension, 8x8 digits")
    axis.tick_params(labelsize=8)
    axis.set_xticks(STEPS, [str(T) for T in STEPS])
    axis.set_yticks([1, 2, 4, 8, 16], ["1", "2", "4", "8", "16"])
    axis.minorticks_off()
    axis.legend(fontsize=7, frameon=False)
    axis.spines[["top", "right"]].set_visible(False)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--data-root", help="folder of the downloaded data sets")
    parser.add_argument("--images", type=int, default=60, help="test images (60)")
    parser.add_argument("--draws", type=int, default=64, help="of each and each bound (64)")
    parser.add_argument("--kept", action="store_true", help="draw the numbers that were kept")
    arguments = parser.parse_args()
    if not arguments.kept:
        opened = open_run(MEASURED)
        test = load_data(opened.config.data).test[: arguments.images]
        RESULT.write_text(as_json(measure(opened.model, test, arguments.draws)) + "\n")
    found = json.loads(RESULT.read_text())
    print(found)

    opened = open_run(SHOWN)
    data = load_data(replace(opened.config, {"data.root": arguments.data_root}).data)
    figure = plt.figure(figsize=(10, 2.5))
    left, right = figure.subfigures(1, 2, width_ratios=[2.3, 1], wspace=0.0)
    axes = left.subplots(2, len(DEPTHS), gridspec_kw={"wspace": 0.05, "hspace": 0.05})
    for line, images, label in zip(
        axes, pictures(opened.model, data.test[EXAMPLE]), "xz", strict=True
    ):
        for axis, image in zip(line, images, strict=True):
            axis.imshow(image, cmap="gray", vmin=-1.2, vmax=1.2)
            axis.set(xticks=[], yticks=[])
        line[0].set_ylabel(f"${label}_t$", rotation=0, ha="right", va="center", fontsize=12)
    for axis, t in zip(axes[0], DEPTHS, strict=True):
        axis.set_title(f"t = {t:g}" if t else "x", fontsize=9)
    axis = right.subplots()
    axis.set_position((0.1, 0.2, 0.88, 0.68))
    draw_bounds(axis, found)
    axis.title.set_fontsize(9)
    figure.savefig(PICTURE, dpi=150, bbox_inches="tight")
    print(f"wrote {PICTURE}")


if __name__ == "__main__":
    main()
