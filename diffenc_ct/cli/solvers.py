"""Solvers by the names of the command line.

    exponential                     the default of samples: order 3 (weak 2 with noise), one evaluation a step
    exponential-1 -2 -3             the same at a given order
    exponential-corrected-2 -3      with its corrector also where there is no noise
    exponential-single-1 -2 -3      single-step: 1, 2 or 3 evaluations a step
    ancestral                       the model's own steps; with noise level 0 DDIM
    torchsde:METHOD                 euler, milstein, srk, midpoint, heun, euler_heun, log_ode, reversible_heun
    adams                           the default of likelihoods, on the probability flow like those below
    torchdiffeq:METHOD              euler, rk4, dopri5, ...
    scipy:METHOD                    RK45, RK23, DOP853, Radau, BDF, LSODA

A METHOD that one library alone has may stand without its prefix.
"""

import dataclasses
import difflib
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, cast

from diffenc_ct.likelihood import Adams, FlowSolver, SciPy, TorchDiffEq, TorchDiffEqFixed
from diffenc_ct.likelihood.libraries import ADAMS, ADAPTIVE, FIXED, SCIPY
from diffenc_ct.sampling import (
    TORCHSDE_METHODS,
    Ancestral,
    Exponential,
    ExponentialSinglestep,
    Solver,
    TorchSDE,
)

SOLVERS: dict[str, Callable[..., Solver]] = {
    "exponential": Exponential,
    **{f"exponential-{k}": partial(Exponential, order=k) for k in (1, 2, 3)},
    **{f"exponential-corrected-{k}": partial(Exponential, order=k, corrector=True) for k in (2, 3)},
    **{f"exponential-single-{k}": partial(ExponentialSinglestep, order=k) for k in (1, 2, 3)},
    "ancestral": Ancestral,
    **{f"torchsde:{name}": partial(TorchSDE, name) for name in TORCHSDE_METHODS},
    "adams": Adams,
    **{f"torchdiffeq:{name}": partial(TorchDiffEq, name) for name in ADAPTIVE},
    **{f"torchdiffeq:{name}": partial(TorchDiffEqFixed, name) for name in FIXED | ADAMS},
    **{f"scipy:{name}": partial(SciPy, name) for name in SCIPY},
}


def make_solver(name: str, **options: Any) -> Solver:
    """The solver called `name`, with those options that are not None.

    Args:
        name: of SOLVERS.
        options: fields of the solver: steps, noise_level, placement, rtol, atol.

    Raises:
        ValueError: for an unknown name, one that two libraries have, or an option that the solver does not have.

    Example:
        >>> make_solver("heun3", steps=20).name
        'torchdiffeq:heun3'
    """
    if name not in SOLVERS:
        matches = [full for full in SOLVERS if full.partition(":")[2] == name]
        if len(matches) != 1:
            near = matches or difflib.get_close_matches(name, SOLVERS, n=3, cutoff=0.4)
            hint = f"did you mean {' or '.join(near)}? " if near else ""
            raise ValueError(
                f"solver={name!r} is not known; {hint}Choose one of {', '.join(SOLVERS)}"
            )
        name = matches[0]
    given = {key: value for key, value in options.items() if value is not None}
    default = SOLVERS[name]()
    assert dataclasses.is_dataclass(default)
    known = {field.name for field in dataclasses.fields(default)}
    for key, value in given.items():
        if key not in known:
            shown = ", ".join(sorted(known & set(options)))
            raise ValueError(
                f"{key}={value}: solver {name!r} has no such option"
                + (f", but {shown}" if shown else "")
            )
    return SOLVERS[name](**given)


def lacking(name: str, options: Mapping[str, str]) -> dict[str, str]:
    """Options of a command that a solver does not have, and why they have no effect.

    Args:
        name: of the solver.
        options: field of the solver that each sets, by its name in the command's arguments.
    """
    known = {field.name for field in dataclasses.fields(cast(Any, make_solver(name)))}
    reason = f"solver {name!r} has no such option"
    return {option: reason for option, field in options.items() if field not in known}


def make_flow_solver(name: str, **options: Any) -> FlowSolver:
    """As make_solver, for likelihoods.

    Args:
        name: of SOLVERS, one of the flow's.
        options: fields of the solver.

    Raises:
        ValueError: also for a solver whose paths have no density by change of variables.
    """
    solver = make_solver(name, **options)
    if not isinstance(solver, FlowSolver):
        flows = [full for full, make in SOLVERS.items() if isinstance(make(), FlowSolver)]
        raise ValueError(
            f"solver={name!r} does not solve the probability flow, and paths of stochastic solvers have no density by "
            f"change of variables; choose one of {', '.join(flows)}"
        )
    return solver
