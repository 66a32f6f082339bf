"""The result of one `transfer`: rate, proof, memory, the trained target, and what it all cost."""

import math
from typing import ClassVar

from pydantic import Field

from thetaone.records._base import Record
from thetaone.records._units import format_bytes, format_seconds
from thetaone.records._words import interval_words
from thetaone.records.laws import LawResult
from thetaone.records.parametrization import CoordinateCheck, Prescription
from thetaone.records.rematerialization import MemoryPlan
from thetaone.records.studies._levels import LevelVerdict
from thetaone.records.studies._recipe import Recipe
from thetaone.records.studies._tuned import TunedOption
from thetaone.records.sweeps import SweepResult, Trial

FARTHEST = 8  # times narrower: beyond, rates missed by up to 0.7 octaves (bench_anchor)


class MemoryAccount(Record):
    """Where the bytes of one training step of the target go.

    Attributes:
        budget_bytes: What the user allows for all of training; None: no limit [bytes].
        weights_bytes: Parameters and buffers [bytes].
        gradients_bytes: Gradients of the parameters that train [bytes].
        optimizer_bytes: State of the optimizer after its first step [bytes].
        outside_bytes: What else is there at the peak (embedding, head, loss, batch, temporaries of
            the optimizer); negative where gradients are not all there yet when it is reached.
        activation_budget_bytes: What is left for the chain: the planner's budget [bytes].
        predicted_peak_bytes: All of these with the schedule's own peak, from trial steps [bytes].
        measured_peak_bytes: Largest sum of live storages over the whole target run [bytes].
        store_all_bytes: The same peak without rematerialization, predicted [bytes].
    """

    budget_bytes: int | None
    weights_bytes: int
    gradients_bytes: int
    optimizer_bytes: int
    outside_bytes: int
    activation_budget_bytes: int
    predicted_peak_bytes: int
    measured_peak_bytes: int
    store_all_bytes: int

    @property
    def within_budget(self) -> bool:
        """Whether the measured peak kept the user's budget; true without one."""
        return self.budget_bytes is None or self.measured_peak_bytes <= self.budget_bytes


class GradientComparison(Record):
    """Gradients of one batch under rematerialization against store-all.

    Attributes:
        n_tensors: Parameters compared [count].
        n_equal: Of these, bitwise equal [count].
        largest_difference: Largest absolute difference of any entry.
    """

    n_tensors: int
    n_equal: int
    largest_difference: float

    @property
    def bitwise_equal(self) -> bool:
        """Whether every gradient is the same to the last bit."""
        return self.n_equal == self.n_tensors


class TargetMemory(MemoryPlan):
    """The target's memory plan, the account of all bytes, and its gradients under the plan.

    Attributes:
        account: Bytes of everything, predicted and measured.
        gradients: Rematerialized against store-all, on one batch.
    """

    version: ClassVar[int] = 1

    account: MemoryAccount
    gradients: GradientComparison


class DirectSweepCost(Record):
    """Cost of finding the rate by transfer, against sweeping the same grid at the target width.

    The target's one final training is left out of both sides. The direct side is an estimate: the
    target's measured seconds per step and counted FLOPs, times the trials of the same grid.

    Attributes:
        transfer_seconds: Wall time of the sweep that chose the rate [s].
        transfer_flops: Floating-point operations of that sweep [FLOP].
        direct_seconds: Estimated wall time of the grid at the target, same processes [s].
        direct_flops: Floating-point operations of the grid at the target [FLOP].
        n_trials: Trials of the grid at one width: rates × seeds [count].
    """

    transfer_seconds: float
    transfer_flops: float
    direct_seconds: float
    direct_flops: float
    n_trials: int

    @property
    def times_less_time(self) -> float:
        """How many times less wall time transfer takes."""
        return self.direct_seconds / self.transfer_seconds if self.transfer_seconds else math.nan

    @property
    def times_less_compute(self) -> float:
        """How many times less compute transfer takes."""
        return self.direct_flops / self.transfer_flops if self.transfer_flops else math.nan


class TransferResult(Record):
    """Everything that the report shows.

    Attributes:
        task: Name of the task.
        optimizer: Name of the optimizer.
        command: How to get this result again.
        base_width: Width whose learning rate is transferred.
        target_width: Width of the model trained at the end.
        chosen_lr: The transferred learning rate.
        mup: Sweep in the maximal update parametrization.
        sp: Sweep in the standard parametrization; its base-width trials are those of ``mup``.
        check_mup: Coordinate check of the maximal update parametrization.
        check_sp: Coordinate check of the standard parametrization.
        prescription: What every parameter gets: of the target where it is rescaled, else of the
            smallest model swept, which is scaled to predict the target.
        recipe: How to train the target; None in results of before.
        levels: Verdicts on the level of the loss.
        tuned: Options of the optimizer that were tuned with the rate.
        memory: The target's memory plan; None when the model has no chain of blocks.
        memory_note: Why there is no plan; empty when there is one.
        target: The target's training.
        evaluation: The task's own ``evaluate`` of the trained target; None when it has none.
        cost: Against a direct sweep.
        laws: The laws, measured on this machine.
        environment: Versions, machine, threads.
        wall_seconds: Wall time of the whole job [s].
        started: When it began, ISO 8601.
    """

    renderer: ClassVar[str] = "thetaone.report.figures._plots:transfer"

    task: str
    optimizer: str
    command: str
    base_width: int
    target_width: int
    chosen_lr: float
    mup: SweepResult
    sp: SweepResult
    check_mup: CoordinateCheck
    check_sp: CoordinateCheck
    prescription: Prescription
    recipe: Recipe | None = None
    levels: tuple[LevelVerdict, ...] = ()
    tuned: tuple[TunedOption, ...] = ()
    memory: TargetMemory | None
    memory_note: str = ""
    target: Trial
    evaluation: float | None = None
    cost: DirectSweepCost
    laws: tuple[LawResult, ...] = ()
    environment: dict[str, str] = Field(default_factory=dict[str, str])
    wall_seconds: float
    started: str

    def __str__(self) -> str:
        return "\n".join(f"{label:<21} {text}" for label, text in summary_lines(self))


