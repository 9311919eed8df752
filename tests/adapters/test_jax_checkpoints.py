"""The authors' checkpoints: their numbers from their weights, every option read or refused, every byte accounted for.

The first part compares with reference outputs of the authors' code, *.config.json with *.flax.msgpack and *.vectors.npz
in the folder DIFFENC_REFERENCE (../shared/reference beside the repository by default; skipped where absent).
"""

import functools
import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from torch import nn

import diffenc_ct as dc
from diffenc_ct.adapters import jax as jax_checkpoints
from diffenc_ct.adapters.jax import flax_msgpack
from diffenc_ct.adapters.jax.models import build, describe
from diffenc_ct.adapters.jax.options import read_options
from tests.jax_examples import configuration, example, load, models, network, write_example
from tests.refusals import refused

ROOT = Path(__file__).parents[2]
REFERENCE = Path(os.environ.get("DIFFENC_REFERENCE", ROOT.parent / "shared" / "reference"))
NAMES = sorted(path.name[: -len(".config.json")] for path in REFERENCE.glob("*.config.json"))
INPUTS = {"images", "t", "eps_0", "eps", "z_t", "step_T", "step_i", "step_eps", "decoder_input"}
LOSSES = {"loss_recon", "loss_klz", "loss_diff", "bpd"}
references = pytest.mark.parametrize(
    "name",
    NAMES or [pytest.param("", marks=pytest.mark.skip(f"no *.config.json in {REFERENCE}"))],
)


def load_reference(name, **options):
    files = (REFERENCE / f"{name}.config.json", REFERENCE / f"{name}.flax.msgpack")
    return jax_checkpoints.load(*files, **options)


def first(a):
    """height x width x channels -> channels first."""
    return torch.from_numpy(np.moveaxis(a, -1, 1).copy())


@torch.no_grad()
def outputs(model, given):
    """Every output of the reference, by its key."""
    t, x = torch.from_numpy(given["t"]), first(given["images"])
    terms = dc.elbo(model, x, draws=dc.Draws(t, first(given["eps"]), first(given["eps_0"])))
    gamma = model.schedule(t).gamma
    encoding = model.encoder(model.scale(x), gamma)
    depth, step = int(given["step_T"]), int(given["step_i"])
    s_t = torch.tensor([depth - step - 1, depth - step], dtype=t.dtype) / depth
    gamma_s, gamma_t = model.schedule(s_t).gamma[:, None].expand(2, len(t))
    z_s = model.reverse(first(given["z_t"]), gamma_s, gamma_t)
    found = {
        "gamma_t": gamma,
        "x_t": encoding.value,
        "dx_t_dgamma": -encoding.rate,
        "loss_recon": terms.reconstruction,
        "loss_klz": terms.latent,
        "loss_diff": terms.diffusion,
        "bpd": terms.bits_per_dimension().total.mean(),
        "v_hat": model.heads.network(first(given["z_t"]), gamma),
        "z_s": z_s.sample(noise=first(given["step_eps"])),
        "decoded": model.decode(first(given["decoder_input"]), model.schedule.at(0.0, t).gamma),
    }
    return {
        key: np.moveaxis(a.numpy(), 1, -1) if a.ndim == 4 else a.numpy() for key, a in found.items()
    }


def errors(model, given):
    """Each output's error over its tolerance: losses 1e-4 of each, arrays 1e-4 of the largest, integers exact."""
    found = outputs(model, given)
    ratios = {}
    for key in given.keys() - INPUTS:
        actual, expected = found[key], given[key]
        assert actual.shape == expected.shape, key
        gap = np.abs(actual.astype(np.float64) - expected.astype(np.float64))
        if key == "decoded":
            tolerance = np.full(1, 0.5)
        elif key in LOSSES:
            tolerance = 1e-4 * np.abs(expected)
        else:
            tolerance = np.full(1, 1e-4 * np.abs(expected).max())
        ratios[key] = float(np.max(gap / np.maximum(tolerance, 1e-300)))
    return ratios


@functools.cache
def vectors(name):
    return dict(np.load(REFERENCE / f"{name}.vectors.npz"))


@references
def test_numbers_of_the_authors(name):
    """Every key of the file is compared, in float32."""
    ratios = errors(load_reference(name), vectors(name))
    assert {"loss_recon", "loss_klz", "loss_diff", "v_hat", "z_s", "decoded"} <= ratios.keys()
    assert max(ratios.values()) <= 1, ratios


class WrongSign(dc.Encoder):
    """An encoder whose rate has the wrong sign."""

    def __init__(self, encoder):
        super().__init__()
        self.encoder = encoder

    def encode(self, x, gamma):
        return self.encoder.encode(x, gamma)

    def forward(self, x, gamma):
        encoding = self.encoder(x, gamma)
        return dc.Encoding(encoding.value, -encoding.rate)

    def rate_factor(self, gamma):
        return self.encoder.rate_factor(gamma)


