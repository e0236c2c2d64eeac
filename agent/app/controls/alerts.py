"""Alerts about controls: carried out, refused or failed."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence

from agent.errors import printable_text
from agent.model import (
    Alert,
    AlertKind,
    ControlCode,
    ControlEvent,
    ControlKind,
    ControlOrigin,
    ControlState,
)

_CODE = re.compile(r"[a-z_]{1,40}")
CONTROL_REASONS: Mapping[str, str] = {
    ControlCode.SEAL: "not written by this installation, or changed in the store",
    ControlCode.REPLAYED: "already carried out",
    ControlCode.CLOCK: "its times do not fit the clock",
    ControlCode.INTERRUPTED: "the run ended before it was finished",
    ControlCode.PLAN_CHANGED: "the plan differs from the one shown",
}
KINDS = frozenset(kind.value for kind in ControlKind)
ORIGINS = frozenset(origin.value for origin in ControlOrigin)


def control_alerts(events: Sequence[ControlEvent]) -> tuple[Alert, ...]:
    """Return an alert for each control that was carried out, and one for each reason of a refusal or
    failure, from new lines of the log of controls. Texts of an entry are not repeated, because it
    may be forged.
    """
    found: list[Alert] = []
    counts: Counter[tuple[str, str]] = Counter()
    for event in events:
        if event.state in (ControlState.REFUSED.value, ControlState.FAILED.value):
            counts[event.state, event.code if _CODE.fullmatch(event.code) else ""] += 1
        elif event.state == ControlState.DONE.value:
            kind = event.kind if event.kind in KINDS else "unknown"
            origin = event.origin if event.origin in ORIGINS else "unknown"
            text = f"A control was carried out: {kind} ({origin}). See trimtab controls."
            found.append(Alert(AlertKind.CONTROL, f"control:{event.control[:40]}", text))
    for (state, code), count in counts.items():
        reason = CONTROL_REASONS.get(code, code)
        text = (
            f"{count} {'control' if count == 1 else 'controls'} {state}"
            f"{f': {reason}' if reason else ''}. See trimtab controls."
        )
        found.append(Alert(AlertKind.CONTROL, f"control:{state}:{code}", text))
    return tuple(found)


def control_note(event: ControlEvent) -> str:
    """Return the end of a control as one line for the run's screen."""
    code = f" ({event.code})" if event.code else ""
    reason = f": {event.reason}" if event.reason else ""
    return printable_text(f"Control {event.kind} by {event.asked_by} {event.state}{code}{reason}")
