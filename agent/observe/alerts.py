"""Alert rules: which alerts are due now, by cooldown, repeat and quiet hours. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from agent.model import Alert, AlertKind, AlertState

LONGEST_TEXT = 600
_FOREIGN = re.compile(r"[^A-Za-z0-9 .,:;%+/()=_-]+")
_APOSTROPHE = re.compile(r"(?<=[a-z])'(?=s\b)")
"""Unsafe characters: not needed in a message, but possible markup, escapes, formulas or links
(T17).
"""


def sanitize_text(text: str) -> str:
    """Return the text in one line, with safe characters only, cut to a length; English genitives
    lose the apostrophe.
    """
    found = " ".join(_FOREIGN.sub("?", _APOSTROPHE.sub("", text)).split()).replace("://", ": ")
    return found if len(found) <= LONGEST_TEXT else found[: LONGEST_TEXT - 3] + "..."


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
        day = now.date() + timedelta(days=1 if minute >= self.end_min else 0)
        end = datetime(day.year, day.month, day.day, self.end_min // 60, self.end_min % 60, tzinfo=self.zone)
        return int(end.timestamp())


@dataclass(frozen=True, slots=True)
class AlertRules:
    """Rules of sending.

    `kinds` are enabled, `cooldowns` are seconds by kind, `repeat_s` is for lasting conditions
    (None: never repeat).
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
        told_s = None if state.told_s is None else min(state.told_s, now_s)  # a clock set back must not silence alerts for long
        at_s = now_s if told_s is None else max(now_s, told_s + self.cooldowns.get(state.kind, self.cooldown_s))
        until_s = None if self.quiet is None or state.kind in self.urgent else self.quiet.until_s(at_s)
        return at_s if until_s is None else until_s


@dataclass(frozen=True, slots=True)
class AlertDecision:
    """Result of the rules: `changed` states, and those to send now with their text, in order of
    occurrence.
    """

    changed: tuple[AlertState, ...]
    to_send: tuple[AlertState, ...]


def decide_alerts(
    states: Sequence[AlertState], alerts: Iterable[Alert], judged: frozenset[AlertKind], now_s: int, rules: AlertRules
) -> AlertDecision:
    """Return which alerts of a cycle to send now, and the new states.

    Each cycle reports every lasting condition of the kinds in `judged`. A condition not reported is
    over, and is dropped if not sent yet. Pure and deterministic.
    """
    found = {state.key: state for state in states}
    lasts = set()
    for alert in alerts:
        if alert.kind in rules.kinds:
            before = found.get(alert.key) or AlertState(alert.key, alert.kind, "", now_s)
            after = _lasting(before, alert, now_s, rules) if alert.lasting else _happened(before, alert, now_s)
            if after.untold and not before.untold:
                found.pop(alert.key, None)  # sort after alerts raised earlier
            found[alert.key] = after
            lasts |= {alert.key} if alert.lasting else set()
    for key, state in found.items():
        if state.since_s is not None and key not in lasts and state.kind in judged:
            found[key] = replace(state, since_s=None, untold=0)
    changed = []
    for state in sorted(found.values(), key=lambda one: one.raised_s):
        if state.untold and state.kind in rules.kinds and rules.due_s(state, now_s) <= now_s:
            found[state.key] = replace(state, untold=0, told_s=now_s)
            changed.append(replace(state, text=_counted(state)))
    known = {state.key: state for state in states}
    return AlertDecision(tuple(state for key, state in found.items() if state != known.get(key)), tuple(changed))


def _lasting(state: AlertState, alert: Alert, now_s: int, rules: AlertRules) -> AlertState:
    if state.since_s is None:
        return replace(state, text=alert.text, since_s=now_s, untold=1, raised_s=now_s)
    again = rules.repeat_s is not None and state.told_s is not None and now_s >= state.told_s + rules.repeat_s
    if again and not state.untold:
        return replace(state, text=alert.text, untold=1, raised_s=now_s)
    return replace(state, text=alert.text) if state.untold else state


def _happened(state: AlertState, alert: Alert, now_s: int) -> AlertState:
    return replace(state, text=alert.text, untold=state.untold + 1, raised_s=state.raised_s if state.untold else now_s)


def _counted(state: AlertState) -> str:
    return state.text if state.untold == 1 else f"{state.text} ({state.untold} times since the last message)"
