"""A model of 16 steps, calibrated: variance ratios, noise levels and grid from training data, the bound on other data.

    python examples/calibration.py
"""

import torch

import diffenc_ct as dc
from diffenc_ct.worlds import MixtureWorld


def main() -> None:
    generator = torch.Generator().manual_seed(0)
    means = 0.5 * torch.randn(8, 1, 4, 4, generator=generator)
    world = MixtureWorld(means, 0.1, dc.NonTrainableEncoder())
    model = world.model(dc.LinearSchedule(-9.0, 5.0))
    train, test = world.sample(256, generator), world.sample(512, generator)
    found = dc.calibrate(
        model, train, depth=16, candidates=128, per_value=True, generator=generator
    )

    def bound(**options) -> str:
        draws = [
            dc.elbo(model, test, generator=torch.Generator().manual_seed(i), **options).total
            for i in range(8)
        ]
        values = torch.stack(draws).mean(0)
        return f"{float(values.mean()):8.3f} ± {float(values.std()) / len(values) ** 0.5:.3f}"

    print("bound on -log p(x) of unseen data, nats:")
    print("infinite depth                ", bound())
    print("16 equal steps                ", bound(depth=16))
    print("16 calibrated steps           ", bound(calibration=found, ratio="optimal"))
    print(
        "the same with its noise levels",
        bound(calibration=found, ratio="optimal", noise_level="optimal"),
    )
    print(
        "and ratios w*(x_hat)          ",
        bound(calibration=found, ratio="per value", noise_level="optimal"),
    )


if __name__ == "__main__":
    main()
