"""Exponents and vertices: exact cases by hand, and intervals that cover as often as they say."""

import math

import numpy as np
import pytest

from thetaone.errors import InputError
from thetaone.laws import fit_exponent, fit_vertex

SIZES = np.array([64.0, 128.0, 256.0, 512.0, 1024.0])
REPEATS = 2000
NAN, INF = float("nan"), float("inf")


def covered_fraction(hits: int) -> None:
    """Hits of a 95 % interval in REPEATS trials: binomial, within 4.5 standard deviations."""
    sigma = math.sqrt(REPEATS * 0.95 * 0.05)
    assert sigma / REPEATS < 0.005, "test too weak to see an interval that covers 93 %"
    assert abs(hits - 0.95 * REPEATS) <= 4.5 * sigma, hits / REPEATS


def test_exact_power_law() -> None:
    law = fit_exponent(SIZES, 3.0 * SIZES**-0.75)
    assert law.exponent == pytest.approx(-0.75, abs=1e-12)
    assert law.prefactor == pytest.approx(3.0, rel=1e-12)
    assert law.stderr < 1e-12
    assert law.n_points == 5


def test_slope_and_stderr_by_hand() -> None:
    # x = ln(1, e, e²), y = (0, 1, 3): slope 3/2, residuals (1, −2, 1)/6, variance 1/6 over 2
    law = fit_exponent(np.exp([0.0, 1.0, 2.0]), np.exp([0.0, 1.0, 3.0]))
    assert law.exponent == pytest.approx(1.5)
    assert law.stderr == pytest.approx(math.sqrt(1 / 12))
    assert law.interval[1] - law.exponent == pytest.approx(12.706204736 * law.stderr)


def test_two_points_are_exact_and_say_nothing_of_their_error() -> None:
    law = fit_exponent([1, 2], [1, 4])
    assert law.exponent == pytest.approx(2)
    assert law.stderr == INF
    assert law.interval == (-INF, INF)


def test_values_are_scaled_away_and_order_does_not_matter() -> None:
    values = np.array([1.0, 1.7, 3.1, 9.0, 11.0])
    law, scaled = fit_exponent(SIZES, values), fit_exponent(SIZES[::-1], 7 * values[::-1])
    assert scaled.exponent == pytest.approx(law.exponent, rel=1e-12)
    assert scaled.stderr == pytest.approx(law.stderr, rel=1e-9)


@pytest.mark.statistical
def test_interval_of_one_row_covers() -> None:
    rng, hits = np.random.default_rng(0), 0
    for _ in range(REPEATS):
        values = np.exp(0.3 * np.log(SIZES) + 0.1 * rng.standard_normal(5))
        low, high = fit_exponent(SIZES, values).interval
        hits += low <= 0.3 <= high
    covered_fraction(hits)


@pytest.mark.statistical
def test_interval_of_seeds_covers_with_errors_correlated_along_the_line() -> None:
    rng, hits = np.random.default_rng(1), 0
    for _ in range(REPEATS):
        walk = np.cumsum(0.1 * rng.standard_normal((4, 5)), axis=1)  # neighbours share their error
        low, high = fit_exponent(SIZES, np.exp(0.3 * np.log(SIZES) + walk)).interval
        hits += low <= 0.3 <= high
    covered_fraction(hits)


@pytest.mark.parametrize(
    ("sizes", "values", "message"),
    [
        ([1, 2, 3], [1, 0, 2], "values contains 0"),
        ([1, 2, 3], [1, -1, 2], "values contains -1"),
        ([1, 2, 3], [1, NAN, 2], "values contains nan"),
        ([0, 2, 3], [1, 1, 2], "sizes contains 0"),
        ([], [], "sizes is empty"),
        ([2], [1], "at least 2 different sizes"),
        ([2, 2, 2], [1, 1, 1], "at least 2 different sizes"),
        ([1, 2, 3], [1, 2], r"shape \(2,\) for 3 sizes"),
    ],
)
def test_bad_exponent_input(sizes: list[float], values: list[float], message: str) -> None:
    with pytest.raises(InputError, match=message):
        fit_exponent(sizes, values)


def test_confidence_must_be_a_probability() -> None:
    with pytest.raises(InputError, match=r"confidence=1\.0: must lie strictly"):
        fit_exponent([1, 2], [1, 2], confidence=1.0)


@pytest.mark.parametrize("spacing", [0.5, 1.0, 2.0])
@pytest.mark.parametrize("shift", [-0.4, 0.0, 0.3])
def test_parabola_is_found_exactly(spacing: float, shift: float) -> None:
    x = -7 + spacing * np.arange(-3, 4)
    best = fit_vertex(x, 0.2 * (x + 7 - shift * spacing) ** 2 + 1.5)
    assert best.log2_lr == pytest.approx(-7 + shift * spacing, abs=1e-9)
    assert best.loss == pytest.approx(1.5, abs=1e-9)
    assert not best.at_edge
    assert math.isnan(best.stderr)
    assert best.interval == (-7 - spacing, -7 + spacing)


def test_uneven_unsorted_grid() -> None:
    x = np.array([-4.0, -9.0, -7.5, -6.0, -7.0])
    best = fit_vertex(x, (x + 7.2) ** 2)
    assert best.log2_lr == pytest.approx(-7.2)


