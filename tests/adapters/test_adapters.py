"""Adapted networks of worlds are those worlds: bound, exact likelihood, score, samples, in any time and scaling."""

import copy
import math
import random
import warnings

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import diffenc_ct as dc
import theory
from diffenc_ct import adapters
from diffenc_ct.likelihood.field import flow_and_score
from diffenc_ct.model.fingerprint import fingerprint
from diffenc_ct.schedules import alpha, expand, sigma
from diffenc_ct.worlds import MixtureWorld
from tests.adapters.foreign import PREDICTS, Foreign, betas_of, families
from tests.conformance import check_schedule
from tests.refusals import refused
from tests.strategies import close, generator, normal, seed_of, seeded, seeds

F64 = torch.float64


def adapted(world, family, predicts, decoder=None, **options):
    return dc.adapt(
        Foreign(world, family, predicts),
        predicts=predicts,
        schedule=family.process,
        decoder=decoder or dc.Reals(),
        **options,
    )


@seeded
def worlds(pick, shape=None):
    shape, seed = shape or pick.choice([(1,), (2,), (1, 2, 2)]), seed_of(pick)
    means = 0.7 * normal(seed, pick.randint(1, 3), *shape)
    return MixtureWorld(
        means, pick.uniform(0.2, 0.6), weights=0.2 + normal(seed + 1, len(means)).abs()
    )


@seeded
def cases(pick, shape=None):
    """A world, a family, what the network predicts, and a seed."""
    return worlds.build(pick, shape), families.build(pick), pick.choice(PREDICTS), seed_of(pick)


@given(cases())
@settings(max_examples=20)
def test_estimates_errors_and_score_are_the_worlds(case):
    world, family, predicts, seed = case
    model = adapted(world, family, predicts)
    gamma = model.schedule(torch.linspace(0, 1, 7, dtype=F64)).gamma
    x, noise = world.sample(7, generator(seed)), normal(seed, 7, *world.shape)
    z = expand(alpha(gamma), x) * x + expand(sigma(gamma), x) * noise
    found, x_hat = model.predict(z, gamma), world.posterior_mean(z, gamma)
    close(found.x_hat, x_hat, 1e-8)
    assert not found.r_hat.any()
    errors = model.errors(z, noise, model.encoder(x, gamma), gamma)
    close(errors.x, x - x_hat, 1e-8)
    assert not errors.r.any()
    score = (expand(alpha(gamma), z) * x_hat - z) / expand(sigma(gamma), z) ** 2
    close(flow_and_score(model, z, gamma)[1], score, 1e-6)


@given(cases())
@settings(max_examples=15)
def test_the_bound_is_the_worlds_on_the_same_draws(case):
    world, family, predicts, seed = case
    model, x = adapted(world, family, predicts), world.sample(5, generator(seed))
    assert type(model) is dc.DiffEnc and isinstance(model.encoder, dc.IdentityEncoder)
    own = world.model(model.schedule)
    for bound in (dc.InfiniteDepth(), dc.InfiniteDepth(1.3), dc.FiniteDepth(7, ratio=1.1)):
        ours, theirs = (dc.elbo(each, x, bound, generator=generator(seed)) for each in (model, own))
        for term in ("reconstruction", "diffusion", "latent"):
            close(getattr(ours, term), getattr(theirs, term), 1e-8)


@given(cases(shape=(1,)))
@settings(max_examples=1)
def test_the_exact_likelihood_is_the_worlds(case):
    """log q_0 in closed form, to 1e-6 nats: the flow begins in the world's own q_1, not in N(0, I)."""
    world, family, predicts, seed = case
    model, x = adapted(world, family, predicts), world.sample(1, generator(seed))
    gamma_0, gamma_1 = (model.schedule.at(t, x).gamma for t in (0.0, 1.0))
    found = dc.log_likelihood(
        model, x, solver=dc.Adams(atol=1e-7), prior=lambda z: world.log_q(z, gamma_1)
    )
    scale = alpha(gamma_0)
    exact = world.log_q(scale * x, gamma_0) + scale.log()
    assert (found.nats - exact).abs().max() < 1e-6


