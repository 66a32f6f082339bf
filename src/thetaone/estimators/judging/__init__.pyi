from ._comparison import compare_estimators as compare_estimators
from ._problems import Problem as Problem
from ._problems import cosine as cosine
from ._problems import exponential_of_sum as exponential_of_sum
from ._problems import jump as jump
from ._problems import quadratic as quadratic
from ._problems import quadratic_location as quadratic_location
from ._problems import tucker as tucker
