"""Which portfolio a config describes: network and wallet, for the list of several."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agent.config.load import load_config
from agent.config.presets import PRESETS

if TYPE_CHECKING:
    from agent.config.load import ConfigSource


def identity(source: ConfigSource) -> dict[str, str]:
    """Return `network`, its name or chain id, and `wallet`, its address. Raises ConfigError."""
    config = load_config(source).config
    chain = config.chain
    known = (name for name, preset in PRESETS.items() if preset.chain_id == chain.chain_id)
    network = "local chain" if chain.local else next(known, f"chain {chain.chain_id}")
    return {"network": network, "wallet": config.wallet.address}