def unturned(model):
    kernels = [m.weight for m in model.modules() if isinstance(m, nn.ConvTranspose2d)]
    for weight in kernels:
        weight.data = weight.data.flip(2, 3)
    return model if kernels else None


def other_groups(model):
    model.heads.network.norm_out.num_groups //= 2
    return model


def other_prediction(model):
    model.heads.predicts = "v" if model.heads.predicts == "eps" else "eps"
    return model


def wrong_sign(model):
    moving = not isinstance(model.encoder, dc.IdentityEncoder)
    model.encoder = WrongSign(model.encoder)
    return model if moving else None


CONTROLS = {
    "the last weights, not the averaged": None,
    "transposed convolutions not turned": unturned,
    "half the groups": other_groups,
    "another prediction": other_prediction,
    "wrong sign of the rate": wrong_sign,
}


@references
@pytest.mark.parametrize("control", CONTROLS)
def test_a_wrong_import_is_seen(name, control):
    if CONTROLS[control] is None:
        model = load_reference(name, which="params")
    else:
        model = CONTROLS[control](load_reference(name))
    if model is None:
        pytest.skip("this model has no such part")
    assert max(errors(model, vectors(name)).values()) > 1


@references
def test_reference_survives_save(name, tmp_path):
    """Loaded and saved, every averaged parameter is bitwise the authors'."""
    model = load_reference(name)
    jax_checkpoints.save(model, tmp_path / "c.json", tmp_path / "w")
    theirs = flax_msgpack.unpack((REFERENCE / f"{name}.flax.msgpack").read_bytes())["ema_params"]
    ours = flax_msgpack.unpack((tmp_path / "w").read_bytes())
    assert flax_msgpack.flatten(ours["ema_params"]) == flax_msgpack.flatten(theirs)
    assert flax_msgpack.flatten(ours["params"]) == flax_msgpack.flatten(theirs)
    again = jax_checkpoints.load(tmp_path / "c.json", tmp_path / "w")
    assert errors(again, vectors(name)) == errors(model, vectors(name))


# Without references --------------------------------------------------------------------------------


@given(models())
def test_save_then_load_is_bitwise(tmp_path_factory, drawn):
    """The same parameters, numbers and description; the saved configuration means what the first one did."""
    config, model = drawn
    folder = tmp_path_factory.mktemp("checkpoint")
    jax_checkpoints.save(model, folder / "c.json", folder / "w", step=7)
    rng = torch.get_rng_state()
    loaded = jax_checkpoints.load(folder / "c.json", folder / "w")
    assert torch.equal(rng, torch.get_rng_state()), "loading draws no random numbers"
    assert not loaded.training and all(p.requires_grad for p in loaded.parameters())
    expected, found = model.state_dict(), loaded.state_dict()
    assert expected.keys() == found.keys()
    assert all(torch.equal(expected[name], found[name]) for name in expected)
    described = describe(loaded)
    assert described == describe(model)
    assert described["gamma_type"] == config["gamma_type"]
    if config["ddpm_type"] == "S3VA":
        for name in ("m1_to_1", "k", "gamma_reg", "end_reg"):
            assert described["encoder_config"][name] == config["encoder_config"][name]
    shape = (2, model.heads.network.channels, 4, 4)
    x, eps = torch.randint(model.decoder.levels, shape), torch.randn(shape)
    draws = dc.Draws(torch.tensor([0.1, 0.8]), eps, eps)
    a, b = (dc.elbo(m, x, draws=draws) for m in (model, loaded))
    assert torch.equal(a.total, b.total)
    state = flax_msgpack.unpack((folder / "w").read_bytes())
    assert state["step"] == 7 and set(state["opt_state"]) == {"0", "1", "2"}


def test_image_shape_is_checked(tmp_path):
    write_example(tmp_path)
    assert load(tmp_path).shape is None
    model = load(tmp_path, image_shape=(2, 8, 8))
    assert model.heads.network.channels == 2 and model.shape == (2, 8, 8)
    jax_checkpoints.save(model, tmp_path / "c.json", tmp_path / "w")  # the shape is not in the way
    with pytest.raises(ValueError, match="2 channels"):
        load(tmp_path, image_shape=(1, 8, 8))
    with refused(ValueError, "which"):
        load(tmp_path, which="average")


