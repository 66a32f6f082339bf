"""Trains several models of one width as one stack, under ``torch.func.vmap``.

Small models leave a core waiting for the next kernel to start; k of them as one batched model pay
that wait once. Losses equal those of one-by-one training to rounding, not to the bit.

Shapes: k models, p parameters of one model.
"""

import time
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.utils import _pytree as pytree

from thetaone.records import Task, Trial, TrialSpec
from thetaone.sweeps._trials import (
    MakeOptimizer,
    batches_of,
    count_parameters,
    divergence,
    make_trial,
    seeded,
)
from thetaone.sweeps.engines._stacked_update import NotStackableError, make_update, read_hypers


class Stack:
    """k models of one width whose parameters are the rows of one matrix.

    Raises:
        NotStackableError: Their optimizers, shapes or dtypes do not allow it.
    """

    def __init__(
        self, task: Task, specs: Sequence[TrialSpec], make_optimizer: MakeOptimizer
    ) -> None:
        models, optimizers = [], []
        for spec in specs:
            with seeded(spec.seed):
                models.append(task.model(spec.width))
                optimizers.append(make_optimizer(models[-1], spec.width, spec.lr))
        self.n_parameters = count_parameters(models[0])
        self._p_kp = torch.stack([_flat(model) for model in models])
        self._update = make_update(read_hypers(models, optimizers), self._p_kp)
        self._views = _views(models[0], self._p_kp)
        self._fixed = {
            name: torch.stack([dict(_fixed(model))[name] for model in models])
            for name, _ in _fixed(models[0])
        }
        self._loss = _loss_of(task, models[0])

    def step(self, batch: Any, *, shared: bool) -> Tensor:
        """One step of descent of every model; the losses before it, [k].

        Args:
            batch: One batch for all, or (not ``shared``) batches stacked along a new first axis.
            shared: Whether all models see the same batch.
        """
        losses_k = vmap(self._loss, in_dims=(0, 0, None if shared else 0))(
            self._views, self._fixed, batch
        )
        gradients = torch.autograd.grad(losses_k.sum(), list(self._views.values()))
        with torch.no_grad():
            self._update(self._p_kp, torch.cat([g.flatten(1) for g in gradients], dim=1))
        return losses_k.detach()


def train_stack(
    task: Task, specs: Sequence[TrialSpec], make_optimizer: MakeOptimizer
) -> list[Trial]:
    """Train the specs (one width, one number of steps) as one stack.

    A model that diverges stays in the stack, where it touches no other, and its record ends there.

    Raises:
        NotStackableError: The models cannot be trained as one stack; says why.
    """
    started = time.perf_counter()
    losses: list[list[float]] = [[] for _ in specs]
    reasons = [""] * len(specs)
    with stackable():
        stack = Stack(task, specs, make_optimizer)
        shared, draw = batch_source(task, specs)
        for _ in range(specs[0].n_steps):
            for index, loss in enumerate(stack.step(draw(), shared=shared).tolist()):
                if not reasons[index]:
                    losses[index].append(loss)
                    reasons[index] = divergence(losses[index])
            if all(reasons):
                break
    share = (time.perf_counter() - started) / len(specs)
    return [
        make_trial(
            spec, losses[index], reason=reasons[index], wall_seconds=share,
            n_parameters=stack.n_parameters,
        )
        for index, spec in enumerate(specs)
    ]  # fmt: skip


def batch_source(task: Task, specs: Sequence[TrialSpec]) -> tuple[bool, Callable[[], Any]]:
    """Whether the specs share their batches, and a function that draws the next for all.

    Each seed's batches are drawn once, however many models see them.
    """
    seeds = list(dict.fromkeys(spec.seed for spec in specs))
    streams = {spec.seed: batches_of(task, spec) for spec in specs}
    if len(seeds) == 1:
        return True, lambda: next(streams[seeds[0]])

    def draw() -> Any:
        batches = {seed: next(stream) for seed, stream in streams.items()}
        return pytree.tree_map(
            lambda *leaves: torch.stack(leaves), *(batches[spec.seed] for spec in specs)
        )

    return False, draw


class stackable:
    """Turns what vmap cannot do, or can do only slowly, into ``NotStackableError``."""

    def __enter__(self) -> None:
        self._caught = warnings.catch_warnings()
        self._caught.__enter__()
        warnings.filterwarnings("error", message="There is a performance drop")

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        self._caught.__exit__(kind, error, trace)
        if isinstance(error, RuntimeError | UserWarning | TypeError | ValueError):
            first = (str(error).strip() or type(error).__name__).splitlines()[0].split(". ")[0]
            raise NotStackableError(f"vmap cannot batch this model: {first}") from error


def _loss_of(task: Task, model: nn.Module) -> Callable[[Any, Any, Any], Tensor]:
    """``loss(parameters, fixed, batch)`` of the task, with the model's tensors passed in."""
    holder = _Loss(task, model)
    return lambda parameters, fixed, batch: functional_call(holder, (parameters, fixed), (batch,))


class _Loss(nn.Module):
    """The task's loss as a module, so that ``functional_call`` reaches all it touches."""

    def __init__(self, task: Task, model: nn.Module) -> None:
        super().__init__()
        self._task = task
        self.model = model

    def forward(self, batch: Any) -> Tensor:
        return self._task.loss(self.model, batch)


def _flat(model: nn.Module) -> Tensor:
    trained = [p.detach() for p in model.parameters() if p.requires_grad]
    if len({p.dtype for p in trained}) != 1:
        raise NotStackableError("parameters of several dtypes")
    return torch.cat([p.flatten() for p in trained])


def _views(model: nn.Module, p_kp: Tensor) -> dict[str, Tensor]:
    """Leaves ``[k, *shape]`` that share memory with the matrix, by name in the holder."""
    views: dict[str, Tensor] = {}
    start = 0
    for name, p in model.named_parameters():
        if p.requires_grad:
            view = p_kp[:, start : start + p.numel()].view(len(p_kp), *p.shape)
            views[f"model.{name}"] = view.detach().requires_grad_()
            start += p.numel()
    return views


def _fixed(model: nn.Module) -> list[tuple[str, Tensor]]:
    """Buffers, and parameters that are not trained, by name in the holder."""
    frozen = [(n, p.detach()) for n, p in model.named_parameters() if not p.requires_grad]
    return [(f"model.{name}", tensor) for name, tensor in [*frozen, *model.named_buffers()]]
