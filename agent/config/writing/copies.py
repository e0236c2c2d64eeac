"""The text of a config as that of another portfolio in the same folder."""

from __future__ import annotations

from typing import Any

import tomlkit

from agent.config.loaded import USUAL_STORE
from agent.config.tables.futures import AGENT_KEY_SOURCES
from agent.foreign_text import bounded_toml

COPIED_WALLET_FIELDS = {"address", "payout_addresses"}
"""Keys of [wallet] that a copy has; the others are of the key or of its signer."""


def copy_text(
    config_text: str, portfolio_name: str, wallet_address: str, has_own_wallet: bool
) -> str:
    """Return the config `config_text` for a portfolio of this name and wallet. Its store, keystore
    and records are in the folder `portfolio_name` beside the config. It has no key, and a keystore
    to put one into only with a wallet of its own. What one process alone may use is left out: bot,
    heartbeat, and the positions, margin account and delegate of the other wallet.
    """
    document: Any = tomlkit.parse(bounded_toml(config_text))
    wallet_table = document["wallet"]
    is_other_wallet = wallet_table["address"].lower() != wallet_address.lower()
    dropped_keys = {
        "wallet": wallet_table.keys() - COPIED_WALLET_FIELDS,
        "portfolio": {"positions"},
        "futures": {*AGENT_KEY_SOURCES, *(("account", "delegate") if is_other_wallet else ())},
        "service": {"heartbeat_url", "heartbeat_url_env"},
    }
    for table_name, keys in dropped_keys.items():
        for key in keys:
            document.get(table_name, {}).pop(key, None)
    document.pop("telegram", None)
    document["store"]["url"] = f"sqlite:///{portfolio_name}/{USUAL_STORE}"
    wallet_table["address"] = wallet_address
    if has_own_wallet:
        wallet_table["keystore"] = f"{portfolio_name}/wallet.json"
    if "record" in document:
        document["record"]["dir"] = f"{portfolio_name}/steps"
    return tomlkit.dumps(document)
