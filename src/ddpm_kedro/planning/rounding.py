"""Numbers as a plan shows them."""

import math


def two_digits(number: float) -> int:
    """Round a number ≥ 0 down to two significant digits, so that equal devices get equal plans.

    >>> two_digits(61_789)
    61000
    """
    if number < 10:
        return int(number)
    unit = 10 ** (math.floor(math.log10(number)) - 1)
    return int(number // unit * unit)


def two_figures(number: float) -> float:
    """Round a number > 0 to two significant digits."""
    return float(f"{number:.1e}")


def duration(seconds: float) -> str:
    """Return a duration with its two largest units, such as ``1h 30min``."""
    for unit, size, smaller, part in (("d", 86_400, "h", 3_600), ("h", 3_600, "min", 60), ("min", 60, "s", 1)):
        if seconds >= size:
            rest = int(seconds % size // part)
            return f"{int(seconds // size)}{unit}" + (f" {rest}{smaller}" if rest else "")
    return f"{seconds:.0f}s"
