"""Alerts: sending rules, delivery channels with a thread each, and the notifier."""

from __future__ import annotations

import logging
import queue
import re
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from tenacity import (
    RetryCallState,
    Retrying,
    retry_if_result,
    sleep_using_event,
    stop_after_attempt,
    stop_when_event_set,
    wait_exponential,
)

from agent.errors import ConfigError
from agent.foreign_text import failure_words
from agent.model import Alert, AlertKind, AlertMessage, AlertState, Delivery
from agent.store.alerts import AlertStore

MAX_TEXT_LENGTH = 600
_UNSAFE_CHARACTERS = re.compile(r"[^A-Za-z0-9 .,:;%+/()=_-]+")
"""Characters removed from messages, because they may form markup, escapes, formulas or
links (T17).
"""
_APOSTROPHE = re.compile(r"(?<=[a-z])'(?=s\b)")
"""Apostrophe of a genitive."""


def sanitize_text(text: str) -> str:
    """Return the text in one line of at most MAX_TEXT_LENGTH safe characters; genitives lose their
    apostrophe.
    """
    safe_text = " ".join(_UNSAFE_CHARACTERS.sub("?", _APOSTROPHE.sub("", text)).split()).replace(
        "://", ": "
    )
    if len(safe_text) <= MAX_TEXT_LENGTH:
        return safe_text
    return safe_text[: MAX_TEXT_LENGTH - 3] + "..."


@dataclass(frozen=True, slots=True)
class QuietHours:
    """Quiet hours in minutes of a time zone, possibly past midnight; only urgent alerts are sent
    then.
    """

    begin_min: int
    end_min: int
    time_zone: ZoneInfo

    def until_s(self, now_s: int) -> int | None:
        """Return the end of the quiet hours that contain `now_s`, Unix seconds; None outside.

        Daylight saving follows the zone.
        """
        local_time = datetime.fromtimestamp(now_s, UTC).astimezone(self.time_zone)
        minute_of_day = local_time.hour * 60 + local_time.minute
        is_quiet = self.begin_min <= minute_of_day < self.end_min
        if self.begin_min > self.end_min:
            is_quiet = minute_of_day >= self.begin_min or minute_of_day < self.end_min
        if not is_quiet:
            return None
        end_date = local_time.date() + timedelta(days=int(minute_of_day >= self.end_min))
        end_time = datetime(
            end_date.year,
            end_date.month,
            end_date.day,
            self.end_min // 60,
            self.end_min % 60,
            tzinfo=self.time_zone,
            fold=local_time.fold,
        )
        return int(end_time.timestamp())


@dataclass(frozen=True, slots=True)
class AlertRules:
    """Sending rules. `kinds` are the enabled kinds, `cooldown_s_by_kind` comes before
    `cooldown_s`, `repeat_s` applies to lasting conditions (None: never repeat).
    """

    kinds: frozenset[AlertKind]
    cooldown_s: int
    cooldown_s_by_kind: Mapping[AlertKind, int] = field(default_factory=dict)
    repeat_s: int | None = None
    quiet_hours: QuietHours | None = None
    urgent_kinds: frozenset[AlertKind] = frozenset()

    def due_s(self, state: AlertState, now_s: int) -> int:
        """Return the earliest time to send: after the cooldown, and after quiet hours unless
        urgent.
        """
        due_s = now_s
        if state.last_sent_s is not None:
            cooldown_s = self.cooldown_s_by_kind.get(state.kind, self.cooldown_s)
            due_s = max(now_s, state.last_sent_s + cooldown_s)
        if self.quiet_hours is None or state.kind in self.urgent_kinds:
            return due_s
        quiet_end_s = self.quiet_hours.until_s(due_s)
        return due_s if quiet_end_s is None else quiet_end_s


@dataclass(frozen=True, slots=True)
class AlertDecision:
    """Result of the rules: `changed_states` are the states to store, `to_send` the alerts to send
    now with their text, in order of occurrence.
    """

    changed_states: tuple[AlertState, ...]
    to_send: tuple[AlertState, ...]


