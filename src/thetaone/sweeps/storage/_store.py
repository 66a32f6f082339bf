"""Keeps trials in Optuna's storage, and finds them again: the same sweep asked twice runs once.

One Optuna study holds the trials of one experiment under one rule and number of steps; a trial's
parameters ``width``, ``lr`` and ``seed`` and what it started from are its key. Only ended trials
are written, each in one operation with a checksum, so a sweep that is killed loses what was in
training and nothing else. Optuna's dashboard and samplers read the same storage.
"""

import contextlib
import datetime
import hashlib
import json
import logging
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from thetaone.records import Trial, TrialSpec, final_loss
from thetaone.sweeps._space import LARGEST, LARGEST_LR, LARGEST_VALUE, SMALLEST_LR
from thetaone.sweeps.identity import Starts, place_of
from thetaone.sweeps.storage._journal import Journal
from thetaone.sweeps.storage._leases import Leases

# losses of a trial that Optuna's dashboard draws: a database takes milliseconds for each
CURVE_POINTS, JOURNAL_POINTS = 12, 1000
_COORDINATES = ("width", "lr", "seed")
AGREEMENT = 1e-3  # relative: stacks and thread counts change a loss by rounding


class NoStore:
    """Keeps nothing: what ``storage=None`` means."""

    where = ""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def known(self, specs: Iterable[TrialSpec]) -> dict[TrialSpec, Trial]:
        """Nothing is known."""
        return {}

    def keep(self, spec: TrialSpec, trial: Trial) -> None:
        """Nothing is kept."""

    def claim(self, specs: Sequence[TrialSpec]) -> list[TrialSpec]:
        """All of them: nobody else is there."""
        return list(specs)

    def give_back(self, specs: Iterable[TrialSpec]) -> None:
        """Nothing was claimed."""

    def grown(self, specs: Iterable[TrialSpec]) -> bool:
        """Nobody else adds anything."""
        return False

    def working(self) -> contextlib.AbstractContextManager[None]:
        """Nothing to hold."""
        return contextlib.nullcontext()

    def describe_hits(self, specs: Iterable[TrialSpec]) -> str:
        """Nothing was hit."""
        return ""


