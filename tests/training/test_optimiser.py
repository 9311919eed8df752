"""The optimiser is the configured one, step by step, and what is reported of it is what happened."""

import csv
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import diffenc_ct as dc
from diffenc_ct.data import load_dataset
from diffenc_ct.training.checkpoints import list_checkpoints, read_checkpoint
from diffenc_ct.training.config import replace
from diffenc_ct.training.evaluation import evaluate
from diffenc_ct.training.heads import HeadFitting, fit_head
from diffenc_ct.training.loop import learning_rate, train, training_step
from diffenc_ct.training.meter import TERMS
from diffenc_ct.training.randomness import batch_indices
from diffenc_ct.training.state import State
from tests.strategies import generator, normal
from tests.tiny_runs import CPU, batch_of, step_of, tiny


@pytest.fixture(scope="module")
def data():
    return load_dataset("swirl")


@given(
    beta1=st.floats(0, 0.95),
    beta2=st.floats(0.5, 0.999),
    weight_decay=st.floats(0, 5),
    epsilon=st.sampled_from([1e-8, 1e-3, 1.0]),
    warmup=st.integers(0, 3),
    decay=st.sampled_from(["constant", "cosine"]),
    clip=st.none() | st.floats(1e-3, 1),
)
@settings(max_examples=10)
def test_steps_are_those_of_adamw_written_out(data, **options):
    """From the gradients of each step, in float64; biases do not decay."""
    config = tiny(**{f"optimizer__{name}": value for name, value in options.items()})
    config = replace(config, {"optimizer.learning_rate": 1e-2, "training.steps": 5})
    state = State.fresh(config, data, CPU)
    named = dict(state.model.named_parameters())
    values = {name: p.detach().double().clone() for name, p in named.items()}
    first, second = ({name: torch.zeros_like(v) for name, v in values.items()} for _ in "mv")
    b1, b2 = options["beta1"], options["beta2"]
    for step in range(4):
        training_step(state, config, data, CPU)
        rate = learning_rate(config, step)
        for name, parameter in named.items():
            g = parameter.grad.double()
            first[name] = b1 * first[name] + (1 - b1) * g
            second[name] = b2 * second[name] + (1 - b2) * g**2
            if not name.endswith("bias"):
                values[name] *= 1 - rate * options["weight_decay"]
            m, v = first[name] / (1 - b1 ** (step + 1)), second[name] / (1 - b2 ** (step + 1))
            values[name] -= rate * m / (v.sqrt() + options["epsilon"])
            # A gradient that is nearly zero moves a weight by the sign of its rounding.
            close_ = (parameter.detach().double() - values[name]).abs() < 1e-4
            assert (close_ | (g.abs() < 1e-7)).all(), name
            values[name] = parameter.detach().double().clone()


@given(st.floats(1e-3, 0.3))
@settings(max_examples=5)
def test_the_norm_that_is_clipped_is_of_all_gradients_together(data, clip):
    free, held = (State.fresh(tiny(optimizer__clip=c), data, CPU) for c in (None, clip))
    told = step_of(free, tiny(), data)["gradient_norm"]
    assert step_of(held, tiny(optimizer__clip=clip), data)["gradient_norm"] == pytest.approx(told)
    whole, cut = (
        torch.cat([p.grad.flatten() for p in state.model.parameters()]) for state in (free, held)
    )
    assert whole.norm().item() == pytest.approx(told, rel=1e-5) and told > clip
    assert torch.allclose(cut, whole * clip / told, rtol=1e-3, atol=1e-9)


@pytest.mark.parametrize("part", ["ends_fraction", "rate_fraction"])
def test_parts_of_a_batch_are_the_configured_ones(data, part):
    config = tiny(**{f"training__{part}": 0.25})
    model = State.fresh(config, data, CPU).model.train()
    x, draws = batch_of(config, data)
    found = step_of(State.fresh(config, data, CPU), config, data)
    wanted = dc.elbo(model, x, dc.InfiniteDepth(**{part: 0.25}), draws=draws).bits_per_dimension()
    plain = dc.elbo(model, x, draws=draws).bits_per_dimension()
    for term in TERMS[:3]:
        assert found[term] == pytest.approx(getattr(wanted, term).mean().item(), rel=1e-4)
    if part == "ends_fraction":
        assert found["reconstruction"] != pytest.approx(plain.reconstruction.mean().item())


def test_the_rate_of_fit_head_falls_along_half_a_cosine(monkeypatch):
    rates, step = [], torch.optim.Adam.step

    def watched(optimiser, *rest):
        rates.extend(group["lr"] for group in optimiser.param_groups)
        return step(optimiser, *rest)

    monkeypatch.setattr(torch.optim.Adam, "step", watched)
    network = torch.nn.Linear(3, 3)

    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = network

        def forward(self, z, gamma):
            return self.layer(z)

    model = dc.DiffEnc(
        dc.LinearSchedule(-6, 4), dc.NonTrainableEncoder(), dc.Single(Net()), dc.Reals()
    ).double()
    fitting = HeadFitting(steps=7, learning_rate=3e-2)
    fit_head(model, normal(1, 20, 3), fitting, generator=generator(0))
    assert rates == pytest.approx(
        [3e-2 * 0.5 * (1 + math.cos(math.pi * s / 7)) for s in range(7)], rel=1e-12
    )


