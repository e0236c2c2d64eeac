"""How long a portfolio that was sold for the numeraire takes to return to its targets."""

from __future__ import annotations

from agent.units import DAY_S


def shortest_buy_back(
    share_bps: int, turnover_bps: int | None, daily_turnover_bps: int | None, cooldown_s: int
) -> tuple[int, int]:
    """Return the number of rebalances that buy `share_bps` of the portfolio, and the seconds from
    the first to the last, at least: a limit on turnover (None: off) bounds each and all of 24 h,
    and `cooldown_s` lies between two.
    """
    bounds_bps = [bound for bound in (turnover_bps, daily_turnover_bps) if bound is not None]
    if share_bps <= 0 or not all(bounds_bps):
        return 0, 0
    smallest_bps = min(bounds_bps, default=share_bps)
    rebalance_count = -(-share_bps // smallest_bps)
    full_days = 0 if daily_turnover_bps is None else -(-share_bps // daily_turnover_bps) - 1
    return rebalance_count, max((rebalance_count - 1) * cooldown_s, full_days * DAY_S)
