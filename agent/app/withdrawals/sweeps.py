"""Profit beyond a set amount, paid to a cold address on a schedule ([sweep]).

A sweep is a withdrawal that the config requests: its request names the interval of the schedule, so
that each interval pays at most once, whenever the process ends.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from agent.accounting.performance import BuyAndHoldTokens, performance
from agent.app.withdrawals import withdrawal_run
from agent.app.withdrawals.withdrawal_run import (
    RequestOrigin,
    WithdrawalRun,
    step_without_deposits,
)
from agent.errors import Refused
from agent.execution.bookkeeping import current_valuations
from agent.execution.step_context import OutcomeKind, StepOutcome, StepTransactor
from agent.layers.futures.policy.targets import uncertain_profit_reason
from agent.layers.futures.state import margin_account
from agent.layers.sweep.settings import SweepSettings, sweep_settings
from agent.layers.sweep.store import SweepStore
from agent.model import (
    Entry,
    OwnerRequest,
    Payment,
    Portfolio,
    RequestKind,
    RequestState,
    StepInput,
    Valuation,
)
from agent.policy.cash_flows.transfers import max_payout_raw
from agent.policy.triggers.schedules import next_time, schedule_name
from agent.store.store import Store
from agent.units import decimal_text, floor_int
from agent.wiring import AgentContext

SWEEP = "sweep"
"""Begins the `control_id` of a sweep's request, and the name of its schedule in the store."""
CONFIRMATION_S = 1_800
"""Age of the valuation at which profit must have been as high already: prices of a few blocks are not
swept.
"""


def sweep_profit(
    context: AgentContext, transactor: StepTransactor | None, cycle_outcome: StepOutcome
) -> StepOutcome:
    """After a cycle that held, pay the profit that is due and return the outcome, else return the
    cycle's. A sweep that has to wait says why in its reason, and is tried again after the next cycle
    that holds.
    """
    settings = sweep_settings(context.config, context.portfolio.numeraire)
    if settings is None or transactor is None or cycle_outcome.kind is not OutcomeKind.HOLD:
        return cycle_outcome
    step = cycle_outcome.input_after or cycle_outcome.step_input
    sweep_store = context.store.layer_repository(SweepStore)
    schedule_key = schedule_name(settings.schedule, SWEEP)
    now_s = step.snapshot.head.timestamp_s
    interval_start_s = sweep_store.interval_start_s(schedule_key)
    if interval_start_s is None:
        sweep_store.begin_interval(schedule_key, now_s)
        return cycle_outcome
    due_s = next_time(settings.schedule, interval_start_s)
    if due_s is None or now_s < due_s:
        return cycle_outcome
    try:
        outcome = _pay_profit(
            context, transactor, cycle_outcome, settings, f"{SWEEP}:{interval_start_s}"
        )
    except Refused as error:
        return withdrawal_run.waiting_outcome(cycle_outcome, "the sweep of profit", error.message)
    if outcome is None:
        sweep_store.begin_interval(schedule_key, now_s)
        return cycle_outcome
    if outcome.kind is OutcomeKind.DONE:
        sweep_store.begin_interval(schedule_key, now_s)
    return outcome


def _pay_profit(
    context: AgentContext,
    transactor: StepTransactor,
    cycle_outcome: StepOutcome,
    settings: SweepSettings,
    sweep_id: str,
) -> StepOutcome | None:
    """Pay the profit of an interval, or go on with its payment; return None if there is nothing to
    pay. Raises Refused if it has to wait.
    """
    requests = context.store.requests.newest(limit=None)
    request = next((request for request in requests if request.control_id == sweep_id), None)
    if request is None:
        payment = _payment(context, settings, requests)
        if payment is None:
            return None
        run = WithdrawalRun(
            context, (payment,), settings.payout_address, origin=RequestOrigin(sweep_id)
        )
        _require_possible(run, context)
    else:
        step = step_without_deposits(context)
        unpaid_payments = tuple(
            claim.payment
            for claim in step.history.cash_flows.pending_payments
            if claim.request_id == request.id
        )
        if not unpaid_payments:  # paid, or released by the owner
            return None
        withdrawal_run.require_part_due(request, step)
        run = WithdrawalRun(context, unpaid_payments, request.to, request, is_confirmed=True)
    report = run.execute_unasked(transactor)
    return withdrawal_run.withdrawal_outcome(report, cycle_outcome)


def _require_possible(run: WithdrawalRun, context: AgentContext) -> None:
    """Raise Refused, before anything is recorded, if the withdrawal cannot be made now."""
    report = run.report(step_without_deposits(context))
    if report.is_refused:
        raise Refused(report.reason)


