"""Withdrawals of a local chain."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from agent.app.agent import Agent
from agent.app.withdrawals.withdrawal_run import WithdrawalReport
from agent.localchain import LocalChain
from agent.model import RequestState
from tests.support.agents import agent_on, fund
from tests.support.constants import HOME

TARGETS = {"WETH": "50%", "WBTC": "20%", "USDC": "30%"}
HELD = {"WETH": 5_600, "WBTC": 1_700, "USDC": 2_700}
OPEN = {"wallet.payout_addresses": [HOME]}


def accept(_: WithdrawalReport) -> bool:
    return True


@contextmanager
def bot(chain: LocalChain, folder: Path, **changes: object) -> Iterator[Agent]:
    fund(chain, HELD)
    with agent_on(chain, folder, {**OPEN, **{key.replace("__", "."): value for key, value in changes.items()}}, TARGETS) as agent:
        yield agent


def ended_state(agent: Agent, number: int | None) -> RequestState:
    return next(request.state for request in agent.context.store.requests.newest() if request.id == number)
