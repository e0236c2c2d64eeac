"""Stop the bot: hard pause, revocation of every known allowance, and the shutdown that can also sell
everything and pay it out.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from agent import codec, engine, wiring
from agent.app.agent import Agent, open_agent
from agent.app.cycles import Progress, ignore_progress, never_confirm
from agent.app.documents import fill
from agent.app.documents.owner import HANDED_OVER, ExposedDocument, HardPauseDocument
from agent.app.documents.plans import transaction
from agent.app.money.payable import free_payments, payable_today
from agent.app.money.sales_of_stop import (
    kept_reason,
    planned_sales,
    sale_refusal,
    unsold_reason,
)
from agent.app.records.step_history import pause_by_file
from agent.chain.tokens import PERMIT2, read_allowances
from agent.config.fields import parse_address
from agent.config.load import load_config
from agent.config.loaded import LoadedConfig
from agent.errors import ConfigError, ErrorCode, OperatorNeeded, Refused, Retryable, TrimtabError
from agent.execution.approvals import (
    OpenExposure,
    current_step_input,
    format_open_allowances,
    open_exposure,
    pay,
    revoke_allowances,
)
from agent.execution.bookkeeping import update_ledger
from agent.execution.step_context import OutcomeKind, StepActors, StepOutcome
from agent.guards import table
from agent.layers.futures.policy.plans import vault_spender
from agent.layers.futures.state import futures_policy, margin_account
from agent.layers.liquidity.policy.pools import position_spenders
from agent.margin import account as margin
from agent.model import (
    FuturesReading,
    Holding,
    Intent,
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
from agent.store.files.locks import LockHeld, require_private
from agent.units import NATIVE, decimal_text
from agent.venues import allowances


@dataclass(frozen=True, slots=True)
class HardPauseReport:
    """Result of a hard pause.

    `outcome` is None if this command sent nothing. `hard` is the state of the switch; `held` names
    the process that holds the wallet's lock and cancels instead.
    """

    reason: str
    hard: bool
    found: OpenExposure
    outcome: StepOutcome | None = None
    held: str = ""


def pause_hard(
    config: LoadedConfig | Path | str,
    reason: str,
    *,
    send: bool,
    sure: bool,
    confirm: Callable[[OpenExposure], bool],
    progress: Progress = ignore_progress,
) -> HardPauseReport:
    """Pause, show what a hard pause would cancel and revoke, and pause hard once confirmed.

    A soft pause stops all sending while the chain is read and the owner decides; with `send` and
    `sure` the pause is hard from the start. Pending transactions are cancelled and allowances
    revoked by this command, or by the run that holds the wallet.
    """
    with ExitStack() as stack:
        try:
            loaded = load_config(config, guarded=False)
            _, switch = stack.enter_context(wiring.open_store_offline(loaded))
        except TrimtabError as error:
            message = f"paused by {pause_by_file(config, error)}, but not hard: {error.message}"
            raise OperatorNeeded(
                message,
                f"{error.remedy}; then trimtab pause --hard again",
                code=ErrorCode.HARD_PAUSE,
            ) from error
        switch.pause(reason, int(time.time()), hard=send and sure)
    require_private(loaded.path, "config")
    with open_agent(loaded) as agent:
        exposure = agent.open_exposure()
        if not send or not (sure or confirm(exposure)):
            return HardPauseReport(reason, agent.context.switch.is_hard(), exposure)
        agent.context.switch.pause(reason, int(time.time()), hard=True)
        try:
            return HardPauseReport(
                reason, True, exposure, agent.cancel_and_revoke(reason, progress)
            )
        except LockHeld as held:
            return HardPauseReport(reason, True, exposure, held=held.message)


@dataclass(frozen=True, slots=True)
class OpenAllowance:
    """Allowance of one contract for one token in base units; `raw` is None if it is unreadable."""

    token: str
    label: str
    spender: str
    holder: str
    raw: int | None


@dataclass(frozen=True, slots=True)
class RevocationReport:
    """Result of a revocation. `state` is clear (no allowances), planned, declined, revoked or
    failed.
    """

    found: tuple[OpenAllowance, ...]
    state: str
    reason: str = ""
    transactions: tuple[Intent, ...] = ()


def revoke(
    agent: Agent,
    tokens: Sequence[str] = (),
    *,
    send: bool = False,
    confirm: Callable[[RevocationReport], bool],
    progress: Progress = ignore_progress,
) -> RevocationReport:
    """Read the allowances of routers, managers and Permit2, and with `send` set them to zero one by
    one after a confirmation. `tokens` are symbols or addresses, by default all of the config.
    Raises ConfigError for a token that the config does not list.
    """
    addresses = [agent.token(name, "TOKEN").address for name in tokens]
    addresses = addresses or list(agent.context.tokens)
    open_before = _open_allowances(agent, addresses)
    unread = ", ".join(
        f"{open_allowance.label} for the {open_allowance.holder}"
        for open_allowance in open_before
        if open_allowance.raw is None
    )
    report = RevocationReport(
        open_before,
        "planned" if any(allowance.raw for allowance in open_before) else "clear",
        f"cannot be read: {unread}" if unread else "",
    )
    if not send or report.state == "clear":
        return report
    if not confirm(report):
        return replace(report, state="declined", reason="not confirmed; nothing was sent")
    context = agent.context
    with wiring.open_actors(context, never_confirm, progress) as actors:
        actors.executor.reconcile()
        step, step_id = current_step_input(context.readers, context.store), uuid.uuid4().hex[:12]
        context.store.steps.begin(
            step_id, context.clock.now_s(), codec.dumps(step), codec.dumps(ManualAction("revoke"))
        )
        confirmed = {
            (allowance.token, allowance.spender) for allowance in open_before if allowance.raw
        }
        zero = [
            Approval(allowance.token, allowance.spender, 0, allowance.label, allowance.holder)
            # a running agent may have revoked some in the meantime
            for allowance in _open_allowances(agent, addresses)
            if allowance.raw and (allowance.token, allowance.spender) in confirmed
        ]
        sent, troubles = revoke_allowances(actors, step_id, step, zero)
        current_step_input(context.readers, context.store)
        left = [allowance for allowance in _open_allowances(agent, addresses) if allowance.raw]
        troubles += [
            f"the {allowance.holder} may still spend {allowance.label}" for allowance in left
        ]
        reason = "; ".join(troubles) or f"{len(sent)} allowances set to zero"
        context.store.steps.end(step_id, "halt", reason, None, "failed" if troubles else "done")
    return replace(
        report, state="failed" if troubles else "revoked", reason=reason, transactions=tuple(sent)
    )


def _open_allowances(agent: Agent, tokens: Sequence[str]) -> tuple[OpenAllowance, ...]:
    """Return every allowance that is open or unreadable."""
    context, holders = agent.context, _holders(agent)
    pairs = [(token, spender) for token in tokens for spender in holders]
    answers = read_allowances(context.line, context.config.wallet.address, pairs)
    return tuple(
        OpenAllowance(token, context.portfolio.token(token).label, spender, holders[spender], raw)
        for (token, spender), raw in zip(pairs, answers, strict=True)
        if raw != 0
    )


def _holders(agent: Agent) -> dict[str, str]:
    """Return the role by address of every contract that may have received an allowance."""
    config = agent.context.config
    v2, v3 = config.venues.uniswap_v2, config.venues.uniswap_v3
    roles = {PERMIT2: "Permit2"}
    if v3 is not None:
        roles |= {v3.router: "V3 router", v3.position_manager: "position manager"}
    if v2 is not None:
        roles[v2.router] = "V2 router"
    if config.execution.rebalancer is not None:
        roles[config.execution.rebalancer] = "rebalancer"
    execution = agent.context.execution
    of_layers = position_spenders(execution) | vault_spender(agent.context.futures)
    return roles | allowances.allowed_spenders(execution, of_layers)


MAX_SALES = 12
"""Maximum number of plans of a full sale; the report names any remainder."""
CONFIRMATION_WAITS = 6
"""Maximum number of further waits for the confirmations of what a stop sent."""


@dataclass(frozen=True, slots=True)
class ShutdownReport:
    """Result or preview of a shutdown.

    `state` is planned, declined, stopped, or unfinished; `reason` names the parts that wait. `waiting`
    are transactions to cancel, `allowed` allowances to revoke, `sales` the current plans to sell
    everything, one asset each, and `payments` the payments to `to`. `left` names holdings that
    could not be sold or paid and stay in the wallet.
    """

    step_input: StepInput
    to_stable: bool
    to: str | None
    waiting: tuple[Intent, ...]
    allowed: tuple[Approval, ...]
    sales: tuple[StepOutcome, ...]
    payments: tuple[Payment, ...]
    verdicts: tuple[Verdict, ...]
    state: str
    reason: str
    transactions: tuple[Intent, ...] = ()
    left: tuple[str, ...] = ()

    @property
    def remedies(self) -> tuple[str, ...]:
        """Remedy for each limit that refuses."""
        return table.payout_remedies(self.verdicts)

    @property
    def futures(self) -> str:
        """Warning about what stays at the futures venue, with its remedy; empty if nothing does."""
        account, policy = margin_account(self.step_input.snapshot), futures_policy(self.step_input)
        if policy is None:
            return ""
        if account is None:
            why = self.step_input.snapshot.layer(FuturesReading).unknown
            return f"the margin account is not known ({why}); it may hold positions"
        cents = margin.account_value_raw(account) // 10 ** (account.quote.decimals - 2)
        value = decimal_text(cents, 2)
        rest = f"{value} {account.quote.label} of margin stays in the account"
        if not account.positions:
            return rest if margin.account_value_raw(account) > 0 else ""
        names = ", ".join(account.market(position.market).symbol for position in account.positions)
        return (
            f"positions stay open in {names}, and nothing reduces them ahead of liquidation while"
            f" trading is stopped; {rest}. trimtab deleverage --to 0x --send closes them even after"
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
    """Shut the bot down, or continue an unfinished shutdown; without `send` only preview. A part that
    is refused waits, and the others are carried out.

    Once its request is stored, `run` and `rebalance` refuse until the owner resumes. Raises
    ConfigError if a different shutdown is open.
    """
    context = agent.context
    address = None if send_to is None else parse_address(send_to, "--send-to")
    request = _open_stop(agent, to_stable, address)
    if request is not None:
        to_stable, address = request.to_stable, request.to
    shutdown_report = _planned_shutdown(agent, to_stable, address)
    if not send:
        return shutdown_report
    if not confirm(shutdown_report):
        return replace(shutdown_report, state="declined", reason="not confirmed; nothing was sent")
    if request is None:
        request = context.store.requests.ask(
            RequestKind.STOP,
            (),
            address,
            to_stable,
            shutdown_report.step_input.snapshot.head.timestamp_s,
        )
    with wiring.open_actors(context, lambda _: True, progress) as actors:
        report = _Shutdown(agent, actors, request, shutdown_report).execute()
    update_ledger(context.store, report.step_input, force=True)  # no later cycle would
    return report


def _open_stop(agent: Agent, to_stable: bool, address: str | None) -> OwnerRequest | None:
    """Return the open shutdown, if any. Raises ConfigError if it differs from the requested one."""
    stored = agent.context.store.requests.stopping()
    if stored is None or stored.state is not RequestState.OPEN:
        return None
    if (to_stable or address is not None) and (stored.to_stable, stored.to) != (to_stable, address):
        raise ConfigError(
            "another stop is in progress",
            "trimtab stop --send continues it; trimtab resume ends it",
            code=ErrorCode.STOP_OPEN,
        )
    return stored


def _planned_shutdown(agent: Agent, to_stable: bool, address: str | None) -> ShutdownReport:
    context = agent.context
    exposure = open_exposure(context.readers, context.store)
    step, sales, unsold, kept = exposure.step_input, tuple[StepOutcome, ...](), "", ""
    if to_stable:
        try:
            sales, kept = planned_sales(context.readers)
        except (Refused, Retryable) as refusal:  # it stops no other part
            unsold = refusal.message
    payments: tuple[Payment, ...] = ()
    verdicts: tuple[Verdict, ...] = ()
    if address is not None:
        payments = free_payments(_sold(step, sales))
        paused = context.switch.is_paused() is not False
        verdicts = table.judge_payout_permission(
            step, _payouts(payments, address, 0), context.payouts, paused
        )
    failing = [f"{v.guard}: {v.measured}, limit {v.limit}" for v in verdicts if not v.passed]
    waits = [f"the payout waits: {'; '.join(failing)}"] if failing else []
    if unsold := unsold or (sale_refusal(sales[0]) if sales else ""):
        waits.insert(0, f"the sale waits: {unsold}")
    elif kept:
        waits.insert(0, kept)
    return ShutdownReport(
        step,
        to_stable,
        address,
        exposure.waiting,
        exposure.allowed,
        sales,
        payments,
        verdicts,
        "planned",
        "; ".join(waits),
    )


class _ResumedDuringStop(Refused):
    """Raised when the owner resumes the bot during its shutdown."""


class _Shutdown:
    """Actions of a shutdown. Each starts from the current state, so an interrupted shutdown can be
    resumed at any point.
    """

    def __init__(
        self, agent: Agent, actors: StepActors, request: OwnerRequest, planned: ShutdownReport
    ) -> None:
        self._context, self._actors = agent.context, actors
        self._request, self._shown = request, planned
        self._sent: list[Intent] = []
        self._sale_waits = request.to_stable
        self._kept = ""

    def execute(self) -> ShutdownReport:
        """Cancel, revoke, sell and pay; return the report. A part that is refused, or that an endpoint
        cannot answer, stops no other.
        """
        context, request = self._context, self._request
        parts: list[Callable[[], None]] = [self._cancel, self._revoke]
        if request.to_stable:
            parts += [self._sell, self._revoke]
        if request.to is not None:
            parts.append(partial(self._pay, request.to))
        waits: list[str] = []
        try:
            for part in (*parts, self._require_open):
                try:
                    part()
                except _ResumedDuringStop:
                    raise
                except (Refused, Retryable) as refusal:
                    waits.append(str(refusal))
        except _ResumedDuringStop as resumed:
            return self._report(
                current_step_input(context.readers, context.store), "unfinished", str(resumed)
            )
        if waits:
            return self._unfinished("; ".join(dict.fromkeys(waits)))
        step = current_step_input(context.readers, context.store)
        if not self._await_final():
            return self._unfinished("waiting for confirmations")
        context.store.requests.end(request.id, RequestState.DONE, context.clock.now_s())
        return self._report(
            step,
            "stopped",
            "; ".join(
                part
                for part in (
                    "no pending transactions and no open allowances",
                    self._kept,
                    "trimtab resume restarts trading",
                )
                if part
            ),
        )

    def _await_final(self) -> bool:
        """Wait for the confirmations of what was sent, for several times the wait of a transaction;
        False if some are still missing.
        """
        journal = self._context.store.journal
        for attempt in range(CONFIRMATION_WAITS + 1):
            if attempt:
                with suppress(Retryable):
                    self._actors.executor.reconcile(may_send=False)
            ids = {intent.id for intent in self._sent}
            nonces = sorted({intent.tx.nonce for intent in self._sent})
            self._sent = [
                now for nonce in nonces for now in journal.intents_at(nonce) if now.id in ids
            ]
            waiting = [
                intent
                for intent in self._sent
                if intent.succeeded and intent.state is not IntentState.FINAL
            ]
            if not waiting:
                return True
        return False

    def _require_open(self) -> None:
        """Raise _ResumedDuringStop if another command has resumed the bot."""
        stored = self._context.store.requests.stopping()
        if stored is None or stored.id != self._request.id:
            raise _ResumedDuringStop(
                "the bot was resumed in the meantime; assets that were not sold or paid by then"
                " stay in the wallet"
            )

    def _unfinished(self, why: str) -> ShutdownReport:
        step = current_step_input(self._context.readers, self._context.store)
        return self._report(
            step, "unfinished", f"{why}; trading stays stopped; trimtab stop --send continues"
        )

    def _report(self, step: StepInput, state: str, reason: str) -> ShutdownReport:
        numeraire = step.portfolio.numeraire.address
        left = tuple(
            f"{transfers.format_payment(step.portfolio, payment)} {step.portfolio.token(payment.token).label}"
            for payment in free_payments(step)
            if self._request.to is not None
            or (self._request.to_stable and payment.token != numeraire)
        )
        return replace(
            self._shown,
            step_input=step,
            state=state,
            reason=reason,
            transactions=tuple(self._sent),
            left=left,
        )

    def _cancel(self) -> None:
        """Cancel pending transactions, and end limit orders and gradual executions."""
        try:
            self._actors.executor.cancel_pending("stopped by the owner")
        finally:
            step = current_step_input(self._context.readers, self._context.store)
            executions, now_s = self._context.store.executions, step.snapshot.head.timestamp_s
            for execution_id in executions.open_ids():
                executions.end(execution_id, "cancelled", "the bot was stopped", now_s)

    def _sell(self) -> None:
        """Sell everything. Raises Refused with the reason for any remainder."""
        for _ in range(MAX_SALES):
            self._require_open()
            done = engine.run_cycle(
                self._context.readers, SellEverything(), self._context.store, self._actors
            )
            self._sent += done.transactions
            if done.kind is OutcomeKind.DONE:
                continue
            unsold = unsold_reason(done) if done.kind is OutcomeKind.HOLD else done.reason
            if unsold:
                raise Refused(unsold)
            self._sale_waits, self._kept = False, kept_reason(done)
            return
        self._sale_waits = False

    def _revoke(self) -> None:
        step = current_step_input(self._context.readers, self._context.store)
        allowed = allowances.revocations(step)
        if not allowed:
            return
        step_id = uuid.uuid4().hex[:12]
        self._context.store.steps.begin(
            step_id,
            self._context.clock.now_s(),
            codec.dumps(step),
            codec.dumps(ManualAction("stop")),
        )
        sent, troubles = revoke_allowances(self._actors, step_id, step, allowed)
        self._sent += sent
        self._context.store.steps.end(
            step_id, "halt", format_open_allowances(allowed), None, "failed" if troubles else "done"
        )
        if troubles:
            raise Refused("; ".join(troubles), remedy="trimtab revoke tries them one by one")

    def _pay(self, to: str) -> None:
        """Pay out all free holdings, as far as limits.payout_per_day permits today, and only the
        numeraire while a sale waits. The number of payouts is bounded, so that continued deposits
        cannot keep the shutdown from ending. Raises Refused with the reasons for any remainder.
        """
        most = (
            4 * len(free_payments(current_step_input(self._context.readers, self._context.store)))
            + 1
        )
        waits: dict[tuple[str, bool], str] = {}
        for _ in range(most):
            step = current_step_input(self._context.readers, self._context.store)
            due = [
                payment
                for payment in free_payments(step)
                if (payment.token, payment.native) not in waits
                and not (self._sale_waits and payment.token != step.portfolio.numeraire.address)
            ]
            if not due:
                break
            self._require_open()
            (payout,) = _payouts((payable_today(step, due[0]),), to, self._request.id)
            try:
                intent = pay(
                    self._context.readers,
                    self._context.store,
                    self._actors,
                    payout,
                    self._context.payouts,
                )
            except Refused as refusal:
                waits[due[0].token, due[0].native] = str(refusal)
                continue
            self._sent.append(intent)
            if not intent.succeeded:
                message = f'"{intent.note}" ended as {intent.state.value}'
                waits[due[0].token, due[0].native] = message
        if waits:
            raise Refused(f"the payout waits: {'; '.join(dict.fromkeys(waits.values()))}")


def _sold(step: StepInput, sales: Sequence[StepOutcome]) -> StepInput:
    """Return the step input after these sales, as predicted by their plans."""
    plans = [dict(sale.plan.holdings_after) for sale in sales if sale.plan is not None]
    balances = {holding.token: holding.raw for holding in step.snapshot.holdings}
    after = {
        token: raw + sum(plan.get(token, raw) - raw for plan in plans)
        for token, raw in balances.items()
    }
    return replace(
        step,
        snapshot=replace(
            step.snapshot, holdings=tuple(Holding(token, raw) for token, raw in after.items())
        ),
    )


def _payouts(payments: tuple[Payment, ...], to: str, request: int) -> tuple[Payout, ...]:
    return tuple(
        Payout(NATIVE if payment.native else payment.token, to, payment.raw, 0, request)
        for payment in payments
    )


def hard_pause_document(halted: HardPauseReport, send: bool) -> HardPauseDocument:
    """Return the document of a hard pause."""
    exposure = fill(ExposedDocument, halted.found)
    clear = not exposure["cancel"] and not exposure["revoke"]
    if halted.outcome is not None:
        outcome, message = halted.outcome.kind.value.replace("halt", "clear"), halted.outcome.reason
    elif halted.held and not clear:
        outcome, message = "handed over", f"{halted.held}; {HANDED_OVER}"
    elif clear:
        outcome, message = "clear", "no pending transactions, no open allowances"
    elif send:
        outcome, message = "declined", "not confirmed, but paused"
    else:
        outcome, message = "planned", "paused; to cancel and revoke: trimtab pause --hard --send"
    sent = () if halted.outcome is None else halted.outcome.transactions
    transactions = [transaction(intent) for intent in sent]
    return fill(
        HardPauseDocument,
        halted,
        paused=True,
        outcome=outcome,
        told=message,
        transactions=transactions,
        **exposure,
    )
