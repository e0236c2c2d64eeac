"""A book of several legs: its net exposure against the target, the share to which its openings are
cut if one of them is not possible, and the sizes at which a set of orders ends whose cost was
judged as a whole.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

from agent.layers.futures.policy.targets import (
    notional_drifts,
    target_gross_notional,
    without_hedges,
)
from agent.margin import account as margin
from agent.model import FuturesPolicy, MarginAccount, PerpOrder
from agent.units import BPS

SizesByMarket = tuple[tuple[str, int], ...]


@dataclass(frozen=True, slots=True)
class NetExposure:
    """Longs less shorts at the mark, without hedges, and their target, in quote base units. `band`
    is the distance within which the one counts as the other.
    """

    notional: Fraction
    target_notional: Fraction
    band: Fraction

    @property
    def is_off_target(self) -> bool:
        """True if the distance is above the band."""
        return abs(self.notional - self.target_notional) > self.band


def net_exposure(account: MarginAccount, policy: FuturesPolicy) -> NetExposure:
    """Return the net exposure of an account. Targets are those that orders lead to, less expected
    funding.
    """
    drifts = notional_drifts(account, policy)
    return NetExposure(
        sum((drift.notional for drift in drifts), Fraction(0)),
        sum((drift.funded_target_notional for drift in drifts), Fraction(0)),
        _band_notional(account, policy),
    )


def _band_notional(account: MarginAccount, policy: FuturesPolicy) -> Fraction:
    """Return the band of a weight, or that of the leverage without one, as a notional."""
    band_bps = policy.band_bps or policy.leverage_band_bps
    return target_gross_notional(account, policy) * band_bps / BPS


def common_share(
    account: MarginAccount,
    policy: FuturesPolicy,
    wanted_sizes: Mapping[str, int],
    possible_sizes: Mapping[str, int],
) -> Fraction:
    """Return the share of every opening that can be sent of a set: one if nothing needs to be cut,
    zero if nothing may be opened. `wanted_sizes` lead to the targets, `possible_sizes` are what
    market, limits and venue allow of them; `account` is that after the reductions of the plan.

    A long and a short offset each other, so one of them alone is a bet that nobody wants. If the
    legs are possible to different shares, and the net exposure would be wrong by more than its
    band, all are cut to the smallest of the shares. Legs of one side, and legs that lower the net
    exposure, need no other. What is held already counts too: openings that would take the net
    exposure beyond target and band are cut to what stays within.
    """
    share_by_market = {
        market: Fraction(possible_sizes.get(market, 0), size_raw)
        for market, size_raw in wanted_sizes.items()
    }
    largest_share = max(share_by_market.values(), default=Fraction(0))
    wanted_net = _notional(account, wanted_sizes)
    possible_net = _notional(account, possible_sizes)
    missing_net = wanted_net * largest_share - possible_net
    net_notional = margin.net_notional_raw(without_hedges(account, policy))
    band = _band_notional(account, policy)
    target_notional = net_exposure(account, policy).target_notional
    largest_net = max(Fraction(abs(net_notional)), abs(target_notional) + band)
    is_beyond = abs(net_notional + possible_net) > largest_net + _lots_notional(
        account, wanted_sizes
    )
    if abs(missing_net) <= band and not is_beyond:
        return Fraction(1)
    if missing_net and all(size_raw * missing_net >= 0 for size_raw in possible_sizes.values()):
        return Fraction(1)
    if abs(net_notional + possible_net) <= abs(net_notional):
        return Fraction(1)
    smallest_share = min(share_by_market.values())
    if abs(net_notional + wanted_net * smallest_share) <= largest_net:
        return smallest_share
    signed_room = largest_net - net_notional * (1 if wanted_net > 0 else -1)
    return signed_room / abs(wanted_net)


def _lots_notional(account: MarginAccount, markets: Iterable[str]) -> Fraction:
    """Return the notional of one lot of each market, which orders may miss a size by."""
    return _notional(account, {market: account.market(market).lot_raw for market in markets})


def _notional(account: MarginAccount, size_by_market: Mapping[str, int]) -> Fraction:
    """Return the signed sum of sizes at the mark, in quote base units."""
    return sum(
        (size_raw * account.market(market).mark for market, size_raw in size_by_market.items()),
        Fraction(0),
    )


def is_two_sided(orders: Sequence[PerpOrder]) -> bool:
    """True if orders that open buy and sell."""
    signs = {order.size_raw > 0 for order in orders if not order.is_reduce_only}
    return len(signs) == 2


def goals_after(account: MarginAccount, orders: Sequence[PerpOrder]) -> SizesByMarket:
    """Return the sizes of the positions after all orders of a set, by market; empty for a single
    order, which was judged alone.
    """
    if len(orders) <= 1:
        return ()
    return tuple(
        (order.market, account.size_raw(order.market) + order.size_raw) for order in orders
    )


REACHED_PART = 20
"""A twentieth: fills, lots and bounds leave a little of every goal."""


def orders_to_goals(
    account: MarginAccount, orders: Sequence[PerpOrder], goals: SizesByMarket
) -> dict[str, int]:
    """Return the sizes, by market, of those orders that lead to the goals of an earlier set, at most
    to the goal. A market that lacks at most a REACHED_PART-th of its goal has reached it: such a rest
    is judged by its own cost.
    """
    goal_by_market = dict(goals)
    size_by_market = {}
    for order in orders:
        if order.market not in goal_by_market:
            continue
        goal_raw = goal_by_market[order.market]
        missing_raw = goal_raw - account.size_raw(order.market)
        is_reached = abs(missing_raw) * REACHED_PART <= abs(goal_raw)
        if missing_raw * order.size_raw > 0 and not is_reached:
            smaller_raw_of = min if order.size_raw > 0 else max
            size_by_market[order.market] = smaller_raw_of(order.size_raw, missing_raw)
    return size_by_market


def completes_set(
    account: MarginAccount, orders: Sequence[PerpOrder], goals: SizesByMarket
) -> bool:
    """True if orders lead to goals of an earlier set and not beyond them, beside reductions: their
    cost was judged with the set.
    """
    size_by_market = orders_to_goals(account, orders, goals)
    return bool(size_by_market) and all(
        order.is_reduce_only or size_by_market.get(order.market) == order.size_raw
        for order in orders
    )
