"""Stop the bot: cancel, revoke, sell everything and pay it out, in this order. Each part can be
resumed, and none waits for one before it that is refused.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from itertools import takewhile

from agent import codec, engine, wiring
from agent.app.agent import Agent
from agent.app.cycles import Progress, ignore_progress
from agent.app.money.payable import kept_back_text, payable_today, payments_of_free_holdings
from agent.app.money.sales_of_stop import (
    SalesTotal,
    planned_sales,
    sale_wait_reason,
    step_after_sales,
    total_of_sales,
    unsold_assets_text,
)
from agent.config.tables.fields import parse_address
from agent.errors import READ_FAILURES, ConfigError, ErrorCode, PassingFault, Refused, Retryable
from agent.execution.approvals import (
    current_step_input,
    ends_if_raised,
    format_open_allowances,
    pay,
    pending_and_allowances,
    revoke_allowances,
)
from agent.execution.bookkeeping import update_ledger
from agent.execution.executor import AwaitingExternalSignature
from agent.execution.step_context import OutcomeKind, StepOutcome, StepTransactor
from agent.execution.submission.proposal_words import withdrawn_proposal_texts
from agent.guards import table
from agent.layers.futures.state import futures_policy, margin_account
from agent.margin import account as margin
from agent.model import (
    ExecutionState,
    FuturesReading,
    Intent,
    IntentKind,
    IntentState,
    ManualAction,
    OwnerRequest,
    Payment,
    Payout,
    RequestKind,
    RequestState,
    SellEverything,
    StepInput,
    Verdict,
)
from agent.policy.cash_flows import transfers
from agent.ports import Approval
from agent.store import Store
from agent.store.transitions import NONCE_USED_STATES
from agent.units import NATIVE, decimal_text
from agent.venues import allowances
from agent.wiring.signed_proposals import cancel_effects, signed_proposal_texts

STOP_REASON = "stopped by the owner"
"""Why a stop ended a transaction, a proposal, an order or a gradual execution."""
MAX_SALES = 12
"""Maximum number of plans of a full sale; the next stop goes on with the rest."""
MAX_CONFIRMATION_WAITS = 6
"""Maximum number of further waits for the confirmations of what a stop sent."""
MAX_TRANSACTIONS = 1_000
"""Maximum number of transactions of a stop that its report lists."""
PROCEEDS_KEPT_TEXT = "nothing is paid out: what the sales brought stays in the wallet"
RESUMED_TEXT = (
    "the bot was resumed in the meantime; assets that were not sold or paid by then stay in the"
    " wallet"
)


@dataclass(frozen=True, slots=True)
class ShutdownReport:
    """Result or preview of a shutdown.

    `state` is planned, declined, stopped, or unfinished; `reason` names the parts that wait.
    `pending_intents` are transactions to cancel, `open_allowances` allowances to revoke,
    `sale_outcomes` the current plans to sell everything, one asset each, and `payments` the
    payments to `payout_address`. `unpaid_holding_texts` names holdings that could not be sold or
    paid and stay in the wallet; `unsold_text` says which assets are not sold, and why,
    `unrevoked_text` which allowances their tokens refuse to set to zero, or cannot be read.
    """

    step_input: StepInput
    to_stable: bool
    payout_address: str | None
    pending_intents: tuple[Intent, ...]
    open_allowances: tuple[Approval, ...]
    sale_outcomes: tuple[StepOutcome, ...]
    payments: tuple[Payment, ...]
    verdicts: tuple[Verdict, ...]
    state: str
    reason: str
    transactions: tuple[Intent, ...] = ()
    unpaid_holding_texts: tuple[str, ...] = ()
    unsold_text: str = ""
    unrevoked_text: str = ""

    @property
    def sales_total(self) -> SalesTotal | None:
        """All sales together; None if nothing is sold."""
        return total_of_sales(self.sale_outcomes)

    @property
    def remedies(self) -> tuple[str, ...]:
        """Remedy for each limit that refuses."""
        return table.payout_remedies(self.verdicts)

    @property
    def futures_warning(self) -> str:
        """Warning about what stays at the futures venue, with its remedy; empty if nothing does."""
        account = margin_account(self.step_input.snapshot)
        policy = futures_policy(self.step_input)
        if policy is None:
            return ""
        if account is None:
            unknown_reason = self.step_input.snapshot.layer(FuturesReading).unknown_reason
            return f"the margin account is not known ({unknown_reason}); it may hold positions"
        margin_value_cents = margin.account_value_raw(account) // 10 ** (account.quote.decimals - 2)
        margin_value_text = decimal_text(margin_value_cents, 2)
        margin_text = f"{margin_value_text} {account.quote.label} of margin stays in the account"
        if not account.positions:
            return margin_text if margin.account_value_raw(account) > 0 else ""
        symbols = ", ".join(
            account.market(position.market).symbol for position in account.positions
        )
        return (
            f"positions stay open in {symbols}, and nothing reduces them ahead of liquidation while"
            f" trading is stopped; {margin_text}. trimtab deleverage --to 0x --send closes them even after"
            " the stop"
        )


Confirm = Callable[[ShutdownReport], bool]


def stop(
    agent: Agent,
    *,
    to_stable: bool = False,
    send_to: str | None = None,
    send: bool = False,
    confirm: Confirm,
    progress: Progress = ignore_progress,
) -> ShutdownReport:
    """Shut the bot down, or continue an unfinished shutdown; without `send` only preview. A part
    that is refused waits, and the others are carried out.

    Once its request is stored, `run` and `rebalance` refuse until the owner resumes. An open
    shutdown takes another `send_to`. Raises Refused for a `send_to` that the owner has not
    confirmed, ConfigError if a different shutdown is open.
    """
    agent = Agent(agent.context.without_venue_waits)
    context = agent.context
    payout_address = None if send_to is None else parse_address(send_to, "--send-to")
    request = _find_open_stop(agent, to_stable, payout_address)
    if payout_address is not None:
        table.require_confirmed_address(payout_address, context.payout_addresses)
    if request is not None:
        to_stable = request.sells_everything
        payout_address = payout_address or request.to
        request = replace(request, to=payout_address)
    preview = _plan_shutdown(agent, to_stable, payout_address, request)
    if not send:
        return preview
    if not confirm(preview):
        return replace(preview, state="declined", reason="not confirmed; nothing was sent")
    is_continued = request is not None
    if request is None:
        request = context.store.requests.record(
            RequestKind.STOP,
            (),
            payout_address,
            to_stable,
            preview.step_input.snapshot.head.timestamp_s,
        )
    else:
        context.store.requests.redirect(request.id, payout_address)
    with wiring.open_transactor(context, lambda _: True, progress) as transactor:
        shutdown = _Shutdown(agent, transactor, request, preview, is_continued=is_continued)
        report = shutdown.execute()
    update_ledger(context.store, report.step_input, is_forced=True)  # no later cycle would
    return report


def _find_open_stop(
    agent: Agent, to_stable: bool, payout_address: str | None
) -> OwnerRequest | None:
    """Return the open shutdown, if any. Raises ConfigError if the requested one sells or pays what
    it does not.
    """
    open_request = agent.context.store.requests.active_stop()
    if open_request is None or open_request.state is not RequestState.OPEN:
        return None
    if to_stable and (
        not open_request.sells_everything
        or (payout_address is None and open_request.to is not None)
    ):
        raise ConfigError(
            "another stop is in progress",
            "trimtab stop --send continues it; trimtab resume ends it",
            code=ErrorCode.STOP_OPEN,
        )
    return open_request


def _own_proposals(
    store: Store, request: OwnerRequest | None, intents: Sequence[Intent]
) -> list[Intent]:
    """Return which open intents are proposals of this stop, and pay where it pays."""
    if request is None:
        return []
    proposed_ids = store.proposals.proposal_blocks()
    return [
        intent
        for intent in intents
        if intent.state is IntentState.PLANNED
        and intent.id in proposed_ids
        and _is_part_of(store, request, intent)
    ]


def _is_part_of(store: Store, request: OwnerRequest, intent: Intent) -> bool:
    payout = store.journal.grant(intent.id).payout
    if payout is not None:
        return (payout.request_id, payout.to) == (request.id, request.to)
    step = store.steps.get(intent.step_id)
    requests_json = (codec.dumps(SellEverything()), codec.dumps(ManualAction("stop")))
    is_of_a_stop = step is not None and step.request_json in requests_json
    return is_of_a_stop and intent.created_s >= request.asked_s


def _plan_shutdown(
    agent: Agent, to_stable: bool, payout_address: str | None, request: OwnerRequest | None
) -> ShutdownReport:
    context = agent.context
    open_items = pending_and_allowances(context.readers, context.store)
    own_proposals = _own_proposals(context.store, request, open_items.pending_intents)
    step = open_items.step_input
    sales = tuple[StepOutcome, ...]()
    sale_problem = ""
    unsold_text = ""
    if to_stable:
        try:
            sales, unsold_text, sale_problem = planned_sales(context.readers)
        except READ_FAILURES as refusal:  # it stops no other part
            sale_problem = refusal.message
    payments: tuple[Payment, ...] = ()
    verdicts: tuple[Verdict, ...] = ()
    if payout_address is not None:
        payments = tuple(
            payment
            for payment in payments_of_free_holdings(step_after_sales(step, sales))
            if not sale_problem or payment.token == step.portfolio.numeraire.address
        )
        is_paused = context.kill_switch.is_paused() is not False
        verdicts = table.judge_payout_permission(
            step, _payouts(payments, payout_address, 0), context.payout_addresses, is_paused
        )
    failed_guard_texts = [
        f"{verdict.guard}: {verdict.measured_text}, limit {verdict.limit}"
        for verdict in verdicts
        if not verdict.passed
    ]
    wait_reasons = (
        [f"the payout waits: {'; '.join(failed_guard_texts)}"] if failed_guard_texts else []
    )
    if sale_problem:
        wait_reasons.insert(0, f"the sale waits: {sale_problem}")
    elif unsold_text:
        wait_reasons.insert(0, unsold_text)
    chain_nonce = step.snapshot.nonce_latest
    wait_reasons += [
        f'"{intent.note}" is proposed and waits: trimtab proposal list'
        if intent.tx.nonce >= chain_nonce
        else f'"{intent.note}" was proposed, and nonce {intent.tx.nonce} is used: trimtab stop --send'
        " settles it"
        for intent in own_proposals
    ]
    cancelled_intents = () if own_proposals else open_items.pending_intents
    wait_reasons += [
        f"trimtab stop --send {effect.text}"
        for effect in cancel_effects(context.loaded_config, context.store, cancelled_intents)
    ]
    wait_reasons += allowances.unread_allowances(step)
    wait_reasons += signed_proposal_texts(context.store, chain_nonce)
    return ShutdownReport(
        step,
        to_stable,
        payout_address,
        cancelled_intents,
        open_items.open_allowances,
        sales,
        payments,
        verdicts,
        "planned",
        "\n".join(wait_reasons),
    )


class _ResumedDuringStop(Refused):
    """Raised when the owner resumes the bot during its shutdown."""


class _Shutdown:
    """Actions of a shutdown. Each starts from the current state, so an interrupted shutdown can be
    resumed at any point.
    """

    def __init__(
        self,
        agent: Agent,
        transactor: StepTransactor,
        request: OwnerRequest,
        preview: ShutdownReport,
        *,
        is_continued: bool,
    ) -> None:
        self._context = agent.context
        self._transactor = transactor
        self._request = request
        self._preview = preview
        self._is_continued = is_continued
        self._ids_before = {intent.id for intent in agent.context.store.journal.intents(limit=1)}
        self._sale_waits = request.sells_everything
        self._unsold_text = ""
        self._unrevoked_text = ""
        self._withdrawn_text = ""

    def execute(self) -> ShutdownReport:
        """Cancel, revoke, sell and pay; return the report. A part that is refused, or that fails in
        a way that may pass, stops no other.
        """
        context = self._context
        request = self._request
        actions: list[Callable[[], None]] = [self._cancel]
        if not (request.sells_everything and self._is_continued):
            actions.append(self._revoke)  # else it would revoke what its sale has approved
        if request.sells_everything:
            actions += [self._sell, self._revoke]
        if request.to is not None:
            actions.append(partial(self._pay, request.to))
        wait_reasons: list[str] = []
        try:
            for action in actions:
                try:
                    action()
                except _ResumedDuringStop:
                    raise
                except (
                    AwaitingExternalSignature
                ) as waiting:  # the other parts would only wait for it
                    waiting.go_on_with("trimtab stop --send")
                    wait_reasons.append(str(waiting))
                    break
                except (Refused, Retryable, PassingFault) as refusal:
                    wait_reasons.append(str(refusal))
            self._require_not_resumed()
        except _ResumedDuringStop as error:
            return self._report(
                current_step_input(context.readers, context.store), "unfinished", str(error)
            )
        if wait_reasons:
            return self._unfinished_report("\n".join(dict.fromkeys(wait_reasons)))
        step = current_step_input(context.readers, context.store)
        if not self._await_final():
            return self._unfinished_report("waiting for confirmations")
        now_s = context.clock.now_s()
        if not context.store.requests.end(request.id, RequestState.DONE, now_s):
            return self._report(step, "unfinished", RESUMED_TEXT)
        return self._report(
            step,
            "stopped",
            "; ".join(
                sentence
                for sentence in (
                    f"no pending transactions and no {'other ' if self._unrevoked_text else ''}open"
                    " allowances",
                    self._unrevoked_text,
                    self._unsold_text,
                    self._withdrawn_text,
                    PROCEEDS_KEPT_TEXT if request.sells_everything and not request.to else "",
                    kept_back_text(step) if request.sells_everything or request.to else "",
                    "trimtab resume restarts trading",
                )
                if sentence
            ),
        )

    def _await_final(self) -> bool:
        """Wait for the confirmations of what was sent, for several times the wait of a transaction;
        False if some are still missing.
        """
        for attempt in range(MAX_CONFIRMATION_WAITS + 1):
            if attempt:
                with suppress(*READ_FAILURES):
                    self._transactor.executor.reconcile(may_send=False)
            if all(
                intent.state is IntentState.FINAL
                for intent in self._sent_intents()
                if intent.succeeded
            ):
                return True
        return False

    def _sent_intents(self) -> tuple[Intent, ...]:
        """Return what this stop has sent but its cancels, oldest first: also of parts that raised
        after they had sent something.
        """
        newest_intents = takewhile(
            lambda intent: intent.id not in self._ids_before,
            self._context.store.journal.intents(limit=MAX_TRANSACTIONS),
        )
        return tuple(
            intent
            for intent in reversed([*newest_intents])
            if intent.state in (IntentState.BROADCAST, *NONCE_USED_STATES)
            and intent.kind is not IntentKind.CANCEL
            and not intent.tx.is_venue_order
        )

    def _require_not_resumed(self) -> None:
        """Raise _ResumedDuringStop if another command has resumed the bot."""
        open_request = self._context.store.requests.active_stop()
        if open_request is None or open_request.id != self._request.id:
            raise _ResumedDuringStop(RESUMED_TEXT)

    def _unfinished_report(self, wait_reason: str) -> ShutdownReport:
        step = current_step_input(self._context.readers, self._context.store)
        return self._report(
            step,
            "unfinished",
            f"{wait_reason}; trading stays stopped; trimtab stop --send continues",
        )

    def _report(self, step: StepInput, state: str, reason: str) -> ShutdownReport:
        numeraire = step.portfolio.numeraire.address
        remaining_texts = tuple(
            f"{transfers.format_payment(step.portfolio, payment)} {step.portfolio.token(payment.token).label}"
            for payment in payments_of_free_holdings(step)
            if self._request.to is not None
            or (self._request.sells_everything and payment.token != numeraire)
        )
        return replace(
            self._preview,
            step_input=step,
            state=state,
            reason=reason,
            transactions=self._sent_intents(),
            unpaid_holding_texts=remaining_texts,
            unsold_text=self._unsold_text,
            unrevoked_text=self._unrevoked_text,
        )

    def _cancel(self) -> None:
        """Cancel pending transactions, and end limit orders and gradual executions. What this stop
        has proposed is settled instead. Raises AwaitingExternalSignature while that awaits its
        signature, Retryable while an order is open at a venue.
        """
        store = self._context.store
        intents: Sequence[Intent] = ()
        try:
            if not self._settle_own_proposal():
                intents = self._transactor.executor.cancel_pending(STOP_REASON)
        finally:
            now_s = self._context.clock.now_s()
            for execution_id in store.executions.open_execution_ids():
                store.executions.end(execution_id, ExecutionState.CANCELLED, STOP_REASON, now_s)
        self._withdrawn_text = "; ".join(
            withdrawn_proposal_texts(store.journal, store.proposals, intents, now_s)
        )
        for intent in store.journal.open_intents():
            if intent.tx.is_venue_order:
                raise Retryable(f'"{intent.note}" is still open at the venue', code=ErrorCode.VENUE)

    def _settle_own_proposal(self) -> bool:
        """Settle what this stop has proposed; False if nothing of it is open. Raises
        AwaitingExternalSignature while it awaits its signature.
        """
        store = self._context.store
        is_open = bool(_own_proposals(store, self._request, store.journal.open_intents()))
        if is_open:
            engine.settle(self._context.readers, store, self._transactor)
        return is_open

    def _sell(self) -> None:
        """Sell everything. Raises Refused with the reason for any remainder."""
        for _ in range(MAX_SALES):
            self._require_not_resumed()
            outcome = engine.run_cycle(
                self._context.readers, SellEverything(), self._context.store, self._transactor
            )
            if outcome.kind is OutcomeKind.DONE:
                continue
            self._unsold_text = unsold_assets_text(outcome)
            if wait_reason := sale_wait_reason(outcome):
                raise Refused(wait_reason)
            self._sale_waits = False
            return
        raise Refused(f"not everything is sold after {MAX_SALES} plans")

    def _revoke(self) -> None:
        step = current_step_input(self._context.readers, self._context.store)
        approvals = allowances.revocations(step)
        unread_texts = allowances.unread_allowances(step)
        self._unrevoked_text = "; ".join(unread_texts)
        if not approvals:
            return
        step_id = uuid.uuid4().hex[:12]
        self._context.store.steps.begin(
            step_id,
            self._context.clock.now_s(),
            codec.dumps(step),
            codec.dumps(ManualAction("stop")),
        )
        with ends_if_raised(self._context.store, step_id, "halt"):
            _, failures = revoke_allowances(self._transactor, step_id, step, approvals)
            self._unrevoked_text = "; ".join(
                [*(failure.message for failure in failures if failure.is_by_token), *unread_texts]
            )
            waiting = [failure.message for failure in failures if not failure.is_by_token]
            if waiting:
                self._settle_own_proposal()
        self._context.store.steps.end(
            step_id,
            "halt",
            format_open_allowances(approvals),
            None,
            "failed" if failures else "done",
        )
        if waiting:
            raise Refused("; ".join(waiting), remedy="trimtab revoke tries them one by one")

    def _pay(self, payout_address: str) -> None:
        """Pay out all free holdings, as far as limits.payout_per_day permits today, and only the
        numeraire while a sale waits. The number of payouts is bounded, so that continued deposits
        cannot keep the shutdown from ending. Raises Refused with the reasons for any remainder.
        """
        max_payouts = (
            4
            * len(
                payments_of_free_holdings(
                    current_step_input(self._context.readers, self._context.store)
                )
            )
            + 1
        )
        refusal_by_payment_key: dict[tuple[str, bool], str] = {}
        for _ in range(max_payouts):
            step = current_step_input(self._context.readers, self._context.store)
            due_payments = [
                payment
                for payment in payments_of_free_holdings(step)
                if (payment.token, payment.native) not in refusal_by_payment_key
                and not (self._sale_waits and payment.token != step.portfolio.numeraire.address)
            ]
            if not due_payments:
                break
            self._require_not_resumed()
            (payout,) = _payouts(
                (payable_today(step, due_payments[0]),), payout_address, self._request.id
            )
            try:
                intent = pay(
                    self._context.readers,
                    self._context.store,
                    self._transactor,
                    payout,
                    self._context.payout_addresses,
                )
            except Refused as refusal:
                refusal_by_payment_key[due_payments[0].token, due_payments[0].native] = str(refusal)
                continue
            if not intent.succeeded:
                failure_reason = f'"{intent.note}" ended as {intent.state.value}'
                refusal_by_payment_key[due_payments[0].token, due_payments[0].native] = (
                    failure_reason
                )
        if refusal_by_payment_key:
            raise Refused(
                f"the payout waits: {'; '.join(dict.fromkeys(refusal_by_payment_key.values()))}"
            )


def _payouts(
    payments: tuple[Payment, ...], payout_address: str, request_id: int
) -> tuple[Payout, ...]:
    return tuple(
        Payout(
            NATIVE if payment.native else payment.token, payout_address, payment.raw, 0, request_id
        )
        for payment in payments
    )