@given(cases())
@settings(max_examples=6)
def test_samples_are_the_worlds(case):
    world, family, predicts, seed = case
    model = adapted(world, family, predicts)
    own = world.model(model.schedule)
    for solver in (dc.Exponential(order=3, steps=12), dc.Ancestral(steps=8)):
        ours, theirs = (
            dc.sample(each, 3, shape=world.shape, solver=solver, generator=generator(seed)).samples
            for each in (model, own)
        )
        close(ours, theirs, 1e-6)


@pytest.mark.parametrize("shift", ["sign", "swap", "late"])
def test_a_control_that_is_wrong_is_seen(shift):
    """The comparison above tells a wrong sign, a and b exchanged, and a time off by one from the right network."""
    world = MixtureWorld(torch.tensor([[-0.7], [0.6]], dtype=F64), 0.3)
    family = families.build(random.Random(1), "betas")
    network = Foreign(world, family, "eps")
    wrong = {
        "sign": lambda net, z, t: -net(z, t),
        "swap": lambda net, z, t: Foreign(world, family, "v")(z, t),
        "late": lambda net, z, t: net(z, t + 1),
    }[shift]
    model = dc.adapt(
        network, predicts="eps", schedule=family.process, decoder=dc.Reals(), call=wrong
    )
    x = world.sample(50, generator(0))
    right = world.model(model.schedule)
    ours, theirs = (
        dc.elbo(each, x, generator=generator(1)).total.mean() for each in (model, right)
    )
    assert abs(ours - theirs) > 1e-3


# The depths of a table ---------------------------------------------------------------------------


@given(st.integers(3, 40), st.booleans())
def test_whole_times_at_the_tables_own_depths(steps, rounded):
    """The T - 1 steps of FiniteDepth(depths()) ask the network at times 1 to T - 1, and at no other."""
    betas = betas_of(steps, 1e-3, 0.4)
    table, asked = adapters.Table.of_betas(betas, rounded=rounded), []

    def network(z, t):
        asked.append(t)
        return 0 * z

    model = dc.adapt(
        network,
        predicts="eps",
        schedule=table,
        decoder=dc.Reals(),
        shape=(2,),
    )
    share = torch.cumprod(1 - betas, 0)
    close(model.schedule(table.depths()).gamma, torch.log((1 - share) / share), 1e-9)
    own = adapters.TabulatedSchedule(table.gamma(table.nodes()))
    close(own(torch.linspace(0, 1, steps, dtype=F64)).gamma, torch.log((1 - share) / share), 1e-9)
    asked.clear()
    n = steps - 1
    draws = dc.Draws(t=(torch.arange(n, dtype=F64) + 0.5) / n)
    dc.elbo(model, torch.zeros(n, 2, dtype=F64), dc.FiniteDepth(table.depths()), draws=draws)
    model.schedule = own
    dc.elbo(model, torch.zeros(n, 2, dtype=F64), dc.FiniteDepth(n), draws=draws)
    times, again = asked
    close(times.double(), again.double(), 1e-9)
    assert times.dtype == (torch.int64 if rounded else F64)
    close(times.double(), torch.arange(1, steps, dtype=F64), 1e-9)


def test_rounded_times_are_the_nearest():
    asked = []
    table = adapters.Table.of_betas(betas_of(5, 0.1, 0.3), rounded=True)
    model = dc.adapt(
        lambda z, t: asked.append(t) or 0 * z, predicts="x0", schedule=table, decoder=dc.Reals()
    )
    model.heads._tried = True
    gamma = table.gamma(torch.tensor([0.0, 0.4, 0.6, 1.45, 3.9, 4.0], dtype=F64))
    model.predict(torch.zeros(6, 1, dtype=F64), gamma)
    assert asked[0].tolist() == [0, 0, 1, 1, 4, 4]


