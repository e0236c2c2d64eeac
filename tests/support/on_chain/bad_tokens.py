"""Tokens of a local chain that turn bad."""

from __future__ import annotations

from pathlib import Path

import tomlkit

from agent.app.start.trust import pin_all
from agent.artifacts import Artifact, own_artifact
from agent.config.load import load_config
from agent.config.loaded import LoadedConfig
from agent.localchain import LocalChain
from agent.localchain.nodes import AnvilNode
from tests.support.agents import FIVE, ROOMY

FOUR = {"WETH": "30%", "WBTC": "25%", "USDC": "20%", "USDT": "15%"}


def with_guest(
    chain: LocalChain, folder: Path, address: str, symbol: str = "GUEST", router: str = "swap_router_02", screen: str = "on"
) -> LoadedConfig:
    """Four tokens of the world, and in LINK's place one more at this address, with LINK's feed."""
    folder.mkdir(exist_ok=True)
    document = tomlkit.parse(chain.config_text(targets=FIVE, router=router))
    for key, value in (*ROOMY.items(), ("limits.token_screen", screen)):
        table, name = key.split(".")
        document[table][name] = value  # type: ignore[index]  # tomlkit's tables are typed as items
    document["portfolio"]["assets"][4]["symbol"] = symbol  # type: ignore[index]
    document["portfolio"]["assets"][4]["address"] = address  # type: ignore[index]
    path = folder / "trimtab.toml"
    path.write_text(tomlkit.dumps(document))
    loaded = load_config(path)
    pin_all(loaded, [chain.transport])
    return loaded


def replace_token(chain: LocalChain, symbol: str, contract: str | Artifact, *arguments: object) -> str:
    """A token that was listed in a pool of five million dollars, and then became another contract at the same address."""
    artifact = own_artifact(contract) if isinstance(contract, str) else contract
    assert isinstance(chain.node, AnvilNode)
    chain.add_token(symbol, 18, chain.deployed_world.prices_usd["LINK"])
    chain.add_v2_pool(symbol, "USDC", 5_000_000)
    address = chain.tokens[symbol].address
    chain.node.rpc("anvil_setCode", address, chain.node.rpc("eth_getCode", chain.deploy(artifact, *arguments), "latest"))
    return address
