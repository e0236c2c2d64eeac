"""Tests of agent/signing/futures.py for Hyperliquid: a granted action is signed, and every change of it refused by its rule."""

from __future__ import annotations

import copy
import json
import random
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from fractions import Fraction
from itertools import product
from typing import Any

import pytest

from agent.errors import Refused
from agent.model import IntentKind, UnsignedTx
from agent.model.futures import (
    UNREAD_ACCOUNT,
    FuturesGrant,
    MarginAccount,
    MarginDeposit,
    OrderCancel,
    PerpMarket,
    PerpOrder,
    PerpOrderKind,
    Position,
    RestingOrder,
    RestingStop,
    StopOrder,
)
from agent.ports import Grant
from agent.signing.futures import _price_text, batch_action, cloid_of, require_signable_order, require_signable_orders
from agent.signing.terms import FuturesRules
from agent.venues.hyperliquid.orders import OrderTicket, cancel_action, limit_price, order_action, price_text, stop_action
from tests.support.perpetuals.venue_orders import ACCOUNT, BUY, MARKET, NOW_S, PRICE
from tests.support.samples import slow
from tests.support.text import raises_code

Action = PerpOrder | StopOrder | OrderCancel
NOW_MS = NOW_S * 1000
USDC_COIN = 10**6
TRADER = "0x" + "11" * 20
NUMBERS = (("BTC", 0), ("ETH", 1))
RULES = FuturesRules("", "", "", "", TRADER, None, ("ETH",), 30_000, 100, 300, 60, max_validity_s=120, market_numbers=NUMBERS)
LONG_ACCOUNT = replace(ACCOUNT, positions=(Position("ETH", 20_000, -6_000 * USDC_COIN),))
SHORT_ACCOUNT = replace(ACCOUNT, positions=(Position("ETH", -20_000, 6_000 * USDC_COIN),))
SALE = PerpOrder("ETH", -10_000, PerpOrderKind.MARKET, 2_990 * USDC_COIN, True)
LIMIT = replace(BUY, kind=PerpOrderKind.LIMIT)
GTC_RULES = replace(RULES, order_kind=PerpOrderKind.LIMIT)
STOP = StopOrder("ETH", -20_000, 3_200 * USDC_COIN, 3_104 * USDC_COIN)
BUY_BACK = StopOrder("ETH", 20_000, 7_000 * USDC_COIN, 7_210 * USDC_COIN)
STOPPED = replace(LONG_ACCOUNT, resting_stops=(RestingStop("ETH", -20_000, Fraction(160_000), "0x" + b"stop".hex() + "11" * 12),))
CANCEL = OrderCancel("ETH", STOPPED.resting_stops[0].cloid)
RESTING = RestingOrder("ETH", 10_000, 15_000, Fraction(300_000), NOW_S - 60, "0x" + b"rest".hex() + "22" * 12)
LIMIT_CANCEL = OrderCancel("ETH", RESTING.cloid)


def hex_of(action: object) -> str:
    return "0x" + json.dumps(action, separators=(",", ":")).encode().hex()


def action_of(action: Action, nonce_ms: int = NOW_MS, number: int = 1) -> dict[str, Any]:
    """Return the action as the venue's own code writes it."""
    market = replace(MARKET, market=action.market)
    match action:
        case PerpOrder():
            return order_action(OrderTicket(action, cloid_of(nonce_ms, action), nonce_ms, NOW_MS + 60_000), market, number)
        case StopOrder():
            return stop_action(action, market, number, cloid_of(nonce_ms, action))
        case OrderCancel():
            return cancel_action(action.cloid, number)


def data_of(action: Action, nonce_ms: int = NOW_MS) -> str:
    return hex_of(action_of(action, nonce_ms))


def with_wire(action: Action, **order_fields: object) -> str:
    """Return the data of an action whose order has these fields on the wire."""
    document = action_of(action)
    document["orders"][0].update(order_fields)
    return hex_of(document)


def tx_of(data: str, **tx_fields: Any) -> UnsignedTx:
    return replace(UnsignedTx(1, NOW_MS, TRADER, 0, data, 0, None, None, None), **tx_fields)


def grant_of(action: Action = BUY, account: MarginAccount = ACCOUNT, *, is_emergency: bool = False, **grant_fields: Any) -> Grant:
    layer_grant = FuturesGrant(action, account, is_emergency)
    return replace(Grant(IntentKind.FUTURES, NOW_S, NOW_S + 60, 0, layer_grant=layer_grant), **grant_fields)