def _payment(
    context: AgentContext, settings: SweepSettings, requests: Iterable[OwnerRequest]
) -> Payment | None:
    """Return the payment of the profit beyond what stays and what was swept, cut to what the day's
    payouts allow; None if it is below the smallest. Raises Refused if profit or allowance is unknown
    or has to be waited for.
    """
    step = step_without_deposits(context)
    numeraire = step.portfolio.numeraire
    _require_known_profit(step)
    withdrawal_run.require_no_open_withdrawal(step, (numeraire.address,))
    valuations = _book_valuations(context.store, step)
    profit_raw = _profit_raw(context.store, step, valuations)
    paid_ids = {
        payout.request_id for intent, payout in context.store.requests.payouts() if intent.succeeded
    }
    swept_raw = _swept_raw(requests, paid_ids, numeraire.address, valuations[0].chain_s)
    beyond_raw = profit_raw - settings.kept_raw - swept_raw
    if beyond_raw < settings.min_payment_raw:
        return None
    payment_raw = min(beyond_raw, max_payout_raw(step, numeraire.address))
    if payment_raw < settings.min_payment_raw:
        raise Refused(
            f"limits.payout_per_day leaves {decimal_text(payment_raw, numeraire.decimals)}"
            f" {numeraire.label} of the last 24 h"
        )
    includes_native = step.portfolio.asset(numeraire.address).includes_native
    return Payment(numeraire.address, payment_raw, includes_native)


def _require_known_profit(step: StepInput) -> None:
    """Raise Refused while a transfer or the margin account leaves the profit uncertain."""
    if step.history.cash_flows.unexplained_transfers:
        raise Refused("a transfer waits for its classification: trimtab flows")
    account = margin_account(step.snapshot)
    if account is not None and (reason := uncertain_profit_reason(account)):
        raise Refused(reason)


def _book_valuations(store: Store, step: StepInput) -> tuple[Valuation, ...]:
    """Return the valuations of the current book, the newest that of the step. Raises Refused if the
    ledger cannot value the newest balances, or counted in another numeraire.
    """
    valuations = current_valuations(store, step)
    if not valuations or valuations[-1].block != step.snapshot.head.number:
        raise Refused("the ledger cannot value the newest balances yet")
    numeraire = step.portfolio.numeraire
    if not all(_is_in_numeraire(valuation, numeraire.address) for valuation in valuations):
        raise Refused(
            f"the ledger began before {numeraire.label} was the numeraire; trimtab books open begins"
            " a new one"
        )
    return valuations


def _is_in_numeraire(valuation: Valuation, numeraire: str) -> bool:
    return any(holding.token == numeraire and holding.price == 1 for holding in valuation.holdings)


def _profit_raw(store: Store, step: StepInput, valuations: Sequence[Valuation]) -> int:
    """Return the profit since the current book began, as `trimtab pnl` shows it, base units of the
    numeraire, rounded down: the lower of those at the newest valuation and at the newest that is
    CONFIRMATION_S old.
    """
    head = step.snapshot.head
    confirmed_times_s = [valuations[0].chain_s]
    confirmed_times_s += [
        valuation.chain_s
        for valuation in valuations
        if valuation.chain_s <= head.timestamp_s - CONFIRMATION_S
    ]
    return min(
        _profit_until(store.ledger.entries(), valuations, end_s, step.portfolio)
        for end_s in (confirmed_times_s[-1], valuations[-1].chain_s)
    )


def _profit_until(
    entries: Sequence[Entry], valuations: Sequence[Valuation], end_s: int, portfolio: Portfolio
) -> int:
    """Return the profit from the first valuation to the last at `end_s`; 0 at the first."""
    numeraire = portfolio.numeraire.address
    result = performance(
        entries,
        valuations,
        valuations[0].chain_s,
        end_s + 1,
        numeraire,
        BuyAndHoldTokens(numeraire, portfolio.wrapped_native),
    )
    return 0 if result is None else floor_int(result.profit)


def _swept_raw(
    requests: Iterable[OwnerRequest], paid_ids: set[int], numeraire: str, opened_s: int
) -> int:
    """Return what sweeps requested after `opened_s` have paid or are paying, base units of the
    numeraire; `paid_ids` are the requests that are paid, released or not.
    """
    return sum(
        payment.raw
        for request in requests
        if request.kind is RequestKind.WITHDRAW
        and request.control_id.startswith(f"{SWEEP}:")
        and (request.state is not RequestState.RELEASED or request.id in paid_ids)
        and request.asked_s > opened_s
        for payment in request.payments
        if payment.token == numeraire
    )
