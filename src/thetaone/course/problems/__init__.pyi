from ._adam_table import ADAM_TABLE as ADAM_TABLE
from ._features import FEATURES as FEATURES
from ._figure_one import FIGURE_ONE as FIGURE_ONE
from ._gradient_estimators import GRADIENT_ESTIMATORS as GRADIENT_ESTIMATORS
from ._rematerialization import REMATERIALIZATION as REMATERIALIZATION
from ._sign_step import SIGN_STEP as SIGN_STEP
from ._spectral import SPECTRAL_CONDITION as SPECTRAL_CONDITION
