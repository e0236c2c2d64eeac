"""Alerts about controls that were refused or that failed."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from agent.model import Alert, AlertKind, ControlCode, ControlEvent, ControlState

_CODE = re.compile(r"[a-z_]{1,40}")
CONTROL_REASONS: Mapping[str, str] = {
    ControlCode.SEAL: "it was not written by this installation, or changed in the store",
    ControlCode.REPLAYED: "it was carried out before",
    ControlCode.CLOCK: "its times do not fit the clock",
    ControlCode.INTERRUPTED: "the run ended while it carried it out",
    ControlCode.PLAN_CHANGED: "the plan differs from the one shown",
}


def control_alerts(events: Sequence[ControlEvent]) -> tuple[Alert, ...]:
    """Return one alert for each kind of failure among new lines of the log of controls. The texts
    of an entry are not repeated, because it may be forged.
    """
    counts: dict[tuple[str, str], int] = {}
    for event in events:
        if event.state in (ControlState.REFUSED.value, ControlState.FAILED.value):
            code = event.code if _CODE.fullmatch(event.code) else ""
            counts[event.state, code] = counts.get((event.state, code), 0) + 1
    return tuple(
        Alert(
            AlertKind.ERROR,
            f"control:{state}:{code}",
            f"{count} {'control' if count == 1 else 'controls'} {state}"
            f"{f': {CONTROL_REASONS.get(code, code)}' if code else ''}. See trimtab controls.",
        )
        for (state, code), count in counts.items()
    )
