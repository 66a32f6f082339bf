"""What a recomputation needs to be the first execution again, and what must not have changed."""

from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from itertools import chain
from operator import attrgetter, is_not
from types import TracebackType
from typing import Any, NoReturn

import torch
from torch import nn
from torch.autograd.graph import saved_tensors_hooks
from torch.nn.modules.batchnorm import _NormBase
from torch.utils.checkpoint import CheckpointError

from thetaone.errors import RecomputationError
from thetaone.rematerialization.blocks._ambient import Ambient, ambient
from thetaone.rematerialization.blocks._calls import Call
from thetaone.rematerialization.blocks._draws import Draws, States
from thetaone.rematerialization.blocks._quiet import is_quiet, overheard
from thetaone.rematerialization.blocks._registered import (
    Copies,
    ModuleBuffers,
    Parameters,
    Registered,
    copied,
    earlier_buffers,
    earlier_parameters,
    kept_statistics,
    size_of,
)
from thetaone.rematerialization.blocks.state import (
    SMALL,
    Note,
    Watch,
    generator_state,
    restored_generators,
    same_generator_state,
    set_generator_state,
    version_of,
)

# read of many at once, in C
_BOUNDED, _BUFFERS = attrgetter("bounded"), attrgetter("_buffers")
_MODULES, _NORMALIZES = attrgetter("modules"), attrgetter("normalizes")


