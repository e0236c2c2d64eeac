"""A config that init wrote, for a local chain."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import tomlkit

from agent.localchain import LocalChain

TARGETS = {"WETH": "50%", "WBTC": "30%", "USDC": "20%"}
Ask = Any


def newcomer(chain: LocalChain, url: str, folder: Path, run: Ask) -> Path:
    """The config that init writes, with the addresses of this chain in the place of Ethereum's."""
    config_path = folder / "init.toml"
    targets = [part for symbol, share in TARGETS.items() for part in ("--target", f"{symbol}={share}")]
    written = run(
        "init", "--wallet", chain.wallet.address, *targets, "--rpc", "A=one", "--rpc", "B=two", "--config", str(config_path), "--json"
    )
    assert written.code == 0
    assert [limit["gas_gwei"] for limit in written.json["least_total"]] == ["0.05", "1", "30"]
    init = tomlkit.parse(config_path.read_text())
    local = tomlkit.parse(chain.config_text(targets=TARGETS))
    local["policy"], local["limits"] = init["policy"], init["limits"]
    local["portfolio"]["max_live_value"] = "200000"  # type: ignore[index]  # tomlkit's tables are typed as items
    local["chain"]["rpc"][0]["url"] = url  # type: ignore[index]  # the same
    path = folder / "trimtab.toml"
    path.write_text(tomlkit.dumps(local))
    path.chmod(0o600)
    return path
