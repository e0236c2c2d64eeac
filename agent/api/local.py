"""The embedded chain as a service: anvil with everything deployed, and a config that is ready for every command."""

from __future__ import annotations

import os
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

from agent.api.setup import trust_now
from agent.config.load import load_config
from agent.errors import ConfigError
from agent.localchain import LocalChain, moving
from agent.localchain.config_text import FIRST_LINE
from agent.localchain.serve import serve, write_atomically
from agent.units import floor_int

Document = dict[str, Any]
DRIFT = {"WETH": Fraction(7, 5), "USDC": Fraction(1, 2)}
"""What the wallet of a served chain holds of its target: 40 % too much WETH, half of the USDC."""


COOLDOWN = "10s"
"""Of a served chain's config, so that the market can be moved and the agent seen to act."""


def serve_localchain(port: int, write_config: Path | None, tell: Callable[[Document], None]) -> None:
    """Runs until SIGINT or SIGTERM; `tell` hears when everything is ready, the config's contracts pinned in its store.

    Raises ConfigError when the port is taken, or when there is a config or store that no served chain has written.
    """
    if write_config is not None:
        _require_ours(write_config)

    def ready(chain: LocalChain) -> None:
        unbalance(chain)
        if write_config is not None:
            publish(chain, write_config)
        tell(
            {
                "chain_id": chain.chain_id,
                "url": chain.url,
                "wallet": chain.wallet.address,
                "tokens": {symbol: token.address for symbol, token in chain.tokens.items()},
                "pools": chain.pools,
                "feeds": dict(chain.feeds),
                "config": None if write_config is None else str(write_config),
            }
        )

    serve(port, None, ready)


def move_market(port: int, moves: list[str]) -> Document:
    """Moves the market of the chain that is served at `port`, such as WBTC=+30%. Raises ConfigError for what is no move or no chain."""
    factors = moving.parse_moves(moves)
    prices = moving.ask(port, factors)
    return {"moved": {symbol: f"{float(factor - 1) * 100:+g}%" for symbol, factor in factors.items()}, "prices_usd": prices}


def store_beside(config: Path) -> Path:
    """The store of a served chain's config: one of its own name."""
    return config.with_suffix(".db")


def _require_ours(config: Path) -> None:
    """Nothing is overwritten but what a served chain wrote: a real wallet's config or journal never is."""
    if not config.parent.is_dir():
        raise ConfigError(f"--write-config {config}: {config.parent} is no folder", "make it first")
    if config.exists():
        try:
            ours = config.read_text(encoding="utf-8").startswith(FIRST_LINE)
        except (OSError, UnicodeDecodeError):
            ours = False
        if not ours:
            raise ConfigError(f"--write-config {config}: exists and is not of a local chain; nothing was changed", "name another file")
    elif store_beside(config).exists():
        raise ConfigError(
            f"--write-config {config}: {store_beside(config).name} beside it belongs to something else; nothing was changed",
            "name another file",
        )


def unbalance(chain: LocalChain) -> None:
    """Gives the wallet a portfolio that has drifted, so that the first rebalance has something to do."""
    for symbol, factor in DRIFT.items():
        chain.set_balance(symbol, floor_int(chain.balance(symbol) * factor))


def publish(chain: LocalChain, path: Path) -> None:
    """Pins the chain's contracts in the store beside `path`, then lets the config appear there.

    A store of an earlier served chain is set aside: its nonces and blocks are not this chain's.
    """
    path.unlink(missing_ok=True)
    store = store_beside(path)
    for ending in ("", "-wal", "-shm", ".paused"):
        old = store.with_name(store.name + ending)
        if old.exists():
            old.replace(old.with_name(f"old-{os.getpid()}-{old.name}"))
    draft = path.with_name(f".{path.name}.draft")
    write_atomically(draft, chain.config_text(f"sqlite:///{store.name}").replace('cooldown = "1h"', f'cooldown = "{COOLDOWN}"'))
    try:
        trust_now(load_config(draft))
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)
