"""How good are the models of the package? Bounds on test images, and the exact likelihood of their probability flows.

    python benchmarks/trained_models.py --data-root data --folder PHOTOGRAPHS [--write]

Digits: all 360 test images; MNIST: the first --images (all 10,000 of them for a figure to quote); photographs: as many
16x16 patches of the four test images (sub-folders train and test of --folder; without it, and without --data-root,
their rows are left out). Columns: bits per dimension at eta = 1 and at eta* (fitted to training images), standard error
over images; then, on fewer images, the flow (one dequantisation sample, four Rademacher probes, the default tolerance)
and its difference to the bound at eta* of the same images from --flow-draws draws, with its standard error over images,
and the evaluations of the network that the flow took. digits_gain is read from benchmarks/results/encoders-digits.json
(benchmarks/encoders.py digits --write: five seeds). The last line is JSON; with --write it is kept in
benchmarks/results/.
"""

import argparse
import json
import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import diffenc_ct as dc
from diffenc_ct.calibration import tightness
from diffenc_ct.cli.options import load_data
from diffenc_ct.training.config import replace
from diffenc_ct.training.evaluation import evaluate, importance_depths
from diffenc_ct.training.runs import open_run

RESULTS = Path(__file__).parent / "results"
FLOW_IMAGES = {"digits": 60, "mnist": 24, "kodak": 16}


def measure(name: str, data_name: str, settings: argparse.Namespace) -> dict[str, float]:
    """A row of the table."""
    opened = open_run(name)
    changes = {"data.root": settings.data_root}
    if data_name == "kodak":
        changes["data.name"] = settings.folder
    data = load_data(replace(opened.config, changes).data)
    model = opened.model
    level = tightness(
        model, data.train[:300], generator=torch.Generator().manual_seed(0)
    ).noise_level
    best = dc.InfiniteDepth(level)
    images = data.test[: settings.images] if data_name != "digits" else data.test
    depths = importance_depths(model, data.train[:256])
    found = {}
    for word, loss in (("one", dc.InfiniteDepth()), ("optimal", best)):
        each = evaluate(model, images, loss, draws=settings.draws, depths=depths).terms["total"]
        found |= {word: each.mean().item(), f"{word}_error": _error(each)}
    some = data.test[: FLOW_IMAGES[data_name]]
    bound = evaluate(model, some, best, draws=settings.flow_draws, depths=depths).terms["total"]
    flow = dc.log_likelihood(
        model, some, divergence=dc.Rademacher(probes=4), generator=torch.Generator().manual_seed(0)
    )
    apart = flow.bits_per_dimension - bound
    return found | {
        "flow": flow.bits_per_dimension.mean().item(),
        "probes": flow.standard_errors["probes"],
        "solver": flow.standard_errors["solver"],
        "apart": apart.mean().item(),
        "apart_error": _error(apart),
        "evaluations": flow.evaluations.double().mean().item(),
    }


def _error(values: Tensor) -> float:
    return values.std().item() / math.sqrt(len(values))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--data-root")
    parser.add_argument("--folder", help="of photographs")
    parser.add_argument("--images", type=int, default=1000, help="test images (1,000)")
    parser.add_argument("--draws", type=int, default=4, help="of each (4)")
    parser.add_argument(
        "--flow-draws", type=int, default=200, help="of each image of the flow (200)"
    )
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument(
        "--write", action="store_true", help="keep the last line in benchmarks/results/"
    )
    settings = parser.parse_args()
    torch.set_num_threads(settings.threads)

    there = {"digits": True, "mnist": settings.data_root, "kodak": settings.folder}
    columns = (
        "one", "one_error", "optimal", "optimal_error",
        "flow", "probes", "solver", "apart", "apart_error", "evaluations",
    )  # fmt: skip
    print(f"{'':<16}" + "".join(f"{column:>15}" for column in columns))
    result: dict[str, Any] = {}
    gains = RESULTS / "encoders-digits.json"
    if gains.exists():
        seeds = json.loads(gains.read_text())
        learned = [key for key in seeds if key.startswith(("residual", "diffenc"))]
        mean, error = max((seeds[key]["gain"] for key in learned), key=lambda gain: gain[0])
        result |= {"digits_gain": mean, "digits_gain_se": error}
    for data_name in (name for name in there if there[name]):
        rows = {}
        for kind in ("vdm", "diffenc"):
            row = rows[kind] = measure(f"{data_name}-{kind}", data_name, settings)
            print(
                f"{f'{data_name}-{kind}':<16}" + "".join(f"{row[c]:>15.4f}" for c in columns),
                flush=True,
            )
            result[f"{data_name}_{kind}_bpd"] = min(row["one"], row["optimal"])
        worst = max(rows.values(), key=lambda row: row["apart"])
        result[f"{data_name}_flow_minus_elbo"] = worst["apart"]
        result[f"{data_name}_evaluations"] = max(row["evaluations"] for row in rows.values())
        result[f"{data_name}_flow_bpd"] = min(row["flow"] for row in rows.values())
    line = json.dumps(result)
    if settings.write:
        RESULTS.mkdir(exist_ok=True)
        (RESULTS / "trained-models.json").write_text(line + "\n")
    print(line)


if __name__ == "__main__":
    main()
