"""Stops of a local chain that fall."""

from __future__ import annotations

from pathlib import Path

import tomlkit

from agent.app.start.trust import pin_all
from agent.config.load import load_config
from agent.config.loaded import LoadedConfig
from agent.localchain import LocalChain
from tests.support.on_chain.bad_tokens import with_guest

FALL = {"WETH": 2_100, "LINK": 10, "GUEST": 10}


def with_stops(chain: LocalChain, folder: Path, guest: str) -> LoadedConfig:
    """Stops of a tenth for WETH and for a guest that nobody tries out, and bands that a sale of either leaves."""
    path = with_guest(chain, folder, guest, screen="off").path
    document = tomlkit.parse(path.read_text())
    for asset in document["portfolio"]["assets"]:
        if asset["symbol"] in ("WETH", "GUEST"):
            asset["stop_loss"] = "10%"
    document["policy"]["confirm_blocks"] = 0
    document["policy"]["trigger"] = {"kind": "threshold", "relative": "10%"}
    document["policy"]["destination"] = "target"
    path.write_text(tomlkit.dumps(document))
    loaded = load_config(path)
    pin_all(loaded, [chain.transport])
    return loaded
