"""The page of a bake-off of gradient estimators: words, tables and figure data; no HTML."""

from thetaone.records import (
    EstimatorBakeoff,
    EstimatorComparison,
    EstimatorRow,
    counted,
    format_seconds,
)
from thetaone.report.drawing import signed
from thetaone.report.figures import estimators_figure
from thetaone.report.page._contents import (
    Code,
    Fact,
    Page,
    Paragraph,
    Section,
    Standing,
    Table,
    Verdict,
    Words,
)
from thetaone.version import __version__

_WORDS: tuple[tuple[str, str], ...] = (
    (
        "Bias z",
        "Mean gradient minus the reference, in standard errors of both, for the coordinate that is "
        "furthest off. Chance alone exceeds 4.5 once in 150,000 comparisons.",
    ),
    (
        "Sees",
        "Five standard errors of the gradient, relative to its norm: the smallest bias that this "
        "comparison can tell from chance.",
    ),
    ("Variance", "Of one estimate, summed over the coordinates of the gradient."),
    (
        "Efficiency",
        "1 / (variance × time of one estimate): how fast the error falls when estimates are "
        "averaged.",
    ),
    (
        "Biased, and says so",
        "Straight-through and Gumbel-softmax give the gradient of something else. They are shown, "
        "and never recommended.",
    ),
)


def describe_bakeoff(bakeoff: EstimatorBakeoff) -> Page:
    """What a bake-off found, as a page.

    Args:
        bakeoff: Comparisons on one problem or more.

    Returns:
        The page.
    """
    comparisons = bakeoff.comparisons
    caught = sum(row.verdict == "biased" for found in comparisons for row in found.rows)
    rows = sum(len(found.rows) for found in comparisons)
    seconds = format_seconds(bakeoff.wall_seconds)
    return Page(
        title="thetaone: gradient estimators",
        headline=_headline(comparisons),
        lead=(
            f"{counted(rows, 'gradient')} on {counted(len(comparisons), 'problem')} were judged "
            f"against a reference; {caught or 'none'} of those that claim to be unbiased "
            f"{'is' if caught <= 1 else 'are'} seen to be biased. "
            "What can be trusted is ranked by the variance that it leaves for the time it takes."
        ),
        meta=f"thetaone gradients · {seconds}",
        facts=tuple(_fact(found) for found in comparisons),
        verdicts=_verdicts(comparisons),
        sections=(*(_section(found) for found in comparisons), _reproduce(bakeoff), _words()),
        thetaone=__version__,
    )


def _headline(comparisons: tuple[EstimatorComparison, ...]) -> str:
    if len(comparisons) == 1:
        (found,) = comparisons
        return f"{found.problem}: take {found.recommendation or 'none of these'}"
    return "The estimator to take depends on the problem"


def _fact(found: EstimatorComparison) -> Fact:
    note = found.reason or "no estimator is both right and precise enough: make more estimates"
    return Fact(label=found.problem, value=found.recommendation or "none", note=note)


def _verdicts(comparisons: tuple[EstimatorComparison, ...]) -> Table:
    rows: list[tuple[str | Verdict, ...]] = []
    for found in comparisons:
        claiming = [row for row in found.rows if row.unbiased]
        biased = [row.estimator for row in claiming if row.verdict == "biased"]
        agreeing = sum(row.verdict == "agrees" for row in claiming)
        noisy = sum(row.verdict == "too noisy to tell" for row in claiming)
        measured = f"{agreeing} of {len(claiming)} agree with {_reference(found)}"
        measured += f"; {noisy} too noisy to tell" if noisy else ""
        measured += f"; off: {', '.join(biased)}" if biased else ""
        standing: Standing = "fails" if biased else "open" if noisy or not agreeing else "holds"
        word = {"fails": "some are biased", "holds": "none is biased", "open": "none seen biased"}
        claim = f"{found.problem}: what claims to be unbiased is"
        rows.append((claim, measured, Verdict(standing, word[standing])))
    return Table(
        caption="Claims and what was measured", columns=("claim", "measured", "verdict"),
        rows=tuple(rows), style="stack",
    )  # fmt: skip


def _reference(found: EstimatorComparison) -> str:
    words = {"exact": "the closed form", "enumeration": "the exact sum over all outcomes"}
    return words.get(found.reference_kind, found.reference_kind)


def _section(found: EstimatorComparison) -> Section:
    take = f"take {found.recommendation}" if found.recommendation else "none of these yet"
    setting = (
        f"{found.n_samples} samples an estimate, {found.repeats} estimates of each, judged against "
        f"{_reference(found)}."
    )
    flags = tuple(Paragraph(text=f"{flag[0].upper()}{flag[1:]}.") for flag in found.flags)
    blocks = [estimators_figure(found), _table(found)]
    if found.skipped:
        columns = ("estimator", "does not apply because")
        table = Table(
            caption="Does not apply", columns=columns, rows=found.skipped, style="wide stack"
        )
        blocks.append(table)
    return Section(
        key=f"problem-{found.problem}",
        nav=found.problem,
        title=f"{found.problem}: {take}",
        text=(Paragraph(text=setting), *flags),
        blocks=tuple(blocks),
    )


def _table(found: EstimatorComparison) -> Table:
    columns = ("estimator", "verdict", "bias z", "sees", "variance", "f evals", "time")
    return Table(
        caption=f"Estimators on {found.problem}",
        columns=(*columns, "efficiency", "claim"),
        rows=tuple(_row(row) for row in found.rows),
        style="wide stack",
        numeric=(False, False, *(True,) * 6, False),
    )


def _row(row: EstimatorRow) -> tuple[str | Verdict, ...]:
    standing: Standing = "open" if row.verdict == "too noisy to tell" else "fails"
    if row.verdict in ("agrees", "no reference"):
        standing = "holds"
    return (
        row.estimator,
        Verdict(standing, row.verdict),
        signed(row.bias_z, 1),
        f"{row.resolution:.1%}",
        row.variance_words,
        str(row.evaluations),
        f"{format_seconds(row.seconds)} ± {format_seconds(row.seconds_stderr)}",
        row.efficiency_words,
        row.declared,
    )


def _reproduce(bakeoff: EstimatorBakeoff) -> Section:
    table = Table(
        caption="Environment", columns=("what", "value"),
        rows=tuple(bakeoff.environment.items()), style="",
    )  # fmt: skip
    return Section(
        key="reproduce",
        nav="Reproduce",
        title="How to get this report again",
        blocks=(Code(text=bakeoff.command or "thetaone gradients"), table),
    )


def _words() -> Section:
    blocks = (Words(entries=_WORDS),)
    return Section(key="words", nav="Definitions", title="What the words mean", blocks=blocks)
