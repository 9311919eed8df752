"""Several processes of one launch find what one process finds, and end when one of them does."""

import csv
import json
import os
import signal

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from diffenc_ct.cli import main
from diffenc_ct.data import load_dataset
from diffenc_ct.distributed import ALONE, Processes, Work, launched, own_device
from diffenc_ct.likelihood import log_likelihood
from diffenc_ct.sampling import Exponential, sample
from diffenc_ct.training.checkpoints import latest
from diffenc_ct.training.config import replace
from diffenc_ct.training.evaluation import evaluate
from diffenc_ct.training.loop import train, training_step
from diffenc_ct.training.state import State
from tests.launching import Group, train_here
from tests.tiny_runs import CPU, step_of, tensors_of, tiny


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    with Group(2, tmp_path_factory.mktemp("pair")) as group:
        yield group


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    path = tmp_path_factory.mktemp("trained") / "run"
    train(tiny(), path)
    return path


def step_in_double(config, steps=1):
    """What a step reports, its gradients and what noise level and depths have counted, in float64."""
    torch.set_default_dtype(torch.float64)
    try:
        with launched() as processes:
            data = load_dataset("swirl")
            state = State.fresh(config, data, CPU)
            for _ in range(steps):
                values = step_of(state, config, data, processes)
            gradients = {n: p.grad for n, p in state.model.named_parameters()}
            counted = [getattr(part, "moments", None) for part in (state.noise_level, state.depths)]
            return values, gradients, counted
    finally:
        torch.set_default_dtype(torch.float32)


@given(
    heads=st.sampled_from(["single", "paired"]),
    accumulate=st.sampled_from([1, 2]),
    batch=st.sampled_from([8, 16, 24]),
    ends=st.sampled_from([1.0, 0.5, 0.25]),
    rates=st.sampled_from([1.0, 0.5]),
    schedule=st.sampled_from(["linear", "learned-linear", "monotone", "monotone ends"]),
    level=st.sampled_from([1.0, "tight", "optimal"]),
    seed=st.integers(0, 99),
)
@settings(max_examples=12)
def test_gradients_of_two_processes_are_those_of_one(
    pair, heads, accumulate, batch, ends, rates, schedule, level, seed
):
    part = batch / (2 * accumulate)
    assume(ends * part % 1 == rates * part % 1 == 0)
    kind, _, ends_too = schedule.partition(" ")
    config = tiny(
        model__heads=heads,
        schedule__kind=kind,
        schedule__options={"learn_ends": True} if ends_too else {},
        optimizer__clip=1.0,
        training__accumulate=accumulate,
        training__batch_size=batch,
        training__ends_fraction=ends,
        training__rate_fraction=rates,
        training__noise_level=level,
        training__seed=seed,
    )
    values, gradients, (moments, _) = step_in_double(config, steps=2)
    for found, theirs, (counted, _) in pair.call(step_in_double, config, 2):
        assert found == pytest.approx(values, rel=1e-10, abs=1e-12)
        for name, gradient in gradients.items():
            torch.testing.assert_close(theirs[name], gradient, rtol=1e-6, atol=1e-9)
        if level == "optimal":
            torch.testing.assert_close(counted, moments, rtol=1e-10, atol=0)


