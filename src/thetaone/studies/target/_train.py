"""The target's training: every step as the recipe says, checkpoints on the way, the weights kept.

A checkpoint holds the model, the optimizer, the losses, the random generators and the position in
the data; it is written beside the last one and takes its place at once, so that a full disk or a
killed process leaves the last good one. A training that goes on from it ends with the same bits.
"""

import contextlib
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from thetaone._contents import contents_digest
from thetaone.errors import CheckpointError, InputError, ReportError
from thetaone.parametrization import build_model, export
from thetaone.records import Schedule, Trial, TrialSpec
from thetaone.rematerialization import TrainingMemory, rematerialize
from thetaone.studies.target._checkpoints import (
    Checkpoints,
    generators,
    stored,
    unsaved,
)
from thetaone.studies.target._observe import Look, Observing
from thetaone.studies.target._plain_state import PlainState, task_digest
from thetaone.studies.target._replicas import Replicas
from thetaone.sweeps import (
    Descent,
    GeneratorStates,
    Work,
    batches_of,
    count_parameters,
    divergence,
    make_trial,
    seeded,
)

WEIGHTS = "model.safetensors"
ALONE = Replicas()
SAME_LOSS = 5e-3  # of the loss: machines and kernels differ by less, changed models by more
ANCHOR = "Or anchor at the target (no --base), which is then trained as it is"

OnStep = Callable[[int, list[float], float], None]  # steps done, losses, tokens a second


@dataclass(frozen=True, kw_only=True)
class Trained:
    """A target when its training has ended.

    Attributes:
        trial: Its losses.
        model: Itself.
        peak_bytes: Largest sum of live storages over the steps of this process [bytes].
        resumed_at: Steps that a checkpoint brought along [count].
    """

    trial: Trial
    model: nn.Module
    peak_bytes: int
    resumed_at: int


def train(
    work: Work,
    spec: TrialSpec,
    *,
    schedule: Schedule | None = None,
    checkpoints: Checkpoints | None = None,
    on_step: OnStep,
    memory: bool = True,
    replicas: Replicas = ALONE,
    observing: Observing | None = None,
) -> Trained:
    """Train one model from its seed, or from its last checkpoint, to the end.

    Model, optimizer and dropout draw in the order of a plain loop: seed, build, train.

    Args:
        work: Task, optimizer and loop.
        spec: Size, rate, seed and steps.
        schedule: How the model's blocks are rematerialized; None leaves it as it is.
        checkpoints: Where they are kept; None keeps none.
        on_step: Called with steps done, all losses, and tokens a second.
        memory: Whether every storage is watched, for ``peak_bytes``.
        replicas: Processes that share the batches; each must call this.
        observing: What is looked at on the way; None: nothing.

    Returns:
        The trained target.

    Raises:
        CheckpointError: A checkpoint cannot be read or written, or is of another training.
        InputError: Weights are to be kept that no plain model computes the same with.
    """
    started = time.perf_counter()
    with seeded(spec.seed):
        training = _Training(work, spec, schedule, replicas)
        if checkpoints is not None:
            require_plain_weights(_plain(work, spec) if replicas.sharded else training.model)
        resumed_at = 0 if checkpoints is None else training.resume(checkpoints)
        watch = TrainingMemory(training.model, training.optimizer) if memory else None
        looking = contextlib.nullcontext(_blind)
        if observing is not None and replicas.first:
            looking = observing.of(training.model, training.optimizer)
        with watch or contextlib.nullcontext(), looking as look:
            training.run(checkpoints, on_step, look)
        model = replicas.whole_model(training.model, lambda: _plain(work, spec))
    trial = make_trial(
        spec, training.losses, reason=training.reason,
        wall_seconds=time.perf_counter() - started,
        n_parameters=count_parameters(model),
    )  # fmt: skip
    return Trained(
        trial=trial, model=model, resumed_at=resumed_at,
        peak_bytes=watch.total_peak_bytes if watch else 0,
    )  # fmt: skip


def _plain(work: Work, spec: TrialSpec) -> nn.Module:
    """The model of a spec as one process builds it; no random state moves."""
    with seeded(spec.seed):
        return work.build(spec)[0]


