"""Gradients of a policy's expected return: an expectation over episodes."""

from thetaone.estimators.policy.baselines import per_time_leave_one_out
from thetaone.estimators.policy.environments import collect_episodes, make_environments
from thetaone.estimators.policy.episodes import Episodes
from thetaone.estimators.policy.loss import policy_gradient_loss
from thetaone.estimators.policy.returns import rewards_to_go

__all__ = [
    "Episodes",
    "collect_episodes",
    "make_environments",
    "per_time_leave_one_out",
    "policy_gradient_loss",
    "rewards_to_go",
]
