"""Arithmetic of running trials side by side: makespan, stack sizes, groups. Pure, no torch."""

import heapq
from collections.abc import Iterable, Mapping, Sequence

from thetaone.records import TrialSpec

MARGIN = 0.95  # another mix must promise this much of one-by-one's time to be worth its trouble
MAX_STACK = 32  # models; beyond it the matrices leave the cache and nothing more is won


def makespan(seconds: Iterable[float], n_workers: int) -> float:
    """Time until all jobs are done when each next one, longest first, goes to the freest worker.

    Args:
        seconds: Duration of each job [s].
        n_workers: Workers [count].

    Returns:
        Finishing time [s].

    Examples:
        >>> makespan([3.0, 2.0, 2.0], 2)
        4.0
    """
    free_at = [0.0] * n_workers
    for duration in sorted(seconds, reverse=True):
        heapq.heapreplace(free_at, free_at[0] + duration)
    return max(free_at)


def stack_size(n_trials: int, n_processes: int, largest: int = MAX_STACK) -> int:
    """Models in a stack, so that every process gets as many stacks of about the same size.

    Examples:
        >>> stack_size(33, 2), stack_size(80, 2), stack_size(3, 4)
        (17, 20, 1)
    """
    rounds = -(-n_trials // (n_processes * largest))
    return -(-n_trials // (n_processes * rounds))


def chunks(specs: Sequence[TrialSpec], stacks: Mapping[int, int]) -> list[tuple[TrialSpec, ...]]:
    """The specs in groups that train together: widest first, seeds together.

    Args:
        specs: What is to be trained.
        stacks: Width -> models in a stack; 1 when absent.
    """
    items: list[tuple[TrialSpec, ...]] = []
    for width in sorted({spec.width for spec in specs}, reverse=True):
        chosen = [spec for spec in specs if spec.width == width]
        chosen.sort(key=lambda spec: (spec.rule, spec.seed, spec.axes, spec.lr))
        size = stacks.get(width, 1)
        for like in dict.fromkeys((spec.rule, spec.depth, spec.stop) for spec in chosen):
            of_rule = [spec for spec in chosen if (spec.rule, spec.depth, spec.stop) == like]
            items += [tuple(of_rule[i : i + size]) for i in range(0, len(of_rule), size)]
    return items
