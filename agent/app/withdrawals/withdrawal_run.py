"""A withdrawal from evaluation to payment, in one sale or in parts."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from enum import StrEnum
from fractions import Fraction

from agent import engine
from agent.app.withdrawals.payment_states import given_up_text
from agent.errors import ErrorCode, Refused
from agent.execution import evaluation
from agent.execution.approvals import current_step_input, pay
from agent.execution.bookkeeping import update_ledger
from agent.execution.executor import AwaitingExternalSignature
from agent.execution.step_context import OutcomeKind, StepOutcome, StepReaders, StepTransactor
from agent.guards import table
from agent.model import (
    Intent,
    IntentKind,
    IntentState,
    OwnerRequest,
    Payment,
    Payout,
    PendingPayment,
    RaiseForWithdrawal,
    RequestKind,
    RequestState,
    StepInput,
    Unwrap,
    Verdict,
    WithdrawalProgress,
)
from agent.planning import requests
from agent.policy import native_coin
from agent.policy.cash_flows import transfers
from agent.policy.cash_flows.purchases import parts_expiry_s
from agent.store import Store
from agent.units import NATIVE, ceil_int, format_time
from agent.wiring import AgentContext


class WithdrawalState(StrEnum):
    """How far a withdrawal is."""

    PLANNED = "planned"
    DECLINED = "declined"
    REFUSED = "refused"
    RESERVED = "reserved"
    """Set aside, not paid."""
    PART = "part"
    """More has to be raised."""
    PAID = "paid"
    WAITING = "waiting"
    """Paid, but for its confirmations."""
    FAILED = "failed"


OUTCOME_BY_STATE = {
    WithdrawalState.REFUSED: OutcomeKind.REFUSED,
    WithdrawalState.FAILED: OutcomeKind.FAILED,
}
STATE_BY_SALE_OUTCOME = {
    OutcomeKind.DECLINED: WithdrawalState.DECLINED,
    OutcomeKind.FAILED: WithdrawalState.FAILED,
}
"""State of a withdrawal whose sale ended so; any other sale that did not succeed was refused."""
MAX_SALES = 3
"""Maximum number of sales for one withdrawal. A second is rare, because the first includes a
margin.
"""


@dataclass(frozen=True, slots=True)
class WithdrawalReport:
    """State of a withdrawal. `sale` precedes the payments, None if the balance suffices.
    `request_id` is the number of the stored request, None before it is confirmed. `repeats` names a
    withdrawal that this one would pay a second time (empty: none).
    """

    step_input: StepInput
    payments: tuple[Payment, ...]
    payout_address: str | None
    sale: StepOutcome | None
    verdicts: tuple[Verdict, ...]
    state: WithdrawalState
    reason: str
    request_id: int | None = None
    transactions: tuple[Intent, ...] = ()
    repeats: str = ""

    @property
    def is_refused(self) -> bool:
        """True if the sale is not possible or a limit refuses the payments."""
        if self.sale is not None and self.sale.kind is not OutcomeKind.PLANNED:
            return True
        return any(not verdict.passed for verdict in self.verdicts)

    @property
    def remedies(self) -> tuple[str, ...]:
        """Remedy for each limit that refuses."""
        return table.payout_remedies(self.verdicts)


Confirm = Callable[[WithdrawalReport], bool]


@dataclass(frozen=True, slots=True)
class RequestOrigin:
    """How a withdrawal was requested; the fields are those of `OwnerRequest`."""

    control_id: str = ""
    pro_rata_raw: int = 0


def step_without_deposits(context: AgentContext) -> StepInput:
    """Return the newest step input without unexplained deposits, which cannot be withdrawn."""
    return transfers.reserve_pending_deposits(current_step_input(context.readers, context.store))


class WithdrawalRun:
    """One withdrawal: evaluation, confirmation, sale and payments. `is_confirmed` means that
    the owner has confirmed it already, `origin` is recorded with a new one, and `repeats` names a
    withdrawal that it would pay a second time.
    """

    def __init__(
        self,
        context: AgentContext,
        payments: tuple[Payment, ...],
        payout_address: str | None,
        request: OwnerRequest | None = None,
        is_confirmed: bool = False,
        *,
        origin: RequestOrigin | None = None,
        repeats: str = "",
    ) -> None:
        self._context = context
        self._payments = payments
        self._payout_address = payout_address
        self.request = request
        self._is_resumed = request is not None
        self._is_confirmed = is_confirmed
        self._origin = origin or RequestOrigin()
        self._repeats = repeats
        self.sent_intents: list[Intent] = []

    def require_confirmed_address(self, step: StepInput) -> None:
        """Raise Refused for a recipient whom the owner has not confirmed."""
        verdicts = self._verdicts(step)
        table.require_payout_allowed([v for v in verdicts if v.guard == "payout_address"])

    def report(
        self,
        step: StepInput,
        sale: StepOutcome | None = None,
        state: WithdrawalState | None = None,
        reason: str = "",
    ) -> WithdrawalReport:
        """Return the report at this step; without `sale` and `state`, plan and judge it first. The
        reason of a planned one is what became of its payments before.
        """
        step = self._with_claims(step)
        shortfall_token = self._shortfall_token(step)
        if sale is None and shortfall_token is not None:
            sale = evaluation.evaluate(
                self._withdrawal_readers(), requests.raise_money_proposer(shortfall_token)
            )
        verdicts = () if state else self._verdicts(step)
        if state is None and self.request is not None:
            reason = given_up_text(self._context.store, self.request)
            if self.is_set_aside(step):
                state = WithdrawalState.RESERVED
                verdicts = ()
                reason = "; ".join(filter(None, (self._set_aside_text, reason)))
        report = WithdrawalReport(
            step,
            self._payments,
            self._payout_address,
            sale,
            verdicts,
            state or WithdrawalState.PLANNED,
            reason,
            self._request_id,
            tuple(self.sent_intents),
            self._repeats,
        )
        if state or not report.is_refused:
            return report
        refusal_reasons = [
            f"{verdict.guard}: {verdict.measured_text}, limit {verdict.limit}"
            for verdict in verdicts
            if not verdict.passed
        ]
        if not refusal_reasons and sale is not None:
            refusal_reasons = [sale.reason]
        return replace(
            report,
            state=WithdrawalState.REFUSED,
            reason=refusal_reasons[0] if refusal_reasons else "",
        )

    def is_set_aside(self, step: StepInput) -> bool:
        """Return whether only the address is missing: it is recorded, and nothing is to be sold."""
        if self._payout_address is not None or self.request is None:
            return False
        shortfall_token = self._shortfall_token(self._with_claims(step))
        return shortfall_token is None and self.request.progress is None

    @property
    def _set_aside_text(self) -> str:
        request_id = self._request_id or 0
        return (
            f"set aside as withdrawal {request_id}; to pay it: trimtab withdraw --resume {request_id}"
            " --to ADDRESS"
        )

    def confirm_and_record_sale(self, sale: StepOutcome, confirm: Confirm) -> bool:
        """Return whether the owner confirms the sale. The confirmation, and the sale of a part, are
        recorded before anything is sent.
        """
        if not self._is_confirmed:
            if sale.kind is not OutcomeKind.PLANNED:
                return False
            if not confirm(self.report(sale.step_input, sale)):
                return False
            self._record_request(sale.step_input.snapshot.head.timestamp_s)
        if (
            self.request is not None
            and (shortfall_token := self._shortfall_token(sale.step_input)) is not None
        ):
            _record_part_begun(self._context.store, self.request, sale, shortfall_token)
        return True

    def execute(self, transactor: StepTransactor, confirm: Confirm) -> WithdrawalReport:
        """Raise the shortfall by sales, then pay; return the report. Raises AwaitingExternalSignature
        once a sale or payment is proposed.
        """
        try:
            return self._sell_and_pay(transactor, confirm)
        except AwaitingExternalSignature as awaiting:
            if self.request is not None:
                awaiting.go_on_with(f"trimtab withdraw --resume {self.request.id} --send")
            raise

    def _sell_and_pay(self, transactor: StepTransactor, confirm: Confirm) -> WithdrawalReport:
        step = self._with_claims(step_without_deposits(self._context))
        table.require_payout_allowed(self._verdicts(step))
        sale: StepOutcome | None = None
        for _ in range(MAX_SALES):
            shortfall_token = self._shortfall_token(step)
            if shortfall_token is None:
                break
            sale = engine.run_cycle(
                self._withdrawal_readers(),
                RaiseForWithdrawal(shortfall_token),
                self._context.store,
                transactor,
            )
            self.sent_intents += sale.transactions
            if sale.kind is not OutcomeKind.DONE:
                self._undo_part_or_release()
                state = STATE_BY_SALE_OUTCOME.get(sale.kind, WithdrawalState.REFUSED)
                return self.report(step, sale, state, sale.reason)
            step = self._with_claims(step_without_deposits(self._context))
            if self.request is not None and (
                message := _record_part(
                    self._context.store, self.request, sale, step, shortfall_token
                )
            ):
                return self.report(step, sale, WithdrawalState.PART, message)
        if not self._is_confirmed:
            if not confirm(self.report(step)):
                return self.report(
                    step, state=WithdrawalState.DECLINED, reason="not confirmed; nothing was sent"
                )
            self._record_request(step.snapshot.head.timestamp_s)
        return self._pay(transactor, sale)

    def execute_unasked(self, transactor: StepTransactor) -> WithdrawalReport:
        """Execute a withdrawal that needs no question: the owner has confirmed it, or its rule."""
        return self.execute(
            replace(
                transactor,
                confirm=lambda sale: self.confirm_and_record_sale(sale, lambda _: True),
            ),
            lambda _: True,
        )

    def _pay(self, transactor: StepTransactor, sale: StepOutcome | None) -> WithdrawalReport:
        request_id = self._request_id or 0
        if self._payout_address is None:
            self._context.store.requests.record_progress(request_id, None)
            step = step_without_deposits(self._context)
            return self.report(step, sale, WithdrawalState.RESERVED, self._set_aside_text)
        while (claim := self._next_claim()) is not None:
            if claim.payment.native and (unwrap_raw := self._raw_to_unwrap(claim)) > 0:
                unwrap_outcome = engine.run_cycle(
                    self._context.readers,
                    Unwrap(unwrap_raw),
                    self._context.store,
                    replace(transactor, confirm=lambda _: True),
                )
                self.sent_intents += unwrap_outcome.transactions
                if unwrap_outcome.kind is not OutcomeKind.DONE:
                    return self.report(
                        step_without_deposits(self._context),
                        sale,
                        WithdrawalState.FAILED,
                        unwrap_outcome.reason,
                    )
            intent = pay(
                self._context.readers,
                self._context.store,
                transactor,
                self._payout(claim.payment),
                self._context.payout_addresses,
            )
            self.sent_intents.append(intent)
            if not intent.succeeded:
                failure_reason = (
                    f'"{intent.note}" ended as {intent.state.value}; trimtab withdraw --resume'
                    f" {request_id} tries again"
                )
                return self.report(
                    step_without_deposits(self._context),
                    sale,
                    WithdrawalState.FAILED,
                    failure_reason,
                )
        store = self._context.store
        paid_states = [
            intent.state for intent, _ in store.requests.payouts(request_id) if intent.succeeded
        ]
        step = step_without_deposits(self._context)
        if store.requests.is_released(request_id):
            # `_payments` are those unpaid when this command began
            payments = self._payments if self.request is None else self.request.payments
            message = (
                f"withdrawal {request_id} was released in the meantime; {len(paid_states)} of its"
                f" {len(payments)} payments were made"
            )
            return self.report(step, sale, WithdrawalState.FAILED, message)
        if any(state is not IntentState.FINAL for state in paid_states):
            return self.report(
                step,
                sale,
                WithdrawalState.WAITING,
                f"paid; the run ends withdrawal {request_id} once its payments are final; without a run:"
                f" trimtab withdraw --resume {request_id}",
            )
        store.requests.end(request_id, RequestState.DONE, self._context.clock.now_s())
        # The next cycle would book the payment, but profit is looked at now, and a wallet may have none.
        update_ledger(store, current_step_input(self._context.readers, store), is_forced=True)
        return self.report(step, sale, WithdrawalState.PAID, f"paid to {self._payout_address}")

    @property
    def _request_id(self) -> int | None:
        return None if self.request is None else self.request.id

    def _record_request(self, requested_s: int) -> None:
        """Record the request, of that chain time, before anything is sent."""
        self._is_confirmed = True
        if self.request is None:
            self.request = self._context.store.requests.record(
                RequestKind.WITHDRAW,
                self._payments,
                self._payout_address,
                False,
                requested_s,
                self._origin.control_id,
                self._origin.pro_rata_raw,
            )
        else:
            self._context.store.requests.redirect(self.request.id, self._payout_address)

    def _undo_part_or_release(self) -> None:
        """Undo the record of a part whose sale did not succeed. A new withdrawal that sold nothing is
        released; a resumed one stays reserved.
        """
        if self._is_confirmed and self.request is not None:
            request_store = self._context.store.requests
            has_swapped = any(
                intent.succeeded and intent.kind is IntentKind.SWAP for intent in self.sent_intents
            )
            if self._is_resumed or has_swapped:
                request_store.record_progress(self.request.id, self.request.progress)
            else:
                request_store.end(
                    self.request.id, RequestState.RELEASED, self._context.clock.now_s()
                )

    def _with_claims(self, step: StepInput) -> StepInput:
        """Return the step with the amounts of this withdrawal reserved, whether stored or not."""
        if self.request is not None or any(
            claim.request_id == 0 for claim in step.history.cash_flows.pending_payments
        ):
            return step
        return transfers.reserve_claims(
            step, tuple(PendingPayment(0, payment) for payment in self._payments)
        )

    def _withdrawal_readers(self) -> StepReaders:
        readers = self._context.readers
        return replace(
            readers,
            assemble=lambda snapshot, history: self._with_claims(
                transfers.reserve_pending_deposits(readers.assemble(snapshot, history))
            ),
            assemble_for_ledger=readers.assemble,
        )

    def _shortfall_token(self, step: StepInput) -> str | None:
        """Return the first token with a shortfall; None without one."""
        return _first_shortfall_token(step, self._payments)

    def _next_claim(self) -> PendingPayment | None:
        claims = step_without_deposits(self._context).history.cash_flows.pending_payments
        return next((claim for claim in claims if claim.request_id == self._request_id), None)

    def _payout(self, payment: Payment) -> Payout:
        return Payout(
            NATIVE if payment.native else payment.token,
            self._payout_address or "",
            payment.raw,
            0,
            self._request_id or 0,
        )

    def _verdicts(self, step: StepInput) -> tuple[Verdict, ...]:
        if self._payout_address is None:
            return ()
        payouts = [self._payout(payment) for payment in self._payments]
        return table.judge_payout_permission(
            step,
            payouts,
            self._context.payout_addresses,
            self._context.kill_switch.is_paused() is not False,
        )

    def _raw_to_unwrap(self, claim: PendingPayment) -> int:
        """Return the wrapped coin to unwrap before a native payment, so that gas money remains."""
        step = step_without_deposits(self._context)
        reserved_wei = native_coin.floor_wei(step.limits) + native_coin.worst_gas_cost_wei(
            step.snapshot, step.limits
        )
        free_wei = max(0, step.snapshot.native_wei - reserved_wei)
        return min(
            max(0, claim.payment.raw - free_wei),
            native_coin.unwrappable_raw(step.snapshot, step.portfolio),
        )


def _record_part_begun(store: Store, request: OwnerRequest, sale: StepOutcome, token: str) -> None:
    """Record the sale of a part before it is sent, so that an interrupted withdrawal continues with
    the next part. Does nothing if the plan raises the whole shortfall.
    """
    step = sale.step_input
    part_interval_s = step.limits.first_purchase_s
    left_raw = _planned_shortfall_raw(sale, token)
    if part_interval_s is None or left_raw <= 0:
        return
    shortfall_raw = _shortfall_raw(step, token)
    progress = _part_progress(
        request,
        step,
        part_interval_s,
        parts_done=_parts_done(step, request, token),
        missing_raw=shortfall_raw,
        raised_raw=shortfall_raw - left_raw,
    )
    store.requests.record_progress(request.id, replace(progress, shortfall_raw=shortfall_raw))


def _record_part(
    store: Store, request: OwnerRequest, sale: StepOutcome, step: StepInput, token: str
) -> str:
    """Record the part that a sale raised, and describe the next one; return an empty text if the
    sale was planned to raise all. `step` is the input after the sale, with the withdrawal reserved.
    """
    part_interval_s = step.limits.first_purchase_s
    if part_interval_s is None or _planned_shortfall_raw(sale, token) <= 0:
        return ""
    missing_raw = _shortfall_raw(step, token)
    progress = _part_progress(
        request,
        step,
        part_interval_s,
        parts_done=1 + _parts_done(sale.step_input, request, token),
        missing_raw=missing_raw,
        raised_raw=_shortfall_raw(sale.step_input, token) - missing_raw,
    )
    store.requests.record_progress(request.id, progress)
    return (
        f"part {progress.parts_done} of about {progress.part_count} is raised for withdrawal"
        f" {request.id}; next at {format_time(progress.next_s)}: trimtab run --send continues and pays"
        f" once the full amount is raised, or trimtab withdraw --resume {request.id} --send"
    )


def _planned_shortfall_raw(sale: StepOutcome, token: str) -> int:
    """Return the shortfall that a sale is planned to leave; 0 without a plan."""
    if sale.plan is None:
        return 0
    step = sale.step_input
    return requests.uncovered_after_plan_raw(
        step.snapshot, step.portfolio, step.limits, sale.plan, token
    )


def _shortfall_raw(step: StepInput, token: str) -> int:
    """Return the base units by which a token's balance is below its reserve and claims."""
    return transfers.shortfall_raw(
        step.portfolio, step.limits, native_coin.held_balances(step), token
    )


