"""A wallet that was also used by hand: the agent stops, and goes on when its owner says so."""

from __future__ import annotations

from pathlib import Path

from agent.errors import OperatorNeeded
from agent.execution.resumption import new_cycle
from agent.execution.step_context import OutcomeKind
from agent.localchain import LocalChain
from agent.model import AgentCycle
from tests.support.agents import ROOMY, agent_on, fund, yes
from tests.support.text import raises_code


def test_foreign_transaction__stops_until_the_nonce_is_adopted(chain: LocalChain, tmp_path: Path) -> None:
    fund(chain, {"WETH": 60_000, "USDC": 30_000})
    with agent_on(chain, tmp_path, ROOMY, {"WETH": "50%", "USDC": "50%"}) as agent:
        assert agent.rebalance(send=True, confirm=yes).kind is OutcomeKind.DONE
        before = chain.w3.eth.get_transaction_count(chain.wallet.address)
        chain.send(chain.token_contract("USDC").functions.transfer(chain.whale.address, 7), chain.wallet.address)
        for _ in range(2):
            with raises_code(OperatorNeeded, "foreign_nonce", "trimtab adopt"):
                agent.rebalance(send=True, confirm=yes)
        assert agent.resync_nonce() == before + 1
        assert agent.rebalance(send=True, confirm=yes).kind is OutcomeKind.HOLD


def test_adopted_nonce__closes_an_ended_process_s_cycle(anvil_chain: LocalChain, tmp_path: Path) -> None:
    """What that cycle confirmed was meant for a wallet of which the store knew every transaction."""
    with agent_on(anvil_chain, tmp_path) as agent:
        cycles = agent.context.store.cycles
        cycles.write(new_cycle(AgentCycle(), anvil_chain.now_s()))
        agent.resync_nonce()
        assert cycles.find_open_cycle() is None