def decide_alerts(
    states: Sequence[AlertState],
    alerts: Iterable[Alert],
    judged_kinds: frozenset[AlertKind],
    now_s: int,
    rules: AlertRules,
) -> AlertDecision:
    """Return the alerts of a cycle to send now, and the new states. Each cycle reports every
    lasting condition of the kinds in `judged_kinds`. A condition that is no longer reported has
    ended, and is dropped if it was not sent yet. Pure and deterministic.
    """
    state_by_key = {state.key: _sent_by(state, now_s) for state in states}
    lasting_keys = set()
    for alert in alerts:
        if alert.kind in rules.kinds:
            previous_state = state_by_key.get(alert.key) or AlertState(
                alert.key, alert.kind, "", now_s
            )
            if alert.is_lasting:
                updated_state = _updated_condition(previous_state, alert, now_s, rules)
                lasting_keys.add(alert.key)
            else:
                updated_state = _updated_event(previous_state, alert, now_s)
            if updated_state.unsent_count and not previous_state.unsent_count:
                state_by_key.pop(alert.key, None)  # sort after alerts raised earlier
            state_by_key[alert.key] = updated_state
    for key, state in state_by_key.items():
        if state.since_s is not None and key not in lasting_keys and state.kind in judged_kinds:
            state_by_key[key] = replace(state, since_s=None, unsent_count=0)
    due_states = []
    for state in sorted(state_by_key.values(), key=lambda state: state.raised_s):
        if state.unsent_count and state.kind in rules.kinds and rules.due_s(state, now_s) <= now_s:
            state_by_key[state.key] = replace(state, unsent_count=0, last_sent_s=now_s)
            due_states.append(replace(state, text=_text_with_count(state)))
    stored_by_key = {state.key: state for state in states}
    return AlertDecision(
        tuple(state for key, state in state_by_key.items() if state != stored_by_key.get(key)),
        tuple(due_states),
    )


def _sent_by(state: AlertState, now_s: int) -> AlertState:
    """Return the state as sent at `now_s` at the latest: the clock may have been set back since."""
    if state.last_sent_s is None or state.last_sent_s <= now_s:
        return state
    return replace(state, last_sent_s=now_s)


def _updated_condition(
    state: AlertState, alert: Alert, now_s: int, rules: AlertRules
) -> AlertState:
    if state.since_s is None:
        return replace(state, text=alert.text, since_s=now_s, unsent_count=1, raised_s=now_s)
    is_repeat_due = (
        alert.repeats
        and rules.repeat_s is not None
        and state.last_sent_s is not None
        and now_s >= state.last_sent_s + rules.repeat_s
    )
    if is_repeat_due and not state.unsent_count:
        return replace(state, text=alert.text, unsent_count=1, raised_s=now_s)
    return replace(state, text=alert.text) if state.unsent_count else state


def _updated_event(state: AlertState, alert: Alert, now_s: int) -> AlertState:
    return replace(
        state,
        text=alert.text,
        unsent_count=state.unsent_count + 1,
        raised_s=state.raised_s if state.unsent_count else now_s,
    )


def _text_with_count(state: AlertState) -> str:
    if state.unsent_count == 1:
        return state.text
    return f"{state.text} ({state.unsent_count} times since the last message)"


SendMessage = Callable[[str, str], str]
"""Function that sends title and text; returns why it failed, empty on success."""
MAX_QUEUED = 100
UNANSWERED_REASON = "no answer in time"
"""Failure reason of a channel that did not answer before its timeout."""
FIRST_RETRY_S = 2.0
MAX_RETRY_S = 300.0


