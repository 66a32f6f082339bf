from ._transfer import DirectSweepCost as DirectSweepCost
from ._transfer import GradientComparison as GradientComparison
from ._transfer import MemoryAccount as MemoryAccount
from ._transfer import MemoryPlan as MemoryPlan
from ._transfer import TransferResult as TransferResult
