"""Sends whole steps that move liquidity, and checks from outside what they did."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction

from agent.app.agent import Agent
from agent.artifacts import npm_artifact
from agent.execution.step_context import StepOutcome
from agent.localchain import LocalChain
from agent.localchain.market import V2_PAIR
from agent.model import ConfirmedPosition, IntentKind, IntentState
from agent.policy.drift import investable_total
from tests.support import agents, lp_acting
from tests.support import liquidity as lp
from tests.support.agents import USD

EVEN = {"WETH": "50%", "USDC": "50%"}


def kinds(outcome: StepOutcome) -> list[str]:
    return [intent.kind.value for intent in outcome.transactions]


def allowances(chain: LocalChain) -> set[int]:
    """What anybody that liquidity goes through may still take, LP tokens of every pair included."""
    at, wallet = chain.addresses, chain.wallet.address
    spenders = (at.swap_router_02, at.v2_router, at.position_manager)
    held = {
        int(chain.token_contract(symbol).functions.allowance(wallet, spender).call()) for symbol in chain.tokens for spender in spenders
    }
    pairs = [info.address for info in chain.books.pool_info.values() if info.version == 2]
    return held | {int(chain.contract(pair, npm_artifact(V2_PAIR)).functions.allowance(wallet, at.v2_router).call()) for pair in pairs}


@contextmanager
def stepping(agent: Agent, chain: LocalChain) -> Iterator[list[StepOutcome]]:
    """Checks from outside that whatever happened inside is known, paid and booked, and that nothing may still be taken."""
    before, done = agents.purse(chain), []
    yield done
    after = agents.purse(chain)
    mined = [intent for outcome in done for intent in outcome.transactions if intent.receipt is not None]
    assert after.nonce - before.nonce == len(mined)
    assert before.native_wei - after.native_wei == sum(intent.receipt.gas_cost_wei for intent in mined if intent.receipt is not None)
    assert {intent.state for intent in mined} <= {IntentState.FINAL, IntentState.REVERTED}
    assert agent.desk.store.open_intents() == ()
    assert agent.desk.store.unbooked() == ()
    assert allowances(chain) == {0}


def send(agent: Agent, chain: LocalChain) -> StepOutcome:
    with stepping(agent, chain) as done:
        done.append(agent.rebalance(send=True, confirm=agents.yes))
    return done[0]


def exactly(chain: LocalChain, agent: Agent, outcome: StepOutcome) -> list[tuple[str, str]]:
    """Each action moved what its own plan says, to the wei; (verb, position) in order."""
    told = []
    for intent in outcome.transactions:
        if intent.kind is not IntentKind.LIQUIDITY:
            continue
        action = agent.desk.store.grant(intent.id).action
        assert action is not None
        assert intent.receipt is not None
        net = intent.receipt.net(chain.wallet.address)
        assert (net.get(action.token0, 0), net.get(action.token1, 0)) == lp_acting.expected(action)
        told.append((type(action).__name__, action.name))
    return told


def worth(agent: Agent) -> Fraction:
    """The portfolio's total in dollars."""
    return investable_total(agent.status().decided.drifts) / USD


def positions(agent: Agent) -> dict[str, ConfirmedPosition]:
    return {one.name: one for one in agent.step_input().portfolio.positions}


def liquidity_of(chain: LocalChain, token_id: int) -> int:
    return int(lp.manager(chain).positions(token_id).call()[7])
