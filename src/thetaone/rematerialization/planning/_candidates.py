"""Every fixed policy of a chain, priced without a replay: what a plan must never be slower than.

A flat policy is a row of disjoint regions. With H_k the bytes held when stage k is reached, tapes
of the stages outside and inputs kept where regions end, the most bytes alive are, for region a … b:

forward k (untaped):       A_L + H_a + (A_k if k > a) + A_{k+1} + x_k
tape k (outside):          A_L + H_k + T_k + taping_k
backward k (outside):      H_k + T_k + G_{k+1} + G_k + y_k
tape k again (inside):     G_b + H_a + Σ_{a…k} T + taping_k
backward k (inside):       H_a + Σ_{a…k} T + G_{k+1} + G_k + y_k
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from thetaone.records import Chain, Region, Schedule
from thetaone.rematerialization.planning._binomial import binomial_spans
from thetaone.rematerialization.planning._policies import judged, layer_spans
from thetaone.rematerialization.planning.table import ChainArrays, Ints, chain_arrays

MOST_NESTED = 256  # stages; the replay of a nested schedule of more takes too long
MOST_CHOICES = 256  # counts of cheapest blocks that are tried, in chains of more stages
LONGEST = (1, 2, 8, 10**9)  # stages of a region that joins neighbours among the cheapest blocks


@dataclass(frozen=True)
class Spans:
    """Regions as two arrays: first stages, and one past the last ones."""

    starts: Ints
    stops: Ints
    adjacent: bool = False  # each but the first starts where one stops


class FixedPolicies:
    """The fixed policies of a chain, with their seconds, and their peaks where these are asked for.

    Regions are cut where a list of blocks ends; a stage that may not run again is in none.

    Args:
        chain: What each stage costs.
    """

    def __init__(self, chain: Chain) -> None:
        self.chain, self.costs = chain, chain_arrays(chain)
        self.tails = np.array([stage.tail_seconds for stage in chain.stages])
        self._peaks: dict[int, int] = {}

    def fastest(self, budget: int, limit: float) -> list[Schedule]:
        """The fastest policy that fits, if it takes less than ``limit`` seconds."""
        seconds, resting = self._seconds_and_resting
        numbers = np.flatnonzero((seconds < limit) & (resting <= budget))
        for number in numbers[np.argsort(seconds[numbers], kind="stable")].tolist():
            if number not in self._peaks:
                self._peaks[number] = self.peak(number)
            if self._peaks[number] <= budget:
                return [self.schedule(number)]
        return []

    @property
    def seconds(self) -> NDArray[np.float64]:
        """Seconds of a step under each policy [s]."""
        return self._seconds_and_resting[0]

    @property
    def _one_list(self) -> bool:
        """Whether any region is allowed."""
        return bool((self.costs.reach == self.costs.length).all())

    @cached_property
    def _flat(self) -> list[tuple[str, Spans]]:
        """Name and regions of each policy of disjoint regions."""
        families = [*_families(self.costs.length), *self._cheapest()]
        if self._one_list:
            return families
        return [(name, _allowed(self.costs, spans)) for name, spans in families]

    def _cheapest(self) -> Iterator[tuple[str, Spans]]:
        """The blocks that free the most bytes for the seconds they take, neighbours joined.

        Between blocks that keep their tapes a region frees its tape less the output that waits for
        the next one; inside a longer region nothing waits.
        """
        costs = self.costs
        again = costs.forward - self.tails
        every = -(-costs.length // MOST_CHOICES)
        for what, freed in (("tape", costs.tape), ("less", costs.tape - costs.activation[1:])):
            order = np.argsort(again / np.maximum(freed, 1e-9), kind="stable")
            for count in range(1, costs.length + 1, every):
                chosen = np.sort(order[:count])
                for most in LONGEST:
                    yield f"the {count} cheapest blocks by {what}", _joined(chosen, most)

    @cached_property
    def _nested(self) -> list[tuple[str, Spans]]:
        """Policies whose regions lie in one another."""
        length = self.costs.length
        if length > MOST_NESTED or not self._one_list:
            return []
        nested = [
            (f"binomial, {slots} slots", binomial_spans(length, slots))
            for slots in range(1, length + 1)
        ]
        nested += [
            (f"one in {every} kept, loaded once per layer", layer_spans(length, every))
            for every in range(2, length + 1)
        ]
        return [(name, _spans(spans)) for name, spans in nested]

    @cached_property
    def _seconds_and_resting(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Seconds of a step under each policy, and bytes that rest when its sweep ends."""
        costs = self.costs
        both = np.stack([costs.forward, costs.tape])
        prefix = np.concatenate([np.zeros((2, 1)), np.cumsum(both, axis=1)], axis=1)
        again, dropped = np.array([
            prefix[:, spans.stops[-1]] - prefix[:, spans.starts[0]]
            if spans.adjacent
            else (prefix[:, spans.stops] - prefix[:, spans.starts]).sum(axis=1)
            for _, spans in [*self._flat, *self._nested]
        ]).T  # fmt: skip
        seconds = again + float((costs.forward + costs.backward).sum())
        seconds += costs.load_seconds * np.array(
            [len(spans.starts) for _, spans in [*self._flat, *self._nested]]
        )
        if self.tails.any():
            ends = [spans.stops for _, spans in self._flat]
            ends += [np.unique(spans.stops) for _, spans in self._nested]
            seconds -= np.array([self.tails[stops - 1].sum() for stops in ends])
        resting = float(costs.tape.sum() + costs.activation[-1]) - dropped
        resting[len(self._flat) :] = 0.0  # nested regions drop a tape more than once
        return seconds, resting

    def peak(self, number: int) -> int:
        """Most bytes alive at once under a policy [bytes]."""
        if number >= len(self._flat):
            return self.schedule(number).peak_bytes
        return flat_peak(self.costs, self._flat[number][1])

    def schedule(self, number: int) -> Schedule:
        """A policy as the judge prices it."""
        name, spans = [*self._flat, *self._nested][number]
        pairs = zip(spans.starts.tolist(), spans.stops.tolist(), strict=True)
        return judged(self.chain, [Region(start=a, stop=b) for a, b in pairs], policy=name)


