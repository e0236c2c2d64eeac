"""Withdrawals in parts, as the market allows: schedule the next part, and let a run raise and finally pay them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from fractions import Fraction
from typing import TYPE_CHECKING, Any

from agent.errors import Refused
from agent.execution.step_context import OutcomeKind, StepActors, StepOutcome
from agent.model import OwnerRequest, RequestKind, StepInput, WithdrawalProgress
from agent.planning import proposals
from agent.policy import text
from agent.policy.cash_flows import withdrawals
from agent.policy.cash_flows.purchase import LASTS_S
from agent.units import ceil_int

if TYPE_CHECKING:
    from agent.app.agent import Agent
    from agent.store import Store


KINDS = {"refused": OutcomeKind.REFUSED, "failed": OutcomeKind.FAILED}


def begun(store: Store, request: OwnerRequest, sale: StepOutcome, token: str) -> None:
    """Record the sale of a part before anything of it is sent; does nothing if the plan raises the whole shortfall.

    A process that ends on the way then neither starts the next part at once nor leaves the rest to its owner.
    """
    step, plan = sale.step_input, sale.plan
    if (every_s := step.limits.first_purchase_s) is None or plan is None or (short := proposals.shortfall_raw(step, plan, token)) <= 0:
        return
    lacks, now_s, done = withdrawals.shortfall_raw(step, token), step.snapshot.head.timestamp_s, _done(step, request, token)
    count = done + (ceil_int(Fraction(lacks, lacks - short)) if lacks > short else 1)
    store.record_parts_raised(request.id, WithdrawalProgress(count, done, now_s + every_s, _until_s(request, now_s), lacks))


def record_part(store: Store, request: OwnerRequest, sale: StepOutcome, step: StepInput, token: str) -> str:
    """Record the part that a sale raised, and describe the next one; empty if it was to raise all.

    `step` is that after the sale, with the withdrawal set aside.
    """
    every_s, plan = step.limits.first_purchase_s, sale.plan
    if every_s is None or plan is None or proposals.shortfall_raw(sale.step_input, plan, token) <= 0:
        return ""
    lacked, lacks = withdrawals.shortfall_raw(sale.step_input, token), withdrawals.shortfall_raw(step, token)
    done, now_s = 1 + _done(sale.step_input, request, token), step.snapshot.head.timestamp_s
    count = done + (ceil_int(Fraction(lacks, lacked - lacks)) if lacked > lacks else 1)
    parts = WithdrawalProgress(count, done, now_s + every_s, _until_s(request, now_s))
    store.record_parts_raised(request.id, parts)
    return (
        f"part {done} of about {count} is raised for withdrawal {request.id}; next at {text.format_time(parts.next_s)}: "
        "trimtab run --send "
        f"goes on with it and pays when all is there, or trimtab withdraw --resume {request.id} --send"
    )


def _done(step: StepInput, request: OwnerRequest, token: str) -> int:
    """Number of parts raised, including one whose process ended before it was recorded."""
    return 0 if request.parts is None else withdrawals.counted(step, request.parts, token).done


def _until_s(request: OwnerRequest, now_s: int) -> int:
    return now_s + LASTS_S if request.parts is None or request.parts.until_s <= now_s else request.parts.until_s


def require_due(request: OwnerRequest | None, step: StepInput) -> None:
    """Raise Refused while the next part of a withdrawal is not due; a pure payment is always due."""
    if request is None or request.parts is None or step.snapshot.head.timestamp_s >= request.parts.next_s:
        return
    token = next((one.token for one in request.payments if withdrawals.shortfall_raw(step, one.token) > 0), None)
    if token is None:
        return
    raise Refused(
        f"withdrawal {request.id}: {_words(withdrawals.counted(step, request.parts, token))}",
        remedy="wait until then: parts follow each other limits.first_purchase apart",
    )


def require_alone(step: StepInput, tokens: Iterable[str]) -> None:
    """Raise Refused while an earlier withdrawal in parts still needs one of these tokens: its part would be raised at once."""
    wanted = {*tokens}
    for claim in step.history.claims:
        if claim.parts is not None and claim.payment.token in wanted and withdrawals.shortfall_raw(step, claim.payment.token) > 0:
            raised = _words(withdrawals.counted(step, claim.parts, claim.payment.token))
            raise Refused(
                f"withdrawal {claim.request}: {raised}; another one of the same asset follows it",
                remedy=f"wait until it is paid, or take it back: trimtab withdraw --release {claim.request}",
            )


def progress_document(parts: WithdrawalProgress) -> dict[str, Any]:
    """Progress of a withdrawal in parts; times in chain seconds."""
    return {"count": parts.count, "done": parts.done, "next_s": parts.next_s, "until_s": parts.until_s, "words": _words(parts)}


def _words(parts: WithdrawalProgress) -> str:
    return f"{parts.done} of about {parts.count} parts raised, next at {text.format_time(parts.next_s)}"


def _has_shortfall(request: OwnerRequest, step: StepInput) -> bool:
    return any(withdrawals.shortfall_raw(step, one.token) > 0 for one in request.payments)


def is_next(request: OwnerRequest, step: StepInput) -> bool:
    """True if a run continues this withdrawal now: its next part or its payment is due, and its time is not over."""
    if request.kind is not RequestKind.WITHDRAW or (parts := request.parts) is None:
        return False
    now_s = step.snapshot.head.timestamp_s
    return now_s < parts.until_s and (now_s >= parts.next_s or not _has_shortfall(request, step))


def continue_withdrawal(agent: Agent, actors: StepActors | None, found: StepOutcome) -> StepOutcome:
    """Outcome of the cycle; if it does nothing and a withdrawal in parts is due, that of its next part or payment.

    Its owner confirmed all of it with the first part. An exit has priority, and after its time the run leaves it to its owner.
    """
    if actors is None or found.kind is not OutcomeKind.HOLD:
        return found
    store, head = agent.desk.store, (found.after or found.step_input).snapshot.head
    every_s = agent.desk.limits.first_purchase_s
    step = found.after or found.step_input
    request = next((one for one in store.requests(1_000, open_only=True) if is_next(one, step)), None)
    if request is None or request.parts is None or every_s is None:
        return found
    if _has_shortfall(request, step):  # whatever the result of this attempt
        request = replace(request, parts=replace(request.parts, next_s=head.timestamp_s + every_s))
        store.record_parts_raised(request.id, request.parts)
    from agent.app.money.withdrawals import WithdrawalRun

    unpaid = tuple(claim.payment for claim in step.history.claims if claim.request == request.id)
    asked = WithdrawalRun(agent, unpaid, request.to, request, sure=True)
    done = asked.execute(replace(actors, confirm=lambda sale: asked.confirmed(sale, lambda _: True)), lambda _: True)
    if done.state in KINDS and done.sale is not None and done.sale.kind is not OutcomeKind.DONE:
        return done.sale
    outcome = done.sale or found
    return replace(
        outcome, kind=KINDS.get(done.state, OutcomeKind.DONE), reason=done.reason, transactions=done.transactions, after=done.step_input
    )
