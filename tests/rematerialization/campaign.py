"""A randomized campaign: models, budgets and faults, every step held against the plain model.

``python -m tests.rematerialization.campaign --episodes 2500 --log campaign.log`` runs it; a line of
the log names the seed of each episode, and ``--first SEED --episodes 1`` runs one again.
"""

import argparse
import copy
import gc
import random
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from tests.rematerialization.models import Looping, Residual
from tests.rematerialization.test_chains import MODELS, Model, deeply_supervised
from tests.rematerialization.test_disk_tier import COST, FaultyFiles
from tests.rematerialization.test_purity import DRAWS, STATES, Drawing, reset, same
from thetaone.errors import BudgetTooSmallError, ThetaOneError
from thetaone.rematerialization import DiskTier, TrainingMemory, profile, rematerialize
from thetaone.rematerialization.planning import budget_bytes, plan

ROWS = (64, 64, 32, 80)
FAULTS = (
    "none", "none", "none", "exception", "interrupt", "freeze", "batch", "autocast", "evaluated",
    "switch", "no backward", "two forwards", "disk", "accumulate",
)  # fmt: skip


class Switchable(Residual):
    """Reads a plain attribute."""

    def __init__(self) -> None:
        super().__init__(16, 0.1)
        self.scale = 1.0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x) * self.scale


def makers() -> dict[str, tuple[Callable[[], nn.Module], Any]]:
    """All models of the campaign, each with the names of its lists."""
    simple: dict[str, Callable[[], nn.Module]] = {
        "loop": lambda: Looping(6, Switchable),
        "sequence": lambda: nn.Sequential(*[Switchable() for _ in range(5)]),
        **{name: (lambda make=make: Looping(5, make)) for name, make in STATES.items()},
        **{name: (lambda place=place: Looping(5, lambda: Drawing(place)))
           for name, place in DRAWS.items() if "torch" in name or "own" in name},
    }  # fmt: skip
    return {name: (make, None) for name, make in simple.items()} | MODELS


@dataclass
class Outcome:
    """What an episode came to.

    Attributes:
        seed: Of its random choices.
        model: Which one.
        steps: Compared with the plain model [count].
        refused: Name of the typed error that ended it; empty when none did.
        faults: What was done, by kind.
        wrong: What must not be: a wrong gradient or state, bytes over the budget, leftovers.
    """

    seed: int
    model: str = ""
    steps: int = 0
    refused: str = ""
    faults: Counter[str] = field(default_factory=Counter[str])
    wrong: str = ""

    def __str__(self) -> str:
        faults = ",".join(f"{name}:{count}" for name, count in sorted(self.faults.items()))
        end = self.wrong or self.refused or "equal"
        return f"{self.seed} {self.model!r} {self.steps} steps [{faults}] {end}"


def episode(seed: int) -> Outcome:
    """Some training steps of one model under one budget, with faults."""
    chance, outcome, models = random.Random(seed), Outcome(seed), makers()
    outcome.model = chance.choice(sorted(models))
    make, names = models[outcome.model]
    plain, twin = _made(make, seed), _made(make, seed)
    with tempfile.TemporaryDirectory() as place, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        files = FaultyFiles(Path(place), "")
        with DiskTier(place, cost=COST, files=files) as tier:
            try:
                disk = tier if chance.random() < 0.3 else None
                ours, limit = _rematerialized(twin, names, disk, chance)
                _train(plain, ours, limit, chance, outcome, files)
            except ThetaOneError as error:
                outcome.refused = type(error).__name__
            ours = plain = twin = None
            gc.collect()
            if tier.used_bytes or list(Path(place).iterdir()):
                outcome.wrong = outcome.wrong or f"{tier.used_bytes} bytes are left on disk"
    return outcome


def _made(make: Callable[[], nn.Module], seed: int) -> nn.Module:
    reset()
    torch.manual_seed(seed)
    return make()


def _rematerialized(
    ours: nn.Module, names: Any, tier: DiskTier | None, chance: Any
) -> tuple[nn.Module, int]:
    """A model under a random budget, and the bytes that it may hold with what is beside its chain.

    In memory alone where nothing can wait on disk.
    """
    x = _batch(64)
    chain = profile(ours, x, blocks=names, repeats=1)
    disk = None if chain.separate or chain.links else tier
    limit = budget_bytes(chain, chance.choice((1.0, 0.8, 0.6, 0.45, 0.3)))
    try:
        plan(chain, limit)
    except BudgetTooSmallError as error:
        limit = error.floor_bytes
    model = rematerialize(ours, sample=x, chain=chain, budget=limit, disk=disk, blocks=names)
    beside = 24 if isinstance(ours, Model) and ours.run is deeply_supervised else 6
    return model, limit + beside * x.nbytes


