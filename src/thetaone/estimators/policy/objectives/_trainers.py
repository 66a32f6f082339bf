"""What a trainer's settings come to: the words that the readers of TRL, verl and TorchRL share."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from thetaone.errors import InputError
from thetaone.estimators.policy.objectives._objective import (
    AdvantageKind,
    Aggregation,
    ObjectiveSettings,
)
from thetaone.records import SettingChange


@dataclass(frozen=True, kw_only=True)
class TrainerReading:
    """Settings of one trainer, in our words.

    Attributes:
        trainer: Its name.
        settings: What decides the objective.
        shown: The trainer's own settings that were read.
        changes: Those that keep it from E[R] − β·KL(π‖ρ).
        caveats: What lies outside ``settings``.
    """

    trainer: str
    settings: ObjectiveSettings
    shown: dict[str, str]
    changes: tuple[SettingChange, ...]
    caveats: tuple[str, ...] = ()


@dataclass
class Notes:
    """Changes and caveats as they are come upon."""

    changes: list[SettingChange] = field(default_factory=list[SettingChange])
    caveats: list[str] = field(default_factory=list[str])

    def change(self, setting: str, value: Any, to: Any, why: str) -> None:
        """Note a setting that keeps the objective from being the intended one."""
        self.changes.append(SettingChange(setting=setting, value=str(value), to=str(to), why=why))


def pick(options: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """The options by name, with the trainer's defaults for what is missing."""
    return {
        name: options[name] if options.get(name) is not None else default
        for name, default in defaults.items()
    }


def lookup(value: Any, table: Mapping[Any, Any], name: str) -> Any:
    """The term of this library for the value of a trainer's setting.

    Raises:
        InputError: It is not known.
    """
    if value not in table:
        names = ", ".join(str(key) for key in table)
        raise InputError(f"{name}={value!r} is not known here; known: {names}")
    return table[value]


def note_advantage(notes: Notes, setting: str, value: Any, to: Any, kind: AdvantageKind) -> None:
    """Note a division by a spread."""
    if kind in ("group-std", "batch-std"):
        over = "group" if kind == "group-std" else "batch"
        notes.change(setting, value, to, f"advantages are divided by the {over}'s spread")


def note_aggregation(notes: Notes, setting: str, value: Any, to: Any, kind: Aggregation) -> None:
    """Note a division by lengths or tokens."""
    if kind in ("sequence-mean", "token-mean"):
        over = "each completion's length" if kind == "sequence-mean" else "the batch's tokens"
        notes.change(setting, value, to, f"the loss is divided by {over}")


def note_selection(notes: Notes, config: Mapping[str, Any]) -> None:
    """Note what leaves completions or tokens out."""
    if config.get("mask_truncated_completions"):
        notes.change(
            "mask_truncated_completions", True, False,
            "completions cut at the limit are left out: what is ascended is the reward given that "
            "a completion ends",
        )  # fmt: skip
    if float(config.get("top_entropy_quantile", 1.0)) < 1:
        notes.change(
            "top_entropy_quantile", config["top_entropy_quantile"], 1.0,
            "only tokens of high entropy are learned from: the gradient of no objective",
        )  # fmt: skip
