from ._progress import Progress as Progress
from ._progress import ProgressEvent as ProgressEvent
from ._spec import TrialSpec as TrialSpec
from ._sweep import Drift as Drift
from ._sweep import EngineDecision as EngineDecision
from ._sweep import SweepResult as SweepResult
from ._trial import Trial as Trial
