"""The printed coordinate check: short however deep the model is."""

import math

from thetaone.records import (
    FEATURE_UPDATE,
    Answer,
    CoordinateCheck,
    LayerVerdict,
    PowerLaw,
    Prescription,
    Rule,
    block_kinds,
)


def row(
    layer: str, exponent: float, answer: Answer, role: str = "hidden", step: int = 1
) -> LayerVerdict:
    law = PowerLaw(exponent=exponent, stderr=0.01, interval=(exponent - 0.02, exponent + 0.02),
                   prefactor=1.0, n_points=3)  # fmt: skip
    return LayerVerdict(
        layer=layer, role=role, quantity=FEATURE_UPDATE, step=step, law=law,
        band=(-0.25, 0.25), values=((1.0, 1.0),), answer=answer,
        cause="too fast" if answer == "fails" else "",
    )  # fmt: skip


def test_a_printed_check_has_one_row_a_kind_of_layer() -> None:
    blocks = [row(f"blocks.{i}.up", 0.01 * i, "holds") for i in range(20)]
    check = CoordinateCheck(
        parametrization="mup", optimizer="AdamW", lr=0.1, sizes=(8, 16), steps=(1,), seeds=1,
        rows=(*blocks, row("blocks.20.up", 0.9, "fails"), row("head", 0.0, "holds")),
    )  # fmt: skip
    columns, rows = check.table()
    assert columns == ("layer", "role", "layers", FEATURE_UPDATE, "verdict")
    assert [(r[0], r[2], r[-1]) for r in rows] == [
        ("blocks.*.up", "21", "✗ 1 of 21"), ("head", "1", "ok"),
    ]  # fmt: skip
    assert rows[0][3].startswith("+0.90 ± 0.02")  # the one furthest from holding
    assert "✗ blocks.20.up: too fast" in str(check)
    assert "FAILED in 1 layer; exponents in width: mup, AdamW" in str(check)
    assert "width 8, 16, 1 seed, step 1" in str(check)
    other = row("blocks.21.up", 0.0, "holds", role="output")
    _, rows = check.model_copy(update={"rows": (*check.rows, other)}).table()
    assert ("blocks.21.up", "output", "1") in [r[:3] for r in rows]  # not one of the hidden ones


def test_what_fails_at_a_step_that_is_not_shown_is_marked_and_named() -> None:
    """A failed check whose table shows no failing row leaves its reader alone."""
    rows = (row("up", 0.0, "holds"), row("head", 0.9, "fails"), row("head", 0.0, "holds", step=3))
    check = CoordinateCheck(
        parametrization="mup", optimizer="AdamW", lr=0.1, sizes=(8, 16), steps=(1, 3), seeds=1,
        rows=(*rows, row("up", 0.0, "holds", step=3)),
    )  # fmt: skip
    assert {r[0]: r[-1] for r in check.table()[1]} == {"up": "ok", "head": "✗ step 1"}
    assert "✗ head at step 1: too fast" in str(check)


def test_a_summary_names_three_kinds_of_failing_layers() -> None:
    names = [f"blocks.{i}.{part}" for i in range(9) for part in ("qkv", "out", "up", "down")]
    check = CoordinateCheck(
        parametrization="sp", optimizer="AdamW", lr=0.1, sizes=(8, 16), steps=(1,), seeds=1,
        rows=tuple(row(name, 0.9, "fails") for name in [*names, "head"]),
    )  # fmt: skip
    assert check.outcome == "failed in blocks.*.qkv, blocks.*.out, blocks.*.up and 2 other kinds"


def test_numbers_glued_to_a_word_are_starred_where_a_module_of_one_name_lies_in_each() -> None:
    names = [
        f"layer{i}.{part}" for i in range(6) for part in ("fc1", "fc2", "fc1.bias", "fc2.bias")
    ]
    blocks = [f"block_{i}.0.up.weight" for i in range(3)]
    alone = ["conv1.weight", "conv2.weight", "head1.net.out.weight", "tower2.net.in.weight"]
    kinds = block_kinds([*names, "layer0", "layer1", *blocks, *alone])
    assert {kinds[name] for name in names} == {
        "layer*.fc1", "layer*.fc2", "layer*.fc1.bias", "layer*.fc2.bias"
    }  # fmt: skip
    assert {kinds[name] for name in ("layer0", "layer1")} == {"layer*"}
    assert {kinds[name] for name in blocks} == {"block_*.*.up.weight"}
    assert [kinds[name] for name in alone] == alone
    check = CoordinateCheck(
        parametrization="mup", optimizer="AdamW", lr=0.1, sizes=(8, 16), steps=(1,), seeds=1,
        rows=tuple(row(name, 0.0, "holds") for name in names),
    )  # fmt: skip
    assert [r[0] for r in check.table()[1]] == [
        "layer*.fc1", "layer*.fc2", "layer*.fc1.bias", "layer*.fc2.bias"
    ]  # fmt: skip


def test_a_prescription_pools_blocks_of_either_spelling_and_only_what_gets_the_same() -> None:
    def rule(name: str, fan_in: int = 4, init_std: float = 0.5) -> Rule:
        return Rule(name=name, role="hidden", shape=(4, 4), fan_in=fan_in, fan_out=4,
                    init_std=init_std)  # fmt: skip

    glued = [rule(f"layer{i}.up.weight", init_std=i) for i in (3, 4)]
    stages = [rule(f"stage{i}.{j}.up.weight", fan_in=i) for i in (1, 2) for j in (0, 1)]
    pooled = Prescription(optimizer="AdamW", rules=(*glued, *stages)).kinds()
    assert [(kind.name, kind.init_std, count) for kind, count in pooled] == [
        ("layer*.up.weight", math.sqrt(12.5), 2),
        ("stage1.*.up.weight", 0.5, 2),
        ("stage2.*.up.weight", 0.5, 2),
    ]
