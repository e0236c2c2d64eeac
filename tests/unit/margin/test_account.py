"""Tests of agent/margin/account.py: value, margin, leverage and liquidation prices, held against their definitions."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.margin import account as margin
from agent.model.futures import MarginAccount, MarginTier, PerpMarket
from tests.support.perpetuals.accounts import E18, ONE_TIER, account, market, sizes

TIERS = (MarginTier(0, 50_000, 25_000), MarginTier(20_000 * E18, 100_000, 50_000), MarginTier(100_000 * E18, 200_000, 100_000))


def eth_account(coins: int, collateral: int = 10_000, eth_market: PerpMarket | None = None) -> MarginAccount:
    """Return an account with a position of so many ETH, opened at 2,000."""
    return account(collateral, {"ETH": coins * E18} if coins else {}, eth_market or market("ETH"))


def moved(margin_account: MarginAccount, move: Fraction | int) -> MarginAccount:
    """Return the account after the mark of ETH moved by this share."""
    return margin.with_moved_marks(margin_account, {"ETH": Fraction(move)})


# --- Value.


@pytest.mark.parametrize("sign", [1, -1], ids=["long", "short"])
def test_profit_is_the_move_of_the_mark_for_the_position(sign: int) -> None:
    account_after = moved(eth_account(sign * 10), Fraction(1, 10))

    assert margin.unrealised_profit_raw(account_after) == sign * 2_000 * E18
    assert margin.net_notional_raw(account_after) == sign * 22_000 * E18
    assert margin.gross_notional_raw(account_after) == 22_000 * E18
    assert account_after.positions[0].entry_price == 2_000


def test_pending_funding_is_owed_when_positive() -> None:
    margin_account = eth_account(1)
    position = replace(margin_account.positions[0], funding_pending_raw=7 * E18)
    owing_account = replace(margin_account, positions=(position,))

    assert margin.account_value_raw(owing_account) == margin.account_value_raw(margin_account) - 7 * E18


def test_trade_settles_pending_funding() -> None:
    margin_account = eth_account(1)
    position = replace(margin_account.positions[0], funding_pending_raw=7 * E18)
    owing_account = replace(margin_account, positions=(position,))

    closed_account = margin.with_trade(owing_account, "ETH", -E18, 2_000 * E18)

    assert margin.account_value_raw(closed_account) == margin.account_value_raw(owing_account)


@pytest.mark.parametrize(
    ("realised_raw", "settled_raw", "collateral_raw"),
    [
        pytest.param(0, 10_000 * E18, 10_000 * 10**6, id="whole units"),
        pytest.param(10**12 - 1, 10_000 * E18, 10_000 * 10**6, id="a part of a unit more"),
        pytest.param(-1, 10_000 * E18 - 10**12, 10_000 * 10**6 - 1, id="a part of a unit less"),
        pytest.param(-10_001 * E18, -E18, 0, id="in debt"),
    ],
)
def test_settled_value_is_in_whole_units_of_the_collateral(realised_raw: int, settled_raw: int, collateral_raw: int) -> None:
    margin_account = replace(eth_account(0), collateral_unit_raw=10**12, realised_raw=realised_raw)

    assert margin.settled_value_raw(margin_account) == settled_raw
    assert margin.value_in_collateral_raw(margin_account) == collateral_raw


# --- Trades.


@given(sizes.filter(bool), sizes.filter(bool), st.integers(500, 8_000))
def test_trade_at_the_mark_changes_no_value(first_raw: int, second_raw: int, price: int) -> None:
    margin_account = moved(account(10_000, {"ETH": first_raw}, market("ETH")), Fraction(price, 2_000) - 1)
    fill_raw = -margin.position_value_raw(margin_account.market("ETH"), second_raw)

    account_after = margin.with_trade(margin_account, "ETH", second_raw, fill_raw)
    rest_raw = account_after.size_raw("ETH")
    closed_account = margin.with_trade(account_after, "ETH", -rest_raw, margin.position_value_raw(account_after.market("ETH"), rest_raw))

    assert abs(margin.account_value_raw(account_after) - margin.account_value_raw(margin_account)) <= 2
    assert closed_account.positions == ()
    assert abs(margin.account_value_raw(closed_account) - margin.account_value_raw(margin_account)) <= 4


def test_share_of_a_reduction_is_truncated_at_18_decimals() -> None:
    """As the exchange does."""
    account_after = margin.with_trade(eth_account(3), "ETH", -E18, 2_100 * E18)
    closed_notional_raw = 6_000 * E18 * 333333333333333333 // E18

    assert account_after.realised_raw == 2_100 * E18 - closed_notional_raw
    assert account_after.positions[0].open_notional_raw == -6_000 * E18 + closed_notional_raw


def test_trade_through_zero_realises_the_whole_position() -> None:
    account_after = margin.with_trade(eth_account(1), "ETH", -2 * E18, 4_200 * E18)

    assert account_after.realised_raw == 100 * E18
    assert account_after.positions[0].size_raw == -E18
    assert account_after.positions[0].open_notional_raw == 2_100 * E18


# --- Margin, leverage and utilisation.


@pytest.mark.parametrize(
    ("notional", "is_initial", "margin_usd"),
    [
        pytest.param(120_000, False, 500 + 4_000 + 2_000, id="maintenance of three tiers"),
        pytest.param(20_000, True, 1_000, id="initial at the end of the first tier"),
        pytest.param(20_010, True, 1_001, id="initial ten beyond it"),
        pytest.param(0, True, 0, id="nothing"),
    ],
)
def test_tiers_charge_each_part_its_own_rate(notional: int, is_initial: bool, margin_usd: int) -> None:
    assert margin.tiered_margin_raw(TIERS, notional * E18, is_initial=is_initial) == margin_usd * E18


@pytest.mark.parametrize(
    ("move", "value_usd", "free_usd", "utilisation"),
    [
        pytest.param(Fraction(0), 10_000, 8_000, Fraction(2_000, 10_000), id="at the entry"),
        pytest.param(Fraction(-1, 2), 20_000, 9_000, Fraction(1_000, 20_000), id="a gain frees nothing"),
        pytest.param(Fraction(1, 4), 5_000, 2_500, Fraction(2_500, 5_000), id="a loss"),
    ],
)
def test_margin_of_a_short_binds_its_debt(move: Fraction, value_usd: int, free_usd: int, utilisation: Fraction) -> None:
    margin_account = moved(eth_account(-10), move)

    assert margin.account_value_raw(margin_account) == value_usd * E18
    assert margin.free_margin_raw(margin_account) == free_usd * E18
    assert margin.utilisation(margin_account) == utilisation


@pytest.mark.parametrize("on_debt", [True, False], ids=["on debt", "on notional"])
@pytest.mark.parametrize("sign", [1, -1], ids=["long", "short"])
def test_utilisation_rises_as_a_position_loses(sign: int, on_debt: bool) -> None:
    margin_account = replace(eth_account(sign * 10), initial_on_debt=on_debt)

    utilisations = [margin.utilisation(moved(margin_account, sign * Fraction(tenths, 10))) for tenths in (-3, -1, 0, 1, 5)]

    assert None not in utilisations
    assert utilisations == sorted(set(utilisations), reverse=True)  # type: ignore[type-var]  # none is None
    assert utilisations[2] == Fraction(2, 10), "initial margin of 2,000 over an account value of 10,000"


@pytest.mark.parametrize(
    ("coins", "collateral", "move", "leverage"),
    [
        pytest.param(0, 0, 0, Fraction(0), id="no position"),
        pytest.param(10, 10_000, 0, Fraction(2), id="twice"),
        pytest.param(10, 10_000, Fraction(-1, 10), Fraction(18_000, 8_000), id="after a loss"),
        pytest.param(10, 10_000, Fraction(-1, 2), None, id="worth nothing"),
    ],
)
def test_leverage_is_gross_notional_over_value(coins: int, collateral: int, move: Fraction | int, leverage: Fraction | None) -> None:
    assert margin.leverage(moved(eth_account(coins, collateral), move)) == leverage


@pytest.mark.parametrize(
    ("target_leverage_bps", "eth_share"),
    [
        pytest.param(0, Fraction(2, 3), id="of the gross notional"),
        pytest.param(60_000, Fraction(4_000, 60_000), id="of a larger target"),
        pytest.param(1_000, Fraction(2, 3), id="a smaller target does not count"),
    ],
)
def test_position_share_is_of_notional_or_target(target_leverage_bps: int, eth_share: Fraction) -> None:
    margin_account = account(10_000, {"ETH": 2 * E18, "BTC": -(10**17)}, market("ETH"), market("BTC", 20_000))

    assert margin.position_shares(margin_account, target_leverage_bps)["ETH"] == eth_share


# --- Liquidation.


@pytest.mark.parametrize(
    ("collateral", "is_liquidatable"),
    [(1_250, False), (1_249, True)],
    ids=["at the maintenance margin", "below it"],
)
def test_account_below_its_maintenance_margin_is_liquidated(collateral: int, is_liquidatable: bool) -> None:
    """Ten ETH at 2,000 need 6.25 % of 20,000."""
    assert margin.is_liquidatable(eth_account(10, collateral)) is is_liquidatable


@pytest.mark.parametrize(
    ("coins", "collateral", "closable"),
    [
        pytest.param(10, 1_250, 0, id="above maintenance"),
        pytest.param(10, 1_000, 5, id="half of the notional"),
        pytest.param(-10, 1_000, -5, id="half of a short"),
        pytest.param(10, 625, 5, id="at half of the maintenance"),
        pytest.param(10, 624, 10, id="below half of the maintenance"),
    ],
)
def test_liquidator_closes_half_or_all(coins: int, collateral: int, closable: int) -> None:
    assert margin.liquidatable_size_raw(eth_account(coins, collateral), "ETH") == closable * E18


def test_liquidator_closes_the_whole_of_a_small_position() -> None:
    margin_account = eth_account(1, 5, market("ETH", 100))
    larger_account = eth_account(1, 5, market("ETH", 101))

    assert margin.liquidatable_size_raw(margin_account, "ETH") == E18
    assert margin.liquidatable_size_raw(larger_account, "ETH") == E18 // 2


@given(st.sampled_from([ONE_TIER, TIERS]), sizes.filter(bool), sizes, st.integers(1, 10**6))
def test_account_is_liquidated_at_its_liquidation_price(tiers: tuple[MarginTier, ...], eth_raw: int, btc_raw: int, collateral: int) -> None:
    position_sizes = {"ETH": eth_raw} | ({"BTC": btc_raw} if btc_raw else {})
    margin_account = account(collateral, position_sizes, market("ETH", 2_000, tiers), market("BTC", 30_000, tiers))
    if margin.is_liquidatable(margin_account):
        return
    price = margin.liquidation_price(margin_account, "ETH")
    if price is None:
        assert not margin.is_liquidatable(moved(margin_account, -1 if eth_raw > 0 else 0))
        return
    losing_side = -1 if eth_raw > 0 else 1

    def at_price(offset: Fraction) -> MarginAccount:
        return moved(margin_account, price * (1 + losing_side * offset) / 2_000 - 1)

    assert margin.is_liquidatable(at_price(Fraction(1, 10**6)))
    assert not margin.is_liquidatable(at_price(-Fraction(1, 10**6)))


def test_nearest_liquidation_is_that_of_the_smallest_move() -> None:
    margin_account = account(4_000, {"ETH": 10 * E18, "BTC": -(10**17)}, market("ETH"), market("BTC", 30_000))
    nearest = margin.nearest_liquidation(margin_account)

    assert nearest is not None
    nearest_market, distance = nearest
    assert nearest_market.market == "ETH"
    assert distance == margin.liquidation_distance(margin_account, "ETH")
    assert distance is not None
    assert distance < 0
    assert margin.nearest_liquidation(eth_account(0)) is None


# --- Marks.


@pytest.mark.parametrize(
    ("coins", "doubtful_markets", "mark"),
    [
        pytest.param(10, (), 1_900, id="the index"),
        pytest.param(10, ("ETH",), 2_000, id="the better for a long"),
        pytest.param(-10, ("ETH",), 1_900, id="the better for a short"),
    ],
)
def test_index_marks_take_the_better_price_in_doubtful_markets(coins: int, doubtful_markets: tuple[str, ...], mark: int) -> None:
    margin_account = eth_account(coins, eth_market=replace(market("ETH"), index=Fraction(1_900)))

    assert margin.with_index_marks(margin_account, doubtful_markets).market("ETH").mark == mark


def test_adverse_move_is_against_each_position() -> None:
    margin_account = account(10_000, {"ETH": E18, "BTC": -(10**17)}, market("ETH"), market("BTC", 30_000))

    stressed_account = margin.with_adverse_move(margin_account, Fraction(1, 10))

    assert stressed_account.market("ETH").mark == 1_800
    assert stressed_account.market("BTC").mark == 33_000


@pytest.mark.parametrize(
    ("collateral", "is_accepted"), [(1_250, True), (1_249, False)], ids=["at the maintenance margin", "one coin below"]
)
def test_reduction_is_accepted_with_maintenance_of_the_debt(collateral: int, is_accepted: bool) -> None:
    assert margin.is_reduction_accepted(eth_account(-10, collateral)) is is_accepted


@pytest.mark.parametrize(("on_debt", "is_accepted"), [(True, False), (False, True)], ids=["smaller of both", "account value"])
def test_trade_is_accepted_by_what_the_venue_counts(on_debt: bool, is_accepted: bool) -> None:
    """Losses leave 500 of collateral, and an open profit an account value of 20,500."""
    doubled = replace(market("ETH"), mark=Fraction(4_000), index=Fraction(4_000))
    margin_account = replace(eth_account(10, 10_000), realised_raw=-9_500 * E18, markets=(doubled,), initial_on_debt=on_debt)

    assert margin.is_reduction_accepted(margin_account) is is_accepted
    assert margin.is_opening_accepted(margin_account) is is_accepted
