r"""Given the data $x$, the forward process is a linear diffusion with a drift that follows the encoder. Its marginals,
transitions and posteriors are Gaussians with isotropic covariance, so dimensions decouple and the proofs are scalar.
For $s < t$: $\alpha_{ts} = \alpha_t/\alpha_s$, $\sigma_{ts}^2 = \sigma_t^2 - \alpha_{ts}^2\sigma_s^2$. The noise level
$\eta(t)$ names one of many joint laws that share the marginals: $\eta = 1$ is the diffusion itself.
"""

from __future__ import annotations

from ._core import Theorem
from ._process_forward import THEOREMS as _FORWARD
from ._process_posterior import THEOREMS as _POSTERIOR

THEOREMS: tuple[Theorem, ...] = _FORWARD + _POSTERIOR
