"""Features that the noise lets be seen, and the embedding of a depth that changes slowly."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from diffenc_ct.networks import Jet
from diffenc_ct.networks.blocks import fourier_features
from diffenc_ct.networks.features import SmoothDepthEmbedding, noise_aware_features
from tests.strategies import close, generator, normal, randomise, seeds

F64 = torch.float64


def alpha_of(gamma):
    return 1 / (1 + gamma.exp()).sqrt()


@given(
    seeds,
    st.integers(0, 6),
    st.integers(1, 3),
    st.sampled_from([1, 0.5]),
    st.integers(1, 3),
    st.floats(-14, 6),
)
def test_they_are_averages_over_what_the_noise_hides(seed, start, octaves, step, channels, gamma):
    """E sin(w x), E cos(w x) over x ~ N(z/alpha, e^gamma), by quadrature, channel by channel, octave by octave."""
    z = normal(seed, 2, channels, 2, 1)
    depths = torch.tensor([gamma, gamma - 1], dtype=F64)
    scale = 0.3
    end = start + octaves * step
    found = noise_aware_features(z, depths, (start, end, step), scale)
    eps = torch.arange(-9, 9, 0.002, dtype=F64)
    of_eps = 0.002 * torch.exp(-(eps**2) / 2) / math.sqrt(2 * math.pi)
    column = (2, 1, 1)
    for trig, block in zip((torch.sin, torch.cos), found.chunk(2, dim=1), strict=True):
        for c in range(channels):
            for k in range(octaves):
                w = 2 * math.pi * 2 ** (start + k * step) * scale
                if w * math.exp(gamma / 2) > 500:
                    continue  # more turns than the quadrature sees; the feature is 0, see below
                mean = z[:, c] / alpha_of(depths).view(column)
                x = mean[..., None] + (depths / 2).exp().view(*column, 1) * eps
                close(block[:, c * octaves + k], trig(w * x) @ of_eps, 1e-7)


@given(seeds)
def test_beside_no_noise_they_are_plain_and_in_noise_silent(seed):
    z = normal(seed, 2, 3, 2, 2)
    near = noise_aware_features(z, torch.full((2,), -40.0, dtype=F64), (6, 8))
    close(near, fourier_features(z, 6, 8), 1e-6)
    for gamma in (-2.0, 0.0, 20.0):
        assert (
            noise_aware_features(z, torch.full((2,), gamma, dtype=F64), (6, 8)).abs().max() < 1e-9
        )
    halves = noise_aware_features(z, torch.full((2,), -40.0, dtype=F64), (6, 8), 0.5)
    close(halves, fourier_features(z / 2, 6, 8), 1e-6)


def test_the_highest_is_that_of_the_lattice():
    """Every level of V looks the same to the last octave if scale = V/256, and its neighbours opposite to the last but
    one: 256 levels, and 32."""
    for levels in (256, 32):
        x = (2 * (torch.arange(levels, dtype=F64) + 0.5) / levels - 1).view(1, 1, -1)
        found = noise_aware_features(x, torch.tensor([-60.0], dtype=F64), (6, 8), levels / 256)[0]
        sine6, sine7, cosine6, cosine7 = found
        assert sine7.std() < 1e-6 and cosine7.std() < 1e-6
        alternating = torch.tensor([1.0, -1.0], dtype=F64).repeat(levels // 2)
        for feature in (sine6, cosine6):
            close(feature, feature[0] * alternating, 1e-6)
        assert max(abs(sine6[0]), abs(cosine6[0])) > 0.5


def test_they_are_finite_in_float32():
    z = normal(1, 6, 1, 4, dtype=torch.float32)
    gamma = torch.tensor([-20.0, -13.3, -5.0, 0.0, 5.0, 20.0])
    found = noise_aware_features(z, gamma, (6, 8))
    assert found.dtype == torch.float32 and found.isfinite().all()


@given(st.floats(-15, 8), st.integers(1, 9), seeds)
def test_the_embedding(gamma, frequencies, seed):
    """u and cos(pi j u), then two dense layers; a jet of gamma carries the derivative."""
    embed = SmoothDepthEmbedding(2, (-13.3, 5.0), frequencies=frequencies)
    randomise(embed, seed)
    seen = []
    embed.dense0.register_forward_pre_hook(lambda _, arguments: seen.append(arguments[0]))
    depth = torch.tensor([gamma, -3.0], dtype=F64)
    out = embed(depth)
    u = (gamma + 13.3) / 18.3
    waves = [u] + [math.cos(math.pi * j * u) for j in range(1, frequencies + 1)]
    close(seen[0][0], torch.tensor(waves, dtype=F64), 1e-12)
    assert out.shape == (2, 8)
    jet = embed(Jet(depth, 3 * torch.ones_like(depth)))
    value, rate = torch.func.jvp(embed, (depth,), (3 * torch.ones_like(depth),))
    close(jet.value, value, 1e-12)
    close(jet.rate, rate, 1e-12)


def test_the_embedding_is_as_slow_as_its_frequencies():
    """Between two depths a hundredth of the range apart it moves little, where the authors' embedding moves much."""
    from diffenc_ct.networks.blocks import DepthEmbedding

    gamma = torch.tensor([-4.0, -4.0 + 0.183], dtype=F64)
    seen = {}
    for embed in (
        SmoothDepthEmbedding(16, (-13.3, 5.0)).double(),
        DepthEmbedding(16, (-13.3, 5.0)).double(),
    ):
        embed.dense0.register_forward_pre_hook(lambda module, a: seen.update({module: a[0]}))
        embed(gamma)
    smooth, authors = (float(a.diff(dim=0).norm() / a[0].norm()) for a in seen.values())
    assert smooth < 0.25 and authors > 0.8


@pytest.mark.parametrize("dtype", [torch.float32, F64])
def test_types(dtype):
    z = torch.randn(2, 1, 4, 4, dtype=dtype, generator=generator(0))
    assert noise_aware_features(z, z[:, 0, 0, 0], (6, 8)).dtype == dtype
    embed = SmoothDepthEmbedding(2, (-13.3, 5.0)).to(dtype)
    assert embed(z[:, 0, 0, 0]).dtype == dtype
