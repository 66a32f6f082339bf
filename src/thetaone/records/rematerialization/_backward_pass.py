"""Backward passes over equal layers with some activations kept."""

from thetaone.records._base import Record
from thetaone.records._table import text_table
from thetaone.records._units import format_seconds


class BackwardPass(Record):
    """One way to do a backward pass.

    Attributes:
        policy: What is kept, and how it is reloaded.
        kept: Activations kept at once beside the input [count].
        forwards: Recomputed forwards [count].
        loads: Loads of kept activations [count].
        seconds: Time of both [s].
        break_even_load_seconds: A disk that keeps every activation breaks even at this load [s].
    """

    policy: str
    kept: int
    forwards: int
    loads: int
    seconds: float
    break_even_load_seconds: float


class KeptComparison(Record):
    """The same backward pass, done in several ways.

    Attributes:
        length: Layers [count].
        passes: The policy asked for, the optimal plan with as many kept, the per-segment reading
            and store-all.
    """

    length: int
    passes: tuple[BackwardPass, ...]

    def __str__(self) -> str:
        rows = [
            [
                one.policy,
                str(one.kept),
                f"{one.forwards} forwards",
                f"{one.loads} loads",
                format_seconds(one.seconds),
                format_seconds(one.break_even_load_seconds),
            ]
            for one in self.passes
        ]
        columns = ["plan", "kept", "recomputed", "loaded", "backward pass", "break-even load"]
        title = f"{self.length} layers: recomputation and loads of one backward pass"
        return text_table(columns, rows, title=title)
