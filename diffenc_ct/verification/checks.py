"""Checks, their verdicts, and how they are shown."""

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Check:
    """One identity: two numbers that must agree.

    Attributes:
        name: what is compared.
        value: the one.
        expected: the other.
        error: the standard error of their difference.
        allowance: the truncation error that is known beforehand.
    Example:
        >>> Check("a sum", 1.0, 0.9, error=0.02, allowance=0.04).passed  # three standard errors beyond
        True
    """

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
        """Whether the two agree within four standard errors."""
        return self.deviations <= 4


@dataclass(frozen=True)
class Verification:
    """All checks, and the losses of every depth of the ladder, bits per dimension.

    Attributes:
        checks: one for each identity.
        depths: T.
        loss: L_T at w = 1.
        loss_error: its standard error.
        best_loss: L_T at w*.
        best_loss_error: its standard error.
        infinite: L_inf, extrapolated.
    """

    checks: tuple[Check, ...]
    depths: tuple[int, ...]
    loss: tuple[float, ...]
    loss_error: tuple[float, ...]
    best_loss: tuple[float, ...]
    best_loss_error: tuple[float, ...]
    infinite: float

    @property
    def passed(self) -> bool:
        """Whether every check is."""
        return all(check.passed for check in self.checks)

    def table(self) -> str:
        """Losses (bits per dimension) and checks as text."""
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
