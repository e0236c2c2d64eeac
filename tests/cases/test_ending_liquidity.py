"""A bot that is stopped into the numeraire takes its liquidity out first, by the same guards and floors as any other action."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.app.money import shutdown
from agent.localchain import LocalChain
from agent.model import IntentKind
from tests.support import agents, lp_on_chain
from tests.support.agents import USD, purse
from tests.support.on_chain.liquidity import V2, V3, config_with_positions
from tests.support.samples import slow

TARGETS = {"WETH": "50%", "USDC": "50%"}


@pytest.mark.parametrize("gift", [2_000, *slow([0])])
def test_liquidity_goes_out_before_everything_is_sold(chain: LocalChain, tmp_path: Path, gift: int) -> None:
    agents.fund(chain, {"WETH": 4_000, "USDC": 4_000})
    own = [lp_on_chain.provide_v2(chain, V2, 1_000), lp_on_chain.provide_v3(chain, V3, -30, 30, 1_500)]
    with agents.agent_on(chain, tmp_path, config_with_positions(chain, own), TARGETS) as agent:
        agent.rebalance()
        chain.set_balance("USDC", chain.balance("USDC") + gift * USD)
        chain.mine(1)
        outcome = agent.rebalance()
        assert bool([flow for flow in outcome.step_input.history.cash_flows.unexplained_transfers if flow.blocks_trading]) is bool(gift)
        looked = shutdown.stop(agent, to_stable=True, confirm=lambda _: True)
        (first,) = looked.sale_outcomes
        assert first.plan is not None, looked.reason
        assert len(first.plan.layer_actions) == 2, looked.reason
        done = shutdown.stop(agent, to_stable=True, send=True, confirm=lambda _: True)
        assert done.state == "stopped", done.reason
        assert done.unpaid_holding_texts == (), done.reason
        kinds = [intent.kind for intent in done.transactions if intent.kind is not IntentKind.APPROVE]
        assert kinds[0] is kinds[1] is IntentKind.LIQUIDITY
        assert IntentKind.SWAP in kinds
        after = purse(chain)
        assert after.raw["WETH"] < 10**12
        assert after.raw["USDC"] > (10_300 + gift) * USD
        assert len(agent.step_input().history.cash_flows.unexplained_transfers) == bool(gift)
