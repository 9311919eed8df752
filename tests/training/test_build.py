"""The models that configurations build: presets, plug-ins, and parts that do not fit."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import diffenc_ct as dc
from diffenc_ct.encoders import ResidualEncoder
from diffenc_ct.model import MixturePosterior, Posterior
from diffenc_ct.networks.blocks import fourier_features
from diffenc_ct.training.build import build_model_for
from diffenc_ct.training.config import (
    Config,
    replace,
)
from diffenc_ct.training.presets import PRESETS, preset


@pytest.mark.parametrize("name", PRESETS)
def test_presets_build_on_their_own_shapes(name):
    config = preset(name)
    shape = {"digits": (1, 8, 8), "mnist": (1, 28, 28)}.get(config.data.name, (3, 32, 32))
    authors = config.network.kind == "score-unet"
    less = {"width": 32} | ({"layers": 1} if authors else {})
    smaller = {"network.options": config.network.options | less}
    if config.encoder.network.options:
        smaller["encoder.network.options"] = config.encoder.network.options | {"width": 32}
    model = build_model_for(replace(config, smaller), shape, 256)
    assert isinstance(model.heads, dc.Single if authors else Posterior)
    kinds = {"vdm": dc.IdentityEncoder, "nt": dc.NonTrainableEncoder}
    learned = dc.TrainableEncoder if authors else ResidualEncoder
    assert isinstance(model.encoder, kinds.get(name.rpartition("-")[2], learned))
    assert Config.from_dict(config.to_dict()) == config


# Layers, width, layers of the encoder, batch, steps.
PAPER = {
    "mnist": (8, 128, 2, 128, 800_000),
    "cifar10": (32, 128, 4, 128, 1_000_000),
    "imagenet32": (32, 256, 8, 256, 1_000_000),
}
# Width, halvings, batch, steps, patch.
SMALL = {
    "digits": (32, 1, 64, 1500, None),
    "mnist-small": (32, 2, 32, 6000, None),
    "photographs": (48, 2, 32, 6000, 16),
}


@pytest.mark.parametrize("name", PRESETS)
def test_presets_have_the_sizes_that_tables_were_made_with(name):
    config, family = preset(name), name.rpartition("-")[0] or name
    of_encoder = config.encoder.network.options
    training = (config.training.batch_size, config.training.steps)
    if family in PAPER:
        layers, width, encoder_layers, *rest = PAPER[family]
        assert config.network.options == {"layers": layers, "width": width}
        assert config.network.kind == "score-unet" and config.model.prediction == "v"
        if name.endswith("diffenc"):
            assert of_encoder == {"width": 64, "layers": encoder_layers, "groups": 16}
        assert training == tuple(rest)
    else:
        width, halvings, *rest, patch = SMALL[family]
        assert config.network.options == {"width": width, "halvings": halvings}
        assert config.network.kind == "unet"
        if config.encoder.kind == "residual":
            assert of_encoder == {"width": width // 2, "halvings": halvings}
        assert training == tuple(rest) and config.data.patch == patch
    assert config.training.depths == (
        "importance" if family == "photographs" else "low-discrepancy"
    )


def test_small_models_differ_in_encoder_and_outputs_only():
    """DiffEnc's heads are paired, for its flow: more outputs of the same network."""
    for name, shape in (("mnist-small", (1, 28, 28)), ("photographs", (3, 16, 16))):
        vdm, diffenc = (preset(f"{name}-{kind}") for kind in ("vdm", "diffenc"))
        alike = {"encoder": vdm.encoder.model_dump(), "model.heads": "single"}
        assert replace(diffenc, alike) == vdm
        first, second = (build_model_for(config, shape, 256).heads for config in (vdm, diffenc))
        pairs = zip(first.parameters(), second.parameters(), strict=True)
        others = [(a, b) for a, b in pairs if a.shape != b.shape]
        assert len(others) == 2  # weight and bias of the last layer
        assert all(a.shape[1:] == b.shape[1:] and len(a) < len(b) for a, b in others)


class Plug(nn.Module):
    def __init__(self, shape, gamma_range, *, gain=1.0):
        super().__init__()
        self.shape, self.gamma_range = shape, gamma_range
        self.gain = nn.Parameter(torch.tensor(gain))

    def forward(self, z, gamma):
        return self.gain * z


class PlugSchedule(dc.LinearSchedule):
    def __init__(self, *, top=3.0):
        super().__init__(-5.0, top)


class PlugEncoder(dc.NonTrainableEncoder):
    pass


def plugged(**settings):
    values = {
        "network.kind": f"{__name__}:Plug",
        "encoder.kind": f"{__name__}:PlugEncoder",
        "schedule.kind": f"{__name__}:PlugSchedule",
    }
    return replace(Config(), values | settings)


