"""State in every place that a block can reach is replayed and left right, or refused by name."""

import contextlib
import contextvars
import copy
import ctypes
import dataclasses
import datetime
import decimal
import enum
import fractions
import functools
import importlib
import itertools
import logging
import math
import multiprocessing
import operator
import os
import pathlib
import queue
import random
import re
import struct
import sys
import threading
import types
import uuid
import weakref
from collections.abc import Callable, Iterator
from typing import Any, ClassVar, NamedTuple

import pytest
import torch
from torch import nn

from tests.rematerialization.models import Looping, Residual
from tests.rematerialization.test_executor import batch
from tests.rematerialization.test_purity import Stateful, rematerialized, steps
from thetaone.errors import ProfileError, RecomputationError
from thetaone.rematerialization import profile

COUNT = contextvars.ContextVar("count", default=0)
SOURCE: contextvars.ContextVar[torch.Generator] = contextvars.ContextVar("source")
BY_MODULE: Any = weakref.WeakKeyDictionary()
SPACE = types.ModuleType("space")


class InContext(Stateful):
    """Counts in a context variable."""

    def advance(self, x: torch.Tensor) -> Any:
        COUNT.set(COUNT.get() + 1)
        return COUNT.get()


def test_context_variables_that_blocks_set_are_theirs_in_every_region() -> None:
    torch.manual_seed(0)
    plain = nn.Sequential(*[InContext() for _ in range(6)])
    ours = rematerialized(copy.deepcopy(plain))
    assert COUNT.get() == 0
    runs = [contextvars.copy_context() for _ in range(2)]
    models = (plain, ours)
    expected, gradients = (run.run(steps, one) for run, one in zip(runs, models, strict=True))
    assert all(map(torch.equal, expected, gradients))
    assert [run[COUNT] for run in runs] == [24, 24]


@functools.cache
def made(number: int) -> torch.Generator:
    return torch.Generator().manual_seed(number)


@functools.lru_cache(maxsize=8)
def bounded(number: int) -> torch.Generator:
    return torch.Generator().manual_seed(number)


def static() -> float:
    return drawn(static.__dict__["generator"])


class Namespace:
    generator = torch.Generator()


class Dice(random.Random):
    pass


class Pair(NamedTuple):
    name: str
    dice: Dice


class Kind(enum.Enum):
    ONE = 1


class Settled(type):
    source = torch.Generator()


class Unsettled(metaclass=Settled):
    pass


SHARED = torch.Generator()


def noisy(tensor: Any) -> torch.Generator:
    return tensor.noise


class Slotted:
    __slots__ = ("generator",)

    def __init__(self, generator: torch.Generator) -> None:
        self.generator = generator


class Stream:
    """An iterator whose state can be seen."""

    def __init__(self) -> None:
        self.generator = torch.Generator().manual_seed(5)

    def __iter__(self) -> "Stream":
        return self

    def __next__(self) -> float:
        return drawn(self.generator)


def drawn(generator: torch.Generator) -> float:
    return float(torch.rand((), generator=generator))


def by_module(block: Any) -> float:
    return drawn(BY_MODULE[block])


def imported(_: Any) -> float:
    import random as dice

    return dice.random()


class Drawing(Residual):
    """Draws from ``source``, which ``draw`` reads."""

    def __init__(self, source: Any, draw: Callable[[Any], float]) -> None:
        super().__init__(16)
        self.source, self.draw = source, draw

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + (super().forward(x) - x) * (self.draw(self) > 0.05)


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(3)


