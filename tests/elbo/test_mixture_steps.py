"""Mixture steps: the law by the definitions, its two frames, its limit, worlds in which it is the true transition."""

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.distributions import Normal

import diffenc_ct as dc
from diffenc_ct.model import Posterior
from diffenc_ct.process import ConstantNoiseLevel, Gaussian, marginal, posterior
from diffenc_ct.sampling.problem import ImageNoise
from diffenc_ct.schedules import alpha, sigma, sigma2
from tests.model.test_posterior import blind
from tests.parts import Fixed
from tests.refusals import refused
from tests.strategies import cases, close, make_encoder, normal, seeds, small_model
from tests.worlds.test_untrained_heads import V, expected_bound, model_of_levels

F64 = torch.float64
POSTERIORS = ("posterior", "paired posterior")
AT = torch.arange(-9.0, 9.0, 0.05, dtype=F64)
OF = 0.05 * torch.exp(-0.5 * AT**2) / math.sqrt(2 * math.pi)


@given(cases(heads=POSTERIORS), st.sampled_from([1.0, 0.6, 1.7]), seeds)
@settings(max_examples=12)
def test_one_draw_is_the_difference_of_log_densities(case, w, seed):
    """log q - log p at z_s = mu_Q + S eps: from z_t, and from deviations beside the data."""
    model, level, gamma_s = case.model, case.noise_level, case.gamma_s
    q = posterior(case.z_t, case.x_s, case.encoding.value, gamma_s, case.gamma_t, level)
    eps = normal(seed, *case.x.shape)
    z_s = q.sample(noise=eps)
    p = model.values(case.z_t, case.gamma_t).step(case.z_t, gamma_s, level, w)
    values = model.values_beside(case.z_t, case.noise, case.encoding.value, case.gamma_t)
    beside = values.step_from(case.encoding.value, case.x_s, gamma_s, level, w)
    found = beside.divergence(noise=eps)
    close(found, q.log_prob(z_s) - p.log_prob(z_s), 1e-6)
    # A deviation of sqrt(w) S, and of its own sign: with the same noise a sample is the same.
    close(p.std, math.sqrt(w) * q.std.expand_as(p.std), 1e-10)
    close(beside.std, torch.full_like(beside.std, math.sqrt(w)), 1e-10)


@given(cases(heads=POSTERIORS))
@settings(max_examples=15)
def test_what_is_known_has_the_heads_estimates(case):
    """Means of x_t and x_t', from either frame."""
    found = case.model.predict(case.z_t, case.gamma_t)
    values = case.model.values(case.z_t, case.gamma_t)
    beside = case.model.values_beside(case.z_t, case.noise, case.encoding.value, case.gamma_t)
    whole = values.some(torch.arange(case.x.numel()))
    for estimates in (values.estimates(), beside.estimates()):
        close(estimates.x_hat, found.x_hat, 1e-8)
        close(estimates.r_hat, found.r_hat, 1e-8)
    close(whole.estimates().x_hat.view_as(case.x), found.x_hat, 1e-8)


@given(cases(heads=POSTERIORS))
@settings(max_examples=10)
def test_short_steps_have_the_gaussian_steps_mean(case):
    """To second order in the step, whatever encoder and outputs: so the bound tends to L_inf of the same heads."""
    off = []
    for width in (1e-2, 5e-3):
        gamma_s = case.gamma_t - width
        p = case.model.values(case.z_t, case.gamma_t).step(case.z_t, gamma_s, case.noise_level)
        m = p.mixture(slice(None))
        mean = (m.log_weights.exp() * m.mean).sum(-1).view_as(case.z_t)
        gaussian = case.model.reverse(case.z_t, gamma_s, case.gamma_t, noise_level=case.noise_level)
        off.append((mean - gaussian.mean).abs().amax())
    assert off[0] < 1e-12 or off[1] < 0.3 * off[0]


