"""Blocks side by side: each makes some of the features that are put together, from no other one."""

from math import prod

from thetaone.parametrization.reading.paths._linear import Linearity
from thetaone.parametrization.reading.program import ACTIVATION, MOVES, Axes, Operation, moved

Sides = tuple[tuple[str, ...], ...]  # the parameters that make each part and no other one


def read_side_by_side(linearity: Linearity) -> tuple[Sides, ...]:
    """Of each concatenation of features, the parameters of each part alone.

    Heads of an attention in a list of modules are such: their outputs together are one layer's.
    """
    program = linearity.program
    joined: list[Sides] = []
    for operation in linearity.live():
        if not _puts_together(linearity, operation):
            continue
        closures = [program.closure(v) for v in operation.inputs if v.kind == ACTIVATION]
        once = several = 0
        for closure in closures:
            several |= once & closure
            once |= closure
        sides = tuple(_used_in(linearity, closure & ~several) for closure in closures)
        if sum(map(bool, sides)) > 1:
            joined.append(sides)
    return tuple(joined)


def _used_in(linearity: Linearity, operations: int) -> tuple[str, ...]:
    by_operation = linearity.uses.by_operation
    uses = (use for i in by_operation if operations >> i & 1 for use in by_operation[i])
    return tuple(dict.fromkeys(use.parameter for use in uses))


def _puts_together(linearity: Linearity, operation: Operation) -> bool:
    """Whether an operation concatenates features, or stacks them for a view that does."""
    if operation.name == "cat":
        return True
    if operation.name != "stack":
        return False
    axis = int(operation.arguments.get("dim", 0)) % len(operation.output.shape)
    axes: Axes = tuple(d == axis for d in range(len(operation.output.shape)))
    value = operation.output
    while len(users := linearity.users(value)) == 1 and users[0].name in MOVES:
        axes, value = moved(users[0], axes), users[0].output
    together = prod(n for n, counts in zip(value.shape, axes, strict=True) if counts)
    return together > len(operation.inputs)
