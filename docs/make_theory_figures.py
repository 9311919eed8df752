"""The figures of the theory, from closed-form worlds: no sampling, no training. Run it to write docs/figures/*.png.

depth.png        L_T against T, with variance ratio and noise level fixed or optimal
tightness.png    what the ELBO loses along lambda, and the noise level that loses least, for three encoders
flow.png         how far the probability flow's output is from the data, tied against paired heads
"""

from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import torch
from matplotlib.axes import Axes
from torch import Tensor

import diffenc_ct as dc
from diffenc_ct.dynamics import ProbabilityFlow
from diffenc_ct.worlds import GaussianWorld, LinearEncoder

GAMMA_0, GAMMA_1 = -13.3, 5.0
SCHEDULE = dc.LinearSchedule(GAMMA_0, GAMMA_1)
HERE = Path(__file__).parent / "figures"
BLUE, ORANGE, GREEN, RED, GREY = "#2066a8", "#d9822b", "#2f8f5b", "#b3393f", "#777777"

plt.rcParams.update(
    {
        "font.size": 9,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "grid.alpha": 0.25,
        "grid.linewidth": 0.6,
        "lines.linewidth": 1.6,
        "legend.frameon": False,
        "mathtext.fontset": "cm",
    }
)


def learned(gamma: Tensor) -> Tensor:
    """A = alpha^2 I + sigma^2 W, the trainable encoder with a linear y = W x that stretches and turns."""
    noise = torch.sigmoid(gamma)[:, None, None]
    turn = torch.tensor([[0.2, -0.6], [0.6, 0.9]], dtype=torch.float64)
    return (1 - noise) * torch.eye(2, dtype=torch.float64) + noise * turn


MEAN = torch.tensor([0.3, -0.2], dtype=torch.float64)
COVARIANCE = torch.tensor([[0.5, 0.2], [0.2, 0.3]], dtype=torch.float64)
WORLDS = {
    name: GaussianWorld(MEAN, COVARIANCE, encoder)
    for name, encoder in {
        "identity (VDM)": dc.IdentityEncoder(),
        "non-trainable": dc.NonTrainableEncoder(),
        "trainable, linear $y$": LinearEncoder(learned),
    }.items()
}
COLOURS = dict(zip(WORLDS, (BLUE, ORANGE, GREEN), strict=True))


def slope(ax: Axes, start: tuple[float, float], power: int, decades: float = 0.7) -> None:
    """A short reference line T^power."""
    x0, y0 = start
    x1 = x0 * 10**decades
    ax.plot([x0, x1], [y0, y0 * 10 ** (decades * power)], color=GREY, lw=0.9)
    ax.text(x1, y0 * 10 ** (decades * power), f" $T^{{{power}}}$", color=GREY, va="center")


