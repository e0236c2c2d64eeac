"""Descriptions of futures actions with their expected amounts."""

from __future__ import annotations

from agent.layers.futures.state import collateral_token, futures_policy, margin_account
from agent.model import (
    DelegateChange,
    FuturesAction,
    MarginDeposit,
    MarginWithdrawal,
    OrderCancel,
    PerpOrder,
    RestingAction,
    Snapshot,
    StepInput,
    StopOrder,
)
from agent.units import decimal_text, safe_label
from agent.venues.allowances import label_and_decimals


def futures_action_note(step: StepInput, action: FuturesAction) -> str:
    """Describe a futures action."""
    collateral_address = collateral_token(futures_policy(step))
    match action:
        case PerpOrder():
            return order_note(step.snapshot, action)
        case MarginDeposit(amount_raw):
            label, decimals = label_and_decimals(step.portfolio, collateral_address)
            return f"deposit {decimal_text(amount_raw, decimals)} {label} as margin"
        case MarginWithdrawal(amount_raw):
            label, decimals = label_and_decimals(step.portfolio, collateral_address)
            return f"withdraw {decimal_text(amount_raw, decimals)} {label} of margin"
        case DelegateChange(delegate, is_allowed):
            verb = "allow" if is_allowed else "no longer allow"
            return f"{verb} {delegate} to trade futures for this account"
        case StopOrder() | OrderCancel():
            return stop_note(step.snapshot, action)


def _six_place_text(amount_raw: int, decimals: int, *, rounds_up: bool = False) -> str:
    """Format an amount to six places; all of it if that would be zero."""
    divisor = 10 ** max(0, decimals - 6)
    rounded_units = -(-amount_raw // divisor) if rounds_up else amount_raw // divisor
    return (
        decimal_text(rounded_units, min(decimals, 6))
        if rounded_units
        else decimal_text(amount_raw, decimals)
    )


def stop_note(snapshot: Snapshot, stop_change: RestingAction) -> str:
    """Describe a change of a resting stop."""
    account = margin_account(snapshot)
    if account is None:
        return f"change the resting stop of {stop_change.market}"
    market = account.market(stop_change.market)
    quote = account.quote
    label = safe_label(market.symbol, market.market)
    if isinstance(stop_change, OrderCancel):
        return f"cancel a resting stop of {label}"
    size_text = _six_place_text(abs(stop_change.size_raw), market.size_decimals)
    side_verb = "sells" if stop_change.size_raw < 0 else "buys"
    trigger_text = _six_place_text(stop_change.trigger_raw, quote.decimals)
    return f"place a resting stop of {label} that {side_verb} {size_text} once it is worth {trigger_text} {quote.label}"


def order_note(snapshot: Snapshot, order: PerpOrder) -> str:
    """Describe a futures order, with its bound in quote coins; both to six places, the bound
    rounded so that it holds.
    """
    account = margin_account(snapshot)
    side_verb = "sell" if order.size_raw < 0 else "buy"
    bound_word = "at least" if order.size_raw < 0 else "at most"
    purpose_verb = "reduce" if order.is_reduce_only else "open"
    if account is None:
        return f"{purpose_verb} futures: {side_verb} {abs(order.size_raw)} base units of {order.market}"
    market = account.market(order.market)
    quote = account.quote
    size_text = _six_place_text(abs(order.size_raw), market.size_decimals)
    bound_text = _six_place_text(order.bound_raw, quote.decimals, rounds_up=order.size_raw > 0)
    return (
        f"{purpose_verb} futures: {side_verb} {size_text} {safe_label(market.symbol, market.market)} for {bound_word}"
        f" {bound_text} {quote.label}"
    )
