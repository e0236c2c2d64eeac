"""Orders of the futures layer: the reductions that a limit requires, else orders towards the targets.
The price bound of an order counts from the index; after an opening every limit holds.
"""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

from agent.margin import account as margin
from agent.margin.account import index_bound_raw
from agent.margin.state import (
    after_fill_at_bound,
    breaches,
    is_reduction,
    largest_allowed_raw,
    margin_state,
)
from agent.model.futures import (
    FuturesPlan,
    FuturesPolicy,
    MarginAccount,
    PerpMarket,
    PerpOrder,
    PerpOrderKind,
)
from agent.policy.futures.targets import (
    REDUCING,
    FuturesTrigger,
    emergency_orders,
    orders_to_target,
    reduction_orders,
    target_gross,
    triggered,
    unknown_prices,
)
from agent.units import BPS, ceil_int

DUST_PARTS = 10
"""Part of the band, of the target notional, below which a change is not worth an order."""


def plan_futures(
    account: MarginAccount,
    policy: FuturesPolicy,
    spot_value: Fraction,
    now_s: int,
    collateral_raw: int = 0,
) -> FuturesPlan:
    """Plan the orders of one step; equal inputs give equal plans.

    `spot_value` is in quote base units, `collateral_raw` what the wallet can deposit, in base units
    of the collateral token. Freed margin is not used again in the same plan: a step reduces or
    opens.
    """
    if unknown := unknown_prices(account, policy, now_s):
        return FuturesPlan((), "", f"no order: {unknown}")
    if closing := emergency_orders(account, policy):
        return _reducing_plan(account, policy, closing, "liquidation", is_emergency=True)
    fired = triggered(account, policy, spot_value)
    if not fired:
        return FuturesPlan((), "", "every weight and limit of the futures layer is kept")
    if fired[0] in REDUCING:
        return _within_limits(account, policy, spot_value, fired[0], collateral_raw)
    return _to_targets(account, policy, spot_value)


def top_up_raw(account: MarginAccount, policy: FuturesPolicy, spot_value: Fraction) -> int:
    """Return the collateral, in its own base units rounded up, whose deposit alone restores
    leverage and utilisation to below their limits by the hysteresis; zero if no deposit does.
    """
    limits = policy.limits
    keep = 1 - Fraction(limits.hysteresis_bps, BPS)
    value = margin.account_value_raw(account)
    gross = margin.gross_notional_raw(account)
    wanted = [Fraction(0)]
    state = margin_state(account, limits)
    for breach in breaches(state, limits, spot_value):
        match breach.limit:
            case "max_leverage":
                wanted.append(gross * BPS / (keep * limits.max_leverage_bps) - value)
            case "max_utilisation":
                wanted.append(_utilisation_gap(account, keep * limits.max_utilisation_bps / BPS))
            case _:
                return 0
    return ceil_int(max(wanted) / account.settlement_raw)


def _utilisation_gap(account: MarginAccount, most: Fraction) -> Fraction:
    """Return the deposit d with 1 - (usable + d - initial) / (value + d) = most."""
    value = margin.account_value_raw(account)
    usable = min(margin.collateral_value_raw(account), value)
    initial = margin.initial_raw(account)
    if most <= 0:
        return Fraction(0)
    return ((1 - most) * value - usable + initial) / most


def _within_limits(
    account: MarginAccount,
    policy: FuturesPolicy,
    spot_value: Fraction,
    trigger: FuturesTrigger,
    collateral_raw: int,
) -> FuturesPlan:
    """Deposit collateral if the wallet has enough of it, else reduce."""
    deposit = top_up_raw(account, policy, spot_value)
    if 0 < deposit <= collateral_raw:
        return FuturesPlan(
            (),
            trigger.value,
            f"{trigger.value} is above its limit: a deposit restores it without a trade",
            top_up_raw=deposit,
            is_reducing=True,
        )
    orders = reduction_orders(account, policy, spot_value)
    return _reducing_plan(account, policy, orders, trigger.value, is_emergency=False)


