"""The world of `trimtab demo`: an embedded chain in this process, a portfolio on target, and one call that moves the market."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

from agent.api.agent import Agent, open_agent
from agent.api.setup import trust_now
from agent.config.load import load_config
from agent.localchain import LocalChain, open_eth_tester
from agent.units import floor_int

TARGETS = {"WBTC": "50%", "WETH": "30%", "USDC": "20%"}
START_USD = {"WBTC": 5_000, "WETH": 3_000, "USDC": 2_000}
FACTORS = {"WBTC": Fraction(116, 75), "WETH": Fraction(6, 5)}
"""Price moves after which 50/30/20 stands at 58/27/15 (worked case W2)."""


@dataclass(frozen=True, slots=True)
class DemoWorld:
    """A connected agent and the chain under it."""

    agent: Agent
    chain: LocalChain

    def move_market(self) -> dict[str, str]:
        """Moves every pool and feed; returns the moves in words by symbol."""
        usd = self.chain.books.prices_usd
        self.chain.move_market({symbol: usd[symbol] * factor for symbol, factor in FACTORS.items()})
        return {symbol: f"{float(factor - 1) * 100:+.1f} %" for symbol, factor in FACTORS.items()}


@contextmanager
def demo_world() -> Iterator[DemoWorld]:
    """Starts everything; nothing remains of it afterwards."""
    with open_eth_tester() as chain, tempfile.TemporaryDirectory(prefix="trimtab-demo-") as folder:
        for symbol, usd in START_USD.items():
            token = chain.tokens[symbol]
            chain.set_balance(symbol, floor_int(usd / chain.books.prices_usd[symbol] * 10**token.decimals))
        path = Path(folder) / "trimtab.toml"
        path.write_text(chain.config_text(targets=TARGETS))
        loaded = load_config(path)
        trust_now(loaded, [chain.transport])
        with open_agent(loaded, transports=[chain.transport], clock=chain.clock) as agent:
            yield DemoWorld(agent, chain)
