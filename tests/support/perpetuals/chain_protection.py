"""Futures at a local venue server with resting stops."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import pytest

from agent.app import Agent
from agent.errors import TrimtabError
from agent.execution.step_context import OutcomeKind, StepOutcome
from agent.localchain import LocalChain
from tests.support import agents
from tests.support.hyperliquid import AGENT, AGENT_ENV, venue_for
from tests.support.hyperliquid_server import Coin, HyperliquidServer

MAX_LEVERAGE = Fraction(3)
UPGRADE = "Only post-only orders allowed immediately after a network upgrade"


@pytest.fixture
def server(anvil_chain: LocalChain, monkeypatch: pytest.MonkeyPatch) -> Iterator[HyperliquidServer]:
    """A wallet on its spot targets, with 10,000 of margin at a venue with four markets."""
    monkeypatch.setenv(AGENT_ENV, AGENT.key.hex())
    agents.fund(anvil_chain, {"WETH": 50_000, "USDC": 50_000})
    with venue_for(anvil_chain) as venue:
        venue.coins.append(Coin("SOL", 2, Fraction(150), (("0.0", 20),), 20))
        venue.seed("SOL", ("10000",) * 3)
        yield venue


def open_book(agent: Agent, chain: LocalChain) -> None:
    """Open the book, and let pass the minute in which its requests count."""
    assert step(agent).kind is OutcomeKind.DONE
    pass_time(chain, 61)


def pass_time(chain: LocalChain, seconds: int) -> None:
    chain.node.mine_at(chain.now_s() + seconds)
    chain.refresh_feeds()


def step(agent: Agent) -> StepOutcome:
    return agent.rebalance(send=True, confirm=agents.yes)


def crash(server: HyperliquidServer, share: str, *coins: str) -> None:
    for coin in coins:
        server.move(coin, share)
        server.seed(coin, ("1000000",) * 3 if coin == "DOGE" else ("10000",) * 3)


def leverage(server: HyperliquidServer, chain: LocalChain) -> Fraction:
    """Leverage of the account by the server's own figures."""
    state = server.state(chain.wallet.address.lower())["crossMarginSummary"]
    return Fraction(state["totalNtlPos"]) / Fraction(state["accountValue"])


def actions(server: HyperliquidServer) -> list[dict[str, Any]]:
    return [body["action"] for body in server.bodies if body["action"]["type"] == "order"]


def run_until(agent: Agent, chain: LocalChain, end_s: int, every: str) -> Iterator[tuple[int, StepOutcome | TrimtabError]]:
    """Yield the time and the outcome of each cycle of a run that sends, until a time of the chain."""
    for outcome in agent.run(send=True, confirm=agents.yes, every=every):
        yield chain.now_s(), outcome
        if chain.now_s() >= end_s:
            return


TEN_MINUTES_S = 600
FOUR_MINUTES_S = 240
"""Enough for waits of 60, 120 and 240 s, were they doubled, to be longer than the test allows."""
