"""What cannot be solved and what is refused: a status an example, and words that say what to do."""

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

import diffenc_ct as dc
from diffenc_ct.distributed import Processes
from diffenc_ct.likelihood import (
    GaussianProbes,
    NoDequantisation,
    SolverError,
    UniformNoise,
    log_density,
    log_likelihood,
    sample_with_log_prob,
)
from tests.likelihood.models import model_of
from tests.refusals import refused
from tests.strategies import close, generator, normal


class Poisoned(nn.Module):
    """A network whose output is not finite beyond a depth, for examples that start large."""

    def forward(self, z: Tensor, gamma: Tensor) -> Tensor:
        bad = (gamma > 0) & (z[:, 0] > 1)
        return torch.where(bad[:, None], torch.full_like(z, torch.nan), torch.tanh(z))


def poisoned() -> tuple[dc.DiffEnc, Tensor]:
    heads = dc.Single(Poisoned())
    model = dc.DiffEnc(dc.LinearSchedule(-5.0, 4.0), dc.IdentityEncoder(), heads, dc.Reals())
    return model, torch.tensor([[0.1, 0.2], [40.0, 0.0], [-0.3, 0.1]], dtype=torch.float64)


def test_a_nan_has_a_status_and_spares_the_others():
    model, x = poisoned()
    with pytest.raises(SolverError, match=r"1 of 3 examples.*1: non-finite"):
        log_likelihood(model, x)
    found = log_likelihood(model, x, solver=dc.Adams(on_failure="nan"))
    assert found.status == ["ok", "non-finite", "ok"]
    assert found.nats.isnan().tolist() == [False, True, False]
    close(found.nats[:1], log_likelihood(model, x[:1]).nats, 1e-9)


FAILING = [
    dc.TorchDiffEqFixed("rk4"),
    dc.TorchDiffEq("dopri5"),
    dc.SciPy("LSODA"),
    dc.SciPy("BDF"),
]


@pytest.mark.parametrize("solver", FAILING, ids=lambda solver: solver.name)
def test_failures_of_libraries_have_a_status(solver):
    model, x = poisoned()
    found = log_likelihood(model, x, solver=replace(solver, on_failure="nan"))
    assert found.status[1] != "ok" and found.nats[1].isnan()
    with pytest.raises(SolverError):
        log_likelihood(model, x, solver=solver)


@pytest.mark.parametrize("inverse", [False, True])
@pytest.mark.parametrize("solver", [dc.TorchDiffEq("dopri5"), dc.SciPy("LSODA")])
def test_one_failure_is_not_that_of_the_batch(solver, inverse):
    """Adaptive solvers of libraries step for the whole batch: what cannot be solved is left out of it."""
    model, x = poisoned()
    solver = replace(solver, on_failure="nan", max_steps=60, rtol=1e-7, atol=1e-7)
    x = torch.cat([x[:1] / 10, x, x[2:]])

    def found(z: Tensor):
        if inverse:
            return sample_with_log_prob(model, tuple(z.shape), z_1=z, solver=solver)
        return log_density(model, z, solver=solver)

    whole, good = found(x), [0, 1, 3, 4]
    assert [word == "ok" for word in whole.solution.status] == [True, True, False, True, True]
    for name in ("log_prob", "z_0", "z_1"):
        close(getattr(whole, name)[good], getattr(found(x[good]), name), 1e-4)
    assert whole.log_prob[2].isnan() and whole.per_probe.shape == (5, 1)


@pytest.mark.parametrize("probes", [1, 2])
def test_each_example_keeps_its_probes_where_one_fails(probes):
    model, x = poisoned()
    solver = dc.TorchDiffEq("dopri5", on_failure="nan", max_steps=60, rtol=1e-7, atol=1e-7)
    failing = torch.cat([x[:1] / 10, x, x[2:]])
    good = failing.clone()
    good[2] = x[0]
    some, every = (
        log_density(
            model, z, solver=solver, divergence=GaussianProbes(probes), generator=generator(3)
        )
        for z in (failing, good)
    )
    assert some.log_prob.isnan().tolist() == [False, False, True, False, False]
    close(some.per_probe[[0, 1, 3, 4]], every.per_probe[[0, 1, 3, 4]], 1e-4)
    assert (every.per_probe[0] - every.per_probe[1]).abs().max() > 1e-3


def test_errors_are_those_of_the_examples_that_were_solved():
    model, x = poisoned()
    whole = log_likelihood(model, x, solver=dc.Adams(on_failure="nan")).standard_errors
    solved = log_likelihood(model, x[[0, 2]]).standard_errors
    assert whole == pytest.approx(solved, rel=1e-6)
    lost = log_likelihood(model, x[1:2], solver=dc.Adams(on_failure="nan")).standard_errors
    assert all(math.isnan(error) for error in lost.values()) and lost.keys() == solved.keys()


