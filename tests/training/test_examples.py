"""What a step sees: crops and flips are functions of (seed, step, row), drawn as uniformly as they are said to be."""

import json

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from diffenc_ct.cli import main
from diffenc_ct.data import Dataset, Patches, load_dataset
from diffenc_ct.training.build import build_model_for
from diffenc_ct.training.config import Config, replace
from diffenc_ct.training.examples import examples_of
from diffenc_ct.training.loop import train
from diffenc_ct.training.runs import load, open_run
from diffenc_ct.training.state import State
from tests.data.test_patches import places, write
from tests.tiny_runs import CPU, assert_same, step_of, tensors_of, tiny


def whole(data, size, *, seed=1, step=0):
    return examples_of(data, seed, step, size, slice(0, size))


def in_memory(count, *, flip):
    values = torch.arange(count * 4).reshape(count, 1, 2, 2).to(torch.uint8)
    return Dataset("numbers", values, values[:1], 256, flip=flip)


def cut(sizes, size, *, flip):
    images = places(sizes)
    patches = Patches(images, size)
    some = patches[torch.arange(1)]
    return Dataset("places", some, some, 256, patches, flip)


kinds = st.one_of(
    st.builds(in_memory, st.integers(1, 60), flip=st.booleans()),
    st.builds(
        cut,
        st.lists(st.tuples(st.integers(3, 9), st.integers(3, 9)), min_size=1, max_size=4),
        st.integers(2, 3),
        flip=st.booleans(),
    ),
)


@given(kinds, st.integers(0, 99), st.integers(0, 99), st.integers(1, 4), st.integers(1, 5))
def test_rows_are_those_of_the_whole_batch(data, seed, step, share, processes):
    size = share * processes
    batch = whole(data, size, seed=seed, step=step)
    rows = [
        examples_of(data, seed, step, size, slice(rank * share, (rank + 1) * share))
        for rank in range(processes)
    ]
    assert torch.equal(torch.cat(rows), batch)
    assert batch.shape == (size, *data.shape) and batch.dtype == torch.uint8


def test_steps_and_seeds_see_other_crops():
    data = cut([(30, 40), (50, 30)], 2, flip=False)
    batches = [whole(data, 16, seed=s, step=n) for s in range(3) for n in range(3)]
    assert len({batch.numpy().tobytes() for batch in batches}) == 9


def chi_squared(counts):
    """Standardised: about normal where all are equally likely."""
    counts = np.asarray(counts, float)
    statistic = ((counts - counts.mean()) ** 2).sum() / counts.mean()
    return (statistic - len(counts) + 1) / np.sqrt(2 * (len(counts) - 1))


def test_all_positions_are_alike():
    """Of images of very different sizes: an image comes in proportion to its positions, 4, 70 and 9 here."""
    data = cut([(4, 4), (12, 9), (5, 5)], 3, flip=False)
    drawn = torch.cat([whole(data, 500, step=step) for step in range(40)])
    corners = list(map(tuple, drawn[:, :, 0, 0].tolist()))
    counts = [corners.count(place) for place in sorted(set(corners))]
    assert len(counts) == len(data.source) == 4 + 70 + 9
    assert abs(chi_squared(counts)) < 4
    # Rows of a batch are independent, too: pairs of neighbours in the images' 3 x 3 table.
    pairs = np.zeros((3, 3))
    np.add.at(pairs, (drawn[0::2, 0, 0, 0], drawn[1::2, 0, 0, 0]), 1)
    share = np.array([4, 70, 9]) / 83
    expected = np.outer(share, share) * pairs.sum()
    assert ((pairs - expected) ** 2 / expected).sum() < 30


@given(kinds, st.integers(0, 99), st.integers(0, 99))
def test_flips_change_nothing_but_the_side(data, seed, step):
    plain, flipped = (
        whole(Dataset("x", data.train, data.test, 256, data.source, flip), 12, seed=seed, step=step)
        for flip in (False, True)
    )
    for before, after in zip(plain, flipped, strict=True):
        assert torch.equal(after, before) or torch.equal(after, before.flip(2))


@pytest.mark.parametrize("data", [in_memory(50, flip=True), cut([(30, 30)], 4, flip=True)])
def test_half_are_flipped(data):
    batches = torch.cat([whole(data, 400, step=step) for step in range(10)]).long()
    flipped = batches[:, -1, 0, 1] < batches[:, -1, 0, 0]  # values rise from left to right
    assert abs(flipped.float().mean() - 0.5) < 4 * 0.5 / 4000**0.5
    by_row = flipped.reshape(10, 400).float().mean(0)
    assert 0.12 < by_row.std() < 0.2  # at each step anew: the deviation of ten coins is 0.158
    if data.source is not None:
        corner = batches[:, 2].amin((1, 2)).float()
        assert abs(torch.corrcoef(torch.stack([corner, flipped.float()]))[0, 1]) < 0.07


def test_only_training_flips():
    plain, flipped = (load_dataset("digits", flip=flip) for flip in (False, True))
    assert torch.equal(plain.test, flipped.test) and torch.equal(plain.train, flipped.train)
    assert (plain.remarks, len(flipped.remarks)) == ([], 1)
    assert "flipped images, too" in flipped.remarks[0]


