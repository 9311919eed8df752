"""The interior of a learned schedule is trained to minimise the variance of the loss's estimate.

L_inf depends on gamma(t) through its end points only, so to what lies between them the ELBO says nothing, but the
variance of its estimate depends on it. Since E[l] does not, l an example's diffusion loss at its depth,

    grad Var[l] = grad E[l^2] = E[2 l grad l],      grad l = dl/dgamma grad gamma(t) + dl/dgamma' grad gamma'(t),

which the one backward pass of the loss has but for the factor: it stops at gamma and gamma', and goes on from there
with 2 l times what arrived. Everything else, the end points included, has the loss's own gradient.

Reference: Kingma et al. 2021, appendix I.2.
"""

from typing import Any

import torch
from torch import Tensor

from diffenc_ct.model import DiffEnc
from diffenc_ct.schedules import SchedulePoint


class InteriorGradient:
    """While entered, it notes where the schedule is evaluated; then `backward` takes the place of loss.backward."""

    def __init__(self, model: DiffEnc) -> None:
        self.schedule, self.interior = model.schedule, list(model.schedule.interior())
        inside = {id(parameter) for parameter in self.interior}
        self.others = [p for p in model.parameters() if p.requires_grad and id(p) not in inside]
        self.points: list[SchedulePoint] = []

    def __enter__(self) -> "InteriorGradient":
        def note(module: Any, arguments: Any, point: SchedulePoint) -> None:
            if point.gamma.ndim:  # not an end point
                self.points.append(point)

        self.hook = self.schedule.register_forward_hook(note)
        return self

    def __exit__(self, *error: Any) -> None:
        self.hook.remove()

    def backward(self, loss: Tensor, diffusion: Tensor, *, retain_graph: bool = False) -> None:
        """Gradients of `loss`, and in the interior of the mean of diffusion^2, where loss is the mean over the batch.

        diffusion: (batch,), the part of the loss that is integrated over t.
        """
        if not self.interior:
            loss.backward(retain_graph=retain_graph)
            return
        (point,) = self.points
        levels = [point.gamma, point.rate]
        found = torch.autograd.grad(
            loss, [*levels, *self.others], retain_graph=True, allow_unused=True
        )
        for parameter, gradient in zip(self.others, found[2:], strict=True):
            if gradient is not None:
                parameter.grad = gradient if parameter.grad is None else parameter.grad + gradient
        through = [2 * diffusion.detach() * gradient for gradient in found[:2]]
        torch.autograd.backward(levels, through, inputs=self.interior, retain_graph=retain_graph)
        self.points.clear()