def depth() -> None:
    world = GaussianWorld(
        MEAN[:1], torch.tensor([0.5], dtype=torch.float64), dc.NonTrainableEncoder()
    )
    tight = dc.NonTrainableNoiseLevel()
    steps = [int(2**k) for k in torch.arange(3, 13.1, 0.5).tolist()]
    curves = (
        ("$w = 1.05,\\ \\eta = 1$", 1.05, 1.0, RED, "-"),
        ("$w = 1,\\ \\eta = 1$  (the paper)", 1.0, 1.0, BLUE, "-"),
        ("$w = w_*,\\ \\eta = 1$", "optimal", 1.0, GREEN, "-"),
        ("$w = w_*,\\ \\eta = \\eta_*$", "optimal", tight, ORANGE, "-"),
    )
    figure, ax = plt.subplots(figsize=(7.6, 3.8), layout="constrained")
    for label, ratio, level, colour, style in curves:
        limit = world.infinite_depth_loss(GAMMA_0, GAMMA_1, level)
        grids = [torch.linspace(GAMMA_0, GAMMA_1, T + 1, dtype=torch.float64) for T in steps]
        off = [float(world.finite_depth_loss(g, level, ratio) - limit) for g in grids]
        ax.loglog(steps, [abs(v) for v in off], style, color=colour, label=label)
        for sign, face in ((1, colour), (-1, "white")):
            points = [(T, abs(v)) for T, v in zip(steps, off, strict=True) if v * sign > 0]
            if points:
                ax.loglog(*zip(*points, strict=True), "o", ms=3.5, color=colour, mfc=face, zorder=3)
    ax.plot([], [], "o", ms=3.5, color=GREY, label="$L_T$ above $L_\\infty$")
    ax.plot([], [], "o", ms=3.5, color=GREY, mfc="white", label="$L_T$ below $L_\\infty$")
    slope(ax, (1500, 5e-3), -1, 0.5)
    slope(ax, (200, 3e-6), -2, 0.6)
    slope(ax, (1000, 1.1), 1, 0.6)
    ax.set(
        xlabel="steps $T$ (uniform in $\\gamma$)",
        ylabel="$|L_T - L_\\infty|$  (nats)",
        title="Non-trainable encoder, Gaussian data in one dimension",
    )
    ax.legend(fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
    figure.savefig(HERE / "depth.png", dpi=120)


def tightness() -> None:
    lam = torch.linspace(-GAMMA_1, 9.0, 400, dtype=torch.float64)
    gamma = -lam
    figure, (left, right) = plt.subplots(1, 2, figsize=(8.4, 3.3), layout="constrained")
    for name, world in WORLDS.items():
        star = world.optimal_noise_level_squared(gamma)
        colour = COLOURS[name]
        best = dc.TabulatedNoiseLevel(gamma.flip(0), star.flip(0))
        left.plot(lam, world.gap_rate(gamma), color=colour, label=name)
        left.plot(lam, world.gap_rate(gamma, best), color=colour, ls="--")
        right.plot(lam, star, color=colour, label=name)
    left.plot([], [], color=GREY, label="$\\eta = 1$")
    left.plot([], [], color=GREY, ls="--", label="$\\eta = \\eta_*$")
    left.set(
        xlabel="$\\lambda$ = log signal-to-noise ratio",
        ylabel="excess of the ELBO  (nats per unit of $\\lambda$)",
        title="What a perfect network still loses",
    )
    right.set(
        xlabel="$\\lambda$ = log signal-to-noise ratio",
        ylabel="$\\eta_*^2$",
        title="The noise level that loses least",
    )
    left.legend(fontsize=8)
    right.legend(fontsize=8)
    figure.savefig(HERE / "tightness.png", dpi=110)


def divergence(p: tuple[Tensor, Tensor], q: tuple[Tensor, Tensor]) -> float:
    """KL between two Gaussians (mean, covariance), nats."""
    normals = [torch.distributions.MultivariateNormal(*each) for each in (p, q)]
    return float(torch.distributions.kl_divergence(*normals))


def transported(world: GaussianWorld, heads: str, steps: int) -> float:
    """KL of the data's q_0 from what Heun's method makes of q_1: affine steps map a Gaussian to a Gaussian."""
    flow = ProbabilityFlow(world.model(SCHEDULE, heads=heads))
    grid = torch.linspace(1, 0, steps + 1, dtype=torch.float64)
    ends = torch.tensor([GAMMA_0, GAMMA_1], dtype=torch.float64)
    laws = world.marginal(ends)
    d = world.dimensions
    points = torch.cat([torch.zeros(1, d, dtype=torch.float64), torch.eye(d, dtype=torch.float64)])
    for t, s in zip(grid[:-1], grid[1:], strict=True):
        first = flow(t, points)
        second = flow(s, points + (s - t) * first)
        points = points + (s - t) / 2 * (first + second)
    shift, matrix = points[0], (points[1:] - points[0]).mT
    mean = matrix @ laws.mean[1] + shift
    covariance = matrix @ laws.covariance_matrix[1] @ matrix.mT
    return divergence((laws.mean[0], laws.covariance_matrix[0]), (mean, covariance))


def flow() -> None:
    steps = [8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512]
    figure, ax = plt.subplots(figsize=(5.6, 4.0), layout="constrained")
    for name in list(WORLDS)[1:]:
        for heads, style, marker, size in (("single", ":", "s", 6.5), ("paired", "-", "o", 3)):
            kl = [transported(WORLDS[name], heads, n) for n in steps]
            kind = "tied" if heads == "single" else "paired"
            ax.loglog(
                steps,
                kl,
                style,
                marker=marker,
                ms=size,
                mfc="none" if kind == "tied" else COLOURS[name],
                color=COLOURS[name],
                label=f"{name}: {kind}",
            )
    x = [60, 300]
    ax.plot(x, [3e-6, 3e-6 * (x[0] / x[1]) ** 4], color=GREY, lw=0.9)
    ax.text(x[1], 3e-6 * (x[0] / x[1]) ** 4, " steps$^{-4}$", color=GREY, va="center")
    ax.set(
        xlabel="steps of Heun's method",
        ylabel="KL(data $q_0\\,\\|\\,$output of the flow)  (nats)",
        title="Probability flow with optimal heads",
    )
    ax.legend(fontsize=8, loc="lower left")
    figure.savefig(HERE / "flow.png", dpi=120)


if __name__ == "__main__":
    HERE.mkdir(exist_ok=True)
    for draw in (depth, tightness, flow):
        draw()
