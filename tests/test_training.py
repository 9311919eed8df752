"""Training: what resumes, what is refused, what survives. Tiny models on two-dimensional data."""

import csv
import itertools
import multiprocessing
import os
import random
import resource
import signal
import time
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from diffenc_ct.data import load_dataset
from diffenc_ct.training.checkpoints import (
    Checkpoint,
    CorruptCheckpoint,
    best,
    checkpoint_path,
    latest,
    list_checkpoints,
    prune,
    read_checkpoint,
    write_checkpoint,
)
from diffenc_ct.training.config import Config, replace
from diffenc_ct.training.cost import measure_cost
from diffenc_ct.training.evaluation import baselines, evaluate
from diffenc_ct.training.folder import RunFolder
from diffenc_ct.training.loop import TrainingStopped, learning_rate, train, training_step
from diffenc_ct.training.randomness import batch_indices, derived_seed
from diffenc_ct.training.runs import export, load, open_run
from diffenc_ct.training.state import State, make_optimizer

CPU = torch.device("cpu")


def tiny(**settings):
    """DiffEnc with a trainable encoder on the 8-bit swirl, a step of a few milliseconds."""
    values = {
        "data.name": "swirl",
        "network.options": {"width": 8, "layers": 1},
        "encoder.network.options": {"width": 8, "layers": 1},
        "optimizer.warmup": 2,
        "training.steps": 6,
        "training.batch_size": 16,
        "training.log_every": 2,
        "training.eval_every": 4,
        "training.eval_examples": 20,
        "training.save_every": 2,
    }
    return replace(Config(), values | {k.replace("__", "."): v for k, v in settings.items()})


@pytest.fixture(scope="module")
def data():
    return load_dataset("swirl")


def tensors_of(run):
    found = latest(run / "checkpoints")
    assert found is not None
    return found[1].tensors


def assert_same(one, other):
    assert one.keys() == other.keys()
    for name in one:
        assert torch.equal(one[name], other[name]), name


# Resuming ---------------------------------------------------------------------------------------------


class Dropping(nn.Module):
    """A network with dropout, whose draws must resume too."""

    def __init__(self, dimensions):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(dimensions + 1, 8), nn.SiLU(), nn.Dropout(0.3), nn.Linear(8, dimensions)
        )

    def forward(self, z, gamma):
        return self.layers(torch.cat([z, gamma[:, None] / 10], dim=1))


@pytest.mark.parametrize("stop", [1, 4, 5])
def test_an_interrupted_run_ends_bit_for_bit_like_an_undisturbed_one(tmp_path, data, stop):
    config = tiny(
        network__kind=f"{__name__}:Dropping",
        network__options={},
        optimizer__ema=(0.99, 0.5),
        optimizer__clip=1.0,
        training__steps=7,
    )
    train(config, tmp_path / "whole", data=data)
    train(replace(config, {"training.steps": stop}), tmp_path / "parts", data=data)
    # Whatever else happens to the global generator in between must not matter.
    torch.manual_seed(stop)
    torch.rand(stop)
    train(config, tmp_path / "parts", data=data, resume=True)
    assert_same(tensors_of(tmp_path / "whole"), tensors_of(tmp_path / "parts"))