def _part_progress(
    request: OwnerRequest,
    step: StepInput,
    part_interval_s: int,
    *,
    parts_done: int,
    missing_raw: int,
    raised_raw: int,
) -> WithdrawalProgress:
    """Return the progress at a step after `parts_done` parts, if `missing_raw` is still to be raised
    and a part raises `raised_raw`.
    """
    now_s = step.snapshot.head.timestamp_s
    remaining_parts = _remaining_parts(missing_raw, raised_raw)
    until_s = parts_expiry_s(now_s, remaining_parts, part_interval_s)
    if request.progress is not None and request.progress.until_s > now_s:
        until_s = request.progress.until_s
    return WithdrawalProgress(
        parts_done + remaining_parts, parts_done, now_s + part_interval_s, until_s
    )


def _remaining_parts(shortfall_raw: int, raised_raw: int) -> int:
    """Return the number of parts still needed if each raises as much as this one; 1 if it raised
    nothing.
    """
    return ceil_int(Fraction(shortfall_raw, raised_raw)) if raised_raw > 0 else 1


def _parts_done(step: StepInput, request: OwnerRequest, token: str) -> int:
    """Return the number of parts raised, including one interrupted before it was recorded."""
    if request.progress is None:
        return 0
    return _current_progress(step, request.progress, token).parts_done