DRAWS: dict[str, tuple[Callable[[], Any], Callable[[Any], float]]] = {
    "cached factory": (object, lambda _: drawn(made(1))),
    "function's attribute": (object, lambda _: static()),
    "class as a value": (lambda: Namespace, lambda one: drawn(one.source.generator)),
    "classes in a list": (lambda: [Namespace], lambda one: drawn(one.source[0].generator)),
    "module as a value": (lambda: SPACE, lambda one: drawn(one.source.generator)),
    "named tuple": (lambda: Pair("a", Dice(3)), lambda one: one.source.dice.random()),
    "slots": (lambda: Slotted(seeded()), lambda one: drawn(one.source.generator)),
    "written iterator": (Stream, lambda one: next(one.source)),
    "bound method": (lambda: Dice(3).random, lambda one: one.source()),
    "context variable": (object, lambda _: drawn(SOURCE.get())),
    "weak dictionary": (object, by_module),
    "view of a dictionary": (
        lambda: {"a": seeded()}.values(), lambda one: drawn(next(iter(one.source)))
    ),
    "imported inside": (object, imported),
    "parameter": (object, lambda one: drawn(noisy(one.up.weight))),
    "buffer": (lambda: nn.BatchNorm1d(1), lambda one: drawn(noisy(one.source.running_mean))),
    "enumeration": (lambda: Kind.ONE, lambda one: drawn(one.source.generator)),
    "metaclass": (lambda: Unsettled, lambda one: drawn(one.source.source)),
    "globals()": (object, lambda _: drawn(globals()["SHARED"])),
    "sys.modules": (object, lambda _: drawn(sys.modules["tests_space"].generator)),
    "import_module": (object, lambda _: drawn(importlib.import_module("tests_space").generator)),
}  # fmt: skip


def reset(model: nn.Sequential) -> None:
    made.cache_clear()
    sys.modules["tests_space"] = SPACE
    vars(Kind.ONE)["generator"] = seeded()
    Settled.source.manual_seed(3)
    SHARED.manual_seed(3)
    for number, block in enumerate(model):
        BY_MODULE[block] = torch.Generator().manual_seed(number)
        for tensor in (*block.parameters(), *block.buffers()):
            vars(tensor)["noise"] = seeded()
    static.__dict__["generator"] = seeded()
    SOURCE.set(seeded())
    SPACE.__dict__["generator"] = seeded()
    Namespace.generator.manual_seed(3)
    random.seed(3)


def states() -> list[Any]:
    return [
        made.cache_info().currsize,
        *(one.get_state().tolist() for one in BY_MODULE.values()),
        static.__dict__["generator"].get_state().tolist(),
        SOURCE.get().get_state().tolist(),
        SPACE.__dict__["generator"].get_state().tolist(),
        Namespace.generator.get_state().tolist(),
        SHARED.get_state().tolist(),
        Settled.source.get_state().tolist(),
        vars(Kind.ONE)["generator"].get_state().tolist(),
    ]


@pytest.mark.parametrize("name", DRAWS)
def test_generators_are_found_wherever_they_are(name: str) -> None:
    """With rare drops, which no comparison of two runs comes upon."""

    def gradients(*, ours: bool) -> list[torch.Tensor]:
        torch.manual_seed(0)
        source, draw = DRAWS[name]
        model = nn.Sequential(*[Drawing(source(), draw) for _ in range(6)])
        reset(model)
        before = states()
        if ours:
            rematerialized(model)
            assert states() == before
        reset(model)
        return steps(model, 16)

    assert all(map(torch.equal, gradients(ours=False), gradients(ours=True)))


class First(Stateful):
    """Makes its counter at the first call."""

    def __init__(self, count: Callable[[], int]) -> None:
        super().__init__()
        self.count = count

    def advance(self, x: torch.Tensor) -> Any:
        return self.count()


class Tally:
    pass


def on_a_class() -> int:
    Tally.calls = getattr(Tally, "calls", 0) + 1  # pyright: ignore
    return Tally.calls  # pyright: ignore


def in_a_global() -> int:
    global CALLS
    try:
        CALLS += 1  # pyright: ignore
    except NameError:
        CALLS = 1
    return CALLS


def on_a_function() -> int:
    on_a_function.__dict__["calls"] = on_a_function.__dict__.get("calls", 0) + 1
    return on_a_function.__dict__["calls"]


def on_a_module() -> int:
    SPACE.calls = getattr(SPACE, "calls", 0) + 1  # pyright: ignore
    return SPACE.calls


@functools.cache
def tally() -> dict[str, int]:
    return {"calls": 0}


def in_a_cache() -> int:
    tally()["calls"] += 1
    return tally()["calls"]