@pytest.mark.parametrize("kind", ["identity", "nontrainable"])
@given(seed=seeds, w=st.floats(0.5, 2), eta=st.floats(0.4, 1.8))
@settings(max_examples=6)
def test_every_level_follows_its_own_process(kind, seed, w, eta):
    """sum_k p_k N(alpha_s a_s x_k + rho (sigma_s/sigma_t) (z_t - alpha_t a_t x_k), w S^2), as it is written."""
    heads, out = blind("levels", (2,), seed, free=False)
    encoder, level = make_encoder(kind, (2,), 0), ConstantNoiseLevel(eta)
    gamma_s, gamma_t = torch.tensor([[-2.0], [0.7]], dtype=F64)
    z_t, z_s = 0.8 * normal(seed + 5, 1, 2), 0.8 * normal(seed + 6, 1, 2)
    p = heads.values(z_t, gamma_t, encoder).step(z_t, gamma_s, level, w)
    x, rho = heads.x.double(), level.rho(gamma_s, gamma_t)
    a_s, a_t = encoder.scale(gamma_s), encoder.scale(gamma_t)
    logits = heads.prior.double() + out @ heads.phi.double()
    logits = logits - (z_t[0, :, None] - alpha(gamma_t) * a_t * x) ** 2 / (2 * sigma2(gamma_t))
    mean = alpha(gamma_s) * a_s * x + rho * sigma(gamma_s) / sigma(gamma_t) * (
        z_t[0, :, None] - alpha(gamma_t) * a_t * x
    )
    std = (w * (1 - rho**2)).sqrt() * sigma(gamma_s)
    log_p = (logits.log_softmax(-1) + Normal(mean, std).log_prob(z_s[0, :, None])).logsumexp(-1)
    close(p.log_prob(z_s), log_p.sum(0, keepdim=True), 1e-9)


@pytest.mark.parametrize("kind", ["identity", "residual", "nontrainable"])
@given(seed=seeds, w=st.floats(0.5, 2), eta=st.floats(0.4, 1.8))
@settings(max_examples=5)
def test_one_narrow_component_is_the_gaussian_step(kind, seed, w, eta):
    """K = 1, s = 0: N(mu_P, w S^2); of the non-trainable encoder with its x_s = (a_s/a_t) x_t for x_t + D x_t'."""
    heads, _ = blind("mixture", (3,), seed, components=1, free=False)
    with torch.no_grad():
        heads.network.out[2 * 3 :] = -30.0  # log deviations
    encoder = make_encoder(kind, (3,), seed)
    model = dc.DiffEnc(dc.LinearSchedule(-5.0, 3.0), encoder, heads, dc.Reals())
    gamma_s, gamma_t = torch.tensor([[-1.5], [0.5]], dtype=F64)
    z_t, z_s = normal(seed, 1, 3), normal(seed + 1, 1, 3)
    p = model.values(z_t, gamma_t).step(z_t, gamma_s, ConstantNoiseLevel(eta), w)
    if kind == "nontrainable":
        x_hat = model.predict(z_t, gamma_t).x_hat
        x_hat_s = encoder.scale(gamma_s) / encoder.scale(gamma_t) * x_hat
        q = posterior(z_t, x_hat_s, x_hat, gamma_s, gamma_t, eta)
        gaussian = Gaussian(q.mean, q.std * math.sqrt(w))
    else:
        gaussian = model.reverse(z_t, gamma_s, gamma_t, noise_level=eta, ratio=w)
    close(p.log_prob(z_s), gaussian.log_prob(z_s), 1e-6)
    if kind != "identity":
        return
    x, draws = normal(seed + 2, 4, 3).clamp(-1, 1), dc.Draws(t=torch.rand(4, dtype=F64))
    draws = dc.Draws(draws.t, normal(seed + 3, 4, 3), normal(seed + 4, 4, 3))
    options = {"ratio": w, "noise_level": eta}
    one = dc.elbo(model, x, dc.FiniteDepth(5, **options), draws=draws)
    other = dc.elbo(model, x, dc.FiniteDepth(5, step="mixture", nodes=40, **options), draws=draws)
    close(other.total, one.total, 1e-6)
    close(other.reconstruction + other.latent, one.reconstruction + one.latent, 1e-12)


# Independent values, exact heads ---------------------------------------------------------------------