def _current_progress(
    step: StepInput, progress: WithdrawalProgress, token: str
) -> WithdrawalProgress:
    """Return the progress with a part that was raised and not recorded."""
    return transfers.current_progress(
        step.portfolio, step.limits, native_coin.held_balances(step), progress, token
    )


def require_part_due(request: OwnerRequest | None, step: StepInput) -> None:
    """Raise Refused while the next part of a withdrawal is not due; a payment without a sale is
    always due.
    """
    if request is None or request.progress is None:
        return
    if step.snapshot.head.timestamp_s >= request.progress.next_s:
        return
    shortfall_token = _first_shortfall_token(step, request.payments)
    if shortfall_token is None:
        return
    progress = _current_progress(step, request.progress, shortfall_token)
    raise Refused(
        f"withdrawal {request.id}: {format_parts(progress)}",
        remedy="wait until then; parts are limits.first_purchase apart",
        code=ErrorCode.PART_NOT_DUE,
    )


def require_no_open_withdrawal(step: StepInput, tokens: Iterable[str]) -> None:
    """Raise Refused while an earlier withdrawal in parts still has to raise one of these tokens,
    because a new withdrawal would sell for the remaining parts at once.
    """
    withdrawn_tokens = {*tokens}
    for claim in step.history.cash_flows.pending_payments:
        token = claim.payment.token
        if claim.progress is None or token not in withdrawn_tokens:
            continue
        if _shortfall_raw(step, token) > 0:
            progress_text = format_parts(_current_progress(step, claim.progress, token))
            release_command = f"trimtab withdraw --release {claim.request_id}"
            raise Refused(
                f"withdrawal {claim.request_id}: {progress_text}; only one withdrawal of an asset"
                " can be open",
                remedy=f"wait until it is paid, or release it: {release_command}",
                code=ErrorCode.WITHDRAWAL_OPEN,
            )