def _families(length: int) -> Iterator[tuple[str, Spans]]:
    """Per block, every k-th, equal segments; with and without the last, from either end."""
    stages = np.arange(length)
    for k in range(1, length + 1):
        segment = length // k
        cuts = {
            f"every {k}": np.append(np.arange(0, length, k), length),
            f"{k} segments": np.round(np.arange(k + 1) * length / k).astype(np.int64),
            f"{k} equal segments and a rest": np.append(np.arange(k) * segment, length),
        }
        for name, bounds in cuts.items():
            yield name, Spans(bounds[:-1], bounds[1:], adjacent=True)
            if len(bounds) > 2:
                yield f"{name} but the last", Spans(bounds[:-2], bounds[1:-1], adjacent=True)
        for name, chosen in (
            (f"each {k}th block", stages[k - 1 :: k]),
            (f"each {k}th block from the first", stages[::k]),
        ):
            yield name, Spans(chosen, chosen + 1)
        for name, chosen in (
            (f"the first {k} blocks", stages[:k]),
            (f"the last {k} blocks", stages[length - k :]),
            (f"the {k} blocks before the last", stages[max(0, length - 1 - k) : -1]),
        ):
            if len(chosen):
                yield name, Spans(chosen, chosen + 1, adjacent=True)


def _joined(chosen: Ints, most: int) -> Spans:
    """Regions of neighbours among some stages, of so many at most."""
    run = np.cumsum(np.diff(chosen, prepend=chosen[0] - 2) > 1)  # which run of neighbours
    first = np.flatnonzero(np.diff(run, prepend=0))
    place = np.arange(len(chosen)) - first[run - 1]  # within its run
    starts = np.flatnonzero(place % most == 0)
    return Spans(chosen[starts], chosen[np.append(starts[1:], len(chosen)) - 1] + 1)


def _allowed(costs: ChainArrays, spans: Spans) -> Spans:
    """The regions cut where lists end, without stages that may not run again."""
    pieces: list[tuple[int, int]] = []
    for start, stop in zip(spans.starts.tolist(), spans.stops.tolist(), strict=True):
        while start < stop:
            end = min(stop, int(costs.list_stop[start]))
            if costs.reach[start] > start:
                pieces.append((start, end))
            start = end
    return _spans(pieces)


def _spans(pairs: list[tuple[int, int]]) -> Spans:
    both = np.array(pairs, dtype=np.int64).reshape(-1, 2)
    return Spans(both[:, 0], both[:, 1])


def flat_peak(costs: ChainArrays, spans: Spans) -> int:
    """Most bytes alive at once under disjoint regions; the formula of the module."""
    length, (starts, stops) = costs.length, (spans.starts, spans.stops)
    first = np.full(length, -1)
    sizes = stops - starts
    inside = np.repeat(starts, sizes) + _counted(sizes)
    first[inside] = np.repeat(starts, sizes)
    end = np.full(length, length)
    end[inside] = np.repeat(stops, sizes)
    outside = first < 0
    gained = np.zeros(length + 1, dtype=np.int64)
    gained[1:] += np.where(outside, costs.tape, 0)
    ends = stops[stops < length]
    gained[ends] += costs.activation[ends]
    held = np.cumsum(gained)[:-1]
    tapes = np.concatenate([[0], np.cumsum(costs.tape)])
    before = np.where(outside, 0, tapes[:-1] - tapes[first])  # of its region
    output = costs.activation[-1]
    arriving = np.where(np.arange(length) > first, costs.activation[:-1], 0)
    untaped = output + held + arriving + costs.activation[1:] + costs.scratch
    gradient = np.where(outside, output, costs.activation[end])
    taped = gradient + held + before + costs.limit_taping
    backward = held + before + costs.limit_backward
    return int(max(taped.max(), backward.max(), untaped[~outside].max(initial=0)))


def _counted(sizes: Ints) -> Ints:
    """0 … size − 1 for each size, one after the other."""
    return np.arange(int(sizes.sum())) - np.repeat(np.cumsum(sizes) - sizes, sizes)
