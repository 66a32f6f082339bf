"""State that no dictionary of Python's holds: the environment, context variables, caches in C."""

import gc
import os
from contextvars import ContextVar
from typing import Any

from thetaone.rematerialization.blocks.state._holders import Items, Parts

_ENTRY = "_lru_list_elem"


class Environment(Items):
    """The variables of the process's environment."""

    def __init__(self) -> None:
        super().__init__("os.environ", os.environ._data)  # pyright: ignore[reportAttributeAccessIssue]

    def restore(self, contents: dict[Any, Any]) -> None:
        """Set and delete variables."""
        for name in self.container.keys() - contents.keys():
            del os.environ[os.fsdecode(name)]
        for name, value in contents.items():
            if self.container.get(name) is not value:
                os.environ[os.fsdecode(name)] = os.fsdecode(value)


class Variable:
    """A context variable; a recomputation runs in the context of its forward already."""

    def __init__(self, path: str, variable: ContextVar[Any]) -> None:
        self.path, self.variable = path, variable

    def contents(self) -> dict[Any, Any]:
        """Its value; nothing while it has none."""
        value = self.variable.get(self)
        return {} if value is self else {"": value}

    def restore(self, contents: dict[Any, Any]) -> None:
        """Leave it: who runs a block chooses the context."""

    def parts(self) -> Parts:
        """Its value."""
        return Parts(None, read=self._values, source=self.variable)

    def _values(self, _: Any) -> tuple[Any, ...]:
        return (self.variable.get(None),)


class Results:
    """Results that a function with a bounded cache remembers; they can be read and not set."""

    def __init__(self, path: str, function: Any) -> None:
        self.path, self.function = path, function

    def contents(self) -> dict[Any, Any]:
        """Results and keys, by place."""
        return dict(enumerate(self._values(self.function)))

    def restore(self, contents: dict[Any, Any]) -> None:
        """Leave it: a function gives what its cache would have given."""

    def parts(self) -> Parts:
        """Results and keys."""
        return Parts(None, read=self._values, source=self.function)

    def _values(self, function: Any) -> list[Any]:
        """What the cache refers to, but the dictionary that finds its entries.

        An empty one cannot be told from an empty result: it must never be filled by anyone else.
        """
        if not function.cache_info().currsize:
            return []
        return [one for one in gc.get_referents(function) if not _is_index(one)]


def _is_index(value: Any) -> bool:
    return type(value) is dict and type(next(iter(value.values()), None)).__name__ == _ENTRY


def remembered(path: str, function: Any) -> Items | Results:
    """What a function made by ``functools.cache`` or ``lru_cache`` remembers.

    Without a bound its results are the values of a dictionary, which can be filled anew.
    """
    if function.cache_parameters()["maxsize"] is not None:
        return Results(path, function)
    members = vars(function)
    (results,) = (
        one for one in gc.get_referents(function) if type(one) is dict and one is not members
    )
    return Items(path, results)