class AlertChannel:
    """One alert target with a delivery thread: `put` never waits, results are collected later.
    Delays between attempts double, up to five minutes.
    """

    def __init__(
        self,
        name: str,
        send: SendMessage,
        attempts: int,
        agent_label: str,
        first_retry_s: float = FIRST_RETRY_S,
    ) -> None:
        self.name = name
        self._send = send
        self._agent_label = agent_label
        self._closing = threading.Event()
        self._queue: queue.Queue[AlertMessage | None] = queue.Queue(MAX_QUEUED)
        self._results: queue.SimpleQueue[Delivery] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._retrying = Retrying(
            stop=stop_after_attempt(attempts) | stop_when_event_set(self._closing),
            wait=wait_exponential(first_retry_s, max=MAX_RETRY_S),
            retry=retry_if_result(bool),
            sleep=sleep_using_event(self._closing),
            retry_error_callback=_last_result,
        )

    def __repr__(self) -> str:
        return f"AlertChannel({self.name})"

    def put(self, message: AlertMessage) -> None:
        """Queue a message; if too many are pending the oldest is dropped."""
        while True:
            try:
                self._queue.put_nowait(message)
                break
            except queue.Full:
                with suppress(queue.Empty):
                    self._queue.get_nowait()
                    self._queue.task_done()
        if self._thread is None:
            self._thread = threading.Thread(
                target=self._deliver_queued, name=f"trimtab alerts {self.name}", daemon=True
            )
            self._thread.start()

    def take_results(self) -> list[Delivery]:
        """Return the results of deliveries since the last call."""
        deliveries = []
        while not self._results.empty():
            deliveries.append(self._results.get())
        return deliveries

    def close(self, within_s: float) -> None:
        """Wait for pending messages, then give up; undelivered messages do not count as failed. A
        channel that was closed before is not waited for again.
        """
        deadline_s = time.monotonic() + within_s
        while (
            self._thread is not None
            and not self._closing.is_set()
            and self._queue.unfinished_tasks
            and time.monotonic() < deadline_s
        ):
            time.sleep(0.02)
        self._closing.set()
        with suppress(queue.Full):  # the busy thread reads `_closing` after its message
            self._queue.put_nowait(None)

    def _deliver_queued(self) -> None:
        while not self._closing.is_set() and (message := self._queue.get()) is not None:
            failure_reason = str(self._retrying(self._send_once, message))
            if not (failure_reason and self._closing.is_set()):
                self._results.put(Delivery(message, failure_reason, int(time.time())))
            self._queue.task_done()

    def _send_once(self, message: AlertMessage) -> str:
        """Send one message and return why it failed, without the target's answer (foreign
        text) or address (a secret).
        """
        try:
            return self._send(f"{self._agent_label}: {message.title}", message.text)
        except Exception as error:  # an error in an apprise plugin must not end the run
            return failure_words(error)


def _last_result(retry_state: RetryCallState) -> str:
    return "" if retry_state.outcome is None else str(retry_state.outcome.result())


def apprise_sender(url: str, env_name: str, timeout_s: float) -> SendMessage:
    """Build a sender that uses apprise. Raises ConfigError, without the address, if apprise does
    not support it.
    """
    import apprise

    # its log lines contain hosts and answers; `send` reports failures without them
    logging.getLogger("apprise").setLevel(logging.CRITICAL + 10)
    apprise_asset = apprise.AppriseAsset(
        async_mode=False, http_redirects=False, interpret_escapes=False, interpret_emojis=False
    )
    plugin = apprise.Apprise.instantiate(url, asset=apprise_asset, suppress_exceptions=True)
    if plugin is None:
        raise ConfigError(
            f"alerts.targets.url_env: environment variable {env_name} "
            "has no address supported by apprise",
            "for example mailtos://user:password@example.org, or jsons://host/path; see"
            " docs/alerts.md",
        )
    plugin.socket_connect_timeout = plugin.socket_read_timeout = timeout_s
    notifier = apprise.Apprise(asset=apprise_asset)
    notifier.add(plugin)

    def send(title: str, text: str) -> str:
        started_s = time.monotonic()
        if notifier.notify(body=text, title=title, body_format=apprise.NotifyFormat.TEXT):
            return ""
        return UNANSWERED_REASON if time.monotonic() - started_s >= timeout_s else "not accepted"

    return send


def close_channels(channels: Iterable[AlertChannel], within_s: float) -> None:
    """Let all channels finish within `within_s` in total."""
    deadline_s = time.monotonic() + within_s
    for channel in channels:
        channel.close(max(0.0, deadline_s - time.monotonic()))


def drain_channels(channels: Iterable[AlertChannel], within_s: float) -> list[Delivery]:
    """Let all channels finish within `within_s` in total; return the results of their messages."""
    channels = list(channels)
    close_channels(channels, within_s)
    return [delivery for channel in channels for delivery in channel.take_results()]


