"""Bytes and seconds as people write them: ``"2GiB"``, ``"20ns"``."""

import math
import operator
import re
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from thetaone.errors import InputError

LARGEST_BYTES = 2**60  # 1 EiB: sums of a few of these still fit 64 bits
_POWERS = {"k": 1, "m": 2, "g": 3, "t": 4, "p": 5}
_BYTES = {"": 1, "b": 1} | {
    prefix + suffix: base**power
    for prefix, power in _POWERS.items()
    for suffix, base in (("b", 1000), ("", 1024), ("i", 1024), ("ib", 1024))
}
_SECONDS = {
    "ns": 1e-9, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ms": 1e-3, "s": 1.0, "sec": 1.0,
    "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86400.0,
}  # fmt: skip
_QUANTITY = re.compile(
    r"\s*((?:[0-9][0-9_]*)?\.?[0-9]+(?:e[+-]?[0-9]+)?|[0-9][0-9_]*\.?)\s*([a-zµμ]*)\s*",
    re.IGNORECASE,
)


def whole_number(value: Any, *, where: str, least: int, most: int) -> int:
    """A count that was passed as an argument, as an ``int``.

    Args:
        value: What was passed.
        where: Name of the argument, for the message.
        least: Smallest that is allowed.
        most: Largest that is allowed.

    Raises:
        InputError: No whole number, or outside these limits.

    Examples:
        >>> whole_number(5, where="repeats", least=1, most=100)
        5
    """
    try:
        number = None if isinstance(value, bool) else operator.index(value)
    except TypeError:
        number = None
    if number is None or not least <= number <= most:
        raise InputError(f"{where}={value!r}: need a whole number from {least:,} to {most:,}")
    return number


def written_like(size: int, like: str) -> str:
    """Bytes in the unit of another quantity, rounded up to hundredths.

    Examples:
        >>> written_like(3_174_528, "1KiB"), written_like(3_174_528, "1G"), written_like(7, "3")
        ('3100.13KiB', '0.01G', '7')
    """
    unit = _QUANTITY.fullmatch(like)
    suffix = "" if unit is None else unit[2]
    factor = _BYTES.get(suffix.lower(), 1)
    hundredths = -(-size * 100 // factor)
    return f"{hundredths / 100:.2f}".rstrip("0").rstrip(".") + suffix


def parse_bytes(text: str | int, *, where: str = "budget") -> int:
    """Bytes of ``"2GiB"`` (2³¹), ``"64MB"`` (64·10⁶) or a plain number.

    Args:
        text: A number of bytes, or a number with a unit: B; kB, MB, GB, TB, PB are powers of 1000;
            K, M, G, T, P are powers of 1024, alone or as KiB, Gi. Capitals and small letters mean
            the same, and b is a byte: memory is not counted in bits.
        where: What the quantity is, for the message.

    Raises:
        InputError: Not a quantity of bytes between 1 and 2⁶⁰.

    Examples:
        >>> parse_bytes("2GiB"), parse_bytes("2G"), parse_bytes("2GB")
        (2147483648, 2147483648, 2000000000)
    """
    number, unit = _parse(str(text), _BYTES, "512MiB, 2GiB or a number of bytes", where)
    if abs(number.adjusted()) > 30:  # neither multiplied nor turned into an integer
        value = LARGEST_BYTES + 1 if number.adjusted() > 0 else 0
    else:
        value = int(number * _BYTES[unit])
    if value < 1:
        raise InputError(f"{where}={text!r}: need at least 1 byte; write e.g. 512MiB")
    if value > LARGEST_BYTES:
        raise InputError(
            f"{where}={text!r}: more than 1 EiB, which no machine has; write e.g. 512MiB"
        )
    return value


def parse_seconds(text: str | float, *, where: str = "duration") -> float:
    """Seconds of ``"20ns"``, ``"1.5ms"`` or a plain number.

    Args:
        text: A number of seconds, or a number with a unit: ns, us, µs, ms, s, min, h, d.
        where: What the quantity is, for the message.

    Raises:
        InputError: Not a duration.

    Examples:
        >>> parse_seconds("20ns")
        2e-08
    """
    number, unit = _parse(str(text), {"": 1.0, **_SECONDS}, "20ns, 1.5ms or 2s", where)
    value = float(number) * _SECONDS.get(unit, 1.0)
    if not math.isfinite(value):
        raise InputError(f"{where}={text!r} is not a finite time; write e.g. 20ns, 1.5ms or 2s")
    return value


def format_bytes(value: float) -> str:
    """Bytes with a binary unit and four significant digits: ``"1.5 GiB"``.

    Examples:
        >>> format_bytes(1610612736)
        '1.5 GiB'
    """
    units = ("B", "KiB", "MiB", "GiB", "TiB")
    size, power = float(value), 0
    while abs(size) >= 1024 and power < len(units) - 1:
        size, power = size / 1024, power + 1
    return f"{size:.4g} {units[power]}"


def format_seconds(value: float) -> str:
    """Seconds with the unit that leaves at least one digit before the point: ``"20 ns"``.

    Examples:
        >>> format_seconds(2e-08)
        '20 ns'
    """
    for unit, scale in (("min", 60.0), ("s", 1.0), ("ms", 1e-3), ("µs", 1e-6)):
        if abs(value) >= scale * (2 if unit == "min" else 1):
            return f"{value / scale:.4g} {unit}"
    return f"{value / 1e-9:.4g} ns"


def _parse(text: str, units: Mapping[str, float], example: str, where: str) -> tuple[Decimal, str]:
    """A number and its unit in small letters."""
    match = _QUANTITY.fullmatch(text)
    if match is None or match[2].lower() not in units:
        raise InputError(f"{where}={text!r} is not a quantity; write e.g. {example}")
    return Decimal(match[1]), match[2].lower()
