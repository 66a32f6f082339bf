"""E[score] = 0: whether samples and log p belong together, without one evaluation of f.

∫ p(x; θ) dx = 1 for every θ, so E ∇θ log p(x; θ) = 0 in every coordinate. It fails when samples
follow another law than log p describes, when they are rounded to points of another density, when
log p or its gradient is NaN there, or when mass crosses an edge of the support.

The mean is judged in blocks. Their t-test assumes that a block's mean is nearly normal; where a
rare outcome carries the score (a Bernoulli of probability 1e-4) it is not, so the mean must lie six
times the furthest block further off: the samples may by chance lack that much of the rare outcome.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from scipy.special import stdtrit
from torch import Tensor
from torch.distributions import Distribution

from thetaone.estimators.distributions._sampling import probe_generator, rsample, sample
from thetaone.estimators.distributions._structure import describe, discrete, roots, upstream

BLOCKS = 32  # means that the t-test is made of [count]
FALSE_ALARM = 1e-6  # chance that a sound distribution is called unsound
_MISSING = 6.0  # furthest blocks that the samples may lack [count]
_MOST_LEAVES = 2**20  # entries of parameters that scores are pulled back to by default [count]


@dataclass(frozen=True)
class ScoreCheck:
    """What the test of E[score] = 0 says.

    Attributes:
        tensor: The coordinate that is furthest off, ``probs[3]``; empty when nothing is wrong.
        z: Its mean score in standard errors; NaN when a score is not finite.
        limit: |z| that chance exceeds once in a million tests.
        n_samples: Samples drawn [count]; f was evaluated on none.
        reason: What is wrong, in words; empty when nothing is.
    """

    tensor: str = ""
    z: float = 0.0
    limit: float = 0.0
    n_samples: int = 0
    reason: str = ""

    @property
    def passed(self) -> bool:
        """Whether the score may be believed."""
        return not self.reason


def affordable_samples(distribution: Distribution, most: int, elements: int) -> int:
    """Samples up to ``most`` that hold no more than so many numbers together [count]."""
    shape = (*distribution.batch_shape, *distribution.event_shape)
    return min(most, elements // max(1, prod(shape)))


def check_score(
    distribution: Distribution,
    *,
    n_samples: int,
    parameters: Mapping[str, Tensor] | None = None,
) -> ScoreCheck:
    """Test E[score] = 0, per tensor and coordinate.

    Args:
        distribution: pθ; draws come from a generator of its own.
        n_samples: Samples, at least 2 a block [count].
        parameters: What to differentiate by; ``None`` for the tensors that the distribution holds,
            and where those fail, for what they were computed from (a Categorical holds normalized
            logits, whose score has mean p).

    Returns:
        The verdict. A coordinate whose score never varies says nothing, unless the parameter lies
        on the edge of its range or only the sample depends on it.
    """
    tensors = dict(roots(distribution) if parameters is None else parameters)
    if not tensors:
        return ScoreCheck()
    size = max(2, n_samples // BLOCKS)
    try:
        means = _block_means(distribution, list(tensors.values()), size)
    except NotImplementedError:
        return ScoreCheck()  # there is no log p to believe: who asks for it will say so
    except (ValueError, RuntimeError) as error:
        what = describe(distribution)
        return ScoreCheck(
            "log p", float("nan"), 0.0, size * BLOCKS, f"log p of {what} fails: {error}"
        )
    check = _judge(means, tensors, size * BLOCKS)
    if not check.passed and parameters is None and check.z == check.z:
        check = _judge_leaves(distribution, means, tensors, check)
    return check if not check.passed else _never_varies(distribution, means, tensors, check)


def _block_means(distribution: Distribution, tensors: list[Tensor], size: int) -> list[Tensor]:
    """Mean score of each block by each tensor, ``[blocks, *tensor.shape]`` in float64."""
    x = sample(distribution, size * BLOCKS, probe_generator(tensors[0].device))
    columns: list[list[Tensor]] = [[] for _ in tensors]
    with torch.enable_grad():
        for block in x.split(size):
            log_p = distribution.log_prob(block).sum() / size
            if log_p.requires_grad:
                gradients = torch.autograd.grad(
                    log_p, tensors, retain_graph=True, allow_unused=True
                )
            else:
                gradients = (None,) * len(tensors)
            for column, tensor, gradient in zip(columns, tensors, gradients, strict=True):
                column.append(torch.zeros_like(tensor) if gradient is None else gradient)
    return [torch.stack(column).double() for column in columns]


def _judge(means: list[Tensor], tensors: Mapping[str, Tensor], n_samples: int) -> ScoreCheck:
    """The coordinate that is furthest off, and whether that is further than chance."""
    count = sum(tensor.numel() + 1 for tensor in tensors.values())
    limit = float(stdtrit(BLOCKS - 1, 1 - FALSE_ALARM / (2 * count)))
    worst = ScoreCheck(limit=limit, n_samples=n_samples)
    for (name, tensor), block in zip(tensors.items(), means, strict=True):
        flat = block.reshape(BLOCKS, -1)
        if not flat.numel():
            continue
        own = ~_above_diagonal(tensor).flatten()
        # the sum over entries sees in few samples of a large batch what no entry shows alone
        flat = torch.cat([flat, (flat * own).sum(1, keepdim=True)], 1)
        total, spread = flat.mean(0), flat.std(0) / BLOCKS**0.5
        if not bool(torch.isfinite(flat).all()):
            index = int((~torch.isfinite(flat)).any(0).nonzero()[0, 0])
            where = coordinate(name, tensor, index)
            reason = f"the score of {where} is NaN or infinite at some of its own samples"
            return ScoreCheck(where, float("nan"), limit, n_samples, reason)
        rare = _MISSING * (flat - total).abs().amax(0) / BLOCKS
        z = torch.where(spread > 0, total / spread, torch.zeros_like(total))
        off = (total.abs() > limit * spread + rare) & (spread > 1e-7 * flat.abs().amax(0))
        off &= total.abs() > _rounding(flat, tensor.dtype)
        off[:-1] &= own
        if bool(off.any()):
            index = int(torch.where(off, z.abs(), torch.zeros_like(z)).argmax())
            if abs(float(z[index])) > abs(worst.z):
                where = coordinate(name, tensor, index)
                reason = (
                    f"E[score] of {where} is not 0: {float(z[index]):+.0f} standard errors over "
                    f"{n_samples} samples"
                )
                worst = ScoreCheck(where, float(z[index]), limit, n_samples, reason)
    return worst


def _above_diagonal(tensor: Tensor) -> Tensor:
    """Entries above the diagonal of a lower triangular matrix: nobody's parameter."""
    square = tensor.dim() >= 2 and tensor.shape[-1] == tensor.shape[-2]
    if not square or bool((tensor.triu(1) != 0).any()):
        return torch.zeros_like(tensor, dtype=torch.bool)
    return torch.ones_like(tensor, dtype=torch.bool).triu(1)


