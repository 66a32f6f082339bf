"""Plain tuples, lists and dicts, and what they hold."""

import operator
from collections.abc import Callable
from typing import Any


def leaves_of(value: Any) -> list[Any]:
    """What plain tuples, lists and dicts hold, in order."""
    leaves: list[Any] = []
    mapped(value, leaves.append)
    return leaves


def mapped(value: Any, leaf: Callable[[Any], Any]) -> Any:
    """A copy of plain tuples, lists and dicts, with ``leaf`` of what they hold."""
    if type(value) in (tuple, list):
        return type(value)([mapped(one, leaf) for one in value])
    if type(value) is dict:
        return {name: mapped(one, leaf) for name, one in value.items()}
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
    return leaf(value)


def shape_of(value: Any) -> Any:
    """The nesting of plain tuples, lists and dicts."""
    if type(value) in (tuple, list):
        return type(value), *map(shape_of, value)
    if type(value) is dict:
        return dict, *((name, shape_of(one)) for name, one in value.items())
    return None
