"""Figures of an evaluation."""

from matplotlib.figure import Figure

from diffenc_ct.training.evaluation import Evaluation


def loss_by_depth(evaluation: Evaluation) -> Figure:
    """The integrand of the diffusion loss over depth, with standard errors."""
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
