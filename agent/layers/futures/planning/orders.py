"""Actions of the futures layer: the deposit or the reductions that a limit requires, else orders
towards the targets. The price bound of an order is relative to the index; after an opening every
limit holds.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

from agent.layers.futures.policy.books import common_share
from agent.layers.futures.policy.needs import cooldown_reason
from agent.layers.futures.policy.targets import (
    DRIFT_REASONS,
    LIQUIDATION,
    REDUCING_TRIGGERS,
    FuturesTrigger,
    closing_suffices,
    due_triggers,
    dust_notional,
    emergency_sizes,
    funding_notes,
    funding_trims,
    known_breaches,
    position_trims,
    reduction_sizes,
    sizes_forbidden_by_funding,
    sizes_worth_an_order,
    stale_index_reason,
    stale_index_reasons,
    stress_value_per_notional,
    target_gross_notional,
    unfinished_sizes,
    unnamed_market_reasons,
    without_hedges,
)
from agent.margin import account as margin
from agent.margin.contract_sizes import (
    index_bound_raw,
    is_below_minimum,
    paused_reason,
    untradable_reason,
)
from agent.margin.state import (
    after_fill_at_bound,
    is_reduction,
    largest_allowed_sizes,
    oversized_positions,
    scaled_size_raw,
    sizes_within_gross,
    with_full_venue_leverage,
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
from agent.units import BPS, Price, ceil_int, sign_of

NO_SKIP_REASONS: Mapping[str, str] = {}


@dataclass(frozen=True, slots=True)
class EarlierActions:
    """What earlier actions leave to a plan: `unfinished_goals`, the final sizes of the cycle's
    reduction, `waiting_markets`, whose orders failed, and `opens_from_s`, before which no position
    is opened, after an emergency.
    """

    unfinished_goals: tuple[tuple[str, int], ...] = ()
    waiting_markets: Collection[str] = ()
    opens_from_s: int = 0


NO_EARLIER_ACTIONS = EarlierActions()


def plan_futures(
    account: MarginAccount,
    policy: FuturesPolicy,
    spot_value: Fraction | None,
    now_s: int,
    depositable_raw: int = 0,
    approved_deposit_raw: int = 0,
    earlier: EarlierActions = NO_EARLIER_ACTIONS,
) -> FuturesPlan:
    """Plan the actions of one step; equal inputs give equal plans.

    `spot_value` is in quote base units (None: unknown). `depositable_raw` is the wallet's
    depositable balance in base units of the collateral token, `approved_deposit_raw` the deposit
    approved in this step. A plan that reduces to a limit opens nothing; one with orders to the targets
    may do both, within the margin that was free before the reductions. While a held market has no
    fresh index, or is not named in the config, no position is opened, no margin is deposited, and
    only the other markets are reduced. Unnamed markets are reduced too in an emergency, and for a
    limit that the other positions alone cannot meet.
    """
    reason_by_stale_market = stale_index_reasons(account, policy, now_s)
    reason_by_skipped_market = {**unnamed_market_reasons(account), **reason_by_stale_market}
    if emergency_size_by_market := emergency_sizes(account, policy):
        return reducing_plan(
            account,
            policy,
            emergency_size_by_market,
            LIQUIDATION,
            "liquidation is near; close positions before it",
            is_emergency=True,
            skip_reason_by_market=reason_by_stale_market,
        )
    if unfinished_size_by_market := unfinished_sizes(account, earlier.unfinished_goals):
        return reducing_plan(
            account,
            policy,
            unfinished_size_by_market,
            FuturesTrigger.LEVERAGE.value,
            "reduce every position by the same share",
            is_emergency=False,
            skip_reason_by_market=reason_by_stale_market,
        )
    triggers = due_triggers(account, policy, spot_value)
    if not triggers:
        return FuturesPlan((), "", "all futures weights and limits are kept")
    if triggers[0] in REDUCING_TRIGGERS:
        deposit_raw = 0
        if not reason_by_skipped_market:
            deposit_raw = _deposit_raw(
                account, policy, spot_value, depositable_raw, approved_deposit_raw
            )
        if not deposit_raw:
            if not closing_suffices(
                account, policy, spot_value, {*earlier.waiting_markets, *reason_by_skipped_market}
            ):
                reason_by_skipped_market = reason_by_stale_market
            size_by_market = reduction_sizes(
                account, policy, spot_value, {*earlier.waiting_markets, *reason_by_skipped_market}
            )
            trigger_name = triggers[0].value
            return reducing_plan(
                account,
                policy,
                size_by_market,
                trigger_name,
                f"{trigger_name} is above its limit; reduce positions",
                is_emergency=False,
                skip_reason_by_market=reason_by_skipped_market,
            )
        return _deposit_plan(triggers[0], deposit_raw)
    if triggers[0] is FuturesTrigger.POSITION:
        trim_size_by_market = position_trims(account, policy)
        trigger_name = triggers[0].value
        return reducing_plan(
            account,
            policy,
            trim_size_by_market,
            trigger_name,
            f"{trigger_name} is above its limit; trim the position",
            is_emergency=False,
            skip_reason_by_market=reason_by_skipped_market,
        )
    if reason_by_skipped_market:
        return FuturesPlan((), "", f"no order: {next(iter(reason_by_skipped_market.values()))}")
    if triggers[0] is FuturesTrigger.FUNDING:
        trim_size_by_market = funding_trims(account, policy)
        return reducing_plan(
            account,
            policy,
            trim_size_by_market,
            triggers[0].value,
            DRIFT_REASONS[triggers[0]],
            is_emergency=False,
        )
    return _target_plan(account, policy, spot_value, triggers[0], now_s, earlier)


def top_up_raw(
    account: MarginAccount, policy: FuturesPolicy, spot_value: Fraction | None, hysteresis_bps: int
) -> int:
    """Return the deposit, in base units of the collateral rounded up, that alone brings leverage,
    utilisation and the stress move below their limits by the hysteresis; zero if no deposit can.
    """
    limits = policy.limits
    hysteresis_factor = 1 - Fraction(hysteresis_bps, BPS)
    account_value = margin.account_value_raw(account)
    gross_notional = margin.gross_notional_raw(account)
    required_deposits = [Fraction(0)]
    for breach in known_breaches(account, policy, spot_value):
        match breach.limit_name:
            case "max_leverage" if not limits.max_leverage_bps:
                return 0
            case "max_leverage":
                required_deposits.append(
                    gross_notional * BPS / (hysteresis_factor * limits.max_leverage_bps)
                    - account_value
                )
            case "max_utilisation":
                required_deposits.append(
                    _deposit_for_utilisation(
                        account, hysteresis_factor * limits.max_utilisation_bps / BPS
                    )
                )
            case "stress_move":
                required_deposits.append(
                    gross_notional / hysteresis_factor * stress_value_per_notional(account, policy)
                    - account_value
                )
            case "spot_multiple":
                return 0
            case _:
                pass
    return ceil_int(max(required_deposits) / account.collateral_unit_raw)


def _deposit_raw(
    account: MarginAccount,
    policy: FuturesPolicy,
    spot_value: Fraction | None,
    depositable_raw: int,
    approved_deposit_raw: int,
) -> int:
    """Return the deposit that restores the limits; zero if the wallet has too little. An approved
    amount is deposited unchanged as long as it still restores the limits, because marks move with
    each block and any other amount needs a new approval. An off-chain venue takes no deposit.
    """
    if not account.is_on_chain:
        return 0
    if approved_deposit_raw and approved_deposit_raw <= depositable_raw:
        minimum_raw = top_up_raw(account, policy, spot_value, 0)
        if 0 < minimum_raw <= approved_deposit_raw:
            return approved_deposit_raw
    deposit_raw = top_up_raw(account, policy, spot_value, policy.limits.hysteresis_bps)
    return deposit_raw if deposit_raw <= depositable_raw else 0


def _deposit_for_utilisation(account: MarginAccount, max_utilisation: Fraction) -> Fraction:
    """Return the deposit d with initial / (value + d) = limit."""
    if max_utilisation <= 0:
        return Fraction(0)
    return margin.initial_margin_raw(account) / max_utilisation - margin.account_value_raw(account)


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
    size_by_market: dict[str, int],
    trigger: str,
    reason: str,
    *,
    is_emergency: bool,
    skip_reason_by_market: Mapping[str, str] = NO_SKIP_REASONS,
) -> FuturesPlan:
    """Return a plan of reductions, largest notional first. Paused markets and the markets in
    `skip_reason_by_market` are skipped and listed with their reasons.
    """
    limits = policy.limits
    slippage_bps = limits.emergency_slippage_bps if is_emergency else limits.slippage_bps
    orders = []
    refusal_reasons = []
    for market, size_raw in sorted(
        ((account.market(market_id), size_raw) for market_id, size_raw in size_by_market.items()),
        key=lambda market_and_size: (
            -abs(market_and_size[1] * market_and_size[0].mark),
            market_and_size[0].market,
        ),
    ):
        if why := skip_reason_by_market.get(market.market) or paused_reason(market):
            refusal_reasons.append(why)
        else:
            tradable_size_raw = _at_least_minimum(account, market, size_raw, slippage_bps)
            orders.append(
                market_order(market, tradable_size_raw, slippage_bps, is_reduce_only=True)
            )
    return FuturesPlan(
        tuple(orders),
        trigger,
        reason,
        is_reducing=True,
        is_emergency=is_emergency,
        refusal_texts=tuple(refusal_reasons),
    )


def _target_plan(
    account: MarginAccount,
    policy: FuturesPolicy,
    spot_value: Fraction | None,
    trigger: FuturesTrigger,
    now_s: int,
    earlier: EarlierActions,
) -> FuturesPlan:
    """Return the orders to the targets, reductions first. Openings are cut to meet every limit, all
    by the same share, and use only the margin that was free before the reductions of the same step.
    If a market above its target is paused or waits, and cannot be reduced, they are
    also cut so that the notional stays at its target. The limit on the largest share is judged
    after all orders. If one of them is not possible, those of the other side are not sent either.
    """
    limits = policy.limits
    orders = []
    refusal_reasons = list(funding_notes(account, policy))
    min_notional = dust_notional(account, policy)
    size_by_market = sizes_worth_an_order(account, policy)
    reduction_size_by_market = {
        market_id: size_raw
        for market_id, size_raw in size_by_market.items()
        if is_reduction(
            account, market_order(account.market(market_id), size_raw, 0, is_reduce_only=True)
        )
    }
    for market_id, size_raw in reduction_size_by_market.items():
        market = account.market(market_id)
        if why := untradable_reason(account, market, size_raw, limits.slippage_bps):
            refusal_reasons.append(why)
        else:
            orders.append(market_order(market, size_raw, limits.slippage_bps, is_reduce_only=True))
    opening_size_by_market = {}
    cooldown_text = cooldown_reason(earlier.opens_from_s, now_s)
    refusal_reasons += (
        [cooldown_text]
        if cooldown_text and size_by_market.keys() - reduction_size_by_market.keys()
        else []
    )
    for market_id, size_raw in size_by_market.items():
        if market_id in reduction_size_by_market or cooldown_text:
            continue
        market = account.market(market_id)
        if why := _no_order_reason(market, size_raw, policy, now_s):
            refusal_reasons.append(why)
        else:
            opening_size_by_market[market_id] = size_raw
    expected_reductions = [order for order in orders if order.market not in earlier.waiting_markets]
    opening_orders, notes = _cut_openings(account, policy, spot_value, opening_size_by_market)
    changed_markets = opening_size_by_market.keys() | {
        order.market for order in expected_reductions
    }
    if any(account.size_raw(market_id) for market_id in size_by_market.keys() - changed_markets):
        opening_orders, cut_notes = _cut_to_target(
            account, policy, opening_orders, expected_reductions
        )
        notes += cut_notes
    orders += [
        order
        for order in opening_orders
        if abs(order.size_raw) * _mark_price(account, order) > min_notional
    ]
    orders, oversized_notes = _cut_oversized_openings(account, policy, orders)
    wanted_sizes = {
        market_id: size_raw
        for market_id, size_raw in (
            size_by_market | sizes_forbidden_by_funding(account, policy)
        ).items()
        if market_id not in reduction_size_by_market
        and abs(size_raw) * account.market(market_id).mark > min_notional
    }
    orders, balance_notes = _balanced_openings(
        account, policy, orders, wanted_sizes, earlier.waiting_markets
    )
    reason = DRIFT_REASONS[trigger]
    return FuturesPlan(
        tuple(orders),
        trigger.value,
        reason if orders else f"{reason}, but no order is possible",
        is_reducing=bool(orders) and all(order.is_reduce_only for order in orders),
        refusal_texts=(*refusal_reasons, *notes, *oversized_notes, *balance_notes),
    )


def _mark_price(account: MarginAccount, order: PerpOrder) -> Price:
    return account.market(order.market).mark


def _no_order_reason(market: PerpMarket, size_raw: int, policy: FuturesPolicy, now_s: int) -> str:
    """Return why an opening is not ordered at any size; empty if it may be."""
    if why := stale_index_reason(market, policy, now_s) or no_opening_reason(market, policy):
        return why
    slippage_share = Fraction(policy.limits.slippage_bps, BPS)
    if sign_of(size_raw) * (market.mark / market.index - 1) > slippage_share:
        return (
            f"the mark of {market.symbol} is {abs(float(market.mark / market.index - 1)) * 100:.2f}"
            " % off its index, beyond the bound of an order"
        )
    return ""


def _cut_openings(
    account: MarginAccount,
    policy: FuturesPolicy,
    spot_value: Fraction | None,
    opening_size_by_market: Mapping[str, int],
) -> tuple[list[PerpOrder], list[str]]:
    """Return the openings within every limit, with a note on each that is cut."""
    limits = policy.limits
    limits_without_max_position = replace(limits, max_position_bps=BPS)
    orders = []
    notes = []
    allowed_sizes = largest_allowed_sizes(
        account, opening_size_by_market, limits_without_max_position, spot_value
    )
    if allowed_sizes != opening_size_by_market:
        sizes_at_full_leverage = largest_allowed_sizes(
            with_full_venue_leverage(account),
            opening_size_by_market,
            limits_without_max_position,
            spot_value,
        )
        if sizes_at_full_leverage != allowed_sizes:
            notes += venue_leverage_notes(account, opening_size_by_market)
    for market_id, size_raw in allowed_sizes.items():
        market = account.market(market_id)
        if size_raw != opening_size_by_market[market_id]:
            notes.append(f"{market.symbol} is cut to what the limits allow")
        if size_raw and (why := untradable_reason(account, market, size_raw, limits.slippage_bps)):
            notes.append(why)
        elif size_raw:
            orders.append(_cut_order(account, market, size_raw, limits.slippage_bps))
    return orders, notes


def venue_leverage_notes(account: MarginAccount, markets: Iterable[str]) -> list[str]:
    """Return a note on each market whose leverage, set at the venue, is below what the venue offers
    and holds a target back.
    """
    full_account = with_full_venue_leverage(account)
    notes = []
    for market_id in markets:
        market = account.market(market_id)
        initial_ppm = market.tiers[0].initial_ppm
        full_ppm = full_account.market(market_id).tiers[0].initial_ppm
        if full_ppm < initial_ppm:
            notes.append(
                f"the leverage of {market.symbol} at the venue is {margin.PPM // initial_ppm}x of at most"
                f" {margin.PPM // full_ppm}x, which holds its target back; raise it on the venue's site"
            )
    return notes


def _cut_to_target(
    account: MarginAccount,
    policy: FuturesPolicy,
    opening_orders: Sequence[PerpOrder],
    reduction_orders: Iterable[PerpOrder],
) -> tuple[list[PerpOrder], list[str]]:
    """Return the openings cut by the same share so that, after the `reduction_orders`, the notional
    stays at its target although another position is above its own and is not reduced.
    """
    slippage_bps = policy.limits.slippage_bps
    reduced_notional = sum(
        abs(order.size_raw) * _mark_price(account, order) for order in reduction_orders
    )
    gross_notional_of = margin.gross_notional_raw
    hedge_notional = gross_notional_of(account) - gross_notional_of(without_hedges(account, policy))
    max_notional = target_gross_notional(account, policy) + reduced_notional + hedge_notional
    size_by_market = {order.market: order.size_raw for order in opening_orders}
    orders = []
    notes = []
    for market_id, size_raw in sizes_within_gross(account, size_by_market, max_notional).items():
        market = account.market(market_id)
        if size_raw != size_by_market[market_id]:
            notes.append(f"{market.symbol} is cut so that the notional stays at its target")
        if size_raw and not is_below_minimum(account, market, size_raw, slippage_bps):
            orders.append(_cut_order(account, market, size_raw, slippage_bps))
    return orders, notes


def _cut_order(
    account: MarginAccount, market: PerpMarket, size_raw: int, slippage_bps: int
) -> PerpOrder:
    """Return the order of a cut opening. An order that was to reverse a position may now only
    reduce it.
    """
    order = market_order(market, size_raw, slippage_bps, is_reduce_only=False)
    return replace(order, is_reduce_only=is_reduction(account, order))


def _cut_oversized_openings(
    account: MarginAccount, policy: FuturesPolicy, orders: Sequence[PerpOrder]
) -> tuple[list[PerpOrder], list[str]]:
    """Return the orders with the openings cut, in whole lots, whose position would exceed
    `max_position` after all of them, with a note on each. An opening of which no part is possible is
    left out.
    """
    notes: list[str] = []
    remaining_orders = list(orders)
    while oversized := _largest_oversized_opening(account, policy, remaining_orders):
        order, share = oversized
        position = remaining_orders.index(order)
        cut_order = _cut_to_max_position(account, policy, remaining_orders, position)
        remaining_orders[position : position + 1] = [] if cut_order is None else [cut_order]
        symbol = account.market(order.market).symbol
        share_text = f"{float(share) * 100:.2f} %"
        verb = "not opened" if cut_order is None else "cut to max_position"
        notes.append(f"{symbol} is {verb}: it would be {share_text} of the total notional")
    return remaining_orders, list(dict.fromkeys(notes))


def _largest_oversized_opening(
    account: MarginAccount, policy: FuturesPolicy, orders: Sequence[PerpOrder]
) -> tuple[PerpOrder, Fraction] | None:
    """Return the opening whose position has the largest share above `max_position` after all
    orders, and the share; None without one.
    """
    share_by_market = _oversized_after(account, policy, orders)
    oversized_openings = [
        (share_by_market[order.market], order)
        for order in orders
        if not order.is_reduce_only and order.market in share_by_market
    ]
    if not oversized_openings:
        return None
    share, order = max(oversized_openings, key=lambda share_and_order: share_and_order[0])
    return order, share


def _oversized_after(
    account: MarginAccount, policy: FuturesPolicy, orders: Iterable[PerpOrder]
) -> dict[str, Fraction]:
    """Return the share of each position above `max_position` after orders filled at their
    bounds.
    """
    for order in orders:
        account = after_fill_at_bound(account, order)
    return oversized_positions(account, policy.limits, policy.leverage_bps)


def _cut_to_max_position(
    account: MarginAccount, policy: FuturesPolicy, orders: Sequence[PerpOrder], position: int
) -> PerpOrder | None:
    """Return the largest part, in whole lots, of the order at a position of the list that keeps
    `max_position` beside the others; None if none does, or if the venue rejects it. The share grows
    with the order, so bisection finds the part.
    """
    order = orders[position]
    market = account.market(order.market)
    slippage_bps = policy.limits.slippage_bps
    low_lots = 0
    high_lots = abs(order.size_raw) // market.lot_raw
    while high_lots - low_lots > 1:
        middle_lots = (low_lots + high_lots) // 2
        size_raw = sign_of(order.size_raw) * middle_lots * market.lot_raw
        cut_order = _cut_order(account, market, size_raw, slippage_bps)
        cut_orders = [*orders[:position], cut_order, *orders[position + 1 :]]
        if order.market in _oversized_after(account, policy, cut_orders):
            high_lots = middle_lots
        else:
            low_lots = middle_lots
    size_raw = sign_of(order.size_raw) * low_lots * market.lot_raw
    if not low_lots or is_below_minimum(account, market, size_raw, slippage_bps):
        return None
    return _cut_order(account, market, size_raw, slippage_bps)


def _balanced_openings(
    account: MarginAccount,
    policy: FuturesPolicy,
    orders: Sequence[PerpOrder],
    wanted_sizes: Mapping[str, int],
    waiting_markets: Collection[str],
) -> tuple[list[PerpOrder], list[str]]:
    """Return the orders with all openings cut to the same share of what the targets want, or none of
    them, if longs or shorts alone would remain (`common_share`), with a note. Orders in
    `waiting_markets` are not possible.
    """
    account_after_reductions = account
    for order in orders:
        if order.market not in wanted_sizes and order.market not in waiting_markets:
            account_after_reductions = after_fill_at_bound(account_after_reductions, order)
    possible_sizes = {
        order.market: order.size_raw
        for order in orders
        if order.market in wanted_sizes and order.market not in waiting_markets
    }
    share = common_share(account_after_reductions, policy, wanted_sizes, possible_sizes)
    if share == 1 or not possible_sizes:
        return list(orders), []
    slippage_bps = policy.limits.slippage_bps
    size_by_market = {
        market_id: scaled_size_raw(account.market(market_id), size_raw, share)
        for market_id, size_raw in wanted_sizes.items()
    }
    if any(
        not size_raw or is_below_minimum(account, account.market(market_id), size_raw, slippage_bps)
        for market_id, size_raw in size_by_market.items()
    ):
        size_by_market = dict.fromkeys(size_by_market, 0)
    kept_orders = [
        order
        if order.market not in size_by_market.keys() - set(waiting_markets) or order.is_reduce_only
        else _cut_order(
            account, account.market(order.market), size_by_market[order.market], slippage_bps
        )
        for order in orders
    ]
    return [order for order in kept_orders if order.size_raw], [
        _balance_note(account, wanted_sizes, possible_sizes, size_by_market, share)
    ]


def _balance_note(
    account: MarginAccount,
    wanted_sizes: Mapping[str, int],
    possible_sizes: Mapping[str, int],
    size_by_market: Mapping[str, int],
    share: Fraction,
) -> str:
    """Return which openings are cut or left out, because of which others or of what is held."""
    share_by_market = {
        market_id: Fraction(possible_sizes.get(market_id, 0), size_raw)
        for market_id, size_raw in wanted_sizes.items()
    }
    smallest_share = min(share_by_market.values())
    if share < smallest_share:
        symbols = ", ".join(account.market(market_id).symbol for market_id in wanted_sizes)
        change = "cut" if any(size_by_market.values()) else "not opened"
        return f"{symbols} is {change}: with what is held the net exposure would leave its band"
    causes, cut_markets = (
        ", ".join(
            account.market(market_id).symbol
            for market_id, share in share_by_market.items()
            if (share == smallest_share) is is_cause
        )
        for is_cause in (True, False)
    )
    if any(size_by_market.values()):
        return f"{cut_markets} is cut to the share of {causes}, so that the net exposure stays on target"
    return f"{cut_markets} is not opened: without {causes} the net exposure would be off target"


def no_opening_reason(market: PerpMarket, policy: FuturesPolicy) -> str:
    """Return why no position may be opened in a market; empty if it may."""
    if why := paused_reason(market):
        return why
    basis_share = abs(market.mark / market.index - 1)
    if basis_share > Fraction(policy.limits.max_basis_bps, BPS):
        return f"the mark of {market.symbol} is {float(basis_share) * 100:.2f} % off its index"
    return ""


def smaller_orders(
    account: MarginAccount,
    plan: FuturesPlan,
    limits: FuturesLimits,
    divisor_by_market: Mapping[str, int],
) -> tuple[PerpOrder, ...]:
    """Return the orders of a plan, each divided by the divisor of its market, because a thin pool
    may fill a smaller order. Sizes are whole lots, at least one.
    """
    slippage_bps = limits.emergency_slippage_bps if plan.is_emergency else limits.slippage_bps
    orders = []
    for order in plan.orders:
        divisor = divisor_by_market.get(order.market, 1)
        if divisor == 1:
            orders.append(order)
            continue
        market = account.market(order.market)
        lot_count = max(1, abs(order.size_raw) // (market.lot_raw * divisor))
        size_raw = min(abs(order.size_raw), lot_count * market.lot_raw)
        signed_size_raw = size_raw if order.size_raw > 0 else -size_raw
        orders.append(
            market_order(market, signed_size_raw, slippage_bps, is_reduce_only=order.is_reduce_only)
        )
    return tuple(orders)


def cut_reductions(
    account: MarginAccount, orders: Iterable[PerpOrder], limits: FuturesLimits, share: Fraction
) -> list[PerpOrder]:
    """Return the orders cut to a share of their size, in whole lots rounded down; orders below one
    lot or the venue's smallest order are left out.
    """
    cut_orders = []
    for order in orders:
        market = account.market(order.market)
        size_raw = scaled_size_raw(market, order.size_raw, share)
        if size_raw and not is_below_minimum(account, market, size_raw, limits.slippage_bps):
            cut_orders.append(
                market_order(market, size_raw, limits.slippage_bps, is_reduce_only=True)
            )
    return cut_orders


def _at_least_minimum(
    account: MarginAccount, market: PerpMarket, size_raw: int, slippage_bps: int
) -> int:
    """Return the size of a reduction, raised to the venue's smallest order, or to the whole
    position if that is smaller.
    """
    if not is_below_minimum(account, market, size_raw, slippage_bps):
        return size_raw
    lot_bound_raw = index_bound_raw(market, market.lot_raw * sign_of(size_raw), slippage_bps)
    lot_count = ceil_int(Fraction(market.min_notional_raw, max(1, lot_bound_raw - 1)))
    enlarged_size_raw = lot_count * market.lot_raw * sign_of(size_raw)
    position_size_raw = account.size_raw(market.market)
    return (
        enlarged_size_raw
        if abs(enlarged_size_raw) <= abs(position_size_raw)
        else -position_size_raw
    )


def market_order(
    market: PerpMarket, size_raw: int, slippage_bps: int, *, is_reduce_only: bool
) -> PerpOrder:
    """Return a market order of this size, with its bound relative to the index."""
    bound_raw = index_bound_raw(market, size_raw, slippage_bps)
    return PerpOrder(market.market, size_raw, PerpOrderKind.MARKET, bound_raw, is_reduce_only)
