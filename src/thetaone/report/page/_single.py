"""Pages of results that are one record: a sweep, a check, a plan, a policy, the laws; no HTML."""

from thetaone.records import (
    LAST_EPISODES,
    CoordinateCheck,
    KeptComparison,
    MeasuredLaws,
    MemoryPlan,
    PolicyRun,
    SweepResult,
    counted,
)
from thetaone.report.drawing import Figure, between, bytes_words, clock, percent, short_name, signed
from thetaone.report.figures import (
    drift_figure,
    exponent_figure,
    frontier_figure,
    laws_figure,
    learning_rate_figure,
    policy_figure,
    timeline_figure,
    update_figure,
)
from thetaone.report.page._appendix import laws_table, laws_words
from thetaone.report.page._contents import Code, Fact, Page, Section, Table
from thetaone.report.page._sections import coordinates_title
from thetaone.report.page._summary import drift_fact
from thetaone.version import __version__


def describe_sweep(sweep: SweepResult) -> Page:
    """Loss against learning rate, the best rate of each size, how far it moves."""
    name = short_name(sweep.parametrization)
    drift = sweep.drift
    moves = "fewer than two sizes have a best rate" if drift is None else (
        f"the best rate moves by {signed(drift.octaves)} octaves ({between(*drift.interval)}) from "
        f"{drift.axis} {drift.from_width} to {drift.to_width}"
    )  # fmt: skip
    facts = (
        Fact(label="Best learning rate", value=f"{sweep.best_lr:.3g}",
             note=f"at {sweep.axis} {sweep.reference_size}"),
        drift_fact(drift, sweep.parametrization),
        Fact(label="Trainings", value=f"{sweep.n_trained}",
             note=f"{sweep.n_reused} more were stored; {clock(sweep.wall_seconds)}"),
    )  # fmt: skip
    figures = [learning_rate_figure([sweep])]
    if sweep.optima:
        figures.append(drift_figure([sweep]))
    return _page(
        "sweep", f"{sweep.task}: the best learning rate in {name} is {sweep.best_lr:.3g}",
        f"{sweep.task} was trained at {counted(len(sweep.sizes), sweep.axis)} and "
        f"{counted(len(sweep.lrs), 'learning rate')} with {sweep.optimizer}; {moves}.",
        facts, figures, str(sweep),
    )  # fmt: skip


def describe_check(check: CoordinateCheck) -> Page:
    """Every layer's exponents, and what fails."""
    layers = {row.layer for row in check.rows}
    facts = (
        Fact(label="Layers", value=str(len(layers)),
             note=f"{len(check.failed_layers)} fail; {counted(len(check.undecided), 'row')} "
             "undecided"),
        Fact(label=check.axis.capitalize(), value=", ".join(map(str, check.sizes)),
             note=f"{counted(check.seeds, 'seed')}, after {counted(check.steps[-1], 'step')}"),
        Fact(label="Learning rate", value=f"{check.lr:.3g}",
             note=f"{check.optimizer}, {short_name(check.parametrization)}"),
    )  # fmt: skip
    columns, rows = check.table()
    table = Table(
        caption=f"Exponents in {check.axis}", columns=columns, rows=rows,
        numeric=tuple(1 < index < len(columns) - 1 for index in range(len(columns))),
        style="wide stack",
    )  # fmt: skip
    return _page(
        "check", coordinates_title(check),
        "Each layer's features, updates and weights were measured while the model grows; an "
        "exponent whose interval is clear of the band around zero fails.",
        facts, [update_figure([check]), exponent_figure([check])],
        "\n".join(check.findings()), table,
    )  # fmt: skip


