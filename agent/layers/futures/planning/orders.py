"""Actions of the futures layer: the deposit or the reductions that a limit requires, else orders
towards the targets. The price bound of an order is relative to the index; after an opening every
limit holds.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from fractions import Fraction

from agent.layers.futures.policy.needs import cooldown_reason
from agent.layers.futures.policy.targets import (
    DRIFT_REASONS,
    REDUCING,
    FuturesTrigger,
    emergency_orders,
    funding_trims,
    funding_waits,
    known_breaches,
    orders_to_target,
    position_trims,
    reduction_orders,
    stale_index_reason,
    stale_indexes,
    stress_need,
    suffices,
    target_gross,
    targeted,
    triggered,
    unfinished_orders,
    unnamed_reasons,
)
from agent.margin import account as margin
from agent.margin.contract_sizes import index_bound_raw
from agent.margin.state import (
    after_fill_at_bound,
    is_reduction,
    largest_allowed_sizes,
    oversized,
    sizes_within_gross,
)
from agent.model import (
    FuturesLimits,
    FuturesPlan,
    FuturesPolicy,
    MarginAccount,
    MarginDeposit,
    PerpMarket,
    PerpOrder,
    PerpOrderKind,
)
from agent.units import BPS, Price, ceil_int, floor_int, sign_of

DUST_PARTS = 10
"""Divisor of the band, a share of the target notional: smaller changes are not worth an order."""
BELOW_MINIMUM = "the order is below the venue's minimum"
NO_MARKETS: Mapping[str, str] = {}


def plan_futures(  # noqa: PLR0913
    account: MarginAccount,
    policy: FuturesPolicy,
    spot_value: Fraction | None,
    now_s: int,
    collateral_raw: int = 0,
    approved_raw: int = 0,
    goals: tuple[tuple[str, int], ...] = (),
    waiting: Collection[str] = (),
    opens_from_s: int = 0,
) -> FuturesPlan:
    """Plan the actions of one step; equal inputs give equal plans.

    `spot_value` is in quote base units (None: unknown). `collateral_raw` is the wallet's
    depositable balance in base units of the collateral token, `approved_raw` the deposit approved
    in this step. `goals` are the final sizes of the step's reduction, `waiting` the markets whose
    orders failed. No position is opened before `opens_from_s`, after an emergency. A step either
    reduces or opens, so freed margin is not used again in the same plan. While a held market has no
    fresh index, or is not named in the config, no position is opened, no margin is deposited, and
    only the other markets are reduced. Unnamed markets are reduced too in an emergency, and for a
    limit that the other positions alone cannot meet.
    """
    stale = stale_indexes(account, policy, now_s)
    untouched = {**unnamed_reasons(account), **stale}
    if closing := emergency_orders(account, policy):
        return reducing_plan(account, policy, closing, "liquidation", is_emergency=True, no=stale)
    if rest := unfinished_orders(account, goals):
        plan = reducing_plan(
            account, policy, rest, FuturesTrigger.LEVERAGE.value, is_emergency=False, no=stale
        )
        return replace(plan, reason="reduce every position by the same share")
    fired = triggered(account, policy, spot_value)
    if not fired:
        return FuturesPlan((), "", "all futures weights and limits are kept")
    if fired[0] in REDUCING:
        deposit = 0
        if not untouched:
            deposit = _deposit_raw(account, policy, spot_value, collateral_raw, approved_raw)
        if not deposit:
            if not suffices(account, policy, spot_value, {*waiting, *untouched}):
                untouched = stale
            orders = reduction_orders(account, policy, spot_value, {*waiting, *untouched})
            cause = fired[0].value
            return reducing_plan(account, policy, orders, cause, is_emergency=False, no=untouched)
        return _deposit_plan(fired[0], deposit)
    if fired[0] is FuturesTrigger.POSITION:
        trims, cause = position_trims(account, policy), fired[0].value
        trimming = reducing_plan(account, policy, trims, cause, is_emergency=False, no=untouched)
        return replace(trimming, reason=f"{cause} is above its limit; trim the position")
    if untouched:
        return FuturesPlan((), "", f"no order: {next(iter(untouched.values()))}")
    if fired[0] is FuturesTrigger.FUNDING:
        trims = funding_trims(account, policy)
        trimming = reducing_plan(account, policy, trims, fired[0].value, is_emergency=False)
        return replace(trimming, reason=DRIFT_REASONS[fired[0]])
    return _to_targets(account, policy, spot_value, fired[0], now_s, opens_from_s, waiting)


def top_up_raw(
    account: MarginAccount, policy: FuturesPolicy, spot_value: Fraction | None, hysteresis_bps: int
) -> int:
    """Return the deposit, in base units of the collateral rounded up, that alone brings leverage,
    utilisation and the stress move below their limits by the hysteresis; zero if no deposit can.
    """
    limits = policy.limits
    keep = 1 - Fraction(hysteresis_bps, BPS)
    value = margin.account_value_raw(account)
    gross = margin.gross_notional_raw(account)
    deposits = [Fraction(0)]
    for breach in known_breaches(account, policy, spot_value):
        match breach.limit:
            case "max_leverage" if not limits.max_leverage_bps:
                return 0
            case "max_leverage":
                deposits.append(gross * BPS / (keep * limits.max_leverage_bps) - value)
            case "max_utilisation":
                deposits.append(_utilisation_gap(account, keep * limits.max_utilisation_bps / BPS))
            case "stress_move":
                deposits.append(gross / keep * stress_need(account, policy) - value)
            case "spot_multiple":
                return 0
            case _:
                pass
    return ceil_int(max(deposits) / account.settlement_raw)


def _deposit_raw(
    account: MarginAccount,
    policy: FuturesPolicy,
    spot_value: Fraction | None,
    collateral_raw: int,
    approved_raw: int,
) -> int:
    """Return the deposit that restores the limits; zero if the wallet has too little. An approved
    amount is deposited unchanged as long as it still restores the limits, because marks move with
    each block and any other amount needs a new approval. An off-chain venue takes no deposit.
    """
    if not account.is_on_chain:
        return 0
    if approved_raw and approved_raw <= collateral_raw:
        least = top_up_raw(account, policy, spot_value, 0)
        if 0 < least <= approved_raw:
            return approved_raw
    deposit = top_up_raw(account, policy, spot_value, policy.limits.hysteresis_bps)
    return deposit if deposit <= collateral_raw else 0


def _utilisation_gap(account: MarginAccount, most: Fraction) -> Fraction:
    """Return the deposit d with initial / (value + d) = most."""
    if most <= 0:
        return Fraction(0)
    return margin.initial_raw(account) / most - margin.account_value_raw(account)


def _deposit_plan(trigger: FuturesTrigger, deposit_raw: int) -> FuturesPlan:
    """Return the plan of the deposit that restores a broken limit."""
    return FuturesPlan(
        (),
        trigger.value,
        f"{trigger.value} is above its limit, which a deposit restores without a trade",
        (MarginDeposit(deposit_raw),),
        is_reducing=True,
    )


def reducing_plan(
    account: MarginAccount,
    policy: FuturesPolicy,
    sizes: dict[str, int],
    trigger: str,
    *,
    is_emergency: bool,
    no: Mapping[str, str] = NO_MARKETS,
) -> FuturesPlan:
    """Return a plan of reductions, largest notional first. Paused markets and the markets in `no`
    are skipped and listed with their reasons.
    """
    limits = policy.limits
    slippage = limits.emergency_slippage_bps if is_emergency else limits.slippage_bps
    orders, refused = [], []
    for market, size in sorted(
        ((account.market(name), size) for name, size in sizes.items()),
        key=lambda item: (-abs(item[1] * item[0].mark), item[0].market),
    ):
        if why := no.get(market.market) or paused_reason(market):
            refused.append(why)
        else:
            tradable = _at_least_minimum(account, market, size, slippage)
            orders.append(market_order(market, tradable, slippage, is_reduce_only=True))
    reason = f"{trigger} is above its limit; reduce positions"
    if is_emergency:
        reason = "liquidation is near; close positions before it"
    return FuturesPlan(
        tuple(orders),
        trigger,
        reason,
        is_reducing=True,
        is_emergency=is_emergency,
        refused=tuple(refused),
    )


def _to_targets(
    account: MarginAccount,
    policy: FuturesPolicy,
    spot_value: Fraction | None,
    trigger: FuturesTrigger,
    now_s: int,
    opens_from_s: int,
    waiting: Collection[str],
) -> FuturesPlan:
    """Return the orders to the targets: reductions first, openings cut to every limit, and so that
    the notional stays at its target if a paused or `waiting` market is not reduced. Openings use
    only the margin that was free before the reductions of the same step. A limit cuts all of them
    by the same share. The limit on the largest share is judged after all orders.
    """
    limits, orders = policy.limits, []
    refused = list(funding_waits(account, policy))
    dust = target_gross(account, policy) * policy.band_bps / BPS / DUST_PARTS
    sizes = {
        name: size
        for name, size in orders_to_target(account, policy).items()
        if abs(size) * account.market(name).mark > dust
    }
    reductions = {
        name: size
        for name, size in sizes.items()
        if is_reduction(account, market_order(account.market(name), size, 0, is_reduce_only=True))
    }
    for name, size in reductions.items():
        market = account.market(name)
        if why := untradable_reason(account, market, size, limits.slippage_bps):
            refused.append(why)
        else:
            orders.append(market_order(market, size, limits.slippage_bps, is_reduce_only=True))
    openings = {}
    waits = cooldown_reason(opens_from_s, now_s)
    refused += [waits] if waits and sizes.keys() - reductions.keys() else []
    for name, size in sizes.items():
        if name in reductions or waits:
            continue
        market = account.market(name)
        if why := _no_order_reason(market, size, policy, now_s):
            refused.append(why)
        else:
            openings[name] = size
    reduced = [order for order in orders if order.market not in waiting]
    opened, notes = _cut_openings(account, policy, spot_value, openings)
    moved = openings.keys() | {order.market for order in reduced}
    if any(account.size_raw(name) for name in sizes.keys() - moved):
        opened, cut = _within_target(account, policy, opened, reduced)
        notes += cut
    orders += [order for order in opened if abs(order.size_raw) * _mark(account, order) > dust]
    orders, large = _without_oversized(account, policy, orders)
    reason = DRIFT_REASONS[trigger]
    return FuturesPlan(
        tuple(orders),
        trigger.value,
        reason if orders else f"{reason}, but no order is possible",
        is_reducing=bool(orders) and all(order.is_reduce_only for order in orders),
        refused=(*refused, *notes, *large),
    )


def _mark(account: MarginAccount, order: PerpOrder) -> Price:
    return account.market(order.market).mark


def _no_order_reason(market: PerpMarket, size_raw: int, policy: FuturesPolicy, now_s: int) -> str:
    """Return why an opening is not ordered at any size; empty if it may be."""
    if why := stale_index_reason(market, policy, now_s) or no_opening_reason(market, policy):
        return why
    slippage = Fraction(policy.limits.slippage_bps, BPS)
    if sign_of(size_raw) * (market.mark / market.index - 1) > slippage:
        return (
            f"the mark of {market.symbol} is {abs(float(market.mark / market.index - 1)) * 100:.2f}"
            " % off its index, beyond the bound of an order"
        )
    return ""


def _cut_openings(
    account: MarginAccount,
    policy: FuturesPolicy,
    spot_value: Fraction | None,
    openings: Mapping[str, int],
) -> tuple[list[PerpOrder], list[str]]:
    """Return the openings within every limit, with a note on each that is cut."""
    limits = policy.limits
    futures_limits = replace(limits, max_position_bps=BPS)
    orders, notes = [], []
    for name, size in largest_allowed_sizes(account, openings, futures_limits, spot_value).items():
        market = account.market(name)
        if size != openings[name]:
            notes.append(f"{market.symbol} is cut to what the limits allow")
        if size and (why := untradable_reason(account, market, size, limits.slippage_bps)):
            notes.append(why)
        elif size:
            orders.append(_cut_order(account, market, size, limits.slippage_bps))
    return orders, notes


def _within_target(
    account: MarginAccount,
    policy: FuturesPolicy,
    openings: Sequence[PerpOrder],
    reductions: Iterable[PerpOrder],
) -> tuple[list[PerpOrder], list[str]]:
    """Return the openings cut by the same share so that, after the `reductions`, the notional stays
    at its target although another position is above its own and is not reduced.
    """
    slippage = policy.limits.slippage_bps
    freed = sum(abs(order.size_raw) * _mark(account, order) for order in reductions)
    gross = margin.gross_notional_raw
    hedged = gross(account) - gross(targeted(account, policy))
    most = target_gross(account, policy) + freed + hedged
    sizes = {order.market: order.size_raw for order in openings}
    orders, notes = [], []
    for name, size in sizes_within_gross(account, sizes, most).items():
        market = account.market(name)
        if size != sizes[name]:
            notes.append(f"{market.symbol} is cut so that the notional stays at its target")
        if size and not _is_below_minimum(account, market, size, slippage):
            orders.append(_cut_order(account, market, size, slippage))
    return orders, notes


def _cut_order(
    account: MarginAccount, market: PerpMarket, size_raw: int, slippage_bps: int
) -> PerpOrder:
    """Return the order of an opening after its cut, by which a flip may have become a reduction."""
    order = market_order(market, size_raw, slippage_bps, is_reduce_only=False)
    return replace(order, is_reduce_only=is_reduction(account, order))


def _without_oversized(
    account: MarginAccount, policy: FuturesPolicy, orders: list[PerpOrder]
) -> tuple[list[PerpOrder], list[str]]:
    """Return the orders without the openings whose position would exceed `max_position` after all
    of them, with a note on each.
    """
    notes: list[str] = []
    while True:
        after = account
        for order in orders:
            after = after_fill_at_bound(after, order)
        large = oversized(after, policy.limits, policy.leverage_bps)
        dropped = [
            perp_order
            for perp_order in orders
            if not perp_order.is_reduce_only and perp_order.market in large
        ]
        if not dropped:
            return orders, notes
        orders = [order for order in orders if order not in dropped]
        notes += [
            f"{account.market(order.market).symbol} is not opened: it would be"
            f" {float(large[order.market]) * 100:.2f} % of the total notional"
            for order in dropped
        ]


def paused_reason(market: PerpMarket) -> str:
    """Return a message if a market is paused; empty otherwise."""
    return f"{market.symbol} is paused" if market.is_paused else ""


def no_opening_reason(market: PerpMarket, policy: FuturesPolicy) -> str:
    """Return why no position may be opened in a market; empty if it may."""
    if why := paused_reason(market):
        return why
    basis = abs(market.mark / market.index - 1)
    if basis > Fraction(policy.limits.max_basis_bps, BPS):
        return f"the mark of {market.symbol} is {float(basis) * 100:.2f} % off its index"
    return ""


def untradable_reason(
    account: MarginAccount, market: PerpMarket, size_raw: int, slippage_bps: int
) -> str:
    """Return why no order of this size is possible; empty if one is."""
    if _is_below_minimum(account, market, size_raw, slippage_bps):
        return paused_reason(market) or f"{market.symbol}: {BELOW_MINIMUM}"
    return paused_reason(market)


def smaller_orders(
    account: MarginAccount, plan: FuturesPlan, limits: FuturesLimits, parts: Mapping[str, int]
) -> tuple[PerpOrder, ...]:
    """Return the orders of a plan, each divided by the divisor of its market, because a thin pool
    may fill a smaller order. Sizes are whole lots, at least one.
    """
    slippage = limits.emergency_slippage_bps if plan.is_emergency else limits.slippage_bps
    orders = []
    for order in plan.orders:
        divisor = parts.get(order.market, 1)
        if divisor == 1:
            orders.append(order)
            continue
        market = account.market(order.market)
        lots = max(1, abs(order.size_raw) // (market.lot_raw * divisor))
        size = min(abs(order.size_raw), lots * market.lot_raw)
        signed = size if order.size_raw > 0 else -size
        orders.append(market_order(market, signed, slippage, is_reduce_only=order.is_reduce_only))
    return tuple(orders)


def cut_reductions(
    account: MarginAccount, orders: Iterable[PerpOrder], limits: FuturesLimits, share: Fraction
) -> list[PerpOrder]:
    """Return the orders cut to a share of their size, in whole lots rounded down; orders below one
    lot or the venue's smallest order are left out.
    """
    cut = []
    for order in orders:
        market = account.market(order.market)
        lots = floor_int(abs(order.size_raw) * share / market.lot_raw)
        size = lots * market.lot_raw if order.size_raw > 0 else -lots * market.lot_raw
        if size and not _is_below_minimum(account, market, size, limits.slippage_bps):
            cut.append(market_order(market, size, limits.slippage_bps, is_reduce_only=True))
    return cut


def _is_below_minimum(
    account: MarginAccount, market: PerpMarket, size_raw: int, slippage_bps: int
) -> bool:
    """True if the venue rejects an order of this size; it takes a full close of any size."""
    if size_raw == -account.size_raw(market.market):
        return False
    return index_bound_raw(market, size_raw, slippage_bps) < market.min_notional_raw


def _at_least_minimum(
    account: MarginAccount, market: PerpMarket, size_raw: int, slippage_bps: int
) -> int:
    """Return the size of a reduction, raised to the venue's smallest order, or to the whole position
    if that is smaller.
    """
    if not _is_below_minimum(account, market, size_raw, slippage_bps):
        return size_raw
    one_lot_raw = index_bound_raw(market, market.lot_raw * sign_of(size_raw), slippage_bps)
    lots = ceil_int(Fraction(market.min_notional_raw, max(1, one_lot_raw - 1)))
    enlarged = lots * market.lot_raw * sign_of(size_raw)
    position_raw = account.size_raw(market.market)
    return enlarged if abs(enlarged) <= abs(position_raw) else -position_raw


def market_order(
    market: PerpMarket, size_raw: int, slippage_bps: int, *, is_reduce_only: bool
) -> PerpOrder:
    """Return a market order of this size, with its bound relative to the index."""
    bound = index_bound_raw(market, size_raw, slippage_bps)
    return PerpOrder(market.market, size_raw, PerpOrderKind.MARKET, bound, is_reduce_only)
