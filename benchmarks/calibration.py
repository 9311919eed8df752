"""What calibration is worth: L_T - L_inf in bits per dimension, fitted on training data, reported on test data.

    python benchmarks/calibration.py [--run RUN ...] [--data-root ROOT] [--train 512] [--test 256]

Rows: uniform grid with w = 1, with w*, with w* per dimension; calibrated grid with w*, per dimension; the same with
eta* of each step. Columns: T = 8 ... 128. First the mixture of 1,000 MNIST training digits (component deviation 0.05)
with the identity and the non-trainable encoder, then each trained RUN. L_inf is that of eta = 1 on the same test
examples and noise, so that what examples differ in cancels; standard errors over 16 groups of test examples. Last
line: JSON.
"""

import argparse
import json
import math

import torch
from torch import Tensor

import diffenc_ct as dc
from diffenc_ct.calibration import Calibration, measure_steps, plan, step_excess
from diffenc_ct.data import load_dataset
from diffenc_ct.step_tables import StepTables
from diffenc_ct.training.runs import open_run
from diffenc_ct.worlds import MixtureWorld

DEPTHS = (8, 16, 32, 64, 128)


def test_loss(found: Calibration, tables: StepTables, ratio: Tensor | None = None) -> Tensor:
    """L_T on test tables with the grid, eta and (by default) w fitted on others: nats, (groups,)."""
    nodes = torch.searchsorted(tables.t, found.grid - 1e-9)
    s, t = nodes[:-1], nodes[1:]
    w = found.ratio if ratio is None else ratio
    # One noise level a distinct eta: excess is made for whole tables.
    excess = torch.zeros(len(tables.ee), found.depth, dtype=torch.float64)
    for eta_squared in found.eta_squared.unique():
        here = found.eta_squared == eta_squared
        table = tables.excess(float(eta_squared) ** 0.5, groups=True)
        excess[:, here] = table[:, s[here], t[here]]
    return tables.dimensions / 2 * (1 / w - 1 + w.log() + excess / w).sum(1)


def per_dimension_loss(model, train, test, found: Calibration, groups: int, g) -> Tensor:
    """L_T on test data with w_i* fitted on training data: nats, (groups,)."""
    level = found.noise_level
    w = 1 + step_excess(model, train, found.grid, level, generator=g)
    losses = []
    for k in range(groups):
        e = step_excess(model, test[k::groups], found.grid, level, generator=g)
        losses.append(0.5 * (1 / w - 1 + w.log() + e / w).sum())
    return torch.stack(losses)


def measure(label: str, model: dc.DiffEnc, train: Tensor, test: Tensor) -> dict[str, list[float]]:
    g = torch.Generator().manual_seed(0)
    fitted = measure_steps(model, train, shared_noise=True, generator=g)
    held_out = measure_steps(model, test, generator=g)
    infinite, scale = held_out.infinite_depth_loss(), 1 / (held_out.dimensions * math.log(2))
    print(
        f"\n{label}: L_inf {float(infinite.mean()) * scale:.4f} bpd; L_T - L_inf in bpd ± standard error"
    )
    print(f"{'':<34}" + "".join(f"{f'T = {T}':>20}" for T in DEPTHS))
    rows: dict[str, list[float]] = {}

    def add(name: str, losses: list[Tensor]) -> None:
        excess = [(loss - infinite) * scale for loss in losses]
        rows[name] = [float(e.mean()) for e in excess]
        cells = (f"{float(e.mean()):>10.4f} ± {float(e.std()) / len(e) ** 0.5:.4f}" for e in excess)
        print(f"{name:<34}" + "".join(f"{c:>20}" for c in cells), flush=True)

    for grid in ("uniform", "best"):
        for eta in (1.0, "optimal") if grid == "best" else (1.0,):
            plans = [plan(fitted, T, noise_level=eta, grid=grid) for T in DEPTHS]
            name = f"{'uniform' if grid == 'uniform' else 'calibrated'}{', eta*' if eta != 1.0 else ''}"
            if grid == "uniform":
                add("uniform, w = 1", [test_loss(p, held_out, torch.ones(p.depth)) for p in plans])
            add(f"{name}, w*", [test_loss(p, held_out) for p in plans])
            add(
                f"{name}, w* per dimension",
                [per_dimension_loss(model, train, test, p, len(infinite), g) for p in plans],
            )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--run", action="append", default=[], help="a trained run; may be repeated")
    parser.add_argument("--data-root", help="folder of the downloaded data sets")
    parser.add_argument("--train", type=int, default=512)
    parser.add_argument("--test", type=int, default=256)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    data = load_dataset("mnist", root=arguments.data_root)
    means = 2 * (data.train[:1000].float() + 0.5) / data.levels - 1
    schedule, g = dc.LinearSchedule(-13.3, 5.0), torch.Generator().manual_seed(1)
    rows: dict[str, dict[str, list[float]]] = {}
    for label, encoder in (("VDM", dc.IdentityEncoder()), ("DiffEnc-nt", dc.NonTrainableEncoder())):
        world = MixtureWorld(means, 0.05, encoder)
        train, test = world.sample(arguments.train, g), world.sample(arguments.test, g)
        rows[label] = measure(f"Mixture of digits, {label}", world.model(schedule), train, test)
    ratios = []
    for run in arguments.run:
        opened = open_run(run)
        own = load_dataset(opened.config.data.name, root=arguments.data_root)
        opened.check(own)
        found = measure(run, opened.model, own.train[: arguments.train], own.test[: arguments.test])
        calibrated = [
            min(cells)
            for cells in zip(*(v for k, v in found.items() if k.startswith("cal")), strict=True)
        ]
        pairs = zip(calibrated[:4], found["uniform, w = 1"][:4], strict=True)
        ratios.append(max(c / u for c, u in pairs))
    best = rows["VDM"]["calibrated, w*"]
    last = {
        "world_excess_at_16": best[1],
        "world_excess_at_64": best[3],
        "worst_trained_ratio": max(ratios) if ratios else None,
    }
    print(json.dumps(last))


if __name__ == "__main__":
    main()
