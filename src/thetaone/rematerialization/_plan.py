"""The public call: plan a chain within a budget, with a folder as a second tier."""

from pathlib import Path

from thetaone.records import Chain, DiskCost, Schedule
from thetaone.rematerialization import disk as disk_room
from thetaone.rematerialization import planning


def plan(
    chain: Chain,
    budget: int | float | str,
    *,
    disk: "DiskCost | disk_room.DiskTier | str | Path | None" = None,
    memory_units: int = 500,
) -> Schedule:
    """The fastest persistent schedule whose peak stays within a budget.

    Optimal among persistent schedules, for additive measured costs and synchronous transfers; the
    peak that is reported is exact in bytes, and ``bound_seconds`` says what no schedule undercuts.
    A larger budget never gives a slower schedule, and no fixed policy that fits is faster.

    Args:
        chain: What each stage costs.
        budget: Bytes that the chain may hold beyond its own input: an integer, text such as
            ``"2GiB"``, or a fraction of what store-all holds: a float in (0, 1], ``"50%"``.
        disk: A second tier for kept activations: a directory or a ``DiskTier``, which measure
            themselves, or a ``DiskCost``; None plans in memory alone.
        memory_units: Least number of memory levels in the table [count], >= 8; more is finer and
            slower.

    Returns:
        A schedule with exact seconds, peak bytes, forwards and loads.

    Raises:
        BudgetTooSmallError: No schedule fits; the floor it names does.
        InputError: The budget is not a quantity of bytes or a fraction, or too few units.
        DiskTierError: The directory cannot be written.

    Examples:
        >>> from thetaone.records import Chain, Stage
        >>> stage = Stage(name="block", forward_seconds=1.0, backward_seconds=2.0,
        ...               output_bytes=1, tape_bytes=16)
        >>> chain = Chain(input_bytes=1, stages=(stage,) * 24)
        >>> plan(chain, 386).forwards, plan(chain, 64).forwards
        (24, 45)

    Source: hal-02352969, section 4.
    """
    cost = disk if disk is None or isinstance(disk, DiskCost) else disk_room.disk_cost(disk)
    return planning.plan(chain, budget, disk=cost, memory_units=memory_units)
