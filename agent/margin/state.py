"""State of the account after an order, compared with its limits; orders that exceed a limit are
cut.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
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
    PerpOrder,
    PerpOrderKind,
    StopOrder,
)
from agent.units import BPS, ceil_int, floor_int, sign_of


@dataclass(frozen=True, slots=True)
class MarginState:
    """Account figures that the limits apply to. Shares are exact; `leverage` and `utilisation` are
    None if the account has positions but no value. `survives` says whether the account stays above
    maintenance after every mark has moved against its position by the stress move.
    """

    leverage: Fraction | None
    utilisation: Fraction | None
    largest_share: Fraction
    gross_raw: int
    net_raw: int
    value_raw: int
    survives: bool


@dataclass(frozen=True, slots=True)
class Breach:
    """A breached limit: its name in the config, and measurement and limit as text."""

    limit: str
    measured: str
    allowed: str


def margin_state(account: MarginAccount, limits: FuturesLimits, target_bps: int = 0) -> MarginState:
    """Return the figures of an account; `target_bps` is its target leverage."""
    stressed = margin.with_adverse_move(account, Fraction(limits.stress_move_bps, BPS))
    return MarginState(
        margin.leverage(account),
        margin.utilisation(account),
        max(margin.position_shares(account, target_bps).values(), default=Fraction(0)),
        margin.gross_notional_raw(account),
        margin.net_notional_raw(account),
        margin.account_value_raw(account),
        not account.positions or not margin.is_liquidatable(stressed),
    )


@dataclass(frozen=True, slots=True)
class LimitCheck:
    """A limit: its name in the config, measurement and limit as text, and whether the state
    breaches it.
    """

    limit: str
    measured: str
    allowed: str
    is_broken: bool


def limit_checks(
    state: MarginState, limits: FuturesLimits, spot_value: Fraction | None
) -> list[LimitCheck]:
    """Return every limit that is not off, with the state's measurement. `spot_value` is in quote
    base units; if it is not known (None), positions breach the spot multiple.
    """
    leverage, utilisation = state.leverage, state.utilisation
    most = Fraction(limits.max_utilisation_bps, BPS)
    share = Fraction(limits.max_position_bps, BPS)
    checks = [
        LimitCheck(
            "max_leverage",
            multiple_text(leverage),
            _multiple_bps(limits.max_leverage_bps),
            leverage is None or leverage > Fraction(limits.max_leverage_bps, BPS),
        ),
        LimitCheck(
            "max_utilisation",
            _percent(utilisation),
            _percent(most),
            utilisation is None or utilisation > most,
        ),
        LimitCheck(
            "max_position",
            _percent(state.largest_share),
            _percent(share),
            state.largest_share > share,
        ),
    ]
    if limits.spot_multiple_bps:
        value = spot_value or Fraction(0)
        measured = Fraction(state.gross_raw) / value if value > 0 else None
        if not state.gross_raw:
            measured = Fraction(0)
        checks.append(
            LimitCheck(
                "spot_multiple",
                "unknown" if spot_value is None else multiple_text(measured),
                _multiple_bps(limits.spot_multiple_bps),
                state.gross_raw > value * limits.spot_multiple_bps / BPS,
            )
        )
    move = _percent(Fraction(limits.stress_move_bps, BPS))
    checks.append(
        LimitCheck(
            "stress_move",
            "survives" if state.survives else "liquidated",
            f"survives {move} against every position",
            not state.survives,
        )
    )
    return checks


def breaches(
    state: MarginState, limits: FuturesLimits, spot_value: Fraction | None
) -> list[Breach]:
    """Return the limits in `limit_checks` that the state breaches."""
    return [
        Breach(check.limit, check.measured, check.allowed)
        for check in limit_checks(state, limits, spot_value)
        if check.is_broken
    ]


def oversized(
    account: MarginAccount, limits: FuturesLimits, target_bps: int
) -> dict[str, Fraction]:
    """Return the share of each position above `max_position`, by market."""
    most = Fraction(limits.max_position_bps, BPS)
    shares = margin.position_shares(account, target_bps)
    return {market: share for market, share in shares.items() if share > most}


def is_reduction(account: MarginAccount, order: PerpOrder) -> bool:
    """True if an order only makes a position smaller, without flipping its sign."""
    size = account.size_raw(order.market)
    return size * order.size_raw < 0 and abs(order.size_raw) <= abs(size)


def largest_allowed_raw(
    account: MarginAccount,
    market: str,
    size_raw: int,
    limits: FuturesLimits,
    spot_value: Fraction | None,
    target_bps: int = 0,
) -> int:
    """Return the largest part of an order, in whole lots, that breaches no limit; zero if every
    part does. `target_bps` is the target leverage. The fill is assumed at its bound with the taker fee, as in guards and signer. Beyond
    the point where the position flips, leverage and exposure grow with the size, so bisection finds
    the largest part.
    """
    lot = account.market(market).lot_raw
    sign = sign_of(size_raw)
    low, high = 0, abs(size_raw) // lot
    if _all_allowed(account, {market: sign * high * lot}, limits, spot_value, target_bps):
        return sign * high * lot
    while high - low > 1:
        middle = (low + high) // 2
        if _all_allowed(account, {market: sign * middle * lot}, limits, spot_value, target_bps):
            low = middle
        else:
            high = middle
    return sign * low * lot


PARTS = 10_000
"""Resolution of a joint cut: orders are scaled by n / PARTS."""


def largest_allowed_sizes(
    account: MarginAccount,
    sizes: Mapping[str, int],
    limits: FuturesLimits,
    spot_value: Fraction | None,
) -> dict[str, int]:
    """Return the orders by market, all cut by the same share so that together they breach no limit,
    in whole lots rounded toward zero. Fills are assumed as in `largest_allowed_raw`. Bisection
    finds the share, in steps of 1 / PARTS.
    """
    if len(sizes) <= 1:
        return {
            market: largest_allowed_raw(account, market, size, limits, spot_value)
            for market, size in sizes.items()
        }
    return _largest_parts(
        account, sizes, lambda parts: _all_allowed(account, parts, limits, spot_value)
    )


def sizes_within_gross(
    account: MarginAccount, sizes: Mapping[str, int], most: Fraction
) -> dict[str, int]:
    """Return the orders by market, all cut by the same share so that filled at the mark they leave
    at most this gross notional; unchanged if they do not raise it.
    """

    def fits(parts: Mapping[str, int]) -> bool:
        after = account
        for market, size_raw in parts.items():
            value = margin.position_value_raw(after.market(market), size_raw)
            after = margin.with_trade(after, market, size_raw, -value)
        return margin.gross_notional_raw(after) <= most

    most = max(most, Fraction(margin.gross_notional_raw(account)))
    return _largest_parts(account, sizes, fits)


def _largest_parts(
    account: MarginAccount,
    sizes: Mapping[str, int],
    fits: Callable[[Mapping[str, int]], bool],
) -> dict[str, int]:
    """Return the largest part of all orders that fits, by bisection in steps of 1 / PARTS."""
    low, high = 0, PARTS
    if fits(_parts(account, sizes, high)):
        low = high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(_parts(account, sizes, middle)) else (low, middle)
    return _parts(account, sizes, low)


def _parts(account: MarginAccount, sizes: Mapping[str, int], part: int) -> dict[str, int]:
    """Return `part` / PARTS of each order, in whole lots rounded toward zero; all of them
    at PARTS.
    """
    if part == PARTS:
        return dict(sizes)
    parts = {}
    for market, size in sizes.items():
        lot = account.market(market).lot_raw
        whole = abs(size) * part // (PARTS * lot) * lot
        parts[market] = whole if size > 0 else -whole
    return parts


def _all_allowed(
    account: MarginAccount,
    sizes: Mapping[str, int],
    limits: FuturesLimits,
    spot_value: Fraction | None,
    target_bps: int = 0,
) -> bool:
    after = account
    for market, size_raw in sizes.items():
        if size_raw:
            bound = index_bound_raw(after.market(market), size_raw, limits.slippage_bps)
            order = PerpOrder(market, size_raw, PerpOrderKind.MARKET, bound, is_reduce_only=False)
            after = after_fill_at_bound(after, order)
    return not breaches(margin_state(after, limits, target_bps), limits, spot_value)


def after_fill_at_mark(account: MarginAccount, market: str, size_raw: int) -> MarginAccount:
    """Return the account after a fill at the mark with the taker fee, rounded against us."""
    perp_market = account.market(market)
    value = margin.position_value_raw(perp_market, size_raw)
    fee = -(-abs(value) * perp_market.fee_ppm // margin.PPM)
    return margin.with_trade(account, market, size_raw, -value - fee)


def after_fill_at_bound(account: MarginAccount, order: PerpOrder) -> MarginAccount:
    """Return the account after the worst fill that an order allows: at its bound, or at the mark if
    that is worse, with the taker fee, rounded against us.
    """
    market = account.market(order.market)
    value = abs(margin.position_value_raw(market, order.size_raw))
    buys = order.size_raw > 0
    quote = max(value, order.bound_raw) if buys else min(value, order.bound_raw)
    fee = -(-max(value, order.bound_raw) * market.fee_ppm // margin.PPM)
    return margin.with_trade(
        account, order.market, order.size_raw, (-quote if buys else quote) - fee
    )


def if_filled(account: MarginAccount) -> MarginAccount:
    """Return the account after a fill of every resting limit order at its price, or at the mark if
    that is worse, with the taker fee.
    """
    after = replace(account, resting=())
    for order in account.resting:
        quote = abs(order.size_raw) * order.price
        bound_raw = ceil_int(quote) if order.size_raw > 0 else floor_int(quote)
        filled = PerpOrder(order.market, order.size_raw, PerpOrderKind.LIMIT, bound_raw, False)
        after = after_fill_at_bound(after, filled)
    return after


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
    collateral_raw = account.collateral_raw + moved_raw * account.settlement_raw
    return replace(account, collateral_raw=collateral_raw)


def multiple_text(value: Fraction | None) -> str:
    """Format a leverage; None means that the account has no equity."""
    return "unlimited" if value is None else f"{float(value):.2f}x"


def _multiple_bps(bps: int) -> str:
    return f"{bps / BPS:g}x"


def _percent(value: Fraction | None) -> str:
    return "unlimited" if value is None else f"{float(value) * 100:.2f} %"
