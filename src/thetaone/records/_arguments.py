"""Options that a call hands on to an optimizer's constructor: which are taken, which refused."""

import difflib
import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from thetaone.errors import InputError

LIKENESS = 0.6  # of two words, 0 to 1: below it a suggestion would be a guess
MISSPELT = 0.8  # so like an argument of the call that it must be meant, whatever a class takes


def check_options(
    options: Mapping[str, Any],
    *,
    call: Callable[..., Any],
    constructors: Iterable[Callable[..., Any]],
) -> None:
    """Refuse options that no optimizer's constructor takes, and name the argument meant.

    A constructor that takes any keyword (``**kwargs``) is believed, unless the option is an
    argument of the call misspelt.

    Args:
        options: What was passed beside the call's own arguments.
        call: The public function, whose arguments may have been meant.
        constructors: Classes of the optimizers; an option must be an argument of one of them.

    Raises:
        InputError: Names the option and the nearest argument, or all that there are.

    Examples:
        >>> class Descent:
        ...     def __init__(self, params, lr=0.1, momentum=0.0): ...
        >>> def train(*, seeds=(0,), **options): ...
        >>> check_options({"momentum": 0.9}, call=train, constructors=[Descent])
        >>> check_options({"seed": [0]}, call=train, constructors=[Descent])
        Traceback (most recent call last):
        thetaone.errors.InputError: train() has no argument 'seed', nor has Descent: ... 'seeds'?
    """
    classes = list(constructors)
    arguments = _keywords(call)
    taken = {name for cls in classes for name in _keywords(cls)} - {"params", "self"}
    believed = any(_takes_any(cls) for cls in classes)
    for option in options:
        if option in taken or (believed and not _nearest(option, arguments, MISSPELT)):
            continue
        names = " or ".join(getattr(cls, "__name__", repr(cls)) for cls in classes)
        nearest = _nearest(option, arguments | taken, LIKENESS)
        advice = (
            f"did you mean {nearest!r}?"
            if nearest
            else f"the arguments are {', '.join(sorted(arguments))}; of {names}, "
            f"{', '.join(sorted(taken))}"
        )
        raise InputError(f"{call.__name__}() has no argument {option!r}, nor has {names}: {advice}")


def takes_option(constructor: Callable[..., Any], option: str) -> bool:
    """Whether a constructor has an argument of that name, or takes any.

    Examples:
        >>> takes_option(lambda params, lr=0.1: None, "lr")
        True
    """
    return option in _keywords(constructor) or _takes_any(constructor)


def did_you_mean(word: str, among: Iterable[str]) -> str:
    """The end of a message about a word that is none of some others; empty when none is like it.

    Examples:
        >>> did_you_mean("Muno", ["Adam", "Muon"]), did_you_mean("xyz", ["Adam", "Muon"])
        (". Did you mean 'Muon'?", '')
    """
    folded = {other.lower(): other for other in among}
    nearest = _nearest(word.lower(), folded, LIKENESS)
    return f". Did you mean {folded[nearest]!r}?" if nearest else ""


def _nearest(word: str, among: Iterable[str], likeness: float) -> str | None:
    """The word most like another, or the only one that begins with it."""
    near = difflib.get_close_matches(word, sorted(among), n=1, cutoff=likeness)
    longer = [other for other in among if other.startswith(word)]
    return near[0] if near else longer[0] if len(longer) == 1 else None


def _keywords(function: Callable[..., Any]) -> set[str]:
    """Names that may be passed by keyword."""
    kinds = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    parameters = inspect.signature(function).parameters.values()
    return {parameter.name for parameter in parameters if parameter.kind in kinds}


def _takes_any(function: Callable[..., Any]) -> bool:
    parameters = inspect.signature(function).parameters.values()
    return any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters)
