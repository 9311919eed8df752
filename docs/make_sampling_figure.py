"""Samples at 16 steps with and without calibration, of the pretrained MNIST model: figures/calibrated-samples.png.

python docs/make_sampling_figure.py [--data-root data] [--examples 16]
"""

import argparse
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import torch

import diffenc_ct as dc
from diffenc_ct.data import load_dataset

RUN, STEPS, COLUMNS = "mnist-vdm", 16, 12
PICTURE = Path(__file__).parent / "figures" / "calibrated-samples.png"


def draw(
    model: dc.DiffEnc, rows: dict[str, dc.Solver], columns: int, height: float, path: Path
) -> None:
    """A picture with a row of samples by each solver, named at its left, all of the same seed."""
    figure, axes = plt.subplots(
        len(rows), columns, figsize=(9, height), gridspec_kw={"wspace": 0.04, "hspace": 0.06}
    )
    for line, (label, solver) in zip(axes, rows.items(), strict=True):
        g = torch.Generator().manual_seed(3)
        images = dc.sample(model, columns, solver=solver, generator=g).samples
        for axis, image in zip(line, images, strict=True):
            axis.imshow(image[0], cmap="gray", vmin=0, vmax=255)
            axis.set(xticks=[], yticks=[])
        line[0].set_ylabel(label, rotation=0, ha="right", va="center", fontsize=9)
    figure.savefig(path, dpi=130, bbox_inches="tight")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data-root", help="folder of the downloaded data sets")
    parser.add_argument("--examples", type=int, default=16, help="training examples to fit to")
    arguments = parser.parse_args()
    model = dc.load(RUN)
    train = load_dataset("mnist", root=arguments.data_root).train[: arguments.examples]
    numbers, values = (
        dc.calibrate(
            model,
            train,
            STEPS,
            dc.CalibrationOptions(ratio=ratio, candidates=128),
            generator=torch.Generator().manual_seed(0),
        )
        for ratio in ("step", "value")
    )
    rows = {
        "uniform grid, $w = 1$": dc.Ancestral(steps=STEPS),
        "calibrated, $w_*$ a number": dc.Ancestral.of(numbers),
        "calibrated, $w_*(\\hat x)$": dc.Ancestral.of(values),
        "exponential integrator": dc.Exponential(steps=STEPS),
    }
    draw(model, rows, COLUMNS, 3.4, PICTURE)


if __name__ == "__main__":
    main()
