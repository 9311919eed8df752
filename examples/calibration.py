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
    options = dc.CalibrationOptions(ratio="value", candidates=128)
    found = dc.calibrate(model, train, 16, options, generator=generator)

    def bound(loss: dc.InfiniteDepth | dc.FiniteDepth) -> str:
        draws = [
            dc.elbo(model, test, loss, generator=torch.Generator().manual_seed(i)).total
            for i in range(8)
        ]
        values = torch.stack(draws).mean(0)
        return f"{float(values.mean()):8.3f} ± {float(values.std()) / len(values) ** 0.5:.3f}"

    print("bound on -log p(x) of unseen data, nats:")
    print("infinite depth                ", bound(dc.InfiniteDepth()))
    print("16 equal steps                ", bound(dc.FiniteDepth(16)))
    calibrated = dc.FiniteDepth(found, ratio=found.ratio, noise_level=1.0)
    print("16 calibrated steps           ", bound(calibrated))
    calibrated = dc.FiniteDepth(found, ratio=found.ratio)
    print("the same with its noise levels", bound(calibrated))
    print("and ratios w*(x_hat)          ", bound(dc.FiniteDepth(found)))


if __name__ == "__main__":
    main()