def refusing_rule(tx: UnsignedTx, grant: Grant, rules: FuturesRules = RULES) -> str | None:
    """Return the name of the rule that refuses; None if the action may be signed."""
    try:
        require_signable_order(tx, grant, rules, NOW_S)
    except Refused as refusal:
        return refusal.verdicts[0].guard.removeprefix("signer.")
    return None


def rule_for(action: Action, account: MarginAccount, rules: FuturesRules = RULES) -> str | None:
    """Return what refuses an action that is granted as it is sent."""
    return refusing_rule(tx_of(data_of(action)), grant_of(action, account), rules)


@pytest.mark.parametrize(
    ("action", "account", "rules"),
    [
        pytest.param(BUY, ACCOUNT, RULES, id="opening"),
        pytest.param(BUY, ACCOUNT, GTC_RULES, id="market order beside limit orders"),
        pytest.param(SALE, LONG_ACCOUNT, RULES, id="reduction"),
        pytest.param(SALE, LONG_ACCOUNT, replace(RULES, markets=()), id="reduction in a market outside the config"),
        pytest.param(LIMIT, ACCOUNT, GTC_RULES, id="limit order"),
        pytest.param(STOP, STOPPED, RULES, id="stop"),
        pytest.param(CANCEL, STOPPED, RULES, id="cancel of a stop"),
        pytest.param(LIMIT_CANCEL, UNREAD_ACCOUNT, RULES, id="cancel of a limit order without an account"),
    ],
)
def test_granted_action_is_signed_byte_for_byte(action: Action, account: MarginAccount, rules: FuturesRules) -> None:
    signed_action = require_signable_order(tx_of(data_of(action)), grant_of(action, account), rules, NOW_S)

    assert hex_of(signed_action) == data_of(action)


# --- Another action than granted.


@pytest.mark.parametrize(
    ("rule", "key", "value"),
    [
        pytest.param("side", "b", False, id="the other side"),
        pytest.param("side", "b", 1, id="side as a number"),
        pytest.param("size", "s", "1.0001", id="one step more"),
        pytest.param("size", "s", "1.0", id="another form of the size"),
        pytest.param("bound", "p", "3020", id="higher price"),
        pytest.param("bound", "p", "3010.1", id="one tick higher"),
        pytest.param("bound", "p", "3009", id="lower price"),
        pytest.param("bound", "p", "1", id="price of one"),
        pytest.param("reduce_only", "r", True, id="a reduction"),
        pytest.param("order", "t", {"limit": {"tif": "Gtc"}}, id="rests"),
        *(pytest.param("market", "a", number, id=f"market {number!r}") for number in (-1, 0, 2, 10_001, 110_000, True, 1.0, "1", None)),
        pytest.param("client_order_id", "c", "0x" + "ab" * 16, id="another id"),
        pytest.param("client_order_id", "c", cloid_of(NOW_MS + 2, BUY), id="the id of another nonce"),
    ],
)
def test_order_other_than_granted_is_refused(rule: str, key: str, value: object) -> None:
    assert refusing_rule(tx_of(with_wire(BUY, **{key: value})), grant_of()) == rule


def test_price_one_tick_below_the_bound_of_a_sale_is_refused() -> None:
    """It is within the slippage from the index."""
    assert refusing_rule(tx_of(with_wire(SALE, p="2989.9")), grant_of(SALE, LONG_ACCOUNT)) == "bound"


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda action: action.update(type="withdraw3"), id="a withdrawal"),
        pytest.param(lambda action: action["orders"].append(action["orders"][0]), id="the order twice"),
        pytest.param(lambda action: action.update(grouping="normalTpsl"), id="grouped"),
        pytest.param(lambda action: action.update(builder={"b": TRADER, "f": 100}), id="a builder's fee"),
        pytest.param(lambda action: action["orders"][0].update(x=1), id="one more field"),
        pytest.param(lambda action: action.update(orders=[dict(reversed(action["orders"][0].items()))]), id="another order of keys"),
    ],
)
def test_any_other_action_is_refused(change: Callable[[dict[str, Any]], object]) -> None:
    document = action_of(BUY)
    change(document)

    assert refusing_rule(tx_of(hex_of(document)), grant_of()) == "call"


