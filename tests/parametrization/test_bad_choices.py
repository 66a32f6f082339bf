"""What a prescription or an optimizer would make nothing of is refused by name."""

from typing import Any

import pytest
import torch
from torch import nn

import thetaone as t1
from thetaone.errors import InputError, RoleError


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
