"""The configuration tree: round trips, refusals by name, and the models that it builds."""

import dataclasses
import json

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import diffenc_ct as dc
from diffenc_ct.networks.blocks import fourier_features
from diffenc_ct.training.build import build_model_for
from diffenc_ct.training.config import (
    VERSION,
    Config,
    EncoderConfig,
    NetworkConfig,
    OptimizerConfig,
    ScheduleConfig,
    TrainingConfig,
    differences,
    load_config,
    replace,
)
from diffenc_ct.training.presets import PRESETS, preset
from diffenc_ct.training.settings import leaves

scalars = st.none() | st.booleans() | st.integers(-9, 9) | st.floats(-9, 9) | st.text(max_size=4)
options = st.dictionaries(st.text(min_size=1, max_size=4), scalars, max_size=3)
configs = st.builds(
    Config,
    schedule=st.builds(ScheduleConfig, kind=st.text(max_size=8), options=options),
    encoder=st.builds(
        EncoderConfig, options=options, network=st.builds(NetworkConfig, options=options)
    ),
    optimizer=st.builds(
        OptimizerConfig,
        learning_rate=st.floats(1e-6, 1),
        clip=st.none() | st.floats(0.1, 9),
        ema=st.lists(st.floats(0, 0.99999), min_size=1, max_size=3, unique=True).map(tuple),
    ),
    training=st.builds(
        TrainingConfig,
        steps=st.integers(1, 99),
        noise_level=st.just("tight") | st.floats(0.1, 2),
        channels_last=st.booleans(),
    ),
)


@given(configs)
def test_json_round_trip(config):
    again = Config.from_dict(json.loads(config.to_json()))
    assert again == config
    assert not differences(config, again)


def test_toml_and_json_files_agree(tmp_path):
    toml, plain = tmp_path / "a.toml", tmp_path / "a.json"
    toml.write_text('[training]\nsteps = 7\n[network]\nkind = "mlp"\noptions = { width = 8 }\n')
    plain.write_text(
        '{"training": {"steps": 7}, "network": {"kind": "mlp", "options": {"width": 8}}}'
    )
    assert load_config(toml) == load_config(plain)
    assert load_config(toml).training.steps == 7
    assert load_config(toml).network.options == {"width": 8}


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"optimiser": {}}, ["'optimiser'", "did you mean 'optimizer'"]),
        ({"training": {"batchsize": 3}}, ["'batchsize'", "did you mean 'batch_size'"]),
        ({"version": VERSION + 1}, [f"version {VERSION + 1}", f"reads version {VERSION}"]),
        ({"training": {"steps": "many"}}, ["steps", "'many'", "an integer"]),
        ({"training": {"steps": True}}, ["steps", "an integer"]),
        ({"training": {"steps": 0}}, ["training.steps", "at least 1"]),
        ({"training": {"noise_level": "loose"}}, ["noise_level", "a number or 'tight'"]),
        ({"training": {"accumulate": 3}}, ["training.accumulate", "divisor"]),
        ({"model": {"prediction": "w"}}, ["prediction", "'v' or 'x' or 'eps'"]),
        ({"optimizer": {"ema": [0.9, 0.9]}}, ["optimizer.ema", "differ"]),
        ({"optimizer": {"ema": [1.0]}}, ["optimizer.ema", "[0, 1)"]),
        ({"training": 3}, ["training", "table"]),
    ],
)
def test_refusals_name_key_and_remedy(values, words):
    with pytest.raises(ValueError) as error:
        Config.from_dict(values)
    for word in words:
        assert word in str(error.value)


def test_only_what_changes_the_numbers_counts_as_a_difference():
    old = Config()
    assert not differences(old, replace(old, {"training.steps": 5, "training.keep": 9}))
    assert differences(old, replace(old, {"training.seed": 5})) == ["training.seed: 1 -> 5"]
    cosine = replace(old, {"optimizer.decay": "cosine"})
    assert differences(cosine, replace(cosine, {"training.steps": 5})) != []


