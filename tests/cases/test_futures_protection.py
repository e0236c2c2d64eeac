"""Whole steps and runs at a venue that fails in part, refuses, or limits requests: what protects the account acts all the same."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from agent import wiring
from agent.app import Agent
from agent.app.money import shutdown
from agent.errors import Retryable
from agent.execution.step_context import OutcomeKind
from agent.layers.futures.requests import Deleverage
from agent.layers.futures.state import margin_account
from agent.localchain import LocalChain
from agent.margin import account as margin
from agent.model import FuturesReading, IntentState
from agent.model.futures import StaleReadKind
from agent.signing.futures import LIMIT_TAG
from agent.venues.hyperliquid.budget import RESERVED_WEIGHT, WEIGHT_PER_MINUTE, RequestBudget
from tests.support import agents
from tests.support.futures import EVEN
from tests.support.hyperliquid import venue_changes
from tests.support.hyperliquid_server import HyperliquidServer, ServerPosition
from tests.support.perpetuals.chain_protection import (
    FOUR_MINUTES_S,
    MAX_LEVERAGE,
    TEN_MINUTES_S,
    UPGRADE,
    actions,
    crash,
    leverage,
    open_book,
    pass_time,
    run_until,
    server,
    step,
)
from tests.support.samples import slow

__all__ = ["server"]

FOUR = {"ETH": "30%", "BTC": "-20%", "DOGE": "25%", "SOL": "25%"}


# --- Reads that a reduction does not need.

SIDE_READS = [
    "userFees",
    "userNonFundingLedgerUpdates",
    "userFunding",
    "activeAssetData",
    "userAbstraction",
    "extraAgents",
    "frontendOpenOrders",
    "l2Book",
]


def fail(server: HyperliquidServer, status: int, *reads: str) -> None:
    server.read_faults = dict.fromkeys(reads, status)


FAILING = {read: (503, [read]) for read in SIDE_READS} | {f"all {status}": (status, SIDE_READS) for status in (503, 429, 404)}


QUICK = ("l2Book", "all 429")
"""Members that the quick suite plays; the others are slow."""


def slow_unless_quick(name: str, *values: object) -> object:
    """Return the row of a table of cases."""
    return pytest.param(*values, id=name, marks=[] if name in QUICK else pytest.mark.slow)


@pytest.mark.parametrize(("status", "reads"), [slow_unless_quick(name, *fault) for name, fault in FAILING.items()])
def test_a_reduction_needs_account_and_prices_alone(
    server: HyperliquidServer, anvil_chain: LocalChain, tmp_path: Path, status: int, reads: list[str]
) -> None:
    with agents.agent_on(anvil_chain, tmp_path, venue_changes(server, {"ETH": "80%", "BTC": "20%"}), EVEN) as agent:
        open_book(agent, anvil_chain)
        crash(server, "-36/100", "ETH")
        fail(server, status, *reads)
        assert leverage(server, anvil_chain) > MAX_LEVERAGE
        began_s = anvil_chain.now_s()
        outcome = step(agent)
        assert leverage(server, anvil_chain) <= MAX_LEVERAGE, outcome.reason
        assert anvil_chain.now_s() - began_s <= 10
    pass_time(anvil_chain, 61)
    crash(server, "-30/100", "ETH")
    with agents.reopened_agent(anvil_chain, agent.context.loaded_config) as restarted:
        outcome = step(restarted)
        assert leverage(server, anvil_chain) <= MAX_LEVERAGE, outcome.reason


@pytest.mark.parametrize("read", [slow_unless_quick(read, read) for read in SIDE_READS if read != "l2Book"])
def test_a_part_that_may_be_old_opens_nothing(server: HyperliquidServer, anvil_chain: LocalChain, tmp_path: Path, read: str) -> None:
    changes = venue_changes(server, {"ETH": "80%", "BTC": "-20%"}) | {"futures.leverage_band": "10%"}
    with agents.agent_on(anvil_chain, tmp_path, changes, EVEN) as agent:
        server.wallet(anvil_chain.wallet.address).usd -= 5_000
        open_book(agent, anvil_chain)
        sent = len(actions(server))
        pass_time(anvil_chain, 700)
        server.wallet(anvil_chain.wallet.address).usd += 5_000
        if read == "activeAssetData":  # read of markets without a position, whose leverage the account does not state
            server.place(anvil_chain.wallet.address.lower(), "BTC", True, server.coin("BTC").mark * 2, Fraction(1), "Ioc", reduce=True)
            assert "BTC" not in server.wallet(anvil_chain.wallet.address).positions
        fail(server, 503, read)
        outcome = step(agent)
        assert len(actions(server)) == sent, outcome.reason
        assert "HTTP 503" in outcome.reason
        assert outcome.step_input.snapshot.layer(FuturesReading).stale_reads
        fail(server, 503)
        step(agent)
        assert len(actions(server)) > sent


UNREADABLE_ROWS = {"side": "?", "sz": "0.0", "coin": "XYZ", "timestamp": None}
"""Fields of an open order, each with a value that the venue does not document."""


@pytest.mark.parametrize("field", ["coin", "side", *slow(field for field in UNREADABLE_ROWS if field not in ("coin", "side"))])
def test_an_open_order_that_cannot_be_read_holds_up_no_reduction(
    server: HyperliquidServer, anvil_chain: LocalChain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, field: str
) -> None:
    info = HyperliquidServer.info
    row = {
        "coin": "ETH", "side": "B", "limitPx": "2900.0", "sz": "1.0", "origSz": "1.0", "timestamp": 1, "reduceOnly": False,
        "cloid": "0x" + LIMIT_TAG.hex().ljust(32, "0"), field: UNREADABLE_ROWS[field],
    }  # fmt: skip

    def with_row(venue: HyperliquidServer, body: dict[str, Any]) -> object:
        return [row] if body["type"] == "frontendOpenOrders" else info(venue, body)

    with agents.agent_on(anvil_chain, tmp_path, venue_changes(server, {"ETH": "100%"}), EVEN) as agent:
        open_book(agent, anvil_chain)
        monkeypatch.setattr(HyperliquidServer, "info", with_row)
        crash(server, "-36/100", "ETH")
        reading = agent.step_input().snapshot.layer(FuturesReading)
        assert [stale.kind for stale in reading.stale_reads] == [StaleReadKind.ORDERS], reading.unknown_reason
        outcome = step(agent)
        assert leverage(server, anvil_chain) <= MAX_LEVERAGE, outcome.reason


def test_old_agent_list_without_ours__holds_up_no_reduction(server: HyperliquidServer, anvil_chain: LocalChain, tmp_path: Path) -> None:
    """The key may have been approved since: the venue decides, which rejects a key that it does not know."""
    with agents.agent_on(anvil_chain, tmp_path, venue_changes(server, {"ETH": "80%", "BTC": "20%"}), EVEN) as agent:
        open_book(agent, anvil_chain)
        approved_agents = server.agents
        server.agents = []
        pass_time(anvil_chain, 120)
        assert "no agent named" in agent.step_input().snapshot.layer(FuturesReading).blocked_reason
        server.agents = approved_agents
        pass_time(anvil_chain, 61)
        fail(server, 503, "extraAgents")
        crash(server, "-36/100", "ETH")
        assert leverage(server, anvil_chain) > MAX_LEVERAGE
        outcome = step(agent)
        assert leverage(server, anvil_chain) <= MAX_LEVERAGE, outcome.reason


def test_transfer_listed_after_its_cash__is_no_loss(server: HyperliquidServer, anvil_chain: LocalChain, tmp_path: Path) -> None:
    """The venue's ledger of transfers may lag behind its account; the sum is read once more in the next look."""
    owner = anvil_chain.wallet.address.lower()
    with agents.agent_on(anvil_chain, tmp_path, venue_changes(server, {"ETH": "100%"}), EVEN) as agent:

        def result_raw() -> int:
            account = margin_account(agent.step_input().snapshot)
            assert account is not None
            return account.realised_raw

        before = result_raw()
        server.wallet(owner).usd -= 4_000
        assert result_raw() == before - 4_000 * 10**6
        server.transfers.append({"user": owner, "time": server.now_ms, "delta": {"type": "withdraw", "usdc": "4000", "fee": "0"}})
        assert result_raw() == before