def _train_forked(config, run):
    torch.set_num_threads(1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        train(config, run, resume=True)


def test_killed_at_random_moments_the_run_still_ends_bit_for_bit_the_same(tmp_path, data):
    config = tiny(training__steps=120, training__save_every=5, training__eval_every=40)
    torch.set_num_threads(1)
    started = time.perf_counter()
    train(config, tmp_path / "whole", data=data)
    lasts = time.perf_counter() - started
    draws, kills, context = random.Random(int(lasts * 1e9)), 0, multiprocessing.get_context("fork")
    for _ in range(60):
        process = context.Process(target=_train_forked, args=(config, tmp_path / "killed"))
        process.start()
        process.join(draws.uniform(0, lasts / 3) if kills < 6 else None)
        if process.is_alive():
            os.kill(process.pid, signal.SIGKILL)
            kills += 1
        process.join()
        if process.exitcode == 0:
            break
    assert process.exitcode == 0 and kills >= 1
    assert_same(tensors_of(tmp_path / "whole"), tensors_of(tmp_path / "killed"))
    rows = list(csv.DictReader(open(tmp_path / "killed" / "metrics.csv", encoding="utf-8")))
    assert [int(row["step"]) for row in rows] == list(range(2, 121, 2))
    assert not list((tmp_path / "killed" / "checkpoints").glob(".*"))


def test_sigterm_saves_and_says_how_to_go_on(tmp_path, data, monkeypatch):
    def signalled(state, *rest):
        if state.step == 3:
            os.kill(os.getpid(), signal.SIGTERM)
        return training_step(state, *rest)

    monkeypatch.setattr("diffenc_ct.training.loop.training_step", signalled)
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(
        TrainingStopped, match=r"SIGTERM at step 4, which is saved.*--resume"
    ) as stopped:
        train(tiny(), tmp_path / "run", data=data)
    assert stopped.value.exit_code == 128 + signal.SIGTERM
    assert signal.getsignal(signal.SIGTERM) is before
    monkeypatch.undo()
    train(tiny(), tmp_path / "run", data=data, resume=True)
    train(tiny(), tmp_path / "whole", data=data)
    assert_same(tensors_of(tmp_path / "whole"), tensors_of(tmp_path / "run"))


def test_a_finished_run_resumed_longer_equals_a_long_one(tmp_path, data):
    train(tiny(training__steps=3), tmp_path / "run", data=data)
    train(tiny(training__steps=3), tmp_path / "run", data=data, resume=True)  # nothing left to do
    train(tiny(training__steps=5), tmp_path / "run", data=data, resume=True)
    train(tiny(training__steps=5), tmp_path / "long", data=data)
    assert_same(tensors_of(tmp_path / "long"), tensors_of(tmp_path / "run"))


# Folders ----------------------------------------------------------------------------------------------


def test_foreign_folders_are_refused_and_left_alone(tmp_path, data):
    run = tmp_path / "run"
    train(tiny(), run, data=data)
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    with pytest.raises(ValueError, match=r"holds a run already; add --resume"):
        train(tiny(), run, data=data)
    with pytest.raises(ValueError, match=r"another configuration \(training.seed: 1 -> 2\)"):
        train(tiny(training__seed=2), run, data=data, resume=True)
    with RunFolder(run, tiny(), resume=True):
        with pytest.raises(ValueError, match="another process trains"):
            train(tiny(), run, data=data, resume=True)
    (tmp_path / "file").write_text("mine")
    with pytest.raises(ValueError, match="is a file"):
        train(tiny(), tmp_path / "file", data=data)
    with pytest.raises(OSError):
        train(tiny(), tmp_path / "file" / "run", data=data)
    assert (tmp_path / "file").read_text() == "mine"
    assert before == {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}


def test_metrics_are_rows_of_one_table(tmp_path, data):
    summary = train(tiny(), tmp_path / "run", data=data)
    rows = list(csv.DictReader(open(tmp_path / "run" / "metrics.csv", encoding="utf-8")))
    assert [int(row["step"]) for row in rows] == [2, 4, 6]
    for row in rows:
        parts = [float(row[name]) for name in ("reconstruction", "diffusion", "latent")]
        assert float(row["bpd"]) == pytest.approx(sum(parts), rel=1e-4)
    assert [bool(row["test_bpd"]) for row in rows] == [False, True, True]
    assert float(rows[-1]["test_bpd"]) == pytest.approx(summary.metrics["bpd"], rel=1e-5)


# Checkpoints ------------------------------------------------------------------------------------------


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


def test_a_corrupt_checkpoint_is_passed_over_with_a_warning(tmp_path, data):
    train(tiny(), tmp_path / "run", data=data)
    newest = list_checkpoints(tmp_path / "run" / "checkpoints")[-1]
    whole = tensors_of(tmp_path / "run")
    spoiled = bytearray(newest.read_bytes())
    spoiled[len(spoiled) // 2] ^= 1
    newest.write_bytes(spoiled)
    with pytest.warns(UserWarning, match=r"step-00000006.*trying the one before"):
        assert open_run(tmp_path / "run").step == 4
    with pytest.warns(UserWarning, match="trying the one before"):
        train(tiny(), tmp_path / "run", data=data, resume=True)
    assert_same(whole, tensors_of(tmp_path / "run"))


def test_a_write_that_fails_leaves_the_checkpoint_before(tmp_path, data):
    run = tmp_path / "run"
    train(tiny(training__steps=2), run, data=data)
    kept = checkpoint_path(run / "checkpoints", 2).read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(kept) // 2, hard))
    try:
        with pytest.raises(
            TrainingStopped, match=r"step 4 leaves cannot be written.*last checkpoint is intact"
        ) as stopped:
            train(tiny(), run, data=data, resume=True)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert stopped.value.exit_code == 2
    assert [path.name for path in (run / "checkpoints").iterdir()] == ["step-00000002.safetensors"]
    assert checkpoint_path(run / "checkpoints", 2).read_bytes() == kept
    train(tiny(), run, data=data, resume=True)
    train(tiny(), tmp_path / "whole", data=data)
    assert_same(tensors_of(tmp_path / "whole"), tensors_of(run))


@given(st.lists(st.none() | st.integers(0, 3), min_size=1, max_size=6), st.integers(1, 3))
@settings(max_examples=30)
def test_pruning_keeps_the_newest_and_the_best(tmp_path_factory, scores, keep):
    folder = tmp_path_factory.mktemp("prune")
    for step, score in enumerate(scores):
        metrics = {} if score is None else {"bpd": float(score)}
        write_checkpoint(
            checkpoint_path(folder, step), Checkpoint({}, {}, step, (1,), None, metrics)
        )
    prune(folder, keep)
    left = {int(path.stem[5:]) for path in list_checkpoints(folder)}
    scored = [(score, -step) for step, score in enumerate(scores) if score is not None]
    expected = set(range(len(scores))[-keep:]) | ({-min(scored)[1]} if scored else set())
    assert left == expected
    assert (best(folder) is None) == (not scored)


def test_loading_gives_the_weights_asked_for(tmp_path, data):
    run = tmp_path / "run"
    train(tiny(optimizer__ema=(0.9, 0.5)), run, data=data)
    saved = tensors_of(run)
    for weights, prefix in (("ema", "ema/0.9/"), ("0.5", "ema/0.5/"), ("raw", "model/")):
        model = load(run, weights=weights)
        assert not model.training
        for name, tensor in model.state_dict().items():
            assert torch.equal(tensor, saved[prefix + name])
    assert not torch.equal(
        *(next(load(run, weights=w).network.parameters()) for w in ("ema", "raw"))
    )
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


# The step ---------------------------------------------------------------------------------------------


@given(st.integers(0, 99), st.integers(1, 40), st.integers(1, 30))
def test_batches_cut_epochs_into_parts(seed, batch_size, count):
    steps = -(-2 * count // batch_size)
    drawn = torch.cat([batch_indices(seed, step, batch_size, count) for step in range(steps)])
    for epoch in range(2):
        assert sorted(drawn[epoch * count : (epoch + 1) * count].tolist()) == list(range(count))
    assert all(
        len(batch_indices(seed, step, batch_size, count)) == batch_size for step in range(steps)
    )


def test_seeds_of_different_places_differ():
    seeds = {
        derived_seed(s, stream, step)
        for s in range(5)
        for stream in range(5)
        for step in range(200)
    }
    assert len(seeds) == 5 * 5 * 200 and all(0 <= seed < 2**63 for seed in seeds)


def test_accumulation_is_the_whole_batch(data):
    results = []
    for parts in (1, 2, 4):
        config = tiny(training__accumulate=parts)
        state = State.fresh(config, data, CPU)
        values = training_step(state, config, data.train, CPU)
        results.append((values, [p.grad.clone() for p in state.model.parameters()]))
    for values, gradients in results[1:]:
        assert values == pytest.approx(results[0][0], rel=1e-5)
        for mine, whole in zip(gradients, results[0][1], strict=True):
            assert torch.allclose(mine, whole, rtol=1e-4, atol=1e-6)


def test_decay_spares_biases_and_nothing_else(data):
    model = State.fresh(tiny(), data, CPU).model
    groups = make_optimizer(model, tiny().optimizer).param_groups
    decay = {id(p): group["weight_decay"] for group in groups for p in group["params"]}
    names = dict(model.named_parameters())
    assert len(decay) == len(names)
    for name, parameter in names.items():
        assert decay[id(parameter)] == (0.0 if name.endswith("bias") else 0.01), name


def test_averages_follow_the_ramp_then_the_rate(data):
    state = State.fresh(tiny(optimizer__ema=(0.5,)), data, CPU)
    weight, averaged = (next(m.network.parameters()) for m in (state.model, state.averages[0.5]))
    expected = averaged.double().clone()
    for step, rate in ((1, 2 / 11), (2, 3 / 12), (3, 4 / 13), (8, 0.5), (50, 0.5)):
        state.step = step
        with torch.no_grad():
            weight.add_(1.0)
        state.update_averages()
        expected = rate * expected + (1 - rate) * weight.double()
        assert torch.allclose(averaged.double(), expected, atol=1e-6)


def test_learning_rate_warms_up_and_decays():
    config = tiny(optimizer__learning_rate=1.0, optimizer__warmup=4, training__steps=12)
    assert [learning_rate(config, s) for s in (0, 1, 3, 4, 11)] == [0.25, 0.5, 1, 1, 1]
    cosine = replace(config, {"optimizer.decay": "cosine"})
    assert learning_rate(cosine, 3) == 1 and learning_rate(cosine, 8) == pytest.approx(0.5)
    assert learning_rate(cosine, 12) == pytest.approx(0, abs=1e-12)


class Breaking(Dropping):
    """NaN at every third training step, so at steps 2 and 5."""

    def __init__(self, dimensions):
        super().__init__(dimensions)
        self.calls = 0

    def forward(self, z, gamma):
        self.calls += self.training
        spoil = self.training and self.calls % 3 == 0
        return super().forward(z, gamma) * (float("nan") if spoil else 1.0)


def test_a_loss_that_is_not_finite_stops_with_its_name_and_seed(tmp_path, data):
    config = tiny(network__kind=f"{__name__}:Breaking", network__options={})
    with pytest.raises(TrainingStopped) as stopped:
        train(config, tmp_path / "run", data=data)
    seed = derived_seed(1, 1, 2)
    for word in ("step 2", "diffusion is nan", f"batch seed {seed}", "--on-nan skip"):
        assert word in str(stopped.value)
    assert stopped.value.exit_code == 1
    assert open_run(tmp_path / "run").step == 2


def test_skipped_steps_are_counted_and_change_nothing(tmp_path, data):
    config = tiny(
        network__kind=f"{__name__}:Breaking", network__options={}, training__on_nan="skip"
    )
    summary = train(config, tmp_path / "run", data=data)
    assert summary.skipped == 2 and summary.steps == 6
    assert all(torch.isfinite(tensor).all() for tensor in tensors_of(tmp_path / "run").values())
    state = State.fresh(config, data, CPU)
    for _ in range(2):
        training_step(state, config, data.train, CPU)
    before = {name: tensor.clone() for name, tensor in state.model.state_dict().items()}
    training_step(state, config, data.train, CPU)
    assert_same(before, state.model.state_dict())
    assert (state.step, state.skipped) == (3, 1)


def test_training_learns(tmp_path, data):
    config = tiny(
        training__steps=150,
        training__batch_size=64,
        training__eval_examples=500,
        optimizer__learning_rate=1e-2,
        network__options={"width": 32, "layers": 2},
    )
    fresh = evaluate(State.fresh(config, data, CPU).model, data.test[:500]).mean("total")
    trained = train(config, tmp_path / "run", data=data).metrics["bpd"]
    assert trained < fresh - 1


class Spy(Dropping):
    """Records the types that go in and come out of the layers."""

    seen: dict[str, torch.dtype] = {}

    def forward(self, z, gamma):
        out = super().forward(z, gamma)
        self.seen.update(z=z.dtype, gamma=gamma.dtype, inside=out.dtype)
        return out


def test_bf16_touches_the_networks_only(data):
    values = {}
    for precision in ("float32", "bf16"):
        config = tiny(
            network__kind=f"{__name__}:Spy", network__options={}, training__precision=precision
        )
        state = State.fresh(config, data, CPU)
        values[precision] = training_step(state, config, data.train, CPU)
        assert Spy.seen["z"] == Spy.seen["gamma"] == torch.float32
        assert Spy.seen["inside"] == (torch.bfloat16 if precision == "bf16" else torch.float32)
        assert all(p.grad.dtype == torch.float32 for p in state.model.network.parameters())
    assert values["bf16"]["diffusion"] == pytest.approx(values["float32"]["diffusion"], rel=1e-2)
    assert values["bf16"]["diffusion"] != values["float32"]["diffusion"]


class Square(nn.Module):
    """Two products of n x n matrices with a vector."""

    def __init__(self, dimensions):
        super().__init__()
        self.one, self.two = (nn.Linear(dimensions, dimensions, bias=False) for _ in "ab")

    def forward(self, z, gamma):
        return self.two(torch.sigmoid(self.one(z)))


def test_cost_against_a_count_by_hand(data):
    config = tiny(
        network__kind=f"{__name__}:Square",
        network__options={},
        encoder__kind="identity",
        encoder__network__options={},
        training__batch_size=8,
        training__accumulate=2,
    )
    cost = measure_cost(config, data)
    n = 2
    assert cost.parameters == {"network": 2 * n * n, "encoder": 0, "schedule": 0}
    # Forward, backward by the weights, and backward by the input except the first layer's: 2 n^2 each.
    assert cost.flops == 8 * 5 * 2 * n * n
    assert cost.state_bytes == 4 * 2 * n * n * 5
    assert cost.activation_bytes % 4 == 0 and cost.activation_bytes > 4 * 2 * n * 4


# Evaluation -------------------------------------------------------------------------------------------


def test_evaluation_sees_every_image_once_in_its_place(data):
    model = State.fresh(tiny(), data, CPU).model
    images = data.test[:50]
    whole = evaluate(model, images, batch_size=50, draws=2)
    assert all(len(values) == 50 for values in whole.terms.values()) and len(whole.t) == 100
    parts = whole.terms["reconstruction"] + whole.terms["diffusion"] + whole.terms["latent"]
    assert torch.allclose(whole.terms["total"], parts)
    again = evaluate(model, images, batch_size=50, draws=2)
    assert torch.equal(whole.terms["total"], again.terms["total"])
    # The latent term has no noise: it shows whether rows stay in place, in batches of another size too.
    small = evaluate(model, images, batch_size=7)
    assert torch.allclose(whole.terms["latent"], small.terms["latent"], rtol=1e-4)
    assert whole.error("total") == pytest.approx(whole.terms["total"].std().item() / np.sqrt(50))
    rows = whole.by_depth(5)
    assert sum(row["count"] for row in rows) == 100
    mean = sum(row["bpd"] * row["count"] for row in rows) / 100
    assert mean == pytest.approx(whole.mean("diffusion"))


def test_baselines_against_a_count_by_hand(data):
    from diffenc_ct.data import Dataset

    train_, test = torch.tensor([[0, 1], [0, 0], [1, 0]]), torch.tensor([[0, 1]])
    by_hand = -(np.log2(3 / 5) + np.log2(2 / 5)) / 2
    found = baselines(Dataset("x", train_, test, 2))
    assert found == {"uniform": 1.0, "independent": pytest.approx(by_hand)}
    digits = baselines(load_dataset("digits"))
    assert digits["uniform"] == pytest.approx(4.0875, abs=1e-4)
    assert digits["independent"] == pytest.approx(2.431, abs=1e-3)
    assert baselines(load_dataset("checkerboard")) == {}
