"""Checkpoints: what they hold, which are kept, what is loaded and exported."""

import itertools
import math

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from diffenc_ct.data import load_dataset
from diffenc_ct.training.checkpoints import (
    Checkpoint,
    CorruptCheckpoint,
    best,
    checkpoint_path,
    describe,
    list_checkpoints,
    prune,
    rate_name,
    read_checkpoint,
    write_checkpoint,
)
from diffenc_ct.training.config import Config, replace
from diffenc_ct.training.loop import train
from diffenc_ct.training.runs import export, load, open_run
from tests.tiny_runs import assert_same, tensors_of, tiny


@pytest.fixture(scope="module")
def data():
    return load_dataset("swirl")


@pytest.fixture(scope="module")
def sealed(tmp_path_factory):
    path = tmp_path_factory.mktemp("sealed") / "step-00000003.safetensors"
    tensors = {
        "model/a": torch.arange(6.0).reshape(2, 3),
        "ema/0.9/a": torch.ones(2),
        "n": torch.tensor(3),
    }
    write_checkpoint(path, Checkpoint(tensors, {"version": 1}, 3, (2,), 256, {"bpd": 1.5}))
    return path


def test_checkpoints_round_trip(sealed):
    read = read_checkpoint(sealed)
    assert torch.equal(read.tensors["model/a"], torch.arange(6.0).reshape(2, 3))
    assert read.tensors["n"].dtype == torch.int64
    assert (read.step, read.shape, read.levels, read.metrics) == (3, (2,), 256, {"bpd": 1.5})
    assert read.ema_rates() == ["0.9"] and list(read.under("ema/0.9/")) == ["a"]


def test_the_first_average_is_the_configured_one_whatever_the_files_order():
    config = replace(Config(), {"optimizer.ema": [0.5, 0.9, 0.1]}).to_dict()
    for order in itertools.permutations(["0.9", "0.1", "0.5"]):
        tensors = {f"ema/{rate}/a": torch.zeros(1) for rate in order}
        assert Checkpoint(tensors, config, 0, (1,), None).ema_rates() == ["0.5", "0.9", "0.1"]


@given(st.data())
@settings(max_examples=200)
def test_any_changed_byte_or_lost_tail_is_recognised(sealed, tmp_path_factory, data):
    written = bytearray(sealed.read_bytes())
    if data.draw(st.booleans()):
        place = data.draw(st.integers(0, len(written) - 1))
        written[place] ^= data.draw(st.integers(1, 255))
    else:
        del written[data.draw(st.integers(0, len(written) - 1)) :]
    path = tmp_path_factory.getbasetemp() / "spoiled.safetensors"
    path.write_bytes(written)
    with pytest.raises(CorruptCheckpoint, match="truncated, altered or no checkpoint"):
        read_checkpoint(path)


scores_ = st.none() | st.integers(0, 3) | st.sampled_from([math.nan, math.inf, -math.inf])


@given(st.lists(scores_, min_size=1, max_size=6), st.integers(1, 3))
@settings(max_examples=60)
def test_pruning_keeps_the_newest_and_the_best(tmp_path_factory, scores, keep):
    """What was not evaluated, or not to a number, is nobody's best."""
    folder = tmp_path_factory.mktemp("prune")
    for step, score in enumerate(scores):
        metrics = {} if score is None else {"bpd": float(score), "bpd_error": math.nan}
        write_checkpoint(
            checkpoint_path(folder, step), Checkpoint({}, {}, step, (1,), None, metrics)
        )
    prune(folder, keep)
    left = {int(path.stem[5:]) for path in list_checkpoints(folder)}
    scored = [
        (score, -step)
        for step, score in enumerate(scores)
        if score is not None and math.isfinite(score)
    ]
    expected = set(range(len(scores))[-keep:]) | ({-min(scored)[1]} if scored else set())
    assert left == expected
    found = best(folder)
    assert (found and int(found.stem[5:])) == (-min(scored)[1] if scored else None)


def test_numbers_that_are_not_finite_are_null_in_the_file_and_themselves_when_read(tmp_path):
    path, metrics = tmp_path / "a", {"bpd": 1.5, "bpd_error": math.nan, "latent": math.inf}
    write_checkpoint(path, Checkpoint({}, {}, 1, (2,), 5, metrics, data={"test": {"examples": 3}}))
    header = path.read_bytes()
    assert b"NaN" not in header and b"Infinity" not in header and b"not_finite" in header
    for found in (vars(read_checkpoint(path)), describe(path)):
        assert found["metrics"]["bpd"] == 1.5 and math.isnan(found["metrics"]["bpd_error"])
        assert found["data"] == {"test": {"examples": 3}} and found["shape"] == (2,)
    path.write_bytes(header[:40])
    assert describe(path) == {}


