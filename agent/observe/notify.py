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
from agent.model import Alert, AlertKind, AlertMessage, AlertState, Delivery
from agent.store.alerts import AlertStore

LONGEST_TEXT = 600
_FOREIGN = re.compile(r"[^A-Za-z0-9 .,:;%+/()=_-]+")
"""Characters removed from messages, because they may form markup, escapes, formulas or
links (T17).
"""
_APOSTROPHE = re.compile(r"(?<=[a-z])'(?=s\b)")
"""Apostrophe of a genitive."""


def sanitize_text(text: str) -> str:
    """Return the text in one line of at most LONGEST_TEXT safe characters; genitives lose their
    apostrophe.
    """
    safe = " ".join(_FOREIGN.sub("?", _APOSTROPHE.sub("", text)).split()).replace("://", ": ")
    if len(safe) <= LONGEST_TEXT:
        return safe
    return safe[: LONGEST_TEXT - 3] + "..."


@dataclass(frozen=True, slots=True)
class QuietHours:
    """Quiet hours in minutes of a time zone, possibly past midnight; only urgent alerts are sent
    then.
    """

    begin_min: int
    end_min: int
    zone: ZoneInfo

    def until_s(self, now_s: int) -> int | None:
        """Return the end of the quiet hours that contain `now_s`, Unix seconds; None outside.

        Daylight saving follows the zone.
        """
        now = datetime.fromtimestamp(now_s, UTC).astimezone(self.zone)
        minute = now.hour * 60 + now.minute
        inside = self.begin_min <= minute < self.end_min
        if self.begin_min > self.end_min:
            inside = minute >= self.begin_min or minute < self.end_min
        if not inside:
            return None
        day = now.date() + timedelta(days=int(minute >= self.end_min))
        end = datetime(
            day.year, day.month, day.day, self.end_min // 60, self.end_min % 60, tzinfo=self.zone
        )
        return int(end.timestamp())


@dataclass(frozen=True, slots=True)
class AlertRules:
    """Sending rules. `kinds` are the enabled kinds, `cooldowns` are seconds by kind, `repeat_s`
    applies to lasting conditions (None: never repeat).
    """

    kinds: frozenset[AlertKind]
    cooldown_s: int
    cooldowns: Mapping[AlertKind, int] = field(default_factory=dict)
    repeat_s: int | None = None
    quiet: QuietHours | None = None
    urgent: frozenset[AlertKind] = frozenset()

    def due_s(self, state: AlertState, now_s: int) -> int:
        """Return the earliest time to send: after the cooldown, and after quiet hours unless
        urgent.
        """
        at_s = now_s
        if state.told_s is not None:
            sent_s = min(state.told_s, now_s)  # the clock may have been set back
            at_s = max(now_s, sent_s + self.cooldowns.get(state.kind, self.cooldown_s))
        if self.quiet is None or state.kind in self.urgent:
            return at_s
        until_s = self.quiet.until_s(at_s)
        return at_s if until_s is None else until_s


@dataclass(frozen=True, slots=True)
class AlertDecision:
    """Result of the rules: `changed` states, and the alerts to send now with their text, in order
    of occurrence.
    """

    changed: tuple[AlertState, ...]
    to_send: tuple[AlertState, ...]


def decide_alerts(
    states: Sequence[AlertState],
    alerts: Iterable[Alert],
    judged: frozenset[AlertKind],
    now_s: int,
    rules: AlertRules,
) -> AlertDecision:
    """Return the alerts of a cycle to send now, and the new states. Each cycle reports every
    lasting condition of the kinds in `judged`. A condition that is no longer reported has ended,
    and is dropped if it was not sent yet. Pure and deterministic.
    """
    states_by_key = {state.key: state for state in states}
    lasts = set()
    for alert in alerts:
        if alert.kind in rules.kinds:
            before = states_by_key.get(alert.key) or AlertState(alert.key, alert.kind, "", now_s)
            if alert.lasting:
                after = _lasting(before, alert, now_s, rules)
                lasts.add(alert.key)
            else:
                after = _happened(before, alert, now_s)
            if after.untold and not before.untold:
                states_by_key.pop(alert.key, None)  # sort after alerts raised earlier
            states_by_key[alert.key] = after
    for key, state in states_by_key.items():
        if state.since_s is not None and key not in lasts and state.kind in judged:
            states_by_key[key] = replace(state, since_s=None, untold=0)
    changed = []
    for state in sorted(states_by_key.values(), key=lambda state: state.raised_s):
        if state.untold and state.kind in rules.kinds and rules.due_s(state, now_s) <= now_s:
            states_by_key[state.key] = replace(state, untold=0, told_s=now_s)
            changed.append(replace(state, text=_counted(state)))
    known = {state.key: state for state in states}
    return AlertDecision(
        tuple(state for key, state in states_by_key.items() if state != known.get(key)),
        tuple(changed),
    )


