"""An option of the optimizer that was tuned on the proxies."""

from typing import Literal

from thetaone.records._base import Record


class TunedOption(Record):
    """What tuning one option showed.

    Attributes:
        name: The option, as an axis of a sweep calls it.
        before: Its value before.
        value: Its value now: ``before`` where none is better.
        tried: The values tried.
        best: Size of a proxy -> its best value.
        gain: By how much the best value's loss at the largest proxy is lower.
        stderr: Standard error of the gain, from the paired seeds.
        kept: Whether another value is kept.
        why: Why not; empty when it is.
        n_trials: Trainings that it took [count].
        axis: What grows from proxy to proxy.
    """

    name: str
    before: float
    value: float
    tried: tuple[float, ...]
    best: dict[int, float]
    gain: float
    stderr: float
    kept: bool
    why: str = ""
    n_trials: int
    axis: Literal["width", "depth"] = "width"

    def __str__(self) -> str:
        sizes = ", ".join(map(str, self.best))
        best = ", ".join(f"{value:g}" for value in self.best.values())
        change = f"{self.before:g} → {self.value:g}" if self.kept else f"{self.before:g} stays"
        because = f": {self.why}" if self.why else ""
        return (
            f"{change}{because}; the best of {len(self.tried)} values lowers the loss by "
            f"{self.gain:.4f} ± {self.stderr:.4f}; best at {self.axis}s {sizes}: {best}; "
            f"{self.n_trials} trainings"
        )
