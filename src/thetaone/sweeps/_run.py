"""Runs what is not yet known of a sweep, keeps each trial as it ends, and tells who watches."""

from collections.abc import Callable, Iterable, Iterator, Sequence

from thetaone.errors import InputError
from thetaone.records import EngineDecision, ProgressEvent, Trial, TrialSpec
from thetaone.sweeps._storage import Store
from thetaone.sweeps.engines import ENGINES, Decided, Work, count_flops, run_local

Progress = Callable[[ProgressEvent], None]


def run_trials(
    work: Work,
    specs: Sequence[TrialSpec],
    *,
    store: Store,
    engine: str = "auto",
    n_processes: int | None = None,
    progress: Progress | None = None,
) -> tuple[dict[TrialSpec, Trial], EngineDecision, int]:
    """Every spec's trial: from the store when it is there, else trained now and kept at once.

    An interruption loses only what is in training. Failed trials are kept but tried again.

    Args:
        work: Task and optimizer.
        specs: The sweep's trials.
        store: Where ended trials are kept.
        engine: One of ``ENGINES``, or ``"ray"``.
        n_processes: Workers of the local engine; the cores at hand when None [count].
        progress: Called with every event, in this thread; what it raises ends the sweep.

    Returns:
        The trials by spec, how the missing ones were run, and how many were not missing.

    Raises:
        InputError: An unknown engine, or one that cannot train this task.
        StorageError: The store cannot be read or written.
    """
    if engine not in (*ENGINES, "ray"):
        raise InputError(f"engine={engine!r} is not one of {', '.join(ENGINES)}, ray")
    watch = progress or (lambda event: None)
    trials = store.known(specs)
    missing = [spec for spec in specs if spec not in trials]
    decision = EngineDecision(engine="none", reason="every trial was in the storage")

    def tell(kind: str, message: str, trial: Trial | None = None) -> None:
        watch(ProgressEvent.model_validate({
            "kind": kind, "n_done": len(trials), "n_total": len(specs), "message": message,
            "trial": trial,
        }))  # fmt: skip

    def decided(found: EngineDecision) -> None:
        nonlocal decision
        decision = found
        tell("engine", f"{found.engine}: {found.reason}")

    tell("planned", f"{len(specs)} trials, {len(trials)} of them in the storage")
    if missing:
        flops = _flops_by_width(work, missing)
        for trial in _engine(engine, n_processes)(work, missing, decided):
            cost = flops[trial.width] * len(trial.losses)
            trial = trial.model_copy(update={"cost_flops": cost})
            store.keep(trial.spec, trial)
            trials[trial.spec] = trial
            tell("trial", _one_line(trial), trial)
    return trials, decision, len(specs) - len(missing)


def _engine(
    name: str, n_processes: int | None
) -> Callable[[Work, Sequence[TrialSpec], Decided], Iterator[Trial]]:
    if name == "ray":
        from thetaone.sweeps.engines import run_ray

        return lambda work, specs, decided: run_ray(work, specs, decided=decided)
    return lambda work, specs, decided: run_local(
        work, specs, engine=name, n_processes=n_processes, decided=decided
    )


def _flops_by_width(work: Work, specs: Iterable[TrialSpec]) -> dict[int, float]:
    """Width -> counted operations of one training step [FLOP]."""
    one_of_each = {spec.width: spec for spec in specs}
    return {width: count_flops(work, spec) for width, spec in one_of_each.items()}


def _one_line(trial: Trial) -> str:
    how = f"loss {trial.final_loss:.4g}" if trial.status == "finished" else trial.status
    return f"width {trial.width}, lr {trial.lr:.3g}, seed {trial.seed}: {how}"
