"""Futures orders when the venue misbehaves: whole steps on the deployed contracts, each bad input with what the agent does."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import pytest

from agent.execution.step_context import OutcomeKind
from agent.localchain.perpetuals import LocalPerps
from agent.margin import account as margin
from agent.model import IntentKind
from agent.model.futures import MarginAccount
from agent.venues.perpetual_protocol import encode_delegate
from tests.support import agents
from tests.support.futures import EVEN, futures_config_changes
from tests.support.perpetuals.chain_faults import (
    BOTH,
    LONG,
    MARGIN_USD,
    MOST,
    leverage,
    move_price,
    open_position,
    orders,
    perps,
    push_pool,
    size,
    step,
)
from tests.support.perps import WAD, advance_time, read_now, send_data

__all__ = ["perps"]


def test_standing_index_beside_a_moving_mark__opens_nothing(perps: LocalPerps, tmp_path: Path) -> None:
    """T12: a manipulated pool, or a feed that nobody feeds."""
    push_pool(perps, "WETH", Fraction(7, 100))
    advance_time(perps, 2_000)
    market = read_now(perps, perps.chain.wallet.address).market(perps.markets["WETH"].base_token)
    assert market.mark / market.index - 1 > Fraction(5, 100)
    outcome = step(perps, tmp_path, LONG)
    assert (orders(outcome), size(perps, "WETH")) == ([], 0)
    assert "the mark of WETH is 7.00 % off its index" in outcome.reason


def test_a_funding_spike_counts_before_it_is_settled(perps: LocalPerps, tmp_path: Path) -> None:
    """Longs pay at 9 % a day for two days: what is owed raises the leverage, and the position is reduced."""
    open_position(perps, "WETH", Fraction(26, 10))
    before = size(perps, "WETH")
    push_pool(perps, "WETH", Fraction(9, 100))
    advance_time(perps, 3_600)
    advance_time(perps, 2 * 86_400)
    push_pool(perps, "WETH", Fraction(0))
    advance_time(perps, 2_000)
    perps.chain.refresh_feeds()
    account = read_now(perps, perps.chain.wallet.address)
    assert margin.funding_pending_raw(account) > 2_000 * WAD
    assert leverage(perps) > MOST > leverage_without_funding(account)
    outcome = step(perps, tmp_path, LONG)
    assert orders(outcome), outcome.reason
    assert leverage(perps) <= MOST, outcome.reason
    assert 0 < size(perps, "WETH") < before


def leverage_without_funding(account: MarginAccount) -> Fraction:
    settled = tuple(replace(position, funding_pending_raw=0) for position in account.positions)
    ratio = margin.leverage(replace(account, positions=settled))
    assert ratio is not None
    return ratio


def test_a_paused_market_gets_no_order_and_the_other_does(perps: LocalPerps, tmp_path: Path) -> None:
    perps.chain.send(perps.exchange.functions.setMaxTickCrossedWithinBlock(perps.markets["WBTC"].base_token, 0))
    outcome = step(perps, tmp_path, {"WETH": "60%", "WBTC": "40%"}, max_position="70%")
    assert size(perps, "WBTC") == 0
    assert orders(outcome) == [IntentKind.FUTURES]
    assert size(perps, "WETH") > 0


def test_too_little_liquidity__refuses_before_sending(perps: LocalPerps, tmp_path: Path) -> None:
    chain = perps.chain
    nonce = agents.purse(chain).nonce
    remove_liquidity(perps, "WETH")
    outcome = step(perps, tmp_path, LONG)
    assert (orders(outcome), size(perps, "WETH")) == ([], 0)
    assert "lacks the liquidity for this size (UB_UOA)" in outcome.reason
    assert agents.purse(chain).nonce == nonce


def test_a_reduction_too_large_for_the_pool_goes_in_parts(perps: LocalPerps, tmp_path: Path) -> None:
    open_position(perps, "WETH", Fraction(26, 10))
    move_price(perps, "WETH", Fraction(-20, 100))
    perps.chain.refresh_feeds()
    remove_liquidity(perps, "WETH", 95)
    before = size(perps, "WETH")
    multiple = leverage(perps)
    assert multiple > MOST
    outcome = step(perps, tmp_path, LONG)
    assert orders(outcome), outcome.reason
    assert 0 < size(perps, "WETH") < before, outcome.reason
    assert leverage(perps) < multiple, outcome.reason


def test_an_opening_too_large_for_the_pool_goes_in_parts(perps: LocalPerps, tmp_path: Path) -> None:
    """The whole opening would be filled beyond its bound; a part of it is not."""
    remove_liquidity(perps, "WETH", 95)
    outcome = step(perps, tmp_path, LONG)
    assert orders(outcome), outcome.reason
    assert size(perps, "WETH") > 0, outcome.reason


def remove_liquidity(perps: LocalPerps, symbol: str, percent: int = 99) -> None:
    """Makers take all but the rest of their liquidity away."""
    chain = perps.chain
    base = perps.markets[symbol].base_token
    whale = perps.chain.whale.address
    book = perps.contract(perps.addresses.order_book, "OrderBook").functions
    for order_id in book.getOpenOrderIds(whale, base).call():
        order = book.getOpenOrderById(order_id).call()
        call = perps.clearing_house.functions.removeLiquidity((base, order[1], order[2], order[0] * percent // 100, 0, 0, 2**255))
        chain.send(call, whale)


def test_order_across_the_price_band__is_refused_before_sending(perps: LocalPerps, tmp_path: Path) -> None:
    chain = perps.chain
    chain.send(perps.exchange.functions.setMaxTickCrossedWithinBlock(perps.markets["WETH"].base_token, 1))
    nonce = agents.purse(chain).nonce
    outcome = step(perps, tmp_path, LONG)
    assert (orders(outcome), size(perps, "WETH")) == ([], 0)
    assert "the price would move more than one block allows (EX_OPLAS)" in outcome.reason
    assert agents.purse(chain).nonce == nonce


def test_account_below_maintenance__is_reduced_at_once(perps: LocalPerps, tmp_path: Path) -> None:
    open_position(perps, "WETH", 8)
    move_price(perps, "WETH", Fraction(-75, 1_000))
    assert margin.is_liquidatable(read_now(perps, perps.chain.wallet.address))
    before = size(perps, "WETH")
    outcome = step(perps, tmp_path, LONG)
    assert 0 <= size(perps, "WETH") < before
    assert leverage(perps) <= MOST, outcome.reason


def test_an_order_made_to_revert_holds_no_other_market_back(perps: LocalPerps, tmp_path: Path) -> None:
    open_position(perps, "WETH", 2)
    open_position(perps, "WBTC", Fraction(-1))
    move_price(perps, "WETH", Fraction(-25, 100))
    advance_time(perps, 2_000)
    perps.chain.refresh_feeds()
    before = {symbol: size(perps, symbol) for symbol in BOTH}
    closed = perps.exchange.functions.setMaxTickCrossedWithinBlock(perps.markets["WETH"].base_token, 1)
    with agents.agent_on(perps.chain, tmp_path, futures_config_changes(perps, BOTH), EVEN) as agent:
        outcome = agent.rebalance(send=True, confirm=agents.yes, progress=agents.at_send(1, lambda: perps.chain.send(closed)))
    assert outcome.kind is OutcomeKind.FAILED, outcome.reason
    assert len(orders(outcome)) <= 3, outcome.reason
    assert size(perps, "WETH") == before["WETH"]
    assert before["WBTC"] < size(perps, "WBTC") <= 0


def liquidate(perps: LocalPerps) -> None:
    base = perps.markets["WETH"].base_token
    wallet = perps.chain.wallet.address
    call = perps.clearing_house.get_function_by_signature("liquidate(address,address)")(wallet, base)
    perps.chain.send(call, perps.chain.whale.address)


@pytest.mark.parametrize("moment", ["while the owner reads", "just before the send"])
def test_a_position_liquidated_meanwhile_is_never_turned(perps: LocalPerps, tmp_path: Path, moment: str) -> None:
    chain = perps.chain
    open_position(perps, "WETH", 8)
    move_price(perps, "WETH", Fraction(-75, 1_000))
    before = size(perps, "WETH")
    with agents.agent_on(chain, tmp_path, futures_config_changes(perps, LONG), EVEN) as agent:
        reads = moment == "while the owner reads"
        confirm = agents.meanwhile(lambda: liquidate(perps)) if reads else agents.yes
        agent.rebalance(send=True, confirm=confirm, progress=agents.at_send(99 if reads else 1, lambda: liquidate(perps)))
        assert size(perps, "WETH") >= 0
        for _ in range(4):
            last = agent.rebalance(send=True, confirm=agents.yes)
        assert last.kind is OutcomeKind.HOLD, last.reason
        assert agent.context.store.journal.unbooked_intents() == ()
    assert 0 <= size(perps, "WETH") < before
    assert leverage(perps) <= MOST


def test_oracle_outage__leaves_the_account_unknown_not_empty(perps: LocalPerps, tmp_path: Path) -> None:
    open_position(perps, "WETH", 2)
    chain = perps.chain
    base = perps.markets["WETH"].base_token
    feed = perps.contract(base, "BaseToken").functions.getPriceFeed().call()
    chain.node.rpc("anvil_setCode", feed, "0xfe")  # type: ignore[attr-defined]  # always anvil here
    outcome = step(perps, tmp_path, BOTH)
    assert orders(outcome) == []
    assert "futures: no order, profit could not be read" in outcome.reason


def test_key_without_its_right__sends_nothing_and_is_named(perps: LocalPerps, tmp_path: Path) -> None:
    chain = perps.chain
    owner = perps.chain.accounts[3].address
    perps.deposit(owner, MARGIN_USD * 10**6)
    send_data(perps, perps.addresses.delegate_approval, encode_delegate(chain.wallet.address, is_allowed=True), owner)
    changes = futures_config_changes(perps, LONG)
    changes["futures"] = {**changes["futures"], "account": owner}  # type: ignore[dict-item]  # a table
    with agents.agent_on(chain, tmp_path, changes, EVEN) as agent:
        send_data(perps, perps.addresses.delegate_approval, encode_delegate(chain.wallet.address, is_allowed=False), owner)
        nonce = agents.purse(chain).nonce
        outcome = agent.rebalance(send=True, confirm=agents.yes)
        assert (orders(outcome), agents.purse(chain).nonce) == ([], nonce)
        send_data(perps, perps.addresses.delegate_approval, encode_delegate(chain.wallet.address, is_allowed=True), owner)
        outcome = agent.rebalance(send=True, confirm=agents.yes)
        assert orders(outcome) == [IntentKind.FUTURES], outcome.reason
    assert read_now(perps, owner).size_raw(perps.markets["WETH"].base_token) > 0
