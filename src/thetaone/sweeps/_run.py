"""Runs what is not yet known of a sweep, keeps each trial as it ends, and tells who watches."""

import functools
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Literal

from thetaone.errors import InputError, MissingExtraError, TaskError, first_line
from thetaone.records import (
    EngineDecision,
    Progress,
    ProgressEvent,
    Trial,
    TrialSpec,
    did_you_mean,
)
from thetaone.sweeps._space import whole_numbers
from thetaone.sweeps._trials import Work
from thetaone.sweeps.engines import ENGINES, count_flops, run_local, run_ray
from thetaone.sweeps.identity import Place, place_of
from thetaone.sweeps.storage import Store

_Flops = dict[tuple[int, int | None], float]  # by width and depth

POLL_SECONDS = 0.5  # between looks at what other sweeps are training


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialRuns:
    """What came of running a sweep's trials.

    Attributes:
        trials: The trial of every spec.
        decision: How the missing ones were run.
        n_trained: Trained by this call [count]; the others were kept before, or by other sweeps.
        notes: What is worth a word: stored trials left out, and why.
        stopped: Whether ``after`` ended it, so that specs may lack their trials.
    """

    trials: dict[TrialSpec, Trial]
    decision: EngineDecision
    n_trained: int
    notes: tuple[str, ...] = ()
    stopped: bool = False


After = Callable[[Sequence[Trial], Trial], object]


class _StopSweep(Exception):
    """A callback has seen enough."""


def run_trials(
    work: Work,
    specs: Sequence[TrialSpec],
    *,
    store: Store,
    engine: str = "auto",
    n_processes: int | None = None,
    progress: Progress | None = None,
    after: After | None = None,
) -> TrialRuns:
    """Get every spec's trial: from the store when it is there, else trained now and kept at once.

    An interruption loses only what is in training. Failed trials are kept but tried again. Sweeps
    that share a store share the work: what another one is training is waited for.

    Args:
        work: Task, optimizer and loop.
        specs: The sweep's trials.
        store: Where ended trials are kept.
        engine: One of ``ENGINES``, or ``"ray"``.
        n_processes: Workers of the local engine; the cores at hand when None [count].
        progress: Called with every event, in this thread; what it raises ends the sweep.
        after: Called after each trial trained with all that are there so far, and that one; when it
            returns something true, no further trial is trained.

    Raises:
        InputError: An unknown engine, or one that cannot train this task.
        StorageError: The store cannot be read or written.
    """
    require_engine(engine)
    if n_processes is not None:
        (n_processes,) = whole_numbers("n_processes", [n_processes], least=1)
    run = _Run(work, specs, store, progress or (lambda event: None), after)
    run.begin()
    try:
        with store.working():
            run.train(functools.partial(_engine, engine, n_processes))
    except _StopSweep:
        run.note_stop()
    except BaseException as stop:
        if not isinstance(stop, Exception):
            stop.add_note(run.kept())
        raise
    run.note_repeats()
    return TrialRuns(
        trials={spec: run.trials[spec] for spec in specs if spec in run.trials},
        decision=run.decision, n_trained=run.n_trained, notes=tuple(run.store.notes),
        stopped=run.stopped,
    )  # fmt: skip


def require_engine(engine: str) -> None:
    """Refuse an engine that does not exist.

    Raises:
        InputError: It is none of them.
        MissingExtraError: It is Ray, which is not installed.
    """
    if engine not in (*ENGINES, "ray"):
        names = (*ENGINES, "ray")
        raise InputError(
            f"engine={engine!r} is not one of {', '.join(names)}{did_you_mean(engine, names)}"
        )
    if engine == "ray" and find_spec("ray") is None:
        raise MissingExtraError("ray", "ray")


