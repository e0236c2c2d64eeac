"""Paper trading: reads the live chain, acts on a simulated one, and has no key."""

from __future__ import annotations

from pathlib import Path

from agent.backtest.router import RouterAddresses
from agent.chain.endpoints import EndpointPool
from agent.chain.sender import QuorumSender
from agent.config.load import LoadedConfig
from agent.config.schema import Config
from agent.errors import ConfigError
from agent.model import ExecutionConfig
from agent.paper.chain import PaperChain
from agent.paper.venue import PaperVenue
from agent.ports import Reader
from agent.store.store import Store

PAPER_FOLDER = "paper"
"""Folder of paper steps below record.dir."""


def prepare_paper_store(loaded: LoadedConfig, store: Store) -> None:
    """Copy the live store's pinned contracts into the paper store. Raises ConfigError for features
    that are not simulated.
    """
    config = loaded.config
    if config.portfolio.positions or (config.lp is not None and config.lp.targets):
        raise ConfigError(
            "paper: liquidity positions are not simulated",
            "remove positions and lp.targets from a copy of the config",
        )
    if config.execution.router != "swap_router_02":
        raise ConfigError(
            "paper: only SwapRouter02 is simulated",
            'set execution.router = "swap_router_02" in a copy of the config',
        )
    store.paper.copy_pins(live_store_file(loaded))


def live_store_file(loaded: LoadedConfig) -> Path:
    """Return the path of the live store's file, which paper trading only reads."""
    return Path(loaded.live_url.removeprefix("sqlite:///"))


def paper_chain(
    config: Config,
    execution: ExecutionConfig,
    endpoint_pool: EndpointPool,
    store: Store,
    reader: Reader,
    venue: PaperVenue | None,
) -> PaperChain:
    """Return the simulated chain of paper trading, based on the live chain's snapshots and newest
    header; it sends nothing.
    """
    sender = QuorumSender(endpoint_pool, config.chain.chain_id)
    return PaperChain(
        store.paper,
        reader,
        sender.head,
        RouterAddresses(config.wallet.address, execution.router, config.chain.wrapped_native),
        venue,
    )
