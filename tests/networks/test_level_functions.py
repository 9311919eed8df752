"""Functions over levels: smooth ones without a constant, pieces that sum to one, an end level each, or all levels."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from diffenc_ct.networks.level_functions import level_functions
from tests.refusals import refused

# Of float32, in which they are kept.
ROUNDING = 2e-6

# How many smooth ones, at how many levels, of which so many have one of their own at either end.
sizes = st.tuples(st.integers(1, 30), st.integers(1, 256), st.integers(0, 9)).map(
    lambda n: (n[0], n[0] + n[1] + 2 * n[2], n[2])
)


def smooth_and_ends(levels, count, basis, own):
    """The smooth functions in float64, after a look at those of the ends."""
    found = level_functions(levels, count, basis, ends=own)
    assert found.shape == (count + 2 * own, levels) and found.dtype == torch.float32
    ends = torch.zeros(2 * own, levels)
    for j in range(own):
        ends[j, j] = ends[own + j, levels - own + j] = 1
    assert torch.equal(found[count:], ends)
    return found[:count].double()


@given(sizes)
def test_cosines(size):
    """Orthogonal to one another and to constants, which logits cannot tell; of mean square one; the slowest first."""
    count, levels, own = size
    smooth = smooth_and_ends(levels, count, "cosines", own)
    gram = smooth @ smooth.mT / levels
    assert (gram - torch.eye(count, dtype=torch.float64)).abs().max() < ROUNDING
    assert smooth.mean(1).abs().max() < ROUNDING
    turns = (smooth.sign().diff() != 0).sum(1)
    assert turns.tolist() == list(range(1, count + 1))
    assert (smooth[:, 0] > 0).all()


@given(sizes)
def test_hats(size):
    """With the first, which is left out, they sum to one; each is a triangle of height 1 at its node."""
    count, levels, own = size
    smooth = smooth_and_ends(levels, count, "hats", own)
    at = torch.arange(levels, dtype=torch.float64) / (levels - 1)
    first = (1 - count * at).clamp(min=0)
    assert (first + smooth.sum(0) - 1).abs().max() < ROUNDING
    assert smooth.min() >= 0
    for j, hat in enumerate(smooth, start=1):
        beyond = (at - j / count).abs() >= 1 / count
        assert hat[beyond].abs().max() < ROUNDING
        assert (hat[~beyond] - (1 - count * (at - j / count).abs())[~beyond]).abs().max() < ROUNDING
    assert smooth[-1, -1] == 1


@given(
    st.integers(2, 40),
    st.integers(1, 60),
    st.sampled_from(["cosines", "hats", "free"]),
    st.integers(0, 5),
)
def test_as_many_functions_as_levels_are_a_logit_each(levels, count, basis, own):
    found, all_of_them = level_functions(levels, count, basis, ends=own), count + 2 * own
    if basis == "free" or all_of_them >= levels:
        assert torch.equal(found, torch.eye(levels))
    else:
        assert found.shape == (all_of_them, levels)
        # None of them is a sum of others and a constant: every coefficient says something.
        assert torch.linalg.matrix_rank(torch.cat([found, torch.ones(1, levels)]).double()) == (
            all_of_them + 1
        )


def test_the_default_is_smooth():
    assert torch.equal(level_functions(256), level_functions(256, 24, "cosines", ends=8))
    assert math.isclose(level_functions(256)[0, 0], math.sqrt(2), rel_tol=1e-4)


@pytest.mark.parametrize("basis", ["", "splines", None])
def test_an_unknown_basis_is_refused(basis):
    with refused(ValueError, "basis=.*'cosines', 'hats', 'free'"):
        level_functions(8, 2, basis)


@pytest.mark.parametrize("basis", ["cosines", "hats", "free"])
def test_no_function_is_refused(basis):
    with pytest.raises(ValueError, match="functions=0"):
        level_functions(8, 0, basis)


def test_less_than_no_level_is_refused():
    with refused(ValueError, "ends=-1"):
        level_functions(8, 2, ends=-1)
