"""The verdict of a coordinate check: which layers keep their size while the model grows."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal, cast

from pydantic import Field, model_validator

from thetaone.records._base import Record
from thetaone.records._table import text_table
from thetaone.records._training import TrainingLoop
from thetaone.records._words import block_kinds, counted, listed
from thetaone.records.laws import PowerLaw

FEATURE_SIZE = "feature size"
FEATURE_UPDATE = "feature update"
WEIGHT_NORM = "weight norm"
UPDATE_NORM = "update norm"
OWN_UPDATE = "own update"
ALIGNMENT = "alignment"
DECAY = "decay"
CLIPPING = "clipping"
WIDTH, DEPTH = "width", "depth"
QUANTITIES = (
    CLIPPING,
    WEIGHT_NORM,
    DECAY,
    FEATURE_SIZE,
    UPDATE_NORM,
    OWN_UPDATE,
    ALIGNMENT,
    FEATURE_UPDATE,
)  # causes before what they cause
Answer = Literal["holds", "fails", "undecided"]
HOLDS: Final = "holds"
FAILS: Final = "fails"
UNDECIDED: Final = "undecided"
MOST_KINDS = 3  # of layers that a line of a summary names
NOISE = 0.1  # how far noise may carry an exponent whose interval reaches into the band


class LayerVerdict(Record):
    """One quantity of one layer at one step, over all sizes.

    Attributes:
        layer: Qualified name of a module or of a parameter; ``block logits`` for what a softmax
            takes in, ``(loss) mse_loss`` for what the loss takes in outside the model.
        role: Role of the layer's weight, e.g. ``hidden``.
        quantity: One of ``QUANTITIES``.
        step: Optimizer steps taken when it was measured [count].
        law: Power law of value over expected value, fitted over the sizes; ``None`` when a value
            was zero or not finite.
        band: Exponents that count as Θ(1).
        values: Measured over expected values, shape [seeds, sizes].
        answer: ``holds``: the interval lies in the band; ``fails``: outside of it;
            ``undecided``: across an edge.
        seeds_needed: Seeds that would decide it, as far as its spread tells [count]; 0 when it is
            decided, or no number would do.
        cause: Likely cause and what to do; empty unless it fails.
    """

    layer: str
    role: str = ""
    quantity: str
    step: int
    law: PowerLaw | None
    band: tuple[float, float]
    values: tuple[tuple[float, ...], ...]
    answer: Answer
    seeds_needed: int = 0
    cause: str = ""

    @model_validator(mode="before")
    @classmethod
    def _read_passed(cls, data: Any) -> Any:
        """Read a verdict of two answers, as earlier releases wrote it."""
        if not isinstance(data, dict) or "passed" not in data:
            return cast(object, data)
        fields = dict(cast(dict[str, Any], data))
        return {"answer": HOLDS if fields.pop("passed") else FAILS, **fields}

    @property
    def passed(self) -> bool:
        """Whether it holds, or is undecided with an exponent that misses the band by < 0.1."""
        if self.answer == UNDECIDED and self.law is not None:
            return self.band[0] - NOISE < self.law.exponent < self.band[1] + NOISE
        return self.answer == HOLDS


class CoordinateCheck(Record):
    """Whether every layer's features move as much in a large model as in a small one.

    Attributes:
        task: Name of the task.
        parametrization: Label, e.g. ``mup``, ``sp`` or the name of the user's callable.
        optimizer: Name of the optimizer.
        lr: Learning rate at the base width.
        axis: What grows: ``width`` or ``depth``; ``width`` where both grow together.
        sizes: The widths (or depths) compared [count].
        depths: The depth at each width where both grow together; empty otherwise [count].
        steps: Steps at which it was measured [count].
        seeds: Seeds trained at each size, those added for undecided rows included [count].
        loop: What a step does beside the optimizer's update.
        rows: One verdict per layer, quantity and step, in order of execution.
        notes: What was not judged, and why.

    Examples:
        >>> import thetaone as t1
        >>> check = t1.coordinate_check(
        ...     "digits", widths=[32, 64], optimizer="Adam", lr=2**-9, seeds=2, steps=[1]
        ... )
        >>> check.sizes, check.seeds >= 2
        ((32, 64), True)
    """

    renderer = "thetaone.report.figures._plots:coordinate_check"

    task: str = ""
    parametrization: str
    optimizer: str
    lr: float
    axis: str = "width"
    sizes: tuple[int, ...]
    depths: tuple[int, ...] = ()
    steps: tuple[int, ...]
    seeds: int
    loop: TrainingLoop = Field(default_factory=TrainingLoop)
    rows: tuple[LayerVerdict, ...]
    notes: tuple[str, ...] = ()

    @property
    def widths(self) -> tuple[int, ...]:
        """The sizes, under the name they have when width grows."""
        return self.sizes

    @property
    def passed(self) -> bool:
        """Whether no row fails and no undecided one is far from holding."""
        return all(row.passed for row in self.rows)

    @property
    def verdict(self) -> Answer:
        """``fails`` when a row does, else ``undecided`` when a row is, else ``holds``."""
        answers = {row.answer for row in self.rows}
        return FAILS if FAILS in answers else UNDECIDED if UNDECIDED in answers else HOLDS

    @property
    def failures(self) -> tuple[LayerVerdict, ...]:
        """The rows that fail, in order of execution."""
        return tuple(row for row in self.rows if row.answer == FAILS)

    @property
    def undecided(self) -> tuple[LayerVerdict, ...]:
        """The rows that these seeds cannot decide."""
        return tuple(row for row in self.rows if row.answer == UNDECIDED)

    @property
    def failed_layers(self) -> tuple[str, ...]:
        """Names of the layers with a failure, each once."""
        return tuple(dict.fromkeys(row.layer for row in self.failures))

    @property
    def outcome(self) -> str:
        """``passed``, ``failed in …`` or ``undecided in …``: for a line of a summary."""
        if self.passed:
            return "passed"
        if self.failures:
            kinds = list(dict.fromkeys(block_kinds(self.failed_layers).values()))
            more = f" and {counted(len(kinds) - MOST_KINDS, 'other kind')}"
            return f"failed in {', '.join(kinds[:MOST_KINDS])}{more * (len(kinds) > MOST_KINDS)}"
        layers = dict.fromkeys(row.layer for row in self.undecided if not row.passed)
        return f"undecided in {', '.join(layers)}"

    @property
    def culprit(self) -> LayerVerdict | None:
        """The first fault in order of execution: at the earliest step, in the earliest layer."""
        return min(self.failures, key=lambda row: row.step, default=None)

    def __str__(self) -> str:
        columns, rows = self.table()
        return "\n".join([text_table(columns, rows, title=self._title()), *self.findings()])

    def table(self) -> tuple[tuple[str, ...], tuple[tuple[str, ...], ...]]:
        """Headings and rows: the exponents at the last step, one row a kind of layer.

        Layers of one kind have one role and differ in the number of their block only; each cell
        is that of the one furthest from holding.
        """
        last = [row for row in self.rows if row.step in (0, self.steps[-1])]
        roles: dict[str, str] = {}
        for row in last:
            roles[row.layer] = roles.get(row.layer) or row.role
        names = block_kinds(roles)
        kinds: dict[tuple[str, str], list[LayerVerdict]] = {}
        for row in last:
            kinds.setdefault((names[row.layer], roles[row.layer]), []).append(row)
        quantities = tuple(q for q in QUANTITIES if any(row.quantity == q for row in last))
        early = {row.layer: row.step for row in self.failures if row not in last}
        rows = tuple(_kind_row(*kind, rows, quantities, early) for kind, rows in kinds.items())
        return ("layer", "role", "layers", *quantities, "verdict"), rows

    def findings(self) -> list[str]:
        """What fails and why, what these seeds cannot decide, what was not judged."""
        causes: dict[str, list[str]] = {}
        for row in self.failures:
            layers = causes.setdefault(row.cause, [])
            if row.layer not in layers:
                layers.append(row.layer)
        lines = [f"✗ {self._failing(who)}: {why}" for why, who in causes.items()]
        return [*lines, *self._open_questions(), *self.notes]

    def _failing(self, layers: Sequence[str]) -> str:
        """The layers, with the step where it is not the table's."""
        steps = {row.step for row in self.failures if row.layer in layers}
        early = steps.isdisjoint({0, self.steps[-1]})
        return listed(layers) + (f" at step {min(steps)}" if early else "")

    def _open_questions(self) -> list[str]:
        needed = [row.seeds_needed for row in self.undecided]
        if not needed:
            return []
        layers = listed(dict.fromkeys(row.layer for row in self.undecided))
        counts = [count for count in needed if count]
        advice = f"about {max(counts)} seeds would do" if counts else "more seeds would not do"
        if counts and len(counts) < len(needed):
            advice += ", and some lie on the edge of their band"
        advice += f"; a smaller lr or larger {self.axis}s need fewer"
        return [f"? undecided after {self.seeds} seeds, {advice}: {layers}"]

    def _title(self) -> str:
        verdict = {
            HOLDS: "passed",
            UNDECIDED: f"{'passed' if self.passed else 'UNDECIDED'}, "
            f"{counted(len(self.undecided), 'row')} undecided",
            FAILS: f"FAILED in {counted(len(self.failed_layers), 'layer')}",
        }[self.verdict]
        sizes = ", ".join(map(str, self.sizes))
        grown = f"{self.axis} {sizes}"
        if self.depths:
            grown += f" at depth {', '.join(map(str, self.depths))}"
        return (
            f"Coordinate check {verdict}; exponents in {self.axis}: {self.parametrization}, "
            f"{self.optimizer}, lr {self.lr:.4g}{self.loop}, {grown}, "
            f"{counted(self.seeds, 'seed')}, step {self.steps[-1]}"
        )