@given(families())
def test_processes_are_what_they_say(family):
    """a, b and their slopes at the gammas of all depths, by the textbook at the time that is told."""
    process = family.process
    gamma = process.schedule()(torch.linspace(0, 1, 33, dtype=F64)[1:-1]).gamma
    point = process(gamma)
    for ours, theirs in zip(
        (point.a, point.b, *point.slopes()), family.coefficients(point.told), strict=True
    ):
        torch.testing.assert_close(ours, theirs, rtol=1e-7, atol=1e-9)
    torch.testing.assert_close(2 * torch.log(point.b / point.a), gamma, rtol=1e-12, atol=1e-12)


@given(seeds, st.sampled_from(PREDICTS), st.floats(-9, 5))
def test_readings_are_the_theorem_to_ten_digits(seed, predicts, value):
    """x_hat and x - x_hat for any output, by 60 digits of the general formula with p and q of the family."""
    family = families.build(random.Random(seed))
    low, high = family.process.schedule().table[[0, -1]].tolist()
    gamma = torch.tensor([min(max(value, low), high)], dtype=F64)
    x, noise, u = (normal(seed + i, 1, 2) for i in range(3))
    heads = plain(
        lambda z, t: u.expand(len(z), 2), predicts=predicts, schedule=family.process
    ).heads
    z = alpha(gamma) * x + sigma(gamma) * noise
    a, b, da, db = (c.item() for c in family.coefficients(family.process(gamma).told))
    p, q = {
        "eps": (0, 1),
        "x0": (1, 0),
        "denoiser": (1, 0),
        "v": (-b, a),
        "score": (0, -1 / b),
        "velocity": (da, db),
    }[predicts]
    formula = theory.theorem("adapters.parameterisations").formula()
    found = (
        heads(z, gamma, dc.IdentityEncoder()).x_hat,
        heads.errors(z, noise, dc.Encoding(x, 0 * x), gamma, dc.IdentityEncoder()).x,
    )
    for i in range(2):
        wanted = formula(a, b, p, q, *(v[0, i].item() for v in (x, noise, u)))
        for ours, exact in zip(found, wanted, strict=True):
            assert abs(ours[0, i].item() - exact) < 1e-8 * (1 + abs(exact))


def test_noise_of_betas_keeps_its_digits():
    """1 - alphas_cumprod of a first beta of 1e-12."""
    betas = torch.tensor([1e-12, 0.5], dtype=F64)
    table = adapters.Table.of_betas(betas)
    first = float(table(table.gamma(torch.zeros(1, dtype=F64))).b)
    assert abs(first / 1e-6 - 1) < 1e-10


# What is refused, and what is said ---------------------------------------------------------------

FLOW = adapters.RectifiedFlow()


def plain(network, **options):
    settings = {"predicts": "eps", "schedule": FLOW, "decoder": dc.Reals(), "shape": (2,)}
    return dc.adapt(network, **settings | options)


def test_another_shape_is_refused():
    with pytest.raises(ValueError, match=r"returned \(3, 5\) for latents \(3, 2\)"):
        plain(lambda z, t: torch.zeros(len(z), 5))
    late = plain(lambda z, t: z[:1], shape=None)
    with pytest.raises(ValueError, match=r"returned \(1, 2\) for latents"):
        late.predict(torch.zeros(4, 2, dtype=F64), torch.zeros(4, dtype=F64))
    with pytest.raises(ValueError, match="returned a tuple.*call="):
        plain(lambda z, t: (z, t))


class ByIndex(nn.Module):
    """A network with an embedding of whole times, and of labels."""

    def __init__(self):
        super().__init__()
        self.times, self.labels = nn.Embedding(10, 2), nn.Embedding(3, 2)

    def forward(self, z, t, y=None):
        return z + self.times(t) + (0 if y is None else self.labels(y))