class _Training:
    """A model, its optimizer, its data, and how far it is."""

    def __init__(
        self, work: Work, spec: TrialSpec, schedule: Schedule | None, replicas: Replicas
    ) -> None:
        self.model = build_model(work.task, spec.width, spec.depth)
        replicas.shard(self.model)
        self.optimizer = work.optimizer(self.model, spec, spec.lr)
        if not replicas.first:  # what is drawn in training differs from process to process
            torch.manual_seed(spec.seed + replicas.rank)
        run = self.model if schedule is None else rematerialize(self.model, schedule)
        self._replicas = replicas
        self._descent = Descent(work, replicas.wrap(run), self.optimizer, spec.n_steps)
        self._stream = batches_of(work.task, spec)
        self._n_steps = spec.n_steps
        self._task = work.task
        self._plain = PlainState.of(self.model)
        self.losses: list[float] = []

    @property
    def reason(self) -> str:
        """Why the training counts as diverged; empty when it does not."""
        return divergence(self.losses) if self.losses else ""

    def resume(self, checkpoints: Checkpoints) -> int:
        """Go on from the last checkpoint, if there is one; the steps that it brings along."""
        state = checkpoints.load()
        if state is None:
            return 0
        self._wind(state, checkpoints.path)
        if state["lost"]:
            raise CheckpointError(
                f"{checkpoints.path}: {', '.join(state['lost'])} had changed when it was written, "
                "and a checkpoint cannot hold such values: keep them in buffers, extra state or "
                "plain numbers, or remove the checkpoint to train from the start"
            )
        self._replicas.load(self.model, self.optimizer, state)
        for name, buffer in unsaved(self.model).items():
            buffer.copy_(state["buffers"][name])
        self.losses = list(state["losses"])
        self._descent.n_done = len(self.losses)
        if self._replicas.rank < len(state["random"]):
            generators(state["random"][self._replicas.rank]).restore()
            self._plain.restore(state["plain"][self._replicas.rank])
        if task_digest(_source(self._task)) != state["task"]:
            warnings.warn(
                f"{checkpoints.path}: what the task keeps between steps (attributes or globals) is "
                "not what it was when this was written, since no checkpoint holds it; the losses "
                "may differ from those of an unbroken training",
                stacklevel=2,
            )
        return len(self.losses)

    def _wind(self, state: dict[str, Any], path: Path) -> None:
        """Wind the data forward to where the checkpoint was written, by the untrained model.

        Raises:
            CheckpointError: The first loss, or the last batch, is another one than it was then.
        """
        losses, again, batch = state["losses"], None, None
        for step in range(len(losses)):
            batch = next(self._stream)
            if step == 0 and len(state["random"]) == self._replicas.count:
                first = self._descent.loss(self._replicas.part(batch))
                again, _ = self._replicas.agree(first, False)
        if losses and contents_digest(batch) != state["batch"]:
            raise CheckpointError(
                f"{path}: batch {len(losses)} of the data is another one than when it was written: "
                "the task's batches(seed) must be the same at every call"
            )
        if again is not None and abs(again - losses[0]) > SAME_LOSS * max(1.0, abs(losses[0])):
            raise CheckpointError(
                f"{path}: the first loss is {again:.6g} and was {losses[0]:.6g} when it was "
                "written: the task's model or loss has changed. Undo that, or remove the "
                "checkpoint to train from the start"
            )

    def run(self, checkpoints: Checkpoints | None, on_step: OnStep, look: Look) -> None:
        """Train to the last step or to a divergence."""
        written = time.perf_counter()
        for batch in () if self.reason else self._stream:
            began = time.perf_counter()
            loss = self._descent.step(self._replicas.part(batch))
            now = time.perf_counter()
            due = checkpoints is not None and now - written > 60 * checkpoints.minutes
            loss, due = self._replicas.agree(loss, due)
            self.losses.append(loss)
            on_step(len(self.losses), self.losses, count_tokens(batch) / (now - began))
            look(len(self.losses), loss)
            ended = bool(self.reason) or len(self.losses) == self._n_steps
            if checkpoints is not None and (ended or due):
                self._write(checkpoints, batch)
                written = now
            if ended:
                break

    def _write(self, checkpoints: Checkpoints, batch: Any) -> None:
        """Write a checkpoint: the random state of every process, the first one's all else."""
        random = self._replicas.gather(stored(GeneratorStates.now()))
        moved, lost = self._plain.moved()
        plain = self._replicas.gather(moved)
        state = self._replicas.whole({
            "model": dict(self.model.state_dict()), "optimizer": self.optimizer.state_dict(),
        })  # fmt: skip
        if self._replicas.first:
            checkpoints.write({
                **state, "buffers": unsaved(self.model), "losses": self.losses,
                "batch": contents_digest(batch), "random": random, "plain": plain, "lost": lost,
                "task": task_digest(_source(self._task)),
            })  # fmt: skip