def _peak(model: nn.Module, seed: int) -> int:
    """Most bytes of activations in a step that changes nothing else."""
    twin = copy.deepcopy(model)
    _step(twin, "none", 64, 0.0, seed)
    with TrainingMemory(twin) as memory:
        _step(twin, "none", 64, 0.0, seed)
    return memory.activation_peak_bytes


def _train(
    plain: nn.Module, ours: nn.Module, limit: int, chance: Any, outcome: Outcome, files: Any
) -> None:
    for number in range(chance.randrange(6, 12)):
        fault = chance.choice(FAULTS)
        outcome.faults[fault] += 1
        files.fault = chance.choice(("full", "unreadable", "bit flip")) if fault == "disk" else ""
        rows, pick = chance.choice(ROWS) if fault == "batch" else 64, chance.random()
        results = [
            _step(model, fault, rows, pick, outcome.seed * 100 + number) for model in (plain, ours)
        ]
        outcome.steps += 1
        if not all(map(same, *results)):
            outcome.wrong = f"step {number} with fault {fault!r} differs from the plain model"
            return
        counted = fault == "none" and outcome.model != "closure"  # whose copies are plain
        over = _peak(ours, outcome.seed) - limit if counted else 0
        if over > 0:
            outcome.wrong = f"step {number} holds {over:,} bytes more than the budget"
            return


def _step(model: Any, fault: str, rows: int, pick: float, seed: int) -> list[Any]:
    """One step, and all that it leaves."""
    reset()
    torch.manual_seed(seed)
    model.zero_grad()
    blocks = [one for one in model.modules() if isinstance(one, Residual | nn.LSTMCell)]
    chosen = blocks[int(pick * len(blocks))]
    x = _batch(rows)
    if fault == "freeze":
        chosen.requires_grad_(not next(chosen.parameters()).requires_grad)
    if fault in ("exception", "interrupt"):
        _failing(model, chosen, x, KeyboardInterrupt if fault == "interrupt" else ValueError)
        torch.manual_seed(seed)
        reset()
    with torch.autocast("cpu", torch.bfloat16, enabled=fault == "autocast"):
        output = model(x)
    loss = output.float().square().mean()
    if fault == "two forwards":
        loss = loss + model(2 * x).float().square().mean()
    if fault == "evaluated":
        model.eval()
        with torch.no_grad():
            model(x)
        model.train()
    with _switched(blocks if fault == "switch" else []):
        if fault != "no backward" and loss.requires_grad:
            loss.backward()
    if fault == "accumulate" and loss.requires_grad:
        again = model(x).square().mean()
        if again.requires_grad:  # not if all that ran is frozen: blocks may be left out at random
            again.backward()
    gradients = [torch.zeros(0) if p.grad is None else p.grad for p in model.parameters()]
    states = [one.observed() for one in model.modules() if hasattr(one, "observed")]
    return [output.detach(), *gradients, *model.buffers(), *states, torch.get_rng_state()]


def _failing(model: Any, block: nn.Module, x: torch.Tensor, error: type[BaseException]) -> None:
    def fail(*_: object) -> None:
        raise error("now")

    handle = block.register_forward_hook(fail)
    try:
        model(x)
    except error:
        pass
    finally:
        handle.remove()


@contextmanager
def _switched(blocks: list[Any]) -> Iterator[None]:
    for block in blocks:
        block.scale = 0.5
    try:
        yield
    finally:
        for block in blocks:
            block.scale = 1.0


def _batch(rows: int) -> torch.Tensor:
    return torch.randn(rows, 16, generator=torch.Generator().manual_seed(rows))


def main(arguments: list[str]) -> int:
    """Run episodes; 1 when one of them went wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--first", type=int, default=0, help="seed of the first episode")
    parser.add_argument("--episodes", type=int, default=2500)
    parser.add_argument("--log", type=Path, default=None)
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    outcomes: list[Outcome] = []
    for seed in range(options.first, options.first + options.episodes):
        outcomes.append(episode(seed))
        if options.log is not None:
            with options.log.open("a") as log:
                log.write(f"{outcomes[-1]}\n")
        if outcomes[-1].wrong:
            sys.stderr.write(f"{outcomes[-1]}\n")
        if len(outcomes) % 50 == 0:
            sys.stdout.write(summary(outcomes))
            sys.stdout.flush()
    sys.stdout.write(summary(outcomes))
    return int(any(one.wrong for one in outcomes))


def summary(outcomes: list[Outcome]) -> str:
    """How many episodes went how, in a line."""
    wrong = sum(bool(one.wrong) for one in outcomes)
    refused = dict(Counter(one.refused for one in outcomes if one.refused))
    return (
        f"{len(outcomes):,} episodes, {sum(one.steps for one in outcomes):,} steps: {wrong} wrong, "
        f"refused with a typed error: {refused}; {time.process_time():,.0f} s of CPU\n"
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
