"""Numbers of the command line: the types of options, which refuse what is out of range in words; counts in words."""

import argparse
import math
import re
from collections.abc import Callable


def whole(least: int, most: int = 10**18) -> Callable[[str], int]:
    """The type of an option: whole numbers from `least` to `most`."""

    def convert(text: str) -> int:
        number = int(text) if re.fullmatch(r"[+-]?[0-9]{1,18}", text) else None
        if number is None or number < least:
            raise argparse.ArgumentTypeError(f"{text!r}; give a whole number of at least {least}")
        if number > most:
            raise argparse.ArgumentTypeError(f"{text!r}; give a whole number of at most {most}")
        return number

    return convert


# Of a larger seed PyTorch's generator of the CPU sees the last 32 bits alone.
seed = whole(0, 2**32 - 1)


def positive(text: str) -> float:
    """The type of an option: numbers above 0, and finite."""
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not 0 < number < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r}; give a number above 0")
    return number


def finite(text: str) -> float:
    """The type of an option: numbers that are finite."""
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise argparse.ArgumentTypeError(f"{text!r}; give a finite number")
    return number


def noise_level(text: str) -> str:
    """The type of --noise-level: a word, or a number whose fourth power is one of single precision.

    Bounds have eta^4/eta^2 in them: beyond it they would be infinite or no number.
    """
    try:
        number = float(text)
    except ValueError:
        return text
    if number == 0 or 1e-6 <= number <= 1e6:
        return text
    raise argparse.ArgumentTypeError(f"noise_level={text}; give 0, or a number from 1e-6 to 1e6")


def counted(number: int, what: str) -> str:
    """So many of something.

    Args:
        number: of them.
        what: one of them is called.

    Example:
        >>> counted(1, "image"), counted(2000, "image")
        ('1 image', '2,000 images')
    """
    return f"{number:,} {what}{'s' * (number != 1)}"
