"""Hyperliquid against a local venue: accounts read, orders that happen once, agents, and answers that are lost, late or false."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from fractions import Fraction

import pytest
from eth_account.signers.local import LocalAccount
from hyperliquid.exchange import Exchange
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.errors import ConfigError, ErrorCode, OperatorNeeded, PassingFault, Refused, Retryable, TrimtabError
from agent.margin import account as margin
from agent.model.futures import MarginAccount, PerpOrder, PerpOrderKind
from agent.venues.hyperliquid.agent_key import AgentKey
from agent.venues.hyperliquid.budget import WEIGHT_PER_MINUTE, RequestBudget
from agent.venues.hyperliquid.client import HyperliquidAgent, HyperliquidClient
from agent.venues.hyperliquid.connection import HyperliquidConnection
from agent.venues.hyperliquid.orders import OrderTicket, VenueOrderStage
from agent.venues.hyperliquid.venue import require_fresh_agent
from tests.support.fakes.clock import FakeClock
from tests.support.hyperliquid import approve_agent, cancel_order, issue_tickets, send_order
from tests.support.hyperliquid_server import DAY_MS, START_MS, Coin, HyperliquidServer, ServerPosition, hyperliquid, key_of
from tests.support.text import raises_code

OWNER = key_of(1)
AGENT = key_of(2)
VALID_MS = 30_000
ZERO = "0x" + "0" * 40
LATEST = {"BTC": "WBTC", "ETH": "WETH"}


@dataclass
class World:
    """A venue, an account on it, and a client of the account with an approved agent."""

    server: HyperliquidServer
    connection: HyperliquidConnection
    venue: HyperliquidClient

    def tickets(self, *orders: PerpOrder) -> tuple[OrderTicket, ...]:
        self.server.now_ms += 100
        return issue_tickets(orders, self.server.now_ms, VALID_MS)

    def ticket(self, order: PerpOrder) -> OrderTicket:
        return self.tickets(order)[0]

    def posted(self) -> int:
        """Orders posted so far."""
        return sum(body["action"]["type"] == "order" for body in self.server.bodies)

    def size(self, coin: str) -> Fraction:
        return self.server.wallet(OWNER.address).positions.get(coin, ServerPosition()).size

    def client(self, key: LocalAccount = AGENT, is_mainnet: bool = False, account: str = OWNER.address) -> HyperliquidClient:
        agent = AgentKey(key, is_mainnet=is_mainnet)
        return HyperliquidClient(self.connection, account, LATEST, lambda: self.server.now_ms, agent)


@pytest.fixture
def world() -> Iterator[World]:
    with hyperliquid() as server:
        yield opened(server)


def opened(server: HyperliquidServer) -> World:
    server.fund(OWNER.address, 10_000)
    connection = HyperliquidConnection(server.url, is_mainnet=server.is_mainnet, timeout_s=60)
    approve_agent(connection, OWNER, HyperliquidAgent("trimtab", AGENT.address, server.now_ms + 30 * DAY_MS), server.now_ms, ())
    key = AgentKey(AGENT, is_mainnet=server.is_mainnet)
    return World(server, connection, HyperliquidClient(connection, OWNER.address, LATEST, lambda: server.now_ms, key))


def order(coin: str, lots: int, price: str, kind: PerpOrderKind = PerpOrderKind.MARKET, reduce: bool = False) -> PerpOrder:
    """An order at a price in USD; BTC has 5 decimals of a size, ETH 4."""
    decimals = 5 if coin == "BTC" else 4
    return PerpOrder(coin, lots, kind, int(Fraction(price) * abs(lots) * 10**6 / 10**decimals), reduce)


def lots(coin: str, size: str) -> int:
    return int(Fraction(size) * 10 ** (5 if coin == "BTC" else 4))


def test_the_rows_of_an_answer_count_in_the_budget(world: World) -> None:
    for _ in range(59):
        world.server.fund(OWNER.address, 1)
    budget = RequestBudget(FakeClock())
    connection = HyperliquidConnection(world.server.url, is_mainnet=world.server.is_mainnet, timeout_s=60, budget=budget)
    rows = connection.info(type="userNonFundingLedgerUpdates", user=OWNER.address.lower(), startTime=0)
    assert isinstance(rows, list)
    assert len(rows) == 60
    assert budget.left() == WEIGHT_PER_MINUTE - 20 - 3


# --- Signatures.


def test_the_venue_recovers_owner_and_agent_from_every_signature(world: World) -> None:
    send_order(world.venue, world.ticket(order("ETH", 10_000, "3010")))
    (resting,) = world.tickets(order("ETH", 10_000, "2900", PerpOrderKind.LIMIT))
    send_order(world.venue, resting)
    cancel_order(world.venue, "ETH", resting.cloid, world.server.now_ms | 1)
    assert world.server.signers == [key.address.lower() for key in (OWNER, AGENT, AGENT, AGENT)]


def test_mainnet_and_testnet_sign_other_bytes(world: World) -> None:
    foreign = world.client(is_mainnet=True)
    with pytest.raises(Refused, match="does not exist"):
        send_order(foreign, world.ticket(order("ETH", 10_000, "3010")))
    assert not world.server.orders[-1].cloid
    assert world.size("ETH") == 0
    with hyperliquid(is_mainnet=True) as server:
        main = opened(server)
        assert send_order(main.venue, main.ticket(order("ETH", 10_000, "3010"))).stage is VenueOrderStage.FILLED


@pytest.mark.parametrize(
    ("url", "is_mainnet", "words"),
    [
        pytest.param("https://api.hyperliquid.xyz", False, "is not the testnet", id="mainnet host for the testnet"),
        pytest.param("https://api.hyperliquid-testnet.xyz", True, "is not the mainnet", id="testnet host for the mainnet"),
        pytest.param("ftp://api.hyperliquid.xyz", True, "not an http", id="not http"),
    ],
)
def test_a_published_host_of_the_other_network_is_refused(url: str, is_mainnet: bool, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        HyperliquidConnection(url, is_mainnet=is_mainnet, timeout_s=1)


def test_an_agent_key_signs_no_withdrawal_and_shows_no_key() -> None:
    key = AgentKey(AGENT, is_mainnet=True)
    for kind in ("withdraw3", "usdSend", "approveAgent", "updateLeverage", None):
        with pytest.raises(Refused, match="orders and cancels"):
            key.sign({"type": kind}, 1, None)
    assert AGENT.key.hex() not in repr(key)


# --- The account as the model has it.


def assert_equal_to_the_venue(server: HyperliquidServer, account: MarginAccount) -> None:
    """Every figure is the venue's own; margins above it by the rounding of a rate at most."""
    state = server.state(OWNER.address.lower())
    summary = {name: int(Fraction(value) * 10**6) for name, value in state["marginSummary"].items()}
    gross = margin.gross_notional_raw(account)
    assert margin.account_value_raw(account) == summary["accountValue"]
    assert gross == summary["totalNtlPos"]
    assert 0 <= margin.initial_margin_raw(account) - summary["totalMarginUsed"] <= gross // margin.PPM + 1
    assert (
        0 <= margin.maintenance_margin_raw(account) - int(Fraction(state["crossMaintenanceMarginUsed"]) * 10**6) <= gross // margin.PPM + 1
    )
    unrealised = sum(int(Fraction(row["position"]["unrealizedPnl"]) * 10**6) for row in state["assetPositions"])
    assert margin.unrealised_profit_raw(account) == unrealised


