"""What calibration is worth: L_T - L_inf in bits per dimension, fitted on training data, reported on test data.

    python benchmarks/calibration.py [--run RUN ...] [--data-root ROOT] [--train 512] [--test 256] [--candidates 256]

Rows: uniform grid with w = 1, with w*, with w* per dimension; calibrated grid with w*, per dimension; the same with
eta* of each step. Columns: T = 8 ... 128. First the mixture of 1,000 MNIST training digits (component deviation 0.05)
with the identity and the non-trainable encoder, then each trained RUN, a folder or a pretrained model's name. L_inf is
that of eta = 1 on the same test examples and noise, so that what examples differ in cancels; standard errors over 16
groups of test examples. One network evaluation an example and candidate depth serves all rows.

Below the line, what no calibration is: w* of each test example known to it (every ratio that is one number a step and
example costs at least that), w* a function of x_hat at each dimension; and the same excess for a model of independent
pixels with the data's own histograms and exact heads, up to the best Gaussian step there is. Last line: JSON.
"""

import argparse
import json
import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

import diffenc_ct as dc
from diffenc_ct.calibration import Calibration, plan
from diffenc_ct.data import Dataset, load_dataset
from diffenc_ct.process import NoiseLevel
from diffenc_ct.step_tables import StepTables, measure_steps
from diffenc_ct.training.runs import open_run
from diffenc_ct.worlds import MixtureWorld

DEPTHS = (8, 16, 32, 64, 128)
GROUPS, BINS = 16, 24
NAMES = (
    "uniform, w = 1",
    "uniform, w*",
    "uniform, w* per dimension",
    "calibrated, w*",
    "calibrated, w* per dimension",
    "calibrated, eta*, w*",
    "calibrated, eta*, w* per dimension",
)
BEYOND = (
    "uniform, w* of each example",
    "calibrated, eta*, w* of each example",
    "calibrated, eta*, w*(x_hat)",
)


@dataclass(frozen=True)
class Measured:
    """Tables, and what they were made of: e, r, x_t (N + 1, examples, d) and each example's group."""

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
    parts: list[tuple[int, Tensor, Tensor, Tensor]] = []
    tables = measure_steps(
        model,
        data,
        candidates=candidates,
        groups=GROUPS,
        shared_noise=shared,
        observe=lambda group, *values: parts.append((group, *(v.float() for v in values))),
        generator=g,
    )
    e, r, x = (torch.cat([p[i] for p in parts]).transpose(0, 1).contiguous() for i in (1, 2, 3))
    group = torch.cat([torch.full((len(p[1]),), p[0]) for p in parts])
    return Measured(tables, e, r, x, group)


def step_losses(p: Calibration, train: Measured, test: Measured) -> dict[str, Tensor]:
    """L_T of each test example in nats, (examples,), by the kind of ratio."""
    nodes = torch.searchsorted(train.tables.t, p.grid - 1e-9).tolist()
    level, losses = p.noise_level, dict.fromkeys(("1", "step", "dimension", "example", "x_hat"), 0)
    for i, (s, t) in enumerate(zip(nodes[:-1], nodes[1:], strict=True)):
        fit, new = train.squares(s, t, level), test.squares(s, t, level)
        ratios = {
            "1": torch.ones(1),
            "step": p.ratio[i],
            "dimension": 1 + fit.mean(0),
            "example": 1 + new.mean(1, keepdim=True),
            "x_hat": 1 + _by_value(train.x[t] - train.e[t], fit, test.x[t] - test.e[t]),
        }
        for name, w in ratios.items():
            terms = 1 / w - 1 + w.log() + new / w
            losses[name] = losses[name] + terms.sum(1) / 2
    return losses


def _by_value(x_hat: Tensor, squares: Tensor, new: Tensor) -> Tensor:
    """The mean of `squares` in bins of x_hat, equally filled, looked up at `new`."""
    edges = torch.from_numpy(np.quantile(x_hat.numpy(), np.linspace(0, 1, BINS + 1)[1:-1])).float()
    cell = torch.bucketize(x_hat, edges).flatten()
    sums = torch.zeros(BINS, dtype=torch.float64).index_add(0, cell, squares.flatten())
    return (sums / torch.bincount(cell, minlength=BINS).clamp(min=1))[torch.bucketize(new, edges)]


