"""Checks, their verdicts, and how they are shown."""

import math
from dataclasses import dataclass


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