@settings(max_examples=12, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["BTC", "ETH"]), st.integers(-20_000, 20_000), st.integers(-9, 9)), min_size=1, max_size=4),
       st.sampled_from([3, 5, 10, 20]))  # fmt: skip
def test_every_figure_of_the_account_equals_the_venues(trades: list[tuple[str, int, int]], leverage: int) -> None:
    with hyperliquid() as server:
        server.fund(OWNER.address, 200_000)
        world = opened(server)
        server.wallet(OWNER.address).leverages = {"BTC": leverage, "ETH": leverage}
        for coin, size, percent in trades:
            price = server.coin(coin).mark * (Fraction(11, 10) if size > 0 else Fraction(9, 10))
            with contextlib.suppress(Refused):  # too small, or too little margin
                send_order(world.venue, world.ticket(order(coin, size, str(price))))
            server.move(coin, f"{percent}/100")
            server.seed(coin)
            assert_equal_to_the_venue(server, world.venue.read())


def test_markets_have_tiers_fees_and_funding_of_the_venue(world: World) -> None:
    world.server.coin("ETH").is_only_isolated = True
    account = world.venue.read()
    btc = account.market("BTC")
    eth = account.market("ETH")
    assert (btc.asset, btc.size_decimals, btc.lot_raw, btc.fee_ppm) == ("WBTC", 5, 1, 450)
    assert btc.mark * btc.unit == 60_000 * 10**6
    assert btc.funding_daily == 24 * Fraction(1, 80_000)
    assert btc.index_s == START_MS // 1000
    assert [(tier.above_raw, tier.initial_ppm, tier.maintenance_ppm) for tier in btc.tiers] == [
        (0, 50_000, 12_500), (10_000 * 10**6, 50_000, 20_000), (50_000 * 10**6, 100_000, 50_000),
    ]  # fmt: skip
    assert eth.is_paused
    assert not btc.is_paused


