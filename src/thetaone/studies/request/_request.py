"""What a sweep or a transfer is asked: the caller's words, the task's, and defaults, settled."""

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch

from thetaone.errors import InputError, TaskError, blamed_on_task
from thetaone.parametrization import (
    Parametrization,
    check_axes,
    make_parametrization,
    optimizer_name,
    prescribe,
    read_members,
)
from thetaone.records import Choose, TrainingLoop, TrialSpec, training_loop
from thetaone.studies.request._optimizer import choose_optimizer
from thetaone.sweeps import (
    combinations,
    grid,
    learning_rates,
    read_axes,
    seeded,
    whole_numbers,
)
from thetaone.tasks import LoadedTask, load_task

# For a task that says nothing: every octave that an Adam-like optimizer may want.
DEFAULTS: Mapping[str, Any] = {
    "lrs": tuple(2.0**power for power in range(-12, -1)),
    "seeds": (0, 1),
    "steps": 100,
}
LOOP = ("schedule", "clip", "precision", "accumulate")  # arguments of ``training_loop``

Rule = str | Callable[..., torch.optim.Optimizer]  # (model, width, lr, **axes)


@dataclass(frozen=True, order=True, slots=True)
class Size:
    """Width of a model, and its depth where the task has several."""

    width: int
    depth: int | None = None

    def __str__(self) -> str:
        return f"width {self.width}" + (f", depth {self.depth}" if self.depth else "")


@dataclass(frozen=True, kw_only=True)
class Request:
    """A settled question: every default filled in, every choice checked.

    Attributes:
        task: The task.
        sizes: What is swept, ascending.
        base: Where nothing is rescaled.
        lrs: Learning rates at the base.
        seeds: Seeds of initialization and batches.
        steps: Of each training [count].
        optimizer: Class, name or mapping.
        options: Of the optimizer's constructor.
        choices: Of ``prescribe``, those that were made.
        training: What a step does beside the optimizer's update: arguments of ``training_loop``.
        axes: Further axes, by name: values of each.
        search: ``"grid"`` or ``"auto"``.
        choose: What trials are compared by.
    """

    task: LoadedTask
    sizes: tuple[Size, ...]
    base: Size
    lrs: tuple[float, ...]
    seeds: tuple[int, ...]
    steps: int
    optimizer: Any
    options: dict[str, Any]
    choices: dict[str, Any]
    training: dict[str, Any]
    axes: dict[str, tuple[float, ...]] = field(default_factory=dict[str, tuple[float, ...]])
    search: str = "grid"
    choose: Choose = "loss"

    @property
    def loop(self) -> TrainingLoop:
        """What a step does beside the optimizer's update."""
        return self.loop_of(self.steps)

    def loop_of(self, n_steps: int) -> TrainingLoop:
        """The loop of a training of another length: a schedule spans all of its steps."""
        return training_loop(n_steps=n_steps, **self.training)

    @property
    def axis(self) -> Literal["width", "depth"]:
        """What grows from size to size; the width where both do."""
        widths, depths = ({getattr(s, axis) for s in self.sizes} for axis in ("width", "depth"))
        return "depth" if len(widths) == 1 and len(depths) > 1 else "width"

    @property
    def fixed(self) -> dict[str, float]:
        """The axes that have one value, such as a multiplier that was tuned."""
        return {name: values[0] for name, values in self.axes.items() if len(values) == 1}

    @property
    def optimizer_name(self) -> str:
        """Name for tables."""
        return optimizer_name(self.optimizer)

    def parametrization(self, rule: Rule = "mup") -> Parametrization:
        """Builds optimizers by a rule, from this request's base."""
        base = f"the base model of task {self.task.name} at {self.base}"
        with seeded(self.seeds[0]), blamed_on_task(base):  # a base may draw from any generator
            return self._make(rule)

    def _make(self, rule: Rule) -> Parametrization:
        check_axes(rule, self.optimizer, self.axes)
        choices = self.choices
        if self.base.depth is not None and "sample" not in choices:
            choices = {**choices, "sample": self._first_loss}
        return make_parametrization(
            rule, self.task, self.base.width, self.optimizer, {**choices, **self.options},
            depth=self.base.depth, other_width=self._other_width(), axes=self.axes,
        )  # fmt: skip

    def specs(self, label: str, sizes: Sequence[Size] | None = None) -> tuple[TrialSpec, ...]:
        """The trials of a parametrization: every size, combination of axes, rate and seed.

        Raises:
            InputError: An axis is out of range.
        """
        specs: list[TrialSpec] = []
        for size in self.sizes if sizes is None else sizes:
            at_width = grid(
                widths=[size.width], lrs=self.lrs, seeds=self.seeds, n_steps=self.steps,
                parametrization=label, base_width=self.base.width,
            )  # fmt: skip
            specs += [
                replace(s, depth=size.depth, rule=self._rule(s.rule, label, size), axes=values)
                for values in combinations(self.axes)
                for s in at_width
            ]
        return tuple(specs)

    def _rule(self, rule: str, label: str, size: Size) -> str:
        """A trial's rule: plain at the base, else with the base's depth where there is one."""
        if label != "mup" or self.base.depth is None:
            return rule
        return "sp" if size == self.base else f"mup from {self.base.width}×{self.base.depth}"

    def _other_width(self) -> int:
        """A width at which roles show, beside the base's."""
        others = [size.width for size in self.sizes if size.width != self.base.width]
        return others[0] if others else 2 * self.base.width

    def _first_loss(self, model: Any) -> Any:
        """The forward pass in which residual branches are found."""
        return self.task.loss(model, next(iter(self.task.batches(self.seeds[0]))))