@pytest.mark.parametrize("kind", [dc.Adams, dc.TorchDiffEq, dc.SciPy])
def test_step_limit(kind):
    solver = kind(max_steps=1, atol=1e-12)
    for call in (log_likelihood, log_density):
        with pytest.raises(SolverError, match="2 of 2 examples could not be solved .*step limit"):
            call(model_of(1), normal(2, 2, 3), solver=solver)
    with pytest.raises(SolverError, match="step limit"):
        sample_with_log_prob(model_of(1), (2, 3), solver=solver)


X = torch.zeros(2, 3, dtype=torch.long)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: dc.TorchDiffEq("rk5"), "torchdiffeq's adaptive methods are dopri8"),
        (lambda: dc.TorchDiffEq("rk4"), "adaptive methods"),
        (lambda: dc.TorchDiffEqFixed("dopri5"), "fixed grids are euler"),
        (lambda: dc.SciPy("XX"), "LSODA"),
        (lambda: dc.TorchDiffEqFixed("rk4", steps=0), "steps=0"),
        (lambda: dc.Adams(atol=-1.0), "atol=-1.0 must be a positive number"),
        (lambda: dc.TorchDiffEq("dopri5", rtol=0.0), "rtol=0.0 must be a positive number"),
        (lambda: dc.SciPy("RK45", atol=math.inf), "atol=inf must be a positive number"),
        (lambda: dc.Adams(max_steps=0), "max_steps=0 must be at least 1"),
        (lambda: dc.TorchDiffEq("dopri5", max_steps=0), "max_steps=0"),
        (lambda: dc.Adams(gradient="adjoint"), "the adjoint is torchdiffeq's"),
        (lambda: dc.TorchDiffEq("dopri5", gradient="yes"), '"none", "solve" or "adjoint"'),
        (lambda: dc.Adams(on_failure="ignore"), "on_failure='ignore'"),
        (lambda: dc.SciPy("RK45", on_failure="ignore"), "on_failure='ignore'"),
        (lambda: dc.Rademacher(probes=0), "probes=0"),
        (lambda: GaussianProbes(probes=0), "probes=0"),
        (lambda: dc.Exact(chunk=0), "chunk=0"),
        (lambda: dc.ModelNoise(samples=0), "samples=0 must be at least 1"),
        (lambda: NoDequantisation(samples=2), "nothing is drawn"),
        (lambda: dc.TruncatedNormal(tau=0.0), "tau=0.0"),
    ],
)
def test_bad_options_are_refused_when_they_are_made(make, message):
    with refused(ValueError, message):
        make()


@pytest.mark.parametrize(
    ("make", "option"),
    [
        (lambda: dc.Adams(rtol=1e-3), "rtol"),
        (lambda: dc.Adams(steps=5), "steps"),
        (lambda: dc.TorchDiffEq("dopri5", steps=3), "steps"),
        (lambda: dc.TorchDiffEqFixed("rk4", atol=1e-3), "atol"),
        (lambda: dc.SciPy("LSODA", gradient="solve"), "gradient"),
        (lambda: dc.Exact(probes=2), "probes"),
        (lambda: UniformNoise(tau=2.0), "tau"),
    ],
)
def test_combinations_without_meaning_cannot_be_written(make, option):
    with refused(TypeError, f"unexpected keyword argument '{option}'"):
        make()


STOCHASTIC = [dc.Ancestral(), dc.Exponential(), dc.TorchSDE("milstein"), "dopri5", dc.Adams]


@pytest.mark.parametrize("solver", STOCHASTIC)
def test_a_solver_without_a_density_is_refused(solver):
    """Paths of the reverse SDE have no density by change of variables; nor has what is no solver."""
    message = r"no solver of the probability flow.* stochastic .*Adams\(\)"
    with refused(TypeError, message):
        log_likelihood(model_of(1, levels=5), X, solver=solver)
    with refused(TypeError, message):
        log_density(model_of(1), normal(2, 2, 3), solver=solver)
    with refused(TypeError, message):
        sample_with_log_prob(model_of(1), (2, 3), solver=solver)


def test_kinds_of_data_are_refused_at_the_door():
    reals, levels = model_of(1), model_of(1, levels=5)
    with refused(TypeError, "integers"):
        log_density(reals, X)
    with refused(TypeError, "real data"):
        log_likelihood(reals, X)
    with refused(TypeError, "integer data"):
        log_likelihood(levels, X.double())
    with refused(ValueError, "no examples"):
        log_likelihood(levels, X[:0])
    with refused(ValueError, "levels=5"):
        log_likelihood(levels, X + 5)
    for bins in (UniformNoise(), dc.TruncatedNormal()):
        with refused(ValueError, f"{type(bins).__name__} .* these are real data"):
            log_likelihood(reals, X.double(), dequantisation=bins)
    with refused(ValueError, "undequantised integers"):
        log_likelihood(levels, X, dequantisation=NoDequantisation())


def test_gradients_do_not_cross_processes():
    work = dc.Work(processes=Processes(rank=0, size=2))
    with refused(ValueError, "gradients do not reach other processes"):
        log_likelihood(model_of(1, levels=5), X, solver=dc.Adams(gradient="solve"), work=work)