@pytest.mark.parametrize(
    "data",
    [
        pytest.param("0x", id="nothing"),
        pytest.param("0xzz", id="no hex"),
        pytest.param("0x" + b"[]".hex(), id="a list"),
        pytest.param("0x" + b"{}".hex(), id="an empty object"),
        pytest.param("0x" + json.dumps(action_of(BUY)).encode().hex(), id="spaces"),
    ],
)
def test_data_of_another_encoding_is_refused(data: str) -> None:
    assert refusing_rule(tx_of(data), grant_of()) == "call"


@pytest.mark.parametrize(
    ("order", "tif"),
    [
        pytest.param(BUY, "Gtc", id="market order that rests"),
        pytest.param(BUY, "Alo", id="market order that only posts"),
        pytest.param(LIMIT, "Ioc", id="limit order that does not rest"),
        pytest.param(LIMIT, "Alo", id="limit order that only posts"),
    ],
)
def test_time_in_force_is_that_of_the_granted_order(order: PerpOrder, tif: str) -> None:
    assert refusing_rule(tx_of(with_wire(order, t={"limit": {"tif": tif}})), grant_of(order), GTC_RULES) == "order"


# --- Transaction, grant and rules.


@pytest.mark.parametrize(
    ("rule", "tx_fields", "grant"),
    [
        pytest.param("trader", {"to": "0x" + "22" * 20}, grant_of(), id="another account"),
        pytest.param("value", {"value_wei": 1}, grant_of(), id="one wei"),
        pytest.param("value", {"gas": 1}, grant_of(), id="gas"),
        pytest.param("deadline", {}, grant_of(deadline_s=NOW_S), id="expired now"),
        pytest.param("deadline", {}, grant_of(deadline_s=NOW_S + 121), id="valid for a second too long"),
        pytest.param("action", {}, grant_of(kind=IntentKind.SWAP), id="granted as a swap"),
        pytest.param("action", {}, grant_of(layer_grant=FuturesGrant(MarginDeposit(1), ACCOUNT)), id="a deposit granted"),
        pytest.param("action", {}, grant_of(layer_grant=None), id="no action granted"),
        pytest.param("index_age", {}, grant_of(now_s=NOW_S + 600), id="an old index"),
        pytest.param("leverage", {}, grant_of(BUY, replace(ACCOUNT, collateral_raw=500 * USDC_COIN)), id="too little collateral"),
        pytest.param("market", {}, grant_of(BUY, replace(ACCOUNT, markets=())), id="a market that was not read"),
        pytest.param("size", {}, grant_of(replace(BUY, size_raw=0)), id="no size"),
        pytest.param("size", {}, grant_of(replace(BUY, bound_raw=0)), id="no bound"),
        pytest.param("size", {}, grant_of(replace(BUY, bound_raw=-1)), id="a negative bound"),
        pytest.param("bound", {}, grant_of(replace(BUY, bound_raw=1)), id="a bound below a tick"),
        pytest.param("order", {}, grant_of(LIMIT), id="a limit order granted"),
    ],
)
def test_order_beside_its_grant_is_refused(rule: str, tx_fields: dict[str, Any], grant: Grant) -> None:
    assert refusing_rule(tx_of(data_of(BUY), **tx_fields), grant) == rule


@pytest.mark.parametrize("valid_s", [1, 120])
def test_order_at_the_edge_of_its_validity_is_signed(valid_s: int) -> None:
    assert refusing_rule(tx_of(data_of(BUY)), grant_of(deadline_s=NOW_S + valid_s)) is None


@pytest.mark.parametrize(
    ("offset_ms", "rule"),
    [
        pytest.param(60_000, None, id="a minute ahead"),
        pytest.param(-60_000, None, id="a minute ago"),
        pytest.param(60_001, "nonce", id="a millisecond further ahead"),
        pytest.param(-60_001, "nonce", id="a millisecond longer ago"),
    ],
)
def test_nonce_is_within_a_minute_of_this_machines_clock(offset_ms: int, rule: str | None) -> None:
    nonce_ms = NOW_MS + offset_ms

    assert refusing_rule(tx_of(data_of(BUY, nonce_ms), nonce=nonce_ms), grant_of()) == rule


@pytest.mark.parametrize(
    ("rule", "order", "account"),
    [
        pytest.param("market", BUY, ACCOUNT, id="an opening"),
        pytest.param("market", replace(SALE, is_reduce_only=False), LONG_ACCOUNT, id="a sale that may turn"),
        pytest.param("reduce_only", SALE, ACCOUNT, id="a reduction of nothing"),
    ],
)
def test_market_outside_the_config_is_only_reduced(rule: str, order: PerpOrder, account: MarginAccount) -> None:
    assert rule_for(order, account, replace(RULES, markets=())) == rule


