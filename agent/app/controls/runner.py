"""The run's part of controls: verify each queued entry, take it once, and carry it out with the
functions, guards and journal of its command.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from agent import engine, wiring
from agent.app import config_versions
from agent.app.agent import Agent
from agent.app.controls import shown_plans
from agent.app.controls.queue import (
    MAX_LIFETIME_S,
    require_paper_kind,
    shown_plan,
    waiting_plan,
)
from agent.app.cycles import run_policy_cycle
from agent.app.documents.controls import sealed_with_document
from agent.app.money import transfers
from agent.app.positions import holdings
from agent.app.records.kill_switch import resume_by_control
from agent.app.settings import editing
from agent.app.settings.devices import change_devices
from agent.errors import OperatorNeeded, PassingFault, TrimtabError, internal_error
from agent.execution.step_context import OutcomeKind, StepOutcome
from agent.layers.futures.state import margin_account
from agent.model import (
    AgentCycle,
    Control,
    ControlCode,
    ControlKind,
    ControlState,
    Intent,
    IntentKind,
    OwnerRequest,
    RequestKind,
    ShownPlan,
)
from agent.store.controls import ControlStateChange, NumberedControl
from agent.store.files.locks import LockHeld, service_lock
from agent.store.files.secret import ensure_secret
from agent.units import rough_duration, short_address, utc_text

if TYPE_CHECKING:
    from agent.app.money.shutdown import ShutdownReport
    from agent.app.settings.editing import EditReport
    from agent.chain.rpc import Transport
    from agent.store import Store

MAX_BATCHES = 200
"""Maximum number of batches of invalid controls ended before the next cycle."""
CLOCK_TOLERANCE_S = 60
"""Maximum lead of the requester's clock, or of the newest stored time, over this clock."""
MAX_CONTROLS_PER_CYCLE = 5
"""Maximum number of controls carried out before the next cycle, so that many cannot delay an exit
for long.
"""
SUCCESS_OUTCOMES = frozenset(
    {"done", "hold", "paid", "reserved", "part", "waiting", "stopped", "written", "unchanged"}
)
"""Outcomes of commands that count as DONE."""
PREPARATION_KINDS = (IntentKind.APPROVE, IntentKind.CANCEL)
"""Transactions that carry out no part of a plan."""


@dataclass(frozen=True, slots=True)
class ControlResult:
    """Outcome of a command that a control ran."""

    outcome: str
    reason: str
    transactions: Sequence[Intent] = ()
    notes: tuple[tuple[str, str], ...] = ()


class PlanCheck:
    """Confirmation of one plan: accepts the shown plan once, and no other."""

    def __init__(self, plan: ShownPlan, is_expired: Callable[[], bool]) -> None:
        self._plan = plan
        self._is_expired = is_expired
        self.is_accepted = self.has_expired = self.has_further_plan = False
        self.difference = ""

    def accept(self, plan: ShownPlan, check_consent: Callable[[], bool]) -> bool:
        """Accept the shown plan once: return whether `plan` is it, its control is still valid, and
        `check_consent`, the check of --yes, passes.
        """
        if self.is_accepted:
            self.has_further_plan = True  # for example what remains after an exit
            return False
        self.has_expired = self._is_expired()
        self.difference = self._plan.difference(plan)
        if not self.has_expired and not self.difference:
            self.is_accepted = check_consent()
        return self.is_accepted


