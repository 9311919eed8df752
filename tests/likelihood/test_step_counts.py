"""What steps are counted and limited: the same of every solver."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import diffenc_ct as dc
from diffenc_ct.likelihood import FlowSolver, Solution, log_density
from diffenc_ct.likelihood.libraries import ADAMS, FIXED
from tests.likelihood.test_likelihood_failures import poisoned
from tests.strategies import normal

WORLD = dc.worlds.GaussianWorld(torch.zeros(2).double(), torch.tensor([0.5, 0.05]).double())
MODEL, Z = WORLD.model(dc.LinearSchedule(-5.0, 4.0)), 2 * normal(2, 3, 2)
LOOSE = {"rtol": 1e-3, "atol": 1e-4, "estimate_error": False, "on_failure": "nan"}
SOLVERS: dict[str, FlowSolver] = {
    "adams": dc.Adams(on_failure="nan"),
    **{name: dc.TorchDiffEq(name, **LOOSE) for name in ("dopri5", "bosh3")},
    **{name: dc.SciPy(name, **LOOSE) for name in ("RK23", "DOP853", "BDF", "LSODA")},
}


def solve(solver: FlowSolver, n: int = 3) -> Solution:
    return log_density(MODEL, Z[:n], solver=solver).solution


@pytest.mark.parametrize("name", SOLVERS)
def test_max_steps_are_accepted_and_rejected_steps_together(name):
    """Just enough change nothing; one fewer is a step limit, for the examples that need them all and no others."""
    whole = solve(SOLVERS[name])
    tried = whole.accepted + whole.rejected
    assert whole.status == ["ok"] * 3 and (whole.accepted > 1).all()
    enough = solve(replace(SOLVERS[name], max_steps=int(tried.max())))
    assert torch.equal(enough.z, whole.z) and enough.status == whole.status
    fewer = solve(replace(SOLVERS[name], max_steps=int(tried.max()) - 1))
    stopped = tried == tried.max()
    assert [word == "step limit" for word in fewer.status] == stopped.tolist()
    assert torch.equal(fewer.z.isnan().all(1), stopped)


@pytest.mark.parametrize("name", SOLVERS)
@given(limit=st.integers(1, 40), n=st.integers(1, 3))
@settings(max_examples=3)
def test_no_more_steps_are_taken_than_are_allowed(name, limit, n):
    found, whole = solve(replace(SOLVERS[name], max_steps=limit), n), solve(SOLVERS[name], n)
    tried = found.accepted + found.rejected
    assert (tried <= limit).all() and (found.accepted <= whole.accepted).all()
    for i, word in enumerate(found.status):
        if word == "ok":
            assert found.accepted[i] == whole.accepted[i]
        else:
            assert word == "step limit" and tried[i] == limit


# Evaluations of an attempt, and before the first one.
COST = {
    "adams": (1, 1), "dopri5": (6, 2), "bosh3": (3, 2), "RK23": (3, 2), "DOP853": (12, 2),
}  # fmt: skip


@pytest.mark.parametrize("name", COST)
def test_every_attempt_costs_its_evaluations(name):
    """So that no step is counted that was not tried, nor one forgotten."""
    each, before = COST[name]
    for tolerance in (1e-3, 1e-5):
        options = {"atol": tolerance} | ({} if name == "adams" else {"rtol": tolerance})
        found = solve(replace(SOLVERS[name], **options))
        assert torch.equal(found.evaluations, each * (found.accepted + found.rejected) + before)


def test_some_steps_are_rejected():
    """Otherwise accepted and tried steps would be the same, and the tests above would not tell them apart."""
    start, strict = {"first_step": 5.0}, {"rtol": 1e-6, "atol": 1e-6}
    for name in ("dopri5", "RK23", "DOP853"):
        found = solve(replace(SOLVERS[name], options=start, **strict))
        each, before = COST[name]
        assert (found.rejected > 0).all(), name
        tried = found.accepted + found.rejected
        assert (found.evaluations - each * tried <= before).all()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("method", FIXED | ADAMS)
@given(steps=st.integers(1, 30))
@settings(max_examples=2)
def test_steps_of_a_fixed_grid_are_all_taken(method, steps):
    found = solve(dc.TorchDiffEqFixed(method, steps=steps, estimate_error=False))
    assert found.accepted.tolist() == [steps] * 3 and found.rejected.tolist() == [0] * 3


@pytest.mark.parametrize("name", SOLVERS)
def test_failed_examples_have_the_steps_that_they_took(name):
    """One becomes NaN on its way from gamma = -5 to 4; the steps until there were taken."""
    model, x = poisoned()
    solver = replace(SOLVERS[name], max_steps=60)
    found = log_density(model, x[1:2], solver=solver).solution
    assert found.status != ["ok"]
    assert 0 < found.accepted < found.evaluations
    assert found.z.isnan().all()


def test_a_flow_that_is_not_finite_at_its_start_ends():
    model, x = poisoned()
    calls: list[int] = []

    def counted(*_: object) -> None:
        calls.append(1)
        if len(calls) > 1000:
            pytest.fail("a step is shortened for ever")

    next(model.heads.children()).register_forward_pre_hook(counted)
    for name, solver in SOLVERS.items():
        start = dc.sample_with_log_prob(
            model, (1, 2), z_1=x[1:2], solver=replace(solver, max_steps=60)
        )
        assert start.solution.status[0] in ("non-finite", "step underflow"), name
        assert start.solution.accepted.tolist() == [0]


class Stopping(nn.Module):
    """A network that stops the solve beyond a depth, as an implicit method does that finds no solution."""

    def forward(self, z: Tensor, gamma: Tensor) -> Tensor:
        assert gamma.max() < 3, "non-finite"
        return torch.tanh(z)


def test_an_implicit_step_that_fails_is_not_taken():
    """Of nine steps over -5 to 4, rk4 looks beyond 3 in the eighth or ninth."""
    heads = dc.Single(Stopping())
    model = dc.DiffEnc(dc.LinearSchedule(-5.0, 4.0), dc.IdentityEncoder(), heads, dc.Reals())
    solver = dc.TorchDiffEqFixed("rk4", steps=9, on_failure="nan", estimate_error=False)
    found = log_density(model, Z, solver=solver, divergence=dc.Rademacher()).solution
    assert found.status == ["non-finite"] * 3 and found.accepted.tolist() == [7] * 3
