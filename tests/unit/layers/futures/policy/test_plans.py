"""Tests of agent/layers/futures/policy/plans.py: the margin account's place, spenders, and gas of emergencies."""

from __future__ import annotations

from dataclasses import replace

import pytest

from agent.layers.futures.policy.plans import (
    emergency_gas_per_day_wei,
    emergency_gas_price_limit_wei,
    gas_price_limit_wei,
    place_name,
    spenders,
)
from agent.layers.futures.state import with_policy
from agent.model import MARGIN_PLACE
from agent.model.futures import FuturesPlan
from tests.support.builders import GWEI
from tests.support.perpetuals.needs import VAULT
from tests.support.perpetuals.steps import EMPTY, FUTURES_POLICY, LIMITS, OVER, step_of
from tests.support.plans import proposed_plan

STEP = step_of(EMPTY)


def test_margin_place_is_named_with_futures_alone() -> None:
    assert place_name(STEP) == MARGIN_PLACE
    assert place_name(with_policy(STEP, None)) == ""


@pytest.mark.parametrize(
    ("policy", "names"),
    [
        pytest.param(replace(FUTURES_POLICY, vault=VAULT), {VAULT: "futures vault"}, id="vault"),
        pytest.param(FUTURES_POLICY, {}, id="off-chain venue"),
        pytest.param(None, {}, id="no futures"),
    ],
)
def test_spenders_are_the_vault(policy: object, names: dict[str, str]) -> None:
    assert spenders(with_policy(STEP, policy)) == names  # type: ignore[arg-type]  # a policy or none


@pytest.mark.parametrize(
    ("own_wei", "general_wei", "limit_wei"),
    [
        pytest.param(0, 20 * GWEI, 100 * GWEI, id="five times the general one"),
        pytest.param(7 * GWEI, 20 * GWEI, 7 * GWEI, id="its own"),
        pytest.param(0, None, None, id="none"),
    ],
)
def test_gas_price_of_an_emergency_is_its_own_or_a_multiple(own_wei: int, general_wei: int | None, limit_wei: int | None) -> None:
    limits = replace(STEP.limits, gas_price_wei=general_wei)

    assert emergency_gas_price_limit_wei(replace(LIMITS, emergency_gas_price_wei=own_wei), limits) == limit_wei


@pytest.mark.parametrize(("own_wei", "limit_wei"), [(0, 5), (7, 7)], ids=["general", "own"])
def test_gas_per_day_of_emergencies_is_their_own_or_the_general(own_wei: int, limit_wei: int) -> None:
    limits = replace(STEP.limits, gas_per_day_wei=5)

    assert emergency_gas_per_day_wei(replace(LIMITS, emergency_gas_per_day_wei=own_wei), limits) == limit_wei


@pytest.mark.parametrize(
    ("is_emergency", "has_futures", "limit_wei"),
    [
        pytest.param(True, True, 5 * GWEI, id="emergency"),
        pytest.param(False, True, 2 * GWEI, id="reduction"),
        pytest.param(True, False, 2 * GWEI, id="no futures"),
    ],
)
def test_gas_price_limit_of_a_plan_is_wider_in_an_emergency(is_emergency: bool, has_futures: bool, limit_wei: int) -> None:
    step = replace(step_of(OVER), limits=replace(STEP.limits, gas_price_wei=GWEI))
    plan = proposed_plan(step)
    plan = plan.with_layer(replace(plan.layer(FuturesPlan), is_emergency=is_emergency))

    assert gas_price_limit_wei(step if has_futures else with_policy(step, None), plan, 2 * GWEI) == limit_wei
    assert gas_price_limit_wei(step, replace(plan, layers=()), 2 * GWEI) == 2 * GWEI
