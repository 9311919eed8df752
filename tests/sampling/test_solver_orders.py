"""The order that every solver declares is the order that is measured, in nonlinear worlds, without noise."""

import functools
import math
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
from scipy import integrate
from torch import Tensor

import diffenc_ct as dc
from diffenc_ct.cli.solvers import SOLVERS, make_solver
from diffenc_ct.likelihood import _adams
from diffenc_ct.likelihood.field import FlowField
from diffenc_ct.process import as_noise_level
from diffenc_ct.sampling import TORCHSDE_METHODS, Grid, Problem
from tests.solver_worlds import (
    F64,
    ClosedScaleEncoder,
    declared_order,
    follow,
    mixture,
    slope,
)
from tests.strategies import ScaleEncoder, normal


def test_rate_in_closed_form() -> None:
    x, gamma = normal(1, 9, 2), torch.linspace(-5, 4, 9, dtype=F64)
    torch.testing.assert_close(ClosedScaleEncoder()(x, gamma).rate, ScaleEncoder()(x, gamma).rate)


ORDERS = {
    **{name: ("identity", "scale") for name in SOLVERS if name.startswith("exponential")},
    "ancestral": ("identity", "scale"),
    **{
        f"torchdiffeq:{name}": ("identity",)
        for name in ("euler", "midpoint", "heun2", "heun3", "rk4")
    },
    **{f"torchsde:{name}": ("identity",) for name in TORCHSDE_METHODS},
}
# Adaptive methods with their steps held fixed: the numbers of steps between which the order is seen.
EMBEDDED = {
    **{f"torchdiffeq:{name}": (48, 96) for name in ("bosh3", "fehlberg2", "adaptive_heun")},
    "scipy:RK23": (48, 96),
    "torchdiffeq:dopri5": (32, 64),
    "scipy:RK45": (32, 64),
    "torchdiffeq:dopri8": (16, 24),
    "scipy:DOP853": (16, 24),
}
ADAMS = [f"torchdiffeq:{kind}_adams" for kind in ("explicit", "implicit", "fixed")]
IMPLICIT = ["scipy:Radau", "scipy:BDF"]
OWN = ["adams"]
UNPINNED = ["scipy:LSODA"]


def test_every_solver_is_measured() -> None:
    assert {*ORDERS, *EMBEDDED, *ADAMS, *IMPLICIT, *OWN, *UNPINNED} == set(SOLVERS)


@functools.cache
def flow_truth(model: dc.DiffEnc, starts: int) -> Tensor:
    solver = make_solver("DOP853", rtol=3e-14, atol=1e-15)
    return follow(solver, model, 1, normal(3, starts, 2))


def flow_errors(solver: Any, model: dc.DiffEnc, steps: int, starts: int = 6) -> Tensor:
    """z_0 less the exact one, from `starts` latents: (starts, 2)."""
    return follow(solver, model, steps, normal(3, starts, 2)) - flow_truth(model, starts)


@pytest.mark.parametrize("name,kind", [(n, k) for n, kinds in ORDERS.items() for k in kinds])
def test_deterministic_order(name: str, kind: str) -> None:
    """The error against the exact flow falls with the declared order; with a corrector the slope settles late."""
    model, solver = mixture(kind, 0.5, -2.0, 2.0), make_solver(name)
    steps = [96, 192] if "corrected" in name else [48, 96]
    errors = [float(flow_errors(solver, model, n, 256).norm()) for n in steps]
    assert abs(slope(errors, steps) - declared_order(name, stochastic=False)) < 0.2, errors


def at_fixed_steps(method: type[integrate.OdeSolver], h: float) -> type[integrate.OdeSolver]:
    """scipy's `method` with steps of h from the first on; one that it rejects or chooses otherwise fails."""

    class FixedSteps(method):  # type: ignore[valid-type,misc]
        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **{**options, "first_step": h})

        def _step_impl(self) -> tuple[bool, str | None]:
            start, result = self.t, super()._step_impl()
            assert math.isclose(abs(self.t - start), h, rel_tol=1e-9) or self.t == self.t_bound
            return result

    return FixedSteps


@pytest.mark.parametrize("name", EMBEDDED)
def test_order_of_adaptive_methods_at_fixed_steps(name: str) -> None:
    """Steep components make errors of order 8 large against rounding where their slope has settled.

    The error is a geometric mean over 512 starts: the slope of a single start's error wanders by several tenths.
    """
    model, length, errors = mixture("identity", 0.07, -1.0, 4.0), 5.0, []
    library, _, method = name.partition(":")
    for n in EMBEDDED[name]:
        h = length / n
        kind, fixed = dc.TorchDiffEq, {"first_step": h}
        if library == "scipy":
            kind, fixed = dc.SciPy, {"solver": at_fixed_steps(getattr(integrate, method), h)}
        solver = kind(method, rtol=1e9, atol=1e9, options={"max_step": h, **fixed})
        each = flow_errors(solver, model, 1, 512).norm(dim=1).clamp(min=1e-16)
        errors.append(float(each.log().mean().exp()))
    declared, measured = declared_order(name, stochastic=False), slope(errors, list(EMBEDDED[name]))
    assert abs(measured - declared) < 0.2, errors


