"""A withdrawal from evaluation to payment, in one go or in parts as the market allows."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from fractions import Fraction

from agent import engine
from agent.errors import ErrorCode, Refused
from agent.execution.approvals import current_step_input, pay
from agent.execution.step_context import OutcomeKind, StepActors, StepOutcome, StepReaders
from agent.guards import table
from agent.model import (
    Intent,
    IntentState,
    OwnerRequest,
    Payment,
    Payout,
    PendingPayment,
    RequestKind,
    RequestState,
    StepInput,
    Verdict,
    WithdrawalProgress,
)
from agent.model.step import RaiseForWithdrawal, Unwrap
from agent.planning import requests
from agent.policy import native_coin
from agent.policy.cash_flows import withdrawals
from agent.policy.cash_flows.purchase import LASTS_S
from agent.store import Store
from agent.units import NATIVE, ceil_int, format_time
from agent.wiring import AgentContext

KINDS = {"refused": OutcomeKind.REFUSED, "failed": OutcomeKind.FAILED}
MAX_SALES = 3
"""Plans in a row for one withdrawal: the first sells a little more than needed, so that a second is
rare."""


@dataclass(frozen=True, slots=True)
class WithdrawalReport:
    """State of a withdrawal: payments, the preceding sale (None if the balance suffices), verdicts
    and transactions. `state` is planned, declined, refused, reserved (set aside, not paid), part
    (more has to be raised), paid, waiting (for confirmations) or failed. `request` is its number
    once confirmed.
    """

    step_input: StepInput
    payments: tuple[Payment, ...]
    to: str | None
    sale: StepOutcome | None
    verdicts: tuple[Verdict, ...]
    state: str
    reason: str
    request: int | None = None
    transactions: tuple[Intent, ...] = ()

    @property
    def refused(self) -> bool:
        """True if a limit refuses already."""
        sold = self.sale is None or self.sale.kind is OutcomeKind.PLANNED
        return not sold or any(not verdict.passed for verdict in self.verdicts)

    @property
    def remedies(self) -> tuple[str, ...]:
        """Remedies for each limit that refuses."""
        return table.payout_remedies(self.verdicts)


Confirm = Callable[[WithdrawalReport], bool]


def withdrawable_step(context: AgentContext) -> StepInput:
    """The newest step input, without unexplained deposits, which cannot be withdrawn."""
    return withdrawals.reserve_pending_deposits(current_step_input(context.readers, context.store))


class WithdrawalRun:
    """One withdrawal from evaluation and confirmation to sale and payments."""

    def __init__(
        self,
        context: AgentContext,
        payments: tuple[Payment, ...],
        to: str | None,
        request: OwnerRequest | None = None,
        sure: bool = False,
    ) -> None:
        self._context = context
        self._payments, self._to, self.request = payments, to, request
        self._of_before = request is not None
        self._sure = sure
        self._sent: list[Intent] = []

    def report(
        self, step: StepInput, sale: StepOutcome | None = None, state: str = "", reason: str = ""
    ) -> WithdrawalReport:
        """Return the report of the withdrawal at this step, with its sale."""
        step = self._claimed(step)
        short = self._short(step)
        if sale is None and short is not None:
            sale = engine.evaluate(self._withdrawal_readers(), requests.raise_money(short))
        verdicts = () if state else self._verdicts(step)
        found = WithdrawalReport(
            step,
            self._payments,
            self._to,
            sale,
            verdicts,
            state or "planned",
            reason,
            self._number,
            tuple(self._sent),
        )
        if not state and found.refused:
            message = next(
                (f"{v.guard}: {v.measured}, limit {v.limit}" for v in verdicts if not v.passed), ""
            )
            found = replace(
                found, state="refused", reason=message or (sale.reason if sale is not None else "")
            )
        return found

    def confirmed(self, outcome: StepOutcome, confirm: Confirm) -> bool:
        """The owner's answer to a sale; the confirmation, and the sale of a part, are recorded
        before anything is sent.
        """
        if not self._sure:
            if outcome.kind is not OutcomeKind.PLANNED or not confirm(
                self.report(outcome.step_input, outcome)
            ):
                return False
            self._write(outcome.step_input)
        if self.request is not None and (short := self._short(outcome.step_input)) is not None:
            _record_begun(self._context.store, self.request, outcome, short)
        return True

    def execute(self, actors: StepActors, confirm: Confirm) -> WithdrawalReport:
        """Sell and pay; return the report."""
        step = self._claimed(withdrawable_step(self._context))
        table.require_payout_allowed(self._verdicts(step))
        sale: StepOutcome | None = None
        for _ in range(MAX_SALES):
            short = self._short(step)
            if short is None:
                break
            sale = engine.run_step(
                self._withdrawal_readers(), RaiseForWithdrawal(short), self._context.store, actors
            )
            self._sent += sale.transactions
            if sale.kind is not OutcomeKind.DONE:
                return self._not_sold(step, sale)
            step = self._claimed(withdrawable_step(self._context))
            if self.request is not None and (
                message := _record_part(self._context.store, self.request, sale, step, short)
            ):
                return self.report(step, sale, "part", message)
        if not self._sure:
            if not confirm(self.report(step)):
                return self.report(step, state="declined", reason="not confirmed; nothing was sent")
            self._write(step)
        return self._pay(actors, sale)

    def _pay(self, actors: StepActors, sale: StepOutcome | None) -> WithdrawalReport:
        number = self._number or 0
        if self._to is None:
            self._context.store.requests.record_parts(number, None)
            step = withdrawable_step(self._context)
            message = (
                f"set aside as withdrawal {number}; to pay it: trimtab withdraw --resume {number}"
                " --to ADDRESS"
            )
            return self.report(step, sale, "reserved", message)
        while (claim := self._next()) is not None:
            if claim.payment.native and (missing := self._to_unwrap(claim)) > 0:
                done = engine.run_step(
                    self._context.readers,
                    Unwrap(missing),
                    self._context.store,
                    replace(actors, confirm=lambda _: True),
                )
                self._sent += done.transactions
                if done.kind is not OutcomeKind.DONE:
                    return self.report(
                        withdrawable_step(self._context), sale, "failed", done.reason
                    )
            intent = pay(
                self._context.readers,
                self._context.store,
                actors,
                self._payout(claim.payment),
                self._context.payouts,
            )
            self._sent.append(intent)
            if not intent.succeeded:
                why = (
                    f"«{intent.note}» ended {intent.state.value}; trimtab withdraw --resume"
                    f" {number} tries again"
                )
                return self.report(withdrawable_step(self._context), sale, "failed", why)
        ends = [
            intent.state
            for intent, _ in self._context.store.requests.paid(number)
            if intent.succeeded
        ]
        step = withdrawable_step(self._context)
        if not any(
            one.id == number for one in self._context.store.requests.newest(1_000, open_only=True)
        ):
            message = (
                f"withdrawal {number} was released in the meantime; {len(ends)} of its"
                f" {len(self._whole)} payments were made"
            )
            return self.report(step, sale, "failed", message)
        if any(state is not IntentState.FINAL for state in ends):
            return self.report(
                step,
                sale,
                "waiting",
                f"paid; confirmations are awaited: trimtab withdraw --resume {number}",
            )
        self._context.store.requests.end(number, RequestState.DONE, self._context.clock.now_s())
        return self.report(step, sale, "paid", f"paid to {self._to}")

    @property
    def _number(self) -> int | None:
        return None if self.request is None else self.request.id

    @property
    def _whole(self) -> tuple[Payment, ...]:
        """Return all its payments; `_payments` are those unpaid when this command began."""
        return self._payments if self.request is None else self.request.payments

    def _write(self, step: StepInput) -> None:
        """Record the request before anything is sent."""
        self._sure = True
        if self.request is None:
            self.request = self._context.store.requests.ask(
                RequestKind.WITHDRAW,
                self._payments,
                self._to,
                False,
                step.snapshot.head.timestamp_s,
            )
        else:
            self._context.store.requests.redirect(self.request.id, self._to)

    def _not_sold(self, step: StepInput, sale: StepOutcome) -> WithdrawalReport:
        """Return the report of a sale without effect: a new withdrawal that sold nothing is
        released; an earlier one stays reserved.
        """
        state = {OutcomeKind.DECLINED: "declined", OutcomeKind.FAILED: "failed"}.get(
            sale.kind, "refused"
        )
        fresh = (
            self._sure
            and not self._of_before
            and not any(intent.succeeded and intent.kind.value == "swap" for intent in self._sent)
        )
        if fresh and self._number is not None:
            self._context.store.requests.end(
                self._number, RequestState.RELEASED, self._context.clock.now_s()
            )
        elif self._sure and self.request is not None:  # the part that was begun sold nothing
            self._context.store.requests.record_parts(self.request.id, self.request.parts)
        return self.report(step, sale, state, sale.reason)

    def _claimed(self, step: StepInput) -> StepInput:
        """The step with this withdrawal set aside, recorded or not."""
        if self.request is not None or any(claim.request == 0 for claim in step.history.claims):
            return step
        return withdrawals.reserve_claims(
            step, tuple(PendingPayment(0, payment) for payment in self._payments)
        )

    def _withdrawal_readers(self) -> StepReaders:
        readers = self._context.readers
        return replace(
            readers,
            assemble=lambda snapshot, history: self._claimed(
                withdrawals.reserve_pending_deposits(readers.assemble(snapshot, history))
            ),
        )

    def _short(self, step: StepInput) -> str | None:
        """Return the withdrawal's token with a shortfall."""
        tokens = dict.fromkeys(payment.token for payment in self._payments)
        return next((token for token in tokens if withdrawals.shortfall_raw(step, token) > 0), None)

    def _next(self) -> PendingPayment | None:
        found = withdrawable_step(self._context).history.claims
        return next((claim for claim in found if claim.request == self._number), None)

    def _payout(self, payment: Payment) -> Payout:
        return Payout(
            NATIVE if payment.native else payment.token,
            self._to or "",
            payment.raw,
            0,
            self._number or 0,
        )

    def _verdicts(self, step: StepInput) -> tuple[Verdict, ...]:
        if self._to is None:
            return ()
        payouts = [self._payout(payment) for payment in self._payments]
        return table.judge_payout_permission(
            step, payouts, self._context.payouts, self._context.switch.is_paused() is not False
        )

    def _to_unwrap(self, claim: PendingPayment) -> int:
        """Wrapped coin that has to be unwrapped before the payment, besides its gas."""
        step = withdrawable_step(self._context)
        there = (
            step.snapshot.native_wei - native_coin.floor_wei(step) - native_coin.margin_wei(step)
        )
        return min(max(0, claim.payment.raw - max(0, there)), native_coin.wrapped_raw(step))


