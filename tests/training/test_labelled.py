"""Training with labels: each example is told its own, some are told none, and a run knows what it was trained with."""

import json

import numpy as np
import pytest
import torch

from diffenc_ct.cli import main
from diffenc_ct.data import Dataset, Labels, load_dataset
from diffenc_ct.training import loop
from diffenc_ct.training.config import replace
from diffenc_ct.training.data_record import DataRecord
from diffenc_ct.training.examples import examples_of, labels_of, told
from diffenc_ct.training.runs import load, open_run
from diffenc_ct.training.state import State
from tests.refusals import refused
from tests.tiny_runs import CPU, assert_same, step_of, tensors_of, tiny

CLASSES = 4
PARTS = ["--network-options", "width=8", "--device", "cpu", "--quiet"]


def labelled(count=40):
    """Vectors whose first value is their label."""
    examples = torch.randint(0, 17, (count, 2), generator=torch.Generator().manual_seed(0))
    examples[:, 0] = torch.arange(count) % CLASSES
    examples[0, 1] = 16
    classes = examples[:, 0].long()
    return Dataset(
        "labelled",
        examples[20:],
        examples[:20],
        17,
        labels=Labels(classes[20:], classes[:20], CLASSES),
    )


def config(**settings):
    return tiny(encoder__kind="identity", encoder__network__options={}, data__labels=True,
                network__options={"width": 8}, **settings)  # fmt: skip


def test_every_example_is_told_its_own_label_or_none():
    data, none = labelled(), 0
    for step in range(40):
        x = examples_of(data, 3, step, 16, slice(None))
        labels = labels_of(data, 3, step, 16, slice(None), 0.25)
        known = labels >= 0
        assert torch.equal(x[known, 0].long(), labels[known])
        none += int((~known).sum())
        half = slice(5, 11)
        assert torch.equal(labels_of(data, 3, step, 16, half, 0.25), labels[half])
        assert torch.equal(labels_of(data, 3, step, 16, slice(None), 0.0), x[:, 0].long())
    assert abs(none / 640 - 0.25) < 4 * (0.25 * 0.75 / 640) ** 0.5
    first, second = (labels_of(data, 3, step, 16, slice(None), 0.9) for step in (0, 1))
    assert not torch.equal(first < 0, second < 0)
    assert labels_of(load_dataset("swirl"), 3, 0, 16, slice(None), 0.25) is None


def test_a_step_is_the_gradient_of_the_conditional_bound(monkeypatch):
    """The network sees, with every latent, the label of the example that it was made of."""
    data, seen = labelled(), []
    state = State.fresh(config(training__condition_dropout=0.5), data, CPU)
    state.model.heads.network.register_forward_hook(lambda m, i, out: seen.append((i[0], i[2])))
    step_of(state, config(training__condition_dropout=0.5), data)
    ((z, labels),) = seen
    assert labels.shape == (16,) and (labels == -1).any() and (labels >= 0).any()
    assert torch.equal(labels, labels_of(data, 1, 0, 16, slice(None), 0.5))
    parts: list[torch.Tensor] = []
    other = State.fresh(config(training__accumulate=4), data, CPU)
    other.model.heads.network.register_forward_hook(lambda m, i, out: parts.append(i[2]))
    step_of(other, config(training__accumulate=4), data)
    assert torch.equal(torch.cat(parts), labels_of(data, 1, 0, 16, slice(None), 0.1))
    assert [len(part) for part in parts] == [4] * 4


def test_a_model_learns_what_a_label_says(tmp_path):
    """The first value is the label: the bound given it is lower by at least half of the two bits that it is worth."""
    data = labelled(200)
    settings = {"training__steps": 150, "training__batch_size": 64, "training__save_every": 150,
                "optimizer__learning_rate": 1e-2, "model__prediction": "posterior", "optimizer__ema": [0.95],
                "training__eval_every": 150, "training__eval_examples": 10}  # fmt: skip
    summary = loop.train(config(**settings), tmp_path / "run", data=data)
    model = load(tmp_path / "run")

    def mean(m):
        losses = [
            m(data.train, generator=torch.Generator().manual_seed(i)).total.mean()
            for i in range(20)
        ]
        return (sum(losses) / 20).item()

    given, free = mean(told(model, data, "train")), mean(model)
    assert free - given > 0.7  # nats
    # What is reported in training is given the labels, too.
    bits = given / (2 * np.log(2))
    assert abs(summary.metrics["bpd"] - bits) < abs(summary.metrics["bpd"] - free / (2 * np.log(2)))


