"""What size each row should have, from the prescription alone. No torch.

What is judged is measured over expected, so that a right set-up has exponent 0 in every row, and
prescription and check cannot disagree:

==============  ==========================================================================
weight norm     prescribed initial factor × norm of a Gaussian matrix of the weight's fans
update norm     prescribed size of an entry's update × fan_in, for aligned entries
own update      the same, on inputs of size Θ(1)
decay           prescribed factor on the weight decay
features        Θ(1); between a fold and what it makes up for, anything from 1 to the fold
early updates   as prescribed, or down to the early factor times that
==============  ==========================================================================
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from thetaone.records import (
    ALIGNMENT,
    DECAY,
    MATRIX,
    OWN_UPDATE,
    UPDATE_NORM,
    WEIGHT_NORM,
    Prescription,
    Rule,
)

ALIGNED_NORM = "aligned norm"  # of an update whose entries, of the same size, have rank one


@dataclass(frozen=True, slots=True)
class Layer:
    """What a row is about, and what its sizes are expected from.

    Attributes:
        names: The parameters that its weight is made from; empty for a feature.
        fans: Of the weight as used; (1, 1) for vectors and features.
        kind: ``gain``, ``shift``, ``lookup``, ``matrix``, or empty for a feature.
    """

    names: frozenset[str] = frozenset()
    fans: tuple[int, int] = (1, 1)
    kind: str = ""


@dataclass(frozen=True, slots=True)
class Taken:
    """What the steps so far were taken with.

    Attributes:
        rate: Sum of the schedule's factors on the learning rate.
        kept: Mean share that clipping left of the gradients, every step weighed by its factor.
    """

    rate: float = 0.0
    kept: float = 1.0

    def step(self, factor: float, kept: float) -> "Taken":
        """After one more step."""
        rate = self.rate + factor
        return Taken(rate, (self.rate * self.kept + factor * kept) / rate if rate else 1.0)


def expected_size(layer: Layer, quantity: str, rules: Mapping[str, Rule]) -> float:
    """Expected size of a row up to a constant that is the same at every width; 1 without a rule.

    0 for what is not judged: what the update of a matrix that is used transposed too does there.
    It aligns with the inputs of the other use, and a factor that is no part of its rule scales
    these; what comes out is judged as a feature.

    A weight made from several parameters (``weight_norm``) has no one rule: Θ(1) is expected.

    Args:
        layer: The row's.
        quantity: One of ``QUANTITIES``.
        rules: The prescription's, by parameter.

    Examples:
        >>> rule = Rule(name="w", role="hidden", shape=(4, 4), fan_in=4, fan_out=4, init_factor=0.5)
        >>> expected_size(Layer(frozenset({"w"}), (4, 4), "matrix"), "weight norm", {"w": rule})
        2.0
    """
    rule = rules.get(next(iter(layer.names), "")) if len(layer.names) == 1 else None
    if rule is None:
        return 1.0
    fan_in, fan_out = layer.fans if layer.kind == MATRIX else (1, 1)
    turned = fan_in != fan_out and (fan_in, fan_out) == (rule.fan_out, rule.fan_in)
    if turned and rule.fan_in > 1 and quantity in (OWN_UPDATE, ALIGNMENT):
        return 0.0
    if quantity == WEIGHT_NORM:
        return rule.init_factor * gaussian_norm(fan_in, fan_out)
    if quantity in (UPDATE_NORM, ALIGNED_NORM):
        return rule.update_factor * fan_in
    if quantity == OWN_UPDATE:  # as a readout, an embedding meets inputs that are scaled down
        if layer.kind == MATRIX and rule.fan_in == 1:
            return 1.0
        return rule.update_factor * fan_in
    return rule.decay_factor if quantity == DECAY else 1.0


def gaussian_norm(fan_in: int, fan_out: int) -> float:
    """Limit of the induced norm of a Gaussian matrix of unit entries: √n_in (1 + √(n_in/n_out)).

    Args:
        fan_in: Features summed over [count]; 1 for what sums over nothing: its size is its RMS.
        fan_out: Features put out [count].

    Examples:
        >>> gaussian_norm(64, 64)
        16.0
    """
    return 1.0 if fan_in == 1 else fan_in**0.5 * (1 + (fan_in / fan_out) ** 0.5)


def factor_exponents(
    factor: str, smallest: Prescription, largest: Prescription, growth: float
) -> dict[str, float]:
    """Exponent in size of a factor that each parameter has, where there is one.

    Args:
        factor: The rules' attribute, such as ``fold`` or ``early_factor``.
        smallest: Prescription of the smallest model.
        largest: Of the largest.
        growth: Its size over the smallest's, > 1.
    """
    factors = {rule.name: getattr(rule, factor) for rule in largest.rules}
    exponents = {
        rule.name: math.log(factors[rule.name] / getattr(rule, factor)) / math.log(growth)
        for rule in smallest.rules
        if rule.name in factors
    }
    return {name: round(e, 6) for name, e in exponents.items() if abs(e) > 1e-6}


def widened(exponents: Iterable[float]) -> tuple[float, float]:
    """The range of exponents from 0 to the sum of some folds': (lowest, highest).

    Examples:
        >>> widened([-0.5]), widened([-0.5, 0.25])
        ((-0.5, 0.0), (-0.5, 0.25))
    """
    values: Sequence[float] = list(exponents)
    return sum(v for v in values if v < 0) + 0.0, sum(v for v in values if v > 0) + 0.0
