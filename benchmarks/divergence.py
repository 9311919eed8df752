"""What does the divergence of a flow cost, by reverse and by forward mode?

One evaluation of the flow (velocity, score, v^T (df/dz) v for K directions of each image) on models of the package: by
reverse mode, as likelihoods take it, and by forward mode, alternately; the median of each, and beside it one evaluation
of the network alone.

    python benchmarks/divergence.py
    python benchmarks/divergence.py --models digits-vdm --images 24 --directions 1 4

The last line is JSON: of each case the milliseconds and their ratio.
"""

import argparse
import json
import statistics
import time

import torch

import diffenc_ct as dc
from diffenc_ct.likelihood.field import FlowField


def timed(call) -> float:
    """Milliseconds."""
    start = time.perf_counter()
    call()
    return 1e3 * (time.perf_counter() - start)


@torch.no_grad()
def compare(model: dc.DiffEnc, images: int, directions: int, repetitions: int) -> dict[str, float]:
    """Median milliseconds of one evaluation of the field by either mode, and of the network alone."""
    z, gamma = torch.randn(images, *model.shape), torch.linspace(-3, 3, images)
    probes = torch.randint(0, 2, (images, directions, *model.shape)) * 2.0 - 1
    calls = {"network": lambda: model.predict(z, gamma)}
    for mode in ("reverse", "forward"):
        field = FlowField(model, probes=probes)
        field._agreed = mode == "reverse"
        calls[mode] = lambda field=field: field(z, gamma)
    for call in calls.values():
        call()
    times = [{mode: timed(call) for mode, call in calls.items()} for _ in range(repetitions)]
    found = {mode: statistics.median(each[mode] for each in times) for mode in calls}
    return found | {"reverse_of_forward": found["reverse"] / found["forward"]}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", nargs="+", default=["digits-vdm", "mnist-vdm"])
    parser.add_argument("--images", type=int, nargs="+", default=[1, 12])
    parser.add_argument("--directions", type=int, nargs="+", default=[1, 4])
    parser.add_argument("--repetitions", type=int, default=7)
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    result = {}
    print(f"{'ms an evaluation':<34}{'network':>9}{'reverse':>9}{'forward':>9}{'ratio':>7}")
    for name in options.models:
        model = dc.load(name)
        for images in options.images:
            for directions in options.directions:
                found = compare(model, images, directions, options.repetitions)
                case = f"{name}, {images} x {directions}"
                print(
                    f"{case:<34}{found['network']:>9.1f}{found['reverse']:>9.1f}{found['forward']:>9.1f}"
                    f"{found['reverse_of_forward']:>7.2f}",
                    flush=True,
                )
                result[case] = {key: round(value, 3) for key, value in found.items()}
    print(json.dumps(result))


if __name__ == "__main__":
    main()
