"""Tests of agent/margin/state.py: the account after an order against its limits, and orders cut to what they allow."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.margin import account as margin
from agent.margin.state import (
    after_fill_at_bound,
    breaches,
    is_reduction,
    largest_allowed_raw,
    largest_allowed_sizes,
    limit_checks,
    margin_state,
    scaled_size_raw,
    sizes_within_gross,
    with_full_venue_leverage,
)
from agent.model.futures import MarginTier, PerpOrder, PerpOrderKind
from agent.units import BPS
from tests.support.perpetuals.accounts import E18, LIMITS, account, market
from tests.support.perpetuals.books import LOT, WIDE, wide_book
from tests.support.perpetuals.plans import RICH, ROUGH, pair_book

AMPLE_SPOT = Fraction(10**6 * E18)
FREE_LIMITS = replace(LIMITS, max_leverage_bps=20_000, max_utilisation_bps=10_000, slippage_bps=0, stress_move_bps=0)
"""A leverage of two alone, without costs."""
FREE_MARKETS = tuple(replace(market(name, 1_000), fee_ppm=0) for name in ("ETH", "BTC"))
"""Markets at 1,000 without a fee."""


def order_of(size_raw: int, bound_raw: int = 1) -> PerpOrder:
    return PerpOrder("ETH", size_raw, PerpOrderKind.MARKET, bound_raw, is_reduce_only=False)


# --- Fills, states and breaches.


@pytest.mark.parametrize(
    ("coins", "bound", "mark", "paid"),
    [
        pytest.param(1, 2_040, 2_000, 2_040, id="bought at the bound"),
        pytest.param(1, 2_040, 2_100, 2_100, id="bought at a worse mark"),
        pytest.param(-1, 1_960, 2_000, -1_960, id="sold at the bound"),
        pytest.param(-1, 1_960, 1_900, -1_900, id="sold at a worse mark"),
    ],
)
def test_worst_fill_is_at_the_bound_or_at_a_worse_mark(coins: int, bound: int, mark: int, paid: int) -> None:
    """Of a fee of 1 ‰ the larger of the two values counts."""
    margin_account = account(10_000, {}, replace(market("ETH"), mark=Fraction(mark)))

    account_after = after_fill_at_bound(margin_account, order_of(coins * E18, bound * E18))

    fee_raw = max(bound, mark) * E18 // 1_000
    value_change_raw = margin.account_value_raw(account_after) - margin.account_value_raw(margin_account)
    assert value_change_raw == (coins * mark - paid) * E18 - fee_raw


def test_worthless_account_breaks_every_limit() -> None:
    ruined_account = margin.with_moved_marks(account(100, {"ETH": E18}, market("ETH")), {"ETH": Fraction(-1, 2)})
    state = margin_state(ruined_account, LIMITS)

    assert state.leverage is None
    assert state.utilisation is None
    assert not state.survives_stress
    assert {"max_leverage", "max_utilisation"} <= {breach.limit_name for breach in breaches(state, LIMITS, AMPLE_SPOT)}


def limit_texts(size_raw: int) -> dict[str, tuple[str, str]]:
    """Return what is measured of a position at 1,000 a coin with 1,000 of collateral, by the limits that it breaches."""
    limits = replace(LIMITS, max_leverage_bps=20_000, max_utilisation_bps=2_000, spot_multiple_bps=20_000, stress_move_bps=0)
    state = margin_state(account(1_000, {"ETH": size_raw}, FREE_MARKETS[0]), limits)
    return {breach.limit_name: (breach.measured_text, breach.limit_text) for breach in breaches(state, limits, Fraction(1_000 * E18))}


def test_position_at_its_limits_breaches_none() -> None:
    assert limit_texts(2 * E18) == {}


@pytest.mark.parametrize("size_raw", [2 * E18 + 1, 2 * E18 + 10**15], ids=["one base unit beyond", "a lot beyond"])
def test_breach_never_reads_as_its_limit(size_raw: int) -> None:
    assert limit_texts(size_raw) == {
        "max_leverage": ("2.01x", "2x"),
        "max_utilisation": ("20.01 %", "20.00 %"),
        "spot_multiple": ("2.01x", "2x"),
    }


def test_spot_value_that_is_unknown_breaches_its_multiple() -> None:
    state = margin_state(account(1_000, {"ETH": E18}, FREE_MARKETS[0]), FREE_LIMITS)
    names_and_texts = [(breach.limit_name, breach.measured_text) for breach in breaches(state, FREE_LIMITS, None)]

    assert names_and_texts == [("spot_multiple", "unknown")]


@pytest.mark.parametrize(
    ("size_raw", "expected"),
    [
        pytest.param(-E18, True, id="a part"),
        pytest.param(-2 * E18, True, id="all of it"),
        pytest.param(-2 * E18 - 1, False, id="one unit more"),
        pytest.param(E18, False, id="a purchase"),
    ],
)
def test_reduction_makes_the_position_smaller(size_raw: int, expected: bool) -> None:
    assert is_reduction(account(10_000, {"ETH": 2 * E18}, market("ETH")), order_of(size_raw)) is expected


# --- Orders cut to what the limits allow.


@given(st.integers(1, 10**20), st.integers(100, 10_000))
def test_largest_allowed_order_is_the_last_lot_within_limits(size_raw: int, collateral: int) -> None:
    eth_market = market("ETH")
    margin_account = account(collateral, {}, eth_market)
    lot_raw = eth_market.lot_raw

    def breaks_a_limit(order_raw: int) -> bool:
        value_raw = margin.position_value_raw(eth_market, order_raw)
        paid_raw = max(value_raw, value_raw * (BPS + LIMITS.slippage_bps) // BPS)
        fee_raw = -(-paid_raw // 1_000)
        account_after = margin.with_trade(margin_account, "ETH", order_raw, -paid_raw - fee_raw) if order_raw else margin_account
        return bool(breaches(margin_state(account_after, LIMITS), LIMITS, AMPLE_SPOT))

    allowed_raw = largest_allowed_raw(margin_account, "ETH", size_raw, LIMITS, AMPLE_SPOT)

    assert allowed_raw % lot_raw == 0
    assert not breaks_a_limit(allowed_raw)
    assert allowed_raw == size_raw // lot_raw * lot_raw or breaks_a_limit(allowed_raw + lot_raw)


@pytest.mark.parametrize(
    ("position", "order", "collateral", "allowed"),
    [
        pytest.param(10, -30, 1_000, -12, id="a long that flips too far"),
        pytest.param(-10, 30, 1_000, 12, id="a short that flips too far"),
        pytest.param(10, -12, 1_000, -12, id="a flip within the limit"),
        pytest.param(10, -7, 1_000, 0, id="a reduction that stays too large"),
        pytest.param(10, -30, 0, -10, id="a flat position alone is allowed"),
        pytest.param(2, 30, 1_000, 0, id="more of a position at its limit"),
    ],
)
def test_order_through_zero_is_cut_to_the_limit_beyond_it(position: int, order: int, collateral: int, allowed: int) -> None:
    """Twice 1,000 of collateral is a position of 2."""
    margin_account = account(collateral, {"ETH": position * E18}, FREE_MARKETS[0])

    assert largest_allowed_raw(margin_account, "ETH", order * E18, FREE_LIMITS, AMPLE_SPOT) == allowed * E18


@pytest.mark.parametrize(
    ("eth", "btc", "collateral"),
    [
        pytest.param(10, 10, 2_000, id="two longs"),
        pytest.param(10, -10, 2_000, id="a long and a short"),
        pytest.param(10, 5, 3_000, id="of different sizes"),
    ],
)
def test_orders_through_zero_are_cut_together_to_the_limit(eth: int, btc: int, collateral: int) -> None:
    """Every share of 10,000 is tried: none beyond the largest fits, and that one does."""
    margin_account = account(collateral, {"ETH": eth * E18, "BTC": btc * E18}, *FREE_MARKETS)
    order_sizes = {"ETH": -50 * E18, "BTC": (-50 if btc > 0 else 50) * E18}

    def fits(numerator: int) -> bool:
        account_after = margin_account
        for name, size_raw in order_sizes.items():
            perp_market = margin_account.market(name)
            part_raw = scaled_size_raw(perp_market, size_raw, Fraction(numerator, 10_000))
            if part_raw:
                account_after = margin.with_trade(account_after, name, part_raw, -margin.position_value_raw(perp_market, part_raw))
        return not breaches(margin_state(account_after, FREE_LIMITS), FREE_LIMITS, AMPLE_SPOT)

    largest_numerator = next((numerator for numerator in range(10_000, 0, -100) if fits(numerator)), 0)
    allowed_sizes = largest_allowed_sizes(margin_account, order_sizes, FREE_LIMITS, AMPLE_SPOT)

    assert abs(allowed_sizes["ETH"]) >= abs(order_sizes["ETH"]) * largest_numerator // 10_000 > 0
    assert not fits(10_000 * abs(allowed_sizes["ETH"]) // abs(order_sizes["ETH"]) + 2)


@pytest.mark.parametrize("names", [("ETH",), ("ETH", "BTC")], ids=["one order", "orders cut together"])
def test_orders_that_fit_uncut_are_whole_lots_too(names: tuple[str, ...]) -> None:
    markets = tuple(replace(market(name, 1_000), lot_raw=10) for name in names)

    allowed_sizes = largest_allowed_sizes(account(10_000, {}, *markets), dict.fromkeys(names, 15), LIMITS, AMPLE_SPOT)

    assert allowed_sizes == dict.fromkeys(names, 10)


@pytest.mark.parametrize(
    ("max_gross", "allowed"),
    [
        pytest.param(3_000, {"ETH": E18, "BTC": -2 * E18}, id="within the gross"),
        pytest.param(1_500, {"ETH": E18 // 2, "BTC": -E18}, id="half of both"),
        pytest.param(0, {"ETH": 0, "BTC": 0}, id="nothing"),
    ],
)
def test_sizes_within_a_gross_notional_are_cut_together(max_gross: int, allowed: dict[str, int]) -> None:
    margin_account = account(10_000, {}, *FREE_MARKETS)

    assert sizes_within_gross(margin_account, {"ETH": E18, "BTC": -2 * E18}, Fraction(max_gross * E18)) == allowed


@pytest.mark.parametrize(
    ("is_on_chain", "initial_ppm"), [(True, 100_000), (False, 50_000)], ids=["the contract sets it", "the account sets it"]
)
def test_full_venue_leverage_doubles_the_maintenance_margin(is_on_chain: bool, initial_ppm: int) -> None:
    margin_account = account(10_000, {}, market("ETH", tiers=(MarginTier(0, 100_000, 25_000),)))

    full_account = with_full_venue_leverage(replace(margin_account, is_on_chain=is_on_chain))

    assert full_account.market("ETH").tiers[0].initial_ppm == initial_ppm


CAPPED = replace(ROUGH, spot_multiple_bps=25_000)


@given(st.integers(-20, 20), st.integers(-1_000, 1_000), st.integers(0, 30_000))
def test_orders_cut_together_break_no_limit_and_none_grows(eth: int, btc: int, spot: int) -> None:
    sizes = {name: size for name, size in (("ETH", eth * E18), ("BTC", btc * 10**15)) if size}
    margin_account = pair_book(10_000)
    value = Fraction(spot * E18)
    allowed_sizes = largest_allowed_sizes(margin_account, sizes, CAPPED, value)
    assert all(size * sizes[name] >= 0 and abs(size) <= abs(sizes[name]) for name, size in allowed_sizes.items())
    after = margin_account
    for name, size in allowed_sizes.items():
        after = margin.with_trade(after, name, size, -margin.position_value_raw(margin_account.market(name), size))
    assert not breaches(margin_state(after, CAPPED), replace(CAPPED, slippage_bps=0), value)


@pytest.mark.parametrize(
    ("margin_account", "size", "most", "size_kept"),
    [
        pytest.param(0, 1_000, 2_000, 1_000, id="nothing held"),
        pytest.param(10_000, -1_000, 10_000, -1_000, id="closing"),
        pytest.param(10_000, 1_000, 10_000, 0, id="at the most"),
    ],
)
def test_within_gross__order_that_does_not_raise_it_is_whole(margin_account: int, size: int, most: int, size_kept: int) -> None:
    assert sizes_within_gross(wide_book(100_000, ETH=margin_account), {"ETH": size * LOT}, Fraction(most * E18)) == {"ETH": size_kept * LOT}


def test_stress__account_without_positions_survives_it() -> None:
    assert margin_state(replace(wide_book(), collateral_raw=-E18), WIDE).survives_stress


@pytest.mark.parametrize(
    ("stress_move_bps", "limit_text"),
    [(2_000, "survives 20.00 % against every position"), (0, "off; above the maintenance margin")],
)
def test_stress__that_is_off_is_shown_as_the_maintenance_margin(stress_move_bps: int, limit_text: str) -> None:
    limits = replace(LIMITS, stress_move_bps=stress_move_bps)
    checks = limit_checks(margin_state(wide_book(), limits), limits, RICH)
    assert [check.limit_text for check in checks if check.limit_name == "stress_move"] == [limit_text]


def test_free_margin__opening_is_cut_to_what_the_venue_takes() -> None:
    """A profit of 9,000 counts in the value and frees no margin: of the collateral of 1,000, 900 are used for the quote owed."""
    bought = margin.with_trade(wide_book(1_000), "SOL", 90 * E18, -9_000 * E18)
    rich = margin.with_moved_marks(bought, {"SOL": Fraction(1)})
    allowed_raw = largest_allowed_raw(rich, "ETH", 5 * E18, WIDE, RICH)
    assert 480 * LOT <= allowed_raw <= 500 * LOT
    off_chain = replace(rich, is_on_chain=False, initial_on_debt=False)
    assert largest_allowed_raw(off_chain, "ETH", 5 * E18, WIDE, RICH) == 5 * E18, "there a profit is margin"


def test_hedge_size__other_market_above_its_share_forbids_none() -> None:
    before = wide_book(10_000, SOL=180_000)
    limits = replace(WIDE, max_position_bps=6_000)
    assert margin.position_shares(before, 20_000)["SOL"] > Fraction(6, 10)
    assert largest_allowed_raw(before, "ETH", -E18, limits, RICH, 20_000) == -E18
    assert largest_allowed_raw(before, "SOL", E18, limits, RICH, 20_000) == 0
    assert largest_allowed_raw(before, "SOL", -E18, limits, RICH, 20_000) == -E18, "a part of its reduction is possible too"
