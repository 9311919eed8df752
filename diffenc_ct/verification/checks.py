"""Checks, their verdicts, and how they are shown."""

import math
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Check:
    """value against expected; error: the standard error of their difference; allowance: known truncation error."""

    name: str
    value: float
    expected: float
    error: float
    allowance: float = 0.0

    @property
    def deviations(self) -> float:
        """How many standard errors the difference is beyond the allowance; NaN counts as infinite."""
        beyond = max(0.0, abs(self.value - self.expected) - self.allowance)
        result = beyond / max(self.error, 1e-12)
        return math.inf if math.isnan(result) or math.isnan(self.value) else result

    @property
    def passed(self) -> bool:
        return self.deviations <= 4


@dataclass(frozen=True)
class Verification:
    """All checks, and per depth of the ladder L_T and L_T(w*) with standard errors, bits per dimension."""

    checks: tuple[Check, ...]
    depths: tuple[int, ...]
    loss: tuple[float, ...]
    loss_error: tuple[float, ...]
    best_loss: tuple[float, ...]
    best_loss_error: tuple[float, ...]
    infinite: float

    @property
    def passed(self) -> bool:
        return all(check.passed for check in self.checks)

    def table(self) -> str:
        """Both tables as text, losses in bits per dimension."""
        lines = [
            f"{'T':>6}{'L_T':>12}{'± s.e.':>10}{'L_T(w*)':>12}{'± s.e.':>10}{'L_T - L_inf':>14}"
        ]
        rows = zip(
            self.depths,
            self.loss,
            self.loss_error,
            self.best_loss,
            self.best_loss_error,
            strict=True,
        )
        for T, a, b, c, e in rows:
            lines.append(
                f"{T:>6}{a:>12.5f}{b:>10.5f}{c:>12.5f}{e:>10.5f}{a - self.infinite:>14.5f}"
            )
        lines += [
            "",
            f"{'check':<52}{'value':>12}{'expected':>12}{'s.e.':>10}{'off by':>10}  verdict",
        ]
        for check in self.checks:
            verdict = "ok" if check.passed else "FAILED"
            lines.append(
                f"{check.name:<52}{check.value:>12.5f}{check.expected:>12.5f}{check.error:>10.5f}"
                f"{check.deviations:>8.1f} se  {verdict}"
            )
        return "\n".join(lines)

    def figure(self, path: str | Path) -> None:
        """L_T and L_T(w*) above L_inf against T, and every check in standard errors."""
        import matplotlib

        matplotlib.use("Agg")
        from matplotlib import pyplot

        figure, (left, right) = pyplot.subplots(1, 2, figsize=(10, 3.8), layout="constrained")
        for label, values in (("$w = 1$", self.loss), ("$w_*$", self.best_loss)):
            left.loglog(self.depths, [abs(v - self.infinite) for v in values], "o-", label=label)
        first = abs(self.loss[0] - self.infinite)
        left.loglog(
            self.depths, [first * self.depths[0] / T for T in self.depths], "k:", label="$1/T$"
        )
        left.set(xlabel="depth T", ylabel="$|L_T - L_\\infty|$, bits per dimension")
        left.legend()
        colours = ["tab:blue" if c.passed else "tab:red" for c in self.checks]
        deviations = [min(c.deviations, 8.0) for c in self.checks]
        right.barh([c.name for c in self.checks], deviations, color=colours)
        right.axvline(4, color="k", lw=0.8)
        right.invert_yaxis()
        right.set(xlabel="standard errors beyond the allowance")
        figure.savefig(path, dpi=150)
        pyplot.close(figure)