class Moment:
    """The moment at which a region first ran.

    While the region is recomputed, everything that its blocks can reach is what it was then: plain
    attributes, containers, closures, globals, buffers, replaced parameters, random generators,
    torch's flags and context variables; afterwards it is again what it is now. The running
    statistics of normalization layers are copies, so that they see each batch once. What cannot be
    put back (parameters, arguments and large tensors that were changed in place) is refused.

    Args:
        watches: Of the region's blocks.
        device: Where its activations are; other than the CPU it has a random state of its own.
        arguments: With what they are called.
        copies: Of buffers, shared by the regions of a chain.
        surrounding: Ambient state of the forward; None takes that of now.
        draws: Of the section that the region is part of; None takes each region by itself.
    """

    def __init__(
        self,
        watches: Sequence[Watch],
        device: torch.device,
        arguments: Call | None = None,
        copies: Copies | None = None,
        surrounding: Ambient | None = None,
        *,
        draws: Draws | None = None,
    ) -> None:
        self.watches, self.arguments = watches, arguments
        self.copies = copies or Copies()
        self.ambient = surrounding or ambient(device)
        self.draws = draws or Draws(device, self.ambient)
        self.generators: States = []  # global ones, with their states at the start
        self.notes: list[Note] = []
        self.moved = False  # whether something else changed what the blocks hold since they ran
        self.drawn: States = []  # those that blocks hold, likewise
        self.modules: list[nn.Module] = []
        self.parameters: Parameters | None = None  # of wrappers that shard none are noted
        self.moving: list[tuple[Registered, torch.Tensor]] = []  # those that blocks change
        self.buffers: list[ModuleBuffers] = []
        self.remembers = False  # whether the blocks call functions with bounded caches

    def contexts(self) -> "tuple[First, Again]":
        """Around the first execution, and around every recomputation."""
        return First(self), Again(self)

    def note(self) -> None:
        """Note the state that the region finds."""
        known = [watch.known for watch in self.watches]
        self.notes = [Note(watch.now()) for watch in self.watches]
        self.moved = any(map(is_not, known, [note.snapshot for note in self.notes]))
        self.modules = list(chain.from_iterable(map(_MODULES, self.watches)))
        self.remembers = any(map(_BOUNDED, self.watches))
        self.generators = self.draws.note()
        held = {id(one): one for watch in self.watches for one in watch.generators}
        self.drawn = [
            (one, generator_state(one))
            for one in held.values()
            if not _among(one, self.draws.generators)
        ]
        if any(map(_BUFFERS, self.modules)):
            self.buffers = [
                self._noted(module)
                for watch in self.watches
                for module in watch.modules
                if module._buffers and watch.copies(module)
            ]
        self.parameters = None if sharded() else Parameters(self.modules)
        self.moving = []
        if self.copies.moving and self.parameters is not None and self._may_move():
            self.moving = [
                (one, self.copies.of(one.parameter, compared=True))
                for one in self.parameters.named()
                if self._where(one.module, one.name) in self.copies.moving
            ]

    def _may_move(self) -> bool:
        return any(watch.reached.moves for watch in self.watches)

    def bounded(self) -> ExitStack:
        """Note functions with bounded caches; closing refuses those that changed something."""
        caches = {id(one.function): one for watch in self.watches for one in watch.bounded}
        checks = ExitStack()
        for one in caches.values():
            checks.callback(one.note())
        return checks

    def learn(self) -> None:
        """Note what the region wrote, and forget what it did not use."""
        simple = self.arguments is None or self.arguments.simple  # calls nothing of its caller's
        if overheard(self.ambient) or not (simple and all(map(is_quiet, self.watches))):
            for watch, note in zip(self.watches, self.notes, strict=True):
                note.lighten(watch.now(), self.copies.moving)
            self._find_buffers()
        if self.drawn and not any(watch.reached.rewinds for watch in self.watches):
            self.drawn = [
                (one, old)
                for one, old in self.drawn
                if not same_generator_state(old, generator_state(one))
            ]
        if self.parameters is not None and self._may_move():
            apart = [one for one, _ in self.moving]
            if (changed := self.parameters.changed(apart)) is not None:
                self.copies.moving.add(self._where(changed[0].module, changed[0].name))
        for one in self.buffers:
            for name, tensor in one.tensors.items():
                if tensor is not None and name not in one.values and one.moved(name):
                    self.copies.moving.add(self._where(one.module, name))
                    if version_of(tensor) == one.versions[name]:
                        one.values[name] = tensor  # replaced, not changed in place

    def _find_buffers(self) -> None:
        """Note modules that had no buffers before."""
        noted = {id(one.module) for one in self.buffers}
        for module in self.modules:
            if module._buffers and id(module) not in noted and not isinstance(module, _NormBase):
                self.buffers.append(ModuleBuffers(module, {}, {}, {}))

    def require_unchanged(self) -> None:
        """Refuse to recompute with parameters, arguments or buffers that were changed in place.

        Raises:
            RecomputationError: What changed, by name.
        """
        if self.parameters is not None:
            if (changed := self.parameters.changed(one for one, _ in self.moving)) is not None:
                one, how = changed
                self._refuse(one.module, one.name, how)
            for one in self.buffers:
                for name, tensor in one.tensors.items():
                    if name in one.values or tensor is None:
                        continue
                    if version_of(tensor) != one.versions[name]:
                        self._refuse(one.module, name, "is a large buffer and was changed")
        if self.arguments is not None and self.arguments.changed:
            raise RecomputationError(
                f"an argument of {self.watches[0].name} was changed in place between the "
                "forward and the backward: pass a copy, or change it after the backward"
            )

    @property
    def where(self) -> str:
        """The region's blocks, for messages."""
        first, last = self.watches[0].name, self.watches[-1].name
        return first if first == last else f"{first} … {last}"

    def _noted(self, module: nn.Module) -> ModuleBuffers:
        tensors, moving = dict(module._buffers), self.copies.moving
        versions = {name: version_of(one) for name, one in tensors.items() if one is not None}
        values: dict[str, torch.Tensor] = {}
        for name, one in tensors.items():
            moves = bool(moving) and self._where(module, name) in moving
            if one is None or not (moves or size_of(one) <= SMALL):
                continue
            # normalization changes its statistics without a trace: those are no one else's
            untraced = isinstance(module, _NormBase)
            values[name] = one.detach().clone() if untraced else self.copies.of(one, compared=moves)
        return ModuleBuffers(module, tensors, versions, values)

    def _where(self, module: nn.Module, name: str) -> str:
        return next(
            (
                ".".join(filter(None, (watch.name, inner, name)))
                for watch in self.watches
                for inner, one in watch.block.named_modules()
                if one is module
            ),
            name,
        )

    def _refuse(self, module: nn.Module, name: str, how: str) -> NoReturn:
        raise RecomputationError(
            f"{self._where(module, name)} {how} between the forward and the backward, which would "
            "recompute with what it is now: finish the backward first, or keep this block's tape"
        )


