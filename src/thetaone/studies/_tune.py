"""What is tuned small beside the rate: options of the optimizer, and factors on values.

One after the other, each is swept over a few values with the rates around the best one, on every
proxy and seed. Another value is kept when, at the largest proxy, it is better by more than the
standard error of the paired seeds, is better at every other proxy too, and the best values of the
proxies lie within one step of each other: what moves with size is no answer for the target.

An option is a word of the optimizer's constructor, so a tuned target is plain PyTorch still. The
scale of initial values and the multipliers of readout, embedding and attention logits, folded into
values and rates, are parameter groups and a line that rescales: the recipe holds them.
"""

import math
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace

from thetaone.errors import InputError
from thetaone.parametrization import axis_options, axis_value, build_model, check_axes
from thetaone.records import Optimum, SweepResult, TunedOption, did_you_mean
from thetaone.studies.request import Request
from thetaone.sweeps import seeded

FACTORS = {  # as they are typed -> as an axis of a sweep calls them
    "init": "init_scale", "readout": "readout_multiplier", "embedding": "embedding_multiplier",
    "attention": "attention_multiplier",
}  # fmt: skip
VALUES: Mapping[str, tuple[float, ...]] = {
    "weight_decay": (0.0, 0.01, 0.03, 0.1, 0.3, 1.0),
    "beta1": (0.8, 0.9, 0.95),
    "beta2": (0.9, 0.95, 0.98, 0.99, 0.999),
    "momentum": (0.0, 0.5, 0.8, 0.9, 0.95),
    "eps": (1e-12, 1e-10, 1e-8, 1e-6),
    **dict.fromkeys(FACTORS.values(), (0.25, 0.5, 1.0, 2.0, 4.0)),
}
TRIALS = 500  # trainings of proxies that tuning may take, unless the caller says
STEPS_APART = 1  # of the values, between the best ones of two proxies that agree

Losses = Mapping[int, float]  # seed -> final loss


def check_names(request: Request, names: Sequence[str], budget: int) -> None:
    """Refuse what cannot be tuned, or not within the budget, before anything is trained.

    Raises:
        InputError: An unknown option, one that the optimizer has not, or too many trainings.
    """
    choices = [name for name in VALUES if name not in FACTORS.values()]
    for name in names:
        if name not in (*choices, *FACTORS):
            raise InputError(
                f"tune={name}: choose among {', '.join((*choices, *FACTORS))}"
                + did_you_mean(name, (*choices, *FACTORS))
            )
    axes = {FACTORS.get(name, name): VALUES[FACTORS.get(name, name)] for name in names}
    check_axes("mup", request.optimizer, axes)
    _require_parts(request, axes)
    if names and len(request.seeds) < 2:
        raise InputError(
            f"tune={', '.join(names)} with one seed: two or more are needed to tell a better value "
            "from luck, e.g. seeds 0,1,2"
        )
    needed = sum(
        len(_values(request, axis)) * 3 * len(request.seeds) * len(request.sizes) for axis in axes
    )
    if needed > budget:
        raise InputError(
            f"tune={', '.join(names)} takes {needed} trainings of the proxies and the budget is "
            f"{budget}: tune fewer options, sweep fewer widths or seeds, or raise tune_trials"
        )


def _require_parts(request: Request, axes: Mapping[str, Sequence[float]]) -> None:
    """Refuse a multiplier of weights that the smallest proxy has not."""
    factors = {axis: values for axis, values in axes.items() if axis in FACTORS.values()}
    if factors:
        size, ones = request.sizes[0], dict.fromkeys(factors, 1.0)
        parametrization = replace(request, axes=factors).parametrization("mup")
        with seeded(request.seeds[0]):
            model = build_model(request.task, size.width, size.depth)
            parametrization(model, size.width, request.lrs[0], **ones)


def typed(axes: Iterable[str]) -> list[str]:
    """How tuned axes are typed: ``init`` for ``init_scale``."""
    names = {axis: name for name, axis in FACTORS.items()}
    return [names.get(axis, axis) for axis in axes]