def _lasting(state: AlertState, alert: Alert, now_s: int, rules: AlertRules) -> AlertState:
    if state.since_s is None:
        return replace(state, text=alert.text, since_s=now_s, untold=1, raised_s=now_s)
    again = (
        rules.repeat_s is not None
        and state.told_s is not None
        and now_s >= state.told_s + rules.repeat_s
    )
    if again and not state.untold:
        return replace(state, text=alert.text, untold=1, raised_s=now_s)
    return replace(state, text=alert.text) if state.untold else state


def _happened(state: AlertState, alert: Alert, now_s: int) -> AlertState:
    return replace(
        state,
        text=alert.text,
        untold=state.untold + 1,
        raised_s=state.raised_s if state.untold else now_s,
    )


def _counted(state: AlertState) -> str:
    if state.untold == 1:
        return state.text
    return f"{state.text} ({state.untold} times since the last message)"


SendMessage = Callable[[str, str], str]
"""Function that sends title and text; returns why it failed, empty on success."""
MAX_QUEUED = 100
UNANSWERED = "no answer in time"
"""Failure reason of a channel that did not answer before its timeout."""
FIRST_WAIT_S, LONGEST_WAIT_S = 2.0, 300.0


class AlertChannel:
    """One alert target with a delivery thread: `put` never waits, results are collected later.
    Delays between attempts double, up to five minutes.
    """

    def __init__(
        self,
        name: str,
        send: SendMessage,
        attempts: int,
        label: str,
        first_wait_s: float = FIRST_WAIT_S,
    ) -> None:
        self.name = name
        self._send = send
        self._label = label
        self._closing = threading.Event()
        self._waiting: queue.Queue[AlertMessage | None] = queue.Queue(MAX_QUEUED)
        self._done: queue.SimpleQueue[Delivery] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._retrying = Retrying(
            stop=stop_after_attempt(attempts) | stop_when_event_set(self._closing),
            wait=wait_exponential(first_wait_s, max=LONGEST_WAIT_S),
            retry=retry_if_result(bool),
            sleep=sleep_using_event(self._closing),
            retry_error_callback=_last_word,
        )

    def __repr__(self) -> str:
        return f"AlertChannel({self.name})"

    def put(self, message: AlertMessage) -> None:
        """Queue a message; if too many are pending the oldest is dropped."""
        while True:
            try:
                self._waiting.put_nowait(message)
                break
            except queue.Full:
                with suppress(queue.Empty):
                    self._waiting.get_nowait()
                    self._waiting.task_done()
        if self._thread is None:
            self._thread = threading.Thread(
                target=self._carry, name=f"trimtab alerts {self.name}", daemon=True
            )
            self._thread.start()

    def collected(self) -> list[Delivery]:
        """Return the results of deliveries since the last call."""
        lines = []
        while not self._done.empty():
            lines.append(self._done.get())
        return lines

    def close(self, within_s: float) -> None:
        """Wait for pending messages, then give up; undelivered messages do not count as failed."""
        end = time.monotonic() + within_s
        while (
            self._thread is not None and self._waiting.unfinished_tasks and time.monotonic() < end
        ):
            time.sleep(0.02)
        self._closing.set()
        with suppress(queue.Full):  # the busy thread reads `_closing` after its message
            self._waiting.put_nowait(None)

    def _carry(self) -> None:
        while not self._closing.is_set() and (message := self._waiting.get()) is not None:
            why = str(self._retrying(self._try, message))
            if not (why and self._closing.is_set()):
                self._done.put(Delivery(message, why, int(time.time())))
            self._waiting.task_done()

    def _try(self, message: AlertMessage) -> str:
        """Send one message and return why it failed, without the target's answer (foreign
        text) or address (a secret).
        """
        try:
            return self._send(f"{self._label}: {message.kind.title}", message.text)
        except Exception as error:  # an error in an apprise plugin must not end the run
            return type(error).__name__


def _last_word(state: RetryCallState) -> str:
    return "" if state.outcome is None else str(state.outcome.result())


