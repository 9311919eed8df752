"""The table of `diffenc evaluate RUN --likelihood`: every bound on the log-likelihood, and what each bounds."""

import argparse
import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from diffenc_ct.calibration import Tightness, tightness
from diffenc_ct.cli import Result
from diffenc_ct.cli.options import refuse_idle
from diffenc_ct.cli.progress import progress
from diffenc_ct.cli.solvers import lacking, make_flow_solver
from diffenc_ct.data import Dataset
from diffenc_ct.distributed import Processes, Work, launched_rank
from diffenc_ct.elbo import Bound, Depths, InfiniteDepth
from diffenc_ct.likelihood import (
    Dequantisation,
    Divergence,
    Exact,
    FlowSolver,
    GaussianProbes,
    ModelNoise,
    NoDequantisation,
    Rademacher,
    log_likelihood,
)
from diffenc_ct.model import DiffEnc
from diffenc_ct.process import AnyNoiseLevel
from diffenc_ct.report.files import as_csv, as_json, write_atomically
from diffenc_ct.report.rows import Row, difference
from diffenc_ct.training.evaluation import MOST_IN_JSON, evaluate, importance_depths
from diffenc_ct.training.examples import told
from diffenc_ct.training.heads import load_head
from diffenc_ct.training.runs import TIGHTNESS, OpenedRun

# A draw of the bound is one evaluation, a solve of the flow some fifty and their derivatives.
_DRAWS_A_SOLVE = 16


def compare(
    arguments: argparse.Namespace,
    opened: OpenedRun,
    data: Dataset,
    images: Tensor,
    solver: FlowSolver,
    path: Path,
    processes: Processes,
) -> Result:
    """Compute, print and write the table; processes share the images, and all fit the same tightness."""
    model, which = opened.model, arguments.likelihood
    told_of_images = told(model, data, arguments.split, len(images))
    rows: list[Row] = []
    extra: dict[str, Any] = {}
    if which in ("elbo", "both"):
        fitted = fitted_tightness(model, data, opened.folder / TIGHTNESS, arguments)
        depths = fitted_depths(model, data, InfiniteDepth(), arguments, processes)
        rows += elbo_rows(told_of_images, images, fitted, depths, arguments, processes)
        seen = rows[0].bits_per_dimension - rows[1].bits_per_dimension
        unit = fitted.dimensions * math.log(2)
        extra["gain"] = {
            "seen": seen.mean().item(),
            "seen_error": seen.std().item() / math.sqrt(len(seen)),
            "predicted": fitted.gain / unit,
            "predicted_error": fitted.gain_error / unit,
        }
        extra["gap"] = {"at_one": fitted.gap / unit, "at_optimal": fitted.remaining_gap / unit}
    if which in ("ode", "both"):
        rows += ode_rows(
            flows(told_of_images, opened.folder / "head.safetensors"),
            images,
            _flow_options(arguments, images, solver),
            processes,
        )
    if not processes.first:
        return Result()
    print(f"{arguments.run} at step {opened.step}: {len(images):,} {arguments.split} examples")
    print("\n".join(data.remarks), end="\n" * bool(data.remarks))
    print(f"{'bits per dimension':<26}{'mean':>9}{'images ±':>10}{'noise ±':>9}{'probes ±':>10}"
          f"{'solver':>9}{'evaluations':>13}  an upper bound on -log p of")  # fmt: skip
    for row in rows:
        cells = [row.facts.get(k, math.nan) for k in ("dequantisation", "probes", "solver")]
        shown = ["-" if math.isnan(cell) else f"{cell:.5f}" for cell in cells]
        count = row.facts.get("evaluations", math.nan)
        evaluations = "-" if math.isnan(count) else f"{count:.1f}"
        print(f"{row.name:<26}{row.mean:>9.4f}{row.error:>10.4f}{shown[0]:>9}{shown[1]:>10}"
              f"{shown[2]:>9}{evaluations:>13}  {row.bounds}")  # fmt: skip
    for row in rows:
        if row.failures:
            why = ", ".join(f"{count} {word}" for word, count in row.failures.items())
            print(
                f"{row.name}: {sum(row.failures.values())} of {len(images)} images could not be solved ({why}): NaN, "
                "with the mean over the others; a laxer --atol, more --max-steps or another --solver may do"
            )
    if "gain" in extra:
        print("gain of eta* over eta = 1: {seen:.5f} ± {seen_error:.5f} seen, {predicted:.5f} ± "
              "{predicted_error:.5f} predicted from training data".format(**extra["gain"]))  # fmt: skip
        print("excess over the tight bound, were the heads posterior means: {at_one:.5f} at eta = 1, {at_optimal:.5f} "
              "at eta*".format(**extra["gap"]))  # fmt: skip
    ranked = sorted((row for row in rows if len(row.solved)), key=lambda row: row.mean)
    if len(ranked) > 1:
        best, second = ranked[:2]
        ahead = difference(second, best)
        extra["lowest"] = {"name": best.name, "by": ahead.mean, "by_error": ahead.error}
        print(
            f"lowest: {best.name}, below {second.name} by {ahead.mean:.5f} ± {ahead.error:.5f} (image by image)"
        )
    few = len(images) <= MOST_IN_JSON
    result = {
        "run": str(arguments.run),
        "step": opened.step,
        "images": len(images),
        "remarks": data.remarks,
        "rows": [
            row.plain | ({"bits_per_dimension": row.bits_per_dimension.tolist()} if few else {})
            for row in rows
        ],
        **extra,
    }
    write_atomically(path, (as_json(result) + "\n").encode())
    table = path.with_suffix(".csv")
    write_atomically(table, as_csv({row.name: row.bits_per_dimension for row in rows}).encode())
    print(f"wrote {path} and {table}")
    code = 0 if all(len(row.solved) for row in rows) else 1
    return Result(result, (path, table), code)


