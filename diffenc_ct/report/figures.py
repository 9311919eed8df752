"""Figures, by matplotlib. Importing this module needs the extra `figures`: import it where a figure is drawn."""

from diffenc_ct.report.extras import require

require("matplotlib", "figures")

from jaxtyping import Shaped  # noqa: E402
from matplotlib.figure import Figure  # noqa: E402
from torch import Tensor  # noqa: E402

from diffenc_ct.report.maps import BitMaps  # noqa: E402
from diffenc_ct.training.evaluation import Evaluation  # noqa: E402
from diffenc_ct.verification import Verification  # noqa: E402


def loss_by_depth(evaluation: Evaluation) -> Figure:
    """The integrand of the diffusion loss over depth, with standard errors.

    Args:
        evaluation: whose estimates they are.
    """
    rows = evaluation.by_depth()
    figure = Figure(figsize=(6, 3.6), layout="constrained")
    axes = figure.subplots()
    axes.errorbar(
        [row["t"] for row in rows],
        [row["bpd"] for row in rows],
        [row["error"] for row in rows],
        fmt="o-",
        ms=3,
    )
    axes.set(
        xlabel="depth t",
        ylabel="loss, bits per dimension per unit of t",
        xlim=(0, 1),
        ylim=(0, None),
    )
    mean, error = evaluation.mean("diffusion"), evaluation.error("diffusion")
    axes.set_title(f"mean {mean:.4f} ± {error:.4f}", fontsize=10)
    return figure


def identities(found: Verification) -> Figure:
    """L_T and L_T(w*) above L_inf against T, and every check in standard errors.

    Args:
        found: what `verify` found.
    """
    figure = Figure(figsize=(10, 3.8), layout="constrained")
    left, right = figure.subplots(1, 2)
    for label, values in (("$w = 1$", found.loss), ("$w_*$", found.best_loss)):
        left.loglog(found.depths, [abs(v - found.infinite) for v in values], "o-", label=label)
    first = abs(found.loss[0] - found.infinite)
    falling = [first * found.depths[0] / T for T in found.depths]
    left.loglog(found.depths, falling, "k:", label="$1/T$")
    left.set(xlabel="depth T", ylabel="$|L_T - L_\\infty|$, bits per dimension")
    left.legend()
    colours = ["tab:blue" if c.passed else "tab:red" for c in found.checks]
    right.barh(
        [c.name for c in found.checks],
        [min(c.deviations, 8.0) for c in found.checks],
        color=colours,
    )
    right.axvline(4, color="k", lw=0.8)
    right.invert_yaxis()
    right.set(xlabel="standard errors beyond the allowance")
    return figure


def bit_maps_figure(found: BitMaps, images: Shaped[Tensor, "N *data"]) -> Figure:
    """A row an image: itself, all its bits, and its bits between neighbouring noise levels, on one scale a column.

    Args:
        found: of these images.
        images: levels or reals, one channel or three; bits are summed over channels.
    """
    bins = found.diffusion.shape[1]
    rows, columns = len(images), 2 + bins
    figure = Figure(figsize=(1.1 * columns + 0.6, 1.15 * rows + 0.5), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False)
    bits = [found.total.sum(1), *found.diffusion.sum(2).unbind(1)]
    edges = [f"{edge:.1f}" for edge in found.gamma.tolist()]
    names = ["", "all", *(f"{a} to {b}" for a, b in zip(edges[:-1], edges[1:], strict=True))]
    for i, row in enumerate(grid):
        picture = images[i].float().movedim(0, -1)
        low, high = picture.min(), picture.max()
        row[0].imshow((picture - low) / (high - low).clamp(min=1e-9), cmap="gray")
        for axes, values in zip(row[1:], bits, strict=True):
            axes.imshow(values[i], cmap="viridis", vmin=0, vmax=values.max().item())
            axes.set_xlabel(f"{values[i].sum():.0f} bits", fontsize=7, labelpad=2)
        for axes, name in zip(row, names, strict=True):
            axes.set(xticks=[], yticks=[])
            if i == 0:
                axes.set_title(name, fontsize=7)
    figure.suptitle("bits of each pixel, by $\\gamma$ = -log SNR", fontsize=9)
    return figure