@torch.no_grad()
def expected_steps(model, k: int, T: int, level) -> Tensor:
    """E of L_T of one value at level k, by the trapezium rule over z_t's noise."""
    x, bound = (
        torch.full((len(AT), 1), k),
        dc.FiniteDepth(T, noise_level=level, step="mixture", nodes=60),
    )
    total = torch.zeros((), dtype=F64)
    for i in range(T):
        t = torch.full((len(AT),), (i + 0.5) / T, dtype=F64)
        draws = dc.Draws(t=t, noise=AT[:, None], noise_0=AT[:, None])
        total = total + OF @ dc.elbo(model, x, bound, draws=draws).diffusion / T
    return total


def both_bounds(kind, level, T):
    """E_x of L_T and L_inf of a value of random probabilities."""
    model = model_of_levels(kind, normal(3, 1, V), -4.0, 2.0, basis="free", free=False)
    exact = model.heads.prior.double().softmax(-1)[0]
    noise = AT[:, None]
    finite, infinite = torch.zeros((), dtype=F64), torch.zeros((), dtype=F64)
    for k, p in enumerate(exact):
        finite = finite + p * expected_steps(model, k, T, level)
        ends = dc.elbo(
            model,
            torch.full((len(AT), 1), k),
            draws=dc.Draws(torch.zeros(len(AT), dtype=F64), noise, noise),
        )
        rest = OF @ (ends.reconstruction + ends.latent)
        infinite = infinite + p * (expected_bound(model, torch.tensor([k]), level) - rest)
    return finite, infinite


@pytest.mark.parametrize("T", [1, 2, 5])
@pytest.mark.parametrize(
    "kind, level", [("identity", 1.0), ("nontrainable", dc.NonTrainableNoiseLevel())]
)
def test_of_independent_values_every_depth_costs_the_same(kind, level, T):
    """L_T = L_inf at every T where the noise level is that of the encoder's scale."""
    finite, infinite = both_bounds(kind, level, T)
    close(finite, infinite, 2e-5)


@pytest.mark.parametrize(
    "kind, level", [("identity", 0.6), ("identity", 1.6), ("nontrainable", 1.0)]
)
def test_at_other_noise_levels_fewer_steps_cost_less(kind, level):
    """Never below the information that z_0 has beyond z_1, which the right noise level costs."""
    tight = dc.NonTrainableNoiseLevel() if kind == "nontrainable" else 1.0
    least, _ = both_bounds(kind, tight, 1)
    one, _ = both_bounds(kind, level, 1)
    three, infinite = both_bounds(kind, level, 3)
    assert least + 1e-4 < one < three - 1e-4 < infinite - 2e-4


# Two values that know of one another -----------------------------------------------------------------

JOINT = torch.tensor([[0.3, 0.05, 0.02], [0.03, 0.2, 0.05], [0.02, 0.03, 0.3]], dtype=F64)
LINE = torch.tensor([-2 / 3, 0.0, 2 / 3], dtype=F64)


class Conditionals(nn.Module):
    """The exact ln p(x_i = k | z_j) of two values, j the other one: what a network is to say."""

    def forward(self, z: Tensor, gamma: Tensor) -> Tensor:
        rest = z[..., None] - alpha(gamma)[:, None, None] * LINE
        own = (-(rest**2) / (2 * sigma2(gamma)[:, None, None])).log_softmax(-1).exp()
        first = (own[:, 1, None] * JOINT).sum(-1).log()
        second = (own[:, 0, :, None] * JOINT).sum(1).log()
        return torch.stack([first, second], 1).movedim(-1, 1).flatten(1)


