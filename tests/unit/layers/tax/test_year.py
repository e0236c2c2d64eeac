"""The gain of a plan against what is left of the year's limit."""

from __future__ import annotations

from fractions import Fraction

import pytest

from agent.accounting.tax_lots import PlannedGain
from agent.layers.tax.year import is_within_year
from tests.support.builders import address
from tests.support.taxes import overweight_step, rebalance_plan
from tests.support.tokens import WETH


def planned_gain(token: str, gain: int) -> PlannedGain:
    return PlannedGain(token, 1, Fraction(gain), Fraction(0), None, None, 0)


@pytest.mark.parametrize(
    ("gas_gain", "unused_gain", "is_within"),
    [
        pytest.param(-2, -10, True, id="no gain, in a year that is exceeded"),
        pytest.param(-1, -10, False, id="a unit of gain, in a year that is exceeded"),
        pytest.param(-1, 1, True, id="all that is left"),
        pytest.param(0, 1, False, id="a unit more than is left"),
    ],
)
def test_sale_with_a_gain_of_two_stays_within_the_year(gas_gain: int, unused_gain: int, is_within: bool) -> None:
    step = overweight_step(None)
    plan = rebalance_plan(step)
    gains = (planned_gain(WETH.address, 2), planned_gain(address("gas"), gas_gain))
    assert is_within_year(step.portfolio, plan, gains, Fraction(unused_gain)) is is_within
