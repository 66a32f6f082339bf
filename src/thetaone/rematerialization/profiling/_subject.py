"""A block as its model calls it, ready to be run again and measured."""

import random
import weakref
from collections import Counter
from collections.abc import Hashable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import Context, copy_context
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import Any

import numpy as np
import torch
from torch import nn

from thetaone._contents import dense_parts
from thetaone.rematerialization.accounting import key, storage_bytes
from thetaone.rematerialization.blocks import Call, Note, Snapshot, Watch, label, output_tensors
from thetaone.rematerialization.profiling._isolation import untouched
from thetaone.rematerialization.profiling._kinds import kind_of


@dataclass(frozen=True)
class ExtraGradient:
    """An extra argument that needs a gradient, which is summed over the blocks that use it.

    Attributes:
        tensor: Identifies it.
        origin: The call that returned it; -1 comes from outside the chain.
        size: Of its gradient [bytes].
    """

    tensor: int
    origin: int
    size: int


@dataclass(frozen=True)
class Subject:
    """A block as its model calls it.

    Attributes:
        name: Qualified name.
        kind: Equal for blocks that cost the same.
        block: The module.
        run_block: What to call; the module itself, or its own forward when it is specialized.
        flowing: What flows in; detached, same requires_grad as in the model.
        call: The other arguments.
        watch: What the block can reach.
        state: Of that, as the model calls it.
        context: Context variables as the model calls it.
        extra: Its extra arguments that need a gradient.
        joint: Why no region may span this block and the one before; empty when one may.
        link: How the call follows from the one before, as ``blocks.link`` writes it.
        arrives: Bytes of what flows in and was not returned by the block before.
        held: Bytes of extra arguments that its model lets go of; a region keeps them.
        seed: Of the random numbers that it draws while it is measured; None are the model's.
    """

    name: str
    kind: Hashable
    block: nn.Module
    run_block: Any
    flowing: tuple[torch.Tensor, ...]
    call: Call
    watch: Watch
    state: Snapshot
    context: Context = field(default_factory=copy_context)
    extra: tuple[ExtraGradient, ...] = ()
    joint: str = ""
    link: str = ""
    arrives: int = 0
    held: int = 0
    seed: int | None = None

    @property
    def where(self) -> str:
        """Name and type, for messages."""
        return label(self.block, self.name)

    @property
    def device(self) -> torch.device:
        """Where its activations are."""
        return self.flowing[0].device

    @contextmanager
    def as_called(self) -> Iterator[None]:
        """Give the block the state in which the model calls it; all is as it was on exit."""
        noted = self.watch.as_noted(Note(self.state).copied())
        with untouched([self.watch], [self.device]), noted:
            if self.seed is not None:
                seed_all(self.seed)
            yield

    def run(self) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        """Run forward from fresh leaves; the leaves and the tensors that come out."""
        leaves = [one.detach().requires_grad_(one.requires_grad) for one in self.flowing]
        return leaves, output_tensors(self.run_on(leaves), where=self.where)

    def run_on(self, leaves: list[torch.Tensor]) -> Any:
        """What the block returns for these leaves, run as the model calls it.

        Every run finds its lists and dicts, and the context variables, as the first one did.
        """
        return self.context.copy().run(self.call.again().run, self.run_block, leaves)


def seed_all(seed: int) -> None:
    """Seed the global generators of torch, Python and NumPy."""
    torch.manual_seed(seed)
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002  what a model may draw from


def outside_gradients(call: Call) -> tuple[ExtraGradient, ...]:
    """The extra arguments of a call that need a gradient, all taken to come from outside."""
    return tuple(
        ExtraGradient(id(one), -1, storage_bytes([one]))
        for one in call.tensors
        if one.requires_grad
    )


def subject_of(
    kinds: dict[Hashable, Subject],
    name: str,
    run_block: Any,
    flowing: tuple[torch.Tensor, ...],
    call: Call,
    watch: Watch,
) -> Subject:
    """A block with its call; blocks of one kind share one input, so that few are held."""
    kind = kind_of(watch.block, flowing, call.before)
    if kind not in kinds:
        leaves = tuple(one.detach().requires_grad_(one.requires_grad) for one in flowing)
        kinds[kind] = Subject(
            name, kind, watch.block, run_block, leaves, call.detached(), watch, watch.now()
        )
    return replace(
        kinds[kind],
        name=name,
        block=watch.block,
        run_block=run_block,
        watch=watch,
        state=watch.now(),
        context=copy_context(),
    )


class ExtraArguments:
    """The storages of extra arguments that no block returned, in one forward."""

    def __init__(self) -> None:
        self.storages: list[tuple[int, weakref.ref[Any], int]] = []  # with the call and the bytes

    def note(self, stage: int, tensors: Iterable[torch.Tensor]) -> None:
        """Note those of a call that no call before it had."""
        noted = {id(ref()) for _, ref, _ in self.storages}
        for part in chain.from_iterable(map(dense_parts, tensors)):
            storage = part.untyped_storage()
            if id(storage) not in noted:
                noted.add(id(storage))
                self.storages.append((stage, weakref.ref(storage), storage.nbytes()))

    def held(self, subjects: Sequence[Subject]) -> Counter[int]:
        """Bytes of those that the model let go of, by call: a region keeps them.

        A storage that none but the subjects' own tensors use is one of these.
        """
        tensors = {id(one): one for each in subjects for one in (*each.call.tensors, *each.flowing)}
        uses = Counter(map(key, chain.from_iterable(map(dense_parts, tensors.values()))))
        held = Counter[int]()
        for stage, ref, size in self.storages:
            storage = ref()
            if storage is None or (
                torch._C._storage_Use_Count(storage._cdata) == uses[storage._cdata] + 1  # itself
            ):
                held[stage] += size
        return held
