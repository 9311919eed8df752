"""Solvers: declared orders in a nonlinear world, exact Gaussians in linear ones, coefficients, refusals."""

import functools
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import diffenc_ct as dc
from diffenc_ct.process import as_noise_level, posterior_std
from diffenc_ct.schedules import alpha
from diffenc_ct.solvers import SOLVERS, make_solver
from diffenc_ct.solvers.adapters import TORCHSDE_METHODS
from diffenc_ct.solvers.exponential import advance, data_frame, growth, lagrange, noise_frame
from diffenc_ct.solvers.grids import PLACEMENTS, depth_of, make_grid
from diffenc_ct.solvers.linear import kl_per_dimension, produced_gaussian
from diffenc_ct.solvers.problem import Grid, Problem
from diffenc_ct.worlds import GaussianWorld, LinearEncoder, MixtureWorld
from tests.conformance_solvers import check_solver
from tests.strategies import ScaleEncoder, close, normal, noise_levels, schedules

SCHEDULE = dc.LinearSchedule(-4.0, 3.0)
F64 = torch.float64


def log_snr_grid(steps: int, schedule: dc.Schedule = SCHEDULE, placement: str = "log-snr") -> Grid:
    t = make_grid(schedule, steps, placement).flip(0)
    return Grid(t, schedule(t).gamma)


@functools.cache
def mixture(kind: str) -> dc.DiffEnc:
    means = torch.tensor([[-0.9, 0.2], [0.1, 0.8], [0.7, -0.6]], dtype=F64)
    encoder = ScaleEncoder() if kind == "scale" else dc.IdentityEncoder()
    return MixtureWorld(means, 0.3, encoder).model(SCHEDULE)


def slope(errors: list[float], steps: list[int]) -> float:
    """The order by which errors fall between the last two numbers of steps."""
    return math.log(errors[-2] / errors[-1]) / math.log(steps[-1] / steps[-2])


# Deterministic orders -----------------------------------------------------------------------------

ORDERS = {
    **{name: ("identity", "scale") for name in SOLVERS if name.startswith("exponential")},
    "ancestral": ("identity", "scale"),
    **{
        f"torchdiffeq:{name}": ("identity",)
        for name in ("euler", "midpoint", "heun2", "heun3", "rk4")
    },
}


def flow(name: str, kind: str, steps: int, z: torch.Tensor) -> torch.Tensor:
    problem = Problem(mixture(kind), as_noise_level(0.0), torch.zeros_like)
    with torch.no_grad():
        return make_solver(name)(problem, z, log_snr_grid(steps))


@functools.cache
def flow_truth(kind: str) -> torch.Tensor:
    solver = make_solver("dopri8", rtol=1e-12, atol=1e-12)
    problem = Problem(mixture(kind), as_noise_level(0.0), torch.zeros_like)
    with torch.no_grad():
        return solver(problem, normal(3, 6, 2), log_snr_grid(1))


@pytest.mark.parametrize("name,kind", [(n, k) for n, kinds in ORDERS.items() for k in kinds])
def test_deterministic_order(name: str, kind: str) -> None:
    """The error against the exact flow falls with the declared order."""
    declared = make_solver(name).order(False)
    steps = [24, 48] if declared == 4 or "corrected-3" in name else [48, 96]
    errors = [float((flow(name, kind, n, normal(3, 6, 2)) - flow_truth(kind)).norm()) for n in steps]
    assert abs(slope(errors, steps) - declared) < 0.2, (declared, errors)


@pytest.mark.parametrize(
    "name",
    ["dopri5", "dopri8", "bosh3", "fehlberg2", "adaptive_heun", "RK45", "RK23", "DOP853", "Radau", "BDF", "LSODA"],
)
def test_adaptive_solvers_obey_their_tolerance(name: str) -> None:
    for tolerance in (1e-4, 1e-7):
        problem = Problem(mixture("scale"), as_noise_level(0.0), torch.zeros_like)
        solver = make_solver(name, rtol=tolerance, atol=tolerance)
        with torch.no_grad():
            z_0 = solver(problem, normal(3, 6, 2), log_snr_grid(1))
        # torchdiffeq's fehlberg2 underestimates its error.
        allowed = (1000 if name == "fehlberg2" else 60) * tolerance
        assert float((z_0 - flow_truth("scale")).abs().max()) < allowed


