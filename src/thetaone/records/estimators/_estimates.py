"""The result of a comparison of gradient estimators."""

from math import isnan
from typing import ClassVar, Literal

from pydantic import Field

from thetaone.records._base import Record
from thetaone.records._statistics import student_interval
from thetaone.records._table import text_table
from thetaone.records._units import format_seconds

Verdict = Literal[
    "agrees",
    "biased as declared",
    "biased",
    "score not centred",
    "too noisy to tell",
    "no reference",
]


class EstimatorRow(Record):
    """One estimator's gradient, measured over independent repeats.

    Attributes:
        estimator: Name, with its options.
        declared: What the estimator says of itself: ``unbiased`` or why it is not.
        unbiased: Whether it claims the gradient of the expectation itself.
        mean: Mean gradient, one entry a coordinate.
        mean_stderr: Standard error of each entry.
        bias_z: The largest |mean − reference| over coordinates, in standard errors, signed; NaN
            without a reference.
        bias_limit: |bias_z| that chance exceeds in one comparison of 150 000, by Student's
            quantile for so few repeats and so many coordinates.
        resolution: Five standard errors of the gradient's norm, relative to that norm: the bias
            that this comparison can see.
        variance: Variance of one estimate of ``n_samples`` draws, summed over coordinates.
        variance_stderr: Its standard error.
        evaluations: Evaluations of f for one estimate [count].
        seconds: Median wall time of one estimate [s].
        seconds_stderr: Its standard error [s].
        efficiency: 1 / (variance · seconds) [1/s]; inf for a variance of 0.
        efficiency_stderr: Its standard error.
        verdict: In words; ``score not centred`` where it relies on a score whose mean is not 0.
        repeats: Estimates that mean and variance are made of; 0 where a record does not say.
    """

    estimator: str
    declared: str = "unbiased"
    unbiased: bool = True
    mean: tuple[float, ...]
    mean_stderr: tuple[float, ...]
    bias_z: float
    bias_limit: float
    resolution: float
    variance: float
    variance_stderr: float
    evaluations: int
    seconds: float
    seconds_stderr: float
    efficiency: float
    efficiency_stderr: float
    verdict: Verdict
    repeats: int = 0

    def interval(self, coordinate: int, confidence: float = 0.95) -> tuple[float, float]:
        """Student's interval for the mean gradient in one coordinate.

        Raises:
            ValueError: A record that does not say how many repeats it has.
        """
        if self.repeats == 1:  # exact
            return self.mean[coordinate], self.mean[coordinate]
        if self.repeats < 1:
            raise ValueError(f"row {self.estimator!r} does not say its repeats: measure again")
        return student_interval(
            self.mean[coordinate], self.mean_stderr[coordinate], self.repeats - 1, confidence
        )

    @property
    def variance_words(self) -> str:
        """The variance with its standard error."""
        return f"{self.variance:.3g} ± {self.variance_stderr:.1g}" if self.variance else "0"

    @property
    def efficiency_words(self) -> str:
        """The efficiency with its standard error; words where there is no noise."""
        if not self.variance:
            return "no noise"
        return f"{self.efficiency:.3g} ± {self.efficiency_stderr:.1g}"

    @property
    def trusted(self) -> bool:
        """Whether nothing speaks against using it as a gradient of the expectation."""
        return self.unbiased and self.verdict in ("agrees", "no reference")


class EstimatorComparison(Record):
    """Estimators of one gradient side by side: bias, variance, cost, and which to take.

    Attributes:
        problem: What was compared on.
        coordinates: Name of each entry of the gradient.
        reference: The gradient that bias is judged against, one entry a coordinate.
        reference_stderr: Its standard error; zeros when exact.
        reference_kind: Where it comes from: ``exact``, ``enumeration``, ``leave-one-out`` …
        n_samples: Draws of one estimate [count].
        repeats: Independent estimates for each estimator [count].
        rows: One an estimator.
        skipped: Estimators that do not apply, with the reason.
        flags: What the user should know before trusting a gradient here.
        recommendation: Name of the estimator to take; empty when none can be trusted.
        reason: Why that one.
        score_check: What the test of E[score] = 0 says, in words.
        budget: Evaluations of f allowed, 0 for no limit [count].

    Examples:
        >>> import torch, thetaone as t1
        >>> problem = t1.estimators.quadratic(d=1)
        >>> comparison = t1.compare_estimators(
        ...     problem.f, problem.make, problem.params, estimators=[t1.estimators.Pathwise()],
        ...     reference=problem.gradient, generator=torch.Generator().manual_seed(0),
        ... )
        >>> comparison.recommendation
        'Pathwise'
    """

    renderer: ClassVar[str] = "thetaone.report.figures._plots:estimator_comparison"

    problem: str
    coordinates: tuple[str, ...]
    reference: tuple[float, ...]
    reference_stderr: tuple[float, ...]
    reference_kind: str
    n_samples: int
    repeats: int
    rows: tuple[EstimatorRow, ...]
    skipped: tuple[tuple[str, str], ...] = ()
    flags: tuple[str, ...] = ()
    recommendation: str = ""
    reason: str = ""
    score_check: str = ""
    budget: int = 0

    @property
    def passed(self) -> bool:
        """Whether no estimator that claims to be unbiased is known to be biased."""
        return not any(
            row.unbiased and row.verdict in ("biased", "score not centred") for row in self.rows
        )

    def row(self, estimator: str) -> EstimatorRow:
        """The row of an estimator, by name."""
        rows = {row.estimator: row for row in self.rows}
        if estimator not in rows:
            raise KeyError(f"no row {estimator!r}; rows: {', '.join(rows)}")
        return rows[estimator]

    def __str__(self) -> str:
        title = (
            f"{self.problem}: {self.n_samples} samples an estimate, {self.repeats} estimates, "
            f"reference: {self.reference_kind}"
        )
        columns = ["estimator", "claim", "bias z", "variance", "f evals", "time", "efficiency"]
        rows = [_cells(row) for row in self.rows]
        lines = [text_table([*columns, "verdict"], rows, title=title)]
        lines += [f"flag: {flag}" for flag in self.flags]
        if self.skipped:
            lines.append("does not apply: " + ", ".join(name for name, _ in self.skipped))
        if self.recommendation:
            lines.append(f"take {self.recommendation}: {self.reason}")
        return "\n".join(lines)


class EstimatorBakeoff(Record):
    """Comparisons on several problems, with what they were measured on.

    Attributes:
        comparisons: One a problem.
        command: How to get the result again.
        environment: Versions, machine, threads.
        wall_seconds: Wall time of all comparisons [s].
    """

    comparisons: tuple[EstimatorComparison, ...]
    command: str = ""
    environment: dict[str, str] = Field(default_factory=dict[str, str])
    wall_seconds: float = 0.0

    def comparison(self, problem: str) -> EstimatorComparison:
        """The comparison on a problem, by name."""
        named = {comparison.problem: comparison for comparison in self.comparisons}
        if problem not in named:
            raise KeyError(f"no problem {problem!r}; problems: {', '.join(named)}")
        return named[problem]

    def __str__(self) -> str:
        return "\n\n".join(str(comparison) for comparison in self.comparisons)


def _cells(row: EstimatorRow) -> list[str]:
    return [
        row.estimator,
        row.declared,
        "–" if isnan(row.bias_z) else f"{row.bias_z:+.1f}",
        row.variance_words,
        str(row.evaluations),
        format_seconds(row.seconds),
        row.efficiency_words,
        row.verdict,
    ]
