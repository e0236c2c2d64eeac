"""Paper trading, which reads the live chain, acts on a simulated one, and has no key."""

from __future__ import annotations

from agent.backtest.router import RouterAddresses
from agent.chain.endpoints import EndpointPool
from agent.chain.sender import QuorumSender
from agent.config.loaded import LoadedConfig
from agent.config.schema import Config
from agent.errors import ConfigError
from agent.model import ExecutionConfig
from agent.paper.chain import PaperChain
from agent.paper.venue import PaperPerpetualProtocol
from agent.ports import Reader
from agent.store.store import Store
from agent.store.tables import PinRow
from agent.wiring.stores import live_rows_of

PAPER_FOLDER = "paper"
"""Folder of paper steps below record.dir."""


def prepare_paper_store(loaded_config: LoadedConfig, store: Store) -> None:
    """Copy the live store's pinned contracts and recorded prices into the paper store; as long as
    the live store has no pins, paper keeps those of its own. Raises ConfigError for features that
    are not simulated.
    """
    config = loaded_config.config
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
    live_rows = live_rows_of(loaded_config)
    if live_rows(PinRow):
        store.paper.copy_pins(live_rows)
    store.paper.copy_prices(live_rows)


def paper_chain(
    config: Config,
    execution: ExecutionConfig,
    endpoint_pool: EndpointPool,
    store: Store,
    reader: Reader,
    venue: PaperPerpetualProtocol | None,
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
