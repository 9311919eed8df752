"""Models of other packages' objects against those packages' own functions: noising, losses, denoised values."""

import math
import random
from types import SimpleNamespace

import pytest
import torch
from torch import nn

import diffenc_ct as dc
from diffenc_ct import adapters
from diffenc_ct.adapters.native import NativeProcess
from diffenc_ct.schedules import alpha, expand, sigma
from diffenc_ct.worlds import MixtureWorld
from tests.adapters.foreign import Foreign, families
from tests.strategies import close, generator, normal

F64 = torch.float64
IMAGE = (1, 8, 8)
WORLD = MixtureWorld(0.6 * normal(0, 2, *IMAGE), 0.3)
POINTS = MixtureWorld(torch.tensor([[-0.7, 0.2], [0.6, 0.1]], dtype=F64), 0.3)

# sigma_0 of most of these tables is above half a bin, which is another test's business.
pytestmark = pytest.mark.filterwarnings("ignore:the network's least noise")


def world_points(model, world, count=5, seed=1):
    """gammas from end to end, data, noise and this library's latents there."""
    gamma = model.schedule(torch.linspace(0, 1, count, dtype=F64)).gamma.double()
    x, noise = world.sample(count, generator(seed)), normal(seed, count, *world.shape)
    return gamma, x, noise, expand(alpha(gamma), x) * x + expand(sigma(gamma), x) * noise


def is_the_world(model, world, tolerance=1e-5):
    gamma, _, _, z = world_points(model, world)
    close(model.predict(z, gamma).x_hat.double(), world.posterior_mean(z, gamma), tolerance)


def process_of(model) -> NativeProcess:
    return model.heads.process


# diffusers -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def hugging_face():
    return pytest.importorskip("diffusers")


def unet(hugging_face, outputs=1, **options):
    torch.manual_seed(0)
    blocks = {"down_block_types": ("DownBlock2D",) * 2, "up_block_types": ("UpBlock2D",) * 2}
    sizes = {"block_out_channels": (8, 8), "norm_num_groups": 4, "layers_per_block": 1}
    return hugging_face.UNet2DModel(
        sample_size=8, in_channels=1, out_channels=outputs, **blocks, **sizes, **options
    ).eval()


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction", "sample"])
@pytest.mark.parametrize("betas", ["linear", "scaled_linear", "squaredcos_cap_v2"])
def test_their_noise_and_training_loss_are_ours(hugging_face, kind, betas):
    """add_noise gives our z, and their mean squared error at given (x, t, noise) follows from our `errors`."""
    network = unet(hugging_face).double()
    scheduler = hugging_face.DDPMScheduler(prediction_type=kind, beta_schedule=betas)
    model = adapters.diffusers(network, scheduler, decoder=dc.Reals())
    assert model.shape == IMAGE
    x, noise = WORLD.sample(4, generator(0)), normal(1, 4, *IMAGE)
    times = torch.tensor([1, 7, 400, 990])
    gamma = process_of(model).gamma(times.double())
    z = expand(alpha(gamma), x) * x + expand(sigma(gamma), x) * noise
    close(scheduler.add_noise(x, noise, times), z, 1e-6)
    target = {
        "epsilon": noise,
        "sample": x,
        "v_prediction": scheduler.get_velocity(x, noise, times),
    }[kind]
    with torch.no_grad():
        theirs = (network(z, times).sample - target).square().mean((1, 2, 3))
        errors = model.errors(z, noise, model.encoder(x, gamma), gamma).x
    weight = {
        "epsilon": torch.exp(-gamma),
        "sample": torch.ones(4, dtype=F64),
        "v_prediction": 1 / sigma(gamma) ** 2,
    }[kind]
    close(weight * errors.square().mean((1, 2, 3)), theirs, 1e-4)


