"""Withdrawals that the market gives in parts: what comes next, when, and a run that goes on with it and pays in the end."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from typing import TYPE_CHECKING, Any

from agent.errors import Refused
from agent.execution.outcome import Hands, Outcome, OutcomeKind
from agent.model import Parts, Request, RequestKind, StepInput
from agent.planning import owner
from agent.policy import outflow, words
from agent.policy.purchase import LASTS_S
from agent.units import ceil_int

if TYPE_CHECKING:
    from agent.api.agent import Agent
    from agent.store import Store

KINDS = {"refused": OutcomeKind.REFUSED, "failed": OutcomeKind.FAILED}


def parted(store: Store, request: Request, sale: Outcome, step: StepInput, token: str) -> str:
    """Writes down that a sale for a withdrawal raised a part of it, and says what follows; empty where it was to raise all.

    `step` is that after the sale, with the withdrawal set aside.
    """
    every_s, plan = step.limits.first_purchase_s, sale.plan
    if every_s is None or plan is None or owner.still_short(sale.step_input, plan, token) <= 0:
        return ""
    lacked, lacks = outflow.lacking(sale.step_input, token), outflow.lacking(step, token)
    done, now_s = 1 + (0 if request.parts is None else request.parts.done), step.snapshot.head.timestamp_s
    count = done + (ceil_int(Fraction(lacks, lacked - lacks)) if lacked > lacks else 1)
    until_s = now_s + LASTS_S if request.parts is None or request.parts.until_s <= now_s else request.parts.until_s
    parts = Parts(count, done, now_s + every_s, until_s)
    store.raised(request.id, parts)
    return (
        f"part {done} of about {count} is raised for withdrawal {request.id}; next at {words.moment(parts.next_s)}: trimtab run --send "
        f"goes on with it and pays when all is there, or trimtab withdraw --resume {request.id} --send"
    )


def require_due(request: Request | None, step: StepInput) -> None:
    """Raises Refused while the next part of a withdrawal is not due."""
    if request is None or request.parts is None or step.snapshot.head.timestamp_s >= request.parts.next_s:
        return
    raise Refused(
        f"withdrawal {request.id}: {_words(request.parts)}",
        remedy="wait until then: parts follow each other limits.first_purchase apart",
    )


def document(parts: Parts) -> dict[str, Any]:
    """How far a withdrawal in parts is; times in chain seconds."""
    return {"count": parts.count, "done": parts.done, "next_s": parts.next_s, "until_s": parts.until_s, "words": _words(parts)}


def _words(parts: Parts) -> str:
    return f"{parts.done} of about {parts.count} parts raised, next at {words.moment(parts.next_s)}"


def gone_on(agent: Agent, hands: Hands | None, found: Outcome) -> Outcome:
    """The outcome of a look; where it does nothing and a withdrawal in parts is due, that of its next part, or of its payment.

    Its owner confirmed all of it once, with the first part. An exit goes before, and after its time a run leaves it to its owner.
    """
    if hands is None or found.kind is not OutcomeKind.HOLD:
        return found
    store, head = agent.desk.store, (found.after or found.step_input).snapshot.head
    every_s = agent.desk.limits.first_purchase_s
    request = next((one for one in store.requests(1_000, open_only=True) if one.kind is RequestKind.WITHDRAW and one.parts), None)
    if request is None or request.parts is None or every_s is None or not request.parts.next_s <= head.timestamp_s < request.parts.until_s:
        return found
    store.raised(request.id, replace(request.parts, next_s=head.timestamp_s + every_s))  # whatever becomes of this try
    from agent.api.withdrawing import Asked

    unpaid = tuple(claim.payment for claim in (found.after or found.step_input).history.claims if claim.request == request.id)
    asked = Asked(agent, unpaid, request.to, request, sure=True)
    done = asked.carried_out(replace(hands, confirm=lambda _: True), lambda _: True)
    if done.state in KINDS and done.sale is not None and done.sale.kind is not OutcomeKind.DONE:
        return done.sale
    told = done.sale or found
    return replace(
        told, kind=KINDS.get(done.state, OutcomeKind.DONE), reason=done.reason, transactions=done.transactions, after=done.step_input
    )
