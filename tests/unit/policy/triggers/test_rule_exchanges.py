"""Shares between which an asset is not traded: what its exchange with the numeraire and those with other assets allow."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.policy.triggers.rule_exchanges import RuleExchange, TradedRange, traded_range

SHARE = Fraction(30, 100)
POINT_PPM = 10_000


def exchange(points: int, edge: int, trigger: int) -> RuleExchange:
    """An exchange that deviates by these points, with its widths in points."""
    return RuleExchange("0xOther", Fraction(points, 100), edge * POINT_PPM, trigger * POINT_PPM)


def in_points(shares: TradedRange) -> tuple[Fraction, ...]:
    return tuple(part * 100 for part in (shares.trigger_low, shares.low, shares.high, shares.trigger_high))


@pytest.mark.parametrize(
    ("pair", "points"),
    [
        pytest.param(exchange(0, 9, 12), (22, 26, 34, 38), id="a wider one changes nothing"),
        pytest.param(exchange(0, 2, 3), (27, 28, 32, 33), id="a narrower one narrows"),
        pytest.param(exchange(5, 2, 3), (22, 26, 27, 28), id="too much beside the other"),
        pytest.param(exchange(-5, 2, 3), (32, 33, 34, 38), id="too little beside the other"),
        pytest.param(exchange(20, 2, 3), (22, 26, 26, 26), id="ranges that do not meet end at the nearer edge"),
        pytest.param(exchange(-20, 2, 3), (34, 34, 34, 38), id="the same on the other side"),
    ],
)
def test_another_exchange_narrows_the_range(pair: RuleExchange, points: tuple[int, ...]) -> None:
    """The exchange with the numeraire is on target: edges of 4 and triggers of 8 points around 30 %."""
    assert in_points(traded_range(SHARE, [exchange(0, 4, 8), pair])) == points


exchanges = st.builds(
    lambda points, edge, more: exchange(points, edge, edge + more), st.integers(-40, 40), st.integers(0, 20), st.integers(0, 20)
)


@given(st.lists(exchanges, min_size=1, max_size=4))
def test_range_is_in_order_and_within_the_first(drawn: list[RuleExchange]) -> None:
    alone = traded_range(SHARE, drawn[:1])
    together = traded_range(SHARE, drawn)
    assert alone.trigger_low <= together.trigger_low <= together.low <= together.high <= together.trigger_high <= alone.trigger_high