def test_reduction_without_a_position_is_refused() -> None:
    assert rule_for(SALE, ACCOUNT) == "reduce_only"


def test_bound_beyond_the_slippage_is_refused_even_as_granted() -> None:
    assert rule_for(replace(BUY, bound_raw=3_030 * USDC_COIN), ACCOUNT) is None
    assert rule_for(replace(BUY, bound_raw=3_030 * USDC_COIN + 1), ACCOUNT) == "bound"


@pytest.mark.parametrize(
    "numbers",
    [(), (("BTC", 1),), (("ETH", 10_000),), (("ETH", True),), (("ETH", -1),), (("ETH", 0), ("BTC", 1))],
    ids=["none", "of another market", "of a spot pair", "a truth value", "negative", "renumbered by the server"],
)
def test_market_without_its_pinned_number_is_not_traded(numbers: tuple[tuple[str, int], ...]) -> None:
    assert refusing_rule(tx_of(data_of(BUY)), grant_of(), replace(RULES, market_numbers=numbers)) == "market"


@pytest.mark.parametrize("number", [0, 9_999], ids=["the first", "the last of a perpetual"])
def test_market_number_below_those_of_spot_pairs_is_signed(number: int) -> None:
    rules = replace(RULES, market_numbers=(("ETH", number),))

    assert require_signable_order(tx_of(hex_of(action_of(BUY, number=number))), grant_of(), rules, NOW_S)["orders"][0]["a"] == number


@pytest.mark.parametrize(("action", "account"), [(STOP, STOPPED), (SALE, LONG_ACCOUNT)], ids=["stop", "reduction"])
@pytest.mark.parametrize(
    ("market_fields", "rule"),
    [
        pytest.param({"mark": Fraction(0)}, "market", id="no mark"),
        pytest.param({"index": Fraction(0)}, "market", id="no index"),
        pytest.param({"index_s": NOW_S - 60}, None, id="index at its maximum age"),
        pytest.param({"index_s": NOW_S - 61}, "index_age", id="index a second older"),
        pytest.param({"index_s": NOW_S}, None, id="index of now"),
        pytest.param({"index_s": NOW_S + 1}, "index_age", id="index a second ahead"),
    ],
)
def test_action_needs_fresh_prices_of_its_market(
    market_fields: dict[str, Any], rule: str | None, action: Action, account: MarginAccount
) -> None:
    assert rule_for(action, replace(account, markets=(replace(MARKET, **market_fields),))) == rule


# --- Prices on the wire.


DOLLARS = ("123456.789", "98765.4321", "3001.2345", "12.345678", "1.00001", "0.0123456", "0.00098765")
BELOW_A_TICK = [("0.0123456", 5), ("0.00098765", 4), ("0.00098765", 5)]
"""Prices of a buy, with the decimals of its size, that the venue cannot express."""
WIRE_PRICES = [*product(DOLLARS, (0, 2, 4, 5), (1, -1))]


def wire_order(dollars: str, size_decimals: int, side: int) -> tuple[PerpOrder, PerpMarket]:
    order = PerpOrder("ETH", side * 10**size_decimals * 1_000, PerpOrderKind.MARKET, int(Fraction(dollars) * USDC_COIN * 1_000), False)
    return order, replace(MARKET, size_decimals=size_decimals)


@pytest.mark.parametrize(("dollars", "size_decimals", "side"), [row for row in WIRE_PRICES if row[2] < 0 or row[:2] not in BELOW_A_TICK])
def test_price_text_is_in_ticks_on_the_safe_side(dollars: str, size_decimals: int, side: int) -> None:
    """Worked out by the signer and by the code that writes orders, each by itself."""
    order, market = wire_order(dollars, size_decimals, side)

    written_price = price_text(limit_price(market, order))

    assert _price_text(order.size_raw, order.bound_raw, market, USDC_COIN) == written_price
    assert (Fraction(written_price) - Fraction(order.bound_raw, 10**9)) * side <= 0


@pytest.mark.parametrize(("dollars", "size_decimals"), BELOW_A_TICK)
def test_price_of_a_buy_below_a_tick_is_refused(dollars: str, size_decimals: int) -> None:
    order, market = wire_order(dollars, size_decimals, side=1)

    assert price_text(limit_price(market, order)) == "0"
    with raises_code(Refused, "signer.bound", "at least one tick"):
        _price_text(order.size_raw, order.bound_raw, market, USDC_COIN)


