"""Solvers by name, and what a solver of one's own must look like.

    exponential                     the default: order 3 (weak 2 with noise), one evaluation a step
    exponential-1 -2 -3             the same at a given order
    exponential-corrected-2 -3      with its corrector also where there is no noise
    exponential-single-1 -2 -3      single-step: 1, 2 or 3 evaluations a step
    ancestral                       the model's own steps; with noise level 0 DDIM
    torchsde:METHOD                 euler, milstein, srk, midpoint, heun, euler_heun, log_ode, reversible_heun
    torchdiffeq:METHOD              euler, rk4, dopri5, ...: the probability flow
    scipy:METHOD                    RK45, RK23, DOP853, Radau, BDF, LSODA

A METHOD that one library alone has may stand without its prefix. A solver of one's own is a callable
`solver(problem, z, grid) -> z_0` (see `problem`).
"""

import difflib
from collections.abc import Callable
from functools import partial
from typing import Any

from diffenc_ct.sampling.adapters import (
    SCIPY_METHODS,
    TORCHDIFFEQ_METHODS,
    TORCHSDE_METHODS,
    TorchDiffEq,
    TorchSDE,
)
from diffenc_ct.sampling.ancestral import Ancestral
from diffenc_ct.sampling.exponential import ExponentialMultistep, ExponentialSinglestep
from diffenc_ct.sampling.problem import Grid, Problem

Solver = Callable[[Problem, Any, Grid], Any]

SOLVERS: dict[str, Callable[..., Any]] = {
    "exponential": ExponentialMultistep,
    **{f"exponential-{k}": partial(ExponentialMultistep, k) for k in (1, 2, 3)},
    **{
        f"exponential-corrected-{k}": partial(ExponentialMultistep, k, corrector=True)
        for k in (2, 3)
    },
    **{f"exponential-single-{k}": partial(ExponentialSinglestep, k) for k in (1, 2, 3)},
    "ancestral": Ancestral,
    **{f"torchsde:{name}": partial(TorchSDE, name) for name in TORCHSDE_METHODS},
    **{
        f"torchdiffeq:{name}": partial(TorchDiffEq, name)
        for name in TORCHDIFFEQ_METHODS
        if name != "scipy_solver"
    },
    **{f"scipy:{name}": partial(TorchDiffEq, name) for name in SCIPY_METHODS},
}


def make_solver(
    name: str, *, rtol: float | None = None, atol: float | None = None
) -> Callable[..., Any]:
    """The solver called `name`. rtol, atol: of adaptive ODE solvers only.

    Raises ValueError for an unknown name, one that two libraries have, or tolerances that the solver does not use.
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
    tolerances = {k: v for k, v in (("rtol", rtol), ("atol", atol)) if v is not None}
    for key, value in tolerances.items():
        if value <= 0:
            raise ValueError(f"{key}={value} must be positive")
    if tolerances and not getattr(SOLVERS[name](), "adaptive", False):
        raise ValueError(f"solver={name!r} takes steps, not tolerances; leave rtol and atol out")
    return SOLVERS[name](**tolerances)


__all__ = [
    "SOLVERS",
    "Ancestral",
    "ExponentialMultistep",
    "ExponentialSinglestep",
    "Grid",
    "Problem",
    "Solver",
    "TorchDiffEq",
    "TorchSDE",
    "make_solver",
]
