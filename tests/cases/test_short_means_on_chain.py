"""A pushed, passing or missing short TWAP on the real contracts: rebalances may wait, exits act (threats T3, T20, T29)."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import pytest

from agent.app.agent import Agent
from agent.app.money import shutdown
from agent.execution.step_context import OutcomeKind, StepOutcome
from agent.localchain import LocalChain
from agent.model import PriceSource
from agent.reference import price_inputs, reference_prices
from agent.reference.prices import short_mean_prices, short_mean_rejection
from agent.units import floor_int
from tests.support.agents import ROOMY, agent_on, fund, require_rebalance, yes
from tests.support.text import mentions

POOL = "v3 WETH/USDC 500"
ONE_POOL = {**ROOMY, "venues.uniswap_v2.pools": [], "venues.uniswap_v3.fee_tiers": [500], "portfolio.max_live_value": "off"}
TARGETS = {"WETH": "50%", "USDC": "50%"}
HELD_USD = {"WETH": 8_000, "USDC": 4_000}


def push(chain: LocalChain, symbol: str, dollars: int, held_s: int) -> None:
    """Sell that much into the pool, leave it there for so long, and restore the price."""
    chain.swap(POOL, symbol, int(dollars / chain.deployed_world.prices_usd[symbol] * 10 ** chain.tokens[symbol].decimals))
    chain.warp(held_s, refresh_feeds=False)
    chain.arbitrage(chain.deployed_world.pool_by_name[POOL])


def short_off_bps(agent: Agent, symbol: str = "WETH") -> float:
    """Return how far the short mean of a token is above its reference price."""
    step = agent.step_input()
    address = next(asset.token.address for asset in step.portfolio.assets if asset.token.label == symbol)
    price = reference_prices(step).price_by_token[address]
    return float((short_mean_prices(price_inputs(step))[address] / price - 1) * 10_000)


def refusal(outcome: StepOutcome) -> str:
    assert outcome.kind is OutcomeKind.REFUSED, outcome.reason
    return outcome.reason


@pytest.mark.parametrize(("symbol", "sign"), [("WETH", -1), ("USDC", 1)], ids=["pushed down", "pushed up"])
def test_push_held_for_minutes_holds_back_rebalances_and_no_exit(chain: LocalChain, tmp_path: Path, symbol: str, sign: int) -> None:
    fund(chain, HELD_USD)
    push(chain, symbol, 2_000_000 * 6, 240)
    with agent_on(chain, tmp_path, ONE_POOL, TARGETS) as agent:
        assert short_off_bps(agent) * sign > 150
        waiting = agent.rebalance(send=True, confirm=yes)
        assert mentions(refusal(waiting), "short TWAP of WETH against its reference price")
        ended = shutdown.stop(agent, to_stable=True, send=True, confirm=lambda _: True)
        assert chain.balance("WETH") == 0, ended


def test_stop_loss_fires_while_the_short_mean_contradicts(chain: LocalChain, tmp_path: Path) -> None:
    fund(chain, {"WETH": 5_000, "USDC": 5_000})
    price_usd = chain.deployed_world.prices_usd["WETH"]
    stop = {"portfolio.assets.0.stop_loss": str(floor_int(price_usd * 98 / 100))}
    with agent_on(chain, tmp_path, {**ONE_POOL, **stop}, TARGETS) as agent:
        assert agent.rebalance(send=True, confirm=yes).kind is OutcomeKind.HOLD
        chain.move_market({"WETH": price_usd * 975 / 1_000})
        push(chain, "WETH", 6_000_000, 240)
        assert short_off_bps(agent) < -150
        sold = agent.rebalance(send=True, confirm=yes)
        assert (sold.kind, chain.balance("WETH")) == (OutcomeKind.DONE, 0), sold.reason


def test_short_mean_forgets_a_push_within_its_window(chain: LocalChain, tmp_path: Path) -> None:
    fund(chain, HELD_USD)
    push(chain, "WETH", 12_000_000, 240)
    chain.warp(300, refresh_feeds=False)
    with agent_on(chain, tmp_path, ONE_POOL, TARGETS) as agent:
        assert abs(short_off_bps(agent)) < 2
        assert agent.rebalance(send=True, confirm=yes).kind is OutcomeKind.DONE


def test_push_of_one_block_holds_nothing_back(chain: LocalChain, tmp_path: Path) -> None:
    """Twelve seconds of a price 5 % off move a mean of five minutes by a fifth of a percent."""
    fund(chain, HELD_USD)
    push(chain, "WETH", 10_000_000, 12)
    with agent_on(chain, tmp_path, ONE_POOL, TARGETS) as agent:
        assert -40 < short_off_bps(agent) < -10
        assert agent.rebalance(send=True, confirm=yes).kind is OutcomeKind.DONE


def test_pool_that_forgets_leaves_the_feed_to_decide(chain: LocalChain, tmp_path: Path) -> None:
    """It keeps one observation, younger than both windows: it says so, and rebalance and stop loss act as without a short mean."""
    pool = chain.add_v3_pool("LINK", "USDC", 500, observation_count=1)
    chain.mint_positions(pool, [(-887_200, 887_200, 10**18)])
    fund(chain, {"LINK": 5_000, "WETH": 2_000, "USDC": 3_000})
    changes = {
        **ROOMY,
        "venues.uniswap_v2": None,
        "venues.uniswap_v3.pools": [pool.address, chain.address_by_pool[POOL]],
        "portfolio.assets.0.stop_loss": "14",
    }
    with agent_on(chain, tmp_path, changes, {"LINK": "40%", "WETH": "20%", "USDC": "40%"}) as agent:
        chain.swap(pool.name, "LINK", 50 * 10**18)
        step = agent.step_input()
        state = next(state for state in step.snapshot.pools if state.address == pool.address)
        assert PriceSource.TWAP in step.reference.sources
        assert "less than 300 s old, it keeps 1: run trimtab oracle" in short_mean_rejection(step.snapshot, step.reference, state)
        require_rebalance(agent)
        chain.move_market({"LINK": Fraction(27, 2)}, twap_follows=False)
        sold = agent.rebalance(send=True, confirm=yes)
        assert (sold.kind, chain.balance("LINK")) == (OutcomeKind.DONE, 0), sold.reason
