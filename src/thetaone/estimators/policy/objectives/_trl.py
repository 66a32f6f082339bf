"""TRL: ``GRPOConfig`` and ``RLOOConfig``, as version 1.16 reads them."""

from collections.abc import Mapping
from typing import Any

from thetaone.estimators.policy.objectives._objective import (
    AdvantageKind,
    Aggregation,
    ObjectiveSettings,
)
from thetaone.estimators.policy.objectives._trainers import (
    Notes,
    TrainerReading,
    lookup,
    note_advantage,
    note_aggregation,
    note_selection,
    pick,
)
from thetaone.records import SettingChange

_TRL_ADVANTAGE: dict[Any, AdvantageKind] = {
    "group": "group-std", True: "group-std", "batch": "batch-std", "none": "mean", False: "mean",
}  # fmt: skip
_TRL_AGGREGATION: dict[str, Aggregation] = {
    "grpo": "sequence-mean", "bnpo": "token-mean", "dapo": "token-mean", "dr_grpo": "constant",
    "cispo": "token-mean", "sapo": "sequence-mean", "vespo": "token-mean", "luspo": "sequence-sum",
}  # fmt: skip


def read_grpo(options: Mapping[str, Any]) -> TrainerReading:
    """Settings of ``GRPOConfig``."""
    config = pick(options, {
        "num_generations": 8, "scale_rewards": "group", "loss_type": "dapo", "beta": 0.0,
        "use_bias_correction_kl": True, "num_iterations": 1, "epsilon": 0.2, "entropy_coef": 0.0,
        "mask_truncated_completions": False, "top_entropy_quantile": 1.0,
        "multi_objective_aggregation": "sum_then_normalize",
    })  # fmt: skip
    notes = Notes()
    advantage = lookup(config["scale_rewards"], _TRL_ADVANTAGE, "scale_rewards")
    aggregation = lookup(config["loss_type"], _TRL_AGGREGATION, "loss_type")
    if config["multi_objective_aggregation"] == "normalize_then_sum":
        advantage = "group-std"
        notes.change(
            "multi_objective_aggregation", "normalize_then_sum", "sum_then_normalize",
            "each reward function is divided by its own spread in the group, then by the batch's",
        )  # fmt: skip
    note_advantage(notes, "scale_rewards", config["scale_rewards"], "none", advantage)
    note_aggregation(notes, "loss_type", config["loss_type"], "dr_grpo", aggregation)
    note_selection(notes, config)
    steps = options.get("steps_per_generation") or 0
    accumulated = options.get("gradient_accumulation_steps") or 1
    updates = int(config["num_iterations"]) * max(1, -(-int(steps) // int(accumulated)))
    return TrainerReading(
        trainer="TRL GRPOTrainer",
        settings=ObjectiveSettings(
            advantage=advantage, group_size=int(config["num_generations"]),
            epsilon=1e-4 if advantage in ("group-std", "batch-std") else 0.0,
            aggregation=aggregation, kl_kind="k3" if config["beta"] else None, kl_place="loss",
            kl_weighted=bool(config["use_bias_correction_kl"]),
            kl_coefficient=float(config["beta"]),
            entropy_weight=float(config["entropy_coef"]), updates_per_batch=updates,
            clip=_clip(options, config),
        ),
        shown={name: str(value) for name, value in config.items()},
        changes=tuple(_with_kl(notes, config)),
        caveats=tuple(notes.caveats),
    )  # fmt: skip


def _clip(options: Mapping[str, Any], config: Mapping[str, Any]) -> tuple[float, float]:
    low = float(config["epsilon"])
    return low, float(options.get("epsilon_high") or low)


def _with_kl(notes: Notes, config: Mapping[str, Any]) -> list[SettingChange]:
    if config["beta"] and not config["use_bias_correction_kl"]:
        notes.change(
            "use_bias_correction_kl", False, True,
            "without the ratio k3 in the loss ascends minus the forward KL(ρ‖π)",
        )  # fmt: skip
    return notes.changes


def read_rloo(options: Mapping[str, Any]) -> TrainerReading:
    """Settings of ``RLOOConfig``."""
    config = pick(options, {
        "num_generations": 2, "beta": 0.05, "normalize_advantages": False, "num_iterations": 1,
        "epsilon": 0.2, "mask_truncated_completions": False,
    })  # fmt: skip
    notes = Notes()
    advantage: AdvantageKind = "batch-std" if config["normalize_advantages"] else "leave-one-out"
    note_advantage(notes, "normalize_advantages", True, False, advantage)
    note_selection(notes, config)
    if options.get("reward_clip_range") is not None:
        notes.caveats.append("reward_clip_range: R is the clipped reward, KL included")
    return TrainerReading(
        trainer="TRL RLOOTrainer",
        settings=ObjectiveSettings(
            advantage=advantage, group_size=int(config["num_generations"]),
            epsilon=1e-4 if config["normalize_advantages"] else 0.0, aggregation="sequence-sum",
            kl_kind="k1" if config["beta"] else None, kl_place="reward",
            kl_coefficient=float(config["beta"]), updates_per_batch=int(config["num_iterations"]),
            clip=_clip(options, config),
        ),
        shown={name: str(value) for name, value in config.items()},
        changes=tuple(notes.changes),
        caveats=tuple(notes.caveats),
    )  # fmt: skip
