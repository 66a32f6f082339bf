from ._estimates import EstimatorBakeoff as EstimatorBakeoff
from ._estimates import EstimatorComparison as EstimatorComparison
from ._estimates import EstimatorRow as EstimatorRow
from ._estimates import Verdict as Verdict
from ._policy import LAST_EPISODES as LAST_EPISODES
from ._policy import PolicyRun as PolicyRun
from ._policy import PolicyUpdate as PolicyUpdate
