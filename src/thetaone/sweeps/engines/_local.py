"""The local engine: measures at start which mix of processes, threads and stacks is fastest."""

import math
import multiprocessing
from collections.abc import Callable, Generator, Iterator, Sequence

import torch

from thetaone.errors import InputError
from thetaone.records import EngineDecision, Trial, TrialSpec, counted
from thetaone.sweeps._machine import available_cores
from thetaone.sweeps._trials import Work, failed_trial
from thetaone.sweeps.engines._makespan import MARGIN, chunks, makespan, stack_size
from thetaone.sweeps.engines._processes import WorkerDiedError, WorkerPool, why_not_sent
from thetaone.sweeps.engines._work import Item, Measured, Probe, measure, train

ENGINES = ("auto", "processes", "serial", "stacked")
WORTH_MEASURING = 100  # steps of all trials together; below it a measurement costs what it saves
SLOWED = 1.5  # times the measured step: from here on, other programs use the cores too

Decided = Callable[[EngineDecision], None]
Take = Callable[[Sequence[TrialSpec]], Sequence[TrialSpec]]


def run_local(
    work: Work,
    specs: Sequence[TrialSpec],
    *,
    engine: str = "auto",
    n_processes: int | None = None,
    decided: Decided,
    take: Take = tuple,
) -> Iterator[Trial]:
    """Train every spec; trials come as they end, in no particular order.

    Args:
        work: Task and optimizer.
        specs: What to train, at least one.
        engine: ``"auto"`` (measured), ``"serial"`` (one by one, all threads), ``"processes"``
            (one-thread workers) or ``"stacked"`` (workers that train stacks under vmap).
        n_processes: Workers; the cores this process may use when None [count].
        decided: Called with the decision before the first trial ends, and again if it changes.
        take: Called with specs before they are trained together; those it returns are.

    Yields:
        One trial for every spec taken; what raised or died twice is ``failed``.

    Raises:
        InputError: An unknown engine, or one that cannot train this task.
    """
    if engine not in ENGINES:
        raise InputError(f"engine={engine!r} is not one of {', '.join(ENGINES)}")
    asked = available_cores() if n_processes is None else n_processes
    if asked < 1:
        raise InputError(f"n_processes={asked}: need at least 1")
    n_processes = min(asked, len(specs))
    alone = _serial_reason(work, specs, engine)
    if alone:
        decided(_serial(alone, {}))
        for item in chunks(specs, {}):
            yield from train(work, take(item))
        return
    threads_seconds = _measure_threads(work, specs) if engine == "auto" else None
    with WorkerPool(work, n_processes) as pool:
        decision = _decide(pool, specs, engine, n_processes, threads_seconds)
        decided(decision)
        if decision.engine == "serial":
            slowed = yield from _while_as_fast(work, specs, decision, n_processes, take)
            if slowed is None:
                return
            specs, decision = slowed
            decided(decision)
        yield from _on_pool(pool, specs, decision, take)


def _serial_reason(work: Work, specs: Sequence[TrialSpec], engine: str) -> str:
    """Why nothing but one-by-one training comes into question; empty when something does."""
    if engine == "serial":
        return "asked for"
    if multiprocessing.current_process().daemon:  # as a worker of a pool or of a DataLoader is
        return "this is a daemonic process, which may have no workers of its own"
    unsent = why_not_sent(work)
    if unsent:
        return (
            f"worker processes cannot receive this task or optimizer ({unsent}); put the task in a "
            "file and pass its path to use them"
        )
    if engine != "auto":
        return ""
    if len(specs) == 1:
        return "a single trial"
    n_steps = sum(spec.n_planned for spec in specs)
    return f"{n_steps} steps in all, too few to measure" if n_steps < WORTH_MEASURING else ""


def _serial(reason: str, seconds: dict[str, float]) -> EngineDecision:
    return EngineDecision(
        engine="serial", n_threads=torch.get_num_threads(), seconds=seconds, reason=reason
    )


def _while_as_fast(
    work: Work, specs: Sequence[TrialSpec], decision: EngineDecision, n_processes: int, take: Take
) -> Generator[Trial, None, tuple[Sequence[TrialSpec], EngineDecision] | None]:
    """Train one by one as long as steps take what was measured.

    Threads of one step wait for each other, so a core that another program takes from one of them
    is lost to all: several times slower, where one-thread workers would lose their share alone.

    Returns:
        What is left, and the workers to train it on, once a trial was slowed; None at the end.
    """
    groups = chunks(specs, {})
    for done, group in enumerate(groups, start=1):
        trial = next(train(work, take(group)), None)
        if trial is None:
            continue
        yield trial
        # only the widest width was measured with all threads; its trials come first
        promised = decision.seconds.get(_all_threads(trial.width), math.inf) * len(trial.losses)
        if trial.wall_seconds > SLOWED * promised and groups[done:]:
            left = [spec for (spec,) in groups[done:]]
            return left, EngineDecision(
                engine="processes", n_processes=n_processes, seconds=decision.seconds,
                reason=f"trial {done} of {len(groups)} took {trial.wall_seconds / promised:.1f}× "
                f"the time measured for {decision.n_threads} threads: other programs use the cores",
            )  # fmt: skip
    return None