def test_failed_look__is_repeated_in_seconds_at_any_interval(server: HyperliquidServer, anvil_chain: LocalChain, tmp_path: Path) -> None:
    with agents.agent_on(anvil_chain, tmp_path, venue_changes(server, {"ETH": "100%"}), EVEN) as agent:
        open_book(agent, anvil_chain)
        crash(server, "-30/100", "ETH")
        began_s = anvil_chain.now_s()
        fail(server, 500, "clearinghouseState")
        looks = []
        for now_s, _ in run_until(agent, anvil_chain, began_s + 3_000, "1h"):
            looks.append(now_s - began_s)
            if len(looks) == 3:
                fail(server, 500)
            if leverage(server, anvil_chain) <= MAX_LEVERAGE:
                break
        assert leverage(server, anvil_chain) <= MAX_LEVERAGE
        assert len(looks) == 4
        assert looks[-1] <= 75, looks


# --- A venue that refuses.


@pytest.mark.parametrize(
    ("every", "refused_s"),
    [
        pytest.param("60s", TEN_MINUTES_S, marks=pytest.mark.slow),
        pytest.param("1h", TEN_MINUTES_S, marks=pytest.mark.slow),
        pytest.param("1h", FOUR_MINUTES_S, marks=pytest.mark.slow),
    ],
)
def test_refusing_venue__delays_an_emergency_by_one_minute_more(
    server: HyperliquidServer, anvil_chain: LocalChain, tmp_path: Path, every: str, refused_s: int
) -> None:
    changes = venue_changes(server, {"ETH": "100%"}, "5x", max_leverage="5.5x", max_utilisation="100%", stress_move="5%")
    with agents.agent_on(anvil_chain, tmp_path, changes, EVEN) as agent:
        open_book(agent, anvil_chain)
        crash(server, "-17/100", "ETH")
        account = margin_account(agent.step_input().snapshot)
        assert account is not None
        assert margin.account_value_raw(account) < Fraction(12, 10) * margin.maintenance_margin_raw(account)
        server.refusal = UPGRADE
        began_s = anvil_chain.now_s()
        size = server.wallet(anvil_chain.wallet.address).positions["ETH"].size
        for now_s, _ in run_until(agent, anvil_chain, began_s + 1_000, every):
            anvil_chain.refresh_feeds()
            if now_s - began_s >= refused_s:
                server.refusal = ""
            if server.wallet(anvil_chain.wallet.address).positions.get("ETH", ServerPosition()).size < size:
                break
        assert now_s - began_s <= refused_s + 130


