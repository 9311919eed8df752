"""The theory as a Markdown page that code hosts show with its formulas."""

from __future__ import annotations

import inspect
import re
from types import ModuleType

from ._core import Theorem
from ._links import code_links, test_links

_OPENING = r"""# The theory of DiffEnc in continuous time

This page is written by `python -m theory --write docs/theory.md`. Every formula on it is proved by
sympy when `python -m theory` runs, and so is that each proof has teeth: for every *control* listed,
the same computation with that one mistake in it must fail. Where code computes a formula, the tests
compare the two in high precision.

A proof is a residual that rewriting brings to exactly zero, by derivatives, integrals, limits and
series, never by putting in numbers. A control counts as caught only if the wrong residual has a value
that is certainly not zero.

## Notation

| symbol | meaning |
|---|---|
| $x$ | data, scaled to $(-1, 1)$; $d$ dimensions |
| $t \in [0, 1]$ | depth: 0 = data, 1 = noise; a step goes from $t$ to $s < t$ |
| $\gamma(t)$ | noise schedule, increasing; $\lambda = -\gamma = \log\mathrm{SNR}$; $\gamma' = d\gamma/dt$ |
| $\alpha^2, \sigma^2$ | $\mathrm{sigmoid}(-\gamma)$, $\mathrm{sigmoid}(\gamma)$; $\alpha^2 + \sigma^2 = 1$ |
| $\beta = \sigma^2\gamma'$ | squared diffusion coefficient |
| $x_t,\ x_t'$ | encoded data and their rate $dx_t/d\lambda$; $y$ is the trainable encoder's network |
| $z_t = \alpha x_t + \sigma\epsilon$ | latent, $\epsilon \sim \mathcal N(0, I)$; $v = \alpha\epsilon - \sigma x_t$ |
| $\hat x,\ \hat r$ | the model's estimates of $x_t$ and $x_t'$ from $z_t$ |
| $\eta,\ \kappa = (1 + \eta^2)/2$ | noise level of the reverse process |
| $\rho = e^{-\frac12\int_s^t\eta^2\gamma' du}$ | correlation of the noises at $s$ and $t$ |
| $\alpha_{ts} = \alpha_t/\alpha_s,\ \sigma_{ts}^2$ | $\sigma_{ts}^2 = \sigma_t^2 - \alpha_{ts}^2\sigma_s^2$ |
| $w$ | ratio of the model's step variance to the posterior's |

A prime on a function of $t$ is $d/dt$, except on $x_t'$, $x_t''$ and $y'$, where it is $d/d\lambda$.
"""

# Markdown may take a backslash before punctuation, or a star, for its own; a name is read the same everywhere.
_NAMED = {
    r"\,": r"\thinspace ",
    r"\;": r"\enspace ",
    r"\:": r"\thinspace ",
    r"\!": r"\negthinspace ",
    r"\|": r"\Vert ",
    r"\{": r"\lbrace ",
    r"\}": r"\rbrace ",
    "*": r"\ast ",
}
_TO_NAME = re.compile("|".join(map(re.escape, _NAMED)))
_INLINE = re.compile(r"(?<!\$)\$([^$]+)\$(?!\$)")


def render(sections: dict[str, ModuleType]) -> str:
    """The whole page, from section name -> module."""
    parts = [_inline(_OPENING)]
    for number, (name, module) in enumerate(sections.items(), start=1):
        chapter = inspect.cleandoc(module.__doc__ or "")
        parts.append(f"## {number}. {name.capitalize()}\n\n{_inline(chapter)}\n")
        parts.extend(_entry(theorem) for theorem in module.THEOREMS)
    return "\n".join(parts).rstrip() + "\n"


def _entry(theorem: Theorem) -> str:
    blocks = "\n\n".join(
        f"$$\n{_named(block.strip())}\n$$" for block in theorem.statement.split("\n\n")
    )
    lines = [
        f"### {theorem.name}\n",
        f"{blocks}\n",
        f"*Assumptions.* {_inline(theorem.assumptions)}\n",
        f"*Proof.* {_inline(theorem.proof)}\n",
        f"*Controls.* {'; '.join(f'`{wrong}`' for wrong in theorem.controls)}.\n",
    ]
    for label, links in (("Code", code_links(theorem)), ("Tests", test_links(theorem))):
        if links:
            lines.append(f"*{label}.* {', '.join(links)}\n")
    return "\n".join(lines)


def _named(formula: str) -> str:
    return _TO_NAME.sub(lambda found: _NAMED[found.group()], formula)


def _inline(text: str) -> str:
    return _INLINE.sub(lambda found: f"${_named(found.group(1)).strip()}$", text)