@pytest.mark.parametrize("mode", ["unifiedAccount", "portfolioMargin", "dexAbstraction", "somethingNew"])
def test_margin_in_spot_balances__is_not_read_as_empty(world: World, mode: str) -> None:
    world.server.wallet(OWNER.address).mode = mode
    if mode == "unifiedAccount":
        assert world.server.state(OWNER.address.lower())["marginSummary"]["accountValue"] == "0.0", "10,000 are there"
    with pytest.raises(OperatorNeeded, match=f"mode at the venue is {mode}") as caught:
        world.venue.read()
    assert "futures.account" in caught.value.remedy
    world.server.wallet(OWNER.address).mode = "disabled"
    assert margin.account_value_raw(world.venue.read()) == 10_000 * 10**6


def test_a_mode_that_cannot_be_read_or_is_no_word_is_unknown(world: World) -> None:
    world.server.wallet(OWNER.address).mode = {"mode": "default"}  # type: ignore[assignment]
    with pytest.raises(OperatorNeeded, match="mode at the venue is unknown"):
        world.venue.read()
    world.server.read_faults["userAbstraction"] = 503
    with raises_code(Retryable, "answer"):
        world.venue.read()


class FakeAccountModeStore:
    """A record of modes that cannot be written while it has a `fault`."""

    def __init__(self) -> None:
        self.fault: PassingFault | None = None
        self.modes: list[str] = []

    def account_mode(self, account: str) -> tuple[str, int]:
        return "", 0

    def record_account_mode(self, account: str, mode: str, at_s: int) -> None:
        if self.fault is not None:
            raise self.fault
        self.modes.append(mode)


def test_mode_not_recorded_now__makes_no_account_unknown(world: World) -> None:
    record = FakeAccountModeStore()
    record.fault = PassingFault("the store cannot be written: the disk is full")
    client = world.venue.keeping(record)
    assert margin.account_value_raw(client.read()) == 10_000 * 10**6
    record.fault = None
    world.server.wallet(OWNER.address).usd += 1
    client.read()
    assert record.modes == ["default"]


def test_only_a_mode_with_margin_of_its_own_is_recorded(world: World) -> None:
    record = FakeAccountModeStore()
    client = world.venue.keeping(record)
    client.read()
    world.server.wallet(OWNER.address).mode = "unifiedAccount"
    for _ in range(2):
        with raises_code(OperatorNeeded, "position", "unifiedAccount"):
            client.read()
    assert record.modes == ["default", ""]


