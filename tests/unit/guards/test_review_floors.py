"""Limits may be off one by one, but something always bounds the price of a plan that is sent (T1, T4)."""

from __future__ import annotations

import pytest

from tests.support.builders import step_input, with_limits
from tests.support.plans import sell_weth, verdict


def test_with_slippage_and_impact_both_off_no_plan_is_sent() -> None:
    """All that was left of the minimum was one base unit."""
    step = with_limits(step_input(), slippage_bps=None, price_impact_bps=None)
    judged = verdict("fair_floor", step, sell_weth(step))
    assert not judged.passed
    assert "both off" in judged.measured_text


@pytest.mark.parametrize("limit_name", ["slippage_bps", "price_impact_bps"])
def test_one_of_them_may_be_off(limit_name: str) -> None:
    step = with_limits(step_input(), **{limit_name: None})
    assert verdict("fair_floor", step, sell_weth(step)).passed
