"""Blocks with a state of their own: recomputed as they ran, and left as after one execution."""

import collections
import contextvars
import copy
import functools
import random
import threading
import types
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from tests.rematerialization.models import Looping, Residual, nested
from tests.rematerialization.test_executor import batch
from thetaone.rematerialization import profile, rematerialize
from thetaone.rematerialization.planning._policies import judged

SETTINGS = types.SimpleNamespace(scale=1.0, table={"scale": 1.0})
LOCAL = threading.local()
SCALE = contextvars.ContextVar("scale", default=1.0)
GENERATOR = torch.Generator()
FACTOR = 1.0
CALLS = 0


def seeded(kind: str, seed: int) -> Any:
    """A generator of some library, in a fixed state."""
    if kind == "torch":
        return torch.Generator().manual_seed(seed)
    if kind == "numpy":
        return np.random.default_rng(seed)
    if kind == "numpy's older":
        return np.random.RandomState(seed)
    return random.Random(seed)


def draw(generator: Any) -> float:
    if isinstance(generator, torch.Generator):
        return float(torch.rand((), generator=generator))
    return float(generator.random() if hasattr(generator, "random") else generator.rand())


class Drawing(Residual):
    """Drops its branch by a draw that ``place`` makes."""

    def __init__(self, place: Callable[["Drawing"], Callable[[], float]]) -> None:
        super().__init__(16)
        self.held: Any = None
        self.draw = place(self)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + (super().forward(x) - x) * (self.draw() > 0.4)


def in_attribute(kind: str) -> Callable[[Drawing], Callable[[], float]]:
    def place(block: Drawing) -> Callable[[], float]:
        block.held = seeded(kind, 3)
        return functools.partial(lambda one: draw(one.held), block)

    return place


def in_container(block: Drawing) -> Callable[[], float]:
    block.held = {"a": [seeded("torch", 4)]}
    return lambda: draw(block.held["a"][0])


def in_closure(block: Drawing) -> Callable[[], float]:
    generator = seeded("python", 5)
    return lambda: draw(generator)


def in_default(block: Drawing) -> Callable[[], float]:
    def drawn(generator: Any = seeded("numpy", 6)) -> float:  # noqa: B008
        return draw(generator)

    return drawn


def in_object(block: Drawing) -> Callable[[], float]:
    block.held = types.SimpleNamespace(inner=types.SimpleNamespace(generator=seeded("torch", 7)))
    return lambda: draw(block.held.inner.generator)


def in_global(block: Drawing) -> Callable[[], float]:
    GENERATOR.manual_seed(8)
    return lambda: draw(GENERATOR)


DRAWS: dict[str, Callable[[Drawing], Callable[[], float]]] = {
    **{f"{kind}, attribute": in_attribute(kind)
       for kind in ("torch", "numpy", "numpy's older", "python")},
    "container": in_container, "closure": in_closure, "default": in_default,
    "object": in_object, "global": in_global,
    "Python's own": lambda _: random.random,
    "NumPy's own": lambda _: np.random.rand,
}  # fmt: skip


class Stateful(Residual):
    """Scales its output by a state that every forward changes."""

    def __init__(self) -> None:
        super().__init__(16)

    def advance(self, x: torch.Tensor) -> Any:
        raise NotImplementedError

    def observed(self) -> Any:
        raise NotImplementedError

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x) * (1 + 0.1 * self.advance(x))


class Counter(Stateful):
    calls = 0  # becomes an attribute of the instance

    def advance(self, x: torch.Tensor) -> Any:
        self.calls += 1
        return self.calls

    def observed(self) -> Any:
        return self.calls


class OfClass(Stateful):
    calls = 0

    def advance(self, x: torch.Tensor) -> Any:
        OfClass.calls += 1
        return OfClass.calls

    def observed(self) -> Any:
        return OfClass.calls


class OfModule(Stateful):
    def advance(self, x: torch.Tensor) -> Any:
        global CALLS
        CALLS += 1
        return CALLS

    def observed(self) -> Any:
        return CALLS


class History(Stateful):
    def __init__(self) -> None:
        super().__init__()
        self.seen: list[float] = []
        self.table: dict[int, list[float]] = collections.defaultdict(list)
        self.recent: collections.deque[float] = collections.deque(maxlen=3)
        self.kinds: set[int] = set()

    def advance(self, x: torch.Tensor) -> Any:
        self.seen.append(float(x.detach().sum()))
        self.table[len(self.seen) % 2].append(1.0)
        self.recent.append(float(len(self.seen)))
        self.kinds.add(len(self.seen))
        return len(self.seen) + len(self.table[0]) + len(self.kinds) + sum(self.recent)

    def observed(self) -> Any:
        return self.seen, dict(self.table), list(self.recent), self.kinds


