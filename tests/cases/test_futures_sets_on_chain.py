"""A long and a short opened together: whole steps on the deployed contracts and the local Hyperliquid, where one leg is too dear,
closed, refused, or left behind by a killed process.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path

import pytest

from agent.app.alerting import RunFacts, cycle_alerts
from agent.app.paper import PaperStart, open_paper
from agent.execution.step_context import OutcomeKind, StepOutcome
from agent.layers.futures.state import margin_account
from agent.localchain import LocalChain
from agent.localchain.perpetuals import LocalPerps
from agent.margin import account as margin
from agent.model import IntentKind
from tests.support import agents
from tests.support.agents import require_rebalance
from tests.support.futures import EVEN, futures_config_changes
from tests.support.hyperliquid import AGENT, AGENT_ENV, venue_changes, venue_for
from tests.support.hyperliquid_server import HyperliquidServer
from tests.support.perps import WAD, read_now
from tests.support.transactions import Killed

TWO = {"WETH": "60%", "WBTC": "-40%"}
MARGIN_USD = 1_000
"""Little enough for the gas of the short alone to be above limits.plan_cost of 0.5 %, and that of both legs below it."""


@pytest.fixture
def perps(perps_chain: LocalPerps) -> LocalPerps:
    """A wallet on its spot targets, with margin."""
    agents.fund(perps_chain.chain, {"WETH": 50_000, "USDC": 50_000})
    perps_chain.deposit(perps_chain.chain.wallet.address, MARGIN_USD * 10**6)
    perps_chain.deposit(perps_chain.chain.whale.address, 20_000_000 * 10**6)
    return perps_chain


def orders_of(outcome: StepOutcome) -> list[IntentKind]:
    return [intent.kind for intent in outcome.transactions if intent.kind is IntentKind.FUTURES]


def sizes(perps: LocalPerps) -> dict[str, int]:
    account = read_now(perps, perps.chain.wallet.address)
    return {market.symbol: account.size_raw(market.market) for market in account.markets}


def exposure_alerts(outcome: StepOutcome) -> list[str]:
    alerts = cycle_alerts(outcome, RunFacts(False, "", None))
    return [alert.text for alert in alerts if alert.key == "futures:net_exposure"]


def require_on_target(perps: LocalPerps) -> None:
    """60 % long and 40 % short of twice the margin."""
    account = read_now(perps, perps.chain.wallet.address)
    assert Fraction(19, 10) < (margin.leverage(account) or 0) < Fraction(21, 10)
    net_share = Fraction(margin.net_notional_raw(account), margin.gross_notional_raw(account))
    assert Fraction(15, 100) < net_share < Fraction(25, 100)


def test_set_on_chain__opens_whole_at_a_cost_too_much_for_a_leg(perps: LocalPerps, tmp_path: Path) -> None:
    with agents.agent_on(perps.chain, tmp_path, futures_config_changes(perps, TWO), EVEN) as agent:
        outcome = agent.rebalance(send=True, confirm=agents.yes)
        assert (outcome.kind, len(orders_of(outcome))) == (OutcomeKind.DONE, 2), outcome.reason
        require_on_target(perps)
        assert exposure_alerts(outcome) == []
        again = agent.rebalance(send=True, confirm=agents.yes)
        assert (again.kind, again.transactions) == (OutcomeKind.HOLD, ()), again.reason


def test_set_on_paper__opens_whole_at_a_cost_too_much_for_a_leg(perps: LocalPerps, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chain = perps.chain
    monkeypatch.setattr(chain, "perps", perps)
    loaded = agents.trusted_config(chain, tmp_path, futures_config_changes(perps, TWO), EVEN)
    start = PaperStart(amounts="WETH=10,USDC=30000", native="5", margin=str(MARGIN_USD))
    with open_paper(loaded, start, clock=chain.clock, transports=[chain.transport]) as agent:
        outcome = agent.rebalance(send=True, confirm=agents.yes)
        assert (outcome.kind, len(orders_of(outcome))) == (OutcomeKind.DONE, 2), outcome.reason
        account = margin_account(agent.step_input().snapshot)
        assert account is not None
        assert margin.net_notional_raw(account) == pytest.approx(400 * WAD, rel=0.05)


def test_set_on_chain__too_dear_as_a_whole_opens_no_leg(perps: LocalPerps, tmp_path: Path) -> None:
    changes = {**futures_config_changes(perps, TWO), "limits.plan_cost": "0.2%"}
    with agents.agent_on(perps.chain, tmp_path, changes, EVEN) as agent:
        outcome = agent.rebalance(send=True, confirm=agents.yes)
        assert (orders_of(outcome), sizes(perps)) == ([], {"WETH": 0, "WBTC": 0})
        assert "above limits.plan_cost of 20 bps" in outcome.reason
        [text] = exposure_alerts(outcome)
        assert text.startswith("Futures: the net exposure is 0 USD, its target 400 USD, band 100 USD.")


def closed(perps: LocalPerps, symbol: str, max_ticks: int = 1) -> None:
    """The venue refuses nearly every order of a market: zero ticks are a paused market, one is not seen before the order."""
    perps.chain.send(perps.exchange.functions.setMaxTickCrossedWithinBlock(perps.markets[symbol].base_token, max_ticks))


@pytest.mark.parametrize("symbol", ["WBTC", "WETH"])
@pytest.mark.parametrize("max_ticks", [0, 1], ids=["paused", "refuses orders"])
def test_set_on_chain__leg_that_the_venue_refuses_opens_no_other(perps: LocalPerps, tmp_path: Path, symbol: str, max_ticks: int) -> None:
    closed(perps, symbol, max_ticks)
    with agents.agent_on(perps.chain, tmp_path, futures_config_changes(perps, TWO), EVEN) as agent:
        outcome = agent.rebalance(send=True, confirm=agents.yes)
        assert (orders_of(outcome), sizes(perps)) == ([], {"WETH": 0, "WBTC": 0}), outcome.reason
        assert len(exposure_alerts(outcome)) == 1
        closed(perps, symbol, 1_000)
        perps.chain.clock.sleep(600)
        perps.chain.refresh_feeds()
        after = agent.rebalance(send=True, confirm=agents.yes)
        assert len(orders_of(after)) == 2, after.reason
    require_on_target(perps)


def test_set_on_chain__reverted_leg_is_completed_next_cycle(perps: LocalPerps, tmp_path: Path) -> None:
    """The short would be too dear alone; while it lacks, an alert says so."""
    with agents.agent_on(perps.chain, tmp_path, futures_config_changes(perps, TWO), EVEN) as agent:
        outcome = require_rebalance(agent, OutcomeKind.FAILED, progress=agents.at_send(2, lambda: closed(perps, "WBTC")))
        assert sizes(perps)["WETH"] > 0 == sizes(perps)["WBTC"]
        [text] = exposure_alerts(outcome)
        assert "its target 39" in text
        closed(perps, "WBTC", 1_000)
        after = agent.rebalance(send=True, confirm=agents.yes)
        assert (after.kind, len(orders_of(after))) == (OutcomeKind.DONE, 1), after.reason
        assert exposure_alerts(after) == []
    require_on_target(perps)


def kill() -> None:
    raise Killed


@pytest.mark.parametrize(
    ("number", "is_cycle_lost"), [(1, False), (2, False), (2, True)], ids=["at the long", "at the short", "cycle lost"]
)
def test_set_on_chain__kill_between_the_legs_completes_it(perps: LocalPerps, tmp_path: Path, number: int, is_cycle_lost: bool) -> None:
    """The goals of the set are in the journal, not only in the cycle."""
    chain = perps.chain
    loaded = agents.trusted_config(chain, tmp_path, futures_config_changes(perps, TWO), EVEN)
    with pytest.raises(Killed), agents.reopened_agent(chain, loaded) as agent:
        agent.rebalance(send=True, confirm=agents.yes, progress=agents.at_send(number, kill))
    chain.clock.sleep(300)
    perps.chain.refresh_feeds()
    with agents.reopened_agent(chain, loaded) as agent:
        if is_cycle_lost:
            agent.context.store.cycles.close("lost")
        outcome = agent.rebalance(send=True, confirm=agents.yes)
        assert len(orders_of(outcome)) == 3 - number, outcome.reason
    require_on_target(perps)


# Hyperliquid


BOOK = {"ETH": "60%", "BTC": "-40%"}


@pytest.fixture
def server(anvil_chain: LocalChain, monkeypatch: pytest.MonkeyPatch) -> Iterator[HyperliquidServer]:
    """A wallet on its spot targets, with 10,000 of margin at the venue; BTC's mark is 0.4 % below its index."""
    monkeypatch.setenv(AGENT_ENV, AGENT.key.hex())
    agents.fund(anvil_chain, {"WETH": 50_000, "USDC": 50_000})
    with venue_for(anvil_chain) as server:
        server.coin("BTC").index = server.coin("BTC").mark * Fraction(1_004, 1_000)
        yield server