def test_a_run_is_resumed_bit_for_bit_and_refuses_other_labels(tmp_path):
    data = labelled()
    loop.train(config(), tmp_path / "whole", data=data)
    loop.train(config(training__steps=2), tmp_path / "parts", data=data)
    loop.train(config(), tmp_path / "parts", data=data, resume=True)
    assert_same(tensors_of(tmp_path / "whole"), tensors_of(tmp_path / "parts"))
    other = Labels(data.labels.train.flip(0), data.labels.test, CLASSES)
    swapped = Dataset("labelled", data.train, data.test, 17, labels=other)
    with refused(ValueError, "other labels of training examples"):
        loop.train(config(), tmp_path / "parts", data=swapped, resume=True)
    bare = Dataset("labelled", data.train, data.test, 17)
    assert DataRecord.of(data).unfit(DataRecord.of(bare)) == ["classes 4 -> none"]
    assert open_run(tmp_path / "whole").classes == CLASSES


def test_an_opened_run_refuses_data_of_other_classes(tmp_path):
    """Of another number, or with other names: a label would mean another class and say nothing."""
    data = labelled()

    def of(classes, names=()):
        labels = Labels(data.labels.train, data.labels.test, classes, names)
        return Dataset("other", data.train, data.test, 17, labels=labels)

    four = ("a", "b", "c", "d")
    loop.train(config(training__steps=1), tmp_path / "named", data=of(CLASSES, four))
    opened = open_run(tmp_path / "named")
    opened.check(of(CLASSES, four))
    opened.check(of(CLASSES))  # numbers without names
    opened.check(Dataset("other", data.train, data.test, 17))
    with refused(ValueError, r"other classes than the model \(classes 4 -> 5\); give it data of"):
        opened.check(of(5))
    with refused(ValueError, r"\(classes a, b, c, d -> a, b, c, e\)"):
        opened.check(of(CLASSES, (*four[:3], "e")))


def test_a_network_that_takes_no_labels_is_refused_before_the_start(tmp_path):
    plain = replace(config(), {"network.kind": f"{__name__}:Plain", "network.options": {}})
    with refused(ValueError, "the network Plain takes no condition"):
        State.fresh(plain, labelled(), CPU)


class Plain(torch.nn.Module):
    def __init__(self, dimensions):
        super().__init__()
        self.layer = torch.nn.Linear(dimensions, dimensions)

    def forward(self, z, gamma):
        return self.layer(z)


# Commands -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("labelled")
    data = labelled(200)
    parts = {"train": data.train, "test": data.test, "train_labels": data.labels.train,
             "test_labels": data.labels.test}  # fmt: skip
    np.savez(folder / "v.npz", **{name: part.numpy() for name, part in parts.items()})
    line = [
        "train",
        "--data",
        str(folder / "v.npz"),
        "--labels",
        "--encoder",
        "identity",
        "--steps",
        "120",
    ]
    more = [
        "--batch-size",
        "64",
        "--ema",
        "0.95",
        "--learning-rate",
        "0.01",
        "--eval-examples",
        "10",
    ]
    assert main([*line, *more, "--run", str(folder / "run"), *PARTS]) == 0
    return folder / "run"


def test_classify_says_how_often_it_is_right(run, capsys):
    assert main(["classify", str(run), "--split", "train", "--draws", "24", "--device", "cpu"]) == 0
    out = capsys.readouterr().out
    found = json.loads((run / "classification.json").read_text())
    assert (
        found["accuracy"] > 0.75 and f"accuracy                    {found['accuracy']:.4f}" in out
    )
    lines = (run / "classification.csv").read_text().splitlines()
    names = lines[0].split(",")
    assert names[:4] == ["image", "label", "choice", "p(0)"] and len(names) == 3 + 2 * CLASSES
    rows = np.array([[float(v) for v in line.split(",")] for line in lines[1:]])
    assert len(rows) == found["images"] == 180
    assert np.mean(rows[:, 1] == rows[:, 2]) == pytest.approx(found["accuracy"])
    assert np.allclose(rows[:, 3 : 3 + CLASSES].sum(1), 1)
    labels = open_run(run).data.parts["train"]["classes"]
    assert labels == CLASSES


