"""Shuts the bot down: cancel pending transactions, revoke allowances, optionally sell everything
and pay it out.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from agent import codec, engine, wiring
from agent.app.agent import Agent, Progress, ignore_progress
from agent.config.fields import parse_address
from agent.errors import ConfigError, Refused
from agent.execution.approvals import current_step_input, open_exposure, pay, revoke_allowances
from agent.execution.step_context import OutcomeKind, StepActors, StepOutcome, StepReaders
from agent.execution.submitter import format_open_allowances
from agent.guards import portfolio
from agent.model import (
    BlockedExit,
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
from agent.planning import proposals
from agent.policy import minimum, native_coin
from agent.policy.cash_flows import balance_changes, withdrawals
from agent.policy.orders.exits import exclude_blocked_exits
from agent.ports import Approval
from agent.units import NATIVE
from agent.venues import composer

MAX_SALES = 12
"""Maximum number of plans of a full sale; a remainder is reported."""
PAYOUT_GAS = 60_000
"""Gas units of one payout; a payment below its gas cost is not sent."""


@dataclass(frozen=True, slots=True)
class ShutdownReport:
    """Result or preview of a shutdown.

    `state` is planned, declined, refused, stopped, or unfinished with the `reason`. `waiting` are
    transactions to cancel, `allowed` allowances to revoke, `sales` the plans that sell everything
    as of now, one asset each, and `payments` the payments to the request's address. `left` names
    holdings that could not be sold or paid and stay in the wallet.
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
        """Remedies for each limit that refuses."""
        return portfolio.payout_remedies(self.verdicts)


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
    """End the bot, or preview it with `send` False. An unfinished shutdown is resumed.

    From its first durable write on, `run` and `rebalance` refuse until the owner resumes. Raises
    ConfigError if a different shutdown is under way.
    """
    context, address = (
        agent.context,
        None if send_to is None else parse_address(send_to, "--send-to"),
    )
    request = _open_stop(agent, to_stable, address)
    to_stable, address = (
        (request.to_stable, request.to) if request is not None else (to_stable, address)
    )
    shown = _planned_shutdown(agent, to_stable, address)
    if not send or shown.state == "refused":
        return shown
    if not confirm(shown):
        return replace(shown, state="declined", reason="not confirmed; nothing was sent")
    if request is None:
        request = context.store.requests.ask(
            RequestKind.STOP, (), address, to_stable, shown.step_input.snapshot.head.timestamp_s
        )
    with wiring.open_actors(context, lambda _: True, progress) as actors:
        return _Shutdown(agent, actors, request, shown).execute()


def _open_stop(agent: Agent, to_stable: bool, address: str | None) -> OwnerRequest | None:
    """Return the shutdown under way. Raises ConfigError if it differs from the requested one."""
    found = agent.context.store.requests.stopping()
    if found is None or found.state is not RequestState.OPEN:
        return None
    if (to_stable or address is not None) and (found.to_stable, found.to) != (to_stable, address):
        raise ConfigError(
            "another stop is in progress",
            "trimtab stop --send continues it; trimtab resume ends it",
        )
    return found


def _planned_shutdown(agent: Agent, to_stable: bool, address: str | None) -> ShutdownReport:
    context = agent.context
    taken = open_exposure(context.readers, context.store)
    step, sales = taken.step_input, _planned_sales(context.readers) if to_stable else ()
    payments = () if address is None else _free(_sold(step, sales))
    paused = context.switch.is_paused() is not False
    verdicts = (
        ()
        if address is None
        else portfolio.judge_payout_permission(
            step, _payouts(payments, address, 0), context.payouts, paused
        )
    )
    failing = [f"{v.guard}: {v.measured}, limit {v.limit}" for v in verdicts if not v.passed]
    state, reason = ("refused", "; ".join(failing)) if failing else ("planned", "")
    if sales and not failing and (refusal := _sale_refusal(sales[0])):
        state, reason = "refused", refusal
    return ShutdownReport(
        step,
        to_stable,
        address,
        taken.waiting,
        taken.allowed,
        sales,
        payments,
        verdicts,
        state,
        reason,
    )


