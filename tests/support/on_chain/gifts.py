"""Coins that strangers send to the wallet."""

from __future__ import annotations

from agent.app.agent import Agent
from agent.execution.step_context import StepOutcome
from agent.localchain import LocalChain
from agent.units import floor_int
from tests.support.agents import yes

TWO = {"WETH": "50%", "USDC": "50%"}
HOME = "0x00000000000000000000000000000000000A11cE"
BLOCKS = 3
DAY_S = 86_400


def give(chain: LocalChain, symbol: str, usd: int) -> None:
    """A stranger sends coins to the wallet."""
    raw = floor_int(usd / chain.deployed_world.prices_usd[symbol] * 10 ** chain.tokens[symbol].decimals)
    chain.send(chain.token_contract(symbol).functions.transfer(chain.wallet.address, raw))
    chain.mine(1)


def look(agent: Agent) -> StepOutcome:
    return agent.rebalance(send=True, confirm=yes)
