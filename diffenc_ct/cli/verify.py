"""diffenc verify"""

import argparse
from pathlib import Path

import torch
from torch import Tensor

from diffenc_ct.cli import Result
from diffenc_ct.cli.numbers import positive, whole
from diffenc_ct.cli.options import (
    add_data,
    add_device,
    add_run,
    add_seed,
    add_weights,
    data_of,
    open_given,
    output_path,
    refuse_idle,
    use_device,
)
from diffenc_ct.encoders import IdentityEncoder, NonTrainableEncoder
from diffenc_ct.model import DiffEnc
from diffenc_ct.report.extras import require
from diffenc_ct.report.files import as_json, write_atomically
from diffenc_ct.schedules import LinearSchedule
from diffenc_ct.training.examples import told
from diffenc_ct.verification import LADDER, verify
from diffenc_ct.worlds import GaussianWorld, MixtureWorld

EPILOG = """\
Prints one table with a verdict for each identity and writes verification.json and verification.png to the run's folder
(see --out; the current folder for a world). Exit code 1 if one fails by more than four standard errors.

examples:
  diffenc verify runs/digits
  diffenc verify --world gaussian
  diffenc verify --theory
  diffenc verify --world mixture --encoder nontrainable
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the command."""
    add_run(parser)
    parser.add_argument(
        "--theory",
        action="store_true",
        help="prove every formula by sympy instead (under a minute)",
    )
    parser.add_argument("--world", choices=("gaussian", "mixture"), help="a world instead of a run")
    parser.add_argument(
        "--encoder",
        choices=("identity", "nontrainable"),
        default="nontrainable",
        help="the world's",
    )
    parser.add_argument(
        "--examples", type=whole(16), help="examples (default 32 of a run, 256 of a world)"
    )
    parser.add_argument(
        "--deepest", type=whole(16), default=LADDER[-1], help="deepest of five depths (default 128)"
    )
    parser.add_argument("--draws", type=whole(1), default=64, help="depths an example (default 64)")
    parser.add_argument(
        "--path-steps", type=whole(1), default=192, help="steps of the path KL (default 192)"
    )
    parser.add_argument(
        "--ratio", type=positive, default=1.2, help="w whose ELBO diverges (default 1.2)"
    )
    add_weights(parser)
    add_seed(parser)
    add_data(parser)
    parser.add_argument("--out", help="where to write the JSON; the figure goes beside it")
    add_device(parser)


def run(arguments: argparse.Namespace) -> Result:
    """Verify, print, write."""
    if arguments.theory:
        return _prove(arguments)
    model_given = arguments.run is not None or arguments.adapter is not None
    if model_given == (arguments.world is not None):
        raise ValueError("give a run or --world, one of the two (or --theory alone)")
    if arguments.world is None:
        refuse_idle(arguments, {"encoder": "it is of a --world"})
    else:
        of_runs = ("weights", "checkpoint", "data", "data_root", "download")
        refuse_idle(arguments, dict.fromkeys(of_runs, "it is of a run, not of a --world"))
    if arguments.deepest % 16:
        raise ValueError(f"--deepest {arguments.deepest}; give a multiple of 16")
    require("matplotlib", "figures")  # now, not after the work
    device = use_device(arguments)
    generator = torch.Generator().manual_seed(arguments.seed)
    exact, folder = None, Path()
    if arguments.world is not None:
        model, x, exact = _world(
            arguments.world, arguments.encoder, arguments.examples or 256, generator
        )
    else:
        opened = open_given(arguments)
        data = data_of(opened, arguments)
        x, folder = data.test[: arguments.examples or 32], opened.folder
        model = told(opened.model, data, "test", len(x))
    path = output_path(arguments.out, folder, "verification.json")
    result = verify(
        model.to(device),
        x.to(device),
        depths=tuple(arguments.deepest >> k for k in reversed(range(5))),
        draws=arguments.draws,
        path_steps=arguments.path_steps,
        ratio=arguments.ratio,
        exact=exact,
        generator=generator
        if device.type == "cpu"
        else torch.Generator(device).manual_seed(arguments.seed),
    )
    print(result.table())
    checks = [vars(c) | {"deviations": c.deviations, "passed": c.passed} for c in result.checks]
    excess = [loss - result.infinite for loss in result.loss]
    values = vars(result) | {"excess": excess, "checks": checks}
    write_atomically(path, (as_json(values, indent=1) + "\n").encode())
    from diffenc_ct.report.figures import identities

    identities(result).savefig(path.with_suffix(".png"), dpi=150)
    failed = [c.name for c in result.checks if not c.passed]
    print(f"{'FAILED: ' + ', '.join(failed) if failed else 'all identities hold'}; wrote {path}")
    return Result(values | {"failed": failed}, (path, path.with_suffix(".png")), int(bool(failed)))


def _world(
    name: str, encoder: str, examples: int, generator: torch.Generator
) -> tuple[DiffEnc, Tensor, float | None]:
    """A model, data and, where it is known, L_inf in nats."""
    schedule = LinearSchedule(-8.0, 5.0)
    kind = NonTrainableEncoder() if encoder == "nontrainable" else IdentityEncoder()
    if name == "gaussian":
        variances = torch.logspace(-2, 0, 6, dtype=torch.float64)
        world = GaussianWorld(torch.full_like(variances, 0.3), variances, kind)
        exact = float(world.infinite_depth_loss(schedule.gamma_min, schedule.gamma_max))
        return world.model(schedule), world.sample(examples, generator), exact
    means = 0.6 * torch.randn(5, 1, 3, 3, dtype=torch.float64, generator=generator)
    mixture = MixtureWorld(means, 0.2, kind)
    return mixture.model(schedule), mixture.sample(examples, generator), None


def _prove(arguments: argparse.Namespace) -> Result:
    """Every theorem and its controls, as `python -m theory`."""
    if arguments.run is not None or arguments.world is not None:
        raise ValueError("--theory stands alone; leave out the run and --world")
    others = arguments.given - {"theory", "command", "run", "json"}
    refuse_idle(arguments, dict.fromkeys(sorted(others), "--theory stands alone"))
    require("sympy", "theory")
    try:
        from diffenc_ct.theory.__main__ import prove
    except ModuleNotFoundError as error:
        raise ValueError(f"{error}; install the package: pip install -e .") from error
    proofs = prove()
    values = {"theorems": proofs.theorems, "controls": proofs.controls, "seconds": proofs.seconds}
    return Result(values | {"failed": proofs.failed}, code=int(bool(proofs.failed)))
