"""Bytes and seconds as people write them: ``"2GiB"``, ``"20ns"``."""

import re

from thetaone.errors import InputError

_BYTES = {
    "": 1, "b": 1,
    "kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12,
    "kib": 2**10, "mib": 2**20, "gib": 2**30, "tib": 2**40,
}  # fmt: skip
_SECONDS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "min": 60.0, "h": 3600.0}
_QUANTITY = re.compile(r"\s*([0-9]*\.?[0-9]+(?:e[+-]?[0-9]+)?)\s*([a-zµ]*)\s*", re.IGNORECASE)


def parse_bytes(text: str | int, *, where: str = "budget") -> int:
    """Bytes of ``"2GiB"`` (2³¹), ``"64MB"`` (64·10⁶) or a plain number.

    Args:
        text: A number of bytes, or a number with a unit: B, kB, MB, GB, TB, KiB, MiB, GiB, TiB.
        where: What the quantity is, for the message.

    Raises:
        InputError: Not a positive quantity of bytes.

    Examples:
        >>> parse_bytes("2GiB")
        2147483648
    """
    value = _parse(str(text), _BYTES, "512MiB, 2GiB or a number of bytes", where)
    if value < 1:
        raise InputError(f"{where}={text!r}: need at least 1 byte; write e.g. 512MiB")
    return int(value)


def parse_seconds(text: str | float, *, where: str = "duration") -> float:
    """Seconds of ``"20ns"``, ``"1.5ms"`` or a plain number.

    Args:
        text: A number of seconds, or a number with a unit: ns, us, µs, ms, s, min, h.
        where: What the quantity is, for the message.

    Raises:
        InputError: Not a duration.

    Examples:
        >>> parse_seconds("20ns")
        2e-08
    """
    text = str(text)
    return _parse(text + "s" if _is_number(text) else text, _SECONDS, "20ns, 1.5ms or 2s", where)


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


def _parse(text: str, units: dict[str, float] | dict[str, int], example: str, where: str) -> float:
    match = _QUANTITY.fullmatch(text)
    if match is None or match[2].lower() not in units:
        raise InputError(f"{where}={text!r} is not a quantity; write e.g. {example}")
    return float(match[1]) * units[match[2].lower()]


def _is_number(text: str) -> bool:
    match = _QUANTITY.fullmatch(text)
    return match is not None and match[2] == ""
