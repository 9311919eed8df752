"""Check the theory where everything is known: a Gaussian world with a linear encoder.

Prints the finite-depth loss L_T against the infinite-depth loss in nats, plain (w = 1), with the optimal variance
ratio w*, and at the noise level eta* that makes the bound tight; and how much of the bound is the gap.

    python examples/closed_form_world.py
"""

import torch

import diffenc_ct as dc
from diffenc_ct.process import FunctionNoiseLevel
from diffenc_ct.worlds import GaussianWorld


def main() -> None:
    torch.manual_seed(0)
    low, high = -13.3, 5.0
    variances = torch.logspace(-3, 0, 4, dtype=torch.float64)
    world = GaussianWorld(torch.zeros(4, dtype=torch.float64), variances, dc.NonTrainableEncoder())
    tight = FunctionNoiseLevel(lambda gamma: world.optimal_noise_level_squared(gamma).sqrt())

    infinite = {
        "eta = 1": world.infinite_depth_loss(low, high),
        "eta*": world.infinite_depth_loss(low, high, tight),
    }
    for name, value in infinite.items():
        print(f"L_inf at {name:8} {value:.4f} nats")
    print(
        f"gap at eta = 1: {world.gap(low, high):.4f} nats, at eta*: {world.gap(low, high, tight):.1e} nats\n"
    )

    print("    T   L_T - L_inf    with w*    with w* and eta*")
    for depth in (8, 16, 32, 64, 128, 256):
        grid = torch.linspace(low, high, depth + 1, dtype=torch.float64)
        plain = world.finite_depth_loss(grid) - infinite["eta = 1"]
        ratio = world.finite_depth_loss(grid, 1.0, "optimal") - infinite["eta = 1"]
        both = world.finite_depth_loss(grid, tight, "optimal") - infinite["eta*"]
        print(f"{depth:5d}  {plain:12.4f} {ratio:10.4f} {both:12.4f}")


if __name__ == "__main__":
    main()
