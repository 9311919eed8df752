"""Names, shapes and layouts of the authors' parameters."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from diffenc_ct.adapters.jax import flax_msgpack
from diffenc_ct.adapters.jax import parameters as jax_parameters
from tests.jax_examples import PATH, load, rewrite, write_example


def test_names_and_shapes_of_parameters(tmp_path):
    """A sample of the names that Flax gives the authors' modules, with Flax's shapes."""
    write_example(tmp_path)
    state = flax_msgpack.unpack((tmp_path / "w").read_bytes())
    shapes = {
        path: array.shape for path, array in flax_msgpack.flatten(state["ema_params"]).items()
    }
    inner = "encdec/inner_encoder"
    expected = {
        "gamma/w": (1,),
        "gamma/b": (1,),
        "score_model/TimeEmbedding_0/dense0/kernel": (33, 128),
        "score_model/GroupNorm_0/scale": (32,),
        "score_model/conv_in/kernel": (3, 3, 10, 32),
        "score_model/UNet_0/down_blocks_0/down_conv/kernel": (2, 2, 32, 32),
        "score_model/UNet_0/up_blocks_0/up_0_resnet_block/nin_shortcut/kernel": (64, 32),
        f"{inner}/time_embedding/dense1/bias": (128,),
        f"{inner}/conv_out/kernel": (3, 3, 32, 2),
        f"{inner}/enc_model/down_blocks_0/down_0_resnet_block0/cond_proj/kernel": (128, 32),
        f"{inner}/enc_model/mid_attn_1/proj_out/kernel": (32, 32),
        f"{inner}/enc_model/up_blocks_0/conv_trans/kernel": (2, 2, 32, 32),
    }
    assert {path: shapes.get(path) for path in expected} == expected


def test_layouts_by_definition():
    """Flax's layers written out as sums, against ours on the converted kernels."""
    torch.manual_seed(0)
    x = torch.randn(2, 3, 4, 5)
    kernel = torch.randn(2, 2, 3, 4)
    grown = torch.zeros(2, 4, 8, 10)
    for a in range(2):
        for b in range(2):
            grown[:, :, a::2, b::2] = torch.einsum("bchw,cd->bdhw", x, kernel[1 - a, 1 - b])
    ours = jax_parameters.TRANSPOSED.to_ours(kernel)
    torch.testing.assert_close(F.conv_transpose2d(x, ours, stride=2), grown)
    shrunk = sum(
        torch.einsum("bchw,cd->bdhw", x[:, :, a : a + 3, b : b + 4], kernel[a, b])
        for a in range(2)
        for b in range(2)
    )
    torch.testing.assert_close(F.conv2d(x, jax_parameters.CONVOLUTION.to_ours(kernel)), shrunk)
    dense = torch.randn(3, 4)
    product = torch.einsum("bchw,cd->bdhw", x, dense)
    torch.testing.assert_close(F.conv2d(x, jax_parameters.SHORTCUT.to_ours(dense)), product)
    torch.testing.assert_close(
        F.linear(x[:, :, 0, 0], jax_parameters.DENSE.to_ours(dense)), product[:, :, 0, 0]
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda flat: flat.pop(PATH), f"{PATH} is missing"),
        (
            lambda flat: flat.update({"score_model/more": np.zeros(1, np.float32)}),
            "score_model/more is left over",
        ),
        (lambda flat: flat.update({PATH: flat[PATH][:1]}), rf"{PATH} has shape \(1, 3, 32, 32\)"),
        (
            lambda flat: flat.update({PATH: flat[PATH].astype(np.float16)}),
            f"{PATH} has dtype float16",
        ),
        (lambda flat: flat.update({PATH: 3}), f"{PATH} is a int"),
        (lambda flat: flat.pop("score_model/conv_out/kernel"), "conv_out/kernel is missing"),
        (
            lambda flat: [flat.pop(path) for path in list(flat) if "resnet_block0" in path],
            "down_0_resnet_block0 is missing",
        ),
    ],
)
def test_parameters_are_refused_by_path(tmp_path, change, message):
    write_example(tmp_path)
    rewrite(tmp_path, change)
    with pytest.raises(ValueError, match=message):
        load(tmp_path)