def _reducing_plan(
    account: MarginAccount,
    policy: FuturesPolicy,
    sizes: dict[str, int],
    trigger: str,
    *,
    is_emergency: bool,
) -> FuturesPlan:
    """Return a plan of reductions, largest notional first; paused markets are named instead."""
    limits = policy.limits
    slippage = limits.emergency_slippage_bps if is_emergency else limits.slippage_bps
    orders, refused = [], []
    for market, size in sorted(
        ((account.market(name), size) for name, size in sizes.items()),
        key=lambda item: (-abs(item[1] * item[0].mark), item[0].market),
    ):
        if market.is_paused:
            refused.append(f"{market.symbol} is paused")
        else:
            orders.append(_order(market, size, slippage, is_reduce_only=True))
    reason = f"{trigger} is above its limit: positions are reduced"
    if is_emergency:
        reason = "liquidation is near: positions are closed ahead of it"
    return FuturesPlan(
        tuple(orders),
        trigger,
        reason,
        is_reducing=True,
        is_emergency=is_emergency,
        refused=tuple(refused),
    )


def _to_targets(account: MarginAccount, policy: FuturesPolicy, spot_value: Fraction) -> FuturesPlan:
    """Return the orders to the targets: reductions first, openings cut to what every limit allows.

    Openings use only the margin that was free before the reductions of the same step. The largest
    share is judged after all orders: the first of several positions is all of the notional.
    """
    limits, orders, refused = policy.limits, [], []
    each = replace(limits, max_position_bps=BPS)
    dust = target_gross(account, policy) * policy.band_bps / BPS / DUST_PARTS
    sizes = {
        name: size
        for name, size in orders_to_target(account, policy).items()
        if abs(size) * account.market(name).mark > dust
    }
    reductions = {
        name: size
        for name, size in sizes.items()
        if is_reduction(account, _order(account.market(name), size, 0, is_reduce_only=True))
    }
    for name, size in reductions.items():
        market = account.market(name)
        if market.is_paused:
            refused.append(f"{market.symbol} is paused")
        else:
            orders.append(_order(market, size, limits.slippage_bps, is_reduce_only=True))
    opened = account
    for name, size in sizes.items():
        if name in reductions:
            continue
        market = account.market(name)
        if why := _no_opening(market, policy):
            refused.append(why)
            continue
        allowed = largest_allowed_raw(opened, name, size, each, spot_value)
        if allowed != size:
            refused.append(f"{market.symbol} is cut to what the limits allow")
        if allowed:
            order = _order(market, allowed, limits.slippage_bps, is_reduce_only=False)
            opened = after_fill_at_bound(opened, order)
            orders.append(order)
    final = account
    for order in orders:
        final = after_fill_at_bound(final, order)
    if (share := margin.largest_share(final)) > Fraction(limits.max_position_bps, BPS):
        orders = [order for order in orders if order.is_reduce_only]
        refused.append(f"nothing is opened: a position would be {float(share) * 100:.2f} % of all")
    reason = "a weight of the notional has left its band"
    return FuturesPlan(
        tuple(orders),
        FuturesTrigger.DRIFT.value,
        reason if orders else f"{reason}, but no order is possible",
        is_reducing=bool(orders) and all(order.is_reduce_only for order in orders),
        refused=tuple(refused),
    )


def _no_opening(market: PerpMarket, policy: FuturesPolicy) -> str:
    """Return why nothing is opened in a market; empty if it may be."""
    if market.is_paused:
        return f"{market.symbol} is paused"
    basis = abs(market.mark / market.index - 1)
    if basis > Fraction(policy.limits.max_basis_bps, BPS):
        return f"the mark of {market.symbol} is {float(basis) * 100:.2f} % off its index"
    return ""


def _order(
    market: PerpMarket, size_raw: int, slippage_bps: int, *, is_reduce_only: bool
) -> PerpOrder:
    bound = index_bound_raw(market, size_raw, slippage_bps)
    return PerpOrder(market.market, size_raw, PerpOrderKind.MARKET, bound, is_reduce_only)
