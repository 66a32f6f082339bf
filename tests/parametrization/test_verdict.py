"""Three answers: right for few seeds, with the power to see what matters; causes in their order."""

import math
import random
from typing import Any

import pytest
import torch

from thetaone.parametrization.checking.verdict import (
    ALIGNED_NORM,
    Context,
    Fault,
    Places,
    judge,
    likely_cause,
)
from thetaone.records import (
    FAILS,
    FEATURE_SIZE,
    FEATURE_UPDATE,
    HOLDS,
    OWN_UPDATE,
    UNDECIDED,
    UPDATE_NORM,
    WEIGHT_NORM,
    LayerVerdict,
    PowerLaw,
)

WIDTHS = (64, 128, 256)
BAND = 0.25


def noisy(
    generator: random.Random, exponent: float, seeds: int, spread: float, of_seed: float = 0.0
) -> list[list[float]]:
    """Power laws with independent errors at each size, and an exponent of each seed's own."""
    rows: list[list[float]] = []
    for _ in range(seeds):
        own = exponent + generator.gauss(0, of_seed)
        level = generator.gauss(0, 1)
        rows.append(
            [math.exp(level + own * math.log(w) + generator.gauss(0, spread)) for w in WIDTHS]
        )
    return rows


def verdict(values: list[list[float]], quantity: str = UPDATE_NORM, step: int = 3) -> LayerVerdict:
    (row,) = judge({("layer", quantity, step): values}, WIDTHS, Context(order=["layer"]))
    return row


@pytest.mark.parametrize("seeds", [2, 4])
@pytest.mark.parametrize(("spread", "of_seed"), [(0.3, 0.0), (0.0, 0.3), (0.1, 0.1), (0.02, 0.0)])
def test_a_right_row_seldom_fails_however_noisy(seeds: int, spread: float, of_seed: float) -> None:
    """At most 5 % of rows on the very edge of the band may fail, by Student's t; inside, fewer."""
    generator = random.Random(0)
    runs = 300
    edge = [verdict(noisy(generator, BAND, seeds, spread, of_seed)) for _ in range(runs)]
    assert sum(row.answer == FAILS for row in edge) / runs <= 0.025 + 4.5 * (0.025 / runs) ** 0.5
    inside = [verdict(noisy(generator, 0.0, seeds, spread, of_seed)) for _ in range(runs)]
    assert sum(row.answer == FAILS for row in inside) <= 0.01 * runs


@pytest.mark.parametrize(
    ("exponent", "seeds", "spread", "answer"),
    [
        (0.0, 3, 0.02, HOLDS),
        (0.5, 3, 0.02, FAILS),
        (-0.5, 3, 0.02, FAILS),
        (0.5, 8, 0.1, FAILS),
        (0.0, 8, 0.1, HOLDS),
    ],
)
def test_what_matters_is_seen(exponent: float, seeds: int, spread: float, answer: str) -> None:
    """Power: of rows with the usual noise, at least 95 % get the right answer."""
    generator = random.Random(1)
    rows = [verdict(noisy(generator, exponent, seeds, spread)) for _ in range(100)]
    assert sum(row.answer == answer for row in rows) >= 95


def test_an_undecided_row_says_how_many_seeds_would_do() -> None:
    generator = random.Random(2)
    row = verdict(noisy(generator, 0.1, 4, 0.15))
    assert row.answer == UNDECIDED
    assert 4 < row.seeds_needed < 100
    more = [verdict(noisy(generator, 0.1, 3 * row.seeds_needed, 0.15)) for _ in range(40)]
    assert sum(one.answer == HOLDS for one in more) >= 32
    alone = verdict([[1.0, 1.1, 0.9]])
    assert alone.answer == UNDECIDED
    assert alone.seeds_needed > 1


def test_two_seeds_that_agree_by_chance_are_not_knowledge() -> None:
    """Equal slopes of +0.4, far from any line: the scatter of slopes alone would say FAILS."""
    bent = [[1.0, 2.0, 1.0 * 4**0.4], [1.0, 0.5, 1.0 * 4**0.4]]
    assert verdict(bent).answer == UNDECIDED


@pytest.mark.parametrize(
    ("quantity", "step", "zero", "answer"),
    [
        (WEIGHT_NORM, 0, True, HOLDS),  # a matrix of zeros is a choice
        (UPDATE_NORM, 1, True, HOLDS),  # behind one the first step has no gradient
        (UPDATE_NORM, 3, True, FAILS),  # but not all of them
        (UPDATE_NORM, 3, False, FAILS),  # diverged
    ],
)
def test_zeros_and_infinities(quantity: str, step: int, zero: bool, answer: str) -> None:
    values = [[0.0 if zero else math.inf] * 3] * 2
    other = [[1.0] * 3] * 2
    rows = judge(
        {("layer", quantity, step): values, ("other", UPDATE_NORM, 3): other},
        WIDTHS,
        Context(order=["layer", "other"]),
    )
    assert rows[0].answer == answer