# --- Stops and cancels.


@pytest.mark.parametrize(
    ("rule", "stop"),
    [
        pytest.param("reduce_only", StopOrder("ETH", -10_000, 1_600 * USDC_COIN, 1_552 * USDC_COIN), id="half of the position"),
        pytest.param("reduce_only", replace(STOP, size_raw=20_000), id="a purchase"),
        pytest.param("trigger", StopOrder("ETH", -20_000, 6_100 * USDC_COIN, 6_000 * USDC_COIN), id="on the winning side"),
        pytest.param("bound", replace(STOP, bound_raw=3_000 * USDC_COIN), id="bound too low"),
    ],
)
def test_stop_that_protects_no_position_is_refused(rule: str, stop: StopOrder) -> None:
    assert rule_for(stop, STOPPED) == rule


def test_stop_in_a_market_that_was_not_read_is_refused() -> None:
    assert refusing_rule(tx_of(data_of(STOP)), grant_of(replace(STOP, market="BTC"), STOPPED)) == "market"


@pytest.mark.parametrize(
    ("stop", "account"),
    [
        pytest.param(STOP, STOPPED, id="long"),
        pytest.param(replace(STOP, trigger_raw=5_999 * USDC_COIN, bound_raw=5_819_030_000), STOPPED, id="long, near the mark"),
        pytest.param(BUY_BACK, SHORT_ACCOUNT, id="short"),
        pytest.param(replace(BUY_BACK, trigger_raw=6_001 * USDC_COIN, bound_raw=6_181_030_000), SHORT_ACCOUNT, id="short, near the mark"),
    ],
)
def test_stop_is_bounded_by_the_slippage_of_emergencies(stop: StopOrder, account: MarginAccount) -> None:
    """The bound is at its edge of 3 % from the trigger, whose price is on the losing side of mark and index."""
    side = 1 if stop.size_raw > 0 else -1
    trigger_price = Fraction(stop.trigger_raw, abs(stop.size_raw))

    assert stop.bound_raw * 100 == stop.trigger_raw * (100 + 3 * side)
    assert rule_for(stop, account) is None
    assert rule_for(replace(stop, bound_raw=stop.bound_raw + side), account) == "bound"
    assert rule_for(stop, replace(account, markets=(replace(MARKET, mark=trigger_price),))) == "trigger"
    assert rule_for(stop, replace(account, markets=(replace(MARKET, index=trigger_price),))) == "trigger"


@pytest.mark.parametrize(
    ("cloid", "account"),
    [
        pytest.param("0x" + "ab" * 16, STOPPED, id="an unknown id"),
        pytest.param("ETH", STOPPED, id="no id"),
        pytest.param("0x" + b"rest".hex(), UNREAD_ACCOUNT, id="the tag of a limit order alone"),
        pytest.param(RESTING.cloid + "22", UNREAD_ACCOUNT, id="a byte too long"),
        pytest.param(RESTING.cloid.upper(), UNREAD_ACCOUNT, id="upper case"),
        pytest.param("0x" + "22" * 16, UNREAD_ACCOUNT, id="no tag"),
        pytest.param(CANCEL.cloid, UNREAD_ACCOUNT, id="a stop that does not rest"),
    ],
)
def test_cancel_of_what_is_not_the_agents_is_refused(cloid: str, account: MarginAccount) -> None:
    assert rule_for(OrderCancel("ETH", cloid), account) == "client_order_id"


def test_cancel_in_a_renumbered_market_is_refused() -> None:
    assert rule_for(CANCEL, STOPPED, replace(RULES, market_numbers=(("ETH", 0),))) == "call"


def test_client_order_ids_differ_by_every_field() -> None:
    """The id of an action is 16 bytes of a hash of its nonce, market and terms; those of stops and limit orders have a tag."""
    orders = [BUY, replace(BUY, market="BTC"), replace(BUY, size_raw=1), replace(BUY, bound_raw=1), replace(BUY, is_reduce_only=True)]
    stops = [STOP, replace(STOP, market="BTC"), replace(STOP, size_raw=1), replace(STOP, trigger_raw=1), replace(STOP, bound_raw=1)]
    cancels = [CANCEL, replace(CANCEL, market="BTC"), replace(CANCEL, cloid="0x00")]

    def ids_of(*actions: Action) -> list[str]:
        return [cloid_of(nonce_ms, action) for action in actions for nonce_ms in (NOW_MS, NOW_MS + 2)]

    ids = [*ids_of(*orders), *ids_of(*stops), *ids_of(*cancels), *ids_of(LIMIT)]
    assert len(set(ids)) == len(ids)
    assert {len(bytes.fromhex(cloid[2:])) for cloid in ids} == {16}
    assert [cloid for cloid in ids if cloid.startswith("0x" + b"stop".hex())] == ids_of(*stops)
    assert [cloid for cloid in ids if cloid.startswith("0x" + b"rest".hex())] == ids_of(LIMIT)


