"""TorchRL: ``MCAdvantage`` and ``GRPOLoss``."""

from collections.abc import Mapping
from typing import Any

from thetaone.estimators.policy.objectives._objective import (
    ObjectiveSettings,
)
from thetaone.estimators.policy.objectives._trainers import (
    Notes,
    TrainerReading,
    pick,
)


def read_torchrl(options: Mapping[str, Any]) -> TrainerReading:
    """Settings of ``MCAdvantage`` and ``GRPOLoss``, nested by class or flat."""
    flat: dict[str, Any] = {}
    for name, value in options.items():
        flat.update(value if isinstance(value, Mapping) else {name: value})
    config = pick(flat, {
        "grpo_size": 8, "clip_epsilon": 0.2, "entropy_bonus": True, "entropy_coeff": 0.01,
        "kl_to_ref_coeff": 0.0, "reduction": "mean",
    })  # fmt: skip
    notes = Notes()
    notes.change(
        "MCAdvantage", "rewards over their std", "thetaone.group_advantages",
        "advantages are divided by the group's spread, over all steps; there is no switch",
    )  # fmt: skip
    notes.change(
        "reduction", config["reduction"], "sum over tokens, mean over completions",
        "the loss is divided by the batch's tokens",
    )  # fmt: skip
    if config["kl_to_ref_coeff"]:
        notes.change(
            "kl_to_ref_coeff", config["kl_to_ref_coeff"], "k1 in the reward",
            "k3 in the loss ascends minus the forward KL(ρ‖π)",
        )  # fmt: skip
    clip = float(config["clip_epsilon"])
    weight = float(config["entropy_coeff"]) if config["entropy_bonus"] else 0.0
    return TrainerReading(
        trainer="TorchRL MCAdvantage and GRPOLoss",
        settings=ObjectiveSettings(
            advantage="group-std", group_size=int(config["grpo_size"]), epsilon=1e-4,
            aggregation="token-mean", kl_kind="k3" if config["kl_to_ref_coeff"] else None,
            kl_place="loss", kl_coefficient=float(config["kl_to_ref_coeff"] or 0.0),
            entropy_weight=weight, clip=(clip, clip),
        ),
        shown={name: str(value) for name, value in config.items()},
        changes=tuple(notes.changes),
        caveats=tuple(notes.caveats),
    )  # fmt: skip
