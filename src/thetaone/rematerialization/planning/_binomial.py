"""Homogeneous chains: the binomial schedule in closed form.

With s slots for kept inputs (the chain's own among them) and at most r forwards of each step,
β(s, r) = C(s + r, s) steps can be reversed. The least number of forwards that write no tape is

    t(L, s) = r·L − C(s + r, r − 1),    r the least integer with C(s + r, s) ≥ L.

Source: Griewank and Walther 2000, ACM TOMS 26(1), Algorithm 799, equations 2-4.
"""

from math import comb

from thetaone.errors import InputError
from thetaone.records import Chain, Region, Schedule
from thetaone.rematerialization.planning._policies import judged


def advances(length: int, slots: int) -> int:
    """t(L, s): the least number of forwards that write no tape, the first sweep included.

    Args:
        length: Steps L [count], >= 1.
        slots: Kept inputs s at once, that of the chain included [count], >= 1.

    Raises:
        InputError: A count below 1.

    Examples:
        >>> advances(10, 3), advances(100, 5), advances(1000, 10)
        (15, 316, 3636)
    """
    _require(length, slots)
    if length == 1:
        return 0
    slots = min(slots, length - 1)
    repeats = _repeats(length, slots)
    return repeats * length - comb(slots + repeats, repeats - 1)


def revolve(chain: Chain, slots: int) -> Schedule:
    """The binomial schedule: optimal in forwards when one tape at a time is written.

    Args:
        chain: Taken as homogeneous: only the number of stages matters.
        slots: Kept inputs at once, that of the chain included [count].

    Raises:
        InputError: ``slots`` below 1.

    Examples:
        >>> from thetaone.records import Chain, Stage
        >>> stage = Stage(name="step", forward_seconds=1.0, backward_seconds=1.0, output_bytes=1,
        ...               tape_bytes=1)
        >>> revolve(Chain(input_bytes=1, stages=(stage,) * 10), slots=3).forwards
        25
    """
    _require(chain.length, slots)
    spans = binomial_spans(chain.length, slots)
    regions = [Region(start=start, stop=stop) for start, stop in spans]
    return judged(chain, regions, policy=f"binomial, {slots} slots")


def binomial_spans(length: int, slots: int) -> list[tuple[int, int]]:
    """First stage, and one past the last, of every region of the binomial schedule."""
    spans: list[tuple[int, int]] = []
    pending = [(0, length, slots)]
    while pending:
        start, stop, free = pending.pop()
        if stop - start == 1:
            continue
        split = start + _split(stop - start, free)
        spans.append((start, split))
        pending.append((start, split, free))
        pending.append((split, stop, max(1, free - 1)))
    return spans


def _split(length: int, slots: int) -> int:
    """Stages of the first region: a j that minimizes j + t(L − j, s − 1) + t(j, s).

    t(·, s) is convex, with slope r between β(s, r−1) and β(s, r). So any j is best with
    j <= β(s, r−1) and L − j >= β(s−1, r−1), both as large as they can be; this is the largest.
    """
    slots = min(slots, length - 1)
    if slots == 1:
        return length - 1
    r = _repeats(length, slots)
    return min(comb(slots + r - 1, slots), length - comb(slots + r - 2, slots - 1))


def _repeats(length: int, slots: int) -> int:
    repeats = 0
    while comb(slots + repeats, slots) < length:
        repeats += 1
    return repeats


def _require(length: int, slots: int) -> None:
    if length < 1 or slots < 1:
        raise InputError(f"length={length}, slots={slots}: need at least 1 of each")
