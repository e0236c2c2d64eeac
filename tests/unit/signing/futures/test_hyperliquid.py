"""The signer's rule for orders of Hyperliquid: a granted order is signed, and every change of it is refused by name."""

from __future__ import annotations

import copy
import json
import random
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from fractions import Fraction
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
    PerpOrder,
    PerpOrderKind,
    Position,
    RestingOrder,
    RestingStop,
    StopOrder,
)
from agent.ports import Grant
from agent.signing.futures import _price_text, cloid_of, require_signable_order
from agent.signing.terms import FuturesRules
from agent.venues.hyperliquid.orders import OrderTicket, cancel_action, limit_price, order_action, price_text, stop_action
from tests.support.perpetuals.venue_orders import ACCOUNT, BUY, MARKET, NOW_S, PRICE
from tests.support.samples import slow

TRADER = "0x" + "11" * 20
NUMBERS = (("BTC", 0), ("ETH", 1))
RULES = FuturesRules("", "", "", "", TRADER, None, ("ETH",), 30_000, 100, 300, 60, max_validity_s=120, market_numbers=NUMBERS)
LONG_ACCOUNT = replace(ACCOUNT, positions=(Position("ETH", 20_000, -6_000 * 10**6),))
SALE = PerpOrder("ETH", -10_000, PerpOrderKind.MARKET, 2_990 * 10**6, True)


def payload(order: PerpOrder, change: Callable[[dict[str, Any]], object] = lambda _: None) -> str:
    ticket = OrderTicket(order, cloid_of(str(NOW_S * 1000), 0, order), NOW_S * 1000, (NOW_S + 60) * 1000)
    action = order_action(ticket, MARKET, 1)
    change(action)
    return hex_of(action)


def hex_of(action: object) -> str:
    return "0x" + json.dumps(action, separators=(",", ":")).encode().hex()


def tx_of(data: str, **market_fields: Any) -> UnsignedTx:
    return replace(UnsignedTx(1, NOW_S * 1000, TRADER, 0, data, 0, None, None, None), **market_fields)


def grant_of(order: PerpOrder = BUY, account: MarginAccount = ACCOUNT, **market_fields: Any) -> Grant:
    return replace(Grant(IntentKind.FUTURES, NOW_S, NOW_S + 60, 0, layer_grant=FuturesGrant(order, account)), **market_fields)


def refusing_rule(tx: UnsignedTx, grant: Grant, rules: FuturesRules = RULES) -> str:
    with pytest.raises(Refused) as refusal:
        require_signable_order(tx, grant, rules, NOW_S)
    return refusal.value.verdicts[0].guard.removeprefix("signer.")


@pytest.mark.parametrize(("order", "account"), [(BUY, ACCOUNT), (SALE, LONG_ACCOUNT)])
def test_granted_order_is_signed(order: PerpOrder, account: MarginAccount) -> None:
    action = require_signable_order(tx_of(payload(order)), grant_of(order, account), RULES, NOW_S)
    assert hex_of(action) == payload(order)


WIRES: list[tuple[str, str, object]] = [
    ("side", "b", False),
    ("side", "b", 1),
    ("size", "s", "1.0001"),
    ("size", "s", "1.0"),
    ("bound", "p", "3020"),
    ("bound", "p", "1"),
    ("bound", "p", "3009"),
    ("reduce_only", "r", True),
    ("order", "t", {"limit": {"tif": "Gtc"}}),
    *(("market", "a", number) for number in (-1, 0, 2, 10_001, 110_000, True, 1.0, "1", None)),
    ("client_order_id", "c", "0x" + "ab" * 16),
    ("client_order_id", "c", cloid_of(str(NOW_S * 1000 + 2), 0, BUY)),
]


@pytest.mark.parametrize(("rule", "key", "value"), WIRES)
def test_action_other_than_granted_is_refused(rule: str, key: str, value: object) -> None:
    assert refusing_rule(tx_of(payload(BUY, lambda action: action["orders"][0].update({key: value}))), grant_of()) == rule


@pytest.mark.parametrize(("order", "account", "price"), [(BUY, ACCOUNT, "3010.1"), (SALE, LONG_ACCOUNT, "2989.9")])
def test_price_beyond_the_granted_bound_is_refused_either_way(order: PerpOrder, account: MarginAccount, price: str) -> None:
    """Both prices are within the slippage from the index, and one tick beyond the bound."""
    worse_order = payload(order, lambda action: action["orders"][0].update(p=price))
    assert refusing_rule(tx_of(worse_order), grant_of(order, account)) == "bound"


