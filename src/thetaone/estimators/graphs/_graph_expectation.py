"""``graph_expectation``: E of a program's costs over all that it draws, with one surrogate.

Shapes: n independent runs of the program side by side, always the first dimension.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
from torch import Tensor
from torch.distributions import Distribution

from thetaone.errors import EstimatorError, InputError
from thetaone.estimators._expectation import Expectation
from thetaone.estimators._protocol import refusal_of
from thetaone.estimators._score_warning import warn_of_score
from thetaone.estimators.distributions import (
    HostChecks,
    describe,
    log_ratio,
    magic_box,
    rsample,
    sample,
    trainable,
)
from thetaone.estimators.methods import LeaveOneOut, Pathwise, leave_one_out

NodeEstimator = Literal["auto", "score", "pathwise"]
_ESTIMATORS = ("auto", "score", "pathwise")


@dataclass(frozen=True)
class _Step:
    """What happened at one point of the program: a scored draw, or a cost.

    Attributes:
        log_ratio: ℓ of a scored draw, ``[n]``, 0 in value; None for a cost.
        cost: ``[n]``; None for a draw.
    """

    log_ratio: Tensor | None = None
    cost: Tensor | None = None


class Graph:
    """What a program draws from and adds its costs to; made by ``graph_expectation``.

    Attributes:
        n_samples: Runs of the program side by side [count].
        chosen: Estimator of each node drawn so far, by name.

    Examples:
        >>> from torch.distributions import Normal
        >>> from thetaone.estimators.graphs import graph_expectation
        >>> mu = torch.tensor(1.0, requires_grad=True)
        >>> e = graph_expectation(lambda graph: graph.draw("x", Normal(mu, 1.0)), n_samples=4)
        >>> e.backward()
        >>> mu.grad.item()
        1.0
    """

    def __init__(
        self, n_samples: int, estimators: Mapping[str, NodeEstimator],
        generator: torch.Generator | None, check: bool | None,
    ) -> None:  # fmt: skip
        self.n_samples = n_samples
        self.chosen: dict[str, str] = {}
        self.steps: list[_Step] = []
        self.checks = HostChecks()
        self._estimators, self._generator, self._check = estimators, generator, check

    def draw(self, name: str, distribution: Distribution, *, shared: bool | None = None) -> Tensor:
        """Draw a node: one sample in each run, ``[n, *batch_shape, *event_shape]``.

        Args:
            name: Of the node, once a program.
            distribution: Of parameters alone (one law for all runs), or of earlier draws: then its
                batch shape starts with n, one law a run.
            shared: Whether the law is the same in all runs. ``None``: unless the batch shape starts
                with n and something was drawn before; say it where a batch has n rows by chance.

        Raises:
            EstimatorError: A name twice, or an estimator that does not apply.
        """
        if name in self.chosen:
            raise EstimatorError(
                f"node {name!r} was drawn before: give each draw a name of its own"
            )
        one_law_a_run = tuple(distribution.batch_shape[:1]) == (self.n_samples,)
        if shared is None:
            shared = not (self.chosen and one_law_a_run)
        if not shared and not one_law_a_run:
            raise EstimatorError(
                f"node {name!r}: {describe(distribution)} is to have one law a run, so its batch "
                f"shape must start with {self.n_samples}"
            )
        self.chosen[name] = how = self._choose(name, distribution)
        if how == "pathwise":
            x = rsample(distribution, self.n_samples if shared else 1, self._generator)
            return x if shared else x.squeeze(0)
        warn_of_score(LeaveOneOut(), distribution, self.checks, check=self._check)
        x = sample(distribution, self.n_samples if shared else 1, self._generator)
        if trainable(distribution):
            # one run is one sample: shared laws have it first, others already in their batch
            ratio = log_ratio(distribution, x, 0 if shared else 1, self.checks)
            self.steps.append(_Step(log_ratio=ratio if shared else ratio.squeeze(0)))
        return x if shared else x.squeeze(0)

    def add_cost(self, values: Tensor) -> None:
        """Add a cost, ``[n]``: every node drawn before may have influenced it, none after.

        Raises:
            EstimatorError: Not one number a run; when the program has run, one that is not finite.
        """
        if values.shape != (self.n_samples,):
            raise EstimatorError(
                f"a cost has shape {tuple(values.shape)}; expected ({self.n_samples},), one number "
                "a run: sum what is left over"
            )
        self.checks.add_finite(values, partial(_refuse_not_finite, values))
        self.steps.append(_Step(cost=values))

    def _choose(self, name: str, distribution: Distribution) -> str:
        choice = self._estimators.get(name, "auto")
        if choice not in _ESTIMATORS:
            raise InputError(
                f"estimators[{name!r}]={choice!r}: choose from {', '.join(_ESTIMATORS)}"
            )
        no_path = refusal_of(Pathwise(), distribution)
        if not no_path and not distribution.has_rsample:
            no_path = f"{describe(distribution)} has no rsample"
        if choice == "pathwise" and no_path:
            raise EstimatorError(f"node {name!r}: pathwise does not apply: {no_path}")
        if choice == "pathwise" or (choice == "auto" and not no_path):
            return "pathwise"
        no_score = refusal_of(LeaveOneOut(), distribution)
        if no_score and trainable(distribution):
            raise EstimatorError(f"node {name!r}: the score does not apply: {no_score}")
        return "score"


Program = Callable[[Graph], Tensor | None]


def graph_expectation(
    program: Program,
    *,
    n_samples: int = 64,
    estimators: Mapping[str, NodeEstimator] | None = None,
    baseline: bool = True,
    generator: torch.Generator | None = None,
    check: bool | None = None,
) -> Expectation:
    """E Σ costs of a program that draws several times, with its standard error and gradient.

    The surrogate is Σ_c c · exp(Σ_{w before c} ℓ_w) + Σ_w (1 − exp ℓ_w) b_w: ℓ_w is 0 in value and
    the score of node w in its gradient, so that each cost is weighted with the scores of what may
    have influenced it, and of nothing else; b_w is the mean over the *other* runs of the costs
    behind w. Nodes with a path are differentiated through. Unbiased, and so are its derivatives of
    any order (DiCE). The cost is linear in the number of nodes; nesting ``expectation`` in f is
    right too, but squares it.

    Args:
        program: Takes a ``Graph``, draws with ``graph.draw(name, distribution)``, adds costs with
            ``graph.add_cost(values)``, and may return a last cost ``[n]``. It is called once: all
            runs are side by side.
        n_samples: Runs, at least 2 with a baseline [count].
        estimators: By node: ``"pathwise"``, ``"score"``, or ``"auto"``: pathwise where a path leads
            through the node. The graph does not know whether the costs are smooth: say ``"score"``
            where they jump.
        baseline: Whether scored nodes get the leave-one-out baseline.
        generator: Where randomness comes from.
        check: As for ``expectation``, of every scored node.

    Raises:
        InputError: Too few runs, or an estimator that is not known.
        EstimatorError: As ``expectation``; or a program without costs.

    Source: Schulman et al. 2015, arXiv 1506.05254; Foerster et al. 2018, arXiv 1802.05098; Mao et
    al. 2019, arXiv 1905.05816 (baselines of any order).

    Examples:
        >>> from torch.distributions import Bernoulli, Normal
        >>> a = torch.tensor(0.2, requires_grad=True)
        >>> def program(graph):
        ...     z = graph.draw("z", Bernoulli(logits=a))
        ...     x = graph.draw("x", Normal(2 * z + a, 1.0))
        ...     return x**2
        >>> e = graph_expectation(program, n_samples=1000)
        >>> e.estimator
        'graph (z: score, x: pathwise)'
    """
    least = 2 if baseline else 1
    if not isinstance(n_samples, int) or n_samples < least:
        raise InputError(f"n_samples={n_samples!r}: need a whole number of at least {least}")
    graph = Graph(n_samples, estimators or {}, generator, check)
    last = program(graph)
    if last is not None:
        graph.add_cost(last)
    unknown = set(estimators or {}) - set(graph.chosen)
    if unknown:
        raise InputError(
            f"estimators names {', '.join(sorted(unknown))}; the program draws "
            f"{', '.join(graph.chosen) or 'nothing'}"
        )
    rows = _surrogate(graph.steps, n_samples, baseline=baseline)
    nodes = ", ".join(f"{name}: {how}" for name, how in graph.chosen.items())
    graph.checks.settle()
    return Expectation(
        value=rows.mean(0),
        n_samples=n_samples,
        evaluations=n_samples,
        estimator=f"graph ({nodes})",
        declared="unbiased",
        units=rows.detach(),
    )


def _refuse_not_finite(cost: Tensor) -> None:
    if not bool(torch.isfinite(cost).all()):
        raise EstimatorError("a cost holds NaN or infinite values")


def _surrogate(steps: list[_Step], n_samples: int, *, baseline: bool) -> Tensor:
    """One row a run, ``[n]``: its costs in value, the estimate of the gradient in derivative."""
    costs = [step.cost for step in steps if step.cost is not None]
    if not costs:
        raise EstimatorError("the program has no cost: return one, or call graph.add_cost")
    rows = torch.zeros_like(costs[0])
    before = torch.zeros_like(costs[0])
    behind = torch.stack([cost.detach() for cost in costs]).sum(0)
    for step in steps:
        if step.cost is not None:
            rows = rows + step.cost * magic_box(before)
            behind = behind - step.cost.detach()
        elif step.log_ratio is not None:
            before = before + step.log_ratio
            if baseline and n_samples > 1:
                rows = rows + (1 - magic_box(step.log_ratio)) * leave_one_out(behind)
    return rows
