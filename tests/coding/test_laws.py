"""What is pushed is popped, at the length that its probability says."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from diffenc_ct.coding.laws import Choices, Mixed, Normals, Parts
from diffenc_ct.coding.stack import Stack, initial_words
from diffenc_ct.process import Gaussian, Mixture
from tests.strategies import generator, normal, seeds


def bits(words):
    """log2 of the number that a stack's words are."""
    top = words[-3:].astype(float) @ 2.0 ** (32 * np.arange(len(words[-3:])))
    return 32 * max(0, len(words) - 3) + math.log2(top)


def pushed(law, k, seed=0):
    """Its length, after a check that it is popped again and leaves the stack as it was."""
    stack = Stack(seed)
    stack.pop(9, *_warm_up())
    before, dug = stack.words, stack.dug
    law.push(stack, k)
    after = stack.words
    assert np.array_equal(law.pop(stack), k)
    deeper = stack.dug - dug  # floor that was dug meanwhile lies below
    assert np.array_equal(stack.words[deeper:], before)
    return bits(after) - bits(before) - 32 * deeper


def _warm_up():
    import constriction

    return (constriction.stream.model.Uniform(7),)


def mass(k, mean, std, width):
    """-log2 of a Gaussian's mass between k - 1/2 and k + 1/2."""
    low, high = ((width * (k + half) - mean) / std for half in (-0.5, 0.5))
    return -torch.log2(torch.special.ndtr(high) - torch.special.ndtr(low))


@given(seeds, st.integers(1, 40), st.floats(1e-3, 3))
def test_gaussians(seed, n, width):
    mean, std = 5 * normal(seed, n), normal(seed + 1, n).exp()
    z = mean + std * normal(seed + 2, n).clamp(-3, 3)
    k = (z / width).round()
    length = pushed(Normals(Gaussian(mean, std), width), k.long().numpy())
    assert length == pytest.approx(float(mass(k, mean, std, width).sum()), abs=0.02 * n + 0.1)


@given(st.lists(st.integers(-(2**52), 2**52), min_size=1, max_size=9), seeds)
def test_any_integer_at_any_gaussian(k, seed):
    """Far from the mean by more than any symbol of its own: an escape and the bytes of the rest."""
    mean, std = normal(seed, len(k)), (3 * normal(seed + 1, len(k))).exp()
    assert pushed(Normals(Gaussian(mean, std), 0.01), np.array(k)) < (24 + 4 + 64) * len(k) + 1


def test_the_ends_of_the_reach():
    law = Normals(Gaussian(torch.zeros(1).double(), torch.ones(1).double()), 0.25)
    for k in range(-300, 300):
        pushed(law, np.array([k]))


def test_draws_without_escape_stay_near_the_mean():
    mean, std = torch.tensor([1e3, -7.0]).double(), torch.tensor([0.1, 2.0]).double()
    law = Normals(Gaussian(mean, std), 0.05, escape=False)
    for seed in range(50):
        z = 0.05 * law.pop(Stack(seed))
        assert (np.abs(z - mean.numpy()) <= 17).all()


def test_popped_bits_are_draws():
    """Mean and deviation of what is popped from random bits."""
    mean, std = torch.full((20000,), 0.3).double(), torch.full((20000,), 0.7).double()
    z = 0.05 * Normals(Gaussian(mean, std), 0.05).pop(Stack(1))
    assert z.mean() == pytest.approx(0.3, abs=0.02) and z.std() == pytest.approx(0.7, abs=0.02)


@pytest.mark.parametrize("wrong", [math.nan, math.inf])
def test_numbers_that_are_not_finite(wrong):
    for mean, std in ((wrong, 1.0), (0.0, wrong), (0.0, -1.0), (1e30, 1.0)):
        law = Normals(Gaussian(torch.tensor([mean]).double(), torch.tensor([std]).double()), 0.1)
        with pytest.raises(ValueError, match="not finite and positive"):
            law.push(Stack(0), np.array([0]))


@given(seeds, st.integers(1, 20), st.sampled_from([1, 2, 3, 5, 16, 17, 256]))
def test_choices(seed, n, components):
    weights = 2 * normal(seed, n, components)
    k = torch.multinomial(weights.softmax(-1), 1, generator=generator(seed))[:, 0]
    length = pushed(Choices(weights), k.numpy())
    wanted = -weights.log_softmax(-1).gather(1, k[:, None]).sum() / math.log(2)
    assert length == pytest.approx(float(wanted), abs=0.02 * n + 0.1)


def test_a_choice_without_weight_can_be_made():
    weights = torch.full((4, 9), -math.inf).double()
    weights[:, 0] = 0
    assert 20 < pushed(Choices(weights), np.array([0, 1, 4, 8])) < 150


@given(seeds, st.integers(1, 9), st.sampled_from([1, 2, 5, 17]), st.booleans())
def test_mixtures(seed, n, components, shared):
    log_weights = normal(seed, n, components).log_softmax(-1)
    mean, std = 3 * normal(seed + 1, n, components), 0.5 + normal(seed + 2, n, components).abs()
    mixture = Mixture(log_weights, mean, std[:, :1] if shared else std)
    z = mean[:, 0] + mixture.std[:, 0] * normal(seed + 3, n).clamp(-2, 2)
    k = (z / 0.01).round()
    length = pushed(Mixed(mixture, 0.01), k.long().numpy(), seed)
    wanted = -mixture.log_prob(0.01 * k).sum() / math.log(2) - n * math.log2(0.01)
    assert length == pytest.approx(float(wanted), abs=0.05 * n + 0.2)


def test_parts_are_popped_in_their_order():
    gaussian = Gaussian(normal(0, 7), torch.ones(7).double())

    def law(rows):
        return Normals(Gaussian(gaussian.mean[rows], gaussian.std[rows]), 0.1)

    parts = Parts([slice(0, 3), slice(3, 6), slice(6, 9)], law)
    pushed(parts, np.array([1, -2, 3, 40, 5, -600, 7]))


def test_the_floor_is_as_deep_as_is_dug():
    stack, uniform = Stack(3), _warm_up()[0]
    popped = stack.pop(100_000, uniform)
    assert stack.dug * 32 == pytest.approx(100_000 * math.log2(7), abs=3000)
    assert set(popped.tolist()) == set(range(7))
    stack.push(popped, uniform)
    assert np.array_equal(stack.words, initial_words(3, stack.dug))


def test_a_message_is_read_without_a_floor():
    stack, uniform = Stack(3), _warm_up()[0]
    popped = stack.pop(1000, uniform)
    stack.push(np.arange(6), uniform)
    reader = Stack(3, stack.words)
    assert reader.pop(6, uniform).tolist() == list(range(6))
    reader.push(popped, uniform)
    assert np.array_equal(reader.words, initial_words(3, stack.dug))
    assert not np.array_equal(initial_words(3, 9), initial_words(4, 9))