def test_shared_balance_figures__are_doubted_without_the_mode(world: World) -> None:
    client = world.venue.keeping(FakeAccountModeStore())
    client.read()
    world.server.read_faults["userAbstraction"] = 503
    world.server.wallet(OWNER.address).usd -= 1_000
    assert margin.account_value_raw(client.read()) == 9_000 * 10**6
    world.server.wallet(OWNER.address).mode = "unifiedAccount"
    with pytest.raises(Retryable, match="as with a shared balance, and its mode could not be read"):
        client.read()
    world.server.read_faults.clear()
    with pytest.raises(OperatorNeeded, match="mode at the venue is unifiedAccount"):
        client.read()


def test_float_artefacts__are_read_to_the_base_unit(world: World) -> None:
    world.server.fund(OWNER.address, 1_061_327)
    send_order(world.venue, world.ticket(order("ETH", 30_000, "3010")))
    exact = world.venue.read()
    world.server.is_inexact = True
    summary = world.server.state(OWNER.address.lower())["marginSummary"]
    assert len(summary["totalRawUsd"].split(".")[1]) == 10, summary
    assert world.venue.read() == exact


def test_a_size_or_a_price_with_too_many_places_is_not_rounded(world: World) -> None:
    send_order(world.venue, world.ticket(order("ETH", 30_000, "3010")))
    state = world.server.state(OWNER.address.lower())
    state["assetPositions"][0]["position"]["szi"] = "3.0000000001"
    world.server.state = lambda user: state  # type: ignore[method-assign]
    with pytest.raises(Retryable, match="size of ETH has too many decimal places"):
        world.venue.read()


def test_full_close_below_ten_dollars__is_sent_and_a_part_not(world: World) -> None:
    send_order(world.venue, world.ticket(order("ETH", 40, "3010")))
    with pytest.raises(Refused, match="minimum value"):
        send_order(world.venue, world.ticket(order("ETH", -30, "2990", reduce=True)))
    with pytest.raises(Refused, match="below the venue's minimum"):
        send_order(world.venue, world.ticket(order("ETH", -30, "2990")))
    world.server.move("ETH", "-50/100")
    world.server.seed("ETH")
    assert send_order(world.venue, world.ticket(order("ETH", -40, "1450", reduce=True))).stage is VenueOrderStage.FILLED
    assert world.size("ETH") == 0


def test_transfers_of_one_moment_on_two_pages__count_once(world: World) -> None:
    for number in range(1_203):
        if number % 7 == 0:
            world.server.now_ms += 1
        world.server.fund(OWNER.address, 1)
    for _ in range(3):
        assert world.venue.read().collateral_raw == 11_203 * 10**6
        world.server.now_ms += 1
    world.server.fund(OWNER.address, 1)
    assert world.venue.read().collateral_raw == 11_204 * 10**6


def test_funding_is_in_the_balance_once_it_is_paid(world: World) -> None:
    send_order(world.venue, world.ticket(order("ETH", 10_000, "3010")))
    before = margin.account_value_raw(world.venue.read())
    world.server.pay_funding("ETH")
    account = world.venue.read()
    assert before - margin.account_value_raw(account) == 37_500  # an hour at 1/80,000 of 3,000 USD
    assert margin.funding_pending_raw(account) == 0


@pytest.mark.parametrize("figure", ["accountValue", "totalRawUsd", "crossMaintenanceMarginUsed", "positionValue"])
@pytest.mark.parametrize("factor", ["1.0001", *(pytest.param(size, marks=pytest.mark.slow) for size in ("0.5", "10"))])
def test_venue_that_lies_about_margin__is_not_believed(world: World, figure: str, factor: str) -> None:
    send_order(world.venue, world.ticket(order("ETH", 30_000, "3010")))
    world.venue.read()
    world.server.lie = {figure: Fraction(factor)}
    with pytest.raises(Retryable, match="contradicts itself"):
        world.venue.read()


