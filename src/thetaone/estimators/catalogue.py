"""Every estimator there is. Being listed here is being tested: the conformance suite reads it."""

from collections.abc import Callable

from thetaone.estimators.antithetic import Antithetic
from thetaone.estimators.arm import ARM
from thetaone.estimators.baselines import MovingAverage
from thetaone.estimators.control_variate import ControlVariate
from thetaone.estimators.delta_method import DeltaMethod
from thetaone.estimators.disarm import DisARM
from thetaone.estimators.enumeration import Enumeration
from thetaone.estimators.evolution_strategies import EvolutionStrategies
from thetaone.estimators.gumbel_softmax import GumbelSoftmax
from thetaone.estimators.leave_one_out import LeaveOneOut
from thetaone.estimators.measure_valued import MeasureValued
from thetaone.estimators.pathwise import Pathwise
from thetaone.estimators.protocol import Estimator
from thetaone.estimators.rebar import REBAR
from thetaone.estimators.relax import RELAX
from thetaone.estimators.score_function import ScoreFunction
from thetaone.estimators.straight_through import StraightThrough
from thetaone.estimators.vimco import VIMCO

# Factories, because some estimators learn: each use starts afresh.
CATALOGUE: dict[str, Callable[[], Estimator]] = {
    "score": ScoreFunction,
    "score-constant": lambda: ScoreFunction(1.0),
    "score-callable": lambda: ScoreFunction(lambda: 0.5),
    "score-moving-average": lambda: ScoreFunction(MovingAverage(0.9)),
    "score-optimal": lambda: ScoreFunction("optimal"),
    "leave-one-out": LeaveOneOut,
    "antithetic-score": Antithetic,
    "antithetic-pathwise": lambda: Antithetic(Pathwise()),
    "pathwise": Pathwise,
    "measure-valued": MeasureValued,
    "enumeration": Enumeration,
    "control-variate": ControlVariate,
    "delta-method": DeltaMethod,
    "delta-method-regression": lambda: DeltaMethod("regression"),
    "es-plain": lambda: EvolutionStrategies("plain"),
    "es-antithetic": EvolutionStrategies,
    "es-forward": lambda: EvolutionStrategies("forward"),
    "arm": ARM,
    "disarm": DisARM,
    "rebar": REBAR,
    "relax": RELAX,
    "vimco": VIMCO,
    "straight-through": StraightThrough,
    "gumbel-softmax": GumbelSoftmax,
    "gumbel-softmax-hard": lambda: GumbelSoftmax(0.5, hard=True),
}
