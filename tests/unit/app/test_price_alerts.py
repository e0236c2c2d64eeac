"""Price alerts: each fires once, at a confirmed price, trades nothing, and is over until its level changes; a restart repeats none."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tomlkit

from agent.app.alerting import LASTING_KINDS, RunFacts, cycle_alerts
from agent.app.positions.orders import set_orders
from agent.execution.step_context import OutcomeKind, StepOutcome
from agent.model import AlertKind, Hold, OrderKind, OrdersConfig, OrderStage, StepInput
from agent.observe.notify import AlertRules, decide_alerts
from agent.policy.decide import decide
from agent.policy.orders import exits
from agent.policy.orders.exits import apply_orders
from agent.reference import reference_prices
from agent.store.opening import open_store
from tests.support import agents
from tests.support.builders import NOW_S, OWNER, feed_round, history
from tests.support.standing_orders import Bot, price_of, terms, two

ABOVE = OrderKind.ALERT_ABOVE
BELOW = OrderKind.ALERT_BELOW
RULES = AlertRules(frozenset(AlertKind), cooldown_s=3_600, repeat_s=60)
CALM = RunFacts(paused=False, heartbeat_fault="", low_gas_wei=None)


def watching(**changes: object) -> Bot:
    """A bot at its targets with an alert on each side of 2,000."""
    bot = two(terms("WETH", ABOVE, 2_100), terms("WETH", BELOW, None, 1_000), **changes)  # type: ignore[arg-type]  # its keywords
    bot.look({"WETH": 2_000})
    return bot


def cycle_messages(folder: Path, step: StepInput, now_s: int) -> list[str]:
    """The messages of a cycle, with a store that each call opens anew, as after a restart."""
    store = open_store(f"sqlite:///{folder / 'trimtab.db'}", 31_337, OWNER)
    result = decide(step)
    outcome = StepOutcome("0123456789ab", OutcomeKind.HOLD, result.decision.reason, step, result, None)
    alerts = [alert for alert in cycle_alerts(outcome, CALM) if "alert" in alert.key]
    decided = decide_alerts(store.alerts.states(), alerts, LASTING_KINDS, now_s, RULES)
    store.alerts.record_and_queue(decided.changed_states, [], now_s)
    store.close()
    return [state.text for state in decided.to_send]


@pytest.mark.parametrize(("price", "kind"), [(2_150, ABOVE), (1_750, BELOW)])
def test_alert__is_sent_once_over_restarts_and_trades_nothing(tmp_path: Path, price: int, kind: OrderKind) -> None:
    bot = watching()
    assert set(bot.stages().values()) == {"armed"}
    plain = two()
    plain.look({"WETH": 2_000})
    messages = []
    for number, now in enumerate((price, 2_000, price, price)):
        decision = bot.look({"WETH": now})
        without = plain.look({"WETH": now})
        assert bot.step is not None
        assert (type(decision), bot.targets(), bot.coins) == (type(without), plain.targets(), plain.coins)
        assert bot.step.targets.reasons == (), "only an entry delays a purchase"
        messages += cycle_messages(tmp_path, bot.step, NOW_S + number * 86_400)
    level = "2,100.00" if kind is ABOVE else "1,800.00"
    side = kind.value.removeprefix("alert_")
    assert [text.split(", ")[0] for text in messages] == [f"WETH {side} {level} USDC: fired at {price:,}.00 USDC"]
    assert bot.order("WETH", kind).event_price == price_of("WETH", price)


def test_a_new_level_is_a_new_alert_and_a_removed_one_is_gone(tmp_path: Path) -> None:
    bot = watching()
    bot.look({"WETH": 2_150})
    assert bot.step is not None
    assert len(cycle_messages(tmp_path, bot.step, NOW_S)) == 1
    bot.book = OrdersConfig((terms("WETH", ABOVE, 2_300),))
    bot.look({"WETH": 2_150})
    assert bot.stages() == {"WETH alert_above": "armed"}
    assert cycle_messages(tmp_path, bot.step, NOW_S + 30) == []
    bot.look({"WETH": 2_300})
    assert len(cycle_messages(tmp_path, bot.step, NOW_S + 60)) == 1, "no cooldown after the first: it is another alert"
    bot.book = OrdersConfig()
    bot.look({"WETH": 2_300})
    assert bot.stages() == {}


@pytest.mark.parametrize(
    ("kind", "level", "later"),
    [pytest.param(ABOVE, 2_100, 2_300, id="alert above"), pytest.param(OrderKind.STOP_LOSS, 1_500, 1_600, id="stop loss")],
)
def test_a_new_level_of_what_was_disarmed_is_armed(kind: OrderKind, level: int, later: int) -> None:
    bot = two(terms("WETH", kind, level))
    bot.look({"WETH": 2_000})
    bot.memory = history(bot.memory, states=(replace(bot.order("WETH", kind), stage=OrderStage.OFF),))
    bot.look({"WETH": 2_000})
    assert bot.order("WETH", kind).stage is OrderStage.OFF
    bot.book = OrdersConfig((terms("WETH", kind, later),))
    bot.look({"WETH": 2_000})
    assert bot.order("WETH", kind).stage is OrderStage.ARMED
    bot.look({"WETH": 2_350 if kind is ABOVE else 1_550})
    assert bot.order("WETH", kind).stage in (OrderStage.FIRED, OrderStage.DONE)


def test_a_stale_or_unconfirmed_price_fires_nothing() -> None:
    bot = watching(confirm=3)
    assert isinstance(bot.look({"WETH": 2_500}, [{"WETH": 2_500}, {"WETH": 2_000}, {"WETH": 2_500}]), Hold)
    assert bot.order("WETH", ABOVE).stage is OrderStage.ARMED
    step = bot.seen({"WETH": 2_500})
    stale = tuple(
        feed_round("WETH", 2_500, step.snapshot.head.timestamp_s - step.reference.feed_max_age_s - 1) if feed.answer > 10**10 else feed
        for feed in step.snapshot.feeds
    )
    assert stale != step.snapshot.feeds
    assert apply_orders(replace(step, snapshot=replace(step.snapshot, feeds=stale))).history.orders.states == bot.memory.orders.states
    bot.look({"WETH": 2_500})
    assert bot.order("WETH", ABOVE).stage is OrderStage.FIRED


def test_level_already_reached__fires_at_once() -> None:
    bot = two(terms("WETH", ABOVE, 1_500), terms("WETH", BELOW, 1_990))
    assert isinstance(bot.look({"WETH": 2_000}), Hold)
    assert bot.stages() == {"WETH alert_above": "fired", "WETH alert_below": "armed"}
    assert bot.step is not None
    assert exits.price_contradictions(bot.step.portfolio, bot.step.history.orders, reference_prices(bot.step)) == []


def test_alerts_wait_for_no_entry_and_outlast_an_exit() -> None:
    bot = two(terms("WETH", OrderKind.ENTRY, 1_500), terms("WETH", OrderKind.STOP_LOSS, 1_000), terms("WETH", ABOVE, 2_100))
    bot.look({"WETH": 2_000})
    assert bot.stages()["WETH alert_above"] == "armed"
    bot.look({"WETH": 900})
    assert bot.stages()["WETH stop_loss"] in ("fired", "done")
    bot.look({"WETH": 2_100})
    assert bot.stages()["WETH alert_above"] == "fired"


@pytest.mark.parametrize(
    ("alerts", "is_sent"),
    [
        ({}, False),
        ({"events": ["order"], "targets": [{"name": "a", "url_env": "A"}]}, False),
        ({"targets": [{"name": "a", "url_env": "A", "events": ["order"]}]}, False),
        ({"targets": [{"name": "a", "url_env": "A", "events": []}]}, False),
        ({"targets": [{"name": "a", "url_env": "A"}]}, True),
    ],
)
def test_who_sets_an_alert_that_no_target_takes_learns_it(tmp_path: Path, alerts: dict[str, Any], is_sent: bool) -> None:
    path = agents.config(tmp_path)
    path.write_text(tomlkit.dumps(tomlkit.parse(path.read_text()) | {"alerts": alerts}))
    notes = set_orders(path, "WETH", {"alert_above": "5%"})["notes"]
    assert ["no alert target takes the event" in note for note in notes] == ([] if is_sent else [True])
    assert set_orders(path, "WETH", {"stop_loss": "5%"})["notes"] == [], "nothing of an alert is new"
