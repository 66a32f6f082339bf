"""The sections of a report: what one sees, in sentences that the numbers bear out."""

import math

from thetaone.records import (
    FEATURE_UPDATE,
    CoordinateCheck,
    Cost,
    Drift,
    Frontier,
    FrontierPoint,
    Schedule,
    TargetMemory,
    TransferResult,
    counted,
    listed,
)
from thetaone.report.drawing import between, bytes_words, clock, percent, signed
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
    axis, reference = mup.axis, mup.reference_size
    sees = (
        f"Each point is the mean over {counted(seeds, 'seed')} of the loss at the end of "
        f"training; the star is the fitted minimum of its {axis}, the dotted line the minimum at "
        f"{axis} {reference}. SP is on the left: {_moves(result.sp.drift)}. "
        f"µP is on the right: {_moves(mup.drift)}, "
        f"and training every {axis} at that line costs at most {percent(worst_penalty(result))} "
        "of loss."
    )
    return Section(
        key="figure-1",
        nav="Learning rate",
        title="Loss against learning rate",
        text=(Paragraph(text=sees),),
        blocks=(learning_rate_figure([result.sp, mup]),),
    )


def drift_section(result: TransferResult) -> Section:
    """Best rate against width."""
    mup, sp = result.mup.drift, result.sp.drift
    if mup is None or sp is None:
        sees = "A drift needs two sizes with a best rate; at least one side has fewer."
    else:
        sees = (
            f"The same minima against width: {signed(mup.octaves)} octaves in µP (95 % interval "
            f"{between(*mup.interval)}), {signed(sp.octaves)} in SP ({between(*sp.interval)}). "
            f"The strip is half an octave to either side of µP's best rate at {mup.axis} "
            f"{result.mup.reference_size}: the line of µP {_stays(mup)} it, that of SP "
            f"{_stays(sp)} it."
        )
    figure = drift_figure([result.mup, result.sp])
    return Section(
        key="drift-of-the-rate",
        nav="Drift",
        title="How far the best rate moves",
        text=(Paragraph(text=sees),),
        blocks=(figure,),
    )


def coordinates_section(result: TransferResult) -> Section:
    """Coordinate checks, µP beside SP."""
    mup, sp = result.check_mup, result.check_sp
    sees = (
        f"After {counted(mup.steps[-1], 'step')}, how far each layer's output has moved (RMS), "
        f"at {mup.axis}s {', '.join(map(str, mup.sizes))}; of layers alike the furthest from Θ(1); "
        f"squares are input layers, circles hidden, diamonds "
        f"output, triangles vectors, crosses what fails. {_failures(mup, 'µP')} "
        f"{_failures(sp, 'SP')}"
    )
    false = (
        "A layer whose update grows with width, or shrinks together with what its own weights do "
        "to it, fails when its exponent's interval is clear of the band around zero. The same "
        f"check {'passes SP too: here it does not tell them apart' if sp.passed else 'fails SP'}. "
        "It judges feature update, own update, "
        "weight norm, update norm and alignment of every layer."
    )
    checks = [sp, mup]  # SP left, as in the figure above
    return Section(
        key="coordinates",
        nav="Coordinate check",
        title=coordinates_title(mup),
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
    if result.memory is not None:
        account, gradients = result.memory.account, result.memory.gradients
        deviation = account.measured_peak_bytes / account.predicted_peak_bytes - 1
        sees += (
            f" The measured peak is {signed(100 * deviation, 1)} % from the predicted one, and "
            f"{gradients.n_equal} of {gradients.n_tensors} gradients equal those of store-all to "
            "the last bit."
        )
        sees += f" The largest difference of any entry is {gradients.largest_difference:g}."
        blocks.append(account_figure(account))
    return Section(
        key="target",
        nav="Target",
        title=f"The target: width {target.width}, trained once",
        text=(Paragraph(text=sees),),
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
    if not check.failures:
        return f"In {name} the check is {check.outcome}."
    sentence = f"In {name} these fail: {listed(check.failed_layers)}"
    if worst:
        row = max(worst, key=lambda row: abs(row.law.exponent) if row.law else -math.inf)
        exponent = row.law.exponent if row.law else math.nan
        sentence += f"; the steepest is {row.layer}, with exponent {signed(exponent)}"
    return sentence + "."


def coordinates_title(check: CoordinateCheck) -> str:
    """The finding of a coordinate check in a line."""
    if check.passed:
        return f"Every layer learns alike at every {check.axis}"
    if not check.failures:
        return f"These seeds do not tell whether every layer learns alike at every {check.axis}"
    changing = len(check.failed_layers)
    return (
        f"{counted(changing, 'layer')} {'changes its' if changing == 1 else 'change their'} pace "
        + (f"with {check.axis}")
    )


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
    below = [policy for policy in frontier.policies if _beats(policy, frontier)]
    policies = ", ".join(policy.label for policy in below) or "none"
    within = "above" if cost.peak_bytes > schedule.peak_bytes else "as planned"
    replay = (
        f"Fixed policies below the curve: {policies}, of {len(frontier.policies)}. An independent "
        f"replay of the chosen plan finds a peak of {bytes_words(cost.peak_bytes)}, at "
        f"{cost.peak_stage or 'no stage'}: {within}."
    )
    return sees + ".", replay


def _beats(policy: FrontierPoint, frontier: Frontier) -> bool:
    """Whether no plan within a policy's bytes is as fast as the policy."""
    within = [p.total_seconds for p in frontier.points if p.peak_bytes <= policy.peak_bytes]
    return policy.total_seconds < min(within, default=math.inf) * (1 - 1e-9)


def _moves(drift: Drift | None) -> str:
    """What the minima do, in words that the drift bears out."""
    if drift is None or not math.isfinite(drift.octaves):
        return "its minima are not known"
    if abs(drift.octaves) <= TOLERANCE_OCTAVES:
        return f"its minima stay, within {abs(drift.octaves):.2f} octaves"
    way = "left" if drift.octaves < 0 else "right"
    return f"its minima move {way} by {abs(drift.octaves):.2f} octaves as {drift.axis} grows"


def _stays(drift: Drift) -> str:
    return "stays in" if abs(drift.octaves) <= TOLERANCE_OCTAVES else "leaves"