def _source(task: Any) -> Any:
    """The user's own object or module behind a loaded task."""
    return getattr(task, "source", task)


def _blind(step: int, loss: float) -> None:
    """Nothing is looked at."""


def count_tokens(batch: Any) -> int:
    """Entries of the first tensor of whole numbers with two axes or more, else rows [count].

    Examples:
        >>> count_tokens(torch.zeros(8, 64, dtype=torch.long)), count_tokens(torch.zeros(8, 3))
        (512, 8)
    """
    tensors = [leaf for leaf in pytree.tree_leaves(batch) if isinstance(leaf, Tensor) and leaf.ndim]
    whole = [t for t in tensors if t.ndim >= 2 and not t.is_floating_point()]
    return whole[0].numel() if whole else max((len(t) for t in tensors), default=1)


def save_weights(model: nn.Module, path: Path) -> None:
    """Write the state dict, under its plain names, for ``load_state_dict(load_file(path))``.

    Tied weights are written under each of their names; factors that a parametrization has put
    beside the weights are multiplied into them, so that the file needs no thetaone.

    Raises:
        InputError: See ``require_plain_weights``.
        ReportError: The file cannot be written; an earlier one stays.
    """
    state = export(model).state_dict()
    tensors = {k: v.detach().cpu().contiguous().clone() for k, v in _tensors(state).items()}
    if others := [name for name in state if name not in tensors]:
        warnings.warn(
            f"{path} holds tensors alone and lacks {', '.join(others)} of the state dict: load it "
            "with strict=False, after setting these",
            stacklevel=2,
        )
    fresh = path.with_suffix(".new")
    try:
        save_file(tensors, fresh)
        fresh.replace(path)
    except (OSError, SafetensorError) as error:
        fresh.unlink(missing_ok=True)
        raise ReportError(f"{path} cannot be written: {error}") from error


def _tensors(state: Mapping[str, Any]) -> dict[str, Tensor]:
    """The tensors of a state dict, each of a kind that safetensors has.

    Raises:
        InputError: One is sparse, or of a type that the format lacks.
    """
    tensors = {name: value for name, value in state.items() if isinstance(value, Tensor)}
    for name, value in tensors.items():
        if value.layout != torch.strided or value.is_quantized or value.dtype == torch.complex128:
            raise InputError(
                f"{name} of the model's state dict is {value.dtype}, {value.layout}, which "
                f"{WEIGHTS} cannot hold: register it with persistent=False"
            )
    return tensors


def require_plain_weights(model: nn.Module) -> None:
    """Refuse a model whose weights no file can hold, or no plain model computes the same with.

    Raises:
        InputError: What the file's format lacks, or the factor of a tied readout or of a residual
            branch; says what to do.
    """
    try:
        plain = export(model)
    except InputError as error:
        raise InputError(f"the weights would not be a plain model's: {error}. {ANCHOR}") from None
    _tensors(plain.state_dict())
    if len([*plain.parameters()]) != len([*model.parameters()]):  # untied to hold a factor
        raise InputError(
            "the weights would not be a plain model's: the readout shares its weight with the "
            f"embedding, and no norm before it can hold the readout's factor. {ANCHOR}"
        )
