"""Documents of controls: the queue, one control, and a plan shown for confirmation."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Annotated, Any

from typing_extensions import TypedDict

from agent.app.documents import one_of, utc
from agent.model import ControlKind, ControlOrigin, ControlRecord, ControlState, ShownPlan

ArgumentDocument = TypedDict("ArgumentDocument", {"name": str, "value": str})
ControlDocument = TypedDict("ControlDocument", {
    "id": str, "kind": Annotated[str, one_of(*(kind.value for kind in ControlKind))],
    "arguments": list[ArgumentDocument], "plan_hash": str, "asked_by": str,
    "origin": Annotated[str, one_of(*(origin.value for origin in ControlOrigin))], "asked": str, "asked_s": int, "expires_s": int,
    "state": Annotated[str, one_of(*(state.value for state in ControlState))],
    "code": str, "reason": str, "result": list[ArgumentDocument], "changed_s": int,
})  # fmt: skip
"""A control; times in Unix seconds of this machine. `code` and `reason` say why it was refused."""
ShownPlanDocument = TypedDict("ShownPlanDocument", {
    "kind": Annotated[str, one_of(*(kind.value for kind in ControlKind))], "arguments": list[ArgumentDocument],
    "plan_hash": str, "shown_s": int, "state": Annotated[str, one_of("planned", "refused")],
    "reason": str, "moves": list[str], "document": dict[str, Any],
})  # fmt: skip
"""A plan to confirm by its hash; the hash is empty if the plan cannot be carried out, with the
reason. `moves` are its amounts as text, `document` is that of the command.
"""
ControlsDocument = TypedDict("ControlsDocument", {
    "served": bool, "queued": int, "waiting": ShownPlanDocument | None,
    "controls": list[ControlDocument],
})  # fmt: skip
"""Controls, newest first. `served` is True if a run takes them; `waiting` is the plan that a run
offers for confirmation.
"""


def control_document(record: ControlRecord) -> ControlDocument:
    """Return the document of a control."""
    control = record.control
    return {
        "id": control.id,
        "kind": control.kind.value,
        "arguments": _pairs(control.arguments),
        "plan_hash": control.plan_hash,
        "asked_by": control.asked_by,
        "origin": control.origin.value,
        "asked": utc(control.asked_at_s),
        "asked_s": control.asked_at_s,
        "expires_s": control.expires_at_s,
        "state": record.state.value,
        "code": record.code,
        "reason": record.reason,
        "result": _pairs(record.result),
        "changed_s": record.changed_s,
    }


def shown_document(
    plan: ShownPlan, document: Mapping[str, Any], moves: Sequence[str], refusal: str = ""
) -> ShownPlanDocument:
    """Return the document of a shown plan."""
    return {
        "kind": plan.kind.value,
        "arguments": _pairs(plan.arguments),
        "plan_hash": "" if refusal else plan.hash,
        "shown_s": plan.shown_at_s,
        "state": "refused" if refusal else "planned",
        "reason": refusal,
        "moves": list(moves),
        "document": dict(document),
    }


def with_document(
    plan: ShownPlan, document: Mapping[str, Any], moves: Sequence[str], now_s: int, secret: bytes
) -> ShownPlan:
    """Return the plan with its shown moves and document, sealed for the store."""
    text = json.dumps([list(moves), document])
    return replace(plan, shown_at_s=now_s, document=text).sealed(secret)


def stored_document(plan: ShownPlan) -> ShownPlanDocument:
    """Return the document of a stored plan."""
    moves, document = json.loads(plan.document or "[[], {}]")
    return shown_document(plan, document, moves)


def _pairs(arguments: tuple[tuple[str, str], ...]) -> list[ArgumentDocument]:
    return [{"name": name, "value": value} for name, value in arguments]
