"""The recipe of a transfer: written from a settled request, and what its methods do to a model."""

import functools
import importlib
import re
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from pydantic import JsonValue, TypeAdapter, ValidationError
from torch import nn

from thetaone.errors import InputError, UnknownOptimizerError
from thetaone.parametrization import (
    Parametrization,
    build_model,
    optimizer_class,
    parametrize,
    read_members,
)
from thetaone.records import (
    GroupRate,
    OptimizerChoice,
    Optimum,
    Recipe,
    Schedule,
    TrainingLoop,
)
from thetaone.rematerialization import plan, profile, rematerialize
from thetaone.studies.request import Request, Size

SHOWN = ("weight_decay", "eps", "betas", "momentum")  # options of a group beside its rate
_JSON: TypeAdapter[Any] = TypeAdapter(JsonValue)


def write_recipe(
    request: Request,
    parametrization: Parametrization,
    target: Size,
    optimum: Optimum,
    *,
    n_steps: int,
    memory: Schedule | None,
    measured_on: Mapping[str, str],
) -> Recipe:
    """The recipe of a target whose rate was found.

    Args:
        request: What was swept.
        parametrization: Of the request, µP.
        target: The large model's size.
        optimum: Where the best rate was found.
        n_steps: Steps of the target's training [count].
        memory: Schedule of its blocks.
        measured_on: What the rate was found on.

    Raises:
        InputError: An option of the optimizer cannot be written to JSON.
    """
    model = build_model(request.task, target.width, target.depth)
    if request.fixed:
        prescription = parametrization.prescription_at(model, request.fixed)
    else:
        prescription = parametrization.prescription(model)
    assert prescription is not None  # that of µP
    low, high = optimum.interval
    recipe = Recipe(
        task=request.task.name, reference=request.task.reference, width=target.width,
        depth=target.depth, seed=request.seeds[0], n_steps=n_steps, lr=2.0**optimum.log2_lr,
        lr_interval=(2.0**low, 2.0**high), base_width=request.base.width,
        optimizers=_choices(request), prescription=prescription, loop=request.loop_of(n_steps),
        memory=memory if memory is not None and memory.regions else None,
        measured_on=dict(measured_on),
    )  # fmt: skip
    return recipe.model_copy(update={"groups": _groups(recipe_optimizer(recipe, model), model)})


def _choices(request: Request) -> dict[str, OptimizerChoice]:
    members = read_members(request.optimizer, request.options)
    return {
        role: OptimizerChoice(name=_name(member.cls), options=_written(member.options))
        for role, member in members.items()
    }


def _name(cls: type) -> str:
    """How the class is found again: by its name, or by its module."""
    try:
        named = optimizer_class(cls.__name__) is cls
    except UnknownOptimizerError:
        named = False
    return cls.__name__ if named else f"{cls.__module__}:{cls.__qualname__}"


def _written(options: Mapping[str, Any]) -> dict[str, JsonValue]:
    for name, value in options.items():
        try:
            _JSON.validate_python(list(value) if isinstance(value, tuple) else value)
        except ValidationError:
            raise InputError(
                f"{name}={value!r} of the optimizer cannot be written to recipe.json: pass a "
                "number, a text, a truth value or a list of them"
            ) from None
    return {k: list(v) if isinstance(v, tuple) else v for k, v in options.items()}


def recipe_optimizer(
    recipe: Recipe, model: nn.Module, *, rescale: bool | None = None
) -> torch.optim.Optimizer:
    """The optimizer of a model, as the recipe says; see ``Recipe.optimizer``."""
    mapping = {
        role: (_class(choice.name), {k: _read(v) for k, v in choice.options.items()})
        for role, choice in recipe.optimizers.items()
    }
    return parametrize(
        model, base=recipe.prescription, optimizer=mapping, lr=recipe.lr, rescale=rescale
    )


@dataclass(frozen=True)
class RecipeOptimizer:
    """Builds the optimizer of a recipe's target; a class, so that it can be pickled."""

    recipe: Recipe

    def __call__(self, model: nn.Module, width: int, lr: float) -> torch.optim.Optimizer:
        """The optimizer; the recipe says its rate, and the model is fresh."""
        return recipe_optimizer(self.recipe, model, rescale=True)


def _read(value: JsonValue) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _class(name: str) -> type[torch.optim.Optimizer]:
    module, colon, qualname = name.partition(":")
    if not colon:
        return optimizer_class(name)
    try:
        value: Any = importlib.import_module(module)
        for part in qualname.split("."):
            value = getattr(value, part)
    except (ImportError, AttributeError) as error:
        raise UnknownOptimizerError(
            f"the recipe's optimizer {name} cannot be imported: {error}. Put its class into a "
            "module that Python finds"
        ) from error
    return value


def _factor(loop: TrainingLoop, n_steps: int, step: int) -> float:
    """The factor of step ``step``, counted from 0; behind the last step the last one's."""
    return loop.factor(min(step, n_steps - 1), n_steps)


def recipe_scheduler(
    recipe: Recipe, optimizer: torch.optim.Optimizer
) -> torch.optim.lr_scheduler.LambdaLR:
    """The recipe's schedule on an optimizer; see ``Recipe.scheduler``."""
    # partial: it can be pickled, and LambdaLR puts nothing of it into its state, which must load
    # with weights_only
    factor = functools.partial(_factor, recipe.loop, recipe.n_steps)
    return torch.optim.lr_scheduler.LambdaLR(optimizer, factor)


def recipe_rematerialize(recipe: Recipe, model: nn.Module, sample: Any = None) -> nn.Module:
    """The model under the recipe's memory schedule; see ``Recipe.rematerialize``."""
    if recipe.memory is None:
        return model
    if sample is None:
        return rematerialize(model, recipe.memory)
    inputs = sample if isinstance(sample, tuple) else (sample,)
    budget = recipe.memory.budget_bytes or recipe.memory.peak_bytes
    return rematerialize(model, plan(profile(model, *inputs), budget=budget))


def _groups(optimizer: torch.optim.Optimizer, model: nn.Module) -> tuple[GroupRate, ...]:
    names = {id(p): name for name, p in model.named_parameters()}
    groups: list[GroupRate] = []
    for group in optimizer.param_groups:
        kinds: dict[str, int] = defaultdict(int)
        for p in group["params"]:
            kinds[re.sub(r"(^|\.)\d+(?=\.)", r"\1*", names[id(p)])] += p.numel()
        options = {name: group[name] for name in SHOWN if name in group}
        groups.append(
            GroupRate(
                optimizer=str(group.get("optimizer", type(optimizer).__name__)),
                lr=float(group["lr"]), options=_written(options),
                n_parameters=sum(kinds.values()), parameters=tuple(kinds),
            )
        )  # fmt: skip
    return tuple(groups)