def measure(
    label: str, model: dc.DiffEnc, train: Tensor, test: Tensor, candidates: int
) -> dict[str, list[float]]:
    g = torch.Generator().manual_seed(0)
    fitted = measured(model, train, candidates, True, g)
    held_out = measured(model, test, candidates, False, g)
    infinite = held_out.tables.infinite_depth_loss()
    scale = 1 / (held_out.tables.dimensions * math.log(2))
    found: dict[str, list[Tensor]] = {name: [] for name in (*NAMES, *BEYOND)}
    for T in DEPTHS:
        for grid, eta in (("uniform", 1.0), ("best", 1.0), ("best", "optimal")):
            p = plan(fitted.tables, T, noise_level=eta, grid=grid)
            losses = step_losses(p, fitted, held_out)
            name = "uniform, " if grid == "uniform" else "calibrated, "
            name += "eta*, " if eta == "optimal" else ""
            kinds = {"w = 1": "1", "w*": "step", "w* per dimension": "dimension"}
            kinds |= {"w* of each example": "example", "w*(x_hat)": "x_hat"}
            for row, kind in kinds.items():
                if name + row in found:
                    each = torch.stack(
                        [losses[kind][held_out.group == k].mean() for k in range(GROUPS)]
                    )
                    found[name + row].append((each - infinite) * scale)
    print(
        f"\n{label}: {len(train)} training and {len(test)} test examples, {candidates} candidates; L_inf "
        f"{float(infinite.mean()) * scale:.4f} bpd; L_T - L_inf in bpd ± standard error"
    )
    print(f"{'':<38}" + "".join(f"{f'T = {T}':>18}" for T in DEPTHS))
    for name, row in found.items():
        if name == BEYOND[0]:
            print("-" * (38 + 18 * len(DEPTHS)))
        cells = (f"{float(e.mean()):>8.4f} ± {float(e.std()) / GROUPS**0.5:.4f}" for e in row)
        print(f"{name:<38}" + "".join(f"{c:>18}" for c in cells), flush=True)
    return {name: [float(e.mean()) for e in row] for name, row in found.items()}


def independent_pixels(data: Dataset, schedule: dc.Schedule, pixels: int = 64) -> None:
    """The excess over L_inf of a model of independent pixels that is exact: print its table.

    The posterior of a pixel given z_t is known, so with the best Gaussian for each z_t (mean and variance of the exact
    q(z_s | z_t)) a step from t to s costs 1/2 E ln(1 + c Var[x | z_t]), c = e^-gamma_s - e^-gamma_t, with one ratio a
    pixel 1/2 ln(1 + c E Var[x | z_t]). Identity encoder, eta = 1, uniform grid.
    """
    values = data.train.flatten(1)
    some = torch.randperm(values.shape[1], generator=torch.Generator().manual_seed(0))[:pixels]
    levels = np.asarray(2 * (np.arange(data.levels) + 0.5) / data.levels - 1)
    nodes, weights = np.polynomial.hermite_e.hermegauss(24)
    weights = weights / weights.sum()
    counts = [np.bincount(values[:, i].numpy(), minlength=len(levels)) for i in some.tolist()]

    def variances(gamma: float) -> list[tuple[np.ndarray, np.ndarray]]:
        """For each pixel the probabilities of (level, noise) and Var[x | z] there."""
        std, out = math.exp(gamma / 2), []
        for count in counts:
            p, v = count[count > 0] / count.sum(), levels[count > 0]
            u = v[:, None] + std * nodes
            log = np.log(p)[:, None, None] - 0.5 * ((u - v[:, None, None]) / std) ** 2
            q = np.exp(log - log.max(0))
            q /= q.sum(0)
            mean = np.einsum("kuq,k->uq", q, v)
            out.append((p[:, None] * weights, np.einsum("kuq,k->uq", q, v**2) - mean**2))
        return out

    ends = [float(schedule.at(t, torch.zeros(1, dtype=torch.float64)).gamma) for t in (0.0, 1.0)]
    gamma = np.linspace(*ends, 2 * DEPTHS[-1] + 1)
    known = [variances(g) for g in gamma]
    mmse = np.array([np.mean([(p * v).sum() for p, v in k]) for k in known])
    infinite = np.trapezoid(np.exp(-gamma) * mmse, gamma) / 2
    rows: dict[str, list[float]] = {"w = 1": [], "w*": [], "w* per dimension": [], "best": []}
    for T in DEPTHS:
        losses = np.zeros(4)
        step = 2 * DEPTHS[-1] // T
        for s in range(0, len(gamma) - 1, step):
            c = math.exp(-gamma[s]) - math.exp(-gamma[s + step])
            mean = [(p * v).sum() for p, v in known[s + step]]
            best = [(p * np.log1p(c * v.clip(0))).sum() for p, v in known[s + step]]
            losses += c * np.mean(mean), math.log1p(c * np.mean(mean)), 0, np.mean(best)
            losses[2] += np.mean([math.log1p(c * m) for m in mean])
        for row, loss in zip(rows.values(), losses / 2 - infinite, strict=True):
            row.append(loss / math.log(2))
    print(
        f"\nIndependent pixels of {data.name}, exact heads: L_T - L_inf in bpd, over that of w = 1"
    )
    for name, row in rows.items():
        cells = (f"{v:>8.4f} {v / u:>8.3f}" for v, u in zip(row, rows["w = 1"], strict=True))
        print(
            f"{'best Gaussian of each z_t' if name == 'best' else name:<38}"
            + "".join(f"{c:>18}" for c in cells)
        )


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
        calibrated = [min(cells) for cells in zip(*(found[k] for k in NAMES[3:]), strict=True)]
        pairs = zip(calibrated[:4], found[NAMES[0]][:4], strict=True)
        each = [c / u for c, u in pairs]
        print(
            "best calibrated / uniform, w = 1: " + ", ".join(f"{r:.3f}" for r in each), flush=True
        )
        ratios.append(max(each))
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
