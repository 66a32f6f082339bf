"""What a sweep consists of: the grid of trials and the key of each. Pure, no torch."""

import itertools
import math
import re
from collections.abc import Iterable, Mapping
from typing import Any

from thetaone.errors import InputError
from thetaone.records import AxisValues, TrialSpec

MOST_VALUES = 10_000  # of an axis
MOST_TRIALS = 1_000_000
LARGEST = 2**53  # beyond it a database keeps whole numbers as floats, rounded
SMALLEST_LR, LARGEST_LR = 1e-30, 1e30
LARGEST_VALUE = 1e30  # of a further axis, either sign
FIXED = ("width", "depth", "lr", "seed", "steps")
FIXED_ARGUMENTS = "widths, depths, lrs, seeds, steps"

_POWER = re.compile(r"2\^(-?\d+(?:\.\d+)?)")


def canonical_rule(parametrization: str, *, width: int, base_width: int) -> str:
    """The rule of a trial, the same for parametrizations that coincide at this width.

    µP at its base width is plain PyTorch, bit for bit: ``"mup"`` and ``"sp"`` share those trials.
    Away from it the base is part of the rule. Any other label stands for itself and the base.

    Examples:
        >>> canonical_rule("mup", width=32, base_width=32)
        'sp'
        >>> canonical_rule("mup", width=64, base_width=32)
        'mup from 32'
    """
    if parametrization == "sp" or (parametrization == "mup" and width == base_width):
        return "sp"
    return f"{parametrization} from {base_width}"


def grid(
    *,
    widths: Iterable[int],
    lrs: Iterable[float],
    seeds: Iterable[int],
    n_steps: int,
    parametrization: str,
    base_width: int,
) -> tuple[TrialSpec, ...]:
    """Every combination of width, rate and seed, once, ascending.

    Args:
        widths: Positive widths, at least one.
        lrs: Positive finite learning rates, at least one.
        seeds: Non-negative seeds, at least one.
        n_steps: Steps of each training, at least 1 [count].
        parametrization: Label of the parametrization.
        base_width: Width at which the rates are meant; any, swept or not.

    Raises:
        InputError: An empty or out-of-range axis.

    Examples:
        >>> specs = grid(widths=[32, 64], lrs=[0.1], seeds=[0, 1], n_steps=5,
        ...              parametrization="mup", base_width=32)
        >>> [(s.width, s.seed, s.rule) for s in specs]
        [(32, 0, 'sp'), (32, 1, 'sp'), (64, 0, 'mup from 32'), (64, 1, 'mup from 32')]
    """
    widths = whole_numbers("widths", widths, least=1)
    lrs = learning_rates(lrs)
    seeds = whole_numbers("seeds", seeds, least=0)
    (n_steps,) = whole_numbers("steps", [n_steps], least=1)
    n_trials = len(widths) * len(lrs) * len(seeds)
    if n_trials > MOST_TRIALS:
        raise InputError(
            f"{len(widths)} widths × {len(lrs)} lrs × {len(seeds)} seeds are {n_trials:,} trials; "
            f"a sweep has at most {MOST_TRIALS:,}"
        )
    return tuple(
        TrialSpec(
            width=width, lr=lr, seed=seed, n_steps=n_steps,
            rule=canonical_rule(parametrization, width=width, base_width=base_width),
        )
        for width, lr, seed in itertools.product(widths, lrs, seeds)
    )  # fmt: skip


def parse_lrs(text: str) -> tuple[float, ...]:
    """Learning rates from ``"2^-12:2^-3"`` (octaves), ``"2^-9:2^-5:0.5"`` or a list.

    Args:
        text: Two powers of two and an optional step in octaves, or numbers separated by commas.

    Raises:
        InputError: Neither of the two.

    Examples:
        >>> parse_lrs("2^-9:2^-7")
        (0.001953125, 0.00390625, 0.0078125)
        >>> parse_lrs("0.1,2^-3")
        (0.1, 0.125)
    """
    if ":" not in text:
        return tuple(_number(part, text) for part in text.split(","))
    first, last, *steps = text.split(":")
    step = _number(steps[0], text) if len(steps) == 1 else 1.0
    low, high = (math.log2(_number(part, text)) for part in (first, last))
    if len(steps) > 1 or step <= 0 or high < low:
        raise InputError(f"lrs={text!r} is not a range; write e.g. 2^-12:2^-3 or 2^-9:2^-5:0.5")
    count = math.floor((high - low) / step + 1e-9) + 1
    if count > MOST_VALUES:
        raise InputError(f"lrs={text!r} are {count:,} rates; at most {MOST_VALUES:,} make an axis")
    return tuple(2.0 ** (low + step * index) for index in range(count))


def _number(part: str, text: str) -> float:
    power = _POWER.fullmatch(part.strip())
    try:
        value = 2.0 ** float(power[1]) if power else float(part)
    except (ValueError, OverflowError):  # no number, or a power beyond every float
        value = math.nan
    if not 0 < value < math.inf:
        raise InputError(
            f"lrs={text!r}: {part.strip()!r} is not a positive number; write e.g. 2^-12:2^-3, "
            "2^-9:2^-5:0.5 or 0.001,0.01"
        )
    return value