def test_plug_ins_get_options_and_the_facts_they_ask_for():
    model = build_model_for(plugged(**{"network.options": {"gain": 2.0}}), (4,), 17)
    network = model.heads.network
    assert isinstance(network, Plug) and isinstance(model.encoder, PlugEncoder)
    assert network.shape == (4,) and network.gamma_range == (-5.0, 3.0)
    assert network.gain.item() == 2.0 and model.decoder == dc.Levels(17)
    higher = build_model_for(plugged(**{"schedule.options": {"top": 4.0}}), (4,), 17)
    assert higher.heads.network.gamma_range == (-5.0, 4.0)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"network.options": {"gian": 2.0}}, ["'gian'", "did you mean 'gain'"]),
        ({"network.kind": "ml"}, ["unknown network 'ml'", "'mlp'"]),
        ({"network.kind": "no_such_module:Net"}, ["cannot be imported"]),
        ({"network.kind": f"{__name__}:PRESETS"}, ["cannot be imported", "no class"]),
        ({"network.kind": "score-unet"}, ["needs channels"]),
        ({"encoder.kind": f"{__name__}:Plug"}, ["no Encoder"]),
        ({"schedule.kind": "linaer"}, ["unknown schedule", "'linear'"]),
        (
            {"schedule.kind": "linear", "schedule.options": {"gamma_min": 9.0}},
            ["schedule 'linear'"],
        ),
        ({"encoder.network.kind": "mlp"}, ["encoder.network", "remove it"]),
    ],
)
def test_impossible_parts_are_refused(settings, words):
    with pytest.raises(ValueError) as error:
        build_model_for(plugged(**settings), (4,), 17)
    for word in words:
        assert word in str(error.value)


@pytest.mark.parametrize(("levels", "start"), [(256, -13.3), (17, -7.9), (None, -13.3)])
def test_schedules_start_where_the_levels_are_told_apart(levels, start):
    zero = torch.zeros(1)
    assert build_model_for(Config(), (2,), levels).schedule(zero).gamma.item() == pytest.approx(
        start
    )
    given = replace(Config(), {"schedule.options": {"gamma_min": -9.0}})
    assert build_model_for(given, (2,), levels).schedule(zero).gamma.item() == pytest.approx(-9)


@pytest.mark.parametrize("shape", [(3,), (2, 8, 8)])
@pytest.mark.parametrize("heads", ["single", "paired"])
@pytest.mark.parametrize("prediction", ["posterior", "v"])
def test_automatic_networks_fit_data_and_heads(shape, heads, prediction):
    config = replace(Config(), {"model.heads": heads, "model.prediction": prediction})
    model = build_model_for(config, shape, None)
    z = torch.randn(2, *shape)
    plain = dc.Paired if heads == "paired" else dc.Single
    assert isinstance(model.heads, MixturePosterior if prediction == "posterior" else plain)
    assert model.heads.tells_apart == (heads == "paired")
    assert model.decoder == dc.Reals()
    predicted = model.predict(z, torch.tensor([-3.0, 1.0]))
    assert predicted.x_hat.shape == predicted.r_hat.shape == z.shape
    assert model.encoder(z, torch.tensor([-3.0, 1.0])).value.shape == z.shape


@pytest.mark.parametrize("levels", [1024, 1025, 65_536])
def test_very_many_levels_have_mixtures(levels):
    """A categorical over 65,536 levels would be a table of that width a value."""
    model = build_model_for(Config(), (3,), levels)
    assert isinstance(model.heads, Posterior if levels == 1024 else MixturePosterior)
    assert model(torch.randint(0, levels, (4, 3))).total.isfinite().all()


def test_weights_come_from_the_seed_alone():
    def weights(seed):
        torch.manual_seed(torch.seed() % 1000)
        model = build_model_for(replace(Config(), {"training.seed": seed}), (3,), None)
        return torch.cat([p.flatten() for p in model.parameters()])

    assert torch.equal(weights(1), weights(1))
    assert not torch.equal(weights(1), weights(2))


@given(st.integers(2, 300))
def test_fourier_features_repeat_from_level_to_level(levels):
    authors = replace(Config(), {"network.kind": "score-unet", "model.prediction": "v"})
    network = build_model_for(authors, (1, 8, 8), levels).heads.network
    k = torch.arange(levels, dtype=torch.float64)[:, None]
    x = 2 * (k + 0.5) / levels - 1
    slow_sin, fast_sin, slow_cos, fast_cos = fourier_features(x * network.fourier_scale, 6, 8).T
    # One period a level for the fast pair; half a period for the slow one, which flips sign.
    for fast in (fast_sin, fast_cos):
        assert torch.allclose(fast, fast[:1].expand_as(fast), atol=1e-9)
    for slow in (slow_sin, slow_cos):
        assert torch.allclose(slow[1:], -slow[:-1], atol=1e-9)


@pytest.mark.parametrize("prediction", ["posterior", "v"])
def test_features_are_for_heads(prediction):
    """Their networks see z and 15 pairs of features, an encoder's the data alone, in one go with their rate."""
    network = {"kind": "unet", "options": {"width": 8, "halvings": 1}}
    config = Config.from_dict(
        {
            "data": {"name": "digits"},
            "encoder": {"kind": "residual", "network": network},
            "network": network,
            "model": {"prediction": prediction},
        }
    )
    model = build_model_for(config, (1, 8, 8), 17)
    assert model.heads.network.conv_in.in_channels == 31
    assert model.encoder.network.conv_in.in_channels == 1 and model.encoder.network.takes_jets
