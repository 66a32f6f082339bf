"""The verdict of a coordinate check: which layers keep their size while the model grows."""

from collections.abc import Sequence

from thetaone.records._base import Record
from thetaone.records._table import text_table
from thetaone.records.laws import PowerLaw

FEATURE_UPDATE = "feature update"
WEIGHT_NORM = "weight norm"
UPDATE_NORM = "update norm"
OWN_UPDATE = "own update"
ALIGNMENT = "alignment"
WIDTH, DEPTH = "width", "depth"
QUANTITIES = (FEATURE_UPDATE, OWN_UPDATE, WEIGHT_NORM, UPDATE_NORM, ALIGNMENT)


class LayerVerdict(Record):
    """One quantity of one layer at one step, over all sizes.

    Attributes:
        layer: Qualified name of the module, or of the parameter.
        role: Role of the layer's weight, e.g. ``hidden``.
        quantity: One of ``QUANTITIES``.
        step: Optimizer steps taken when it was measured [count].
        law: Fitted power law over the sizes; ``None`` when a value was zero or not finite.
        band: Exponents that count as Θ(1).
        values: Measured values, shape [seeds][sizes].
        passed: The exponent lies in the band, or cannot be told from it.
        cause: Likely cause and what to do; empty when passed.
    """

    layer: str
    role: str = ""
    quantity: str
    step: int
    law: PowerLaw | None
    band: tuple[float, float]
    values: tuple[tuple[float, ...], ...]
    passed: bool
    cause: str = ""


class CoordinateCheck(Record):
    """Whether every layer's features move as much in a large model as in a small one.

    Attributes:
        task: Name of the task.
        parametrization: Label, e.g. ``mup``, ``sp`` or the name of the user's callable.
        optimizer: Name of the optimizer.
        lr: Learning rate at the base width.
        axis: What grows: ``width`` or ``depth``.
        sizes: The widths (or depths) compared [count].
        steps: Steps at which it was measured [count].
        seeds: Seeds trained at each size [count].
        rows: One verdict per layer, quantity and step.
    """

    renderer = "thetaone.report.figures._plots:coordinate_check"

    task: str = ""
    parametrization: str
    optimizer: str
    lr: float
    axis: str = "width"
    sizes: tuple[int, ...]
    steps: tuple[int, ...]
    seeds: int
    rows: tuple[LayerVerdict, ...]

    @property
    def widths(self) -> tuple[int, ...]:
        """The sizes, under the name they have when width grows."""
        return self.sizes

    @property
    def passed(self) -> bool:
        """Whether every row passed."""
        return all(row.passed for row in self.rows)

    @property
    def failures(self) -> tuple[LayerVerdict, ...]:
        """The rows that did not pass, in the order of the model's layers."""
        return tuple(row for row in self.rows if not row.passed)

    @property
    def failed_layers(self) -> tuple[str, ...]:
        """Names of the layers with a failure, each once."""
        return tuple(dict.fromkeys(row.layer for row in self.failures))

    def __str__(self) -> str:
        last = [row for row in self.rows if row.step in (0, self.steps[-1])]
        columns = ("layer", "role", *(f"{quantity} exponent" for quantity in QUANTITIES), "verdict")
        table = text_table(columns, _by_layer(last), title=self._title(), width=180)
        causes: dict[str, list[str]] = {}
        for row in self.failures:
            layers = causes.setdefault(row.cause, [])
            if row.layer not in layers:
                layers.append(row.layer)
        return "\n".join([table, *(f"✗ {', '.join(who)}: {why}" for why, who in causes.items())])

    def _title(self) -> str:
        verdict = "passed" if self.passed else f"FAILED in {len(self.failed_layers)} layer(s)"
        sizes = ", ".join(map(str, self.sizes))
        return (
            f"Coordinate check {verdict}: {self.parametrization}, {self.optimizer}, "
            f"lr {self.lr:.4g}, {self.axis} {sizes}, {self.seeds} seed(s), step {self.steps[-1]}"
        )


def _by_layer(rows: Sequence[LayerVerdict]) -> list[tuple[str, ...]]:
    lines: list[tuple[str, ...]] = []
    for layer in dict.fromkeys(row.layer for row in rows):
        mine = {row.quantity: row for row in rows if row.layer == layer}
        cells = tuple(_exponent(mine.get(quantity)) for quantity in QUANTITIES)
        role = next(iter(mine.values())).role
        verdict = "ok" if all(row.passed for row in mine.values()) else "✗"
        lines.append((layer, role, *cells, verdict))
    return lines


def _exponent(row: LayerVerdict | None) -> str:
    if row is None:
        return ""
    if row.law is None:
        return "not finite" if not row.passed else "zero"
    half = (row.law.interval[1] - row.law.interval[0]) / 2
    return f"{row.law.exponent:+.3f} ± {half:.2g}{'' if row.passed else ' ✗'}"
