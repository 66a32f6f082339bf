"""Blocks that hand on dataclasses, ordered dicts and other records."""

import dataclasses
from collections import OrderedDict, defaultdict
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from tests.rematerialization.loops import ByLoop, peak
from tests.rematerialization.models import Looping, Residual
from tests.rematerialization.test_executor import assert_same, backward, batch
from thetaone.errors import ProfileError
from thetaone.rematerialization import profile, rematerialize
from thetaone.rematerialization.blocks import mapped


@dataclasses.dataclass(frozen=True)
class Frozen:
    hidden: torch.Tensor
    depth: int = 0
    aux: Any = None


@dataclasses.dataclass(slots=True)
class Slotted:
    hidden: torch.Tensor
    depth: int = 0


@dataclasses.dataclass
class Strict:
    """Its constructor looks at what it is handed, as those of transformers do."""

    hidden: torch.Tensor
    depth: int = 0

    def __post_init__(self) -> None:
        self.rows = len(self.hidden)
        self.squared = self.hidden.square()


class Attributes(dict[str, Any]):
    __getattr__ = dict.__getitem__
    __setattr__ = dict.__setitem__  # pyright: ignore[reportAssignmentType]


class Mirrored(dict[str, Any]):
    def __init__(self, **items: Any) -> None:
        super().__init__(items)
        self.__dict__ = self


def by_default(**items: Any) -> defaultdict[str, Any]:
    return defaultdict(list, items)


def ordered(**items: Any) -> OrderedDict[str, Any]:
    return OrderedDict(outer=OrderedDict(items), none=None)


def hidden_of(record: Any) -> torch.Tensor:
    if isinstance(record, dict):
        return record.get("outer", record)["hidden"]
    return record.hidden


MAKERS: dict[str, Callable[..., Any]] = {
    "frozen dataclass": lambda hidden, depth: Frozen(hidden, depth, {"mean": hidden.mean()}),
    "slots": Slotted,
    "constructor": Strict,
    "attributes": Attributes,
    "defaultdict": by_default,
    "ordered": ordered,
}


class Recording(Residual):
    def __init__(self, make: Callable[..., Any]) -> None:
        super().__init__(16, 0.1)
        self.make = make

    def forward(self, record: Any) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        return self.make(hidden=super().forward(hidden_of(record)), depth=3)


@pytest.mark.parametrize("name", MAKERS)
def test_records_pass_through_regions_bit_for_bit(name: str) -> None:
    def loop(model: Looping, x: torch.Tensor) -> torch.Tensor:
        record = MAKERS[name](hidden=x, depth=3)
        for block in model.blocks:
            record = block(record)
        return model.outer(hidden_of(record))

    assert_same(ByLoop(loop, lambda: Recording(MAKERS[name])), backward, batch())


def test_a_dict_that_is_its_own_attributes_is_put_together_as_one() -> None:
    record, hidden = Mirrored(hidden=torch.ones(2), depth=3), torch.zeros(2)
    made: Any = mapped(record, lambda leaf: hidden if isinstance(leaf, torch.Tensor) else leaf)
    assert type(made).__name__ == "Mirrored"
    assert made is not record
    assert made["hidden"] is hidden
    assert made.hidden is hidden
    made.depth = 4
    assert (made["depth"], record["depth"]) == (4, 3)


def test_a_record_read_by_attribute_keeps_regions_over_several_blocks() -> None:
    outputs = pytest.importorskip("transformers.modeling_outputs")

    class Stating(Residual):
        def forward(self, x: torch.Tensor) -> Any:
            return outputs.BaseModelOutput(last_hidden_state=super().forward(x))

    def loop(model: Looping, x: torch.Tensor) -> torch.Tensor:
        for block in model.blocks:
            x = block(x).last_hidden_state
        return model.outer(x)

    model = ByLoop(loop, lambda: Stating(16, 0.1))
    assert_same(model, backward, batch())
    x = batch(64, 16)
    full = peak(model, lambda one: backward(one, x))
    rematerialize(model, sample=x, budget=int(0.5 * full))
    assert peak(model, lambda one: backward(one, x)) <= int(0.5 * full)


def test_a_record_that_leads_back_to_itself_is_an_argument_as_any_other() -> None:
    @dataclasses.dataclass
    class Circle:
        shift: torch.Tensor
        back: Any = None

    circle = Circle(torch.ones(16))
    circle.back = circle

    class Circling(Residual):
        def forward(self, x: torch.Tensor, circle: Circle) -> torch.Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
            return super().forward(x) + circle.back.shift

    def loop(model: Looping, x: torch.Tensor) -> torch.Tensor:
        for block in model.blocks:
            x = block(x, circle)
        return model.outer(x)

    assert_same(ByLoop(loop, lambda: Circling(16, 0.1)), backward, batch())


@pytest.mark.parametrize("make", [dict, Attributes, Strict], ids=["dict", "record", "dataclass"])
def test_an_output_that_is_only_written_into_the_argument_is_refused(make: Any) -> None:
    class Writing(Residual):
        def forward(self, record: Any) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
            hidden = super().forward(hidden_of(record))
            if isinstance(record, dict):
                record["hidden"] = hidden
            else:
                record.hidden = hidden
            return record

    def loop(model: Looping, x: torch.Tensor) -> torch.Tensor:
        record = make(hidden=x)
        for block in model.blocks:
            block(record)
        return model.outer(hidden_of(record))

    with pytest.raises(ProfileError, match=r"blocks\.0 writes its output into a container"):
        profile(ByLoop(loop, lambda: Writing(16, 0.1)), batch())


def test_a_module_that_is_a_dataclass_is_no_record() -> None:
    @dataclasses.dataclass(eq=False)
    class Shift(nn.Module):
        size: int

        def __post_init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(self.size))

    class Shifting(Residual):
        def forward(self, x: torch.Tensor, shift: Shift) -> torch.Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
            return super().forward(x) + shift.weight

    class Model(ByLoop):
        def __init__(self) -> None:
            super().__init__(self.run, lambda: Shifting(16, 0.1))
            self.shift = Shift(16)

        def run(self, model: Looping, x: torch.Tensor) -> torch.Tensor:
            for block in model.blocks:
                x = block(x, self.shift)
            return model.outer(x)

    assert_same(Model(), backward, batch())
