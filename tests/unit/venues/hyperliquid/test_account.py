"""The account and markets of Hyperliquid, parsed: tiers, signs, contradictions by one base unit, and rows that move margin."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from typing import Any

import pytest

from agent.errors import OperatorNeeded, Retryable
from agent.margin import account as margin
from agent.venues.hyperliquid.account import (
    MAX_MARK_MOVE_BPS,
    MIN_PLANNED_NOTIONAL_RAW,
    LeverageSetting,
    ListedMarket,
    ReportedAccount,
    build_account,
    build_market,
    margin_tiers,
    market_rows,
    parse_account,
    parse_market,
    parse_market_numbers,
    parse_resting_orders,
    parse_stops,
    parse_transfers,
    require_pinned_numbers,
    unlisted_markets,
)
from tests.support.builders import OWNER
from tests.support.constants import USD
from tests.support.perpetuals.venue_accounts import LIMIT, account_state, open_order
from tests.support.text import raises_code

ETH = ListedMarket("ETH", 1, 4, ((0, 40),), False, Fraction(2_000), Fraction(2_001), Fraction(0))
CROSS = LeverageSetting(10, is_isolated=False)
OTHER = "0x" + "22" * 20


# Markets


def listed(entry: dict[str, object], tables: list[object]) -> ListedMarket:
    context = {"funding": "0", "markPx": "2000", "oraclePx": "2000"}
    answer = [{"universe": [{"name": "ETH", "szDecimals": 4} | entry], "marginTables": tables}, [context]]
    return parse_market("ETH", market_rows(answer, {"ETH"})["ETH"])


def tier(bound: str, leverage: int) -> dict[str, object]:
    return {"lowerBound": bound, "maxLeverage": leverage}


@pytest.mark.parametrize(
    ("entry", "tiers", "expected"),
    [
        pytest.param({"maxLeverage": 49}, [], ((0, 49),), id="one tier"),
        pytest.param({"maxLeverage": 49, "marginTableId": 3}, [], ((0, 3),), id="by its table"),
        pytest.param({"maxLeverage": 52}, [tier("0.0", 25), tier("100.0", 10)], ((0, 25), (100 * USD, 10)), id="two tiers"),
    ],
)
def test_tiers__begin_at_zero_and_rise(entry: dict[str, object], tiers: list[object], expected: tuple[tuple[int, int], ...]) -> None:
    assert listed(entry, [[52, {"marginTiers": tiers}]]).leverage_tiers == expected


@pytest.mark.parametrize(
    ("entry", "tiers"),
    [
        pytest.param({"maxLeverage": 50}, [], id="no table"),
        pytest.param({"maxLeverage": 0}, [], id="no leverage"),
        pytest.param({"maxLeverage": 52}, [tier("0.0", 25), tier("0.0", 10)], id="twice"),
        pytest.param({"maxLeverage": 52}, [tier("0.0", 25), tier("9.0", 10), tier("8.0", 5)], id="descending"),
        pytest.param({"maxLeverage": 52}, [tier("1.0", 25)], id="gap"),
        pytest.param({"maxLeverage": 52}, [tier("0.0", 0)], id="tier without leverage"),
    ],
)
def test_tiers__that_do_not_rise_from_zero_are_doubted(entry: dict[str, object], tiers: list[object]) -> None:
    with raises_code(Retryable, "answer"):
        listed(entry, [[52, {"marginTiers": tiers}]])


@pytest.mark.parametrize(("leverage", "initial_ppm"), [(1, 1_000_000), (3, 333_334), (50, 333_334)])
def test_tiers__rates_are_rounded_up(leverage: int, initial_ppm: int) -> None:
    [tier_of_three] = margin_tiers(replace(ETH, leverage_tiers=((0, 3),)), leverage)
    assert (tier_of_three.initial_ppm, tier_of_three.maintenance_ppm) == (initial_ppm, 166_667)


@pytest.mark.parametrize(("is_paused", "is_isolated"), [(False, False), (True, False), (False, True)])
def test_market__of_isolated_margin_is_paused(is_paused: bool, is_isolated: bool) -> None:
    market = build_market(replace(ETH, is_paused=is_paused), LeverageSetting(10, is_isolated), "0xweth", 350, 77)
    assert (market.is_paused, market.is_isolated) == (is_paused or is_isolated, is_isolated)
    assert (market.mark, market.index, market.index_s) == (200_000, 200_100, 77)
    assert market.min_notional_raw == MIN_PLANNED_NOTIONAL_RAW == 10_010_000


def test_markets__without_a_context_each_are_not_believed() -> None:
    with raises_code(Retryable, "answer"):
        market_rows([{"universe": [{"name": "ETH"}, {"name": "BTC"}], "marginTables": []}, [{}]], {"ETH"})


def universe(*names: object) -> list[object]:
    return [{"universe": [{"name": name} for name in names]}]


def test_market_numbers__are_places_in_the_universe() -> None:
    assert parse_market_numbers(universe("ETH", "BTC")) == {"ETH": 0, "BTC": 1}


@pytest.mark.parametrize("name", [pytest.param("ETH", id="listed twice"), pytest.param(3, id="no text")])
def test_market_numbers__of_a_doubtful_name_are_not_read(name: object) -> None:
    with raises_code(Retryable, "answer"):
        parse_market_numbers(universe("ETH", name))


@pytest.mark.parametrize(
    "pinned", [pytest.param({"ETH": 0}, id="the same"), pytest.param({"GONE": 7}, id="not listed"), pytest.param({}, id="none")]
)
def test_pinned_number__that_is_the_same_or_not_listed_is_kept(pinned: dict[str, int]) -> None:
    require_pinned_numbers({"ETH": 0, "BTC": 1}, pinned)


def test_pinned_number__of_a_listed_market_must_be_the_same() -> None:
    with pytest.raises(OperatorNeeded):
        require_pinned_numbers({"ETH": 0, "BTC": 1}, {"ETH": 1})


def lone(**changes: object) -> dict[str, object]:
    position = {"coin": "GONE", "szi": "-2.5", "positionValue": "10", "maxLeverage": 5, **changes}
    return {"assetPositions": [{"position": position}]}


@pytest.mark.parametrize(("leverage", "tiers"), [(5, ((0, 5),)), (0, ((0, 1),))])
def test_unlisted_market__has_mark_and_leverage_of_its_position(leverage: int, tiers: tuple[tuple[int, int], ...]) -> None:
    market = unlisted_markets(lone(maxLeverage=leverage), {"ETH": ETH})["GONE"]
    assert (market.mark, market.index, market.size_decimals, market.leverage_tiers) == (4, 4, 1, tiers)
    assert market.is_paused


@pytest.mark.parametrize(
    "change", [{"szi": "0"}, {"szi": "0.0"}, {"szi": "1.0000001"}, {"maxLeverage": None}, {"positionValue": "x"}], ids=str
)
def test_unlisted_market__without_size_or_leverage_is_doubted(change: dict[str, object]) -> None:
    with raises_code(Retryable, "answer"):
        unlisted_markets(lone(**change), {})


# The account


def parsed(answer: dict[str, Any]) -> ReportedAccount:
    return parse_account(answer, {"ETH": ETH, "BTC": replace(ETH, coin="BTC", mark=Fraction(30_000))})


@pytest.mark.parametrize(("size", "value"), [(3, 6_000), (-3, -6_000)])
@pytest.mark.parametrize("profit", [0, 7, -7])
def test_position__has_the_cost_that_its_profit_leaves(size: int, value: int, profit: int) -> None:
    answer = account_state(10_000, ETH=size)
    answer["assetPositions"][0]["position"]["unrealizedPnl"] = str(profit)
    reported = parsed(answer)
    assert reported.position_values_raw == (value * USD,)
    assert reported.positions[0].open_notional_raw == (profit - value) * USD


@pytest.mark.parametrize("figure", ["accountValue", "totalNtlPos"])
@pytest.mark.parametrize("off_raw", [2, -2])
def test_account__figure_may_be_rounded_by_two_base_units(figure: str, off_raw: int) -> None:
    parsed(rounded_state(figure, off_raw))


@pytest.mark.parametrize("figure", ["accountValue", "totalNtlPos"])
@pytest.mark.parametrize("off_raw", [3, -3])
def test_account__figure_off_by_three_base_units_is_doubted(figure: str, off_raw: int) -> None:
    with raises_code(Retryable, "answer"):
        parsed(rounded_state(figure, off_raw))


def rounded_state(figure: str, off_raw: int) -> dict[str, Any]:
    """The answer of an account, one figure of which is off by so much."""
    answer = account_state(10_000, ETH=1)
    raw = int(answer["marginSummary"][figure]) * USD + off_raw
    summary = answer["marginSummary"] | {figure: f"{raw // USD}.{raw % USD:06d}"}
    return answer | {"marginSummary": summary, "crossMarginSummary": summary}


EACH_SUM = pytest.mark.parametrize("figure", ["accountValue", "totalRawUsd", "totalNtlPos", "totalMarginUsed"])


def beside_cross_margin(figure: str, off: str) -> dict[str, Any]:
    """The answer of an account, one sum of which is above that of its cross margin."""
    answer = account_state(10_000, ETH=1)
    return answer | {"marginSummary": answer["marginSummary"] | {figure: f"{answer['marginSummary'][figure]}.{off}"}}


@EACH_SUM
def test_account__all_margin_is_cross_margin_but_for_rounding(figure: str) -> None:
    parsed(beside_cross_margin(figure, "000001"))


@EACH_SUM
def test_account__margin_two_base_units_beyond_cross_is_doubted(figure: str) -> None:
    with raises_code(Retryable, "answer"):
        parsed(beside_cross_margin(figure, "000002"))


def test_account__isolated_position_is_no_cross_figure() -> None:
    answer = account_state(10_000, ETH=1, BTC=1)
    cross = account_state(10_000, ETH=1)
    answer["assetPositions"][1]["position"]["leverage"]["type"] = "isolated"
    figures = {key: cross[key] for key in ("crossMarginSummary", "crossMaintenanceMarginUsed")}
    reported = parsed(answer | figures)
    assert ([position.market for position in reported.positions], reported.isolated_coins) == (["ETH"], ("BTC",))
    assert (reported.account_value_raw, reported.usd_balance_raw, reported.gross_notional_raw) == (10_000 * USD, 8_000 * USD, 2_000 * USD)
    assert (reported.maintenance_margin_raw, reported.margin_used_raw) == (25 * USD, 200 * USD)
    built = build_account(reported, tuple(build_market(replace(ETH, coin=coin), CROSS, "", 0, 0) for coin in ("ETH", "BTC")), 0)
    assert built.isolated_markets == ("BTC",)


def built_at(mark: Fraction, maintenance_off: int = 0, *, is_listed: bool = True) -> Any:
    """The account of one coin at 2,000 beside a market whose mark has moved."""
    reported = parsed(account_state(10_000, ETH=1))
    reported = replace(reported, maintenance_margin_raw=reported.maintenance_margin_raw + maintenance_off)
    market = build_market(replace(ETH, mark=mark), CROSS, "", 0, 0)
    return build_account(reported, (market,), 9_000 * USD, ("newKind",), is_listed=is_listed)


MOST = 20 * USD + 1
"""A hundredth of 2,000 and a base unit."""


@pytest.mark.parametrize("move_raw", [pytest.param(MOST, id="up"), pytest.param(-MOST, id="down")])
def test_mark__may_move_by_a_hundredth_between_two_answers(move_raw: int) -> None:
    assert MAX_MARK_MOVE_BPS == 100
    built_at(2_000 + Fraction(move_raw, USD))


@pytest.mark.parametrize("move_raw", [pytest.param(MOST + 1, id="up"), pytest.param(-MOST - 1, id="down")])
def test_mark__that_moved_by_a_base_unit_more_is_doubted(move_raw: int) -> None:
    with raises_code(Retryable, "answer"):
        built_at(2_000 + Fraction(move_raw, USD))


@pytest.mark.parametrize(
    ("off", "is_listed"),
    [
        pytest.param(2_002, True, id="a millionth above"),
        pytest.param(-2_002, True, id="a millionth below"),
        pytest.param(2_003, False, id="not listed"),
    ],
)
def test_maintenance__may_be_rounded_by_a_millionth_of_values(off: int, is_listed: bool) -> None:
    built_at(Fraction(2_000), off, is_listed=is_listed)


@pytest.mark.parametrize("off", [pytest.param(2_003, id="above"), pytest.param(-2_003, id="below")])
def test_maintenance__a_unit_beyond_its_rounding_is_doubted(off: int) -> None:
    with raises_code(Retryable, "answer"):
        built_at(Fraction(2_000), off)


def test_account__profit_is_what_deposits_and_positions_leave() -> None:
    account = built_at(Fraction(2_000))
    assert (account.collateral_raw, account.realised_raw) == (9_000 * USD, 1_000 * USD)
    assert margin.account_value_raw(account) == 10_000 * USD
    assert account.unknown_row_kinds == ("newKind",)


# Rows


@pytest.mark.parametrize(
    ("delta", "moved_raw"),
    [
        pytest.param({"type": "vaultDistribution", "user": OTHER, "usdc": "7"}, None, id="vault share of another"),
        pytest.param({"type": "vaultDistribution", "user": OWNER.lower(), "usdc": "7"}, 7 * USD, id="vault share"),
        pytest.param({"type": "vaultLeaderCommission", "user": OTHER, "usdc": "7"}, None, id="commission of another"),
        pytest.param({"type": "vaultWithdraw", "user": OTHER, "netWithdrawnUsd": "7"}, None, id="vault payout to another"),
        pytest.param({"type": "vaultWithdraw", "netWithdrawnUsd": "7"}, None, id="vault payout to nobody"),
        pytest.param({"type": "accountClassTransfer", "usdc": "7"}, -7 * USD, id="out of the account, no side"),
        pytest.param(
            {"type": "accountClassTransfer", "usdc": "7", "toPerp": "true"}, -7 * USD, id="out of the account, a text for its side"
        ),
        pytest.param(
            {"type": "internalTransfer", "usdc": "7", "user": OTHER, "destination": OTHER, "fee": "1"}, -8 * USD, id="sent by another, fee"
        ),
        pytest.param(
            {"type": "internalTransfer", "usdc": "7", "user": OWNER, "destination": OWNER, "fee": "1"}, 7 * USD, id="sent to itself"
        ),
        pytest.param({"type": "withdraw", "usdc": "7", "fee": "1", "feeToken": "HYPE"}, -7 * USD, id="withdrawn, fee in another coin"),
        pytest.param({"type": "withdraw", "usdc": "7", "fee": "1", "feeToken": "USDC"}, -8 * USD, id="withdrawn with its fee"),
        pytest.param(
            {"type": "send", "user": OWNER, "destination": OTHER, "sourceDex": "", "destinationDex": "", "token": "HYPE", "amount": "7"},
            None,
            id="other coin",
        ),
        pytest.param(
            {"type": "send", "user": OWNER, "destination": OWNER, "sourceDex": "", "destinationDex": "", "token": "USDC", "amount": "7"},
            0,
            id="from account to account",
        ),
        pytest.param(
            {"type": "send", "user": OTHER, "destination": OTHER, "sourceDex": "", "destinationDex": "", "token": "USDC", "amount": "7"},
            0,
            id="by others",
        ),
        pytest.param(
            {"type": "send", "user": OTHER, "destination": OTHER, "destinationDex": "", "token": "USDC", "amount": "7"},
            None,
            id="by others from an unknown place",
        ),
        pytest.param({"type": "liquidation", "usdc": "7"}, 0, id="liquidation"),
    ],
)
def test_transfer__counts_for_its_account_alone(delta: dict[str, object], moved_raw: int | None) -> None:
    net_raw, unknown_kinds = parse_transfers([{"time": 1, "delta": delta}], OWNER)
    assert net_raw == (moved_raw or 0)
    assert unknown_kinds == ((delta["type"],) if moved_raw is None else ())


def test_orders__are_the_oldest_first() -> None:
    rows = [open_order(LIMIT[:-1] + end, timestamp=at_ms) for end, at_ms in (("1", 3_000), ("3", 2_000), ("2", 2_999))]
    orders = parse_resting_orders(rows, {"ETH": ETH})
    assert [(order.placed_s, order.cloid[-1]) for order in orders] == [(2, "2"), (2, "3"), (3, "1")]


@pytest.mark.parametrize(
    "changes", [{"sz": "-1"}, {"sz": "-1", "origSz": "-2"}, {"sz": "0"}, {"sz": "3"}, {"limitPx": "0"}, {"timestamp": True}], ids=str
)
def test_orders__with_impossible_numbers_are_read_again(changes: dict[str, object]) -> None:
    with raises_code(Retryable, "answer"):
        parse_resting_orders([open_order(LIMIT, **changes)], {"ETH": ETH})


@pytest.mark.parametrize("changes", [{"sz": "-1"}, {"triggerPx": "0"}, {"triggerPx": "-1"}], ids=str)
def test_stops__with_impossible_numbers_are_read_again(changes: dict[str, object]) -> None:
    with raises_code(Retryable, "answer"):
        parse_stops([open_order(LIMIT, **changes)], {"ETH": ETH})
