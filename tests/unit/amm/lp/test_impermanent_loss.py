"""Impermanent loss and loss versus rebalancing against closed forms, and against each other."""

from __future__ import annotations

import math
from fractions import Fraction

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from agent.amm.lp.impermanent_loss import (
    V2_CURVE,
    LiquidityCurve,
    expected_loss,
    hold_value_at,
    impermanent_loss_at,
    liquidity_curve,
    lvr_per_day,
    normal_mean,
    to_fraction,
)
from agent.units import DAY_S, YEAR_S
from tests.support.lp_worlds import gone, price_at, v2, v3

ONE = Fraction(1)
roots = st.floats(0.05, 20)
moves = st.fractions(Fraction(1, 50), 50)
TIGHT = 1e-11


def phi(z: float) -> float:
    return math.erfc(-z / math.sqrt(2)) / 2


def expected_value(of: LiquidityCurve, spread: float) -> float:
    """E[V(x)] of a range in closed form: partial expectations of 1, √x and x for a lognormal x of mean 1."""

    def between(power: float) -> float:
        """E[x^power] within the range."""
        z = [
            math.inf if end == math.inf else -math.inf if end == 0 else 2 * math.log(end) / spread + spread / 2
            for end in (of.low_sqrt_ratio, of.high_sqrt_ratio)
        ]
        return math.exp(spread**2 * power * (power - 1) / 2) * (phi(z[1] - power * spread) - phi(z[0] - power * spread))

    def below(end: float, power: float) -> float:
        return 0.0 if end == 0 else phi(2 * math.log(end) / spread + spread / 2 - power * spread)

    above = 0.0 if of.high_sqrt_ratio == math.inf else (of.high_sqrt_ratio - of.low_sqrt_ratio) * (1 - below(of.high_sqrt_ratio, 0))
    under = 0.0 if of.low_sqrt_ratio == 0 else (1 / of.low_sqrt_ratio - 1 / of.high_sqrt_ratio) * below(of.low_sqrt_ratio, 1)
    return under + 2 * between(0.5) - between(1) / of.high_sqrt_ratio - of.low_sqrt_ratio * between(0) + above


def test_the_loss_of_a_pair_at_round_figures() -> None:
    """1 - 2√x/(1+x): a doubling costs 5.72 %, a fourfold price 20 %, and so do their inverses."""
    assert impermanent_loss_at(V2_CURVE, Fraction(4)) == Fraction(1, 5)
    assert impermanent_loss_at(V2_CURVE, Fraction(1, 4)) == Fraction(1, 5)
    assert float(impermanent_loss_at(V2_CURVE, Fraction(2))) == pytest.approx(0.0571909584, abs=1e-10)
    assert impermanent_loss_at(V2_CURVE, ONE) == 0


@given(moves)
def test_a_pairs_loss_is_the_closed_form(x: Fraction) -> None:
    assert float(impermanent_loss_at(V2_CURVE, x)) == pytest.approx(1 - 2 * math.sqrt(x) / (1 + x), abs=TIGHT)


@given(roots, roots, moves)
def test_a_loss_is_a_share_of_what_was_held(first_root: float, other_root: float, x: Fraction) -> None:
    assume(abs(first_root - other_root) > 0.01)
    of = LiquidityCurve(min(first_root, other_root), max(first_root, other_root))
    assert 0 <= impermanent_loss_at(of, x) < 1
    assert of.value(float(x)) <= of.hold_value(float(x)) * (1 + 1e-12)


@given(st.floats(1.01, 20), moves)
def test_loss_inside_the_range__is_the_curve_s_over_less_value(end: float, x: Fraction) -> None:
    """H - V of a range is that of V2 while the price stays inside: only the value that bears it is smaller."""
    of = LiquidityCurve(1 / end, end)
    assume(of.low_sqrt_ratio**2 < x < of.high_sqrt_ratio**2)
    lost = of.hold_value(float(x)) - of.value(float(x))
    assert lost == pytest.approx((math.sqrt(x) - 1) ** 2, abs=1e-9)


def test_position_out_of_range__is_one_token_and_loses_nothing() -> None:
    above = LiquidityCurve(2.0, 3.0)
    assert impermanent_loss_at(above, Fraction(3)) == 0
    assert impermanent_loss_at(above, Fraction(1, 3)) == 0
    assert impermanent_loss_at(above, Fraction(5)) > 0


@given(st.integers(1, 50_000), st.integers(1, YEAR_S))
def test_the_mean_loss_of_a_pair_is_the_closed_form(volatility_bps: int, horizon_s: int) -> None:
    assume(volatility_bps / 10_000 * math.sqrt(horizon_s / YEAR_S) < 5)
    variance = (volatility_bps / 10_000) ** 2 * horizon_s / YEAR_S
    assert float(expected_loss(V2_CURVE, volatility_bps, horizon_s)) == pytest.approx(-math.expm1(-variance / 8), abs=TIGHT)


