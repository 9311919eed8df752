"""Plug in an encoder of your own: one class, one method; its rate is differentiated for you.

Fades each image into its local average as depth grows, trains a small network on digits for a moment, and prints the
ELBO's terms in bits per dimension at the paper's noise level and at a lower one.

    python examples/own_encoder.py --steps 200
"""

import argparse

import torch
import torch.nn.functional as F
from torch import Tensor

import diffenc_ct as dc
from diffenc_ct.data import load_dataset
from diffenc_ct.networks import ScoreUNet
from diffenc_ct.schedules import expand, sigma2


class BlurringEncoder(dc.Encoder):
    """x_t = alpha^2 x + sigma^2 blur(x): tends to x at depth 0, as every encoder must."""

    def encode(self, x: Tensor, gamma: Tensor) -> Tensor:
        weight = expand(sigma2(gamma), x)
        return (1 - weight) * x + weight * F.avg_pool2d(
            x, 3, stride=1, padding=1, count_include_pad=False
        )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=200, help="training steps")
    steps = parser.parse_args().steps

    torch.manual_seed(0)
    data = load_dataset("digits")
    network = ScoreUNet(1, width=16, layers=1, groups=8, block_groups=8, dropout=0.0)
    heads, decoder = dc.Single(network), dc.Levels(data.levels)
    model = dc.DiffEnc(dc.LinearSchedule(), BlurringEncoder(), heads, decoder)
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    for _ in range(steps):
        x = data.train[torch.randint(len(data.train), (64,))]
        loss = model(x).bits_per_dimension().total.mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    print(f"after {steps} steps, on {len(data.test)} test images:")
    model.eval()
    for eta in (1.0, 0.8):
        with torch.no_grad():
            generator = torch.Generator().manual_seed(1)
            bound = dc.InfiniteDepth(noise_level=eta)
            terms = dc.elbo(model, data.test, bound, generator=generator).bits_per_dimension()
        print(
            f"eta {eta}: {terms.total.mean():.3f} bits/dim = reconstruction {terms.reconstruction.mean():.3f}"
            f" + diffusion {terms.diffusion.mean():.3f} + latent {terms.latent.mean():.3f}"
        )


if __name__ == "__main__":
    main()