def _kind_row(
    name: str,
    role: str,
    rows: Sequence[LayerVerdict],
    quantities: Sequence[str],
    early: Mapping[str, int],
) -> tuple[str, ...]:
    layers = dict.fromkeys(row.layer for row in rows)
    worst = {
        quantity: max((row for row in rows if row.quantity == quantity), key=_badness, default=None)
        for quantity in quantities
    }
    failing = {row.layer for row in rows if row.answer == FAILS}
    undecided = {row.layer for row in rows if row.answer == UNDECIDED}
    marked, mark = (failing, "✗") if failing else (undecided, "?")
    if not failing and not early.keys().isdisjoint(layers):  # at a step that is not shown
        marked = {layer for layer in layers if layer in early}
        mark = f"✗ step {min(early[layer] for layer in marked)}"
    verdict = mark if marked else "ok"
    if 0 < len(marked) < len(layers):
        verdict += f" {len(marked)} of {len(layers)}"
    cells = tuple(_exponent(worst[quantity]) for quantity in quantities)
    shown = name if len(layers) > 1 else next(iter(layers))
    return (shown, role, str(len(layers)), *cells, verdict)


def _badness(row: LayerVerdict) -> tuple[int, float]:
    """First by the answer, then by the distance of the exponent from the middle of its band."""
    rank = {HOLDS: 0, UNDECIDED: 1, FAILS: 2}[row.answer]
    if row.law is None:
        return rank, math.inf if row.answer == FAILS else -1.0
    middle = (row.band[0] + row.band[1]) / 2
    return rank, abs(row.law.exponent - (middle if math.isfinite(middle) else 0.0))


def _exponent(row: LayerVerdict | None) -> str:
    if row is None:
        return ""
    mark = {HOLDS: "", FAILS: " ✗", UNDECIDED: " ?"}[row.answer]
    if row.law is None:
        zero = all(value == 0 for seed in row.values for value in seed)
        return ("zero" if zero else "not finite" if _diverged(row) else "zero at some") + mark
    half = (row.law.interval[1] - row.law.interval[0]) / 2
    if half < 5e-3:
        return f"{row.law.exponent:+.2f}{mark}"
    return f"{row.law.exponent:+.2f} ± {half:.2f}{mark}"


def _diverged(row: LayerVerdict) -> bool:
    return not all(math.isfinite(value) for seed in row.values for value in seed)
