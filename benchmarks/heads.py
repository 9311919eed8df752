"""Which head for E[x_t | z_t] makes the best probability flow? Variants fitted to trained models, compared.

    python benchmarks/heads.py RUN [RUN ...] [--steps 1500] [--images 60] [--data-root ROOT]

A single-head RUN gets three heads, fitted with the same batches and noise: a copy of the network ("own network"), its
last layer on a frozen trunk ("detached trunk"), and a small network of its own (the same kind at half the width). A run
trained with heads="paired" (shared trunk, trained with the ELBO) is measured as it is. Columns, on test examples:
regression E||u - v||^2/d, -log p of the flow in bits per dimension (one dequantisation sample and the same Rademacher
probes for all), the ELBO at eta = 1 and eta* with the heads in place, weights of the head, seconds of fitting. Last
line: JSON.
"""

import argparse
import json
import math
import time

import torch
from torch import Tensor

import diffenc_ct as dc
from diffenc_ct.calibration import tightness
from diffenc_ct.data import load_dataset
from diffenc_ct.model import regression_loss
from diffenc_ct.networks import ScoreUNet
from diffenc_ct.training.evaluation import evaluate
from diffenc_ct.training.runs import OpenedRun, open_run
from diffenc_ct.training.state import count_parameters


@torch.no_grad()
def regression(model: dc.DiffEnc, x: Tensor, draws: int = 4) -> float:
    """E||u - v||^2/d of the first head over uniform depths, the same draws for every model of the data's shape."""
    g, found = torch.Generator().manual_seed(3), []
    for _ in range(draws):
        seen = model(x, generator=g).residuals
        found.append(regression_loss(seen.errors.x, seen.point.gamma, model.heads.predicts))
    return torch.cat(found).mean().item()


def small_network(opened: OpenedRun) -> ScoreUNet:
    """The run's kind of network at half the width."""
    options = dict(opened.config.network.options)
    width = int(options.pop("width", 32)) // 2
    ends = opened.model.schedule(torch.tensor([0.0, 1.0])).gamma.tolist()
    levels = opened.model.decoder.levels
    assert levels is not None
    return ScoreUNet(
        opened.shape[0],
        **options | {"width": width, "groups": 8, "block_groups": 8},
        levels=levels,
        gamma_range=(ends[0], ends[1]),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", nargs="+", help="folder of a run")
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--images", type=int, default=60, help="test images for the flow")
    parser.add_argument("--probes", type=int, default=4)
    parser.add_argument("--atol", type=float, default=1e-4, help="of the flow's solver")
    parser.add_argument("--data-root", help="folder of the downloaded data sets")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)  # dropout, and the small network's start
    results: dict[str, dict[str, float]] = {}
    titles = ("regression", "flow", "±", "calls", "eta = 1", "eta*", "weights", "seconds")
    widths = (11, 9, 8, 7, 9, 9, 10, 9)
    print(" " * 40 + "".join(f"{t:>{w}}" for t, w in zip(titles, widths, strict=True)))
    for run in arguments.run:
        opened = open_run(run)
        data = load_dataset(opened.config.data.name, root=arguments.data_root)
        opened.check(data)
        variants = (
            {"shared trunk": {}}
            if opened.model.heads.tells_apart
            else {
                "tied": {},
                "own network": {"variant": "own network"},
                "detached trunk": {"variant": "detached trunk"},
                "small network": {"head": small_network(opened)},
            }
        )
        for name, options in variants.items():
            began, model, weights = time.perf_counter(), opened.model, 0
            if options:
                head = options.pop("head", None)
                fitting = dc.HeadFitting(
                    steps=arguments.steps, batch_size=arguments.batch_size, **options
                )
                model = dc.fit_head(
                    opened.model,
                    data.train,
                    fitting,
                    head=head,
                    generator=torch.Generator().manual_seed(0),
                ).model
                weights = count_parameters(model.heads.head)
            seconds = time.perf_counter() - began
            flow = dc.log_likelihood(
                model,
                data.test[: arguments.images],
                solver=dc.Adams(atol=arguments.atol),
                divergence=dc.Rademacher(probes=arguments.probes),
                generator=torch.Generator().manual_seed(1),
            )
            fitted = tightness(
                model, data.train[:200], depths=17, generator=torch.Generator().manual_seed(2)
            )
            bounds = [
                evaluate(model, data.test, dc.InfiniteDepth(level), draws=2).mean("total")
                for level in (1.0, fitted.noise_level)
            ]
            bits = flow.bits_per_dimension
            row = {
                "regression": regression(model, data.test),
                "flow": bits.mean().item(),
                "flow_error": bits.std().item() / math.sqrt(len(bits)),
                "evaluations": flow.evaluations.double().mean().item(),
                "elbo": bounds[0],
                "elbo_optimal": bounds[1],
            }
            results[f"{run}: {name}"] = row
            cells = "".join(
                f"{row[k]:>{w}.{0 if k == 'evaluations' else 4}f}"
                for k, w in zip(row, widths, strict=False)
            )
            print(f"{f'{run}: {name}':<40}{cells}{weights:>10,}{seconds:>9.0f}", flush=True)
    print(json.dumps(results))


if __name__ == "__main__":
    main()
