from ._adam_table import adam_update_sizes as adam_update_sizes
from ._adam_table import ratio_of_means as ratio_of_means
from ._features import mean_square_features as mean_square_features
from ._figure_one import LOG2_RATES as LOG2_RATES
from ._figure_one import rate_losses as rate_losses
from ._rematerialization import replay_backward as replay_backward
from ._sign_step import mean_square_sign_steps as mean_square_sign_steps
