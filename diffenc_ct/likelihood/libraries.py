"""torchdiffeq's and scipy's methods as solvers of the probability flow, for likelihoods and for samples alike.

    TorchDiffEq("dopri5", rtol, atol)    torchdiffeq's adaptive methods: one step sequence for the whole batch
    TorchDiffEqFixed("rk4", steps)       torchdiffeq's methods on a fixed grid
    SciPy("LSODA", rtol, atol)           scipy's solve_ivp on the whole batch

Reference: Chen et al. 2018 (torchdiffeq).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
import torchdiffeq
from jaxtyping import Float
from torch import Tensor, nn

from diffenc_ct.likelihood._library import Derivative, Function, Judged, Library
from diffenc_ct.likelihood._scipy import solve_scipy
from diffenc_ct.likelihood.solver import check_count, check_positive
from diffenc_ct.sampling import Grid, Placement, make_grid
from diffenc_ct.sampling.grids import check_placement
from diffenc_ct.schedules import Schedule

Gradient = Literal["none", "solve", "adjoint"]

# The order of each method.
ADAPTIVE = {"dopri8": 8, "dopri5": 5, "bosh3": 3, "fehlberg2": 2, "adaptive_heun": 2}
FIXED = {"euler": 1, "midpoint": 2, "heun2": 2, "heun3": 3, "rk4": 4}
# Adams methods rise to max_order, 12. Their first steps, rk4 and one through the fewest values, keep a local error of
# the fourth (explicit) or fifth power of the step, which caps their order.
ADAMS = {"explicit_adams": 4, "implicit_adams": 5, "fixed_adams": 5}
# Of BDF and LSODA, which vary their order along the path, the highest that they may take.
SCIPY = {"RK45": 5, "RK23": 3, "DOP853": 8, "Radau": 5, "BDF": 5, "LSODA": 12}


@dataclass(frozen=True, eq=False)
class TorchDiffEqFixed(Library):
    """A method of torchdiffeq on a fixed grid.

    Attributes:
        method: euler, midpoint, heun2, heun3, rk4, explicit_adams, implicit_adams or fixed_adams.
        steps: how many.
        placement: where they lie in samples: a name or depths as of GridSolver; likelihoods take equal steps of gamma.
        gradient: of results, "none", "solve" (through the steps) or "adjoint" (solved backwards).
        options: further ones of torchdiffeq's: max_order, and rtol, atol and max_iters of the iteration with which
            implicit Adams methods solve for a step's end.

    Raises:
        ValueError: for unknown names, or fewer than one step.

    Example:
        >>> import diffenc_ct as dc
        >>> dc.TorchDiffEqFixed("heun3", steps=32).convergence_order(stochastic=False)
        3
    """

    method: str = "rk4"
    steps: int = field(default=64, kw_only=True)
    placement: Placement | Float[Tensor, " nodes"] = field(default="log-snr", kw_only=True)
    gradient: Gradient = field(default="none", kw_only=True)
    options: Mapping[str, Any] = field(default_factory=dict, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_method(self.method, FIXED | ADAMS, "torchdiffeq's fixed grids")
        _check_gradient(self.gradient)
        if not isinstance(self.steps, int) or self.steps < 1:
            raise ValueError(f"steps={self.steps!r}; a solver needs a whole number of at least 1")
        check_placement(self.placement, self.steps)

    @property
    def name(self) -> str:
        """torchdiffeq:METHOD."""
        return f"torchdiffeq:{self.method}"

    @property
    def adaptive(self) -> bool:
        """Its steps are given."""
        return False

    @property
    def differentiable(self) -> bool:
        """Whether results carry gradients."""
        return self.gradient != "none"

    def convergence_order(self, stochastic: bool) -> float:
        """The order of the method; of Adams methods that of their start, if it is less."""
        highest: int = self.options.get("max_order", 12)
        if self.method not in ADAMS or highest < 4:  # Below 4 it is rk4.
            return FIXED.get(self.method, 4)
        # An explicit step goes through max_order - 1 values, an implicit one through its own end as well.
        return min(highest - (self.method == "explicit_adams"), ADAMS[self.method])

    def grid(self, schedule: Schedule) -> Grid:
        """The steps' depths."""
        return Grid.of(schedule, make_grid(schedule, self.steps, self.placement))

    def _gammas(self, start: Tensor, end: Tensor, *, coarse: bool) -> Tensor:
        steps = self.steps // 2 if coarse else self.steps
        share = torch.linspace(0, 1, steps + 1, dtype=start.dtype, device=start.device)
        return start + (end - start) * share

    def _odeint(self, function: Function, state: Any, gammas: Tensor, laxer: float) -> Any:
        tolerances = {name: self.options.get(name, 1e-5) for name in ("rtol", "atol")}
        options = {name: v for name, v in self.options.items() if name not in tolerances}
        return _torchdiffeq(
            function, state, gammas, self.gradient, self.method, options, **tolerances
        )

    @property
    def _error_ratio(self) -> float:
        # Adams methods start with lower orders: nothing to divide by there.
        return 1.0 if self.method in ADAMS else 2.0 ** FIXED[self.method] - 1

    @property
    def _can_be_coarser(self) -> bool:
        return self.steps > 1

    def _accepted(self, function: Function, status: str) -> int:
        # A step that began is taken, but for the one in which a solve ended.
        return function.tried - (status != "ok")


