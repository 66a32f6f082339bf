"""The coordinate check takes numbers as scripts have them, and refuses what is none by name."""

from typing import Any

import numpy as np
import pytest
import torch

import thetaone as t1
from thetaone.errors import InputError
from thetaone.tasks import digits

ASKED: dict[str, Any] = {"widths": (16, 32), "lr": 0.01, "steps": (1,), "max_seeds": 2}


@pytest.mark.parametrize("seeds", [np.arange(2), torch.arange(2), np.int64(2), range(2)])
def test_seeds_as_arrays_are_those_of_a_list(seeds: Any) -> None:
    arrays = t1.coordinate_check(digits, **ASKED | {"seeds": seeds, "widths": np.array([16, 32])})
    assert arrays.rows == t1.coordinate_check(digits, **ASKED, seeds=[0, 1]).rows


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("seeds", 2.5, "seeds=2.5: need whole numbers"),
        ("seeds", [0, 1.5], "seeds=1.5: need whole numbers"),
        ("seeds", 10**30, "need whole numbers from 1"),
        ("seeds", 10**12, "seeds has more than"),
        ("seeds", "ab", "seeds='a'"),
        ("widths", [16, "x"], "widths='x'"),
        ("steps", [0], "steps=0: need whole numbers from 1"),
    ],
)
def test_what_is_no_whole_number_is_refused(name: str, value: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        t1.coordinate_check(digits, **ASKED | {name: value})
