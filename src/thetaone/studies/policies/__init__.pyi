from ._actor_critic import ActorCriticSettings as ActorCriticSettings
from ._actor_critic import train_actor_critic as train_actor_critic
from ._train_policy import ENV_STEPS as ENV_STEPS
from ._train_policy import LR as LR
from ._train_policy import WIDTH as WIDTH
from ._train_policy import train_policy as train_policy