def _planned_sales(readers: StepReaders) -> tuple[StepOutcome, ...]:
    """The sales of everything as planned now, each as if it were the first."""
    sales = [engine.evaluate(readers, proposals.sell_everything)]
    while sales[-1].kind is OutcomeKind.PLANNED and (token := sales[-1].decided.exit_token):
        step = exclude_blocked_exits(sales[-1].step_input, [BlockedExit(token, "", "")])
        sales.append(engine.evaluate_input(step, proposals.sell_everything, readers.evidence))
    return tuple(sales[:-1] if len(sales) > 1 and sales[-1].kind is OutcomeKind.HOLD else sales)


def _sale_refusal(first: StepOutcome) -> str:
    """Return why nothing can be sold now; empty if something can, or if there is nothing to
    sell.
    """
    if first.kind is OutcomeKind.REFUSED:
        return first.reason
    return _unsold(first) if first.plan is None else ""


def _unsold(outcome: StepOutcome) -> str:
    """The assets that could not be sold, with their reasons."""
    return "; ".join(
        f"{outcome.step_input.portfolio.token(one.token).label} stays: {one.why}"
        for one in outcome.decided.stuck
    )


class _ResumedDuringStop(Refused):
    """Raised when the owner resumes the bot during its shutdown."""


class _Shutdown:
    """Actions of a shutdown. Each determines its own remaining work, so that an interrupted process
    can be resumed at any point.
    """

    def __init__(
        self, agent: Agent, actors: StepActors, request: OwnerRequest, shown: ShutdownReport
    ) -> None:
        self._desk, self._actors, self._request, self._shown = agent.context, actors, request, shown
        self._sent: list[Intent] = []

    def execute(self) -> ShutdownReport:
        """Cancel, sell, revoke and pay; return the report."""
        context, request = self._desk, self._request
        try:
            self._actors.executor.cancel_pending("stopped by the owner")
            step = current_step_input(context.readers, context.store)
            self._end_orders(step)
            message = self._sell() if request.to_stable else ""
            self._revoke()
            if message:
                return self._unfinished(message)
            if request.to is not None:
                self._pay(request.to)
            self._require_wanted()
        except _ResumedDuringStop as resumed:
            return self._told(
                current_step_input(context.readers, context.store), "unfinished", str(resumed)
            )
        except Refused as refusal:
            return self._unfinished(str(refusal))
        step = current_step_input(context.readers, context.store)
        if any(intent.state is not IntentState.FINAL for intent in self._sent if intent.succeeded):
            return self._unfinished("confirmations are awaited")
        context.store.requests.end(request.id, RequestState.DONE, context.clock.now_s())
        return self._told(
            step,
            "stopped",
            "no pending transactions and no open allowances; trimtab resume restarts trading",
        )

    def _require_wanted(self) -> None:
        """Raise _ResumedDuringStop if the owner has resumed the bot by another command: sales and
        payments then stop.
        """
        found = self._desk.store.requests.stopping()
        if found is None or found.id != self._request.id:
            raise _ResumedDuringStop(
                "the bot was resumed in the meantime; assets that were not sold or paid by then"
                " stay in the wallet"
            )

    def _unfinished(self, why: str) -> ShutdownReport:
        step = current_step_input(self._desk.readers, self._desk.store)
        return self._told(
            step, "unfinished", f"{why}; trading stays stopped; trimtab stop --send continues"
        )

    def _told(self, step: StepInput, state: str, reason: str) -> ShutdownReport:
        home = step.portfolio.numeraire.address
        wanted = [
            one
            for one in _free(step)
            if self._request.to is not None or (self._request.to_stable and one.token != home)
        ]
        left = tuple(
            f"{withdrawals.format_payment(step, one)} {step.portfolio.token(one.token).label}"
            for one in wanted
        )
        return replace(
            self._shown,
            step_input=step,
            state=state,
            reason=reason,
            transactions=tuple(self._sent),
            left=left,
        )

    def _end_orders(self, step: StepInput) -> None:
        """End limit orders and gradual executions."""
        store, now_s, why = self._desk.store, step.snapshot.head.timestamp_s, "the bot was stopped"
        waiting = [order.id for order in store.executions.limit_orders() if order.state == "open"]
        waiting += [step.history.campaign.id] if step.history.campaign is not None else []
        for one in waiting:
            store.executions.end(one, "cancelled", why, now_s)

    def _sell(self) -> str:
        """Sell everything; return the reason for stopping early, else an empty text."""
        for _ in range(MAX_SALES):
            self._require_wanted()
            done = engine.run_step(
                self._desk.readers, SellEverything(), self._desk.store, self._actors
            )
            self._sent += done.transactions
            if done.kind is OutcomeKind.HOLD:
                return _unsold(done)
            if done.kind is not OutcomeKind.DONE:
                return done.reason
        return ""

    def _revoke(self) -> None:
        step = current_step_input(self._desk.readers, self._desk.store)
        allowed = composer.revocations(step)
        if not allowed:
            return
        step_id = uuid.uuid4().hex[:12]
        self._desk.store.steps.begin(
            step_id, self._desk.clock.now_s(), codec.dumps(step), codec.dumps(ManualAction("stop"))
        )
        sent, troubles = revoke_allowances(self._actors, step_id, step, allowed)
        self._sent += sent
        self._desk.store.steps.end(
            step_id, "halt", format_open_allowances(allowed), None, "failed" if troubles else "done"
        )
        if troubles:
            raise Refused("; ".join(troubles), remedy="trimtab revoke tries them one by one")

    def _pay(self, to: str) -> None:
        """Pay out all free holdings, excluding later deposits."""
        for _ in range(
            4 * len(_free(current_step_input(self._desk.readers, self._desk.store))) + 1
        ):
            payments = _free(current_step_input(self._desk.readers, self._desk.store))
            if not payments:
                return
            self._require_wanted()
            (payout,) = _payouts(payments[:1], to, self._request.id)
            intent = pay(
                self._desk.readers, self._desk.store, self._actors, payout, self._desk.payouts
            )
            self._sent.append(intent)
            if not intent.succeeded:
                raise Refused(f"«{intent.note}» ended {intent.state.value}")


