"""Sums that one operation makes together with what it adds, as their terms."""

from collections.abc import Mapping
from typing import Any, Protocol

from thetaone.parametrization.reading.program._program import ACTIVATION, INPUT, Value

_SPLIT = ("lerp", "addcmul", "addcdiv")
_PRODUCTS = {"addmm": ("mm", "mat1", "mat2"), "baddbmm": ("bmm", "batch1", "batch2")}


class Step(Protocol):
    """Appends one operation to a program and returns its result."""

    def __call__(self, name: str, **arguments: Any) -> Value: ...


def is_fused_sum(name: str, arguments: Mapping[str, Any]) -> bool:
    """Whether an operation adds features to what it makes; a bias is no such term."""
    if name in _PRODUCTS:
        return arguments["self"].kind in (ACTIVATION, INPUT)
    return name in _SPLIT


def terms_of(name: str, arguments: Mapping[str, Any], step: Step) -> tuple[Value, Value]:
    """``x + w (y - x)``, ``x + v a b`` and ``β x + α a @ b`` as their two terms."""
    first = arguments["self"]
    if name in _PRODUCTS:
        product, one, other = _PRODUCTS[name]
        second = step(product, self=arguments[one], mat2=arguments[other])
        second = _scaled(second, arguments["alpha"], step)
        return _scaled(first, arguments["beta"], step), second
    if name == "lerp":
        weight = arguments["weight"]
        if isinstance(weight, (int, float)):
            first = step("mul", self=first, other=1.0 - weight)
            return first, step("mul", self=arguments["end"], other=float(weight))
        difference = step("sub", self=arguments["end"], other=first)
        return first, step("mul", self=difference, other=weight)
    operation = "mul" if name == "addcmul" else "div"
    second = step(operation, self=arguments["tensor1"], other=arguments["tensor2"])
    return first, _scaled(second, arguments.get("value", 1), step)


def _scaled(value: Value, number: float, step: Step) -> Value:
    return value if number == 1 else step("mul", self=value, other=float(number))