@dataclass(frozen=True, eq=False, kw_only=True)
class _Adaptive(Library):
    """Tolerances.

    Attributes:
        rtol: relative tolerance of a step.
        atol: absolute tolerance of a step.
        max_steps: attempts, accepted and rejected steps together, before a batch is given up; of Radau, BDF and LSODA
            accepted steps, for scipy tells of no others.
        options: further ones of the library's, e.g. max_step, in units of gamma.
    """

    rtol: float = 1e-5
    atol: float = 1e-5
    max_steps: int = 10_000
    options: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive("rtol", self.rtol)
        check_positive("atol", self.atol)
        check_count("max_steps", self.max_steps)

    @property
    def batch_matters(self) -> bool:
        """The batch shares its steps."""
        return True

    def _gammas(self, start: Tensor, end: Tensor, *, coarse: bool) -> Tensor:
        # As on a fixed grid of one step, so that both end at the same rounding of `end`.
        return start + (end - start) * torch.linspace(0, 1, 2).to(start)

    def _function(self, model: nn.Module, derivative: Derivative) -> Function:
        return Judged(model, derivative, self.max_steps)


@dataclass(frozen=True, eq=False)
class TorchDiffEq(_Adaptive):
    """An adaptive method of torchdiffeq.

    Attributes:
        method: dopri8, dopri5, bosh3, fehlberg2 or adaptive_heun.
        gradient: of results, "none", "solve" (through the steps) or "adjoint" (solved backwards, at the same
            tolerance).

    Raises:
        ValueError: for unknown names, or tolerances that are not positive.

    Example:
        >>> import diffenc_ct as dc
        >>> dc.TorchDiffEq("dopri8", rtol=1e-6).batch_matters
        True
    """

    method: str = "dopri5"
    gradient: Gradient = field(default="none", kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_method(self.method, ADAPTIVE, "torchdiffeq's adaptive methods")
        _check_gradient(self.gradient)

    @property
    def name(self) -> str:
        """torchdiffeq:METHOD."""
        return f"torchdiffeq:{self.method}"

    @property
    def differentiable(self) -> bool:
        """Whether results carry gradients."""
        return self.gradient != "none"

    def convergence_order(self, stochastic: bool) -> float:
        """The order of the method."""
        return ADAPTIVE[self.method]

    def _odeint(self, function: Function, state: Any, gammas: Tensor, laxer: float) -> Any:
        return _torchdiffeq(
            function, state, gammas, self.gradient, self.method, self.options,
            rtol=laxer * self.rtol, atol=laxer * self.atol,
        )  # fmt: skip


@dataclass(frozen=True, eq=False)
class SciPy(_Adaptive):
    """A method of scipy's solve_ivp. It leaves torch: no gradients.

    Attributes:
        method: RK45, RK23, DOP853, Radau, BDF or LSODA.

    Raises:
        ValueError: for unknown names, or tolerances that are not positive.

    Example:
        >>> import diffenc_ct as dc
        >>> dc.SciPy("LSODA").name
        'scipy:LSODA'
    """

    method: str = "RK45"

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_method(self.method, SCIPY, "scipy")

    @property
    def name(self) -> str:
        """scipy:METHOD."""
        return f"scipy:{self.method}"

    def convergence_order(self, stochastic: bool) -> float:
        """The order of the method; of BDF and LSODA the highest that they may take."""
        return SCIPY[self.method]

    def _odeint(self, function: Function, state: Any, gammas: Tensor, laxer: float) -> Any:
        tolerances = {"rtol": laxer * self.rtol, "atol": laxer * self.atol}
        end = solve_scipy(function, state, gammas, self.method, **tolerances, **self.options)
        # As torchdiffeq has it: the states at gammas, of which the last is wanted.
        return tuple(part[None] for part in end) if isinstance(end, tuple) else end[None]


def _torchdiffeq(
    function: Function,
    state: Any,
    gammas: Tensor,
    gradient: Gradient,
    method: str,
    options: Mapping[str, Any],
    **tolerances: float,
) -> Any:
    keywords: dict[str, Any] = {"method": method, "options": dict(options) or None, **tolerances}
    if gradient == "adjoint" and torch.is_grad_enabled():
        parameters = tuple(function.model.parameters())
        return torchdiffeq.odeint_adjoint(
            function, state, gammas, adjoint_params=parameters, **keywords
        )
    return torchdiffeq.odeint(function, state, gammas, **keywords)


def _check_method(method: str, known: Mapping[str, int], owner: str) -> None:
    if method not in known:
        raise ValueError(f"method={method!r}; {owner} are {', '.join(known)}")


def _check_gradient(gradient: Gradient) -> None:
    if gradient not in ("none", "solve", "adjoint"):
        raise ValueError(f'gradient={gradient!r}; choose "none", "solve" or "adjoint"')
