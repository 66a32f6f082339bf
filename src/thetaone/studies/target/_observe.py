"""What is looked at while a target trains: its evaluation and its layers; no bit of it changes."""

import contextlib
import json
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from thetaone.errors import InputError, ReportError
from thetaone.parametrization import SpectralMonitor
from thetaone.sweeps import GeneratorStates

CURVE = "curve.jsonl"

Look = Callable[[int, float], None]  # steps done, loss of the last one


@dataclass(frozen=True, kw_only=True)
class Observing:
    """What is looked at, how often, and where it is written, a line of JSON each time.

    Attributes:
        path: File that is appended to; of a step that is trained again the last line counts.
        evaluate: The task's evaluation; None where it has none.
        evaluate_every: Steps between two evaluations; 0 never [count].
        monitor_every: Steps between two readings of the layers; 0 never [count].
    """

    path: Path
    evaluate: Callable[[Any], float] | None = None
    evaluate_every: int = 0
    monitor_every: int = 0

    def __post_init__(self) -> None:
        for name in ("evaluate_every", "monitor_every"):
            if getattr(self, name) < 0:
                raise InputError(f"{name}={getattr(self, name)}: need 1 or more steps, or 0: never")
        if self.evaluate_every and self.evaluate is None:
            raise InputError(
                f"evaluate_every={self.evaluate_every}: the task has no evaluate; write "
                "def evaluate(model): return <held-out loss>, or leave it out"
            )

    @contextlib.contextmanager
    def of(self, model: nn.Module, optimizer: torch.optim.Optimizer) -> Iterator[Look]:
        """What is to be called after every step of a training."""
        with contextlib.ExitStack() as stack:
            monitor = None
            if self.monitor_every:
                monitor = SpectralMonitor(model, optimizer, every=self.monitor_every)
                stack.enter_context(monitor)
            seen = 0

            def look(step: int, loss: float) -> None:
                nonlocal seen
                line: dict[str, Any] = {}
                due = bool(self.evaluate_every) and step % self.evaluate_every == 0
                if self.evaluate is not None and due:
                    line["evaluation"] = evaluated(self.evaluate, model)
                if monitor is not None and len(monitor.readings) > seen:
                    fresh, seen = monitor.readings[seen:], len(monitor.readings)
                    line["layers"] = {r.layer: _numbers(r) for r in fresh}
                    _warn(step, {r.layer: r.status for r in fresh if r.status != "ok"})
                if line:
                    self._write({"step": step, "loss": loss, **line})

            yield look

    def _write(self, line: dict[str, Any]) -> None:
        try:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
        except OSError as error:
            raise ReportError(f"{self.path} cannot be written: {error}") from error


def evaluated(evaluate: Callable[[Any], float], model: nn.Module) -> float:
    """A task's evaluation that leaves random state and training flags as they were."""
    random, modes = GeneratorStates.now(), [(m, m.training) for m in model.modules()]
    try:
        with torch.no_grad():
            return float(evaluate(model))
    finally:
        random.restore()
        for module, training in modes:
            module.training = training


def _numbers(reading: Any) -> dict[str, Any]:
    names = ("weight_norm", "update_norm", "alignment", "status")
    return {name: getattr(reading, name) for name in names}


def _warn(step: int, faults: dict[str, str]) -> None:
    if faults:
        told = ", ".join(f"{layer} is {status}" for layer, status in faults.items())
        warnings.warn(f"step {step}: {told}; see {CURVE}, and thetaone check", stacklevel=3)