# --- Orders that rest.


@pytest.mark.parametrize(("kind", "tif"), [(PerpOrderKind.LIMIT, "Gtc"), (PerpOrderKind.POST_ONLY, "Alo")])
def test_opening_of_the_configured_kind_rests(kind: PerpOrderKind, tif: str) -> None:
    order = replace(BUY, kind=kind)
    action = require_signable_order(tx_of(data_of(order)), grant_of(order), replace(RULES, order_kind=kind), NOW_S)

    assert action["orders"][0]["t"] == {"limit": {"tif": tif}}
    assert action["orders"][0]["c"].startswith("0x" + b"rest".hex())


@pytest.mark.parametrize(
    ("order", "grant", "rules"),
    [
        pytest.param(LIMIT, grant_of(LIMIT), RULES, id="market orders configured"),
        pytest.param(LIMIT, grant_of(LIMIT), replace(RULES, order_kind=PerpOrderKind.POST_ONLY), id="post-only configured"),
        pytest.param(
            replace(SALE, kind=PerpOrderKind.LIMIT), grant_of(replace(SALE, kind=PerpOrderKind.LIMIT), LONG_ACCOUNT), GTC_RULES,
            id="a reduction",
        ),
        pytest.param(LIMIT, grant_of(LIMIT, is_emergency=True), GTC_RULES, id="in an emergency"),
        pytest.param(LIMIT, grant_of(LIMIT, replace(ACCOUNT, resting_orders=(RESTING,))), GTC_RULES, id="beside another"),
    ],
)  # fmt: skip
def test_no_other_order_rests(order: PerpOrder, grant: Grant, rules: FuturesRules) -> None:
    assert refusing_rule(tx_of(data_of(order)), grant, rules) == "order"


BTC_MARKET = replace(MARKET, market="BTC", symbol="BTC")
BTC_RESTING = replace(RESTING, market="BTC")


def account_beside(resting_order: RestingOrder, **account_fields: Any) -> MarginAccount:
    """Return the account with a market of BTC in which an order rests."""
    return replace(ACCOUNT, markets=(MARKET, BTC_MARKET), resting_orders=(resting_order,), **account_fields)


@pytest.mark.parametrize(
    ("account", "max_leverage_bps", "rule"),
    [
        pytest.param(ACCOUNT, 5_000, None, id="none rests"),
        pytest.param(account_beside(BTC_RESTING), 5_000, "leverage", id="one rests"),
        pytest.param(account_beside(BTC_RESTING), 6_100, None, id="one rests within the limit"),
        pytest.param(account_beside(replace(BTC_RESTING, price=2 * PRICE)), 8_500, "leverage", id="a dear one"),
        pytest.param(account_beside(replace(BTC_RESTING, price=2 * PRICE)), 8_600, None, id="a dear one within the limit"),
    ],
)
def test_resting_orders_count_in_leverage_as_if_filled(account: MarginAccount, max_leverage_bps: int, rule: str | None) -> None:
    assert rule_for(BUY, account, replace(RULES, max_leverage_bps=max_leverage_bps)) == rule


@pytest.mark.parametrize(
    ("position_raw", "resting_raw", "max_leverage_bps", "rule"),
    [
        pytest.param(10_000, 0, 6_100, None, id="no order rests"),
        pytest.param(10_000, -10_000, 6_000, "leverage", id="it would close the position"),
        pytest.param(10_000, -10_000, 6_100, None, id="it would close the position, within the limit"),
        pytest.param(10_000, -25_000, 7_500, "leverage", id="it would turn it to more"),
        pytest.param(-10_000, 10_000, 6_000, "leverage", id="it would close a short"),
        pytest.param(10_000, 10_000, 9_000, "leverage", id="it would add to it"),
    ],
)
def test_leverage_is_that_of_the_worse_fill_of_resting_orders(
    position_raw: int, resting_raw: int, max_leverage_bps: int, rule: str | None
) -> None:
    """A purchase of 3,000 USDC on 10,000 beside 3,000 of BTC, which count until their order is filled."""
    position = Position("BTC", position_raw, int(-position_raw * PRICE))
    resting_orders = (replace(BTC_RESTING, size_raw=resting_raw),) if resting_raw else ()
    account = replace(ACCOUNT, markets=(MARKET, BTC_MARKET), positions=(position,), resting_orders=resting_orders)

    assert rule_for(BUY, account, replace(RULES, max_leverage_bps=max_leverage_bps)) == rule


