"""Options that no constructor takes are refused, with the argument that was meant."""

from typing import Any

import pytest

from thetaone.errors import InputError
from thetaone.records import check_options


class Adam:
    def __init__(self, params: Any, lr: float = 1e-3, betas: Any = (0.9, 0.999)) -> None: ...


class Muon:
    def __init__(self, params: Any, lr: float = 1e-3, momentum: float = 0.95) -> None: ...


class TakesAnything:
    def __init__(self, params: Any, lr: float = 1e-3, **rest: Any) -> None: ...


def tune(*, seeds: Any = None, schedule: Any = None, **options: Any) -> None: ...


def refuse(option: str, *constructors: Any) -> str:
    with pytest.raises(InputError, match=r"tune\(\) has no argument") as caught:
        check_options({option: 1}, call=tune, constructors=constructors)
    return str(caught.value)


@pytest.mark.parametrize(
    ("option", "meant"),
    [("seed", "seeds"), ("scheduler", "schedule"), ("beta", "betas"), ("Seeds", "seeds")],
)
def test_the_nearest_argument_is_named(option: str, meant: str) -> None:
    assert f"{option!r}, nor has Adam: did you mean {meant!r}?" in refuse(option, Adam)


def test_with_nothing_near_all_are_named() -> None:
    message = refuse("number_of_epochs", Adam)
    assert "schedule, seeds" in message
    assert "betas, lr" in message


def test_what_one_of_a_mixture_takes_is_taken() -> None:
    check_options({"momentum": 0.9, "betas": (0, 0)}, call=tune, constructors=[Muon, Adam])
    assert "nor has Muon or Adam" in refuse("nesterov", Muon, Adam)


def test_a_constructor_that_takes_anything_is_believed_but_for_misspelt_arguments() -> None:
    check_options({"foreach": True}, call=tune, constructors=[TakesAnything])
    assert "did you mean 'seeds'?" in refuse("seed", TakesAnything)


def test_the_parameters_are_no_option() -> None:
    assert "'params'" in refuse("params", Adam)
