"""Minimums from the reference price (T11): what they let through, what they stop, and what a push can gain within them."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.amm.lp import minting, positions, slippage
from agent.amm.v3.math import get_sqrt_ratio_at_tick
from agent.units import BPS
from tests.support.lp_worlds import price_at, v2, v3

SPACING = 60
ticks = st.integers(-300_000, 300_000)
widths = st.integers(1, 300)
bands = st.integers(1, 600)
parts = st.fractions(-1, 1)


def pushed(ratio: Fraction, band_bps: int, part: Fraction) -> Fraction:
    """A price in the band: `part` of the way to its one or other end."""
    low, high = slippage.price_band(ratio, band_bps)
    return ratio + (high - ratio) * part if part >= 0 else ratio + (ratio - low) * part


def placed(tick: int, width: int, skew: Fraction) -> tuple[int, int]:
    """A range of `width` spacings about the tick, shifted by up to its own width."""
    lower = (tick // SPACING - width // 2 + int(width * skew)) * SPACING
    return lower, lower + width * SPACING


@given(ticks, widths, parts, bands, parts, st.integers(10**12, 10**30))
def test_withdrawal_in_the_band__pays_its_minimums_at_least(
    tick: int, width: int, skew: Fraction, band_bps: int, part: Fraction, liquidity: int
) -> None:
    ratio = price_at(tick)
    lower, upper = placed(tick, width, skew)
    here = positions.sqrt_price_x96(pushed(ratio, band_bps, part))
    position = v3(lower, upper, liquidity, sqrt_price_x96=here)
    least = slippage.withdrawal_minimums(position, liquidity, ratio, band_bps)
    assert all(paid >= floor for paid, floor in zip(positions.principal(position), least, strict=True))


@given(ticks, widths, parts, st.integers(-40_000, 40_000), st.integers(10**20, 10**30))
def test_withdrawal_from_a_pushed_pool__pays_its_reference_worth(tick: int, width: int, skew: Fraction, push: int, liquidity: int) -> None:
    ratio = price_at(tick)
    lower, upper = placed(tick, width, skew)
    unmoved = positions.principal(v3(lower, upper, liquidity, tick))
    moved = positions.principal(v3(lower, upper, liquidity, sqrt_price_x96=get_sqrt_ratio_at_tick(tick + push)))
    rounding = ratio + 1
    assert moved[0] * ratio + moved[1] >= unmoved[0] * ratio + unmoved[1] - rounding


@given(st.fractions(Fraction(1, 100), 100), st.integers(10**10, 10**20), st.integers(10**10, 10**20), bands, parts)
def test_within_the_band_no_burn_pays_less_than_its_minimums(
    ratio: Fraction, amount: int, liquidity: int, band_bps: int, part: Fraction
) -> None:
    price = pushed(ratio, band_bps, part)
    reserves = (amount * 10**6, int(amount * 10**6 * price))
    whole = v2(10**18, 10**19, reserves, k_last=0)
    taken = min(liquidity, whole.liquidity)
    now = Fraction(reserves[1], reserves[0])
    least = slippage.withdrawal_minimums(whole, taken, ratio if slippage.is_within_band(now, ratio, band_bps) else now, band_bps)
    for paid, floor in zip(positions.v2_burn(whole, taken), least, strict=True):
        assert paid >= floor - 2 - floor // 10**9, "rounding of reserves and roots, far below what a band leaves"


@given(ticks, st.integers(2, 300), bands, parts, st.integers(10**12, 10**24))
def test_provision_in_the_band__is_overpaid_no_more_than_said(tick: int, width: int, band_bps: int, part: Fraction, amount: int) -> None:
    ratio = price_at(tick)
    within = minting.sqrt_price_range(placed(tick, width, Fraction(0)))
    desired = minting.mint_amounts(positions.sqrt_price_x96(ratio), within, amount * 10**6)
    least = slippage.provision_minimums(within, desired, ratio, band_bps)
    liquidity, used = minting.provided_liquidity(None, positions.sqrt_price_x96(pushed(ratio, band_bps, part)), within, desired)
    assert all(floor <= raw <= most for floor, raw, most in zip(least, used, desired, strict=True))
    worth = minting.mint_amounts(positions.sqrt_price_x96(ratio), within, liquidity)
    paid = used[0] * ratio + used[1]
    fair = worth[0] * ratio + worth[1]
    assert paid <= fair * (1 + slippage.max_overpayment(within, ratio, band_bps)) + 3 * (ratio + 1)


@pytest.mark.parametrize("end", [0, 1])
def test_minimum_of_a_provision__is_a_unit_below_the_use_at_an_end_of_the_band(end: int) -> None:
    ratio = price_at(0)
    within = minting.sqrt_price_range((-6_000, 6_000))
    desired = minting.mint_amounts(positions.sqrt_price_x96(ratio), within, 10**20)
    low, high = slippage.price_band(ratio, 50)
    _, used = minting.provided_liquidity(None, positions.sqrt_price_x96((high, low)[end]), within, desired)
    assert slippage.provision_minimums(within, desired, ratio, 50)[end] == used[end] - 1


@given(ticks, st.integers(20, 300), st.integers(10, 200), st.booleans())
def test_beyond_the_band_one_of_the_minimums_fails(tick: int, width: int, band_bps: int, up: bool) -> None:
    ratio = price_at(tick)
    within = minting.sqrt_price_range(placed(tick, width, Fraction(0)))
    desired = minting.mint_amounts(positions.sqrt_price_x96(ratio), within, 10**30)
    least = slippage.provision_minimums(within, desired, ratio, band_bps)
    low, high = slippage.price_band(ratio, band_bps + 5)
    _, used = minting.provided_liquidity(None, positions.sqrt_price_x96(high if up else low), within, desired)
    assert any(raw < floor for raw, floor in zip(used, least, strict=True))


@given(st.fractions(Fraction(1, 1_000), 1_000), bands, parts, st.integers(10**12, 10**24))
def test_within_the_band_a_pair_uses_the_minimums(ratio: Fraction, band_bps: int, part: Fraction, amount: int) -> None:
    price = pushed(ratio, band_bps, part)
    reserves = (10**30 * price.denominator, 10**30 * price.numerator)
    desired = (amount, int(amount * ratio))
    used = minting.v2_mint_amounts(reserves, desired)
    assert all(raw >= floor for raw, floor in zip(used, slippage.provision_minimums(None, desired, ratio, band_bps), strict=True))


def test_pair__is_overpaid_by_an_eighth_of_the_push_squared() -> None:
    """(1 + 1.02)/(2·√1.02) − 1 is 0.49 bps for 2 %."""
    assert float(slippage.max_overpayment(None, Fraction(1), 200)) == pytest.approx(2.02 / 2 / 1.02**0.5 - 1, rel=1e-9)
    assert float(slippage.max_overpayment(None, Fraction(1), 200)) == pytest.approx(0.02**2 / 8, rel=0.03)


def test_range__is_overpaid_by_a_quarter_of_the_push_squared() -> None:
    """L·√P·d²/4 of a worth of L·√P·2·(1 − 1/√(1 + w)), about d²/(4·w)."""
    ratio = price_at(0)
    for width_bps in (500, 1_000, 2_000):
        within = minting.sqrt_price_range(minting.range_around(ratio, width_bps, 1))
        worth = 2 * (1 - (1 + width_bps / BPS) ** -0.5)
        assert float(slippage.max_overpayment(within, ratio, 100)) == pytest.approx(0.01**2 / 4 / worth, rel=0.02)


@given(ticks, st.integers(1, 300), st.integers(1, 1_000), st.integers(0, 100))
def test_widest_band__keeps_overpayment_to_the_slippage_limit(tick: int, width: int, most_bps: int, slippage_bps: int) -> None:
    ratio = price_at(tick)
    within = minting.sqrt_price_range(placed(tick, width + 2, Fraction(0)))
    band = slippage.widest_band_bps(within, ratio, most_bps, slippage_bps)
    assert slippage.max_overpayment(within, ratio, band) * BPS <= slippage_bps or band == 0
    assert band == most_bps or slippage.max_overpayment(within, ratio, band + 1) * BPS > slippage_bps
    assert slippage.widest_band_bps(within, ratio, most_bps, None) == most_bps


def test_minimums_are_never_both_nothing() -> None:
    assert slippage.nonzero_minimums((0, 5), (9, 9)) == (0, 5)
    assert slippage.nonzero_minimums((0, 0), (9, 0)) == (1, 0)
    assert slippage.nonzero_minimums((0, 0), (9, 7)) == (1, 1)
