"""The rules against the paper's table, written out by hand."""

import pytest

from thetaone.errors import InputError, UnknownOptimizerError
from thetaone.parametrization import (
    GRADIENT,
    ORTHOGONAL,
    RELATIVE,
    SIGN,
    SIGN_DECOUPLED,
    UpdateFamily,
    register_update_family,
    scales,
)
from thetaone.parametrization.rules import update_family
from thetaone.parametrization.rules._decay import decay_factor
from thetaone.parametrization.rules._width import Scales

# Tensor Programs V, Table 3, at width 8 times the base: role -> (σ², SGD rate, Adam rate)
WIDER = 8.0
PAPER = {
    "input": (1.0, WIDER, 1.0),
    "vector": (1.0, WIDER, 1.0),
    "hidden": (1 / WIDER, 1.0, 1 / WIDER),
    "output": (1 / WIDER**2, 1 / WIDER, 1 / WIDER),
    "fixed": (1.0, 1.0, 1.0),
}
GROWTH = {
    "input": (1.0, WIDER),
    "vector": (1.0, WIDER),
    "hidden": (WIDER, WIDER),
    "output": (WIDER, 1.0),
    "fixed": (1.0, 1.0),
}


@pytest.mark.parametrize("role", PAPER)
def test_table_3(role: str) -> None:
    s = scales(role, *GROWTH[role])
    variance, sgd, adam = PAPER[role]
    assert s.init**2 == pytest.approx(variance, rel=1e-12)
    assert GRADIENT.lr_factor(s, {}) == pytest.approx(sgd, rel=1e-12)
    assert SIGN.lr_factor(s, {}) == pytest.approx(adam, rel=1e-12)


@pytest.mark.parametrize("role", PAPER)
@pytest.mark.parametrize("family", [SIGN, GRADIENT, RELATIVE, ORTHOGONAL])
def test_all_factors_are_one_at_the_base(role: str, family: UpdateFamily) -> None:
    s = scales(role, 1.0, 1.0)
    assert (s.init, s.size, s.gradient, family.lr_factor(s, {})) == (1.0, 1.0, 1.0, 1.0)


@pytest.mark.parametrize("role", PAPER)
def test_folding_a_factor_is_the_symmetry_of_the_paper(role: str) -> None:
    """A·θ, σ·θ, η_SGD·θ², η_Adam·θ for a factor θ moved from the forward pass into the weight."""
    plain, folded = scales(role, *GROWTH[role]), scales(role, *GROWTH[role], fold=0.3)
    assert folded.init / plain.init == pytest.approx(0.3)
    assert SIGN.lr_factor(folded, {}) / SIGN.lr_factor(plain, {}) == pytest.approx(0.3)
    assert GRADIENT.lr_factor(folded, {}) / GRADIENT.lr_factor(plain, {}) == pytest.approx(0.09)


@pytest.mark.parametrize(
    ("adjust", "base", "target", "expected"),
    [
        (None, (64, 64), (512, 512), 1.0),  # √(out/in) does not change: neither does the rate
        ("original", (10, 64), (10, 512), 8**-0.5),  # torch clips √(10/64) to 1
        ("original", (64, 32), (512, 32), 1.0),  # torch scales by √(rows/columns) itself
        ("match_rms_adamw", (64, 64), (512, 512), 8**-0.5),
        ("match_rms_adamw", (10, 64), (10, 512), 1 / 8),
        ("none of these", (64, 32), (512, 32), 8**0.5),
    ],
)
def test_muon_undoes_what_torch_does_to_the_rate(
    adjust: str | None, base: tuple[int, int], target: tuple[int, int], expected: float
) -> None:
    s = Scales(
        role="hidden",
        init=1.0,
        size=base[1] / target[1],
        gradient=1.0,
        fan_in=target[1] / base[1],
        fan_out=target[0] / base[0],
        matrix=target,
        base_matrix=base,
    )
    factor = ORTHOGONAL.lr_factor(s, {"adjust_lr_fn": adjust})
    assert factor == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(
    ("policy", "expected"),
    [("shrinkage", 8.0), ("sqrt-width", 8**0.5), ("unscaled", 1.0), ("none", 0.0)],
)
def test_decay_policies_of_a_hidden_matrix(policy: str, expected: float) -> None:
    s = scales("hidden", 8, 8)
    assert decay_factor(policy, s, 1 / 8, SIGN_DECOUPLED, {}) == pytest.approx(expected)


def test_coupled_decay_keeps_its_ratio_to_the_gradient() -> None:
    """Adam: λW against g, with W ∝ 1/√8 and g ∝ 1/8."""
    factor = decay_factor("shrinkage", scales("hidden", 8, 8), 1 / 8, SIGN, {})
    assert factor == pytest.approx(8**-0.5)


def test_unknown_decay_policy_names_the_known_ones() -> None:
    with pytest.raises(InputError, match=r"decay='cosine'.*shrinkage, sqrt-width"):
        decay_factor("cosine", scales("hidden", 8, 8), 1 / 8, SIGN, {})


def test_unknown_optimizer_says_how_to_register() -> None:
    class Sophia: ...

    with pytest.raises(UnknownOptimizerError, match=r"Sophia.*register_update_family"):
        update_family(Sophia)
    register_update_family(Sophia, SIGN)
    assert update_family(type("MySophia", (Sophia,), {})) is SIGN


def test_an_optimizer_already_built_is_refused() -> None:
    with pytest.raises(UnknownOptimizerError, match=r"object instance: pass the class"):
        update_family(object())  # type: ignore[arg-type]
