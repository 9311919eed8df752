r"""Does a learned encoder lower the bound? The paper's question, with equal outputs, data order, noise and steps.

    python benchmarks/encoders.py digits                        five seeds of each variant, one thread each
    python benchmarks/encoders.py mnist --seeds 1 --steps 11990 --batch-size 128 --learning-rate 3e-3 --data-root data \
        --network-options '{"width": 64, "halvings": 2, "doubling": false, "blocks": 2}' \
        --encoder-options '{"width": 16, "halvings": 2, "doubling": false}' --variants vdm residual-paired --draws 4
    python benchmarks/encoders.py kodak --seeds 3 --folder PHOTOGRAPHS      sub-folders train and test

Variants (all have posterior heads with a free output u, so that VDM's outputs equal DiffEnc's):

    vdm               the identity encoder
    vdm-large         the same with a wider network, of at least as many weights as DiffEnc's network and encoder have
    vdm-long          vdm, with as many more steps as DiffEnc (residual) takes longer
    residual          x_t = x + sigma^2 u(x, gamma), which begins at VDM
    residual-optimal  the same, trained at eta*
    residual-paired   the same with paired heads
    diffenc           the paper's encoder
    diffenc-optimal   the same, trained at eta*

--plain leaves out what the presets have had since the first table of docs/encoders.md: networks see z alone, and every
term is taken on the whole batch.

Every run is trained once, into --runs, and goes on where it was stopped. Each is read on the test images with the same
draws, at eta = 1 and at eta* (fitted to training images). Columns: bits per dimension, mean and standard error over
seeds; the difference to vdm, paired by seed, at each variant's better eta; weights; processor seconds of training. The
last line is JSON; with --write it is kept in benchmarks/results/.
"""

import argparse
import json
import math
import time
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import torch

import diffenc_ct as dc
from diffenc_ct.calibration import tightness
from diffenc_ct.cli.options import load_data
from diffenc_ct.data import Dataset
from diffenc_ct.report.files import as_json
from diffenc_ct.training.build import build_model
from diffenc_ct.training.config import Config, replace
from diffenc_ct.training.evaluation import evaluate
from diffenc_ct.training.loop import train
from diffenc_ct.training.presets import preset
from diffenc_ct.training.runs import open_run
from diffenc_ct.training.state import count_parameters

PRESETS = {"digits": "digits", "mnist": "mnist-small-diffenc", "kodak": "photographs-diffenc"}
VARIANTS = (
    "vdm", "vdm-large", "vdm-long", "residual", "residual-optimal", "residual-paired", "diffenc", "diffenc-optimal",
)  # fmt: skip
RESULTS = Path(__file__).parent / "results"


def configuration(variant: str, base: Config, data: Dataset, stretch: float) -> Config:
    """The configuration of a variant; `base` is DiffEnc's."""
    kind, _, how = variant.partition("-")
    changes: dict[str, Any] = {}
    if kind == "vdm":
        plain = {"kind": "auto", "options": {}}
        changes |= {"encoder.kind": "identity", "encoder.network": plain, "encoder.options": {}}
    else:
        changes["encoder.kind"] = {"residual": "residual", "diffenc": "trainable"}[kind]
    if how == "optimal":
        changes["training.noise_level"] = "optimal"
    changes["model.heads"] = "paired" if how == "paired" else "single"
    if how == "long":
        changes["training.steps"] = round(base.training.steps * stretch)
    config = replace(base, changes)
    if how == "large":
        wanted = count_parameters(build_model(replace(base, {"encoder.kind": "residual"}), data))
        while count_parameters(build_model(config, data)) < wanted:
            options = config.network.options
            wider = {**options, "width": int(options["width"]) + 4}
            config = replace(config, {"network.options": wider})
    return config


def trained(config: Config, folder: Path, data: Dataset) -> float:
    """Processor seconds of the training of a run, which is trained to its end if it was not."""
    clock = folder / "seconds.json"
    if not clock.exists():
        before = steps_done(folder)
        began = time.process_time()  # which what else the machine does leaves alone
        train(config, folder, resume=True, data=data, progress=True)
        share = 1 - before / config.training.steps
        clock.write_text(json.dumps((time.process_time() - began) / share))
    return float(json.loads(clock.read_text()))


def steps_done(folder: Path) -> int:
    """How many steps an interrupted run has behind it."""
    return open_run(folder).step if any(folder.glob("checkpoints/*")) else 0


