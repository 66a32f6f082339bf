"""Things whose contents code may change: attributes, containers, closures, globals, class members.

A holder reads its contents as a dictionary and writes them back. What the contents themselves hold
belongs to other holders, so that reading is shallow and cheap.
"""

from collections import deque
from collections.abc import Callable, Iterable, Sized
from itertools import chain
from operator import itemgetter
from types import CellType
from typing import Any, Protocol

from torch import nn

from thetaone.rematerialization.blocks.state._code import is_member

# what nn.Module keeps for itself, and what compiling or rematerializing a module puts there;
# parameters, buffers, children and hooks are watched in dictionaries of their own
INTERNAL = frozenset(vars(nn.Module())) - {"training"} | {
    "_compiled_call_impl",
    "_rematerialization",
}
HOOKS = ("_forward_pre_hooks", "_forward_hooks")
HOOK_OPTIONS = (
    "_forward_pre_hooks_with_kwargs",
    "_forward_hooks_with_kwargs",
    "_forward_hooks_always_called",
)


class Holder(Protocol):
    """Something whose contents may change.

    Attributes:
        path: Where it is, for messages.
    """

    path: str

    def contents(self) -> dict[Any, Any]:
        """What it holds now, by name or place."""
        ...

    def restore(self, contents: dict[Any, Any]) -> None:
        """Make it hold this again."""
        ...

    def parts(self) -> "Parts":
        """What a glance has to compare."""
        ...


class Parts:
    """What is compared by identity to see at a glance whether a holder changed.

    Args:
        sized: Its length is compared.
        read: Called with ``sized`` for the values to compare; None takes ``live``.
        live: Views whose iteration gives the values of the moment.
    """

    __slots__ = ("live", "read", "sized")

    def __init__(
        self,
        sized: Sized | None,
        read: Callable[[Any], Iterable[Any]] | None = None,
        live: tuple[Iterable[Any], ...] = (),
        source: Any = None,
    ) -> None:
        self.sized, self.live = sized, live
        self.read = None if read is None else (read, sized if source is None else source)


class Members:
    """Attributes in the ``__dict__`` of a module or an object, those of nn.Module itself apart."""

    def __init__(self, path: str, members: dict[str, Any], *, module: bool) -> None:
        self.path, self.members, self.module = path, members, module

    def contents(self) -> dict[Any, Any]:
        """Attributes by name."""
        if not self.module:
            return dict(self.members)
        return {name: value for name, value in self.members.items() if name not in INTERNAL}

    def restore(self, contents: dict[Any, Any]) -> None:
        """Set, add and delete attributes, past any ``__setattr__``."""
        for name in self.contents().keys() - contents.keys():
            del self.members[name]
        self.members.update(contents)

    def parts(self) -> Parts:
        """Its plain attributes of now."""
        if not self.module:
            return Parts(self.members, live=(self.members.values(),))
        return Parts(self.members, read=_getter(self.contents()))


class Names:
    """Some names in a namespace: globals that code reads or sets.

    Args:
        path: Where it is.
        owner: A module, or the dictionary of its globals.
        names: Which; not all have to be there.
    """

    def __init__(self, path: str, owner: Any, names: Iterable[str]) -> None:
        self.path, self.owner, self.names = path, owner, tuple(names)
        self.space: dict[str, Any] = owner if isinstance(owner, dict) else vars(owner)

    def contents(self) -> dict[Any, Any]:
        """Values by name."""
        return {name: self.space[name] for name in self.names if name in self.space}

    def restore(self, contents: dict[Any, Any]) -> None:
        """Set the names that differ, and delete those that were not there."""
        for name in self.contents().keys() - contents.keys():
            del self.space[name]
        for name, value in contents.items():
            if self.space.get(name, self) is not value:
                self._put(name, value)

    def _put(self, name: str, value: Any) -> None:
        if isinstance(self.owner, dict):
            self.space[name] = value
        else:
            setattr(self.owner, name, value)

    def parts(self) -> Parts:
        """The values of these names."""
        present = self.contents()
        read = _getter(present)
        absent = [name for name in self.names if name not in present]
        if not absent:
            return Parts(None, read=read, source=self.space)

        def both(space: dict[str, Any]) -> Iterable[Any]:
            return (*read(space), *map(space.get, absent))

        return Parts(None, read=both, source=self.space)


