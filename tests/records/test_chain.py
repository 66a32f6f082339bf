import pytest

from thetaone.errors import InputError, RecordError
from thetaone.records import Chain, Region, Schedule, Stage


def stage(**changes: float) -> Stage:
    fields = {"forward_seconds": 1.0, "backward_seconds": 2.0, "output_bytes": 1, "tape_bytes": 16}
    return Stage.model_validate({"name": "block", **fields, **changes})


def schedule(*regions: tuple[int, int], length: int = 4) -> Schedule:
    return Schedule(
        length=length,
        regions=tuple(Region(start=start, stop=stop) for start, stop in regions),
        total_seconds=1.0,
        peak_bytes=1,
        forwards=length + sum(stop - start for start, stop in regions),
        loads=len(regions),
        policy="by hand",
    )


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("forward_seconds", 0.0),
        ("forward_seconds", float("nan")),
        ("backward_seconds", -1.0),
        ("output_bytes", 0),
        ("tape_bytes", -1),
        ("forward_scratch_bytes", -1),
        ("backward_scratch_bytes", -1),
        ("taping_scratch_bytes", -1),
    ],
)
def test_impossible_cost_is_named(field: str, value: float) -> None:
    fields = {"forward_seconds": 1.0, "backward_seconds": 2.0, "output_bytes": 1, "tape_bytes": 1}
    with pytest.raises(InputError, match=rf"stage 'conv': {field}="):
        Stage(name="conv", **{**fields, field: value})


def test_empty_chain_is_rejected() -> None:
    with pytest.raises(InputError, match="need at least one stage"):
        Chain(input_bytes=1, stages=())


def test_json_round_trip_and_bad_field_in_file() -> None:
    chain = Chain(input_bytes=3, stages=(stage(), stage(tape_bytes=7)), context={"device": "cpu"})
    assert Chain.from_json(chain.to_json()) == chain
    with pytest.raises(RecordError, match="tape_bytes=-7"):
        Chain.from_json(chain.to_json().replace('"tape_bytes": 7', '"tape_bytes": -7'))


def test_fingerprint_sees_costs_and_not_names() -> None:
    chain = Chain(input_bytes=3, stages=(stage(),))
    renamed = Chain(input_bytes=3, stages=(stage().model_copy(update={"name": "other"}),))
    assert chain.fingerprint == renamed.fingerprint
    assert chain.fingerprint != Chain(input_bytes=4, stages=(stage(),)).fingerprint


@pytest.mark.parametrize(
    "regions", [[(0, 3), (2, 4)], [(0, 2), (0, 2)], [(0, 1), (0, 3)], [(2, 2)], [(0, 5)]]
)
def test_regions_that_are_not_nested_are_rejected(regions: list[tuple[int, int]]) -> None:
    with pytest.raises(InputError, match="region"):
        schedule(*regions)


def test_executions_replays_and_drawing() -> None:
    nested = schedule((0, 3), (0, 1))
    assert nested.executions == (3, 2, 2, 1)
    assert nested.replays == 1
    assert nested.drawing().splitlines()[-1].strip() == "3221"
    assert "executions of each stage, and ┌ where a region begins" in str(nested)