@pytest.mark.parametrize("figure", ["accountValue", "totalRawUsd", "totalNtlPos", "totalMarginUsed"])
def test_other_margin__is_doubted_without_an_isolated_position(world: World, figure: str) -> None:
    state = world.server.state(OWNER.address.lower())
    state["marginSummary"][figure] = "9000.0"
    world.server.state = lambda user: state  # type: ignore[method-assign]
    with pytest.raises(Retryable, match=f"cross margin \\({figure}\\)"):
        world.venue.read()


def test_a_mark_that_differs_between_two_answers_is_not_believed(world: World) -> None:
    send_order(world.venue, world.ticket(order("ETH", 30_000, "3010")))
    context = world.server.context
    world.server.context = lambda coin: {**context(coin), "markPx": "3100.0"}  # type: ignore[method-assign]
    with pytest.raises(Retryable, match="contradicts itself on the value of ETH"):
        world.venue.read()


def test_isolated_margin__pauses_and_missing_markets_stop(world: World) -> None:
    world.server.wallet(OWNER.address).is_isolated.add("ETH")
    account = world.venue.read()
    assert [market.market for market in account.markets if market.is_paused] == ["ETH"]
    assert account.market("ETH").is_isolated
    absent = HyperliquidClient(world.connection, OWNER.address, {"XYZ": ""}, lambda: 0)
    with pytest.raises(Refused, match="no market XYZ"):
        absent.read()


# --- Orders.


def test_market_orders_walk_the_book_up_to_their_bound(world: World) -> None:
    state = send_order(world.venue, world.ticket(order("ETH", lots("ETH", "12"), "3006")))
    assert (state.stage, state.filled_raw) == (VenueOrderStage.FILLED, lots("ETH", "12"))
    assert state.quote_change_raw == -(10 * 3_003 + 2 * 3_006) * 10**6
    assert state.fee_raw == 16_218_900  # 0.045 % of 36,042 USD


def test_a_thin_book_fills_a_part_and_no_more(world: World) -> None:
    state = send_order(world.venue, world.ticket(order("ETH", lots("ETH", "12"), "3004")))
    assert (state.stage, state.filled_raw) == (VenueOrderStage.CANCELED, lots("ETH", "10"))
    assert world.size("ETH") == 10
    with pytest.raises(Refused, match="could not immediately match"):
        send_order(world.venue, world.ticket(order("ETH", lots("ETH", "1"), "3004")))


@pytest.mark.parametrize("states_opening_size", [False, True], ids=["rest of now", "rest at the opening"])
def test_limit_orders__rest_fill_by_price_then_time_and_end(world: World, states_opening_size: bool) -> None:
    world.server.states_opening_size = states_opening_size
    ticket = world.ticket(order("ETH", lots("ETH", "1"), "2998.25", PerpOrderKind.LIMIT))
    assert send_order(world.venue, ticket).stage is VenueOrderStage.OPEN
    assert world.server.orders[-1].price == Fraction("2998.2")  # a buy is rounded down to its tick
    world.server.fund(key_of(9).address, 100_000)
    later = world.server.place(key_of(9).address.lower(), "ETH", True, Fraction("2998.2"), Fraction(1), "Gtc")
    world.server.place(key_of(8).address.lower(), "ETH", False, Fraction("2998.2"), Fraction("0.25"), "Ioc", False)
    state = world.venue.state_of(ticket.cloid)
    assert "resting" in later
    assert state.stage is VenueOrderStage.OPEN
    assert state.filled_raw == 0
    world.server.fund(key_of(8).address, 100_000)
    world.server.place(key_of(8).address.lower(), "ETH", False, Fraction("2998.2"), Fraction("0.25"), "Ioc", False)
    assert world.venue.state_of(ticket.cloid).filled_raw == 2_500
    ended = cancel_order(world.venue, "ETH", ticket.cloid, world.server.now_ms | 1)
    assert (ended.stage, ended.filled_raw) == (VenueOrderStage.CANCELED, 2_500)