def test_every_option_of_classify_changes_what_is_found(run, tmp_path):
    def found(*more):
        line = ["classify", str(run), "--draws", "3", "--device", "cpu"]
        assert main([*line, "--out", str(tmp_path / "c.json"), *more]) == 0
        found = json.loads((tmp_path / "c.json").read_text())
        return [
            found[k]
            for k in ("cross_entropy", "probability_error", "bits_per_dimension_of_true_label")
        ]

    plain = found()
    for same in (("--batch-size", "7"), ("--examples", "20")):
        assert found(*same) == pytest.approx(plain, rel=1e-5)
    for more in (
        ("--seed", "1"),
        ("--draws", "4"),
        ("--split", "train"),
        ("--examples", "9"),
        ("--weights", "raw"),
    ):
        assert found(*more) != pytest.approx(plain), more


def test_evaluate_is_given_the_labels_of_its_split(run, capsys):
    means = {}
    for split in ("train", "test"):
        assert (
            main(["evaluate", str(run), "--split", split, "--draws", "40", "--device", "cpu"]) == 0
        )
        assert (
            "labels: 4 classes; numbers are of examples given their labels"
            in capsys.readouterr().out
        )
        means[split] = json.loads((run / "evaluation.json").read_text())["bits_per_dimension"][
            "total"
        ]["mean"]
    assert abs(means["train"] - means["test"]) < 0.6  # a wrong label costs some bits
    whole = [
        "evaluate",
        str(run),
        "--likelihood",
        "both",
        "--examples",
        "4",
        "--draws",
        "2",
        "--device",
        "cpu",
    ]
    assert main(whole) == 0
    assert (
        main(
            [
                "calibrate",
                str(run),
                "--depth",
                "3",
                "--candidates",
                "4",
                "--examples",
                "20",
                "--device",
                "cpu",
            ]
        )
        == 0
    )
    assert main(["fit-head", str(run), "--steps", "2", "--device", "cpu"]) == 0
    verify = [
        "verify",
        str(run),
        "--deepest",
        "16",
        "--draws",
        "2",
        "--path-steps",
        "4",
        "--examples",
        "16",
    ]
    assert main([*verify, "--device", "cpu"]) in (0, 1)


def test_samples_are_of_the_labels_that_are_asked_for(run, capsys):
    line = ["sample", str(run), "--count", "41", "--device", "cpu"]
    assert main([*line, "--labels", "3", "1"]) == 0
    with np.load(run / "samples.npz") as found:
        assert found["labels"].tolist() == [3, 1] * 20 + [3]
        right = (found["samples"][:, 0] == found["labels"]).mean()
    assert right > 0.5
    assert main(line) == 0
    with np.load(run / "samples.npz") as found:
        assert found["labels"].tolist() == [0, 1, 2, 3] * 10 + [0]
        plain = found["z_0"]
    capsys.readouterr()
    assert main([*line, "--guidance", "3"]) == 0
    assert ", guidance 3: wrote" in capsys.readouterr().out
    with np.load(run / "samples.npz") as found:
        assert np.abs(found["z_0"] - plain).max() > 1e-3


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("sample RUN --labels 4", "labels are 0..3, and -1 for none; got 4..4"),
        ("sample RUN --labels -2", "--labels: '-2'"),
        ("sample RUN --guidance inf", "--guidance: 'inf'"),
        ("sample digits-vdm --labels 1", "--labels [1] has no effect here: the model was trained without labels"),
        ("sample digits-vdm --guidance 2", "--guidance 2.0 has no effect here"),
        ("classify digits-vdm", "digits-vdm was trained without labels"),
        ("train --data swirl --labels --run NEW", "data 'swirl' has no labels"),
        ("train --data digits --condition-dropout 1 --run NEW", "condition"),
    ],
)  # fmt: skip
def test_mistakes_are_one_line(run, line, words, capsys, tmp_path):
    words_ = line.replace("RUN", str(run)).replace("NEW", str(tmp_path / "new")).split()
    try:
        code = main(words_)
    except SystemExit as error:
        code = error.code
    said = capsys.readouterr().err.strip()
    assert code == 2 and len(said.splitlines()) == 1 and words in said, said
