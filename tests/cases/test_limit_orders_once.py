"""A limit order whose command is repeated, or whose swap is mined between two cycles: its amount is sold once."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from agent.app.agent import Agent
from agent.errors import Refused, Retryable
from agent.execution.executor import AwaitingExternalSignature
from agent.execution.step_context import OutcomeKind
from agent.localchain import LocalChain
from agent.model import Intent, IntentKind
from tests.support.agents import ROOMY, allow, fund, reopened_agent, trusted_config, yes
from tests.support.fakes.clock import waiting_clock
from tests.support.on_chain.limit_orders import place
from tests.support.on_chain.proposals import TWO, safe_of
from tests.support.text import raises_code

REACHED = "2900"
HIGHER = "3100"


def sold(agent: Agent) -> list[Intent]:
    return [intent for intent in agent.context.store.journal.intents() if intent.kind is IntentKind.SWAP and intent.succeeded]


def order_states(agent: Agent) -> list[str]:
    return [order.state.value for order in agent.context.store.executions.limit_orders()]


@contextmanager
def unmined(chain: LocalChain) -> Iterator[None]:
    """Nothing is mined, until two blocks follow."""
    chain.transport.call("evm_setAutomine", [False])
    yield
    chain.transport.call("evm_setAutomine", [True])
    chain.mine(2)


@contextmanager
def bot(chain: LocalChain, folder: Path) -> Iterator[Agent]:
    fund(chain, {"WETH": 40_000, "USDC": 40_000})
    loaded = trusted_config(chain, folder, ROOMY | {"chain.confirmations": 1, "execution.deadline": "30m"}, TWO)
    allow(chain, "WETH")
    with reopened_agent(chain, loaded, clock=waiting_clock(chain)) as agent:
        yield agent


def test_pending_order__is_reported_by_the_repeated_command(anvil_chain: LocalChain, tmp_path: Path) -> None:
    with bot(anvil_chain, tmp_path) as agent:
        with unmined(anvil_chain):
            with raises_code(Retryable, "not_mined", "is recorded: trimtab run --send fills it"):
                place(agent, REACHED)
            with raises_code(Retryable, "open_transaction"):
                place(agent, REACHED)
        order, outcome = place(agent, REACHED)
        assert (order.state, outcome.kind) == ("filled", OutcomeKind.DONE)
        assert "carried out before" in outcome.reason
        with pytest.raises(Refused, match=f"order {order.id} has sold the same, by 0x"):
            place(agent, REACHED)
        assert len(sold(agent)) == 1
        assert place(agent, REACHED, again=True)[0].state == "filled"
        assert len(sold(agent)) == 2


def test_pending_order__settled_by_another_command_is_not_sold_again(anvil_chain: LocalChain, tmp_path: Path) -> None:
    with bot(anvil_chain, tmp_path) as agent:
        with unmined(anvil_chain), raises_code(Retryable, "not_mined"):
            place(agent, REACHED)
        assert agent.rebalance(send=True, confirm=yes).kind is OutcomeKind.HOLD
        with pytest.raises(Refused, match="has sold the same, by 0x"):
            place(agent, REACHED)
        assert (order_states(agent), len(sold(agent))) == (["filled"], 1)


def test_open_order__is_continued_by_the_repeated_command(chain: LocalChain, tmp_path: Path) -> None:
    with bot(chain, tmp_path) as agent:
        first, _ = place(agent, HIGHER, until="2h")
        continued, outcome = place(agent, HIGHER)
        assert (continued.id, continued.until_s) == (first.id, first.until_s)
        assert f"order {first.id} was placed before, until 20" in outcome.reason
        second, _ = place(agent, HIGHER, again=True)
        other, _ = place(agent, "3101")
        assert len({first.id, second.id, other.id}) == len(order_states(agent)) == 3
        chain.warp(5 * 3_600)
        later, _ = place(agent, HIGHER)
        assert later.id not in (first.id, second.id), "those have expired"
        assert order_states(agent) == ["expired", "expired", "expired", "open"]


def test_proposed_order__is_continued_by_the_repeated_command(anvil_chain: LocalChain, tmp_path: Path) -> None:
    safe, loaded = safe_of(anvil_chain, tmp_path)
    with reopened_agent(anvil_chain, loaded) as agent:
        for _ in range(2):  # an approval, and the swap
            for _ in range(2):
                with pytest.raises(AwaitingExternalSignature) as caught:
                    place(agent, REACHED)
            assert order_states(agent) == ["open"]
            safe.execute(caught.value.proposal)
        order, outcome = place(agent, REACHED)
        assert (order.state, "carried out before" in outcome.reason) == ("filled", True)
        assert len(sold(agent)) == 1


def test_order_mined_between_two_cycles__is_sold_once(anvil_chain: LocalChain, tmp_path: Path) -> None:
    with bot(anvil_chain, tmp_path) as agent:
        preview, _ = place(agent, REACHED, send=False)
        order = agent.context.store.executions.add_limit_order(preview)
        with unmined(anvil_chain):
            assert isinstance(next(agent.run(send=True, confirm=yes, once=True)), Retryable)
        for _ in range(2):
            (outcome,) = agent.run(send=True, confirm=yes, once=True)
            assert getattr(outcome, "kind", None) is OutcomeKind.HOLD, outcome
        assert (order_states(agent), len(sold(agent))) == (["filled"], 1)
        assert agent.context.store.executions.open_limit_orders() == ()
        with raises_code(Refused, "execution_ended"):
            agent.context.store.executions.begin_attempt(order.id, 1, "another step", 0)