def tune(
    request: Request, names: Sequence[str], best: Optimum, run: Callable[[Request], SweepResult]
) -> tuple[Request, tuple[TunedOption, ...]]:
    """Tune options one after the other; each starts from those kept before it.

    Args:
        request: The transfer's.
        names: Options, as ``VALUES`` has them.
        best: The best rate at the largest proxy.
        run: Trains a request's sweep in µP.

    Returns:
        The request with the options that were kept, and what was seen of each.
    """
    seen: list[TunedOption] = []
    for name in (FACTORS.get(name, name) for name in names):
        axes = {**request.axes, name: _values(request, name)}
        around = replace(request, lrs=_rates(request.lrs, best), axes=axes, search="grid")
        option, best = judge(run(around), name, _current(request, name), best)
        if option.kept and name in FACTORS.values():
            request = replace(request, axes={**request.axes, name: (option.value,)})
        elif option.kept:
            options = axis_options(request.optimizer, request.options, {name: option.value})
            request = replace(request, options=options)
        seen.append(option)
    return request, tuple(seen)


def judge(
    result: SweepResult, name: str, current: float, best: Optimum
) -> tuple[TunedOption, Optimum]:
    """Whether another value of an option is better, and stays so with size.

    Args:
        result: Sweep over the option's values.
        name: The option.
        current: Its value so far.
        best: The best rate so far, at the largest proxy.

    Returns:
        What was seen, and the best rate with the value that is kept.
    """
    by_size = {size: _lowest(result, name, size) for size in result.sizes}
    largest = by_size[max(by_size)]
    value = min(largest, key=lambda one: _mean(largest[one]))
    gains = [largest[current][s] - largest[value][s] for s in largest[value]]
    gain, stderr = statistics.fmean(gains), statistics.stdev(gains) / math.sqrt(len(gains))
    lowest = {size: min(of, key=lambda one: _mean(of[one])) for size, of in by_size.items()}
    order = sorted(largest)
    apart = [order.index(lowest[size]) for size in by_size if lowest[size] in order]
    worse = [s for s, of in by_size.items() if _mean(of[value]) > _mean(of[current])]
    if value == current:
        why = "the best of them"
    elif not gain > stderr:
        why = "no other is better by more than its standard error"
    elif max(apart) - min(apart) > STEPS_APART:
        why = f"the best value moves with {result.axis}"
    elif worse:
        why = f"{value:g} is worse at {result.axis} {worse[0]}"
    else:
        why = ""
    kept = not why
    optima = next(c.optima for c in result.combinations if c.values[name] == value)
    option = TunedOption(
        name=name, before=current, value=value if kept else current, tried=tuple(order),
        best=lowest, gain=gain, stderr=stderr, kept=kept, why=why, n_trials=len(result.trials),
        axis=result.axis,
    )  # fmt: skip
    return option, optima.get(max(by_size), best) if kept else best


def _values(request: Request, name: str) -> tuple[float, ...]:
    return tuple(sorted({*VALUES[name], _current(request, name)}))


def _current(request: Request, name: str) -> float:
    if name in FACTORS.values():
        return 1.0
    return axis_value(request.optimizer, request.options, name)


def _rates(lrs: Sequence[float], best: Optimum) -> tuple[float, ...]:
    """The rate of the grid next to the best one, and its neighbours; three in all."""
    middle = min(range(len(lrs)), key=lambda i: abs(math.log2(lrs[i]) - best.log2_lr))
    first = min(max(middle - 1, 0), len(lrs) - 3)
    return tuple(lrs[first : first + 3])


def _lowest(result: SweepResult, name: str, size: int) -> dict[float, Losses]:
    """Value -> losses of every seed, at the rate of their lowest mean; inf where it diverged."""
    losses: dict[float, dict[float, dict[int, float]]] = {}
    for trial in result.trials:
        if result.size(trial) == size:
            of_value = losses.setdefault(trial.axes[name], {})
            score = trial.score(result.choose)
            of_value.setdefault(trial.lr, {})[trial.seed] = math.inf if math.isnan(score) else score
    return {value: min(rates.values(), key=_mean) for value, rates in losses.items()}


def _mean(losses: Losses) -> float:
    return math.fsum(losses.values()) / len(losses)
