"""What calibration is worth: L_T - L_inf in bits per dimension, fitted on training data, reported on test data.

    python benchmarks/calibration.py [--run RUN ...] [--data-root ROOT] [--train 512] [--test 256] [--candidates 256]

Rows: uniform grid with w = 1, with w*, with w* per dimension; calibrated grid with w*, per dimension, and with w* a
function of x_hat (a grid of its own); the same with eta* of each step. Columns: T = 8 ... 128. First the mixture of
1,000 MNIST training digits (component deviation 0.05) with the identity and the non-trainable encoder, then each
trained RUN, a folder or a pretrained model's name. L_inf is that of eta = 1 on the same test examples and noise, so
that what examples differ in cancels; standard errors over 16 groups of test examples. One network evaluation an example
and candidate depth serves all rows.

Below the line, what ratios of a kind cannot go below on these test examples, whatever they were fitted to: grid, eta
and w chosen on the test examples themselves, w being one number a step, or one a step and dimension. And the same
excess for independent pixels with the data's own histograms and exact heads, up to the best Gaussian step there is.
Last line: JSON.
"""

import argparse
import json
import math
from dataclasses import dataclass, replace

import torch
from independent_pixels import independent_pixels
from torch import Tensor

import diffenc_ct as dc
from diffenc_ct.calibration import (
    ETA_SQUARED,
    Calibration,
    Measurement,
    StepTables,
    measure_steps,
    plan,
    shortest_path,
)
from diffenc_ct.calibration.products import Products, squared_difference
from diffenc_ct.calibration.ratios import KEPT, binning
from diffenc_ct.calibration.tables import Kept
from diffenc_ct.data import load_dataset
from diffenc_ct.process import ConstantNoiseLevel, NoiseLevel
from diffenc_ct.training.runs import open_run
from diffenc_ct.worlds import MixtureWorld

DEPTHS = (8, 16, 32, 64, 128)
GROUPS = 16
KINDS = {"w = 1": "1", "w*": "step", "w* per dimension": "dimension", "w*(x_hat)": "value"}
NAMES = [f"uniform, {kind}" for kind in list(KINDS)[:3]]
NAMES += [f"calibrated, {eta}{kind}" for eta in ("", "eta*, ") for kind in list(KINDS)[1:]]
BOUNDS = {kind: f"bound of {kind}" for kind in ("w*", "w* per dimension")}


@dataclass(frozen=True)
class Measured:
    """Tables with some values kept, and what they are made of: e, r, x_t (N + 1, examples, d), each example's group."""

    tables: StepTables
    e: Tensor
    r: Tensor
    x: Tensor
    group: Tensor

    def squares(self, s: int, t: int, level: NoiseLevel) -> Tensor:
        """Delta_i^2 / S^2 of the step t -> s, (examples, d)."""
        gamma_s, gamma_t = self.tables.gamma[s], self.tables.gamma[t]
        integral, D = float(level.integral(gamma_s, gamma_t)), float(gamma_t - gamma_s)
        k = -math.expm1(-(integral + D) / 2)
        difference = k * self.e[t] + self.x[s] - self.x[t] - D * self.r[t]
        return difference.double() ** 2 / (-math.expm1(-integral) * math.exp(float(gamma_s)))


def measured(model: dc.DiffEnc, data: Tensor, candidates: int, shared: bool, g) -> Measured:
    """All values are kept: measure_steps lays those of each part in a random order, the same in every run."""
    how = Measurement(candidates, groups=GROUPS, shared_noise=shared, keep=data.numel())
    tables, d = measure_steps(model, data, how, generator=g), data[0].numel()
    order, first = torch.Generator().manual_seed(0), 0
    every: list[Tensor] = []  # the place of each value, example by example
    some: list[Tensor] = []  # the places of a fair sample
    groups: list[int] = []
    for group in range(GROUPS):
        for part in data[group::GROUPS].split(how.examples_at_once):
            count = len(part) * d
            place = first + torch.randperm(count, generator=order).argsort()
            every.append(place)
            some.append(first + torch.arange(max(1, round(min(1.0, KEPT / data.numel()) * count))))
            groups += [group] * len(part)
            first += count
    kept = (tables.kept.e, tables.kept.r, tables.kept.x)
    e, r, x = (v[:, torch.cat(every)].unflatten(1, (len(data), d)) for v in kept)
    sample = Kept(*(v[:, torch.cat(some)] for v in kept))
    return Measured(replace(tables, kept=sample), e, r, x, torch.tensor(groups))


