"""Scores of single samples: the distribution expanded, each copy with tensors of its own."""

import copy
from collections.abc import Iterator

import torch
from torch import Tensor
from torch.distributions import Categorical, Distribution, OneHotCategorical
from torch.distributions.utils import lazy_property

from thetaone.errors import EstimatorError
from thetaone.estimators.distributions._structure import describe, elementary, roots


def sample_scores(distribution: Distribution, x: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Per-sample scores of the tensors that the distribution is made of.

    Args:
        distribution: pθ, made of independent coordinates with tensors of its own each.
        x: Samples, ``[n, *batch_shape, *event_shape]``.

    Returns:
        Pairs (tensor φ of the distribution, scores ``[n, *φ.shape]``).

    Raises:
        EstimatorError: Its ``expand`` does not give every sample tensors of its own, or their
            scores do not add up to the score by φ.
    """
    base = elementary(distribution)
    wide, pairs = expand_apart(base, x.shape[0])
    with torch.enable_grad():
        log_p = wide.log_prob(x).sum()
        parts = torch.autograd.grad(log_p, list(pairs.values()), allow_unused=True) if pairs else ()
        scores = [(phi, part) for phi, part in zip(pairs, parts, strict=True) if part is not None]
        if scores and all(part.shape[1:] == phi.shape for phi, part in scores):
            whole = torch.autograd.grad(
                _log_prob(base, x).sum(), [phi for phi, _ in scores], allow_unused=True,
                retain_graph=True,
            )  # fmt: skip
            if all(_adds_up(part, total) for (_, part), total in zip(scores, whole, strict=True)):
                return scores
    raise EstimatorError(
        f"{describe(distribution)} shares tensors between samples, so no score of a single "
        "sample is known; use LeaveOneOut(), which needs none"
    )


def expand_apart(base: Distribution, n: int) -> tuple[Distribution, dict[Tensor, Tensor]]:
    """The distribution expanded to ``[n, *batch_shape]``, and its tensors with their expansions.

    Raises:
        NotImplementedError: It does not implement ``expand``.
        EstimatorError: It holds normalized weights.
    """
    if isinstance(base, Categorical | OneHotCategorical):
        # it holds normalized logits, whose score has mean p, not 0: normalize once more
        logits = base.logits.expand(n, *base.logits.shape)
        return type(base)(logits=logits, validate_args=False), {base.logits: logits}
    bare = _without_derived(base)
    wide = bare.expand(torch.Size((n, *base.batch_shape)))
    chosen = {id(tensor) for tensor in roots(bare).values()}
    pairs = {phi: copy for phi, copy in _tensors_of_both(bare, wide) if id(phi) in chosen}
    return wide, pairs


def _log_prob(base: Distribution, x: Tensor) -> Tensor:
    if isinstance(base, Categorical | OneHotCategorical):
        return type(base)(logits=base.logits, validate_args=False).log_prob(x)
    return base.log_prob(x)


def _adds_up(part: Tensor, total: Tensor | None) -> bool:
    if total is None:
        return False
    room = 1e-3 if part.dtype == torch.float32 else 1e-8
    size = part.abs().sum(0)
    return bool(((part.sum(0) - total).abs() <= room * size + 1e-12).all())


def _without_derived(base: Distribution) -> Distribution:
    """A copy that computes anew what was computed from other tensors of it and kept."""
    bare = copy.copy(base)
    chosen = {id(tensor) for tensor in roots(base).values()}
    for name, part in list(vars(bare).items()):
        if isinstance(part, Distribution):
            setattr(bare, name, _without_derived(part))
        elif isinstance(part, Tensor) and id(part) not in chosen:
            computed = isinstance(getattr(type(bare), name, None), lazy_property)
            vars(bare).pop(name) if computed else None
    return bare


def _tensors_of_both(base: Distribution, wide: Distribution) -> Iterator[tuple[Tensor, Tensor]]:
    """Tensors that require grad with their expansions, inner distributions included."""
    for name, part in vars(base).items():
        other = vars(wide).get(name)
        if isinstance(part, Categorical):
            raise EstimatorError(
                f"{describe(base)} holds normalized weights, whose scores do not have mean 0; "
                "use LeaveOneOut()"
            )
        if isinstance(part, Distribution) and isinstance(other, Distribution):
            yield from _tensors_of_both(part, other)
        elif isinstance(part, Tensor) and part.requires_grad and isinstance(other, Tensor):
            yield part, other
