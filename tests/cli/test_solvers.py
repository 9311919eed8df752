"""Solvers by the names of the command line: all resolve, near misses are answered, options are the solver's own."""

import dataclasses

import pytest
import torch

import diffenc_ct as dc
from diffenc_ct.cli.solvers import SOLVERS, make_flow_solver, make_solver
from diffenc_ct.likelihood import FlowSolver
from diffenc_ct.likelihood.libraries import ADAMS, ADAPTIVE, FIXED, SCIPY
from diffenc_ct.sampling import TORCHSDE_METHODS, ExponentialSinglestep
from tests.refusals import refused

KINDS = {
    "exponential": dc.Exponential,
    "ancestral": dc.Ancestral,
    "adams": dc.Adams,
    **{f"exponential-{k}": dc.Exponential for k in (1, 2, 3)},
    **{f"exponential-corrected-{k}": dc.Exponential for k in (2, 3)},
    **{f"exponential-single-{k}": ExponentialSinglestep for k in (1, 2, 3)},
    **{f"torchsde:{method}": dc.TorchSDE for method in TORCHSDE_METHODS},
    **{f"torchdiffeq:{method}": dc.TorchDiffEq for method in ADAPTIVE},
    **{f"torchdiffeq:{method}": dc.TorchDiffEqFixed for method in [*FIXED, *ADAMS]},
    **{f"scipy:{method}": dc.SciPy for method in SCIPY},
}


def test_every_name_makes_what_it_says() -> None:
    assert SOLVERS.keys() == KINDS.keys()
    for name, kind in KINDS.items():
        solver = make_solver(name)
        assert type(solver) is kind
        if ":" in name:
            assert solver.name == name and solver.method == name.partition(":")[2]
        if name[-1].isdigit() and name.startswith("exponential"):
            assert solver.order == int(name[-1])
    assert make_solver("exponential-corrected-2").corrector is True
    assert make_solver("exponential-2").corrector is None


def test_the_plain_name_is_the_default_of_samples() -> None:
    assert dataclasses.astuple(make_solver("exponential")) == dataclasses.astuple(dc.Exponential())


@pytest.mark.parametrize(
    "name,kind",
    [
        ("dopri5", dc.TorchDiffEq),
        ("rk4", dc.TorchDiffEqFixed),
        ("srk", dc.TorchSDE),
        ("LSODA", dc.SciPy),
    ],
)
def test_unambiguous_names_need_no_prefix(name, kind) -> None:
    assert type(make_solver(name)) is kind and make_solver(name).method == name


@pytest.mark.parametrize(
    "name,suggestions",
    [
        ("exponentials", "exponential or "),
        ("euler", "torchsde:euler or torchdiffeq:euler"),
        ("midpoint", "torchsde:midpoint or torchdiffeq:midpoint"),
        ("dopri", "torchdiffeq:dopri5"),
        ("torchsde:srks", "torchsde:srk"),
        ("ancestrall", "ancestral"),
    ],
)
def test_a_name_nearly_right_is_answered_with_what_was_meant(name, suggestions) -> None:
    with pytest.raises(
        ValueError, match=f"solver='{name}' is not known; did you mean .*{suggestions}"
    ):
        make_solver(name)


@pytest.mark.parametrize("name", ["", "zzzzzz", "scipy_solver:LSODA"])
def test_an_unknown_name_is_answered_with_all_there_are(name) -> None:
    with pytest.raises(ValueError, match="Choose one of exponential, .*scipy:LSODA"):
        make_solver(name)


def test_options_reach_the_solver_and_none_means_its_own() -> None:
    solver = make_solver("ancestral", steps=7, noise_level=0.3, placement="log-snr", rtol=None)
    assert (solver.steps, solver.noise_level, solver.placement) == (7, 0.3, "log-snr")
    assert make_solver("ancestral", steps=None).steps == dc.Ancestral().steps
    assert make_solver("exponential-2", steps=5).order == 2
    tight = make_solver("bosh3", rtol=1e-7, atol=1e-8)
    assert (tight.rtol, tight.atol) == (1e-7, 1e-8)


@pytest.mark.parametrize(
    "name,options,words",
    [
        ("exponential", {"rtol": 1e-3}, "rtol=0.001: solver 'exponential' has no such option"),
        ("rk4", {"atol": 1e-3, "steps": None}, "atol=0.001: .*'torchdiffeq:rk4' .*, but steps"),
        ("dopri5", {"steps": 4, "rtol": None, "atol": None}, "steps=4: .*, but atol, rtol"),
        ("adams", {"noise_level": 1.0}, "noise_level=1.0: solver 'adams'"),
        ("dopri5", {"rtol": 0.0}, "rtol=0.0 must be a positive number"),
        ("exponential", {"steps": 0}, "steps=0"),
        ("ancestral", {"placement": "cosine"}, "choose uniform"),
    ],
)
def test_options_that_a_solver_does_not_have_are_refused(name, options, words) -> None:
    with refused(ValueError, words):
        make_solver(name, **options)


def test_likelihoods_take_the_solvers_of_the_flow() -> None:
    flows = [name for name in SOLVERS if isinstance(make_solver(name), FlowSolver)]
    assert flows == ["adams", *(n for n in SOLVERS if n.startswith(("torchdiffeq:", "scipy:")))]
    for name in flows:
        assert type(make_flow_solver(name)) is KINDS[name]
    assert make_flow_solver("adams", atol=1e-3, rtol=None).atol == 1e-3
    for name in ("ancestral", "exponential", "heun"):
        with pytest.raises(
            ValueError, match="stochastic .*choose one of adams, torchdiffeq:dopri8"
        ):
            make_flow_solver(name)


def test_a_named_solver_samples() -> None:
    world = dc.worlds.GaussianWorld(torch.zeros(2).double(), torch.tensor([0.5, 0.1]).double())
    model = world.model(dc.LinearSchedule(-5.0, 4.0))
    z_1 = torch.ones(1, 2, dtype=torch.float64)
    ours = dc.sample(model, latents=z_1, solver=make_solver("adams"))
    theirs = dc.sample(model, latents=z_1, solver=make_solver("dopri8", rtol=1e-8, atol=1e-8))
    torch.testing.assert_close(ours.z_0, theirs.z_0, rtol=0, atol=1e-3)
