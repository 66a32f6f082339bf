"""Watches the state that a block can reach: notes it, sees changes at a glance, puts it back.

A glance compares the contents of all holders by identity, in C, with those of the last note; only
where something differs is anything copied. What is changed in place, tensors and arrays, is seen by
its version or its bytes.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from operator import is_
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _NormBase

from thetaone.errors import RecomputationError
from thetaone.rematerialization.blocks.state._holders import Glance, Holder
from thetaone.rematerialization.blocks.state._in_place import (
    ARRAYS,
    InPlace,
    changeable,
    cloned,
    fill,
    version_of,
    with_leaves,
)
from thetaone.rematerialization.blocks.state._overwritten import Faded, earlier, light
from thetaone.rematerialization.blocks.state._reachable import reachable
from thetaone.rematerialization.blocks.state._reached import Reached, is_shallow

Contents = dict[Any, Any]
STATISTICS = ("running_mean", "running_var", "num_batches_tracked")


class Snapshot:
    """The state of all holders at one moment; shared by all who note it while it lasts."""

    __slots__ = ("contents", "holders", "in_place", "values")

    def __init__(
        self, holders: list[Holder], values: list[Any], before: "Snapshot | None" = None
    ) -> None:
        self.holders, self.values = holders, values
        self.contents: list[Contents] = [holder.contents() for holder in holders]
        known = {id(one.value): one for one in before.in_place} if before else {}
        noted: dict[int, InPlace] = {}
        for holder, contents in zip(holders, self.contents, strict=True):
            for name, held in contents.items():
                for value in changeable(held):
                    same = noted.get(id(value)) or known.get(id(value))
                    if same is None or same.value is not value or same.changed:
                        same = InPlace(value, _path(holder, name))
                    noted[id(value)] = same
        self.in_place = list(noted.values())

    def holds(self, values: list[Any] | None) -> bool:
        """Whether values of now are still those."""
        return (
            values is not None
            and len(values) == len(self.values)
            and all(map(is_, values, self.values))
            and not any(one.changed for one in self.in_place)
        )

    def write(self) -> None:
        """Put every holder back that differs."""
        _write(self.holders, self.contents)

    def changes(self) -> list[str]:
        """Paths of what is not as it was."""
        paths: list[str] = []
        for holder, contents in zip(self.holders, self.contents, strict=True):
            now = holder.contents()
            paths += [
                _path(holder, name)
                for name in {**contents, **now}
                if now.get(name, now) is not contents.get(name, contents)
            ]
        return paths + [one.path for one in self.in_place if one.changed]


class Note:
    """What one execution found: a snapshot, made light once it is known what the execution wrote.

    What it overwrote is kept without its graph, and only by a weak reference if it is large: a
    tensor kept on a block would keep the tape of the step before.
    """

    __slots__ = ("contents", "holders", "in_place", "snapshot")

    def __init__(self, snapshot: Snapshot) -> None:
        self.snapshot: Snapshot | None = snapshot
        self.holders, self.contents = snapshot.holders, snapshot.contents
        self.in_place = snapshot.in_place

    def copied(self) -> "Note":
        """The same without large tensors, which stay as they are when it is put back."""
        self.in_place = [one for one in self.in_place if one.copy is not None]
        return self

    def lighten(self, after: Snapshot, keep: set[str]) -> None:
        """Let go of what the execution overwrote; ``keep`` names large tensors that it reads."""
        if after is self.snapshot:
            return
        self.snapshot, contents = None, list[Contents]()
        records = {id(one.value): one for one in self.in_place}
        dropped: set[int] = set()
        for holder, before in zip(self.holders, self.contents, strict=True):
            now = holder.contents()
            gone = {name: one for name, one in before.items() if now.get(name, now) is not one}
            for name, value in gone.items():
                path = _path(holder, name)

                def leaf(one: Any, path: str = path) -> Any:
                    if not isinstance(one, torch.Tensor):
                        return one
                    dropped.add(id(one))
                    return light(one, path, records[id(one)], keep)

                gone[name] = with_leaves(value, leaf)
            contents.append({**before, **gone} if gone else before)
        self.contents = contents
        self.in_place = [one for one in self.in_place if id(one.value) not in dropped]

    def forget(self) -> list[str]:
        """Let go of large tensors that were overwritten; their paths."""
        paths: list[str] = []

        def leaf(one: Any) -> Any:
            if isinstance(one, Faded) and one.forget():
                paths.append(one.path)
            return one

        for contents in self.contents:
            for value in contents.values():
                with_leaves(value, leaf)
        return paths

    def replayed(self) -> tuple[list[Contents], list[tuple[Any, Any]]]:
        """Contents for a recomputation, and arrays with what to fill them with.

        Raises:
            RecomputationError: A large tensor was changed in place.
        """
        fresh: dict[int, Any] = {}
        arrays: list[tuple[Any, Any]] = []
        for one in self.in_place:
            if not one.changed:
                continue
            if isinstance(one.value, ARRAYS):
                arrays.append((one.value, one.copy))
            elif one.copy is None:
                raise RecomputationError(
                    f"{one.path} is large and was changed in place between the forward and the "
                    "backward, which would recompute with what it is now: register it as a buffer"
                )
            else:
                fresh[id(one.value)] = one.copy.clone()
        contents = [
            {name: earlier(value, fresh) for name, value in before.items()}
            for before in self.contents
        ]
        return contents, arrays


class Bounded:
    """A function with a cache of a bounded size, which nobody can fill again as it was.

    It may compute in a recomputation what it remembered in the forward, or the other way round. All
    is well if what it computes changes nothing.
    """

    def __init__(self, function: Any) -> None:
        self.function = function
        self.holders = reachable(function.__qualname__, function.__wrapped__).holders

    def note(self) -> Callable[[], None]:
        """Note how often it has computed and what its code names; what refuses a change since."""
        misses = self.function.cache_info().misses
        return partial(self._require_nothing_changed, misses, Snapshot(self.holders, []))

    def _require_nothing_changed(self, misses: int, before: Snapshot) -> None:
        """Refuse a function that has computed since, and changed something.

        Raises:
            RecomputationError: It has.
        """
        if self.function.cache_info().misses == misses or not (changed := before.changes()):
            return
        size = self.function.cache_parameters()["maxsize"]
        raise RecomputationError(
            f"{self.function.__qualname__} remembers its last results, lru_cache(maxsize={size}), "
            f"and changes {changed[0]} whenever it computes one: a recomputation cannot make it "
            "compute exactly when the forward did. Use functools.cache, which is put back as it "
            "was, or let it change nothing"
        )


class Watch:
    """Watches what one block can reach.

    Args:
        name: Qualified name of the block.
        block: The module.

    Attributes:
        quiet: Whether its forward can change nothing that is watched; None if nobody has asked.
    """

    def __init__(self, name: str, block: nn.Module) -> None:
        self.name, self.block = name, block
        self._search()

    def _search(self) -> None:
        self.reached: Reached = reachable(self.name, self.block)
        self.generators = self.reached.generators
        self.modules = list(self.block.modules())
        self.normalizes = any(isinstance(one, _NormBase) for one in self.modules)
        caches = [one for one in self.reached.caches if one.cache_parameters()["maxsize"]]
        self.bounded = [Bounded(one) for one in caches]
        self.glance = Glance(self.reached.holders)
        self.quiet: bool | None = None
        values = self.glance.values()
        assert values is not None
        self.known = Snapshot(self.reached.holders, values)

    def copies(self, module: nn.Module) -> bool:
        """Whether a region notes the buffers of a module.

        A normalization layer that trains does not compute with its statistics, unless code does.
        """
        trains = isinstance(module, _NormBase) and module.training
        return not trains or not self.reached.names.isdisjoint(STATISTICS)

    def buffers(self) -> list[tuple[str, nn.Module, str, torch.Tensor, int]]:
        """Every buffer: qualified name, module, its own name, tensor, version."""
        return [
            (".".join(filter(None, (self.name, inner, name))), module, name, one, version_of(one))
            for inner, module in self.block.named_modules()
            for name, one in module._buffers.items()
            if one is not None
        ]

    def require_readable(self, error: type[Exception]) -> None:
        """Refuse a block whose state cannot be noted.

        Raises:
            Exception: Of the given type; what it is, by path.
        """
        for path, what in self.reached.refused.items():
            raise error(
                f"{self.name} cannot be recomputed as it was: {path} is {what}. Take it out of the "
                "block, or leave the block out with blocks=…"
            )

    def now(self) -> Snapshot:
        """The state of this moment; the last snapshot where nothing changed."""
        values = self.glance.values()
        if self.known.holds(values):
            return self.known
        if values and self.glance.lengths(values) != self.glance.lengths(self.known.values):
            self.glance = Glance(self.reached.holders)  # it reads attributes by their names
            values = self.glance.values()
        if values is None or self._deeper(values):
            self._search()
        else:
            self.known, self.quiet = Snapshot(self.reached.holders, values, self.known), None
        return self.known

    def _deeper(self, values: list[Any]) -> bool:
        """Whether something new holds state of its own."""
        known = set(map(id, self.known.values))
        return any(id(value) not in known and not is_shallow(value) for value in values)

    def is_as_noted(self, note: Note) -> bool:
        """Whether the state is the noted one, and the execution that noted it wrote nothing.

        Then a recomputation writes nothing either.
        """
        return self.now() is note.snapshot

    @contextmanager
    def as_noted(self, note: Note) -> Iterator[None]:
        """Restore the noted state inside, and that of now on exit."""
        now = self.now()
        here = now if now.holders is note.holders else None
        others = None if here else Snapshot(note.holders, [])
        if now is not note.snapshot:
            contents, arrays = note.replayed()
            filled = [(array, cloned(array)) for array, _ in arrays]
            _write(note.holders, contents)
            for array, before in arrays:
                fill(array, before)
        else:
            filled = []
        try:
            yield
        finally:
            if others is not None:
                others.write()
            if not now.holds(Glance(now.holders).values() if others else self.glance.values()):
                now.write()
            for array, value in filled:
                fill(array, value)

    @contextmanager
    def restored(self) -> Iterator[None]:
        """Restore the state of now on exit, with the contents of every tensor and array."""
        before = self.now()
        contents = [
            (one, None if isinstance(one.value, nn.Parameter) else cloned(one.value))
            for one in before.in_place
        ]
        empty = [one for one in self.reached.caches if not one.cache_info().currsize]
        try:
            yield
        finally:
            before.write()
            for one in empty:
                one.cache_clear()
            for one, value in contents:
                if not one.changed or value is None:
                    continue
                if isinstance(one.value, ARRAYS):
                    fill(one.value, value)
                else:
                    one.value.data.copy_(value)

    def left_since(self, before: Snapshot) -> list[torch.Tensor]:
        """Tensors with a graph that an execution left on the block, to be used by others."""
        known = {id(one.value) for one in before.in_place}
        left = [one.value for one in self.now().in_place if id(one.value) not in known]
        return [one for one in left if isinstance(one, torch.Tensor) and one.grad_fn is not None]


def _write(holders: list[Holder], contents: list[Contents]) -> None:
    for holder, noted in zip(holders, contents, strict=True):
        current = holder.contents()
        if len(current) != len(noted) or not (
            all(map(is_, current.values(), noted.values())) and all(map(is_, current, noted))
        ):
            holder.restore(noted)


def _path(holder: Holder, name: Any) -> str:
    if name == "":
        return holder.path
    return f"{holder.path}.{name}" if isinstance(name, str) else f"{holder.path}[{name!r}]"