def at_venue(server: HyperliquidServer, chain: LocalChain) -> dict[str, Fraction]:
    return {coin: position.size for coin, position in server.wallet(chain.wallet.address).positions.items() if position.size}


@pytest.mark.parametrize(("plan_cost", "opens"), [("0.3%", True), ("0.2%", False)], ids=["both together", "not together"])
def test_set_at_hyperliquid__is_judged_as_a_whole(
    server: HyperliquidServer, anvil_chain: LocalChain, tmp_path: Path, plan_cost: str, opens: bool
) -> None:
    """4.5 bps of fees, and 40 of basis for the short: 20.5 of both legs, 44.5 of the short alone."""
    changes = {**venue_changes(server, BOOK), "limits.plan_cost": plan_cost}
    with agents.agent_on(anvil_chain, tmp_path, changes, EVEN) as agent:
        outcome = agent.rebalance(send=True, confirm=agents.yes)
        assert len(orders_of(outcome)) == (2 if opens else 0), outcome.reason
        assert set(at_venue(server, anvil_chain)) == ({"ETH", "BTC"} if opens else set())
        assert len(exposure_alerts(outcome)) == (0 if opens else 1)


LEG_FAULTS: dict[str, Callable[[HyperliquidServer], object]] = {
    "delisted": lambda server: setattr(server.coin("BTC"), "is_delisted", True),
    "isolated only": lambda server: setattr(server.coin("BTC"), "is_only_isolated", True),
    "empty book": lambda server: server.move("BTC", "0"),
    "off its index": lambda server: setattr(server.coin("BTC"), "index", server.coin("BTC").mark * Fraction(11, 10)),
}