class Tiny(nn.Module):
    """A convolution that knows the depth."""

    def __init__(self, channels, out_channels):
        super().__init__()
        self.inner = nn.Conv2d(channels + 1, 4, 3, padding=1)
        self.out = nn.Conv2d(4, out_channels, 1)

    def forward(self, z, gamma):
        depth = (gamma / 10)[:, None, None, None].expand(-1, 1, *z.shape[2:])
        return self.out(torch.tanh(self.inner(torch.cat([z, depth], 1))))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder of colour images of three sizes, with sub-folders train and test."""
    random, folder = np.random.default_rng(0), tmp_path_factory.mktemp("photos")
    for part in ("train", "test"):
        sizes = ((9, 14), (11, 8), (8, 17))
        write(folder / part, [random.integers(0, 256, (3, *size)) for size in sizes])
    return folder


def of_patches(folder, **settings):
    own = {
        "data__name": str(folder),
        "data__patch": 4,
        "data__flip": True,
        "encoder__kind": "identity",
        "encoder__network__options": {},
        "network__kind": f"{__name__}:Tiny",
        "network__options": {},
        "model__prediction": "posterior",
        "model__head_options": {"functions": 6},
        "training__steps": 4,
        "training__batch_size": 8,
    }
    return tiny(**own | settings)


def test_a_resumed_run_sees_the_same(folder, tmp_path):
    train(of_patches(folder), tmp_path / "whole")
    train(of_patches(folder, training__steps=2), tmp_path / "parts")
    train(of_patches(folder), tmp_path / "parts", resume=True)
    assert_same(tensors_of(tmp_path / "whole"), tensors_of(tmp_path / "parts"))
    with pytest.raises(ValueError, match=r"data\.patch: 4 -> 3"):
        train(of_patches(folder, data__patch=3), tmp_path / "whole", resume=True)
    with pytest.raises(ValueError, match=r"data\.flip: True -> False"):
        train(of_patches(folder, data__flip=False), tmp_path / "whole", resume=True)


def test_accumulation_sees_the_same(folder):
    found = []
    data = load_dataset(str(folder), patch=4, flip=True)
    for parts in (1, 4):
        config = of_patches(folder, training__accumulate=parts)
        state = State.fresh(config, data, CPU)
        found.append(step_of(state, config, data))
    assert found[1] == pytest.approx(found[0], rel=1e-5)


def test_what_posterior_heads_begin_with():
    """Patches: the histogram of a channel, for every place sees the same; else of each value; a choice is kept."""
    shapes = {
        (None, "auto"): (3, 4, 4, 256),
        (4, "auto"): (3, 1, 1, 256),
        (4, "value"): (3, 4, 4, 256),
        (None, "channel"): (3, 1, 1, 256),
        (4, "none"): (256,),
    }
    for (patch, prior), shape in shapes.items():
        config = replace(
            Config(),
            {
                "data.patch": patch,
                "model.prior": prior,
                "model.prediction": "posterior",
                "encoder.kind": "identity",
                "network.kind": f"{__name__}:Tiny",
            },
        )
        assert tuple(build_model_for(config, (3, 4, 4), 256).heads.prior.shape) == shape


def test_commands_on_a_run_of_patches(folder, tmp_path, capsys):
    run = tmp_path / "run"
    config = tmp_path / "config.json"
    config.write_text(of_patches(folder, data__flip=False, data__patch=None).to_json())
    begin = ["train", "--config", str(config), "--run", str(run), "--device", "cpu"]
    assert main([*begin, "--patch", "4", "--flip"]) == 0
    data = load_dataset(str(folder), patch=4, flip=True)
    printed = capsys.readouterr().out
    assert len(data.remarks) == 2 and all(line in printed.splitlines() for line in data.remarks)
    assert open_run(run).config.data.flip and open_run(run).config.data.patch == 4
    counts = torch.stack(
        [torch.bincount(data.train[:, i].flatten(), minlength=256) for i in range(3)]
    )
    shares = (counts + 1) / (counts + 1).sum(1, keepdim=True)
    assert torch.allclose(load(run).heads.prior.flatten(1).exp(), shares)

    assert main(["evaluate", str(run), "--device", "cpu"]) == 0
    printed = capsys.readouterr().out
    written = json.loads((run / "evaluation.json").read_text())
    assert all(line in printed.splitlines() for line in data.remarks)
    # 9x14 holds 2x3 whole patches, 11x8 2x2, 8x17 2x4.
    assert written["remarks"] == data.remarks and written["images"] == 6 + 4 + 8
    assert written["baselines"]["independent"] > 7

    assert main(["evaluate", str(run), "--device", "cpu", "--likelihood", "elbo"]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert all(line in printed for line in data.remarks)
    assert json.loads((run / "likelihood.json").read_text())["remarks"] == data.remarks
    few = ["--depth", "2", "--candidates", "8", "--examples", "16", "--device", "cpu"]
    assert main(["calibrate", str(run), *few]) == 0
    assert main(["sample", str(run), "--count", "2", "--steps", "3", "--device", "cpu"]) == 0


def test_a_head_is_fitted_to_patches(folder, tmp_path):
    own = {"model__prediction": "v", "model__head_options": {}, "training__steps": 2}
    train(of_patches(folder, **own), tmp_path / "run")
    few = ["--steps", "2", "--batch-size", "4", "--device", "cpu"]
    assert main(["fit-head", str(tmp_path / "run"), *few]) == 0
