"""What a user decides about a prescription, and what cannot be decided so. No torch."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from math import inf
from typing import Any

from thetaone.errors import InputError, RoleError
from thetaone.parametrization.rules._decay import POLICIES, SHRINKAGE
from thetaone.records import did_you_mean

FROZEN = ("error", "skip")


@dataclass(frozen=True, slots=True, kw_only=True)
class Choices:
    """What the user decides about a prescription.

    Attributes:
        roles: Glob pattern of names to role; wins over what shapes say.
        folds: Glob pattern to a forward factor folded into the parameter.
        decay: Weight-decay policy.
        decay_vectors: Whether vectors are decayed.
        depth_exponent: α of the factor depth^-α on residual branches, 1/2 to 1; ``None`` leaves
            depth alone.
        branches: Glob patterns of the parameters or modules that end residual branches, when a
            forward pass cannot show them.
        frozen: ``error`` or ``skip``: what to do with parameters without gradient.
    """

    roles: Mapping[str, str] = field(default_factory=dict[str, str])
    folds: Mapping[str, float] = field(default_factory=dict[str, float])
    decay: str = SHRINKAGE
    decay_vectors: bool = True
    depth_exponent: float | None = 1.0
    branches: Sequence[str] = ()
    frozen: str = "error"


def check_choices(choices: Choices, names: Collection[str]) -> None:
    """Refuse choices of which a prescription would make nothing.

    Args:
        choices: The user's.
        names: Parameters of target and base.

    Raises:
        InputError: A value of another kind, or none of those to choose from.
        RoleError: A pattern of ``roles`` or ``folds`` that matches no parameter.
    """
    for what, value, among in (
        ("decay", choices.decay, POLICIES),
        ("frozen", choices.frozen, FROZEN),
    ):
        if value not in among:
            meant = did_you_mean(str(value), among)
            raise InputError(f"{what}={value!r}: choose one of {', '.join(among)}{meant}")
    if not isinstance(choices.decay_vectors, bool):
        raise InputError(f"decay_vectors={choices.decay_vectors!r}: choose True or False")
    _check_patterns("roles", choices.roles, "{'*.head.weight': 'output'}", str, names)
    _check_patterns("folds", choices.folds, "{'*.head.weight': 0.5}", float, names)


def _check_patterns(
    what: str, patterns: Any, example: str, kind: type, names: Collection[str]
) -> None:
    if not isinstance(patterns, Mapping):
        raise InputError(f"{what}={patterns!r}: pass a mapping from a pattern, e.g. {example}")
    for pattern, value in patterns.items():
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if not (isinstance(value, str) if kind is str else number and 0 < value < inf):
            raise InputError(f"{what}[{pattern!r}]={value!r}: need a value as in {example}")
        if not any(fnmatchcase(name, pattern) for name in names):
            raise RoleError(
                f"{what}={{{pattern!r}: {value!r}}}: the pattern matches no parameter"
                f"{did_you_mean(pattern, names)}; there are e.g. {', '.join(sorted(names)[:5])}"
            )
