"""What a look writes down of prices: once an hour, what the blocks before confirm, and nothing where they cannot be read."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from agent.app.agent import Agent
from agent.errors import Retryable
from agent.execution.bookkeeping import record_hourly_prices
from agent.execution.step_context import StepReaders
from agent.localchain import LocalChain
from agent.model import Head, PastPrices
from tests.support.agents import ROOMY, agent_on, fund

TARGETS = {"WETH": "50%", "USDC": "50%"}
CONFIRMED = ROOMY | {"reference.kind": ["spot"], "policy.confirm_blocks": 2}
POOL = "v3 WETH/USDC 500"


def recorded_prices(agent: Agent) -> list[Fraction]:
    """Stored prices of WETH in dollars, oldest first."""
    portfolio = agent.portfolio
    weth = portfolio.assets[0].token
    price_points = agent.context.store.prices.prices_between(portfolio.numeraire.address, 0, 2**40)
    return [point.price * 10**12 for point in price_points if point.token == weth.address]


def test_a_pool_that_is_pushed_for_one_block_leaves_no_mark(chain: LocalChain, tmp_path: Path) -> None:
    with agent_on(chain, tmp_path, CONFIRMED, TARGETS) as agent:
        fund(chain, {"WETH": 5_000, "USDC": 5_000})
        chain.mine(3)
        chain.swap(POOL, "WETH", 600 * 10**18)
        outcome = agent.rebalance()
        spot = outcome.decision_result.references.reference_by_token[agent.portfolio.assets[0].token.address].price * 10**12
        (spans,) = recorded_prices(agent)
        fair = chain.deployed_world.prices_usd["WETH"]
        assert spot < fair * Fraction(998, 1000), float(spot)  # the pool was pushed
        assert abs(spans / fair - 1) < Fraction(1, 10_000), float(spans)


def test_each_hour_has_one_price_however_often_the_agent_looks(chain: LocalChain, tmp_path: Path) -> None:
    with agent_on(chain, tmp_path, CONFIRMED, TARGETS) as agent:
        fund(chain, {"WETH": 5_000, "USDC": 5_000})
        chain.mine(3)
        for _ in range(3):
            agent.rebalance()
        assert len(recorded_prices(agent)) == 1
        agent.plan()
        agent.status()
        chain.warp(3_600)
        chain.mine(3)
        agent.plan()
        assert len(recorded_prices(agent)) == 1, "a plan writes nothing"
        agent.rebalance()
        assert len(recorded_prices(agent)) == 2


@pytest.mark.parametrize("why", ["unanswered", "too few"])
def test_unreadable_earlier_blocks__write_nothing_and_fail_nothing(chain: LocalChain, tmp_path: Path, why: str) -> None:
    with agent_on(chain, tmp_path, CONFIRMED, TARGETS) as agent:
        fund(chain, {"WETH": 5_000, "USDC": 5_000})
        chain.mine(3)
        step = agent.step_input()
        readers = agent.context.readers

        class Poor:
            """A reader that says too little of the past."""

            def snapshot(self) -> Any:
                return step.snapshot

            def past_prices(self, head: Head, blocks: int) -> tuple[PastPrices, ...]:
                if why == "unanswered":
                    raise Retryable("no endpoint answers")
                return readers.reader.past_prices(head, blocks)[:1]

        poor: StepReaders = replace(readers, reader=Poor())
        record_hourly_prices(poor, step, agent.context.store.prices)
        assert recorded_prices(agent) == []
        record_hourly_prices(readers, step, agent.context.store.prices)
        assert len(recorded_prices(agent)) == 1
