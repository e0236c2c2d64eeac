"""What the owner hears of the venue: why it rejected an order, which fills it lists, what its leverage holds back, and whose clock is
wrong.
"""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import pytest

from agent import app as api
from agent.app.agent import Agent
from agent.app.alert_channels import UNSETTLED_AFTER_S, unsettled_orders
from agent.app.alerting import RunFacts, cycle_alerts
from agent.errors import Retryable
from agent.execution.step_context import OutcomeKind, StepOutcome
from agent.localchain import LocalChain
from agent.model import FuturesReading, IntentState
from agent.venues.hyperliquid.account import parse_transfers, require_own_margin
from tests.support import agents
from tests.support.futures import EVEN
from tests.support.hyperliquid import server, venue_changes
from tests.support.hyperliquid_server import HyperliquidServer, ServerPosition
from tests.support.samples import slow
from tests.support.text import raises_code

__all__ = ["server"]

ETH = {"ETH": "100%"}


def changes_of(server: HyperliquidServer, kind: str, **limits: str) -> dict[str, object]:
    changes = venue_changes(server, ETH, **limits)
    return changes if kind == "ioc" else changes | {"futures.order_type": kind, "futures.order_time": "1h"}


def alert_texts(outcome: StepOutcome, facts: RunFacts | None = None) -> str:
    return " | ".join(alert.text for alert in cycle_alerts(outcome, facts or RunFacts(False, "", None)))


def without_margin(server: HyperliquidServer, chain: LocalChain) -> None:
    server.wallet(chain.wallet.address).usd = Fraction(1)


REJECTIONS: dict[str, tuple[str, Callable[[HyperliquidServer, LocalChain], object], str]] = {
    "market order, margin": ("ioc", without_margin, "Insufficient margin to place order"),
    "market order, no seller": ("ioc", lambda server, _: server.move("ETH", "0"), "Order could not immediately match"),
    "market order, delisted": ("ioc", lambda server, _: setattr(server.coin("ETH"), "is_delisted", True), "Asset is delisted"),
    "limit order, margin": ("gtc", without_margin, "Insufficient margin to place order"),
    "post-only order, delisted": ("post_only", lambda server, _: setattr(server.coin("ETH"), "is_delisted", True), "Asset is delisted"),
}


@pytest.mark.parametrize(("kind", "fault", "reason"), REJECTIONS.values(), ids=REJECTIONS)
def test_rejection__its_reason_reaches_the_owner(
    server: HyperliquidServer,
    anvil_chain: LocalChain,
    tmp_path: Path,
    kind: str,
    fault: Callable[[HyperliquidServer, LocalChain], object],
    reason: str,
) -> None:
    with agents.agent_on(anvil_chain, tmp_path, changes_of(server, kind), EVEN) as agent:
        outcome = agent.rebalance(send=True, confirm=agents.yes, progress=agents.at_send(1, lambda: fault(server, anvil_chain)))
        assert outcome.kind in (OutcomeKind.FAILED, OutcomeKind.REFUSED), outcome.reason
        require_reported(agent, outcome, reason)


def require_reported(agent: Agent, outcome: StepOutcome, reason: str) -> None:
    """The reason is in the outcome, the history, the explanation, the transactions and an alert."""
    config = agent.context.loaded_config
    assert reason in outcome.reason
    assert reason in alert_texts(outcome)
    [transaction] = api.transactions(config)["transactions"][:1]
    assert reason in transaction["note"]
    step_id = agent.context.store.journal.intents()[0].step_id
    assert reason in " ".join(api.explain(config, step_id)["sentences"])
    assert any(reason in str(step["reason"]) for step in api.history(config)["steps"])


@pytest.mark.parametrize("words", ["<b>now</b>", "[now](here)", "for 0x00aa; see below"])
def test_rejection__text_that_is_no_sentence_is_in_no_alert(
    server: HyperliquidServer, anvil_chain: LocalChain, tmp_path: Path, words: str
) -> None:
    refused = f"Order rejected {words}"
    with agents.agent_on(anvil_chain, tmp_path, changes_of(server, "ioc"), EVEN) as agent:
        outcome = agent.rebalance(send=True, confirm=agents.yes, progress=agents.at_send(1, lambda: setattr(server, "refusal", refused)))
        assert outcome.kind in (OutcomeKind.FAILED, OutcomeKind.REFUSED), outcome.reason
        assert "Order rejected" in outcome.reason
        assert "Order rejected" not in alert_texts(outcome)