def saving(times_less: float) -> str:
    """How many times less, or more, in words.

    Examples:
        >>> saving(20.0), saving(0.25)
        ('20.0× less', '4.0× more')
    """
    if not 0 < times_less < math.inf:
        return "unknown times less"
    return f"{times_less:.1f}× less" if times_less >= 1 else f"{1 / times_less:.1f}× more"


def summary_lines(result: TransferResult) -> list[tuple[str, str]]:
    """The lines a reader needs, the first one what to do: label and text."""
    mup, sp, cost = result.mup, result.sp, result.cost
    penalty = max(mup.penalties.values(), default=float("nan"))
    return [
        ("what to do", advice(result)),
        ("learning rate", f"{result.chosen_lr:.3g} (2^{math.log2(result.chosen_lr):.2f})"),
        *((f"tuned {option.name}", str(option)) for option in result.tuned),
        *((f"level {level.verdict}", _level_line(level)) for level in result.levels),
        ("µP", str(mup.drift or "no drift: fewer than two optima")),
        ("SP", str(sp.drift or "no drift: fewer than two optima")),
        ("transfer penalty", f"{penalty:.2%} at worst over {mup.axis}s {_join(mup.sizes)} (µP)"),
        ("coordinate check µP", result.check_mup.outcome),
        ("coordinate check SP", result.check_sp.outcome),
        ("memory", _memory_line(result)),
        ("target", f"width {result.target_width}: loss {result.target.final_loss:.4f}"),
        (
            "cost of the rate",
            f"{saving(cost.times_less_compute)} compute, {saving(cost.times_less_time)} time "
            f"than the same grid at width {result.target_width} (estimated)",
        ),
        ("time", format_seconds(result.wall_seconds)),
    ]


def advice(result: TransferResult) -> str:
    """What to do with the answer, in one line."""
    rate = f"{result.chosen_lr:.3g}"
    recipe = result.recipe
    if recipe is not None:
        rate += _ends(*recipe.lr_interval)
    optimum = result.mup.optima.get(max(result.mup.optima, default=0))
    if optimum is not None and optimum.at_edge:
        rate += " (the edge of the grid: sweep further before you trust it)"
    if (times := _times_narrower(result)) > FARTHEST:
        rate += (
            f" (the widest small model is {times:g} times narrower: sweep width "
            f"{math.ceil(result.base_width / FARTHEST)} or more before you trust it)"
        )
    if recipe is None or recipe.plain:
        return f"train your model as it is, at rate {rate}"
    return f"train your model by recipe.json, at rate {rate}"


def _ends(low: float, high: float) -> str:
    """The interval of a rate in brackets; nothing where no end is known.

    Examples:
        >>> _ends(0.001, 0.004), _ends(0.0, 0.004), _ends(0.0, math.inf)
        (' (0.001 to 0.004)', ' (at most 0.004)', '')
    """
    if low <= 0 and not math.isfinite(high):
        return ""
    words = interval_words(low or -math.inf, high, ".2g")
    return f" ({words.strip('[]').replace(', ', ' to ')})"


def _times_narrower(result: TransferResult) -> float:
    """The width at which rates are meant over the widest proxy's; 1 where depth alone grows."""
    return result.base_width / max(trial.width for trial in result.mup.trials)


def _level_line(level: LevelVerdict) -> str:
    text = (
        f"{level.claim}: loss {level.loss:.4f} ({level.what}) against {level.reference:.4f} "
        f"({level.against})"
    )
    return f"{text}; {level.advice}" if level.advice else text


def _memory_line(result: TransferResult) -> str:
    if result.memory is None:
        return result.memory_note
    account = result.memory.account
    text = f"measured peak {format_bytes(account.measured_peak_bytes)}"
    if account.budget_bytes is not None:
        kept = "within" if account.within_budget else "OVER"
        text += f", {kept} the budget of {format_bytes(account.budget_bytes)}"
    equal = "bitwise equal" if result.memory.gradients.bitwise_equal else "NOT bitwise equal"
    return f"{text}; store-all {format_bytes(account.store_all_bytes)}; gradients {equal}"


def _join(items: tuple[object, ...]) -> str:
    return ", ".join(map(str, items))
