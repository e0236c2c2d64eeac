"""The world of `trimtab demo`: an embedded chain in this process, a portfolio on target, and one call that moves the market."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path

from agent.api.agent import Agent
from agent.api.opening import open_agent
from agent.api.setup import trust_now
from agent.config.load import load_config
from agent.localchain import WORLD, LocalChain, open_eth_tester
from agent.localchain.description import Range, V2Spec, V3Spec
from agent.localchain.serve import write_atomically
from agent.units import floor_int

SHARES = (Range(None, None, 4_000), Range(-1_500, 2_000, 3_500), Range(-400, 300, 2_500))
"""Ranges of each V3 pool: fewer than the whole world has, since every position costs a tenth of a second here."""
SMALL_WORLD = replace(
    WORLD,
    tokens=tuple(WORLD.token(symbol) for symbol in ("WETH", "WBTC", "USDC")),
    pools=(
        V2Spec("WETH", "USDC", 20_000_000),
        V2Spec("WBTC", "WETH", 12_000_000),
        V3Spec("WETH", "USDC", 500, 40_000_000, SHARES),
        V3Spec("WETH", "USDC", 3_000, 15_000_000, SHARES),
        V3Spec("WBTC", "WETH", 500, 20_000_000, SHARES),
        V3Spec("WBTC", "USDC", 3_000, 25_000_000, SHARES),
    ),
)
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
    with open_eth_tester(SMALL_WORLD) as chain, tempfile.TemporaryDirectory(prefix="trimtab-demo-") as folder:
        for symbol, usd in START_USD.items():
            token = chain.tokens[symbol]
            chain.set_balance(symbol, floor_int(usd / chain.books.prices_usd[symbol] * 10**token.decimals))
        path = Path(folder) / "trimtab.toml"
        write_atomically(path, chain.config_text(targets=TARGETS))
        loaded = load_config(path)
        trust_now(loaded, [chain.transport])
        with open_agent(loaded, transports=[chain.transport], clock=chain.clock) as agent:
            yield DemoWorld(agent, chain)
