"""Purchases in parts, which are exempt from limits.turnover and limits.daily_turnover: the first
purchase of a portfolio, and top-ups.

The exemption is bounded by the confirmed amount. Before the strategy's first trade that is the
whole portfolio once, less the wallet's turnover of the last 24 h; afterwards the rest of the active
purchase or of a top-up's deposits.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction

from agent.layers.inputs import divided_goal
from agent.model import (
    AssetDrift,
    Decision,
    Destination,
    Goal,
    History,
    Hold,
    Limits,
    Portfolio,
    Purchase,
    PurchaseKind,
    PurchasePart,
    PurchaseProgress,
    PurchaseResult,
    Rebalance,
    StepInput,
)
from agent.policy.cash_flows.transfers import goal_to_invest
from agent.policy.drift import compute_drifts, corrections, rebalance_goal
from agent.policy.one_sided import restrict_to_side
from agent.reference import reference_prices
from agent.units import DAY_S, Value, floor_int, format_time

PARTS_LIFETIME_S = 7 * DAY_S
"""Time after which what is done in parts expires, unless its parts need longer; the rest of a
purchase then counts as drift.
"""
ZERO = Fraction(0)


def parts_expiry_s(now_s: int, part_count: int, interval_s: int) -> int:
    """Return the chain time at which what is done in parts from now on expires. `interval_s` lies
    between two parts; a day at least counts for each, and for one more.
    """
    return now_s + max(PARTS_LIFETIME_S, (part_count + 1) * max(DAY_S, interval_s))


def is_first_purchase(limits: Limits, history: History) -> bool:
    """True if the next rebalance is the first purchase: the store has no trade by the strategy."""
    return (
        limits.first_purchase_s is not None
        and history.reviews.last_rebalance_s is None
        and history.execution is None
    )


def with_purchase(step: StepInput, purchase: PurchaseProgress | None) -> StepInput:
    """Return the step with this active purchase, or without one."""
    return replace(
        step,
        history=replace(
            step.history, cash_flows=replace(step.history.cash_flows, purchase=purchase)
        ),
    )


def first_rebalance_name(
    portfolio: Portfolio, limits: Limits, drifts: Sequence[AssetDrift], goal: Goal
) -> str:
    """Return the name of a store's first rebalance: a purchase only if the numeraire alone
    is sold.
    """
    numeraire = portfolio.numeraire.address
    min_value = limits.smallest_trade
    sells_assets = any(
        correction_value <= -min_value
        for token, correction_value in corrections(drifts, goal).items()
        if token != numeraire
    )
    return "first rebalance" if sells_assets else "first purchase"


def uninvested_deposits(history: History) -> dict[str, int]:
    """Return the uninvested part of a top-up's deposits, base units by token: newly confirmed ones,
    and those of the active purchase.
    """
    uninvested_raw = dict(history.cash_flows.newly_invested_raw)
    active_purchase = history.cash_flows.purchase
    if active_purchase is not None and active_purchase.terms.kind is PurchaseKind.TOP_UP:
        sold_raw_by_token = dict(active_purchase.sold_raw_by_token)
        for token, raw in active_purchase.terms.deposits:
            uninvested_raw[token] = uninvested_raw.get(token, 0) + max(
                0, raw - sold_raw_by_token.get(token, 0)
            )
    return {token: raw for token, raw in uninvested_raw.items() if raw > 0}


def turnover_allowance(step: StepInput) -> Value:
    """Return the value that is exempt from the turnover limits now, numeraire base units at present
    prices; the rest of a first purchase in parts at those of its beginning.
    """
    prices = reference_prices(step).price_by_token
    if (
        is_first_purchase(step.limits, step.history)
        and not step.history.cash_flows.newly_invested_raw
    ):
        if any(asset.token.address not in prices for asset in step.portfolio.assets):
            return ZERO
        drifts = compute_drifts(step, prices)
        return max(
            ZERO,
            _moved_value(drifts, _first_purchase_goal(step, drifts))
            - step.history.budgets.turnover_24h,
        )
    exempt_value = sum(
        (raw * prices.get(token, ZERO) for token, raw in uninvested_deposits(step.history).items()),
        ZERO,
    )
    active_purchase = step.history.cash_flows.purchase
    if active_purchase is not None and active_purchase.terms.kind is PurchaseKind.FIRST:
        exempt_value += max(ZERO, active_purchase.terms.value_to_move - active_purchase.moved_value)
    return exempt_value


def purchase_goal(step: StepInput, drifts: Sequence[AssetDrift]) -> Goal:
    """Return the goal of a purchase: the targets, or, if the wallet is divided between strategies,
    their combined goal; for a top-up, the underweight assets.
    """
    active_purchase = step.history.cash_flows.purchase
    if active_purchase is None:
        is_first = not step.history.cash_flows.newly_invested_raw
    else:
        is_first = active_purchase.terms.kind is PurchaseKind.FIRST
    if is_first:
        return _first_purchase_goal(step, drifts)
    return goal_to_invest(step, uninvested_deposits(step.history))


def format_progress(terms: Purchase, parts_done: int) -> str:
    """Format the number of the next part and of all parts."""
    return f"{terms.kind.value}, part {parts_done + 1} of {max(terms.part_count, parts_done + 1)}"


def _first_purchase_goal(step: StepInput, drifts: Sequence[AssetDrift]) -> Goal:
    if (goal := divided_goal(step, reference_prices(step).price_by_token)) is not None:
        return goal
    return restrict_to_side(
        tuple(drifts),
        rebalance_goal(tuple(drifts), Destination.TARGET),
        step.policy.trade_side,
        step.portfolio.numeraire.address,
    )


def _moved_value(drifts: Sequence[AssetDrift], goal: Goal) -> Value:
    correction_values = corrections(drifts, goal).values()
    return max(
        sum(
            (correction_value for correction_value in correction_values if correction_value > 0),
            ZERO,
        ),
        -sum(
            (correction_value for correction_value in correction_values if correction_value < 0),
            ZERO,
        ),
    )


def decide_part(
    step: StepInput, drifts: Sequence[AssetDrift]
) -> tuple[Decision, PurchaseResult] | None:
    """Return the next part of the active purchase, which needs no price signal and buys towards the
    current targets; None without a purchase.
    """
    active_purchase = step.history.cash_flows.purchase
    if active_purchase is None:
        return None
    terms = active_purchase.terms
    now_s = step.snapshot.head.timestamp_s
    goal = purchase_goal(step, drifts)
    correction_values = corrections(drifts, goal).values()
    allowance = turnover_allowance(step)
    value_left = sum(
        (correction_value for correction_value in correction_values if correction_value > 0), ZERO
    )
    parts_text = (
        "1 part" if active_purchase.parts_done == 1 else f"{active_purchase.parts_done} parts"
    )
    min_value = step.limits.smallest_trade
    message = f"{format_progress(terms, active_purchase.parts_done)}: {step.portfolio.numeraire.money_text(value_left)} to buy"
    if (
        min(value_left, allowance) < min_value
        or max(abs(correction_value) for correction_value in correction_values) < min_value
    ):
        end_reason = f"done in {parts_text}"
    elif now_s >= terms.expires_s:
        end_reason = (
            f"its time ended {format_time(terms.expires_s)} after {parts_text};"
            f" {step.portfolio.numeraire.money_text(value_left)} remain, and count as drift"
        )
    elif now_s < active_purchase.next_s:
        wait_message = f"{message}, next at {format_time(active_purchase.next_s)}; {format_cancel_command(active_purchase)}"
        return Hold(wait_message, "limits.first_purchase"), PurchaseResult()
    else:
        decision = Rebalance(message, goal, exempt_turnover=allowance)
        if terms.kind is PurchaseKind.TOP_UP:
            decision = replace(decision, by_owner=True, title=terms.kind.value)
        next_part = PurchasePart(active_purchase.parts_done + 1, Fraction(1), value_left)
        return decision, PurchaseResult(next_part)
    return Hold(end_text(terms, end_reason)), PurchaseResult(end_reason=end_reason)


def format_cancel_command(active_purchase: PurchaseProgress) -> str:
    """Return how the owner ends a purchase that waits."""
    return f"trimtab limit --cancel {active_purchase.id} ends it"


def end_text(terms: Purchase, why: str) -> str:
    """Return the text of a purchase's end."""
    return f"the {terms.kind.value} from {format_time(terms.began_s)} is over: {why}"


def step_after_purchase(step: StepInput) -> StepInput:
    """Return the step with the balances that the rest of the active purchase leads to, without
    costs. Raises Refused as purchase_goal does.
    """
    drifts = compute_drifts(step, reference_prices(step).price_by_token)
    correction_by_token = corrections(drifts, purchase_goal(step, drifts))
    changes_raw = {
        drift.token: floor_int(correction_by_token[drift.token] / drift.price) for drift in drifts
    }
    holdings = tuple(
        replace(holding, raw=max(0, holding.raw + changes_raw.get(holding.token, 0)))
        for holding in step.snapshot.holdings
    )
    return replace(step, snapshot=replace(step.snapshot, holdings=holdings))
