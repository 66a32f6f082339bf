from . import estimators as estimators
from .errors import ThetaOneError as ThetaOneError
from .estimators import compare_estimators as compare_estimators
from .estimators import expectation as expectation
from .estimators import gradient_samples as gradient_samples
from .laws import fit_exponent as fit_exponent
from .laws import rms as rms
from .laws import rms_operator_norm as rms_operator_norm
from .laws import verify_laws as verify_laws
from .parametrization import parametrize as parametrize
from .parametrization import prescribe as prescribe
from .records import Chain as Chain
from .records import LawResult as LawResult
from .records import PowerLaw as PowerLaw
from .records import Stage as Stage
from .rematerialization import TrainingMemory as TrainingMemory
from .rematerialization import plan as plan
from .rematerialization import profile as profile
from .rematerialization import rematerialize as rematerialize
from .rematerialization import simulate as simulate
from .studies import coordinate_check as coordinate_check
from .studies import sweep as sweep
from .studies import transfer as transfer
from .version import __version__ as __version__

__all__: list[str]