def test_one_step_behind_zeros_is_undecided() -> None:
    values = {("layer", UPDATE_NORM, 1): [[0.0] * 3] * 2}
    for zero_initial, answer in ((True, UNDECIDED), (False, FAILS)):
        context = Context(order=["layer"], zero_initial=zero_initial)
        assert judge(values, WIDTHS, context)[0].answer == answer


@pytest.mark.parametrize(("layer", "answer"), [("(loss) exp", HOLDS), ("head", FAILS)])
def test_what_the_loss_keeps_at_zero_is_no_dead_layer(layer: str, answer: str) -> None:
    """A ratio of probabilities before they move, exp(ℓ − ℓ.detach()), takes in exact zeros."""
    zeros = {(layer, FEATURE_UPDATE, step): [[0.0] * 3] * 2 for step in (1, 2)}
    rows = judge(zeros, [32, 64, 128], Context(order=[layer]))
    assert {row.step: row.answer for row in rows} == {1: HOLDS, 2: answer}


def rows_of(
    exponents: dict[tuple[str, str, int], float], **context: Any
) -> dict[Any, LayerVerdict]:
    """Verdicts of exact power laws with a little noise."""
    generator = random.Random(3)
    values = {key: noisy(generator, e, 4, 0.01) for key, e in exponents.items()}
    layers = list(dict.fromkeys(layer for layer, _, _ in exponents))
    verdicts = judge(values, WIDTHS, Context(**{"order": layers, **context}))
    return {(row.layer, row.quantity, row.step): row for row in verdicts}


def test_a_fall_is_excused_where_only_the_inherited_part_falls() -> None:
    rows = rows_of(
        {
            ("readout", OWN_UPDATE, 3): 0.0,
            ("readout", FEATURE_UPDATE, 3): -0.5,
            ("(loss) log_softmax", FEATURE_UPDATE, 3): -0.5,
        }
    )
    assert {row.answer for row in rows.values()} == {HOLDS}
    lazy = rows_of({("readout", OWN_UPDATE, 3): -0.5, ("readout", FEATURE_UPDATE, 3): -0.5})
    assert {row.answer for row in lazy.values()} == {FAILS}


def test_causes_follow_the_order_of_execution() -> None:
    rows = rows_of(
        {
            ("stem", UPDATE_NORM, 3): 0.0,
            ("norm.weight", WEIGHT_NORM, 0): 0.5,
            ("norm", FEATURE_UPDATE, 3): 0.5,
            ("mix", UPDATE_NORM, 3): 0.0,
            ("mix", FEATURE_UPDATE, 3): 0.5,
            ("readout", UPDATE_NORM, 3): 1.0,
            ("readout", FEATURE_UPDATE, 3): 1.0,
        },
        roles={"norm.weight": "vector", "readout": "output"},
    )
    assert "gain or bias starts larger" in rows["norm.weight", WEIGHT_NORM, 0].cause
    for layer in ("norm", "mix"):
        assert "inherits the change from norm.weight" in rows[layer, FEATURE_UPDATE, 3].cause
    assert "readout without its factor" in rows["readout", FEATURE_UPDATE, 3].cause


@pytest.mark.parametrize(("order", "culprit"), [("sn", "s"), ("sns", "n")])
def test_a_layer_called_again_is_no_cause_of_what_lies_before(order: str, culprit: str) -> None:
    """Features of ``s``, all calls together, grow with those of ``n``: which call comes last?"""
    generator = random.Random(5)
    values = {
        (layer, quantity, 0): noisy(generator, exponent, 4, 0.01)
        for layer, quantity, exponent in [
            ("s", WEIGHT_NORM, 0.0), ("s", FEATURE_SIZE, 0.4), ("n", FEATURE_SIZE, 0.5),
        ]
    }  # fmt: skip
    rows = judge(values, WIDTHS, Context(order=list(order)))
    first, second = [row for row in rows if row.answer == FAILS]
    assert first.layer == culprit
    assert "inherits" not in first.cause
    assert f"inherits the change from {culprit}" in second.cause
    assert rows[0].quantity == WEIGHT_NORM  # at the first call


def test_nobody_is_advised_to_use_what_is_in_use() -> None:
    law = PowerLaw(exponent=-0.9, stderr=0.1, interval=(-1.1, -0.7), prefactor=1.0, n_points=9)
    for role in ("hidden", "output", "input"):
        fault = Fault(key=("w", UPDATE_NORM, 3), law=law, role=role)
        for quantity in (UPDATE_NORM, OWN_UPDATE):
            key = ("w", quantity, 3)
            cause = likely_cause(
                key, [Fault(key=key, law=law, role=role), fault], Places(["w"]), "width", "mup"
            )
            assert "µP" not in cause
            assert cause


