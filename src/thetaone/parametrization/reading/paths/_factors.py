"""Numbers that a forward pass puts on features."""

from thetaone.parametrization.reading.paths._linear import Linearity
from thetaone.parametrization.reading.program import MOVES, Value, scalar


def forward_factor(linearity: Linearity, value: Value) -> tuple[float, Value]:
    """The numbers that follow a value until something else is done, and the last value."""
    factor = 1.0
    while True:
        users = linearity.users(value)
        if len(users) != 1 or linearity.program.is_output(value):
            return factor, value
        (user,) = users
        step = scalar(user, value)
        plain = user.name in MOVES or user.name in ("add", "sub") or step != 1.0
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
