"""Which weights a thing was fitted to: a digest of a module's tensors."""

import hashlib

import torch
from torch import nn


def fingerprint(module: nn.Module) -> str:
    """The SHA-256 of a module's tensors and their names, the same on every device.

    Args:
        module: such as a model; what its state_dict holds counts, and the `mark` of a model's decoder and heads.

    Example:
        >>> one, other = (nn.Linear(2, 2) for _ in range(2))
        >>> fingerprint(one) == fingerprint(one), fingerprint(one) == fingerprint(other)
        (True, False)
    """
    digest = hashlib.sha256()
    for name, value in module.state_dict().items():
        values = value.detach().cpu().contiguous().flatten()
        digest.update(name.encode() + values.view(torch.uint8).numpy().tobytes())
    # What no tensor says: where levels lie, how a network is read.
    for part in ("decoder", "heads"):
        digest.update(getattr(getattr(module, part, None), "mark", "").encode())
    return digest.hexdigest()


def check_fitted_to(fitted: str | None, module: nn.Module, where: str, remedy: str) -> None:
    """Refuse what was fitted to other weights.

    Args:
        fitted: the fingerprint that was kept with it; None, as files of version 0.1 have it, for what is believed.
        module: it is to be used with.
        where: the file.
        remedy: what to do, for the error.

    Raises:
        ValueError: naming file and remedy.
    """
    if fitted is not None and fitted != fingerprint(module):
        raise ValueError(f"{where} was fitted to other weights than this model's; {remedy}")