def apprise_send(url: str, variable: str, timeout_s: float) -> SendMessage:
    """Build a sender that uses apprise. Raises ConfigError, without the address, if apprise does
    not support it.
    """
    import apprise

    # its log lines contain hosts and answers; `send` reports failures without them
    logging.getLogger("apprise").setLevel(logging.CRITICAL + 10)
    asset = apprise.AppriseAsset(
        async_mode=False, http_redirects=False, interpret_escapes=False, interpret_emojis=False
    )
    target = apprise.Apprise.instantiate(url, asset=asset, suppress_exceptions=True)
    if target is None:
        raise ConfigError(
            f"alerts.targets.url_env: environment variable {variable} "
            "has no address supported by apprise",
            "for example mailtos://user:password@example.org, or jsons://host/path; see"
            " docs/alerts.md",
        )
    target.socket_connect_timeout = target.socket_read_timeout = timeout_s
    bundle = apprise.Apprise(asset=asset)
    bundle.add(target)

    def send(title: str, text: str) -> str:
        started_s = time.monotonic()
        if bundle.notify(body=text, title=title, body_format=apprise.NotifyFormat.TEXT):
            return ""
        return UNANSWERED if time.monotonic() - started_s >= timeout_s else "not accepted"

    return send


def drain_channels(channels: Iterable[AlertChannel], within_s: float) -> list[Delivery]:
    """Let all channels finish within `within_s` in total; return the results of their messages."""
    channels, end = list(channels), time.monotonic() + within_s
    for channel in channels:
        channel.close(max(0.0, end - time.monotonic()))
    return [delivery for channel in channels for delivery in channel.collected()]


CLOSING_S = 5.0
"""Seconds to wait for pending messages at the end of a run; the next run sends the rest."""


@dataclass(frozen=True, slots=True)
class ChannelSubscription:
    """A channel and its subscribed alert kinds."""

    channel: AlertChannel
    kinds: frozenset[AlertKind]


class AlertNotifier:
    """Decides, records and queues alerts, in the thread of the run; delivery threads do not use the
    store.

    `failed` is called for failed deliveries, for the log.
    """

    def __init__(
        self,
        store: AlertStore,
        listeners: Sequence[ChannelSubscription],
        rules: AlertRules,
        failed: Callable[[Delivery], None],
    ) -> None:
        self._store = store
        self._listeners = {listener.channel.name: listener for listener in listeners}
        self._rules = rules
        self._failed = failed

    def begin(self) -> None:
        """Queue messages that an earlier run did not deliver."""
        messages = self._store.pending()
        gone = {message.target for message in messages} - set(self._listeners)
        if gone:
            self._store.drop(gone)
        self._hand_over(message for message in messages if message.target not in gone)

    def on_cycle(
        self, alerts: Iterable[Alert], judged: frozenset[AlertKind], now_s: int, last: bool = False
    ) -> tuple[AlertState, ...]:
        """Process the alerts of a cycle at `now_s`, Unix seconds; return the alerts to send now.

        `judged` as in decide_alerts. The `last` alerts of a run ignore quiet hours, since no
        process would send them later.
        """
        self._settle(
            [
                delivery
                for listener in self._listeners.values()
                for delivery in listener.channel.collected()
            ]
        )
        rules = replace(self._rules, quiet=None) if last else self._rules
        decision = decide_alerts(self._store.states(), alerts, judged, now_s, rules)
        messages = [
            (name, state)
            for state in decision.to_send
            for name, listener in self._listeners.items()
            if state.kind in listener.kinds
        ]
        if decision.changed or messages:
            self._hand_over(self._store.record(decision.changed, messages, now_s))
        return decision.to_send

    def close(self, within_s: float = CLOSING_S) -> None:
        """Wait that long for pending messages."""
        self._settle(
            drain_channels((listener.channel for listener in self._listeners.values()), within_s)
        )

    def send_now(self, alert: Alert, now_s: int, within_s: float = CLOSING_S) -> None:
        """Send one alert at once and wait for it. Does not use the store, which may hang: the
        process is about to end.
        """
        for name, listener in self._listeners.items():
            if alert.kind in listener.kinds and alert.kind in self._rules.kinds:
                listener.channel.put(AlertMessage(0, name, alert.kind, alert.text, now_s))
        drain_channels((listener.channel for listener in self._listeners.values()), within_s)

    def _hand_over(self, messages: Iterable[AlertMessage]) -> None:
        for message in messages:
            self._listeners[message.target].channel.put(message)

    def _settle(self, deliveries: Sequence[Delivery]) -> None:
        if not deliveries:
            return
        self._store.record_deliveries(deliveries)
        for delivery in deliveries:
            if delivery.why:
                self._failed(delivery)
