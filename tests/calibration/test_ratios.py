"""Ratios that depend on the state: against tables and by brute force."""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import diffenc_ct as dc
from diffenc_ct.calibration import Measurement, measure_steps, step_excess
from diffenc_ct.calibration.ratios import ErrorSample, RatioPerValue
from diffenc_ct.elbo import elbo, uniform_grid
from tests.strategies import (
    close,
    generator,
    noise_levels,
    normal,
    small_model,
)

F64 = torch.float64
SCHEDULE = dc.LinearSchedule(-5.0, 3.0)


@given(st.integers(1, 4), st.integers(1, 5), st.integers(0, 99))
def test_a_ratio_per_value_is_looked_up_by_step_and_bin(steps, bins, seed) -> None:
    edges = normal(seed, steps, bins - 1).sort(1).values
    ratio = RatioPerValue(edges, 1 + normal(seed + 1, steps, bins).abs())
    step = torch.randint(steps, (6,), generator=generator(seed))
    x_hat = normal(seed + 2, 6, 2, 3).float()
    found = ratio(step, dc.Estimates(x_hat, torch.zeros_like(x_hat)))
    for n, i, j in itertools.product(range(6), range(2), range(3)):
        bin_ = sum(float(edge) < float(x_hat[n, i, j]) for edge in edges[step[n]].float())
        assert float(found[n, i, j]) == pytest.approx(float(ratio.values[step[n], bin_]))


@settings(max_examples=8)
@given(
    st.sampled_from(["identity", "nontrainable", "trainable"]),
    st.sampled_from(["single", "paired"]),
    st.integers(1, 5),
    st.integers(0, 99),
)
def test_a_function_of_the_state_is_what_a_table_is(kind, heads, depth, seed) -> None:
    """elbo and sample with table[step] as a function of the state: the same losses, the same samples."""
    model, x = small_model(kind, heads), normal(seed, 4, 3)
    table = 0.5 + normal(seed + 1, depth, 3).abs()
    draws = dc.Draws(torch.linspace(0, 1, 4, dtype=F64), normal(seed, 4, 3))
    losses, samples = [], []
    for ratio in (table, lambda step, estimates: table[step]):
        losses.append(elbo(model, x, dc.FiniteDepth(depth, ratio=ratio), draws=draws).diffusion)
        solver = dc.Ancestral(steps=depth, ratio=ratio)
        drawn = dc.sample(model, 2, shape=(3,), solver=solver, generator=generator(3))
        samples.append(drawn.z_0)
    assert torch.equal(*losses) and torch.equal(*samples)


@settings(max_examples=6)
@given(st.sampled_from(["nontrainable", "trainable"]), st.sampled_from(["single", "paired"]))
def test_the_estimates_that_a_ratio_sees(kind, heads) -> None:
    """In elbo those of model.predict at z_t, and the same in sampling."""
    model, x, noise = small_model(kind, heads), normal(1, 3, 3), normal(2, 3, 3)
    seen = []

    def ratio(step, estimates):
        seen.append((step, estimates))
        return torch.ones_like(estimates.x_hat)

    t = torch.tensor([0.1, 0.5, 0.9], dtype=F64)
    elbo(model, x, dc.FiniteDepth(3, ratio=ratio), draws=dc.Draws(t=t, noise=noise))
    gamma = model.schedule((torch.arange(3, dtype=F64) + 1) / 3).gamma
    x_t = model.encoder.encode(x, gamma)
    wanted = model.predict(dc.process.marginal(x_t, gamma).sample(noise=noise), gamma)
    ((step, found),) = seen
    assert step.tolist() == [0, 1, 2]
    close(found.x_hat, wanted.x_hat, 1e-9)
    close(found.r_hat, wanted.r_hat, 1e-9)
    seen.clear()
    solver = dc.Ancestral(steps=3, ratio=ratio)
    drawn = dc.sample(model, 2, shape=(3,), solver=solver, generator=generator(3))
    assert [s.tolist() for s, _ in seen] == [[2, 2], [1, 1], [0, 0]]
    start = model.predict(drawn.z_1, model.schedule.at(1.0, drawn.z_1).gamma.expand(2))
    close(seen[0][1].x_hat, start.x_hat)
    close(seen[0][1].r_hat, start.r_hat)


@settings(max_examples=8)
@given(
    st.sampled_from(["identity", "nontrainable", "trainable"]),
    st.sampled_from(["single", "paired"]),
    noise_levels(),
    st.integers(0, 99),
)
def test_costs_of_steps_by_brute_force(kind, heads, level, seed) -> None:
    """d/2 sum_b share_b ln(1 + E[Delta_i^2/S^2 | bin b]) for every (s, t), on bins of equal mass."""
    model, x = small_model(kind, heads), normal(seed, 32, 3)  # two a group
    how = Measurement(candidates=4, keep=x.numel())
    tables = measure_steps(model, x, how, generator=generator(seed))
    sample = ErrorSample(tables.kept, 3, len(x))
    sample.bins = 4
    excess = tables.excess(level)
    costs, edges = sample.costs(tables.gamma, [level], excess[None])
    # every value was kept, by (depth, value)
    e, r, x_t = (v.double() for v in (tables.kept.e, tables.kept.r, tables.kept.x))
    for t in range(5):
        x_hat, error = x_t[t] - e[t], e[t].abs()
        order = x_hat.argsort()
        mass = (1 / len(x_hat) + error[order] / error.sum()).cumsum(0)
        bin_ = torch.bucketize(x_hat, edges[t].double() + 1e-6)
        for b in range(4):  # two units of mass in four bins; a bin is cut at a value
            inside = mass[bin_[order] == b]
            assert abs(float(inside[-1]) - (b + 1) / 2) < float(mass.diff().max()) + 1e-6
        for s in range(t):
            gamma_s, gamma_t = tables.gamma[s], tables.gamma[t]
            D, integral = gamma_t - gamma_s, level.integral(gamma_s, gamma_t)
            k = 1 - torch.exp(-(integral + D) / 2)
            squares = (k * e[t] + x_t[s] - x_t[t] - D * r[t]) ** 2
            squares = squares / ((1 - torch.exp(-integral)) * gamma_s.exp())
            means = [squares[bin_ == b].mean() for b in range(4)]
            each = torch.stack(means)[bin_]
            close(costs[0, s, t], 1.5 * torch.log1p(each).mean(), 1e-4)
            # A larger excess with the same spread over the values.
            doubled, _ = sample.costs(tables.gamma, [level], 2 * excess[None])
            close(doubled[0, s, t], 1.5 * torch.log1p(2 * each).mean(), 1e-4)


def test_nothing_that_is_fitted_carries_a_graph() -> None:
    """Of a model with parameters: what is kept in a file is numbers."""
    model, x, grid = (
        small_model("trainable", "paired"),
        normal(1, 16, 3),
        uniform_grid(2, normal(1, 1)),
    )
    assert not step_excess(model, x, grid).requires_grad
    for ratio in ("step", "dimension", "value"):
        found = dc.calibrate(model, x, 2, dc.CalibrationOptions(ratio=ratio, candidates=4))
        tensors = [v for v in vars(found).values() if isinstance(v, torch.Tensor)]
        if found.ratio_per_value is not None:
            tensors += [found.ratio_per_value.edges, found.ratio_per_value.values]
        assert not any(tensor.requires_grad for tensor in tensors)
