"""The margin account's mathematics against Perpetual Protocol v2, to the base unit, through trades, funding and a fall."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import pytest
from eth_typing import HexStr
from web3.logs import DISCARD

from agent.chain.receipts import parse_receipt
from agent.localchain.perpetuals import LocalPerps
from agent.margin import account as margin
from agent.model.futures import MarginAccount
from tests.support.perps import WAD, account_of, advance_time


@pytest.fixture
def perps(perps_chain: LocalPerps) -> LocalPerps:
    return perps_chain


def assert_equal(perps: LocalPerps, who: str) -> MarginAccount:
    """Every figure of the account is the contracts' own."""
    account = account_of(perps, who)
    views = perps.account_balance.functions
    _, unrealised, _ = views.getPnlAndPendingFee(who).call()
    scale = 10 ** (18 - perps.collateral_token.decimals)
    assert margin.unrealised_profit_raw(account) == unrealised
    assert margin.settled_value_raw(account) == perps.clearing_house.functions.getAccountValue(who).call()
    assert margin.gross_notional_raw(account) == views.getTotalAbsPositionValue(who).call()
    assert margin.debt_value_raw(account) == views.getTotalDebtValue(who).call()
    assert margin.maintenance_margin_raw(account) == views.getMarginRequirementForLiquidation(who).call()
    free = margin.free_margin_raw(account)
    assert max(0, free) // scale == perps.vault.functions.getFreeCollateral(who).call()
    return account


def test_every_figure_of_the_account_is_the_contracts_own(perps: LocalPerps) -> None:
    trader = perps.chain.accounts[3].address
    whale = perps.chain.whale.address
    perps.deposit(trader, 10_000 * 10**6 + 7)
    assert_equal(perps, trader)
    for symbol, size in (("WETH", 3 * WAD + 11), ("WBTC", -(WAD // 9)), ("WETH", -WAD), ("WBTC", WAD // 30), ("WETH", -4 * WAD)):
        perps.trade(trader, symbol, size)
        assert_equal(perps, trader)
    advance_time(perps, 3_600)
    perps.trade(whale, "WETH", 60 * WAD)
    advance_time(perps, 3_600)
    account = assert_equal(perps, trader)
    assert margin.funding_pending_raw(account) != 0


def test_a_fill_changes_the_account_as_computed(perps: LocalPerps) -> None:
    trader = perps.chain.accounts[3].address
    perps.deposit(trader, 10_000 * 10**6)
    for size in (2 * WAD, WAD // 3, -WAD, -3 * WAD, WAD):
        before = account_of(perps, trader)
        base_token = perps.markets["WETH"].base_token
        settled, changed = _events(perps, perps.trade(trader, "WETH", size))
        due = [replace(position, funding_pending_raw=settled) for position in before.positions]
        computed = margin.with_trade(replace(before, positions=tuple(due)), base_token, size, changed)
        after = account_of(perps, trader)
        assert computed.size_raw(base_token) == after.size_raw(base_token)
        assert computed.realised_raw == after.realised_raw
        assert _open_notional(computed, base_token) == _open_notional(after, base_token)


def _events(perps: LocalPerps, tx_hash: HexStr) -> tuple[int, int]:
    """Funding that a trade settled, and what it changed the quote balance by, fee included, as the agent's receipt says too."""
    receipt = perps.chain.w3.eth.get_transaction_receipt(tx_hash)
    house = perps.clearing_house.events
    settled = house.FundingPaymentSettled().process_receipt(receipt, errors=DISCARD)
    (changed,) = house.PositionChanged().process_receipt(receipt, errors=DISCARD)
    parsed = parse_receipt(perps.chain.transport.call("eth_getTransactionReceipt", [tx_hash]), tx_hash)
    assert [(event.clearing_house, event.trader, event.market, event.paid_raw) for event in parsed.funding] == [
        (perps.clearing_house.address, event["args"]["trader"], event["args"]["baseToken"], event["args"]["fundingPayment"])
        for event in settled
    ]
    [fill] = parsed.fills
    assert (fill.quote_raw, fill.fee_raw) == (changed["args"]["exchangedPositionNotional"], changed["args"]["fee"])
    return sum(event["args"]["fundingPayment"] for event in settled), changed["args"]["exchangedPositionNotional"] - changed["args"]["fee"]


def _open_notional(account: MarginAccount, market: str) -> int:
    return sum(position.open_notional_raw for position in account.positions if position.market == market)


def test_the_account_is_liquidated_when_the_mathematics_says_so(perps: LocalPerps) -> None:
    trader = perps.chain.accounts[3].address
    whale = perps.chain.whale.address
    perps.deposit(trader, 2_000 * 10**6)
    perps.trade(trader, "WETH", 4 * WAD)
    base = perps.markets["WETH"].base_token
    expected = margin.liquidation_price(account_of(perps, trader), base)
    assert expected is not None
    liquidate = perps.clearing_house.get_function_by_signature("liquidate(address,address)")(trader, base)
    for _ in range(40):
        account = assert_equal(perps, trader)
        if margin.is_liquidatable(account):
            break
        with pytest.raises(Exception, match="CH_EAV"):
            liquidate.call({"from": whale})
        perps.trade(whale, "WETH", -40 * WAD)
        books = perps.chain.deployed_world  # shared with other tests: replaced, never changed
        perps.chain.deployed_world = replace(books, prices_usd={**books.prices_usd, "WETH": books.prices_usd["WETH"] * Fraction(97, 100)})
        advance_time(perps, 600)
    assert margin.is_liquidatable(account)
    assert account.market(base).mark < expected
    perps.chain.send(liquidate, whale)
    assert account_of(perps, trader).size_raw(base) < 4 * WAD