# --- A venue that limits requests.


@pytest.mark.parametrize("weight", [500, *slow([1_200])])
def test_crash_of_four_markets__is_reduced_within_a_minute(
    server: HyperliquidServer, anvil_chain: LocalChain, tmp_path: Path, weight: int
) -> None:
    with agents.agent_on(anvil_chain, tmp_path, venue_changes(server, FOUR, "2.5x"), EVEN) as agent:
        open_book(agent, anvil_chain)
        assert len(server.wallet(anvil_chain.wallet.address).positions) == 4
        pass_time(anvil_chain, 600)
        crash(server, "-36/100", "ETH", "DOGE", "SOL")
        server.weight_per_minute = weight
        assert leverage(server, anvil_chain) > MAX_LEVERAGE
        sent = len(actions(server))
        began_s = anvil_chain.now_s()
        outcome = step(agent)
        assert leverage(server, anvil_chain) <= MAX_LEVERAGE, outcome.reason
        assert anvil_chain.now_s() - began_s <= 60
        [action] = actions(server)[sent:]
        assert len(action["orders"]) == 4
        assert all(order["r"] for order in action["orders"])
        assert len({order["c"] for order in action["orders"]}) == 4
        if weight == 1_200:
            assert server.limited == 0


def test_due_reduction__waits_for_no_budget_of_other_reads(server: HyperliquidServer, anvil_chain: LocalChain, tmp_path: Path) -> None:
    with agents.agent_on(anvil_chain, tmp_path, venue_changes(server, FOUR, "2.5x"), EVEN) as agent:
        open_book(agent, anvil_chain)
        crash(server, "-36/100", "ETH", "DOGE", "SOL")
        assert agent.context.venue_client is not None
        agent.context.venue_client._connection._budget.spend(WEIGHT_PER_MINUTE - RESERVED_WEIGHT)  # type: ignore[union-attr]  # it has one
        began_s = anvil_chain.now_s()
        sent_s: list[int] = []
        listener = agents.at_send(1, lambda: sent_s.append(anvil_chain.now_s()))
        outcome = agent.rebalance(send=True, confirm=agents.yes, progress=listener)
        assert leverage(server, anvil_chain) <= MAX_LEVERAGE, outcome.reason
        assert sent_s[0] - began_s <= 10


