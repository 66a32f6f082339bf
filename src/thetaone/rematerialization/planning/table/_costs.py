"""The costs of a chain as arrays, one entry a stage."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from thetaone.records import Chain, Tier

Ints = NDArray[np.int64]
Times = NDArray[np.floating]


@dataclass(frozen=True)
class ChainArrays:
    """Costs by stage; ``activation`` and ``gradient`` have one entry more (A_0 … A_L).

    ``limit_taping[s]`` + gradient of the interval's end, and ``limit_backward[s]``, are the bytes
    that stage s needs beyond its input while it writes its tape and while it runs backward.
    ``last`` is the time of a stage, forward and backward, as the last one of its region;
    ``reach[s]`` is one past the last stage of the longest region that may start at s, and s where
    none may; ``list_stop[s]`` is one past the last stage of the list that holds s.
    """

    forward: NDArray[np.float64]
    backward: NDArray[np.float64]
    last: NDArray[np.float64]
    activation: Ints
    gradient: Ints
    tape: Ints
    scratch: Ints
    limit_taping: Ints
    limit_backward: Ints
    load_seconds: float
    reach: Ints
    list_stop: Ints

    @property
    def length(self) -> int:
        """Number of stages [count]."""
        return len(self.forward)

    @property
    def sweep_seconds(self) -> NDArray[np.float64]:
        """Σ f_0…k−1 for k = 0 … L [s]."""
        return np.concatenate([[0.0], np.cumsum(self.forward)])

    def region_limits(self, start: int, tier: Tier = "ram") -> Ints:
        """Bytes to run ``start … j−1`` without a tape, j = start+1 … reach; gradient apart.

        ``max(A_{s+1} + x_s, max_{s<k<j} A_k + A_{k+1} + x_k)``, with A_s more in the first term
        where the input waits on disk: a copy is read, and gone once its stage has run. It never
        falls as j grows.
        """
        stop = int(self.reach[start])
        live = self.activation[start:stop] + self.activation[start + 1 : stop + 1]
        live += self.scratch[start:stop]
        if tier == "ram" and len(live):
            live[0] -= self.activation[start]
        return np.maximum.accumulate(live)

    def tape_limit(self, s: int, t: int) -> int:
        """Bytes to write the tape of stage s and to run it backward, its input in memory."""
        taping = self.limit_taping[s] + self.activation[t + 1]
        return max(int(taping), int(self.limit_backward[s]))


def chain_arrays(chain: Chain) -> ChainArrays:
    """The costs of a chain as arrays."""
    stages = chain.stages
    gradient = np.array(chain.gradient_bytes, dtype=np.int64)
    tape = np.array([stage.tape_bytes for stage in stages], dtype=np.int64)
    forward = np.array([stage.forward_seconds for stage in stages])
    backward = np.array([stage.backward_seconds for stage in stages])
    taping = np.array([stage.taping_bytes for stage in stages], dtype=np.int64)
    behind = np.array([stage.backward_scratch_bytes for stage in stages], dtype=np.int64)
    reach, list_stop = _spans(chain)
    return ChainArrays(
        forward=forward,
        backward=backward,
        last=forward + backward - tail_seconds(chain),
        activation=np.array(chain.activation_bytes, dtype=np.int64),
        gradient=gradient,
        tape=tape,
        scratch=np.array([stage.forward_scratch_bytes for stage in stages], dtype=np.int64),
        limit_taping=tape + taping,
        limit_backward=gradient[:-1] + gradient[1:] + tape + behind,
        load_seconds=chain.load_seconds,
        reach=reach,
        list_stop=list_stop,
    )


def tail_seconds(chain: Chain) -> NDArray[np.float64]:
    """What each stage saves as the last one of a region; the chain's own last stage is in none."""
    tails = np.array([stage.tail_seconds for stage in chain.stages])
    tails[-1] = 0.0
    return tails


def list_starts(chain: Chain) -> set[int]:
    """Stages that no region spans from the one before: of lists, or beside one that runs once."""
    starts = set(range(chain.length)) if chain.separate else {0, *chain.lists}
    for k, stage in enumerate(chain.stages):
        if not stage.recomputable:
            starts |= {k, k + 1}
    return starts


def _spans(chain: Chain) -> tuple[Ints, Ints]:
    """Where the longest region from each stage, and the list of each stage, stops."""
    length, starts = chain.length, list_starts(chain)
    list_stop, stop = np.empty(length, dtype=np.int64), length
    for k in range(length - 1, -1, -1):
        list_stop[k] = stop
        stop = k if k in starts else stop
    recomputable = np.array([stage.recomputable for stage in chain.stages])
    return np.where(recomputable, list_stop, np.arange(length)), list_stop
