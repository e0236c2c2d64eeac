"""Why a limit order that rests at an off-chain venue ends. It rests while it leads to the targets,
within every limit, at a price that a new order would also have.
"""

from __future__ import annotations

from collections.abc import Collection
from fractions import Fraction

from agent.layers.futures.policy.needs import cooldown_reason, futures_fault, reopening_s
from agent.layers.futures.policy.targets import emergency_sizes, notional_drifts, without_hedges
from agent.layers.futures.state import FuturesState, margin_account
from agent.margin import contract_sizes
from agent.margin.contract_sizes import index_bound_raw
from agent.margin.state import after_resting_fills, breaches, margin_state
from agent.model import (
    FuturesPolicy,
    FuturesReading,
    MarginAccount,
    PerpMarket,
    RestingOrder,
    Snapshot,
    StaleReadKind,
)
from agent.units import BPS, format_time

MAX_OVERSHOOT = Fraction(1, 10)
"""Largest share of an order's rest by which its fill may exceed the target, because targets move
with each price.
"""


def order_end_reasons(
    snapshot: Snapshot, policy: FuturesPolicy | None, state: FuturesState, cloids: Collection[str]
) -> dict[str, str]:
    """Return why each of these orders that still rest ends, by client order id; without those that
    are to rest on. While the account or its open orders are unknown, each of `cloids` has that
    reason.
    """
    account = margin_account(snapshot)
    if account is None or policy is None:
        why = snapshot.layer(FuturesReading).unknown_reason or "the margin account is unknown"
        return dict.fromkeys(cloids, why)
    if why := snapshot.layer(FuturesReading).stale_reason(StaleReadKind.ORDERS):
        return dict.fromkeys(cloids, why)
    resting_orders = [order for order in account.resting_orders if order.cloid in cloids]
    now_s = snapshot.head.timestamp_s
    why = futures_fault(snapshot, policy) or cooldown_reason(reopening_s(policy, state), now_s)
    why = why or _breach_text(account, policy)
    if why:
        return {order.cloid: why for order in resting_orders}
    reason_by_cloid = {
        order.cloid: end_reason(account, policy, order, now_s) for order in resting_orders
    }
    return {cloid: reason for cloid, reason in reason_by_cloid.items() if reason}


def _breach_text(account: MarginAccount, policy: FuturesPolicy) -> str:
    """Return the limit that the account would breach if every resting order were filled, or that
    liquidation would be near. The spot multiple is judged when the order is placed.
    """
    account_if_filled = after_resting_fills(account)
    if account.resting_orders and emergency_sizes(account_if_filled, policy):
        return "liquidation would be near"
    state = margin_state(account_if_filled, policy.limits, policy.leverage_bps)
    limit_breaches = breaches(state, policy.limits, None) if account.resting_orders else []
    return next(
        (f"{breach.limit_name} would be {breach.measured_text}" for breach in limit_breaches), ""
    )


def end_reason(
    account: MarginAccount, policy: FuturesPolicy, order: RestingOrder, now_s: int
) -> str:
    """Return why an order ends; empty if it rests on."""
    market = account.market(order.market)
    if not policy.order_kind.can_rest:
        return "futures.order_type is ioc"
    if now_s >= order.placed_s + policy.order_time_s:
        return f"its time passed at {format_time(order.placed_s + policy.order_time_s)}"
    if market.is_paused:
        return f"{market.symbol} is paused"
    if abs(market.mark / market.index - 1) > Fraction(policy.limits.max_basis_bps, BPS):
        return f"the mark of {market.symbol} is off its index by more than max_basis"
    if _is_beyond_bound(order, market, policy.limits.slippage_bps):
        return "its price is now beyond the bound of an order"
    if _is_beyond_target(account, policy, order):
        return "the plan no longer wants it"
    return ""


def _is_beyond_bound(order: RestingOrder, market: PerpMarket, slippage_bps: int) -> bool:
    order_value = abs(order.size_raw) * order.price
    bound_raw = index_bound_raw(market, order.size_raw, slippage_bps)
    # the bound is rounded against the order by less than 1
    return order_value > bound_raw + 1 if order.size_raw > 0 else order_value < bound_raw - 1


def _is_beyond_target(account: MarginAccount, policy: FuturesPolicy, order: RestingOrder) -> bool:
    """True if the rest of an order would carry its position beyond the target."""
    drift_by_market = {
        drift.market: drift for drift in notional_drifts(after_resting_fills(account), policy)
    }
    if (drift := drift_by_market.get(order.market)) is None:
        return True
    market = account.market(order.market)
    target_size_raw = contract_sizes.size_for_notional_raw(market, drift.funded_target_notional)
    size_after_raw = without_hedges(account, policy).size_raw(order.market) + order.size_raw
    order_sign = 1 if order.size_raw > 0 else -1
    return order_sign * (size_after_raw - target_size_raw) > max(
        Fraction(market.lot_raw), abs(order.size_raw) * MAX_OVERSHOOT
    )