class ControlRunner:
    """Carries out the queue of an agent's run. With `offer_and_decline` as the run's confirmation,
    its plans are offered for confirmation by a control.
    """

    def __init__(self, agent: Agent, *, transports: Sequence[Transport] | None = None) -> None:
        self._agent = agent
        self._transports = transports
        self._secret: bytes | None = None
        self._taken_ids: set[str] = set()
        self._has_ended_interrupted = False
        self._has_offered = False
        self.stopped_by = ""

    def has_queued(self) -> bool:
        """Return whether a control is queued."""
        return self._agent.context.store.controls.has_queued()

    def carry_out(self, session: wiring.WalletSession, *, holds_service_lock: bool) -> None:
        """Carry out the queued controls, at most MAX_CONTROLS_PER_CYCLE of them. The caller does
        not hold the wallet's lock; `holds_service_lock` means that it holds the service lock.

        Without the service lock another run may be carrying out controls, so this takes the lock
        for the duration and does nothing if it is held.
        """
        self._has_offered = False
        context = self._agent.context
        with suppress(LockHeld), ExitStack() as locks:
            if not holds_service_lock:
                locks.enter_context(service_lock(wiring.wallet_locks(context.loaded_config)))
                locks.enter_context(context.store.db.serving())
            self._secret = self._read_secret()
            self._end_interrupted()
            try:
                self._carry_out_queued(session)
            except PassingFault:
                self._has_ended_interrupted = False
                raise

    def _carry_out_queued(self, session: wiring.WalletSession) -> None:
        for _ in range(MAX_CONTROLS_PER_CYCLE):
            valid_control = self._refuse_until_valid()
            if valid_control is None or self._take_and_act(valid_control, session):
                return

    def offer_and_decline(self, outcome: StepOutcome) -> bool:
        """Offer the first plan of a cycle for confirmation by a control, and decline it for now. If
        that is an exit, the plan after it is offered once the exit is done.
        """
        if self._has_offered:
            return False
        self._has_offered = True
        context = self._agent.context
        plan = shown_plans.shown_step(ControlKind.CONFIRM, outcome)
        secret = self._read_secret()
        offered_plan = None if secret is None else waiting_plan(context.store, secret)
        if secret is not None and (offered_plan is None or offered_plan.difference(plan)):
            plan_document = self._agent.plan_document(outcome, send_allowed=False)
            moves = shown_plans.format_moves(
                plan, self._agent.portfolio, margin_account(outcome.step_input.snapshot)
            )
            offer = sealed_with_document(plan, plan_document, moves, context.clock.now_s(), secret)
            context.store.controls.store_offer(offer)
        return False

    @property
    def has_offer(self) -> bool:
        """True if the plan of the last cycle waits for a confirmation, False if the store cannot
        tell.
        """
        if not self._has_offered:
            return False
        with suppress(PassingFault):
            return self._agent.context.store.controls.offered_plan() is not None
        return False

    def end_cycle(self) -> None:
        """End the offer of a plan that the cycle did not propose again."""
        control_store = self._agent.context.store.controls
        if not self._has_offered and control_store.offered_plan() is not None:
            control_store.end_offer()

    def _read_secret(self) -> bytes | None:
        """Return the secret; None if it cannot be read, so that every control is refused."""
        with suppress(TrimtabError):
            return ensure_secret(wiring.store_file(self._agent.context.loaded_config))
        return None

    def _end_interrupted(self) -> None:
        """End controls that an earlier run, or an earlier cycle whose store failed, took and did not
        finish. None is repeated: what it sent is in the journal, which this run settles first.
        """
        if self._has_ended_interrupted:
            return
        context = self._agent.context
        reason = (
            "the run was interrupted while it carried this out; look whether it took effect before you ask"
            " again: trimtab history shows what was sent, and the next run settles it"
        )
        control_ends = []
        for queued_control in context.store.controls.taken_controls():
            control = queued_control.control
            control_end = self._failed_end(
                queued_control.number, control, ControlCode.INTERRUPTED, reason
            )
            if control is not None and self._secret and control.is_genuine(self._secret):
                control_end = self._pause_unless_stopped(control, control_end)
            control_ends.append(control_end)
        context.store.controls.finish(control_ends, context.clock.now_s())
        self._has_ended_interrupted = True

    def _pause_unless_stopped(
        self, control: Control, control_end: ControlStateChange
    ) -> ControlStateChange:
        """Pause if a stop that was taken has not stopped the bot, such as one whose sales differ
        from those shown: its owner wants no more trades. Returns the end with that reason.
        """
        context = self._agent.context
        is_done = control_end.state is ControlState.DONE
        if control.kind is not ControlKind.STOP or is_done or self._agent.on_paper:
            return control_end
        if context.store.requests.active_stop() is not None:
            return control_end
        reason = f"a stop by {control.asked_by} ({control.origin.value}) was not carried out"
        context.kill_switch.pause(reason, context.clock.now_s())
        remedy = "the bot is paused instead; resume it, then ask for the stop again"
        return replace(control_end, reason=f"{control_end.reason}; {remedy}")

    def _failed_end(
        self, control_number: int, control: Control | None, code: str, reason: str
    ) -> ControlStateChange:
        """Return the end of a control that was begun. A withdrawal names its own request: an open one
        is resumed, never requested again.
        """
        notes: tuple[tuple[str, str], ...] = ()
        if control is not None and control.kind is ControlKind.WITHDRAW:
            request = self._withdrawal_of(control)
            if request is not None:
                notes = (("request", str(request.id)),)
                reason += (
                    f"; before another request, see withdrawal {request.id} ({request.state.value})"
                )
        return ControlStateChange(control_number, ControlState.FAILED, code, reason, notes)

    def _withdrawal_of(self, control: Control) -> OwnerRequest | None:
        """Return the withdrawal that a control began or resumed; None if it recorded none."""
        resumed_number = control.argument("resume")
        for request in self._agent.context.store.requests.newest(1_000):
            if request.kind is not RequestKind.WITHDRAW:
                continue
            if control.id == request.control_id or str(request.id) == resumed_number:
                return request
        return None

    def _refuse_until_valid(self) -> tuple[int, Control] | None:
        """Return the oldest valid control, and end the invalid ones before it in one transaction
        per batch.
        """
        control_store = self._agent.context.store.controls
        clock = self._agent.context.clock
        for _ in range(MAX_BATCHES):
            control_ends: list[ControlStateChange] = []
            if not (queued_batch := control_store.queued_controls()):
                break
            now_s = clock.now_s()
            # latest time of a sealed row: the clock must not precede it
            newest_row_s = max(
                control_store.log_number_and_time()[1],
                self._agent.context.store.journal.newest_transition_s(),
            )
            for queued_control in queued_batch:
                control_end = self._refusal(queued_control, now_s, newest_row_s)
                if control_end is None and queued_control.control is not None:
                    control_store.finish(control_ends, now_s)
                    return queued_control.number, queued_control.control
                control_ends += [] if control_end is None else [control_end]
            control_store.finish(control_ends, now_s)
        return None

    def _refusal(
        self, queued_control: NumberedControl, now_s: int, newest_row_s: int
    ) -> ControlStateChange | None:
        """Return the end of a control that may not be carried out; None if it may."""
        control = queued_control.control

        def refused_end(code: ControlCode, reason: str) -> ControlStateChange:
            return ControlStateChange(queued_control.number, ControlState.REFUSED, code, reason)

        if self._secret is None:
            return refused_end(ControlCode.SEAL, "the secret of the installation cannot be read")
        if control is None or not control.is_genuine(self._secret):
            return refused_end(
                ControlCode.SEAL, "not written by this installation, or changed in the store"
            )
        if control.id in self._taken_ids:
            return refused_end(ControlCode.REPLAYED, "already carried out")
        lifetime_s = control.expires_at_s - control.asked_at_s
        if control.asked_at_s > now_s + CLOCK_TOLERANCE_S or not 0 < lifetime_s <= MAX_LIFETIME_S:
            return refused_end(ControlCode.CLOCK, "dated in the future, or valid for too long")
        if newest_row_s > now_s + CLOCK_TOLERANCE_S:
            return refused_end(
                ControlCode.CLOCK,
                f"the clock was set back by {rough_duration(newest_row_s - now_s)}; correct it, then ask again",
            )
        if now_s >= control.expires_at_s:
            return ControlStateChange(
                queued_control.number,
                ControlState.EXPIRED,
                ControlCode.EXPIRED,
                f"expired {rough_duration(now_s - control.expires_at_s)} before the run took it",
            )
        return None

    def _take_and_act(
        self, valid_control: tuple[int, Control], session: wiring.WalletSession
    ) -> bool:
        """Take a control and carry it out; return whether the run has to check its config and
        state before the next one.
        """
        control_number, control = valid_control
        context = self._agent.context
        control_store = context.store.controls
        clock = context.clock
        is_taken = control_store.take(control_number, clock.now_s())
        self._taken_ids.add(control.id)
        if not is_taken:
            control_end = ControlStateChange(
                control_number, ControlState.REFUSED, ControlCode.REPLAYED, "already carried out"
            )
            control_store.finish([control_end], clock.now_s())
            return False
        session.report_progress(f"control {control.kind.value}")
        newest_intent_before = _newest_intent_id(context.store)
        try:
            control_end = self._act(control_number, control, session)
        except TrimtabError as error:
            code = error.code or ControlCode.ERROR
            control_end = ControlStateChange(control_number, ControlState.REFUSED, code, str(error))
            if _newest_intent_id(context.store) != newest_intent_before:
                control_end = self._failed_end(control_number, control, code, str(error))
            control_store.finish([self._pause_unless_stopped(control, control_end)], clock.now_s())
            if isinstance(error, OperatorNeeded) and not isinstance(error, LockHeld):
                raise
            return False
        except Exception as error:
            reason = str(internal_error(error))
            control_end = self._failed_end(control_number, control, ControlCode.ERROR, reason)
            control_store.finish([self._pause_unless_stopped(control, control_end)], clock.now_s())
            raise
        control_store.finish([self._pause_unless_stopped(control, control_end)], clock.now_s())
        return control.kind in (ControlKind.EDIT, ControlKind.STOP)

    def _act(
        self, control_number: int, control: Control, session: wiring.WalletSession
    ) -> ControlStateChange:
        """Carry out a taken control. On paper a stop ends this run and is not kept."""
        context = self._agent.context
        if self._agent.on_paper:
            require_paper_kind(control.kind, control.arguments)
        if self._agent.on_paper and control.kind is ControlKind.STOP:
            self.stopped_by = f"{control.asked_by} ({control.origin.value})"
            return ControlStateChange(control_number, ControlState.DONE, "", "the paper run ends")
        if control.kind is ControlKind.RESUME:
            return resume_by_control(
                context.store, context.kill_switch, control_number, control, context.clock.now_s()
            )
        if control.kind is ControlKind.DEVICE:
            reason = change_devices(context.config.alerts, context.store.alerts, control)
            return ControlStateChange(control_number, ControlState.DONE, "", reason)
        plan_or_reason = self._plan_or_refusal(control)
        if isinstance(plan_or_reason, str):
            is_confirm = control.kind is ControlKind.CONFIRM
            code = ControlCode.NOT_WAITING if is_confirm else ControlCode.NOT_SHOWN
            return ControlStateChange(control_number, ControlState.REFUSED, code, plan_or_reason)
        if control.kind is ControlKind.CONFIRM:
            context.store.controls.end_offer()
        agent = Agent(session.with_keys(context))
        plan_check = PlanCheck(
            plan_or_reason, lambda: context.clock.now_s() >= control.expires_at_s
        )
        if control.kind is not ControlKind.STOP:
            agent.require_not_stopped()
        command = ControlCommand(agent, control, plan_check, session, self._transports)
        control_result = command.run()
        if control_result.outcome == OutcomeKind.HOLD.value:
            trade_text = _trade_since(context.store, plan_or_reason.shown_at_s)
            control_result = replace(control_result, reason=f"{trade_text}{control_result.reason}")
        return _control_end(control_number, control_result, plan_check)

    def _plan_or_refusal(self, control: Control) -> ShownPlan | str:
        """Return the plan that the control confirms, or why there is none. A stop that neither
        sells nor pays needs none.
        """
        if not control.plan_hash:
            if control.kind is ControlKind.STOP and not control.arguments:
                exact_parts = (("to_stable", "False"), ("to", ""))
                return ShownPlan(ControlKind.STOP, (), exact_parts, ())
            return "it confirms no shown plan"
        store = self._agent.context.store
        secret = self._secret or b""
        if control.kind is ControlKind.CONFIRM:
            offered_plan = waiting_plan(store, secret)
            if offered_plan is None or offered_plan.hash != control.plan_hash:
                return "this plan no longer waits for a confirmation"
            return offered_plan
        if (plan := shown_plan(store, control, secret)) is None:
            return "the plan was not shown for this request, or too long ago"
        return plan


