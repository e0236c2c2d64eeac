"""The screen against deployed tokens and pools, on eth-tester and anvil: whatever one token does, the others are answered."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.api.setup import trust_now
from agent.chain.screen_moves import first_look
from agent.localchain import LocalChain
from agent.model import Finding
from tests.agents import FIVE, ROOMY, again, agent_on, fund
from tests.attacks import attack
from tests.cases.test_bad_tokens import turned_bad, with_guest


def test_the_tokens_of_the_world_move_what_they_are_told_to_in_one_request(local_chain: LocalChain, tmp_path: Path) -> None:
    chain = local_chain
    fund(chain, dict.fromkeys(FIVE, 0))
    with agent_on(chain, tmp_path, ROOMY, FIVE) as agent:
        step, line = agent.step_input(), agent.desk.line
        before = line.requests
        found = {one.token: one.finding for one in agent.desk.screen.screen(step, first_look(step))}
        assert line.requests == before + 1
    clean = dict.fromkeys((token.address for token in chain.tokens.values()), Finding.CLEAN)
    assert found == clean | {chain.tokens["USDT"].address: Finding.NO_RETURN_VALUE}


@pytest.mark.parametrize("wordy", [False, True])
def test_a_transfer_that_takes_all_gas_or_answers_a_megabyte_fails_alone(anvil_chain: LocalChain, tmp_path: Path, wordy: bool) -> None:
    """T10: the other three of the same call, and all the others, are tried as if it were not there."""
    chain = anvil_chain
    address = turned_bad(chain, "GUEST", attack("GreedyToken"), "GUEST", "GUEST", 18)
    chain.send(chain.contract(address, attack("GreedyToken")).functions.setWordy(wordy))
    fund(chain, dict.fromkeys(FIVE, 1_000))
    loaded = with_guest(chain, tmp_path, address)
    trust_now(loaded, [chain.transport])
    with again(chain, loaded) as agent:
        step = agent.step_input()
        found = {one.token: one for one in agent.desk.screen.screen(step, first_look(step))}
        assert not found.pop(address).finding.accepted
        assert {one.finding for one in found.values()} <= {Finding.CLEAN, Finding.NO_RETURN_VALUE}
        assert len(found) == len(step.portfolio.assets) - 1 + len(step.portfolio.hubs)
