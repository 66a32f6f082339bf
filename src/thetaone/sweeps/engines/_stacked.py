"""Trains several models of one width as one stack, under ``torch.func.vmap``.

Small models leave a core waiting for the next kernel to start; k of them as one batched model pay
that wait once. Losses equal those of one-by-one training to rounding, not to the bit.

Shapes: k models, p parameters of one model.
"""

import copy
import random
import re
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.utils import _pytree as pytree

from thetaone.errors import first_line
from thetaone.records import Task, Trial, TrialSpec
from thetaone.sweeps._generators import GeneratorStates, seeded
from thetaone.sweeps._trials import (
    Stream,
    Work,
    count_parameters,
    divergence,
    make_trial,
    precision,
    split_batch,
)
from thetaone.sweeps.engines._stacked_update import NotStackableError, make_update, read_hypers


class Stack:
    """k models of one width whose parameters are the rows of one matrix; a context manager.

    Inside ``with`` the global generators are the stack's; after it they are as they were.

    Raises:
        NotStackableError: Their optimizers, shapes or dtypes do not allow it.
    """

    def __init__(self, work: Work, specs: Sequence[TrialSpec]) -> None:
        self._work, self._specs, self._n_done = work, specs, 0

    def __enter__(self) -> Self:
        self._before = GeneratorStates.now()
        try:
            self._build()
        except BaseException:
            self._before.restore()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._before.restore()

    def _build(self) -> None:
        models: list[nn.Module] = []
        optimizers: list[torch.optim.Optimizer] = []
        streams: dict[int, _Stream] = {}
        for spec in self._specs:
            with seeded(spec.seed):
                model, optimizer = self._work.build(spec)
                streams.setdefault(spec.seed, _Stream(self._work.task, spec))
            models.append(model)
            optimizers.append(optimizer)
        self._streams = streams
        self.n_parameters = count_parameters(models[0])
        self._model = models[0]
        self._p_kp = torch.stack([_flat(model) for model in models])
        self._update = make_update(read_hypers(models, optimizers), self._p_kp)
        self._views = _views(models[0], self._p_kp)
        self._fixed = {
            name: torch.stack([dict(_fixed(model))[name] for model in models])
            for name, _ in _fixed(models[0])
        }
        self._loss = _loss_of(self._work.task, models[0])
        self._optimizer, self._options = optimizers[0], copy.deepcopy(_options(optimizers[0]))

    def step(self) -> Tensor:
        """One step of descent of every model on its next batch; the losses before it, [k].

        Raises:
            NotStackableError: The loss draws at random, or changes an option of the optimizer.
        """
        loop, shared = self._work.loop, len(self._streams) == 1
        parts = split_batch(self._batch(), loop.accumulate, axis=0 if shared else 1)
        total_k, gradients_kp = torch.zeros(()), torch.zeros(())
        for part in parts:
            with precision(loop, self._model):
                losses_k = self._losses(part, None if shared else 0)
            gradients = torch.autograd.grad(losses_k.sum(), list(self._views.values()))
            flat_kp = torch.cat([g.flatten(1) for g in gradients], dim=1)
            gradients_kp = flat_kp if len(parts) == 1 else gradients_kp + flat_kp / len(parts)
            total_k = total_k + losses_k.detach() / len(parts)
        with torch.no_grad():
            if loop.clip is not None:
                norms_k1 = gradients_kp.norm(dim=1, keepdim=True)
                gradients_kp = gradients_kp * (loop.clip / (norms_k1 + 1e-6)).clamp(max=1.0)
            factor = loop.factor(self._n_done, self._specs[0].n_steps)
            self._update(self._p_kp, gradients_kp, factor)
        self._n_done += 1
        return total_k

    def _losses(self, part: Any, axis: int | None) -> Tensor:
        """Every member's loss, [k], of what runs once for all and must not act on one of them."""
        before = _drawn()
        losses_k = vmap(self._loss, in_dims=(0, 0, axis))(self._views, self._fixed, part)
        if _drawn() != before:
            raise NotStackableError("the loss draws from NumPy's or Python's global generator")
        if _options(self._optimizer) != self._options:
            raise NotStackableError("the loss changes an option of the optimizer")
        return losses_k

    def parameters(self, index: int) -> dict[str, Tensor]:
        """A member's trained parameters by name."""
        return {
            name.removeprefix("model."): view[index].detach().clone()
            for name, view in self._views.items()
        }

    def digests(self, index: int) -> tuple[str, ...]:
        """Of the batches that a member has seen."""
        return tuple(self._streams[self._specs[index].seed].batches.digests)

    def evaluation(self, index: int) -> float | None:
        """The task's judgement of a member."""
        tensors = {**self._views, **self._fixed}
        own = dict(self._model.named_parameters()) | dict(self._model.named_buffers())
        with torch.no_grad():
            for name, stacked in tensors.items():
                own[name.removeprefix("model.")].copy_(stacked[index])
        return self._work.evaluation(self._model, self._specs[index], "")

    def _batch(self) -> Any:
        """The next batch, or (several seeds) the members' batches along a new first axis.

        Each seed's batches are drawn once, however many models see them.
        """
        batches = {seed: stream.draw() for seed, stream in self._streams.items()}
        if len(batches) == 1:
            return next(iter(batches.values()))
        return pytree.tree_map(
            lambda *leaves: torch.stack(leaves), *(batches[spec.seed] for spec in self._specs)
        )