@given(st.lists(st.floats(0, 1, exclude_max=True), min_size=2, max_size=4, unique=True))
@example([0.9999, 0.99990001])
def test_averages_of_different_rates_have_different_names(rates):
    names = [rate_name(rate) for rate in rates]
    assert len(set(names)) == len(rates) and [float(name) for name in names] == rates
    assert all(
        name == f"{rate:g}"
        for name, rate in zip(names, rates, strict=True)
        if float(f"{rate:g}") == rate
    )


def test_averages_that_print_alike_are_kept_apart(tmp_path, data):
    config = tiny(optimizer__ema=(0.5, 0.50000001), training__steps=3)
    train(config, tmp_path / "run", data=data)
    found = tensors_of(tmp_path / "run")
    kinds = {name.split("/")[1] for name in found if name.startswith("ema/")}
    assert kinds == {"0.5", "0.50000001"}
    load(tmp_path / "run", weights="0.50000001")
    train(replace(config, {"training.steps": 5}), tmp_path / "run", data=data, resume=True)
    train(replace(config, {"training.steps": 5}), tmp_path / "long", data=data)
    assert_same(tensors_of(tmp_path / "run"), tensors_of(tmp_path / "long"))


def test_loading_gives_the_weights_asked_for(tmp_path, data):
    run = tmp_path / "run"
    train(tiny(optimizer__ema=(0.9, 0.5)), run, data=data)
    saved = tensors_of(run)
    for weights, prefix in (("ema", "ema/0.9/"), ("0.5", "ema/0.5/"), ("raw", "model/")):
        model = load(run, weights=weights)
        assert not model.training
        for name, tensor in model.state_dict().items():
            assert torch.equal(tensor, saved[prefix + name])
    assert not torch.equal(*(next(load(run, weights=w).heads.parameters()) for w in ("ema", "raw")))
    assert open_run(run, checkpoint=4).step == 4
    assert open_run(run, checkpoint="best").step in (4, 6)
    assert open_run(checkpoint_path(run / "checkpoints", 4)).step == 4
    with pytest.raises(ValueError, match=r"'0.7'.*it has raw, 0.9, 0.5, ema"):
        load(run, weights="0.7")
    with pytest.raises(ValueError, match="latest, best or the step"):
        load(run, checkpoint=5)
    with pytest.raises(FileNotFoundError, match="no run at"):
        load(tmp_path / "nowhere")


def test_exported_weights_are_the_model(tmp_path, data):
    train(tiny(), tmp_path / "run", data=data)
    path = export(tmp_path / "run", tmp_path / "small")
    one, other = load(tmp_path / "run"), load(tmp_path / "small")
    assert_same(one.state_dict(), other.state_dict())
    assert (
        path.stat().st_size
        < checkpoint_path(tmp_path / "run" / "checkpoints", 6).stat().st_size / 2
    )


def test_half_precision_exports_round_and_are_smaller(tmp_path, data):
    train(tiny(), tmp_path / "run", data=data)
    whole = export(tmp_path / "run", tmp_path / "whole")
    half = export(tmp_path / "run", tmp_path / "half", half=True)
    one, other = load(tmp_path / "whole").state_dict(), load(tmp_path / "half").state_dict()
    for name, tensor in one.items():
        assert other[name].dtype == tensor.dtype == torch.float32
        assert torch.equal(other[name], tensor.half().float())
    assert half.stat().st_size < whole.stat().st_size


def test_exports_do_not_tell_where_the_data_lay(tmp_path, data):
    train(replace(tiny(), {"data.root": "/secret/place"}), tmp_path / "run", data=data)
    path = export(tmp_path / "run", tmp_path / "small")
    assert b"secret" not in path.read_bytes() + (path.parent / "config.json").read_bytes()


def test_a_run_is_not_exported_into_a_run(tmp_path, data):
    train(tiny(), tmp_path / "run", data=data)
    before = (tmp_path / "run" / "config.json").read_bytes()
    with pytest.raises(ValueError, match="holds a run"):
        export(tmp_path / "run", tmp_path / "run")
    assert (tmp_path / "run" / "config.json").read_bytes() == before
    assert not (tmp_path / "run" / "weights.safetensors").exists()
