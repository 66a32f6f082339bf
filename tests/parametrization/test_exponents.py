"""Feature-update exponents of every optimizer, widths 64 to 2048, three seeds, steps 1, 3, 8."""

from typing import Any

import pytest
import torch
from set_ups import SET_UPS, STEPS, WIDTHS
from small_tasks import MlpTask

import thetaone as t1
from thetaone.records import FEATURE_UPDATE

LIMITS = {"0": 0.05, "2": 0.05, "4": 0.06}  # input, hidden, readout


@pytest.mark.slow
@pytest.mark.parametrize(("cls", "lr", "options"), SET_UPS)
def test_exponents(cls: Any, lr: float, options: dict[str, Any]) -> None:
    options = {"widths": WIDTHS, "steps": STEPS, **options}
    check = t1.coordinate_check(MlpTask(), lr=lr, optimizer=cls, **options)
    updates = [row for row in check.rows if row.quantity == FEATURE_UPDATE]
    assert len(updates) == 3 * len(check.steps)
    for row in updates:
        assert row.law is not None
        assert row.law.stderr < 0.05, f"test too weak: {row.layer} step {row.step}"
        assert abs(row.law.exponent) <= LIMITS[row.layer], str(check)


@pytest.mark.slow
@pytest.mark.parametrize(("cls", "lr"), [(torch.optim.SGD, 0.1), (torch.optim.Adam, 2**-9)])
def test_sp_fails_the_same_check(cls: Any, lr: float) -> None:
    check = t1.coordinate_check(
        MlpTask(), widths=WIDTHS, lr=lr, optimizer=cls, steps=STEPS, parametrization="sp"
    )
    beyond = [
        row.layer
        for row in check.rows
        if row.quantity == FEATURE_UPDATE and row.law and abs(row.law.exponent) > 0.25
    ]
    assert {"2", "4"} <= set(beyond)
    assert not check.passed
