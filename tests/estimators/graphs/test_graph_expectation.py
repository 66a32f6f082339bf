"""Graphs of several draws: exact over every joint outcome, to second order; z-tests with paths."""

from collections.abc import Callable
from itertools import product

import pytest
import torch
from torch import Tensor
from torch import distributions as D

from thetaone.errors import EstimatorError, InputError
from thetaone.estimators.graphs import Graph, _graph_expectation, graph_expectation

THETA = torch.tensor([0.3, -0.5, 0.8, 0.2, -0.4], dtype=torch.float64)
EARLY = torch.tensor([0.4, -1.0, 0.7], dtype=torch.float64)
LATE = torch.tensor([[1.0, -0.5], [0.3, 2.0]], dtype=torch.float64)

Runs = list[tuple[int, int, int]]


def laws(theta: Tensor) -> tuple[Tensor, Callable[[Tensor], Tensor], Callable[..., Tensor]]:
    """Logits of z ∈ {0, 1, 2}; of x ∈ {0, 1} given z; of y ∈ {0, 1} given z and x."""
    first = torch.stack([theta[0], theta[1], theta[0] * theta[2]])
    table = torch.stack([theta[2], theta[3], theta[4]])

    def third(z: Tensor, x: Tensor) -> Tensor:
        return torch.stack([theta[3] * z + theta[4] * x, theta[0] + theta[1] * x * z], -1)

    return first, lambda z: table[z.long()], third


def program(theta: Tensor, graph: Graph) -> Tensor:
    first, second, third = laws(theta)
    z = graph.draw("z", D.Categorical(logits=first))
    graph.add_cost(EARLY[z] * theta[4])  # holds a parameter, and nothing drawn later matters to it
    x = graph.draw("x", D.Bernoulli(logits=second(z)))
    y = graph.draw("y", D.Categorical(logits=third(z, x)))
    return LATE[x.long(), y] * (1 + theta[1] * z)


def chance(theta: Tensor, z: int, x: int, y: int) -> Tensor:
    first, second, third = laws(theta)
    at_z, at_x = torch.tensor(z), torch.tensor(float(x))
    p = second(at_z).sigmoid()
    return first.softmax(0)[z] * (p if x else 1 - p) * third(at_z, at_x).softmax(-1)[y]


def objective(theta: Tensor) -> Tensor:
    total = torch.zeros((), dtype=torch.float64)
    for z, x, y in product(range(3), range(2), range(2)):
        cost = EARLY[z] * theta[4] + LATE[x, y] * (1 + theta[1] * z)
        total = total + chance(theta, z, x, y) * cost
    return total


def surrogate(
    theta: Tensor, runs: Runs, *, baseline: bool, monkeypatch: pytest.MonkeyPatch
) -> Tensor:
    columns = [torch.tensor([run[k] for run in runs]) for k in range(3)]
    columns[1] = columns[1].double()
    queue = iter(columns)

    def injected(distribution: D.Distribution, n: int, generator: torch.Generator | None) -> Tensor:
        x = next(queue)
        return x[None] if distribution.batch_shape else x  # one law a run, or one for all

    with monkeypatch.context() as patch:
        patch.setattr(_graph_expectation, "sample", injected)
        return graph_expectation(
            lambda graph: program(theta, graph), n_samples=len(runs), baseline=baseline, check=False
        ).value