ACTIONS: list[Callable[[dict[str, Any]], object]] = [
    lambda action: action.update(type="withdraw3"),
    lambda action: action["orders"].append(action["orders"][0]),
    lambda action: action.update(grouping="normalTpsl"),
    lambda action: action.update(builder={"b": TRADER, "f": 100}),
    lambda action: action["orders"][0].update(x=1),
]


@pytest.mark.parametrize("change", ACTIONS)
def test_any_other_action_is_refused(change: Callable[[dict[str, Any]], object]) -> None:
    assert refusing_rule(tx_of(payload(BUY, change)), grant_of()) == "call"


@pytest.mark.parametrize("data", ["0x", "0xzz", "0x" + b"[]".hex(), "0x" + b"{}".hex()])
def test_data_that_is_no_action_is_refused(data: str) -> None:
    assert refusing_rule(tx_of(data), grant_of()) == "call"


@pytest.mark.parametrize(
    ("tx", "grant", "rule"),
    [
        (tx_of(payload(BUY), to="0x" + "22" * 20), grant_of(), "trader"),
        (tx_of(payload(BUY), value_wei=1), grant_of(), "value"),
        (tx_of(payload(BUY), nonce=(NOW_S + 3_600) * 1000), grant_of(), "nonce"),
        (tx_of(payload(BUY)), grant_of(deadline_s=NOW_S), "deadline"),
        (tx_of(payload(BUY)), grant_of(deadline_s=NOW_S + 121), "deadline"),
        (tx_of(payload(BUY)), grant_of(kind=IntentKind.SWAP), "action"),
        (tx_of(payload(BUY)), grant_of(layer_grant=FuturesGrant(MarginDeposit(1), ACCOUNT)), "action"),
        (tx_of(payload(BUY)), grant_of(now_s=NOW_S + 600), "index_age"),
        (tx_of(payload(SALE)), grant_of(SALE, ACCOUNT), "reduce_only"),
        (tx_of(payload(BUY)), grant_of(BUY, replace(ACCOUNT, collateral_raw=500 * 10**6)), "leverage"),
        (tx_of(payload(replace(BUY, bound_raw=3_100 * 10**6))), grant_of(replace(BUY, bound_raw=3_100 * 10**6)), "bound"),
    ],
)
def test_each_term_of_the_grant_is_kept(tx: UnsignedTx, grant: Grant, rule: str) -> None:
    assert refusing_rule(tx, grant) == rule


def test_market_that_the_config_does_not_name_is_only_reduced() -> None:
    rules = replace(RULES, markets=())
    assert require_signable_order(tx_of(payload(SALE)), grant_of(SALE, LONG_ACCOUNT), rules, NOW_S)
    for order, account in ((BUY, ACCOUNT), (replace(SALE, is_reduce_only=False), LONG_ACCOUNT), (SALE, ACCOUNT)):
        with pytest.raises(Refused) as refusal:
            require_signable_order(tx_of(payload(order)), grant_of(order, account), rules, NOW_S)
        assert refusal.value.verdicts[0].guard in ("signer.market", "signer.reduce_only")


@pytest.mark.parametrize("numbers", [(), (("BTC", 1),), (("ETH", 10_001),), (("ETH", True),), (("ETH", -1),)])
def test_market_without_a_pinned_number_is_not_traded(numbers: tuple[tuple[str, int], ...]) -> None:
    assert refusing_rule(tx_of(payload(BUY)), grant_of(), replace(RULES, market_numbers=numbers)) == "market"


def test_order_at_a_renumbered_market_is_refused() -> None:
    renumbered_rules = replace(RULES, market_numbers=(("ETH", 0), ("BTC", 1)))
    assert refusing_rule(tx_of(payload(BUY)), grant_of(), renumbered_rules) == "market"