def test_ddpms_variational_bound(hugging_face):
    """Ho et al. 2020, equations 5 to 12, by their means and variances; the decoder is ours, which needs no network."""
    network = unet(hugging_face).double()
    scheduler = hugging_face.DDPMScheduler()
    model = adapters.diffusers(network, scheduler)
    steps = 999
    k = torch.tensor([1, 2, 30, 500, 999])  # from time k to time k - 1
    x = torch.randint(0, 256, (5, *IMAGE), generator=generator(0))
    noise, noise_0 = normal(1, 5, *IMAGE), normal(2, 5, *IMAGE)
    draws = dc.Draws(t=(k - 0.5) / steps, noise=noise, noise_0=noise_0)
    with torch.no_grad():
        ours = dc.elbo(model, x, dc.FiniteDepth(process_of(model).depths()), draws=draws)

        data, share = x.double() / 127.5 - 1, scheduler.alphas_cumprod.double()
        bar, before = (expand(share[i], data) for i in (k, k - 1))
        a, b = bar / before, 1 - bar / before
        z = bar.sqrt() * data + (1 - bar).sqrt() * noise
        eps = network(z, k).sample
        variance = (1 - before) / (1 - bar) * b
        true = before.sqrt() * b / (1 - bar) * data + a.sqrt() * (1 - before) / (1 - bar) * z
        mean = (z - b / (1 - bar).sqrt() * eps) / a.sqrt()
        diffusion = steps * ((true - mean).square() / (2 * variance)).flatten(1).sum(1)
        last = share[-1]
        latent = 0.5 * (last * data.square() + (1 - last) - 1 - (1 - last).log()).flatten(1).sum(1)
        first = share[0]
        u = data + ((1 - first) / first).sqrt() * noise_0
        levels = torch.arange(256, dtype=F64) / 127.5 - 1
        logits = -((u[..., None] - levels) ** 2) * first / (2 * (1 - first))
        chosen = logits.log_softmax(-1).gather(-1, x[..., None])
    close(ours.diffusion.double(), diffusion, 1e-7)
    close(ours.latent.double(), latent, 1e-8)
    close(ours.reconstruction.double(), -chosen.flatten(1).sum(1), 1e-8)
    own = adapters.with_last_step(model)
    with torch.no_grad():
        theirs = dc.elbo(own, x, dc.FiniteDepth(process_of(model).depths()), draws=draws)
        z_1 = first.sqrt() * data + (1 - first).sqrt() * noise_0
        mean = (
            z_1 - (1 - first).sqrt() * network(z_1, torch.zeros(5).long()).sample
        ) / first.sqrt()
        law = torch.distributions.Normal(mean, (1 - first).sqrt())
        above = torch.where(x == 255, 1.0, law.cdf(data + 1 / 255))
        below = torch.where(x == 0, 0.0, law.cdf(data - 1 / 255))
        mass = above - below
        likely = mass > 1e-9  # where a difference of two probabilities has digits
        likely = likely.flatten(1).all(1)
    assert likely.sum() >= 3
    close(theirs.diffusion, ours.diffusion, 1e-12)
    wanted = -mass.log().flatten(1).sum(1)
    close(theirs.reconstruction[likely], wanted[likely], 1e-6)


def test_labels_and_learned_variances(hugging_face):
    """Labels change the model and are checked; of twice the channels the first half is read."""
    scheduler = hugging_face.DDPMScheduler()
    network = unet(hugging_face, num_class_embeds=3).double()
    z, gamma = normal(1, 2, *IMAGE), torch.tensor([-2.0, 1.0], dtype=F64)
    found = [
        adapters.diffusers(network, scheduler, conditions={"class_labels": torch.tensor([y])})
        .predict(z, gamma)
        .x_hat
        for y in (0, 2)
    ]
    assert (found[0] - found[1]).abs().max() > 1e-3
    model = adapters.diffusers(network, scheduler, conditions={"class_labels": torch.tensor([0])})
    of_each = model.given(torch.tensor([0, 2])).predict(z, gamma).x_hat
    close(of_each, torch.stack([found[0][0], found[1][1]]), 1e-9)
    with pytest.raises(ValueError, match="cannot be called.*labels in its range"):
        adapters.diffusers(network, scheduler, conditions={"class_labels": torch.tensor([3])})
    with pytest.raises(ValueError, match="cannot be called.*class_labels"):
        adapters.diffusers(network, scheduler)
    with pytest.warns(UserWarning, match="learned variance"):
        adapters.diffusers(unet(hugging_face, outputs=2), scheduler)