@pytest.mark.parametrize("max_order", [None, 4, 5])
@pytest.mark.parametrize("name", ADAMS)
def test_order_of_adams(name: str, max_order: int | None) -> None:
    """The first steps cap the order at 4 (explicit) or 5 (implicit), max_order holds it to 3 or 4.

    The corrector's equation is solved to rounding; by itself torchdiffeq stops at its tolerance, or after 4 iterations.
    """
    model, steps = mixture("identity", 0.5, -1.0, 2.0), [128, 256]
    options = {"max_iters": 50, "rtol": 1e-14, "atol": 1e-14}
    options |= {} if max_order is None else {"max_order": max_order}
    solver = dc.TorchDiffEqFixed(name.partition(":")[2], options=options)
    errors = [float(flow_errors(solver, model, n).norm()) for n in steps]
    declared, explicit = solver.convergence_order(stochastic=False), "explicit" in name
    assert declared == {None: 5, 4: 4, 5: 5}[max_order] - explicit
    assert abs(slope(errors, steps) - declared) < 0.2, errors


@pytest.mark.parametrize("name", ["rtol", "atol"])
def test_the_correctors_tolerance_is_the_one_given(name: str) -> None:
    """Where it may stop early, it does."""
    model, errors = mixture("identity", 0.5, -1.0, 2.0), []
    for tolerance in (1e-14, 1e2):
        options = {"max_iters": 50, "rtol": 1e-14, "atol": 1e-14} | {name: tolerance}
        solver = dc.TorchDiffEqFixed("implicit_adams", options=options)
        errors.append(float(flow_errors(solver, model, 32).norm()))
    assert abs(errors[1] / errors[0] - 1) > 1e-3


def pinned_begin(past: list[Tensor], at: Tensor) -> Any:
    """How solve_adams begins when its steps are equal all the way; before the start lie exact values, at gammas `at`.

    By itself it starts with one value and tiny steps.
    """

    def begin(field: Any, z: Tensor, gamma: float, nodes: int, step: float) -> Any:
        n, first = len(z), begun(field, z, gamma, nodes, step)
        known = [field(p, g.expand(n)) for p, g in zip(past, at, strict=True)]
        settled = nodes - 1 - nodes // 2
        first.nodes, first.count = at.expand(n, -1).clone(), torch.full((n,), nodes)
        first.velocity = torch.stack([v.velocity for v in known], 1)
        first.divergence = torch.stack([v.divergence for v in known], 1)
        first.z, first.settled = past[settled], at[settled].expand(n).clone()
        first.step = (at[0] - at[1]).expand(n).clone()
        return first

    begun = _adams._begin
    return begin


def pinned_adams(model: dc.DiffEnc, ends: tuple[float, float], steps: int, nodes: int) -> Any:
    """Errors of z_0 and of the integral of the divergence, from the first `nodes` values on."""
    z, (start, end) = normal(3, 16, 2), torch.tensor(ends, dtype=F64)
    at = start - (end - start) / steps * torch.arange(nodes, dtype=F64)
    exact = make_solver("DOP853", rtol=3e-14, atol=1e-15)
    problem = Problem(model, as_noise_level(0.0), torch.zeros_like)
    with torch.no_grad():
        past = [z] + [
            exact(problem, z, Grid(g, g)) for g in (torch.stack([start, a]) for a in at[1:])
        ]
        last = exact(problem, z, Grid(torch.stack([start, end]), torch.stack([start, end])))
        patched = {"_begin": pinned_begin(past, at), "_GROWTH": 1.0, "_SHRINK": 1.0}
        with mock.patch.multiple(_adams, **patched):
            found = _adams.solve_adams(FlowField(model), z, start, end, tolerance=1e9, nodes=nodes)
    # Along the exact flow log q_t falls as the integral of the divergence grows.
    world, settled = model.heads.network, nodes - 1 - nodes // 2
    grown = world.log_q(past[settled], at[settled]) - world.log_q(last, end)
    assert abs(found.evaluations.max() - steps) <= 2 and found.rejected.max() == 0
    return float((found.z - last).norm()), float((found.integral[:, 0] - grown).norm())


