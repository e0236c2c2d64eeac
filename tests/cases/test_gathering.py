"""Several tokens sold through one hub: they gather in the router and leave it in one leg, on both routers to the wei."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.localchain import LocalChain
from agent.model import LegPlace
from tests.support.agents import (
    ROOMY,
    agent_on,
    allowances,
    fund,
    off_target,
    require_exact_rebalance,
    skipped_text,
    swap_of,
)

TARGETS = {"LINK": "10%", "WBTC": "10%", "USDT": "80%", "USDC": "0%", "WETH": "0%"}


@pytest.mark.parametrize("router", ["swap_router_02", pytest.param("rebalancer", marks=pytest.mark.slow)])
def test_tokens_that_are_sold_through_a_hub_leave_it_together(chain: LocalChain, tmp_path: Path, router: str) -> None:
    fund(chain, {"LINK": 20_000, "WBTC": 20_000, "USDT": 10_000})
    with agent_on(chain, tmp_path, {**ROOMY, "execution.router": router}, TARGETS) as agent:
        plan, swap, receipt = swap_of(require_exact_rebalance(chain, agent))
        into = [leg for leg in plan.legs if leg.sink is LegPlace.ROUTER]
        out = [leg for leg in plan.legs if leg.source is LegPlace.ROUTER]
        assert {chain.tokens["LINK"].address, chain.tokens["WBTC"].address} <= {leg.token_in for leg in into}
        assert len(out) < len(into), "they gather at the hub"
        assert receipt.gas_used <= plan.gas_units <= receipt.gas_used * 11 // 10
        assert max(off_target(chain, TARGETS).values()) <= 10, skipped_text(plan.skipped)
        assert not any(chain.balance(symbol, swap.tx.to) for symbol in chain.tokens), "nothing stays in the router"
        assert not any(allowances(chain).values())
