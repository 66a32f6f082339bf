"""Which page a result gets: of a whole transfer here, of other results beside it; no HTML yet."""

from thetaone.records import (
    CoordinateCheck,
    EstimatorBakeoff,
    KeptComparison,
    MeasuredLaws,
    MemoryPlan,
    PolicyRun,
    SweepResult,
    TargetMemory,
    TransferResult,
)
from thetaone.report.page._answer import levels_section, recipe_section
from thetaone.report.page._appendix import (
    definitions_section,
    laws_section,
    prescription_section,
    reproduction_section,
)
from thetaone.report.page._contents import Page
from thetaone.report.page._gradients import describe_bakeoff
from thetaone.report.page._sections import (
    coordinates_section,
    drift_section,
    learning_rate_section,
    memory_section,
    target_section,
)
from thetaone.report.page._single import (
    describe_check,
    describe_kept,
    describe_laws,
    describe_plan,
    describe_policy,
    describe_sweep,
)
from thetaone.report.page._summary import duration, facts, headline, lead, verdicts
from thetaone.version import __version__

Result = (
    TransferResult
    | EstimatorBakeoff
    | SweepResult
    | CoordinateCheck
    | TargetMemory
    | MemoryPlan
    | KeptComparison
    | PolicyRun
    | MeasuredLaws
)


def describe(result: Result) -> Page:
    """The page of a result: words, tables and figure data; no HTML yet.

    Args:
        result: What a command of thetaone found and wrote.

    Returns:
        The page.
    """
    match result:
        case TransferResult():
            return describe_transfer(result)
        case EstimatorBakeoff():
            return describe_bakeoff(result)
        case SweepResult():
            return describe_sweep(result)
        case CoordinateCheck():
            return describe_check(result)
        case MemoryPlan():
            return describe_plan(result)
        case KeptComparison():
            return describe_kept(result)
        case PolicyRun():
            return describe_policy(result)
        case MeasuredLaws():
            return describe_laws(result)


def describe_transfer(result: TransferResult) -> Page:
    """The whole proof, section by section."""
    sections = [
        learning_rate_section(result),
        drift_section(result),
        coordinates_section(result),
        memory_section(result),
        *([levels_section(result)] if result.levels else []),
        target_section(result),
        *([recipe_section(result.recipe)] if result.recipe else []),
        prescription_section(result),
        *([laws_section(result.laws)] if result.laws else []),
        reproduction_section(result),
        definitions_section(),
    ]
    return Page(
        title=f"thetaone: {result.task}, width {result.base_width} → {result.target_width}",
        headline=headline(result),
        lead=lead(result),
        meta=f"thetaone transfer · {result.task} · {result.optimizer} · {duration(result)}",
        facts=facts(result),
        verdicts=verdicts(result),
        sections=tuple(sections),
        thetaone=__version__,
    )
