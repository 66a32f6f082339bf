"""A budget as people write it: bytes, or a fraction of what store-all holds."""

import math
import re
from collections.abc import Iterator
from contextlib import contextmanager
from numbers import Integral, Real

from thetaone.errors import BudgetTooSmallError, InputError
from thetaone.records import Chain, parse_bytes, written_like
from thetaone.rematerialization.planning._policies import store_all

_PERCENT = re.compile(r"\s*([0-9]*\.?[0-9]+)\s*%\s*")
_FRACTION = re.compile(r"\s*(0?\.[0-9]+|1\.0*)\s*")


def budget_bytes(chain: Chain, budget: int | float | str) -> int:
    """A budget in bytes: a number of them, ``"2GiB"``, ``"50%"`` or a fraction of store-all.

    Raises:
        InputError: Not a quantity of bytes, or a fraction outside (0, 1].

    Examples:
        >>> from thetaone.records import Stage
        >>> stage = Stage(name="block", forward_seconds=1.0, backward_seconds=2.0, output_bytes=1,
        ...               tape_bytes=16)
        >>> chain = Chain(input_bytes=1, stages=(stage,) * 24)
        >>> budget_bytes(chain, 0.5), budget_bytes(chain, "50%"), budget_bytes(chain, "2K")
        (193, 193, 2048)
    """
    fraction = _fraction(budget)
    if fraction is None:
        return parse_bytes(budget if isinstance(budget, str) else int(budget))
    if not 0 < fraction <= 1:
        raise InputError(
            f"budget={budget!r}: a fraction of store-all lies in (0, 1], or 0% to 100%; "
            "write bytes with a unit, e.g. 512MiB"
        )
    return max(1, int(fraction * store_all(chain).peak_bytes))


@contextmanager
def naming_floor(chain: Chain, budget: int | float | str) -> Iterator[None]:
    """Name the floor in the unit of the budget, where no schedule fits it.

    Raises:
        BudgetTooSmallError: The one that was raised inside, in other words.
    """
    try:
        yield
    except BudgetTooSmallError as error:
        enough = _in_unit_of(budget, error.floor_bytes, store_all(chain).peak_bytes)
        raise error.as_asked(str(budget), enough) from None


def _in_unit_of(budget: int | float | str, size: int, whole: int) -> str:
    if _fraction(budget) is None:
        return written_like(size, str(budget))
    thousandths = math.ceil(1000 * size / whole)
    if isinstance(budget, str) and "%" in budget:
        return f"{thousandths / 10:g}%"
    return f"{thousandths / 1000:g}"


def _fraction(budget: int | float | str) -> float | None:
    """The fraction that a budget stands for; None for bytes."""
    if isinstance(budget, bool) or not isinstance(budget, str | Real):
        raise InputError(f"budget={budget!r}: need bytes, e.g. '512MiB', or a fraction in (0, 1]")
    if isinstance(budget, str):
        if percent := _PERCENT.fullmatch(budget):
            return float(percent[1]) / 100
        return float(budget) if _FRACTION.fullmatch(budget) else None
    if isinstance(budget, Integral):
        return None
    try:
        number = float(budget)
    except OverflowError:
        number = math.inf
    return None if number.is_integer() and number > 1 else number
