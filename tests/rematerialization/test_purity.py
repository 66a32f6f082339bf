"""Blocks with a state of their own: recomputed as they ran, and left as after one execution."""

import array
import collections
import contextvars
import copy
import functools
import random
import threading
import types
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from tests.rematerialization.models import Looping, Residual, nested
from tests.rematerialization.test_executor import batch
from thetaone.errors import RecomputationError
from thetaone.rematerialization import profile, rematerialize
from thetaone.rematerialization.blocks.state._overwritten import Overwritten
from thetaone.rematerialization.execution._placeholders import Placeholder
from thetaone.rematerialization.planning._policies import judged

SETTINGS = types.SimpleNamespace(scale=1.0, table={"scale": 1.0})
LOCAL = threading.local()
SCALE = contextvars.ContextVar("scale", default=1.0)
GENERATOR = torch.Generator()
LOADS: weakref.WeakKeyDictionary[Any, Any] = weakref.WeakKeyDictionary()
FACTOR = 1.0
HIDDEN = 1.0
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


class OfFunctions(Stateful):
    """Counts on a function, in a default and on the class of the moment."""

    counted = 0

    def advance(self, x: torch.Tensor, seen: list[int] = []) -> Any:  # noqa: B006
        seen.append(1)
        tally.calls += 1
        type(self).counted += 1
        return tally.calls + len(seen) + OfFunctions.counted

    def observed(self) -> Any:
        return tally.calls, OfFunctions.counted, len((OfFunctions.advance.__defaults__ or ([],))[0])


def _tally() -> None: ...


tally: Any = _tally
tally.calls = 0


class Attributes(dict[str, Any]):
    """A dictionary whose entries are attributes; others are a KeyError."""

    __getattr__ = dict[str, Any].__getitem__
    __setattr__ = dict[str, Any].__setitem__

    def __deepcopy__(self, memo: Any) -> "Attributes":
        return Attributes(self)


class Flags(list[Any]):
    """A list with an attribute."""

    scale = 1.0