class Wrapped(nn.Module):
    """A function called as diffusers' networks are."""

    def __init__(self, says):
        super().__init__()
        self.says, self.config = says, SimpleNamespace(sample_size=8, in_channels=1)

    def forward(self, z, t, return_dict=True):
        return (self.says(z, t),)


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
def test_edms_scheduler_preconditions_a_network_of_a_world(hugging_face, kind):
    """F such that c_skip z + c_out F = E[x | z]: the adapted model is the world."""
    scheduler = hugging_face.EDMEulerScheduler(prediction_type=kind)
    family = families.build(random.Random(0), "exploding")
    denoiser = Foreign(WORLD, family, "denoiser")
    told = family.process.told or (lambda s: s)

    def raw(scaled, c_noise):
        s = torch.exp(4 * c_noise.double())
        noise = expand(s, scaled)
        z = scaled * torch.sqrt(noise**2 + 0.25)
        out = denoiser(z, told(s)) - 0.25 / (noise**2 + 0.25) * z
        c_out = noise * 0.5 / torch.sqrt(noise**2 + 0.25)
        return out / (c_out if kind == "epsilon" else -c_out)

    model = adapters.diffusers(Wrapped(raw), scheduler, decoder=dc.Reals())
    assert model.schedule.fixed_start == pytest.approx(2 * math.log(0.002))
    assert float(model.schedule.table[-1]) == pytest.approx(2 * math.log(80))
    is_the_world(model, WORLD)


@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_flow_matchings_scheduler(hugging_face, shift):
    """scale_noise gives our z up to its scale, and their loss noise - x follows from ours; a shift changes nothing."""
    scheduler = hugging_face.FlowMatchEulerDiscreteScheduler(shift=shift)
    network = unet(hugging_face).double()
    model = adapters.diffusers(network, scheduler, decoder=dc.Reals())
    x, noise = WORLD.sample(3, generator(0)), normal(1, 3, *IMAGE)
    times = scheduler.timesteps[torch.tensor([900, 500, 20])]
    part = (times / 1000).double()
    gamma = 2 * torch.log(part / (1 - part))
    z = expand(alpha(gamma), x) * x + expand(sigma(gamma), x) * noise
    theirs = scheduler.scale_noise(x, times, noise)
    r = expand(part, x)
    close(theirs, torch.sqrt(r**2 + (1 - r) ** 2) * z, 1e-6)
    with torch.no_grad():
        loss = (network(theirs, times.double()).sample - (noise - x)).square().mean((1, 2, 3))
        errors = model.errors(z, noise, model.encoder(x, gamma), gamma).x
    close(errors.square().mean((1, 2, 3)) / part**2, loss, 1e-4)


def test_schedulers_that_are_not_understood(hugging_face):
    network = unet(hugging_face)
    with pytest.raises(ValueError, match="neither alphas_cumprod.*dc.adapt"):
        adapters.diffusers(network, SimpleNamespace(config=SimpleNamespace()))
    odd = SimpleNamespace(config=SimpleNamespace(prediction_type="noise"), alphas_cumprod=None)
    with pytest.raises(ValueError, match="prediction_type 'noise' is none of epsilon"):
        adapters.diffusers(network, odd)
    zero = hugging_face.DDPMScheduler(rescale_betas_zero_snr=True)
    with pytest.raises(ValueError, match="at time 999 the log SNR is not finite"):
        adapters.diffusers(network, zero)


# The others ----------------------------------------------------------------------------------------


class Ours(nn.Module):
    """A world's network with the face of lucidrains' Unet."""

    channels = out_dim = 1
    self_condition = False

    def __init__(self, says=None):
        super().__init__()
        self.says, self.weight = says, nn.Parameter(torch.ones((), dtype=F64))

    def forward(self, x, t, x_self_cond=None):
        return (
            self.says(x, t)
            if self.says
            else 0.3 * x + self.weight * t.to(x)[:, None, None, None] / 999
        )


@pytest.mark.parametrize("objective", ["pred_noise", "pred_x0", "pred_v"])
@pytest.mark.parametrize("betas", ["linear", "cosine", "sigmoid"])
def test_lucidrains_loss_is_ours(objective, betas):
    """p_losses at given images in (0, 1), times and noise, by its own weights, from our `errors`."""
    lucid = pytest.importorskip("denoising_diffusion_pytorch")
    diffusion = lucid.GaussianDiffusion(
        Ours(), image_size=8, objective=objective, beta_schedule=betas
    )
    model = adapters.denoising_diffusion_pytorch(diffusion, rounded=True)
    assert model.shape == IMAGE and model.decoder == dc.Levels(256, ends=True)
    x = torch.randint(0, 256, (3, *IMAGE), generator=generator(0))
    noise, times = normal(1, 3, *IMAGE), torch.tensor([5, 400, 900])
    images = x.double() / 255
    gamma = process_of(model).gamma(times.double())
    data = model.scale(x)
    close(diffusion.normalize(images), data, 1e-12)
    z = expand(alpha(gamma), data) * data + expand(sigma(gamma), data) * noise
    close(diffusion.q_sample(data, times, noise), z, 1e-5)
    with torch.no_grad():
        errors = model.errors(z, noise, model.encoder(data, gamma), gamma).x
        theirs = torch.stack(
            [
                diffusion.p_losses(data[i : i + 1], times[i : i + 1], noise=noise[i : i + 1])
                for i in range(3)
            ]
        ).double()
    weight = {"pred_noise": torch.exp(-gamma), "pred_x0": 1, "pred_v": 1 / sigma(gamma) ** 2}
    own = diffusion.loss_weight[times].double() * weight[objective]
    torch.testing.assert_close(own * errors.square().mean((1, 2, 3)), theirs, rtol=1e-3, atol=1e-6)


