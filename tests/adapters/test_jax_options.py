"""The authors' configuration: every option read, refused by name, or documented as unread."""

import copy
import functools
import json
import math

import pytest

from diffenc_ct.adapters.jax.options import MODEL, UNREAD, read_options
from tests.jax_examples import example, load, write_example

REFUSED = [
    ("ddpm_type", "VDM"),
    ("vocab_size", 17),
    ("vocab_size", 256.0),
    ("sample_softmax", True),
    ("n_timesteps", -1),
    ("antithetic_time_sampling", 1),
    ("loss_parameterisation", "x_hat"),
    ("no_recon_loss", True),
    ("gamma_type", "learned"),
    ("gamma_min", 6.0),
    ("gamma_min", math.nan),
    ("gamma_max", True),
    ("score_model_config", None),
    ("score_model_config.m_type", "small"),
    ("score_model_config.n_embd", "32"),
    ("score_model_config.pooling", True),
    ("score_model_config.p_dropout", 1.5),
    ("score_model_config.channel_scaling", "triple"),
    ("encoder_config.enc_type", "nt"),
    ("encoder_config.vocab_size", 255),
    ("encoder_config.nn_config", None),
    ("encoder_config.nn_config.m_type", "unet_alt"),
    ("encoder_config.nn_config.n_layer", 0),
    ("encoder_config.nn_config.non_id_init", True),
    ("encoder_config.nn_config.kernel_init", "normal"),
    ("encoder_config.id_at_zero", True),
    ("encoder_config.init_var", 0.5),
    ("encoder_config.min_var", 0.5),
    ("encoder_config.use_x_var", True),
    ("encoder_config.end_half_reg", True),
    ("encoder_config.k", "1"),
]


def changed(path, value, *, remove=False):
    config = copy.deepcopy(example()[0])
    *parents, name = path.split(".")
    section = functools.reduce(dict.__getitem__, parents, config)
    if remove:
        del section[name]
    else:
        section[name] = value
    return config


@pytest.mark.parametrize(("path", "value"), REFUSED)
def test_options_are_refused_by_name(tmp_path, path, value):
    write_example(tmp_path)
    (tmp_path / "c.json").write_text(json.dumps(changed(path, value)))
    with pytest.raises(ValueError, match=path.rpartition(".")[2]):
        load(tmp_path)


def sections(options, prefix=""):
    for name, option in options.items():
        yield prefix + name, option
        if isinstance(option.of, dict):
            yield from sections(option.of, f"{prefix}{name}.")


@pytest.mark.parametrize(("path", "option"), list(sections(MODEL)))
def test_missing_and_unknown_options(path, option):
    """Every option but those with a default is needed; a misspelt one is named."""
    section, _, name = path.rpartition(".")
    if option.default is None:
        with pytest.raises(ValueError, match=f"{name} is missing"):
            read_options(changed(path, None, remove=True))
    with pytest.raises(ValueError, match=f"unknown option {path}_"):
        read_options(changed(f"{path}_", 1))
    with pytest.raises(ValueError, match=name):
        read_options(changed(path, []))


@pytest.mark.parametrize("content", ["", "[]", "{", '{"a": 1}', "1"])
def test_other_configurations_are_refused(tmp_path, content):
    write_example(tmp_path)
    (tmp_path / "c.json").write_text(content)
    with pytest.raises(ValueError, match="c.json: "):
        load(tmp_path)


def test_unread_options_change_nothing():
    """Values that nobody reads are accepted where they cannot matter, and each has its reason."""
    plain = read_options(example()[0])
    for path, value in (("n_timesteps", 1000), ("antithetic_time_sampling", False)):
        assert len(UNREAD[path]) > 20
        assert read_options(changed(path, value)) == plain | {path: value}
