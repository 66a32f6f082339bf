"""The sections of a report: what one sees, and what would have shown the claim false."""

import math

from thetaone.records import (
    FEATURE_UPDATE,
    CoordinateCheck,
    Cost,
    Schedule,
    TargetMemory,
    TransferResult,
)
from thetaone.report.drawing import bytes_words, clock, listed, percent, signed
from thetaone.report.figures import (
    TOLERANCE_OCTAVES,
    account_figure,
    drift_figure,
    exponent_figure,
    frontier_figure,
    learning_rate_figure,
    timeline_figure,
    training_figure,
    update_figure,
)
from thetaone.report.page._contents import Paragraph, Section
from thetaone.report.page._summary import worst_penalty


def learning_rate_section(result: TransferResult) -> Section:
    """Figure 1 of Tensor Programs V."""
    mup = result.mup
    seeds = len({trial.seed for trial in mup.trials})
    sees = (
        f"Each point is the mean over {seeds} seed(s) of the loss at the end of training; the star "
        "is the fitted minimum of its width, the dotted line the minimum at width "
        f"{result.base_width}. On the left the minima walk away from that line as width grows; on "
        f"the right they stay, and training every width at that line costs at most "
        f"{percent(worst_penalty(result))} of loss."
    )
    false = (
        "Had µP's minima left the line by more than half an octave, or a wider model ended with a "
        "higher loss than a narrower one at the same rate, the transfer would be refuted."
    )
    return Section(
        key="figure-1",
        nav="Learning rate",
        title="Loss against learning rate",
        text=(Paragraph(text=sees), Paragraph(text=false, aside=True)),
        blocks=(learning_rate_figure([result.sp, mup]),),
    )


def drift_section(result: TransferResult) -> Section:
    """Best rate against width."""
    mup, sp = result.mup.drift, result.sp.drift
    if mup is None or sp is None:
        sees = "A drift needs two widths with an optimum; at least one side has fewer."
    else:
        sees = (
            f"The same minima against width: {signed(mup.octaves)} octaves in µP (95 % interval "
            f"{signed(mup.interval[0])} … {signed(mup.interval[1])}), {signed(sp.octaves)} in SP "
            f"({signed(sp.interval[0])} … {signed(sp.interval[1])}). The strip is half an octave "
            f"to either side of the best rate at width {result.base_width}."
        )
    false = (
        f"µP's line leaving the strip (more than {TOLERANCE_OCTAVES:g} octave) would refute the "
        "transfer; SP's line staying in it would mean that this task cannot tell the two apart."
    )
    figure = drift_figure([result.mup, result.sp])
    return Section(
        key="drift-of-the-rate",
        nav="Drift",
        title="How far the best rate moves",
        text=(Paragraph(text=sees), Paragraph(text=false, aside=True)),
        blocks=(figure,),
    )


def coordinates_section(result: TransferResult) -> Section:
    """Coordinate checks, µP beside SP."""
    mup, sp = result.check_mup, result.check_sp
    sees = (
        f"After {mup.steps[-1]} step(s), how far each layer's output has moved (RMS), at widths "
        f"{', '.join(map(str, mup.sizes))}; squares are input layers, circles hidden, diamonds "
        f"output, triangles vectors, crosses what fails. {_failures(mup, 'µP')} "
        f"{_failures(sp, 'SP')}"
    )
    false = (
        "A layer whose update grows with width, or shrinks together with what its own weights do "
        "to it, fails when its exponent's interval is clear of the band around zero; a check that "
        "passed SP as well would be blind. A passing check judges feature update, own update, "
        "weight norm, update norm and alignment of every layer."
    )
    checks = [sp, mup]  # SP left, as in the figure above
    return Section(
        key="coordinates",
        nav="Coordinate check",
        title=_coordinates_title(mup),
        text=(Paragraph(text=sees), Paragraph(text=false, aside=True)),
        blocks=(update_figure(checks), exponent_figure(checks)),
    )