def _free(step: StepInput) -> tuple[Payment, ...]:
    """Return holdings beyond reserves, gas money and positions, with native and wrapped coin apart;
    without dust below its gas cost.
    """
    step = balance_changes.restore_excluded(step)
    held = {holding.token: holding.raw for holding in step.snapshot.holdings}
    native_wei = (
        step.snapshot.native_wei - native_coin.floor_wei(step) - native_coin.margin_wei(step)
    )
    found: list[Payment] = []
    for asset in step.portfolio.assets:
        found.append(
            Payment(asset.token.address, held.get(asset.token.address, 0) - asset.reserve_raw)
        )
        if asset.native:
            spare = max(0, asset.reserve_raw - held.get(asset.token.address, 0))
            found.append(Payment(asset.token.address, native_wei - spare, True))
    return tuple(payment for payment in found if payment.raw > 0 and _worth_it(step, payment))


def _worth_it(step: StepInput, payment: Payment) -> bool:
    price, native = (
        withdrawals.token_price(step, payment.token),
        withdrawals.token_price(step, NATIVE),
    )
    if price is None or native is None:
        return True
    return payment.raw * price > minimum.leg_gas_value(step.snapshot, native, PAYOUT_GAS)


def _sold(step: StepInput, sales: Sequence[StepOutcome]) -> StepInput:
    """The step after these sales, as far as their plans predict."""
    plans = [dict(sale.plan.holdings_after) for sale in sales if sale.plan is not None]
    held = {holding.token: holding.raw for holding in step.snapshot.holdings}
    after = {
        token: raw + sum(plan.get(token, raw) - raw for plan in plans)
        for token, raw in held.items()
    }
    return replace(
        step,
        snapshot=replace(
            step.snapshot, holdings=tuple(Holding(token, raw) for token, raw in after.items())
        ),
    )


def _payouts(payments: tuple[Payment, ...], to: str, request: int) -> tuple[Payout, ...]:
    return tuple(
        Payout(NATIVE if one.native else one.token, to, one.raw, 0, request) for one in payments
    )
