"""T1: whoever moves pools before the snapshot and back afterwards takes no more from the portfolio than its limits say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path

import pytest

from agent.execution.step_context import OutcomeKind
from agent.localchain import LocalChain
from agent.units import BPS
from tests.support.agents import agent_on, fund, loss_usd, purse, require_rebalance, yes
from tests.support.markets.skewed_pools import HELD, ONLY_FLOORS, attack_outcomes, heal_pools, most_lost, sizes, skew_pools, step
from tests.support.samples import slow

NO_ORACLE = {**ONLY_FLOORS, "limits.oracle_deviation": "off"}
"""Not even the oracle guard: floors and plan_cost alone."""
LARGE = ("0.1", "1", "10")


@sizes
@pytest.mark.parametrize(
    ("pool", "sold"),
    [*slow([("v3 WETH/USDC 500", "WETH"), ("v3 WETH/USDC 500", "USDC")]), ("v2 WETH/USDC", "USDC")],
)
def test_a_whale_that_skews_one_pool_of_many_and_unwinds(
    anvil_chain: LocalChain, tmp_path: Path, pool: str, sold: str, sizes: Sequence[str]
) -> None:
    with agent_on(anvil_chain, tmp_path, ONLY_FLOORS) as agent:
        ends = attack_outcomes(anvil_chain, agent, sizes, [pool], sold)
        assert ends["0.001"] is OutcomeKind.DONE
        assert ends["10"] is OutcomeKind.REFUSED


@sizes
@pytest.mark.parametrize("sold", ["WETH", pytest.param("USDC", marks=pytest.mark.slow)])
def test_whale_in_the_only_pool__meets_floors_and_plan_cost(chain: LocalChain, tmp_path: Path, sold: str, sizes: Sequence[str]) -> None:
    """The wallet's WETH above target must be sold through this pool or not at all."""
    alone = {"venues.uniswap_v2": None, "venues.uniswap_v3.pools": [chain.address_by_pool["v3 WETH/USDC 500"]]}
    with agent_on(chain, tmp_path, {**NO_ORACLE, **alone}, {"WETH": "50%", "USDC": "50%"}) as agent:
        ends = attack_outcomes(chain, agent, sizes, ["v3 WETH/USDC 500"], sold, {"WETH": 60_000, "USDC": 30_000})
        assert ends["0.001"] is OutcomeKind.DONE
        if sold == "WETH":  # the price of what we sell is pushed down: a bad one is never taken
            assert {ends[size] for size in sizes if size in LARGE} == {OutcomeKind.REFUSED}


@sizes
@pytest.mark.parametrize("sold", [pytest.param("WETH", marks=pytest.mark.slow), "USDC"])
def test_a_whale_that_skews_several_pools_at_once_and_unwinds(
    anvil_chain: LocalChain, tmp_path: Path, sold: str, sizes: Sequence[str]
) -> None:
    pools = ["v3 WETH/USDC 500", "v3 WETH/USDC 3000", "v2 WETH/USDC"]
    with agent_on(anvil_chain, tmp_path, ONLY_FLOORS) as agent:
        ends = attack_outcomes(anvil_chain, agent, sizes, pools, sold)
        assert ends["0.001"] is OutcomeKind.DONE
        assert {ends[size] for size in sizes if size in LARGE} == {OutcomeKind.REFUSED}


@pytest.mark.parametrize("every", [2, pytest.param(1, marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    "moves",
    [
        *slow([{"WETH": "-1.4"}, {"WBTC": "1.4", "LINK": "1.4", "WETH": "1.4"}]),
        {"WBTC": "0.7", "LINK": "-0.7", "USDT": "-0.5"},
    ],
    ids=str,
)
def test_feeds_that_lag_within_the_limit__cost_only_the_lag(
    chain: LocalChain, tmp_path: Path, moves: Mapping[str, str], every: int
) -> None:
    """The market moved by up to 1.5 % and no feed said so; a whale skews a pool on top, against us either way."""
    lag = Fraction(150, BPS)
    with agent_on(chain, tmp_path, ONLY_FLOORS) as agent:
        fund(chain, HELD)
        usd = chain.deployed_world.prices_usd
        chain.move_market({s: usd[s] * (1 + Fraction(p) / 100) for s, p in moves.items()}, twap_follows=False, feeds_follow=False)
        done = 0
        for sold, size in (("WETH", "0.001"), ("WETH", "0.01"), ("USDC", "0.01"), ("USDC", "0.001"))[::every]:
            with skew_pools(chain, ["v3 WETH/USDC 500"], sold, size):
                outcome, before = step(chain, agent)
            loss = loss_usd(chain, before, chain.deployed_world.prices_usd)
            if outcome.kind is OutcomeKind.DONE:
                assert loss <= most_lost(chain, outcome, lag)
                done += 1
            else:
                assert outcome.kind is OutcomeKind.REFUSED, outcome.reason
                assert loss == 0
            heal_pools(chain, ["v3 WETH/USDC 500"])
        assert done > 0, "not one step was taken, so nothing was shown"


def test_real_move_ahead_of_feeds_and_means__waits(chain: LocalChain, tmp_path: Path) -> None:
    """Spot moved by 5 %, feeds not: nothing is traded at prices that may be false; once feeds and means follow, it is."""
    with agent_on(chain, tmp_path, ONLY_FLOORS) as agent:
        fund(chain, HELD)
        before = purse(chain)
        price = chain.deployed_world.prices_usd["WETH"] * Fraction(105, 100)
        chain.move_market({"WETH": price}, twap_follows=False, feeds_follow=False)
        waits = require_rebalance(agent, OutcomeKind.REFUSED)
        assert "oracle_deviation" in waits.reason
        assert purse(chain) == before
        chain.move_market({"WETH": price})
        assert agent.rebalance(send=True, confirm=yes).kind is OutcomeKind.DONE
