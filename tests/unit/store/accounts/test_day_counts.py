"""How many refusals and alerts a day, week or year had, also once the steps and alerts are deleted."""

from __future__ import annotations

from agent.execution.step_context import OutcomeKind
from agent.model import Alert, AlertKind
from agent.observe.notify import AlertChannel, AlertNotifier, ChannelSubscription
from agent.store.accounts.day_counts import CountedEvent
from agent.store.journal.steps import REFUSED_OUTCOME
from agent.store.store import Store
from agent.units import DAY_S
from tests.support.records.alerts import DONE, HALT, KINDS, NOON, RULES
from tests.support.stores import prune, store_fixture

NOON_S = NOON
MIDNIGHT_S = NOON_S // DAY_S * DAY_S


store = store_fixture()


def record_step(store: Store, step_id: str, at_s: int, outcome: OutcomeKind) -> None:
    store.steps.begin(step_id, at_s, "{}")
    store.steps.end(step_id, "rebalance", "", None, outcome.value)


def refusals(store: Store, first_s: int, end_s: int) -> int:
    return store.day_counts.count(CountedEvent.REFUSAL, first_s, end_s)


def alerts(store: Store, first_s: int, end_s: int) -> int:
    return store.day_counts.count(CountedEvent.ALERT, first_s, end_s)


def test_refused_step_counts_once_on_its_day(store: Store) -> None:
    assert OutcomeKind.REFUSED.value == REFUSED_OUTCOME
    for number, kind in enumerate(OutcomeKind):
        record_step(store, f"s{number}", MIDNIGHT_S + number, kind)
    record_step(store, "last of the day", MIDNIGHT_S + DAY_S - 1, OutcomeKind.REFUSED)
    record_step(store, "next day", MIDNIGHT_S + DAY_S, OutcomeKind.REFUSED)
    store.steps.end("next day", "rebalance", "written again", None, REFUSED_OUTCOME)
    assert refusals(store, MIDNIGHT_S, MIDNIGHT_S + DAY_S) == 2
    assert refusals(store, MIDNIGHT_S + DAY_S, MIDNIGHT_S + 2 * DAY_S) == 1
    assert refusals(store, MIDNIGHT_S - 6 * DAY_S, MIDNIGHT_S + DAY_S) == 2, "a week"
    assert refusals(store, MIDNIGHT_S - 300 * DAY_S, MIDNIGHT_S + 65 * DAY_S) == 3, "a year"
    assert refusals(store, MIDNIGHT_S - DAY_S, MIDNIGHT_S) == 0


def test_refusal_that_waits_for_the_next_write_counts(store: Store) -> None:
    with store.db.queueing():
        record_step(store, "waits", MIDNIGHT_S, OutcomeKind.REFUSED)

        assert refusals(store, MIDNIGHT_S, MIDNIGHT_S + DAY_S) == 1


def test_refusals_stay_counted_once_their_steps_are_deleted(store: Store) -> None:
    for number in range(30):
        record_step(store, f"s{number}", MIDNIGHT_S + number, OutcomeKind.REFUSED)

    assert prune(store, 5) == 24
    assert refusals(store, MIDNIGHT_S, MIDNIGHT_S + DAY_S) == 30


def test_an_alert_counts_once_whatever_the_number_of_its_targets(store: Store) -> None:
    subscriptions = [ChannelSubscription(AlertChannel(name, lambda *_: "", 1, "trimtab"), KINDS) for name in ("mail", "phone", "hook")]
    notifier = AlertNotifier(store.alerts, subscriptions, RULES, lambda _: None)

    notifier.process_cycle_alerts((DONE, HALT), KINDS, NOON_S)

    assert alerts(store, MIDNIGHT_S, MIDNIGHT_S + DAY_S) == 2
    notifier.process_cycle_alerts((HALT,), KINDS, NOON_S + 60)
    assert alerts(store, MIDNIGHT_S, MIDNIGHT_S + DAY_S) == 2, "it lasts, and is not sent again"
    for kind in (AlertKind.DIGEST, AlertKind.TEST):
        notifier.process_cycle_alerts((Alert(kind, kind.value, "figures"),), frozenset(), NOON_S + DAY_S)
    assert alerts(store, MIDNIGHT_S, MIDNIGHT_S + 2 * DAY_S) == 2, "the message with the numbers is none of them"
    notifier.close(10)


def test_without_a_target_nothing_is_sent_and_counted(store: Store) -> None:
    AlertNotifier(store.alerts, [], RULES, lambda _: None).process_cycle_alerts((DONE, HALT), KINDS, NOON_S)

    assert alerts(store, MIDNIGHT_S, MIDNIGHT_S + DAY_S) == 0