def test_which_weights(tmp_path):
    """The averaged weights by default, the last ones on request."""
    write_example(tmp_path)
    state = flax_msgpack.unpack((tmp_path / "w").read_bytes())
    flat = {path: a.numpy() for path, a in flax_msgpack.flatten(state["params"]).items()}
    trees = {
        name: flax_msgpack.nest({path: a + shift for path, a in flat.items()})
        for name, shift in (("params", np.float32(1)), ("ema_params", np.float32(2)))
    }
    (tmp_path / "w").write_bytes(flax_msgpack.pack(trees))
    bias = flat["score_model/conv_in/bias"]
    last, average = load(tmp_path, which="params"), load(tmp_path)
    assert np.array_equal(last.heads.network.conv_in.bias.detach(), bias + np.float32(1))
    assert np.array_equal(average.heads.network.conv_in.bias.detach(), bias + np.float32(2))


def test_multi_resolution_height(tmp_path):
    """The encoder's levels come from the weights; a height that would give others is refused."""
    inner = network("unet_mult_res", n_layer=4, pooling=True)
    config = configuration(encoder={"nn_config": inner})
    model = build(read_options(config), 1, (2, 2))
    jax_checkpoints.save(model, tmp_path / "c.json", tmp_path / "w")
    assert load(tmp_path, image_shape=(1, 28, 28)).encoder.network.body.blocks == 2
    with pytest.raises(ValueError, match="image_shape"):
        load(tmp_path, image_shape=(1, 16, 16))
    (tmp_path / "c.json").write_text(
        json.dumps(configuration(encoder={"nn_config": inner | {"n_layer": 3}}))
    )
    with pytest.raises(ValueError, match="n_layer=3"):
        load(tmp_path)


class Custom(dc.NonTrainableEncoder):
    pass


def variants():
    unet = functools.partial(dc.networks.ScoreUNet, 1, groups=16)

    def model(schedule=None, encoder=None, heads=None, decoder=None):
        return dc.DiffEnc(
            schedule or dc.LinearSchedule(),
            encoder or dc.NonTrainableEncoder(),
            heads or dc.Single(unet()),
            decoder or dc.Levels(256),
        )

    yield "decoder Reals", model(decoder=dc.Reals())
    yield "predicts", model(heads=dc.Single(unet(), predicts="x"))
    yield "heads Paired", model(heads=dc.Paired(unet(out_channels=2)))
    yield "heads Separate", model(heads=dc.Separate(unet(), unet()))
    yield "Custom", model(encoder=Custom())
    yield "Monotone", model(dc.MonotoneSchedule())
    yield "weight", model(dc.PolynomialSchedule(weight=0.5))
    yield "MLP", model(heads=dc.Single(dc.networks.MLP(4)))
    yield "MLP", model(encoder=dc.TrainableEncoder(dc.networks.MLP(4)))
    yield "groups", model(heads=dc.Single(unet(block_groups=8)))
    yield "gamma", model(dc.LinearSchedule(-12.0, 5.0))
    yield "float64", model().double()


@pytest.mark.parametrize(("message", "model"), list(variants()))
def test_save_refuses_what_the_format_cannot_hold(tmp_path, message, model):
    with pytest.raises(ValueError, match=message):
        jax_checkpoints.save(model, tmp_path / "c.json", tmp_path / "w")
    assert not list(tmp_path.iterdir())


def test_a_failed_save_loses_nothing(tmp_path):
    write_example(tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(OSError):
        jax_checkpoints.save(example()[1], tmp_path / "c.json", tmp_path / "absent" / "w")
    with pytest.raises(OSError):
        jax_checkpoints.save(example()[1], tmp_path / "absent" / "c.json", tmp_path / "w2")
    assert {
        path.name: path.read_bytes() for path in tmp_path.iterdir() if path.name != "w2"
    } == before


def test_a_head_fitted_to_an_authors_checkpoint_leaves_its_elbo_alone(tmp_path):
    """Their weights, a head of ours: separate, fitted, and every term at eta = 1 as before."""
    write_example(tmp_path)
    model = load(tmp_path)
    x = torch.randint(0, 256, (6, 2, 8, 8), generator=torch.Generator().manual_seed(0))
    fitted = dc.fit_head(
        model, x, dc.HeadFitting(steps=3, batch_size=4), generator=torch.Generator().manual_seed(1)
    ).model
    assert isinstance(fitted.heads, dc.Separate) and isinstance(model.heads, dc.Single)
    before, after = (
        dc.elbo(m, x, generator=torch.Generator().manual_seed(2)) for m in (model, fitted)
    )
    torch.testing.assert_close(after.total, before.total, rtol=1e-5, atol=0)
    z, gamma = torch.randn(2, 2, 8, 8), torch.zeros(2)
    assert not torch.equal(fitted.predict(z, gamma).x_hat, model.predict(z, gamma).x_hat)
