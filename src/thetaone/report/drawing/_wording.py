"""Names and numbers in the words of a report."""

import math

from thetaone.records import format_bytes, format_seconds, interval_words

_NAMES = {"mup": "Maximal update parametrization (µP)", "sp": "Standard parametrization (SP)"}
_TIE = "\N{NO-BREAK SPACE}"  # a number and its unit stay on one line
_SHORT = {"mup": "µP", "sp": "SP"}


def parametrization_name(label: str) -> str:
    """The long name of a parametrization; a recipe's own label stays.

    Examples:
        >>> parametrization_name("mup"), parametrization_name("mine")
        ('Maximal update parametrization (µP)', 'mine')
    """
    return _NAMES.get(label, label)


def short_name(label: str) -> str:
    """The short name of a parametrization.

    Examples:
        >>> short_name("sp")
        'SP'
    """
    return _SHORT.get(label, label)


def signed(value: float, digits: int = 2) -> str:
    """A number with its sign and a real minus.

    Examples:
        >>> signed(-0.224), signed(0.0)
        ('−0.22', '+0.00')
    """
    return f"{value:+.{digits}f}".replace("-", "−") if math.isfinite(value) else "–"


def between(low: float, high: float, digits: int = 2) -> str:
    """An interval; in words where an end is open.

    Examples:
        >>> between(-0.73, 1.27), between(float("-inf"), -0.87)
        ('−0.73 … +1.27', 'at most −0.87')
    """
    words = interval_words(low, high, f"+.{digits}f")
    return words.strip("[]").replace(", ", " … ").replace("-", "−")


def percent(value: float, digits: int = 1) -> str:
    """A share as a percentage.

    Examples:
        >>> percent(0.0123), percent(float("inf"))
        ('1.2 %', 'diverged')
    """
    if math.isnan(value):
        return "unknown"
    return f"{100 * value:.{digits}f} %".replace("-", "−") if math.isfinite(value) else "diverged"


def clock(seconds: float) -> str:
    r"""A duration as one says it.

    Examples:
        >>> clock(151.3), clock(12.34)
        ('2\xa0min 31\xa0s', '12.3\xa0s')
    """
    if seconds >= 60:
        return f"{int(seconds) // 60}{_TIE}min {int(seconds) % 60}{_TIE}s"
    return format_seconds(float(f"{seconds:.3g}")).replace(" ", _TIE)


def bytes_words(value: float) -> str:
    r"""Bytes with three digits, for sentences; tables carry more.

    Examples:
        >>> bytes_words(60_000_000)
        '57.2\xa0MiB'
    """
    number, unit = format_bytes(value).split()
    rounded = f"{float(number):.3g}" if abs(float(number)) < 1000 else number
    return f"{rounded}{_TIE}{unit}"
