"""verl: the nested configuration of its PPO trainer, as ``core_algos`` reads it."""

from collections.abc import Mapping
from typing import Any

from thetaone.errors import InputError
from thetaone.estimators.policy.objectives._objective import (
    AdvantageKind,
    Aggregation,
    KLKind,
    ObjectiveSettings,
)
from thetaone.estimators.policy.objectives._trainers import (
    Notes,
    TrainerReading,
    lookup,
    note_advantage,
    note_aggregation,
)

_VERL_AGGREGATION: dict[str, Aggregation] = {
    "token-mean": "token-mean", "seq-mean-token-sum": "sequence-sum",
    "seq-mean-token-mean": "sequence-mean", "seq-mean-token-sum-norm": "constant",
}  # fmt: skip
_VERL_KL: dict[str, KLKind] = {
    "kl": "k1", "k1": "k1", "mse": "k2", "k2": "k2", "low_var_kl": "k3", "k3": "k3",
    "kl+": "k2", "k1+": "k2", "low_var_kl+": "k2", "k3+": "k2",  # value of one, gradient of k2
}  # fmt: skip


def _at(options: Mapping[str, Any], path: str, default: Any) -> Any:
    node: Any = options
    for part in path.split("."):
        if not isinstance(node, Mapping) or node.get(part) is None:
            return default
        node = node[part]
    return node


_VERL_DEFAULTS: dict[str, Any] = {
    "algorithm.adv_estimator": "gae", "algorithm.norm_adv_by_std_in_grpo": True,
    "algorithm.use_kl_in_reward": False, "algorithm.kl_penalty": "kl",
    "algorithm.kl_ctrl.kl_coef": 0.001, "actor_rollout_ref.rollout.n": 1,
    "actor_rollout_ref.actor.loss_agg_mode": "token-mean",
    "actor_rollout_ref.actor.use_kl_loss": False, "actor_rollout_ref.actor.kl_loss_coef": 0.001,
    "actor_rollout_ref.actor.kl_loss_type": "low_var_kl",
    "actor_rollout_ref.actor.entropy_coeff": 0.0, "actor_rollout_ref.actor.ppo_epochs": 1,
    "actor_rollout_ref.actor.ppo_mini_batch_size": 256, "data.train_batch_size": 1024,
    "actor_rollout_ref.actor.clip_ratio": 0.2,
}  # fmt: skip


def read_verl(options: Mapping[str, Any]) -> TrainerReading:
    """Settings of verl's ``ppo_trainer``."""
    config = {path: _at(options, path, default) for path, default in _VERL_DEFAULTS.items()}
    actor = "actor_rollout_ref.actor."
    notes = Notes()
    advantage = _verl_advantage(config, notes)
    mode = config[actor + "loss_agg_mode"]
    aggregation = lookup(mode, _VERL_AGGREGATION, actor + "loss_agg_mode")
    note_aggregation(notes, actor + "loss_agg_mode", mode, "seq-mean-token-sum-norm", aggregation)
    in_reward, in_loss = config["algorithm.use_kl_in_reward"], config[actor + "use_kl_loss"]
    kind = _verl_kl(config, notes, in_reward=bool(in_reward), in_loss=bool(in_loss))
    coefficient = (
        config["algorithm.kl_ctrl.kl_coef"] if in_reward else config[actor + "kl_loss_coef"]
    )
    batches = int(config["data.train_batch_size"]) / int(config[actor + "ppo_mini_batch_size"])
    return TrainerReading(
        trainer="verl",
        settings=ObjectiveSettings(
            advantage=advantage, group_size=int(config["actor_rollout_ref.rollout.n"]),
            epsilon=1e-6 if advantage == "group-std" else 0.0, aggregation=aggregation,
            kl_kind=kind, kl_place="reward" if in_reward else "loss",
            kl_coefficient=float(coefficient) if kind else 0.0,
            entropy_weight=float(config[actor + "entropy_coeff"]),
            updates_per_batch=max(1, round(batches)) * int(config[actor + "ppo_epochs"]),
            clip=(float(config[actor + "clip_ratio"]), float(config[actor + "clip_ratio"])),
        ),
        shown={path.rpartition(".")[2]: str(value) for path, value in config.items()},
        changes=tuple(notes.changes),
        caveats=tuple(notes.caveats),
    )  # fmt: skip


def _verl_advantage(config: Mapping[str, Any], notes: Notes) -> AdvantageKind:
    name, size = config["algorithm.adv_estimator"], int(config["actor_rollout_ref.rollout.n"])
    setting = "algorithm.adv_estimator"
    if name in ("grpo", "rloo") and size == 1:
        notes.change(
            "actor_rollout_ref.rollout.n", 1, 8,
            "a group of one: verl takes mean 0 and std 1, so that the raw reward is the advantage",
        )  # fmt: skip
        return "none"
    if name == "grpo":
        standardized = bool(config["algorithm.norm_adv_by_std_in_grpo"])
        kind: AdvantageKind = "group-std" if standardized else "mean"
        note_advantage(notes, "algorithm.norm_adv_by_std_in_grpo", True, False, kind)
        return kind
    if name == "rloo":
        return "leave-one-out"
    if name == "reinforce_plus_plus":
        notes.change(setting, name, "rloo", "advantages are divided by the batch's spread")
        return "batch-std"
    if name == "remax":
        notes.caveats.append("remax: the reward of a greedy completion is a baseline, exact")
        return "none"
    raise InputError(
        f"{setting}={name!r}: what it ascends depends on a critic or is not known here; known: "
        "grpo, rloo, reinforce_plus_plus, remax"
    )


def _verl_kl(
    config: Mapping[str, Any], notes: Notes, *, in_reward: bool, in_loss: bool
) -> KLKind | None:
    actor = "actor_rollout_ref.actor."
    if in_reward and in_loss:
        raise InputError(
            f"algorithm.use_kl_in_reward and {actor}use_kl_loss are both on: audit one at a time"
        )
    if not (in_reward or in_loss):
        return None
    setting = "algorithm.kl_penalty" if in_reward else actor + "kl_loss_type"
    name = config["algorithm.kl_penalty"] if in_reward else config[actor + "kl_loss_type"]
    kind = lookup(name, _VERL_KL, setting)
    if in_reward and kind != "k1":
        notes.change(setting, name, "kl", f"{kind} in the reward is biased for KL(π‖ρ)")
    if in_loss and kind != "k2":
        why = "ascends minus the forward KL(ρ‖π)" if kind == "k3" else "ascends nothing"
        notes.change(setting, name, "k3+", f"{kind} in the loss {why}; k3+ has k2's gradient")
    return kind