@pytest.mark.parametrize("name", ["explicit_adams", "implicit_adams", "fixed_adams"])
def test_torchdiffeq_adams_converge(name: str) -> None:
    """Their order varies along the path (up to 12), so an error is asserted, not a slope."""
    error = (flow(name, "scale", 256, normal(3, 6, 2)) - flow_truth("scale")).abs().max()
    assert float(error) < 1e-6


# Stochastic orders --------------------------------------------------------------------------------


class Path:
    """One Brownian path in three resolutions: what a step of a coarse grid draws, made from the fine grid's draws."""

    def __init__(self, seed: int, paths: int, fine: int) -> None:
        self.W = normal(seed, fine, paths, 2) / math.sqrt(fine)
        self.U = self.W / (2 * fine) + normal(seed + 1, fine, paths, 2) / math.sqrt(12) / fine**1.5

    def standardised(self, steps: int) -> list[torch.Tensor]:
        """W and space-time normals of each step of tau, as ImageBrownian asks for them."""
        fine = len(self.W)
        W, U = (v.unflatten(0, (steps, fine // steps)) for v in (self.W, self.U))
        before = W.cumsum(1) - W
        total, area, h = W.sum(1), (U + before / fine).sum(1), 1 / steps
        normals = zip(total / math.sqrt(h), (area / h - total / 2) / math.sqrt(h / 12), strict=True)
        return [e for pair in normals for e in pair]


def replay(draws: list[torch.Tensor]):
    remaining = list(draws)
    return lambda like: remaining.pop(0)


@functools.cache
def strong(method: str, steps: int) -> torch.Tensor:
    """z_0 of 256 paths of the reverse SDE with noise level 2, a Brownian path each, the same at every resolution."""
    schedule = dc.LinearSchedule(-2.5, 2.5)
    means = torch.tensor([[-0.9, 0.2], [0.1, 0.8], [0.7, -0.6]], dtype=F64)
    model = MixtureWorld(means, 0.5).model(schedule)
    noise = replay(Path(0, 256, 1024).standardised(steps))
    problem = Problem(model, as_noise_level(2.0), noise)
    with torch.no_grad():
        solver = make_solver(f"torchsde:{method}")
        return solver(problem, normal(5, 256, 2), log_snr_grid(steps, schedule))


@pytest.mark.parametrize("name", TORCHSDE_METHODS)
def test_strong_order_of_torchsde(name: str) -> None:
    """Mean error over shared Brownian paths, in reverse time on the generative SDE."""
    steps = [32, 128]
    errors = [float((strong(name, n) - strong("srk", 1024)).norm()) for n in steps]
    declared = make_solver(f"torchsde:{name}").order(True)
    assert abs(slope(errors, steps) - declared) < 0.2, errors


def coupled_noise(draws: torch.Tensor, fine: Grid, coarse: Grid, level: dc.NoiseLevel):
    """Standard normals of the coarse grid's steps whose noise in z/alpha is the sum of the fine grid's."""

    def std(grid: Grid) -> torch.Tensor:
        a, b = grid.gamma[:-1], grid.gamma[1:]
        return posterior_std(b, a, level) / alpha(b)

    ratio, lam, out = fine.steps // coarse.steps, -fine.gamma, []
    scaled = std(fine)[:, None, None] * draws
    for i, s in enumerate(std(coarse)):
        total = torch.zeros_like(draws[0])
        for j in range(i * ratio, (i + 1) * ratio):
            total = torch.exp(-growth(lam[j], lam[j + 1], level)) * total + scaled[j]
        out.append(total / s)
    return replay(out)


WEAK = ["exponential", "exponential-1", "exponential-2", "exponential-single-2", "ancestral"]
WIDE = dc.LinearSchedule(-2.0, 2.5)


@functools.cache
def weak(name: str, steps: int) -> float:
    """E||z_0||^2 over 20,000 paths with noise level 1 in a mixture world, their noise the same at every resolution."""
    means = torch.tensor([[-0.9, 0.2], [0.1, 0.8], [0.7, -0.6]], dtype=F64)
    model, level = MixtureWorld(means, 0.5, ScaleEncoder()).model(WIDE), as_noise_level(1.0)
    fine, grid = log_snr_grid(96, WIDE), log_snr_grid(steps, WIDE)
    noise = coupled_noise(normal(7, 96, 20000, 2), fine, grid, level)
    with torch.no_grad():
        z = make_solver(name)(Problem(model, level, noise), normal(8, 20000, 2), grid)
    return float((z**2).sum(1).mean())


@pytest.mark.parametrize("name", WEAK)
def test_weak_order_in_a_mixture(name: str) -> None:
    """It falls with the declared weak order, or faster: the multistep method's leading error is small here."""
    truth, steps = weak("exponential-single-2", 96), [12, 24]
    errors = [abs(weak(name, n) - truth) for n in steps]
    declared = make_solver(name).order(True)
    assert declared - 0.2 < slope(errors, steps) < declared + (0.8 if name in WEAK[::2][:2] else 0.2)


@pytest.mark.parametrize("name", WEAK)
def test_weak_order_exactly(name: str) -> None:
    """In a Gaussian world mean and covariance are exact, so the slope has no sampling error."""
    world = GaussianWorld(
        torch.tensor([0.3, -0.2], dtype=F64), torch.tensor([0.5, 0.1], dtype=F64), ScaleEncoder()
    )

    def produced(solver: str, steps: int) -> torch.Tensor:
        made, _ = produced_gaussian(
            world.model(WIDE), 2, make_solver(solver), log_snr_grid(steps, WIDE), 1.0
        )
        return torch.cat([made.mean, made.covariance_matrix.flatten()])

    truth, steps = produced("exponential-single-2", 512), [64, 128]
    errors = [float((produced(name, n) - truth).norm()) for n in steps]
    assert abs(slope(errors, steps) - make_solver(name).order(True)) < 0.2, errors


# Linear worlds, exactly ---------------------------------------------------------------------------


def matrix(gamma: torch.Tensor) -> torch.Tensor:
    """A trainable encoder's form with a linear y: alpha^2 I + sigma^2 (1/2 + 3/10 sin(lambda/4)) Q, Q a rotation."""
    Q = torch.linalg.qr(normal(0, 16, 16))[0]
    s = torch.sigmoid(gamma)[:, None, None]
    y = (0.5 - 0.3 * torch.sin(gamma / 4))[:, None, None] * Q
    return (1 - s) * torch.eye(16, dtype=F64) + s * y


LINEAR = dc.LinearSchedule(-13.3, 5.0)


def benchmark_world(encoder: dc.Encoder) -> GaussianWorld:
    return GaussianWorld(torch.full((16,), 0.3, dtype=F64), torch.logspace(-4, 0, 16, dtype=F64), encoder)


def produced_kl(world: GaussianWorld, name: str, steps: int, eta: float, placement: str) -> float:
    grid = log_snr_grid(steps, LINEAR, placement)
    produced, _ = produced_gaussian(world.model(LINEAR), 16, make_solver(name), grid, eta)
    return kl_per_dimension(produced, world, grid.gamma[-1])


@pytest.mark.parametrize("encoder", [dc.IdentityEncoder(), LinearEncoder(matrix)], ids=["vdm", "diffenc"])
def test_default_reaches_the_floor(encoder: dc.Encoder) -> None:
    """KL per dimension to q(z_0): at most 5e-4 at 10 evaluations, the start's mismatch by 14; with noise below 1e-4."""
    world = benchmark_world(encoder)
    assert produced_kl(world, "exponential", 10, 0.0, "balanced") < 5e-4
    assert produced_kl(world, "exponential", 14, 0.0, "balanced") < 3.15e-4
    assert produced_kl(world, "exponential", 50, 1.0, "balanced") < 1e-4


def test_exact_flow_keeps_the_start_mismatch() -> None:
    """A flow preserves KL: with many steps what is left is KL(N(0, I) || q(z_1)); more noise forgets it."""
    world = benchmark_world(dc.IdentityEncoder())
    start = torch.distributions.MultivariateNormal(torch.zeros(16, dtype=F64), torch.eye(16, dtype=F64))
    floor = kl_per_dimension(start, world, torch.tensor(5.0, dtype=F64))
    assert abs(produced_kl(world, "exponential", 160, 0.0, "balanced") / floor - 1) < 1e-2
    assert floor == pytest.approx(3.12e-4, rel=1e-2)


# Coefficients -------------------------------------------------------------------------------------


@given(noise_levels(), st.floats(-6, 6), st.floats(0.01, 4), st.integers(1, 3), st.integers(0, 9))
def test_constant_heads_are_integrated_exactly(level, a, h, k, seed) -> None:
    """With x_hat constant and r_hat = 0 both frames give the posterior's mean: u_b = x + e^-K (u - x)."""
    from diffenc_ct.solvers.exponential import Known

    lam = torch.tensor([a, a + h], dtype=F64)
    nodes = lam[0] - 0.7 * torch.arange(k, dtype=F64)
    x, u = normal(seed, 2, 3), normal(seed + 1, 2, 3)
    heads = dc.Heads(x, torch.zeros_like(x))
    keep = torch.exp(-growth(lam[0], lam[1], level))
    # Along the exact path u - x falls like e^-K, so n is constant.
    known = [Known(n, x + torch.exp(-growth(lam[0], n, level)) * (u - x), heads) for n in nodes]
    smooth = not isinstance(level, dc.TabulatedNoiseLevel)
    for frame in ("data", "noise"):
        moved = advance(u, lam[0], lam[1], known, level, frame)
        close(moved, x + keep * (u - x), 1e-8 if smooth else 2e-2)


@given(st.floats(-3, 3), st.floats(0.05, 2), st.sampled_from([0.0, 0.5, 1.0]), st.integers(0, 9))
def test_quadratic_heads_are_integrated_exactly(a, h, eta, seed) -> None:
    """A head that is a quadratic in lambda, through three values, is integrated exactly: against fine quadrature."""
    level, b = as_noise_level(eta), torch.tensor(a + h, dtype=F64)
    a = torch.tensor(a, dtype=F64)
    nodes = torch.stack([a, a - 0.6, a - 1.5])
    c = normal(seed, 3)
    fine = torch.linspace(0, 1, 20001, dtype=F64) * (b - a) + a
    poly = lambda l: c[0] + c[1] * l + c[2] * l**2  # noqa: E731
    kappa = (1 + eta**2) / 2
    s2 = lambda l: torch.sigmoid(-l)  # noqa: E731
    keep = torch.exp(-kappa * (b - fine))
    shrink, for_x, for_r = data_frame(a, b, nodes, level)
    close(shrink, torch.exp(-kappa * (b - a)))
    close(for_x @ poly(nodes), torch.trapezoid(keep * kappa * poly(fine), fine), 1e-7)
    close(for_r @ (s2(nodes) * poly(nodes)), torch.trapezoid(keep * s2(fine) * poly(fine), fine), 1e-7)
    for_n, for_r = noise_frame(a, b, nodes, level)
    decay = torch.exp(-kappa * (fine - a))
    n = torch.exp(-kappa * (nodes - a)) * poly(nodes)  # u - x_hat where n is the quadratic
    close(for_n @ n, -torch.trapezoid(decay * kappa * poly(fine), fine), 1e-7)
    close(for_r @ (s2(nodes) * poly(nodes)), torch.trapezoid(s2(fine) * poly(fine), fine), 1e-7)


def test_lagrange_basis() -> None:
    nodes = torch.tensor([0.3, -1.0, 2.0], dtype=F64)
    close(lagrange(nodes, nodes), torch.eye(3, dtype=F64))
    close(lagrange(nodes, normal(0, 5)).sum(0), torch.ones(5, dtype=F64))


def test_first_order_without_encoder_is_ddim() -> None:
    """With the identity encoder exponential Euler, in either frame, is the ancestral mean: DDIM."""
    z = normal(3, 6, 2)
    close(flow("exponential-1", "identity", 7, z), flow("ancestral", "identity", 7, z))
    close(flow("exponential-single-1", "identity", 7, z), flow("ancestral", "identity", 7, z))


# Grids --------------------------------------------------------------------------------------------


@given(schedules(), st.integers(1, 20), st.sampled_from(["uniform", *PLACEMENTS]))
def test_grids(schedule, steps, placement) -> None:
    t = make_grid(schedule, steps, placement)
    assert t.shape == (steps + 1,) and t[0] == 0 and t[-1] == 1 and (t.diff() > 0).all()
    if placement in PLACEMENTS:
        steps_of = PLACEMENTS[placement](-schedule(t).gamma).diff().detach()
        close(steps_of, steps_of.mean().expand(steps), 1e-6)


@given(schedules(), st.floats(0.01, 0.99))
def test_depth_of_inverts_the_schedule(schedule, t) -> None:
    t = torch.tensor([t], dtype=F64)
    gamma = schedule(t).gamma.detach()
    close(schedule(depth_of(schedule, gamma)).gamma.detach(), gamma, 1e-9)


# One's own solver, and refusals -------------------------------------------------------------------


def euler(problem: Problem, z: torch.Tensor, grid: Grid) -> torch.Tensor:
    """A user's solver: Euler-Maruyama in t."""
    for t, s in zip(grid.t[:-1], grid.t[1:], strict=True):
        g = problem.diffusion(t, z)
        z = z + problem.drift(z, t) * (s - t) + g * (t - s).sqrt() * problem.noise(z)
    return z


@pytest.mark.parametrize("solver", [euler, *(make_solver(n) for n in ("exponential", "ancestral", "srk"))])
def test_conformance(solver) -> None:
    check_solver(solver, noise_level=1.0)
    if not hasattr(solver, "sde_type"):
        check_solver(solver, noise_level=0.0)


def test_conformance_catches_wrong_solvers() -> None:
    def forgets_half(problem, z, grid):
        return euler(problem, z, Grid(grid.t[::2], grid.gamma[::2]))[:1].expand_as(z)

    def wrong_noise(problem, z, grid):
        for t, s in zip(grid.t[:-1], grid.t[1:], strict=True):
            g = problem.diffusion(t, z)
            z = z + problem.drift(z, t) * (s - t) + 3 * g * (t - s).sqrt() * problem.noise(z)
        return z

    for wrong in (forgets_half, wrong_noise, lambda problem, z, grid: z):
        with pytest.raises(AssertionError):
            check_solver(wrong, noise_level=1.0)


@pytest.mark.parametrize("name", ["exponentials", "euler", "midpoint", "dopri", "torchsde:srks", ""])
def test_unknown_names(name: str) -> None:
    with pytest.raises(ValueError, match="choose one of|Choose one of"):
        make_solver(name)


def test_unambiguous_names_need_no_prefix() -> None:
    assert make_solver("dopri5").method == "dopri5" and make_solver("srk").sde_type == "ito"


@pytest.mark.parametrize(
    "name,options", [("exponential", {"rtol": 1e-3}), ("rk4", {"atol": 1e-3}), ("dopri5", {"rtol": 0.0})]
)
def test_tolerances_are_refused(name: str, options: dict) -> None:
    with pytest.raises(ValueError, match="tol"):
        make_solver(name, **options)


def test_wrong_grids() -> None:
    with pytest.raises(ValueError, match="increasing"):
        make_grid(SCHEDULE, 2, torch.tensor([0.0, 0.7, 0.6, 1.0])[:3])
    with pytest.raises(ValueError, match="at least one step"):
        make_grid(SCHEDULE, 0, "balanced")
    with pytest.raises(ValueError, match="choose uniform"):
        make_grid(SCHEDULE, 3, "cosine")
    with pytest.raises(ValueError, match="orders 1, 2 and 3"):
        dc.solvers.ExponentialMultistep(4)
