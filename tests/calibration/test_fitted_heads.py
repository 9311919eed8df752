"""Heads fitted to a trained model: what they learn, what they leave alone, how they are kept."""

import copy

import pytest
import torch
from torch import nn

import diffenc_ct as dc
from diffenc_ct.process import marginal
from diffenc_ct.training.heads import HeadFitting, fit_head, load_head, save_head
from diffenc_ct.worlds import GaussianWorld
from tests.parts import BoundedNetwork, posterior_heads
from tests.refusals import refused
from tests.strategies import close, generator, make_gaussian_world, make_model, normal

SCHEDULE = dc.LinearSchedule(-6.0, 4.0)


class Linear(nn.Module):
    """u = W(gamma) z + b(gamma), W and b linear in 4 features of gamma: holds a linear world's best heads."""

    def __init__(self, d: int) -> None:
        super().__init__()
        self.out = nn.Linear(8, d + d * d)

    def forward(self, z: torch.Tensor, gamma: torch.Tensor) -> torch.Tensor:
        g = gamma[:, None] / 4
        features = torch.cat([torch.ones_like(g), g, g**2, g**3, torch.tanh(g), torch.tanh(2 * g),
                              torch.cos(g), torch.sin(g)], 1)  # fmt: skip
        d = z.shape[1]
        weights = self.out(features)
        return (weights[:, d:].unflatten(1, (d, d)) @ z[:, :, None])[:, :, 0] + weights[:, :d]


def test_a_fitted_head_learns_the_posterior_mean_and_leaves_the_elbo():
    world = make_gaussian_world(2, "matrix", 9)
    schedule = dc.LinearSchedule(-3.0, 3.0)
    best = world.model(schedule, heads="single").heads.network

    class Best(nn.Module):
        """The optimal single head, read as v."""

        def forward(self, z, gamma):
            a, s = (torch.sigmoid(sign * gamma).sqrt()[:, None] for sign in (-1, 1))
            return (a * z - best(z, gamma)) / s

    model = dc.DiffEnc(schedule, world.encoder, dc.Single(Best()), dc.Reals()).double()
    before = copy.deepcopy(model.state_dict())
    data = world.sample(4000, generator(0))
    torch.manual_seed(0)
    fitted = fit_head(
        model,
        data,
        HeadFitting(steps=600, batch_size=256, learning_rate=2e-2),
        head=Linear(2).double(),
        generator=generator(1),
    )
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    gamma = torch.linspace(-2.5, 2.5, 6, dtype=torch.float64).repeat_interleave(50)
    x = data[: len(gamma)]
    z = marginal(world.encoder(x, gamma).value, gamma).sample(generator(2))
    found, truth, tied = (
        fitted.model.predict(z, gamma),
        world.estimates(z, gamma),
        model.predict(z, gamma),
    )
    off = (found.x_hat - truth.x_hat).square().mean()
    assert off < 0.1 * (tied.x_hat - truth.x_hat).square().mean()
    rate_off = (found.r_hat - truth.r_hat).square().mean()
    assert rate_off < 0.1 * (tied.r_hat - truth.r_hat).square().mean()
    # eta = 1 reads only x_hat + r_hat: the same ELBO, example by example
    one, two = (dc.elbo(m, x, generator=generator(3)).total for m in (model, fitted.model))
    close(one, two, 1e-9)
    assert fitted.losses[-1] < fitted.losses[0] and len(fitted.losses) == 600


def test_variants_fit_what_they_say():
    model = make_model(
        SCHEDULE, GaussianWorld(torch.zeros(3).double(), torch.ones(3).double()).encoder, (3,), 4
    )
    data, before = normal(1, 40, 3), copy.deepcopy(model.heads.network.state_dict())
    for variant, changed in (
        ("own network", set(before)),
        ("detached trunk", {"second.weight", "second.bias"}),
    ):
        fitting = HeadFitting(variant, steps=3)
        fitted = fit_head(model, data, fitting, generator=generator(0))
        after = fitted.model.heads.head.network.state_dict()
        assert {k for k in before if not torch.equal(before[k], after[k])} == changed
        network = model.heads.network
        assert all(torch.equal(v, before[k]) for k, v in network.state_dict().items())
        assert fitted.model.heads.tells_apart and not model.heads.tells_apart
        assert fitted.model.heads.tied.network is network
        assert all(p.grad is None for p in network.parameters())
    own = copy.deepcopy(model.heads.network)
    fit_head(model, data, HeadFitting(steps=3), head=own, generator=generator(0))  # fitted whole
    assert all(not torch.equal(before[k], v) for k, v in own.state_dict().items())