@pytest.mark.parametrize("side", [1, -1], ids=["buy", "sale"])
def test_resting_order_costs_its_worse_price_and_fee(side: int) -> None:
    """Filled at its price of 1 % beyond the mark, a rest of 3,000 USDC takes 30 USDC and a fee of 0.045 %."""
    price = PRICE * (100 + side) / 100
    resting_order = RestingOrder("BTC", side * 10_000, 15_000, price, NOW_S - 60, RESTING.cloid)
    order = replace(BUY, bound_raw=3_000 * USDC_COIN)
    notional_raw = 3_000 * USDC_COIN
    resting_fee_raw = (max(price, PRICE) * 10_000 * 450 / 10**6).__ceil__()
    value_after_raw = 2 * notional_raw  # at a leverage of 1
    collateral_raw = value_after_raw + notional_raw * 450 // 10**6 + 30 * USDC_COIN + resting_fee_raw
    rules = replace(RULES, max_leverage_bps=10_000)

    assert rule_for(order, account_beside(resting_order, collateral_raw=collateral_raw), rules) is None
    assert rule_for(order, account_beside(resting_order, collateral_raw=collateral_raw - 1), rules) == "leverage"


# --- Several reductions in one action.


TWO_NUMBERS = replace(RULES, markets=("ETH", "BTC"))
BTC_SALE = replace(SALE, market="BTC")
TWO_LONGS = replace(
    LONG_ACCOUNT, markets=(MARKET, BTC_MARKET), positions=(*LONG_ACCOUNT.positions, Position("BTC", 20_000, -6_000 * USDC_COIN))
)


def orders_of(*actions: Action, deadlines_s: tuple[int, ...] = ()) -> list[tuple[UnsignedTx, Grant]]:
    """Return the actions with their grants, in markets of ETH (1) or BTC (0)."""
    numbers = dict(NUMBERS)
    deadlines = deadlines_s or (NOW_S + 60,) * len(actions)
    return [
        (tx_of(hex_of(action_of(action, number=numbers[action.market]))), grant_of(action, TWO_LONGS, deadline_s=deadline_s))
        for action, deadline_s in zip(actions, deadlines, strict=True)
    ]


def test_reductions_of_two_markets_are_one_action() -> None:
    action = require_signable_orders(orders_of(SALE, BTC_SALE), TWO_NUMBERS, NOW_S)

    assert [order["a"] for order in action["orders"]] == [1, 0]
    assert action == {"type": "order", "orders": action["orders"], "grouping": "na"}


@pytest.mark.parametrize(
    ("rule", "orders"),
    [
        pytest.param("deadline", orders_of(SALE, BTC_SALE, deadlines_s=(NOW_S + 60, NOW_S + 61)), id="two expiries"),
        pytest.param("call", orders_of(SALE, SALE), id="one market twice"),
        pytest.param("reduce_only", orders_of(BUY, BTC_SALE), id="an opening"),
    ],
)
def test_several_orders_are_reductions_of_one_market_each(rule: str, orders: list[tuple[UnsignedTx, Grant]]) -> None:
    with pytest.raises(Refused) as refusal:
        require_signable_orders(orders, TWO_NUMBERS, NOW_S)

    assert refusal.value.verdicts[0].guard == f"signer.{rule}"


@pytest.mark.parametrize(("rule", "action"), [("reduce_only", STOP), ("call", CANCEL)], ids=["stop", "cancel"])
def test_action_of_several_orders_takes_no_stop_and_no_cancel(rule: str, action: Action) -> None:
    with pytest.raises(Refused) as refusal:
        batch_action([action_of(action)])

    assert refusal.value.verdicts[0].guard == f"signer.{rule}"


# --- Random changes of each action that may be signed.