def use_up(agent: Agent, weight_left: int) -> None:
    """Spend the agent's budget of requests for this minute, up to what is left."""
    assert agent.context.venue_client is not None
    budget = agent.context.venue_client._connection._budget
    assert budget is not None
    budget.spend(budget.left() - weight_left)


def test_newly_confirmed_config__keeps_the_budget_and_the_pause(server: HyperliquidServer, anvil_chain: LocalChain, tmp_path: Path) -> None:
    with agents.agent_on(anvil_chain, tmp_path, venue_changes(server, FOUR, "2.5x"), EVEN) as agent:
        use_up(agent, 100)
        agent.context.prior_day_pause.begin(anvil_chain.now_s(), "no answer")
        agent.context = wiring.reopen_context(agent.context, agent.context.loaded_config)
        assert agent.context.prior_day_pause.failure_text == "no answer"
        assert agent.context.venue_client is not None
        budget = agent.context.venue_client._connection._budget
        assert budget is not None
        assert budget.left() <= 100


BUSY_VENUES: dict[str, Callable[[HyperliquidServer, Agent], None]] = {
    "a budget without room for side reads": lambda _, agent: use_up(agent, RESERVED_WEIGHT),
    "a budget without room for the account": lambda _, agent: use_up(agent, 0),
    "a venue that limits every read": lambda server, _: fail(server, 429, "*"),
    "a venue that is down": lambda server, _: fail(server, 503, "*"),
}


@pytest.mark.parametrize("venue", BUSY_VENUES)
def test_an_exit_on_chain_waits_for_no_venue(server: HyperliquidServer, chain: LocalChain, tmp_path: Path, venue: str) -> None:
    changes = venue_changes(server, {"BTC": "100%"}) | {"portfolio.assets.0.stop_loss": "2700", "policy.confirm_blocks": 2}
    with agents.agent_on(chain, tmp_path, changes, EVEN) as agent:
        open_book(agent, chain)
        pass_time(chain, 700)
        chain.move_market({"WETH": 2_500})
        for _ in range(2):
            pass_time(chain, 12)
        BUSY_VENUES[venue](server, agent)
        began_s = chain.now_s()
        sent_s: list[int] = []
        outcome = agent.rebalance(send=True, confirm=agents.yes, progress=agents.at_send(2, lambda: sent_s.append(chain.now_s())))
        assert chain.balance("WETH") == 0, outcome.reason
        assert sent_s[0] - began_s <= 10


@pytest.mark.parametrize("venue", ["a venue that limits every read", *slow([name for name in BUSY_VENUES if "limits" not in name])])
def test_a_stop_waits_for_no_venue(server: HyperliquidServer, chain: LocalChain, tmp_path: Path, venue: str) -> None:
    with agents.agent_on(chain, tmp_path, venue_changes(server, {"BTC": "100%"}), EVEN) as agent:
        open_book(agent, chain)
        pass_time(chain, 700)
        BUSY_VENUES[venue](server, agent)
        began_s = chain.now_s()
        report = shutdown.stop(agent, to_stable=True, send=True, confirm=lambda _: True)
        assert (report.state, chain.balance("WETH")) == ("stopped", 0), report.reason
        assert chain.now_s() - began_s <= 20


def test_a_calm_look_waits_for_what_the_budget_left_out(server: HyperliquidServer, anvil_chain: LocalChain, tmp_path: Path) -> None:
    changes = venue_changes(server, {"BTC": "100%"}) | {"portfolio.assets.0.stop_loss": "2700"}
    with agents.agent_on(anvil_chain, tmp_path, changes, EVEN) as agent:
        open_book(agent, anvil_chain)
        pass_time(anvil_chain, 700)
        for weight_left in (RESERVED_WEIGHT, 0):
            use_up(agent, weight_left)
            reading = agent.step_input().snapshot.layer(FuturesReading)
            assert (reading.account is not None, reading.stale_reads) == (True, ())
            pass_time(anvil_chain, 700)