def _on_pool(
    pool: WorkerPool, specs: Sequence[TrialSpec], decision: EngineDecision, take: Take
) -> Iterator[Trial]:
    """Train on the workers; what a worker's death interrupts is tried once more, one by one."""
    items = (
        Item(specs=tuple(group)) for group in map(take, chunks(specs, decision.stacks)) if group
    )
    interrupted: list[TrialSpec] = []
    ended: set[TrialSpec] = set()
    for item, answer in pool.ask(items):
        if isinstance(answer, Trial):
            ended.add(answer.spec)
            yield answer
        else:
            interrupted += [spec for spec in item.specs if spec not in ended]
    for item, answer in pool.ask(Item(specs=(spec,)) for spec in interrupted):
        if isinstance(answer, Trial):
            yield answer
        else:
            yield failed_trial(item.specs[0], f"{answer}; tried twice")


def _all_threads(width: int) -> str:
    """The key of a step's time with all threads of this process."""
    return f"width {width}, {torch.get_num_threads()} threads"


def _measure_threads(work: Work, specs: Sequence[TrialSpec]) -> tuple[int, float]:
    """Widest width, and a step's time there with all threads of this process.

    Done before workers are forked: what torch loads at the first step, they inherit.
    """
    widest = max(specs, key=lambda spec: spec.width)
    return widest.width, measure(work, [widest]).single_seconds


def _decide(
    pool: WorkerPool,
    specs: Sequence[TrialSpec],
    engine: str,
    n_processes: int,
    threads_seconds: tuple[int, float] | None,
) -> EngineDecision:
    if engine == "processes":
        return EngineDecision(engine="processes", n_processes=n_processes, reason="asked for")
    stacks, seconds, why_not = _measure_stacks(pool, specs, n_processes, forced=engine == "stacked")
    if engine == "stacked":
        if why_not:
            raise InputError(f"engine='stacked' cannot train this task: {why_not}")
        return EngineDecision(
            engine="stacked", n_processes=n_processes, stacks=stacks, seconds=seconds,
            reason="asked for",
        )  # fmt: skip
    assert threads_seconds is not None
    return _compare(specs, stacks, seconds, n_processes, threads_seconds, why_not)


def _measure_stacks(
    pool: WorkerPool, specs: Sequence[TrialSpec], n_processes: int, *, forced: bool
) -> tuple[dict[int, int], dict[str, float], str]:
    """Stack size of each width, the times measured, and why stacks were given up.

    Widths are tried from the narrowest: what a stack saves is the wait between kernels, a share
    that falls with width, so after the first width where it loses none is tried.
    """
    stacks: dict[int, int] = {}
    seconds: dict[str, float] = {}
    why_not = ""
    for width in sorted({spec.width for spec in specs}):
        group = sorted(
            (spec for spec in specs if spec.width == width),
            key=lambda spec: (spec.rule, spec.seed, spec.lr),
        )
        size = 1 if why_not and not forced else stack_size(len(group), n_processes)
        probed = _slowest(pool.ask_all(Probe(specs=tuple(group[:size]))))
        seconds[f"width {width}, one thread"] = probed.single_seconds
        stack_seconds = probed.stack_seconds
        if stack_seconds is not None:
            seconds[f"width {width}, stack of {size}"] = stack_seconds
        if size == 1:
            continue
        if stack_seconds is None:
            why_not = probed.why_not
        elif forced or stack_seconds < MARGIN * probed.single_seconds:
            stacks[width] = size
        else:
            why_not = f"from width {width} on a stack is no faster"
    return stacks, seconds, why_not


def _slowest(answers: Sequence[object]) -> Measured:
    """The answer of the worker that was slowest; workers measure at the same time."""
    measured = [answer for answer in answers if isinstance(answer, Measured)]
    if not measured:
        dead = next(answer for answer in answers if isinstance(answer, WorkerDiedError))
        return Measured(single_seconds=float("inf"), why_not=str(dead))
    return max(measured, key=lambda one: one.stack_seconds or one.single_seconds)


def _times(ratio: float) -> str:
    """How many times faster, or slower, in words."""
    if ratio < 1:
        return f"{1 / ratio:.1f}× slower"
    return f"{ratio:.1f}× faster" if ratio < 20 else "over 20× faster"


def _compare(
    specs: Sequence[TrialSpec],
    stacks: dict[int, int],
    seconds: dict[str, float],
    n_processes: int,
    threads_seconds: tuple[int, float],
    why_not: str,
) -> EngineDecision:
    """Workers, or one by one with all threads: whichever finishes the whole sweep first."""
    if not all(map(math.isfinite, [*seconds.values(), threads_seconds[1]])):
        return EngineDecision(
            engine="processes", n_processes=n_processes,
            reason="a part of the task raised while its speed was measured; no stacks",
        )  # fmt: skip
    widest, all_threads = threads_seconds
    n_threads = torch.get_num_threads()
    seconds = {**seconds, _all_threads(widest): all_threads}

    def on_workers(group: tuple[TrialSpec, ...]) -> float:
        width = group[0].width
        size = stacks.get(width, 1)
        key = f"width {width}, " + (f"stack of {size}" if size > 1 else "one thread")
        return seconds[key] * sum(spec.n_planned for spec in group)

    worker_time = makespan(map(on_workers, chunks(specs, stacks)), n_processes)
    one_thread = seconds[f"width {widest}, one thread"]
    serial_time = sum(
        spec.n_planned * seconds[f"width {spec.width}, one thread"] * all_threads / one_thread
        for spec in specs
    )
    ratio = serial_time / worker_time
    gain = f"{_times(ratio)} than one by one on {counted(n_threads, 'thread')}"
    if worker_time > MARGIN * serial_time:
        return _serial(f"{n_processes} workers would be {gain}", seconds)
    why = f"measured {gain}" + (f"; no stacks: {why_not}" if not stacks and why_not else "")
    return EngineDecision(
        engine="stacked" if stacks else "processes", n_processes=n_processes, stacks=stacks,
        seconds=seconds, reason=why,
    )  # fmt: skip