def memory_section(result: TransferResult) -> Section:
    """Frontier, plan and account of the target's memory."""
    plan = result.memory
    if plan is None or plan.schedule is None or plan.cost is None:
        text = (Paragraph(text=f"No plan was made: {result.memory_note}"),)
        return Section(key="memory", nav="Memory", title="Memory", text=text)
    limit = plan.account.activation_budget_bytes if plan.account.budget_bytes else None
    names = tuple(stage.name for stage in plan.chain.stages)
    sees, false = _memory_words(plan, plan.schedule, plan.cost)
    return Section(
        key="memory",
        nav="Memory",
        title="What the memory costs in time",
        text=(Paragraph(text=sees), Paragraph(text=false, aside=True)),
        blocks=(
            frontier_figure(plan.frontier, budget_bytes=limit),
            timeline_figure(plan.cost.timeline, stage_names=names, budget_bytes=limit),
        ),
    )


def target_section(result: TransferResult) -> Section:
    """The target's one training."""
    target = result.target
    sees = (
        f"Width {target.width}, {target.n_parameters:,} parameters, {len(target.losses)} steps at "
        f"{target.lr:.3g}, in {clock(target.wall_seconds)}; final loss "
        f"{target.final_loss:.4f}."
    )
    blocks = [training_figure(target)]
    false = "A loss that is not finite, or worse than the base model's, would refute the rate."
    if result.memory is not None:
        account, gradients = result.memory.account, result.memory.gradients
        deviation = account.measured_peak_bytes / account.predicted_peak_bytes - 1
        sees += (
            f" The measured peak is {signed(100 * deviation, 1)} % from the predicted one, and "
            f"{gradients.n_equal} of {gradients.n_tensors} gradients equal those of store-all to "
            "the last bit."
        )
        false += (
            " A measured peak beyond the budget, or one gradient that differs, would refute the "
            f"plan; the largest difference found is {gradients.largest_difference:g}."
        )
        blocks.append(account_figure(account))
    return Section(
        key="target",
        nav="Target",
        title=f"The target: width {target.width}, trained once",
        text=(Paragraph(text=sees), Paragraph(text=false, aside=True)),
        blocks=tuple(blocks),
    )


def _failures(check: CoordinateCheck, name: str) -> str:
    worst = [
        row
        for row in check.failures
        if row.quantity == FEATURE_UPDATE and row.step == check.steps[-1] and row.law is not None
    ]
    if check.passed:
        return f"In {name} no layer fails."
    sentence = f"In {name} these fail: {listed(check.failed_layers)}"
    if worst:
        row = max(worst, key=lambda row: abs(row.law.exponent) if row.law else -math.inf)
        exponent = row.law.exponent if row.law else math.nan
        sentence += f"; the steepest is {row.layer}, with exponent {signed(exponent)}"
    return sentence + "."


def _coordinates_title(check: CoordinateCheck) -> str:
    if check.passed:
        return "Every layer learns alike at every width"
    return f"{len(check.failed_layers)} layer(s) change their pace with width"


def _memory_words(plan: TargetMemory, schedule: Schedule, cost: Cost) -> tuple[str, str]:
    account, frontier = plan.account, plan.frontier
    slower = schedule.total_seconds / min(point.total_seconds for point in frontier.points)
    share = schedule.peak_bytes / frontier.store_all_bytes
    sees = (
        f"Each point is the fastest plan of the blocks for its bytes, from store-all "
        f"({bytes_words(frontier.store_all_bytes)}) down to the least possible "
        f"({bytes_words(frontier.floor_bytes)}). The chosen one needs {percent(share, 0)} of "
        f"store-all's bytes and {percent(slower - 1)} more time: {schedule.forwards} forwards of "
        f"{schedule.length} blocks"
    )
    if account.budget_bytes is not None:
        sees += (
            f"; the line is what a budget of {bytes_words(account.budget_bytes)} leaves for the "
            f"blocks, {bytes_words(account.activation_budget_bytes)}"
        )
    false = (
        "A fixed policy below the curve would show that the plans are not optimal. An independent "
        f"replay of the chosen plan finds a peak of {bytes_words(cost.peak_bytes)}, at "
        f"{cost.peak_stage or 'no stage'}; one above the line would show it over budget."
    )
    return sees + ".", false
