"""Stops that rest at an off-chain venue, so that positions are protected while the agent is down:
which are missing, and which no longer match a position.
"""

from __future__ import annotations

from fractions import Fraction

from agent.margin import account as margin
from agent.model import (
    FuturesPolicy,
    MarginAccount,
    OrderCancel,
    Position,
    RestingAction,
    RestingStop,
    StopOrder,
)
from agent.units import BPS, Price, ceil_int, floor_int

MAX_TRIGGER_DISTANCE = Fraction(4, 5)
"""Largest distance of a trigger from the mark; venues reject prices that are further away."""


def stop_changes(account: MarginAccount, policy: FuturesPolicy) -> tuple[RestingAction, ...]:
    """Return the stops to place, then those to cancel; empty if every position has its stop. A stop
    has the position's whole size and the trigger of `stop_trigger`; a trigger within half of
    `resting_stop_bps` of that is kept, so that small moves of the account replace none. Without
    `resting_stop_bps` the agent's stops are cancelled. None is placed further from the mark than
    MAX_TRIGGER_DISTANCE. In a paused market, or if mark or index is already at or beyond the trigger
    (the agent then acts itself), no stop is placed and the resting ones stay.
    """
    if account.is_on_chain:
        return ()
    stop_distance = Fraction(policy.limits.resting_stop_bps, BPS)
    new_stops = []
    kept_cloids = set[str]()
    for position in account.positions if stop_distance else ():
        market = account.market(position.market)
        trigger_price = stop_trigger(account, position, stop_distance)
        matching_stops = [
            resting_stop
            for resting_stop in account.resting_stops
            if _covers(resting_stop, position)
        ]
        if trigger_price is None:
            continue
        stop_order = _stop_order(position, trigger_price, policy.limits.emergency_slippage_bps)
        if market.is_paused or not market.is_on_losing_side(
            position.size_raw, stop_order.trigger_raw
        ):
            kept_cloids |= {
                stop.cloid for stop in account.resting_stops if stop.market == position.market
            }
        elif kept_stops := [
            stop
            for stop in matching_stops
            if abs(stop.trigger_price / trigger_price - 1) <= stop_distance / 2
        ]:
            kept_cloids.add(kept_stops[0].cloid)
        elif abs(trigger_price / market.mark - 1) <= MAX_TRIGGER_DISTANCE:
            new_stops.append(stop_order)
    cancel_orders = [
        OrderCancel(stop.market, stop.cloid)
        for stop in account.resting_stops
        if stop.cloid not in kept_cloids
    ]
    return (*new_stops, *cancel_orders)


def stop_trigger(
    account: MarginAccount, position: Position, stop_distance: Fraction
) -> Price | None:
    """Return the mark at which a position's stop is triggered: ahead of its liquidation price by
    `stop_distance`, a share of the trigger. The liquidation price is the nearer of that of this market's move alone, and of all markets'
    moves against their positions by the same share; None if neither exists.
    """
    mark_price = account.market(position.market).mark
    liquidation_prices = []
    if (market_liquidation_price := margin.liquidation_price(account, position.market)) is not None:
        liquidation_prices.append(market_liquidation_price)
    if (joint_move := _joint_move(account)) is not None:
        liquidation_prices.append(
            mark_price * (1 - joint_move if position.is_long else 1 + joint_move)
        )
    if not liquidation_prices:
        return None
    return (
        max(liquidation_prices) / (1 - stop_distance)
        if position.is_long
        else min(liquidation_prices) / (1 + stop_distance)
    )


def _joint_move(account: MarginAccount) -> Fraction | None:
    """Return the largest move in whole basis points of all markets against their positions that
    the account survives; None if it survives 100 %.
    """
    low_bps = 0
    high_bps = BPS
    if not margin.is_liquidatable(margin.with_adverse_move(account, Fraction(1))):
        return None
    while high_bps - low_bps > 1:
        middle_bps = (low_bps + high_bps) // 2
        if margin.is_liquidatable(margin.with_adverse_move(account, Fraction(middle_bps, BPS))):
            high_bps = middle_bps
        else:
            low_bps = middle_bps
    return Fraction(low_bps, BPS)


def _covers(stop: RestingStop, position: Position) -> bool:
    return (stop.market, stop.size_raw) == (position.market, -position.size_raw)


def _stop_order(position: Position, trigger_price: Price, slippage_bps: int) -> StopOrder:
    """Return the stop of a position; its bound is `slippage_bps` beyond the trigger."""
    trigger_value = abs(position.size_raw) * trigger_price
    if position.is_long:
        trigger_raw = ceil_int(trigger_value)
        bound_raw = ceil_int(trigger_raw * Fraction(BPS - slippage_bps, BPS))
    else:
        trigger_raw = floor_int(trigger_value)
        bound_raw = floor_int(trigger_raw * Fraction(BPS + slippage_bps, BPS))
    return StopOrder(position.market, -position.size_raw, trigger_raw, bound_raw)
