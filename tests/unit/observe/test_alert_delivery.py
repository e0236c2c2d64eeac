"""Alerts on their way: by real mail and webhook, in order, tried again, given up, never waited for, and not told twice by a restart."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import requests

from agent.model import Alert, AlertKind, AlertState, Delivery
from agent.observe.notify import (
    MAX_QUEUED,
    UNANSWERED_REASON,
    AlertChannel,
    AlertNotifier,
    ChannelSubscription,
    apprise_sender,
    sanitize_text,
)
from agent.store.alerts import RETENTION_S
from agent.store.store import Store
from tests.support.alert_receivers import ReceivedMessages, mailbox, silent, webhook
from tests.support.fakes.http_server import LoopbackHandler, listening
from tests.support.foreign_text import CORPUS, all_logs, found_in
from tests.support.records.alerts import DONE, HALT, HOUR, KINDS, NOON, RULES
from tests.support.stores import store_fixture
from tests.support.text import raises_field


@contextmanager
def sms_gateway(box: ReceivedMessages, token: str) -> Iterator[str]:
    """Yield the address of a gateway for text messages, in apprise's format for SMSEagle, with a phone."""

    class Gateway(LoopbackHandler):
        def do_POST(self) -> None:
            request = json.loads(self.body())
            parameters = request["params"]
            assert (request["method"], parameters["access_token"]) == ("sms.send_sms", token)
            taken = box.take({"to": parameters["to"], "text": parameters["message"]})
            self.reply(200, json.dumps({"result": {"message_id": 1, "status": "ok" if taken else "error"}}).encode())

    with listening(Gateway) as port:
        yield f"smseagle://{token}@127.0.0.1:{port}/15551234567"


SECRET = "t0ken-canary-9f2"


store = store_fixture()


def channel(send: Callable[[str, str], str], name: str = "hook", attempts: int = 3) -> AlertChannel:
    return AlertChannel(name, send, attempts, "trimtab", first_retry_s=0.01)


def announcer(
    store: Store, *carriers: AlertChannel, kinds: frozenset[AlertKind] = KINDS, failed: Callable[[Delivery], None] | None = None
) -> AlertNotifier:
    return AlertNotifier(store.alerts, [ChannelSubscription(carrier, kinds) for carrier in carriers], RULES, failed or (lambda _: None))


def into(box: ReceivedMessages) -> Callable[[str, str], str]:
    """Delivers into a box."""

    def send(title: str, text: str) -> str:
        return "" if box.take({"title": title, "text": text}) else "not taken"

    return send


def stuck(until: threading.Event) -> Callable[[str, str], str]:
    """Answers only once the event is set."""

    def send(title: str, text: str) -> str:
        until.wait(120)
        return ""

    return send


def rebalance_alert(number: int) -> Alert:
    return Alert(AlertKind.REBALANCE, f"rebalance {number}", f"event {number}")


def close_when_delivered(store: Store, notifier: AlertNotifier) -> None:
    notifier.close(60)
    assert store.alerts.pending_messages() == ()


def test_mail_and_webhook__get_every_alert_in_order(store: Store) -> None:
    hook = ReceivedMessages()
    mail = ReceivedMessages()
    with webhook(hook) as hook_url, mailbox(mail) as mail_url:
        notifier = announcer(store, channel(apprise_sender(hook_url, "H", 15)), channel(apprise_sender(mail_url, "M", 15), "mail"))
        for number in range(5):
            notifier.process_cycle_alerts([rebalance_alert(number)], KINDS, NOON + number)
        notifier.process_cycle_alerts([HALT], KINDS, NOON + 9)
        close_when_delivered(store, notifier)
    assert hook.texts == [*(f"event {number}" for number in range(5)), "halted"]
    assert [item["title"] for item in hook.items] == ["trimtab: rebalanced"] * 5 + ["trimtab: halted"]
    assert [item["title"] for item in mail.items] == [item["title"] for item in hook.items]
    assert all(text in mail.texts[number] for number, text in enumerate(hook.texts))
    assert {tuple(item["to"]) for item in mail.items} == {("owner@example.org",)}
    target_states = store.alerts.target_states()
    assert {name: (state.failures, state.queued_count, state.delivered_s is not None) for name, state in target_states.items()} == {
        "hook": (0, 0, True),
        "mail": (0, 0, True),
    }