@pytest.mark.parametrize("size_decimals", [0, 2, 4, 5])
@pytest.mark.parametrize("dollars", ["123456.789", "98765.4321", "3001.2345", "12.345678", "1.00001", "0.0123456", "0.00098765"])
def test_price_text_is_in_ticks_on_the_safe_side(dollars: str, size_decimals: int) -> None:
    """Worked out by the signer and by the code that writes orders, each by itself."""
    size = 10**size_decimals * 1_000
    market = replace(MARKET, size_decimals=size_decimals)
    for side in (1, -1):
        order = PerpOrder("ETH", side * size, PerpOrderKind.MARKET, int(Fraction(dollars) * 10**6 * 1_000), False)
        try:
            written_price = price_text(limit_price(market, order))
        except ValueError:
            written_price = "0"
        if written_price == "0":
            with pytest.raises(Refused):
                _price_text(order.size_raw, order.bound_raw, market, 10**6)
            continue
        assert _price_text(order.size_raw, order.bound_raw, market, 10**6) == written_price
        assert (Fraction(written_price) - Fraction(order.bound_raw, 10**9)) * side <= 0


@pytest.mark.parametrize(("offset_ms", "is_signed"), [(60_000, True), (-60_000, True), (60_001, False), (-60_001, False)])
def test_nonce_is_within_a_minute_of_this_machines_clock(offset_ms: int, is_signed: bool) -> None:
    nonce_ms = NOW_S * 1000 + offset_ms
    ticket = OrderTicket(BUY, cloid_of(str(nonce_ms), 0, BUY), nonce_ms, (NOW_S + 60) * 1000)
    signable = tx_of(hex_of(order_action(ticket, MARKET, 1)), nonce=nonce_ms)
    if is_signed:
        assert require_signable_order(signable, grant_of(), RULES, NOW_S)
    else:
        assert refusing_rule(signable, grant_of()) == "nonce"


def test_another_order_of_the_keys_is_refused() -> None:
    action = json.loads(bytes.fromhex(payload(BUY)[2:]))
    action["orders"] = [dict(reversed(action["orders"][0].items()))]
    assert refusing_rule(tx_of(hex_of(action)), grant_of()) == "call"
    assert refusing_rule(tx_of("0x" + json.dumps(json.loads(bytes.fromhex(payload(BUY)[2:]))).encode().hex()), grant_of()) == "call"


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


STOP = StopOrder("ETH", -20_000, 3_200 * 10**6, 3_104 * 10**6)
STOPPED = replace(LONG_ACCOUNT, resting_stops=(RestingStop("ETH", -20_000, Fraction(160_000), "0x" + b"stop".hex() + "11" * 12),))
CANCEL = OrderCancel("ETH", STOPPED.resting_stops[0].cloid)


def stop_data(stop: StopOrder = STOP, number: int = 1) -> str:
    return hex_of(stop_action(stop, MARKET, number, cloid_of(str(NOW_S * 1000), 0, stop)))


def stop_grant(stop: StopOrder | OrderCancel = STOP, account: MarginAccount = STOPPED) -> Grant:
    return grant_of(layer_grant=FuturesGrant(stop, account))


def test_granted_stop_and_a_granted_cancel_are_signed() -> None:
    assert hex_of(require_signable_order(tx_of(stop_data()), stop_grant(), RULES, NOW_S)) == stop_data()
    cancel = hex_of(cancel_action(CANCEL.cloid, 1))
    assert hex_of(require_signable_order(tx_of(cancel), stop_grant(CANCEL), RULES, NOW_S)) == cancel


@pytest.mark.parametrize(
    ("stop", "rule"),
    [
        (replace(STOP, size_raw=-10_000, trigger_raw=1_600 * 10**6, bound_raw=1_552 * 10**6), "reduce_only"),
        (replace(STOP, size_raw=20_000), "reduce_only"),
        (replace(STOP, trigger_raw=6_100 * 10**6, bound_raw=6_000 * 10**6), "trigger"),
        (replace(STOP, bound_raw=3_000 * 10**6), "bound"),
        (replace(STOP, market="BTC"), "market"),
    ],
)
def test_stop_that_protects_no_position_is_refused(stop: StopOrder, rule: str) -> None:
    assert refusing_rule(tx_of(stop_data(stop) if stop.market == "ETH" else stop_data()), stop_grant(stop)) == rule


SHORTED = replace(ACCOUNT, positions=(Position("ETH", -20_000, 6_000 * 10**6),))
BUY_BACK = StopOrder("ETH", 20_000, 7_000 * 10**6, 7_210 * 10**6)


