"""What does a posterior head cost beside a plain output of the same network? Time and memory of a training step.

    python benchmarks/posterior_heads.py [--batch-size 64] [--threads 2]

VDM on random images of MNIST's size and 256 levels: the network of the preset mnist-small-vdm with its posterior head
(24 cosines, 8 levels at either end, u), and with one output that is read as v. Steps take turns, medians are told;
memory is that of weights, moments, gradients and of what the backward pass keeps. The last line is JSON:
{"time_ratio", "memory_ratio"}, posterior over plain.
"""

import argparse
import json

import torch
from step_timing import random_images, seconds, stepper

from diffenc_ct.training.config import Config, replace
from diffenc_ct.training.cost import measure_cost
from diffenc_ct.training.presets import preset

KINDS = ("posterior", "v")
CPU = torch.device("cpu")


def configuration(kind: str, batch_size: int) -> Config:
    """The preset with one head or the other."""
    changes = {"model.prediction": kind, "training.batch_size": batch_size}
    return replace(preset("mnist-small-vdm"), changes)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=7)
    settings = parser.parse_args()
    torch.set_num_threads(settings.threads)
    data = random_images(1, 28, 28)
    configs = {kind: configuration(kind, settings.batch_size) for kind in KINDS}
    steps = {kind: stepper(config, data, CPU) for kind, config in configs.items()}
    times = seconds(steps, CPU, settings.rounds)
    costs = {kind: measure_cost(config, data) for kind, config in configs.items()}
    memory = {
        kind: (cost.activation_bytes + cost.state_bytes) / 2**20 for kind, cost in costs.items()
    }
    print(f"{'':<12}{'seconds':>10}{'MiB':>8}")
    for kind in KINDS:
        print(f"{kind:<12}{times[kind]:>10.3f}{memory[kind]:>8.0f}")
    ratios = {
        name: found["posterior"] / found["v"]
        for name, found in (("time", times), ("memory", memory))
    }
    print(json.dumps({f"{name}_ratio": ratio for name, ratio in ratios.items()}))


if __name__ == "__main__":
    main()