@pytest.mark.parametrize("T", [2, 3])
def test_two_correlated_values_by_brute_force(T):
    """L_T from densities on grids, with nothing of the library in it."""
    heads = Posterior(Conditionals(), 3, basis="free", free=False)
    model = dc.DiffEnc(
        dc.LinearSchedule(-3.0, 2.0), dc.IdentityEncoder(), heads.double(), dc.Levels(3)
    )
    eps = torch.cartesian_prod(AT[40:-40:8], AT[40:-40:8])
    weight = (torch.exp(-0.5 * eps.square().sum(1)) / (2 * math.pi)) * 0.16
    found = wanted = torch.zeros((), dtype=F64)
    ends = torch.linspace(-3.0, 2.0, T + 1, dtype=F64)
    bound = dc.FiniteDepth(T, step="mixture", nodes=48)
    for (i, j), step in itertools.product(itertools.product(range(3), repeat=2), range(T)):
        x = torch.tensor([[i, j]]).expand(len(eps), 2)
        draws = dc.Draws(torch.full((len(eps),), (step + 0.5) / T, dtype=F64), eps, eps)
        with torch.no_grad():
            found = (
                found + JOINT[i, j] * (weight @ dc.elbo(model, x, bound, draws=draws).diffusion) / T
            )
        wanted = wanted + JOINT[i, j] * (weight @ by_hand(i, j, eps, ends[step], ends[step + 1]))
    close(found, wanted, 2e-4)


def by_hand(i: int, j: int, eps: Tensor, gamma_s: Tensor, gamma_t: Tensor) -> Tensor:
    """KL of one step at latents of noises eps, (n, 2), by the trapezium rule over z_s."""
    (a_s, a_t), (s2, t2) = (
        ((1 / (1 + g.exp())).sqrt() for g in (gamma_s, gamma_t)),
        (1 / (1 + (-g).exp()) for g in (gamma_s, gamma_t)),
    )
    x = LINE[[i, j]]
    z = a_t * x + t2.sqrt() * eps
    log_q = -((z[:, :, None] - a_t * LINE) ** 2) / (2 * t2)
    both = (
        (JOINT.log() + log_q[:, 0, :, None] + log_q[:, 1, None, :])
        .flatten(1)
        .softmax(1)
        .view(-1, 3, 3)
    )
    share = (gamma_s - gamma_t).exp()
    S = (s2 * (1 - share)).sqrt()
    pull = share.sqrt() * (s2 / t2).sqrt()
    total = torch.zeros(len(eps), dtype=F64)
    for value, marginal_of in enumerate((both.sum(2), both.sum(1))):
        means = a_s * LINE + pull * (z[:, value, None] - a_t * LINE)
        at = means[:, [i, j][value], None] + S * AT[::4]
        each = -0.5 * ((at[..., None] - means[:, None]) / S) ** 2
        p = (marginal_of.log()[:, None] + each).logsumexp(-1)
        total += ((-0.5 * AT[::4] ** 2 - p) * 4 * OF[::4]).sum(1)
    return total


# The bound's options ---------------------------------------------------------------------------------


@given(cases(heads=POSTERIORS, kinds=("identity", "residual")))
@settings(max_examples=5)
def test_ratios_as_numbers_tables_and_functions(case):
    """A function is given the heads' estimates."""
    seen = []

    def ratio(step, estimates):
        seen.append((step, estimates))
        return torch.full_like(estimates.x_hat, 1.3)

    t = torch.rand(len(case.x), dtype=F64)
    draws = dc.Draws(t, case.noise, case.noise)
    found = [
        dc.elbo(
            case.model, case.x, dc.FiniteDepth(4, r, 0.9, step="mixture", nodes=16), draws=draws
        ).diffusion
        for r in (1.3, torch.full((4,), 1.3), torch.full((4, *case.x.shape[1:]), 1.3), ratio)
    ]
    for other in found[1:]:
        close(other, found[0], 1e-7)
    ((step, estimates),) = seen
    gamma_t = case.model.schedule((step + 1) / 4).gamma.double()
    z = marginal(case.model.encoder.encode(case.x, gamma_t), gamma_t).sample(noise=case.noise)
    close(estimates.x_hat, case.model.predict(z, gamma_t).x_hat, 1e-6)
    bad = dc.FiniteDepth(4, lambda step, found: -torch.ones_like(found.x_hat), step="mixture")
    assert dc.elbo(case.model, case.x, bad, draws=draws).diffusion.isnan().all()