def test_a_fall_is_open_where_the_own_update_is() -> None:
    """A readout's ΔW h that these seeds cannot place: its features may fall or may not."""
    generator = random.Random(4)
    values = {
        ("readout", OWN_UPDATE, 3): noisy(generator, 0.1, 4, 0.3),
        ("readout", FEATURE_UPDATE, 1): noisy(generator, -0.5, 4, 0.01),
        ("(loss) log_softmax", FEATURE_UPDATE, 1): noisy(generator, -0.5, 4, 0.01),
    }
    layers = ["readout", "(loss) log_softmax"]
    rows = judge(values, WIDTHS, Context(order=layers))
    assert {row.answer for row in rows} == {UNDECIDED}
    grown = values | {("readout", FEATURE_UPDATE, 1): noisy(generator, 0.5, 4, 0.01)}
    judged = judge(grown, WIDTHS, Context(order=layers))
    (growth,) = (r for r in judged if (r.layer, r.quantity) == ("readout", FEATURE_UPDATE))
    assert growth.answer == FAILS  # it has no such excuse


@pytest.mark.parametrize(("step", "answer"), [(1, FAILS), (3, HOLDS)])
def test_whether_later_steps_of_a_few_entries_cancel_is_chance(step: int, answer: str) -> None:
    """Adam's first step has the size of the rate; later ones add up as their signs agree."""
    context = Context(order=["bias"], few=frozenset({"bias"}))
    falls = noisy(random.Random(0), -1.0, 4, 0.02)
    (row,) = judge({("bias", UPDATE_NORM, step): falls}, WIDTHS, context)
    assert row.answer == answer
    grows = noisy(random.Random(0), 1.0, 4, 0.02)
    (row,) = judge({("bias", UPDATE_NORM, step): grows}, WIDTHS, context)
    assert row.answer == FAILS


def sign_of_tokens(width: int, tokens: int) -> float:
    """Norm of one sign-like update from so many random tokens, over that of rank one."""
    generator = torch.Generator().manual_seed(width)
    gradient = torch.randn(width, tokens, generator=generator)
    update = (gradient @ torch.randn(tokens, width, generator=generator)).sign()
    return float(torch.linalg.matrix_norm(update, 2)) / width


def test_entries_that_align_less_are_told_from_entries_that_shrink() -> None:
    """At fewer features than tokens the norm of ± 1 falls, the entries do not."""
    widths, generator = (32, 64, 128), random.Random(6)
    norms = [sign_of_tokens(width, 128) for width in widths]
    assert math.log(norms[2] / norms[0]) / math.log(4) < -0.3, "test too weak"

    def answers(rate: float, own: float) -> dict[str, LayerVerdict]:
        """Of a layer whose rate is ∝ width^rate, and whose ΔW h is ∝ width^own."""
        falls = [[norm * w**rate for norm, w in zip(norms, widths, strict=True)]] * 3
        values = {
            ("k", UPDATE_NORM, 3): falls,
            ("k", ALIGNED_NORM, 3): [[w**rate for w in widths]] * 3,
            ("k", OWN_UPDATE, 3): noisy(generator, own, 3, 0.005),
        }
        rows = judge(values, widths, Context(order=["k"]))
        return {row.quantity: row for row in rows}

    right = answers(0.0, -0.1)
    assert {row.answer for row in right.values()} == {HOLDS}
    lazy = answers(-0.5, -0.6)
    assert {row.answer for row in lazy.values()} == {FAILS}
    opened = answers(0.0, -0.4)[OWN_UPDATE]  # what the entries align less by, and no more
    assert (opened.answer, opened.passed, opened.seeds_needed) == (UNDECIDED, True, 0)
    assert answers(0.0, -0.9)[OWN_UPDATE].answer == FAILS


def test_features_without_a_module_fall_as_those_of_the_weight_that_makes_them() -> None:
    """A router's logits are a readout's: excused where the router's own ΔW h holds."""
    falls = {("moe", OWN_UPDATE, 3): 0.0, ("moe logits", FEATURE_UPDATE, 3): -0.45}
    assert rows_of(falls, makers={"moe logits": "moe"})["moe logits", FEATURE_UPDATE, 3].passed
    assert not rows_of(falls)["moe logits", FEATURE_UPDATE, 3].passed
    lazy = falls | {("moe", OWN_UPDATE, 3): -0.5}
    rows = rows_of(lazy, makers={"moe logits": "moe"})
    assert rows["moe logits", FEATURE_UPDATE, 3].answer == FAILS


def test_small_first_changes_of_logits_are_passed_on_and_no_more() -> None:
    exponents = {("attn logits", FEATURE_UPDATE, 3): -0.45, ("attn", FEATURE_UPDATE, 3): -0.4}
    rows = rows_of(exponents, early={"attn logits": -0.5})
    assert {row.answer for row in rows.values()} == {HOLDS}
    assert {row.answer for row in rows_of(exponents).values()} == {FAILS}
    steeper = rows_of(exponents | {("attn", FEATURE_UPDATE, 3): -0.8}, early={"attn logits": -0.5})
    assert steeper["attn", FEATURE_UPDATE, 3].answer == FAILS
