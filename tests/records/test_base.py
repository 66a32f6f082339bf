import json
import math
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest

from thetaone.errors import InputError, RecordError
from thetaone.records import Optimum, PowerLaw, Region, Schedule
from thetaone.records._base import Record

LAW = PowerLaw(exponent=1.0, stderr=math.inf, interval=(-1, 2.5), prefactor=3, n_points=4)


def test_json_round_trip_is_equal_and_keeps_infinities(tmp_path) -> None:
    LAW.to_json(tmp_path / "law.json")
    assert PowerLaw.from_json(tmp_path / "law.json") == LAW
    assert math.isnan(
        PowerLaw.from_json(LAW.model_copy(update={"stderr": math.nan}).to_json()).stderr
    )


@pytest.mark.parametrize(
    ("update", "message"),
    [
        ({"exponent": "steep"}, "PowerLaw: exponent: Input should be a valid number"),
        ({"slope": 1.0}, "PowerLaw: slope: Extra inputs are not permitted"),
    ],
)
def test_a_copy_is_checked_as_a_new_record_is(update: dict[str, Any], message: str) -> None:
    with pytest.raises(RecordError, match=message):
        LAW.model_copy(update=update)
    assert LAW.model_copy(update={"prefactor": 4}) == PowerLaw(
        exponent=1.0, stderr=math.inf, interval=(-1, 2.5), prefactor=4, n_points=4
    )


def test_a_copy_of_a_schedule_keeps_to_the_rules_of_its_constructor() -> None:
    schedule = Schedule(
        length=4, policy="", total_seconds=1.0, peak_bytes=1, forwards=4, loads=0,
    )  # fmt: skip
    with pytest.raises(InputError, match=r"region 3…2 of a chain of 4 stages"):
        schedule.model_copy(update={"regions": (Region(start=3, stop=2),)})
    with pytest.raises(InputError, match="Schedule: length: Input should be a valid integer"):
        schedule.model_copy(update={"length": "four"})
    copied = schedule.model_copy(update={"regions": (Region(start=0, stop=2),)})
    assert copied.executions == (2, 2, 1, 1)


def test_frozen() -> None:
    with pytest.raises(ValueError, match="frozen"):
        LAW.exponent = 2.0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is not JSON"),
        (LAW.to_json().replace('"version": 1', '"version": 9'), "of version 9; .* reads version 1"),
        (
            LAW.to_json().replace('"PowerLaw"', '"Chain"'),
            "this is a Chain record; expected PowerLaw",
        ),
        (
            LAW.to_json().replace("exponent", "exponnet"),
            "PowerLaw record: exponent: Field required",
        ),
    ],
)
def test_what_is_not_this_record_is_refused(text: str, message: str) -> None:
    with pytest.raises(RecordError, match=message):
        PowerLaw.from_json(text)


def test_a_changed_digit_is_no_other_record(tmp_path: Path) -> None:
    """Every digit of every value; layout is free, and so is a record without a digest."""
    text = LAW.to_json()
    values = text[: text.index('"digest"')]
    digits = [at for at, sign in enumerate(values) if sign.isdigit()]
    assert len(digits) > 5
    for at in digits:
        changed = text[:at] + str((int(text[at]) + 1) % 10) + text[at + 1 :]
        with pytest.raises(RecordError, match=r"digest|of version"):
            PowerLaw.from_json(changed)
    (tmp_path / "law.json").write_text(text.replace('"n_points": 4', '"n_points": 5'))
    with pytest.raises(RecordError, match=r'law\.json: the PowerLaw .*remove the entry "digest"'):
        PowerLaw.from_json(tmp_path / "law.json")
    data = json.loads(text)
    assert PowerLaw.from_json(json.dumps(data, sort_keys=True)) == LAW
    del data["digest"]
    data["n_points"] = 5
    assert PowerLaw.from_json(json.dumps(data)) == LAW.model_copy(update={"n_points": 5})


def test_missing_file_is_named(tmp_path) -> None:
    with pytest.raises(RecordError, match=r"cannot read PowerLaw from .*gone\.json"):
        PowerLaw.from_json(tmp_path / "gone.json")


def test_no_picture_is_said() -> None:
    with pytest.raises(RecordError, match="Optimum record has no picture"):
        Optimum(log2_lr=1, stderr=1, interval=(0, 2), loss=1).plot()


class Named(Record):
    names: tuple[str, ...]

    @cached_property
    def by_name(self) -> dict[str, int]:
        return {name: place for place, name in enumerate(self.names)}


def test_a_copy_keeps_nothing_that_was_made_of_the_fields_before() -> None:
    record = Named(names=("a",))
    assert record.by_name == {"a": 0}
    assert record.unchecked_copy(names=("b",)).by_name == {"b": 0}
    assert record.model_copy(update={"names": ("c",)}).by_name == {"c": 0}


def test_a_power_law_prints_as_a_formula() -> None:
    law = PowerLaw(
        exponent=0.9817, stderr=0.0512, interval=(0.3314, 1.632), prefactor=0.01721, n_points=3
    )
    assert str(law) == (
        "0.01721 · size^0.9817; exponent ± 0.051, 95% interval [0.3314, 1.632], 3 points"
    )