def test_rejection__of_a_stop_names_its_reason_and_back_off(server: HyperliquidServer, anvil_chain: LocalChain, tmp_path: Path) -> None:
    server.takes_stops = False
    with agents.agent_on(anvil_chain, tmp_path, changes_of(server, "ioc", resting_stop="1%"), EVEN) as agent:
        outcomes = [agent.rebalance(send=True, confirm=agents.yes) for _ in range(5)]
        assert any("Invalid TP/SL price" in outcome.reason for outcome in outcomes)
        assert any("Invalid TP/SL price" in alert_texts(outcome) for outcome in outcomes)
        assert outcomes[-1].transactions == ()
        assert "the resting stop of ETH: its orders failed or were refused; tried again at" in outcomes[-1].reason


def test_rejection__after_a_lost_answer_names_the_venue_s_status(
    server: HyperliquidServer, anvil_chain: LocalChain, tmp_path: Path
) -> None:
    def fault() -> None:
        without_margin(server, anvil_chain)
        server.faults = ["lost"]

    with agents.agent_on(anvil_chain, tmp_path, changes_of(server, "ioc"), EVEN) as agent:
        outcome = agent.rebalance(send=True, confirm=agents.yes, progress=agents.at_send(1, fault))
        assert "perpMarginRejected" in outcome.reason


# Fills


def crowded(server: HyperliquidServer, chain: LocalChain, count: int) -> None:
    """Another program trades on the account, each fill a millisecond later."""
    for number in range(count):
        row = {
            "user": chain.wallet.address.lower(), "coin": "DOGE", "px": "0.1", "sz": "1", "side": "B", "time": server.now_ms + number // 3,
            "oid": 10**9 + number, "cloid": None, "fee": "0.0", "closedPnl": "0.0", "tid": 10**9 + number,
        }  # fmt: skip
        server.fills.append(row)


@pytest.mark.parametrize(
    ("kind", "count"),
    [
        ("post_only", 2_000),
        ("gtc", 4_500),
        *slow([("post_only", 1_999), ("gtc", 1_999), ("gtc", 2_000), ("post_only", 4_500)]),
    ],
)
def test_fills__those_beyond_the_first_page_are_read(
    server: HyperliquidServer, anvil_chain: LocalChain, tmp_path: Path, kind: str, count: int
) -> None:
    """Another program trades while the order rests."""
    server.move("ETH", "0")
    with agents.agent_on(anvil_chain, tmp_path, changes_of(server, kind), EVEN) as agent:
        agent.rebalance(send=True, confirm=agents.yes)
        [intent] = agent.context.store.journal.open_intents()
        assert intent.is_resting
        crowded(server, anvil_chain, count)
        server.skew_ms = count
        server.trade_through("ETH", str(rest_of_order(server)))
        agent.rebalance(send=True, confirm=agents.yes)
        [ended] = [later for later in agent.context.store.journal.intents() if later.id == intent.id]
        assert ended.state is IntentState.FINAL
        assert ended.receipt is not None
        assert sum(fill.size_raw for fill in ended.receipt.fills) > 0


@pytest.mark.parametrize("kind", ["ioc", "gtc"])
def test_fills__missing_for_minutes_of_a_filled_order_alert(
    server: HyperliquidServer, anvil_chain: LocalChain, tmp_path: Path, kind: str
) -> None:
    server.move("ETH", "0")
    server.seed("ETH", ("10", "10", "10"), step="0.0001")
    with agents.agent_on(anvil_chain, tmp_path, changes_of(server, kind), EVEN) as agent:
        store = agent.context.store
        with raises_code(Retryable, "not_mined"):
            agent.rebalance(send=True, confirm=agents.yes, progress=agents.at_send(1, lambda: setattr(server, "hides_fills", True)))
        [intent] = store.journal.open_intents()
        assert intent.deadline_s is not None
        overdue_s = intent.deadline_s + UNSETTLED_AFTER_S
        assert unsettled_orders(store, None, overdue_s) == ()
        orders = unsettled_orders(store, None, overdue_s + 1)
        assert [cloid for cloid, _ in orders] == [intent.tx_hash]
        facts = RunFacts(False, "", None, unsettled_orders=orders)
        [alert] = [alert for alert in cycle_alerts(Retryable("the outcome is not known"), facts) if alert.key.startswith("futures:")]
        assert "The outcome of a futures order is not known although its time has passed: open futures: buy" in alert.text
        server.hides_fills = False
        agent.rebalance(send=True, confirm=agents.yes)
        assert unsettled_orders(store, None, overdue_s + 1) == ()


