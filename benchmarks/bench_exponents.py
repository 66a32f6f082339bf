"""Exponents of feature updates under every optimizer, widths 64 to 2048: one JSON line each.

The README's perceptron of three layers; the exponent is that of the power law in width of a layer's
feature update beside its prescribed size, the worst of the steps, as the coordinate check fits it.
Standard parametrization is beside it under two optimizers: it must fail.

Run: ``python benchmarks/bench_exponents.py`` (about two minutes on one core; needs
pytorch_optimizer).
"""

import sys
from pathlib import Path
from typing import Any

import torch
from origin import record

sys.path.append(str(Path(__file__).parents[1] / "tests" / "parametrization"))

from set_ups import SET_UPS, STEPS, WIDTHS
from small_tasks import MlpTask

import thetaone as t1
from thetaone.records import FEATURE_UPDATE

ROLES = {"0": "input", "2": "hidden", "4": "readout"}


def exponents(optimizer: type, lr: float, options: dict[str, Any]) -> dict[str, float]:
    """The largest exponent by size of each role, over steps."""
    options = {"steps": STEPS} | options
    check = t1.coordinate_check(MlpTask(), widths=WIDTHS, lr=lr, optimizer=optimizer, **options)
    rows = [row for row in check.rows if row.quantity == FEATURE_UPDATE]
    largest: dict[str, float] = {}
    for layer, role in ROLES.items():
        its = [row.law.exponent for row in rows if row.law and row.layer == layer]
        largest[role] = round(max(its, key=abs), 4)
    return largest


def main() -> None:
    torch.set_num_threads(1)
    for optimizer, lr, options in SET_UPS:
        case = {"optimizer": optimizer.__name__, "options": options, "parametrization": "mup"}
        record("exponents", case, exponents(optimizer, lr, options))
    for optimizer, lr in ((torch.optim.SGD, 0.1), (torch.optim.Adam, 2**-9)):
        case = {"optimizer": optimizer.__name__, "options": {}, "parametrization": "sp"}
        record("exponents", case, exponents(optimizer, lr, {"parametrization": "sp"}))


if __name__ == "__main__":
    main()
