"""How many rebalances, and how long, a portfolio that was sold takes to come back."""

from __future__ import annotations

import pytest

from agent.policy.cash_flows.buy_back import shortest_buy_back
from tests.support.constants import DAY_S, HOUR_S


@pytest.mark.parametrize(
    ("share_bps", "turnover_bps", "daily_bps", "cooldown_s", "count", "duration_s"),
    [
        pytest.param(7_000, 500, 2_000, HOUR_S, 14, 3 * DAY_S, id="both limits"),
        pytest.param(7_000, 500, None, HOUR_S, 14, 13 * HOUR_S, id="turnover alone"),
        pytest.param(7_000, None, 2_000, HOUR_S, 4, 3 * DAY_S, id="daily turnover alone"),
        pytest.param(6_000, 3_000, 6_000, HOUR_S, 2, HOUR_S, id="daily turnover at the share"),
        pytest.param(6_001, 3_000, 6_000, HOUR_S, 3, DAY_S, id="daily turnover one bp below the share"),
        pytest.param(7_000, None, None, HOUR_S, 1, 0, id="no limit"),
        pytest.param(7_000, 2_000, 500, 0, 14, 13 * DAY_S, id="daily turnover below turnover"),
        pytest.param(0, 500, 2_000, HOUR_S, 0, 0, id="nothing to return"),
        pytest.param(7_000, 0, 2_000, HOUR_S, 0, 0, id="turnover of zero"),
    ],
)
def test_each_limit_bounds_the_shortest_return(
    share_bps: int, turnover_bps: int | None, daily_bps: int | None, cooldown_s: int, count: int, duration_s: int
) -> None:
    assert shortest_buy_back(share_bps, turnover_bps, daily_bps, cooldown_s) == (count, duration_s)
