"""Numbers that a forward pass puts on features."""

from math import inf, prod

from thetaone.parametrization.reading.paths._linear import HOMOGENEOUS, Linearity
from thetaone.parametrization.reading.program import MOVES, Operation, Value, scalar, summed_axes

NORMS = ("linalg_vector_norm", "norm")
ROOTS = ("sqrt", "rsqrt", "pow", "reciprocal")
DISTANCES = ("_euclidean_dist", "_cdist_forward")
_ROOT_POWERS = {"sqrt": 0.5, "rsqrt": -0.5, "reciprocal": -1.0}
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
        linearity.counted.add(user.index)
        factor, value = factor * step, user.output


def backward_factor(value: Value, counted: set[int] | None = None) -> tuple[float, Value]:
    """The numbers that a value was multiplied with last, and what they were put on.

    Args:
        value: The features.
        counted: Gets the indices of the operations that multiplied.
    """
    factor = 1.0
    counted = set() if counted is None else counted
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
            counted.add(operation.index)
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
        size = size_by_norm(operation)
        if size != 1.0:
            return size
        large = [v for v in operation.inputs if prod(v.shape) > 1]  # past a learned temperature
        if len(large) != 1 or (operation.name == "div" and operation.inputs[0] is not large[0]):
            return 1.0
        _, value = backward_factor(large[0])
    return 1.0


def size_by_norm(operation: Operation) -> float:
    """1/√n for a product, or ratio, with a norm over n features below; 1 for others."""
    for other in operation.inputs[operation.name == "div" :]:
        size = _norm_behind(other)
        if operation.name == "div" and size is not None:
            size = 1 / size
        if size is not None and size < 1.0:
            return size
    return 1.0


def _norm_behind(value: Value) -> float | None:
    """The size of what is made from a sum over n features: n, √n of a 2-norm, 1/√n below 1."""
    operation, root = value.source, 1.0
    while operation is not None and (operation.name in MOVES or operation.name in THROUGH):
        root *= _ROOT_POWERS.get(operation.name, 1.0)
        if operation.name == "pow":
            exponent = operation.arguments.get("exponent")
            root *= float(exponent) if isinstance(exponent, (int, float)) else 1.0
        operation = operation.inputs[0].source
    if operation is None or operation.name not in (*NORMS, "sum"):
        return None
    count = prod(operation.inputs[0].shape[d] for d in summed_axes(operation))
    return float(count ** (root * norm_power(operation)))


def norm_power(operation: Operation) -> float:
    """With which power of its size a reduction grows: a p-norm with 1/p, a sum with 1."""
    if operation.name not in (*NORMS, *DISTANCES):
        return 1.0
    order = operation.arguments.get("ord", operation.arguments.get("p", 2))
    order = 2 if order is None else order
    return 0.0 if order in (inf, -inf) else 1 / float(order) if order else 1.0


def size_behind_norm(value: Value, counted: set[int]) -> float | None:
    """What entries of features are worth that a norm over n of them made 1/√n; else ``None``.

    Args:
        value: The features.
        counted: Gets the indices of the operations that multiplied, where there is a norm.
    """
    factor, passed = 1.0, set[int]()
    while True:
        number, value = backward_factor(value, passed)
        factor *= number
        size = normalized_size(value)
        if size != 1.0:
            counted |= passed
            return factor * size
        if value.source is None or value.source.name not in HOMOGENEOUS:
            return None
        value = value.source.inputs[0]