@pytest.mark.parametrize("baseline", [True, False])
def test_value_gradient_and_hessian_over_every_outcome(
    baseline: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    outcomes = list(product(range(3), range(2), range(2)))
    chances = {run: float(chance(THETA, *run)) for run in outcomes}
    value = torch.zeros((), dtype=torch.float64)
    gradient, hessian = torch.zeros(5).double(), torch.zeros(5, 5).double()
    groups = product(outcomes, repeat=2) if baseline else ((run,) for run in outcomes)
    for runs in groups:
        weight = torch.tensor([chances[run] for run in runs], dtype=torch.float64).prod()
        theta = THETA.clone().requires_grad_()
        v = surrogate(theta, list(runs), baseline=baseline, monkeypatch=monkeypatch)
        (g,) = torch.autograd.grad(v, theta, create_graph=True)
        h = torch.stack([torch.autograd.grad(part, theta, retain_graph=True)[0] for part in g])
        value, gradient, hessian = (
            value + weight * v.detach(),
            gradient + weight * g.detach(),
            hessian + weight * h,
        )
    truth = THETA.clone().requires_grad_()
    (first,) = torch.autograd.grad(objective(truth), truth)
    second = torch.autograd.functional.hessian(objective, THETA)
    assert float(first.abs().min()) > 0.01
    torch.testing.assert_close(value, objective(THETA), atol=1e-12, rtol=0)
    torch.testing.assert_close(gradient, first, atol=1e-12, rtol=0)
    torch.testing.assert_close(hessian, second, atol=1e-12, rtol=0)


def test_paths_and_scores_in_one_graph() -> None:
    # z ~ N(µ, 1) by its path, b ~ Bernoulli(σ(az)) by its score, cost b·z² + z; truth on a grid
    mu, a = 0.4, 0.7
    u = torch.linspace(-9, 9, 20_001, dtype=torch.float64)
    density = torch.exp(-(u**2) / 2) / (2 * torch.pi) ** 0.5

    def truth(theta: Tensor) -> Tensor:
        z = theta[0] + u
        return torch.trapezoid(density * ((theta[1] * z).sigmoid() * z**2 + z), u)

    at = torch.tensor([mu, a], dtype=torch.float64, requires_grad=True)
    (expected,) = torch.autograd.grad(truth(at), at)
    rows = []
    g = torch.Generator().manual_seed(0)

    def run(graph: Graph) -> Tensor:
        z = graph.draw("z", D.Normal(theta[0], 1.0))
        b = graph.draw("b", D.Bernoulli(logits=theta[1] * z))
        return b * z**2 + z

    for _ in range(300):
        theta = at.detach().clone().requires_grad_()
        e = graph_expectation(run, n_samples=200, generator=g, check=False)
        rows.append(torch.autograd.grad(e.value, theta)[0])
        assert e.estimator == "graph (z: pathwise, b: score)"
    gradients = torch.stack(rows)
    stderr = gradients.std(0) / len(rows) ** 0.5
    assert float((stderr / expected.abs()).max()) < 0.02
    assert float(((gradients.mean(0) - expected) / stderr).abs().max()) < 4.5


def test_a_baseline_takes_noise_away() -> None:
    spreads = []
    for baseline in (True, False):
        rows = []
        g = torch.Generator().manual_seed(0)
        for _ in range(100):
            theta = THETA.clone().requires_grad_()
            e = graph_expectation(
                lambda graph, theta=theta: program(theta, graph) + 10, n_samples=50,
                baseline=baseline, generator=g, check=False,
            )  # fmt: skip
            rows.append(torch.autograd.grad(e.value, theta)[0])
        spreads.append(float(torch.stack(rows).var(0).sum()))
    assert spreads[0] < spreads[1] / 10


def test_bad_programs() -> None:
    a = torch.tensor(0.2, requires_grad=True)

    def twice(graph: Graph) -> Tensor:
        graph.draw("z", D.Bernoulli(logits=a))
        return graph.draw("z", D.Bernoulli(logits=a))

    def column(graph: Graph) -> Tensor:
        return graph.draw("z", D.Bernoulli(logits=a))[:, None]

    def one(graph: Graph) -> Tensor:
        return graph.draw("z", D.Bernoulli(logits=a))

    def moving(graph: Graph) -> Tensor:
        return graph.draw("z", D.Uniform(torch.zeros(()), torch.exp(a)))

    with pytest.raises(EstimatorError, match="node 'z' was drawn before"):
        graph_expectation(twice)
    with pytest.raises(EstimatorError, match=r"a cost has shape \(64, 1\); expected \(64,\)"):
        graph_expectation(column)
    with pytest.raises(EstimatorError, match="the program has no cost"):
        graph_expectation(lambda graph: None)
    with pytest.raises(EstimatorError, match=r"node 'z': pathwise does not apply: Bernoulli"):
        graph_expectation(one, estimators={"z": "pathwise"})
    with pytest.raises(EstimatorError, match=r"node 'z': the score does not apply: .*moves"):
        graph_expectation(moving, estimators={"z": "score"})
    with pytest.raises(InputError, match=r"estimators names y; the program draws z"):
        graph_expectation(one, estimators={"y": "score"})
    with pytest.raises(InputError, match=r"estimators\['z'\]='vimco': choose from auto"):
        graph_expectation(one, estimators={"z": "vimco"})  # pyright: ignore[reportArgumentType]
    with pytest.raises(InputError, match="at least 2"):
        graph_expectation(one, n_samples=1)