VALUES: list[object] = [
    None, True, False, 0, 1, 2, 3, -1, 1.0, 9_999, 10_000, 10_001, 110_000, 2**31, "0", "1", "", "1.0", "0.1", "10", "3010", "3011",
    "2990", "2989", "2991", "1e3", " 1", "0x" + "ab" * 16, "order", "cancel", "na", "normalTpsl", "Ioc", "Gtc", "Alo", [], {},
    {"limit": {"tif": "Gtc"}}, {"limit": {"tif": "Alo"}}, {"trigger": {"isMarket": True, "triggerPx": "1", "tpsl": "sl"}},
]  # fmt: skip
Place = tuple[dict[Any, Any] | list[Any], Any]


def places_in(value: Any) -> Iterator[Place]:
    """Every place of a value inside lists and tables."""
    for key, inner in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield value, key
        yield from places_in(inner)


def similar_value(dice: random.Random, value: object) -> object:
    """A value that looks like another one."""
    if isinstance(value, bool):
        return dice.choice([not value, int(value), str(value)])
    if isinstance(value, int):
        return value + dice.choice([-1, 1, 10_000, 110_000])
    if isinstance(value, str) and value:
        price = dice.randrange(len(value))
        other = dice.choice("0123456789abcdef.- xX+e")
        return dice.choice(
            [value[:price] + other + value[price + 1 :], value[:price] + value[price + 1 :], value + other, other + value, value.upper()]
        )
    return copy.deepcopy(dice.choice(VALUES))


def mutated_action(dice: random.Random, data: str) -> str:
    """Data with one to three changes of the action, or of its text."""
    action = json.loads(bytes.fromhex(data[2:]))
    for _ in range(dice.choice([1, 1, 1, 2, 3])):
        if not (known_places := list(places_in(action))):
            break
        place, key = dice.choice(known_places)
        match dice.randrange(7):
            case 0 | 1:
                place[key] = similar_value(dice, place[key])
            case 2:
                place[key] = copy.deepcopy(dice.choice(VALUES))
            case 3:
                del place[key]
            case 4:
                other, theirs = dice.choice(known_places)
                place[key] = copy.deepcopy(other[theirs])
            case 5 if isinstance(place, dict):
                items = list(place.items())
                dice.shuffle(items)
                place.clear()
                place.update(items)
            case 5:
                place.append(copy.deepcopy(place[key]))
            case _:
                new = {"vaultAddress": TRADER, "builder": {"b": TRADER, "f": 100}, "f": None}
                key, value = dice.choice(list(new.items()))
                place.update({key: value}) if isinstance(place, dict) else place.append(value)
    action_bytes = json.dumps(action, separators=dice.choice([(",", ":"), (",", ":"), (",", ":"), (", ", ": ")])).encode()
    if dice.random() < 0.2:
        price = dice.randrange(len(action_bytes))
        action_bytes = (
            action_bytes[:price]
            + dice.choice([b"", b" ", b"0", b"1", b'"', b"\\u0031", action_bytes[price : price + 9] * 2])
            + action_bytes[price + 1 :]
        )
    return "0x" + action_bytes.hex()


GRANTS: dict[str, tuple[Action, MarginAccount]] = {
    "opening": (BUY, ACCOUNT),
    "reduction": (SALE, LONG_ACCOUNT),
    "stop": (STOP, STOPPED),
    "cancel": (CANCEL, STOPPED),
    "limit": (LIMIT, ACCOUNT),
    "limit cancel": (LIMIT_CANCEL, UNREAD_ACCOUNT),
}


@pytest.mark.parametrize("tries", [4_000, *slow([200_000])])
@pytest.mark.parametrize("name", GRANTS)
def test_thousands_of_changes_of_an_action_are_signed_never(name: str, tries: int) -> None:
    dice = random.Random(tries)
    action, account = GRANTS[name]
    granted_data = data_of(action)
    refusals = Counter[str]()
    unchanged_count = 0
    for _ in range(tries):
        data = mutated_action(dice, granted_data)
        nonce_ms = NOW_MS + (dice.choice([-2, 1, 2, 60_000, 10**9]) if dice.random() < 0.1 else 0)
        if data == granted_data and (nonce_ms == NOW_MS or isinstance(action, OrderCancel)):
            unchanged_count += 1
            continue
        rule = refusing_rule(tx_of(data, nonce=nonce_ms), grant_of(action, account), GTC_RULES)
        assert rule is not None, (data, nonce_ms)
        refusals[rule] += 1

    assert unchanged_count < tries // 5
    rules_of_fields = {"market", "side", "bound", "size", "reduce_only", "order", "client_order_id"}
    assert {"call", "nonce"} | (set() if isinstance(action, OrderCancel) else rules_of_fields) <= refusals.keys()
