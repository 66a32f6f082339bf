"""Where a search for the best rate looks next. Pure, no torch.

1. *Halve.* Every octave of the grid begins, with one seed, and is stopped at a small share of its
   steps; the lowest loss there is the centre. Nothing else is known, so nothing else is spent.
2. *Climb.* The centre and its neighbours, an octave apart, are trained to their end with that seed.
   While the lowest is the outermost, the next octave is added, beyond the grid if need be.
3. *Repeat.* The lowest three are trained with every seed; the climb goes on in their mean.
4. *Refine.* While the optimum's interval is wider than ±1/4 octave, the half octaves beside the
   lowest are added, the vertex's side first, and octaves where it is open, as long as the limit
   allows. What seeds leave open then, more rates do not settle.

A seed that fails at every rate says nothing about rates and is left out.

Trials of one seed see the same batches, so one seed tells rates an octave apart; the vertex needs
all. Optuna's pruners compare a trial with those that ended before it; here all octaves stand at
the same step at the same moment, so the lowest is simply taken.
"""

import math
from collections.abc import Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from thetaone.errors import InputError
from thetaone.laws import fit_vertex
from thetaone.records import Optimum

TOLERANCE = 0.25  # half-width of the optimum's interval that is enough [octaves]
LIMIT = 0.4  # of the grid's trainings: beyond it nothing is refined
BEYOND = 12  # octaves outside the grid to which the climb may go

Answers = Mapping[tuple[float, int], float]  # (log2 rate, seed) -> loss; inf where diverged


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """Trainings to do next: every rate with every seed.

    Attributes:
        log2_lrs: Rates [octaves].
        seeds: Seeds.
        stop: Steps after which they are stopped [count]; 0: trained to their end.
    """

    log2_lrs: tuple[float, ...]
    seeds: tuple[int, ...]
    stop: int = 0


Plan = Generator[Ask, Answers, None]


def plan_search(
    log2_grid: Sequence[float], seeds: Sequence[int], *, n_steps: int, stop: int,
    start: float | None = None,
) -> Plan:  # fmt: skip
    """Ask for trainings until the best rate is known well enough.

    Args:
        log2_grid: The rates of the grid that the search stands for [octaves].
        seeds: Seeds of every rate that counts.
        n_steps: Steps of a training [count].
        stop: Steps at which the octaves are compared first [count].
        start: Where the optimum is expected, e.g. that of a smaller size; None: anywhere.

    Yields:
        What to train; the losses are sent back.

    Examples:
        >>> plan = plan_search([-8, -7, -6, -5], [0, 1], n_steps=64, stop=4)
        >>> next(plan)
        Ask(log2_lrs=(-8, -7, -6, -5), seeds=(0,), stop=4)
        >>> plan.send({(x, 0): (x + 6.2) ** 2 for x in (-8, -7, -6, -5)})
        Ask(log2_lrs=(-7, -6, -5), seeds=(0,), stop=0)
    """
    grid = sorted(log2_grid)
    table = _Table(tuple(seeds), n_steps, (grid[0] - BEYOND, grid[-1] + BEYOND))
    if start is None:
        start = yield from _halve(table, _octaves(grid), stop)
    else:
        expected = start
        start = min(grid, key=lambda x: abs(x - expected))
    yield from _climb(table, [start - 1, start, start + 1], first_only=True)
    yield from _climb(table, table.around(table.seeds[:1]))
    yield from _refine(table, LIMIT * len(grid) * len(seeds))


