"""Judges what was observed: exponents, bands, and the likely cause of a failure. No torch."""

import math
from collections.abc import Mapping, Sequence

from thetaone.laws import fit_exponent
from thetaone.parametrization.rules import INPUT, OUTPUT
from thetaone.records import (
    ALIGNMENT,
    DEPTH,
    FEATURE_UPDATE,
    OWN_UPDATE,
    UPDATE_NORM,
    WEIGHT_NORM,
    WIDTH,
    LayerVerdict,
    PowerLaw,
)

Band = tuple[float, float]
Key = tuple[str, str, int]  # layer, quantity, step

# Θ(1) means exponent 0 and the wrong rules miss by ±1/2 or more: the line is drawn midway. The
# norm of a Gaussian matrix of fans n × m is 1 + √(min/max) in units of its limit, which bends its
# exponent by up to 0.3 where one fan stays at a size that the other one crosses.
NOISE = 0.1  # how far noise may carry an exponent whose interval reaches into the band
BANDS: Mapping[str, Band] = {
    FEATURE_UPDATE: (-0.25, 0.25),
    WEIGHT_NORM: (-0.35, 0.35),
    UPDATE_NORM: (-0.25, 0.25),
    OWN_UPDATE: (-0.25, 0.25),
    ALIGNMENT: (-0.35, 0.35),
}


def judge(
    observed: Mapping[Key, Sequence[Sequence[float]]],
    sizes: Sequence[int],
    roles: Mapping[str, str],
    bands: Mapping[str, Band] = BANDS,
    *,
    axis: str = WIDTH,
) -> tuple[LayerVerdict, ...]:
    """One verdict per layer, quantity and step.

    A row passes when its exponent lies in the band, or when its interval reaches into the band and
    the exponent misses it by at most ``NOISE``: noise is no fault, a wide interval no excuse.

    A layer's feature update is ΔW h + W₀ Δh. The first part, its own, is Θ(1) when its weights are
    maximally updated (Tensor Programs IV, Definition 5.2). Of the second, a readout (σ ∝ 1/fan_in)
    rightly loses what is not aligned with W₀, as 1/√fan_in. So a feature update that falls while
    the layer's own update does not is no fault; one that falls with it is.

    Args:
        observed: Values, shape [seeds][sizes], by layer, quantity and step, in order of layers.
        sizes: Widths or depths [count].
        roles: Role by layer, for the likely cause.
        bands: Exponents that count as Θ(1), by quantity.
        axis: What grows, ``width`` or ``depth``.

    Returns:
        The verdicts, in the order of ``observed``.
    """
    last = max(step for _, _, step in observed)
    laws = {key: _law(sizes, values) for key, values in observed.items()}
    passed = {
        key: _passes(laws[key], values, bands[key[1]], required=key[2] in (0, last))
        for key, values in observed.items()
    }
    for key, law in laws.items():
        own = (key[0], OWN_UPDATE, last)
        falls = key[1] == FEATURE_UPDATE and law is not None and law.exponent < 0
        if falls and passed.get(own, False):
            passed[key] = True
    verdicts: list[LayerVerdict] = []
    for key, values in observed.items():
        layer, quantity, step = key
        cause = "" if passed[key] else likely_cause(key, roles.get(layer, ""), laws, passed, axis)
        verdicts.append(
            LayerVerdict(
                layer=layer,
                role=roles.get(layer, ""),
                quantity=quantity,
                step=step,
                law=laws[key],
                band=bands[quantity],
                values=tuple(tuple(row) for row in values),
                passed=passed[key],
                cause=cause,
            )
        )
    return tuple(verdicts)


def likely_cause(
    key: Key,
    role: str,
    laws: Mapping[Key, PowerLaw | None],
    passed: Mapping[Key, bool],
    axis: str = WIDTH,
) -> str:
    """What most often lies behind such a failure, and what to do about it."""
    layer, quantity, _ = key
    law = laws[key]
    if law is None:
        return (
            "values are zero or not finite: the layer is dead or training diverged. "
            "Lower the learning rate, or look for an unused layer"
        )
    up = law.exponent > 0
    if quantity == WEIGHT_NORM:
        return _depth_init_cause(up) if axis == DEPTH else _init_cause(role, up)
    if quantity in (UPDATE_NORM, OWN_UPDATE):
        return _depth_rate_cause(up) if axis == DEPTH else _rate_cause(role, law.exponent)
    if quantity == ALIGNMENT:
        return f"updates align with the layer's input differently at each {axis}"
    own = [k for k in passed if k[0] == layer and k[1] in (WEIGHT_NORM, UPDATE_NORM)]
    if any(not passed[k] for k in own):
        worst = next(k for k in own if not passed[k])
        return likely_cause(worst, role, laws, passed, axis)
    earlier = list(dict.fromkeys(k[0] for k in passed))
    for other in earlier:
        if any(not ok for k, ok in passed.items() if k[0] == other and k[1] != FEATURE_UPDATE):
            return f"its own weights keep their size; it inherits the change from {other}"
    return f"features {'move more' if up else 'stop moving'} as it grows, through no one weight"


def _init_cause(role: str, up: bool) -> str:
    if role == OUTPUT and up:
        return "readout initialized as in SP (σ ∝ 1/√fan_in): µP wants σ ∝ 1/fan_in"
    if role == INPUT and up:
        return "initial weights grow with width: an embedding or input wants a constant σ"
    where = "grow" if up else "shrink"
    return f"initial weights {where} with width: σ must fall as 1/√fan_in (constant σ does not)"


def _rate_cause(role: str, exponent: float) -> str:
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
    if exponent > 0:
        return (
            "learning rate too large for wide layers, as in SP or η ∝ fan_out/fan_in with a "
            "sign-like optimizer: it must fall as 1/fan_in"
        )
    return (
        "learning rate falls too fast with width (lazy training): features stop moving. Use the "
        "rate that µP prescribes, 1/fan_in for sign-like optimizers"
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


def _law(sizes: Sequence[int], values: Sequence[Sequence[float]]) -> PowerLaw | None:
    if any(not (0 < value < math.inf) for row in values for value in row):
        return None
    return fit_exponent(sizes, values)


def _passes(
    law: PowerLaw | None, values: Sequence[Sequence[float]], band: Band, *, required: bool
) -> bool:
    if law is None:  # zero before the last step: a zero-initialized readout lets nothing through
        return not required and all(value == 0 for row in values for value in row)
    low, high = band
    missed = max(low - law.exponent, law.exponent - high)
    reaches = law.interval[0] <= high and law.interval[1] >= low
    return missed <= 0 or (reaches and missed <= NOISE)
