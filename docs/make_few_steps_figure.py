"""Samples of 8 and 16 steps, Gaussian and mixture, of the pretrained models: figures/few-steps.png, and distances.

python docs/make_few_steps_figure.py [--data-root data] [--examples 16] [--distances]

The picture is of MNIST. Sliced Wasserstein distances are of the digits, whose test images are compared with as many
samples, in units of the distance between as many training images and them.
"""

import argparse
import sys
from pathlib import Path

import torch
from make_sampling_figure import draw
from torch import Tensor

import diffenc_ct as dc
from diffenc_ct.calibration import Measurement, measure_mixture_steps
from diffenc_ct.data import load_dataset
from diffenc_ct.process import as_noise_level

sys.path.append(str(Path(__file__).parents[1] / "benchmarks"))
from samplers import sliced_wasserstein  # noqa: E402

STEPS, COLUMNS = (8, 16), 12
PICTURE = Path(__file__).parent / "figures" / "few-steps.png"


def solvers(model: dc.DiffEnc, train: Tensor, candidates: int) -> dict[str, dc.Solver]:
    """By the labels of their rows."""
    found: dict[str, dc.Solver] = {}
    levels = [as_noise_level(1.0)]
    how = Measurement(candidates, shared_noise=True, keep=2048)
    costs = measure_mixture_steps(
        model, train, levels, how, generator=torch.Generator().manual_seed(0)
    )
    for T in STEPS:
        found |= {
            f"{T} Gaussian": dc.Ancestral(steps=T),
            f"{T} mixture": dc.Ancestral(steps=T, step="mixture"),
            f"{T} mixture, calibrated": dc.Ancestral.of(costs.plan(T, levels, uniform=False)),
        }
    return found | {"30 exponential": dc.Exponential()}


def distances(count: int, seeds: int) -> None:
    """Print the table of the digits."""
    model, data = dc.load("digits-vdm"), load_dataset("digits")
    truth = data.test[:count].float()
    order = torch.randperm(len(data.train), generator=torch.Generator().manual_seed(0))

    def apart(images: Tensor, seed: int) -> float:
        return sliced_wasserstein(images.float(), truth, torch.Generator().manual_seed(seed))

    unit = sum(apart(data.train[order[count * i :][:count]], i) for i in range(3)) / 3
    print(f"sliced Wasserstein distance to {count} test images; {seeds} draws of samples each")
    for label, solver in solvers(model, data.train[:256], 32).items():
        each = []
        for seed in range(seeds):
            g = torch.Generator().manual_seed(seed)
            made = dc.sample(model, count, solver=solver, generator=g).samples
            each.append(apart(made, seed) / unit)
        print(
            f"{label:<28}{torch.tensor(each).mean():.2f} ± {torch.tensor(each).std():.2f}",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data-root", help="folder of the downloaded data sets")
    parser.add_argument("--examples", type=int, default=16, help="training examples to fit to")
    parser.add_argument("--distances", action="store_true", help="print those, too")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.distances:
        distances(360, 3)
    model = dc.load("mnist-vdm")
    train = load_dataset("mnist", root=arguments.data_root).train[: arguments.examples]
    rows = solvers(model, train, 32)
    draw(model, rows, COLUMNS, 5.6, PICTURE)


if __name__ == "__main__":
    main()
