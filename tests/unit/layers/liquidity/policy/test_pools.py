"""Tests of agent/layers/liquidity/policy/pools.py: pools with a target, and what exits leave in them."""

from __future__ import annotations

from dataclasses import replace

import pytest

from agent.layers.liquidity.policy.pools import is_in_targeted_pool, pooled_tokens, pools_hold, position_spenders, without_targets
from agent.model import LpTarget
from agent.policy.drift import compute_drifts
from tests.support.lp_worlds import MANAGER, PRICES, TOKENS, Place, lp_target, paired, ranged, v2_at, world
from tests.support.tokens import WBTC, WETH


@pytest.mark.parametrize(
    ("position", "target", "is_in"),
    [
        pytest.param(ranged(100, 1_800, 2_200), lp_target(0), True, id="a range"),
        pytest.param(ranged(1, 1_800, 2_200, liquidity=1), lp_target(0), True, id="one unit of a range"),
        pytest.param(ranged(1, 1_800, 2_200, liquidity=0), lp_target(0), False, id="an empty range"),
        pytest.param(ranged(100, 1_800, 2_200), lp_target(0, v2_at()), False, id="a range, target of the pair"),
        pytest.param(paired(100), lp_target(0, v2_at()), True, id="a pair"),
        pytest.param(paired(0), lp_target(0, v2_at()), False, id="an empty pair"),
        pytest.param(paired(100), lp_target(0), False, id="a pair, target of the range"),
    ],
)
def test_token_is_in_a_targeted_pool_with_liquidity(position: Place, target: LpTarget, is_in: bool) -> None:
    step = world([position], [target])

    assert is_in_targeted_pool(step.snapshot, step.portfolio, WETH.address) is is_in
    assert not is_in_targeted_pool(step.snapshot, step.portfolio, WBTC.address)


@pytest.mark.parametrize(("excess", "holds"), [(0, True), (1, False)], ids=["as much", "one unit more"])
def test_pools_hold_at_least_the_value(excess: int, holds: bool) -> None:
    step = world([ranged(100, 1_800, 2_200)], [lp_target(0)])
    [drift] = [drift for drift in compute_drifts(step, PRICES) if drift.token == WETH.address]
    pooled_value = drift.raw_at("positions") * drift.price

    assert pooled_value > 0
    assert pools_hold(step, drift, pooled_value + excess) is holds
    assert not pools_hold(replace(step, portfolio=replace(step.portfolio, lp_targets=())), drift, pooled_value)


@pytest.mark.parametrize(
    ("excluded_tokens", "share_bps"),
    [
        pytest.param((), 2_000, id="none"),
        pytest.param(TOKENS[:1], 0, id="token0"),
        pytest.param(TOKENS[1:], 0, id="token1"),
        pytest.param((WBTC.address,), 2_000, id="another"),
    ],
)
def test_excluded_tokens_leave_their_targets_without_a_share(excluded_tokens: tuple[str, ...], share_bps: int) -> None:
    portfolio = world(targets=[lp_target(2_000)]).portfolio

    assert [target.share_bps for target in without_targets(portfolio, excluded_tokens).lp_targets] == [share_bps]


def test_pooled_tokens_are_those_of_positions_and_targets() -> None:
    assert pooled_tokens(world([paired(1)]).portfolio) == pooled_tokens(world(targets=[lp_target(1)]).portfolio) == set(TOKENS)
    assert pooled_tokens(world().portfolio) == set()


def test_spenders_are_the_position_contracts_with_their_roles() -> None:
    execution = replace(world().execution, contract_by_venue=(("uniswap_v2", "R"), ("uniswap_v3", MANAGER)))

    assert position_spenders(execution) == {"R": "V2 router", MANAGER: "position manager"}
