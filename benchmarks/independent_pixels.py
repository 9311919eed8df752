"""What calibration can be worth at most: a model of independent pixels that is exact.

The posterior of a pixel given z_t is known, so with the best Gaussian for each z_t (mean and variance of the exact
q(z_s | z_t)) a step from t to s costs 1/2 E ln(1 + c Var[x | z_t]), c = e^-gamma_s - e^-gamma_t, with one ratio a
pixel 1/2 ln(1 + c E Var[x | z_t]), with one a step the mean over pixels inside. Identity encoder; eta = 1 is the
best there.
"""

import math

import numpy as np
import torch

import diffenc_ct as dc
from diffenc_ct.calibration import shortest_path
from diffenc_ct.data import Dataset

DEPTHS, CANDIDATES = (8, 16, 32, 64, 128), 256


def independent_pixels(data: Dataset, schedule: dc.Schedule, pixels: int = 64) -> None:
    """Print the excess over L_inf in bits per dimension, on the uniform and on the best grid, over that of w = 1."""
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
            variance = np.einsum("kuq,k->uq", q, v**2) - np.einsum("kuq,k->uq", q, v) ** 2
            out.append(((p[:, None] * weights).ravel(), variance.ravel().clip(0)))
        return out

    ends = [float(schedule.at(t, torch.zeros(1, dtype=torch.float64)).gamma) for t in (0.0, 1.0)]
    gamma = np.linspace(*ends, CANDIDATES + 1)
    names = ("w = 1", "w*", "w* per dimension", "best Gaussian of each z_t")
    costs = np.zeros((len(names), CANDIDATES + 1, CANDIDATES + 1))
    mmse = np.zeros(CANDIDATES + 1)
    for t, gamma_t in enumerate(gamma):
        known = variances(gamma_t)
        each = np.array([(p * v).sum() for p, v in known])
        mmse[t], c = each.mean(), np.exp(-gamma[:t]) - np.exp(-gamma_t)
        gaussian = sum(np.log1p(c[:, None] * v[p > 1e-9]) @ p[p > 1e-9] for p, v in known)
        costs[:, :t, t] = (
            c * mmse[t],
            np.log1p(c * mmse[t]),
            np.log1p(c[:, None] * each).mean(1),
            gaussian / pixels,
        )
    infinite, bits = np.trapezoid(np.exp(-gamma) * mmse, gamma), 2 * math.log(2)
    print(
        f"\nIndependent pixels of {data.name}, exact heads: L_T - L_inf in bpd, over that of w = 1"
    )
    print(f"{'':<38}" + "".join(f"{f'T = {T}':>18}" for T in DEPTHS))
    base = {}
    for grid in ("uniform", "best"):
        for name, cost in zip(names, costs, strict=True):
            cells = []
            for T in DEPTHS:
                path = list(range(0, CANDIDATES + 1, CANDIDATES // T))
                if grid == "best":
                    path = shortest_path(torch.from_numpy(cost), T)
                excess = (cost[path[:-1], path[1:]].sum() - infinite) / bits
                base.setdefault(T, excess)
                cells.append(f"{excess:>8.4f} {excess / base[T]:>8.3f}")
            print(f"{f'{grid}, {name}':<38}" + "".join(f"{c:>18}" for c in cells), flush=True)
