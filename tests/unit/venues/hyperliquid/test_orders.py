"""Orders of Hyperliquid: ticks, wire forms, client order ids, answers; peers are the venue's own library and a count of digits."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from decimal import Decimal
from fractions import Fraction
from typing import cast

import pytest
from hyperliquid.utils import signing
from hypothesis import given
from hypothesis import strategies as st

from agent.errors import Refused, Retryable
from agent.margin import account as margin
from agent.model.futures import MarginAccount, MarginTier, PerpMarket, PerpOrder, PerpOrderKind, Position
from agent.signing.futures import TIME_IN_FORCE, cloid_of
from agent.venues.hyperliquid.account import (
    USDC,
    LeverageSetting,
    ListedMarket,
    margin_tiers,
    market_rows,
    parse_account,
    parse_leverage,
    parse_market,
)
from agent.venues.hyperliquid.orders import (
    MIN_NOTIONAL_RAW,
    OrderRecord,
    VenueOrderStage,
    limit_price,
    model_price,
    order_action,
    order_state,
    parse_order_status,
    parse_refusals,
    price_text,
    quoted_price,
    size_text,
    tick_at,
)
from tests.support.hyperliquid import issue_tickets
from tests.support.hyperliquid_server import Coin, key_of
from tests.support.text import raises_code

decimals = st.integers(0, 5)
quoted = st.integers(1, 10**13).map(lambda raw: Fraction(raw, 10**6))
ETH = PerpMarket(
    market="ETH",
    symbol="ETH",
    asset="",
    size_decimals=4,
    lot_raw=1,
    tiers=(MarginTier(0, 50000, 20000),),
    fee_ppm=450,
    mark=Fraction(300000),
    index=Fraction(300000),
    index_s=0,
    funding_daily=Fraction(0),
)


def order(size_raw: int, bound_raw: int, kind: PerpOrderKind = PerpOrderKind.MARKET, reduce: bool = False) -> PerpOrder:
    return PerpOrder("ETH", size_raw, kind, bound_raw, reduce)


@given(quoted, decimals)
def test_a_tick_has_five_figures_and_the_places_of_its_market(price: Fraction, size_decimals: int) -> None:
    tick = tick_at(price, size_decimals)
    allowed = Coin("X", size_decimals, price, (("0.0", 10),), 10)
    rounded = tick * (price // tick)
    assert rounded == 0 or allowed.tick_ok(rounded)
    assert tick <= 1
    if tick < 1 and rounded:  # a finer tick would break a rule
        finer = rounded + tick / 10
        assert not allowed.tick_ok(finer)


@given(st.integers(1, 10**9), st.integers(1, 10**16), decimals, st.booleans())
def test_a_limit_price_keeps_the_bound_within_one_tick(size: int, bound: int, size_decimals: int, is_buy: bool) -> None:
    market = replace(ETH, size_decimals=size_decimals)
    price = limit_price(market, order(size if is_buy else -size, bound))
    exact = quoted_price(Fraction(bound, size), size_decimals)
    tick = tick_at(exact, size_decimals)
    assert (exact - tick < price <= exact) if is_buy else (exact <= price < exact + tick)
    assert price == 0 or Coin("X", size_decimals, price, (("0.0", 10),), 10).tick_ok(price)


@given(st.integers(1, 10**12), decimals, st.integers(1, 10**10))
def test_prices_and_sizes_are_written_as_the_library_writes_them(price: int, size_decimals: int, size: int) -> None:
    market = replace(ETH, size_decimals=size_decimals)
    rounded = Fraction(price, 10**6) // tick_at(Fraction(price, 10**6), size_decimals) * tick_at(Fraction(price, 10**6), size_decimals)
    assert price_text(rounded) == signing.float_to_wire(float(rounded))
    assert Decimal(size_text(market, -size)) == Decimal(size) / 10**size_decimals
    assert model_price(quoted_price(ETH.mark, size_decimals), size_decimals) == ETH.mark


@given(st.integers(1, 10**8), st.integers(1, 10**6), st.sampled_from(PerpOrderKind), st.booleans())
def test_an_action_is_that_of_the_library_for_the_same_order(lots: int, ticks: int, kind: PerpOrderKind, reduce: bool) -> None:
    price = Fraction(ticks, 10)
    price = price // tick_at(price, 4) * tick_at(price, 4)
    bound = model_price(price, 4) * lots
    if not price or bound < MIN_NOTIONAL_RAW:
        return
    (ticket,) = issue_tickets([order(-lots, int(bound), kind, reduce)], 1_000, 5_000)
    tif = TIME_IN_FORCE[kind]
    request = {"coin": "ETH", "is_buy": False, "sz": lots / 10**4, "limit_px": float(price), "reduce_only": reduce}
    request["order_type"] = {"limit": {"tif": tif}}
    wire = signing.order_request_to_order_wire(request, 1)  # type: ignore[arg-type]
    expected = signing.order_wires_to_order_action([{**wire, "c": ticket.cloid}])
    assert order_action(ticket, ETH, 1) == expected
    assert signing.action_hash(order_action(ticket, ETH, 1), None, 1, 2) == signing.action_hash(expected, None, 1, 2)


def test_client_order_id__is_stable_and_differs_between_orders() -> None:
    base = order(10, 3_100_000)
    assert cloid_of(1_000, base) == "0xaacc48885c0404e16b6692abcaf74f46", "orders of an earlier version are found by it"
    others = [replace(base, size_raw=11), replace(base, bound_raw=1), replace(base, is_reduce_only=True), replace(base, market="BTC")]
    ids = {cloid_of(1_000, base), cloid_of(1_002, base)} | {cloid_of(1_000, other) for other in others}
    assert len(ids) == 6
    assert all(len(order_id) == 34 and int(order_id, 16) for order_id in ids)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (order(33, 9_999_999), "below the venue's minimum of 10 USD"),
        (order(0, 10**9), "no size"),
        (order(10_000, 0), "no size or no bound"),
        (replace(order(10_000, 3 * 10**9), market="BTC"), "another market"),
        (order(10**9, 10**3), "below one tick"),
    ],
)
def test_orders_the_venue_would_refuse__are_refused_before(wrong: PerpOrder, words: str) -> None:
    (ticket,) = issue_tickets([wrong], 1_000, 5_000)
    with pytest.raises(Refused, match=words):
        order_action(ticket, ETH, 1)


def test_order_of_exactly_the_venue_s_minimum__is_accepted() -> None:
    (ticket,) = issue_tickets([order(10_000, MIN_NOTIONAL_RAW)], 1_000, 5_000)
    (sent,) = cast(list[dict[str, object]], order_action(ticket, ETH, 1)["orders"])
    assert (sent["p"], sent["s"]) == ("10", "1")


def test_parts_of_a_lot_are_refused() -> None:
    (ticket,) = issue_tickets([order(10_001, 4 * 10**9)], 1_000, 5_000)
    with pytest.raises(Refused, match="whole lots"):
        order_action(ticket, replace(ETH, lot_raw=10), 1)


RECORD = {
    "coin": "ETH", "side": "A", "limitPx": "3000.0", "sz": "0.4", "origSz": "1.0", "oid": 7, "timestamp": 5, "cloid": "0x" + "ab" * 16,
}  # fmt: skip
FILL = {"oid": 7, "tid": 1, "px": "3000.5", "sz": "0.6", "fee": "0.8102", "side": "A"}


def status(word: str, **changes: object) -> dict[str, object]:
    return {"status": "order", "order": {"order": {**RECORD, **changes}, "status": word, "statusTimestamp": 6}}


def order_record(word: str, **fields: object) -> OrderRecord:
    record = parse_order_status(status(word, **fields), "0x" + "ab" * 16)
    assert record is not None
    return record


def test_fills__add_up_signed_with_the_fee_rounded_up() -> None:
    record = order_record("canceled")
    state = order_state(record, [FILL, {**FILL, "oid": 8}], 4)
    assert (state.stage, state.filled_raw, state.quote_change_raw, state.fee_raw) == (
        VenueOrderStage.CANCELED,
        -6_000,
        1_800_300_000,
        810_200,
    )
    assert state.is_final


def test_a_fill_that_is_listed_twice_counts_once() -> None:
    record = order_record("open")
    fills = [{**FILL, "sz": "0.2"}, {**FILL, "sz": "0.2"}, {**FILL, "sz": "0.4", "tid": 2, "fee": "0.1"}]
    state = order_state(record, fills, 4)
    assert [(fill.fill_id, fill.size_raw, fill.fee_raw) for fill in state.fills] == [("1", -2_000, 810_200), ("2", -4_000, 100_000)]
    assert (state.filled_raw, state.fee_raw) == (-6_000, 910_200)
    assert not state.is_final


@pytest.mark.parametrize(("fee", "fee_raw"), [("0.0000001", 1), ("-0.0000001", 0), ("-0.000001", -1)])
def test_fill__part_of_a_base_unit_of_its_fee_is_paid(fee: str, fee_raw: int) -> None:
    record = order_record("canceled")
    filled = order_state(record, [FILL | {"fee": fee}], 4)
    assert (filled.fee_raw, filled.fills[0].fee_raw) == (fee_raw, fee_raw)


@pytest.mark.parametrize("word", ["open", "canceled"])
@pytest.mark.parametrize(
    ("fills", "reason"),
    [
        pytest.param([], "do not add up yet", id="none"),
        pytest.param([{**FILL, "sz": "0.5999"}], "do not add up yet", id="one lot short"),
        pytest.param([{**FILL, "tid": None}], "a fill has an unexpected format", id="no id"),
        pytest.param([{**FILL, "tid": True}], "a fill has an unexpected format", id="a truth as id"),
        pytest.param([{**FILL, "px": "-5"}], "price of a fill is not above zero", id="negative price"),
        pytest.param([{**FILL, "px": "0"}], "price of a fill is not above zero", id="no price"),
        pytest.param([{**FILL, "sz": "-0.6"}, {**FILL, "sz": "1.2", "tid": 2}], "size of a fill is not above zero", id="negative size"),
    ],
)
def test_partly_listed_fills__are_read_again(word: str, fills: list[dict[str, object]], reason: str) -> None:
    with raises_code(Retryable, "answer", reason):
        order_state(order_record(word), fills, 4)


def test_canceled_order__with_no_size_left_has_what_it_filled() -> None:
    assert order_state(order_record("canceled", sz="0.0"), [FILL], 4).filled_raw == -6_000


@pytest.mark.parametrize("rest", ["1.0", "0.4"], ids=["unfilled by its record", "filled by its record"])
def test_open_order__may_have_filled_more_than_its_record(rest: str) -> None:
    assert order_state(order_record("open", sz=rest), [FILL], 4).filled_raw == -6_000


@pytest.mark.parametrize(("rest", "fill_size"), [("0.3999", "0.6"), ("1.0", "1.0001")], ids=["less than its record", "more than the order"])
def test_open_order__fills_beyond_its_bounds_are_read_again(rest: str, fill_size: str) -> None:
    with raises_code(Retryable, "answer", "do not add up yet"):
        order_state(order_record("open", sz=rest), [{**FILL, "sz": fill_size}], 4)


@pytest.mark.parametrize(
    ("fills", "reason"),
    [
        pytest.param([FILL], "do not add up yet", id="a part"),
        pytest.param([], "do not add up yet", id="none"),
        pytest.param([FILL, FILL], "do not add up yet", id="one twice"),
        pytest.param([{**FILL, "sz": "x"}], "the size of a fill is not a decimal", id="size of a letter"),
        pytest.param("none", "fills has an unexpected format", id="text"),
    ],
)
def test_filled_order_without_fills__is_read_again(fills: object, reason: str) -> None:
    with raises_code(Retryable, "answer", reason):
        order_state(order_record("filled"), fills, 4)


@pytest.mark.parametrize(
    "answer",
    [None, [], {}, {"status": "order"}, status("filled", cloid="0x" + "cd" * 16), status("filled", oid="7"), status("filled", side="C"),
     {"status": "order", "order": {"order": RECORD, "status": "filled"}},
     status("teleported"), status("filled", origSz="1e3"), status("canceled", origSz="0.0", sz="0.0"),
     status("open", origSz="-1.0", sz="-0.4"), status("open", sz="-0.4"),
     status("open", sz="1.0001"), status("filled", oid=True), status("filled", timestamp=True)],
)  # fmt: skip
def test_answers_about_an_order_in_another_form_are_no_state(answer: object) -> None:
    with raises_code(Retryable, "answer"):
        parse_order_status(answer, "0x" + "ab" * 16)


def test_every_documented_ending_of_an_order_has_a_stage() -> None:
    stages = {word: parse_order_status(status(word), "0x" + "ab" * 16) for word in (
        "open", "filled", "canceled", "triggered", "rejected", "marginCanceled", "vaultWithdrawalCanceled", "openInterestCapCanceled",
        "selfTradeCanceled", "reduceOnlyCanceled", "siblingFilledCanceled", "delistedCanceled", "liquidatedCanceled", "scheduledCancel",
        "tickRejected", "minTradeNtlRejected", "perpMarginRejected", "reduceOnlyRejected", "badAloPxRejected", "iocCancelRejected",
    )}  # fmt: skip
    assert all(record is not None and record.stage is not VenueOrderStage.UNKNOWN for record in stages.values())


def test_a_refused_order_is_judged_and_a_refused_action_is_not() -> None:
    (judged,) = parse_refusals({"status": "ok", "response": {"data": {"statuses": [{"error": "Insufficient margin \x1b[31m"}]}}}, 1)
    (action,) = parse_refusals({"status": "err", "response": "Invalid nonce"}, 1)
    assert judged.is_judged
    assert "\x1b" not in judged.reason
    assert not action.is_judged
    assert parse_refusals({"status": "ok", "response": {"data": {"statuses": [{"resting": {"oid": 1}}]}}}, 1) == [None]
    for answer in (None, {}, {"status": "ok"}, {"status": "ok", "response": {"data": {"statuses": []}}}):
        with raises_code(Retryable, "answer"):
            parse_refusals(answer, 1)


@given(st.integers(0, 10**13), st.integers(1, 50))
def test_tiers_give_the_margin_of_rate_and_deduction(notional: int, leverage: int) -> None:
    rows = (("0.0", 25), ("20000.0", 10), ("50000.0", 5), ("200000.0", 4))
    coin = Coin("ETH", 4, Fraction(3_000), rows, 52)
    listed = ListedMarket("ETH", 1, 4, tuple((int(Fraction(a) * 10**6), most) for a, most in rows), False, *[Fraction(1)] * 3)
    tiers = margin_tiers(listed, leverage)
    for is_initial, set_leverage in ((False, None), (True, leverage)):
        documented = coin.margin(Fraction(notional, 10**6), set_leverage) * 10**6
        ours = margin.tiered_margin_raw(tiers, notional, is_initial)
        assert documented <= ours <= documented + Fraction(notional, margin.PPM)


def test_initial_margin_counts_the_notional_and_not_the_debt() -> None:
    position = Position("ETH", 10_000, -2 * 10**9)
    account = MarginAccount(USDC, 1, 10**9, 0, (position,), (ETH,), initial_on_debt=False)
    assert margin.initial_margin_raw(account) == 150 * 10**6
    assert margin.initial_margin_raw(replace(account, initial_on_debt=True)) == 100 * 10**6


META = {
    "universe": [{"name": "ETH", "szDecimals": 4, "marginTableId": 52}],
    "marginTables": [[52, {"marginTiers": [{"lowerBound": "0.0", "maxLeverage": 25}]}]],
}
CONTEXT = {"funding": "0.0000125", "markPx": "3000.0", "oraclePx": "3001.0"}


def parse_ether(answer: object) -> ListedMarket:
    return parse_market("ETH", market_rows(answer, {"ETH"})["ETH"])


@pytest.mark.parametrize("kind", ["cross", "isolated", "strictIsolated", None])
def test_margin_of_any_kind_but_cross_counts_as_isolated(kind: str | None) -> None:
    setting = parse_leverage({"leverage": {"type": kind, "value": 3}}, "ETH")
    assert setting == LeverageSetting(3, is_isolated=kind != "cross")


ETHER = ListedMarket("ETH", 0, 4, ((0, 50),), False, Fraction(2_000), Fraction(2_000), Fraction(0))


def state_answer(kind: str, all_value: str) -> dict[str, object]:
    """An account of 1,000 USDC of cross margin, with a position and the totals of all margin."""
    cross = {"accountValue": "1000.0", "totalRawUsd": "1000.0", "totalNtlPos": "0.0", "totalMarginUsed": "0.0"}
    leverage = {"type": kind, "value": 3}
    position = {"coin": "ETH", "szi": "0.0", "positionValue": "0.0", "unrealizedPnl": "0.0", "leverage": leverage}
    return {
        "time": 1,
        "marginSummary": cross | {"accountValue": all_value},
        "crossMarginSummary": cross,
        "crossMaintenanceMarginUsed": "0.0",
        "withdrawable": "1000.0",
        "assetPositions": [{"position": position}],
    }


OTHER_VALUES = ["1000.000002", "1700.0", "300.0"]
"""Values of an account whose cross margin is 1000.0."""


@pytest.mark.parametrize("all_value", ["1000.0", *OTHER_VALUES])
def test_account__isolated_margin_leaves_the_cross_part_readable(all_value: str) -> None:
    account = parse_account(state_answer("isolated", all_value), {"ETH": ETHER})
    assert (account.account_value_raw, account.positions, account.isolated_coins) == (1_000 * 10**6, (), ("ETH",))


def test_account__cross_margin_alone_is_all_margin() -> None:
    assert parse_account(state_answer("cross", "1000.0"), {"ETH": ETHER}).isolated_coins == ()


@pytest.mark.parametrize("all_value", OTHER_VALUES)
def test_account__cross_margin_alone_must_be_all_margin(all_value: str) -> None:
    with pytest.raises(Retryable, match="cross margin"):
        parse_account(state_answer("cross", all_value), {"ETH": ETHER})


def test_account__answer_without_withdrawable_is_read() -> None:
    """No figure of the account follows from it."""
    answer = state_answer("cross", "1000.0")
    del answer["withdrawable"]
    assert parse_account(answer, {"ETH": ETHER}).account_value_raw == 1_000 * 10**6


@pytest.mark.parametrize("context", [{}, None, {**CONTEXT, "markPx": "x"}], ids=["empty", "null", "price in words"])
def test_a_market_that_nobody_asked_for_may_have_any_form(context: object) -> None:
    strange = {**META, "universe": [META["universe"][0], {"name": "ODD", "szDecimals": "x", "marginTableId": 60}]}
    tables = {"marginTables": [*META["marginTables"], [60, "no table"], "no row"]}
    assert parse_ether([strange | tables, [CONTEXT, context]]).size_decimals == 4


@pytest.mark.parametrize(
    "answer",
    [None, [META], [META, []], [{**META, "marginTables": [[52, {"marginTiers": []}]]}, [CONTEXT]],
     [{**META, "marginTables": []}, [CONTEXT]], [META, [{**CONTEXT, "oraclePx": None}]],
     [{**META, "universe": [{"name": "ETH", "szDecimals": 9, "marginTableId": 52}]}, [CONTEXT]]],
)  # fmt: skip
def test_markets_in_another_form_are_read_again(answer: object) -> None:
    with raises_code(Retryable, "answer"):
        parse_ether(answer)


@pytest.mark.parametrize(
    ("entry", "context", "is_paused"),
    [
        pytest.param({}, {}, False, id="usual"),
        pytest.param({"isDelisted": True}, {}, True, id="delisted"),
        pytest.param({"onlyIsolated": True}, {}, True, id="isolated"),
        pytest.param({}, {"markPx": None}, True, id="no mark"),
    ],
)
def test_delisted_isolated_or_markless_market__is_paused(entry: dict[str, bool], context: dict[str, None], is_paused: bool) -> None:
    answer = [{**META, "universe": [META["universe"][0] | entry]}, [CONTEXT | context]]
    assert parse_ether(answer).is_paused is is_paused


def with_decimals(decimals: int) -> list[object]:
    return [{**META, "universe": [{**META["universe"][0], "szDecimals": decimals}]}, [CONTEXT]]


@pytest.mark.parametrize("decimals", [0, 6])
def test_sizes_of_a_market_have_up_to_six_decimals(decimals: int) -> None:
    assert parse_ether(with_decimals(decimals)).size_decimals == decimals


@pytest.mark.parametrize("decimals", [-1, 7])
def test_a_market_with_decimals_that_no_size_has_is_read_again(decimals: int) -> None:
    with raises_code(Retryable, "answer"):
        parse_ether(with_decimals(decimals))


def test_the_library_is_loaded_with_the_first_signature_only() -> None:
    code = "import agent.venues.hyperliquid.client, agent.wiring, sys; print([one for one in sys.modules if one.startswith('hyperliquid')])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"
    assert signing.__name__ == "hyperliquid.utils.signing"
    assert key_of(1).address