@dataclass(frozen=True, slots=True)
class ControlCommand:
    """The command of a control, with the check of its plan as its confirmation."""

    agent: Agent
    control: Control
    plan_check: PlanCheck
    session: wiring.WalletSession
    transports: Sequence[Transport] | None

    def run(self) -> ControlResult:
        """Run the command."""
        match self.control.kind:
            case ControlKind.REBALANCE | ControlKind.CONFIRM:
                return self._rebalance()
            case ControlKind.INVEST:
                return self._invest()
            case ControlKind.WITHDRAW:
                return self._withdraw()
            case ControlKind.EDIT:
                return self._edit()
            case ControlKind.STOP:
                return self._stop()
            case ControlKind.HOLDINGS:
                return self._change_holdings()
        raise ValueError(f"{self.control.kind} has no command")

    def _accept(self, plan: ShownPlan) -> bool:
        return self.plan_check.accept(
            plan, lambda: config_versions.confirm_without_asking(self.agent.context)
        )

    def _rebalance(self) -> ControlResult:
        """Rebalance as requested by hand, or repeat the cycle whose plan waits. The run executes
        the later slices of a gradual execution.
        """
        kind = self.control.kind
        is_confirm = kind is ControlKind.CONFIRM
        context = self.agent.context if is_confirm else self.agent.context.with_user_present

        def confirm(outcome: StepOutcome) -> bool:
            return self._accept(shown_plans.shown_step(kind, outcome))

        with replace(
            self.session, context=context, confirm=confirm
        ).open_transactor() as transactor:
            if is_confirm:
                return _step_result(run_policy_cycle(context, transactor))
            return _step_result(
                engine.run_cycle(context.readers, AgentCycle(), context.store, transactor)
            )

    def _invest(self) -> ControlResult:
        arguments = self.control.arguments
        report = transfers.invest(
            self.agent,
            transfer_ids=shown_plans.flow_numbers(arguments),
            send=True,
            confirm=lambda report: self._accept(shown_plans.shown_investment(arguments, report)),
            progress=self.session.report_progress,
        )
        if report.outcome is None:
            return ControlResult("refused", "no new deposit was found")
        if report.is_recorded and report.outcome.kind is OutcomeKind.HOLD:
            return ControlResult("hold", report.outcome.reason)
        return _step_result(report.outcome)

    def _withdraw(self) -> ControlResult:
        arguments = self.control.arguments
        report = shown_plans.withdraw_by_control(
            self.agent,
            arguments,
            send=True,
            confirm=lambda report: self._accept(shown_plans.shown_withdrawal(arguments, report)),
            progress=self.session.report_progress,
            control_id=self.control.id,
        )
        notes = () if report.request_id is None else (("request", str(report.request_id)),)
        return ControlResult(report.state.value, report.reason, report.transactions, notes)

    def _edit(self) -> ControlResult:
        arguments = self.control.arguments

        def confirm(report: EditReport, edited_agent: Agent) -> bool:
            return self.plan_check.accept(
                shown_plans.shown_edit(arguments, report),
                lambda: editing.accept_edit(report, edited_agent),
            )

        report = shown_plans.edit_by_control(
            self.agent, arguments, self.transports, confirm=confirm
        )
        return ControlResult(report.state, "; ".join(report.changes))

    def _stop(self) -> ControlResult:
        arguments = self.control.arguments

        def confirm(report: ShutdownReport) -> bool:
            plan = shown_plans.shown_stop(arguments, report)
            if not arguments:  # never delay a stop that sells and pays nothing
                return self.plan_check.accept(plan, lambda: True)
            return self._accept(plan)

        report = shown_plans.stop_by_control(
            self.agent, arguments, send=True, confirm=confirm, progress=self.session.report_progress
        )
        return ControlResult(report.state, report.reason, report.transactions)

    def _change_holdings(self) -> ControlResult:
        arguments = self.control.arguments
        holdings_change = holdings.change_by_control(self.agent, arguments)
        if not self._accept(shown_plans.shown_holdings(arguments, holdings_change)):
            return ControlResult("refused", "")
        holdings_change.write()
        return ControlResult("written", "; ".join(holdings_change.changes))


