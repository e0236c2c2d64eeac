"""Config of agents with a futures layer on the local Hyperliquid."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import pytest
from eth_account.messages import encode_typed_data

from agent.errors import Refused
from agent.localchain import LocalChain
from agent.model.futures import PerpOrder
from agent.signing.futures import cloid_of
from agent.signing.keys import TestAccountKey, load_key
from agent.signing.secret import AgentPrivateKey, PrivateKey
from agent.venues.hyperliquid.account import STRICTEST_LEVERAGE, build_market
from agent.venues.hyperliquid.client import HyperliquidAgent, HyperliquidClient
from agent.venues.hyperliquid.connection import HyperliquidConnection
from agent.venues.hyperliquid.orders import OrderState, OrderTicket, cancel_action, order_action
from agent.venues.hyperliquid.venue import approval_action, approval_message, new_approval, post_approval
from tests.support import agents
from tests.support.futures import LIMITS
from tests.support.hyperliquid_server import DAY_MS, HyperliquidServer, hyperliquid, key_of

AGENT = key_of(2)
AGENT_ENV = "TRIMTAB_TEST_AGENT"
ETH_AND_BTC = {"ETH": "60%", "BTC": "-40%"}


@pytest.fixture
def server(anvil_chain: LocalChain, monkeypatch: pytest.MonkeyPatch) -> Iterator[HyperliquidServer]:
    """A wallet on its spot targets, with 10,000 of margin at the venue."""
    monkeypatch.setenv(AGENT_ENV, AGENT.key.hex())
    agents.fund(anvil_chain, {"WETH": 50_000, "USDC": 50_000})
    with venue_for(anvil_chain) as server:
        yield server


@contextmanager
def venue_for(chain: LocalChain, usd: int = 10_000, until_days: int = 30) -> Iterator[HyperliquidServer]:
    """Run a venue at the chain's time and prices, with the wallet's account and an approved agent."""
    with hyperliquid() as server:
        server.clock = lambda: chain.clock.now_s() * 1000
        server.fund(chain.wallet.address, usd)
        approve(server, chain, until_days)
        yield server


def approve(server: HyperliquidServer, chain: LocalChain, until_days: int = 30) -> None:
    """Approve the agent as the wallet's owner."""
    connection = HyperliquidConnection(server.url, is_mainnet=False, timeout_s=60)
    agent = HyperliquidAgent("trimtab", AGENT.address, server.now_ms + until_days * DAY_MS)
    owner = load_key(TestAccountKey(0), chain.chain_id, ask=None)
    assert isinstance(owner, PrivateKey)
    approve_agent(connection, AgentPrivateKey(owner), agent, server.now_ms, ())


def approve_agent(connection: HyperliquidConnection, owner: Any, agent: HyperliquidAgent, now_ms: int, former: Collection[str]) -> None:
    """Approve an agent wallet for the account of an owner that signs messages."""
    action = approval_action(new_approval(connection, owner.address, agent, now_ms, former))
    signed = owner.sign_message(encode_typed_data(full_message=approval_message(action)))
    post_approval(connection, action, {"r": hex(signed.r), "s": hex(signed.s), "v": signed.v})


def venue_table(server: HyperliquidServer, weights: Mapping[str, str], leverage: str = "2x", **limits: str) -> dict[str, Any]:
    """Return the table [futures] for the venue."""
    assets = {"ETH": "WETH"}
    return {
        "venue": "hyperliquid",
        "url": server.url,
        "network": "testnet",
        "agent_name": "trimtab",
        "agent_key_env": AGENT_ENV,
        "collateral": "USDC",
        "leverage": leverage,
        "band": "5%",
        "markets": [
            {"symbol": symbol, "weight": weight} | ({"asset": assets[symbol]} if symbol in assets else {})
            for symbol, weight in weights.items()
        ],
        "limits": LIMITS | limits,
    }


def venue_changes(server: HyperliquidServer, weights: Mapping[str, str], leverage: str = "2x", **limits: str) -> dict[str, object]:
    """Return the config changes that add the futures layer; its margin counts in the managed value."""
    return {**agents.ROOMY, "portfolio.max_live_value": "200000", "futures": venue_table(server, weights, leverage, **limits)}


def send_order(client: HyperliquidClient, ticket: OrderTicket) -> OrderState:
    """Sign an order with the client's key, post it once and return its state. Raises Refused with the venue's reason, Retryable for an
    order that may have been executed.
    """
    market = client._market(ticket.order.market)
    venue_market = build_market(market, STRICTEST_LEVERAGE, "", 0, 0)
    action = order_action(ticket, venue_market, market.number, is_close=ticket.order.is_reduce_only)
    return _post(client, action, ticket.cloid, ticket.nonce_ms, ticket.expires_ms)


def cancel_order(client: HyperliquidClient, coin: str, cloid: str, nonce_ms: int) -> OrderState:
    """Cancel an order once, as `send_order`."""
    return _post(client, cancel_action(cloid, client.market_number(coin)), cloid, nonce_ms, None)


def _post(client: HyperliquidClient, action: Mapping[str, object], cloid: str, nonce_ms: int, expires_ms: int | None) -> OrderState:
    (reason,) = client.post_orders(client._require_key().sign(action, nonce_ms, expires_ms), 1)
    if reason:
        raise Refused(reason)
    return client.state_of(cloid)


def issue_tickets(orders: Sequence[PerpOrder], now_ms: int, validity_ms: int) -> tuple[OrderTicket, ...]:
    """Return tickets as HyperliquidVenue drafts them one by one: each nonce 2 above the one before."""
    nonces_ms = itertools.count(now_ms + now_ms % 2, 2)
    return tuple(
        OrderTicket(order, cloid_of(nonce_ms, order), nonce_ms, now_ms + validity_ms)
        for nonce_ms, order in zip(nonces_ms, orders, strict=False)
    )
