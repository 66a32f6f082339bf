"""Whether a block can be run again, and what it writes and draws when it is."""

import warnings
from collections.abc import Iterable
from dataclasses import dataclass, replace

import torch
from torch import nn
from torch.nn.modules.batchnorm import _NormBase

from thetaone.errors import ProfileError, RecomputationError
from thetaone.rematerialization.accounting import key
from thetaone.rematerialization.blocks import (
    SMALL,
    Note,
    differs,
    generator_state,
    global_generators,
    restored_generators,
    same_generator_state,
    sharded,
    size_of,
    version_of,
)
from thetaone.rematerialization.profiling._isolation import dropped_tapes
from thetaone.rematerialization.profiling._subject import Subject

_PYTHON_STATE = 5_000  # bytes of the state of a Mersenne twister, the largest of them
VIEWS = (nn.Flatten, nn.Unflatten)  # hand on their input's storage
TRIES = 12  # draws of random numbers for a block that is left out at random


@dataclass(frozen=True)
class Repeated:
    """What is known of a block that was run twice.

    Attributes:
        random_bytes: Random state that a region keeps for it [bytes].
        moving: Names of large buffers that it changes, of all that it changes without a trace, and
            of large tensors kept in attributes that it reads before it overwrites them.
        handed_on: Whether it drew random numbers and returned its very input.
    """

    random_bytes: int
    moving: tuple[str, ...]
    handed_on: bool = False


def at_work(subject: Subject) -> tuple[Subject, Repeated]:
    """A block that can be run again, with a draw in which it is not left out at random."""
    repeated = check_repeatable(subject)
    for seed in range(TRIES):
        if not repeated.handed_on:
            break
        subject = replace(subject, seed=seed)
        repeated = check_repeatable(subject)
    return subject, repeated


def check_repeatable(subject: Subject) -> Repeated:
    """Run a block twice to see that it can be run again.

    Raises:
        ProfileError: It changes its input, hands it on as a view, holds a state that cannot be
            noted, or gives another result the second time.
    """
    subject.watch.require_readable(ProfileError)
    device = subject.device
    generators = [*global_generators(device), *subject.watch.generators]
    with subject.as_called():
        _check_in_place(subject)
    with subject.as_called(), dropped_tapes():
        states = [generator_state(one) for one in generators]
        buffers = subject.watch.buffers()
        contents = {name: one.detach().clone() for name, _, _, one, _ in buffers}
        weights = _weights(subject)
        note = Note(subject.watch.now())
        first = [one.detach().clone() for one in subject.run()[1]]
        drawn = [
            state
            for one, state in zip(generators, states, strict=True)
            if subject.watch.reached.rewinds
            or not same_generator_state(state, generator_state(one))
        ]
        moving = tuple(
            name
            for name, module, inner, tensor, version in buffers
            if _changed_untraced(module, tensor, version, contents[name])
            or (
                size_of(tensor) > SMALL
                and (module._buffers.get(inner) is not tensor or version_of(tensor) != version)
            )
        )
        moving += tuple(
            name
            for name, (one, before, version) in weights.items()
            if version_of(one) != version or differs(before, one)
        )
        note.lighten(subject.watch.now(), set())
    with subject.as_called(), dropped_tapes():
        leaves, second, read = _run_again(subject, note)
    for one in second:
        views = any(key(one) == key(leaf) and one is not leaf for leaf in leaves)
        if views and not isinstance(subject.block, VIEWS):
            raise ProfileError(
                f"{subject.where} returns a view of its input: keeping its output would keep its "
                "input alive; join it with a neighbour, or return a new tensor"
            )
    if len(first) != len(second) or not all(map(_equal, first, second)):
        raise ProfileError(
            f"{subject.where} is not deterministic: run twice from the same input and random state "
            "it gives two results, so it cannot be recomputed; draw from generators that it holds "
            "or from the global ones, and see torch.use_deterministic_algorithms"
        )
    size = sum(one.nbytes if isinstance(one, torch.Tensor) else _PYTHON_STATE for one in drawn)
    handed_on = bool(drawn) and len(second) == 1 and any(second[0] is leaf for leaf in leaves)
    return Repeated(size, (*moving, *read), handed_on)


def _weights(subject: Subject) -> dict[str, tuple[nn.Parameter, torch.Tensor, int]]:
    """Parameters that a forward may change, by name, with copies and versions."""
    if not subject.watch.reached.moves or sharded():
        return {}
    parameters = subject.block.named_parameters(subject.watch.name, remove_duplicate=False)
    return {name: (one, one.detach().clone(), version_of(one)) for name, one in parameters}


def _run_again(
    subject: Subject, note: Note
) -> tuple[list[torch.Tensor], list[torch.Tensor], list[str]]:
    """Leaves and outputs of the second run, and which large tensors on the block it reads.

    It runs without those that the first run overwrote; a block that misses them gets them back.
    """
    generators = [*global_generators(subject.device), *subject.watch.generators]
    overwritten = note.forget()
    try:
        with restored_generators(generators), subject.watch.as_noted(note):
            leaves, outputs = subject.run()
            return leaves, outputs, []
    except RecomputationError:
        leaves, outputs = subject.run()
        return leaves, outputs, overwritten


def _changed_untraced(
    module: nn.Module, buffer: torch.Tensor, version: int, before: torch.Tensor
) -> bool:
    """Whether a buffer was changed through ``.data`` or a NumPy view, which moves no version.

    The statistics of a normalization layer are, and are looked after by their class.
    """
    if isinstance(module, _NormBase) or version_of(buffer) != version:
        return False
    return differs(before, buffer)


def _equal(first: torch.Tensor, second: torch.Tensor) -> bool:
    if first.is_floating_point() or first.is_complex():
        return torch.equal(first.nan_to_num(), second.detach().nan_to_num())
    return torch.equal(first, second)


def copied_bytes(subject: Subject, moving: Iterable[str]) -> int:
    """Bytes of the buffers and plain tensors of a block that a region copies."""
    changing = set(moving)
    buffers = sum(
        tensor.nbytes
        for name, module, _, tensor, _ in subject.watch.buffers()
        if subject.watch.copies(module) and (size_of(tensor) <= SMALL or name in changing)
    )
    weights = subject.block.named_parameters(subject.watch.name)
    buffers += sum(one.nbytes for name, one in weights if name in changing)
    return buffers + sum(
        one.nbytes
        for one in subject.watch.now().in_place
        if one.copy is not None or one.path in changing
    )


def _check_in_place(subject: Subject) -> None:
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a block that checkpoints itself misses its gradients here
        probes = [one.detach().clone() for one in subject.flowing]
        subject.run_on(probes)
    if any(probe._version for probe in probes):
        raise ProfileError(
            f"{subject.where} changes its input in place, which could then not be recomputed from: "
            "build it without inplace=True, or join it with the block before it"
        )