def test_a_text_message_has_title_and_text_of_the_alert(store: Store) -> None:
    phone = ReceivedMessages()
    with sms_gateway(phone, SECRET) as url:
        notifier = announcer(store, channel(apprise_sender(url, "P", 15), "phone"))
        notifier.process_cycle_alerts([HALT], KINDS, NOON)
        close_when_delivered(store, notifier)
    assert [item["to"] for item in phone.items] == ["15551234567"]
    assert phone.texts[0].split() == ["trimtab:", "halted", "halted"]
    assert store.alerts.target_states()["phone"].delivered_s is not None


def test_a_delivery_that_fails_is_tried_again_until_it_arrives(store: Store) -> None:
    hook = ReceivedMessages(failing=2)
    mail = ReceivedMessages(failing=2)
    failures = list[Delivery]()
    with webhook(hook) as hook_url, mailbox(mail) as mail_url:
        carriers = channel(apprise_sender(hook_url, "H", 15)), channel(apprise_sender(mail_url, "M", 15), "mail")
        notifier = announcer(store, *carriers, failed=failures.append)
        notifier.process_cycle_alerts([rebalance_alert(1), rebalance_alert(2)], KINDS, NOON)
        close_when_delivered(store, notifier)
    assert hook.texts == ["event 1", "event 2"], "order is kept while the first is tried again"
    assert (hook.tries, mail.tries, len(mail.items)) == (4, 4, 2)
    assert failures == []


def test_undelivered_alert__is_given_up_and_the_next_is_tried(store: Store) -> None:
    hook = ReceivedMessages(failing=3)
    failures = list[Delivery]()
    with webhook(hook) as url:
        notifier = announcer(store, channel(apprise_sender(url, "H", 15), attempts=3), failed=failures.append)
        notifier.process_cycle_alerts([rebalance_alert(1)], KINDS, NOON)
        hook.until(3, tries=True)
        notifier.process_cycle_alerts([rebalance_alert(2)], KINDS, NOON + 1)
        close_when_delivered(store, notifier)
    assert hook.texts == ["event 2"]
    assert [(failure.message.text, failure.failure_reason) for failure in failures] == [("event 1", "not accepted")]
    (target,) = store.alerts.target_states().values()
    assert (target.failures, target.queued_count) == (0, 0)
    assert target.failed_s is not None


def test_unreachable_target__counts_its_failures_in_a_row(store: Store) -> None:
    with silent() as gone:
        pass
    notifier = announcer(store, channel(apprise_sender(gone, "G", 5), attempts=2))
    notifier.process_cycle_alerts([rebalance_alert(1), rebalance_alert(2)], KINDS, NOON)
    close_when_delivered(store, notifier)
    (target,) = store.alerts.target_states().values()
    assert (target.failures, target.why, target.delivered_s) == (2, "not accepted", None)


def test_silent_target__delays_no_look_and_no_other_target(store: Store) -> None:
    """A look hands over while the silent one's thread stands in its request: the other target has all of them meanwhile."""
    entered = threading.Event()
    over = threading.Event()
    hook = ReceivedMessages()

    def never(title: str, text: str) -> str:
        entered.set()
        over.wait(120)
        return UNANSWERED_REASON

    with webhook(hook) as url:
        notifier = announcer(store, channel(never, "silent"), channel(apprise_sender(url, "H", 15)))
        notifier.process_cycle_alerts([rebalance_alert(0)], KINDS, NOON)
        assert entered.wait(60)
        for number in range(1, 20):
            notifier.process_cycle_alerts([rebalance_alert(number)], KINDS, NOON + number)
        hook.until(20)
        assert not over.is_set()
        notifier.close(within_s=0)
    over.set()
    assert store.alerts.target_states()["silent"].queued_count == 20


