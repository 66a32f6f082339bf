"""Fixed policies, judged by the same replay as the optimal plans."""

import math
from collections.abc import Iterable
from itertools import pairwise
from typing import Literal

from thetaone.errors import InputError
from thetaone.records import CONDITIONS, Chain, DiskCost, Region, Schedule
from thetaone.rematerialization.planning._simulator import simulate

Spans = Iterable[tuple[int, int]]


def judged(
    chain: Chain,
    regions: Iterable[Region],
    *,
    policy: str,
    budget_bytes: int | None = None,
    disk: DiskCost | None = None,
) -> Schedule:
    """A schedule with the figures that the judge finds for its regions.

    Raises:
        InputError: The regions are not nested or disjoint.
        ScheduleError: A region waits on disk and no ``disk`` is given.
    """
    ordered = tuple(sorted(regions, key=lambda region: (region.start, -region.stop)))
    draft = Schedule(
        length=chain.length,
        regions=ordered,
        total_seconds=0.0,
        peak_bytes=0,
        forwards=0,
        loads=0,
        policy=policy,
        budget_bytes=budget_bytes,
        chain=chain.fingerprint,
        parameters=chain.context.get("parameters", ""),
        moving=chain.moving,
        stages=tuple(stage.name for stage in chain.stages) if chain.context else (),
        tapes=tuple(stage.tape_bytes for stage in chain.stages) if chain.context else (),
        links=chain.links,
        conditions={name: chain.context[name] for name in CONDITIONS if name in chain.context},
    )
    return draft.model_copy(update=simulate(chain, draft, disk=disk).step_cost)


def store_all(chain: Chain) -> Schedule:
    """Keep every tape: nothing is recomputed."""
    return judged(chain, (), policy="store-all")


def per_block(chain: Chain) -> Schedule:
    """Keep every stage's input and recompute each stage once: L regions of one stage.

    A stage that may not run again keeps its tape.
    """
    spans = [(k, k + 1) for k, stage in enumerate(chain.stages) if stage.recomputable]
    return judged(chain, _regions(spans), policy="per-block")


def square_root(chain: Chain) -> Schedule:
    """⌈√L⌉ segments, each recomputed once.

    Source: Chen, Xu, Zhang, Guestrin 2016, arXiv 1604.06174, section 4.
    """
    return segments(chain, math.ceil(math.sqrt(chain.length)), policy="√L segments")


def segments(chain: Chain, count: int, *, policy: str = "") -> Schedule:
    """``count`` segments of nearly equal length; the last keeps its tape, as it is used at once.

    Raises:
        InputError: ``count`` is not in 1 … L.
    """
    if not 1 <= count <= chain.length:
        raise InputError(f"segments={count}: need 1 … {chain.length}, the number of stages")
    bounds = [round(i * chain.length / count) for i in range(count + 1)]
    spans = list(pairwise(bounds))[:-1]
    return judged(chain, _regions(spans), policy=policy or f"{count} segments")


def periodic(
    chain: Chain, every: int, *, reload: Literal["layer", "segment"] = "segment"
) -> Schedule:
    """Keep the activation after every ``every``-th stage.

    ``reload="segment"`` loads a kept activation once and recomputes its whole segment with tapes.
    ``reload="layer"`` loads it afresh for every stage and recomputes up to that stage only.

    Raises:
        InputError: ``every`` is not in 1 … L, or ``reload`` is neither.

    Examples:
        >>> from thetaone.records import Chain, Stage
        >>> layer = Stage(name="layer", forward_seconds=20e-9, backward_seconds=20e-9,
        ...               output_bytes=1, tape_bytes=1)
        >>> schedule = periodic(Chain(input_bytes=1, stages=(layer,) * 10), 5, reload="layer")
        >>> schedule.replays, schedule.loads
        (20, 10)
    """
    if not 1 <= every <= chain.length:
        raise InputError(f"every={every}: need 1 … {chain.length}, the number of stages")
    if reload not in ("layer", "segment"):
        raise InputError(f"reload={reload!r}: need 'layer' or 'segment'")
    if reload == "layer":
        spans = layer_spans(chain.length, every)
    else:
        spans = [(k, min(k + every, chain.length)) for k in range(0, chain.length, every)]
    policy = f"one in {every} kept, loaded once per {reload}"
    return judged(chain, _regions(spans), policy=policy)


def layer_spans(length: int, every: int) -> list[tuple[int, int]]:
    """Regions that start at every ``every``-th stage and end at each stage up to the next."""
    return [
        (start, stop)
        for start in range(0, length, every)
        for stop in range(start + 1, min(start + every, length) + 1)
    ]


def _regions(spans: Spans) -> list[Region]:
    return [Region(start=start, stop=stop) for start, stop in spans]
