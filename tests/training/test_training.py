"""Training: what resumes, what is refused, what a step does. Tiny models on two-dimensional data."""

import csv
import re

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from diffenc_ct.data import load_dataset
from diffenc_ct.distributed import Work
from diffenc_ct.training.config import replace
from diffenc_ct.training.cost import measure_cost
from diffenc_ct.training.evaluation import Evaluation, baselines, evaluate, importance_depths
from diffenc_ct.training.folder import RunFolder
from diffenc_ct.training.loop import learning_rate, train
from diffenc_ct.training.randomness import batch_indices, derived_seed
from diffenc_ct.training.state import State, make_optimizer
from tests.tiny_runs import CPU, Dropping, assert_same, step_of, tensors_of, tiny


@pytest.fixture(scope="module")
def data():
    return load_dataset("swirl")


@pytest.mark.parametrize("stop", [1, 4, 5])
def test_an_interrupted_run_ends_bit_for_bit_like_an_undisturbed_one(tmp_path, data, stop):
    config = tiny(
        network__kind="tests.tiny_runs:Dropping",
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


def test_a_finished_run_resumed_longer_equals_a_long_one(tmp_path, data):
    train(tiny(training__steps=3), tmp_path / "run", data=data)
    train(tiny(training__steps=3), tmp_path / "run", data=data, resume=True)  # nothing left to do
    train(tiny(training__steps=5), tmp_path / "run", data=data, resume=True)
    train(tiny(training__steps=5), tmp_path / "long", data=data)
    assert_same(tensors_of(tmp_path / "long"), tensors_of(tmp_path / "run"))


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


def test_the_bar_shows_loss_speed_and_time_left(tmp_path, data, capsys):
    summary = train(tiny(), tmp_path / "run", data=data, progress=True)
    shown = capsys.readouterr()
    bar = r"6/6 \[\d+:\d+<\d+:\d+, .*, \d+\.\d+ bits/dim, \d+\.\d images/s\]"
    assert re.search(bar, shown.err)
    assert "step 4: test" in shown.out
    assert f"step 6: test {summary.metrics['bpd']:.4f} bits/dim" in shown.out


def test_metrics_are_rows_of_one_table(tmp_path, data):
    summary = train(tiny(), tmp_path / "run", data=data)
    rows = list(csv.DictReader(open(tmp_path / "run" / "metrics.csv", encoding="utf-8")))
    assert [int(row["step"]) for row in rows] == [2, 4, 6]
    for row in rows:
        parts = [float(row[name]) for name in ("reconstruction", "diffusion", "latent")]
        assert float(row["bpd"]) == pytest.approx(sum(parts), rel=1e-4)
    assert [bool(row["test_bpd"]) for row in rows] == [False, True, True]
    assert float(rows[-1]["test_bpd"]) == pytest.approx(summary.metrics["bpd"], rel=1e-5)


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
        values = step_of(state, config, data)
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
    weight, averaged = (next(m.heads.parameters()) for m in (state.model, state.averages[0.5]))
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
        values[precision] = step_of(state, config, data)
        assert Spy.seen["z"] == Spy.seen["gamma"] == torch.float32
        assert Spy.seen["inside"] == (torch.bfloat16 if precision == "bf16" else torch.float32)
        assert all(p.grad.dtype == torch.float32 for p in state.model.heads.parameters())
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
    assert cost.parameters == {"heads": 2 * n * n, "encoder": 0, "schedule": 0}
    # Forward, backward by the weights, and backward by the input except the first layer's: 2 n^2 each.
    assert cost.flops == 8 * 5 * 2 * n * n
    assert cost.state_bytes == 4 * 2 * n * n * 5
    assert cost.activation_bytes % 4 == 0 and cost.activation_bytes > 4 * 2 * n * 4


# Evaluation -------------------------------------------------------------------------------------------


def test_evaluation_sees_every_image_once_in_its_place(data):
    model = State.fresh(tiny(), data, CPU).model
    images = data.test[:50]
    whole = evaluate(model, images, draws=2, work=Work(50))
    assert all(len(values) == 50 for values in whole.terms.values()) and len(whole.t) == 100
    parts = whole.terms["reconstruction"] + whole.terms["diffusion"] + whole.terms["latent"]
    assert torch.allclose(whole.terms["total"], parts)
    again = evaluate(model, images, draws=2, work=Work(50))
    assert torch.equal(whole.terms["total"], again.terms["total"])
    # The latent term has no noise: it shows whether rows stay in place, in batches of another size too.
    small = evaluate(model, images, work=Work(7))
    assert torch.allclose(whole.terms["latent"], small.terms["latent"], rtol=1e-4)
    assert whole.error("total") == pytest.approx(whole.terms["total"].std().item() / np.sqrt(50))
    rows = whole.by_depth(5)
    assert sum(row["count"] for row in rows) == 100
    mean = sum(row["bpd"] * row["count"] for row in rows) / 100
    assert mean == pytest.approx(whole.mean("diffusion"))
    assert [row["t"] for row in rows] == pytest.approx(
        [0.1, 0.3, 0.5, 0.7, 0.9]
    )  # the bins' centres
    for row in rows:
        inside = (whole.t - row["t"]).abs() < 0.1
        assert row["count"] == inside.sum()
        assert row["bpd"] == pytest.approx(whole.integrand[inside].mean().item(), rel=1e-5)


def test_depths_by_importance_leave_the_mean_and_lower_the_error(data):
    """The same images: what differs between the two evaluations is draws alone."""
    model = State.fresh(tiny(), data, CPU).model
    images, depths = data.test[:200], importance_depths(model, data.train[:256], draws=8)
    assert depths.density().max() > 2 * depths.density().min()
    even, dense = (evaluate(model, images, draws=32, depths=d) for d in (None, depths))
    for term in ("total", "diffusion"):
        apart = even.terms[term] - dense.terms[term]
        assert abs(apart.mean()) < 4 * apart.std() / np.sqrt(len(images))
    assert evaluate(model, images, depths=depths).error("total") < 0.9 * evaluate(
        model, images
    ).error("total")
    # Within a bin more is seen where the density is larger, which its mean must not be.
    for found in (even, dense):
        rows = found.by_depth(4)
        error = np.sqrt(sum(row["error"] ** 2 for row in rows)) / 4
        assert abs(np.mean([row["bpd"] for row in rows]) - found.mean("diffusion")) < 4 * error
    for one, other in zip(even.by_depth(4), dense.by_depth(4), strict=True):
        assert abs(one["bpd"] - other["bpd"]) < 4 * np.hypot(one["error"], other["error"])


def test_the_error_by_depth_is_that_of_repeated_means():
    """Weighted means of independent draws scatter by the error that is told, equal weights or not."""
    generator = np.random.Generator(np.random.PCG64(0))
    for weight in (np.ones(60), np.linspace(0.2, 3, 60)):
        rows = []
        for _ in range(300):
            values = torch.from_numpy(3 + generator.standard_normal(60) / np.sqrt(weight))
            t, terms = torch.full((60,), 0.5, dtype=torch.float64), {}
            rows += Evaluation(terms, t, values, torch.from_numpy(weight)).by_depth(1)
        spread, told = np.std([row["bpd"] for row in rows]), np.mean([row["error"] for row in rows])
        assert told == pytest.approx(spread, rel=0.15)


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
