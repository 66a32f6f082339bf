"""The head of a report: the finding, the numbers that carry it, and a verdict on each claim."""

import math

from thetaone.records import CoordinateCheck, Drift, TransferResult, saving
from thetaone.report.drawing import between, bytes_words, clock, percent, short_name, signed
from thetaone.report.figures import TOLERANCE_OCTAVES
from thetaone.report.page._answer import interval_words, level_verdict
from thetaone.report.page._contents import Cell, Fact, Table, Verdict


def transfers(drift: Drift | None) -> bool | None:
    """Whether all of the drift's interval lies within the tolerance; None where it does not tell.

    Examples:
        >>> transfers(None) is None
        True
    """
    if drift is None:
        return None
    low, high = drift.interval
    if low >= -TOLERANCE_OCTAVES and high <= TOLERANCE_OCTAVES:
        return True
    return False if low > TOLERANCE_OCTAVES or high < -TOLERANCE_OCTAVES else None


def headline(result: TransferResult) -> str:
    """The finding in one line, and honest when there is none."""
    rate, width = f"{result.chosen_lr:.3g}", tuned_width(result)
    drift = result.mup.drift
    failed = [level for level in result.levels if level.verdict == "fails"]
    if failed:
        return f"Learning rate {rate}, but not so: {failed[0].claim}. {failed[0].advice}"
    stays = transfers(drift)
    if drift is None or stays is None:
        return f"Learning rate {rate}, best at width {width}: not yet proved to transfer"
    if not stays:
        return f"The best learning rate moves with width: {rate} is best at width {width} only"
    return (
        f"The best learning rate stays at {rate} from width {drift.from_width} to {drift.to_width}"
    )


def lead(result: TransferResult) -> str:
    """Two sentences: the drift with and without the parametrization, and the target's memory."""
    mup, sp = result.mup.drift, result.sp.drift
    if mup is None or sp is None:
        first = "A drift needs a best rate at two sizes or more, and one side has fewer."
    else:
        first = (
            f"From {mup.axis} {mup.from_width} to {mup.to_width} the best rate moves by "
            f"{signed(mup.octaves)} octaves ({between(*mup.interval)}) in the maximal update "
            f"parametrization and by {signed(sp.octaves)} ({between(*sp.interval)}) in the "
            f"standard one.{_what_would_tell(mup)}"
        )
    n_parameters = f" ({result.target.n_parameters:,} parameters)"
    if result.target.status != "finished":
        return f"{first} The target of width {result.target_width}{n_parameters} did not finish."
    second = (
        f"The target of width {result.target_width}{n_parameters} was trained once, at this rate, "
        f"to a loss of {result.target.final_loss:.3f}"
    )
    if result.memory is not None and result.memory.account.budget_bytes is not None:
        account = result.memory.account
        second += (
            f", in {bytes_words(account.measured_peak_bytes)} of the "
            f"{bytes_words(account.budget_bytes or 0)} it was allowed"
        )
    return f"{first} {second}."


def facts(result: TransferResult) -> tuple[Fact, ...]:
    """The numbers of the headline."""
    entries = [
        Fact(
            label="Chosen learning rate",
            value=f"{result.chosen_lr:.3g}",
            note=f"log₂ {signed(math.log2(result.chosen_lr))}, best at width {tuned_width(result)}",
        ),
        drift_fact(result.mup.drift, "mup"),
        Fact(
            label="Transfer penalty",
            value=percent(worst_penalty(result)),
            note=f"excess loss at the best rate of {result.mup.axis} "
            f"{result.mup.reference_size}, at worst",
        ),
    ]
    if result.memory is not None:
        account = result.memory.account
        budget = "no budget" if account.budget_bytes is None else bytes_words(account.budget_bytes)
        entries.append(
            Fact(
                label="Peak memory",
                value=bytes_words(account.measured_peak_bytes),
                note=f"measured; budget {budget}; store-all {bytes_words(account.store_all_bytes)}",
            )
        )
    entries.append(
        Fact(
            label="Cost of the rate",
            value=saving(result.cost.times_less_compute),
            note=f"compute than the same grid at width {result.target_width}; "
            f"{saving(result.cost.times_less_time)} time (estimated)",
        )
    )
    final = result.target.final_loss
    evaluation = "" if result.evaluation is None else f"; evaluation {result.evaluation:.4g}"
    entries.append(
        Fact(
            label="Target loss",
            value=f"{final:.3f}" if math.isfinite(final) else result.target.status,
            note=f"width {result.target_width}, last fifth of the steps{evaluation}",
        )
    )
    return tuple(entries)


