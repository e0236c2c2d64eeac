"""Expected funding of positions: a cost over a horizon, and drift of a position that pays it.

A position that pays funding counts by its notional and the funding expected over the horizon, so
that it is overweight and is trimmed; one that is paid counts by its notional alone. The rate is the
market's newest, unchanged over the horizon.
"""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

from agent.margin import account as margin
from agent.margin.account import size_for_notional_raw
from agent.model.futures import FuturesPolicy, MarginAccount, PerpMarket
from agent.policy.futures.targets import NotionalDrift, notional_drifts
from agent.units import BPS

DAY_S = 86_400


def expected_funding(market: PerpMarket, notional: Fraction, horizon_s: int) -> Fraction:
    """Return what a signed notional pays over the horizon (negative: it is paid)."""
    return notional * market.funding_daily * horizon_s / DAY_S


def expected_cost(account: MarginAccount, horizon_s: int) -> Fraction:
    """Return what all positions pay over the horizon, quote base units (negative: they are paid)."""
    return sum(
        (
            expected_funding(
                account.market(position.market),
                Fraction(margin.value_at_mark_raw(account, position)),
                horizon_s,
            )
            for position in account.positions
        ),
        Fraction(0),
    )


def funding_drifts(
    account: MarginAccount, policy: FuturesPolicy, horizon_s: int
) -> tuple[NotionalDrift, ...]:
    """Return the drifts with the funding that each position pays over the horizon counted in its
    share, and taken out of its target: the trimmed position with its funding is the target.
    """
    found = []
    for drift in notional_drifts(account, policy):
        bleeding = _bleeding(account.market(drift.market), drift.notional, horizon_s)
        found.append(
            replace(drift, share=drift.share * (1 + bleeding), target=drift.target / (1 + bleeding))
        )
    return tuple(found)


def funding_trims(account: MarginAccount, policy: FuturesPolicy, horizon_s: int) -> dict[str, int]:
    """Return the orders, in whole lots, that trim positions which funding puts beyond the band; none
    turns or enlarges a position.

    The band is the hysteresis: a trimmed position is at its target by these drifts, so that a rate
    has to rise by as much as the band before it is trimmed again, and it is enlarged only when its
    notional has left the band of its whole target.
    """
    orders = {}
    band = Fraction(policy.band_bps, BPS)
    plain = {drift.market: drift for drift in notional_drifts(account, policy)}
    for drift in funding_drifts(account, policy, horizon_s):
        market, held = account.market(drift.market), account.size_raw(drift.market)
        sign = 1 if held > 0 else -1
        is_bleeding = drift.share != plain[drift.market].share
        if not band or not is_bleeding or sign * drift.drift <= band:
            continue
        wanted = size_for_notional_raw(market, drift.target)
        kept = wanted if wanted * held > 0 else 0
        if abs(kept) < abs(held):
            orders[drift.market] = kept - held
    return orders


def _bleeding(market: PerpMarket, notional: Fraction, horizon_s: int) -> Fraction:
    """Return the share of a notional that it pays over the horizon; zero if it is paid."""
    if not notional:
        return Fraction(0)
    return max(Fraction(0), expected_funding(market, notional, horizon_s) / abs(notional))