class First:
    """Notes the state before the first execution, and what it changed after it.

    Inside, errors of torch's checkpoint that a backward will raise are given a type and a reason.
    """

    def __init__(self, moment: Moment) -> None:
        self.moment = moment
        self.hooks: saved_tensors_hooks | None = None
        self.checks: ExitStack | None = None

    def __enter__(self) -> None:
        self.moment.note()
        if self.moment.remembers:
            self.checks = self.moment.bounded()
        self.hooks = _typed_hooks(self.moment)
        self.hooks.__enter__()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        hooks, self.hooks = self.hooks, None
        if hooks is not None:
            hooks.__exit__(kind, error, trace)
        self.moment.learn()
        if kind is None and self.checks is not None:
            self.checks.close()


class Again:
    """Restores the state; may be entered once for every backward (``retain_graph``)."""

    def __init__(self, moment: Moment) -> None:
        self.moment = moment
        self.open: list[ExitStack] = []

    def __enter__(self) -> None:
        self.moment.require_unchanged()
        stack = ExitStack()
        try:
            self._restore(stack)
        except BaseException:
            stack.close()
            raise
        if self.moment.remembers:
            stack.enter_context(self.moment.bounded())
        self.open.append(stack)

    def _restore(self, stack: ExitStack) -> None:
        moment = self.moment
        for watch, note in zip(moment.watches, moment.notes, strict=True):
            if not watch.is_as_noted(note):
                stack.enter_context(watch.as_noted(note))
        if moment.parameters is not None and (replaced := moment.parameters.replaced()):
            stack.enter_context(earlier_parameters(replaced))
        if moment.moving:
            copies = [copied(one, value) for one, value in moment.moving]
            stack.enter_context(earlier_parameters(copies))
        if moment.buffers:
            stack.enter_context(earlier_buffers(moment.buffers, moment.copies))
        if any(map(_NORMALIZES, moment.watches)):
            stack.enter_context(kept_statistics(moment.modules))
        if generators := [*moment.generators, *moment.drawn]:
            stack.enter_context(restored_generators(one for one, _ in generators))
            for generator, state in generators:
                set_generator_state(generator, state)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.open.pop().close()


_IN_PLACE = "has been modified by an inplace operation"  # of torch's, of an input that it saved


def _among(value: Any, others: Iterable[Any]) -> bool:
    return any(value is one for one in others)


def sharded() -> bool:
    """Whether wrappers may move parameters about between forward and backward, as FSDP does."""
    return torch.distributed.is_available() and torch.distributed.is_initialized()


def _typed_hooks(moment: Moment) -> saved_tensors_hooks:
    """The hooks that torch's checkpoint has just installed, with errors of this library.

    They save nothing else and in no other order.
    """
    pack, unpack = torch._C._autograd._top_saved_tensors_default_hooks(True)  # pyright: ignore

    def typed(packed: Any) -> torch.Tensor:
        try:
            return unpack(packed)
        except RuntimeError as error:
            if _IN_PLACE in str(error):
                raise RecomputationError(
                    f"what flows into {moment.where} was changed in place between the forward and "
                    "the backward (x += …, a buffer that is filled again), and nothing can be "
                    "recomputed from it: write x = x + …, pass a copy, or keep this block's tape"
                ) from error
            if not isinstance(error, CheckpointError):
                raise
            reason = str(error).partition("Tip:")[0].replace("torch.utils.checkpoint: ", "")
            raise RecomputationError(
                f"the recomputation of {moment.where} does not do what its forward did: "
                f"{reason.strip()} "
                "Something that the blocks read and that cannot be watched (a file, the clock, "
                "state inside an extension) changed in between: leave these blocks out with "
                "blocks=…, or keep their tapes"
            ) from error

    return saved_tensors_hooks(pack, typed)
