"""Futures on paper beside the real contracts: fills, funding and margin to the wei, a restart, and nothing that is sent."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import pytest

from agent.app.agent import Agent
from agent.app.paper import PaperStart, open_paper
from agent.backtest.router import TransactionReverted
from agent.chain.receipts import parse_receipt
from agent.chain.rpc import CallFailed
from agent.layers.futures.state import margin_account
from agent.localchain.perpetuals import LocalPerps
from agent.margin import account as margin
from agent.model import Head, PaperMargin, PaperPosition, UnsignedTx
from agent.model.futures import MarginAccount, PerpOrder, PerpOrderKind, Position
from agent.paper.venue import PaperPerpetualProtocol, PaperVenueEffects
from agent.venues.perpetual_protocol import decode_venue_call, encode_order
from tests.support import agents
from tests.support.agents import require_rebalance
from tests.support.futures import EVEN, futures_config_changes
from tests.support.perps import WAD, advance_time, contracts_of, read_now, send_data

TWO = {"WETH": "60%", "WBTC": "-40%"}


@pytest.fixture
def perps(perps_chain: LocalPerps, monkeypatch: pytest.MonkeyPatch) -> LocalPerps:
    """A wallet on its spot targets, with 10,000 of margin."""
    agents.fund(perps_chain.chain, {"WETH": 50_000, "USDC": 40_000})
    perps_chain.deposit(perps_chain.chain.wallet.address, 10_000 * 10**6)
    monkeypatch.setattr(perps_chain.chain, "perps", perps_chain)
    return perps_chain


def venue_of(perps: LocalPerps) -> PaperPerpetualProtocol:
    chain = perps.chain
    contracts = contracts_of(perps, chain.wallet.address)
    return PaperPerpetualProtocol(contracts, perps.addresses.exchange, perps.collateral_token.address, chain.transport)


def head_of(perps: LocalPerps) -> Head:
    block = perps.chain.w3.eth.get_block("latest")
    return Head(perps.chain.chain_id, int(block["number"]), block["hash"].to_0x_hex(), int(block["timestamp"]), 0)


def order(perps: LocalPerps, symbol: str, size_raw: int) -> PerpOrder:
    price = perps.chain.deployed_world.prices_usd[symbol]
    bound = int(abs(size_raw) * price * (Fraction(21, 20) if size_raw > 0 else Fraction(19, 20)))
    return PerpOrder(perps.markets[symbol].base_token, size_raw, PerpOrderKind.MARKET, bound, is_reduce_only=False)


def venue_tx(perps: LocalPerps, perp_order: PerpOrder) -> UnsignedTx:
    wallet = perps.chain.wallet.address
    data = encode_order(perp_order, contracts_of(perps, wallet), wallet, 2**40)
    return UnsignedTx(perps.chain.chain_id, 0, perps.addresses.clearing_house, 0, data, 2_000_000, 10**11, 10**9, None)


def on_paper(perps: LocalPerps, venue: PaperPerpetualProtocol, paper_margin: PaperMargin, perp_order: PerpOrder) -> PaperVenueEffects:
    """The order on paper at the newest block."""
    chain = perps.chain
    head = head_of(perps)
    wallet = chain.wallet.address
    tx = venue_tx(perps, perp_order)
    call = decode_venue_call(tx, venue.contracts)
    assert call is not None
    account = venue.account(read_now(perps, wallet), paper_margin, head)
    return venue.execute(tx, call, {}, {}, account, paper_margin, head)


def figures(account: MarginAccount) -> tuple[object, ...]:
    positions = sorted(
        (position.market, position.size_raw, position.open_notional_raw, position.funding_pending_raw) for position in account.positions
    )
    return account.collateral_raw, account.realised_raw, positions


def test_fills_funding_and_margin_equal_the_contracts_to_the_wei(perps: LocalPerps) -> None:
    """The same orders on paper and for real, at the same second."""
    chain = perps.chain
    wallet = perps.chain.wallet.address
    venue = venue_of(perps)
    paper_margin = venue.opening_margin(read_now(perps, wallet), head_of(perps), None)
    for symbol, size in (("WETH", 3 * WAD), ("WBTC", -WAD // 20), ("WETH", 2 * WAD), ("WETH", -4 * WAD), ("WETH", -2 * WAD)):
        expected_order = order(perps, symbol, size)
        at_s = chain.now_s() + 20
        mark = chain.snapshot()
        chain.node.mine_at(at_s)
        done = on_paper(perps, venue, paper_margin, expected_order)
        chain.revert(mark)
        data = encode_order(expected_order, contracts_of(perps, wallet), wallet, 2**40)
        chain.node.rpc("evm_setNextBlockTimestamp", at_s)  # type: ignore[attr-defined]  # anvil
        tx_hash = send_data(perps, perps.addresses.clearing_house, data, wallet)
        real = parse_receipt(chain.transport.call("eth_getTransactionReceipt", [tx_hash]), tx_hash)
        assert (done.fills, done.funding) == (real.fills, real.funding)
        paper_margin = done.margin
        advance_time(perps, 3_600)
        now = read_now(perps, wallet)
        assert figures(venue.account(now, paper_margin, head_of(perps))) == figures(now)


def test_order_beyond_bound_margin_or_deadline__reverts_by_code(perps: LocalPerps) -> None:
    wallet = perps.chain.wallet.address
    venue = venue_of(perps)
    paper_margin = venue.opening_margin(read_now(perps, wallet), head_of(perps), None)
    buy = order(perps, "WETH", WAD)
    with pytest.raises(TransactionReverted, match="CH_TMRL"):
        on_paper(perps, venue, paper_margin, replace(buy, bound_raw=2_900 * WAD))
    with pytest.raises(TransactionReverted, match="CH_TLRS"):
        on_paper(perps, venue, paper_margin, replace(order(perps, "WETH", -WAD), bound_raw=3_100 * WAD))
    poor = replace(paper_margin, collateral_raw=100 * WAD)
    with pytest.raises(TransactionReverted, match="CH_NEFCI"):
        on_paper(perps, venue, poor, buy)


def test_reads__block_of_another_hash_at_its_height_is_refused(perps: LocalPerps) -> None:
    """A reorganisation between snapshot and quote must not price a fill of the other block."""
    venue = venue_of(perps)
    wallet = perps.chain.wallet.address
    real = read_now(perps, wallet)
    head = head_of(perps)
    position = PaperPosition(perps.markets["WETH"].base_token, WAD, -WAD, 0)
    margin_with_position = replace(venue.opening_margin(real, head, None), positions=(position,))
    orphan = replace(head, hash="0x" + 32 * "77")
    call = decode_venue_call(venue_tx(perps, order(perps, "WETH", WAD)), venue.contracts)
    assert call is not None
    reads: list[Callable[[], object]] = [
        lambda: venue.account(real, margin_with_position, orphan),
        lambda: venue.opening_margin(replace(real, positions=(Position(perps.markets["WETH"].base_token, WAD, -WAD),)), orphan, None),
        lambda: venue.execute(venue_tx(perps, order(perps, "WETH", WAD)), call, {}, {}, real, margin_with_position, orphan),
    ]
    for read in reads:
        with pytest.raises(CallFailed, match="refused eth_call: Resource not found"):
            read()


def opened(agent: Agent) -> dict[str, int]:
    account = margin_account(agent.step_input().snapshot)
    assert account is not None
    return {account.market(position.market).symbol: position.size_raw for position in account.positions}


def test_paper_opens_pays_funding_reduces_and_survives_a_restart(perps: LocalPerps, tmp_path: Path) -> None:
    chain = perps.chain
    loaded = agents.trusted_config(chain, tmp_path, futures_config_changes(perps, TWO, max_leverage="3x", stress_move="off"), EVEN)
    before = agents.purse(chain)
    begin = PaperStart(amounts="WETH=15,USDC=30000", native="5", margin="15000")
    with open_paper(loaded, begin, clock=chain.clock, transports=[chain.transport]) as agent:
        require_rebalance(agent)
        sizes = opened(agent)
        assert sizes["WETH"] > 0 > sizes["WBTC"]
        account = margin_account(agent.step_input().snapshot)
        assert account is not None
        assert account.collateral_raw == 15_000 * WAD
        assert margin.leverage(account) == pytest.approx(2, abs=0.05)
        assert agent.context.store.journal.unbooked_intents() == ()
    with open_paper(loaded, clock=chain.clock, transports=[chain.transport]) as agent:
        assert opened(agent) == sizes, "the positions are in the store"
        prices = {
            "WETH": chain.deployed_world.prices_usd["WETH"] * Fraction(7, 10),
            "WBTC": chain.deployed_world.prices_usd["WBTC"] * Fraction(115, 100),
        }
        chain.move_market(prices)
        perps.move_pools(prices, chain.clock.sleep)
        chain.warp(2_000)
        fallen = margin_account(agent.step_input().snapshot)
        assert fallen is not None
        assert margin.funding_pending_raw(fallen) != 0
        assert (margin.leverage(fallen) or 99) > 3
        require_rebalance(agent)
        after = margin_account(agent.step_input().snapshot)
        assert after is not None
        assert (margin.leverage(after) or 99) <= 3
    assert agents.purse(chain) == before, "nothing was sent"
    assert read_now(perps, chain.wallet.address).positions == ()