@given(roots, roots, st.integers(100, 30_000), st.integers(3_600, YEAR_S))
def test_the_mean_loss_of_a_range_is_the_closed_form(first_root: float, other_root: float, volatility_bps: int, horizon_s: int) -> None:
    assume(abs(first_root - other_root) > 1e-3)
    of = LiquidityCurve(min(first_root, other_root), max(first_root, other_root))
    spread = volatility_bps / 10_000 * math.sqrt(horizon_s / YEAR_S)
    expected_share = (of.hold_value(1) - expected_value(of, spread)) / of.value(1)
    assert float(expected_loss(of, volatility_bps, horizon_s)) == pytest.approx(expected_share, abs=1e-9)


@pytest.mark.parametrize("of", [V2_CURVE, LiquidityCurve(0.9, 1.1), LiquidityCurve(0.5, 1.01)], ids=["pair", "narrow", "lopsided"])
def test_mean_loss_of_a_short_time__is_that_versus_rebalancing(of: LiquidityCurve) -> None:
    """Milionis et al. 2022: the value lost per unit of time is LVR; impermanent loss has the same mean."""
    day = float(lvr_per_day(of, 6_000))
    minute = float(expected_loss(of, 6_000, 60))
    assert minute * DAY_S / 60 == pytest.approx(day, rel=1e-3)


def test_daily_loss_of_a_pair__is_an_eighth_of_the_variance() -> None:
    assert float(lvr_per_day(V2_CURVE, 6_000)) == pytest.approx(0.36 / 8 / 365, abs=TIGHT)
    assert lvr_per_day(LiquidityCurve(1.5, 2.0), 6_000) == 0
    assert lvr_per_day(LiquidityCurve(0.5, 1.0), 6_000) == 0


def test_loss_without_volatility_or_time__is_nothing() -> None:
    assert expected_loss(V2_CURVE, 0, YEAR_S) == 0
    assert expected_loss(V2_CURVE, 6_000, 0) == 0


@given(st.floats(0.2, 0.99), st.floats(1.01, 5))
def test_more_volatility_or_time_never_costs_less(low: float, high: float) -> None:
    of = LiquidityCurve(low, high)
    by_time = [expected_loss(of, 6_000, days * DAY_S) for days in (1, 7, 30, 365)]
    by_volatility = [expected_loss(of, bps, 30 * DAY_S) for bps in (100, 1_000, 6_000, 20_000)]
    assert by_time == sorted(by_time)
    assert by_volatility == sorted(by_volatility)


def test_the_curve_of_a_position_lies_around_the_reference_price() -> None:
    of = liquidity_curve(v3(-6_000, 6_000), ONE, ONE)
    assert (of.low_sqrt_ratio, of.high_sqrt_ratio) == (pytest.approx(1.0001**-3_000, rel=1e-9), pytest.approx(1.0001**3_000, rel=1e-9))
    moved = liquidity_curve(v3(-6_000, 6_000), price_at(6_001), ONE)
    assert not moved.in_range
    assert liquidity_curve(v2(), ONE, ONE) == V2_CURVE
    assert liquidity_curve(v2(0), ONE, ONE) is liquidity_curve(v3(liquidity=0), ONE, ONE) is liquidity_curve(gone(), ONE, ONE) is None


def test_holding_is_worth_what_its_amounts_are() -> None:
    assert hold_value_at(V2_CURVE, Fraction(3)) == 2
    assert hold_value_at(LiquidityCurve(2.0, 3.0), Fraction(3)) == 3
    assert hold_value_at(LiquidityCurve(0.1, 0.5), Fraction(3)) == 1


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_what_is_no_number_never_leaves(value: float) -> None:
    with pytest.raises(ValueError, match="finite"):
        to_fraction(value)


def test_floats_leave_rounded_to_twelve_places() -> None:
    assert to_fraction(1 / 3) == Fraction(333_333_333_333, 10**12)


@pytest.mark.parametrize("power", range(9))
def test_moments_of_the_normal_distribution(power: int) -> None:
    expected_moment = 0 if power % 2 else math.prod(range(1, power, 2))
    assert normal_mean(lambda z: z**power, [0.3, -2.0]) == pytest.approx(expected_moment, abs=1e-10)


@given(st.floats(-8, 8))
def test_a_step_is_integrated_exactly_where_it_is_named(edge: float) -> None:
    assert normal_mean(lambda z: float(z > edge), [edge]) == pytest.approx(1 - phi(edge), abs=1e-12)