@pytest.mark.parametrize("fault", LEG_FAULTS.values(), ids=LEG_FAULTS)
def test_set_at_hyperliquid__impossible_leg_opens_no_other(
    server: HyperliquidServer, anvil_chain: LocalChain, tmp_path: Path, fault: Callable[[HyperliquidServer], object]
) -> None:
    fault(server)
    with agents.agent_on(anvil_chain, tmp_path, venue_changes(server, BOOK), EVEN) as agent:
        outcome = agent.rebalance(send=True, confirm=agents.yes)
        assert (orders_of(outcome), at_venue(server, anvil_chain)) == ([], {}), outcome.reason
        assert len(exposure_alerts(outcome)) == 1
        assert "ETH is not opened: without BTC" in outcome.reason


def test_set_at_hyperliquid__rejected_leg_is_completed(server: HyperliquidServer, anvil_chain: LocalChain, tmp_path: Path) -> None:
    """The short goes first; the long is 40 bps above its index, 44.5 alone and 28.5 with the short."""
    server.coin("BTC").index, server.coin("ETH").index = None, server.coin("ETH").mark * Fraction(996, 1_000)
    changes = {**venue_changes(server, BOOK), "limits.plan_cost": "0.3%"}
    with agents.agent_on(anvil_chain, tmp_path, changes, EVEN) as agent:
        outcome = agent.rebalance(send=True, confirm=agents.yes, progress=agents.at_send(2, lambda: server.move("ETH", "0")))
        assert set(at_venue(server, anvil_chain)) == {"BTC"}, outcome.reason
        assert len(exposure_alerts(outcome)) == 1
        server.seed("ETH")
        anvil_chain.node.mine_at(anvil_chain.now_s() + 300)
        after = agent.rebalance(send=True, confirm=agents.yes)
        assert set(at_venue(server, anvil_chain)) == {"ETH", "BTC"}, after.reason
        assert exposure_alerts(after) == []


def test_set_at_hyperliquid__leg_below_minimum_opens_no_other(server: HyperliquidServer, anvil_chain: LocalChain, tmp_path: Path) -> None:
    """A book of 20 dollars: 8 of them short, below the venue's 10."""
    server.wallet(anvil_chain.wallet.address).usd = Fraction(10)
    server.transfers[-1]["delta"]["usdc"] = "10.0"
    with agents.agent_on(anvil_chain, tmp_path, venue_changes(server, BOOK), EVEN) as agent:
        outcome = agent.rebalance(send=True, confirm=agents.yes)
        assert (orders_of(outcome), at_venue(server, anvil_chain)) == ([], {}), outcome.reason
        assert "BTC: the order is below the venue's minimum" in outcome.reason
