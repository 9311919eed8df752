"""The model as one module: what it is made of, what calling it gives, what it refuses."""

import pytest
import torch

import diffenc_ct as dc
from diffenc_ct.elbo import Terms
from diffenc_ct.model import Direct
from tests.refusals import refused
from tests.strategies import (
    ENCODERS,
    HEADS,
    RandomNetwork,
    close,
    generator,
    make_encoder,
    make_model,
    small_model,
)

F64 = torch.float64


def parts(**changed):
    own = {
        "schedule": dc.LinearSchedule(),
        "encoder": dc.IdentityEncoder(),
        "heads": dc.Single(RandomNetwork((2,), 0)),
        "decoder": dc.Levels(8),
    }
    return tuple((own | changed).values())


@pytest.mark.parametrize(
    "part, wrong, instead",
    [
        ("schedule", lambda t: t, "Schedule"),
        ("encoder", RandomNetwork((2,), 0), "Encoder"),
        ("heads", RandomNetwork((2,), 0), r"Heads, such as Single\(network\)"),
        ("heads", dc.Single, r"Heads, such as Single\(network\)"),
        ("decoder", 256, r"Decoder, such as Levels\(256\) or Reals\(\)"),
        ("decoder", None, r"Decoder, such as Levels\(256\) or Reals\(\)"),
        ("decoder", dc.Levels, r"Decoder, such as Levels\(256\) or Reals\(\)"),
    ],
)
def test_parts_of_another_kind_are_refused(part, wrong, instead):
    dc.DiffEnc(*parts())
    name = type(wrong).__name__
    with refused(TypeError, f"{part} is a {name}; give a {instead}"):
        dc.DiffEnc(*parts(**{part: wrong}))


def test_what_cannot_be_combined_has_no_place_to_be_written():
    """A second network is a part of Separate alone, and what a network predicts one of the heads that read it."""
    net = RandomNetwork((2,), 0)
    for call in (
        lambda: dc.Paired(net, head=net),
        lambda: Direct(net, head=net),
        lambda: Direct(net, predicts="v"),
        lambda: dc.Separate(net),
        lambda: dc.Reals(256),
        lambda: dc.DiffEnc(*parts(), prediction="v"),
    ):
        with refused(TypeError, "argument"):
            call()


@pytest.mark.parametrize("heads", HEADS)
@pytest.mark.parametrize("levels", [8, None])
def test_calling_the_model_gives_the_infinite_depth_bound(heads, levels):
    """model(x) is elbo(model, x), to the bit at the same generator, and has every parameter's gradient."""
    encoder = make_encoder("trainable", (3,), 1)
    model = make_model(
        dc.LearnedLinearSchedule(-6.0, 3.0).double(), encoder, (3,), 2, heads=heads, levels=levels
    )
    x = torch.randint(0, 8, (5, 3), generator=generator(0))
    x = x if levels else x.double() / 8
    terms, same = model(x, generator=generator(3)), dc.elbo(model, x, generator=generator(3))
    for name in ("reconstruction", "diffusion", "latent", "total"):
        assert torch.equal(getattr(terms, name), getattr(same, name)), name
        assert getattr(terms, name).shape == (5,)
    # At eta = 1 a separate head takes no part in the bound.
    terms = model(x, dc.InfiniteDepth(0.7), generator=generator(3))
    gradients = torch.autograd.grad(terms.total.mean(), list(model.parameters()))
    for (name, _), gradient in zip(model.named_parameters(), gradients, strict=True):
        assert torch.isfinite(gradient).all() and gradient.abs().max() > 0, name


def test_the_call_takes_the_bounds_options_and_draws():
    model, x = small_model("trainable"), torch.randn(4, 3, dtype=F64, generator=generator(1))
    bound, draws = (
        dc.InfiniteDepth(noise_level=0.7),
        dc.Draws(t=torch.linspace(0.1, 0.9, 4, dtype=F64)),
    )
    one = model(x, bound, draws=draws, generator=generator(3)).total
    assert torch.equal(one, dc.elbo(model, x, bound, draws=draws, generator=generator(3)).total)
    assert not torch.equal(one, model(x, draws=draws, generator=generator(3)).total)
    assert not torch.equal(one, model(x, bound, generator=generator(3)).total)


def test_the_call_is_a_modules():
    """Hooks see it, as DistributedDataParallel's do."""
    model, seen = small_model("nontrainable"), []
    model.register_forward_hook(lambda module, arguments, found: seen.append(found))
    terms = model(torch.zeros(2, 3, dtype=F64))
    assert seen == [terms] and isinstance(terms, Terms)


def test_what_is_no_level_makes_its_own_loss_nan_and_no_other():
    """Values are not looked at inside a step; `elbo` looks at them."""
    model = make_model(dc.LinearSchedule(-6.0, 3.0), dc.IdentityEncoder(), (3,), 2, levels=8)
    x = torch.tensor([[0, 1, 7], [0, 8, 2], [3, -1, 3], [4, 4, 4]])
    total = model(x, generator=generator(0)).total
    assert total.isnan().tolist() == [False, True, True, False]
    with pytest.raises(ValueError, match="levels=8.*0..7"):
        dc.elbo(model, x)
    with pytest.raises(TypeError, match="integer data"):
        model(x.double())


@pytest.mark.parametrize("kind", ENCODERS)
@pytest.mark.parametrize("heads", HEADS)
def test_whose_flow_is_exact(kind, heads):
    """Heads that tell the two estimates apart, or an encoder that needs one."""
    expected = heads not in ("single", "posterior") or kind in ("identity", "nontrainable")
    assert small_model(kind, heads).flow_is_exact == expected


def test_names_of_a_checkpoint():
    model = make_model(
        dc.LearnedLinearSchedule(), make_encoder("trainable", (2,), 1), (2,), 0, heads="head"
    )
    owners = {
        name.rpartition(".")[0].rpartition(".")[0] or name.rpartition(".")[0]
        for name in model.state_dict()
    }
    assert owners == {"schedule", "encoder.network", "heads.tied.network", "heads.head.network"}


def test_the_shape_is_kept():
    assert dc.DiffEnc(*parts()).shape is None
    assert dc.DiffEnc(*parts(), shape=(1, 28, 28)).shape == (1, 28, 28)


def test_a_start_that_is_learned_decodes_as_one_that_is_known():
    """All levels are summed where gamma_0 is not known as a number."""
    fixed, learned = dc.LinearSchedule(-6.0, 3.0), dc.LearnedLinearSchedule(-6.0, 3.0).double()
    net, x = RandomNetwork((3,), 1), torch.randint(0, 64, (4, 3), generator=generator(1))
    found = []
    for schedule in (fixed, learned):
        model = dc.DiffEnc(schedule, dc.IdentityEncoder(), dc.Single(net), dc.Levels(64))
        found.append(model(x, generator=generator(2)).reconstruction)
    close(found[0], found[1], 1e-12)