def fitted_tightness(
    model: DiffEnc, data: Dataset, path: Path, arguments: argparse.Namespace, most: int = 300
) -> Tightness:
    """From the first training examples; kept in the run's folder, for --noise-level optimal."""
    device = next(model.parameters()).device
    generator = torch.Generator(device).manual_seed(arguments.seed)
    some = data.train[:most].to(device)
    with progress("tightness", len(some)) as shown:
        work, model = Work(arguments.batch_size, shown), told(model, data, "train", len(some))
        found = tightness(model, some, generator=generator, work=work)
    if launched_rank() == 0:
        path.parent.mkdir(parents=True, exist_ok=True)
        found.save(path)
    return found


def fitted_depths(
    model: DiffEnc,
    data: Dataset,
    bound: Bound,
    arguments: argparse.Namespace,
    processes: Processes,
    most: int = 256,
) -> Depths | None:
    """How --depths has t drawn: None for evenly, else by the loss of the first training examples."""
    if arguments.depths != "importance":
        return None
    some = data.train[:most]
    with progress("depths", len(some)) as shown:
        work = Work(arguments.batch_size, shown, processes)
        model = told(model, data, "train", len(some))
        # Other draws than those of the evaluation, which may be of the same images.
        return importance_depths(model, some, bound, seed=arguments.seed + 1, work=work)


def elbo_rows(
    model: DiffEnc,
    images: Tensor,
    fitted: Tightness,
    depths: Depths | None,
    arguments: argparse.Namespace,
    processes: Processes,
) -> list[Row]:
    """The ELBO at eta = 1 and at eta*, on the same draws, 16 for each of the flow's samples."""
    rows = []
    levels: dict[str, AnyNoiseLevel] = {
        "ELBO, eta = 1": 1.0,
        "ELBO, eta*": fitted.noise_level,
    }
    for name, level in levels.items():
        with progress(name, len(images)) as shown:
            found = evaluate(
                model,
                images,
                InfiniteDepth(level),
                draws=_DRAWS_A_SOLVE * arguments.draws,
                depths=depths,
                seed=arguments.seed,
                work=Work(arguments.batch_size, shown, processes),
            )
        rows.append(Row(name, found.terms["total"], "the SDE model", {}))
    return rows