def test_lucidrains_images_that_are_not_scaled():
    lucid = pytest.importorskip("denoising_diffusion_pytorch")
    diffusion = lucid.GaussianDiffusion(Ours(), image_size=8, auto_normalize=False)
    with pytest.raises(ValueError, match="auto_normalize=False.*decoder="):
        adapters.denoising_diffusion_pytorch(diffusion)
    assert (
        adapters.denoising_diffusion_pytorch(diffusion, decoder=dc.Reals()).decoder.levels is None
    )


def test_lucidrains_elucidated_diffusion_is_an_edm():
    lucid = pytest.importorskip("denoising_diffusion_pytorch")
    family = families.build(random.Random(0), "exploding")
    told = family.process.told or (lambda s: s)
    denoiser = Foreign(WORLD, family, "denoiser")

    def raw(scaled, c_noise):
        s = torch.exp(4 * c_noise.double())
        noise = expand(s, scaled)
        z = scaled * torch.sqrt(noise**2 + 0.25)
        out = denoiser(z, told(s)) - 0.25 / (noise**2 + 0.25) * z
        return out / (noise * 0.5 / torch.sqrt(noise**2 + 0.25))

    inner = Ours(raw)
    inner.random_or_learned_sinusoidal_cond = True
    diffusion = lucid.ElucidatedDiffusion(inner, image_size=8, channels=1)
    model = adapters.edm(
        diffusion,
        call=lambda net, z, s: net.preconditioned_network_forward(z, s),
        decoder=dc.Reals(),
        shape=IMAGE,
    )
    assert model.schedule.fixed_start == pytest.approx(2 * math.log(0.002))
    is_the_world(model, WORLD)


def test_edm_networks_say_their_shape_and_range():
    """The face of NVIDIA's preconditioned networks: infinite ends are EDM's own."""

    class Net(nn.Module):
        img_channels, img_resolution, sigma_min, sigma_max = 1, 8, 0.0, math.inf

        def forward(self, x, sigma, class_labels=None):
            assert class_labels is None or len(class_labels) == len(x)
            return 0 * x + (0 if class_labels is None else class_labels.sum(1)[:, None, None, None])

    model = adapters.edm(Net())
    assert model.shape == IMAGE and model.schedule.fixed_start == pytest.approx(2 * math.log(0.002))
    narrow = adapters.edm(Net(), sigma_min=0.01, sigma_max=50)
    assert float(narrow.schedule.table[-1]) == pytest.approx(2 * math.log(50))
    labelled = adapters.edm(Net(), conditions={"class_labels": torch.ones(1, 4)})
    assert (labelled.predict(torch.zeros(2, *IMAGE), torch.zeros(2)).x_hat == 4).all()


@pytest.mark.parametrize(
    "kind", ["VESchedule", "VPSchedule", "CosineSchedule", "RectifiedSchedule"]
)
def test_azulas_denoisers(kind):
    """A denoiser with a world's mean, on azula's schedules."""
    denoise, noise_module = (pytest.importorskip(f"azula.{n}") for n in ("denoise", "noise"))
    schedule = getattr(noise_module, kind)()

    class OfWorld(denoise.Denoiser):
        def __init__(self):
            super().__init__()
            self.schedule = schedule

        def forward(self, x_t, t, **kwargs):
            a, s = self.schedule(t)
            gamma, scale = 2 * torch.log(s / a), expand(torch.sqrt(a**2 + s**2), x_t)
            return denoise.DiracPosterior(POINTS.posterior_mean(x_t / scale, gamma))

    model = adapters.azula(OfWorld(), decoder=dc.Reals(), shape=(2,))
    is_the_world(model, POINTS, 1e-7)
    ends = model.schedule(torch.tensor([0.0, 1.0], dtype=F64)).gamma
    a, s = schedule(torch.tensor([0.0, 1.0], dtype=F64))
    close(ends, 2 * torch.log(s / a), 1e-9)


