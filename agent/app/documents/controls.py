"""Documents of controls: their queue, and the plans that wait for a confirmation."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Annotated, Any, NotRequired

from typing_extensions import TypedDict

from agent.app.documents import (
    one_of,
    shown,
)
from agent.app.documents.owner import (
    EditDocument,
    InvestmentDocument,
    ShutdownDocument,
    WithdrawalDocument,
)
from agent.app.documents.plans import LivePlanDocument, PlanDocument
from agent.app.documents.positions import HoldingsChangeDocument
from agent.model import (
    Control,
    ControlArguments,
    ControlKind,
    ControlOrigin,
    ControlRecord,
    ControlState,
    ShownPlan,
)
from agent.units import utc_text


class ShownEditDocument(EditDocument):
    """An edit to confirm; `next_cycle` is what a cycle would do with it."""

    next_cycle: NotRequired[PlanDocument]


PreviewDocument = (
    LivePlanDocument
    | InvestmentDocument
    | WithdrawalDocument
    | ShownEditDocument
    | ShutdownDocument
    | HoldingsChangeDocument
)


class ArgumentDocument(TypedDict):
    name: str
    value: str


class ControlDocument(TypedDict):
    """A control; times in Unix seconds of this machine. `code` and `reason` say why it was refused."""

    id: str
    kind: Annotated[str, one_of(*(kind.value for kind in ControlKind)), shown("control")]
    arguments: list[ArgumentDocument]
    plan_hash: str
    requested_by: Annotated[str, shown("by")]
    origin: Annotated[str, one_of(*(origin.value for origin in ControlOrigin))]
    requested: Annotated[str, shown("requested (UTC)")]
    requested_s: int
    expires_s: int
    state: Annotated[str, one_of(*(state.value for state in ControlState))]
    code: str
    reason: str
    result: list[ArgumentDocument]
    changed_s: int


class ShownPlanDocument(TypedDict):
    """A plan to confirm by its hash; the hash is empty if the plan cannot be carried out, with the
    reason. `moves` are its amounts as text, none if it cannot be carried out; `document` is that of
    the command.
    """

    kind: Annotated[str, one_of(*(kind.value for kind in ControlKind))]
    arguments: list[ArgumentDocument]
    plan_hash: str
    shown_s: int
    state: Annotated[str, one_of("planned", "refused")]
    reason: str
    moves: list[str]
    document: PreviewDocument


class ControlsDocument(TypedDict):
    """Controls, newest first. `served` is True if a run takes them; `waiting` is the plan that a run
    offers for confirmation.
    """

    served: bool
    queued: int
    waiting: ShownPlanDocument | None
    controls: list[ControlDocument]


def control_document(control_record: ControlRecord) -> ControlDocument:
    """Return the document of a control."""
    control = control_record.control
    return {
        "id": control.id,
        "kind": control.kind.value,
        "arguments": _argument_documents(_shown_arguments(control)),
        "plan_hash": control.plan_hash,
        "requested_by": control.asked_by,
        "origin": control.origin.value,
        "requested": utc_text(control.asked_at_s),
        "requested_s": control.asked_at_s,
        "expires_s": control.expires_at_s,
        "state": control_record.state.value,
        "code": control_record.code,
        "reason": control_record.reason,
        "result": _argument_documents(control_record.result_pairs),
        "changed_s": control_record.changed_s,
    }


def _shown_arguments(control: Control) -> ControlArguments:
    """Return the arguments; of a device's address only the push service, since the rest is
    secret.
    """
    if control.kind is not ControlKind.DEVICE:
        return control.arguments
    return tuple(
        (name, value.split("/")[2] if name == "endpoint" else value)
        for name, value in control.arguments
        if name in ("endpoint", "remove")
    )


def shown_plan_document(
    plan: ShownPlan, document: Mapping[str, Any], moves: Sequence[str], refusal: str = ""
) -> ShownPlanDocument:
    """Return the document of a shown plan."""
    command_document: Any = document
    plan_hash, state = ("", "refused") if refusal else (plan.hash, "planned")
    return {
        "kind": plan.kind.value,
        "arguments": _argument_documents(plan.arguments),
        "plan_hash": plan_hash,
        "shown_s": plan.shown_at_s,
        "state": state,
        "reason": refusal,
        "moves": [] if refusal else list(moves),
        "document": command_document,
    }


def sealed_with_document(
    plan: ShownPlan,
    command_document: Mapping[str, Any],
    moves: Sequence[str],
    now_s: int,
    secret: bytes,
    after_control: int = 0,
) -> ShownPlan:
    """Return the plan with its shown moves and document, sealed for the store. `after_control` is the
    number of the newest control; an offer, which ends with its first confirmation, needs none.
    """
    moves_and_document = json.dumps([list(moves), command_document])
    shown_plan = replace(
        plan, shown_at_s=now_s, shown_json=moves_and_document, after_control=after_control
    )
    return shown_plan.sealed(secret)


def stored_plan_document(plan: ShownPlan) -> ShownPlanDocument:
    """Return the document of a stored plan."""
    moves, command_document = json.loads(plan.shown_json or "[[], {}]")
    return shown_plan_document(plan, command_document, moves)


def _argument_documents(arguments: tuple[tuple[str, str], ...]) -> list[ArgumentDocument]:
    return [{"name": name, "value": value} for name, value in arguments]