@settings(max_examples=15, deadline=None)
@given(st.integers(-3, 3).filter(bool), st.integers(-8, 8).filter(bool))
def test_reduce_only_orders_never_turn_a_position(size_before: int, ordered_size: int) -> None:
    with hyperliquid() as server:
        server.fund(OWNER.address, 50_000)
        world = opened(server)
        send_order(world.venue, world.ticket(order("ETH", size_before * 10_000, "3100" if size_before > 0 else "2900")))
        ticket = world.ticket(order("ETH", ordered_size * 10_000, "3100" if ordered_size > 0 else "2900", reduce=True))
        if size_before * ordered_size > 0:
            with pytest.raises(Refused, match="would increase position"):
                send_order(world.venue, ticket)
            assert world.size("ETH") == size_before
            return
        send_order(world.venue, ticket)
        assert world.size("ETH") * size_before >= 0
        assert abs(world.size("ETH")) == max(0, abs(size_before) - abs(ordered_size))


def test_orders_below_ten_dollars_reach_no_venue(world: World) -> None:
    before = world.posted()
    with pytest.raises(Refused, match=r"9\.9 USD is below the venue's minimum of 10 USD") as caught:
        send_order(world.venue, world.ticket(order("ETH", 33, "3000")))
    assert caught.value.code == ErrorCode.AMOUNT
    assert world.posted() == before


def test_little_margin_and_delisted_markets__are_refused(world: World) -> None:
    with pytest.raises(Refused, match="Insufficient margin"):
        send_order(world.venue, world.ticket(order("BTC", lots("BTC", "10"), "70000")))
    world.server.coin("BTC").is_delisted = True
    with pytest.raises(Refused, match="delisted"):
        send_order(world.venue, world.ticket(order("BTC", lots("BTC", "0.1"), "70000")))
    assert world.venue.read().market("BTC").is_paused


def test_a_client_without_a_key_reads_and_sends_nothing(world: World) -> None:
    reader = HyperliquidClient(world.connection, OWNER.address, LATEST, lambda: world.server.now_ms)
    reader.read()
    with pytest.raises(Refused, match="no agent key"):
        send_order(reader, world.ticket(order("ETH", 10_000, "3010")))


# --- Exactly once.


@pytest.mark.parametrize("fault", ["lost", "late", "garbled", "slow"])
def test_accepted_order_of_a_lost_answer__happens_once(world: World, fault: str) -> None:
    ticket = world.ticket(order("ETH", 10_000, "3010"))
    world.server.faults = [fault]
    world.connection._timeout_s = 4 if fault == "slow" else 60
    with raises_code(Retryable, "unknown_if_sent"):
        send_order(world.venue, ticket)
    state = world.venue.state_of(ticket.cloid)
    assert state.stage is VenueOrderStage.FILLED
    assert world.size("ETH") == 1
    restarted = world.client()
    with pytest.raises(Retryable) as caught:  # the nonce is spent, and that is no refusal of the order
        send_order(restarted, ticket)
    assert caught.value.code == ErrorCode.UNKNOWN_IF_SENT
    assert restarted.state_of(ticket.cloid) == state
    assert world.size("ETH") == 1


@pytest.mark.parametrize("fault", ["dropped", "down"])
def test_an_order_that_never_arrived_is_unknown_until_it_is_dead(world: World, fault: str) -> None:
    ticket = world.ticket(order("ETH", 10_000, "3010"))
    world.server.faults = [fault]
    with raises_code(Retryable, "unknown_if_sent"):
        send_order(world.venue, ticket)
    assert world.venue.state_of(ticket.cloid).stage is VenueOrderStage.UNKNOWN
    assert not world.venue.is_order_dead(ticket.cloid, ticket.expires_ms)
    world.server.now_ms = ticket.expires_ms + 1
    assert world.venue.is_order_dead(ticket.cloid, ticket.expires_ms)
    assert world.size("ETH") == 0