def _step_result(outcome: StepOutcome) -> ControlResult:
    guard_notes = (("guard", verdict.guard) for verdict in outcome.failed_verdicts)
    notes = (("step", outcome.step_id), *guard_notes)
    return ControlResult(outcome.kind.value, outcome.reason, outcome.transactions, notes)


def _trade_since(store: Store, shown_at_s: int) -> str:
    """Return which cycle has traded since a plan was shown, before the reason of a hold; empty
    without one.
    """
    for intent in store.journal.intents():
        if intent.created_s < shown_at_s:
            break
        if intent.succeeded and intent.kind in (IntentKind.SWAP, IntentKind.FUTURES):
            return (
                f"a cycle has traded since the plan was shown, at {utc_text(intent.created_s)} in"
                f" transaction {short_address(intent.tx_hash or intent.id)}; now "
            )
    return ""


def _control_end(
    control_number: int, control_result: ControlResult, plan_check: PlanCheck
) -> ControlStateChange:
    """Return the end of a control whose command returned."""
    transaction_notes = tuple(
        ("transaction", intent.tx_hash or intent.id) for intent in control_result.transactions
    )
    notes = (("outcome", control_result.outcome), *control_result.notes, *transaction_notes)
    if plan_check.has_expired:
        reason = "it expired before its plan was ready"
        return ControlStateChange(
            control_number, ControlState.EXPIRED, ControlCode.EXPIRED, reason, notes
        )
    if plan_check.difference:
        state = ControlState.FAILED if transaction_notes else ControlState.REFUSED
        reason = f"the plan differs from the one shown: {plan_check.difference}"
        return ControlStateChange(control_number, state, ControlCode.PLAN_CHANGED, reason, notes)
    is_superseded = control_result.outcome == OutcomeKind.HOLD.value and not plan_check.is_accepted
    if (plan_check.has_further_plan or is_superseded) and not any(
        intent.succeeded and intent.kind not in PREPARATION_KINDS
        for intent in control_result.transactions
    ):
        reason = f"the confirmed plan was not carried out: {control_result.reason}"
        has_failed = transaction_notes or control_result.outcome == OutcomeKind.FAILED.value
        state = ControlState.FAILED if has_failed else ControlState.REFUSED
        return ControlStateChange(
            control_number, state, _refusal_code(control_result), reason, notes
        )
    if (
        plan_check.has_further_plan
        and control_result.outcome not in ("failed", "refused")
        and all(intent.succeeded for intent in control_result.transactions)
    ):
        reason = (
            f"carried out; the remainder needs a separate confirmation: {control_result.reason}"
        )
        return ControlStateChange(control_number, ControlState.DONE, "", reason, notes)
    if control_result.outcome in SUCCESS_OUTCOMES:
        reason = control_result.reason
        if control_result.outcome == OutcomeKind.HOLD.value and not transaction_notes:
            reason = f"nothing was traded: {reason}"
        return ControlStateChange(control_number, ControlState.DONE, "", reason, notes)
    state = ControlState.REFUSED
    if transaction_notes or control_result.outcome in ("failed", "unfinished"):
        state = ControlState.FAILED
    code = _refusal_code(control_result)
    return ControlStateChange(control_number, state, code, control_result.reason, notes)


def _refusal_code(control_result: ControlResult) -> str:
    """Return the first guard that refused, else the outcome."""
    guards = (guard for note_name, guard in control_result.notes if note_name == "guard")
    return next(guards, control_result.outcome)


def _newest_intent_id(store: Store) -> str:
    """Return the id of the newest intent; empty without one."""
    return next((intent.id for intent in store.journal.intents(limit=1)), "")