class OptunaStore:
    """Keeps the trials of one experiment in an Optuna storage.

    Args:
        storage: An ``optuna.storages.BaseStorage``.
        leases: Who trains what.
        experiment: What identifies task and optimizer; part of the studies' names.
        where: Path or URL without passwords, for messages.
        starts: What the trials start from, by width, depth and seed; one stored with another start
            is another trial. None: not compared.
        fresh: Whether what is stored now counts as absent.
        journal: The journal behind the storage, if it is one; names its damaged lines.
    """

    def __init__(
        self, storage: Any, leases: Leases, *, experiment: str, where: str, translated: Any,
        starts: Starts | None = None, fresh: bool = False, journal: Journal | None = None,
    ) -> None:  # fmt: skip
        self._journal = journal
        self.where = where
        self.notes: list[str] = []
        self._storage = storage
        self._leases = leases
        self._experiment = experiment
        self._translated = translated  # turns what Optuna raises into StorageError
        self._starts = starts or {}
        self._since = datetime.datetime.now() if fresh else datetime.datetime.min
        self._studies: dict[str, int] = {}
        self._n_seen: dict[str, int] = {}
        self._dates: dict[TrialSpec, datetime.datetime] = {}
        self._noted: set[str] = set()

    def known(self, specs: Iterable[TrialSpec]) -> dict[TrialSpec, Trial]:
        """Those of the specs that are kept and did not fail, with their trials."""
        asked = set(specs)
        kept: dict[TrialSpec, Trial] = {}
        for example in _one_a_study(asked):
            for frozen in self._complete(example):
                spec = _spec_of(frozen.params, example)
                if spec in asked and spec not in kept:
                    trial = self._read(spec, frozen)
                    if trial is not None:
                        kept[spec] = trial
        for line in self._journal.damaged_lines if self._journal else ():
            self._note(f"line {line} of {self.where} is damaged and left out")
        return {spec: kept[spec] for spec in sorted(kept)}

    def keep(self, spec: TrialSpec, trial: Trial) -> None:
        """Append one ended trial: complete (its value inf when diverged), or failed."""
        fields = trial.model_dump(mode="json")
        start = self._starts.get(place_of(spec))
        if start is not None:
            fields["start"] = {"digest": start.digest, "first": list(start.losses)}
        checksum = self._checksum(spec, fields)
        attributes = {"losses": fields.pop("losses"), "trial": fields, "checksum": checksum}
        points = CURVE_POINTS if self._journal is None else JOURNAL_POINTS
        with self._translated():
            study = self._study(spec)
            self._storage.create_new_trial(study, _frozen(spec, trial, attributes, points))
        if self._name(spec) in self._n_seen:
            self._n_seen[self._name(spec)] += 1  # what this sweep adds is no news to it
        self._leases.release([self._key(spec)])

    def claim(self, specs: Sequence[TrialSpec]) -> list[TrialSpec]:
        """Those of the specs that no other sweep is training; they are this one's until kept."""
        keys = {self._key(spec): spec for spec in specs}
        with self._translated():
            taken = self._leases.claim(keys)
        return [spec for key, spec in keys.items() if key in taken]

    def give_back(self, specs: Iterable[TrialSpec]) -> None:
        """End claims without a result."""
        with self._translated():
            self._leases.release([self._key(spec) for spec in specs])

    @contextlib.contextmanager
    def working(self) -> Iterator[None]:
        """Hold claims inside, give them back at the end."""
        with quiet(), self._leases.beating():
            yield

    def grown(self, specs: Iterable[TrialSpec]) -> bool:
        """Whether trials were added to the studies of these specs since they were last read."""
        grown = False
        for example in _one_a_study(specs):
            grown |= self._count(example) != self._n_seen.get(self._name(example), -1)
        return grown

    def _count(self, example: TrialSpec) -> int:
        """How many trials a study has; a journal and a database count them themselves."""
        from sqlalchemy import text

        with self._translated():
            study = self._study(example)
            if self._journal is not None:
                self._storage.get_study_name_from_id(study)  # reads what others have appended
                return self._journal.n_trials[study]
            query = text("SELECT COUNT(*) FROM trials WHERE study_id = :study")
            with self._storage.engine.connect() as connection:
                return int(connection.execute(query, {"study": study}).scalar_one())

    def describe_hits(self, specs: Iterable[TrialSpec]) -> str:
        """When the kept trials of these specs were trained, in words."""
        days = sorted({self._dates[spec].date() for spec in specs if spec in self._dates})
        if not days:
            return ""
        first, last = (f"{day:%d %b %Y}".lstrip("0") for day in (days[0], days[-1]))
        return f"of {first}" if first == last else f"of {first} to {last}"

    def _complete(self, example: TrialSpec) -> list[Any]:
        """The ended trials of a study, newest first."""
        from optuna.trial import TrialState

        self._n_seen[self._name(example)] = self._count(example)
        with self._translated():
            trials = self._storage.get_all_trials(
                self._study(example),
                deepcopy=False,
                states=(TrialState.COMPLETE, TrialState.PRUNED),
            )
        return [t for t in reversed(trials) if t.datetime_complete >= self._since]

    def _read(self, spec: TrialSpec, frozen: Any) -> Trial | None:
        """The stored trial; None when it is damaged (with a note) or of another start."""
        place = f"trial {frozen.number} of {self.where} ({_words(spec)})"
        kept = frozen.user_attrs
        attributes = self._journal.attributes(kept) if self._journal is not None else kept
        fields = _fields(attributes)
        if attributes.get("checksum") != self._checksum(spec, fields):
            return self._note(f"{place} is damaged and left out: its checksum differs")
        expected = self._starts.get(place_of(spec))
        start = fields.pop("start", None)
        trial = Trial.model_validate(fields)
        if self._starts and expected is None:
            return None  # this seed does not start today
        if expected is not None:
            if start is None or start["digest"] != expected.digest:
                return None  # another training under the same name
            stored = (trial.losses[0], *start["first"])
            today = (expected.losses[0], *expected.losses)
            for then, now in zip(stored, today, strict=False):
                if not _agree(then, now):
                    return self._note(
                        f"{place} is trained again: the loss of its first steps, {then:.6g}, is "
                        f"{now:.6g} today"
                    )
        self._dates[spec] = frozen.datetime_complete
        return trial

    def _note(self, text: str) -> None:
        if text not in self._noted:
            self._noted.add(text)
            self.notes.append(text)

    def _name(self, spec: TrialSpec) -> str:
        depth = "" if spec.depth is None else f", depth {spec.depth}"
        return f"{self._experiment}, {spec.rule}, {spec.n_steps} steps{depth}"

    def _key(self, spec: TrialSpec) -> str:
        """Name of a trial's lease."""
        start = self._starts.get(place_of(spec))
        further = f" {spec.axes}" * bool(spec.axes) + f" to {spec.stop}" * bool(spec.stop)
        text = f"{self._name(spec)} {spec.width} {spec.lr!r} {spec.seed} {start and start.digest}"
        text += further
        return hashlib.sha256(text.encode()).hexdigest()[:32]

    def _checksum(self, spec: TrialSpec, attributes: Mapping[str, Any]) -> str:
        content = [self._name(spec), spec.width, spec.lr, spec.seed, attributes]
        content += [dict(spec.axes)] if spec.axes else []
        content += [spec.stop] if spec.stop else []
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]

    def _study(self, spec: TrialSpec) -> int:
        from optuna.exceptions import DuplicatedStudyError
        from optuna.study import StudyDirection

        name = self._name(spec)
        if name not in self._studies:
            try:
                study = self._storage.create_new_study([StudyDirection.MINIMIZE], name)
            except DuplicatedStudyError:
                study = self._storage.get_study_id_from_name(name)
            self._studies[name] = study
        return self._studies[name]


