"""Expected funding of positions over a horizon, assuming that the market's newest rate stays
constant.
"""

from __future__ import annotations

from fractions import Fraction

from agent.margin import account as margin
from agent.model import MarginAccount, PerpMarket

DAY_S = 86_400


def expected_funding(market: PerpMarket, notional: Fraction, horizon_s: int) -> Fraction:
    """Return the funding that a signed notional pays over the horizon (negative: receives)."""
    return notional * market.funding_daily * horizon_s / DAY_S


def expected_cost(account: MarginAccount, horizon_s: int) -> Fraction:
    """Return the funding that all positions pay over the horizon, in quote base units (negative:
    receive).
    """
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


def bleeding(market: PerpMarket, notional: Fraction, horizon_s: int) -> Fraction:
    """Return the funding that a signed notional pays over the horizon, as a share of it; zero if it
    receives funding.
    """
    if not notional:
        return Fraction(0)
    return max(Fraction(0), expected_funding(market, notional, horizon_s) / abs(notional))
