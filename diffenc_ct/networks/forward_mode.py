"""Is PyTorch's forward-mode differentiation at work on a tensor? Asked through public functions only.

There are two ways into forward mode:

    torch.autograd.forward_ad    a dual tensor carries its tangent, and `unpack_dual` shows it;
    torch.func                   every transform (jvp, vmap, grad, ...) wraps the tensor once more.

A tangent may lie below the outermost wrapper: `unpack_dual` does not see it in jvp(grad(f)) and fails in jvp(vmap(f)).
So inside transforms the wrapper itself is what to ask for.

torch.compile cannot trace the second question: it traces transforms, too, and there are no wrappers while it does.
"""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd import forward_ad


def tangent(x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"] | None:
    """The tangent of a dual tensor, None where x is not one.

    Args:
        x: a tensor outside all transforms of torch.func.
    Returns:
        The tangent at the current level of forward_ad.
    """
    found: Tensor | None = forward_ad.unpack_dual(x).tangent  # type: ignore[no-untyped-call]
    return found


def transformed(x: Float[Tensor, "..."]) -> bool:
    """Whether a transform of torch.func is at work on x.

    Args:
        x: any tensor.
    Returns:
        True inside a transform of x, whichever it is. False while torch.compile traces.
    """
    return not torch.compiler.is_compiling() and torch.func.debug_unwrap(x) is not x
