"""What no schedule can undercut, by an argument that needs no table."""

import numpy as np

from thetaone.rematerialization.planning.table import ChainArrays


def least_seconds(costs: ChainArrays, budget: int) -> float:
    """A lower bound on the seconds of a step within a budget.

    When the forward sweep ends, the tapes of all stages that are not run again are there, and the
    gradient of the output: Σ T_s <= budget − A_L. The others run again, less their tails. The
    cheapest such choice, with a part of one stage allowed, bounds every schedule: a fractional
    knapsack.

    Args:
        costs: The chain.
        budget: What the schedule may hold [bytes].
    """
    room = budget - int(costs.activation[-1])
    again = costs.last - costs.backward  # f − tail
    base = float((costs.forward + costs.backward).sum())
    excess = float(costs.tape.sum()) - room
    if excess <= 0:
        return base
    order = np.argsort(again / np.maximum(costs.tape, 1e-300))
    tapes, seconds = costs.tape[order].astype(np.float64), again[order]
    freed = np.cumsum(tapes)
    whole = int(np.searchsorted(freed, excess))
    if whole == len(freed):
        return base + float(seconds.sum())
    before = float(freed[whole - 1]) if whole else 0.0
    return base + float(seconds[:whole].sum() + seconds[whole] * (excess - before) / tapes[whole])