class ClassMembers:
    """Members of a class of the user's, those that Python puts there apart."""

    def __init__(self, path: str, cls: type) -> None:
        self.path, self.cls = path, cls

    def contents(self) -> dict[Any, Any]:
        """Values by name."""
        return {name: value for name, value in vars(self.cls).items() if is_member(name)}

    def restore(self, contents: dict[Any, Any]) -> None:
        """Set, add and delete members."""
        now = self.contents()
        for name in now.keys() - contents.keys():
            delattr(self.cls, name)
        for name, value in contents.items():
            if now.get(name, self) is not value:
                setattr(self.cls, name, value)

    def parts(self) -> Parts:
        """Its members of now; a further one makes it longer."""
        space = vars(self.cls)
        return Parts(space, read=_getter(self.contents()))


class Items:
    """Contents of a list, deque, set or dictionary."""

    def __init__(self, path: str, container: Any) -> None:
        self.path, self.container = path, container

    def contents(self) -> dict[Any, Any]:
        """Elements by place or key."""
        if isinstance(self.container, dict):
            return dict(self.container.items())
        if isinstance(self.container, list | deque):
            return dict(enumerate(self.container))
        return dict.fromkeys(self.container)

    def restore(self, contents: dict[Any, Any]) -> None:
        """Fill the same container anew."""
        container = self.container
        container.clear()
        if isinstance(container, dict):
            for key, value in contents.items():  # ``update`` of a Counter adds
                container[key] = value
        elif isinstance(container, list | deque):
            container.extend(contents.values())
        else:
            container.update(contents)

    def parts(self) -> Parts:
        """Its elements; of an empty one its length tells all."""
        if not self.container:
            return Parts(self.container)
        if isinstance(self.container, dict):
            return Parts(self.container, live=(self.container, self.container.values()))
        return Parts(self.container, live=(self.container,))


class Cell:
    """A variable of a closure."""

    def __init__(self, path: str, cell: CellType) -> None:
        self.path, self.cell = path, cell

    def contents(self) -> dict[Any, Any]:
        """Its value; nothing while it has none."""
        try:
            return {"": self.cell.cell_contents}
        except ValueError:
            return {}

    def restore(self, contents: dict[Any, Any]) -> None:
        """Set its value."""
        if contents:
            self.cell.cell_contents = contents[""]

    def parts(self) -> Parts:
        """Its value."""
        return Parts(None, read=_cell_value, source=self.cell)


class Slots:
    """Attributes that a class keeps in ``__slots__``."""

    def __init__(self, path: str, owner: Any, names: Iterable[str]) -> None:
        self.path, self.owner, self.names = path, owner, tuple(names)

    def contents(self) -> dict[Any, Any]:
        """Attributes by name, those that are set."""
        return {name: getattr(self.owner, name) for name in self.names if hasattr(self.owner, name)}

    def restore(self, contents: dict[Any, Any]) -> None:
        """Set and delete attributes."""
        for name in self.contents().keys() - contents.keys():
            object.__delattr__(self.owner, name)
        for name, value in contents.items():
            object.__setattr__(self.owner, name, value)

    def parts(self) -> Parts:
        """The attributes that are set."""
        return Parts(None, read=self._values, source=self.owner)

    def _values(self, _: Any) -> list[Any]:
        return list(self.contents().values())


class Glance:
    """Compares the contents of holders by identity."""

    def __init__(self, holders: list[Holder]) -> None:
        parts: list[Parts] = [holder.parts() for holder in holders]
        self.sized = [one.sized for one in parts if one.sized is not None]
        self.reads = [one.read for one in parts if one.read is not None]
        self.live = [view for one in parts for view in one.live]

    def values(self) -> list[Any] | None:
        """Lengths and values of now; None where a name is gone."""
        try:
            return [
                *map(len, self.sized),
                *chain.from_iterable([read(source) for read, source in self.reads]),
                *chain.from_iterable(self.live),
            ]
        except (KeyError, ValueError, AttributeError):
            return None

    def lengths(self, values: list[Any]) -> list[Any]:
        """The lengths among values."""
        return values[: len(self.sized)]


def slot_names(cls: type) -> list[str]:
    """Names of all slots of a class."""
    names: list[str] = []
    for one in cls.__mro__:
        slots = vars(one).get("__slots__", ())
        names += [slots] if isinstance(slots, str) else list(slots)
    return [name for name in names if name not in ("__dict__", "__weakref__")]


def _cell_value(cell: CellType) -> tuple[Any]:
    return (cell.cell_contents,)


def _getter(contents: dict[str, Any]) -> Callable[[Any], tuple[Any, ...]]:
    """Reads some entries of a mapping at once, in C."""
    names = list(contents)
    if not names:
        return _nothing
    return itemgetter(*names, names[0])  # of a single name it would read the bare value


def _nothing(_: Any) -> tuple[Any, ...]:
    return ()
