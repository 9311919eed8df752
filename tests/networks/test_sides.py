"""The U-Net on signals, images and volumes: the same function of one more side, jets and all."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import diffenc_ct as dc
from diffenc_ct.networks import Jet
from tests.refusals import refused
from tests.strategies import close, normal, seeds

GAMMA = torch.tensor([-3.0, 1.0], dtype=torch.float64)


def made(sides, seed, **options):
    network = dc.networks.UNet(2, width=8, sides=sides, **{"halvings": 1} | options).double()
    with torch.no_grad():
        for number, parameter in enumerate(network.parameters()):
            parameter.copy_(0.3 * normal(seed + number, *parameter.shape))
    return network


@given(sides=st.integers(1, 3), seed=seeds, halvings=st.integers(1, 2))
@settings(max_examples=6)
def test_jets_are_derivatives(sides, seed, halvings):
    network = made(sides, seed, features=False, halvings=halvings, bounded=True)
    x, tangent = normal(seed, 2, 2, *[4] * sides), normal(seed + 1, 2)
    found = network(x, Jet(GAMMA, tangent))
    value, rate = torch.func.jvp(lambda g: network(x, g), (GAMMA,), (tangent,))
    close(found.value, value, 1e-10)
    close(found.rate, rate, 1e-8)


@pytest.mark.parametrize("sides", [1, 2])
@given(seed=seeds)
@settings(max_examples=3)
def test_a_side_of_equal_slices_is_no_side_at_all(sides, seed):
    """Weights that look at one slice only, on data that repeat along a side: what the network of one side less says."""
    thin, thick = made(sides, seed), made(sides + 1, seed)
    with torch.no_grad():
        for (name, small), large in zip(thin.named_parameters(), thick.parameters(), strict=True):
            if large.shape == small.shape:
                large.copy_(small)
                continue
            large.zero_()
            size = large.shape[-1]
            # Kernels of three and one look at their middle; what halves looks at the first of two, what grows at both.
            middle = slice(None) if "grow" in name else size // 2 if size % 2 else 0
            large[..., middle] = small[..., None] if "grow" in name else small
    z = normal(seed + 5, 2, 2, *[4] * sides)
    # Slices are equal: a normalisation over more of the same, an attention among them, change nothing.
    close(thick(z[..., None].expand(*z.shape, 4), GAMMA)[..., 0], thin(z, GAMMA), 1e-9)


@pytest.mark.parametrize(("sides", "shape"), [(1, (2, 8)), (3, (1, 4, 4, 4))])
def test_everything_is_computed_of_signals_and_volumes(sides, shape):
    """Bound, exact likelihood, samples, with an encoder of the same kind: no shape is asked for anywhere."""
    options = {"width": 8, "halvings": 1, "sides": sides}
    net = dc.networks.UNet(
        shape[0], out_channels=dc.Posterior.outputs_for(16) * shape[0], **options
    )
    inner = dc.networks.UNet(shape[0], features=False, bounded=True, **options)
    with torch.no_grad():
        for parameter in (*net.parameters(), *inner.parameters()):
            parameter.add_(
                0.05 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1))
            )
    heads, encoder = dc.Posterior(net, 16), dc.ResidualEncoder(inner)
    model = dc.DiffEnc(
        dc.LinearSchedule(-6.0, 4.0), encoder, heads, dc.Levels(16), shape=shape
    ).eval()
    x = torch.randint(0, 16, (2, *shape), generator=torch.Generator().manual_seed(0))
    assert model(x).total.isfinite().all()
    solver = dc.TorchDiffEqFixed("rk4", steps=2, estimate_error=False)
    found = dc.log_likelihood(model, x, solver=solver, divergence=dc.Rademacher())
    assert found.nats.isfinite().all() and found.dimensions == torch.Size(shape).numel()
    assert dc.sample(model, 2, solver=dc.Ancestral(steps=2)).samples.shape == (2, *shape)


@pytest.mark.parametrize(
    ("options", "shape", "words"),
    [
        ({"sides": 4}, None, "give 1, 2 or 3 sides"),
        ({"sides": 3, "patch": 2}, None, "patches of 2"),
        ({"sides": 1}, (2, 2, 4, 4), "examples of 4x4 have 2 sides; give sides=2"),
        ({"sides": 3}, (2, 2, 4, 6, 5), "images of 4x6x5 cannot be halved"),
        ({"sides": 1, "halvings": 2}, (2, 2, 6), "multiples of patch 2.halvings = 4; give the network .*halvings=1"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused(options, shape, words):
    with refused(ValueError, words):
        network = dc.networks.UNet(2, **{"width": 8} | options)
        network(torch.zeros(shape), torch.zeros(2))