def settle(
    task: Any,
    *,
    call: Callable[..., Any],
    axes: Mapping[str, Any],
    training: Mapping[str, Any],
    choices: Mapping[str, Any],
    options: Mapping[str, Any],
    base: Size | None = None,
    search: str = "grid",
    choose: str = "loss",
) -> Request:
    """Fill in what the caller leaves open: from the task, else from ``DEFAULTS``.

    Args:
        task: A task, in any form.
        call: The public function, for its name and arguments in messages.
        axes: ``widths``, ``depths``, ``lrs``, ``seeds``, ``steps``, ``axes``; None where open.
        training: ``optimizer`` and the names of ``LOOP``; None where open.
        choices: Choices of ``prescribe``.
        options: Of the optimizer's constructor.
        base: Where nothing is rescaled; None: the smallest size.
        search: ``"grid"`` or ``"auto"``.
        choose: What trials are compared by: ``"loss"`` or ``"evaluate"``.

    Returns:
        The request.

    Raises:
        InputError: An axis is empty or out of range, or an option is of no optimizer.
        TaskError: A part of the task is missing or wrong.
    """
    loaded = load_task(task)
    optimizer, taken = choose_optimizer(loaded, training.get("optimizer"), options)
    read_members(optimizer, taken, call=call)
    settled = _axes(loaded, axes)
    sizes = _sizes(loaded, settled["widths"], axes.get("depths"))
    base = sizes[0] if base is None else _checked_size(base)
    if base.depth is None and sizes[0].depth is not None:
        base = replace(base, depth=sizes[-1].depth)
    request = Request(
        task=loaded, sizes=sizes, base=base, lrs=settled["lrs"],
        seeds=settled["seeds"], steps=settled["steps"], optimizer=optimizer,
        options=taken, choices=made_choices(choices),
        training=settled_training(loaded, training),
        axes=read_axes(axes.get("axes")), search=_search(search), choose=_choose(loaded, choose),
    )  # fmt: skip
    request.loop_of(request.steps)  # refuses what is out of range
    return request