def flows(model: DiffEnc, head: Path) -> list[tuple[str, DiffEnc]]:
    """Tied and paired flows of a model: both for a single head with a fitted head beside it."""
    if model.heads.tells_apart:
        return [("ODE, paired heads", model)]
    found = [("ODE, tied heads", model)]
    return found + ([("ODE, paired heads", load_head(model, head))] if head.exists() else [])


def named_solver(arguments: argparse.Namespace) -> FlowSolver:
    """What --solver and its options say; it leaves NaN for images that it cannot solve."""
    make_flow_solver(arguments.solver)
    fields = {"atol": "atol", "rtol": "rtol", "solver_steps": "steps", "max_steps": "max_steps"}
    refuse_idle(arguments, lacking(arguments.solver, fields))
    solver = make_flow_solver(
        arguments.solver,
        atol=arguments.atol,
        rtol=arguments.rtol,
        steps=arguments.solver_steps,
        max_steps=arguments.max_steps,
    )
    return replace(solver, on_failure="nan")


@dataclass(frozen=True)
class FlowOptions:
    """How the flow's likelihood is found.

    Attributes:
        solver: of the flow; it leaves NaN for images that it cannot solve.
        divergence: of the flow; exact up to 16 dimensions by default, else by four probes.
        samples: of importance, an image of levels.
        seed: of noise and probes.
        batch_size: images at a time, at most 50 of them.
    """

    solver: FlowSolver
    divergence: Divergence | None = None
    samples: int = 1
    seed: int = 0
    batch_size: int = 250


def ode_rows(
    found: list[tuple[str, DiffEnc]], images: Tensor, options: FlowOptions, processes: Processes
) -> list[Row]:
    """The likelihood of each flow, by one importance sample an image and by as many as are asked for.

    Args:
        found: flows by name.
        images: levels or reals.
        options: how.
        processes: share the images.
    """
    rows = []
    levels = found[0][1].decoder.levels
    divergence = options.divergence
    if divergence is None:
        divergence = Exact() if _few_dimensions(images) else Rademacher(4)
    for name, model in found:
        for samples in sorted({1, 1 if levels is None else options.samples}):
            device = next(model.parameters()).device
            reals = levels is None
            kind: Dequantisation = NoDequantisation() if reals else ModelNoise(samples=samples)
            with progress(name, samples * len(images) // processes.size, "solve") as shown:
                result = log_likelihood(
                    model,
                    images.to(device),
                    solver=options.solver,
                    divergence=divergence,
                    dequantisation=kind,
                    generator=torch.Generator().manual_seed(options.seed),
                    work=Work(min(options.batch_size, 50), shown, processes),  # a bar that moves
                )
            facts = {k: v for k, v in result.standard_errors.items() if k != "images"}
            facts["evaluations"] = result.evaluations.double().mean().item() / samples
            bits, title = result.bits_per_dimension.cpu(), f"{name}, K = {samples}"
            rows.append(Row(title, bits, "the ODE model", facts, result.status))
    return rows


def _flow_options(arguments: argparse.Namespace, images: Tensor, solver: FlowSolver) -> FlowOptions:
    """What --divergence, --probes, --draws, --seed and --batch-size say."""
    if arguments.likelihood == "ode" and images.is_floating_point():
        refuse_idle(arguments, {"draws": "real data need no dequantisation, so nothing is drawn"})
    kind = _divergence(arguments, images)
    return FlowOptions(solver, kind, arguments.draws, arguments.seed, arguments.batch_size)


def _few_dimensions(images: Tensor) -> bool:
    return images[0].numel() <= 16


def _divergence(arguments: argparse.Namespace, images: Tensor) -> Divergence:
    """What --divergence and --probes say; exact by default up to 16 dimensions."""
    kind = arguments.divergence or ("exact" if _few_dimensions(images) else "rademacher")
    if kind == "exact":
        reason = "the divergence of up to 16 dimensions is exact unless --divergence says otherwise"
        refuse_idle(arguments, {"probes": reason})
        return Exact()
    return {"rademacher": Rademacher, "gaussian": GaussianProbes}[kind](arguments.probes)
