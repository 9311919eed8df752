r"""The evidence lower bound splits into reconstruction, prior and diffusion loss, $-\log p(x) \le L_0 + L_1 + L_T$. The
diffusion loss is a sum of Kullback-Leibler divergences between Gaussians; with $T$ steps it tends to an integral over
depth as $T \to \infty$. Errors of the heads are written $a = x_t - \hat x$ and $b = x_t' - \hat r$, with $\kappa = (1 +
\eta^2)/2$; $w$ is the ratio of the model's variance to the posterior's.
"""

from __future__ import annotations

from ._core import Theorem
from ._elbo_depth import THEOREMS as _DEPTH
from ._elbo_estimators import THEOREMS as _ESTIMATORS
from ._elbo_integrand import THEOREMS as _INTEGRAND
from ._elbo_ratio import THEOREMS as _RATIO
from ._elbo_steps import THEOREMS as _STEPS
from ._mixture_steps import THEOREMS as _MIXTURE_STEPS

THEOREMS: tuple[Theorem, ...] = _STEPS + _DEPTH + _INTEGRAND + _RATIO + _ESTIMATORS + _MIXTURE_STEPS
