"""Tune small. Train large. In the memory you have.

Four things stay Θ(1) while a network grows: the best learning rate (``parametrize``), the memory of
training (``rematerialize``), the trust in a gradient of an expectation (``expectation``) and the
cost of finding the learning rate (``sweep``). ``transfer`` is the whole job.

Names are loaded on first use: ``import thetaone`` loads no torch.
"""

import importlib
from typing import TYPE_CHECKING, Any

from thetaone.version import __version__ as __version__

# public name -> the module that defines it
_HOME = {
    # norms and laws
    "rms": "thetaone.laws.norms",
    "rms_operator_norm": "thetaone.laws.norms",
    "fit_exponent": "thetaone.laws.fits",
    "verify_laws": "thetaone.laws.catalogue",
    "PowerLaw": "thetaone.records.fits",
    "LawResult": "thetaone.records.laws",
    # width and depth
    "prescribe": "thetaone.parametrization.prescribe",
    "parametrize": "thetaone.parametrization.apply",
    "coordinate_check": "thetaone.studies.invariance",
    # memory
    "Chain": "thetaone.records.chain",
    "Stage": "thetaone.records.chain",
    "profile": "thetaone.rematerialization.profiler",
    "plan": "thetaone.rematerialization.plan",
    "simulate": "thetaone.rematerialization.simulator",
    "rematerialize": "thetaone.rematerialization.execute",
    "TrainingMemory": "thetaone.rematerialization.memory",
    # gradients of expectations
    "expectation": "thetaone.estimators.driver",
    "gradient_samples": "thetaone.estimators.samples",
    "compare_estimators": "thetaone.estimators.comparison",
    "ScoreFunction": "thetaone.estimators.score_function",
    "MovingAverage": "thetaone.estimators.baselines",
    "LeaveOneOut": "thetaone.estimators.leave_one_out",
    "Antithetic": "thetaone.estimators.antithetic",
    "Pathwise": "thetaone.estimators.pathwise",
    "MeasureValued": "thetaone.estimators.measure_valued",
    "Enumeration": "thetaone.estimators.enumeration",
    "ControlVariate": "thetaone.estimators.control_variate",
    "DeltaMethod": "thetaone.estimators.delta_method",
    "EvolutionStrategies": "thetaone.estimators.evolution_strategies",
    "ARM": "thetaone.estimators.arm",
    "DisARM": "thetaone.estimators.disarm",
    "REBAR": "thetaone.estimators.rebar",
    "RELAX": "thetaone.estimators.relax",
    "VIMCO": "thetaone.estimators.vimco",
    "StraightThrough": "thetaone.estimators.straight_through",
    "GumbelSoftmax": "thetaone.estimators.gumbel_softmax",
    # many trainings, and the whole job
    "sweep": "thetaone.studies.sweep",
    "transfer": "thetaone.studies.transfer",
    "ThetaOneError": "thetaone.errors",
}

__all__ = ["__version__", *_HOME]  # pyright: ignore[reportUnsupportedDunderAll]

if TYPE_CHECKING:  # what type checkers and editors see; at run time _HOME
    from thetaone.errors import ThetaOneError as ThetaOneError
    from thetaone.estimators.antithetic import Antithetic as Antithetic
    from thetaone.estimators.arm import ARM as ARM
    from thetaone.estimators.baselines import MovingAverage as MovingAverage
    from thetaone.estimators.comparison import compare_estimators as compare_estimators
    from thetaone.estimators.control_variate import ControlVariate as ControlVariate
    from thetaone.estimators.delta_method import DeltaMethod as DeltaMethod
    from thetaone.estimators.disarm import DisARM as DisARM
    from thetaone.estimators.driver import expectation as expectation
    from thetaone.estimators.enumeration import Enumeration as Enumeration
    from thetaone.estimators.evolution_strategies import EvolutionStrategies as EvolutionStrategies
    from thetaone.estimators.gumbel_softmax import GumbelSoftmax as GumbelSoftmax
    from thetaone.estimators.leave_one_out import LeaveOneOut as LeaveOneOut
    from thetaone.estimators.measure_valued import MeasureValued as MeasureValued
    from thetaone.estimators.pathwise import Pathwise as Pathwise
    from thetaone.estimators.rebar import REBAR as REBAR
    from thetaone.estimators.relax import RELAX as RELAX
    from thetaone.estimators.samples import gradient_samples as gradient_samples
    from thetaone.estimators.score_function import ScoreFunction as ScoreFunction
    from thetaone.estimators.straight_through import StraightThrough as StraightThrough
    from thetaone.estimators.vimco import VIMCO as VIMCO
    from thetaone.laws.catalogue import verify_laws as verify_laws
    from thetaone.laws.fits import fit_exponent as fit_exponent
    from thetaone.laws.norms import rms as rms
    from thetaone.laws.norms import rms_operator_norm as rms_operator_norm
    from thetaone.parametrization.apply import parametrize as parametrize
    from thetaone.parametrization.prescribe import prescribe as prescribe
    from thetaone.records.chain import Chain as Chain
    from thetaone.records.chain import Stage as Stage
    from thetaone.records.fits import PowerLaw as PowerLaw
    from thetaone.records.laws import LawResult as LawResult
    from thetaone.rematerialization.execute import rematerialize as rematerialize
    from thetaone.rematerialization.memory import TrainingMemory as TrainingMemory
    from thetaone.rematerialization.plan import plan as plan
    from thetaone.rematerialization.profiler import profile as profile
    from thetaone.rematerialization.simulator import simulate as simulate
    from thetaone.studies.invariance import coordinate_check as coordinate_check
    from thetaone.studies.sweep import sweep as sweep
    from thetaone.studies.transfer import transfer as transfer


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'thetaone' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME})
