"""torch's data sets: read when a step needs them, each once an epoch, looked at as they come."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import Dataset as TorchDataset
from torch.utils.data import IterableDataset, TensorDataset

from diffenc_ct.data import from_torch, load_dataset
from diffenc_ct.training.examples import examples_of
from diffenc_ct.training.loop import train
from tests.refusals import refused
from tests.tiny_runs import assert_same, tensors_of, tiny


class Counting(TorchDataset):
    """Examples by a function of their numbers, which remembers what was read."""

    def __init__(self, count, example):
        self.count, self.example, self.read = count, example, []

    def __len__(self):
        return self.count

    def __getitem__(self, number):
        self.read.append(number)
        return self.example(number)


def small(monkeypatch, most=4):
    monkeypatch.setattr("diffenc_ct.data.source.MOST", most)


@given(st.integers(2, 40), st.integers(1, 9), st.integers(1, 50), st.integers(0, 9))
def test_every_example_once_an_epoch(count, size, steps, seed):
    """Those of the test set never, whatever the batch."""
    data = from_torch(Counting(count, lambda i: torch.tensor([i])), levels=count)
    training, held = len(data.source), data.test.flatten().tolist()
    assert training + len(held) == count and len(held) == max(1, round(count / 10))
    size = min(size, training)
    seen = [examples_of(data, seed, step, size, slice(0, size)) for step in range(steps)]
    flat = torch.cat(seen).flatten().tolist()
    for start in range(0, len(flat) - training + 1, training):
        epoch = flat[start : start + training]
        assert sorted([*epoch, *held]) == list(range(count))


def test_the_split_is_that_of_an_array(tmp_path):
    values = np.random.default_rng(0).integers(0, 9, (50, 3)).astype(np.uint8)
    np.save(tmp_path / "v.npy", values)
    array = load_dataset(str(tmp_path / "v.npy"))
    torchs = from_torch(Counting(50, values.__getitem__), levels=9)
    assert torch.equal(array.train, torchs.train) and torch.equal(array.test, torchs.test)


def test_only_what_is_needed_is_read(monkeypatch):
    small(monkeypatch)
    examples = Counting(1000, lambda i: (torch.tensor([i % 7, i % 5]), i))
    tests = Counting(3, lambda i: (torch.tensor([i, i]), i))
    data = from_torch(examples, tests, levels=7, name="mine")
    assert data.name == "mine" and data.train.tolist() == [[i % 7, i % 5] for i in range(4)]
    assert data.test.tolist() == [[0, 0], [1, 1], [2, 2]] and max(examples.read) == 3
    assert "1,000 training examples; the first 4 serve" in data.remarks[0]
    examples.read.clear()
    x = examples_of(data, 0, 0, 8, slice(2, 6))
    assert x.tolist() == [[i % 7, i % 5] for i in examples.read] and len(examples.read) == 4


def test_a_run_on_them_is_that_on_the_same_tensor(tmp_path, monkeypatch):
    small(monkeypatch, 2**15)
    swirl = load_dataset("swirl")
    torchs = from_torch(TensorDataset(swirl.train), TensorDataset(swirl.test), levels=256)
    config = tiny(training__steps=3)
    train(config, tmp_path / "a", data=swirl)
    train(config, tmp_path / "b", data=torchs)
    assert_same(tensors_of(tmp_path / "a"), tensors_of(tmp_path / "b"))


@pytest.mark.parametrize(
    ("example", "shape", "kind"),
    [
        (lambda i: torch.full((3,), i), (3,), torch.int64),
        (lambda i: torch.full((4, 5), i, dtype=torch.uint8), (1, 4, 5), torch.uint8),
        (lambda i: np.full((2, 4, 5), i, np.int16), (2, 4, 5), torch.int16),
        (lambda i: [torch.full((3,), i), "label"], (3,), torch.int64),
    ],
)
def test_examples_of_every_kind(example, shape, kind):
    data = from_torch(Counting(6, example), levels=6)
    assert data.shape == shape and data.train.dtype == kind and data.remarks == []
    assert sorted(torch.cat([data.train, data.test]).flatten(1)[:, 0].tolist()) == list(range(6))


def test_reals_are_floats_and_warned_of():
    random = torch.Generator().manual_seed(0)
    values = torch.randn(300, 2, generator=random, dtype=torch.float64)
    data = from_torch(TensorDataset(values))
    assert data.levels is None and data.train.dtype == torch.float32
    with pytest.warns(UserWarning, match="'TensorDataset': reals from -.*rescale them"):
        from_torch(TensorDataset(1e3 * values))


class Endless(IterableDataset):
    def __iter__(self):
        return iter(torch.zeros(3, 2))


@pytest.mark.parametrize(
    ("examples", "levels", "error", "words"),
    [
        (Endless(), 2, TypeError, "Endless has no length"),
        (Counting(0, None), 2, ValueError, "'Counting' has 0 examples"),
        (Counting(4, lambda i: "text"), 2, TypeError, "is a str; let its transform"),
        (Counting(4, lambda i: torch.tensor(i)), 4, ValueError, r"int64 of shape \(\)"),
        (Counting(4, lambda i: torch.ones(3).bool()), 2, ValueError, "torch.bool"),
        (Counting(4, lambda i: torch.ones(2 + i % 2).int()), 2, ValueError, "one shape and type"),
        (Counting(4, lambda i: torch.full((3,), i)), 3, ValueError, "do not fit into 3 levels"),
        (Counting(4, lambda i: torch.full((3,), i)), None, ValueError, "give levels"),
        (Counting(4, lambda i: torch.ones(3) / (i - 1)), None, ValueError, "infinite"),
        (Counting(4, lambda i: torch.ones(3)), 3, ValueError, "store integers"),
    ],
)
def test_what_does_not_fit_is_refused(examples, levels, error, words):
    with refused(error, words):
        from_torch(examples, levels=levels)


def test_pictures_need_a_transform():
    from PIL import Image

    with refused(TypeError, "PILToTensor"):
        from_torch(Counting(4, lambda i: Image.new("L", (4, 4))), levels=256)


def test_values_are_looked_at_when_they_come(monkeypatch):
    small(monkeypatch)
    examples = Counting(100, lambda i: torch.tensor([7 if i == 50 else 0]))
    data = from_torch(examples, TensorDataset(torch.zeros(1, 1).long()), levels=7)
    with pytest.raises(ValueError, match=r"values 0\.\.7 do not fit into 7 levels"):
        for step in range(25):
            examples_of(data, 0, step, 4, slice(0, 4))