@dataclass(slots=True)
class _Table:
    """Losses of what was trained to its end, and what all of it cost in whole trainings."""

    seeds: tuple[int, ...]
    n_steps: int
    ends: tuple[float, float]
    losses: dict[tuple[float, int], float] = field(default_factory=dict[tuple[float, int], float])
    spent: float = 0.0

    def charge(self, ask: Ask) -> Ask:
        steps = (ask.stop or self.n_steps) / self.n_steps
        self.spent += len(ask.log2_lrs) * len(ask.seeds) * steps
        return ask

    def train(self, rates: Iterable[float], seeds: tuple[int, ...]) -> Plan:
        """Ask for what of these was not trained."""
        for seed in seeds:
            missing = tuple(sorted(x for x in set(rates) if (x, seed) not in self.losses))
            same = [s for s in seeds if all((x, s) not in self.losses for x in missing)]
            if missing and seed == min(same, default=seed):
                answers = yield self.charge(Ask(log2_lrs=missing, seeds=tuple(same)))
                self.losses.update(answers)

    def leave_out(self, seed: int) -> None:
        """Go on without a seed; the last one stays."""
        if len(self.seeds) > 1:
            self.seeds = tuple(s for s in self.seeds if s != seed)

    def leave_out_failed(self) -> bool:
        """Leave out seeds that fail, or diverge where others do not, at every rate; whether any."""
        before = self.seeds
        of_seed = {s: [v for (_, one), v in self.losses.items() if one == s] for s in before}
        some_end = any(map(math.isfinite, self.losses.values()))
        for seed, losses in of_seed.items():
            ends, fails = any(map(math.isfinite, losses)), all(map(math.isnan, losses))
            if losses and not ends and (some_end or fails):
                self.leave_out(seed)
        return self.seeds != before

    def means(self, seeds: tuple[int, ...]) -> dict[float, float]:
        """Mean loss of every rate that all of the seeds have."""
        rates = sorted({x for x, _ in self.losses})
        return {
            x: _or_inf(sum(self.losses[x, seed] for seed in seeds) / len(seeds))
            for x in rates
            if all((x, seed) in self.losses for seed in seeds)
        }

    def around(self, seeds: tuple[int, ...]) -> list[float]:
        """The lowest rate and its trained neighbours."""
        means = self.means(seeds)
        rates = list(means)
        low = rates.index(min(means, key=means.__getitem__))
        return rates[max(low - 1, 0) : low + 2]

    def optimum(self) -> Optimum | None:
        """The vertex of the rates that every seed has; None where all of them diverged."""
        means = self.means(self.seeds)
        losses = [[_or_inf(self.losses[x, seed]) for x in means] for seed in self.seeds]
        try:
            return fit_vertex(list(means), losses)
        except InputError:
            return None


def _halve(table: _Table, octaves: tuple[float, ...], stop: int) -> Generator[Ask, Answers, float]:
    """Begin every octave with the first seed that ends somewhere; the lowest."""
    begun: dict[tuple[float, int], float] = {}
    lost: list[int] = []
    for seed in table.seeds:
        begun.update((yield table.charge(Ask(log2_lrs=octaves, seeds=(seed,), stop=stop))))
        if any(map(math.isfinite, begun.values())):
            for one in lost:
                table.leave_out(one)
            break
        lost.append(seed)
    lowest = {x: min(_or_inf(v) for (one, _), v in begun.items() if one == x) for x in octaves}
    return min(octaves, key=lambda x: (lowest[x], x))


def _climb(table: _Table, rates: Sequence[float], *, first_only: bool = False) -> Plan:
    """Train rates, and further octaves while the lowest mean is the outermost."""
    rates, n_seeds = list(rates), 1 if first_only else None
    while True:
        yield from table.train(rates, table.seeds[:n_seeds])
        if table.leave_out_failed():
            continue
        means = table.means(table.seeds[:n_seeds])
        if n_seeds == 1 and min(means.values()) == math.inf:
            n_seeds = 2  # is it the rates, or this seed?
            continue
        low = min(means, key=means.__getitem__)
        outward = low - 1 if low == min(means) else low + 1 if low == max(means) else None
        if outward is None or not table.ends[0] <= outward <= table.ends[1]:
            return
        rates.append(outward)


def _refine(table: _Table, limit: float) -> Plan:
    """Half octaves beside the lowest, octaves where the interval is open, while it is allowed."""
    while (best := table.optimum()) is not None and not best.at_edge:
        if (best.interval[1] - best.interval[0]) / 2 <= TOLERANCE:
            return
        means = table.means(table.seeds)
        low = min(means, key=means.__getitem__)
        toward = 0.5 if best.log2_lr >= low else -0.5
        beside = [low + toward, low - toward]
        beside += [min(means) - 1] if best.interval[0] == -math.inf else []
        beside += [max(means) + 1] if best.interval[1] == math.inf else []
        new = [x for x in beside if x not in means]
        if not new or table.spent + len(table.seeds) > limit:
            return
        yield from table.train(new[:1], table.seeds)


def _octaves(grid: Sequence[float]) -> tuple[float, ...]:
    """Rates of the grid that lie an octave or more apart, from the lowest."""
    chosen = [grid[0]]
    for x in grid[1:]:
        if x - chosen[-1] >= 1 - 1e-9:
            chosen.append(x)
    return tuple(chosen)


def _or_inf(loss: float) -> float:
    """A failed training counts as a diverged one."""
    return math.inf if math.isnan(loss) else loss