@pytest.mark.parametrize("kind", ["levels", "mixture"])
def test_a_head_is_fitted_beside_posterior_heads(kind, tmp_path):
    """The same kind of heads on a copy of the network: the bound at eta = 1 stays, the flow becomes exact."""
    heads = posterior_heads(kind, (3,), 1)
    encoder = dc.ResidualEncoder(BoundedNetwork((3,), 2))
    model = dc.DiffEnc(SCHEDULE, encoder, heads, dc.Reals()).double()
    data = normal(1, 40, 3)
    fitted = fit_head(model, data, HeadFitting("own network", steps=60), generator=generator(0))
    assert type(fitted.model.heads.head) is type(heads) and fitted.model.flow_is_exact
    assert sum(fitted.losses[-20:]) < sum(fitted.losses[:20])
    one, two = (dc.elbo(m, data, generator=generator(3)).total for m in (model, fitted.model))
    close(one, two, 1e-9)
    save_head(fitted.model, tmp_path / "head.safetensors")
    again = load_head(model, tmp_path / "head.safetensors")
    gamma = torch.zeros(40, dtype=torch.float64)
    assert torch.equal(again.predict(data, gamma).x_hat, fitted.model.predict(data, gamma).x_hat)


def test_a_head_is_stored_with_the_network_it_belongs_to(tmp_path):
    model, data = make_model(SCHEDULE, dc.NonTrainableEncoder(), (3,), 4), normal(1, 40, 3)
    fitted = fit_head(model, data, HeadFitting(steps=3), generator=generator(0)).model
    save_head(fitted, tmp_path / "head.safetensors")
    again = load_head(model, tmp_path / "head.safetensors")
    gamma = torch.zeros(40, dtype=torch.float64)
    assert torch.equal(again.predict(data, gamma).x_hat, fitted.predict(data, gamma).x_hat)
    with pytest.raises(ValueError, match="other weights"):
        load_head(make_model(SCHEDULE, model.encoder, (3,), 5), tmp_path / "head.safetensors")


def test_fit_refusals():
    world = make_gaussian_world(2, "matrix", 9)
    for kind in ("paired", "head"):
        model = make_model(SCHEDULE, world.encoder, (2,), 1, heads=kind)
        with pytest.raises(ValueError, match="a head is fitted beside heads with one network"):
            fit_head(model, world.sample(4))
    for bad, message in (
        ({"variant": "shared"}, "variant='shared'; choose one of detached trunk, own network"),
        ({"steps": 0}, "steps=0, .* at least 1"),
        ({"batch_size": 0}, "batch_size=0 must be at least 1"),
        ({"learning_rate": -1.0}, "learning_rate=-1.0 positive"),
        ({"learning_rate": float("inf")}, "learning_rate=inf positive and finite"),
        ({"learning_rate": float("nan")}, "learning_rate=nan positive and finite"),
    ):
        with refused(ValueError, message):
            HeadFitting(**bad)
    with pytest.raises(ValueError, match="no examples"):
        fit_head(make_model(SCHEDULE, world.encoder, (2,), 1), world.sample(4)[:0])
    with pytest.raises(ValueError, match="no parameters"):
        fit_head(world.model(SCHEDULE, heads="single"), world.sample(4))


def test_a_head_that_is_not_finite_is_refused_after_any_number_of_steps():
    """The loss of a step is that before it: of the last one nobody else would notice."""
    model, data = make_model(SCHEDULE, dc.NonTrainableEncoder(), (3,), 4), normal(1, 40, 3)
    for steps in (1, 2):
        with pytest.raises(ValueError, match="lower learning_rate=1e\\+308"):
            fit_head(
                model,
                1e9 * data,
                HeadFitting(steps=steps, learning_rate=1e308),
                generator=generator(0),
            )
