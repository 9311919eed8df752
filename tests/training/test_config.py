"""The configuration tree: round trips, and refusals by name."""

import json
import typing
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

import diffenc_ct as dc
from diffenc_ct.training.build import build_model_for
from diffenc_ct.training.changes import differences, refused
from diffenc_ct.training.config import (
    VERSION,
    Config,
    EncoderConfig,
    NetworkConfig,
    OptimizerConfig,
    ScheduleConfig,
    TrainingConfig,
    load_config,
    replace,
)
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
        ({"training": {"batchsize": 3}}, ["'training.batchsize'", "did you mean 'batch_size'"]),
        ({"version": VERSION + 1}, [f"version {VERSION + 1}", f"reads version {VERSION}"]),
        ({"training": {"steps": "many"}}, ["training.steps", "'many'", "a valid integer"]),
        ({"training": {"steps": True}}, ["training.steps", "a valid integer"]),
        ({"training": {"steps": 0}}, ["training.steps = 0", "greater than 0"]),
        (
            {"training": {"noise_level": "loose"}},
            ["noise_level", "a valid number or 'tight' or 'optimal'"],
        ),
        (
            {"training": {"accumulate": 3}},
            ["training.accumulate = 3", "must divide training.batch_size"],
        ),
        ({"model": {"prediction": "w"}}, ["prediction", "'posterior', 'v', 'x' or 'eps'"]),
        ({"optimizer": {"ema": [0.9, 0.9]}}, ["optimizer.ema", "differ"]),
        ({"optimizer": {"ema": [1.0]}}, ["optimizer.ema.0 = 1.0", "less than 1"]),
        ({"training": 3}, ["training = 3", "a valid dictionary"]),
        ({"optimizer": {"clip": 0}}, ["optimizer.clip = 0", "greater than 0 or none"]),
        ({"optimizer": {"ema": []}}, ["optimizer.ema = []", "at least 1 item"]),
        ({"training": {"noise_level": float("nan")}}, ["training.noise_level = nan", "or 'tight'"]),
        ({"training": {"steps": 3.0}}, ["training.steps = 3.0", "a valid integer"]),
        ({"training": {"ends_fraction": 1.5}}, ["training.ends_fraction = 1.5", "equal to 1"]),
        ({"network": {"options": {"width": [8]}}}, ["network.options.width = [8]", "integer"]),
        ({"encoder": {"network": {"knd": "mlp"}}}, ["'encoder.network.knd'", "mean 'kind'"]),
        ({"wings": 2}, ["'wings'", "known are data, schedule, encoder"]),
        ({"optimizer": {"learning_rate": float("inf")}}, ["learning_rate = inf", "finite number"]),
        ({"optimizer": {"learning_rate": 1e-300}}, ["learning_rate = 1e-300", "1e-38"]),
        ({"optimizer": {"learning_rate": 1e38}}, ["learning_rate = 1e+38", "less than 1e38"]),
        ({"optimizer": {"learning_rate": 1e-38}}, ["learning_rate = 1e-38", "greater than 1e-38"]),
        ({"optimizer": {"epsilon": 0}}, ["optimizer.epsilon = 0", "greater than 1e-38"]),
        ({"optimizer": {"epsilon": 1e-300}}, ["optimizer.epsilon = 1e-300", "1e-38"]),
        ({"optimizer": {"beta1": 1}}, ["optimizer.beta1 = 1", "less than 1"]),
        ({"optimizer": {"beta2": -0.1}}, ["optimizer.beta2 = -0.1", "greater than or equal to 0"]),
        ({"optimizer": {"weight_decay": -1}}, ["weight_decay = -1", "greater than or equal to 0"]),
        ({"training": {"noise_level": 1e30}}, ["training.noise_level = 1e+30", "1000000"]),
        ({"training": {"seed": -1}}, ["training.seed = -1", "greater than or equal to 0"]),
        ({"training": {"seed": 2**63}}, ["training.seed", "less than"]),
    ],
)
def test_refusals_name_key_and_remedy(values, words):
    with pytest.raises(ValueError) as error:
        Config.from_dict(values)
    for word in words:
        assert word in str(error.value)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=4,
)  # fmt: skip


@given(
    st.sampled_from([*leaves(Config), "training", "network", "wings", "data.wings"]), json_values
)
def test_anything_is_read_or_refused_in_one_line_that_names_it(name, value):
    try:
        config = replace(Config(), {name: value})
    except ValueError as error:
        assert name in str(error) and "\n" not in str(error)
    else:
        assert Config.from_dict(json.loads(config.to_json())) == config


def test_refusals_name_the_file(tmp_path):
    path = tmp_path / "mine.toml"
    for text in ("[training]\nsteps = 0\n", "[training]\nstepps = 1\n", "version = 7\n", "[\n"):
        path.write_text(text)
        with pytest.raises(ValueError, match="mine.toml"):
            load_config(path)