def format_parts(progress: WithdrawalProgress) -> str:
    """Describe the progress of a withdrawal in parts."""
    return f"{progress.parts_done} of about {progress.part_count} parts raised, next at {format_time(progress.next_s)}"


def _first_shortfall_token(step: StepInput, payments: Iterable[Payment]) -> str | None:
    """Return the first token of the payments with a shortfall; None without one."""
    return next(
        (payment.token for payment in payments if _shortfall_raw(step, payment.token) > 0), None
    )


def is_continuable(request: OwnerRequest, step: StepInput) -> bool:
    """Return whether a run continues this withdrawal now: its next part or payment is due, and its
    deadline has not passed.
    """
    if request.kind is not RequestKind.WITHDRAW or (progress := request.progress) is None:
        return False
    now_s = step.snapshot.head.timestamp_s
    return now_s < progress.until_s and (
        now_s >= progress.next_s or _first_shortfall_token(step, request.payments) is None
    )


def continue_withdrawal(
    context: AgentContext, transactor: StepTransactor | None, cycle_outcome: StepOutcome
) -> StepOutcome:
    """After a cycle that held, continue a withdrawal in parts: run its due part or payment and return
    the outcome, else return the cycle's. One that is refused waits, and says why in the reason.

    The owner confirmed all parts with the first. Exits have priority: a cycle with an exit does not
    end as a hold. After the deadline the owner has to resume the withdrawal.
    """
    if transactor is None or cycle_outcome.kind is not OutcomeKind.HOLD:
        return cycle_outcome
    store = context.store
    step = cycle_outcome.input_after or cycle_outcome.step_input
    part_interval_s = context.limits.first_purchase_s
    request = next(
        (
            owner_request
            for owner_request in store.requests.newest(1_000, open_only=True)
            if is_continuable(owner_request, step)
        ),
        None,
    )
    if request is None or request.progress is None:
        return cycle_outcome
    subject = f"withdrawal {request.id}"
    if _first_shortfall_token(step, request.payments) is not None:
        if part_interval_s is None:
            resume_command = f"trimtab withdraw --resume {request.id} --send"
            reason = f"limits.first_purchase is off, so no part follows; {resume_command}"
            return waiting_outcome(cycle_outcome, subject, reason)
        # schedule the next attempt first, in case this one fails
        next_s = step.snapshot.head.timestamp_s + part_interval_s
        request = replace(request, progress=replace(request.progress, next_s=next_s))
        store.requests.record_progress(request.id, request.progress)
    unpaid_payments = tuple(
        claim.payment
        for claim in step.history.cash_flows.pending_payments
        if claim.request_id == request.id
    )
    withdrawal = WithdrawalRun(context, unpaid_payments, request.to, request, is_confirmed=True)
    try:
        report = withdrawal.execute_unasked(transactor)
    except Refused as error:
        outcome = waiting_outcome(cycle_outcome, subject, error.message)
        if withdrawal.sent_intents:
            outcome = replace(
                outcome, kind=OutcomeKind.DONE, transactions=tuple(withdrawal.sent_intents)
            )
        return outcome
    return withdrawal_outcome(report, cycle_outcome)


def waiting_outcome(cycle_outcome: StepOutcome, subject: str, reason: str) -> StepOutcome:
    """Return the outcome of a cycle that held, with why a payment after it waits."""
    return replace(cycle_outcome, reason=f"{cycle_outcome.reason}; {subject} waits: {reason}")


def withdrawal_outcome(report: WithdrawalReport, cycle_outcome: StepOutcome) -> StepOutcome:
    """Return the outcome of a cycle that held and then carried out this withdrawal."""
    sale = report.sale
    if report.state in OUTCOME_BY_STATE and sale is not None and sale.kind is not OutcomeKind.DONE:
        return sale
    return replace(
        sale or cycle_outcome,
        kind=OUTCOME_BY_STATE.get(report.state, OutcomeKind.DONE),
        reason=report.reason,
        transactions=report.transactions,
        input_after=report.step_input,
    )