def test_a_run_that_ends_waits_for_a_silent_target_once(store: Store) -> None:
    over = threading.Event()
    notifier = announcer(store, channel(stuck(over)))
    notifier.send_now(HALT, NOON, within_s=0.05)  # as of an error while the store fails
    begun_s = time.monotonic()
    notifier.close(60)
    assert time.monotonic() - begun_s < 30
    over.set()


def test_silent_socket__is_given_up_after_its_timeout(store: Store) -> None:
    with silent() as url:
        notifier = announcer(store, channel(apprise_sender(url, "S", 0.2), attempts=2))
        notifier.process_cycle_alerts([rebalance_alert(1)], KINDS, NOON)
        close_when_delivered(store, notifier)
    (target,) = store.alerts.target_states().values()
    assert (target.failures, target.why) == (1, UNANSWERED_REASON)


def test_restart__repeats_no_alert_and_delivers_the_rest(store: Store) -> None:
    hook = ReceivedMessages()
    over = threading.Event()
    with webhook(hook) as url:
        first = announcer(store, channel(apprise_sender(url, "H", 15)), channel(stuck(over), "slow"))
        first.process_cycle_alerts([HALT, rebalance_alert(1)], KINDS, NOON)
        hook.until(2)
        first.process_cycle_alerts([HALT], KINDS, NOON + 1)
        while store.alerts.target_states()["hook"].queued_count:  # what arrived is written down by a look
            time.sleep(0.02)
            first.process_cycle_alerts([HALT], KINDS, NOON + 1)
        slow = ReceivedMessages()
        second = announcer(store, channel(apprise_sender(url, "H", 15)), channel(into(slow), "slow"))
        second.enqueue_undelivered()
        second.process_cycle_alerts([HALT], KINDS, NOON + HOUR)
        close_when_delivered(store, second)
    over.set()
    assert hook.texts == ["halted", "event 1"]
    assert slow.texts == ["halted", "event 1"]


def test_what_waits_for_a_target_that_is_no_more_is_dropped(store: Store) -> None:
    over = threading.Event()
    notifier = announcer(store, channel(stuck(over), "old"))
    notifier.process_cycle_alerts([rebalance_alert(1)], KINDS, NOON)
    announcer(store, channel(lambda *_: "", "new")).enqueue_undelivered()
    assert store.alerts.pending_messages() == ()
    over.set()


def test_beyond_a_hundred_the_oldest_are_given_up_and_counted(store: Store) -> None:
    over = threading.Event()
    entered = threading.Event()

    def slow(title: str, text: str) -> str:
        entered.set()
        over.wait(120)
        return ""

    notifier = announcer(store, channel(slow))
    notifier.process_cycle_alerts([rebalance_alert(-1)], KINDS, NOON)
    assert entered.wait(60)
    notifier.process_cycle_alerts([rebalance_alert(number) for number in range(MAX_QUEUED + 20)], KINDS, NOON + 1)
    (target,) = store.alerts.target_states().values()
    assert (target.queued_count, target.dropped_count) == (MAX_QUEUED, 21)
    assert [letter.text for letter in store.alerts.pending_messages()][:: MAX_QUEUED - 1] == ["event 20", f"event {MAX_QUEUED + 19}"]
    over.set()
    close_when_delivered(store, notifier)


def test_ended_alerts_are_deleted_90_days_after_their_message(store: Store) -> None:
    now_s = NOON + RETENTION_S + 1

    def state(key: str, since_s: int | None = None, untold: int = 0, told_s: int | None = NOON, raised_s: int = NOON) -> AlertState:
        return AlertState(key, AlertKind.REBALANCE, key, raised_s, since_s, untold, told_s)

    others = (
        state("lasts", since_s=NOON),
        state("not sent", untold=1),
        state("a second less", told_s=NOON + 1),
        state("ended in quiet hours, a second less", told_s=None, raised_s=NOON + 1),
    )
    store.alerts.record_and_queue([state("ended"), state("ended in quiet hours", told_s=None), *others], (), now_s - 1)
    assert len(store.alerts.states()) == 6, "they are no older than that"
    store.alerts.record_and_queue((), (), now_s)
    assert {state.key for state in store.alerts.states()} == {state.key for state in others}