@pytest.mark.parametrize("accumulate", [1, 2])
def test_depths_by_importance_of_two_processes_are_those_of_one(pair, accumulate):
    """Every cell is seen in the first steps, so that the last ones' depths and weights are what all have counted."""
    config = tiny(
        training__depths="importance", training__batch_size=128, training__accumulate=accumulate
    )
    values, gradients, (_, moments) = step_in_double(config, steps=4)
    assert (moments[:, 1] > 0).all() and moments[:, 0].std() > 0
    for found, theirs, (_, counted) in pair.call(step_in_double, config, 4):
        assert found == pytest.approx(values, rel=1e-9, abs=1e-12)
        torch.testing.assert_close(counted, moments, rtol=1e-9, atol=0)
        for name, gradient in gradients.items():
            torch.testing.assert_close(theirs[name], gradient, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("heads", ["single", "paired"])
def test_a_parameter_that_never_gets_a_gradient_does_not_hinder_two_processes(pair, heads):
    """Everything else has its gradient, a learned schedule's interior too, and it has none, in parts of a batch."""
    config = tiny(
        network__kind="tests.tiny_runs:Partly",
        network__options={},
        model__heads=heads,
        schedule__kind="monotone",
        schedule__options={"hidden": 4, "learn_ends": True},
        training__accumulate=2,
    )
    values, gradients, _ = step_in_double(config, steps=3)
    assert [name for name, g in gradients.items() if g is None] == ["heads.network.idle"]
    for found, theirs, _ in pair.call(step_in_double, config, 3):
        assert found == pytest.approx(values, rel=1e-10, abs=1e-12)
        assert theirs["heads.network.idle"] is None
        for name, gradient in gradients.items():
            if gradient is not None:
                torch.testing.assert_close(theirs[name], gradient, rtol=1e-6, atol=1e-9)


def test_an_error_of_the_network_is_not_taken_for_a_lost_process(pair, tmp_path):
    config = tiny(network__kind="tests.tiny_runs:Refusing", network__options={})
    pair.send(train_here, config, tmp_path / "run")
    for rank in range(2):
        with pytest.raises(
            RuntimeError, match="RuntimeError: the skip connection timed out"
        ) as error:
            pair.receive(rank)
        assert "ConnectionError" not in str(error.value)


def share_of(config, step):
    """The depths and dropped units that this process's step draws."""
    with launched() as processes:
        data = load_dataset("swirl")
        state = State.fresh(config, data, CPU)
        state.step, seen = step, []

        def note(network, given, out):
            if network.training:
                seen.append(given)

        state.model.heads.network.register_forward_hook(note)
        training_step(state, config, data, CPU, processes)
        return seen[0][1], torch.rand(3)


def test_processes_share_depths_and_draw_their_own_dropout(pair):
    config = tiny()
    (whole, _), shares = share_of(config, 3), pair.call(share_of, config, 3)
    gammas, after = zip(*shares, strict=True)
    assert torch.equal(torch.cat(gammas), whole)
    assert not torch.equal(*after)


def numbers(run):
    """The rows of metrics.csv, as far as they are the same at any speed."""
    rows = list(csv.DictReader(open(run / "metrics.csv", encoding="utf-8")))
    skip = ("images_per_second",)
    return [{k: float(v) for k, v in row.items() if v and k not in skip} for row in rows]


def test_a_run_of_two_processes_and_one_gone_on_with_by_another_number(pair, tmp_path):
    config = tiny(optimizer__clip=1.0, optimizer__ema=(0.9, 0.5))
    one = train(config, tmp_path / "one").metrics
    for metrics in pair.call(train_here, config, tmp_path / "two"):
        assert metrics == pytest.approx(one, rel=1e-4)
    half = replace(config, {"training.steps": 3})
    pair.call(train_here, half, tmp_path / "two-one")
    train(config, tmp_path / "two-one", resume=True)
    train(half, tmp_path / "one-two")
    pair.call(train_here, config, tmp_path / "one-two", True)
    whole = tensors_of(tmp_path / "one")
    for name in ("two", "two-one", "one-two"):
        found = tensors_of(tmp_path / name)
        assert found.keys() == whole.keys()
        for key, tensor in found.items():
            torch.testing.assert_close(tensor, whole[key], rtol=1e-3, atol=1e-5, msg=key)
    for mine, theirs in zip(numbers(tmp_path / "two"), numbers(tmp_path / "one"), strict=True):
        assert mine == pytest.approx(theirs, rel=1e-4)


def test_a_batch_that_cannot_be_shared_is_refused(pair, tmp_path):
    for settings_ in ({"training__batch_size": 15}, {"training__accumulate": 16}):
        config = tiny(**settings_)
        pair.send(train_here, config, tmp_path / "run")
        for rank in range(2):
            with pytest.raises(RuntimeError, match="training.batch_size.*must be a multiple of"):
                pair.receive(rank)
    assert not (tmp_path / "run").exists()


def raising_signal(config, run, member):
    """Train; `member` gets a SIGTERM in the middle of its fourth step."""
    import diffenc_ct.training.loop as loop

    with launched() as processes:

        def signalled(state, *rest):
            if state.step == 3 and processes.rank == member:
                os.kill(os.getpid(), signal.SIGTERM)
            return training_step(state, *rest)

        loop.training_step = signalled
        try:
            return train_here(config, run)
        finally:
            loop.training_step = training_step


def test_a_signal_to_one_process_stops_all_at_the_same_step(pair, tmp_path):
    for member in range(2):
        run = tmp_path / f"run{member}"
        for message, code in pair.call(raising_signal, tiny(), run, member):
            assert "SIGTERM at step 4, which is saved" in message
            assert code == 128 + signal.SIGTERM
        assert latest(run / "checkpoints")[1].step == 4


def test_a_loss_that_is_not_finite_on_one_process_stops_all(pair, tmp_path):
    config = tiny(network__kind="tests.tiny_runs:BreakingSecond", network__options={})
    found = pair.call(train_here, config, tmp_path / "run")
    assert found[0] == found[1]
    assert "step 2: diffusion is nan" in found[0][0] and found[0][1] == 1


def test_a_folder_refused_or_full_stops_all_processes(pair, tmp_path):
    (tmp_path / "file").write_text("mine")
    pair.send(train_here, tiny(), tmp_path / "file")
    with pytest.raises(RuntimeError, match="ValueError.*is a file"):
        pair.receive(0)
    message, code = pair.receive(1)
    assert "is a file" in message and code == 2


def evaluate_here(run, command, out):
    """A command of two processes; its exit code."""
    return main([command[0], str(run), *command[1:], "--out", str(out), "--device", "cpu"])


def test_commands_of_two_processes_write_what_one_writes(pair, run, tmp_path):
    commands = {
        "evaluation.json": ["evaluate", "--examples", "70", "--batch-size", "20", "--draws", "2"],
        "likelihood.json": ["evaluate", "--likelihood", "both", "--examples", "5", "--draws", "2"],
        "samples.png": ["sample", "--count", "9", "--steps", "6", "--solver", "ancestral"],
    }
    for name, command in commands.items():
        assert evaluate_here(run, command, tmp_path / "one" / name) == 0
        assert pair.call(evaluate_here, run, command, tmp_path / "two" / name) == [0, 0]
    one, two = (json.loads((tmp_path / n / "evaluation.json").read_text()) for n in ("one", "two"))
    assert one == two
    one, two = (json.loads((tmp_path / n / "likelihood.json").read_text()) for n in ("one", "two"))
    for mine, theirs in zip(one["rows"], two["rows"], strict=True):
        close = pytest.approx(mine["bits_per_dimension"], rel=1e-4)
        assert theirs["bits_per_dimension"] == close
    one, two = (np.load(tmp_path / n / "samples.npz") for n in ("one", "two"))
    assert np.array_equal(one["samples"], two["samples"])
    assert np.array_equal(one["latents"], two["latents"])


def library_calls(run, examples):
    """Likelihood and samples by every process."""
    from diffenc_ct.training.runs import load

    with launched() as processes:
        model, data = load(run), load_dataset("swirl")
        generators = [torch.Generator().manual_seed(seed) for seed in (0, 1)]
        found = log_likelihood(
            model, data.test[:examples], generator=generators[0], work=Work(processes=processes)
        )
        solver = Exponential(order=2, steps=4)
        drawn = sample(
            model, examples, solver=solver, generator=generators[1], work=Work(processes=processes)
        )
        terms = evaluate(model, data.test[:examples], work=Work(2, processes=processes))
        return found.nats, drawn.z_0, drawn.evaluations, terms.terms["total"]


@pytest.mark.parametrize("examples", [1, 5])
def test_every_process_gets_every_result_in_its_place(pair, run, examples):
    nats, z_0, evaluations, total = library_calls(run, examples)
    for theirs in pair.call(library_calls, run, examples):
        torch.testing.assert_close(theirs[0], nats, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(theirs[1], z_0, rtol=1e-4, atol=1e-4)
        assert theirs[2] == evaluations and torch.equal(theirs[3], total)


def sums(size):
    """Sums of tensors of two types and another memory format over the processes."""
    with launched() as processes:
        one = torch.full((2, 3), float(processes.rank + 1))
        two = torch.tensor([processes.rank], dtype=torch.int64)
        three = torch.arange(24.0).reshape(1, 2, 3, 4).contiguous(memory_format=torch.channels_last)
        processes.sum([one, two, three])
        assert processes.largest(7 - processes.rank) == 7
        assert processes.on_first(lambda: processes.rank) == 0
        assert processes.spread(lambda i: i * i, range(size)) == [i * i for i in range(size)]
        return one, two, three


def test_collectives(pair):
    for one, two, three in pair.call(sums, 5):
        assert torch.equal(one, torch.full((2, 3), 3.0)) and two.item() == 1
        assert torch.equal(three, 2 * torch.arange(24.0).reshape(1, 2, 3, 4))


def test_shares_of_a_batch():
    assert [Processes(r, 3).rows(12) for r in range(3)] == [slice(0, 4), slice(4, 8), slice(8, 12)]
    assert ALONE.rows(5) == slice(0, 5) and ALONE.spread(str, [1, 2]) == ["1", "2"]
    with pytest.raises(ValueError, match="13 rows cannot be shared equally by 3"):
        Processes(0, 3).rows(13)


def test_processes_take_a_gpu_each(monkeypatch):
    assert own_device("cuda") == torch.device("cuda") and own_device("cpu") == CPU
    monkeypatch.setenv("WORLD_SIZE", "4")
    monkeypatch.setenv("LOCAL_RANK", "2")
    assert own_device("cuda") == own_device("cuda:2") == torch.device("cuda:2")
    assert own_device("cpu") == CPU
    with pytest.raises(ValueError, match="give cuda"):
        own_device("cuda:1")