def test_an_order_that_arrives_after_its_end_does_not_happen(world: World) -> None:
    ticket = world.ticket(order("ETH", 10_000, "3010"))
    send_order(world.venue, ticket)
    (late,) = world.tickets(order("ETH", 20_000, "3010"))
    body = world.client()._key.sign(  # type: ignore[union-attr]
        {"type": "order", "orders": [], "grouping": "na"}, late.nonce_ms, late.expires_ms
    )
    world.server.now_ms = late.expires_ms + 1
    assert "expired" in world.server.replay(body)["response"]


def test_clocks_that_differ_never_declare_an_order_dead_too_soon(world: World) -> None:
    ticket = world.ticket(order("ETH", 10_000, "3010"))
    ahead = HyperliquidClient(
        world.connection, OWNER.address, LATEST, lambda: world.server.now_ms + 10 * VALID_MS, AgentKey(AGENT, is_mainnet=False)
    )
    assert not ahead.is_order_dead(ticket.cloid, ticket.expires_ms)
    assert world.posted() == 0


@settings(max_examples=15, deadline=None)
@given(st.lists(st.sampled_from(["", "lost", "late", "garbled", "dropped", "down"]), min_size=1, max_size=6), st.integers(0, 3))
def test_orders_posted_until_final_happen_exactly_once(faults: list[str], hidden: int) -> None:
    with hyperliquid() as server:
        world = opened(server)
        server.bodies.clear()
        ticket = world.ticket(order("ETH", 10_000, "3010"))
        server.faults, server.hides_orders = list(faults), hidden
        for _ in range(12):
            with contextlib.suppress(Retryable):
                send_order(world.client(), ticket)  # a new client each time, as after a kill
            with contextlib.suppress(Retryable):
                if world.client().state_of(ticket.cloid).is_final:
                    break
            server.now_ms += 500
        assert world.client().state_of(ticket.cloid).stage is VenueOrderStage.FILLED
        assert world.size("ETH") == 1
        assert len({body["nonce"] for body in server.bodies}) == 1


# --- Agents.


def test_an_agent_that_has_expired_sends_nothing_and_is_named(world: World) -> None:
    assert world.venue.require_agent(world.server.now_ms).name == "trimtab"
    with pytest.raises(OperatorNeeded, match="ends too soon"):
        world.venue.require_agent(world.server.now_ms + 31 * DAY_MS)
    world.server.now_ms += 31 * DAY_MS
    with pytest.raises(Refused, match="does not exist"):
        send_order(world.venue, world.ticket(order("ETH", 10_000, "3010")))
    assert world.size("ETH") == 0
    with pytest.raises(OperatorNeeded, match="not an agent of"):
        world.venue.require_agent(world.server.now_ms)


def test_a_former_agent_is_never_approved_again(world: World) -> None:
    server = world.server
    now = world.server.now_ms + 1
    with pytest.raises(Refused, match="posted for approval before"):
        approve_agent(world.connection, OWNER, HyperliquidAgent("second", AGENT.address, now + DAY_MS), now, ())
    send_order(world.venue, world.ticket(order("ETH", 10_000, "3010")))
    body = server.bodies[-1]
    assert "nonce" in server.replay(body)["response"]
    server.prune(AGENT.address)  # the venue forgets the agent with its nonces: only our records know it
    with pytest.raises(Refused, match="posted for approval before"):
        approve_agent(world.connection, OWNER, HyperliquidAgent("second", AGENT.address, now + DAY_MS), now, {AGENT.address})
    approve_agent(world.connection, OWNER, HyperliquidAgent("second", AGENT.address, now + DAY_MS), now, ())
    assert server.replay(body)["status"] == "ok"
    assert world.size("ETH") == 2


