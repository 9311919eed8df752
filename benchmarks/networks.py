"""Which body and which head, at equal training time? VDMs trained for as long, compared on the same images and draws.

    python benchmarks/networks.py mnist --minutes 15 --data-root data
    python benchmarks/networks.py kodak --minutes 15 --folder PHOTOGRAPHS      16x16 patches; sub-folders train and test
    python benchmarks/networks.py digits --minutes 2

Each variant's step is timed first, and its number of steps (over which the learning rate's cosine runs) chosen to fit
into the time. Columns: weights, steps, test bits per dimension at eta = 1 with the standard error over images, the
difference to the first variant image by image, and the probability flow of a few images (one dequantisation sample,
four Rademacher probes) with its error of probes and the evaluations that it takes. The last line is JSON; with --write
it is kept in benchmarks/results/.
"""

import argparse
import json
import math
import time
from pathlib import Path
from typing import Any

import torch

import diffenc_ct as dc
from diffenc_ct.cli.options import load_data
from diffenc_ct.data import Dataset
from diffenc_ct.training.config import Config, replace
from diffenc_ct.training.evaluation import evaluate
from diffenc_ct.training.loop import train
from diffenc_ct.training.presets import preset
from diffenc_ct.training.runs import open_run
from diffenc_ct.training.state import State, count_parameters
from diffenc_ct.training.step import training_step

PRESETS = {"digits": "digits-vdm", "mnist": "mnist-small-vdm", "kodak": "photographs-vdm"}
RESULTS = Path(__file__).parent / "results"
FLAT = {"network.kind": "score-unet", "network.options": {"width": 32, "layers": 2, "dropout": 0.0}}
PLAIN = {"model.prediction": "v"}
# Changes to the preset; the first is the preset itself.
VARIANTS: dict[str, dict[str, Any]] = {
    "preset": {},
    "authors' body, authors' features": FLAT | PLAIN,
    "authors' body, posterior": FLAT,
    "halving body, noise-aware features": PLAIN,
    "halving body, free logits": {"model.head_options": {"basis": "free"}},
    "halving body, 12 cosines": {"model.head_options": {"functions": 12}},
    "halving body, 48 cosines": {"model.head_options": {"functions": 48}},
    "halving body, 24 hats": {"model.head_options": {"basis": "hats"}},
    "no free output": {"model.head_options": {"free": False}},
    "no prior": {"model.prior": "none"},
    "depths evenly": {"training.depths": "low-discrepancy"},
    "depths by importance": {"training.depths": "importance"},
    "batches of 16": {"training.batch_size": 16},
    "batches of 64": {"training.batch_size": 64},
}


def fitting(config: Config, data: Dataset, seconds: float) -> Config:
    """The configuration with as many steps as fit into the time."""
    state = State.fresh(config, data, torch.device("cpu"))
    for _ in range(3):
        training_step(state, config, data, torch.device("cpu"))
    began, count = time.perf_counter(), 10
    for _ in range(count):
        training_step(state, config, data, torch.device("cpu"))
    steps = max(20, round(seconds * count / (time.perf_counter() - began)))
    # The average forgets over a twentieth of the run.
    average = 1 - math.log(2) * 20 / steps
    return replace(config, {"training.steps": steps, "optimizer.ema": (max(average, 0.5),)})


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("data", choices=tuple(PRESETS))
    parser.add_argument("--variants", nargs="+", choices=tuple(VARIANTS), default=list(VARIANTS))
    parser.add_argument("--minutes", type=float, default=15.0, help="of training each (15)")
    parser.add_argument("--draws", type=int, default=4, help="of each test image (4)")
    parser.add_argument("--images", type=int, default=1000, help="test images (1,000)")
    parser.add_argument(
        "--flow-images", type=int, default=8, help="images whose flow is solved (8)"
    )
    parser.add_argument("--folder", help="of photographs")
    parser.add_argument("--data-root")
    parser.add_argument("--runs", type=Path, default=Path("runs/networks"))
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument(
        "--write", action="store_true", help="keep the last line in benchmarks/results/"
    )
    settings = parser.parse_args()
    torch.set_num_threads(settings.threads)

    base = replace(preset(PRESETS[settings.data]), {"data.root": settings.data_root})
    if settings.folder:
        base = replace(base, {"data.name": settings.folder})
    data = load_data(base.data)
    test = data.test[: settings.images]
    heads = ("weights", "steps", "bits/dim", "±", "to the first", "±", "flow", "±", "evaluations")
    print(f"{'':<36}" + "".join(f"{head:>13}" for head in heads))
    result: dict[str, Any] = {"data": settings.data, "minutes": settings.minutes}
    first = None
    for name in settings.variants:
        folder = (
            settings.runs / settings.data / name.replace(" ", "-").replace(",", "").replace("'", "")
        )
        if not (folder / "config.json").exists():
            train(
                fitting(replace(base, VARIANTS[name]), data, 60 * settings.minutes),
                folder,
                data=data,
            )
        opened = open_run(folder)
        model = opened.model
        each = evaluate(model, test, draws=settings.draws).terms["total"]
        first = each if first is None else first
        ahead = each - first
        flow = dc.log_likelihood(
            model,
            data.test[: settings.flow_images],
            divergence=dc.Rademacher(probes=4),
            generator=torch.Generator().manual_seed(0),
        )
        row = {
            "weights": count_parameters(model), "steps": opened.step,
            "bpd": each.mean().item(), "error": _error(each),
            "ahead": ahead.mean().item(), "ahead_error": _error(ahead),
            "flow": flow.bits_per_dimension.mean().item(), "flow_probes": flow.standard_errors["probes"],
            "evaluations": flow.evaluations.double().mean().item(),
        }  # fmt: skip
        cells = [f"{v:,}" if isinstance(v, int) else f"{v:.4f}" for v in row.values()]
        print(f"{name:<36}" + "".join(f"{cell:>13}" for cell in cells), flush=True)
        result[name] = row
    line = json.dumps(result)
    if settings.write:
        RESULTS.mkdir(exist_ok=True)
        (RESULTS / f"networks-{settings.data}.json").write_text(line + "\n")
    print(line)


def _error(values: torch.Tensor) -> float:
    return values.std().item() / math.sqrt(len(values))


if __name__ == "__main__":
    main()
