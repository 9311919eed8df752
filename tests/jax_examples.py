"""Configurations and checkpoints in the authors' format, for the tests that need no reference files."""

import functools
import json

import torch
from hypothesis import strategies as st
from torch import nn

from diffenc_ct.adapters import jax as jax_checkpoints
from diffenc_ct.adapters.jax import flax_msgpack
from diffenc_ct.adapters.jax.models import build
from diffenc_ct.adapters.jax.options import read_options
from tests.strategies import seeds


def network(m_type="unet", **changes):
    plain = {
        "m_type": m_type,
        "with_fourier_features": True,
        "with_attention": False,
        "n_embd": 32,
        "n_layer": 1,
        "num_groups_groupnorm": 16,
        "p_dropout": 0.1,
        "down_conv": False,
        "pooling": False,
        "channel_scaling": "same",
        "non_id_init": False,
        "kernel_init": "",
    }
    return plain | changes


def configuration(ddpm_type="S3VA", score=None, encoder=None, **changes):
    trainable = ddpm_type == "S3VA"
    kinds = {"S3VA": "trainable", "S4V_NT": "nt"}
    plain = {
        "ddpm_type": ddpm_type,
        "vocab_size": 256,
        "sample_softmax": False,
        "n_timesteps": 0,
        "antithetic_time_sampling": True,
        "loss_parameterisation": "eps_hat",
        "no_recon_loss": False,
        "gamma_type": "fixed",
        "gamma_min": -13.3,
        "gamma_max": 5.0,
        "score_model_config": score or network(),
        "encoder_config": {
            "enc_type": kinds.get(ddpm_type, "simple"),
            "vocab_size": changes.get("vocab_size", 256),
            "nn_config": network(pooling=True) if trainable else None,
            "id_at_zero": False,
            "m1_to_1": trainable,
        }
        | (encoder or {}),
    }
    return plain | changes


@st.composite
def resolutions(draw):
    way = draw(st.sampled_from([{"pooling": True}, {"down_conv": True}, {}]))
    return way | {"channel_scaling": draw(st.sampled_from(["same", "double"]))}


@st.composite
def models(draw):
    """(configuration, model with random weights) over every implemented option."""
    kind = draw(st.sampled_from(["VDM2", "VDM2_V", "S4V_NT", "S3VA"]))
    common = {
        "n_layer": draw(st.integers(1, 2)),
        "num_groups_groupnorm": draw(st.sampled_from([4, 16, 32])),
        "p_dropout": draw(st.sampled_from([0, 0.25])),
    }
    score = network(
        draw(st.sampled_from(["unet", "unet_alt"])),
        with_fourier_features=draw(st.booleans()),
        with_attention=draw(st.booleans()),
        **common,
        **draw(resolutions()),
    )
    encoder, levels = {}, None
    if kind == "S3VA":
        m_type = draw(st.sampled_from(["unet", "vdm_unet", "unet_mult_res"]))
        inner = network(m_type, with_attention=draw(st.booleans()), **common, **draw(resolutions()))
        if m_type == "unet_mult_res":
            levels = (1, common["n_layer"])
        names = ("m1_to_1", "gamma_reg", "end_reg")
        encoder = {name: draw(st.booleans()) for name in names}
        encoder |= {"nn_config": inner, "k": draw(st.sampled_from([1.0, 0.5]))}
    config = configuration(
        kind,
        score,
        encoder,
        vocab_size=draw(st.sampled_from([2, 17, 256])),
        gamma_type=draw(st.sampled_from(["fixed", "train_scalar", "poly10"])),
        gamma_min=draw(st.sampled_from([-13.3, -8])),
    )
    torch.manual_seed(draw(seeds))
    model = build(read_options(config), draw(st.sampled_from([1, 3])), levels)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.3)
    return config, model.eval()


@functools.cache
def example():
    """(configuration, state as a tree of bytes) of a small trainable model, both bodies with all kinds of layer."""
    config = configuration(
        score=network("unet_alt", down_conv=True),
        encoder={"nn_config": network("unet_mult_res", pooling=True, channel_scaling="double")},
        gamma_type="train_scalar",
    )
    torch.manual_seed(0)
    return config, build(read_options(config), 2, (1, 1))


def write_example(folder):
    """The example as c.json and w in `folder`."""
    config, model = example()
    jax_checkpoints.save(model, folder / "c.json", folder / "w")
    (folder / "c.json").write_text(json.dumps(config))


def load(folder, **options):
    return jax_checkpoints.load(folder / "c.json", folder / "w", **options)


def rewrite(folder, change):
    """The checkpoint with change(flat averaged parameters) applied."""
    state = flax_msgpack.unpack((folder / "w").read_bytes())
    flat = {p: a.numpy() for p, a in flax_msgpack.flatten(state["ema_params"]).items()}
    change(flat)
    state = {"params": {}, "ema_params": flax_msgpack.nest(flat), "opt_state": {}, "step": 0}
    (folder / "w").write_bytes(flax_msgpack.pack(state))


PATH = "score_model/UNet_0/mid_resnet_1/conv1/kernel"