def test_a_draw_estimates_what_quadrature_gives():
    """Of one draw of z_s an example, without bias."""
    model = small_model("residual", "paired posterior")
    n = 4000
    x = normal(0, 1, 3).clamp(-1, 1).expand(n, 3)
    draws = dc.Draws(
        torch.full((n,), 0.6, dtype=F64), normal(1, 1, 3).expand(n, 3), normal(2, n, 3)
    )
    exact = dc.elbo(model, x[:1], dc.FiniteDepth(3, step="mixture", nodes=60),
                    draws=dc.Draws(draws.t[:1], draws.noise[:1], draws.noise_0[:1])).diffusion  # fmt: skip
    found = dc.elbo(model, x, dc.FiniteDepth(3, step="mixture"), draws=draws).diffusion
    assert found.std() > 0.01
    assert (found.mean() - exact).abs() < 4 * found.std() / n**0.5


def test_float32_beside_the_data():
    """256 levels at gamma = -13.3, where a level is 6 deviations of the noise: long and short steps."""
    outputs = Posterior.outputs_for(256)
    out, prior = 0.3 * normal(0, outputs * 4), normal(1, 4, 256)
    x = torch.randint(0, 256, (6, 4), generator=torch.Generator().manual_seed(2))
    noise = normal(3, 6, 4)
    ends = [(-13.3, -8.7), (-13.3, -13.2), (-11.0, -10.9)]
    for kind, (low, high) in itertools.product(("identity", "residual"), ends):
        found = []
        for dtype in (F64, torch.float32):
            heads = Posterior(Fixed(out.to(dtype)), 256, prior=prior).to(dtype)
            encoder = make_encoder(kind, (4,), 5).to(dtype)
            gamma_s, gamma_t = (torch.full((6,), v, dtype=dtype) for v in (low, high))
            data, eps = dc.Levels(256).scale(x, dtype), noise.to(dtype)
            x_s, x_t = encoder.encode(data, gamma_s), encoder.encode(data, gamma_t)
            z = marginal(x_t, gamma_t).sample(noise=eps)
            values = heads.values_beside(z, eps, x_t, gamma_t, encoder)
            step = values.step_from(x_t, x_s, gamma_s, ConstantNoiseLevel(1.0))
            found.append(step.divergence())
        assert found[0].abs().mean() > 1e-3 or high < -13
        close(found[1].double(), found[0], 2e-4)


def test_it_has_a_gradient():
    """Of the network's parameters, as finite differences have it."""
    model = small_model("identity", "posterior")
    x, bound = normal(0, 4, 3).clamp(-1, 1), dc.FiniteDepth(3, step="mixture", nodes=16)
    draws = dc.Draws(
        torch.tensor([0.1, 0.4, 0.7, 0.9], dtype=F64), normal(1, 4, 3), normal(2, 4, 3)
    )
    weight = model.heads.network.second.bias
    model.zero_grad()
    dc.elbo(model, x, bound, draws=draws).diffusion.sum().backward()
    change = normal(3, *weight.shape)
    slope = (weight.grad * change).sum()
    values = []
    for sign in (1, -1):
        with torch.no_grad():
            weight += sign * 1e-5 * change
            values.append(dc.elbo(model, x, bound, draws=draws).diffusion.sum())
            weight -= sign * 1e-5 * change
    close((values[0] - values[1]) / 2e-5, slope.detach(), 1e-6)


@pytest.mark.parametrize("heads", ["single", "paired", "head", "heads"])
def test_heads_of_means_are_refused(heads):
    model = small_model("identity", heads)
    assert not model.heads.knows_values
    with refused(ValueError, 'step="mixture": .* heads estimate means only'):
        dc.elbo(model, normal(0, 2, 3), dc.FiniteDepth(3, step="mixture"))
    with refused(ValueError, 'step="mixture"'):
        dc.sample(model, 1, shape=(3,), solver=dc.Ancestral(steps=2, step="mixture"))


def test_refusals():
    with refused(ValueError, "step='levels'; choose one of 'gaussian', 'mixture'"):
        dc.FiniteDepth(3, step="levels")
    with refused(ValueError, "step='levels'"):
        dc.Ancestral(steps=3, step="levels")
    with refused(ValueError, "nodes=-1"):
        dc.FiniteDepth(3, step="mixture", nodes=-1)