class Odd(Stateful):
    """Counts where bytes, numbers, objects and weak references are kept."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes, self.numbers = bytearray(1), array.array("d", [0.0])
        self.objects = np.array([[0], None], dtype=object)
        self.objects[0] = [0]
        self.table, self.flags = Attributes(calls=0), Flags()
        self.tensors = (torch.zeros(1), (torch.zeros(1),))

    def advance(self, x: torch.Tensor) -> Any:
        LOADS[self] = LOADS.get(self, 0) + 1
        self.bytes[0] += 1
        self.numbers[0] += 1
        self.objects[0][0] += 1
        self.table.calls += 1
        self.flags.scale += 1
        self.tensors[1][0].add_(1)
        inner = self.tensors[1][0].clone() + LOADS[self] + self.objects[0][0]
        return inner + self.bytes[0] + self.numbers[0] + self.table.calls + self.flags.scale

    def observed(self) -> Any:
        counts = LOADS.get(self, 0), self.bytes[0], self.numbers[0], self.objects[0][0]
        return *counts, self.table.calls, self.flags.scale, self.tensors[1][0]


class Statistics(Stateful):
    """Computes with the running statistics of a normalization that trains."""

    def __init__(self) -> None:
        super().__init__()
        self.normalize = nn.BatchNorm1d(16)

    def advance(self, x: torch.Tensor) -> Any:
        assert self.normalize.running_mean is not None
        before = self.normalize.running_mean.clone()
        return self.normalize(x) * before + self.normalize.running_mean.clone()

    def observed(self) -> Any:
        return self.normalize.running_mean


class Remembered(Stateful):
    """Remembers what a function computed once."""

    def advance(self, x: torch.Tensor) -> Any:
        return once(len(x)) + SETTINGS.table.get("made", 0)

    def observed(self) -> Any:
        return SETTINGS.table.get("made", 0)


@functools.cache
def once(rows: int) -> int:
    SETTINGS.table["made"] = SETTINGS.table.get("made", 0) + 1
    return rows


STATES: dict[str, Callable[[], Stateful]] = {
    "attribute": Counter, "class": OfClass, "module": OfModule, "containers": History,
    "closure": Closed, "tensor": Average, "large tensor": lambda: Average(2**15),
    "in place": InPlace, "in place, then bound anew": Both, "cache": Cached,
    "functions": OfFunctions, "odd holders": Odd, "statistics": Statistics,
}  # fmt: skip


def reset() -> None:
    global CALLS
    CALLS, OfClass.calls = 0, 0
    tally.calls, OfFunctions.counted = 0, 0
    (OfFunctions.advance.__defaults__ or ([],))[0].clear()
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
    if name not in ("class", "module", "functions"):
        assert all(map(same, fresh, [block.observed() for block in ours.blocks]))
    expected = steps(plain)
    wanted = [copy.deepcopy(block.observed()) for block in plain.blocks]
    gradients = steps(ours)
    assert all(map(torch.equal, expected, gradients))
    assert all(map(same, wanted, [block.observed() for block in ours.blocks]))


def test_a_measurement_leaves_no_result_in_a_cache() -> None:
    once.cache_clear()
    SETTINGS.table.pop("made", None)
    rematerialized(Looping(6, Remembered))
    assert (once.cache_info().currsize, SETTINGS.table.get("made", 0)) == (0, 0)


def sine(x: torch.Tensor, scale: float = 1.0) -> torch.Tensor:
    return torch.sin(x * scale * sine.__dict__.get("scale", 1.0))


class Looked(Residual):
    """Looks up as it runs what it computes with."""

    act = staticmethod(torch.tanh)

    def __init__(self) -> None:
        super().__init__(16)
        self.kind, self.scales = "one", (torch.ones(1), (torch.ones(1),))
        self.table, self.flags = Attributes(scale=1.0), Flags()
        self.bytes, self.numbers = bytearray([1]), array.array("d", [1.0])
        self.part = functools.partial(sine, scale=1.0)

    def run_one(self, x: torch.Tensor) -> torch.Tensor:
        return x * SETTINGS.hidden

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        from os import environ

        from tests.rematerialization.test_purity import HIDDEN

        y = getattr(self, f"run_{self.kind}")(super().forward(x)) * self.scales[1][0].clone()
        y = self.part(sine(self.act(wave(y)))) * LOADS.get(Looked, 1.0)
        y = y * self.table.scale * self.flags.scale * self.bytes[0] * self.numbers[0]
        return x + y * HIDDEN * float(environ.get("THETAONE_SCALE", "1"))


wave = torch.sin
LOOKED: dict[str, Callable[[Any, pytest.MonkeyPatch], object]] = {
    "method by name": lambda _, patch: patch.setattr(SETTINGS, "hidden", 0.5),
    "tensor in a tuple": lambda block, _: block.scales[1][0].mul_(0.5),
    "function's attribute": lambda _, patch: patch.setitem(sine.__dict__, "scale", 0.5),
    "function's default": lambda _, patch: patch.setattr(sine, "__defaults__", (0.5,)),
    "keywords of a partial": lambda block, _: block.part.keywords.update(scale=0.5),
    "global function": lambda _, patch: patch.setitem(globals(), "wave", torch.cos),
    "function of a class": lambda _, patch: patch.setattr(Looked, "act", staticmethod(torch.cos)),
    "weak dictionary": lambda _, patch: patch.setitem(LOADS, Looked, 0.5),
    "entry as attribute": lambda block, _: setattr(block.table, "scale", 0.5),
    "attribute of a list": lambda block, _: setattr(block.flags, "scale", 0.5),
    "bytes": lambda block, _: block.bytes.__setitem__(0, 2),
    "numbers": lambda block, _: block.numbers.__setitem__(0, 2.0),
    "imported inside": lambda _, patch: patch.setitem(globals(), "HIDDEN", 0.5),
    "environment": lambda _, patch: patch.setenv("THETAONE_SCALE", "0.5"),
}


@pytest.mark.parametrize("name", LOOKED)
def test_what_is_looked_up_is_what_the_forward_found(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(SETTINGS, "hidden", 1.0, raising=False)
    torch.manual_seed(0)
    plain: Any = Looping(6, Looked)
    ours: Any = copy.deepcopy(plain)
    rematerialized(ours)
    loss = ours(batch()).square().mean()
    plain(batch()).square().mean().backward()
    for block in ours.blocks:
        LOOKED[name](block, monkeypatch)
    loss.backward()
    for a, b in zip(plain.parameters(), ours.parameters(), strict=True):
        assert torch.equal(a.grad, b.grad)


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


READINGS: dict[str, Callable[[Any], Any]] = {
    "operator": lambda one: one + 1, "reflected": lambda one: torch.ones(1) * one,
    "function": torch.sin, "in a list": lambda one: torch.cat([one, one]),
    "attribute": lambda one: one.shape, "item": lambda one: one[0], "truth": bool,
}  # fmt: skip


@pytest.mark.parametrize("reading", READINGS)
def test_what_is_not_at_hand_refuses_every_way_of_reading(reading: str) -> None:
    for stand_in, why in (
        (Overwritten("block.mean"), "block.mean is read by the block and overwritten"),
        (Placeholder(None, 0, 0, "blocks.1"), "the model uses the output of blocks.1 itself"),
    ):
        with pytest.raises(RecomputationError, match=why):
            READINGS[reading](stand_in)
