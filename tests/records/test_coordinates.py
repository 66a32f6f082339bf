"""The printed coordinate check: short however deep the model is."""

from thetaone.records import FEATURE_UPDATE, Answer, CoordinateCheck, LayerVerdict, PowerLaw


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
