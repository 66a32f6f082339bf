"""What a prescription or an optimizer would make nothing of is refused by name."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import thetaone as t1
from thetaone.errors import InputError, MismatchError, RoleError


def net(width: int) -> nn.Module:
    return nn.Sequential(nn.Linear(4, width), nn.ReLU(), nn.Linear(width, 2))


def call(**choices: Any) -> torch.optim.Optimizer:
    return t1.parametrize(net(16), base=net(8), **{"lr": 0.1, **choices})


@pytest.mark.parametrize(
    ("option", "told"),
    [
        ({"eps": "x"}, r"AdamW\(lr=0.1, eps='x'\) raises TypeError: '<=' not supported"),
        ({"eps": -1}, r"eps=-1\) raises ValueError: Invalid epsilon value: -1"),
        ({"betas": 0.9}, r"betas=0.9\) raises TypeError: 'float' object is not subscriptable"),
        ({"betas": (0.9,)}, r"betas=\(0.9,\)\) raises IndexError"),
        ({"lr": "a"}, r"AdamW\(lr='a'\) raises TypeError.*give each option a value that the class"),
    ],
)
def test_an_option_that_the_class_does_not_take_is_named(option: Any, told: str) -> None:
    with pytest.raises(InputError, match=told):
        call(**option)


@pytest.mark.parametrize(
    ("choice", "told"),
    [
        ({"frozen": "skp"}, r"frozen='skp': choose one of error, skip. Did you mean 'skip'\?"),
        ({"decay": "none at all"}, "decay='none at all': choose one of shrinkage"),
        ({"decay_vectors": "no"}, "decay_vectors='no': choose True or False"),
        ({"depth_exponent": "x"}, "depth_exponent='x': choose a number from 0.5 to 1"),
        ({"roles": "x"}, "roles='x': pass a mapping from a pattern"),
        ({"folds": {"0.weight": "2"}}, r"folds\['0.weight'\]='2': need a value as in"),
        ({"folds": {"0.weight": True}}, r"folds\['0.weight'\]=True: need a value as in"),
        ({"folds": {"0.weight": 0}}, r"folds\['0.weight'\]=0: need a value as in"),
        ({"folds": {"0.weight": -1.0}}, r"folds\['0.weight'\]=-1.0: need a value as in"),
        ({"folds": {"0.weight": float("nan")}}, r"folds\['0.weight'\]=nan: need a value as in"),
    ],
)
def test_a_choice_that_is_none_is_named(choice: Any, told: str) -> None:
    with pytest.raises(InputError, match=told):
        call(**choice)


@pytest.mark.parametrize("what", [{"roles": {"0.wieght": "input"}}, {"folds": {"0.wieght": 2.0}}])
def test_a_pattern_that_matches_nothing_is_answered_with_the_name_meant(what: Any) -> None:
    with pytest.raises(RoleError, match=r"matches no parameter. Did you mean '0.weight'\?"):
        call(**what)


def test_a_pattern_may_be_of_a_layer_that_the_base_alone_has() -> None:
    deep = nn.Sequential(*(nn.Linear(8, 8) for _ in range(3)))
    prescription = t1.prescribe(
        nn.Sequential(*(nn.Linear(8, 8) for _ in range(2))), base=deep, depth_exponent=None,
        roles={"2.weight": "fixed"},
    )  # fmt: skip
    assert len(prescription.rules) == 4


class Routed(nn.Module):
    """Experts called in a loop over those that some token chose."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first, self.router = nn.Linear(8, width), nn.Linear(width, 2)
        self.experts = nn.ModuleList(nn.Linear(width, width) for _ in range(2))

    def chosen(self, index: Tensor) -> Iterable[int]:
        return index.unique().tolist()

    def rows(self, mask: Tensor) -> Any:
        return mask

    def forward(self, x: Tensor) -> Tensor:
        h = self.first(x)
        index, out = self.router(h).argmax(-1), torch.zeros_like(h)
        for k in self.chosen(index):
            rows = self.rows(index == k)
            out[rows] = self.experts[k](h[rows])
        return out


class Masked(Routed):
    def chosen(self, index: Tensor) -> Iterable[int]:
        return range(len(self.experts))


