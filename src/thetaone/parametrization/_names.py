"""Names across depths: which numbers count blocks of a stack, and what a block is called. No torch.

A stack is a numbered container that holds another number of blocks in the target than in the base.
A name's place has ``*`` for the number of a block of such a stack: it is the same at every depth.
"""

import re
from collections import defaultdict
from collections.abc import Iterable

from thetaone.records import Blueprint

Parts = tuple[str, ...]

_SCALED = re.compile(r"parametrizations\.(\w+)\.original(?!\d)")  # one tensor, parametrized
_WRAPPERS = ("_orig_mod.", "_fsdp_wrapped_module.", "_checkpoint_wrapped_module.")


def canonical(name: str) -> str:
    """A parameter's name without what DDP, FSDP, ``torch.compile`` and parametrizations add.

    Examples:
        >>> canonical("module._orig_mod.layers.0.weight")
        'layers.0.weight'
    """
    for wrapper in _WRAPPERS:
        if wrapper in name:
            name = name.replace(wrapper, "")
    if "parametrizations." in name:
        name = _SCALED.sub(r"\1", name)
    return name.removeprefix("module.")


def canonical_module(name: str) -> str:
    """A module's name, likewise.

    Examples:
        >>> canonical_module("module._orig_mod.layers.0"), canonical_module("module")
        ('layers.0', '')
    """
    return canonical(name + ".")[:-1]


def wildcard(name: str) -> str:
    """A name with every number replaced: a glob pattern of all its likes.

    Examples:
        >>> wildcard("layers.3.mlp.weight")
        'layers.*.mlp.weight'
    """
    return ".".join("*" if part.isdigit() else part for part in name.split("."))


def read_stacks(target: Blueprint, base: Blueprint) -> frozenset[str]:
    """The places of the containers whose blocks differ in number."""
    ours, theirs = ([site.name for site in blueprint.sites] for blueprint in (target, base))
    return stacks_of(ours, theirs)


def stacks_of(target: Iterable[str], base: Iterable[str]) -> frozenset[str]:
    """The same from the names of two models' parameters.

    Examples:
        >>> sorted(stacks_of(["layers.0.w", "layers.1.w"], ["layers.0.w"]))
        ['layers']
    """
    places: set[str] = set()
    ours, theirs = ([tuple(name.split(".")) for name in names] for names in (target, base))
    _walk((), ours, theirs, places)
    return frozenset(places)


def place(name: str, stacks: frozenset[str]) -> str:
    """A name with ``*`` for the numbers that count blocks of a stack.

    Examples:
        >>> place("decoder.3.layer.1.weight", frozenset({"decoder"}))
        'decoder.*.layer.1.weight'
    """
    if not stacks:
        return name
    parts: list[str] = []
    for part in name.split("."):
        counts = part.isdigit() and ".".join(parts) in stacks
        parts.append("*" if counts else part)
    return ".".join(parts)


def numbers_in(name: str, stack: str, stacks: frozenset[str]) -> tuple[str, str] | None:
    """The container of a stack that a name lies in, and its number there; ``None`` for neither.

    Examples:
        >>> numbers_in("layers.2.heads.3.w", "layers.2.heads", frozenset({"layers.2.heads"}))
        ('layers.2.heads', '3')
    """
    parts = name.split(".")
    for i, part in enumerate(parts):
        container = ".".join(parts[:i])
        if part.isdigit() and place(container, stacks) == stack:
            return container, part
    return None


def block(name: str) -> str:
    """The first numbered block a name lies in; the name itself when it lies in none.

    Examples:
        >>> block("decoder.block.3.layer.0.weight")
        'decoder.block.3'
    """
    parts = name.split(".")
    first = next((i for i, part in enumerate(parts) if part.isdigit()), len(parts) - 1)
    return ".".join(parts[: first + 1])


def _walk(prefix: Parts, target: list[Parts], base: list[Parts], grown: set[str]) -> None:
    numbers = [{parts[0] for parts in side if parts[0].isdigit()} for side in (target, base)]
    stacked = numbers[0] != numbers[1] and all(numbers)
    if stacked:
        grown.add(".".join(prefix))
    ours, theirs = (_children(side, stacked) for side in (target, base))
    for key in ours.keys() & theirs.keys():
        if ours[key] and theirs[key]:
            _walk((*prefix, key), ours[key], theirs[key], grown)


def _children(names: Iterable[Parts], stacked: bool) -> dict[str, list[Parts]]:
    children: dict[str, list[Parts]] = defaultdict(list)
    for first, *rest in names:
        key = "*" if stacked and first.isdigit() else first
        if rest:
            children[key].append(tuple(rest))
    return children
