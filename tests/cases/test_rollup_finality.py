"""Whole steps with a finality tag on a real node: settled once the block has the tag, while trades go on."""

from __future__ import annotations

from pathlib import Path

from agent.execution.step_context import OutcomeKind
from agent.localchain import LocalChain
from agent.model import IntentState
from tests.support.agents import ROOMY, agent_on, fund, purse, require_rebalance, yes

TARGETS = {"WETH": "50%", "USDC": "50%"}


def test_rebalance__is_settled_once_its_block_is_finalized(chain: LocalChain, tmp_path: Path) -> None:
    fund(chain, {"WETH": 6_000, "USDC": 4_000})
    with agent_on(chain, tmp_path, ROOMY | {"chain.finality": "finalized", "policy.cooldown": "1s"}, TARGETS) as agent:
        journal = agent.context.store.journal

        def states() -> set[IntentState]:
            return {intent.state for intent in journal.intents()}

        before = purse(chain)
        outcome = require_rebalance(agent)
        assert len(outcome.transactions) > 1, "the swap did not wait for the approval's finality"
        assert states() == {IntentState.MINED}
        losses = agent.context.store.budgets.history(chain.now_s()).budgets
        assert losses.gas_24h_wei == before.native_wei - purse(chain).native_wei, "gas counts at once"
        require_rebalance(agent, OutcomeKind.HOLD)
        assert states() == {IntentState.MINED}
        chain.transport.call("anvil_mine", [hex(128)])
        assert agent.rebalance(send=True, confirm=yes).kind is OutcomeKind.HOLD
        assert states() == {IntentState.FINAL}
        assert agent.context.store.budgets.history(chain.now_s()).budgets.gas_24h_wei == losses.gas_24h_wei