def whole_numbers(name: str, values: Any, *, least: int) -> tuple[int, ...]:
    """An axis of whole numbers, ascending, each once.

    Args:
        name: Of the argument, for messages.
        values: A sequence, an iterator, a NumPy array or a tensor.
        least: Smallest that is allowed.

    Raises:
        InputError: Empty, too long, or something in it is no whole number in range.

    Examples:
        >>> whole_numbers("seeds", range(3), least=0)
        (0, 1, 2)
    """
    return tuple(sorted({_whole(name, value, least) for value in _listed(name, values)}))


def learning_rates(values: Any) -> tuple[float, ...]:
    """An axis of learning rates, ascending, each once.

    Raises:
        InputError: Empty, too long, or something in it is no finite number > 0.
    """
    return tuple(sorted({_rate(value) for value in _listed("lrs", values)}))


def read_axes(axes: Mapping[str, Any] | None) -> dict[str, tuple[float, ...]]:
    """Further axes: name to values, ascending, each once.

    Args:
        axes: ``{"weight_decay": [0, 0.1]}``; None for none.

    Raises:
        InputError: No mapping, a name that is none or has an argument of its own, or a value that
            is no finite number.

    Examples:
        >>> read_axes({"weight_decay": [0.1, 0]})
        {'weight_decay': (0.0, 0.1)}
    """
    if not isinstance(axes, Mapping | None):
        raise InputError(f"axes={_shown(axes)}: pass a mapping, e.g. {{'weight_decay': [0, 0.1]}}")
    checked: dict[str, tuple[float, ...]] = {}
    for name, values in sorted((axes or {}).items()):
        if not isinstance(name, str) or not name.isidentifier():
            raise InputError(f"axis {_shown(name)}: a name is needed, e.g. weight_decay=0,0.1")
        if name.removesuffix("s") in FIXED or name in FIXED:
            raise InputError(f"axis {name}: it has an argument of its own, {FIXED_ARGUMENTS}")
        checked[name] = tuple(sorted({_value(name, value) for value in _listed(name, values)}))
    return checked


def parse_axis(text: str) -> tuple[str, tuple[float, ...]]:
    """Name and values of an axis as it stands on the command line.

    Raises:
        InputError: Not ``name=number,number``.

    Examples:
        >>> parse_axis("weight_decay=0,0.1")
        ('weight_decay', (0.0, 0.1))
    """
    name, equals, values = text.partition("=")
    try:
        numbers = tuple(float(value) for value in values.split(","))
    except ValueError:
        numbers = ()
    if not (equals and numbers and name.isidentifier()):
        raise InputError(
            f"--axis={_shown(text)}: write name=value,value, e.g. --axis weight_decay=0,0.1"
        )
    return name, numbers


def combinations(axes: Mapping[str, Iterable[float]]) -> tuple[AxisValues, ...]:
    """Every combination of the axes' values; one that is empty without axes.

    Examples:
        >>> combinations({"weight_decay": (0.0, 0.1)})
        ((('weight_decay', 0.0),), (('weight_decay', 0.1),))
    """
    names = sorted(axes)
    return tuple(
        tuple(zip(names, values, strict=True))
        for values in itertools.product(*(axes[name] for name in names))
    )


def _value(name: str, value: Any) -> float:
    value = value.item() if hasattr(value, "item") else value
    if not isinstance(value, int | float) or not abs(value) <= LARGEST_VALUE:
        raise InputError(f"axis {name}={_shown(value)}: need finite numbers, e.g. 0,0.1")
    return float(value)


def _listed(name: str, values: Any) -> list[Any]:
    values = values.tolist() if hasattr(values, "tolist") else values
    if isinstance(values, str | bytes) or not isinstance(values, Iterable):
        raise InputError(f"{name}={_shown(values)}: need a sequence of numbers, e.g. [1, 2]")
    listed = list(itertools.islice(values, MOST_VALUES + 1))
    if len(listed) > MOST_VALUES:
        raise InputError(f"{name} has more than {MOST_VALUES:,} values, the most that make an axis")
    if not listed:
        raise InputError(f"{name}=[]: need at least one")
    return listed


def _whole(name: str, value: Any, least: int) -> int:
    value = value.item() if hasattr(value, "item") else value
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or value != value or value % 1 != 0 or not least <= value <= LARGEST:
        raise InputError(f"{name}={_shown(value)}: need whole numbers from {least} to {LARGEST:,}")
    return int(value)


def _rate(value: Any) -> float:
    value = value.item() if hasattr(value, "item") else value
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not SMALLEST_LR <= value <= LARGEST_LR:
        raise InputError(
            f"lrs={_shown(value)}: need finite rates > 0, from {SMALLEST_LR:g} to {LARGEST_LR:g}, "
            "e.g. 2**-7"
        )
    return float(value)


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:37]}..."
