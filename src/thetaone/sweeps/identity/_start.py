"""What a trial starts from: model, optimizer, hooks, first batches, and the first two losses.

Two sweeps train the same when they start from the same bytes under the same code. The bytes are
read here, from what the recipe has left; the code is in the task's fingerprint.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from thetaone._contents import contents_digest, tensor_digest
from thetaone.errors import TaskError, blamed_on_task
from thetaone.records import AxisValues, TrialSpec
from thetaone.sweeps._generators import seeded
from thetaone.sweeps._trials import Descent, Work, build_model

PROBE_LR = 2.0**-10  # one rate for all: a larger grid finds the trials of a smaller one again
N_BATCHES = 2
_END = object()
_LABELS = {"params", "param_names", "name", "initial_lr", "lr_factor"}  # no update reads them


@dataclass(frozen=True, slots=True, order=True)
class Place:
    """What trials that start alike have in common."""

    width: int
    depth: int | None
    seed: int
    axes: AxisValues


@dataclass(frozen=True, slots=True)
class Start:
    """What a trial of one width and seed starts from.

    Attributes:
        digest: Of weights, hyperparameters, hooks and first batches.
        losses: Of step 0 and step 1 at ``PROBE_LR``.
        shapes: Of the parameters.
    """

    digest: str
    losses: tuple[float, ...]
    shapes: tuple[tuple[int, ...], ...] = ()


def place_of(spec: TrialSpec) -> Place:
    """What trials that start like a spec's have in common."""
    return Place(spec.width, spec.depth, spec.seed, spec.axes)


def start_of(work: Work, spec: TrialSpec, *, task_name: str) -> Start:
    """Build what a spec's width and seed start from, and take two steps.

    Raises:
        TaskError: A part of the task raises, its batches are missing, or its loss is not one.
    """
    name = f"task {task_name} at width {spec.width}, seed {spec.seed}"
    digest = hashlib.sha256()
    losses: list[float] = []
    with seeded(spec.seed):
        with blamed_on_task(f"model of {name}"):
            model = build_model(work.task, spec)
        with blamed_on_task(f"the optimizer's recipe for {name}"):
            optimizer = _at_probe_rate(work, model, spec)
        digest.update(_set_up(model, optimizer, work).encode())
        descent = Descent(work, model, optimizer, spec.n_steps)
        with blamed_on_task(f"batches of {name}"):
            stream = iter(work.task.batches(spec.seed))
        for step in range(min(N_BATCHES, spec.n_steps)):
            with blamed_on_task(f"batches of {name}"):
                batch = next(stream, _END)
            if batch is _END and step == 0:
                raise TaskError(f"batches({spec.seed}) of task {task_name} yields nothing")
            if batch is _END:
                break  # too few: the trial says so, with the number of steps
            digest.update(contents_digest(batch).encode())
            with blamed_on_task(f"loss of {name}"):
                losses.append(descent.step(batch))
    shapes = tuple(tuple(p.shape) for p in model.parameters())
    return Start(digest.hexdigest()[:32], tuple(losses), shapes)


def _at_probe_rate(work: Work, model: nn.Module, spec: TrialSpec) -> torch.optim.Optimizer:
    """The optimizer at the common rate; at the spec's own when the recipe knows only some rates."""
    try:
        return work.optimizer(model, spec, PROBE_LR)
    except (KeyError, IndexError):
        return work.optimizer(model, spec, spec.lr)


def _set_up(model: nn.Module, optimizer: torch.optim.Optimizer, work: Work) -> str:
    """Digest of everything that the recipe left."""
    state = [(name, value) for name, value in sorted(model.state_dict().items())]
    tensors = [
        (name, tensor_digest(value) if isinstance(value, torch.Tensor) else value)
        for name, value in state
    ]
    trained = [name for name, p in model.named_parameters() if p.requires_grad]
    return contents_digest(
        tensors, trained, _hyperparameters(model, optimizer), _hooks(model, optimizer),
        f"{type(optimizer).__module__}.{type(optimizer).__qualname__}",
        work.loop.model_dump_json(indent=2), optimizer.state_dict()["state"],
    )  # fmt: skip


def _hyperparameters(model: nn.Module, optimizer: torch.optim.Optimizer) -> list[Any]:
    """Each parameter with its options, however they are grouped; unnamed ones by their place."""
    names = {id(p): name for name, p in model.named_parameters()}
    listed: list[Any] = []
    for index, group in enumerate(optimizer.param_groups):
        options = [(key, group[key]) for key in sorted(group) if key not in _LABELS]
        listed += [
            (names.get(id(p), f"{index}.{place}"), options)
            for place, p in enumerate(group["params"])
        ]
    return sorted(listed, key=lambda entry: entry[0])


def _hooks(model: nn.Module, optimizer: torch.optim.Optimizer) -> list[Any]:
    """Everything that hangs on optimizer, modules and parameters and acts in a step."""
    replaced = [
        value for key, value in vars(optimizer).items() if callable(value) and key == "step"
    ]
    holders: list[Any] = [optimizer, *model.modules(), *model.parameters()]
    return [
        *replaced,
        *(
            list(value.values())
            for holder in holders
            for key, value in sorted(_attributes(holder).items())
            if "hook" in key and isinstance(value, Mapping) and value
        ),
    ]


def _attributes(holder: Any) -> dict[str, Any]:
    if isinstance(holder, torch.Tensor):
        names = ("_backward_hooks", "_post_accumulate_grad_hooks")
        return {name: getattr(holder, name, None) for name in names}
    return vars(holder)