# --- Parts of a withdrawal, if the market does not take all at once.


def _record_begun(store: Store, request: OwnerRequest, sale: StepOutcome, token: str) -> None:
    """Record the sale of a part before it is sent; do nothing if the plan raises the whole
    shortfall. After an interruption, the next part then neither starts at once nor is left to the
    owner.
    """
    step, plan = sale.step_input, sale.plan
    if (
        (every_s := step.limits.first_purchase_s) is None
        or plan is None
        or (short := requests.shortfall_raw(step, plan, token)) <= 0
    ):
        return
    lacks, now_s, done = (
        withdrawals.shortfall_raw(step, token),
        step.snapshot.head.timestamp_s,
        _done(step, request, token),
    )
    count = done + (ceil_int(Fraction(lacks, lacks - short)) if lacks > short else 1)
    store.requests.record_parts(
        request.id,
        WithdrawalProgress(count, done, now_s + every_s, _until_s(request, now_s), lacks),
    )


def _record_part(
    store: Store, request: OwnerRequest, sale: StepOutcome, step: StepInput, token: str
) -> str:
    """Record the part that a sale raised, and describe the next one; empty if it was to raise all.

    `step` is that after the sale, with the withdrawal set aside.
    """
    every_s, plan = step.limits.first_purchase_s, sale.plan
    if every_s is None or plan is None or requests.shortfall_raw(sale.step_input, plan, token) <= 0:
        return ""
    lacked, lacks = (
        withdrawals.shortfall_raw(sale.step_input, token),
        withdrawals.shortfall_raw(step, token),
    )
    done, now_s = 1 + _done(sale.step_input, request, token), step.snapshot.head.timestamp_s
    count = done + (ceil_int(Fraction(lacks, lacked - lacks)) if lacked > lacks else 1)
    parts = WithdrawalProgress(count, done, now_s + every_s, _until_s(request, now_s))
    store.requests.record_parts(request.id, parts)
    return (
        f"part {done} of about {count} is raised for withdrawal {request.id}; next at"
        f" {format_time(parts.next_s)}: trimtab run --send continues and pays once all of it"
        f" is raised, or trimtab withdraw --resume {request.id} --send"
    )


