"""T3 with the order of blocks in our hand: liquidity that is there for a block and pushes of two blocks fire nothing, a crash does.

By spot alone, the source that any push moves at once, so that nothing but the blocks before stands in the way; and by feeds and means.
"""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import pytest

from agent.amm.v3.pool import V3Pool
from agent.app.agent import Agent
from agent.artifacts import npm_artifact
from agent.execution.step_context import OutcomeKind
from agent.localchain import LocalChain
from agent.localchain.chain import V3_POOL_ARTIFACT
from agent.model import Hold, Rebalance
from tests.support.agents import ROOMY, agent_on, fund, off_target, purse, require_rebalance, yes
from tests.support.markets.spot_prices import BLOCKS, POOL, push, spot_price_config
from tests.support.text import mentions

TARGETS = {"WETH": "50%", "USDC": "50%"}


def hold_reason(agent: Agent) -> str:
    """Why it holds."""
    outcome = require_rebalance(agent, OutcomeKind.HOLD)
    assert isinstance(outcome.decision, Hold)
    return outcome.reason


@pytest.mark.parametrize("stays", [*(pytest.param(blocks, marks=pytest.mark.slow) for blocks in (1, 2)), 3])
def test_push_for_too_few_blocks__fires_nothing(chain: LocalChain, tmp_path: Path, stays: int) -> None:
    fund(chain, {"WETH": 5_000, "USDC": 5_000})
    chain.mine(BLOCKS + 1)
    with agent_on(chain, tmp_path, spot_price_config(chain, POOL), TARGETS) as agent:
        before = purse(chain)
        assert mentions(hold_reason(agent), "closest", "bands")
        received_raw = push(chain, 40_000_000)
        chain.mine(stays - 1)
        first = chain.w3.eth.block_number - stays
        assert mentions(hold_reason(agent), f"{first}", "policy.confirm_blocks")
        chain.swap(POOL, "WETH", received_raw)
        assert mentions(hold_reason(agent), "closest", "bands")
        assert purse(chain) == before
    with agent_on(chain, tmp_path / "trusting", spot_price_config(chain, POOL, blocks=0), TARGETS) as trusting:
        push(chain, 40_000_000)
        assert isinstance(trusting.status().decision_result.decision, Rebalance)  # one block would have been enough


def test_liquidity_of_one_block__fires_nothing_and_lasting_does(chain: LocalChain, tmp_path: Path) -> None:
    """An empty pool at twice the price is filled with ten times the depth of the true one: by depth the price nearly doubles."""
    flash = chain.add_v3_pool("WETH", "USDC", 10_000, chain.pool_price(*_order(chain)) * _twice(chain))
    fund(chain, {"WETH": 5_000, "USDC": 5_000})
    chain.mine(BLOCKS + 1)
    with agent_on(chain, tmp_path, spot_price_config(chain, POOL, flash.name), TARGETS) as agent:
        before = purse(chain)
        assert mentions(hold_reason(agent), "closest", "bands")
        mark = chain.snapshot()
        _flash(chain, flash.name)
        assert "policy.confirm_blocks" in hold_reason(agent)
        chain.mine(1)
        assert "policy.confirm_blocks" in hold_reason(agent)
        assert purse(chain) == before
        chain.mine(BLOCKS - 1)
        assert isinstance(agent.status().decision_result.decision, Rebalance)
        chain.revert(mark)


def _flash(chain: LocalChain, pool: str) -> None:
    """Far more liquidity than the true pool has, close around the false price."""
    tick = chain.contract(chain.address_by_pool[pool], npm_artifact(V3_POOL_ARTIFACT)).functions.slot0().call()[1] // 200 * 200
    chain.mint_positions(chain.deployed_world.pool_by_name[pool], [(tick - 400, tick + 600, 3 * 10**19)])


def _order(chain: LocalChain) -> tuple[str, str]:
    first, second = sorted(("WETH", "USDC"), key=lambda symbol: int(chain.tokens[symbol].address, 16))
    return first, second


def _twice(chain: LocalChain) -> Fraction:
    return Fraction(2) if _order(chain)[0] == "WETH" else Fraction(1, 2)


def test_a_crash_that_stays_is_acted_on_once_it_is_confirmed(chain: LocalChain, tmp_path: Path) -> None:
    """By feeds and means: the market fell by a third, the feeds say so in one block, and three blocks later it is acted on."""
    fund(chain, {"WETH": 50_000, "USDC": 50_000})
    changes = {**ROOMY, "policy.confirm_blocks": BLOCKS, "limits.price_impact": "2%"}
    with agent_on(chain, tmp_path, changes, TARGETS) as agent:
        chain.move_market({"WETH": 2_000}, feeds_follow=False)
        before = purse(chain)
        mistrusted = agent.rebalance(send=True, confirm=yes)  # the pools fell, the feeds did not: that is no price to act on
        assert mistrusted.kind in (OutcomeKind.HALT, OutcomeKind.HOLD, OutcomeKind.REFUSED)
        chain.refresh_feeds(["WETH", "USDC"])
        fired = [agent.status().decision_result.decision]
        for _ in range(BLOCKS):
            chain.mine(1)
            fired.append(agent.status().decision_result.decision)
        assert isinstance(fired[0], Hold), fired[0].reason
        assert "policy.confirm_blocks is 3" in fired[0].reason
        assert isinstance(fired[-1], Rebalance), fired[-1].reason
        assert purse(chain).raw == before.raw
        require_rebalance(agent)
        assert max(off_target(chain, TARGETS).values()) <= 20


def test_liquidity_of_two_blocks__gives_no_weight_in_the_mean(chain: LocalChain, tmp_path: Path) -> None:
    """By means alone and without confirmation: what a pool held over half an hour counts, not what it holds for 24 seconds."""
    flash = chain.add_v3_pool("WETH", "USDC", 10_000, chain.pool_price(*_order(chain)) * _twice(chain))
    chain.mint_positions(flash, [(-887_200, 887_200, 10**12)])
    fund(chain, {"WETH": 5_000, "USDC": 5_000})
    chain.warp(1_900)
    changes = {**spot_price_config(chain, POOL, flash.name, blocks=0), "reference.kind": ["twap"]}
    with agent_on(chain, tmp_path, changes, TARGETS) as agent:
        before = share_of_weth(agent)
        _flash(chain, flash.name)
        for _ in range(2):
            chain.warp(12)
            assert abs(share_of_weth(agent) - before) < Fraction(1, 10_000)
            assert isinstance(agent.status().decision_result.decision, Hold)
        spot = agent.context.position_reader.snapshot()
        deep = next(pool for pool in spot.pools if pool.address == flash.address)
        true = next(pool for pool in spot.pools if pool.address == chain.address_by_pool[POOL])
        assert isinstance(deep, V3Pool)
        assert isinstance(true, V3Pool)
        assert deep.liquidity > 3 * true.liquidity  # by spot it would be most of the market
        assert (deep.twap_liquidity or 0) < (true.twap_liquidity or 0) // 10_000


def share_of_weth(agent: Agent) -> Fraction:
    """By the reference prices of now."""
    return next(drift.share for drift in agent.status().decision_result.drifts if drift.symbol == "WETH")
