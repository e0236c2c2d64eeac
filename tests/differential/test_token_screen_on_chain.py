"""The screen against deployed tokens and pools, on eth-tester and anvil: whatever one token does, the others are answered."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from agent.app.start.trust import pin_all
from agent.chain.endpoints import EndpointPool
from agent.chain.providers.quorum import QuorumProvider
from agent.chain.quorum import NoQuorum
from agent.chain.screening import TokenScreen
from agent.chain.screening.moves import TokenMove, screening_moves
from agent.localchain import LocalChain
from agent.model import TokenFinding
from tests.support.agents import FIVE, ROOMY, agent_on, fund, reopened_agent
from tests.support.attacks import attack
from tests.support.fakes.transport import RecordingTransport
from tests.support.on_chain.bad_tokens import replace_token, with_guest
from tests.support.text import raises_code
from tests.support.worlds import ANVIL_OFTEN


@ANVIL_OFTEN
def test_world_tokens__move_what_they_are_told_in_one_request(local_chain: LocalChain, tmp_path: Path) -> None:
    chain = local_chain
    fund(chain, dict.fromkeys(FIVE, 0))
    with agent_on(chain, tmp_path, ROOMY, FIVE) as agent:
        step = agent.step_input()
        line = agent.context.transport
        before = line.request_count
        finding_by_token = {
            screened_token.token: screened_token.finding
            for screened_token in agent.context.token_screen.screen(step, screening_moves(step))
        }
        assert line.request_count == before + 1
    clean = dict.fromkeys((token.address for token in chain.tokens.values()), TokenFinding.CLEAN)
    assert finding_by_token == clean | {chain.tokens["USDT"].address: TokenFinding.NO_RETURN_VALUE}


@ANVIL_OFTEN
def test_sale_of_more_than_a_pool_holds__is_no_fault_of_the_token(local_chain: LocalChain, tmp_path: Path) -> None:
    """A pool whose price left its only range holds hardly any of the token that it would take."""
    fund(local_chain, dict.fromkeys(FIVE, 1_000))
    with agent_on(local_chain, tmp_path, ROOMY, FIVE) as agent:
        step = agent.step_input()
        weth = agent.token("WETH", "").address
        pools = [pool for pool in step.snapshot.pools if weth in (pool.token0, pool.token1)]
        findings = {
            pool.venue: agent.context.token_screen.screen(step, [TokenMove(weth, pool, 10**27, spender=step.execution.router)])[0].finding
            for pool in pools
        }
    assert len(findings) > 1
    assert set(findings.values()) == {TokenFinding.CLEAN}


@pytest.mark.parametrize("wordy", [False, True])
def test_transfer_that_burns_or_floods__fails_alone(chain: LocalChain, tmp_path: Path, wordy: bool) -> None:
    """T10: the other three of the same call, and all the others, are tried as if it were not there."""
    address = replace_token(chain, "GUEST", attack("GreedyToken"), "GUEST", "GUEST", 18)
    chain.send(chain.contract(address, attack("GreedyToken")).functions.setWordy(wordy))
    fund(chain, dict.fromkeys(FIVE, 1_000))
    loaded = with_guest(chain, tmp_path, address)
    pin_all(loaded, [chain.transport])
    with reopened_agent(chain, loaded) as agent:
        step = agent.step_input()
        screened_token_by_token = {
            screened_token.token: screened_token for screened_token in agent.context.token_screen.screen(step, screening_moves(step))
        }
        assert not screened_token_by_token.pop(address).finding.is_tradable
        assert {token_result.finding for token_result in screened_token_by_token.values()} <= {
            TokenFinding.CLEAN,
            TokenFinding.NO_RETURN_VALUE,
        }
        assert len(screened_token_by_token) == len(step.portfolio.assets) - 1 + len(step.portfolio.hubs)


def test_a_token_that_meddles_with_the_screen_shuts_no_other_out(chain: LocalChain, tmp_path: Path) -> None:
    """T10: what it makes a hand remember is not there when the next token is tried."""
    address = replace_token(chain, "GUEST", attack("MeddlingToken"), "GUEST", "GUEST", 18)
    fund(chain, dict.fromkeys(FIVE, 1_000))
    loaded = with_guest(chain, tmp_path, address)
    pin_all(loaded, [chain.transport])
    with reopened_agent(chain, loaded) as agent:
        step = agent.step_input()
        first = tuple(sorted(screening_moves(step), key=lambda move: move.token != address))
        screened_token_by_token = {
            screened_token.token: screened_token for screened_token in agent.context.token_screen.screen(step, first)
        }
        assert not screened_token_by_token.pop(address).finding.is_tradable
        assert {token_result.finding for token_result in screened_token_by_token.values()} <= {
            TokenFinding.CLEAN,
            TokenFinding.NO_RETURN_VALUE,
        }


def test_liar_about_a_token_s_moves__is_outvoted_or_unknown(chain: LocalChain, tmp_path: Path) -> None:
    """T2: the liar tells of a good token what a paused one answers, and the other way round."""
    address = replace_token(chain, "GUEST", attack("PausableToken"), "GUEST", "GUEST", 18)
    chain.send(chain.contract(address, attack("PausableToken")).functions.setPaused(True))
    fund(chain, dict.fromkeys(FIVE, 1_000))

    def alter(method: str, params: list[Any], answer: Any) -> Any:
        moving = method == "eth_call" and "from" in params[0]
        return "0x" + "0" * 63 + "1" if moving else answer

    line = chain.transport
    liar = RecordingTransport(line, "liar", alter)
    other = RecordingTransport(line, "other", lambda method, params, answer: answer)
    with reopened_agent(chain, with_guest(chain, tmp_path, address)) as agent:
        step = agent.step_input()
        moves = screening_moves(step)
        by_three = TokenScreen(QuorumProvider(EndpointPool([line, liar, other], 2)), agent.context.config.chain.wrapped_native)
        finding_by_token = {screened_token.token: screened_token.finding for screened_token in by_three.screen(step, moves)}
        assert finding_by_token.pop(address) is TokenFinding.PAUSED
        assert all(finding.is_tradable for finding in finding_by_token.values())
        with raises_code(NoQuorum, "quorum"):
            TokenScreen(QuorumProvider(EndpointPool([line, liar], 2)), agent.context.config.chain.wrapped_native).screen(step, moves)