def step_losses(p: Calibration, train: Measured, test: Measured) -> dict[str, Tensor]:
    """L_T of each test example in nats, (examples,), by the kind of ratio."""
    nodes = torch.searchsorted(train.tables.t, p.grid - 1e-9).tolist()
    level, losses = p.noise_level, dict.fromkeys(KINDS.values(), 0)
    for i, (s, t) in enumerate(zip(nodes[:-1], nodes[1:], strict=True)):
        fit, new = train.squares(s, t, level), test.squares(s, t, level)
        ratios = {"1": torch.ones(1), "step": p.ratio[i], "dimension": 1 + fit.mean(0)}
        if p.ratio_per_value is not None:
            ratio, x_hat = p.ratio_per_value, train.x[t] - train.e[t]
            cell = torch.bucketize(x_hat.flatten(), ratio.edges[i].float())
            add = binning(cell, ratio.values.shape[1])
            sums = torch.stack([add(v.flatten()) for v in (fit, torch.ones_like(fit))])
            step = replace(ratio, edges=ratio.edges[i : i + 1]).fitted(sums[:1], sums[1:])
            found = dc.Estimates(test.x[t] - test.e[t], test.r[t])
            ratios["value"] = step(torch.zeros(len(new), dtype=torch.long), found).double()
        for name, w in ratios.items():
            terms = 1 / w - 1 + w.log() + new / w
            losses[name] = losses[name] + terms.sum(1) / 2
    return losses


def least_costs(m: Measured) -> dict[str, Tensor]:
    """The least that a step can cost on these examples, over eta and w of a kind: (N + 1, N + 1) by (s, t)."""
    levels = [ConstantNoiseLevel(v**0.5) for v in ETA_SQUARED]
    d, gamma = m.tables.dimensions, m.tables.gamma
    step = torch.stack([d / 2 * torch.log1p(m.tables.excess(v)) for v in levels]).amin(0)
    each = torch.zeros_like(step)
    for t in range(1, len(gamma)):
        e, r, moved = m.e[t], m.r[t], m.x[:t] - m.x[t]
        own = [v.mean(0).double() for v in (e * e, e * r, r * r)]
        steps = [v.mean(1).double() for v in (moved**2, e * moved, r * moved)]
        ends = gamma[:t, None], gamma[t].expand(t, 1)
        shares = [squared_difference(*ends, level, Products(*own, *steps)) for level in levels]
        costs = [torch.log1p(share).sum(1) / 2 for share in shares]
        each[:t, t] = torch.stack(costs).amin(0)
    return {"w*": step, "w* per dimension": each}