def verdicts(result: TransferResult) -> Table:
    """Each claim, what was measured, and whether it holds."""
    failing = result.check_mup.failures
    rows: list[tuple[Cell, ...]] = [
        (
            "µP: the best rate stays put",
            _drift_words(result.mup.drift),
            f"at most ±{TOLERANCE_OCTAVES:g} octave",
            _standing(transfers(result.mup.drift)),
        ),
        (
            "SP: the best rate falls with width",
            _drift_words(result.sp.drift),
            f"below −{TOLERANCE_OCTAVES:g} octave",
            _falls(result.sp.drift),
        ),
        (
            "µP: every layer's features move alike at every width",
            _check_words(result.check_mup),
            "no layer fails",
            _standing(True if result.check_mup.passed else False if failing else None),
        ),
        (
            "SP: the same check sees the difference",
            _check_words(result.check_sp),
            "some layer fails",
            _standing(
                True if result.check_sp.failures else False if result.check_sp.passed else None
            ),
        ),
        *(
            (
                _as_sentence(level.claim),
                interval_words(level),
                f"at most {level.tolerance:.3g}",
                level_verdict(level),
            )
            for level in result.levels
        ),
        *_memory_rows(result),
        *_law_rows(result),
    ]
    return Table(
        caption="Claims, measurements and verdicts",
        columns=("claim", "measured", "needed", "verdict"),
        rows=tuple(rows),
        style="wide stack",
    )


def tuned_width(result: TransferResult) -> int:
    """The widest small model with an optimum: its best rate is the one that is transferred."""
    return max(result.mup.optima)


def worst_penalty(result: TransferResult) -> float:
    """Largest relative excess loss at the base's best rate over the widths swept in µP."""
    return max(result.mup.penalties.values(), default=math.nan)


def _what_would_tell(drift: Drift) -> str:
    """A sentence where the interval leaves open whether the rate transfers; else nothing."""
    if transfers(drift) is not None:
        return ""
    if drift.bounded_only:
        return " An optimum lies on the edge of the grid: widen it to tell how far the rate moves."
    return (
        f" The interval reaches beyond {TOLERANCE_OCTAVES:g} octave: more seeds or steps would "
        "tell whether the rate stays."
    )


def drift_fact(drift: Drift | None, parametrization: str) -> Fact:
    """How far the best rate moved, with its interval."""
    label = f"Drift of the best rate ({short_name(parametrization)})"
    if drift is None:
        return Fact(label=label, value="–", note="fewer than two sizes have a best rate")
    note = f"octaves, {drift.axis} {drift.from_width} → {drift.to_width}"
    return Fact(
        label=label, value=signed(drift.octaves), note=f"{note}; {between(*drift.interval)}"
    )


def _drift_words(drift: Drift | None) -> str:
    if drift is None:
        return "fewer than two sizes have a best rate"
    words = f"{signed(drift.octaves)} octaves ({between(*drift.interval)}), "
    words += f"{drift.axis} {drift.from_width} → {drift.to_width}"
    return words + ("; edge of the grid" if drift.bounded_only else "")


def _as_sentence(claim: str) -> str:
    # µ has a capital that is another letter's: µP would read as MP.
    return claim if claim.startswith("µ") else claim[:1].upper() + claim[1:]


def _check_words(check: CoordinateCheck) -> str:
    layers = len({row.layer for row in check.rows})
    if check.passed:
        unsure = len(check.undecided)
        words = f", {unsure} of {len(check.rows)} rows undecided near their bands" if unsure else ""
        return f"{layers} of {layers} layers pass{words}"
    if not check.failures:
        return f"{check.outcome}, of {layers} layers"
    return f"{len(check.failed_layers)} of {layers} layers fail"


def _memory_rows(result: TransferResult) -> list[tuple[Cell, ...]]:
    if result.memory is None:
        return [("Memory is planned", result.memory_note, "a chain of blocks", _standing(None))]
    account, gradients = result.memory.account, result.memory.gradients
    budget = "none set" if account.budget_bytes is None else bytes_words(account.budget_bytes)
    return [
        (
            "The target trains within its budget",
            f"peak {bytes_words(account.measured_peak_bytes)}",
            budget,
            _standing(None if account.budget_bytes is None else account.within_budget),
        ),
        (
            "Rematerialization changes no gradient",
            f"{gradients.n_equal} of {gradients.n_tensors} tensors bitwise equal",
            "all",
            _standing(gradients.bitwise_equal),
        ),
    ]


def _law_rows(result: TransferResult) -> list[tuple[Cell, ...]]:
    if not result.laws:
        return []
    held = sum(law.passed for law in result.laws)
    total = len(result.laws)
    return [("The laws hold here", f"{held} of {total} hold", "all", _standing(held == total))]


def _falls(drift: Drift | None) -> Verdict:
    if drift is None:
        return _standing(None)
    low, high = drift.interval
    if high < -TOLERANCE_OCTAVES:
        return _standing(True)
    return _standing(False if low >= -TOLERANCE_OCTAVES else None)


def _standing(holds: bool | None) -> Verdict:
    if holds is None:
        return Verdict("open", "undecided")
    return Verdict("holds", "holds") if holds else Verdict("fails", "does not hold")


def duration(result: TransferResult) -> str:
    """When it was made and how long it took."""
    return f"{result.started[:16].replace('T', ' ')}, {clock(result.wall_seconds)}"
