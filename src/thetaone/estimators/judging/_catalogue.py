"""Every estimator there is. Being listed here is being tested: the conformance suite reads it."""

from collections.abc import Callable

from thetaone.estimators._protocol import Estimator
from thetaone.estimators.methods import (
    ARM,
    REBAR,
    RELAX,
    VIMCO,
    Antithetic,
    ControlVariate,
    DeltaMethod,
    DisARM,
    Enumeration,
    EvolutionStrategies,
    GumbelSoftmax,
    LeaveOneOut,
    MeasureValued,
    MovingAverage,
    Pathwise,
    ScoreFunction,
    StraightThrough,
)

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
