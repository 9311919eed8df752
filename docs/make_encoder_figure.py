"""What the learned encoders of the packaged models do to their data at eight depths: figures/encoders.png.

    python docs/make_encoder_figure.py [--data-root data] [--folder PHOTOGRAPHS]

Of each model three test examples, a row of x_t and a row of x_t - x, which is grey where the encoder leaves x alone and
is shown over its own largest size, in units of the data's range (-1 to 1), at the left.
"""

import argparse
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import torch
from torch import Tensor

from diffenc_ct.cli.options import load_data
from diffenc_ct.training.config import replace
from diffenc_ct.training.runs import open_run

PICTURE = Path(__file__).parent / "figures" / "encoders.png"
DEPTHS = torch.linspace(0.0, 1.0, 8)
EXAMPLES = 3


@torch.no_grad()
def rows_of(run: str, changes: dict[str, str | None]) -> list[tuple[str, Tensor]]:
    """Labels and images, (depths, channels, height, width) in 0..1, of a model's examples."""
    opened = open_run(run)
    data, model = load_data(replace(opened.config, changes).data), opened.model
    x = model.scale(data.test[:EXAMPLES])
    gammas = [model.schedule(t).gamma.expand(EXAMPLES) for t in DEPTHS]
    x_t = torch.stack([model.encoder.encode(x, gamma) for gamma in gammas], 1)
    rows = []
    for number, (encoded, original) in enumerate(zip(x_t, x, strict=True)):
        change = encoded - original
        largest = change.abs().max().clamp(min=1e-12)
        rows.append((f"{run}\n$x_t$" if number == 0 else "$x_t$", (encoded.clamp(-1, 1) + 1) / 2))
        rows.append((f"$x_t - x$, ±{largest:.2g}", (change / largest + 1) / 2))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--data-root", help="folder of the downloaded data sets (for MNIST)")
    parser.add_argument("--folder", help="of photographs, with sub-folders train and test")
    parser.add_argument("--runs", nargs="+", help="other runs than the packaged models")
    arguments = parser.parse_args()
    runs = {"digits-diffenc": True, "mnist-diffenc": arguments.data_root}
    runs |= {"kodak-diffenc": arguments.folder}
    names = arguments.runs or [name for name, there in runs.items() if there]
    rows = []
    for name in names:
        changes: dict[str, str | None] = {"data.root": arguments.data_root}
        if name.startswith("kodak"):
            changes["data.name"] = arguments.folder
        rows += rows_of(name, changes)
    figure, axes = plt.subplots(
        len(rows),
        len(DEPTHS),
        figsize=(8, 1.0 * len(rows)),
        gridspec_kw={"wspace": 0.05, "hspace": 0.05},
    )
    for line, (label, images) in zip(axes, rows, strict=True):
        for axis, image in zip(line, images, strict=True):
            axis.imshow(image.permute(1, 2, 0).squeeze(-1), cmap="gray", vmin=0, vmax=1)
            axis.set(xticks=[], yticks=[])
        line[0].set_ylabel(label, rotation=0, ha="right", va="center", fontsize=8)
    for axis, t in zip(axes[0], DEPTHS, strict=True):
        axis.set_title(f"$t = {t:.2f}$", fontsize=8)
    figure.savefig(PICTURE, dpi=130, bbox_inches="tight")
    print(f"wrote {PICTURE}")


if __name__ == "__main__":
    main()
