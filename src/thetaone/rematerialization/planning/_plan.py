"""The call: the fastest persistent schedule of a chain within a budget."""

from collections import OrderedDict

from thetaone.records import Chain, DiskCost, Schedule, whole_number
from thetaone.rematerialization.planning._budget import budget_bytes, naming_floor
from thetaone.rematerialization.planning._planner import MOST_UNITS, Planner

CACHE_BYTES = 2**29
CACHED = 4  # chains
_cache: OrderedDict[tuple[str, int, str], Planner] = OrderedDict()


def plan(
    chain: Chain,
    budget: int | float | str,
    *,
    disk: DiskCost | None = None,
    memory_units: int = 500,
) -> Schedule:
    """The fastest persistent schedule whose peak stays within a budget.

    Optimal among persistent schedules, for additive costs and synchronous transfers. Where the
    sizes of the chain have few sums nothing is rounded; elsewhere sizes are rounded up to about
    ``memory_units`` levels and the budget down, ``bound_seconds`` of the schedule says what no
    schedule can undercut, and the peak that is reported is exact in bytes all the same. A larger
    budget never gives a slower schedule, a disk never gives a slower one than none, and no fixed
    policy that fits is faster.

    Args:
        chain: What each stage costs.
        budget: Bytes that the chain may hold beyond its own input: an integer, text such as
            ``"2GiB"``, or a fraction of what store-all holds: a float in (0, 1], ``"50%"``.
        disk: What a second tier for kept activations costs; None plans in memory alone.
        memory_units: Least number of memory levels in the table [count], >= 8; more is finer and
            slower. Short chains get more, and so do long ones; in chains of several hundred unlike
            blocks neighbours are planned as one. ``policy`` of the schedule says so.

    Returns:
        A schedule with exact seconds, peak bytes, forwards and loads.

    Raises:
        BudgetTooSmallError: No schedule fits; the floor it names does.
        InputError: The budget is not a quantity of bytes or a fraction, or too few units.

    Examples:
        >>> from thetaone.records import Chain, Stage
        >>> stage = Stage(name="block", forward_seconds=1.0, backward_seconds=2.0,
        ...               output_bytes=2, tape_bytes=16)
        >>> chain = Chain(input_bytes=2, stages=(stage,) * 12)
        >>> plan(chain, "100%").forwards, plan(chain, 28).forwards
        (12, 30)
        >>> disk = DiskCost(write_bytes_per_second=40.0, read_bytes_per_second=40.0)
        >>> schedule = plan(chain, 28, disk=disk)
        >>> schedule.forwards, schedule.disk_writes, schedule.peak_bytes <= 28
        (23, 7, True)

    Source: hal-02352969, section 4.
    """
    limit = budget_bytes(chain, budget)
    with naming_floor(chain, budget):
        schedule = planner(chain, memory_units, disk).plan(limit)
    _forget()
    return schedule


def planner(chain: Chain, memory_units: int = 500, disk: DiskCost | None = None) -> Planner:
    """The planner of a chain; it is kept, so that the next budget reads the same table."""
    memory_units = whole_number(memory_units, where="memory_units", least=8, most=MOST_UNITS)
    key = (chain.fingerprint, memory_units, disk.to_json() if disk else "")
    if key not in _cache or _cache[key].chain != chain:  # the same costs, under other names
        _cache[key] = Planner(chain, memory_units, disk=disk)
    _cache.move_to_end(key)
    return _cache[key]


def _forget() -> None:
    """Drop the planners used least recently, down to so many and so many bytes."""
    while len(_cache) > CACHED or sum(one.nbytes for one in _cache.values()) > CACHE_BYTES:
        _cache.popitem(last=False)