@dataclass(slots=True)
class _Run:
    """One call of ``run_trials``: what is done so far."""

    work: Work
    specs: Sequence[TrialSpec]
    store: Store
    progress: Progress
    after: After | None = None
    stopped: bool = False
    trials: dict[TrialSpec, Trial] = field(default_factory=dict[TrialSpec, Trial])
    n_trained: int = 0
    n_notes: int = 0
    batches: dict[tuple[int, int | None, int], tuple[str, ...]] = field(
        default_factory=dict[tuple[int, int | None, int], tuple[str, ...]]
    )  # of each width, depth and seed
    decision: EngineDecision = field(
        default_factory=lambda: EngineDecision(
            engine="none", reason="every trial was in the storage"
        )
    )

    def begin(self) -> None:
        """Read what is stored, and say so."""
        self.trials.update(self.store.known(self.specs))
        when = self.store.describe_hits(self.specs)
        hits = f"{len(self.trials)} trials {when} reused" if self.trials else "none stored"
        self._tell("planned", f"{len(self.specs)} trials, {hits}")
        self._tell_notes()

    def train(self, make_engine: "Callable[[str | None], _Engine]") -> None:
        """Train what is missing; wait for what other sweeps are training, or take it over."""
        missing = self._missing()
        if not missing:
            return
        flops = self._flops_by_size(missing)
        self._consume(make_engine(None)(self.work, missing, self._decided, self._take), flops)
        while missing := self._missing():
            self._look_at_others(missing)
            claimed = self.store.claim(self._missing())
            if not claimed:
                time.sleep(POLL_SECONDS)
                continue
            self._look_at_others(claimed)
            rest = [spec for spec in claimed if spec not in self.trials]
            serial = make_engine("serial")(self.work, rest, lambda decision: None, tuple)
            self._consume(serial if rest else (), flops)

    def kept(self) -> str:
        """How many trials an interruption leaves, and where."""
        if not self.store.where:
            return f"{len(self.trials)} of {len(self.specs)} trials were done; none is kept"
        return f"{len(self.trials)} of {len(self.specs)} trials are kept in {self.store.where}"

    def note_stop(self) -> None:
        """Say that a callback ended the sweep."""
        self.stopped = True
        self.store.notes.append("a callback stopped the sweep: not every trial is there")

    def note_repeats(self) -> None:
        """Name a task whose trainings of one width and seed begin at different losses."""
        begun: dict[Place, list[float]] = {}
        for trial in self.trials.values():
            if trial.losses:
                begun.setdefault(place_of(trial.spec), []).append(trial.losses[0])
        for place, losses in begun.items():
            if max(losses) - min(losses) > 1e-3 * max(1.0, abs(losses[0])):
                self.store.notes.append(
                    f"the task does not repeat: at width {place.width}, seed {place.seed}, "
                    f"trainings began at losses from {min(losses):.6g} to {max(losses):.6g}"
                )
        self._tell_notes()

    def _require_same_batches(self, trial: Trial) -> None:
        """Refuse a task whose trainings of one seed see different batches.

        Raises:
            TaskError: They differ; the trial is not kept.
        """
        place = (trial.width, trial.depth, trial.seed)
        longest = self.batches.get(place, ())
        for index, (one, other) in enumerate(zip(trial.batches, longest, strict=False)):
            if one != other:
                raise TaskError(
                    f"the task does not repeat: batch {2**index} of seed {trial.seed} at width "
                    f"{trial.width} differs from one training to the next, so its rates cannot be "
                    "compared. Draw from the global generators of torch, NumPy or Python (they are "
                    "seeded), or from generators made from the seed"
                )
        self.batches[place] = max(longest, trial.batches, key=len)

    def _flops_by_size(self, specs: Iterable[TrialSpec]) -> _Flops:
        """Counted operations of one training step [FLOP]; 0 where no seed's can be counted."""
        flops: _Flops = {}
        failed: dict[tuple[int, int | None], str] = {}
        for spec in {(spec.width, spec.depth, spec.seed): spec for spec in specs}.values():
            size = (spec.width, spec.depth)
            if size in flops:
                continue
            try:
                flops[size] = count_flops(self.work, spec)
            except (Exception, SystemExit) as error:  # the user's code; the trials say what
                failed[size] = f"{type(error).__name__}: {first_line(error)}"
        for size in failed.keys() - flops.keys():
            flops[size] = 0.0
            self.store.notes.append(
                f"operations at width {size[0]} could not be counted: {failed[size]}"
            )
        return flops

    def _missing(self) -> list[TrialSpec]:
        return [spec for spec in self.specs if spec not in self.trials]

    def _take(self, group: Sequence[TrialSpec]) -> tuple[TrialSpec, ...]:
        """Claim a group before it is trained; without what others have trained meanwhile."""
        claimed = self.store.claim([spec for spec in group if spec not in self.trials])
        self._look_at_others(claimed)
        return tuple(spec for spec in claimed if spec not in self.trials)

    def _look_at_others(self, specs: Sequence[TrialSpec]) -> None:
        if specs and self.store.grown(specs):
            found = self.store.known(self._missing())
            self.trials.update(found)
            self.store.give_back(found)
            self._tell_notes()

    def _consume(self, ended: Iterable[Trial], flops: _Flops) -> None:
        for trial in ended:
            cost = flops[trial.width, trial.spec.depth] * len(trial.losses)
            trial = trial.unchecked_copy(cost_flops=cost)
            self._require_same_batches(trial)
            self.store.keep(trial.spec, trial)
            self.trials[trial.spec] = trial
            self.n_trained += 1
            self._tell("trial", _one_line(trial), trial)
            if self.after is not None and self.after(list(self.trials.values()), trial):
                raise _StopSweep

    def _decided(self, decision: EngineDecision) -> None:
        self.decision = decision
        self._tell("engine", f"{decision.engine}: {decision.reason}")

    def _tell_notes(self) -> None:
        for note in self.store.notes[self.n_notes :]:
            self._tell("note", note)
        self.n_notes = len(self.store.notes)

    def _tell(
        self,
        kind: Literal["planned", "engine", "trial", "note"],
        message: str,
        trial: Trial | None = None,
    ) -> None:
        self.progress(
            ProgressEvent(
                kind=kind, n_done=len(self.trials), n_total=len(self.specs), message=message,
                trial=trial,
            )
        )  # fmt: skip


_Take = Callable[[Sequence[TrialSpec]], Sequence[TrialSpec]]
_Engine = Callable[
    [Work, Sequence[TrialSpec], Callable[[EngineDecision], None], _Take], Iterator[Trial]
]


def _engine(asked: str, n_processes: int | None, instead: str | None) -> _Engine:
    name = instead or asked
    if name == "ray":
        return lambda work, specs, decided, take: run_ray(
            work, specs, n_processes=n_processes, decided=decided, take=take
        )
    return lambda work, specs, decided, take: run_local(
        work, specs, engine=name, n_processes=n_processes, decided=decided, take=take
    )


def _one_line(trial: Trial) -> str:
    how = f"loss {trial.final_loss:.4g}" if trial.status == "finished" else trial.status
    axes = "".join(f", {name} {value:.3g}" for name, value in trial.axes.items())
    return f"width {trial.width}, lr {trial.lr:.3g}, seed {trial.seed}{axes}: {how}"
