"""Gradients of expectations: one estimator a file, one driver. See README.md in this folder."""

import importlib
from typing import Any

# public name -> the module of this room that defines it
_HOME = {
    "Expectation": "driver",
    "expectation": "driver",
    "gradient_samples": "samples",
    "Estimator": "protocol",
    "ScoreFunction": "score_function",
    "MovingAverage": "baselines",
    "LeaveOneOut": "leave_one_out",
    "Antithetic": "antithetic",
    "Pathwise": "pathwise",
    "MeasureValued": "measure_valued",
    "Enumeration": "enumeration",
    "ControlVariate": "control_variate",
    "DeltaMethod": "delta_method",
    "EvolutionStrategies": "evolution_strategies",
    "ARM": "arm",
    "DisARM": "disarm",
    "REBAR": "rebar",
    "RELAX": "relax",
    "VIMCO": "vimco",
    "StraightThrough": "straight_through",
    "GumbelSoftmax": "gumbel_softmax",
}

__all__ = list(_HOME)  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'thetaone.estimators' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"thetaone.estimators.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME})