def _frozen(spec: TrialSpec, trial: Trial, attributes: dict[str, Any], n_points: int) -> Any:
    """The trial as Optuna writes it."""
    from optuna.distributions import FloatDistribution, IntDistribution
    from optuna.trial import FrozenTrial, TrialState

    now = datetime.datetime.now()
    failed, stopped = trial.status == "failed", trial.status == "stopped"
    ended = TrialState.PRUNED if stopped else TrialState.COMPLETE
    value = final_loss(trial.losses) if stopped else trial.final_loss
    return FrozenTrial(
        number=-1, trial_id=-1, value=None if failed else value,
        state=TrialState.FAIL if failed else ended,
        datetime_start=now - datetime.timedelta(seconds=trial.wall_seconds),
        datetime_complete=now,
        params={
            "width": spec.width, "lr": spec.lr, "seed": spec.seed, **dict(spec.axes),
            **({"stop": spec.stop} if spec.stop else {}),
        },
        distributions={
            "width": IntDistribution(1, LARGEST),
            "lr": FloatDistribution(SMALLEST_LR, LARGEST_LR, log=True),
            "seed": IntDistribution(0, LARGEST),
            **{name: FloatDistribution(-LARGEST_VALUE, LARGEST_VALUE) for name, _ in spec.axes},
            **({"stop": IntDistribution(1, LARGEST)} if spec.stop else {}),
        },
        user_attrs=attributes, system_attrs={}, intermediate_values=_curve(trial, n_points),
    )  # fmt: skip


def _fields(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a trial from its attributes, whatever these are."""
    rest = attributes.get("trial")
    return {"losses": attributes.get("losses"), **(rest if isinstance(rest, dict) else {})}


def _curve(trial: Trial, n_points: int) -> dict[int, float]:
    """Losses by step, so many at most: what the dashboard draws."""
    stride = max(1, -(-len(trial.losses) // n_points))
    return {step: trial.losses[step] for step in range(0, len(trial.losses), stride)}


def _one_a_study(specs: Iterable[TrialSpec]) -> list[TrialSpec]:
    return list({(s.rule, s.n_steps, s.depth): s for s in sorted(specs)}.values())


def _spec_of(params: Mapping[str, Any], example: TrialSpec) -> TrialSpec | None:
    """The spec of a stored trial; None for one that something else has added to the study."""
    further = (*_COORDINATES, "stop")
    axes = {name: value for name, value in params.items() if name not in further}
    if not params.keys() >= set(_COORDINATES) or any(isinstance(v, str) for v in axes.values()):
        return None
    return TrialSpec(
        width=int(params["width"]), lr=float(params["lr"]), seed=int(params["seed"]),
        rule=example.rule, n_steps=example.n_steps, depth=example.depth,
        axes=tuple(sorted((name, float(value)) for name, value in axes.items())),
        stop=int(params.get("stop", 0)),
    )  # fmt: skip


def _words(spec: TrialSpec) -> str:
    axes = "".join(f", {name} {value:.3g}" for name, value in spec.axes)
    return f"width {spec.width}, lr {spec.lr:.3g}, seed {spec.seed}{axes}"


def _agree(stored: float, today: float) -> bool:
    """Whether losses are the same but for rounding; NaN agrees with NaN."""
    both_nan = math.isnan(stored) and math.isnan(today)
    close = abs(stored - today) <= AGREEMENT * max(1.0, abs(today))
    return stored == today or both_nan or close


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Hold Optuna's small talk back; free inside itself."""
    logger = logging.getLogger("optuna")
    before, quiet = logger.level, logger.level >= logging.WARNING
    if not quiet:  # each change of a level empties the caches of every logger
        logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        if not quiet:
            logger.setLevel(before)


Store = NoStore | OptunaStore