def _done(step: StepInput, request: OwnerRequest, token: str) -> int:
    """Return the number of parts raised, including one interrupted before it was recorded."""
    return 0 if request.parts is None else withdrawals.counted(step, request.parts, token).done


def _until_s(request: OwnerRequest, now_s: int) -> int:
    return (
        now_s + LASTS_S
        if request.parts is None or request.parts.until_s <= now_s
        else request.parts.until_s
    )


def require_due(request: OwnerRequest | None, step: StepInput) -> None:
    """Raise Refused while the next part of a withdrawal is not due; a pure payment is always
    due.
    """
    if (
        request is None
        or request.parts is None
        or step.snapshot.head.timestamp_s >= request.parts.next_s
    ):
        return
    token = next(
        (one.token for one in request.payments if withdrawals.shortfall_raw(step, one.token) > 0),
        None,
    )
    if token is None:
        return
    raise Refused(
        f"withdrawal {request.id}: {format_parts(withdrawals.counted(step, request.parts, token))}",
        remedy="wait until then: parts are limits.first_purchase apart",
        code=ErrorCode.PART_NOT_DUE,
    )


def require_alone(step: StepInput, tokens: Iterable[str]) -> None:
    """Raise Refused while an earlier withdrawal in parts needs one of these tokens: its part would
    be raised at once.
    """
    wanted = {*tokens}
    for claim in step.history.claims:
        if (
            claim.parts is not None
            and claim.payment.token in wanted
            and withdrawals.shortfall_raw(step, claim.payment.token) > 0
        ):
            raised = format_parts(withdrawals.counted(step, claim.parts, claim.payment.token))
            raise Refused(
                f"withdrawal {claim.request}: {raised}; another one of the same asset follows it",
                remedy=(
                    "wait until it is paid, or release it: trimtab withdraw --release"
                    f" {claim.request}"
                ),
                code=ErrorCode.WITHDRAWAL_OPEN,
            )