def test_fills__order_that_rests_is_not_overdue(server: HyperliquidServer, anvil_chain: LocalChain, tmp_path: Path) -> None:
    """Once the venue no longer lists it and its fills lack, it is."""
    server.coin("ETH").mark = Fraction(3_000)
    with agents.agent_on(anvil_chain, tmp_path, changes_of(server, "post_only"), EVEN) as agent:
        agent.rebalance(send=True, confirm=agents.yes)
        [intent] = agent.context.store.journal.open_intents()
        assert intent.is_resting
        late_s = (intent.deadline_s or 0) + 10 * UNSETTLED_AFTER_S
        assert unsettled_orders(agent.context.store, agent.step_input().snapshot, late_s) == ()
        assert unsettled_orders(agent.context.store, None, late_s) == ()
        server.hides_fills = True
        server.trade_through("ETH", str(rest_of_order(server)))
        assert len(unsettled_orders(agent.context.store, agent.step_input().snapshot, late_s)) == 1


def rest_of_order(server: HyperliquidServer) -> Fraction:
    [order] = [order for order in server.orders if order.cloid and order.status == "open"]
    return order.left


# Words, clocks and leverage of the venue


@pytest.mark.parametrize("kind", ["borrowLendInterestPayment", "perpDexClassTransfer", "rewardsClaim", "a" * 64])
def test_transfers__kinds_longer_than_a_label_have_names(kind: str) -> None:
    assert parse_transfers([{"delta": {"type": kind}}], "0x1")[1] == (kind,)


@pytest.mark.parametrize("kind", ["a" * 65, "<b>", "a b", "\x1b[31m", ""])
def test_transfers__kinds_that_are_no_words_are_not_printed(kind: str) -> None:
    assert parse_transfers([{"delta": {"type": kind}}], "0x1")[1] == ("without a printable name",)


def test_mode__longer_than_a_label_is_named() -> None:
    with pytest.raises(Exception, match="the account's mode at the venue is dexAbstractionEverywhere"):
        require_own_margin("dexAbstractionEverywhere")


@pytest.mark.parametrize(
    ("skew_s", "text"),
    [
        (31, "this machine's clock is 31 s behind the venue's"),
        (30, ""),
        (-30, ""),
        (-31, "the venue's answer is 31 s old: its server lags"),
        (-600, "the venue's answer is 600 s old: its server lags"),
    ],
)
def test_clock__server_that_lags_is_not_this_machines_clock(
    server: HyperliquidServer, anvil_chain: LocalChain, tmp_path: Path, skew_s: int, text: str
) -> None:
    with agents.agent_on(anvil_chain, tmp_path, changes_of(server, "ioc"), EVEN) as agent:
        server.skew_ms = skew_s * 1_000
        assert agent.step_input().snapshot.layer(FuturesReading).unknown_reason == text


@pytest.mark.parametrize("leverage", [1, 2, 20])
def test_leverage__too_low_at_the_venue_is_named(server: HyperliquidServer, anvil_chain: LocalChain, tmp_path: Path, leverage: int) -> None:
    """Of 2x at most 90 % of margin: 1x allows 0.9x, 2x allows 1.8x."""
    server.wallet(anvil_chain.wallet.address).leverages["ETH"] = leverage
    with agents.agent_on(anvil_chain, tmp_path, changes_of(server, "ioc"), EVEN) as agent:
        outcome = agent.rebalance(send=False)
        assert outcome.plan is not None, outcome.reason
        notes = [item.why for item in outcome.plan.skipped]
        text = f"the leverage of ETH at the venue is {leverage}x of at most 25x, which holds its target back; raise it on the venue's site"
        assert (text in notes) is (leverage < 20)
        position = server.wallet(anvil_chain.wallet.address).positions.get("ETH", ServerPosition())
        assert not position.size
