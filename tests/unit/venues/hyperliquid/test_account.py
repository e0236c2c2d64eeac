"""The account and markets of Hyperliquid, parsed: tiers, signs, contradictions by one base unit, and rows that move margin."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
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


def is_believed(believed: bool) -> AbstractContextManager[Any]:
    return nullcontext() if believed else pytest.raises(Retryable)


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
        ({"maxLeverage": 49}, [], ((0, 49),)),
        ({"maxLeverage": 49, "marginTableId": 3}, [], ((0, 3),)),
        ({"maxLeverage": 50}, [], None),
        ({"maxLeverage": 0}, [], None),
        ({"maxLeverage": 52}, [tier("0.0", 25), tier("100.0", 10)], ((0, 25), (100 * USD, 10))),
        ({"maxLeverage": 52}, [tier("0.0", 25), tier("0.0", 10)], None),
        ({"maxLeverage": 52}, [tier("0.0", 25), tier("9.0", 10), tier("8.0", 5)], None),
        ({"maxLeverage": 52}, [tier("1.0", 25)], None),
        ({"maxLeverage": 52}, [tier("0.0", 0)], None),
    ],
    ids=["one tier", "by its table", "no table", "no leverage", "two tiers", "twice", "descending", "gap", "tier without leverage"],
)
def test_tiers__begin_at_zero_and_rise(entry: dict[str, object], tiers: list[object], expected: tuple[tuple[int, int], ...] | None) -> None:
    with is_believed(expected is not None):
        assert listed(entry, [[52, {"marginTiers": tiers}]] if tiers else []).leverage_tiers == expected


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


@pytest.mark.parametrize(("names", "is_read"), [(["ETH", "BTC"], True), (["ETH", "ETH"], False), (["ETH", 3], False)])
def test_market_numbers__name_that_is_listed_twice_has_none(names: list[object], is_read: bool) -> None:
    with is_believed(is_read):
        assert parse_market_numbers([{"universe": [{"name": name} for name in names]}]) == {"ETH": 0, "BTC": 1}


@pytest.mark.parametrize(("pinned", "is_kept"), [({"ETH": 0}, True), ({"ETH": 1}, False), ({"GONE": 7}, True), ({}, True)])
def test_pinned_number__of_a_listed_market_must_be_the_same(pinned: dict[str, int], is_kept: bool) -> None:
    with nullcontext() if is_kept else pytest.raises(OperatorNeeded):
        require_pinned_numbers({"ETH": 0, "BTC": 1}, pinned)


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
@pytest.mark.parametrize(("off_raw", "believed"), [(2, True), (-2, True), (3, False), (-3, False)])
def test_account__figure_may_be_rounded_by_two_base_units(figure: str, off_raw: int, believed: bool) -> None:
    answer = account_state(10_000, ETH=1)
    raw = int(answer["marginSummary"][figure]) * USD + off_raw
    summary = answer["marginSummary"] | {figure: f"{raw // USD}.{raw % USD:06d}"}
    with is_believed(believed):
        parsed(answer | {"marginSummary": summary, "crossMarginSummary": summary})


@pytest.mark.parametrize("figure", ["accountValue", "totalRawUsd", "totalNtlPos", "totalMarginUsed"])
@pytest.mark.parametrize(("off", "believed"), [("000001", True), ("000002", False)])
def test_account__all_margin_is_cross_margin_but_for_rounding(figure: str, off: str, believed: bool) -> None:
    answer = account_state(10_000, ETH=1)
    changed = answer["marginSummary"] | {figure: f"{answer['marginSummary'][figure]}.{off}"}
    with is_believed(believed):
        parsed(answer | {"marginSummary": changed})


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


@pytest.mark.parametrize(("move_raw", "believed"), [(MOST, True), (-MOST, True), (MOST + 1, False), (-MOST - 1, False)])
def test_mark__may_move_by_a_hundredth_between_two_answers(move_raw: int, believed: bool) -> None:
    assert MAX_MARK_MOVE_BPS == 100
    with is_believed(believed):
        built_at(2_000 + Fraction(move_raw, USD))


@pytest.mark.parametrize(
    ("off", "is_listed", "believed"),
    [
        pytest.param(2_002, True, True, id="a millionth above"),
        pytest.param(-2_002, True, True, id="a millionth below"),
        pytest.param(2_003, True, False, id="a unit beyond, above"),
        pytest.param(-2_003, True, False, id="a unit beyond, below"),
        pytest.param(2_003, False, True, id="not listed"),
    ],
)
def test_maintenance__may_be_rounded_by_a_millionth_of_values(off: int, is_listed: bool, believed: bool) -> None:
    with is_believed(believed):
        built_at(Fraction(2_000), off, is_listed=is_listed)


def test_account__profit_is_what_deposits_and_positions_leave() -> None:
    account = built_at(Fraction(2_000))
    assert (account.collateral_raw, account.realised_raw) == (9_000 * USD, 1_000 * USD)
    assert margin.account_value_raw(account) == 10_000 * USD
    assert account.unknown_row_kinds == ("newKind",)


# Rows


@pytest.mark.parametrize(
    ("delta", "moved_raw"),
    [
        ({"type": "vaultDistribution", "user": OTHER, "usdc": "7"}, None),
        ({"type": "vaultDistribution", "user": OWNER.lower(), "usdc": "7"}, 7 * USD),
        ({"type": "vaultLeaderCommission", "user": OTHER, "usdc": "7"}, None),
        ({"type": "vaultWithdraw", "user": OTHER, "netWithdrawnUsd": "7"}, None),
        ({"type": "vaultWithdraw", "netWithdrawnUsd": "7"}, None),
        ({"type": "accountClassTransfer", "usdc": "7"}, -7 * USD),
        ({"type": "accountClassTransfer", "usdc": "7", "toPerp": "true"}, -7 * USD),
        ({"type": "internalTransfer", "usdc": "7", "user": OTHER, "destination": OTHER, "fee": "1"}, -8 * USD),
        ({"type": "internalTransfer", "usdc": "7", "user": OWNER, "destination": OWNER, "fee": "1"}, 7 * USD),
        ({"type": "withdraw", "usdc": "7", "fee": "1", "feeToken": "HYPE"}, -7 * USD),
        ({"type": "withdraw", "usdc": "7", "fee": "1", "feeToken": "USDC"}, -8 * USD),
        (
            {"type": "send", "user": OWNER, "destination": OTHER, "sourceDex": "", "destinationDex": "", "token": "HYPE", "amount": "7"},
            None,
        ),
        ({"type": "send", "user": OWNER, "destination": OWNER, "sourceDex": "", "destinationDex": "", "token": "USDC", "amount": "7"}, 0),
        ({"type": "send", "user": OTHER, "destination": OTHER, "sourceDex": "", "destinationDex": "", "token": "USDC", "amount": "7"}, 0),
        ({"type": "send", "user": OTHER, "destination": OTHER, "destinationDex": "", "token": "USDC", "amount": "7"}, None),
        ({"type": "liquidation", "usdc": "7"}, 0),
    ],
    ids=lambda value: value["type"] if isinstance(value, dict) else str(value),
)
def test_transfer__counts_for_its_account_alone(delta: dict[str, object], moved_raw: int | None) -> None:
    net_raw, unknown_kinds = parse_transfers([{"time": 1, "delta": delta}], OWNER)
    assert net_raw == (moved_raw or 0)
    assert unknown_kinds == ((delta["type"],) if moved_raw is None else ())


def test_orders__are_the_oldest_first() -> None:
    rows = [open_order(LIMIT[:-1] + end, timestamp=at_ms) for end, at_ms in (("1", 3_000), ("3", 2_000), ("2", 2_999))]
    orders = parse_resting_orders(rows, {"ETH": ETH})
    assert [(order.placed_s, order.cloid[-1]) for order in orders] == [(2, "2"), (2, "3"), (3, "1")]
