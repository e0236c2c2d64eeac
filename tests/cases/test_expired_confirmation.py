"""A yes that comes after its plan has expired confirms nothing: no approval, no swap (T14)."""

from __future__ import annotations

from pathlib import Path

from agent.config.build import EXPIRE_BLOCKS
from agent.execution.step_context import OutcomeKind
from agent.localchain import LocalChain
from agent.localchain.nodes import AnvilNode
from tests.support.agents import ROOMY, agent_on, fund, meanwhile, purse, swap_of, yes

TARGETS = {"WETH": "50%", "USDC": "50%"}


def test_answer_after_the_plan_s_expiry__sends_no_approval(chain: LocalChain, tmp_path: Path) -> None:
    assert isinstance(chain.node, AnvilNode)
    fund(chain, {"WETH": 60_000, "USDC": 30_000})
    with agent_on(chain, tmp_path, ROOMY, TARGETS) as agent:
        before = purse(chain)
        outcome = agent.rebalance(send=True, confirm=meanwhile(lambda: chain.node.mine(EXPIRE_BLOCKS + 1)))
        assert outcome.kind is OutcomeKind.REFUSED
        assert [verdict.guard for verdict in outcome.refusal_verdicts] == ["expiry"]
        assert purse(chain) == before
        assert not agent.context.store.journal.intents()
        swap_of(agent.rebalance(send=True, confirm=yes))
