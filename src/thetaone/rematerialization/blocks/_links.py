"""How a block's call follows from those of the blocks before, as text that a schedule can hold."""

import itertools
import json
import weakref
from collections.abc import Callable, Mapping
from typing import Any

import torch

from thetaone.rematerialization.blocks._calls import Call, same_argument
from thetaone.rematerialization.blocks._nested import (
    Flow,
    form_of,
    forms_in,
    is_frozen,
    is_named,
    is_record,
    leaves_of,
    like,
    members_of,
)


def link(call: Call, before: Call, earlier: Mapping[int, list[Any]] | None = None) -> str | None:
    """How a call follows from those before, as text; empty when it is the same as the last one.

    Arguments that the block before was called with too, or a block further back, are named by their
    place there, others are written out. None when some argument is neither, or is a number of its
    own, which may change from step to step.

    Args:
        call: The call.
        before: The one before.
        earlier: Arguments of calls further back, by stage.
    """
    shared = leaves_of(before.before)
    position = itertools.count()

    def leaf(value: Any) -> Any:
        place = next(position)
        if isinstance(value, Flow):
            return {"flow": value.index}
        for index in sorted(range(len(shared)), key=lambda index: index != place):
            one = shared[index]
            if value is not None and not isinstance(one, Flow) and same_argument(value, one):
                return {"same": index}
        if value is None or isinstance(value, bool | int | str):
            return {"value": value}
        if isinstance(value, torch.Tensor) and (where := _recalled(value, earlier or {})):
            return {"earlier": where}
        raise TypeError

    flows = [leaf for leaf in leaves_of(call.before) if isinstance(leaf, Flow)]
    if flows == [Flow(0)] and not call.differs_from(before):
        return ""
    if not _forms(call) <= _forms(before):
        return None  # text names a class, the call before has it
    try:
        args, kwargs = call.before
        spelled = [_spelled(one, leaf) for one in args]
        named = {name: _spelled(one, leaf) for name, one in kwargs.items()}
        return json.dumps({"tuple": [{"tuple": spelled}, {"dict": named}]})
    except TypeError:
        return None


def follow(description: Any, before: Call) -> Call:
    """The call that ``link`` described, read from JSON, from the one before of now."""
    shared, forms = leaves_of(before.before), forms_in(before.before)

    def read(value: Any) -> Any:
        kind, content = next(iter(value.items()))
        if kind == "flow":
            return Flow(content)
        if kind == "same":
            return shared[content]
        if kind == "earlier":
            stage, place = content
            return before.earlier[stage][place]
        if kind == "dict":
            return {name: read(one) for name, one in content.items()}
        if kind in ("list", "tuple"):
            items = map(read, content)
            return list(items) if kind == "list" else tuple(items)
        if kind != "value":
            return like(forms[kind], map(read, content))
        return content

    args, kwargs = read(description)
    return Call(args, kwargs, before.earlier)


class Remembered:
    """The tensors among the arguments of calls, by stage, for as long as others keep them."""

    def __init__(self) -> None:
        self.calls: dict[int, list[weakref.ref[torch.Tensor] | None]] = {}

    def note(self, stage: int, call: Call) -> None:
        """Note those of a call."""
        self.calls[stage] = [
            weakref.ref(one) if isinstance(one, torch.Tensor) else None
            for one in leaves_of(call.before)
        ]

    def now(self) -> dict[int, list[Any]]:
        """Those that are still there, None for all else."""
        return {
            stage: [None if one is None else one() for one in leaves]
            for stage, leaves in self.calls.items()
        }


def recalled_stages(description: Any) -> set[int]:
    """Stages further back whose arguments a call has too, by its description read from JSON."""
    if type(description) is list:
        return set[int]().union(*map(recalled_stages, description))
    if type(description) is not dict:
        return set()
    here = {description["earlier"][0]} if "earlier" in description else set[int]()
    return here.union(*map(recalled_stages, description.values()))


def _spelled(value: Any, leaf: Callable[[Any], Any]) -> Any:
    if type(value) is tuple:
        return {"tuple": [_spelled(one, leaf) for one in value]}
    record = is_record(value)
    if (type(value) in (list, dict) or (record and not is_frozen(value))) and not any(
        isinstance(one, Flow) for one in leaves_of(value)
    ):
        raise TypeError  # a block may put something into it: it has to be the model's own
    if record or is_named(value):
        return {form_of(value): [_spelled(one, leaf) for one in members_of(value)]}
    if type(value) is list:
        return {"list": [_spelled(one, leaf) for one in value]}
    if type(value) is dict:
        return {"dict": {name: _spelled(one, leaf) for name, one in value.items()}}
    return leaf(value)


def _forms(call: Call) -> set[tuple[str, type]]:
    return {(name, type(one)) for name, one in forms_in(call.before).items()}


def _recalled(value: torch.Tensor, earlier: Mapping[int, list[Any]]) -> list[int] | None:
    """Stage and place of an argument of an earlier call that is this tensor."""
    for stage, leaves in earlier.items():
        for place, one in enumerate(leaves):
            if isinstance(one, torch.Tensor) and same_argument(value, one):
                return [stage, place]
    return None