WRITTEN_BY_0_1 = """
{"version": 1,
 "data": {"name": "mnist", "root": "/data", "levels": null, "download": false},
 "schedule": {"kind": "linear", "options": {"gamma_min": -13.3}},
 "encoder": {"kind": "trainable", "options": {},
             "network": {"kind": "encoder-unet", "options": {"width": 32, "layers": 2, "dropout": 0.0}}},
 "network": {"kind": "score-unet", "options": {"width": 32, "layers": 2, "dropout": 0.0}},
 "model": {"prediction": "v", "heads": "single"},
 "optimizer": {"learning_rate": 0.001, "beta1": 0.9, "beta2": 0.99, "epsilon": 1e-08, "weight_decay": 0.01,
               "warmup": 100, "decay": "cosine", "clip": 1.0, "ema": [0.99]},
 "training": {"steps": 1500, "batch_size": 64, "accumulate": 4, "seed": 1, "noise_level": 1.0, "ends_fraction": 0.125,
              "rate_fraction": 0.125, "precision": "float32", "compile": false, "channels_last": false,
              "on_nan": "stop", "log_every": 20, "eval_every": 500, "eval_examples": 512, "save_every": 250, "keep": 2,
              "tensorboard": false}}
"""


def test_configurations_written_by_0_1_are_read_as_they_were_meant(tmp_path):
    path = tmp_path / "config.json"
    path.write_text(WRITTEN_BY_0_1)
    config = load_config(path)
    assert config.optimizer.ema == (0.99,) and config.encoder.network.options["dropout"] == 0.0
    written = json.loads(config.to_json())
    for section, table in json.loads(WRITTEN_BY_0_1).items():
        if section != "version":
            assert written[section] | table == written[section], section
    for shipped in Path(dc.__file__).parent.glob("pretrained/*/config.json"):
        options = json.loads(shipped.read_text())["network"]["options"]
        assert load_config(shipped).network.options == options


@pytest.mark.parametrize("encoder", ["identity", "trainable"])
def test_what_a_configuration_of_0_1_left_out_is_the_authors(encoder):
    """Its "auto" networks were the authors', and v their prediction; those of today are others."""
    old = Config.from_dict({"version": 1, "encoder": {"kind": encoder}})
    model = build_model_for(old, (1, 8, 8), 17)
    assert (
        type(model.heads).__name__ == "Single" and type(model.heads.network).__name__ == "ScoreUNet"
    )
    if encoder == "trainable":
        assert type(model.encoder.network).__name__ == "EncoderUNet"
    new = build_model_for(Config.from_dict({"encoder": {"kind": encoder}}), (1, 8, 8), 17)
    assert type(new.heads).__name__ == "Posterior" and type(new.heads.network).__name__ == "UNet"
    assert type(build_model_for(old, (3,), 17).heads.network).__name__ == "MLP"


def kinds(annotation):
    """All types that an annotation is made of."""
    return {annotation}.union(*map(kinds, typing.get_args(annotation)))


numbers = [name for name, item in leaves(Config).items() if float in kinds(item.annotation)]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("name", numbers)
def test_no_number_is_other_than_finite(name, value):
    where = {"options": {"width": value}, "ema": [0.5, value]}
    given_ = next((held for end, held in where.items() if name.endswith(end)), value)
    with pytest.raises(ValueError, match="finite") as error:
        replace(Config(), {name: given_})
    assert name in str(error.value) and "\n" not in str(error.value)


def test_options_of_one_configuration_are_not_another_ones():
    Config().network.options["width"] = 3
    assert Config().network.options == NetworkConfig().options == {}


def test_of_two_faults_the_first_is_said():
    with pytest.raises(ValueError) as error:
        Config.from_dict({"training": {"steps": 0, "keep": 0}})
    assert str(error.value) == "configuration: training.steps = 0; input should be greater than 0"


FREE = {
    "data.root", "data.download", "optimizer.learning_rate", "optimizer.clip", "training.steps", "training.accumulate",
    "training.on_nan", "training.log_every", "training.eval_every", "training.eval_examples", "training.save_every",
    "training.keep", "training.tensorboard",
}  # fmt: skip


@given(configs, configs)
def test_what_may_change_on_resuming_is_a_list(old, new):
    """Everything that differs is named; what is not on the list is refused, and under a decaying rate the length."""
    changes = differences(old, new)
    assert (old == new) == (not changes)
    for name, (before, after) in changes.items():
        section, last = name.rsplit(".", 1)
        for config, value in ((old, before), (new, after)):
            found = config
            for part in section.split("."):
                found = getattr(found, part)
            assert getattr(found, last) == value
    assert set(refused(changes, new)) == set(changes) - FREE
    cosine = replace(new, {"optimizer.decay": "cosine"})
    late = replace(cosine, {"training.steps": new.training.steps + 1})
    assert set(refused(differences(cosine, late), late)) == {"training.steps"}


def test_every_setting_has_a_help_text():
    for name, item in leaves(Config).items():
        assert item.description, name


def test_fields_are_frozen():
    with pytest.raises(ValidationError, match="frozen"):
        Config().training.steps = 3