@pytest.mark.parametrize(
    ("stop", "account"),
    [
        (STOP, STOPPED),
        (replace(STOP, trigger_raw=6_000 * 10**6 - 10**6, bound_raw=5_819_030_000), STOPPED),
        (BUY_BACK, SHORTED),
        (replace(BUY_BACK, trigger_raw=6_001 * 10**6, bound_raw=6_181_030_000), SHORTED),
    ],
)
def test_stop_is_bounded_by_the_slippage_of_emergencies(stop: StopOrder, account: MarginAccount) -> None:
    """The bound is at its edge of 3 % from the trigger, whose price is on the losing side of mark and index by 1 USD of notional."""
    side = 1 if stop.size_raw > 0 else -1
    assert stop.bound_raw * 100 == stop.trigger_raw * (100 + 3 * side)
    assert require_signable_order(tx_of(stop_data(stop)), stop_grant(stop, account), RULES, NOW_S)
    beyond = replace(stop, bound_raw=stop.bound_raw + side)
    assert refusing_rule(tx_of(stop_data(beyond)), stop_grant(beyond, account)) == "bound"
    for field in ("mark", "index"):
        price = Fraction(stop.trigger_raw, abs(stop.size_raw))
        market = replace(MARKET, **{field: price})
        assert refusing_rule(tx_of(stop_data(stop)), stop_grant(stop, replace(account, markets=(market,)))) == "trigger"


@pytest.mark.parametrize(
    ("market_fields", "rule"),
    [
        ({"mark": Fraction(0)}, "market"),
        ({"index": Fraction(0)}, "market"),
        ({"index_s": NOW_S - 60}, None),
        ({"index_s": NOW_S - 61}, "index_age"),
        ({"index_s": NOW_S}, None),
        ({"index_s": NOW_S + 1}, "index_age"),
    ],
)
def test_stop_or_an_order_needs_fresh_prices_of_its_market(market_fields: dict[str, Any], rule: str | None) -> None:
    market = replace(MARKET, **market_fields)
    for data, action, account in ((stop_data(), STOP, STOPPED), (payload(SALE), SALE, LONG_ACCOUNT)):
        grant = grant_of(layer_grant=FuturesGrant(action, replace(account, markets=(market,))))
        if rule is None:
            assert require_signable_order(tx_of(data), grant, RULES, NOW_S)
        else:
            assert refusing_rule(tx_of(data), grant) == rule


def test_order_that_the_venue_has_no_form_for_is_refused() -> None:
    limit_order = replace(BUY, kind=PerpOrderKind.LIMIT)
    assert refusing_rule(tx_of(payload(BUY)), grant_of(limit_order)) == "order"
    for empty_order in (replace(BUY, size_raw=0), replace(BUY, bound_raw=0), replace(BUY, bound_raw=-1)):
        assert refusing_rule(tx_of(payload(BUY)), grant_of(empty_order)) == "size"
    tiny = replace(BUY, bound_raw=1)
    assert refusing_rule(tx_of(payload(BUY)), grant_of(tiny)) == "bound"
    assert refusing_rule(tx_of(payload(BUY)), grant_of(BUY, replace(ACCOUNT, markets=()))) == "market"
    assert refusing_rule(tx_of(payload(BUY)), grant_of(layer_grant=None)) == "action"


def test_client_order_ids_differ_by_every_field() -> None:
    """The id of an action is 16 bytes of a hash of its step, place, market and terms."""
    actions = [BUY, replace(BUY, market="BTC"), replace(BUY, size_raw=1), replace(BUY, bound_raw=1), replace(BUY, is_reduce_only=True)]
    actions += [replace(BUY, kind=PerpOrderKind.LIMIT)]
    stops = [STOP, replace(STOP, market="BTC"), replace(STOP, size_raw=1), replace(STOP, trigger_raw=1), replace(STOP, bound_raw=1)]
    cancels = [CANCEL, replace(CANCEL, market="BTC"), replace(CANCEL, cloid="0x00")]
    ids = [cloid_of("step", index, action) for action in (*actions, *stops, *cancels) for index in (0, 1)]
    assert len({*ids, cloid_of("other", 0, BUY)}) == len(ids) + 1
    assert {len(bytes.fromhex(cloid[2:])) for cloid in ids} == {16}
    assert [cloid[2:10] == b"stop".hex() for cloid in ids] == [
        2 * len(actions) <= price < 2 * (len(actions) + len(stops)) for price in range(len(ids))
    ]


def test_only_a_stop_of_the_agent_that_rests_is_cancelled() -> None:
    for cloid in ("0x" + "ab" * 16, BUY.market):
        other = OrderCancel("ETH", cloid)
        assert refusing_rule(tx_of(hex_of(cancel_action(cloid, 1))), stop_grant(other)) == "client_order_id"
    renumbered_rules = replace(RULES, market_numbers=(("ETH", 0),))
    assert refusing_rule(tx_of(hex_of(cancel_action(CANCEL.cloid, 1))), stop_grant(CANCEL), renumbered_rules) == "call"


