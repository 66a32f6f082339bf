"""Tuples, named tuples, lists and dicts, and what they hold."""

import operator
from collections.abc import Callable
from typing import Any


def leaves_of(value: Any) -> list[Any]:
    """What tuples, named tuples, lists and dicts hold, in order."""
    leaves: list[Any] = []
    mapped(value, leaves.append)
    return leaves


def mapped(value: Any, leaf: Callable[[Any], Any]) -> Any:
    """A copy of tuples, named tuples, lists and dicts, with ``leaf`` of what they hold."""
    if type(value) in (tuple, list):
        return type(value)([mapped(one, leaf) for one in value])
    if type(value) is dict:
        return {name: mapped(one, leaf) for name, one in value.items()}
    if is_named(value):
        return type(value)._make([mapped(one, leaf) for one in value])
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
    if is_named(value):
        items = [replaced(one, leaf) for one in value]
        return value if all(map(operator.is_, items, value)) else type(value)._make(items)
    return leaf(value)


def shape_of(value: Any) -> Any:
    """The nesting of tuples, named tuples, lists and dicts."""
    if type(value) in (tuple, list) or is_named(value):
        return type(value), *map(shape_of, value)
    if type(value) is dict:
        return dict, *((name, shape_of(one)) for name, one in value.items())
    return None


def is_named(value: Any) -> bool:
    """Whether a value is a named tuple."""
    return isinstance(value, tuple) and hasattr(type(value), "_make")


def is_nested(value: Any) -> bool:
    """Whether a value is a tuple, a named one, a list or a dict."""
    return type(value) in (tuple, list, dict) or is_named(value)


def named_in(value: Any) -> dict[str, Any]:
    """Classes of the named tuples in nested containers, by their full names."""
    classes: dict[str, Any] = {}
    if is_named(value):
        classes[full_name(type(value))] = type(value)
    if is_nested(value):
        for one in value.values() if type(value) is dict else value:
            classes.update(named_in(one))
    return classes


def full_name(cls: type) -> str:
    """Module and qualified name of a class."""
    return f"{cls.__module__}.{cls.__qualname__}"