# Samples ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["identity", "nontrainable"])
def test_samples_of_exact_heads_have_the_datas_law(kind):
    """At every noise level and from two steps, of independent values: 0 takes part."""
    prior = normal(4, 1, V)
    model = model_of_levels(kind, prior, -8.0, 8.0, basis="free", free=False)
    share = model.heads.prior.double().softmax(-1)[0]
    for eta in (1.0, 0.0):
        solver = dc.Ancestral(steps=2, noise_level=eta, step="mixture")
        g = torch.Generator().manual_seed(1)
        x = dc.sample(model, 3000, shape=(1,), solver=solver, generator=g).samples
        found = torch.bincount(x.flatten(), minlength=V) / len(x)
        assert ((found - share).abs() < 4 * (share * (1 - share) / len(x)).sqrt()).all()


def test_a_sample_is_a_draw_of_the_step():
    """Counted as one evaluation a step, with the ratio of its step, and estimates on its path."""
    model = small_model("residual", "paired posterior")
    ratio = torch.tensor([1.5, 0.7], dtype=F64)
    solver = dc.Ancestral(steps=2, step="mixture", ratio=ratio)
    g = torch.Generator().manual_seed(3)
    found = dc.sample(model, 2, shape=(3,), solver=solver, trajectory=1, generator=g)
    assert found.evaluations == 2
    z, gamma = found.trajectory.z[:, 0], found.trajectory.gamma
    x_hat = model.predict(z, gamma).x_hat
    close(found.trajectory.x_hat[:, 0], x_hat, 1e-9)
    seed = int(torch.randint(2**62, (), generator=torch.Generator().manual_seed(3)))
    noise = ImageNoise(seed, range(2))
    z = noise(torch.empty(2, 3, dtype=F64))
    ends = model.schedule(torch.tensor([1.0, 0.5, 0.0], dtype=F64)).gamma
    for gamma_t, gamma_s, w in zip(ends[:-1], ends[1:], ratio.flip(0), strict=True):
        t, s = gamma_t.expand(2), gamma_s.expand(2)
        p = model.values(z, t).step(z, s, ConstantNoiseLevel(1.0), w)
        choice, eps = noise(z), noise(z)
        z = p.sample(choice=choice, noise=eps)
    close(found.z_0, z, 1e-9)


@given(seed=seeds, eta=st.floats(0.5, 1.5))
@settings(max_examples=4)
def test_mixtures_of_gaussians_by_brute_force(seed, eta):
    """p(z_s | z_t) = int p(x | z_t) q_eta(z_s | z_t, x) dx, over a grid of x."""
    heads, out = blind("mixture", (1,), seed, free=False)
    level = ConstantNoiseLevel(eta)
    gamma_s, gamma_t = torch.tensor([[-3.0], [0.5]], dtype=F64)
    z_t, z_s = 0.8 * normal(seed + 5, 1, 1), 0.8 * normal(seed + 6, 1, 1)
    logits, shift, log_width = out[0].chunk(3)
    mean = torch.tensor([-2.0, 0.0, 2.0], dtype=F64) / 3 + shift
    x = torch.arange(-8, 8, 0.005, dtype=F64)[:, None]
    prior = logits.log_softmax(0) + Normal(mean, log_width.exp() / 3).log_prob(x)
    seen = Normal(alpha(gamma_t) * x[:, 0], sigma(gamma_t)).log_prob(z_t[0])
    log_p = (prior.logsumexp(1) + seen).log_softmax(0)
    q = posterior(
        z_t.expand(len(x), 1), x, x, gamma_s.expand(len(x)), gamma_t.expand(len(x)), level
    )
    expected = (log_p + q.log_prob(z_s.expand(len(x), 1))).logsumexp(0)
    step = heads.values(z_t, gamma_t, dc.IdentityEncoder()).step(z_t, gamma_s, level)
    close(step.log_prob(z_s)[0], expected, 1e-6)
