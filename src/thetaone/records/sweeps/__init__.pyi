from ._sweep import Drift as Drift
from ._sweep import EngineDecision as EngineDecision
from ._sweep import SweepEvent as SweepEvent
from ._sweep import SweepResult as SweepResult
from ._sweep import Trial as Trial
