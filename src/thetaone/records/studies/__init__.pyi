from ._transfer import DirectSweepCost as DirectSweepCost
from ._transfer import GradientComparison as GradientComparison
from ._transfer import MemoryAccount as MemoryAccount
from ._transfer import TargetMemory as TargetMemory
from ._transfer import TransferResult as TransferResult
from ._transfer import saving as saving
