from ._local import ENGINES as ENGINES
from ._local import Decided as Decided
from ._local import run_local as run_local
from ._ray import run_ray as run_ray
from ._work import count_flops as count_flops