def _search(search: str) -> str:
    if search not in ("grid", "auto"):
        raise InputError(f"search={search!r}: choose 'grid' or 'auto'")
    return search


def _choose(task: LoadedTask, choose: str) -> Choose:
    if choose == "loss":
        return "loss"
    if choose != "evaluate":
        raise InputError(f"choose={choose!r}: choose 'loss' or 'evaluate'")
    if task.evaluate is None:
        raise InputError(
            f"choose='evaluate': task {task.name} has no evaluate; write "
            "def evaluate(model): return <held-out loss>, or leave choose out"
        )
    return "evaluate"


def _checked_size(size: Size) -> Size:
    """A target's or a base's size.

    Raises:
        InputError: Its width or depth is no whole number of 1 or more.
    """
    (width,) = whole_numbers("width of target or base", [size.width], least=1)
    depths = () if size.depth is None else whole_numbers("target_depth", [size.depth], least=1)
    return Size(width, *depths)


def settled_training(task: LoadedTask, training: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of ``training_loop``: the caller's, else the task's, those that one of them says.

    Args:
        task: The task.
        training: The caller's, by the names of ``LOOP``; None where open.
    """
    loop = {name: _said(training.get(name), task.training.get(name)) for name in LOOP}
    return {name: value for name, value in loop.items() if value is not None}


def _said(*answers: Any) -> Any:
    """The first answer that is one."""
    return next((answer for answer in answers if answer is not None), None)


_READ: Mapping[str, Callable[[Any], Any]] = {
    "widths": lambda value: whole_numbers("widths", value, least=1),
    "lrs": learning_rates,
    "seeds": lambda value: whole_numbers("seeds", value, least=0),
    "steps": lambda value: whole_numbers("steps", [value], least=1)[0],
}


def _axes(task: LoadedTask, axes: Mapping[str, Any]) -> dict[str, Any]:
    settled: dict[str, Any] = {}
    for name in ("widths", "lrs", "seeds", "steps"):
        value = _said(axes[name], task.defaults.get(name), DEFAULTS.get(name))
        if value is None:
            raise InputError(
                f"{name} is not given and task {task.name} has no default for it: "
                f"pass {name}=, or set defaults = {{{name!r}: ...}} in the task"
            )
        settled[name] = _READ[name](value)
    return settled


def _sizes(
    task: LoadedTask, widths: Sequence[int], depths: Iterable[int] | None
) -> tuple[Size, ...]:
    """Width by width; with depths every one of them at the one width, or one a width.

    Raises:
        InputError: Other numbers of depths than of widths, or a depth below 1.
        TaskError: The task's model takes no depth.
    """
    depths = () if depths is None else whole_numbers("depths", depths, least=1)
    if not depths:
        depth = task.training.get("depth")
        return tuple(Size(width, depth) for width in widths)
    require_depth(task)
    if len(widths) == 1:
        return tuple(Size(widths[0], depth) for depth in depths)
    if len(depths) == 1:
        return tuple(Size(width, depths[0]) for width in widths)
    if len(depths) != len(widths):
        raise InputError(
            f"depths={depths} for widths={widths}: pass one width, one depth, or as many depths as "
            "widths, which then grow together"
        )
    return tuple(Size(*pair) for pair in zip(widths, depths, strict=True))


def require_depth(task: LoadedTask) -> None:
    """Refuse depths for a task whose model takes none.

    Raises:
        TaskError: ``model`` has no second argument.
    """
    try:
        inspect.signature(task.model).bind(1, 1)
    except TypeError:
        raise TaskError(
            f"model of task {task.name} takes no depth: define model(width, depth) to sweep depths"
        ) from None


def made_choices(choices: Mapping[str, Any]) -> dict[str, Any]:
    """The choices of ``prescribe`` that differ from its defaults."""
    parameters = inspect.signature(prescribe).parameters
    return {name: value for name, value in choices.items() if value != parameters[name].default}
