"""The embedded chain as a service: anvil with everything deployed, and a config that is ready for every command."""

from __future__ import annotations

import os
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

from agent.api.setup import trust_now
from agent.config.load import load_config
from agent.errors import ConfigError
from agent.localchain import LocalChain
from agent.localchain.serve import serve, write_atomically
from agent.units import floor_int

DRIFT = {"WETH": Fraction(7, 5), "USDC": Fraction(1, 2)}
"""What the wallet of a served chain holds of its target: 40 % too much WETH, half of the USDC."""


def serve_localchain(port: int, write_config: Path | None, say: Callable[[str], None]) -> None:
    """Runs until SIGINT or SIGTERM. The config appears when everything is ready, its contracts pinned in its store."""
    if write_config is not None and not write_config.parent.is_dir():
        raise ConfigError(f"--write-config {write_config}: {write_config.parent} is no folder", "make it first")

    def ready(chain: LocalChain) -> None:
        unbalance(chain)
        if write_config is not None:
            publish(chain, write_config)
            say(f"Config written to {write_config}; its contracts are pinned. Try: trimtab status --config {write_config}")
        say(f"Chain {chain.chain_id} with {len(chain.pools)} pools at {chain.url}; wallet {chain.wallet.address}. Stop with Ctrl-C.")

    serve(port, None, ready)


def unbalance(chain: LocalChain) -> None:
    """Gives the wallet a portfolio that has drifted, so that the first rebalance has something to do."""
    for symbol, factor in DRIFT.items():
        chain.set_balance(symbol, floor_int(chain.balance(symbol) * factor))


def publish(chain: LocalChain, path: Path) -> None:
    """Pins the chain's contracts in the store beside `path`, then lets the config appear there.

    A store of an earlier chain at the same place is set aside: its nonces and blocks are not this chain's.
    """
    store = path.parent / "trimtab.db"
    for old in path.parent.glob(f"{store.name}*"):
        old.replace(old.with_name(f"old-{os.getpid()}-{old.name}"))
    draft = path.with_name(f".{path.name}.draft")
    write_atomically(draft, chain.config_text())
    try:
        trust_now(load_config(draft))
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)
