"""Tensors that a penalty of the loss compares parameters with: constants, no inputs of the pass.

``Σ (p - p₀)²`` holds parameters near p₀ (L2-SP, elastic weight consolidation). A copy p₀ that a
task or a list holds looks like an input; it is told from one by where it goes: entry by entry with
parameters of its shape, into a number that is added to the loss.
"""

from collections.abc import Iterable

from thetaone.parametrization.reading.program._axes import MOVES
from thetaone.parametrization.reading.program._program import (
    ACTIVATION,
    DATA,
    INPUT,
    PARAMETER,
    Operation,
    Value,
    kind_of,
)

_ONE_BY_ONE = frozenset(
    """add sub rsub mul div pow square abs sqrt neg sign cat stack mse_loss l1_loss
    smooth_l1_loss huber_loss""".split()  # noqa: SIM905
)
_REDUCTIONS = ("sum", "mean", "linalg_vector_norm", "norm", "amax", "dot", "vdot")
_TERMS = ("add", "sub", "stack", "cat")


def settle_anchors(operations: Iterable[Operation]) -> None:
    """Make constants of the inputs that only penalties use, and weights of what they make."""
    operations = list(operations)
    leaves = {v for one in operations for v in one.inputs if v.kind == INPUT and v.source is None}
    reached: dict[Value, set[Value]] = {}
    while leaves:
        reached = {leaf: _reached(leaf) for leaf in leaves}
        anchored = set[Value]().union(*reached.values())
        wrong = {leaf for leaf in leaves if not _is_anchor(reached[leaf], anchored)}
        if not wrong:
            break
        leaves -= wrong
    settled = set(leaves)
    for leaf in leaves:
        leaf.kind = DATA
    for operation in operations if leaves else ():
        kind = kind_of(operation.inputs, random=False)
        if kind != ACTIVATION and _is_plain(operation) and not settled.isdisjoint(operation.inputs):
            settled.update(operation.outputs)
            for value in operation.outputs:
                value.kind = kind


def _reached(leaf: Value) -> set[Value]:
    """What is computed from an input, up to numbers."""
    reached, front = {leaf}, [leaf]
    while front:
        for user in _users(front.pop()):
            for value in user.outputs:
                if value not in reached:
                    reached.add(value)
                    if value.shape != ():
                        front.append(value)
    return reached


def _is_anchor(reached: set[Value], anchored: set[Value]) -> bool:
    """Whether all that is computed from an input is a penalty, in which it meets parameters."""
    users = [user for value in reached if value.shape != () for user in _users(value)]
    allowed = all(
        _is_plain(user) and all(v.kind in (PARAMETER, DATA) or v in anchored for v in user.inputs)
        for user in users
    )
    numbers = [value for value in reached if value.shape == ()]
    meets = any(v.kind == PARAMETER and v.shape in _shapes(u, v) for u in users for v in u.inputs)
    ends = all(_users(value) for value in reached)
    return allowed and meets and ends and bool(numbers) and all(map(_joins_loss, numbers))


def _is_plain(operation: Operation) -> bool:
    return operation.name in (*_ONE_BY_ONE, *_REDUCTIONS, *MOVES)


def _shapes(operation: Operation, but: Value) -> set[tuple[int, ...]]:
    """The shapes of what a value meets."""
    return {value.shape for value in operation.inputs if value is not but}


def _joins_loss(number: Value) -> bool:
    """Whether a number is a term of a sum, perhaps times others."""
    users = _users(number)
    while len(users) == 1 and users[0].name in ("mul", "div", "sqrt"):
        users = _users(users[0].output)
    return bool(users) and all(user.name in _TERMS for user in users)


def _users(value: Value) -> list[Operation]:
    """The operations that take a value; not a copy that a backward pass would keep."""
    return [
        user
        for user in value.users
        if user.name != "detach" or any(out.users for out in user.outputs)
    ]