def _rounding(flat: Tensor, dtype: torch.dtype) -> Tensor:
    """Mean that rounding alone explains, where larger terms cancel: of each entry, of their sum."""
    entries = flat[:, :-1].abs()
    limit = flat.new_full((flat.shape[1],), float(entries.max()))
    limit[-1] = float(entries.sum(1).max())
    return 1e3 * torch.finfo(dtype).eps * limit


def _judge_leaves(
    distribution: Distribution,
    means: list[Tensor],
    tensors: Mapping[str, Tensor],
    check: ScoreCheck,
) -> ScoreCheck:
    """The same test by what the tensors were computed from; named by the tensor that failed."""
    leaves = _leaves(list(tensors.values()))
    names = {f"θ{index}": leaf for index, leaf in enumerate(leaves)}
    if not leaves or any(leaf is tensor for leaf in leaves for tensor in tensors.values()):
        return check  # a parameter itself has failed
    if sum(leaf.numel() for leaf in leaves) > _MOST_LEAVES:
        return ScoreCheck(n_samples=check.n_samples)
    columns: list[list[Tensor]] = [[] for _ in leaves]
    for block in range(BLOCKS):
        cotangents = [
            mean[block].to(tensor.dtype)
            for mean, tensor in zip(means, tensors.values(), strict=True)
        ]
        gradients = torch.autograd.grad(
            list(tensors.values()), leaves, cotangents, retain_graph=True, allow_unused=True
        )
        for column, leaf, gradient in zip(columns, leaves, gradients, strict=True):
            column.append(torch.zeros_like(leaf) if gradient is None else gradient)
    pulled = _judge([torch.stack(c).double() for c in columns], names, check.n_samples)
    if pulled.passed:
        return pulled
    reason = (
        f"E[score] of {describe(distribution)} is not 0, by what {check.tensor} was computed from: "
        f"{pulled.z:+.0f} standard errors over {check.n_samples} samples"
    )
    return ScoreCheck(check.tensor, pulled.z, pulled.limit, check.n_samples, reason)


