"""Penalties of a loss: no feature depends on them, so they change no role."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import thetaone as t1
from thetaone.errors import RoleError

X = torch.randn(6, 5, generator=torch.Generator().manual_seed(0))
Penalty = Callable[[list[nn.Parameter], list[Tensor]], Tensor]


def flat(parameters: list[nn.Parameter], start: list[Tensor]) -> Tensor:
    vector = nn.utils.parameters_to_vector
    return (vector(parameters) - vector(start)).square().sum()


ANCHORED: dict[str, Penalty] = {
    "sum of squares": lambda ps, qs: sum(
        ((p - q).square().sum() for p, q in zip(ps, qs, strict=True)), torch.zeros(())
    ),
    "Fisher": lambda ps, qs: torch.stack(
        [(q.abs() * (q - p) ** 2).sum() for p, q in zip(ps, qs, strict=True)]
    ).sum(),
    "mse_loss": lambda ps, qs: 0.5 * F.mse_loss(ps[2], qs[2], reduction="sum"),
    "flat": flat,
    "norm": lambda ps, qs: (ps[2] - qs[2]).norm(),
}


class Net(nn.Sequential):
    """Three layers, their initial values in a list, and one parameter more."""

    def __init__(self, width: int) -> None:
        torch.manual_seed(0)
        super().__init__(nn.Linear(5, width), nn.Linear(width, width), nn.Linear(width, 3))
        self.start = [parameter.detach().clone() for parameter in self.parameters()]

    def losses(self) -> Tensor:
        return self(X).square().mean(-1)


def rules(loss: Callable[[Net], Tensor], make: Callable[[int], Net] = Net) -> object:
    return t1.prescribe(make(64), base=make(16), sample=loss).rules


@pytest.mark.parametrize("name", ANCHORED)
def test_a_distance_from_the_start_is_a_penalty(name: str) -> None:
    def loss(m: Net) -> Tensor:
        return m.losses().mean() + 1e-3 * ANCHORED[name](list(m.parameters()), m.start)

    assert rules(loss) == rules(lambda m: m.losses().mean())


def test_an_input_that_meets_a_parameter_of_its_shape_stays_an_input() -> None:
    class Placed(nn.Module):
        def __init__(self, width: int) -> None:
            super().__init__()
            self.place, self.out = nn.Parameter(torch.ones(7, width)), nn.Linear(width, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.out(x + self.place)

    def call(m: nn.Module) -> Tensor:
        return m(torch.randn(7, m.get_parameter("place").shape[1])).square().mean()

    read = t1.prescribe(Placed(64), base=Placed(16), sample=call)
    assert (read["place"].role, read["out.weight"].role) == ("vector", "output")


def test_a_penalty_on_each_samples_loss_is_one() -> None:
    def loss(m: Net) -> Tensor:
        return (m.losses() + 1e-3 * m.get_parameter("1.weight").norm()).mean()

    assert rules(loss) == rules(lambda m: m.losses().mean())


def test_a_norm_that_features_meet_is_no_penalty() -> None:
    def loss(m: Net) -> Tensor:
        h = m[0](X) + 0.1 * m.get_parameter("1.weight").norm()
        return m[2](m[1](h)).square().mean()

    with pytest.raises(RoleError, match=r"1\.weight .* add of .* norm .* grows with their number"):
        rules(loss)


def test_a_parameter_in_a_penalty_alone_is_told_so() -> None:
    class More(Net):
        def __init__(self, width: int) -> None:
            super().__init__(width)
            self.more = nn.Parameter(torch.randn(width, width))

    def loss(m: Net) -> Tensor:
        return m.losses().mean() + m.get_parameter("more").square().sum()

    with pytest.raises(RoleError, match=r"more .* no feature depends on it: it is in a penalty"):
        rules(loss, More)


def test_a_loss_times_a_number_of_a_weight_is_refused_with_the_cure() -> None:
    def loss(m: Net) -> Tensor:
        return m.losses().mean() * (1 + 1e-3 * m[1].get_parameter("weight").abs().mean())

    with pytest.raises(RoleError, match=r"the whole loss with a number made from it \(add a pena"):
        rules(loss)
