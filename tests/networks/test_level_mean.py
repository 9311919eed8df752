"""The mean over levels in one pass: against a plain softmax, in value and every kind of derivative."""

import random

import pytest
import torch
from hypothesis import given
from torch.autograd import forward_ad, gradcheck, gradgradcheck
from torch.autograd.graph import saved_tensors_hooks
from torch.func import grad, jacfwd, jacrev, jvp, vmap

from diffenc_ct.networks import level_mean as module
from diffenc_ct.networks.level_mean import level_mean
from tests.strategies import close, generator, normal, seed_of, seeded

F64 = torch.float64


@seeded
def problems(pick, levels=None):
    """c, s, g, then r, prior, x, phi: a few values on a few levels, the observation within reach of them."""
    batch, values, functions = pick.randint(1, 4), pick.randint(1, 5), pick.randint(1, 4)
    levels, seed = levels or pick.choice([2, 3, 17]), seed_of(pick)
    x = 2 * (torch.arange(levels, dtype=F64) + 0.5) / levels - 1
    g = torch.exp(2 * normal(seed, batch))
    r = 1.5 * torch.rand(batch, values, dtype=F64, generator=generator(seed)) - 0.75
    s = g[:, None] * 0.2 * normal(seed + 1, batch, values) + normal(seed + 2, batch, values)
    prior = normal(seed + 3, pick.choice([1, values]), levels)
    phi = normal(seed + 4, functions, levels)
    return normal(seed + 5, batch, values, functions), s, g, r, prior, x, phi


def plain(c, s, g, r, prior, x, phi):
    """The same by what autograd knows."""
    d = x - r[..., None]
    logits = c @ phi + prior - 0.5 * (s[..., None] - g[..., None, None] * d) ** 2
    return (logits.softmax(-1) * d).sum(-1)


def split(problem):
    """The three that are differentiated, and the function of them by either way."""
    moving, rest = problem[:3], problem[3:]
    return moving, lambda *m: level_mean(*m, *rest), lambda *m: plain(*m, *rest)


def like(problem, seed):
    """A direction for each of the three."""
    return tuple(normal(seed + i, *a.shape) for i, a in enumerate(problem[:3]))


@given(problems())
def test_value_and_gradients(problem):
    moving, ours, theirs = split(problem)
    found = []
    for function in (ours, theirs):
        leaves = [a.clone().requires_grad_() for a in moving]
        value = function(*leaves)
        found.append((value, *torch.autograd.grad((value.sin() * 2).sum(), leaves)))
    for one, other in zip(*found, strict=True):
        close(one, other)


@given(problems())
def test_forward_mode(problem):
    """By dual tensors and by torch.func, all three moving or one alone."""
    moving, ours, theirs = split(problem)
    along = like(problem, 11)
    value, wanted = jvp(theirs, moving, along)
    close(jvp(ours, moving, along)[0], value)
    for derivative in (by_dual, by_jvp):
        close(derivative(ours, moving, along), wanted)
    for i in range(3):

        def alone(function, i=i):
            return lambda a: function(*moving[:i], a, *moving[i + 1 :])

        close(
            jvp(alone(ours), moving[i : i + 1], along[i : i + 1])[1],
            jvp(alone(theirs), moving[i : i + 1], along[i : i + 1])[1],
        )


def test_gradcheck():
    """Gradients, forward mode and those of gradients, by finite differences, also under vmap."""
    problem = problems.build(random.Random(3))
    moving, ours, _ = split(problem)
    leaves = tuple(a.clone().requires_grad_() for a in moving)
    assert gradcheck(ours, leaves, check_forward_ad=True, check_batched_grad=True)
    assert gradgradcheck(ours, leaves)


@given(problems())
def test_transforms(problem):
    """vmap of jvp over tangents, vmap over inputs, of grad, jacobians: what solvers of the flow ask for."""
    moving, ours, theirs = split(problem)
    several = tuple(torch.stack([a, -a, 2 * a]) for a in like(problem, 23))
    inputs = tuple(
        torch.stack([a, a + 0.1 * b, a]) for a, b in zip(moving, like(problem, 5), strict=True)
    )
    c, s, g = moving

    def found(function):
        def loss(*m):
            return function(*m).sin().sum()

        yield vmap(lambda *t: jvp(function, moving, t))(*several)
        yield vmap(function)(*inputs)
        yield vmap(function, in_dims=(None, 1, None))(c, inputs[1].movedim(0, 1), g)
        yield vmap(grad(loss, argnums=(0, 1, 2)))(*inputs)
        yield grad(lambda *m: vmap(loss)(*m).sum(), argnums=(0, 1, 2))(*inputs)
        yield jacrev(function, argnums=1)(*moving)
        yield jacfwd(function, argnums=2)(*moving)
        yield jvp(grad(loss), moving, like(problem, 31))
        yield grad(lambda *m: jvp(function, m, like(problem, 37))[1].sin().sum(), (0, 1, 2))(
            *moving
        )

    for one, other in zip(found(ours), found(theirs), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-10)


def by_dual(function, leaves, along):
    with forward_ad.dual_level():
        duals = [forward_ad.make_dual(a, da) for a, da in zip(leaves, along, strict=True)]
        return forward_ad.unpack_dual(function(*duals)).tangent