COUNTERS: dict[str, tuple[Callable[[], int], Callable[[], int]]] = {
    "class": (on_a_class, lambda: vars(Tally).get("calls", 0)),
    "global": (in_a_global, lambda: globals().get("CALLS", 0)),
    "function": (on_a_function, lambda: vars(on_a_function).get("calls", 0)),
    "module": (on_a_module, lambda: vars(SPACE).get("calls", 0)),
    "cache": (in_a_cache, lambda: tally()["calls"] if tally.cache_info().currsize else 0),
}


@pytest.mark.parametrize("name", COUNTERS)
def test_counters_made_at_the_first_call_count_each_call_once(name: str) -> None:
    count, read = COUNTERS[name]

    def counted(*, ours: bool) -> list[torch.Tensor]:
        torch.manual_seed(0)
        for space in (vars(on_a_function), vars(SPACE), globals()):
            space.pop("calls", None)
        globals().pop("CALLS", None)
        if "calls" in vars(Tally):
            del Tally.calls  # pyright: ignore
        tally.cache_clear()
        model = nn.Sequential(*[First(count) for _ in range(6)])
        if ours:
            rematerialized(model)
            assert read() == 0
        gradients = steps(model)
        assert read() == 24
        return gradients

    assert all(map(torch.equal, counted(ours=False), counted(ours=True)))


def forever() -> Iterator[float]:
    while True:
        yield 0.5


def closed_over(source: Any) -> Callable[[Any], float]:
    return lambda _: next(source)


def in_default(_: Any, source: Iterator[float] = itertools.repeat(0.5)) -> float:  # noqa: B008
    return next(source)


