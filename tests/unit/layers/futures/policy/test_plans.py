"""Tests of agent/layers/futures/policy/plans.py: gas of emergencies."""

from __future__ import annotations

from dataclasses import replace

from agent.layers.futures.policy.plans import emergency_gas_per_day_wei, emergency_gas_price_limit_wei
from tests.support.builders import GWEI, with_limits
from tests.support.perpetuals.steps import EMPTY, LIMITS, step_of


def test_gas_of_emergencies__own_limit_replaces_the_general_one() -> None:
    step = step_of(EMPTY)
    assert emergency_gas_per_day_wei(replace(LIMITS, emergency_gas_per_day_wei=7), step.limits) == 7


def test_gas__emergency_ceiling_is_a_multiple_of_the_general() -> None:
    step = with_limits(step_of(EMPTY), gas_price_wei=20 * GWEI)
    assert emergency_gas_price_limit_wei(LIMITS, step.limits) == 100 * GWEI
