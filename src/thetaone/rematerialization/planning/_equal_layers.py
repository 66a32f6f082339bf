"""Equal layers with some activations kept: forwards, loads and time of one backward pass.

The activation that each layer's backward needs is recomputed from the nearest kept one before it.
Writes are free and a layer's own forward is part of its backward.
"""

from thetaone.errors import InputError
from thetaone.records import Chain, Record, Region, Schedule, Stage, format_seconds, text_table
from thetaone.rematerialization.planning._binomial import revolve
from thetaone.rematerialization.planning._policies import judged, periodic, store_all


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


def compare_kept(
    length: int, keep_every: int, *, forward_seconds: float, load_seconds: float
) -> KeptComparison:
    """Keep every ``keep_every``-th of ``length`` activations, against the best use of as many.

    Args:
        length: Layers [count].
        keep_every: An activation is kept after every so many layers [count].
        forward_seconds: One forward of one layer [s].
        load_seconds: One load of one activation [s].

    Raises:
        InputError: A count below 1, or ``keep_every`` above ``length``.

    Examples:
        >>> found = compare_kept(10, 5, forward_seconds=20e-9, load_seconds=10e-9)
        >>> [(one.forwards, one.loads, round(one.seconds * 1e9)) for one in found.passes[:2]]
        [(20, 10, 500), (6, 10, 220)]
    """
    if length < 1 or not 1 <= keep_every <= length:
        raise InputError(
            f"length={length}, keep_every={keep_every}: need 1 <= keep_every <= length"
        )
    layer = Stage(
        name="layer",
        forward_seconds=forward_seconds,
        backward_seconds=0.0,
        output_bytes=1,
        tape_bytes=1,
    )
    chain = Chain(input_bytes=1, stages=(layer,) * length, load_seconds=load_seconds)
    kept = length // keep_every
    best = _load_every_layer(chain, revolve(chain, kept + 1))
    plans = [
        (
            f"every {keep_every}th, loaded for every layer",
            kept,
            periodic(chain, keep_every, reload="layer"),
        ),
        (f"optimal with {kept} kept, loaded for every layer", kept, best),
    ]
    if keep_every > 1:
        everything = judged(
            chain, [Region(start=k, stop=k + 1) for k in range(length)], policy="all kept"
        )
        plans.append(("all kept, loaded for every layer", length, everything))
    return KeptComparison(
        length=length,
        passes=tuple(_pass(chain, policy, kept, schedule) for policy, kept, schedule in plans),
    )


def _load_every_layer(chain: Chain, schedule: Schedule) -> Schedule:
    """The last layer, too, loads its input instead of taking it from the sweep."""
    last = Region(start=chain.length - 1, stop=chain.length)
    return judged(chain, [*schedule.regions, last], policy=schedule.policy)


def _pass(chain: Chain, policy: str, kept: int, schedule: Schedule) -> BackwardPass:
    sweep_and_tapes = store_all(chain).total_seconds + sum(
        chain.stages[k].forward_seconds for k, n in enumerate(schedule.executions) if n > 1
    )
    seconds = schedule.total_seconds - sweep_and_tapes
    return BackwardPass(
        policy=policy,
        kept=kept,
        forwards=schedule.replays,
        loads=schedule.loads,
        seconds=seconds,
        break_even_load_seconds=seconds / chain.length,
    )
