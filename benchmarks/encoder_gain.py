"""Where along depth does a learned encoder pay? The difference of two models' losses, bin by bin.

    python benchmarks/encoder_gain.py digits --runs runs/encoders [--with residual-paired] [--than vdm]

Over the seeds that benchmarks/encoders.py left: test images, eta = 1, the same depths and noise for both. Columns: the
mean gamma of a bin of t, the loss of the one without and the gain of the one with the encoder, in bits per dimension,
with the standard error over seeds of the gain; then the gains of the latent loss and in all. An encoder that leaves
x_0 alone can gain only where it has moved away from x: the last line of the table adds up the losses behind the depth
at which x_t differs from x by a hundredth of the data's range. The last line is JSON.
"""

import argparse
import json
from pathlib import Path

import torch
from encoders import PRESETS, spread
from torch import Tensor

from diffenc_ct.cli.options import load_data
from diffenc_ct.data import Dataset
from diffenc_ct.model import DiffEnc
from diffenc_ct.training.config import replace
from diffenc_ct.training.evaluation import evaluate
from diffenc_ct.training.presets import preset
from diffenc_ct.training.runs import open_run

BINS = 12
MOVED = 0.02  # a hundredth of the range from -1 to 1, root mean square


def losses(model: DiffEnc, data: Dataset, draws: int) -> Tensor:
    """(BINS + 2,): diffusion loss by bin of t, latent loss, total, in bits per dimension, of test images."""
    found = evaluate(model, data.test, draws=draws)
    cell = (found.t * BINS).long().clamp(0, BINS - 1)
    counts = torch.bincount(cell, minlength=BINS)
    by_bin = torch.bincount(cell, found.integrand, BINS) / counts / BINS
    rest = torch.tensor([found.mean("latent"), found.mean("total")], dtype=by_bin.dtype)
    return torch.cat([by_bin, rest])


@torch.no_grad()
def departure(model: DiffEnc, data: Dataset) -> float:
    """The first of the bins' edges at which x_t is further from x than MOVED."""
    x = model.scale(data.test[:100])
    for t in torch.linspace(0, 1, BINS + 1):
        gamma = model.schedule(t).gamma.expand(len(x))
        if (model.encoder.encode(x, gamma) - x).square().mean().sqrt() > MOVED:
            return t.item()
    return 1.0


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("data", choices=tuple(PRESETS))
    parser.add_argument("--runs", type=Path, default=Path("runs/encoders"))
    parser.add_argument("--with", dest="encoder", default="residual-paired")
    parser.add_argument("--than", default="vdm")
    parser.add_argument("--draws", type=int, default=32)
    parser.add_argument("--folder", help="of photographs")
    parser.add_argument("--data-root")
    parser.add_argument("--threads", type=int, default=1)
    settings = parser.parse_args()
    torch.set_num_threads(settings.threads)
    changes = {"data.root": settings.data_root}
    if settings.folder:
        changes["data.name"] = settings.folder
    data = load_data(replace(preset(PRESETS[settings.data]), changes).data)
    folder = settings.runs / settings.data
    seeds = sorted(
        path.name.rpartition("-")[2] for path in folder.glob(f"{settings.encoder}-[0-9]*")
    )
    without, gain, moved = [], [], []
    for seed in seeds:
        one, other = (
            open_run(folder / f"{kind}-{seed}").model for kind in (settings.than, settings.encoder)
        )
        without.append(losses(one, data, settings.draws))
        gain.append(without[-1] - losses(other, data, settings.draws))
        moved.append(departure(other, data))
    schedule = one.schedule
    print(f"{'gamma':>8}{settings.than:>10}{'gain':>20}")
    rows = []
    for i in range(BINS + 2):
        mean, error = spread([each[i].item() for each in gain])
        loss = sum(each[i].item() for each in without) / len(without)
        name = ["latent", "total"][i - BINS] if i >= BINS else ""
        name = name or f"{schedule(torch.tensor((i + 0.5) / BINS)).gamma:.2f}"
        rows.append({"gamma": name, "loss": loss, "gain": mean, "error": error})
        print(f"{name:>8}{loss:>10.4f}{mean:>12.4f} ± {error:.4f}")
    first = min(moved)
    reach = sum(row["loss"] for row in rows[round(first * BINS) : BINS + 1])
    print(f"behind t = {first:.2f}, where x_t leaves x: {reach:.4f} in all")
    print(json.dumps({"seeds": len(seeds), "departure": first, "reach": reach, "rows": rows}))


if __name__ == "__main__":
    main()