class Closed(Stateful):
    def __init__(self) -> None:
        super().__init__()
        calls = 0

        def advance() -> int:
            nonlocal calls
            calls += 1
            return calls

        self.step = advance
        self.observe = lambda: calls

    def __deepcopy__(self, memo: Any) -> "Closed":
        twin = Closed()
        twin.load_state_dict(self.state_dict())
        return twin

    def advance(self, x: torch.Tensor) -> Any:
        return self.step()

    def observed(self) -> Any:
        return self.observe()


class Average(Stateful):
    """An exponential mean in a plain tensor, bound anew."""

    def __init__(self, size: int = 16) -> None:
        super().__init__()
        self.mean, self.size = torch.zeros(size), size

    def advance(self, x: torch.Tensor) -> Any:
        mean = x.detach().mean(0).repeat(self.size // 16)
        self.mean = 0.9 * self.mean + 0.1 * mean
        return self.mean[:16]

    def observed(self) -> Any:
        return self.mean


class InPlace(Stateful):
    """A load that is summed in place, in a tensor and in an array."""

    def __init__(self) -> None:
        super().__init__()
        self.load, self.counts = torch.zeros(16), np.zeros(2)

    def advance(self, x: torch.Tensor) -> Any:
        self.load += x.detach().abs().mean(0)
        self.counts += 1
        return self.load.clone() + float(self.counts.sum())

    def observed(self) -> Any:
        return self.load, self.counts


class Both(Average):
    """Changed in place and then bound anew."""

    def advance(self, x: torch.Tensor) -> Any:
        self.mean.mul_(0.5)
        return super().advance(x)


class Cached(Stateful):
    """Something made at the first forward and used by the later ones."""

    cache: Any = None

    def advance(self, x: torch.Tensor) -> Any:
        if self.cache is None:
            self.cache = {"sum": x.detach().mean(), "uses": 0}
        self.cache["uses"] += 1
        return self.cache["sum"] + self.cache["uses"]

    def observed(self) -> Any:
        return self.cache


STATES: dict[str, Callable[[], Stateful]] = {
    "attribute": Counter, "class": OfClass, "module": OfModule, "containers": History,
    "closure": Closed, "tensor": Average, "large tensor": lambda: Average(2**15),
    "in place": InPlace, "in place, then bound anew": Both, "cache": Cached,
}  # fmt: skip


def reset() -> None:
    global CALLS
    CALLS, OfClass.calls = 0, 0
    random.seed(2)
    np.random.seed(2)  # noqa: NPY002
    torch.manual_seed(2)
    GENERATOR.manual_seed(8)


def steps(model: nn.Module, count: int = 4) -> list[torch.Tensor]:
    """Gradients of some steps."""
    gradients: list[torch.Tensor] = []
    reset()
    for _ in range(count):
        model.zero_grad()
        model(batch()).square().mean().backward()
        gradients += [p.grad.clone() for p in model.parameters() if p.grad is not None]
    return gradients


def rematerialized(model: nn.Module) -> nn.Module:
    return rematerialize(model, judged(profile(model, batch(), repeats=1), nested(6), policy=""))


def same(mine: Any, other: Any) -> bool:
    if isinstance(mine, torch.Tensor | np.ndarray):
        return bool((mine == other).all())
    if isinstance(mine, dict):
        return mine.keys() == other.keys() and all(same(mine[key], other[key]) for key in mine)
    if isinstance(mine, tuple | list):
        return len(mine) == len(other) and all(map(same, mine, other))
    return mine == other


@pytest.mark.parametrize("sequential", [False, True])
@pytest.mark.parametrize("name", DRAWS)
def test_draws_of_any_generator_are_repeated(name: str, sequential: bool) -> None:
    def model() -> nn.Module:
        torch.manual_seed(0)
        looping = Looping(6, lambda: Drawing(DRAWS[name]))
        return nn.Sequential(*looping.blocks) if sequential else looping

    expected, gradients = steps(model()), steps(rematerialized(model()))
    assert all(map(torch.equal, expected, gradients))


@pytest.mark.parametrize("name", STATES)
def test_a_state_advances_once_a_step(name: str) -> None:
    torch.manual_seed(0)
    plain: Any = Looping(6, STATES[name])
    ours: Any = copy.deepcopy(plain)
    rematerialized(ours)
    fresh = [block.observed() for block in copy.deepcopy(plain).blocks]
    if name not in ("class", "module"):
        assert all(map(same, fresh, [block.observed() for block in ours.blocks]))
    expected = steps(plain)
    wanted = [copy.deepcopy(block.observed()) for block in plain.blocks]
    gradients = steps(ours)
    assert all(map(torch.equal, expected, gradients))
    assert all(map(same, wanted, [block.observed() for block in ours.blocks]))


class Switched(Residual):
    """Reads switches of every kind."""

    scale = 1.0

    def __init__(self, config: Any) -> None:
        super().__init__(16)
        self.config, self.inner, self.options = config, [nn.Identity()], {"on": True}
        self.factor, self.parts = 1.0, (nn.Linear(16, 16), nn.Linear(16, 16))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        scale = self.scale * self.factor * FACTOR * SETTINGS.scale * SETTINGS.table["scale"]
        scale *= self.config.scale * SCALE.get() * getattr(LOCAL, "scale", 1.0)
        scale *= 2.0 if self.options["on"] else 1.0
        scale *= getattr(self.inner[0], "scale", 1.0)
        scale *= 1.5 if torch.get_default_dtype() == torch.float64 else 1.0
        scale *= 1.5 if torch.backends.cuda.flash_sdp_enabled() else 1.0
        scale *= 1.5 if torch.are_deterministic_algorithms_enabled() else 1.0
        return super().forward(x) * scale


def on_blocks(change: Callable[[Any], object]) -> Callable[[Any], object]:
    def changed(model: Any) -> None:
        for block in model.blocks:
            change(block)

    return changed


def set_global(model: Any) -> None:
    global FACTOR
    FACTOR = 0.5


def hooked(model: Any) -> None:
    for block in model.blocks:
        block.register_forward_hook(lambda _, __, output: output * 0.5)


SWITCHES: dict[str, Callable[[Any], object]] = {
    "attribute": on_blocks(lambda block: setattr(block, "factor", 0.5)),
    "class": lambda _: setattr(Switched, "scale", 0.5),
    "global": set_global,
    "global object": lambda _: setattr(SETTINGS, "scale", 0.5),
    "global dictionary": lambda _: SETTINGS.table.update(scale=0.5),
    "shared object": lambda model: setattr(model.blocks[0].config, "scale", 0.5),
    "dictionary": on_blocks(lambda block: block.options.update(on=False)),
    "unregistered module": on_blocks(lambda block: setattr(block.inner[0], "scale", 0.5)),
    "new attribute": on_blocks(lambda block: setattr(block, "scale", 0.5)),
    "context variable": lambda _: SCALE.set(0.5),
    "thread's variable": lambda _: setattr(LOCAL, "scale", 0.5),
    "default dtype": lambda _: torch.set_default_dtype(torch.float64),
    "attention kernels": lambda _: torch.backends.cuda.enable_flash_sdp(False),
    "deterministic": lambda _: torch.use_deterministic_algorithms(True),
    "hook": hooked,
    "child": on_blocks(lambda block: setattr(block, "dropout", nn.Dropout(0.9))),
    "training": lambda model: model.eval(),
}


@pytest.fixture
def _restored() -> Any:
    global FACTOR
    token = SCALE.set(1.0)
    yield
    SCALE.reset(token)
    FACTOR, Switched.scale, SETTINGS.scale = 1.0, 1.0, 1.0
    SETTINGS.table["scale"] = 1.0
    LOCAL.__dict__.clear()
    torch.set_default_dtype(torch.float32)
    torch.backends.cuda.enable_flash_sdp(True)
    torch.use_deterministic_algorithms(False)


@pytest.mark.usefixtures("_restored")
@pytest.mark.parametrize("name", SWITCHES)
def test_a_switch_after_the_forward_does_not_reach_the_recomputation(name: str) -> None:
    torch.manual_seed(0)
    config = types.SimpleNamespace(scale=1.0)
    plain: Any = Looping(6, lambda: Switched(config))
    ours: Any = copy.deepcopy(plain)
    rematerialized(ours)
    torch.manual_seed(1)
    loss = ours(batch()).square().mean()
    torch.manual_seed(1)
    plain(batch()).square().mean().backward()
    SWITCHES[name](ours)
    loss.backward()
    for a, b in zip(plain.parameters(), ours.parameters(), strict=True):
        assert torch.equal(a.grad, b.grad)