UNRECORDED_ID = 0
"""Id of a message that is not in the store."""
CLOSE_TIMEOUT_S = 5.0
"""Seconds to wait for pending messages at the end of a run; the next run sends the rest."""


@dataclass(frozen=True, slots=True)
class ChannelSubscription:
    """A channel and its subscribed alert kinds."""

    channel: AlertChannel
    kinds: frozenset[AlertKind]


class AlertNotifier:
    """Decides, records and queues alerts, in the thread of the run; delivery threads do not use the
    store.

    `on_failure` is called for failed deliveries, for the log. `complete` adds the config to the
    commands that a text names.
    """

    def __init__(
        self,
        store: AlertStore,
        subscriptions: Sequence[ChannelSubscription],
        rules: AlertRules,
        on_failure: Callable[[Delivery], None],
        complete: Callable[[str], str] = str,
    ) -> None:
        self._store = store
        self._complete = complete
        self._subscriptions = {
            subscription.channel.name: subscription for subscription in subscriptions
        }
        self._rules = rules
        self._on_failure = on_failure

    def enqueue_undelivered(self) -> None:
        """Queue messages that an earlier run did not deliver."""
        messages = self._store.pending_messages()
        removed_targets = {message.target for message in messages} - set(self._subscriptions)
        if removed_targets:
            self._store.drop_messages(removed_targets)
        self._enqueue(message for message in messages if message.target not in removed_targets)

    def process_cycle_alerts(
        self,
        alerts: Iterable[Alert],
        judged_kinds: frozenset[AlertKind],
        now_s: int,
        is_last: bool = False,
    ) -> tuple[AlertState, ...]:
        """Process the alerts of a cycle at `now_s`, Unix seconds; return the alerts to send now.

        `judged_kinds` as in decide_alerts. With `is_last`, the alerts of a run's last cycle, quiet
        hours are ignored, since no process would send them later.
        """
        self._record_results(
            [
                delivery
                for subscription in self._subscriptions.values()
                for delivery in subscription.channel.take_results()
            ]
        )
        alerts = [replace(alert, text=self._complete(alert.text)) for alert in alerts]
        rules = replace(self._rules, quiet_hours=None) if is_last else self._rules
        alert_decision = decide_alerts(self._store.states(), alerts, judged_kinds, now_s, rules)
        targets_and_states = [
            (name, state)
            for state in alert_decision.to_send
            for name, subscription in self._subscriptions.items()
            if state.kind in subscription.kinds
        ]
        if alert_decision.changed_states or targets_and_states:
            self._enqueue(
                self._store.record_and_queue(
                    alert_decision.changed_states, targets_and_states, now_s
                )
            )
        return alert_decision.to_send

    def close(self, within_s: float = CLOSE_TIMEOUT_S) -> None:
        """Wait that long for pending messages."""
        self._record_results(
            drain_channels(
                (subscription.channel for subscription in self._subscriptions.values()), within_s
            )
        )

    def send_now(self, alert: Alert, now_s: int, within_s: float = CLOSE_TIMEOUT_S) -> None:
        """Send one alert at once and wait for it. Does not use the store, which may hang: the
        process is about to end.
        """
        self.queue_unrecorded(alert, now_s)
        close_channels(
            (subscription.channel for subscription in self._subscriptions.values()), within_s
        )

    def queue_unrecorded(self, alert: Alert, now_s: int) -> None:
        """Queue one alert without the store, which cannot be written."""
        text = self._complete(alert.text)
        for name, subscription in self._subscriptions.items():
            if alert.kind in subscription.kinds and alert.kind in self._rules.kinds:
                subscription.channel.put(AlertMessage(UNRECORDED_ID, name, alert.kind, text, now_s))

    def _enqueue(self, messages: Iterable[AlertMessage]) -> None:
        for message in messages:
            self._subscriptions[message.target].channel.put(message)

    def _record_results(self, deliveries: Sequence[Delivery]) -> None:
        if not deliveries:
            return
        self._store.record_deliveries(deliveries)
        for delivery in deliveries:
            if delivery.failure_reason:
                self._on_failure(delivery)
