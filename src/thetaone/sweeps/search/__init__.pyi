from ._drive import grid_steps as grid_steps
from ._drive import search_trials as search_trials
from ._plan import Ask as Ask
from ._plan import plan_search as plan_search
