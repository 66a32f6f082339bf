"""The likely cause of each failing row, and what to do about it. No torch."""

from collections.abc import Sequence
from dataclasses import dataclass

from thetaone.parametrization.rules import INPUT, OUTPUT, VECTOR
from thetaone.records import (
    ALIGNMENT,
    CLIPPING,
    DECAY,
    DEPTH,
    FEATURE_SIZE,
    FEATURE_UPDATE,
    OWN_UPDATE,
    UPDATE_NORM,
    WEIGHT_NORM,
    PowerLaw,
)

Key = tuple[str, str, int]  # layer, quantity, step
_OF_WEIGHTS = (WEIGHT_NORM, UPDATE_NORM, DECAY)


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """A failing row: its key, its law (``None``: zero or not finite), the role of its layer."""

    key: Key
    law: PowerLaw | None
    role: str


class Places:
    """Where rows stand in the order of execution.

    A layer's weights stand at its first call. Features, of all its calls together, stand at its
    last: what lies between two calls may have changed them, and they need not have changed it.

    Args:
        order: Layers in order of execution; one that is called again, at its last call too.
    """

    def __init__(self, order: Sequence[str]) -> None:
        self._last = {layer: place for place, layer in enumerate(order)}
        self._first = {layer: place for place, layer in reversed([*enumerate(order)])}
        self._end = len(order)

    def of(self, key: Key) -> int:
        """The place of a row; behind all others where its layer has none."""
        layer, quantity, _ = key
        places = self._first if quantity in _OF_WEIGHTS else self._last
        return places.get(layer, self._end)


def likely_cause(key: Key, faults: Sequence[Fault], places: Places, axis: str, label: str) -> str:
    """What most often lies behind a failure.

    A weight's own fault is named from its kind. Features inherit: from their own layer's weights,
    else from the first fault in order of execution, never from what comes after them.

    Args:
        key: The failing row.
        faults: All failing rows, in order of execution.
        places: Of rows in that order.
        axis: What grows.
        label: Parametrization judged; ``mup`` is not advised to whoever uses it.
    """
    layer, quantity, step = key
    fault = next(one for one in faults if one.key == key)
    if fault.law is None:
        return (
            "values are zero or not finite: the layer is dead or training diverged. "
            "Lower the learning rate, or look for an unused layer"
        )
    if quantity == CLIPPING:
        return _clipping_cause(fault.law.exponent > 0, axis)
    if quantity in _OF_WEIGHTS:
        return _cause_in_layer(fault, axis, label)
    mine = [one for one in faults if one.key[0] == layer and one.key[1] in _OF_WEIGHTS]
    if mine and mine[0].law is not None and mine[0].key[2] <= step:
        return _cause_in_layer(mine[0], axis, label)
    before = [one for one in faults if places.of(one.key) < places.of(key) and one.key[2] <= step]
    if before:
        first = min(before, key=lambda one: one.key[2])
        return f"its own weights keep their size; it inherits the change from {first.key[0]}"
    if quantity == OWN_UPDATE:
        return _cause_in_layer(fault, axis, label)
    if quantity == ALIGNMENT:
        return f"updates align with the layer's input differently at each {axis}"
    return _forward_cause(quantity, fault.law.exponent > 0, axis)


def _cause_in_layer(fault: Fault, axis: str, label: str) -> str:
    """The cause of a fault in a layer's own weights."""
    _, quantity, _ = fault.key
    if fault.law is None:
        return "its own weights are zero or not finite"
    exponent, up = fault.law.exponent, fault.law.exponent > 0
    if quantity == DECAY:
        return (
            f"weight decay {'grows' if up else 'falls'} with {axis} against its policy: "
            "t1.prescribe(model, base=…, decay=…) gives each group its factor"
        )
    if fault.role == VECTOR:
        return _vector_cause(quantity, up, axis)
    if quantity == WEIGHT_NORM:
        return _depth_init_cause(up) if axis == DEPTH else _init_cause(fault.role, up)
    return _depth_rate_cause(up) if axis == DEPTH else _rate_cause(fault.role, exponent, label)


def _clipping_cause(up: bool, axis: str) -> str:
    return (
        f"the global norm of the gradients {'falls' if up else 'grows'} with {axis}, so clipping "
        f"leaves {'more' if up else 'less'} of each step of the larger model, and the best rate "
        "moves with it: clip above what occurs, or use an optimizer whose step forgets the "
        "gradient's size, such as AdamW"
    )


def _forward_cause(quantity: str, up: bool, axis: str) -> str:
    if up:
        return (
            f"{'features' if quantity in (FEATURE_SIZE, FEATURE_UPDATE) else 'values'} grow with "
            f"{axis} through no one weight: a sum over {axis} without its factor 1/{axis} in the "
            "forward pass, such as q·k/√d with heads that grow, or a dot product of features"
        )
    return f"features stop moving as {axis} grows, through no one weight"


def _vector_cause(quantity: str, up: bool, axis: str) -> str:
    if quantity == WEIGHT_NORM:
        return (
            f"a gain or bias starts {'larger' if up else 'smaller'} as {axis} grows: its initial "
            "values must not depend on it"
        )
    return (
        f"a gain or bias moves {'more' if up else 'less'} as {axis} grows: sign-like optimizers "
        "want a constant rate for it, SGD a rate ∝ fan_out; Adam's ε must stay small against its "
        "gradient"
    )


def _init_cause(role: str, up: bool) -> str:
    if role == OUTPUT and up:
        return "readout initialized as in SP (σ ∝ 1/√fan_in): µP wants σ ∝ 1/fan_in"
    if role == INPUT and up:
        return "initial weights grow with width: an embedding or input wants a constant σ"
    where = "grow" if up else "shrink"
    return f"initial weights {where} with width: σ must fall as 1/√fan_in (constant σ does not)"


def _rate_cause(role: str, exponent: float, label: str) -> str:
    if role == OUTPUT and exponent > 0:
        return (
            "readout without its factor: its update's size must fall as 1/fan_in, with Muon as "
            "1/√fan_in"
        )
    if role == INPUT:
        return "input rate scales wrongly: sign-like optimizers want a constant one, SGD ∝ fan_out"
    if 0.25 < exponent < 0.75 and role != OUTPUT:
        return (
            "update grows as √width: Muon with a rate matched to AdamW's RMS does that "
            "(√max(rows, columns)); the spectral norm of its step must stay √(fan_out/fan_in)"
        )
    if label == "mup":
        return (
            "the prescribed rate does not keep its update: Adam's ε is not small against the "
            "gradient, the rate is too large to be a small step, or its role is read wrongly "
            "(print(t1.prescribe(…)) shows it; roles={…} says it)"
        )
    if exponent > 0:
        return (
            "learning rate too large for wide layers, as in SP or η ∝ fan_out/fan_in with a "
            "sign-like optimizer: it must fall as 1/fan_in"
        )
    return (
        "learning rate falls too fast with width (lazy training), or Adam's ε is not small "
        "against the gradient: features stop moving. Sign-like optimizers want 1/fan_in"
    )


def _depth_init_cause(up: bool) -> str:
    if up:
        return (
            "residual branch without its factor: what it adds must fall as 1/depth (the last "
            "layer's initial values, or a multiplier)"
        )
    return "initial weights shrink with depth more than the branch's factor 1/depth"


def _depth_rate_cause(up: bool) -> str:
    if up:
        return (
            "learning rate too large for deep models: where a branch's factor 1/depth lies in its "
            "last layer's weights, that layer's rate must fall as 1/depth too"
        )
    return "learning rate falls too fast with depth: features stop moving"
