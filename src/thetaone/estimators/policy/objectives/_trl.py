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
    given = pick(options, {
        "num_generations": 8, "scale_rewards": "group", "loss_type": "dapo", "beta": 0.0,
        "use_bias_correction_kl": True, "num_iterations": 1, "epsilon": 0.2, "entropy_coef": 0.0,
        "mask_truncated_completions": False, "top_entropy_quantile": 1.0,
        "multi_objective_aggregation": "sum_then_normalize",
    })  # fmt: skip
    notes = Notes()
    advantage = lookup(given["scale_rewards"], _TRL_ADVANTAGE, "scale_rewards")
    aggregation = lookup(given["loss_type"], _TRL_AGGREGATION, "loss_type")
    if given["multi_objective_aggregation"] == "normalize_then_sum":
        advantage = "group-std"
        notes.change(
            "multi_objective_aggregation", "normalize_then_sum", "sum_then_normalize",
            "each reward function is divided by its own spread in the group, then by the batch's",
        )  # fmt: skip
    note_advantage(notes, "scale_rewards", given["scale_rewards"], "none", advantage)
    note_aggregation(notes, "loss_type", given["loss_type"], "dr_grpo", aggregation)
    note_selection(notes, given)
    steps = options.get("steps_per_generation") or 0
    accumulated = options.get("gradient_accumulation_steps") or 1
    updates = int(given["num_iterations"]) * max(1, -(-int(steps) // int(accumulated)))
    return TrainerReading(
        trainer="TRL GRPOTrainer",
        settings=ObjectiveSettings(
            advantage=advantage, group_size=int(given["num_generations"]),
            epsilon=1e-4 if advantage in ("group-std", "batch-std") else 0.0,
            aggregation=aggregation, kl_kind="k3" if given["beta"] else None, kl_place="loss",
            kl_weighted=bool(given["use_bias_correction_kl"]), kl_coefficient=float(given["beta"]),
            entropy_weight=float(given["entropy_coef"]), updates_per_batch=updates,
            clip=(float(given["epsilon"]), float(options.get("epsilon_high") or given["epsilon"])),
        ),
        shown={name: str(value) for name, value in given.items()},
        changes=tuple(_with_kl(notes, given)),
        caveats=tuple(notes.caveats),
    )  # fmt: skip


def _with_kl(notes: Notes, given: Mapping[str, Any]) -> list[SettingChange]:
    if given["beta"] and not given["use_bias_correction_kl"]:
        notes.change(
            "use_bias_correction_kl", False, True,
            "without the ratio k3 in the loss ascends minus the forward KL(ρ‖π)",
        )  # fmt: skip
    return notes.changes


def read_rloo(options: Mapping[str, Any]) -> TrainerReading:
    """Settings of ``RLOOConfig``."""
    given = pick(options, {
        "num_generations": 2, "beta": 0.05, "normalize_advantages": False, "num_iterations": 1,
        "epsilon": 0.2, "mask_truncated_completions": False,
    })  # fmt: skip
    notes = Notes()
    advantage: AdvantageKind = "batch-std" if given["normalize_advantages"] else "leave-one-out"
    note_advantage(notes, "normalize_advantages", True, False, advantage)
    note_selection(notes, given)
    if options.get("reward_clip_range") is not None:
        notes.caveats.append("reward_clip_range: R is the clipped reward, KL included")
    return TrainerReading(
        trainer="TRL RLOOTrainer",
        settings=ObjectiveSettings(
            advantage=advantage, group_size=int(given["num_generations"]),
            epsilon=1e-4 if given["normalize_advantages"] else 0.0, aggregation="sequence-sum",
            kl_kind="k1" if given["beta"] else None, kl_place="reward",
            kl_coefficient=float(given["beta"]), updates_per_batch=int(given["num_iterations"]),
            clip=(float(given["epsilon"]), float(options.get("epsilon_high") or given["epsilon"])),
        ),
        shown={name: str(value) for name, value in given.items()},
        changes=tuple(notes.changes),
        caveats=tuple(notes.caveats),
    )  # fmt: skip
