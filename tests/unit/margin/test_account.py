"""The margin account: values, liquidation prices, fills and limits, held against their definitions."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.layers.futures.policy.hedges import short_costs, with_choice
from agent.layers.futures.policy.targets import FuturesTrigger, due_triggers, reduction_sizes, sizes_to_target
from agent.margin import account as margin
from agent.margin.contract_sizes import index_bound_raw, size_for_notional_raw
from agent.margin.state import after_fill_at_bound, breaches, largest_allowed_raw, largest_allowed_sizes, margin_state, scaled_size_raw
from agent.model.futures import (
    FuturesPolicy,
    FuturesTarget,
    HedgeComparison,
    MarginTier,
    PerpOrder,
    PerpOrderKind,
)
from tests.support.perpetuals.accounts import E18, LIMITS, ONE_TIER, account, market, sizes

TIERS = (MarginTier(0, 50_000, 25_000), MarginTier(20_000 * E18, 100_000, 50_000), MarginTier(100_000 * E18, 200_000, 100_000))


def test_a_long_gains_and_a_short_loses_when_the_mark_rises() -> None:
    for sign in (1, -1):
        margin_account = account(10_000, {"ETH": sign * 10 * E18}, market("ETH"))
        account_after = margin.with_moved_marks(margin_account, {"ETH": Fraction(1, 10)})
        assert margin.unrealised_profit_raw(account_after) == sign * 2_000 * E18
        assert margin.net_notional_raw(account_after) == sign * 22_000 * E18
        assert margin_account.positions[0].entry_price == 2_000


def test_pending_funding_is_owed_when_positive() -> None:
    margin_account = account(10_000, {"ETH": E18}, market("ETH"))
    owing_account = replace(margin_account, positions=(replace(margin_account.positions[0], funding_pending_raw=7 * E18),))
    assert margin.account_value_raw(owing_account) == margin.account_value_raw(margin_account) - 7 * E18
    closed_account = margin.with_trade(owing_account, "ETH", -E18, 2_000 * E18)
    assert margin.account_value_raw(closed_account) == margin.account_value_raw(owing_account)


@pytest.mark.parametrize(
    ("size", "bound", "mark", "pays"),
    [(1, 2_040, 2_000, 2_040), (1, 2_040, 2_100, 2_100), (-1, 1_960, 2_000, -1_960), (-1, 1_960, 1_900, -1_900)],
)
def test_the_worst_fill_is_at_the_bound_or_at_a_worse_mark(size: int, bound: int, mark: int, pays: int) -> None:
    """Of a fee of 1 ‰ the larger of the two values counts."""
    margin_account = replace(account(10_000, {}, market("ETH")), markets=(replace(market("ETH"), mark=Fraction(mark)),))
    account_after = after_fill_at_bound(
        margin_account, PerpOrder("ETH", size * E18, PerpOrderKind.MARKET, bound * E18, is_reduce_only=False)
    )
    fee = max(bound, mark) * E18 // 1_000
    assert margin.account_value_raw(account_after) - margin.account_value_raw(margin_account) == (size * mark - pays) * E18 - fee


@given(st.sampled_from([ONE_TIER, TIERS]), sizes.filter(bool), sizes, st.integers(1, 10**6))
def test_the_account_is_liquidated_at_its_liquidation_price_and_not_before(
    tiers: tuple[MarginTier, ...], first: int, second: int, collateral: int
) -> None:
    margin_account = account(
        collateral, {"ETH": first, "BTC": second} if second else {"ETH": first}, market("ETH", 2_000, tiers), market("BTC", 30_000, tiers)
    )
    if margin.is_liquidatable(margin_account):
        return
    price = margin.liquidation_price(margin_account, "ETH")
    if price is None:
        assert not margin.is_liquidatable(margin.with_moved_marks(margin_account, {"ETH": Fraction(-1) if first > 0 else Fraction(0)}))
        return
    slip = Fraction(1, 10**6)
    toward, away = (1 - slip, 1 + slip) if first > 0 else (1 + slip, 1 - slip)
    move_by_side = {name: price * factor / 2_000 - 1 for name, factor in (("beyond", toward), ("before", away))}
    assert margin.is_liquidatable(margin.with_moved_marks(margin_account, {"ETH": move_by_side["beyond"]}))
    assert not margin.is_liquidatable(margin.with_moved_marks(margin_account, {"ETH": move_by_side["before"]}))


@given(sizes.filter(bool), sizes.filter(bool), st.integers(500, 8_000))
def test_a_fill_at_the_mark_changes_no_value_and_closing_leaves_no_position(first: int, second: int, price: int) -> None:
    margin_account = margin.with_moved_marks(account(10_000, {"ETH": first}, market("ETH")), {"ETH": Fraction(price, 2_000) - 1})
    fill = -margin.position_value_raw(margin_account.market("ETH"), second)
    account_after = margin.with_trade(margin_account, "ETH", second, fill)
    assert abs(margin.account_value_raw(account_after) - margin.account_value_raw(margin_account)) <= 2
    closed_account = margin.with_trade(
        account_after,
        "ETH",
        -account_after.size_raw("ETH"),
        margin.position_value_raw(account_after.market("ETH"), account_after.size_raw("ETH")),
    )
    assert closed_account.positions == ()
    assert abs(margin.account_value_raw(closed_account) - margin.account_value_raw(margin_account)) <= 4


def test_a_share_of_a_reduction_is_truncated_at_18_decimals_as_the_exchange_does() -> None:
    margin_account = account(10_000, {"ETH": 3 * E18}, market("ETH"))
    account_after = margin.with_trade(margin_account, "ETH", -E18, 2_100 * E18)
    assert account_after.realised_raw == 2_100 * E18 - 6_000 * E18 * 333333333333333333 // E18
    assert account_after.positions[0].open_notional_raw == -6_000 * E18 + 6_000 * E18 * 333333333333333333 // E18


def test_margin_binds_the_debt_and_unrealised_profit_frees_nothing() -> None:
    margin_account = account(10_000, {"ETH": -10 * E18}, market("ETH"))
    assert margin.initial_margin_raw(margin_account) == 2_000 * E18
    assert margin.free_margin_raw(margin_account) == 8_000 * E18
    richer_account = margin.with_moved_marks(margin_account, {"ETH": Fraction(-1, 2)})
    assert (margin.account_value_raw(richer_account), margin.free_margin_raw(richer_account)) == (20_000 * E18, 9_000 * E18)
    assert margin.utilisation(richer_account) == Fraction(1, 20)


@pytest.mark.parametrize("on_debt", [True, False])
@pytest.mark.parametrize("sign", [1, -1])
def test_utilisation_rises_as_a_position_loses_and_falls_as_it_gains(sign: int, on_debt: bool) -> None:
    margin_account = replace(account(10_000, {"ETH": sign * 10 * E18}, market("ETH")), initial_on_debt=on_debt)
    utilisations = [
        margin.utilisation(margin.with_moved_marks(margin_account, {"ETH": sign * Fraction(move, 10)})) for move in (-3, -1, 0, 1, 5)
    ]
    assert None not in utilisations
    assert utilisations == sorted(utilisations, reverse=True)
    assert len(set(utilisations)) == len(utilisations)
    assert utilisations[2] == Fraction(2, 10), "initial margin of 2,000 over an account value of 10,000"


def test_tiers_charge_each_part_its_own_rate() -> None:
    assert margin.tiered_margin_raw(TIERS, 120_000 * E18, is_initial=False) == (500 + 4_000 + 2_000) * E18
    assert margin.tiered_margin_raw(TIERS, 20_000 * E18, is_initial=True) == 1_000 * E18


def test_a_worthless_account_has_no_leverage_and_breaks_every_limit() -> None:
    ruined_account = margin.with_moved_marks(account(100, {"ETH": E18}, market("ETH")), {"ETH": Fraction(-1, 2)})
    state = margin_state(ruined_account, LIMITS)
    assert (state.leverage, state.utilisation, state.survives_stress) == (None, None, False)
    assert {"max_leverage", "max_utilisation"} <= {breach.limit_name for breach in breaches(state, LIMITS, Fraction(10**24))}


@pytest.mark.parametrize("size", [2 * E18, 2 * E18 + 1, 2 * E18 + 10**15])
def test_a_breach_is_not_shown_as_its_limit(size: int) -> None:
    """1,000 a coin and 1,000 of collateral: two coins are the limits of twice and of 20 %."""
    limits = replace(LIMITS, max_leverage_bps=20_000, max_utilisation_bps=2_000, spot_multiple_bps=20_000)
    state = margin_state(account(1_000, {"ETH": size}, replace(market("ETH", 1_000), fee_ppm=0)), limits)
    broken_limits = {check.limit_name: (check.measured_text, check.limit_text) for check in breaches(state, limits, Fraction(1_000 * E18))}
    broken_limits.pop("stress_move", None)
    if size == 2 * E18:
        assert broken_limits == {}
    else:
        assert broken_limits["max_leverage"] == broken_limits["spot_multiple"] == ("2.01x", "2x")
        assert broken_limits["max_utilisation"] == ("20.01 %", "20.00 %")


def test_sizes_round_toward_zero_and_bounds_count_from_the_index() -> None:
    margin_account = market("ETH")
    assert size_for_notional_raw(margin_account, Fraction(-(5 * E18 + 1))) == -2 * 10**15
    pushed_market = replace(margin_account, mark=Fraction(4_000))
    assert index_bound_raw(pushed_market, E18, 50) == 2_010 * E18
    assert index_bound_raw(pushed_market, -E18, 50) == 1_990 * E18


@given(st.integers(1, 10**20), st.integers(100, 10_000))
def test_the_largest_allowed_order_breaks_no_limit_and_one_lot_more_does(size_raw: int, collateral: int) -> None:
    margin_account = account(collateral, {}, market("ETH"))
    spot = Fraction(10**6 * E18)
    allowed_raw = largest_allowed_raw(margin_account, "ETH", size_raw, LIMITS, spot)
    lot = margin_account.markets[0].lot_raw

    def is_broken(order_raw: int) -> bool:
        value = margin.position_value_raw(margin_account.markets[0], order_raw)
        paid = max(value, value * (10_000 + LIMITS.slippage_bps) // 10_000)
        account_after = margin.with_trade(margin_account, "ETH", order_raw, -paid - -(-paid // 1_000)) if order_raw else margin_account
        return bool(breaches(margin_state(account_after, LIMITS), LIMITS, spot))

    assert allowed_raw % lot == 0
    assert not is_broken(allowed_raw)
    assert allowed_raw == size_raw // lot * lot or is_broken(allowed_raw + lot)


@pytest.mark.parametrize(
    ("position", "order", "collateral", "allowed_raw"),
    [
        pytest.param(10, -30, 1_000, -12, id="a long that flips too far"),
        pytest.param(-10, 30, 1_000, 12, id="a short that flips too far"),
        pytest.param(10, -12, 1_000, -12, id="a flip within the limit"),
        pytest.param(10, -7, 1_000, 0, id="a reduction that stays too large"),
        pytest.param(10, -30, 0, -10, id="a flat position alone is allowed"),
        pytest.param(2, 30, 1_000, 0, id="more of a position at its limit"),
    ],
)
def test_an_order_through_zero_is_cut_to_what_the_limit_allows_beyond_it(
    position: int, order: int, collateral: int, allowed_raw: int
) -> None:
    """At 1,000 a coin and without costs, twice 1,000 of collateral is a position of 2."""
    no_fee = replace(market("ETH", 1_000), fee_ppm=0)
    limits = replace(LIMITS, max_leverage_bps=20_000, max_utilisation_bps=10_000, slippage_bps=0, stress_move_bps=0)
    flipped_account = account(collateral, {"ETH": position * E18}, no_fee)
    assert largest_allowed_raw(flipped_account, "ETH", order * E18, limits, Fraction(10**6 * E18)) == allowed_raw * E18


@pytest.mark.parametrize(("eth", "btc", "collateral"), [(10, 10, 2_000), (10, -10, 2_000), (10, 5, 3_000)])
def test_orders_through_zero_are_cut_together_to_what_the_limit_allows_beyond_it(eth: int, btc: int, collateral: int) -> None:
    """Every share of 10,000 is tried: none beyond the largest fits, and that one does."""
    limits = replace(LIMITS, max_leverage_bps=20_000, max_utilisation_bps=10_000, slippage_bps=0, stress_move_bps=0)
    spot = Fraction(10**6 * E18)
    markets = tuple(replace(market(name, 1_000), fee_ppm=0) for name in ("ETH", "BTC"))
    margin_account = account(collateral, {"ETH": eth * E18, "BTC": btc * E18}, *markets)
    orders = {"ETH": -50 * E18, "BTC": (-50 if btc > 0 else 50) * E18}

    def fits(numerator: int) -> bool:
        account_after = margin_account
        for name, size_raw in orders.items():
            part = scaled_size_raw(margin_account.market(name), size_raw, Fraction(numerator, 10_000))
            account_after = (
                margin.with_trade(account_after, name, part, -margin.position_value_raw(margin_account.market(name), part))
                if part
                else account_after
            )
        return not breaches(margin_state(account_after, limits), limits, spot)

    largest = next((numerator for numerator in range(10_000, 0, -100) if fits(numerator)), 0)
    sizes = largest_allowed_sizes(margin_account, orders, limits, spot)
    assert abs(sizes["ETH"]) >= abs(orders["ETH"]) * largest // 10_000 > 0
    assert not fits(10_000 * abs(sizes["ETH"]) // abs(orders["ETH"]) + 2)


@pytest.mark.parametrize("names", [("ETH",), ("ETH", "BTC")], ids=["one order", "orders cut together"])
def test_orders_that_fit_uncut_are_whole_lots_too(names: tuple[str, ...]) -> None:
    markets = tuple(replace(market(name, 1_000), lot_raw=10) for name in names)
    sizes = largest_allowed_sizes(account(10_000, {}, *markets), dict.fromkeys(names, 15), LIMITS, Fraction(10**6 * E18))
    assert sizes == dict.fromkeys(names, 10)


@given(st.integers(1, 10**19), st.integers(1, 10**19), st.integers(300, 5_000), st.integers(0, 5_000))
def test_a_reduction_ends_within_every_limit_and_triggers_no_second_one(eth: int, btc: int, collateral: int, stress: int) -> None:
    limits = replace(LIMITS, stress_move_bps=stress)
    policy = FuturesPolicy((), 0, 0, limits)
    margin_account = account(collateral, {"ETH": eth, "BTC": -btc}, market("ETH"), market("BTC", 1_500))
    spot = Fraction(3_000 * E18)
    orders = reduction_sizes(margin_account, policy, spot)
    for name, size_raw in orders.items():
        assert margin_account.size_raw(name) * size_raw < 0
        assert abs(size_raw) <= abs(margin_account.size_raw(name))
        margin_account = margin.with_trade(
            margin_account, name, size_raw, -margin.position_value_raw(margin_account.market(name), size_raw)
        )
    assert not due_triggers(margin_account, policy, spot)
    assert not reduction_sizes(margin_account, policy, spot)


def test_targets_are_reached_from_below() -> None:
    policy = FuturesPolicy((FuturesTarget("ETH", 6_000), FuturesTarget("BTC", -4_000)), 20_000, 500, LIMITS)
    margin_account = account(10_000, {"ETH": 10 * E18}, market("ETH"), market("BTC", 30_000))
    assert due_triggers(margin_account, policy, Fraction(10**6 * E18)) == (FuturesTrigger.DRIFT,)
    orders = sizes_to_target(margin_account, policy)
    assert orders == {"ETH": -4 * E18, "BTC": -266 * 10**15}


@pytest.mark.parametrize(
    ("funding_daily", "tax", "is_hedged"),
    [
        (Fraction(0), 0, False),
        (Fraction(0), 50, True),
        (Fraction(-1, 100), 50, False),
        (Fraction(1, 100), 0, True),
    ],
)
def test_a_hedge_is_chosen_where_tax_outweighs_fees_and_funding(funding_daily: Fraction, tax: int, is_hedged: bool) -> None:
    """Of 2,400 above target half may be shorted: 1,200 cost 1.80 to sell, and 2.40 to short."""
    margin_account, hedged_value = replace(market("ETH"), funding_daily=funding_daily), Fraction(1_200)
    fees, funding, tied, _ = short_costs(margin_account, hedged_value, 30 * 86_400, Fraction(1, 10), 0)
    zero = Fraction(0)
    comparison = HedgeComparison(
        "", 2 * hedged_value, hedged_value, hedged_value * 15 / 10_000, zero, Fraction(tax), fees, funding, zero, tied, 30 * 86_400
    )
    assert (fees, tied) == (Fraction(24, 10), 120)
    assert with_choice(comparison, Fraction(0), counts_income=True).is_hedged is is_hedged
