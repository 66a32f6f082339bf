import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from thetaone.errors import InputError
from thetaone.records import TrialSpec
from thetaone.sweeps import grid, parse_lrs
from thetaone.sweeps.engines._makespan import chunks, makespan, stack_size

AXES: dict[str, Any] = {
    "widths": [32, 64], "lrs": [0.5, 0.25], "seeds": [1, 0], "n_steps": 3,
    "parametrization": "mup", "base_width": 32,
}  # fmt: skip


def test_grid_is_sorted_and_has_each_combination_once() -> None:
    specs = grid(**{**AXES, "lrs": [0.5, 0.25, 0.5]})
    assert len(specs) == len(set(specs)) == 8
    assert [(s.width, s.lr, s.seed) for s in specs[:3]] == [
        (32, 0.25, 0),
        (32, 0.25, 1),
        (32, 0.5, 0),
    ]


def test_mup_and_sp_share_the_trials_of_the_base_width_and_no_others() -> None:
    mup = set(grid(**AXES))
    sp = set(grid(**{**AXES, "parametrization": "sp"}))
    assert {spec.width for spec in mup & sp} == {32}
    assert len(mup & sp) == 4


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"widths": []}, r"widths=\[\]: need at least one"),
        ({"widths": [0, 32]}, "widths=0: need whole numbers from 1"),
        ({"lrs": [0.1, -0.1]}, "lrs=-0.1"),
        ({"lrs": [math.nan]}, "lrs=nan"),
        ({"seeds": [-1]}, "seeds=-1"),
        ({"n_steps": 0}, "steps=0"),
    ],
)
def test_axes_out_of_range(change: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        grid(**{**AXES, **change})


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2^-12:2^-3", [2.0**power for power in range(-12, -2)]),
        ("2^-4:2^-3:0.5", [2**-4, 2**-3.5, 2**-3]),
        ("0.001, 2^-7", [0.001, 2**-7]),
        ("0.25:1", [0.25, 0.5, 1.0]),
    ],
)
def test_rates_as_people_write_them(text: str, expected: list[float]) -> None:
    assert list(parse_lrs(text)) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("text", ["", "fast", "-1", "2^-3:2^-12", "1:2:0", "1:2:1:1", "0,1"])
def test_rates_that_are_none(text: str) -> None:
    with pytest.raises(InputError, match=r"write e\.g\. 2\^-12:2\^-3"):
        parse_lrs(text)


@given(st.lists(st.floats(0.01, 10), min_size=1, max_size=30), st.integers(1, 6))
def test_makespan_lies_between_its_bounds(seconds: list[float], n_workers: int) -> None:
    span = makespan(seconds, n_workers)
    ideal = max(sum(seconds) / n_workers, max(seconds))
    assert ideal - 1e-9 <= span <= (4 / 3) * ideal + max(seconds) + 1e-9
    assert makespan(seconds, 1) == pytest.approx(sum(seconds))


@given(st.integers(1, 200), st.integers(1, 16), st.integers(1, 32))
def test_stacks_are_within_the_limit_and_as_few_as_can_be(n: int, workers: int, most: int) -> None:
    size = stack_size(n, workers, most)
    assert 1 <= size <= most
    n_stacks = -(-n // size)
    assert n_stacks <= workers * -(-n // (workers * most))


def test_groups_hold_every_spec_once_widest_first_and_never_mix_rules() -> None:
    specs = [
        TrialSpec(width=w, lr=lr, seed=s, n_steps=1, rule=rule)
        for w in (4, 8)
        for lr in (0.1, 0.2, 0.3)
        for s in (0, 1)
        for rule in ("sp", "mup from 4")
    ]
    groups = chunks(specs, {4: 4})
    assert sorted(spec for group in groups for spec in group) == sorted(specs)
    assert [g[0].width for g in groups] == [8] * 12 + [4] * 4
    assert max(len(group) for group in groups) == 4
    assert all(len({(spec.width, spec.rule) for spec in group}) == 1 for group in groups)
