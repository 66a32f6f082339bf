"""The least peak that any persistent schedule with an unlimited disk reaches, exact in bytes.

P(s, t, R) and P(s, t, D) are the least peaks of stages s … t with the input in memory (not counted)
or on disk (its copy counted while it is used):

tape stage s now (R):  max(limit_s, T_s + P(s+1, t, R))
promote (D):           A_s + P(s, t, R)
keep a_j, s < j <= t:  max(sweep(s, j, ·), min(A_j + P(j, t, R), P(j, t, D)), P(s, j−1, ·)).
"""

import numpy as np

from thetaone.records import Region, Tier
from thetaone.rematerialization.planning._costs import Ints
from thetaone.rematerialization.planning._two_tier_table import Problem


def floor_regions(given: Problem) -> list[Region]:
    """The regions of a schedule that reaches the least peak."""
    ram, disk = _peaks(given)
    found: list[Region] = []
    pending: list[tuple[int, int, Tier]] = [(0, given.costs.length - 1, "ram")]
    while pending:
        s, t, tier = pending.pop()
        at_once = _at_once(given, s, t, ram, tier)
        kept = _kept(given, s, t, tier, ram, disk)
        if t > s and kept.min() < at_once:
            j = s + 1 + int(kept.argmin())
            row = given.parts.by_start[j, t]
            in_memory = ram[row] + given.costs.activation[j] <= disk[row]
            where: Tier = "ram" if in_memory else "disk"
            found.append(Region(start=s, stop=j, tier=tier))
            pending.append((s, j - 1, tier))
            pending.append((j, t, where))
        elif tier == "disk":
            pending.append((s, t, "ram"))
        elif t > s:
            pending.append((s + 1, t, "ram"))
    return found


def _peaks(given: Problem) -> tuple[Ints, Ints]:
    ram = np.zeros(given.parts.count, dtype=np.int64)
    disk = np.zeros(given.parts.count, dtype=np.int64)
    for number, (s, t) in enumerate(given.parts.first):
        rows: tuple[tuple[Tier, Ints], tuple[Tier, Ints]] = (("ram", ram), ("disk", disk))
        for tier, row in rows:
            best = _at_once(given, s, t, ram, tier)
            if t > s:
                best = min(best, int(_kept(given, s, t, tier, ram, disk).min()))
            row[number] = best
    return ram, disk


def _at_once(given: Problem, s: int, t: int, ram: Ints, tier: Tier) -> int:
    costs, by_start = given.costs, given.parts.by_start
    if tier == "disk":
        return int(costs.activation[s] + ram[by_start[s, t]])
    need = given.tape_limit(s, t)
    return need if t == s else max(need, int(costs.tape[s] + ram[by_start[s + 1, t]]))


def _kept(given: Problem, s: int, t: int, tier: Tier, ram: Ints, disk: Ints) -> Ints:
    by_start = given.parts.by_start
    after, inner = by_start[s + 1 : t + 1, t], by_start[s, s:t]
    rest = np.minimum(ram[after] + given.costs.activation[s + 1 : t + 1], disk[after])
    own = ram if tier == "ram" else disk
    return np.maximum(np.maximum(rest, own[inner]), given.sweep_limits(s, t, tier))
