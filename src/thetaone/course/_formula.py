"""A reader's function, called with the arguments that it names."""

import inspect
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from thetaone.errors import InputError
from thetaone.laws import Law
from thetaone.records import LawResult


@dataclass(frozen=True, kw_only=True)
class Problem:
    """A question that a measurement answers.

    Args:
        law: Name and question.
        arguments: What a formula may ask for: name -> meaning, with its unit.
        measure: Rows of the formula beside the measurement.
        numbers: What the formula says where a reading is told from another; nothing is measured.
        readings: Formulas that tempt, by the mistake in words.
    """

    law: Law
    arguments: Mapping[str, str]
    measure: Callable[["Formula"], list[LawResult]]
    numbers: Callable[["Formula"], list[float]]
    readings: Mapping[str, Callable[..., Any]]


@dataclass(frozen=True)
class Formula:
    """The reader's function with the names of the arguments that it takes."""

    function: Callable[..., Any]
    names: tuple[str, ...]
    problem: str

    def number(self, **values: object) -> float:
        """The formula's value: one finite number.

        Raises:
            InputError: The formula raised, or gave something else.
        """
        answer = self.value(**values)
        if isinstance(answer, Tensor) and answer.numel() != 1:
            shape = tuple(answer.shape)
            raise InputError(f"{self._where(values)} a tensor of shape {shape}, not a number")
        try:
            number = math.nan if isinstance(answer, bool) else float(answer)
        except (TypeError, ValueError) as error:
            raise InputError(f"{self._where(values)} {answer!r}, not a number") from error
        if not math.isfinite(number):
            raise InputError(f"{self._where(values)} {answer!r}; need a finite number")
        return number

    def samples(self, **values: object) -> Tensor:
        """The formula's value, one finite number for each sample of ``x``.

        Raises:
            InputError: The formula raised, or gave something else.
        """
        answer, x = self.value(**values), values["x"]
        assert isinstance(x, Tensor)
        if not isinstance(answer, Tensor) or answer.shape != x.shape:
            kind = tuple(answer.shape) if isinstance(answer, Tensor) else type(answer).__name__
            raise InputError(
                f"{self._where({})} {kind}; return one gradient a sample, a tensor of the shape of "
                f"x, {tuple(x.shape)}"
            )
        if not answer.isfinite().all():
            raise InputError(f"{self._where({})} NaN or inf among its samples")
        return answer.detach().double()

    def value(self, **values: object) -> Any:
        """Whatever the formula returns, called with those of the values that it names."""
        try:
            return self.function(**{name: values[name] for name in self.names})
        except Exception as error:
            raise InputError(
                f"the formula for {self.problem!r} raised {type(error).__name__} at "
                f"{_shown(values)}: {error}"
            ) from error

    def _where(self, values: Mapping[str, object]) -> str:
        case = f" at {_shown(values)}" if values else ""
        return f"the formula for {self.problem!r}{case} gave"


def formula_for(problem: Problem, function: Callable[..., Any]) -> Formula:
    """The function as a formula for the problem, its argument names checked.

    Raises:
        InputError: Not a function, or it names an argument that the problem has not.
    """
    name, arguments = problem.law.name, problem.arguments
    offer = "; ".join(f"{argument}: {meaning}" for argument, meaning in arguments.items())
    if not callable(function):
        raise InputError(
            f"formula={function!r} is no function; write one of any of these arguments: {offer}"
        )
    try:
        parameters = inspect.signature(function).parameters.values()
    except ValueError as error:  # some functions written in C have none
        raise InputError(f"{function!r} does not say its arguments; wrap it in a def") from error
    named = [p for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    unknown = [p.name for p in named if p.name not in arguments and p.default is p.empty]
    if unknown or any(p.kind is p.POSITIONAL_ONLY for p in parameters):
        raise InputError(
            f"{name!r} gives a formula no argument {', '.join(unknown) or 'without a name'}; it "
            f"may take any of {offer}"
        )
    taken = {p.name for p in named}
    takes_all = any(p.kind is p.VAR_KEYWORD for p in parameters)
    return Formula(function, tuple(n for n in arguments if takes_all or n in taken), name)


def _shown(values: Mapping[str, object]) -> str:
    plain = {k: v for k, v in values.items() if isinstance(v, int | float)}
    return ", ".join(f"{name}={value:g}" for name, value in plain.items()) or "its arguments"