LIMIT = replace(BUY, kind=PerpOrderKind.LIMIT)
GTC = replace(RULES, order_kind=PerpOrderKind.LIMIT)
RESTING = RestingOrder("ETH", 10_000, 15_000, Fraction(300_000), NOW_S - 60, "0x" + b"rest".hex() + "22" * 12)


@pytest.mark.parametrize("kind", [PerpOrderKind.LIMIT, PerpOrderKind.POST_ONLY])
def test_opening_of_the_configured_kind_is_signed(kind: PerpOrderKind) -> None:
    order, rules = replace(BUY, kind=kind), replace(RULES, order_kind=kind)
    action = require_signable_order(tx_of(payload(order)), grant_of(order), rules, NOW_S)
    assert action["orders"][0]["t"] == {"limit": {"tif": {"limit": "Gtc", "post_only": "Alo"}[kind.value]}}
    assert action["orders"][0]["c"].startswith("0x" + b"rest".hex())
    require_signable_order(tx_of(payload(BUY)), grant_of(BUY), rules, NOW_S)


@pytest.mark.parametrize(
    ("order", "account", "rules", "is_emergency"),
    [
        (LIMIT, ACCOUNT, RULES, False),
        (LIMIT, ACCOUNT, replace(RULES, order_kind=PerpOrderKind.POST_ONLY), False),
        (replace(SALE, kind=PerpOrderKind.LIMIT), LONG_ACCOUNT, GTC, False),
        (LIMIT, ACCOUNT, GTC, True),
        (LIMIT, replace(ACCOUNT, resting_orders=(RESTING,)), GTC, False),
    ],
)
def test_no_other_order_rests(order: PerpOrder, account: MarginAccount, rules: FuturesRules, is_emergency: bool) -> None:
    grant = grant_of(layer_grant=FuturesGrant(order, account, is_emergency))
    assert refusing_rule(tx_of(payload(order)), grant, rules) == "order"


def test_time_in_force_is_that_of_the_granted_order() -> None:
    for order, tif in ((BUY, "Gtc"), (BUY, "Alo"), (LIMIT, "Ioc"), (LIMIT, "Alo")):

        def changed(action: dict[str, Any], tif: str = tif) -> None:
            action["orders"][0]["t"]["limit"]["tif"] = tif

        assert refusing_rule(tx_of(payload(order, changed)), grant_of(order), GTC) == "order"


def test_resting_orders_count_in_leverage_as_if_filled() -> None:
    tight_rules = replace(RULES, max_leverage_bps=5_000)
    other = replace(MARKET, market="BTC", symbol="BTC")
    account_with_rest = replace(ACCOUNT, markets=(MARKET, other), resting_orders=(replace(RESTING, market="BTC"),))
    require_signable_order(tx_of(payload(BUY)), grant_of(BUY), tight_rules, NOW_S)
    assert refusing_rule(tx_of(payload(BUY)), grant_of(BUY, account_with_rest), tight_rules) == "leverage"
    dear_account = replace(account_with_rest, resting_orders=(replace(RESTING, market="BTC", price=2 * PRICE),))
    for account, most_bps in ((account_with_rest, 6_100), (dear_account, 8_600)):
        require_signable_order(tx_of(payload(BUY)), grant_of(BUY, account), replace(RULES, max_leverage_bps=most_bps), NOW_S)
    assert refusing_rule(tx_of(payload(BUY)), grant_of(BUY, dear_account), replace(RULES, max_leverage_bps=8_500)) == "leverage"


def test_limit_order_is_cancelled_without_an_account() -> None:
    cancel = OrderCancel("ETH", RESTING.cloid)
    data = hex_of(cancel_action(cancel.cloid, 1))
    grant = grant_of(layer_grant=FuturesGrant(cancel, UNREAD_ACCOUNT))
    assert hex_of(require_signable_order(tx_of(data), grant, RULES, NOW_S)) == data
    for cloid in ("0x" + b"rest".hex(), RESTING.cloid + "22", RESTING.cloid.upper(), "0x" + "22" * 16):
        other = grant_of(layer_grant=FuturesGrant(OrderCancel("ETH", cloid), UNREAD_ACCOUNT))
        assert refusing_rule(tx_of(hex_of(cancel_action(cloid, 1))), other) == "client_order_id"


