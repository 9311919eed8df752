"""How many network evaluations does an exact likelihood cost? Error against evaluations, for every solver.

A mixture of 300 MNIST training digits (784 dimensions, component deviation 0.25; scikit-learn's digits where
MNIST is not at hand), gamma from -13.3 to 5 linear, float64, the divergence in closed form, 64 images drawn
from it. The density at gamma_1 is the mixture's own, so that the truth is known: log q_0(z_0). One evaluation
is one call of the network and its divergence, an image. Errors are of single images, in bits per dimension.

    python benchmarks/likelihood.py            (DIFFENC_DATA: the folder that holds MNIST/raw; about two
    minutes)
    python benchmarks/likelihood.py --quick    our solver only

The last line is JSON.
"""

import argparse
import gzip
import json
import math
import os
import time
import warnings
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

import diffenc_ct as dc
from diffenc_ct.likelihood import FlowSolver, log_density
from diffenc_ct.process import marginal
from diffenc_ct.worlds import MixtureWorld

OURS = (1e-4, 3e-5, 1e-5, 3e-6, 1e-6, 1e-7, 1e-9)
DEFAULT, TIGHT = 1e-5, 3e-6
TOLERANCES = (1e-3, 1e-4, 1e-5, 1e-6)
STEPS = {
    "rk4": (8, 16, 32, 64),
    "heun3": (21, 43),
    "midpoint": (32, 64),
    "explicit_adams": (32, 64, 128),
}
ADAPTIVE = {
    dc.TorchDiffEq: ("dopri5", "dopri8", "bosh3"),
    dc.SciPy: ("RK45", "DOP853", "LSODA"),
}
ALONE = {"estimate_error": False}  # which takes a second solve


def digits(n: int = 300) -> Tensor:
    """n training digits scaled to (-1, 1), flat."""
    root = Path(os.environ.get("DIFFENC_DATA", Path(__file__).parents[2] / "shared" / "data"))
    path = root / "MNIST" / "raw" / "train-images-idx3-ubyte.gz"
    if path.exists():
        with gzip.open(path) as file:
            pixels = np.frombuffer(file.read(16 + n * 784), np.uint8, offset=16).reshape(n, 784)
        return 2 * (torch.from_numpy(pixels.astype(np.float64)) + 0.5) / 256 - 1
    from sklearn.datasets import load_digits

    print("MNIST is not at hand: scikit-learn's 8 x 8 digits instead")
    return 2 * (torch.from_numpy(load_digits().data[:n]) + 0.5) / 17 - 1


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--quick", action="store_true", help="our solver only")
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore")
    world = MixtureWorld(digits(), 0.25)
    model = world.model(dc.LinearSchedule(-13.3, 5.0))
    generator = torch.Generator().manual_seed(0)
    x = world.sample(arguments.images, generator)
    gamma_0, gamma_1 = (model.schedule.at(t, x).gamma for t in (0.0, 1.0))
    z = marginal(x, gamma_0).sample(generator)
    truth, unit = world.log_q(z, gamma_0), x[0].numel() * math.log(2)

    print(f"{'solver':<28}{'setting':>10}{'evaluations':>13}{'most':>6}{'mean |error|':>14}{'max':>10}"
          f"{'estimated':>11}{'seconds':>9}")  # fmt: skip

    def measure(solver: FlowSolver, setting: float) -> tuple[float, float, float]:
        begin = time.perf_counter()
        found = log_density(model, z, solver=solver, prior=lambda end: world.log_q(end, gamma_1))
        seconds = time.perf_counter() - begin
        error = (found.log_prob - truth).abs() / unit
        used, told = found.solution.evaluations.double(), found.solution.error / unit
        print(f"{solver.name:<28}{setting:>10g}{used.mean():>13.1f}{used.max():>6.0f}{error.mean():>14.1e}"
              f"{error.max():>10.1e}{told.mean():>11.1e}{seconds:>9.1f}", flush=True)  # fmt: skip
        return used.mean().item(), error.mean().item(), error.max().item()

    ours = {tolerance: measure(dc.Adams(atol=tolerance), tolerance) for tolerance in OURS}
    if not arguments.quick:
        for kind, methods in ADAPTIVE.items():
            for method in methods:
                for tolerance in TOLERANCES:
                    measure(kind(method, rtol=tolerance, atol=tolerance, **ALONE), tolerance)
        for method, grids in STEPS.items():
            for steps in grids:
                measure(dc.TorchDiffEqFixed(method, steps=steps, **ALONE), steps)
    result: dict[str, float] = {}
    for name, tolerance in (("default", DEFAULT), ("tight", TIGHT)):
        prefix = "" if name == "default" else "tight_"
        result[f"{name}_evaluations"], mean, most = ours[tolerance]
        result |= {f"{prefix}mean_abs_error_bpd": mean, f"{prefix}max_abs_error_bpd": most}
    print(json.dumps(result))


if __name__ == "__main__":
    main()