class _Stream:
    """The batches of one seed, drawn as if no other training were there.

    Between draws the global generators belong to others; each stream has its own states of them.
    """

    def __init__(self, task: Task, spec: TrialSpec) -> None:
        self.batches = Stream(task, spec)
        self._states = GeneratorStates.now()

    def draw(self) -> Any:
        self._states.restore()
        batch = next(self.batches)
        self._states = GeneratorStates.now()
        return batch


def train_stack(work: Work, specs: Sequence[TrialSpec]) -> Iterator[Trial]:
    """Train the specs (one width, one number of steps) as one stack; trials come as they end.

    A model that diverges stays in the stack, where it touches no other, and its record ends there.

    Raises:
        NotStackableError: The models cannot be trained as one stack; says why.
    """
    started = time.perf_counter()
    losses: list[list[float]] = [[] for _ in specs]
    reasons = [""] * len(specs)

    def trial(index: int) -> Trial:
        return make_trial(
            specs[index], losses[index], reason=reasons[index],
            wall_seconds=(time.perf_counter() - started) / len(specs),
            n_parameters=stack.n_parameters, batches=stack.digests(index),
            evaluation=stack.evaluation(index) if work.evaluated and not reasons[index] else None,
        )  # fmt: skip

    with stackable(), Stack(work, specs) as stack:
        for _ in range(specs[0].n_planned):
            for index, loss in enumerate(stack.step().tolist()):
                if not reasons[index]:
                    losses[index].append(loss)
                    reasons[index] = divergence(losses[index])
                    if reasons[index]:
                        yield trial(index)
            if all(reasons):
                return
        yield from (trial(index) for index, reason in enumerate(reasons) if not reason)


class stackable:
    """Turns what vmap cannot do, or can do only slowly, into ``NotStackableError``."""

    def __enter__(self) -> None:
        self._caught = warnings.catch_warnings()
        self._caught.__enter__()
        warnings.filterwarnings("error", message="There is a performance drop")

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        self._caught.__exit__(kind, error, trace)
        if isinstance(error, RuntimeError | UserWarning | TypeError | ValueError):
            first = first_line(error).split(". ")[0]
            slow = re.search(r"batching rule for (?:aten::)?_?(\w+)", first)
            if isinstance(error, UserWarning) and slow:
                raise NotStackableError(f"vmap would run {slow[1]} model by model") from error
            raise NotStackableError(f"vmap cannot batch this model: {first}") from error


def _drawn() -> tuple[Any, ...]:
    """Where the generators stand that vmap does not watch."""
    _, keys, *rest = np.random.get_state()  # noqa: NPY002
    return np.asarray(keys).tobytes(), *rest, random.getstate()


def _options(optimizer: torch.optim.Optimizer) -> list[dict[str, Any]]:
    return [
        {name: value for name, value in group.items() if name != "params"}
        for group in optimizer.param_groups
    ]


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
