"""Answers about futures, changed in every way: a margin account is read, unknown or refused in our own words."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping

import pytest
from eth_account.signers.local import LocalAccount

from agent.chain.lens import LensAnswer, creation_code, decode_page
from agent.chain.perpetuals import perp_questions, read_account, unnamed_markets, unread_bases
from agent.errors import TrimtabError
from agent.localchain.perpetuals import LocalPerps
from agent.model.futures import MarginAccount, PerpOrder, PerpOrderKind
from agent.venues.hyperliquid.agent_key import AgentKey
from agent.venues.hyperliquid.client import HyperliquidAgent, HyperliquidClient
from agent.venues.hyperliquid.connection import HyperliquidConnection
from agent.venues.hyperliquid.orders import OrderTicket
from tests.fuzz.decoders import mutations, survives
from tests.support.hyperliquid import approve_agent, cancel_order, issue_tickets, send_order
from tests.support.hyperliquid_server import DAY_MS, HyperliquidServer, hyperliquid, key_of
from tests.support.perps import WAD, scope_of
from tests.support.samples import slow

OWNER = key_of(1)
AGENT = key_of(2)
COINS = {"BTC": "WBTC", "ETH": "WETH"}
SEED = 7
Read = Callable[[HyperliquidClient], object]


def mutations_of(seed: bytes, tries: int, draw: random.Random) -> Iterator[bytes]:
    for _, mutation in zip(range(tries), mutations(seed, draw), strict=False):
        yield mutation


@pytest.mark.parametrize("tries", [3_000, *slow([200_000])])
def test_margin_account_answer__raises_only_our_errors(perps_chain: LocalPerps, tries: int) -> None:
    who = perps_chain.chain.accounts[3].address
    perps_chain.deposit(who, 10_000 * 10**6)
    perps_chain.trade(who, "WETH", 3 * WAD)
    scope = scope_of(perps_chain, who)
    items = [question.item for question in perp_questions(scope)]
    page = bytes.fromhex(perps_chain.chain.transport.call("eth_call", [{"data": creation_code(items)}, "latest"])[2:])

    def read(data: bytes) -> MarginAccount | str:
        answers: list[LensAnswer] = decode_page(items, data)
        if bases := unread_bases(scope, answers):
            answered = iter(answers)
            unnamed_markets(bases, COINS, lambda request: [next(answered) for _ in request])
        return read_account(scope, answers)

    assert isinstance(read(page), MarginAccount)
    at = page.index(bytes.fromhex(scope.markets[0].base[2:]))
    offset = bytearray(page)
    offset[at - 1] ^= 1  # a bit above the address of a market
    survives(read, bytes(offset))
    for data in mutations_of(page, tries, random.Random(SEED)):
        survives(read, data)


class RecordingConnection(HyperliquidConnection):
    """Keeps the bodies of a venue's answers."""

    def __init__(self, url: str) -> None:
        super().__init__(url, is_mainnet=False, timeout_s=60)
        self.bodies: list[bytes] = []

    def _post(self, *arguments: object) -> tuple[int, bytes]:
        status, body = super()._post(*arguments)  # type: ignore[arg-type]  # passed on
        self.bodies.append(body.replace(b"\n", b" "))
        return status, body


class ScriptedConnection(HyperliquidConnection):
    """Answers with given bodies, one after the other, and then with nothing."""

    def __init__(self, bodies: list[bytes]) -> None:
        super().__init__("http://127.0.0.1:1", is_mainnet=False, timeout_s=1)
        self._bodies = iter(bodies)

    def _post(self, *body: object) -> tuple[int, bytes]:
        return 200, next(self._bodies, b"")


def reads(resting: OrderTicket, new: OrderTicket, now_ms: int) -> Mapping[str, Read]:
    return {
        "account": lambda venue: venue.read(),
        "rates": lambda venue: venue.funding_rates("ETH", 0, now_ms),
        "price": lambda venue: venue.price_before("ETH", now_ms),
        "book": lambda venue: venue.order_book_side("ETH", asks=True),
        "agents": lambda venue: venue.agents(),
        "state": lambda venue: venue.state_of(resting.cloid),
        "dead": lambda venue: venue.is_order_dead(new.cloid, new.expires_ms),
        "submit": lambda venue: send_order(venue, new),
        "cancel": lambda venue: cancel_order(venue, "ETH", resting.cloid, now_ms | 1),
    }


def venue_with(connection: HyperliquidConnection, now_ms: int) -> HyperliquidClient:
    return HyperliquidClient(connection, OWNER.address, COINS, lambda: now_ms, AgentKey(AGENT, is_mainnet=False), lambda: 0)


def ticket_issuer(server: HyperliquidServer, owner: LocalAccount) -> Callable[..., OrderTicket]:
    """Open two positions and pay funding; return what issues further tickets."""
    server.fund(owner.address, 10_000)
    connection = HyperliquidConnection(server.url, is_mainnet=False, timeout_s=60)
    agent = HyperliquidAgent("trimtab", AGENT.address, server.now_ms + 30 * DAY_MS)
    approve_agent(connection, owner, agent, server.now_ms, ())

    def ticket(coin: str, lots: int, bound_usd: int, kind: PerpOrderKind = PerpOrderKind.MARKET) -> OrderTicket:
        server.now_ms += 100
        bound_raw = bound_usd * 10**6 * abs(lots) // (100_000 if coin == "BTC" else 10_000)
        order = PerpOrder(coin, lots, kind, bound_raw, False)
        (issued,) = issue_tickets((order,), server.now_ms, 30_000)
        return issued

    for order_ticket in (ticket("ETH", 10_000, 3_100), ticket("BTC", -1_000, 50_000)):
        send_order(venue_with(connection, server.now_ms), order_ticket)
    server.pay_funding("ETH")
    return ticket


@pytest.mark.parametrize("tries", [300, *slow([5_000])])
def test_hyperliquid_answer__raises_only_our_errors(tries: int) -> None:
    with hyperliquid() as server:
        ticket = ticket_issuer(server, OWNER)
        resting = ticket("ETH", 1_000, 2_000, PerpOrderKind.LIMIT)
        send_order(venue_with(HyperliquidConnection(server.url, is_mainnet=False, timeout_s=60), server.now_ms), resting)
        venue_reads = reads(resting, ticket("ETH", 1_000, 3_100), server.now_ms)
        bodies = {}
        for name, read in venue_reads.items():
            line = RecordingConnection(server.url)
            read(venue_with(line, server.now_ms))
            bodies[name] = b"\n".join(line.bodies)
    draw = random.Random(SEED)
    for name, read in venue_reads.items():
        survives(lambda data, read=read: read(venue_with(ScriptedConnection(data.split(b"\n")), server.now_ms)), bodies[name])
        for data in mutations_of(bodies[name], tries, draw):
            survives(lambda data, read=read: read(venue_with(ScriptedConnection(data.split(b"\n")), server.now_ms)), data)


def test_the_name_of_a_market_is_a_text() -> None:
    with hyperliquid() as server:
        ticket_issuer(server, OWNER)
        line = RecordingConnection(server.url)
        venue_with(line, server.now_ms).read()
    for wrong in (b"[]", b"{}", b"null", b"1"):
        bodies = [body.replace(b'"BTC"', wrong) if b"universe" in body else body for body in line.bodies]
        assert bodies != line.bodies
        with pytest.raises(TrimtabError):
            venue_with(ScriptedConnection(bodies), server.now_ms).read()
