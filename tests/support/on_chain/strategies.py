"""Strategies of one wallet on a local chain."""

from __future__ import annotations

from agent.app.agent import Agent
from agent.layers.strategies.state import StrategiesState, StrategyBooks
from agent.localchain import LocalChain
from tests.support.agents import ROOMY

TWO = {"WETH": "50%", "USDC": "50%"}


def strategies(up: str, down: str) -> dict[str, object]:
    """One that wants 70 % of WETH and one that wants 30 %."""
    common = {"floor": "5%", "health": "off", "cooldown": "0s", "destination": "target"}
    return {
        "strategies": [
            {"name": "up", "share": up, "weights": {"WETH": "70%", "USDC": "30%"}, **common},
            {"name": "down", "share": down, "weights": {"WETH": "30%", "USDC": "70%"}, **common},
        ],
        "split": {"relative": "50%"},
        **ROOMY,
    }


def books(agent: Agent) -> StrategyBooks:
    """The books as a look of now finds them."""
    strategy_books = agent.step_input().layer(StrategiesState).books
    assert strategy_books is not None, strategy_books
    assert not strategy_books.fault, strategy_books
    return strategy_books


def require_sum(chain: LocalChain, agent: Agent) -> None:
    """All strategies together hold what the wallet does, to the base unit, asked of the contracts."""
    state_books = books(agent)
    for symbol in TWO:
        assert sum(
            strategy_book.balance_raw(chain.tokens[symbol].address) for strategy_book in state_books.strategy_books
        ) == chain.balance(symbol)