@pytest.mark.parametrize("status", [429, *slow([503])])
def test_a_calm_look_waits_for_a_venue_that_fails_for_seconds(
    server: HyperliquidServer, anvil_chain: LocalChain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    pause = RequestBudget.pause

    def pause_and_recover(budget: RequestBudget, seconds: float) -> None:
        pause(budget, seconds)
        fail(server, status)

    with agents.agent_on(anvil_chain, tmp_path, venue_changes(server, {"BTC": "100%"}), EVEN) as agent:
        open_book(agent, anvil_chain)
        pass_time(anvil_chain, 700)
        monkeypatch.setattr(RequestBudget, "pause", pause_and_recover)
        fail(server, status, "*")
        assert agent.step_input().snapshot.layer(FuturesReading).account is not None


def test_a_calm_look_costs_little_of_the_budget(server: HyperliquidServer, anvil_chain: LocalChain, tmp_path: Path) -> None:
    with agents.agent_on(anvil_chain, tmp_path, venue_changes(server, FOUR, "2x"), EVEN) as agent:
        open_book(agent, anvil_chain)
        step(agent)
        before = len(server.weights)
        assert step(agent).kind is OutcomeKind.HOLD
        assert sum(weight for _, weight in server.weights[before:]) <= 22


# --- Several orders in one action.


def test_refused_order_of_an_action__counts_for_its_market(server: HyperliquidServer, anvil_chain: LocalChain, tmp_path: Path) -> None:
    with agents.agent_on(anvil_chain, tmp_path, venue_changes(server, FOUR, "2.5x"), EVEN) as agent:
        open_book(agent, anvil_chain)
        crash(server, "-36/100", "ETH", "DOGE", "SOL")
        sent = len(actions(server))
        server.refusal = UPGRADE
        step(agent)
        [action] = actions(server)[sent:]
        markets = {server.coins[order["a"]].name for order in action["orders"]}
        assert len(markets) == 4
        assert {failures.exit_name for failures in agent.step_input().history.failures.failed_exits} == markets


@pytest.mark.parametrize("fault", ["lost", *slow(["late", "garbled"])])
def test_unanswered_order_of_an_action__is_carried_out_once(
    server: HyperliquidServer, anvil_chain: LocalChain, tmp_path: Path, fault: str
) -> None:
    with agents.agent_on(anvil_chain, tmp_path, venue_changes(server, FOUR, "2.5x"), EVEN) as agent:
        open_book(agent, anvil_chain)
        crash(server, "-36/100", "ETH", "DOGE", "SOL")
        sent = len(actions(server))
        server.faults = [fault]
        outcome = step(agent)
        assert outcome.kind is OutcomeKind.DONE, outcome.reason
        [action] = actions(server)[sent:]
        journal = agent.context.store.journal
        by_cloid = {str(intent.tx_hash): intent for intent in journal.intents()}
        for order in action["orders"]:
            intent = by_cloid[order["c"]]
            assert intent.state is IntentState.FINAL
            assert intent.receipt is not None
            fills = [fill for fill in server.fills if fill["cloid"] == order["c"]]
            assert sum(Fraction(fill["sz"]) for fill in fills) == Fraction(order["s"])
        assert journal.open_intents() == () == journal.unbooked_intents()
        assert len({intent.tx.nonce for intent in journal.intents()}) == len(journal.intents())


def test_action_that_never_arrived__is_sent_again_once_dead(server: HyperliquidServer, anvil_chain: LocalChain, tmp_path: Path) -> None:
    with agents.agent_on(anvil_chain, tmp_path, venue_changes(server, FOUR, "2.5x"), EVEN) as agent:
        open_book(agent, anvil_chain)
        crash(server, "-36/100", "ETH", "DOGE", "SOL")
        server.faults = ["dropped"]
        with pytest.raises(Retryable, match="outcome of the order"):
            step(agent)
        sent = len(actions(server))
        with pytest.raises(Retryable, match="outcome of an earlier order"):
            step(agent)
        assert len(actions(server)) == sent
        anvil_chain.node.mine_at(anvil_chain.now_s() + agent.context.config.execution.deadline + 1)
        outcome = step(agent)
        assert leverage(server, anvil_chain) <= MAX_LEVERAGE, outcome.reason
        assert len(actions(server)) == sent + 1
        assert (
            "expired" in server.replay(next(body for body in reversed(server.bodies[:-1]) if body["action"]["type"] == "order"))["response"]
        )


def test_an_order_that_cannot_go_holds_up_no_other_of_its_action(
    server: HyperliquidServer, anvil_chain: LocalChain, tmp_path: Path
) -> None:
    with agents.agent_on(anvil_chain, tmp_path, venue_changes(server, FOUR, "2.5x"), EVEN) as agent:
        open_book(agent, anvil_chain)
        crash(server, "-36/100", "ETH", "DOGE", "SOL")
        server.move("SOL", "0")
        server.seed("SOL", step="0.1")
        sent = len(actions(server))
        leverage_after_crash = leverage(server, anvil_chain)
        outcome = step(agent)
        reductions = actions(server)[sent:]
        assert [len(action["orders"]) for action in reductions] == [3, 3], outcome.reason
        assert "SOL" in outcome.reason
        assert leverage(server, anvil_chain) <= MAX_LEVERAGE < leverage_after_crash
        anvil_chain.node.mine_at(anvil_chain.now_s() + 60)
        assert "max_reduction_per_day is used up" in step(agent).reason
        assert len(actions(server)) == sent + 2


def test_order_left_out__reduces_no_other_market_twice(server: HyperliquidServer, anvil_chain: LocalChain, tmp_path: Path) -> None:
    """SOL has no bids, and is neither the first nor the last of the four."""
    with agents.agent_on(anvil_chain, tmp_path, venue_changes(server, FOUR, "2.5x"), EVEN) as agent:
        open_book(agent, anvil_chain)
        server.move("SOL", "0")
        server.seed("SOL", step="0.1")
        sent = len(actions(server))
        agent.adjust_futures(Deleverage(10_000), send=True, confirm=agents.yes)
        numbers = [order["a"] for action in actions(server)[sent:] for order in action["orders"]]
        assert sorted(numbers) == [0, 1, 2]


# --- One market's setting, and an isolated position.


def isolate(server: HyperliquidServer, chain: LocalChain, coin: str, size: str, usd: int) -> None:
    """Move margin into an isolated position, as another program may."""
    wallet = server.wallet(chain.wallet.address)
    market = server.coin(coin)
    wallet.usd -= usd
    wallet.isolated[coin] = (ServerPosition(Fraction(size), Fraction(size) * market.mark), Fraction(usd))


@pytest.mark.parametrize("coin", ["BTC", "DOGE"])
def test_market_set_to_isolated__is_left_and_others_go_on(
    server: HyperliquidServer, anvil_chain: LocalChain, tmp_path: Path, coin: str
) -> None:
    weights = {"ETH": "60%", "BTC": "20%", "DOGE": "20%"}
    with agents.agent_on(anvil_chain, tmp_path, venue_changes(server, weights), EVEN) as agent:
        wallet = server.wallet(anvil_chain.wallet.address)
        wallet.is_isolated.add(coin)
        open_book(agent, anvil_chain)
        others = {"ETH", "BTC", "DOGE"} - {coin}
        assert set(wallet.positions) == others
        crash(server, "-65/100", "ETH")
        assert leverage(server, anvil_chain) > MAX_LEVERAGE
        outcome = step(agent)
        assert leverage(server, anvil_chain) <= MAX_LEVERAGE, outcome.reason
        assert set(wallet.positions) <= others


@pytest.mark.parametrize(("coin", "size"), [("BTC", "0.01"), ("DOGE", "-2000"), ("SOL", "5")])
def test_isolated_position__counts_as_lost_and_cross_is_reduced(
    server: HyperliquidServer, anvil_chain: LocalChain, tmp_path: Path, coin: str, size: str
) -> None:
    with agents.agent_on(anvil_chain, tmp_path, venue_changes(server, {"ETH": "100%"}), EVEN) as agent:
        open_book(agent, anvil_chain)
        isolate(server, anvil_chain, coin, size, 200)
        crash(server, "-30/100", "ETH")
        reading = agent.step_input().snapshot.layer(FuturesReading)
        assert reading.account is not None, reading.unknown_reason
        assert reading.account.isolated_markets == (coin,)
        assert reading.account.size_raw(coin) == 0
        outcome = step(agent)
        assert leverage(server, anvil_chain) <= MAX_LEVERAGE, outcome.reason
        assert all(order["a"] == 1 for action in actions(server) for order in action["orders"]), "no order in the isolated market"
        assert coin in step(agent).reason
