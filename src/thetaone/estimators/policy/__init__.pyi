from ._baselines import per_time_leave_one_out as per_time_leave_one_out
from ._environments import collect_episodes as collect_episodes
from ._environments import make_environments as make_environments
from ._episodes import Episodes as Episodes
from ._loss import Policy as Policy
from ._loss import policy_gradient_loss as policy_gradient_loss
from ._returns import rewards_to_go as rewards_to_go