def _leaves(tensors: list[Tensor]) -> list[Tensor]:
    leaves: dict[int, Tensor] = {}
    for tensor in tensors:
        if tensor.is_leaf:
            leaves[id(tensor)] = tensor
        for node in upstream(tensor):
            leaf = getattr(node, "variable", None)
            if leaf is not None:
                leaves[id(leaf)] = leaf
    return list(leaves.values())


def _never_varies(
    distribution: Distribution,
    means: list[Tensor],
    tensors: Mapping[str, Tensor],
    check: ScoreCheck,
) -> ScoreCheck:
    """A score that is the same for every sample though the law does depend on the parameter."""
    for (name, tensor), block in zip(tensors.items(), means, strict=True):
        still = ((block - block[0]).abs() <= 1e-12 * block[0].abs()).all(0)
        still &= ~_above_diagonal(tensor)
        if not bool(still.any()):
            continue
        zero = still & (block[0] == 0)
        for where, why in (
            (zero & _on_edge(name, tensor), "it lies on the edge of its range, where torch clamps"),
            (zero & _moves_samples(distribution, tensor), "its samples move with it"),
            # a rare outcome that no sample shows leaves a discrete score constant, rightly so
            (still & ~zero & (not discrete(distribution)), "then its mean is not 0"),
        ):
            if bool(where.any()) and _reaches_leaf(tensor, where):
                index = int(where.flatten().nonzero()[0, 0])
                label, value = coordinate(name, tensor, index), float(block[0].flatten()[index])
                reason = f"the score of {label} is {value:g} for every sample, and {why}"
                z = 0.0 if value == 0 else float("inf")
                return ScoreCheck(label, z, check.limit, check.n_samples, reason)
    return check


def _on_edge(name: str, tensor: Tensor) -> Tensor:
    """Whether each entry of a probability is exactly 0 or 1."""
    if name.rpartition(".")[2] != "probs":
        return torch.zeros_like(tensor, dtype=torch.bool)
    return (tensor == 0) | (tensor == 1)


def _moves_samples(distribution: Distribution, tensor: Tensor) -> Tensor:
    """Whether a reparameterized sample depends on each entry."""
    if not distribution.has_rsample:
        return torch.zeros_like(tensor, dtype=torch.bool)
    return path_derivative(distribution, [tensor])[0] != 0


def path_derivative(distribution: Distribution, tensors: list[Tensor]) -> list[Tensor]:
    """Σ_i w_i ∂x_i/∂θ over 64 samples with random weights: exactly 0 where no path leads from θ."""
    generator = probe_generator(tensors[0].device)
    with torch.enable_grad():
        x: Any = rsample(distribution, 64, generator)
        if not x.requires_grad:
            return [torch.zeros_like(tensor) for tensor in tensors]
        weights = torch.rand(x.shape, generator=generator, device=x.device, dtype=x.dtype) + 0.5
        parts = torch.autograd.grad(
            (x * weights).sum(), tensors, retain_graph=True, allow_unused=True
        )
    return [
        torch.zeros_like(tensor) if part is None else part
        for tensor, part in zip(tensors, parts, strict=True)
    ]


def _reaches_leaf(tensor: Tensor, where: Tensor) -> bool:
    """Whether a derivative by these entries gets anywhere; that by masked ones does not."""
    leaves = _leaves([tensor])
    if any(leaf is tensor for leaf in leaves):
        return True
    parts = torch.autograd.grad(
        tensor, leaves, where.to(tensor.dtype), retain_graph=True, allow_unused=True
    )
    return any(bool((part != 0).any()) for part in parts if part is not None)


def coordinate(name: str, tensor: Tensor, index: int) -> str:
    """Name of one entry of a tensor, ``loc[0,2]``; behind the last, of them all together."""
    if tensor.dim() == 0:
        return name
    if index == tensor.numel():
        return f"{name} (all entries together)"
    position = ",".join(str(int(i)) for i in torch.unravel_index(torch.tensor(index), tensor.shape))
    return f"{name}[{position}]"
