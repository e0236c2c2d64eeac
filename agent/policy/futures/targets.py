"""Target notional of each market, drift from it, and what triggers an order."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from fractions import Fraction

from agent.margin import account as margin
from agent.margin.account import size_for_notional_raw
from agent.margin.state import breaches, margin_state
from agent.model.futures import FuturesPolicy, MarginAccount
from agent.units import BPS, ceil_int


class FuturesTrigger(Enum):
    """Why the futures layer acts. Reductions come before rebalances."""

    LEVERAGE = "leverage"
    UTILISATION = "utilisation"
    SPOT_MULTIPLE = "spot_multiple"
    DRIFT = "drift"


REDUCING = (FuturesTrigger.LEVERAGE, FuturesTrigger.UTILISATION, FuturesTrigger.SPOT_MULTIPLE)
"""Triggers that only reduce."""


@dataclass(frozen=True, slots=True)
class NotionalDrift:
    """A market's signed notional and its target, in quote base units, with the share of the gross
    notional held (of the target gross where nothing is held) and the target weight.
    """

    market: str
    symbol: str
    notional: Fraction
    target: Fraction
    share: Fraction
    target_share: Fraction

    @property
    def drift(self) -> Fraction:
        """Share above target; negative below."""
        return self.share - self.target_share


def target_gross(account: MarginAccount, policy: FuturesPolicy) -> Fraction:
    """Return the target gross notional: account value times the target leverage; zero for an
    account that is worth nothing.
    """
    return Fraction(max(0, margin.account_value_raw(account)) * policy.leverage_bps, BPS)


def notional_drifts(account: MarginAccount, policy: FuturesPolicy) -> tuple[NotionalDrift, ...]:
    """Return the drift of every market that has a target or a position, in the order of markets.

    Shares are of the gross notional held, and of the target where nothing is held.
    """
    targets = {target.market: target.weight_bps for target in policy.targets}
    gross = Fraction(margin.gross_notional_raw(account)) or target_gross(account, policy)
    wanted = target_gross(account, policy)
    drifts = []
    for market in account.markets:
        weight = Fraction(targets.get(market.market, 0), BPS)
        notional = Fraction(margin.position_value_raw(market, account.size_raw(market.market)))
        if not weight and not notional:
            continue
        share = notional / gross if gross else Fraction(0)
        drifts.append(
            NotionalDrift(market.market, market.symbol, notional, wanted * weight, share, weight)
        )
    return tuple(drifts)


def triggered(
    account: MarginAccount, policy: FuturesPolicy, spot_value: Fraction
) -> tuple[FuturesTrigger, ...]:
    """Return the triggers that require an order, by priority; empty if there are none."""
    state = margin_state(account, policy.limits)
    broken = {breach.limit for breach in breaches(state, policy.limits, spot_value)}
    found = [
        trigger
        for trigger, limits in (
            (FuturesTrigger.LEVERAGE, {"max_leverage", "stress_move"}),
            (FuturesTrigger.UTILISATION, {"max_utilisation"}),
            (FuturesTrigger.SPOT_MULTIPLE, {"spot_multiple"}),
        )
        if broken & limits
    ]
    band = Fraction(policy.band_bps, BPS)
    if band and any(abs(drift.drift) > band for drift in notional_drifts(account, policy)):
        found.append(FuturesTrigger.DRIFT)
    return tuple(found)


def orders_to_target(account: MarginAccount, policy: FuturesPolicy) -> dict[str, int]:
    """Return the size of the order that brings each market to its target notional, in whole lots;
    markets without a change are left out. Sizes end at or below their target.
    """
    changes = {}
    for drift in notional_drifts(account, policy):
        market = account.market(drift.market)
        change = size_for_notional_raw(market, drift.target) - account.size_raw(drift.market)
        if change:
            changes[drift.market] = change
    return changes


def allowed_gross(account: MarginAccount, policy: FuturesPolicy, spot_value: Fraction) -> Fraction:
    """Return the gross notional that a reduction goes down to: the tightest of the broken limits,
    less the hysteresis so that the next tick does not trigger again.

    Margin and the loss of a stress move are proportional to the notional, so that one factor meets
    utilisation and the stress move too.
    """
    limits = policy.limits
    keep = 1 - Fraction(limits.hysteresis_bps, BPS)
    gross = Fraction(margin.gross_notional_raw(account))
    value = Fraction(max(0, margin.account_value_raw(account)))
    state = margin_state(account, limits)
    allowed = [gross]
    for breach in breaches(state, limits, spot_value):
        match breach.limit:
            case "max_leverage":
                allowed.append(keep * value * limits.max_leverage_bps / BPS)
            case "spot_multiple":
                allowed.append(keep * spot_value * limits.spot_multiple_bps / BPS)
            case "max_utilisation":
                allowed.append(keep * gross * _kept_by_utilisation(account, policy))
            case "stress_move":
                allowed.append(keep * _stress_gross(account, policy))
            case _:
                pass
    return max(Fraction(0), min(allowed))


def _kept_by_utilisation(account: MarginAccount, policy: FuturesPolicy) -> Fraction:
    """Return the share of the positions whose initial margin leaves utilisation at its limit."""
    value = margin.account_value_raw(account)
    usable = min(margin.collateral_value_raw(account), value)
    bound = 1 - Fraction(policy.limits.max_utilisation_bps, BPS)
    initial = margin.initial_raw(account)
    if initial == 0:
        return Fraction(1)
    return max(Fraction(0), min(Fraction(1), (usable - bound * value) / initial))


def _stress_gross(account: MarginAccount, policy: FuturesPolicy) -> Fraction:
    """Gross notional whose loss by the stress move leaves the maintenance margin:
    value - g·move = rate·g·(1 + move) at most.
    """
    gross = margin.gross_notional_raw(account)
    if not gross:
        return Fraction(0)
    move = Fraction(policy.limits.stress_move_bps, BPS)
    rate = Fraction(margin.maintenance_raw(account), gross)
    value = Fraction(max(0, margin.account_value_raw(account)))
    return value / (move + rate * (1 + move))


def reduction_orders(
    account: MarginAccount, policy: FuturesPolicy, spot_value: Fraction
) -> dict[str, int]:
    """Return the orders that bring every position down by the same share to the allowed gross
    notional, in whole lots rounded up; none while no limit is broken.
    """
    gross = Fraction(margin.gross_notional_raw(account))
    allowed = allowed_gross(account, policy, spot_value)
    if not gross or allowed >= gross:
        return {}
    orders = {}
    for position in account.positions:
        lot = account.market(position.market).lot_raw
        wanted = abs(position.size_raw) * (1 - allowed / gross)
        lots = -(-wanted.numerator // (wanted.denominator * lot))
        size = min(abs(position.size_raw), lots * lot)
        orders[position.market] = -size if position.is_long else size
    return orders


def unknown_prices(account: MarginAccount, policy: FuturesPolicy, now_s: int) -> str:
    """Return why prices of held or targeted markets are not known; empty if they are."""
    wanted = {target.market for target in policy.targets if target.weight_bps}
    wanted |= {position.market for position in account.positions}
    for market in account.markets:
        age_s = now_s - market.index_s
        if market.market in wanted and not 0 <= age_s <= policy.limits.index_age_s:
            return f"the index of {market.symbol} is {age_s} s old"
    return ""


def emergency_orders(account: MarginAccount, policy: FuturesPolicy) -> dict[str, int]:
    """Return the orders that close positions whose liquidation is nearer than
    `emergency_distance_bps`, or all of an account that is liquidatable; none otherwise.

    Half of a position is closed at a time, as liquidators do, so that a spike that reverts costs
    only half; then the distance is judged again.
    """
    near = Fraction(policy.limits.emergency_distance_bps, BPS)
    orders = {}
    for position in account.positions:
        distance = margin.liquidation_distance(account, position.market)
        if not margin.is_liquidatable(account) and (distance is None or abs(distance) >= near):
            continue
        lot = account.market(position.market).lot_raw
        size = min(
            abs(position.size_raw), ceil_int(Fraction(abs(position.size_raw), 2 * lot)) * lot
        )
        orders[position.market] = -size if position.is_long else size
    return orders
