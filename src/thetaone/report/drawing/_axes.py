"""Axes for figures: ranges that hold the data, round ticks, values as people write them."""

import math
from collections.abc import Iterable, Sequence

from thetaone.records import format_bytes, format_seconds
from thetaone.report.drawing._figure import Axis, Quantity

_SUPERSCRIPT = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def power_of_two(exponent: float) -> str:
    """A whole power of two as people write it.

    Examples:
        >>> power_of_two(-6)
        '2⁻⁶'
    """
    return "2" + f"{exponent:.0f}".translate(_SUPERSCRIPT)


def format_value(value: float, quantity: Quantity) -> str:
    """A value of an axis in words, for tables, hover and ticks.

    Examples:
        >>> format_value(2**-7, "rate"), format_value(0.0118, "rate"), format_value(1536, "bytes")
        ('2⁻⁷', '0.0118 (2^−6.41)', '1.5 KiB')
    """
    if not math.isfinite(value):
        return "diverged" if value > 0 else "–"
    if quantity == "rate":
        return _rate(value)
    if value == 0:
        return "0"
    if quantity == "bytes":
        return format_bytes(value)
    if quantity == "seconds":
        return format_seconds(value)
    if quantity == "count":
        return f"{value:,.0f}"
    if quantity == "exponent":
        return f"{value:+.2f}".replace("-", "−")
    return f"{value:.4g}".replace("-", "−")


def linear_axis(
    label: str,
    values: Iterable[float],
    *,
    quantity: Quantity = "number",
    pad: float = 0.05,
    floor: float | None = None,
    n_ticks: int = 5,
) -> Axis:
    """A linear axis that holds the finite ones of ``values``.

    Args:
        label: What is measured.
        values: What must be visible; NaN and inf are left out.
        quantity: How values are written.
        pad: Room on either side, as a share of the extent.
        floor: Lower end of the axis; the data decide when it is None.
        n_ticks: About how many ticks [count].

    Returns:
        The axis; a single value gets room around it.

    Examples:
        >>> linear_axis("loss", [2.0, 4.0], pad=0.0).ticks
        ((2.0, '2'), (2.5, '2.5'), (3.0, '3'), (3.5, '3.5'), (4.0, '4'))
    """
    finite = [value for value in values if math.isfinite(value)] or [0.0, 1.0]
    low = min(finite) if floor is None else floor
    high = max(finite)
    extent = (high - low) or abs(high) or 1.0
    low = low - pad * extent if floor is None else floor
    high += pad * extent
    ticks = tuple(
        (tick, _tick(tick, quantity)) for tick in _round_ticks(low, high, quantity, n_ticks)
    )
    return Axis(label=label, range=(low, high), ticks=ticks, quantity=quantity)


def log_axis(
    label: str, values: Iterable[float], *, quantity: Quantity = "number", pad: float = 0.06
) -> Axis:
    """A logarithmic axis that holds the positive finite ones of ``values``.

    Rates get ticks at powers of two, everything else at 1, 2 and 5 times powers of ten.

    Examples:
        >>> log_axis("learning rate", [2**-8, 2**-6], quantity="rate", pad=0.0).ticks
        ((0.00390625, '2⁻⁸'), (0.0078125, '2⁻⁷'), (0.015625, '2⁻⁶'))
    """
    finite = [value for value in values if math.isfinite(value) and value > 0] or [1.0, 10.0]
    low, high = math.log2(min(finite)), math.log2(max(finite))
    room = pad * ((high - low) or 2.0)
    low, high = low - room, high + room
    if quantity == "rate":
        step = max(1, math.ceil((high - low) / 8))
        powers = range(math.ceil(low), math.floor(high) + 1, step)
        ticks = [(2.0**power, power_of_two(power)) for power in powers]
    else:
        ticks = [(tick, _tick(tick, quantity)) for tick in _decades(2.0**low, 2.0**high)]
    return Axis(
        label=label, range=(2.0**low, 2.0**high), ticks=tuple(ticks), quantity=quantity, log=True
    )


def size_axis(label: str, sizes: Sequence[int]) -> Axis:
    """A logarithmic axis with a tick at each size, for widths and depths.

    Examples:
        >>> size_axis("width", [32, 64]).ticks
        ((32, '32'), (64, '64'))
    """
    low, high = min(sizes), max(sizes)
    room = 2.0 ** (0.08 * (math.log2(high / low) or 2.0))
    ticks = tuple((size, f"{size:,}") for size in sorted(set(sizes)))
    return Axis(
        label=label, range=(low / room, high * room), ticks=ticks, quantity="count", log=True
    )


def category_axis(names: Sequence[str], label: str = "") -> Axis:
    """Rows from top to bottom: the first name is at the highest position.

    Examples:
        >>> category_axis(["embed", "head"]).ticks
        ((1, 'embed'), (0, 'head'))
    """
    ticks = tuple((len(names) - 1 - index, name) for index, name in enumerate(names))
    return Axis(label=label, range=(-0.6, len(names) - 0.4), ticks=ticks, quantity="category")


def _rate(value: float) -> str:
    if value <= 0:
        return "0"
    exponent = math.log2(value)
    if exponent == round(exponent):
        return power_of_two(exponent)
    return f"{value:.3g} (2^{exponent:.2f})".replace("-", "−")


def _tick(value: float, quantity: Quantity) -> str:
    return format_value(0.0 if abs(value) < 1e-300 else value, quantity)


def _round_ticks(low: float, high: float, quantity: Quantity, count: int) -> list[float]:
    base, unit = 10.0, 1.0
    if quantity == "bytes":  # round in the unit in which the ticks are written
        unit = 1024.0 ** max(0, math.floor(math.log(max(abs(high), 1.0), 1024)))
    raw = (high - low) / unit / count
    power = base ** math.floor(math.log10(raw))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= 0.75 * raw) * unit
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [index * step for index in range(first, last + 1)]


def _decades(low: float, high: float) -> list[float]:
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    fine = [factor * 10.0**power for power in powers for factor in (1, 2, 5)]
    for factors in (fine, fine[::3], fine[::6]):
        inside = [tick for tick in factors if low <= tick <= high]
        if len(inside) <= 7:
            return inside or [math.sqrt(low * high)]
    every = [tick for tick in fine[::3] if low <= tick <= high]
    return every[:: math.ceil(len(every) / 6)]