@pytest.mark.parametrize("bad", [NAN, INF, -INF])
def test_a_cliff_of_diverged_losses(bad: float) -> None:
    x = np.arange(-10.0, -3)
    losses = (x + 6.1) ** 2 / 10 + 1
    losses[-2:] = bad  # everything above 2^-6 diverges
    best = fit_vertex(x, losses)
    assert best.log2_lr == pytest.approx(-6.1, abs=1e-9)  # the finite side knows the vertex
    assert not best.at_edge
    steep = fit_vertex(x, np.where(np.isfinite(losses), -x, bad))  # still falling at the cliff
    assert -6 <= steep.log2_lr <= -5.5


def test_one_huge_finite_loss_moves_the_vertex_by_half_a_gap_at_most() -> None:
    best = fit_vertex([-9, -8, -7, -6, -5], [1.5, 1.2, 1.0, 1e6, 1e9])
    assert -7.5 <= best.log2_lr <= -7


@pytest.mark.parametrize("skew", [0.5, 1.0, 3.0])
def test_asymmetric_bowl(skew: float) -> None:
    x = np.arange(-12.0, -2)
    for truth in np.linspace(-8, -7, 11):
        loss = np.where(x < truth, (x - truth) ** 2, (1 + skew) * (x - truth) ** 2)
        assert abs(fit_vertex(x, loss).log2_lr - truth) <= 0.5


def test_a_seed_that_diverged_makes_the_rate_diverged() -> None:
    best = fit_vertex([-8, -7, -6, -5], [[1.2, 1.0, 0.5, 2.0], [1.2, 1.0, NAN, INF]])
    assert best.log2_lr <= -6.5


def test_seeds_that_agree_at_a_cliff_still_doubt() -> None:
    falling = [3.0, 2.0, 1.0, INF, INF]  # the vertex sits on its limit, the same for every seed
    best = fit_vertex([-9, -8, -7, -6, -5], [falling, falling, falling])
    assert best.interval == (-8, -6)
    assert best.stderr == pytest.approx(2 / math.sqrt(12))


def test_two_finite_points_give_the_lower_one() -> None:
    best = fit_vertex([-8, -7, -6], [1.2, 1.0, INF])
    assert (best.log2_lr, best.loss, best.interval) == (-7, 1.0, (-8, -6))


@pytest.mark.parametrize(
    ("losses", "edge", "interval"),
    [([1, 2, 3], -8, (-INF, -7)), ([3, 2, 1], -6, (-7, INF)), ([1, INF, NAN], -8, (-INF, -7))],
)
def test_edge(losses: list[float], edge: float, interval: tuple[float, float]) -> None:
    best = fit_vertex([-8, -7, -6], losses)
    assert best.at_edge
    assert (best.log2_lr, best.stderr, best.interval) == (edge, INF, interval)


@pytest.mark.statistical
@pytest.mark.parametrize("skew", [0.0, 0.05])
@pytest.mark.parametrize("seeds", [2, 3, 5])
def test_vertex_interval_covers_and_is_of_use(seeds: int, skew: float) -> None:
    """The bias of the curve is counted at its largest, so an interval may cover more than 95 %."""
    rng, hits, widths = np.random.default_rng(2), 0, []
    x = np.arange(-10.0, -2)
    for repeat in range(REPEATS // 4):
        truth = -6.5 + repeat * 4 / REPEATS  # all places between two grid points
        offsets = 0.05 * rng.standard_normal((seeds, 1))  # a seed shifts its whole curve
        noise = 0.01 * rng.standard_normal((seeds, x.size))
        d = x - truth
        best = fit_vertex(x, 0.1 * d**2 + skew * d.clip(min=0) ** 3 + offsets + noise)
        hits += best.interval[0] <= truth <= best.interval[1]
        widths.append(best.interval[1] - best.interval[0])
    sigma = math.sqrt(REPEATS / 4 * 0.95 * 0.05)
    assert hits >= 0.95 * REPEATS / 4 - 4.5 * sigma, hits
    assert np.median(widths) < (2.1 if seeds == 2 else 1.0)


def test_a_flat_bowl_cannot_be_told() -> None:
    rng, flat = np.random.default_rng(3), 0
    x = np.arange(-10.0, -2)
    for _ in range(200):
        best = fit_vertex(x, 1 + 0.01 * rng.standard_normal((3, x.size)))
        flat += best.flat or best.at_edge
        if best.flat:
            assert best.interval[0] < best.log2_lr < best.interval[1]
            assert best.interval[1] - best.interval[0] >= 2
    assert flat >= 170  # of 200; noise alone stands out by two standard errors now and then
    told = fit_vertex(x, 0.1 * (x + 6.2) ** 2 + 0.001 * rng.standard_normal((3, x.size)))
    assert not told.flat


@pytest.mark.parametrize(
    ("log2_lrs", "losses", "message"),
    [
        ([-8, -7], [1, 2], "at least 3 finite learning rates"),
        ([-8, -7, -7], [1, 2, 3], "each of them once"),
        ([-8, NAN, -7], [1, 2, 3], "at least 3 finite"),
        ([-8, -7, -6], [1, 2], r"shape \(2,\) for 3 learning rates"),
        ([-8, -7, -6], [NAN, INF, NAN], r"every one of the 3 learning rates from 2\^-8 to 2\^-6"),
    ],
)
def test_bad_vertex_input(log2_lrs: list[float], losses: list[float], message: str) -> None:
    with pytest.raises(InputError, match=message):
        fit_vertex(log2_lrs, losses)
