"""The signer's rule for orders of Hyperliquid: a granted order is signed, and every change of it is refused by name."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from typing import Any

import pytest

from agent.errors import Refused
from agent.model import IntentKind, UnsignedTx
from agent.model.futures import FuturesGrant, MarginAccount, MarginDeposit, MarginTier, PerpMarket, PerpOrder, PerpOrderKind, Position
from agent.ports import Grant
from agent.signing.base import FuturesRules
from agent.signing.futures import require_signable_order
from agent.units import Token
from agent.venues.hyperliquid.orders import OrderTicket, cloid_of, order_action

NOW_S = 1_790_000_000
TRADER = "0x" + "11" * 20
PRICE = Fraction(3_000 * 10**6, 10**4)
TIERS = (MarginTier(0, 50_000, 25_000),)
MARKET = PerpMarket("ETH", "ETH", "", 4, 1, Fraction(100), TIERS, 450, PRICE, PRICE, NOW_S - 5, Fraction(0), min_notional_raw=10**7)
ACCOUNT = MarginAccount(Token("", "USDC", 6), 1, 10_000 * 10**6, 0, (), (MARKET,), initial_on_debt=False, is_on_chain=False)
RULES = FuturesRules("", "", "", "", TRADER, None, ("ETH",), 30_000, 100, 300, 60, max_validity_s=120)
BUY = PerpOrder("ETH", 10_000, PerpOrderKind.MARKET, 3_010 * 10**6, False)
HELD = replace(ACCOUNT, positions=(Position("ETH", 20_000, -6_000 * 10**6),))
SALE = PerpOrder("ETH", -10_000, PerpOrderKind.MARKET, 2_990 * 10**6, True)


def payload(order: PerpOrder, change: Callable[[dict[str, Any]], object] = lambda _: None) -> str:
    ticket = OrderTicket(order, cloid_of("1", 0, order), NOW_S * 1000, (NOW_S + 60) * 1000)
    action = order_action(ticket, MARKET, 1)
    change(action)
    return "0x" + json.dumps(action).encode().hex()


def tx_of(data: str, **changes: Any) -> UnsignedTx:
    return replace(UnsignedTx(1, NOW_S * 1000, TRADER, 0, data, 0, None, None, None), **changes)


def grant_of(order: PerpOrder = BUY, account: MarginAccount = ACCOUNT, **changes: Any) -> Grant:
    return replace(Grant(IntentKind.FUTURES, NOW_S, NOW_S + 60, 0, futures=FuturesGrant(order, account)), **changes)


def refused(tx: UnsignedTx, grant: Grant) -> str:
    with pytest.raises(Refused) as caught:
        require_signable_order(tx, grant, RULES, NOW_S)
    return caught.value.verdicts[0].guard.removeprefix("signer.")


@pytest.mark.parametrize(("order", "account"), [(BUY, ACCOUNT), (SALE, HELD)])
def test_a_granted_order_is_signed(order: PerpOrder, account: MarginAccount) -> None:
    action = require_signable_order(tx_of(payload(order)), grant_of(order, account), RULES, NOW_S)
    assert action["orders"][0]["c"] == cloid_of("1", 0, order)


WIRES: dict[str, tuple[str, object]] = {
    "side": ("b", False),
    "size": ("s", "1.0001"),
    "bound": ("p", "3020"),
    "reduce_only": ("r", True),
    "order": ("t", {"limit": {"tif": "Gtc"}}),
    "market": ("a", -1),
}


@pytest.mark.parametrize("rule", WIRES)
def test_an_action_other_than_granted_is_refused(rule: str) -> None:
    key, value = WIRES[rule]
    assert refused(tx_of(payload(BUY, lambda action: action["orders"][0].update({key: value}))), grant_of()) == rule


ACTIONS: list[Callable[[dict[str, Any]], object]] = [
    lambda action: action.update(type="withdraw3"),
    lambda action: action["orders"].append(action["orders"][0]),
    lambda action: action.update(grouping="normalTpsl"),
    lambda action: action.update(builder={"b": TRADER, "f": 100}),
    lambda action: action["orders"][0].update(x=1),
]


@pytest.mark.parametrize("change", ACTIONS)
def test_any_other_action_is_refused(change: Callable[[dict[str, Any]], object]) -> None:
    assert refused(tx_of(payload(BUY, change)), grant_of()) == "call"


@pytest.mark.parametrize("data", ["0x", "0xzz", "0x" + b"[]".hex(), "0x" + b"{}".hex()])
def test_data_that_is_no_action_is_refused(data: str) -> None:
    assert refused(tx_of(data), grant_of()) == "call"


@pytest.mark.parametrize(
    ("tx", "grant", "rule"),
    [
        (tx_of(payload(BUY), to="0x" + "22" * 20), grant_of(), "trader"),
        (tx_of(payload(BUY), value_wei=1), grant_of(), "value"),
        (tx_of(payload(BUY), nonce=(NOW_S + 3_600) * 1000), grant_of(), "nonce"),
        (tx_of(payload(BUY)), grant_of(deadline_s=NOW_S), "deadline"),
        (tx_of(payload(BUY)), grant_of(deadline_s=NOW_S + 121), "deadline"),
        (tx_of(payload(BUY)), grant_of(kind=IntentKind.SWAP), "action"),
        (tx_of(payload(BUY)), grant_of(futures=FuturesGrant(MarginDeposit(1), ACCOUNT)), "action"),
        (tx_of(payload(BUY)), grant_of(now_s=NOW_S + 600), "index_age"),
        (tx_of(payload(SALE)), grant_of(SALE, ACCOUNT), "reduce_only"),
        (tx_of(payload(BUY)), grant_of(BUY, replace(ACCOUNT, collateral_raw=500 * 10**6)), "leverage"),
        (tx_of(payload(replace(BUY, bound_raw=3_100 * 10**6))), grant_of(replace(BUY, bound_raw=3_100 * 10**6)), "bound"),
    ],
)
def test_each_term_of_the_grant_is_kept(tx: UnsignedTx, grant: Grant, rule: str) -> None:
    assert refused(tx, grant) == rule


def test_a_market_that_the_config_does_not_name_is_only_reduced() -> None:
    rules = replace(RULES, markets=())
    assert require_signable_order(tx_of(payload(SALE)), grant_of(SALE, HELD), rules, NOW_S)
    for order, account in ((BUY, ACCOUNT), (replace(SALE, is_reduce_only=False), HELD), (SALE, ACCOUNT)):
        with pytest.raises(Refused) as caught:
            require_signable_order(tx_of(payload(order)), grant_of(order, account), rules, NOW_S)
        assert caught.value.verdicts[0].guard in ("signer.market", "signer.reduce_only")
