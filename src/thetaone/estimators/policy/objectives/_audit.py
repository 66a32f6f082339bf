"""``audit``: a trainer's settings in, the objective that they ascend out."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import yaml

from thetaone.errors import InputError, ThetaOneError
from thetaone.estimators.policy.objectives._objective import objective_of
from thetaone.estimators.policy.objectives._torchrl import read_torchrl
from thetaone.estimators.policy.objectives._toy import (
    expected_gradient,
    intended_gradient,
    named_gradient,
    toy,
    within_reach,
)
from thetaone.estimators.policy.objectives._trainers import TrainerReading
from thetaone.estimators.policy.objectives._trl import read_grpo, read_rloo
from thetaone.estimators.policy.objectives._verl import read_verl
from thetaone.records import ObjectiveAudit, local_path


def audit(args: Any, *, trainer: str = "") -> ObjectiveAudit:
    """Say which objective a trainer's settings ascend, and what to set for E[R] − β·KL(π‖ρ).

    The formula is checked each time: on a toy policy of four completions the expected gradient over
    every group is computed and compared with that of the formula.

    Args:
        args: TRL's ``GRPOConfig`` or ``RLOOConfig``; a mapping of settings (TRL's, verl's nested
            ones, TorchRL's); or the path of a YAML file of them.
        trainer: ``grpo``, ``rloo``, ``verl`` or ``torchrl``; empty to tell by class or names.

    Returns:
        A record: print it, write it with ``to_json()``.

    Raises:
        InputError: Settings that are nobody's, or a value that is not known.

    Examples:
        >>> verdict = audit({"beta": 0.05, "num_generations": 4}, trainer="rloo")
        >>> verdict.formula, verdict.intended
        ('E[R] − 0.05·KL(π‖ρ)', True)
    """
    options, recognized = _options(args)
    try:
        reading = _read_trainer(options, trainer or recognized)
    except ThetaOneError:
        raise
    except (ArithmeticError, AttributeError, TypeError, ValueError) as error:  # a list for a number
        raise InputError(
            f"settings of {trainer or recognized or 'this trainer'}: a value is of the wrong kind: "
            f"{error}"
        ) from error
    objective = objective_of(reading.settings)
    small = within_reach(reading.settings)
    policy = toy()
    mean = expected_gradient(small, policy)
    exact = objective_of(replace(small, updates_per_batch=1)).exact  # the toy makes one update
    error = float((mean - named_gradient(small, policy)).abs().max()) if exact else float("nan")
    meant = intended_gradient(small, policy)
    cosine = torch.nn.functional.cosine_similarity(mean.flatten(), meant.flatten(), dim=0)
    return ObjectiveAudit(
        trainer=reading.trainer,
        settings=reading.shown,
        name=objective.name,
        formula=objective.formula,
        exact=objective.exact,
        caveats=(*objective.caveats, *reading.caveats),
        changes=reading.changes,
        toy_group_size=small.group_size,
        toy_error=error,
        toy_cosine=float(cosine),
    )


def _options(args: Any) -> tuple[Mapping[str, Any], str]:
    if isinstance(args, str | Path):
        path = local_path(args)
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, ValueError) as error:  # absent, a folder, no name of a file, not UTF-8
            raise InputError(
                f"{str(path)[:80]!r} cannot be read: {error}; pass the trainer's settings in YAML"
            ) from error
        try:
            loaded = yaml.safe_load(text)
        except (yaml.YAMLError, ValueError, RecursionError) as error:  # an impossible date; nested
            raise InputError(f"{path} is not YAML: {error}") from error
        if not isinstance(loaded, Mapping):
            raise InputError(f"{path} holds a {type(loaded).__name__}; expected settings by name")
        return loaded, ""
    if isinstance(args, Mapping):
        return args, ""
    names = {kind.__name__ for kind in type(args).__mro__}
    for name, trainer in (("GRPOConfig", "grpo"), ("RLOOConfig", "rloo")):
        if name in names:
            return vars(args), trainer
    raise InputError(
        f"args is a {type(args).__name__}: pass a GRPOConfig, an RLOOConfig, a mapping, or the "
        "path of a YAML file"
    )


def _read_trainer(options: Mapping[str, Any], trainer: str) -> TrainerReading:
    """The objective's settings from a trainer's.

    Args:
        options: The trainer's settings by name; nested as verl's, flat as TRL's.
        trainer: ``grpo``, ``rloo``, ``verl`` or ``torchrl``; empty to tell by the names.

    Raises:
        InputError: An unknown trainer or setting value.
    """
    chosen = trainer or _recognized(options)
    if chosen not in _READERS:
        raise InputError(f"trainer={chosen!r}: choose from {', '.join(_READERS)}")
    return _READERS[chosen](options)


def _recognized(options: Mapping[str, Any]) -> str:
    names = set(options)
    if {"actor_rollout_ref", "algorithm"} & names:
        return "verl"
    if {"grpo_size", "MCAdvantage", "GRPOLoss"} & names:
        return "torchrl"
    if {"normalize_advantages", "reward_clip_range"} & names:
        return "rloo"
    if {
        "loss_type",
        "scale_rewards",
        "importance_sampling_level",
        "use_bias_correction_kl",
    } & names:
        return "grpo"
    raise InputError(
        "whose settings these are cannot be told from their names "
        f"({', '.join(sorted(map(str, names))[:8])}): pass trainer='grpo', 'rloo', 'verl' or "
        "'torchrl'"
    )


_READERS: dict[str, Callable[[Mapping[str, Any]], TrainerReading]] = {
    "grpo": read_grpo, "rloo": read_rloo, "verl": read_verl, "torchrl": read_torchrl,
}  # fmt: skip