def by_jvp(function, leaves, along):
    return jvp(function, tuple(leaves), tuple(along))[1]


@given(problems())
def test_gradient_of_a_forward_derivative(problem):
    """A flow's divergence is one, and it may be trained: under vmap, as the divergence takes it, and without."""
    along = like(problem, 41)
    several = tuple(torch.stack([a, -2 * a]) for a in along)
    moving, ours, theirs = split(problem)

    def gradients(derivative, function, along):
        leaves = tuple(a.clone().requires_grad_() for a in moving)
        return torch.autograd.grad(derivative(function, leaves, along).sin().sum(), leaves)

    def batched(function, leaves, several):
        return vmap(lambda *along: by_jvp(function, leaves, along))(*several)

    wanted = gradients(by_jvp, theirs, along)
    for derivative in (by_dual, by_jvp):
        torch.testing.assert_close(gradients(derivative, ours, along), wanted)
    torch.testing.assert_close(
        gradients(batched, ours, several), gradients(batched, theirs, several)
    )


@given(problems())
def test_several_models_at_once(problem):
    """As torch.func.stack_module_state has them: levels and log-probabilities have a batch dimension, too."""
    stacked = tuple(torch.stack([a, a.flip(0)]) if i < 4 else a for i, a in enumerate(problem))
    prior = torch.stack([problem[4], problem[4] + problem[5]])
    dims = (0, 0, 0, 0, 0, None, None)
    arguments = (*stacked[:4], prior, *problem[5:])
    close(vmap(level_mean, dims)(*arguments), vmap(plain, dims)(*arguments))


@given(problems())
def test_a_reference_changes_nothing_but_rounding(problem):
    """E[x] = mean + r for every r, if s = g (y - r) moves with it."""
    c, s, g, r, *rest = problem
    y = r + s / g[:, None]
    for other in (torch.zeros_like(r), r.flip(0), -r):
        mean = level_mean(c, g[:, None] * (y - other), g, other, *rest)
        close(mean + other, level_mean(c, s, g, r, *rest) + r, 1e-9)


@given(problems(levels=17))
def test_how_it_is_cut_into_chunks_changes_nothing(problem):
    moving, ours, _ = split(problem)
    results, whole = [], dict(module._CHUNK)
    for size in (1, 100, whole["cpu"]):
        module._CHUNK["cpu"] = size
        try:
            leaves = [a.clone().requires_grad_() for a in moving]
            value = ours(*leaves)
            results.append((value, *torch.autograd.grad(value.sum(), leaves)))
        finally:
            module._CHUNK["cpu"] = whole["cpu"]
    for parts in results[:-1]:
        for one, other in zip(parts, results[-1], strict=True):
            close(one, other, 1e-13)


def test_low_precision_around_it_is_left_outside():
    single = [a.float() for a in problems.build(random.Random(4))]
    alone = level_mean(*single)
    with torch.autocast("cpu", torch.bfloat16):
        within = level_mean(*single)
        assert (single[0] @ single[6]).dtype == torch.bfloat16  # it is at work
    assert within.dtype == torch.float32 and torch.equal(within, alone)


def test_no_probabilities_are_kept():
    """Nothing of (batch, values, levels) is saved for the backward pass, which a plain softmax does."""
    batch, values, functions, levels = 3, 5, 2, 64
    c = normal(0, batch, values, functions).requires_grad_()
    s, g, r = normal(1, batch, values), normal(2, batch).exp(), normal(3, batch, values)
    rest = (normal(4, 1, levels), torch.linspace(-1, 1, levels, dtype=F64))
    phi = normal(5, functions, levels)

    def largest(function):
        sizes = []
        with saved_tensors_hooks(lambda a: (sizes.append(a.numel()), a)[1], lambda a: a):
            function(c, s, g, r, *rest, phi)
        return max(sizes)

    assert largest(level_mean) <= max(batch * values * (functions + 2), functions * levels)
    assert largest(plain) >= batch * values * levels


@pytest.mark.parametrize("gamma", [-20.0, -13.3, -6.0, 0.0, 8.0, 20.0])
def test_float32_keeps_its_digits(gamma):
    """256 levels, values between levels and far outside: E[x] - r to a rounding of its own size, covariances too."""
    x = 2 * (torch.arange(256, dtype=F64) + 0.5) / 256 - 1
    index = torch.arange(0, 256, 5)
    g = torch.full((len(index),), -0.5 * gamma, dtype=F64).exp()
    noise, c = normal(1, len(index), 3), 0.5 * normal(2, len(index), 3, 4)
    phi = torch.stack([torch.cos(torch.pi * k * (x + 1) / 2) for k in range(1, 5)])
    r = x[index][:, None].expand(-1, 3).contiguous()
    arguments = (c, noise, g, r, normal(3, 3, 256), x, phi)
    # What float32 holds is the question that both are asked.
    single = [a.float() for a in arguments]
    results = []
    for given_ in (single, [a.double() for a in single]):
        leaves = [a.clone().requires_grad_() for a in given_[:3]]
        value = level_mean(*leaves, *given_[3:])
        results.append((value, *torch.autograd.grad(value.sum(), leaves)))
    for one, other in zip(*results, strict=True):
        assert one.isfinite().all()
        scale = float(other.detach().abs().max())
        assert (one.double() - other).abs().max() <= 1e-4 * scale
