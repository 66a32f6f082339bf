"""How a measurement is judged: it must be able to see a formula that is 2 % off."""

import math
from dataclasses import dataclass

from torch import Tensor

from thetaone.records import Z_LIMIT, LawResult, Relation

RESOLUTION = 2e-3  # largest relative standard error: 2 % is then at least ten of them
EXACT = 1e-5  # relative room for float32 rounding in identities


@dataclass(frozen=True)
class Law:
    """Name and title that every result of one law carries.

    Args:
        name: As ``verify_laws`` takes it.
        title: The law in words.
        resolution: Largest relative standard error at which a measurement decides.
    """

    name: str
    title: str
    resolution: float = RESOLUTION

    def statistical(self, quantity: str, predicted: float, samples: Tensor) -> LawResult:
        """Mean of independent samples against the prediction, |z| ≤ 4.5, if sharp enough."""
        stderr = float(samples.std()) / math.sqrt(samples.numel())
        return self.estimate(quantity, predicted, float(samples.mean()), stderr)

    def estimate(
        self, quantity: str, predicted: float, measured: float, stderr: float
    ) -> LawResult:
        """A measured value with its standard error against the prediction."""
        sharp = 0 < stderr <= self.resolution * abs(measured)
        z = (measured - predicted) / stderr if stderr > 0 else math.inf
        limit = f"{1000 * self.resolution:g} %"  # ten standard errors
        note = f"z = {z:+.1f}" if sharp else f"too few samples: cannot see a formula {limit} off"
        return self._result(
            quantity, predicted, measured, stderr=stderr, note=note,
            passed=sharp and abs(z) <= Z_LIMIT,
        )  # fmt: skip

    def exact(
        self,
        quantity: str,
        predicted: float,
        measured: float,
        *,
        within: float = EXACT,
        note: str = "",
    ) -> LawResult:
        """A count or identity: equal within rounding (or the stated bound of a norm)."""
        passed = abs(measured - predicted) <= within * abs(predicted)
        return self._result(quantity, predicted, measured, note=note, passed=passed)

    def bound(
        self, quantity: str, relation: Relation, limit: float, measured: float, *,
        stderr: float = 0.0, note: str = "",
    ) -> LawResult:  # fmt: skip
        """An inequality, for what theory states in the limit only."""
        passed = measured <= limit if relation == "≤" else measured >= limit
        return self._result(
            quantity, limit, measured, stderr=stderr, relation=relation, note=note, passed=passed
        )

    def _result(
        self, quantity: str, predicted: float, measured: float, *, passed: bool,
        stderr: float = 0.0, relation: Relation = "=", note: str = "",
    ) -> LawResult:  # fmt: skip
        return LawResult(
            name=self.name, title=self.title, quantity=quantity, predicted=float(predicted),
            measured=float(measured), stderr=stderr, relation=relation, passed=passed, note=note,
        )  # fmt: skip
