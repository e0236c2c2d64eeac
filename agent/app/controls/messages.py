"""Texts for a phone: status, a plan with its cost, tax and worst case, and the end of a control,
as plain text without markup or links from the chain; and alerts about controls.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

from agent.app.documents.plans import tax_document
from agent.errors import printable_text
from agent.figures import format_figure, pause_exceptions, reader_text, stop_text
from agent.guards.sandwich import plan_worst_case
from agent.model import (
    Alert,
    AlertKind,
    ControlCode,
    ControlEvent,
    ControlKind,
    ControlOrigin,
    ControlState,
    Plan,
    StepInput,
)
from agent.observe.notify import sanitize_text
from agent.units import value_text

Document = Mapping[str, Any]
MAX_ROWS = 8
"""Maximum number of assets or moves shown."""
HASH_DIGITS = 12
COST_PARTS = ("fees", "impact", "skew", "gas", "approvals", "funding")
"""Parts of a cost that add up to its total; not every plan has funding."""
HELP_TEXT = (
    "/status value, weights and decision\n"
    "/plan the plan that waits, or one made now, with a code to confirm it\n"
    "/confirm CODE carries out the plan shown with it\n"
    "/pause stops all sending at once\n"
    "/resume lifts the pause, with a code"
)


def status_text(status_document: Document) -> str:
    """Return a status in a few lines."""
    total_text = "Total unknown"
    if status_document["total_value"] is not None:
        total_text = f"{_money_text(status_document['total_value'])} {status_document['numeraire']}"
    lines = [f"{total_text} at block {status_document['block']}"]
    if status_document["paused"]:
        paused_text = f"Paused: {status_document['pause_reason']}"
        lines.append(_sanitized(paused_text + pause_exceptions(status_document)))
    if "stop" in status_document:
        lines.append(f"{stop_text(status_document['stop'])}.")
    for holding in status_document["holdings"][:MAX_ROWS]:
        lines.append(
            f"{_sanitized(holding['symbol'])} {holding['weight_bps'] / 100:.2f} %, target"
            f" {holding['target_bps'] / 100:.2f} %"
        )
    lines.append(
        _sanitized(
            f"{status_document['decision']['kind']}: {status_document['decision']['reason']}"
        )
    )
    return "\n".join(lines)


def plan_text(shown_plan: Document) -> str:
    """Return a shown plan: moves, cost, tax, worst case, and the guards that refuse."""
    command_document = shown_plan["document"]
    numeraire_symbol = _sanitized(command_document.get("numeraire", ""))
    lines = [
        f"Plan {shown_plan['plan_hash'][:HASH_DIGITS]}"
        if shown_plan["plan_hash"]
        else "No plan to confirm"
    ]
    if shown_plan["reason"]:
        lines.append(_sanitized(shown_plan["reason"]))
    moves = [_sanitized(move) for move in shown_plan.get("moves", ())]
    lines += moves[:MAX_ROWS]
    if len(moves) > MAX_ROWS:
        lines.append(f"and {len(moves) - MAX_ROWS} more")
    if cost := command_document.get("cost"):
        nonzero_parts = ", ".join(
            f"{part_name} {_money_text(cost[part_name])}"
            for part_name in COST_PARTS
            if Decimal(cost.get(part_name, "0"))
        )
        parts_text = f" ({nonzero_parts})" if nonzero_parts else ""
        lines.append(
            f"Cost {_money_text(cost['total'])} {numeraire_symbol}{parts_text}; worst case"
            f" {_money_text(command_document.get('worst_case'))} {numeraire_symbol}"
        )
    lines.append(tax_text(command_document.get("tax")))
    failed_verdicts = [
        _sanitized(verdict["guard"])
        for verdict in command_document.get("verdicts", ())
        if not verdict["passed"]
    ]
    if failed_verdicts:
        lines.append(f"Refused by {', '.join(failed_verdicts)}")
    if not shown_plan["plan_hash"] and command_document.get("reason"):
        lines.append(_sanitized(command_document["reason"]))
    return "\n".join(lines)


def tax_text(plan_tax: Document | None) -> str:
    """Return the taxable gain of a plan."""
    if plan_tax is None:
        return "Tax: not configured"
    left_text = (
        f", {_money_text(plan_tax['left_this_year'])} left of this year's limit"
        if plan_tax["left_this_year"]
        else ""
    )
    return f"Taxable gain {_gain_text(plan_tax)} ({_sanitized(plan_tax['method'])}){left_text}"


def _gain_text(plan_tax: Mapping[str, Any]) -> str:
    if plan_tax["gain"] is None:
        return f"unknown: {_sanitized(plan_tax['unknown'])}"
    return f"{_money_text(plan_tax['gain'])} {_sanitized(plan_tax['currency'])}"


def worst_case_and_tax(step: StepInput, plan: Plan) -> str:
    """Return the worst case of a plan, and its taxable gain with [tax], each after a semicolon."""
    numeraire = step.portfolio.numeraire
    suffix_text = ""
    if (worst_case := plan_worst_case(step, plan)) is not None:
        worst_case_text = value_text(worst_case, numeraire.decimals, 2)
        suffix_text += f"; worst case {worst_case_text} {numeraire.label}"
    if (plan_tax := tax_document(step, plan)) is not None:
        suffix_text += f"; taxable gain {_gain_text(plan_tax)}"
    return suffix_text


def control_end_text(event: ControlEvent) -> str:
    """Return the end of a control."""
    code_text = f" ({event.code})" if event.code else ""
    return _sanitized(
        f"{event.kind} {event.state}{code_text}: {event.reason or 'see trimtab controls'}"
    )


def _money_text(amount: str | None) -> str:
    """Format money as pages do, a small cost with two digits."""
    return format_figure(amount, "cost", "-") if amount else "unknown"


def _sanitized(unsafe_text: object) -> str:
    return sanitize_text(reader_text(str(unsafe_text)))


_CODE_PATTERN = re.compile(r"[a-z_]{1,40}")
CONTROL_REASONS: Mapping[str, str] = {
    ControlCode.SEAL: "not written by this installation, or changed in the store",
    ControlCode.REPLAYED: "already carried out",
    ControlCode.CLOCK: "its times do not fit the clock",
    ControlCode.INTERRUPTED: "the run ended before it was finished",
    ControlCode.PLAN_CHANGED: "the plan differs from the one shown",
}
CONTROL_KINDS = frozenset(kind.value for kind in ControlKind)
CONTROL_ORIGINS = frozenset(origin.value for origin in ControlOrigin)


def control_alerts(events: Sequence[ControlEvent]) -> tuple[Alert, ...]:
    """Return an alert for each control that was carried out, and one for each reason of a refusal
    or failure, from new lines of the log of controls. Free text of a line is not repeated, because
    the line may be forged.
    """
    alerts: list[Alert] = []
    failure_counts: Counter[tuple[str, str]] = Counter()
    for event in events:
        if event.state in (ControlState.REFUSED.value, ControlState.FAILED.value):
            failure_counts[
                event.state, event.code if _CODE_PATTERN.fullmatch(event.code) else ""
            ] += 1
        elif event.state == ControlState.DONE.value:
            kind = event.kind if event.kind in CONTROL_KINDS else "unknown"
            origin = event.origin if event.origin in CONTROL_ORIGINS else "unknown"
            alert_text = f"A control was carried out: {kind} ({origin}). See trimtab controls."
            alerts.append(Alert(AlertKind.CONTROL, f"control:{event.control_id[:40]}", alert_text))
    for (state, code), control_count in failure_counts.items():
        reason = CONTROL_REASONS.get(code, code)
        alert_text = (
            f"{control_count} {'control' if control_count == 1 else 'controls'} {state}"
            f"{f': {reason}' if reason else ''}. See trimtab controls."
        )
        alerts.append(Alert(AlertKind.CONTROL, f"control:{state}:{code}", alert_text))
    return tuple(alerts)


def control_note(event: ControlEvent) -> str:
    """Return the end of a control as one line for the run's screen."""
    code_text = f" ({event.code})" if event.code else ""
    reason_text = f": {event.reason}" if event.reason else ""
    return printable_text(
        f"Control {event.kind} by {event.asked_by} {event.state}{code_text}{reason_text}"
    )
