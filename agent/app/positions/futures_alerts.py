"""Alerts on the futures of a step, and their figures in other alerts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from fractions import Fraction

from agent.app.documents.futures import action_text, margin_figures_text
from agent.execution.step_context import OutcomeKind, StepOutcome
from agent.layers.futures.execution.cycle import futures_plan_of
from agent.layers.futures.planning.plans import current_futures_plan, plan_adjustment
from agent.layers.futures.policy.books import NetExposure, net_exposure
from agent.layers.futures.policy.exposure import (
    expected_funding_of_all,
    exposures,
    is_delegate_wallet,
)
from agent.layers.futures.policy.needs import (
    STOPS_CHANGE,
    agent_key_ends_soon,
    due_futures_adjustment,
    spot_value_in_quote,
    waiting_triggers,
)
from agent.layers.futures.policy.targets import (
    isolated_positions_reason,
    uncertain_profit_reason,
    unnamed_market_reasons,
)
from agent.layers.futures.state import futures_policy, margin_account, planned_futures
from agent.margin.account import account_value_raw
from agent.margin.state import after_action
from agent.model import (
    AdjustFutures,
    Alert,
    AlertKind,
    AssetDrift,
    FuturesPlan,
    FuturesPolicy,
    FuturesReading,
    MarginAccount,
    Plan,
    Portfolio,
    Snapshot,
    StepInput,
)
from agent.policy.decide import current_drifts
from agent.policy.drift import portfolio_total
from agent.units import BPS, DAY_S, cents_text, decimal_text, format_percent, format_time

RENEW_COMMAND = "Run: trimtab delegate --send"
CONFIRM_COMMAND = "trimtab rebalance --send"
UNSENT_OUTCOMES = (
    OutcomeKind.HOLD,
    OutcomeKind.HALT,
    OutcomeKind.PLANNED,
    OutcomeKind.DECLINED,
    OutcomeKind.REFUSED,
)
"""Outcomes after which no other alert says that a reduction is still due."""


def futures_alerts(outcome: StepOutcome) -> Iterator[Alert]:
    """Yield at most one alert: while a reduction is due but not sent, which names triggers that wait
    too, else while triggers await a confirmation. A reduction that a limit or a liquidation requires
    is a HALT, which quiet hours do not hold back. The text has spot and futures figures, and the
    planned actions, after what the cycle has done; a completed cycle that was not read again yields
    none.
    """
    if (reading := _newest_account(outcome)) is None:
        return
    step, account, policy = reading
    drifts = outcome.decision_result.drifts
    plan = futures_plan_of(outcome)
    if outcome.input_after is not None:
        drifts = current_drifts(step)
        plan = None
    unconfirmed_triggers = waiting_triggers(step, drifts)
    due_adjustment = due_futures_adjustment(step, drifts)
    if outcome.kind not in UNSENT_OUTCOMES or not (due_adjustment and due_adjustment.is_reducing):
        due_adjustment = None
    if plan is None:
        plan = _plan_of_now(step, policy, drifts, due_adjustment)
    planned_text = ""
    if plan is not None and plan.actions:
        planned_text = f"It would {actions_text(step.snapshot, step.portfolio, policy, plan)}. "
    kind = AlertKind.REVIEW
    waiting_text = ""
    if unconfirmed_triggers:
        names = ", ".join(trigger.value for trigger in unconfirmed_triggers)
        waiting_text = f"Futures actions await confirmation ({names})"
    if due_adjustment is not None:
        trigger_key = due_reason = due_adjustment.reason.removeprefix("futures: ")
        if plan is not None and plan.trigger:
            trigger_key = plan.trigger
            due_reason = plan.reason
        headline = f"Futures: {due_reason}"
        if due_adjustment != STOPS_CHANGE:
            kind = AlertKind.HALT
        command = "See trimtab margin" + (
            f". {waiting_text}: {CONFIRM_COMMAND}" if waiting_text else ""
        )
    elif waiting_text:
        trigger_key = names
        headline = waiting_text
        command = f"Run: {CONFIRM_COMMAND}"
    else:
        return
    exposure_text = net_exposure_text(step, drifts)
    figures_text = margin_figures_text(account, policy) + (exposure_text and f", {exposure_text}")
    alert_text = f"{headline}; {figures_text}. {planned_text}{command}"
    yield Alert(kind, f"futures:{trigger_key}", alert_text, True)


def _newest_account(
    outcome: StepOutcome,
) -> tuple[StepInput, MarginAccount, FuturesPolicy] | None:
    """Return the newest step that was read, with its account and policy; None without them, and
    after a transaction until the account is read again.
    """
    if outcome.kind is OutcomeKind.DONE and outcome.input_after is None:
        return None
    step = outcome.input_after or outcome.step_input
    account = margin_account(step.snapshot)
    policy = futures_policy(step)
    return None if account is None or policy is None else (step, account, policy)


def _plan_of_now(
    step: StepInput,
    policy: FuturesPolicy,
    drifts: Sequence[AssetDrift],
    due_adjustment: AdjustFutures | None,
) -> FuturesPlan | None:
    """Return the plan of now; without actions that of the due adjustment, such as of resting
    stops.
    """
    plan = current_futures_plan(step, policy, drifts, spot_value_in_quote(step, drifts))
    if due_adjustment is None or (plan is not None and plan.actions):
        return plan
    adjustment_plan = plan_adjustment(step, due_adjustment, drifts)
    return planned_futures(adjustment_plan) if isinstance(adjustment_plan, Plan) else plan


def net_exposure_alerts(outcome: StepOutcome) -> Iterator[Alert]:
    """Yield an alert while the net exposure of the futures is off target by more than the band,
    such as while one leg of a long and a short is open, unless a plan is shown whose orders bring it
    nearer. It is not known after a transaction until the account is read again.
    """
    if (reading := _newest_account(outcome)) is None:
        return
    _, account, policy = reading
    exposure = net_exposure(account, policy)
    if not exposure.is_off_target:
        return
    plan = futures_plan_of(outcome) if outcome.kind is OutcomeKind.PLANNED else None
    if plan is not None and _is_nearer_after(plan, account, policy, exposure):
        return
    notional_text, target_text, band_text = (
        account.quote.money_text(value)
        for value in (exposure.notional, exposure.target_notional, exposure.band)
    )
    alert_text = (
        f"Futures: the net exposure is {notional_text}, its target {target_text}, band {band_text}."
        f" See trimtab positions, and trimtab explain for the reason"
    )
    yield Alert(AlertKind.REVIEW, "futures:net_exposure", alert_text, True)


def _is_nearer_after(
    plan: FuturesPlan, account: MarginAccount, policy: FuturesPolicy, exposure: NetExposure
) -> bool:
    """Return whether the plan's orders bring the net exposure nearer to its target. Those of a hedge
    leave it.
    """
    for order in plan.orders:
        account = after_action(account, order)
    notional = net_exposure(account, replace(policy, hedges=plan.hedges)).notional
    target_notional = exposure.target_notional
    return abs(notional - target_notional) < abs(exposure.notional - target_notional)


FUNDING_ALERT_BPS = 100
"""Funding expected in 24 h, as a share of the account value, above which an alert is raised."""


def funding_alerts(snapshot: Snapshot, policy: FuturesPolicy | None) -> Iterator[Alert]:
    """Yield an alert while the funding that the positions pay in 24 h at the newest rates is above
    FUNDING_ALERT_BPS of the account value, whether or not futures.funding_horizon is set.
    """
    account = margin_account(snapshot)
    if account is None or policy is None:
        return
    account_value = account_value_raw(account)
    expected_funding = expected_funding_of_all(account, DAY_S)
    if expected_funding <= 0 or expected_funding * BPS <= FUNDING_ALERT_BPS * account_value:
        return
    decimals = account.quote.decimals
    quote_symbol = account.quote.label
    share_text = (
        f", {format_percent(expected_funding / account_value)} of its value"
        if account_value > 0
        else ""
    )
    horizon_note = "" if policy.funding_horizon_s else " (futures.funding_horizon is off)"
    alert_text = (
        f"Futures: at the newest rates the account pays {cents_text(expected_funding, decimals)} {quote_symbol} of"
        f" funding in 24 h{share_text}{horizon_note}. See trimtab funding"
    )
    yield Alert(AlertKind.REVIEW, "futures:funding", alert_text, True)


def unnamed_market_alerts(snapshot: Snapshot) -> Iterator[Alert]:
    """Yield an alert while the account has positions in markets that the config does not name."""
    account = margin_account(snapshot)
    if account is None or not (reason_by_market := unnamed_market_reasons(account)):
        return
    sizes_text = ", ".join(_position_text(account, market_name) for market_name in reason_by_market)
    revocation = "end the delegate (trimtab delegate --end --send)"
    isolated_note = ""
    if not account.is_on_chain:
        revocation = "approve another agent key (trimtab delegate --send)"
        isolated_note = "; isolated ones on the venue's site"
    alert_text = (
        f"The futures account has positions that the config does not name: {sizes_text}. If you did not"
        f" open them, {revocation}, then close them (trimtab deleverage --market SYMBOL"
        f" --send{isolated_note}). Nothing is opened or deposited until then"
    )
    yield Alert(AlertKind.HALT, "futures:unnamed", alert_text, True)


def _position_text(account: MarginAccount, market_name: str) -> str:
    """Return size and symbol of a position; the size of an isolated one is not read."""
    market = account.market(market_name)
    size_raw = account.size_raw(market_name)
    if not size_raw:
        return f"{market.symbol} (isolated)"
    return f"{decimal_text(size_raw, market.size_decimals)} {market.symbol}"


def account_alerts(snapshot: Snapshot) -> Iterator[Alert]:
    """Yield an alert while the profit of the futures account is uncertain, and one while it has an
    isolated position.
    """
    account = margin_account(snapshot)
    if account is None:
        return
    if reason := uncertain_profit_reason(account):
        alert_text = f"Futures: {reason}. Check the account's transfers on the venue's site"
        yield Alert(AlertKind.REVIEW, "futures:books", alert_text, True)
    if reason := isolated_positions_reason(account):
        alert_text = f"Futures: {reason}. Close it on the venue's site"
        yield Alert(AlertKind.HALT, "futures:isolated", alert_text, True)


def stale_read_alerts(snapshot: Snapshot) -> Iterator[Alert]:
    """Yield an alert while a part of the futures account cannot be read."""
    if reason := snapshot.layer(FuturesReading).stale_reason():
        alert_text = (
            f"Futures: a part of the account cannot be read ({reason}). Nothing is opened;"
            " reductions continue"
        )
        yield Alert(AlertKind.REVIEW, "futures:stale", alert_text, True)


def agent_key_alerts(snapshot: Snapshot) -> Iterator[Alert]:
    """Yield an alert while the agent's key is not approved at the venue, or its approval ends
    soon.
    """
    futures_reading = snapshot.layer(FuturesReading)
    if futures_reading.blocked_reason:
        alert_text = f"No futures order can be sent: {futures_reading.blocked_reason}. Spot trading continues"
        yield Alert(AlertKind.HALT, "futures:agent", alert_text, True)
    elif agent_key_ends_soon(snapshot):
        alert_text = (
            f"The agent key's approval at the futures venue ends at"
            f" {format_time(futures_reading.key_approval_expires_s)}. {RENEW_COMMAND}"
        )
        yield Alert(AlertKind.HALT, "futures:agent_ends", alert_text, True)


def actions_text(
    snapshot: Snapshot,
    portfolio: Portfolio,
    policy: FuturesPolicy | None,
    plan: FuturesPlan,
    *,
    is_done: bool = False,
) -> str:
    """Return the actions of a plan as text, such as "close 0.4 of 1.2 WETH (long)"; empty without
    an account.
    """
    account = margin_account(snapshot)
    if account is None or policy is None:
        return ""
    collateral = next(
        (asset.token for asset in portfolio.assets if asset.token.address == policy.collateral),
        None,
    )
    return ", ".join(
        action_text(account, action, collateral, is_done=is_done) for action in plan.actions
    )


def net_exposure_shares(step: StepInput, drifts: Sequence[AssetDrift]) -> dict[str, Fraction]:
    """Return the net exposure, spot and futures, of each name with futures, as a share of the
    portfolio; empty without futures.
    """
    account = margin_account(step.snapshot)
    policy = futures_policy(step)
    portfolio_value = portfolio_total(step, drifts)
    if (
        account is None
        or policy is None
        or portfolio_value <= 0
        or is_delegate_wallet(step.snapshot, policy)
    ):
        return {}
    return {
        step.portfolio.token(exposure.token).label
        if exposure.token
        else exposure.symbol: exposure.net / portfolio_value
        for exposure in exposures(account, policy, drifts)
        if exposure.futures
    }


def net_exposure_text(step: StepInput, drifts: Sequence[AssetDrift]) -> str:
    """Return "net exposure WETH 54 %, WBTC -3 %"; empty without futures."""
    share_by_symbol = net_exposure_shares(step, drifts)
    shares_text = ", ".join(
        f"{symbol} {format_percent(share)}" for symbol, share in share_by_symbol.items()
    )
    return f"net exposure {shares_text}" if shares_text else ""