def test_every_setting_has_a_help_text():
    for name, (item, _) in leaves(Config).items():
        assert item.metadata.get("help"), name


@pytest.mark.parametrize("name", PRESETS)
def test_presets_build_on_their_own_shapes(name):
    config = preset(name)
    shape = {"digits": (1, 8, 8), "mnist": (1, 28, 28)}.get(config.data.name, (3, 32, 32))
    smaller = {"network.options": config.network.options | {"layers": 1, "width": 32}}
    if config.encoder.kind == "trainable":
        smaller["encoder.network.options"] = config.encoder.network.options | {"width": 32}
    model = build_model_for(replace(config, smaller), shape, 256)
    kinds = {"vdm": dc.IdentityEncoder, "nt": dc.NonTrainableEncoder}
    assert isinstance(model.encoder, kinds.get(name.rpartition("-")[2], dc.TrainableEncoder))
    assert Config.from_dict(config.to_dict()) == config


def test_small_mnist_models_have_the_reference_sizes():
    count = {
        kind: sum(
            p.numel()
            for p in build_model_for(preset(f"mnist-small-{kind}"), (1, 28, 28), 256).parameters()
        )
        for kind in ("vdm", "nt", "diffenc")
    }
    assert count["vdm"] == count["nt"] == 220_097
    assert count["diffenc"] > count["vdm"]


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
    assert isinstance(model.network, Plug) and isinstance(model.encoder, PlugEncoder)
    assert model.network.shape == (4,) and model.network.gamma_range == (-5.0, 3.0)
    assert model.network.gain.item() == 2.0 and model.levels == 17
    higher = build_model_for(plugged(**{"schedule.options": {"top": 4.0}}), (4,), 17)
    assert higher.network.gamma_range == (-5.0, 4.0)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"network.options": {"gian": 2.0}}, ["'gian'", "did you mean 'gain'"]),
        ({"network.kind": "ml"}, ["unknown network 'ml'", "'mlp'"]),
        ({"network.kind": "no_such_module:Net"}, ["cannot be imported"]),
        ({"network.kind": f"{__name__}:VERSION"}, ["cannot be imported", "no class"]),
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
def test_automatic_networks_fit_data_and_heads(shape, heads):
    config = replace(Config(), {"model.heads": heads})
    model = build_model_for(config, shape, None)
    z = torch.randn(2, *shape)
    predicted = model.predict(z, torch.tensor([-3.0, 1.0]))
    assert predicted.x_hat.shape == predicted.r_hat.shape == z.shape
    assert model.encoder(z, torch.tensor([-3.0, 1.0])).value.shape == z.shape


def test_weights_come_from_the_seed_alone():
    def weights(seed):
        torch.manual_seed(torch.seed() % 1000)
        model = build_model_for(replace(Config(), {"training.seed": seed}), (3,), None)
        return torch.cat([p.flatten() for p in model.parameters()])

    assert torch.equal(weights(1), weights(1))
    assert not torch.equal(weights(1), weights(2))


def test_fields_are_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Config().training.steps = 3


@given(st.integers(2, 300))
def test_fourier_features_repeat_from_level_to_level(levels):
    network = build_model_for(preset("digits"), (1, 8, 8), levels).network
    k = torch.arange(levels, dtype=torch.float64)[:, None]
    x = 2 * (k + 0.5) / levels - 1
    slow_sin, fast_sin, slow_cos, fast_cos = fourier_features(x * network.fourier_scale, 6, 8).T
    # One period a level for the fast pair; half a period for the slow one, which flips sign.
    for fast in (fast_sin, fast_cos):
        assert torch.allclose(fast, fast[:1].expand_as(fast), atol=1e-9)
    for slow in (slow_sin, slow_cos):
        assert torch.allclose(slow[1:], -slow[:-1], atol=1e-9)