def describe_plan(plan: MemoryPlan) -> Page:
    """Time against memory, and the chosen plan operation by operation."""
    frontier, schedule = plan.frontier, plan.schedule
    fastest = min(point.total_seconds for point in frontier.points)
    headline = f"{plan.task}, width {plan.width}: what its memory costs in time"
    facts = [
        Fact(label="Store-all", value=bytes_words(frontier.store_all_bytes), note="of the blocks"),
        Fact(label="Least possible", value=bytes_words(frontier.floor_bytes),
             note="of any schedule of the class"),
    ]  # fmt: skip
    if schedule is not None:
        slower = schedule.total_seconds / fastest - 1
        headline = f"{plan.task}, width {plan.width}: {bytes_words(schedule.peak_bytes)} for " + (
            f"{percent(slower)} more time"
        )
        facts.append(Fact(label="Chosen plan", value=bytes_words(schedule.peak_bytes),
                          note=f"{percent(slower)} slower; {schedule.policy}"))  # fmt: skip
    budget = None if schedule is None else schedule.budget_bytes
    figures = [frontier_figure(frontier, budget_bytes=budget)]
    if plan.cost is not None:
        names = tuple(stage.name for stage in plan.chain.stages)
        timeline = timeline_figure(plan.cost.timeline, stage_names=names, budget_bytes=budget)
        figures.append(timeline)
    return _page(
        "plan", headline,
        "Each point is the fastest plan of the blocks for its bytes; fixed policies beside it are "
        "judged by the same replay.",
        tuple(facts), figures, str(plan),
    )  # fmt: skip


def describe_kept(comparison: KeptComparison) -> Page:
    """One backward pass over equal layers, done in several ways."""
    return _page(
        "plan", f"{comparison.length} layers: recomputation and loads of one backward pass",
        "The policy asked for, beside the optimal plan that keeps as many activations.",
        tuple(
            Fact(label=one.policy, value=clock(one.seconds),
                 note=f"{counted(one.forwards, 'forward')}, {counted(one.loads, 'load')}")
            for one in comparison.passes
        ),
        [], str(comparison),
    )  # fmt: skip


def describe_policy(run: PolicyRun) -> Page:
    """A policy's learning curve."""
    facts = (
        Fact(label="Mean return", value=f"{run.last_mean():.1f}",
             note=f"of the last {min(LAST_EPISODES, len(run.returns))} episodes"),
        Fact(label="Environment steps", value=f"{run.env_steps:,}",
             note=f"{counted(len(run.updates), 'update')}, {clock(run.wall_seconds)}"),
        Fact(label="Learning rate", value=f"{run.lr:.3g}",
             note=f"width {run.width}, seed {run.seed}"),
    )  # fmt: skip
    return _page(
        "policy", f"{run.environment}: mean return {run.last_mean():.1f}",
        f"{run.task} was trained for {run.env_steps:,} environment steps.",
        facts, [policy_figure(run)], str(run),
    )  # fmt: skip


def describe_laws(laws: MeasuredLaws) -> Page:
    """Every law, predicted beside measured."""
    held = sum(law.passed for law in laws.results)
    title, text = laws_words(laws.results)
    facts = (
        Fact(label="Laws that hold", value=f"{held} of {len(laws.results)}",
             note="predictions measured on this machine"),
    )  # fmt: skip
    return Page(
        title="thetaone laws", headline=title, lead=text,
        meta="thetaone laws", facts=facts, verdicts=_no_claims(), thetaone=__version__,
        sections=(Section(key="laws-measured", nav="Laws", title="Predicted and measured",
                          blocks=(laws_figure(laws.results), laws_table(laws.results))),),
    )  # fmt: skip


def _page(
    command: str,
    headline: str,
    lead: str,
    facts: tuple[Fact, ...],
    figures: list[Figure],
    printed: str,
    table: Table | None = None,
) -> Page:
    pictures = Section(key="pictures", nav="Pictures", title="What was measured",
                       blocks=tuple(figures))  # fmt: skip
    words = (*((table,) if table else ()), *((Code(text=printed),) if printed else ()))
    text = Section(key="printed", nav="Numbers", title="The same in numbers", blocks=words)
    return Page(
        title=f"thetaone: {headline}", headline=headline, lead=lead, meta=f"thetaone {command}",
        facts=facts, verdicts=_no_claims(), thetaone=__version__,
        sections=(*((pictures,) if figures else ()), text),
    )  # fmt: skip


def _no_claims() -> Table:
    return Table(caption="", columns=(), rows=())