def test_times_that_a_network_cannot_take_are_refused():
    table = [
        adapters.Table.of_betas(betas_of(n, 0.01, 0.3), rounded=r)
        for n, r in ((10, False), (11, True))
    ]
    for schedule, word in zip(table, ("rounded=True", "index out of range"), strict=True):
        with pytest.raises(ValueError, match=f"cannot be called.*times.*{word}") as error:
            plain(ByIndex(), schedule=schedule)
        assert "\n" not in str(error.value)
    right = adapters.Table.of_betas(betas_of(10, 0.01, 0.3), rounded=True)
    assert plain(ByIndex(), schedule=right).training is False


def test_labels_out_of_range_are_refused():
    table = adapters.Table.of_betas(betas_of(10, 0.01, 0.3), rounded=True)

    def label(y):
        return lambda net, z, t: net(z, t, torch.full((len(z),), y))

    plain(ByIndex(), schedule=table, call=label(2))
    with pytest.raises(ValueError, match="cannot be called.*range.*call=.*labels"):
        plain(ByIndex(), schedule=table, call=label(3))


def test_labels_are_passed():
    world = [MixtureWorld(torch.tensor([[m]], dtype=F64), 0.3) for m in (-0.5, 0.5)]
    family = families.build(random.Random(3), "flow")
    networks = nn.ModuleList([Foreign(each, family, "velocity") for each in world])
    x = torch.tensor([[0.4]], dtype=F64)

    def bound(y):
        model = plain(
            networks,
            predicts="velocity",
            schedule=family.process,
            call=lambda nets, z, t: nets[y](z, t),
            shape=(1,),
        )
        return dc.elbo(model, x.expand(400, 1), generator=generator(0)).total.mean()

    assert bound(1) < bound(0) - 1


def test_a_label_of_each_example_is_passed():
    """`given`: the bound of each example is that of a model with its label alone; a call that takes none is refused."""
    means = torch.tensor([[-0.5], [0.5]], dtype=F64)
    family = families.build(random.Random(3), "flow")
    x, noise = torch.tensor([[0.4], [0.1], [-0.2]], dtype=F64), normal(1, 3, 1)
    draws = dc.Draws(torch.tensor([0.3, 0.5, 0.8], dtype=F64), noise, noise)
    labels = torch.tensor([1, 0, 1])

    def says(nets, z, t, y=None):
        each = [net(z, t) for net in nets]
        return each[0] if y is None else torch.where(y[:, None] == 1, each[1], each[0])

    networks = nn.ModuleList([Foreign(MixtureWorld(m[None], 0.3), family, "x0") for m in means])
    model = plain(networks, predicts="x0", schedule=family.process, call=says, shape=(1,))
    found = dc.elbo(model.given(labels), x, draws=draws).diffusion
    for y in (0, 1):
        own = plain(networks[y], predicts="x0", schedule=family.process, shape=(1,))
        close(found[labels == y], dc.elbo(own, x, draws=draws).diffusion[labels == y])
    with pytest.raises(ValueError, match="conditions of 3 examples, but there are 2"):
        dc.elbo(model.given(labels), x[:2])
    with pytest.raises(ValueError, match="call takes no condition"):
        plain(lambda z, t: z, call=lambda net, z, t: net(z, t)).given(labels)
    late = plain(
        networks,
        predicts="x0",
        schedule=family.process,
        call=lambda n, z, t, y: says(n, z, t, y),
        shape=None,
    )
    close(dc.elbo(late.given(labels), x, draws=draws).diffusion, found)


