"""The judge: replays a schedule operation by operation and counts what it costs.

It knows nothing of how schedules are made. What is alive during each operation, beyond the
chain's own input (a_0):

    forward k    kept + tapes + gradient + A_k (unless kept) + A_{k+1} + x_k
    tape k       kept + tapes + gradient + T_k + scratch of taping
    backward k   kept + tapes (T_k among them) + A_{k+1} (its gradient) + G_k + y_k

The gradient of the chain's output is reserved from the start, so that whatever follows the chain
may make it at any time.
"""

from dataclasses import dataclass, field

from thetaone.errors import ScheduleError
from thetaone.records import Chain, Cost, DiskCost, Region, Schedule, Timeline
from thetaone.rematerialization.planning._tree import Node, tree


def simulate(
    chain: Chain,
    schedule: Schedule,
    *,
    budget_bytes: int | None = None,
    disk: DiskCost | None = None,
) -> Cost:
    """Replay a schedule on a chain.

    Args:
        chain: What each stage costs.
        schedule: Which stages are recomputed, from where.
        budget_bytes: A limit that the replay must respect [bytes]; None only measures.
        disk: What transfers cost; needed when a region waits on disk.

    Returns:
        Seconds, peak bytes, forwards, loads, disk transfers and the timeline.

    Raises:
        ScheduleError: Another number of stages, a limit is exceeded, or no ``disk`` is given.

    Examples:
        >>> from thetaone.records import Chain, Stage
        >>> from thetaone.rematerialization import store_all
        >>> stage = Stage(name="block", forward_seconds=1.0, backward_seconds=2.0,
        ...               output_bytes=1, tape_bytes=16)
        >>> chain = Chain(input_bytes=1, stages=(stage,) * 24)
        >>> cost = simulate(chain, store_all(chain))
        >>> cost.total_seconds, cost.peak_bytes, cost.forwards
        (72.0, 386, 24)
    """
    if schedule.length != chain.length:
        raise ScheduleError(
            f"the schedule is for {schedule.length} stages and the chain has {chain.length}: "
            "plan this chain anew"
        )
    _require_allowed(chain, schedule)
    disk = disk or schedule.disk
    replay = _Replay(chain, disk)
    replay.run(tree(schedule))
    cost = replay.cost()
    if budget_bytes is not None and cost.peak_bytes > budget_bytes:
        raise ScheduleError(
            f"the schedule needs {cost.peak_bytes:,} bytes at {cost.peak_stage!r}, over the limit "
            f"of {budget_bytes:,}: plan with this budget"
        )
    quota = disk.quota_bytes if disk else None
    if quota is not None and cost.disk_bytes > quota:
        raise ScheduleError(
            f"the schedule puts {cost.disk_bytes:,} bytes on disk, over the quota of {quota:,}"
        )
    return cost


def _require_allowed(chain: Chain, schedule: Schedule) -> None:
    """Reject regions that span two lists, or hold a stage that may not run again.

    Raises:
        ScheduleError: The first such region is named.
    """
    kept = [k for k, stage in enumerate(chain.stages) if not stage.recomputable]
    if not (chain.lists or kept):
        return
    for region in schedule.regions:
        where = f"region {region.start}…{region.stop}"
        if any(region.start < start < region.stop for start in chain.lists):
            raise ScheduleError(
                f"{where} spans two lists, which start at {chain.lists}: plan this chain anew"
            )
        for k in kept:
            if region.start <= k < region.stop:
                raise ScheduleError(
                    f"{where} holds {chain.stages[k].name!r}, which may not run again: "
                    "plan this chain anew"
                )


