"""The dynamics as a user hands them to torchsde and torchdiffeq: plain and adjoint, both precisions, on images."""

import pytest
import torch
import torchdiffeq
import torchsde

import diffenc_ct as dc
from diffenc_ct.dynamics import ConditionalReverseSDE, ForwardSDE
from tests.strategies import make_encoder, make_model, normal

SHAPE = (1, 2, 2)
SCHEDULE = dc.LinearSchedule(-1.5, 1.0)


def trainable(dtype: torch.dtype) -> dc.DiffEnc:
    return make_model(SCHEDULE, make_encoder("trainable", SHAPE, 1), SHAPE, 2, heads="paired").to(
        dtype
    )


def objects(dtype: torch.dtype, sde_type: str) -> dict[str, torch.nn.Module]:
    model, x = trainable(dtype), normal(3, 3, *SHAPE, dtype=dtype)
    return {
        "forward": ForwardSDE(SCHEDULE, model.encoder, x, sde_type=sde_type),
        "given x": ConditionalReverseSDE(SCHEDULE, model.encoder, x, sde_type=sde_type),
        "generative": dc.ReverseSDE(model, shape=SHAPE, sde_type=sde_type),
    }


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    "method,sde_type", [("euler", "ito"), ("srk", "ito"), ("heun", "stratonovich")]
)
@pytest.mark.parametrize("which", ["forward", "given x", "generative"])
def test_sdeint_and_its_adjoint(dtype, method, sde_type, which) -> None:
    """Same path, dtype kept, and gradients of both that agree up to the step's error."""
    gradients = []
    for solve in (torchsde.sdeint, torchsde.sdeint_adjoint):
        sde = objects(dtype, sde_type)[which]
        y = normal(4, 3, 4, dtype=dtype).requires_grad_()
        motion = torchsde.BrownianInterval(
            0.0, 1.0, size=(3, 4), dtype=dtype, entropy=5, levy_area_approximation="space-time"
        )
        ts = torch.tensor([0.0, 1.0], dtype=dtype)
        last = solve(sde, y, ts, bm=motion, method=method, dt=0.04)[-1]
        assert last.dtype == dtype and last.shape == (3, 4) and last.isfinite().all()
        (gradient,) = torch.autograd.grad(last.square().sum(), y)
        gradients.append(gradient)
    scale = gradients[0].abs().max()
    assert (gradients[0] - gradients[1]).abs().max() < 0.25 * scale


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("method", ["dopri5", "rk4"])
def test_odeint_and_its_adjoint(dtype, method) -> None:
    """Images of any shape as they are; gradients to latents and weights agree."""
    gradients = []
    for solve in (torchdiffeq.odeint, torchdiffeq.odeint_adjoint):
        model = trainable(dtype)
        flow, z = dc.ProbabilityFlow(model), normal(4, 3, *SHAPE, dtype=dtype).requires_grad_()
        options = (
            {"options": {"step_size": 0.02}} if method == "rk4" else {"rtol": 1e-5, "atol": 1e-5}
        )
        last = solve(flow, z, torch.tensor([1.0, 0.0], dtype=dtype), method=method, **options)[-1]
        assert last.dtype == dtype and last.shape == (3, *SHAPE)
        weights = list(model.heads.parameters())
        found = torch.autograd.grad(last.square().sum(), [z, *weights])
        gradients.append(torch.cat([g.flatten() for g in found]))
    assert (gradients[0] - gradients[1]).abs().max() < 1e-2 * gradients[0].abs().max()


@pytest.mark.parametrize(
    "method,sde_type", [("heun", "ito"), ("midpoint", "ito"), ("srk", "stratonovich")]
)
def test_a_method_of_the_other_calculus_is_refused(method, sde_type) -> None:
    """torchsde itself refuses a Stratonovich method on an Ito-typed object; sde_type chooses the reading."""
    sde = objects(torch.float64, sde_type)["generative"]
    with pytest.raises((ValueError, TypeError), match="(?i)sde|ito|stratonovich"):
        torchsde.sdeint(
            sde,
            normal(0, 3, 4),
            torch.tensor([0.0, 1.0], dtype=torch.float64),
            method=method,
            dt=0.1,
        )


def test_both_readings_agree() -> None:
    """Euler's Ito path and Heun's Stratonovich path of the same Brownian motion meet: g does not depend on z."""
    paths = []
    for method, sde_type in (("euler", "ito"), ("heun", "stratonovich")):
        sde = objects(torch.float64, sde_type)["generative"]
        motion = torchsde.BrownianInterval(0.0, 1.0, size=(3, 4), dtype=torch.float64, entropy=5)
        with torch.no_grad():
            ts = torch.tensor([0.0, 1.0], dtype=torch.float64)
            paths.append(
                torchsde.sdeint(sde, normal(4, 3, 4), ts, bm=motion, method=method, dt=0.002)[-1]
            )
    assert (paths[0] - paths[1]).abs().max() < 0.02
