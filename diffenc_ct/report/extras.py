"""Packages that only some commands need, imported where they are needed.

`import diffenc_ct` asks for the required dependencies alone. A module that needs more calls `require` inside the
function that needs it, so that whoever lacks a package learns what to install, and only when it matters.
"""

from importlib import import_module
from types import ModuleType

__all__ = ["EXTRAS", "MissingExtra", "require"]

# Extra of pyproject.toml -> what it is for, as the error says it.
EXTRAS = {
    "adapters": "this network",
    "cli": "this configuration file",
    "coding": "lossless coding",
    "data": "these data",
    "figures": "figures",
    "jax": "the authors' checkpoints",
    "report": "the page of a run",
    "tensorboard": "TensorBoard's files",
    "theory": "the proofs",
}

# Packages that are installed under another name than they are imported by.
_DISTRIBUTIONS = {"PIL": "pillow", "sklearn": "scikit-learn"}


class MissingExtra(ImportError):
    """A package of one of the extras is not installed; the message is one line that says what to install."""


def require(module: str, extra: str) -> ModuleType:
    """The module, imported.

    Args:
        module: dotted name of what to import, `matplotlib.figure`.
        extra: the extra of pyproject.toml that installs it, a key of `EXTRAS`.
    Returns:
        The module itself, not its first package.
    Raises:
        MissingExtra: the package is not installed. An error from within an installed package stays what it is.
    Example:
        >>> require("json", "data").dumps([1])
        '[1]'
    """
    purpose = EXTRAS[extra]
    package = module.partition(".")[0]
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        if error.name != package:
            raise  # the package is there; something that it needs is not
        needed = _DISTRIBUTIONS.get(package, package)
        raise MissingExtra(
            f"{needed} is needed for {purpose}: pip install 'diffenc-ct[{extra}]'", name=package
        ) from error
