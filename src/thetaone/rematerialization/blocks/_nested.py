"""Tuples, named tuples, lists, dicts and records, and what they hold.

A record is an instance of a dict's subclass or of a dataclass in which a tensor is; all its items
and attributes count. One without a tensor is a value as any other. Records are put together anew
without their constructors, which may look at what they are handed.
"""

import operator
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

import torch
from torch import nn

from thetaone.rematerialization.blocks.state import Refusing

_CLOSED = (type, nn.Module, torch.Tensor)


class Mark:
    """What stands for a tensor in a container."""

    __slots__ = ()


@dataclass(frozen=True)
class Flow(Mark):
    """The place of a tensor that flows in: which of those that the block before returned."""

    index: int


def leaves_of(value: Any) -> list[Any]:
    """What containers hold, in order."""
    leaves: list[Any] = []
    mapped(value, leaves.append)
    return leaves


def mapped(value: Any, leaf: Callable[[Any], Any]) -> Any:
    """A copy of containers, with ``leaf`` of what they hold."""
    if type(value) in (tuple, list):
        return type(value)([mapped(one, leaf) for one in value])
    if type(value) is dict:
        return {name: mapped(one, leaf) for name, one in value.items()}
    if is_named(value):
        return type(value)._make([mapped(one, leaf) for one in value])
    if is_record(value):
        return like(value, [mapped(one, leaf) for one in members_of(value)])
    return leaf(value)


def replaced(value: Any, leaf: Callable[[Any], Any]) -> Any:
    """As ``mapped``, but containers in which nothing is replaced stay the same objects."""
    if type(value) in (tuple, list):
        items = [replaced(one, leaf) for one in value]
        same = all(map(operator.is_, items, value))
        return value if same else type(value)(items)
    if type(value) is dict:
        members = {name: replaced(one, leaf) for name, one in value.items()}
        same = all(map(operator.is_, members.values(), value.values()))
        return value if same else members
    if is_named(value) or is_record(value):
        items = [replaced(one, leaf) for one in members_of(value)]
        return value if all(map(operator.is_, items, members_of(value))) else like(value, items)
    return leaf(value)


def shape_of(value: Any) -> Any:
    """The nesting of containers."""
    if type(value) in (tuple, list) or is_named(value):
        return type(value), *map(shape_of, value)
    if type(value) is dict:
        return dict, *((name, shape_of(one)) for name, one in value.items())
    if is_record(value):
        return type(value), *((key, shape_of(one)) for key, one in _members(value).items())
    return None


def is_named(value: Any) -> bool:
    """Whether a value is a named tuple."""
    return isinstance(value, tuple) and hasattr(type(value), "_make")


def is_record(value: Any) -> bool:
    """Whether a value is a dict's subclass or a dataclass that holds a tensor and not itself."""
    return _may_be_record(value) and _holding(value, ()) == 1


def is_frozen(record: Any) -> bool:
    """Whether nothing can be put into a record: that of a frozen dataclass."""
    parameters = getattr(type(record), "__dataclass_params__", None)
    return not isinstance(record, dict) and parameters is not None and parameters.frozen


def is_nested(value: Any) -> bool:
    """Whether a value is a container."""
    return type(value) in (tuple, list, dict) or is_named(value) or is_record(value)


def members_of(value: Any) -> list[Any]:
    """What a container itself holds, in order."""
    if type(value) is dict:
        return list(value.values())
    return list(value) if isinstance(value, list | tuple) else list(_members(value).values())


def like(record: Any, members: Iterable[Any]) -> Any:
    """A named tuple or a record of the same class and form that holds other members."""
    if is_named(record):
        return type(record)._make(members)
    cls: Any = type(record)
    made = cls.__new__(cls)
    table = dict(zip(_members(record), members, strict=True))
    if isinstance(record, defaultdict):
        made.default_factory = record.default_factory
    attributes = getattr(record, "__dict__", None)
    if attributes is record:  # self.__dict__ = self
        object.__setattr__(made, "__dict__", made)
    if isinstance(record, dict):
        for (kind, name), one in table.items():
            if kind == "item":
                _plain_dict(record).__setitem__(made, name, one)
    for name in _attributes(record):
        key = ("attribute", name)
        object.__setattr__(made, name, table[key if key in table else ("item", name)])
    return made


def forms_in(value: Any) -> dict[str, Any]:
    """Named tuples and records in nested containers, by their forms as text; the first of each."""
    forms: dict[str, Any] = {}
    if is_nested(value):
        if is_named(value) or is_record(value):
            forms[form_of(value)] = value
        for one in members_of(value):
            forms = {**forms_in(one), **forms}
    return forms


def form_of(value: Any) -> str:
    """Full name of the class of a named tuple or record, with the names of a record's members."""
    cls = type(value)
    name = f"{cls.__module__}.{cls.__qualname__}"
    if is_named(value):
        return name
    return f"{name}({', '.join(f'{kind} {key!r}' for kind, key in _members(value))})"


def _may_be_record(value: Any) -> bool:
    if isinstance(value, Mark | Refusing):
        return False
    if isinstance(value, dict):
        return type(value) is not dict
    return is_dataclass(type(value)) and not isinstance(value, _CLOSED)


def _holding(value: Any, above: tuple[int, ...]) -> int:
    """What is in a container: 2 a way back to a container around it, else 1 a tensor, else 0."""
    if isinstance(value, torch.Tensor | Mark | Refusing):
        return 1
    if not (type(value) in (tuple, list, dict) or is_named(value) or _may_be_record(value)):
        return 0
    if id(value) in above:
        return 2
    path = (*above, id(value))
    return max((_holding(one, path) for one in members_of(value)), default=0)


def _members(record: Any) -> dict[tuple[str, Any], Any]:
    """Items and attributes of a record; what is an item and an attribute of one name, once."""
    members: dict[tuple[str, Any], Any] = {}
    if isinstance(record, dict):
        items: Any = _plain_dict(record).items(record)
        members = {("item", name): one for name, one in items}
    for name, one in _attributes(record).items():
        if name not in _names(members) or members["item", name] is not one:
            members["attribute", name] = one
    return members


def _names(members: dict[tuple[str, Any], Any]) -> list[Any]:
    return [name for _, name in members]


def _attributes(record: Any) -> dict[str, Any]:
    """All that an object holds by name, in slots too; nothing where its items are these."""
    attributes = getattr(record, "__dict__", {})
    if attributes is record:
        return {}
    slots = [one.name for one in fields(record)] if is_dataclass(record) else []
    held = {name: getattr(record, name) for name in slots if name not in attributes}
    return {**attributes, **held}


def _plain_dict(record: Any) -> Any:
    """The built-in class whose methods a dict's subclass has, whatever it says of its own."""
    return OrderedDict if isinstance(record, OrderedDict) else dict