@dataclass
class _Replay:
    """The state of one step: what is alive, what is on disk, what happened so far."""

    chain: Chain
    disk: DiskCost | None
    kept: dict[int, int] = field(default_factory=dict[int, int])
    tapes: dict[int, int] = field(default_factory=dict[int, int])
    on_disk: dict[int, int] = field(default_factory=dict[int, int])
    base: int = 0  # kept + tapes + gradient
    gradient: int = 0
    clock: float = 0.0
    disk_peak: int = 0
    log: list[tuple[str, int, float, float, int]] = field(
        default_factory=list[tuple[str, int, float, float, int]]
    )

    def __post_init__(self) -> None:
        self.sizes = self.chain.activation_bytes
        self.gradients = self.chain.gradient_bytes
        self.gradient = self.base = self.sizes[-1]

    def run(self, root: Node) -> None:
        """Sweep the root forward, then take what it left, last first."""
        pending: list[int | Node] = self.sweep(root, again=False)
        while pending:
            item = pending.pop()
            if isinstance(item, int):
                self.backward(item)
            else:
                self.load(item)
                pending.extend(self.sweep(item))

    def sweep(self, node: Node, *, again: bool = True) -> list[int | Node]:
        """Run the items of a node forward; what is left to do backward, in forward order."""
        for item in node.items:
            if isinstance(item, int):
                self.tape(item, last=again and item == node.stop - 1)
                continue
            self.forward(item)
            if item.stop < node.stop:
                self.keep(item.stop)
        return list(node.items)

    def forward(self, region: Node) -> None:
        """Run a region without a tape; its input stays in memory or goes to disk."""
        start, spilled = region.start, region.tier == "disk"
        if spilled:
            self.write(start)
            if start in self.kept:  # stays until the first stage of the region has read it
                self.base -= self.kept.pop(start)
        for k in range(start, region.stop):
            stage = self.chain.stages[k]
            current = self.sizes[k] if k > start or spilled else 0
            live = self.base + current + self.sizes[k + 1] + stage.forward_scratch_bytes
            self.note("forward", k, stage.forward_seconds, live)

    def tape(self, k: int, *, last: bool) -> None:
        """Run a stage with its tape; the last one of a region stops when its tape is written."""
        stage = self.chain.stages[k]
        seconds = stage.forward_seconds - (stage.tail_seconds if last else 0.0)
        live = self.base + stage.tape_bytes + stage.taping_bytes
        self.note("tape", k, seconds, live)
        self.tapes[k] = stage.tape_bytes
        self.base += stage.tape_bytes

    def backward(self, k: int) -> None:
        stage = self.chain.stages[k]
        live = self.base + self.gradients[k] + stage.backward_scratch_bytes
        self.note("backward", k, stage.backward_seconds, live)
        self.base += self.gradients[k] - self.gradient - self.tapes.pop(k) - self.kept.pop(k, 0)
        self.gradient = self.gradients[k]
        self.on_disk.pop(k, None)

    def load(self, region: Region | Node) -> None:
        self.note("load", region.start, self.chain.load_seconds, self.base)
        if region.start in self.on_disk and region.start not in self.kept:
            self.keep(region.start)
            size = self.sizes[region.start]
            self.note("read", region.start, self._disk().read_seconds(size), self.base)

    def write(self, k: int) -> None:
        if k in self.on_disk:
            return
        self.on_disk[k] = self.sizes[k]
        self.disk_peak = max(self.disk_peak, sum(self.on_disk.values()))
        transient = 0 if k in self.kept else self.sizes[k]
        seconds = self._disk().write_seconds(self.sizes[k])
        self.note("write", k, seconds, self.base + transient)

    def keep(self, k: int) -> None:
        self.kept[k] = self.sizes[k]
        self.base += self.sizes[k]

    def note(self, operation: str, stage: int, seconds: float, live: int) -> None:
        self.log.append((operation, stage, self.clock, seconds, live))
        self.clock += seconds

    def _disk(self) -> DiskCost:
        if self.disk is None:
            raise ScheduleError("a region waits on disk: pass disk=DiskCost(…) to price transfers")
        return self.disk

    def cost(self) -> Cost:
        operations, stages, starts, seconds, live = zip(*self.log, strict=True)
        peak = max(live)
        return Cost(
            total_seconds=self.clock,
            peak_bytes=peak,
            forwards=sum(operation in ("forward", "tape") for operation in operations),
            loads=operations.count("load"),
            disk_writes=operations.count("write"),
            disk_reads=operations.count("read"),
            disk_bytes=self.disk_peak,
            peak_stage=self.chain.stages[stages[live.index(peak)]].name,
            timeline=Timeline(
                operations=operations,
                stages=stages,
                starts=starts,
                seconds=seconds,
                live_bytes=live,
            ),
        )
