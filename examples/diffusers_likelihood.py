"""A network of Hugging Face diffusers, trained by their own loop on 8x8 digits, then asked for its log p.

python examples/diffusers_likelihood.py               # a few seconds, to see the calls
python examples/diffusers_likelihood.py --steps 6000  # some minutes, for numbers that mean something

Needs pip install 'diffenc-ct[adapters,data]'.
"""

import argparse

import torch
from diffusers import DDPMScheduler, UNet2DModel

import diffenc_ct as dc
from diffenc_ct.data import load_dataset


def trained(x: torch.Tensor, scheduler: DDPMScheduler, steps: int) -> UNet2DModel:
    """Their training loop: eps, mean squared error, times drawn evenly."""
    network = UNet2DModel(
        sample_size=8, in_channels=1, out_channels=1, layers_per_block=1, block_out_channels=(32, 64),
        down_block_types=("DownBlock2D", "DownBlock2D"), up_block_types=("UpBlock2D", "UpBlock2D"), norm_num_groups=8,
    )  # fmt: skip
    optimizer = torch.optim.AdamW(network.parameters(), 1e-3)
    rates = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(steps):
        clean = x[torch.randint(len(x), (64,))]
        noise, t = torch.randn_like(clean), torch.randint(1000, (64,))
        loss = (network(scheduler.add_noise(clean, noise, t), t).sample - noise).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        rates.step()
    return network


def shown(bits: torch.Tensor) -> str:
    return f"{float(bits.mean()):.3f} ± {float(bits.std()) / len(bits) ** 0.5:.3f}"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--examples", type=int, default=8)
    arguments = parser.parse_args()
    torch.manual_seed(0)
    data = load_dataset("digits")  # levels 0..16
    levels = dc.Levels(17, ends=True)  # which the network sees as k/8 - 1
    scheduler = DDPMScheduler()
    network = trained(levels.scale(data.train, torch.float32), scheduler, arguments.steps)

    model = dc.adapters.diffusers(network, scheduler, decoder=levels)
    ddpm = dc.adapters.Table.of_alphas_cumprod(scheduler.alphas_cumprod).depths()
    test = data.test[: arguments.examples].repeat(8, 1, 1, 1)  # eight draws an image
    generator = torch.Generator().manual_seed(0)

    def bound(loss: dc.InfiniteDepth | dc.FiniteDepth, model: dc.DiffEnc = model) -> dict[str, str]:
        with torch.no_grad():
            terms = dc.elbo(model, test, loss, generator=generator).bits_per_dimension()
        names = ("total", "reconstruction", "diffusion", "latent")
        return {n: shown(getattr(terms, n).reshape(8, -1).mean(0)) for n in names}

    print(
        f"{arguments.steps} steps of training, {arguments.examples} test images, bits per dimension:"
    )
    own = dc.adapters.with_last_step(model)  # Ho et al.'s decoder
    print("DDPM's own 1000 steps, ELBO   ", bound(dc.FiniteDepth(ddpm), own))
    print("infinite depth, ELBO          ", bound(dc.InfiniteDepth()))
    options = dc.CalibrationOptions(candidates=64)
    found = dc.calibrate(model, data.train[:128], 16, options, generator=generator)
    print("16 calibrated steps, ELBO     ", bound(dc.FiniteDepth(found)))
    print("16 equal steps, ELBO          ", bound(dc.FiniteDepth(16)))
    few, solver = data.test[: arguments.examples // 4], dc.Adams(atol=1e-3)
    flow = dc.log_likelihood(model, few, solver=solver, divergence=dc.Rademacher(4))
    print(f"the flow's likelihood          {shown(flow.bits_per_dimension)}", flow.standard_errors)


if __name__ == "__main__":
    main()