def test_azulas_preconditioned_loss_is_ours():
    denoise, noise_module = (pytest.importorskip(f"azula.{n}") for n in ("denoise", "noise"))
    torch.manual_seed(0)

    class Backbone(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = nn.Linear(3, 2, dtype=F64)

        def forward(self, x, t):
            return self.net(torch.cat([x, t[:, None]], 1))

    denoiser = denoise.KarrasDenoiser(Backbone(), noise_module.VPSchedule())
    model = adapters.azula(denoiser, decoder=dc.Reals(), shape=(2,))
    t, x = torch.tensor([0.1, 0.5, 0.9], dtype=F64), POINTS.sample(3, generator(0))
    a, s = denoiser.schedule(t)
    gamma = 2 * torch.log(s / a)
    theirs = []
    for i in range(3):
        torch.manual_seed(i)
        theirs.append(denoiser.loss(x[i : i + 1], t[i : i + 1]))
    noises = []
    for i in range(3):
        torch.manual_seed(i)
        noises.append(torch.randn_like(x[i : i + 1]))
    noise = torch.cat(noises)
    z = expand(alpha(gamma), x) * x + expand(sigma(gamma), x) * noise
    with torch.no_grad():
        errors = model.errors(z, noise, model.encoder(x, gamma), gamma).x
    close((torch.exp(-gamma) + 1) * errors.square().mean(1), torch.stack(theirs).detach(), 1e-7)


def test_flow_matchings_own_likelihood():
    """Meta's ODESolver.compute_likelihood at tight tolerance, for a network wrapped as theirs are."""
    solver_module = pytest.importorskip("flow_matching.solver")
    wrapper = pytest.importorskip("flow_matching.utils").ModelWrapper
    torch.manual_seed(0)

    class Theirs(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = nn.Sequential(nn.Linear(3, 16), nn.Tanh(), nn.Linear(16, 2)).double()

        def forward(self, x, t):
            return self.net(torch.cat([x, torch.broadcast_to(t, (len(x),))[:, None]], 1))

    network, x = wrapper(Theirs()), POINTS.sample(1, generator(0))
    standard = torch.distributions.Normal(torch.zeros(2, dtype=F64), 1.0)
    _, theirs = solver_module.ODESolver(network).compute_likelihood(
        x,
        torch.distributions.Independent(standard, 1).log_prob,
        step_size=None,
        method="dopri5",
        atol=1e-7,
        rtol=1e-7,
        exact_divergence=True,
        time_grid=torch.tensor([1.0, 0.0], dtype=F64),
    )
    model = adapters.flow_matching(network, margin=1e-6, shape=(2,))
    ours = dc.log_likelihood(model, x, solver=dc.Adams(atol=1e-6))
    close(ours.nats, theirs, 1e-4)


@pytest.mark.parametrize("data_at", [0, 1])
def test_conditional_flow_matchings_targets_are_our_velocity(data_at):
    """torchcfm: its x_t and u_t at given ends and times are our latent and what the errors are taken from."""
    cfm = pytest.importorskip("torchcfm")
    pytest.importorskip("ot")
    network = nn.Linear(2, 2, dtype=F64)
    model = adapters.flow_matching(
        network, call=lambda net, z, t: net(z), shape=(2,), data_at=data_at
    )
    x, noise, t = (
        POINTS.sample(3, generator(0)),
        normal(1, 3, 2),
        torch.tensor([0.2, 0.5, 0.9], dtype=F64),
    )
    _, x_t, u_t = cfm.ConditionalFlowMatcher(sigma=0.0).sample_location_and_conditional_flow(
        *((noise, x) if data_at else (x, noise)), t=t
    )
    part = 1 - t if data_at else t
    gamma = 2 * torch.log(part / (1 - part))
    z = expand(alpha(gamma), x) * x + expand(sigma(gamma), x) * noise
    close(torch.sqrt(part**2 + (1 - part) ** 2)[:, None] * z, x_t, 1e-10)
    with torch.no_grad():
        errors = model.errors(z, noise, model.encoder(x, gamma), gamma).x
        close(errors.square().sum(1) / part**2, (network(x_t) - u_t).square().sum(1), 1e-8)
