"""diffenc classify"""

import argparse

import torch

from diffenc_ct.cli import Result
from diffenc_ct.cli.numbers import whole
from diffenc_ct.cli.options import (
    add_batch_size,
    add_data,
    add_device,
    add_seed,
    add_timeout,
    add_weights,
    data_of,
    open_given,
    output_path,
    use_device,
)
from diffenc_ct.cli.progress import progress
from diffenc_ct.distributed import Work, launched
from diffenc_ct.elbo import InfiniteDepth
from diffenc_ct.likelihood.classification import classify, telling_depths
from diffenc_ct.report.files import as_csv, as_json, write_atomically

EPILOG = """\
p(label | x) = exp -L(x | label) / sum over labels, L the bound on -log p(x | label): no classifier is trained. All
labels of an image share their noise, so that little of it is left in their differences. An image costs as many
network evaluations as there are labels, times --draws.

Prints accuracy, expected calibration error (15 bins) and cross-entropy, and the mean standard error of the probability
of the chosen label; writes classification.json, and classification.csv with the probabilities of every image and the
standard errors that the draws leave.

examples:
  diffenc train --preset digits-vdm --labels --run runs/labelled
  diffenc classify runs/labelled
  diffenc classify runs/labelled --examples 1000 --draws 64
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the command."""
    parser.add_argument(
        "run", metavar="RUN", help="folder of a run that was trained with --labels, or a file of it"
    )
    parser.add_argument(
        "--split", choices=("test", "train"), default="test", help="which examples (default test)"
    )
    parser.add_argument("--examples", type=whole(1), help="the first so many (default all)")
    parser.add_argument(
        "--draws", type=whole(1), default=16, help="of depth and noise an image (default 16)"
    )
    parser.add_argument(
        "--depths",
        choices=("importance", "low-discrepancy"),
        default="importance",
        help="how t is drawn: more often where the labels' losses of 48 training images lie apart (default), or evenly",
    )
    add_batch_size(parser, 250, "at a time; it changes no result")
    add_weights(parser)
    add_seed(parser)
    add_data(parser)
    parser.add_argument(
        "--out",
        help="where to write the JSON (default RUN/classification.json); the CSV of all images goes beside it",
    )
    add_device(parser)
    add_timeout(parser)


def run(arguments: argparse.Namespace) -> Result:
    """Classify, print, write."""
    device = use_device(arguments)
    opened = open_given(arguments)
    if opened.classes is None:
        raise ValueError(
            f"{arguments.run} was trained without labels; train with: diffenc train --labels ..."
        )
    data = data_of(opened, arguments)
    path = output_path(arguments.out, opened.folder, "classification.json")
    assert data.labels is not None  # else it would not be data of the model's kind
    images = (data.test if arguments.split == "test" else data.train)[: arguments.examples]
    truth = data.labels.of(arguments.split)[: arguments.examples]
    with launched(device, timeout=arguments.process_timeout) as processes:
        model, labels = opened.model.to(device), torch.arange(opened.classes)
        bound = InfiniteDepth()
        if arguments.depths == "importance":
            seen, g = data.train[:48], torch.Generator().manual_seed(arguments.seed)
            with progress("depths", len(seen)) as shown:
                work = Work(arguments.batch_size, shown, processes)
                depths = telling_depths(model, seen, labels, generator=g, work=work)
            bound = InfiniteDepth(depths=depths)
        with progress("classify", len(images)) as shown:
            found = classify(
                model,
                images,
                labels,
                bound,
                draws=arguments.draws,
                generator=torch.Generator().manual_seed(arguments.seed),
                work=Work(arguments.batch_size, shown, processes),
            )
    if not processes.first:
        return Result()
    accuracy, error = found.accuracy(truth)
    chosen = found.choice[:, None]
    spread = found.standard_errors.gather(1, chosen).mean().item()
    own = found.bits_per_dimension.gather(1, truth[:, None]).mean().item()
    result = {
        "run": str(arguments.run),
        "step": opened.step,
        "split": arguments.split,
        "images": len(images),
        "labels": opened.classes,
        "draws": arguments.draws,
        "depths": arguments.depths,
        "seed": arguments.seed,
        "remarks": data.remarks,
        "accuracy": accuracy,
        "accuracy_error": error,
        "calibration_error": found.calibration_error(truth),
        "cross_entropy": found.cross_entropy(truth),
        "probability_error": spread,
        "bits_per_dimension_of_true_label": own,
    }
    print(
        f"{arguments.run} at step {opened.step}: {len(images):,} {arguments.split} examples of {data.name}, "
        f"{opened.classes} labels, {arguments.draws} draws"
    )
    print(f"accuracy                    {accuracy:.4f} ± {error:.4f}")
    print(f"expected calibration error  {result['calibration_error']:.4f}")
    print(f"cross-entropy               {result['cross_entropy']:.4f} nats")
    print(f"p(choice | x)               ± {spread:.4f} by the draws, on average")
    print(f"bound given the true label  {own:.4f} bits per dimension")
    write_atomically(path, (as_json(result, indent=1) + "\n").encode())
    columns = {f"p({c})": found.probabilities[:, c] for c in range(opened.classes)}
    columns |= {f"error({c})": found.standard_errors[:, c] for c in range(opened.classes)}
    table = path.with_suffix(".csv")
    write_atomically(table, as_csv({"label": truth, "choice": found.choice, **columns}).encode())
    print(f"wrote {path} and {table}")
    return Result(result, (path, table))