REFUSED: dict[str, tuple[Any, Callable[[Any], float], str]] = {
    "attribute": (forever, lambda one: next(one.source), "source is a generator, whose position"),
    "list": (lambda: [forever()], lambda one: next(one.source[0]), r"\[0\] is a generator"),
    "dictionary": (
        lambda: {"a]": (forever(),)}, lambda one: next(one.source["a]"][0]), "is a generator"
    ),
    "closure": (object, closed_over(itertools.repeat(0.5)), "is a repeat, whose position"),
    "default": (object, in_default, "is a repeat, whose position"),
    "partial": (lambda: functools.partial(next, forever()), lambda one: one.source(), "generator"),
    "method": (lambda: forever().__next__, lambda one: one.source(), "is a generator"),
    "object": (
        lambda: types.SimpleNamespace(a=iter([0.5] * 9)), lambda one: next(one.source.a),
        "source.a is a list_iterator",
    ),
    "shared memory": (
        lambda: multiprocessing.Value("d", 0.5), lambda one: one.source.value, "is a c_double"
    ),
    "number in C": (lambda: ctypes.c_double(0.5), lambda one: one.source.value, "is a c_double"),
    "queue in C": (queue.SimpleQueue, lambda one: float(one.source.empty()), "is a SimpleQueue"),
    "bounded cache": (object, lambda _: drawn(bounded(1)), "a cache of a bounded size"),
    "operating system": (object, lambda _: os.urandom(1)[0] + 1, "a draw from the operating"),
    "unique number": (object, lambda _: float(uuid.uuid4().int > 0), "a draw from the operating"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_noted_is_refused_by_name(name: str) -> None:
    source, draw, message = REFUSED[name]
    with pytest.raises(ProfileError, match=message):
        profile(Looping(3, lambda: Drawing(source(), draw)), batch(), repeats=1)


@pytest.mark.filterwarnings("ignore:.torch.jit.script:DeprecationWarning")
def test_blocks_of_torchscript_are_refused_by_name() -> None:
    class Scripted(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear, self.calls = nn.Linear(16, 16), 0

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.calls += 1
            return x + torch.tanh(self.linear(x)) * self.calls

    model = nn.Sequential(*(torch.jit.script(Scripted()) for _ in range(4)))  # pyright: ignore
    with pytest.raises(ProfileError, match="0 is compiled by TorchScript"):
        profile(model, batch())


def test_parameters_as_keys_are_refused_by_name() -> None:
    class Keyed(Residual):
        def __init__(self) -> None:
            super().__init__(16)
            self.table = {self.up.weight: 1.0}

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x) * self.table[self.up.weight]

    with pytest.raises(ProfileError, match="Look things up by a parameter's name"):
        profile(nn.Sequential(*(Keyed() for _ in range(4))), batch())


def test_what_no_code_names_is_no_reason_to_refuse() -> None:
    class Idle(Residual):
        def __init__(self) -> None:
            super().__init__(16)
            self.idle, self.many = forever(), [multiprocessing.Value("d", 0.5), os.urandom]

    assert profile(Looping(3, Idle), batch(), repeats=1).length == 3


LOGGER = logging.getLogger(__name__)
LETTERS = re.compile("[a-z]+")
LOCK = threading.Lock()
HALF = struct.Struct("e")


class Activation(enum.Enum):
    TANH = "tanh"


@dataclasses.dataclass(frozen=True, slots=True)
class Settings:
    scale: float = 1.0
    activations: tuple[Activation, ...] = (Activation.TANH,)
    since: datetime.date = datetime.date(2020, 1, 1)


@functools.lru_cache
def table(size: int) -> torch.Tensor:
    return torch.linspace(0, 1, size)


class Usual(Residual):
    """Uses what blocks usually use."""

    registry: ClassVar[dict[str, type[nn.Module]]] = {"relu": nn.ReLU, "tanh": nn.Tanh}

    def __init__(self) -> None:
        super().__init__(16)
        self.settings, self.logger, self.lock = Settings(), LOGGER, threading.RLock()
        self.first, self.dtype, self.size = operator.itemgetter(0), torch.float32, torch.Size([16])
        self.fraction, self.ratio = fractions.Fraction(1, 2), decimal.Decimal("0.5")
        self.distribution = torch.distributions.Normal(0.0, 1.0)
        self.make: Callable[..., nn.Module] = functools.partial(nn.Linear, bias=False)
        self.path, self.hint, self.sentinel = pathlib.Path(), list[int], object()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.logger.debug("forward of %s", LETTERS.match("a"))
        with self.lock, LOCK, contextlib.nullcontext():
            y = super().forward(x) * table(x.shape[-1]) * float(self.fraction) * math.sin(1.0)
        if self.settings.activations[0] is Activation.TANH and self.path.name == "":
            y = self.registry["tanh"]()(y).to(self.dtype).reshape(-1, *self.size)
        y = y * float(self.ratio) * self.settings.since.year * HALF.size
        return x + self.first((y, self.hint, self.sentinel)) + self.distribution.log_prob(y).exp()


def test_what_blocks_usually_use_is_not_refused() -> None:
    torch.manual_seed(0)
    plain, ours = (nn.Sequential(*[Usual() for _ in range(6)]) for _ in range(2))
    ours.load_state_dict(plain.state_dict())
    expected, gradients = steps(plain, 2), steps(rematerialized(ours), 2)
    assert all(map(torch.equal, expected, gradients))


RESULTS: dict[str, float] = {"computed": 0.0}


@functools.lru_cache(maxsize=1)
def latest(key: int) -> float:
    return 1.0 + key / 8


@functools.lru_cache(maxsize=1)
def counted(key: int) -> float:
    RESULTS["computed"] += 1
    return RESULTS["computed"]


class Remembering(Residual):
    """Scales by a result of a function that remembers one, of as many keys."""

    steps = 0

    def __init__(self, function: Callable[[int], float], keys: int) -> None:
        super().__init__(16)
        self.function, self.keys = function, keys

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.steps += 1
        return super().forward(x) * self.function(self.steps % self.keys)


def test_a_bounded_cache_is_left_as_it_is() -> None:
    latest.cache_clear()
    torch.manual_seed(0)
    plain = nn.Sequential(*[Remembering(latest, 3) for _ in range(6)])
    ours = rematerialized(copy.deepcopy(plain))
    expected = steps(plain)
    computed = latest.cache_info().misses
    latest.cache_clear()
    assert all(map(torch.equal, expected, steps(ours)))
    assert latest.cache_info().misses == computed


def test_a_bounded_cache_of_a_function_that_changes_something_is_refused() -> None:
    counted.cache_clear()
    ours = rematerialized(nn.Sequential(*[Remembering(counted, 3) for _ in range(6)]))
    with pytest.raises(RecomputationError, match=r"counted remembers .*changes .*computed"):
        steps(ours)
