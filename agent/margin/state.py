"""State of the account after an order, compared with its limits; orders that exceed a limit are
cut.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from fractions import Fraction

from agent.margin import account as margin
from agent.margin.contract_sizes import index_bound_raw
from agent.model import (
    DelegateChange,
    FuturesAction,
    FuturesLimits,
    MarginAccount,
    MarginDeposit,
    MarginWithdrawal,
    OrderCancel,
    PerpMarket,
    PerpOrder,
    PerpOrderKind,
    StopOrder,
)
from agent.units import BPS, ceil_int, floor_int, sign_of


@dataclass(frozen=True, slots=True)
class MarginState:
    """Account figures that the limits apply to. Shares are exact; `leverage` and `utilisation` are
    None if the account has positions but no value. `survives_stress` says whether the account stays
    above maintenance after every mark has moved against its position by the stress move.
    """

    leverage: Fraction | None
    utilisation: Fraction | None
    largest_position_share: Fraction
    gross_notional_raw: int
    net_notional_raw: int
    account_value_raw: int
    survives_stress: bool


def margin_state(
    account: MarginAccount, limits: FuturesLimits, target_leverage_bps: int = 0
) -> MarginState:
    """Return the figures of an account; `target_leverage_bps` is its target leverage."""
    stressed_account = margin.with_adverse_move(account, Fraction(limits.stress_move_bps, BPS))
    return MarginState(
        margin.leverage(account),
        margin.utilisation(account),
        max(margin.position_shares(account, target_leverage_bps).values(), default=Fraction(0)),
        margin.gross_notional_raw(account),
        margin.net_notional_raw(account),
        margin.account_value_raw(account),
        not account.positions or not margin.is_liquidatable(stressed_account),
    )


@dataclass(frozen=True, slots=True)
class LimitCheck:
    """A limit: its name in the config, measurement and limit as text, and whether the state
    breaches it.
    """

    limit_name: str
    measured_text: str
    limit_text: str
    is_broken: bool


def limit_checks(
    state: MarginState, limits: FuturesLimits, spot_value: Fraction | None
) -> list[LimitCheck]:
    """Return every limit that is not off, with the state's measurement; with stress_move off the
    account must be above maintenance. `spot_value` is in quote base units; if it is not known
    (None), positions breach the spot multiple.
    """
    checks = [
        _multiple_check("max_leverage", state.leverage, limits.max_leverage_bps),
        _share_check("max_utilisation", state.utilisation, limits.max_utilisation_bps),
        _share_check("max_position", state.largest_position_share, limits.max_position_bps),
    ]
    if limits.spot_multiple_bps:
        known_spot_value = max(spot_value or Fraction(0), Fraction(0))
        spot_multiple: Fraction | None = Fraction(0)
        if state.gross_notional_raw:
            spot_multiple = (
                state.gross_notional_raw / known_spot_value if known_spot_value else None
            )
        check = _multiple_check("spot_multiple", spot_multiple, limits.spot_multiple_bps)
        checks.append(check if spot_value is not None else replace(check, measured_text="unknown"))
    limit_text = "off; above the maintenance margin"
    if limits.stress_move_bps:
        move_text = _percent_text(Fraction(limits.stress_move_bps, BPS))
        limit_text = f"survives {move_text} against every position"
    checks.append(
        LimitCheck(
            "stress_move",
            "survives" if state.survives_stress else "liquidated",
            limit_text,
            not state.survives_stress,
        )
    )
    return checks


def _multiple_check(limit_name: str, multiple: Fraction | None, limit_bps: int) -> LimitCheck:
    is_broken = multiple is None or multiple > Fraction(limit_bps, BPS)
    measured = _rounded_up(multiple, 100) if is_broken else multiple
    return LimitCheck(limit_name, multiple_text(measured), _multiple_bps_text(limit_bps), is_broken)


def _share_check(limit_name: str, share: Fraction | None, limit_bps: int) -> LimitCheck:
    max_share = Fraction(limit_bps, BPS)
    is_broken = share is None or share > max_share
    measured = _rounded_up(share, BPS) if is_broken else share
    return LimitCheck(limit_name, _percent_text(measured), _percent_text(max_share), is_broken)


def _rounded_up(number: Fraction | None, parts: int) -> Fraction | None:
    """Return the next larger multiple of 1 / `parts`, so that a breach is not shown as its limit."""
    return None if number is None else Fraction(ceil_int(number * parts), parts)


def breaches(
    state: MarginState, limits: FuturesLimits, spot_value: Fraction | None
) -> list[LimitCheck]:
    """Return the limits in `limit_checks` that the state breaches."""
    return [check for check in limit_checks(state, limits, spot_value) if check.is_broken]


def oversized_positions(
    account: MarginAccount, limits: FuturesLimits, target_leverage_bps: int
) -> dict[str, Fraction]:
    """Return the share of each position above `max_position`, by market."""
    max_share = Fraction(limits.max_position_bps, BPS)
    share_by_market = margin.position_shares(account, target_leverage_bps)
    return {market: share for market, share in share_by_market.items() if share > max_share}


def is_reduction(account: MarginAccount, order: PerpOrder) -> bool:
    """True if an order only makes a position smaller, without flipping its sign."""
    position_size_raw = account.size_raw(order.market)
    return position_size_raw * order.size_raw < 0 and abs(order.size_raw) <= abs(position_size_raw)


def largest_allowed_raw(
    account: MarginAccount,
    market: str,
    size_raw: int,
    limits: FuturesLimits,
    spot_value: Fraction | None,
    target_leverage_bps: int = 0,
) -> int:
    """Return the largest part of an order, in whole lots, that breaches no limit; zero if every
    part does. `target_leverage_bps` is the target leverage. The fill is assumed at its bound with
    the taker fee, as in guards and signer. Beyond the point where the position flips, leverage and
    exposure grow with the size: bisection finds the largest part from there, and from zero if that
    point breaches a limit.
    """
    lot_raw = account.market(market).lot_raw
    signed_lot_raw = sign_of(size_raw) * lot_raw

    def fits(lots: int) -> bool:
        return _breaches_no_limit(
            account, {market: lots * signed_lot_raw}, limits, spot_value, target_leverage_bps
        )

    order_lots = abs(size_raw) // lot_raw
    flip_lots = floor_int(_flip_share(account, market, size_raw) * abs(size_raw) / lot_raw)
    return _largest_fitting((order_lots, flip_lots), order_lots, fits) * signed_lot_raw


def _flip_share(account: MarginAccount, market: str, size_raw: int) -> Fraction:
    """Return the share of an order that closes the position; 0 if the order does not flip it."""
    position_size_raw = account.size_raw(market)
    is_flip = position_size_raw * size_raw < 0 and abs(position_size_raw) < abs(size_raw)
    return Fraction(abs(position_size_raw), abs(size_raw)) if is_flip else Fraction(0)


def _largest_fitting(starts: Iterable[int], high: int, fits: Callable[[int], bool]) -> int:
    """Return the largest number up to `high` that fits, by bisection from the first of `starts`
    that does; from 0 if none does.
    """
    low = next((start for start in starts if fits(start)), 0)
    while high - low > 1:
        middle = (low + high) // 2
        if fits(middle):
            low = middle
        else:
            high = middle
    return low


PART_DENOMINATOR = 10_000
"""Resolution of a joint cut: orders are scaled by n / PART_DENOMINATOR."""


def largest_allowed_sizes(
    account: MarginAccount,
    size_raw_by_market: Mapping[str, int],
    limits: FuturesLimits,
    spot_value: Fraction | None,
) -> dict[str, int]:
    """Return the orders by market, all cut by the same share so that together they breach no limit,
    in whole lots rounded toward zero. Fills are assumed as in `largest_allowed_raw`. Bisection
    finds the share, in steps of 1 / PART_DENOMINATOR, from the last position that an order flips
    without a breach.
    """
    if len(size_raw_by_market) <= 1:
        return {
            market: largest_allowed_raw(account, market, size_raw, limits, spot_value)
            for market, size_raw in size_raw_by_market.items()
        }
    return _largest_scaled_sizes(
        account,
        size_raw_by_market,
        lambda scaled_sizes: _breaches_no_limit(account, scaled_sizes, limits, spot_value),
    )


def sizes_within_gross(
    account: MarginAccount, size_raw_by_market: Mapping[str, int], max_gross_raw: Fraction
) -> dict[str, int]:
    """Return the orders by market, all cut by the same share so that filled at the mark they leave
    at most this gross notional; unchanged if they do not raise it.
    """

    def fits(scaled_sizes: Mapping[str, int]) -> bool:
        account_after = account
        for market, size_raw in scaled_sizes.items():
            value_raw = margin.position_value_raw(account_after.market(market), size_raw)
            account_after = margin.with_trade(account_after, market, size_raw, -value_raw)
        return margin.gross_notional_raw(account_after) <= max_gross_raw

    max_gross_raw = max(max_gross_raw, Fraction(margin.gross_notional_raw(account)))
    return _largest_scaled_sizes(account, size_raw_by_market, fits)


def _largest_scaled_sizes(
    account: MarginAccount,
    size_raw_by_market: Mapping[str, int],
    fits: Callable[[Mapping[str, int]], bool],
) -> dict[str, int]:
    """Return the largest part of all orders that fits, in steps of 1 / PART_DENOMINATOR. Leverage
    and exposure are lowest where a position flips, so that the bisection begins there.
    """
    flip_numerators = {
        floor_int(_flip_share(account, market, size_raw) * PART_DENOMINATOR)
        for market, size_raw in size_raw_by_market.items()
    }
    numerator = _largest_fitting(
        (PART_DENOMINATOR, *sorted(flip_numerators, reverse=True)),
        PART_DENOMINATOR,
        lambda numerator: fits(_scaled_sizes(account, size_raw_by_market, numerator)),
    )
    return _scaled_sizes(account, size_raw_by_market, numerator)


def _scaled_sizes(
    account: MarginAccount, size_raw_by_market: Mapping[str, int], numerator: int
) -> dict[str, int]:
    """Return `numerator` / PART_DENOMINATOR of each order, in whole lots rounded toward zero."""
    share = Fraction(numerator, PART_DENOMINATOR)
    return {
        market: scaled_size_raw(account.market(market), size_raw, share)
        for market, size_raw in size_raw_by_market.items()
    }


def scaled_size_raw(market: PerpMarket, size_raw: int, share: Fraction) -> int:
    """Return a share of a size, in whole lots rounded toward zero."""
    part_raw = floor_int(abs(size_raw) * share / market.lot_raw) * market.lot_raw
    return part_raw if size_raw > 0 else -part_raw


def _breaches_no_limit(
    account: MarginAccount,
    size_raw_by_market: Mapping[str, int],
    limits: FuturesLimits,
    spot_value: Fraction | None,
    target_leverage_bps: int = 0,
) -> bool:
    """True if orders of these sizes keep every limit and the venue has margin for them.
    `max_position` is judged for the positions that they enlarge.
    """
    account_after = account
    enlarged_markets = set()
    for market, size_raw in size_raw_by_market.items():
        if size_raw:
            bound_raw = index_bound_raw(account_after.market(market), size_raw, limits.slippage_bps)
            order = PerpOrder(
                market, size_raw, PerpOrderKind.MARKET, bound_raw, is_reduce_only=False
            )
            if not is_reduction(account, order):
                enlarged_markets.add(market)
            account_after = after_fill_at_bound(account_after, order)
    if account.initial_on_debt and enlarged_markets and margin.free_margin_raw(account_after) < 0:
        return False
    breached_limits = {
        breach.limit_name
        for breach in breaches(
            margin_state(account_after, limits, target_leverage_bps), limits, spot_value
        )
    }
    if (
        not enlarged_markets
        & oversized_positions(account_after, limits, target_leverage_bps).keys()
    ):
        breached_limits.discard("max_position")
    return not breached_limits


def with_full_venue_leverage(account: MarginAccount) -> MarginAccount:
    """Return the account with each market at the maximum leverage of its venue, where the account
    sets it (off-chain venues): initial margin is then twice the maintenance margin.
    """
    if account.is_on_chain:
        return account
    return replace(
        account,
        markets=tuple(
            replace(
                market,
                tiers=tuple(
                    replace(tier, initial_ppm=min(tier.initial_ppm, 2 * tier.maintenance_ppm))
                    for tier in market.tiers
                ),
            )
            for market in account.markets
        ),
    )


def after_fill_at_mark(account: MarginAccount, market: str, size_raw: int) -> MarginAccount:
    """Return the account after a fill at the mark with the taker fee, rounded against us."""
    perp_market = account.market(market)
    value_raw = margin.position_value_raw(perp_market, size_raw)
    fee_raw = -(-abs(value_raw) * perp_market.fee_ppm // margin.PPM)
    return margin.with_trade(account, market, size_raw, -value_raw - fee_raw)


def after_fill_at_bound(account: MarginAccount, order: PerpOrder) -> MarginAccount:
    """Return the account after the worst fill that an order allows: at its bound, or at the mark if
    that is worse, with the taker fee, rounded against us.
    """
    market = account.market(order.market)
    mark_value_raw = abs(margin.position_value_raw(market, order.size_raw))
    is_buy = order.size_raw > 0
    quote_raw = (
        max(mark_value_raw, order.bound_raw) if is_buy else min(mark_value_raw, order.bound_raw)
    )
    fee_raw = -(-max(mark_value_raw, order.bound_raw) * market.fee_ppm // margin.PPM)
    return margin.with_trade(
        account, order.market, order.size_raw, (-quote_raw if is_buy else quote_raw) - fee_raw
    )


def after_resting_fills(account: MarginAccount) -> MarginAccount:
    """Return the account after a fill of every resting limit order at its price, or at the mark if
    that is worse, with the taker fee.
    """
    account_after = replace(account, resting_orders=())
    for order in account.resting_orders:
        exact_quote_raw = abs(order.size_raw) * order.price
        bound_raw = ceil_int(exact_quote_raw) if order.size_raw > 0 else floor_int(exact_quote_raw)
        fill_order = PerpOrder(order.market, order.size_raw, PerpOrderKind.LIMIT, bound_raw, False)
        account_after = after_fill_at_bound(account_after, fill_order)
    return account_after


def after_enlarging_fills(account: MarginAccount) -> MarginAccount:
    """Return the account after a fill, as in `after_resting_fills`, of the resting purchases or the
    resting sales of each market: of those that leave the larger position.
    """
    filled_orders = []
    for market in {order.market: None for order in account.resting_orders}:
        orders = [order for order in account.resting_orders if order.market == market]
        sales = [order for order in orders if order.size_raw < 0]
        purchases = [order for order in orders if order.size_raw > 0]
        filled_orders += max(
            (sales, purchases),
            key=lambda side: abs(account.size_raw(market) + sum(order.size_raw for order in side)),
        )
    return after_resting_fills(replace(account, resting_orders=tuple(filled_orders)))


def after_action(account: MarginAccount, action: FuturesAction) -> MarginAccount:
    """Return the account after an action; orders are filled at their bounds."""
    match action:
        case PerpOrder():
            return after_fill_at_bound(account, action)
        case MarginDeposit(raw):
            moved_raw = raw
        case MarginWithdrawal(raw):
            moved_raw = -raw
        case DelegateChange() | StopOrder() | OrderCancel():
            moved_raw = 0
    collateral_raw = account.collateral_raw + moved_raw * account.collateral_unit_raw
    return replace(account, collateral_raw=collateral_raw)


def breaches_after(
    account: MarginAccount,
    actions: Collection[FuturesAction],
    limits: FuturesLimits,
    spot_value: Fraction | None,
    target_leverage_bps: int,
) -> list[LimitCheck]:
    """Return the limits that the account breaches after the actions if every resting order is
    filled, else if only those that enlarge a position are. `max_position` is judged for the
    positions that an order enlarges; `spot_value` as in `limit_checks`.
    """
    account_after = account
    for action in actions:
        account_after = after_action(account_after, action)
    for filled_account in (
        after_resting_fills(account_after),
        after_enlarging_fills(account_after),
    ):
        state = margin_state(filled_account, limits, target_leverage_bps)
        oversized_markets = oversized_positions(filled_account, limits, target_leverage_bps)
        enlarges_one = any(
            isinstance(action, PerpOrder)
            and action.market in oversized_markets
            and not is_reduction(account, action)
            for action in actions
        )
        if account_breaches := [
            breach
            for breach in breaches(state, limits, spot_value)
            if enlarges_one or breach.limit_name != "max_position"
        ]:
            return account_breaches
    return []


def multiple_text(multiple: Fraction | None) -> str:
    """Format a leverage; None means that the account has no equity."""
    return "unlimited" if multiple is None else f"{float(multiple):.2f}x"


def _multiple_bps_text(bps: int) -> str:
    return f"{bps / BPS:g}x"


def _percent_text(share: Fraction | None) -> str:
    return "unlimited" if share is None else f"{float(share) * 100:.2f} %"
