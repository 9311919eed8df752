"""What sampling refuses, and what it says of solvers that diverge or give up."""

from dataclasses import dataclass

import pytest
import torch

import diffenc_ct as dc
from diffenc_ct.likelihood import SolverError
from diffenc_ct.sampling import ExponentialSinglestep
from tests.refusals import refused
from tests.sampling.test_sampling import SHAPE, draw, world


@pytest.mark.parametrize(
    "make,words",
    [
        (lambda: dc.Exponential(steps=0), "steps=0"),
        (lambda: dc.Ancestral(steps=2.5), "steps=2.5"),
        (lambda: dc.Exponential(order=4), "orders 1, 2 and 3"),
        (lambda: ExponentialSinglestep(order=0), "orders 1, 2 and 3"),
        (lambda: dc.Exponential(noise_level=-1.0), "noise_level=-1.0"),
        (lambda: dc.TorchSDE("dopri5"), "torchsde has euler, .*heun"),
        (lambda: dc.Ancestral(ratio=-1.0), "must be positive"),
        (lambda: dc.Ancestral(steps=3, ratio=torch.ones(4)), "one a step"),
        (lambda: dc.Ancestral(placement="cosine"), "choose uniform"),
        (lambda: dc.TorchDiffEqFixed("rk4", placement="cosine"), "choose uniform"),
        (
            lambda: dc.Ancestral(steps=3, placement=torch.tensor([0.0, 0.6, 0.5, 1.0])),
            "increasing",
        ),
        (lambda: dc.Ancestral(placement=torch.linspace(0, 1, 5)), "5 depths, .*steps=256"),
    ],
)
def test_bad_options_are_refused_when_a_solver_is_made(make, words) -> None:
    with refused(ValueError, words):
        make()


@pytest.mark.parametrize(
    "make,option",
    [
        (lambda: dc.TorchDiffEq("dopri5", steps=4), "steps"),
        (lambda: dc.SciPy("LSODA", steps=4), "steps"),
        (lambda: dc.Adams(steps=4), "steps"),
        (lambda: dc.TorchDiffEqFixed("rk4", noise_level=1.0), "noise_level"),
        (lambda: dc.TorchDiffEqFixed("rk4", rtol=1e-3), "rtol"),
        (lambda: dc.Exponential(ratio=1.2), "ratio"),
        (lambda: dc.Exponential(rtol=1e-3), "rtol"),
        (lambda: dc.Ancestral(order=2), "order"),
    ],
)
def test_combinations_without_meaning_cannot_be_written(make, option) -> None:
    with refused(TypeError, f"unexpected keyword argument '{option}'"):
        make()


@pytest.mark.parametrize(
    "options,words",
    [
        ({"shape": None}, "shape"),
        ({"n": 0}, "n=0"),
        ({"n": None}, "n=None"),
        ({"trajectory": 9}, "trajectory=9"),
        ({"trajectory": 1, "solver": dc.Adams()}, "depths of its own"),
    ],
)
def test_what_cannot_be_sampled_is_refused(options: dict, words: str) -> None:
    with refused(ValueError, words):
        dc.sample(world(), **({"n": 2, "shape": SHAPE} | options))


@pytest.mark.parametrize("solver", ["ancestral", lambda problem, z, grid: z, dc.Ancestral])
def test_what_is_no_solver_is_refused(solver) -> None:
    with refused(TypeError, r"no Solver; give an object such as Exponential\(\)"):
        dc.sample(world(), 2, shape=SHAPE, solver=solver)


@dataclass(frozen=True, eq=False, kw_only=True)
class Broken(dc.GridSolver):
    """One pixel of its second image is lost."""

    def __call__(self, problem, z, grid):
        return z.index_put(
            (torch.tensor(1), *torch.zeros(3, 1, dtype=torch.long)), z.new_tensor(torch.nan)
        )


def test_divergence_is_not_hidden() -> None:
    with pytest.raises(ValueError, match="1 of 2 .* not finite: Broken .* more steps than 7"):
        draw(2, 0, solver=Broken(steps=7))


@pytest.mark.parametrize(
    "solver", [dc.TorchDiffEq("dopri5", max_steps=1), dc.SciPy("RK45", max_steps=1)]
)
def test_a_solver_that_gives_up_says_so(solver) -> None:
    with pytest.raises(SolverError, match=r"2 of 2 examples could not be solved \(0: step limit"):
        draw(2, 0, solver=solver)


def test_images_that_could_not_be_solved() -> None:
    with pytest.raises(SolverError, match="step limit"):
        draw(2, 0, solver=dc.Adams(max_steps=3))
    for solver in (dc.Adams, dc.TorchDiffEq):
        with pytest.raises(ValueError, match="2 of 2 samples .* a smaller tolerance"):
            draw(2, 0, solver=solver(max_steps=3, on_failure="nan", atol=1e-9))