@pytest.mark.parametrize("atol,steps", [(1e-5, [96, 192]), (1e-9, [48, 96])])
@pytest.mark.parametrize("kind", ["identity", "scale"])
def test_order_of_the_default_flow_solver(kind: str, atol: float, steps: list[int]) -> None:
    """Of log p, and of z_0 where that has settled: with eight nodes it reaches rounding before."""
    solver, model = dc.Adams(atol=atol), mixture(kind, 0.5, -2.0, 2.0)
    errors = [pinned_adams(model, (2.0, -2.0), n, solver.nodes) for n in steps]
    declared = solver.convergence_order(stochastic=False)
    for name, each in zip(("z_0", "log p"), zip(*errors, strict=True), strict=True):
        if name == "log p" or solver.nodes == 6:
            assert abs(slope(list(each), steps) - declared) < 0.2, (name, each)


def pinned_bdf(h: float) -> type[integrate.OdeSolver]:
    """scipy's BDF at its highest order, 5, and steps of h all the way; before the start lie exact values.

    By itself it starts at order 1 and changes order and step together.
    """

    class PinnedBDF(at_fixed_steps(integrate.BDF, h)):  # type: ignore[misc]
        def __init__(self, fun: Any, start: float, y: Any, *arguments: Any, **options: Any) -> None:
            super().__init__(fun, start, y, *arguments, **options)
            self.order, past = 5, start - self.direction * h * np.arange(6)
            tight = {"method": "DOP853", "rtol": 3e-14, "atol": 1e-15}
            differences = integrate.solve_ivp(fun, past[[0, -1]], y, t_eval=past, **tight).y.T
            for j in range(6):
                self.D[j] = differences[0]
                differences = differences[:-1] - differences[1:]

        def _step_impl(self) -> tuple[bool, str | None]:
            self.n_equal_steps = 0  # It reconsiders its order after order + 1 equal steps.
            result = super()._step_impl()
            assert self.order == 5
            return result

    return PinnedBDF


@pytest.mark.parametrize("name,steps", [("scipy:Radau", [32, 64]), ("scipy:BDF", [96, 192])])
def test_order_of_implicit_methods_at_fixed_steps(name: str, steps: list[int]) -> None:
    """Tolerances of h^4 are loose enough to accept every step, and leave an error of h^6 to Newton's iteration."""
    model, length, errors = mixture("identity", 0.5, -1.0, 2.0), 3.0, []
    for n in steps:
        h = length / n
        method = pinned_bdf(h) if name == "scipy:BDF" else at_fixed_steps(integrate.Radau, h)
        options = {"max_step": h, "solver": method}
        solver = dc.SciPy(name.partition(":")[2], rtol=h**4, atol=h**4, options=options)
        errors.append(float(flow_errors(solver, model, 1).norm()))
    assert abs(slope(errors, steps) - declared_order(name, stochastic=False)) < 0.2, errors


def test_order_of_lsoda_is_a_limit() -> None:
    """No slope can be pinned: LSODA chooses order and step together, and its order can be limited but not held.

    It declares the limit of its Adams methods, which it does not reach here: its orders run from 1 to 7.
    """
    orders: list[int] = []

    class Watched(integrate.LSODA):
        def _step_impl(self) -> tuple[bool, str | None]:
            result = super()._step_impl()
            orders.append(int(self._lsoda_solver._integrator.iwork[13]))
            return result

    solver = dc.SciPy("LSODA", rtol=1e-10, atol=1e-10, options={"solver": Watched})
    follow(solver, mixture("identity"), 1, normal(3, 6, 2))
    declared = declared_order("scipy:LSODA", stochastic=False)
    limit = integrate.ode(None).set_integrator("lsoda")._integrator.max_order_ns
    assert declared == limit and max(orders) <= limit and len(set(orders)) > 3, orders


@pytest.mark.parametrize(
    "name",
    [
        "dopri5",
        "dopri8",
        "bosh3",
        "fehlberg2",
        "adaptive_heun",
        "RK45",
        "RK23",
        "DOP853",
        "Radau",
        "BDF",
        "LSODA",
    ],
)
def test_adaptive_solvers_obey_their_tolerance(name: str) -> None:
    for tolerance in (1e-4, 1e-6 if name == "adaptive_heun" else 1e-7):
        model, solver = mixture("scale"), make_solver(name, rtol=tolerance, atol=tolerance)
        # torchdiffeq's fehlberg2 underestimates its error.
        allowed = (1000 if name == "fehlberg2" else 60) * tolerance
        assert float(flow_errors(solver, model, 1).abs().max()) < allowed


@pytest.mark.parametrize("name", ADAMS)
def test_torchdiffeq_adams_converge(name: str) -> None:
    """As they come: formulas up to order 12, a corrector iterated up to a tolerance, another encoder."""
    assert float(flow_errors(make_solver(name), mixture("scale"), 256).abs().max()) < 1e-6
