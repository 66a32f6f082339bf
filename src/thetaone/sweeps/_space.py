"""What a sweep consists of: the grid of trials and the key of each. Pure, no torch."""

import itertools
import math
import re
from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

from thetaone.errors import InputError
from thetaone.records import TrialSpec

Number = TypeVar("Number", int, float)

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
    widths = _axis("widths", widths, lambda width: width >= 1, "widths of 1 or more")
    lrs = _axis("lrs", lrs, lambda lr: 0 < lr < math.inf, "finite rates > 0, e.g. 2**-7")
    seeds = _axis("seeds", seeds, lambda seed: seed >= 0, "seeds of 0 or more")
    if n_steps < 1:
        raise InputError(f"steps={n_steps}: need at least 1 step of training")
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
    return tuple(2.0 ** (low + step * index) for index in range(count))


def _number(part: str, text: str) -> float:
    power = _POWER.fullmatch(part.strip())
    try:
        value = 2.0 ** float(power[1]) if power else float(part)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise InputError(
            f"lrs={text!r}: {part.strip()!r} is not a positive number; write e.g. 2^-12:2^-3, "
            "2^-9:2^-5:0.5 or 0.001,0.01"
        )
    return value


def _axis(
    name: str, values: Iterable[Number], valid: Callable[[Number], bool], wanted: str
) -> Sequence[Number]:
    found = sorted(set(values))
    bad = [value for value in found if not valid(value)]
    if bad or not found:
        raise InputError(f"{name}={bad[0] if bad else 'nothing'}: need {wanted}")
    return found