def test_a_schedule_that_is_not_monotone_is_refused():
    with pytest.raises(ValueError, match="not monotone.*between times"):
        adapters.Pair(lambda t: 1 - t, lambda t: (t - 0.5) ** 2 + 0.1, 0.01, 0.99)
    with pytest.raises(ValueError, match="not monotone"):  # a dent on the way up
        adapters.Pair(lambda t: 1 - t, lambda t: t * (1 + 0.5 * torch.sin(30 * t)), 0.01, 0.99)
    with pytest.raises(ValueError, match="not monotone"):
        adapters.Table.of_sigmas(torch.tensor([3.0, 2.0]))
    with pytest.raises(ValueError, match="not monotone"):
        adapters.VarianceExploding(80.0, 0.002)
    with pytest.raises(ValueError, match="at time 1 the log SNR is not finite.*leave out"):
        adapters.Table.of_alphas_cumprod(torch.tensor([0.9, 0.0]))
    with pytest.raises(ValueError, match="not finite"):
        adapters.Pair(lambda t: 1 - t, lambda t: t, 0.0, 0.9)
    with refused(ValueError, "two times or more"):
        adapters.Table(torch.ones(3), torch.ones(2))
    with pytest.raises(ValueError, match="data_at=2"):
        adapters.RectifiedFlow(data_at=2)
    with pytest.raises(ValueError, match="two or more that increase"):
        adapters.TabulatedSchedule(torch.tensor([1.0, 0.0]))


def test_wrong_arguments_are_refused():
    with refused(TypeError, "schedule is a LinearSchedule.*dc.adapters"):
        plain(lambda z, t: z, schedule=dc.LinearSchedule())
    with refused(ValueError, "predicts='noise'.*'eps'"):
        plain(lambda z, t: z, predicts="noise")
    with refused(TypeError, "decoder is a int"):
        plain(lambda z, t: z, decoder=256)


def test_twice_the_channels_are_a_learned_variance_and_said_once():
    world = MixtureWorld(torch.tensor([[-0.7, 0.2], [0.6, 0.1]], dtype=F64), 0.3)
    family = families.build(random.Random(5), "betas")
    network = Foreign(world, family, "eps", channels=2)
    with pytest.warns(UserWarning, match="twice the channels.*learned variance.*ignored"):
        model = plain(network, schedule=family.process)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        z, gamma = normal(1, 4, 2), model.schedule(torch.linspace(0, 1, 4, dtype=F64)).gamma
        close(model.predict(z, gamma).x_hat, world.posterior_mean(z, gamma), 1e-8)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("own", [True, False])
def test_half_precision_networks_are_cast_in_and_out(dtype, own):
    """Also those that take times in their own precision only; nothing else is computed in it."""
    seen = []

    class Half(nn.Module):
        def __init__(self):
            super().__init__()
            self.line = nn.Linear(3, 2)

        def forward(self, z, t):
            seen.append((z.dtype, t.dtype))
            return self.line(torch.cat([z, (t if own else t.to(z.dtype))[:, None]], 1))

    model = plain(Half().to(dtype), schedule=adapters.Cosine())
    x = torch.zeros(3, 2)
    assert model.schedule.table.dtype == torch.float32
    terms = dc.elbo(model, x)
    assert terms.total.dtype == torch.float32 and terms.total.isfinite().all()
    assert seen[-1] == (dtype, dtype if own else torch.float32)
    levels = plain(Half().to(dtype), schedule=adapters.Cosine(), decoder=dc.Levels(8))
    assert levels.scale(torch.zeros(1, 2, dtype=torch.long)).dtype == torch.float32
    assert dc.sample(levels, 2, solver=dc.Exponential(steps=3)).z_0.dtype == torch.float32