def test_dropout_differs_between_steps_and_not_between_runs(data):
    config = tiny(
        network__kind="tests.tiny_runs:Dropping",
        network__options={},
        optimizer__learning_rate=1e-30,
    )
    runs = []
    for _ in range(2):
        state, masks = State.fresh(config, data, CPU), []
        state.model.heads.network.layers[2].register_forward_hook(
            lambda module, inputs, output, masks=masks: masks.append((output == 0).clone())
        )
        for _ in range(3):
            training_step(state, config, data, CPU)
        runs.append(masks)
    assert all(mask.any() for mask in runs[0]) and len(runs[0]) == 3
    assert all(torch.equal(one, other) for one, other in zip(*runs, strict=True))
    assert not torch.equal(runs[0][0], runs[0][1]) and not torch.equal(runs[0][1], runs[0][2])


@given(st.integers(0, 99), st.integers(20, 60))
def test_epochs_have_orders_of_their_own(seed, count):
    epochs = [batch_indices(seed, epoch, count, count) for epoch in range(3)]
    assert len({tuple(order.tolist()) for order in epochs}) == 3


def test_skipped_steps_are_counted_over_resumptions(tmp_path, data):
    config = tiny(
        network__kind="tests.tiny_runs:Breaking", network__options={}, training__on_nan="skip"
    )
    assert train(replace(config, {"training.steps": 4}), tmp_path / "run", data=data).skipped == 1
    assert train(config, tmp_path / "run", data=data, resume=True).skipped == 1
    again = replace(config, {"training.steps": 10})
    assert train(again, tmp_path / "run", data=data, resume=True).skipped == 2
    rows = list(csv.DictReader(open(tmp_path / "run" / "metrics.csv", encoding="utf-8")))
    assert [row["skipped"] for row in rows] == ["0", "1", "1", "1", "2"]


def test_a_checkpoint_has_the_metrics_of_its_own_step_or_none(tmp_path, data):
    config = tiny(training__keep=9, training__eval_every=4, training__steps=8)
    train(config, tmp_path / "run", data=data)
    saved = [read_checkpoint(path) for path in list_checkpoints(tmp_path / "run" / "checkpoints")]
    assert [(each.step, bool(each.metrics)) for each in saved] == [
        (2, False),
        (4, True),
        (6, False),
        (8, True),
    ]
    assert saved[1].metrics != saved[3].metrics


def test_a_row_is_the_mean_since_the_last_and_its_time_the_trainings(tmp_path, data, monkeypatch):
    import diffenc_ct.training.loop as loop
    import diffenc_ct.training.meter as meter

    clock, steps = [0.0], []
    monkeypatch.setattr(meter.time, "perf_counter", lambda: clock[0])

    def step(*arguments):
        values = training_step(*arguments)
        steps.append(values.tolist())
        clock[0] += 2.0
        return values

    def slowly(*arguments, **options):
        clock[0] += 1000.0
        return evaluate(*arguments, **options)

    monkeypatch.setattr(loop, "training_step", step)
    monkeypatch.setattr(loop, "evaluate", slowly)
    config = tiny(training__log_every=3, training__eval_every=2, training__steps=7)
    summary = train(config, tmp_path / "run", data=data)
    rows = [
        row
        for row in csv.DictReader(open(tmp_path / "run" / "metrics.csv", encoding="utf-8"))
        if row["bpd"]
    ]
    assert [int(row["step"]) for row in rows] == [3, 6, 7]
    for row, (start, stop) in zip(rows, [(0, 3), (3, 6), (6, 7)], strict=True):
        means = torch.tensor(steps[start:stop]).mean(0)
        for name, value in zip(TERMS, means, strict=True):
            assert float(row[name]) == pytest.approx(value.item(), rel=1e-4, abs=1e-6), name
        assert float(row["bpd"]) == pytest.approx(means[:3].sum().item(), rel=1e-4)
        assert float(row["images_per_second"]) == 16 / 2
        assert float(row["learning_rate"]) == pytest.approx(learning_rate(config, stop - 1))
    assert summary.images_per_second == 8


def test_a_row_has_the_rate_that_its_last_step_was_taken_with(tmp_path, data, monkeypatch):
    rates, step = [], torch.optim.AdamW.step

    def watched(optimiser, *rest):
        rates.append(optimiser.param_groups[0]["lr"])
        return step(optimiser, *rest)

    monkeypatch.setattr(torch.optim.AdamW, "step", watched)
    config = tiny(
        training__log_every=3, training__steps=9, optimizer__warmup=4, optimizer__decay="cosine",
        optimizer__learning_rate=1e-2,
    )  # fmt: skip
    train(config, tmp_path / "run", data=data)
    with open(tmp_path / "run" / "metrics.csv", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["learning_rate"]]
    assert [int(row["step"]) for row in rows] == [3, 6, 9] and len(set(rates)) > 6
    for row in rows:
        assert float(row["learning_rate"]) == pytest.approx(rates[int(row["step"]) - 1], rel=1e-6)