def test_a_target_hears_only_what_it_asked_for(store: Store) -> None:
    all_of_it = ReceivedMessages()
    halts = ReceivedMessages()
    notifier = AlertNotifier(
        store.alerts,
        [
            ChannelSubscription(channel(into(all_of_it), "all"), KINDS),
            ChannelSubscription(channel(into(halts), "halts"), frozenset({AlertKind.HALT})),
        ],
        RULES,
        lambda _: None,
    )
    notifier.process_cycle_alerts([DONE, HALT], KINDS, NOON)
    close_when_delivered(store, notifier)
    assert (all_of_it.texts, halts.texts) == (["done", "halted"], ["halted"])


def test_a_plugin_that_raises_is_a_failure_without_its_words(store: Store) -> None:
    def broken(title: str, text: str) -> str:
        raise requests.ConnectionError(f"https://{SECRET}.example")

    notifier = announcer(store, channel(broken))
    notifier.process_cycle_alerts([DONE], KINDS, NOON)
    close_when_delivered(store, notifier)
    assert store.alerts.target_states()["hook"].why == "it cannot be reached"


def test_the_last_word_of_a_process_needs_no_store(store: Store) -> None:
    hook = ReceivedMessages()
    with webhook(hook) as url:
        notifier = announcer(store, channel(apprise_sender(url, "H", 15)))
        store.close()
        notifier.send_now(Alert(AlertKind.ERROR, "hung", "hung"), NOON, 60)
        hook.until(1)
    assert hook.texts == ["hung"]


def test_apprise__sends_a_sanitized_text_unchanged() -> None:
    assert all(kind.title.replace(" ", "").isalnum() for kind in AlertKind)
    hook = ReceivedMessages()
    harmless = [sanitize_text(text) or "nothing" for text in CORPUS.values()]
    with webhook(hook) as url:
        send = apprise_sender(url, "H", 15)
        assert [send("t", text) for text in harmless] == [""] * len(harmless)
    assert hook.texts == [text.strip() for text in harmless]


def test_mail_of_the_whole_corpus_holds_no_markup_of_ours(store: Store) -> None:
    mail = ReceivedMessages()
    with mailbox(mail) as url:
        assert apprise_sender(url, "M", 15)("trimtab: test", sanitize_text(" ".join(CORPUS.values()))) == ""
    source = mail.texts[0]
    assert "<script" not in source
    assert "<img" not in source
    assert "href=" not in source
    assert "\x1b" not in source


# addresses are secrets
@pytest.mark.parametrize("store_kind", ["file"])
def test_an_address_is_in_no_log_no_error_and_no_store(store: Store, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    hook = ReceivedMessages(failing=1)
    with all_logs() as logs, webhook(hook, SECRET) as url, silent() as gone:
        notifier = announcer(
            store, channel(apprise_sender(url, "H", 15)), channel(apprise_sender(gone.replace("never", SECRET), "G", 0.2), "gone", 1)
        )
        notifier.process_cycle_alerts([DONE], KINDS, NOON)
        close_when_delivered(store, notifier)
        with raises_field("alerts.targets.url_env", "WRONG", "no address supported") as refused:
            apprise_sender(f"nonsense://{SECRET}", "WRONG", 15)
    assert SECRET in hook.items[0]["path"]
    shown_text = logs.getvalue() + str(refused.value) + repr(notifier) + "".join(map(str, store.alerts.target_states().values()))
    assert not found_in(shown_text.encode(), [SECRET])
    store.close()
    assert not [path for path in tmp_path.iterdir() if found_in(path.read_bytes(), [SECRET])]