def test_a_known_account_and_the_owner_are_no_agents(world: World) -> None:
    until = world.server.now_ms + DAY_MS
    with pytest.raises(Refused, match="owner's key cannot be an agent"):
        approve_agent(world.connection, OWNER, HyperliquidAgent("x", OWNER.address, until), world.server.now_ms, ())
    with pytest.raises(Refused, match="known to the venue"):
        require_fresh_agent(world.connection, OWNER.address, ())


@pytest.mark.parametrize("name", ["", " ", "a" * 17, "x valid_until 1", "täg"])
def test_an_agent_always_has_a_name(world: World, name: str) -> None:
    now = world.server.now_ms + 1
    with pytest.raises(ConfigError, match="is not a valid name"):
        approve_agent(world.connection, OWNER, HyperliquidAgent(name, key_of(3).address, now + DAY_MS), now, ())
    for until in (now, now + 181 * DAY_MS):
        with pytest.raises(ConfigError, match="180 days"):
            approve_agent(world.connection, OWNER, HyperliquidAgent("ok", key_of(3).address, until), now, ())


def test_the_name_that_is_signed_is_the_name_that_is_posted(world: World) -> None:
    action = world.server.bodies[0]["action"]
    assert action["agentName"] == f"trimtab valid_until {START_MS + 30 * DAY_MS}"
    assert world.server.agents[0].until_ms == START_MS + 30 * DAY_MS


def test_the_librarys_own_orders_are_taken_by_the_local_venue(world: World) -> None:
    """The server is no mirror of our client: the venue's library trades on it too."""
    meta = world.server.meta()
    spot = {"universe": [], "tokens": []}
    library = Exchange(OWNER, world.server.url, meta=meta, spot_meta=spot)  # type: ignore[arg-type]
    world.server.now_ms = int(time.time() * 1000)
    answer = library.order("ETH", True, 0.5, 3_010.0, {"limit": {"tif": "Ioc"}})
    assert answer["response"]["data"]["statuses"][0]["filled"]["totalSz"] == "0.5"
    assert library.order("ETH", True, 0.5, 3_010.0, {"limit": {"tif": "Alo"}})["response"]["data"]["statuses"][0]["error"].startswith(
        "Post only"
    )


# --- The server keeps the venue's rules.


def test_only_the_highest_nonces_are_kept_and_each_is_taken_once() -> None:
    with hyperliquid(nonces_kept=3) as server:
        for nonce in (5, 3, 9, 7):
            server.use_nonce("x", START_MS + nonce)
        assert server.nonces["x"] == [START_MS + nonce for nonce in (5, 7, 9)]
        for wrong in (4, 5, 9, 2 * DAY_MS, -3 * DAY_MS):
            with pytest.raises(Exception, match="Invalid nonce"):
                server.use_nonce("x", START_MS + wrong)
        server.use_nonce("x", START_MS + 6)


def test_a_slow_or_absent_venue_is_a_retry_and_never_a_zero(world: World) -> None:
    absent = HyperliquidConnection("http://127.0.0.1:9", is_mainnet=False, timeout_s=1)
    lonely = HyperliquidClient(absent, OWNER.address, LATEST, lambda: 0)
    for call in (lonely.read, lonely.agents, lambda: lonely.state_of("0x" + "0" * 32)):
        with pytest.raises(Retryable, match="did not answer") as caught:
            call()
        assert "127.0.0.1" not in str(caught.value)
    assert isinstance(caught.value, TrimtabError)


def test_ticks_of_the_server_are_the_documented_ones() -> None:
    coin = Coin("X", 1, Fraction(1), (("0.0", 10),), 10)
    assert [coin.tick_ok(Fraction(price)) for price in ("1234.5", "1234.56", "0.001234", "0.0012345", "123456")] == [
        True, False, False, False, True,
    ]  # fmt: skip
    assert Coin("Y", 0, Fraction(1), (("0.0", 10),), 10).tick_ok(Fraction("0.001234"))
    assert replace(coin, size_decimals=0).tick_ok(Fraction("0.012345"))