def format_parts(parts: WithdrawalProgress) -> str:
    """Describe the progress of a withdrawal in parts."""
    return f"{parts.done} of about {parts.count} parts raised, next at {format_time(parts.next_s)}"


def _has_shortfall(request: OwnerRequest, step: StepInput) -> bool:
    return any(withdrawals.shortfall_raw(step, one.token) > 0 for one in request.payments)


def is_next(request: OwnerRequest, step: StepInput) -> bool:
    """True if a run continues this withdrawal now: its next part or its payment is due, and its
    time is not over.
    """
    if request.kind is not RequestKind.WITHDRAW or (parts := request.parts) is None:
        return False
    now_s = step.snapshot.head.timestamp_s
    return now_s < parts.until_s and (now_s >= parts.next_s or not _has_shortfall(request, step))


def continue_withdrawal(
    context: AgentContext, actors: StepActors | None, found: StepOutcome
) -> StepOutcome:
    """Return the outcome of the cycle; after a hold, that of the due part or payment of a
    withdrawal in parts. The owner confirmed all parts with the first. Exits have priority; after
    its deadline the run leaves the withdrawal to its owner.
    """
    if actors is None or found.kind is not OutcomeKind.HOLD:
        return found
    store, head = context.store, (found.after or found.step_input).snapshot.head
    every_s = context.limits.first_purchase_s
    step = found.after or found.step_input
    request = next(
        (one for one in store.requests.newest(1_000, open_only=True) if is_next(one, step)), None
    )
    if request is None or request.parts is None or every_s is None:
        return found
    if _has_shortfall(request, step):  # whatever the result of this attempt
        request = replace(request, parts=replace(request.parts, next_s=head.timestamp_s + every_s))
        store.requests.record_parts(request.id, request.parts)
    unpaid = tuple(claim.payment for claim in step.history.claims if claim.request == request.id)
    asked = WithdrawalRun(context, unpaid, request.to, request, sure=True)
    done = asked.execute(
        replace(actors, confirm=lambda sale: asked.confirmed(sale, lambda _: True)), lambda _: True
    )
    if done.state in KINDS and done.sale is not None and done.sale.kind is not OutcomeKind.DONE:
        return done.sale
    outcome = done.sale or found
    return replace(
        outcome,
        kind=KINDS.get(done.state, OutcomeKind.DONE),
        reason=done.reason,
        transactions=done.transactions,
        after=done.step_input,
    )