GRANTS: dict[str, tuple[PerpOrder | StopOrder | OrderCancel, MarginAccount]] = {
    "opening": (BUY, ACCOUNT),
    "reduction": (SALE, LONG_ACCOUNT),
    "stop": (STOP, STOPPED),
    "cancel": (CANCEL, STOPPED),
    "limit": (LIMIT, ACCOUNT),
    "limit cancel": (OrderCancel("ETH", RESTING.cloid), UNREAD_ACCOUNT),
}


def data_of(action: PerpOrder | StopOrder | OrderCancel) -> str:
    match action:
        case PerpOrder():
            return payload(action)
        case StopOrder():
            return stop_data(action)
        case OrderCancel():
            return hex_of(cancel_action(action.cloid, 1))


@pytest.mark.parametrize("tries", [4_000, *slow([200_000])])
@pytest.mark.parametrize("name", GRANTS)
def test_thousands_of_changes_of_an_action_are_signed_never(name: str, tries: int) -> None:
    dice, (order, account) = random.Random(tries), GRANTS[name]
    granted_data, refusals, unchanged_count = data_of(order), Counter[str](), 0
    for _ in range(tries):
        data, nonce = mutated_action(dice, granted_data), NOW_S * 1000
        if dice.random() < 0.1:
            nonce += dice.choice([-2, 1, 2, 60_000, 10**9])
        if data == granted_data and (nonce == NOW_S * 1000 or isinstance(order, OrderCancel)):
            unchanged_count += 1
            continue
        grant = grant_of(layer_grant=FuturesGrant(order, account))
        refusals[refusing_rule(tx_of(data, nonce=nonce), grant, GTC)] += 1
    assert sum(refusals.values()) + unchanged_count == tries
    assert unchanged_count < tries // 5
    rule_names = {"market", "side", "bound", "size", "reduce_only", "order", "client_order_id"}
    assert {"call", "nonce"} | (set() if isinstance(order, OrderCancel) else rule_names) <= refusals.keys()


@pytest.mark.parametrize("valid_s", [1, 120])
def test_order_at_the_edge_of_its_validity_is_signed(valid_s: int) -> None:
    assert require_signable_order(tx_of(payload(BUY)), grant_of(deadline_s=NOW_S + valid_s), RULES, NOW_S)


@pytest.mark.parametrize(("number", "is_perpetual"), [(0, True), (9_999, True), (10_000, False)])
def test_market_number_is_below_those_of_spot_pairs(number: int, is_perpetual: bool) -> None:
    rules = replace(RULES, market_numbers=(("ETH", number),))
    signable = tx_of(payload(BUY, lambda action: action["orders"][0].update(a=number)))
    if is_perpetual:
        assert require_signable_order(signable, grant_of(), rules, NOW_S)["orders"][0]["a"] == number
    else:
        assert refusing_rule(signable, grant_of(), rules) == "market"


def test_order_that_spends_gas_is_refused() -> None:
    assert refusing_rule(tx_of(payload(BUY), gas=1), grant_of()) == "value"


@pytest.mark.parametrize("side", [1, -1])
def test_resting_order_costs_its_worse_price_and_fee(side: int) -> None:
    """Filled at its price of 1 % beyond the mark, a rest of 100 coins of BTC takes 300 USDC and a fee of 0.045 %."""
    other = replace(MARKET, market="BTC", symbol="BTC")
    price = PRICE * (100 + side) / 100
    resting = RestingOrder("BTC", side * 10_000, 15_000, price, NOW_S - 60, "0x" + b"rest".hex() + "22" * 12)
    order = replace(BUY, bound_raw=3_000 * 10**6)
    notional = 3_000 * 10**6
    order_fee = notional * 450 // 10**6
    resting_fee = (max(price, PRICE) * 10_000 * 450 / 10**6).__ceil__()
    value_after = 2 * notional  # at a leverage of 1
    collateral = value_after + order_fee + 30 * 10**6 + resting_fee
    account = replace(ACCOUNT, markets=(MARKET, other), resting_orders=(resting,), collateral_raw=collateral)
    poorer_account = replace(account, collateral_raw=collateral - 1)
    rules = replace(RULES, max_leverage_bps=10_000)
    assert require_signable_order(tx_of(payload(order)), grant_of(order, account), rules, NOW_S)
    assert refusing_rule(tx_of(payload(order)), grant_of(order, poorer_account), rules) == "leverage"