def test_noise_that_begins_coarse_is_said_with_its_price():
    """DDPM's sigma_0 = 0.01 beside half of 2/255; nothing is said where it is finer, or of reals."""
    table = adapters.Table.of_betas(betas_of(1000, 1e-4, 0.02))
    world = MixtureWorld(torch.tensor([[-0.3], [0.2]], dtype=F64), 0.15)
    with pytest.warns(UserWarning, match=r"sigma_0 = 0\.01.*0\.00784.* 2\.4 bits.*reconstruction"):
        model = plain(lambda z, t: 0 * z, schedule=table, decoder=dc.Levels(256, ends=True))
    x = (127.5 * (1 + world.sample(2000, generator(0)).clamp(-1, 1))).round().long()
    price = dc.elbo(model, x, generator=generator(1)).bits_per_dimension().reconstruction.mean()
    assert abs(price - 2.4) < 0.1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        plain(lambda z, t: 0 * z, schedule=table)
        plain(lambda z, t: 0 * z, schedule=table, decoder=dc.Levels(16))
        plain(lambda z, t: 0 * z, schedule=adapters.Cosine(1e-3), decoder=dc.Levels(256))


# What else the library does with a model ---------------------------------------------------------


def test_the_scaling_of_reals_is_in_the_density():
    """Bytes as reals, scaled to (-1, 1): ln 127.5 a dimension, the 7 bits between other people's numbers and ours."""
    scale, x = torch.full((2,), 127.5, dtype=F64), normal(1, 3, 2)
    own = plain(lambda z, t: 0.5 * z, predicts="v")
    of_bytes = plain(
        lambda z, t: 0.5 * z, predicts="v", decoder=dc.model.Standardised(scale, scale)
    )
    solver = dc.Adams(atol=1e-3)
    one, other = (
        dc.log_likelihood(each, data, solver=solver)
        for each, data in ((own, x), (of_bytes, 127.5 * (x + 1)))
    )
    close(one.nats - other.nats, torch.full((3,), 2 * math.log(127.5), dtype=F64), 1e-6)
    assert abs(other.log_jacobian + 2 * math.log(127.5)) < 1e-12 and one.log_jacobian == 0


def test_a_calibration_is_the_worlds():
    world = MixtureWorld(torch.tensor([[-0.7, 0.2], [0.6, 0.1]], dtype=F64), 0.3)
    family = families.build(random.Random(6), "exploding")
    model = plain(Foreign(world, family, "denoiser"), predicts="denoiser", schedule=family.process)
    x = world.sample(40, generator(0))
    options = dc.CalibrationOptions(candidates=24)
    fits = [
        dc.calibrate(each, x, 4, options, generator=generator(1))
        for each in (model, world.model(model.schedule))
    ]
    assert abs(fits[0].loss - fits[1].loss) < 1e-6


def test_a_model_goes_to_another_precision_and_is_copied():
    world = MixtureWorld(torch.tensor([[-0.7, 0.2], [0.6, 0.1]], dtype=F64), 0.3)
    family = families.build(random.Random(7), "betas")
    model = plain(Foreign(world, family, "v"), predicts="v", schedule=family.process)
    z, gamma = normal(1, 3, 2), torch.tensor([-3.0, -1.0, 0.5], dtype=F64)
    single = copy.deepcopy(model).float().predict(z.float(), gamma.float()).x_hat
    assert single.dtype == torch.float32
    close(single.double(), model.predict(z, gamma).x_hat, 1e-3)
    assert model.predict(z.float(), gamma.float()).x_hat.dtype == torch.float32


def test_how_a_network_is_read_is_in_the_fingerprint():
    network = nn.Linear(2, 2)
    models = [
        dc.adapt(network, predicts=p, schedule=s, decoder=dc.Reals(), call=lambda n, z, t: n(z))
        for p, s in (("eps", FLOW), ("v", FLOW), ("eps", adapters.RectifiedFlow(data_at=1)))
    ]
    assert len({fingerprint(each) for each in models}) == 3


@given(st.integers(2, 30), seeds)
def test_the_rate_of_a_table(nodes, seed):
    table = normal(seed, nodes).exp().cumsum(0)
    check_schedule(adapters.TabulatedSchedule(table))
    point = adapters.TabulatedSchedule(table)(torch.linspace(0, 1, nodes, dtype=F64))
    close(point.gamma, table)
