"""Numbers that a forward pass puts on features."""

from math import prod

from thetaone.parametrization.reading.paths._linear import HOMOGENEOUS, Linearity
from thetaone.parametrization.reading.program import MOVES, Operation, Value, scalar, summed_axes

NORMS = ("linalg_vector_norm", "norm")
ROOTS = ("sqrt", "rsqrt", "pow", "reciprocal")
THROUGH = ("add", "clamp", "clamp_min", "clamp_max", "maximum", *ROOTS)


def forward_factor(linearity: Linearity, value: Value) -> tuple[float, Value]:
    """The numbers that follow a value until something else is done, and the last value."""
    factor = 1.0
    while True:
        users = linearity.users(value)
        if len(users) != 1 or linearity.program.is_output(value):
            return factor, value
        (user,) = users
        step = scalar(user, value)
        own_sum = user.index in linearity.uses.summed  # the second half of a contraction
        plain = user.name in MOVES or user.name in ("add", "sub") or own_sum or step != 1.0
        if not plain or len(user.outputs) != 1:
            return factor, value
        factor, value = factor * step, user.output


def backward_factor(value: Value) -> tuple[float, Value]:
    """The numbers that a value was multiplied with last, and what they were put on."""
    factor = 1.0
    while (operation := value.source) is not None:
        source = operation.inputs[0] if operation.inputs else None
        if source is None:
            return factor, value
        if operation.name in ("mul", "div"):
            features = [v for v in operation.inputs if v.kind != "data"]
            if len(features) != 1:
                return factor, value
            step = scalar(operation, features[0])
            if step == 1.0 and len(operation.inputs) > 1:
                return factor, value
            factor, value = factor * step, features[0]
        elif operation.name in MOVES:
            value = source
        else:
            return factor, value
    return factor, value


def normalized_size(value: Value) -> float:
    """1/√n for features divided by their norm over n of them; 1 for others."""
    while (operation := value.source) is not None:
        if operation.name not in ("div", "mul") or len(operation.inputs) != 2:
            return 1.0
        for other in operation.inputs[1:]:
            norm = _norm_behind(other)
            if norm is not None:
                return prod(norm.inputs[0].shape[d] for d in summed_axes(norm)) ** -0.5
        large = [v for v in operation.inputs if prod(v.shape) > 1]  # past a learned temperature
        if len(large) != 1 or (operation.name == "div" and operation.inputs[0] is not large[0]):
            return 1.0
        _, value = backward_factor(large[0])
    return 1.0


def _norm_behind(value: Value) -> Operation | None:
    """The sum of squares that a divisor is made from."""
    operation = value.source
    while operation is not None and (operation.name in MOVES or operation.name in THROUGH):
        operation = operation.inputs[0].source
    if operation is not None and (operation.name in NORMS or operation.name == "sum"):
        return operation
    return None


def size_behind_norm(value: Value) -> float | None:
    """What entries of features are worth that a norm over n of them made 1/√n; else ``None``."""
    factor = 1.0
    while True:
        number, value = backward_factor(value)
        factor *= number
        size = normalized_size(value)
        if size != 1.0:
            return factor * size
        if value.source is None or value.source.name not in HOMOGENEOUS:
            return None
        value = value.source.inputs[0]