class Cured(Masked):
    def rows(self, mask: Tensor) -> Any:
        return torch.where(mask)


class Weighted(nn.Module):
    """Rows of a table weighted by features."""

    def __init__(self, width: int, how: str) -> None:
        super().__init__()
        self.first, self.how = nn.Linear(8, width), how
        self.table = nn.Parameter(torch.randn(width, 4) / width**0.5)

    def forward(self, x: Tensor) -> Tensor:
        h = self.first(x).relu()
        if self.how == "product":
            return h @ self.table
        rows = torch.arange(h.shape[1]).expand(len(h), -1)
        return F.embedding_bag(rows, self.table, per_sample_weights=h, mode="sum")


@pytest.mark.parametrize(("make", "name"), [(Routed, "unique"), (Masked, "nonzero")])
def test_counts_that_depend_on_values_are_refused_and_the_cure_works(
    make: Callable[[int], nn.Module], name: str
) -> None:
    sample = (torch.randn(5, 8),)
    message = rf"how many entries {name} returns .* `for k in range\(experts\)`, .*torch\.where"
    with pytest.raises(RoleError, match=message):
        t1.prescribe(make(32), base=make(16), sample=sample)
    cured = t1.prescribe(Cured(32), base=Cured(16), sample=sample)
    assert cured["experts.0.weight"].role == "hidden"


def test_rows_that_belong_to_features_are_refused_in_a_lookup_and_the_cure_works() -> None:
    sample = (torch.randn(5, 8),)
    with pytest.raises(MismatchError, match=r"rows belong to features .* write .* h @ W"):
        t1.prescribe(Weighted(32, "bag"), base=Weighted(16, "bag"), sample=sample)
    cured = t1.prescribe(Weighted(32, "product"), base=Weighted(16, "product"), sample=sample)
    assert cured["table"].role == "output"


class AsksForTracing(nn.Identity):
    """A pass that takes another way where no values are computed."""

    def forward(self, input: Tensor) -> Tensor:
        if type(input) is not Tensor:
            raise RuntimeError("values are missing. " + 9 * "Long reason. " + "Last word")
        return super().forward(input)


def failing(width: int) -> nn.Module:
    return nn.Sequential(nn.Linear(8, width), AsksForTracing(), nn.Linear(width, 4))


def test_a_pass_that_fails_only_where_it_is_read_is_not_blamed_on_the_sample() -> None:
    sample = (torch.randn(5, 8),)
    with pytest.raises(RoleError, match=r"by shapes alone, .*Last word\).* leave sample= out"):
        t1.prescribe(failing(32), base=failing(16), sample=sample)
    with pytest.warns(UserWarning, match="read by its layers' classes alone"):
        cured = t1.prescribe(failing(32), base=failing(16))
    assert cured["2.weight"].role == "output"


class Adapted(nn.Module):
    """A network after one step of gradient descent inside the pass."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(8, width), nn.Linear(width, 4)

    def plain(self, x: Tensor, weights: Mapping[str, Tensor]) -> Tensor:
        h = F.linear(x, weights["first.weight"], weights["first.bias"]).relu()
        return F.linear(h, weights["last.weight"], weights["last.bias"])

    def forward(self, x: Tensor) -> Tensor:
        weights = dict(self.named_parameters())
        loss = self.plain(x, weights).square().mean()
        gradients = torch.autograd.grad(loss, list(weights.values()), create_graph=True)
        pairs = zip(weights.items(), gradients, strict=True)
        return self.plain(x, {name: weight - 0.1 * step for (name, weight), step in pairs})


def test_gradient_steps_inside_the_pass_are_refused_as_such_and_the_cure_works() -> None:
    x = torch.randn(5, 8)
    with pytest.raises(RoleError, match=r"first\.weight .*: a gradient step inside the pass"):
        t1.prescribe(Adapted(32), base=Adapted(16), sample=(x,))
    cured = t1.prescribe(
        Adapted(32), base=Adapted(16),
        sample=lambda model: model.plain(x, dict(model.named_parameters())),
    )  # fmt: skip
    assert (cured["first.weight"].role, cured["last.weight"].role) == ("input", "output")