def measure(
    label: str, model: dc.DiffEnc, train: Tensor, test: Tensor, candidates: int
) -> dict[str, list[float]]:
    g = torch.Generator().manual_seed(0)
    fitted = measured(model, train, candidates, True, g)
    held_out = measured(model, test, candidates, False, g)
    infinite = held_out.tables.infinite_depth_loss()
    scale = 1 / (held_out.tables.dimensions * math.log(2))
    least = least_costs(held_out)
    found: dict[str, list[Tensor]] = {name: [] for name in (*NAMES, *BOUNDS.values())}
    for T in DEPTHS:
        for grid, eta, ratio in (
            ("uniform", 1.0, "step"),
            ("best", 1.0, "step"),
            ("best", 1.0, "value"),
            ("best", None, "step"),
            ("best", None, "value"),
        ):
            options = dc.CalibrationOptions(noise_level=eta, ratio=ratio, grid=grid)
            losses = step_losses(plan(fitted.tables, T, options), fitted, held_out)
            prefix = "uniform, " if grid == "uniform" else "calibrated, "
            prefix += "eta*, " if eta is None else ""
            for name, kind in KINDS.items():
                if prefix + name in found and (kind == "value") == (ratio == "value"):
                    each = [losses[kind][held_out.group == k].mean() for k in range(GROUPS)]
                    found[prefix + name].append((torch.stack(each) - infinite) * scale)
        for kind, name in BOUNDS.items():
            nodes = torch.tensor(shortest_path(least[kind], T))
            bound = least[kind][nodes[:-1], nodes[1:]].sum()
            found[name].append((bound - infinite.mean())[None] * scale)
    print(
        f"\n{label}: {len(train)} training and {len(test)} test examples, {candidates} candidates; L_inf "
        f"{float(infinite.mean()) * scale:.4f} bpd; L_T - L_inf in bpd ± standard error"
    )
    print(f"{'':<38}" + "".join(f"{f'T = {T}':>18}" for T in DEPTHS))
    for name, row in found.items():
        if name == BOUNDS["w*"]:
            print("-" * (38 + 18 * len(DEPTHS)))
        cells = [f"{float(e.mean()):>8.4f}" for e in row]
        if name in NAMES:
            errors = (float(e.std()) / GROUPS**0.5 for e in row)
            cells = [f"{c} ± {error:.4f}" for c, error in zip(cells, errors, strict=True)]
        print(f"{name:<38}" + "".join(f"{c:>18}" for c in cells), flush=True)
    return {name: [float(e.mean()) for e in row] for name, row in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--run", action="append", default=[], help="a trained run; may be repeated")
    parser.add_argument("--data-root", help="folder of the downloaded data sets")
    parser.add_argument("--train", type=int, default=512, help="of the worlds and small runs")
    parser.add_argument("--test", type=int, default=256)
    parser.add_argument("--candidates", type=int, default=256, help="a multiple of 128")
    parser.add_argument(
        "--examples-large", type=int, default=64, help="training, test examples of 28x28 runs"
    )
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    data = load_dataset("mnist", root=arguments.data_root)
    means = 2 * (data.train[:1000].float() + 0.5) / data.levels - 1
    schedule, g = dc.LinearSchedule(-13.3, 5.0), torch.Generator().manual_seed(1)
    rows: dict[str, dict[str, list[float]]] = {}
    for label, encoder in (("VDM", dc.IdentityEncoder()), ("DiffEnc-nt", dc.NonTrainableEncoder())):
        world = MixtureWorld(means, 0.05, encoder)
        train, test = world.sample(arguments.train, g), world.sample(arguments.test, g)
        rows[label] = measure(
            f"Mixture of digits, {label}",
            world.model(schedule),
            train,
            test,
            arguments.candidates,
        )
    ratios, shown = [], set()
    for run in arguments.run:
        opened = open_run(run)
        own = load_dataset(opened.config.data.name, root=arguments.data_root)
        opened.check(own)
        large = math.prod(opened.shape) > 256
        n, m = [arguments.examples_large] * 2 if large else (arguments.train, arguments.test)
        found = measure(run, opened.model, own.train[:n], own.test[:m], arguments.candidates)
        for kind in KINDS:
            names = [name for name in NAMES[3:] if name.endswith(f", {kind}")]
            if names:
                best = [min(cells) for cells in zip(*(found[k] for k in names), strict=True)]
                each = [c / u for c, u in zip(best, found[NAMES[0]], strict=True)]
                print(f"{kind} over uniform, w = 1: " + ", ".join(f"{r:.3f}" for r in each))
        for name in BOUNDS.values():
            each = [c / u for c, u in zip(found[name], found[NAMES[0]], strict=True)]
            print(f"{name}: " + ", ".join(f"{r:.3f}" for r in each), flush=True)
        ratios.append(max(c / u for c, u in zip(best[:4], found[NAMES[0]], strict=False)))
        if own.name not in shown:
            shown.add(own.name)
            independent_pixels(own, opened.model.schedule, pixels=16 if large else 64)
    best = rows["VDM"]["calibrated, w*"]
    last = {
        "world_excess_at_16": best[1],
        "world_excess_at_64": best[3],
        "worst_trained_ratio": max(ratios) if ratios else None,
    }
    print(json.dumps(last))


if __name__ == "__main__":
    main()