@torch.no_grad()
def read(folder: Path, data: Dataset, draws: int, images: int | None) -> dict[str, float]:
    """Bits per dimension on test images at eta = 1 and at eta*."""
    path = folder / f"read-{draws}-{images}.json"
    if path.exists():
        found: dict[str, float] = json.loads(path.read_text())
        return found
    model = open_run(folder).model
    level = tightness(
        model, data.train[:300], generator=torch.Generator().manual_seed(0)
    ).noise_level
    test = data.test[:images]
    at = {"one": dc.InfiniteDepth(), "optimal": dc.InfiniteDepth(level)}
    found = {
        name: evaluate(model, test, loss, draws=draws).mean("total") for name, loss in at.items()
    }
    found["weights"] = count_parameters(model)
    path.write_text(json.dumps(found))
    return found


def spread(values: list[float]) -> tuple[float, float]:
    """Mean and its standard error over seeds."""
    return mean(values), stdev(values) / math.sqrt(len(values)) if len(values) > 1 else math.nan


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("data", choices=tuple(PRESETS))
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=list(VARIANTS))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--steps", type=int, help="in the place of the preset's")
    parser.add_argument("--draws", type=int, default=8, help="of each test image (8)")
    parser.add_argument("--images", type=int, help="test images, the first so many (all)")
    parser.add_argument("--folder", help="of photographs")
    parser.add_argument("--data-root")
    parser.add_argument("--runs", type=Path, default=Path("runs/encoders"))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--plain", action="store_true", help="without features and fractions")
    parser.add_argument(
        "--write", action="store_true", help="keep the last line in benchmarks/results/"
    )
    parser.add_argument("--batch-size", type=int, help="in the place of the preset's")
    parser.add_argument("--learning-rate", type=float, help="in the place of the preset's")
    for name in ("network", "encoder"):
        parser.add_argument(
            f"--{name}-options", type=json.loads, metavar="JSON", help=f"of the {name}'s network"
        )
    settings = parser.parse_args()
    torch.set_num_threads(settings.threads)

    base = preset(PRESETS[settings.data])
    changes: dict[str, Any] = {"data.root": settings.data_root}
    if settings.steps:
        changes["training.steps"] = settings.steps
    if settings.folder:
        changes["data.name"] = settings.folder
    for place, given in (
        ("training.batch_size", settings.batch_size),
        ("optimizer.learning_rate", settings.learning_rate),
        ("network.options", settings.network_options),
        ("encoder.network.options", settings.encoder_options),
    ):
        if given is not None:
            changes[place] = given
    if settings.plain:
        changes["network.options"] = {**base.network.options, "features": False}
        changes |= {"training.ends_fraction": 1.0, "training.rate_fraction": 1.0}
    base = replace(base, changes)
    data = load_data(base.data)

    rows: dict[str, list[dict[str, float]]] = {variant: [] for variant in settings.variants}
    for seed in range(1, settings.seeds + 1):
        seconds: dict[str, float] = {}
        for variant in settings.variants:
            stretch = seconds.get("residual", 1.0) / seconds.get("vdm", 1.0)
            config = replace(configuration(variant, base, data, stretch), {"training.seed": seed})
            folder = settings.runs / settings.data / f"{variant}-{seed}"
            seconds[variant] = trained(config, folder, data)
            found = read(folder, data, settings.draws, settings.images)
            rows[variant].append({**found, "seconds": seconds[variant]})
            print(
                f"{variant} seed {seed}: eta = 1 {found['one']:.4f}, eta* {found['optimal']:.4f}",
                flush=True,
            )

    result: dict[str, Any] = {
        "data": settings.data,
        "seeds": settings.seeds,
        "steps": base.training.steps,
    }
    print(
        f"{'':<18}{'eta = 1':>18}{'eta*':>18}{'better than vdm by':>22}{'weights':>10}{'seconds':>9}"
    )
    for variant, found in rows.items():
        best = [min(row["one"], row["optimal"]) for row in found]
        line = {name: spread([row[name] for row in found]) for name in ("one", "optimal")}
        if "vdm" in rows:
            plain = [min(row["one"], row["optimal"]) for row in rows["vdm"]]
            line["gain"] = spread([a - b for a, b in zip(plain, best, strict=True)])
        cells = "".join(
            f"{f'{m:.4f} ± {e:.4f}':>{w}}"
            for (m, e), w in zip(line.values(), (18, 18, 22), strict=False)
        )
        weights, clock = found[0]["weights"], mean(row["seconds"] for row in found)
        print(f"{variant:<18}{cells}{weights:>10,.0f}{clock:>9.0f}")
        result[variant] = {**line, "weights": weights, "seconds": clock, "by_seed": best}
    line_ = as_json(result)
    if settings.write:
        RESULTS.mkdir(exist_ok=True)
        name = f"encoders-{settings.data}{'-plain' * settings.plain}.json"
        (RESULTS / name).write_text(line_ + "\n")
    print(line_)


if __name__ == "__main__":
    main()
