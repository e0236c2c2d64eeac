"""`trimtab deploy`: where the Rebalancer is, and the transaction that puts it there."""

from __future__ import annotations

from pathlib import Path

from agent import wiring
from agent.app.documents.owner import DeploymentDocument
from agent.chain.providers.quorum import QuorumProvider
from agent.config.load import load_config
from agent.config.loaded import LoadedConfig
from agent.errors import ConfigError
from agent.venues.calldata import require_own_rebalancer
from agent.venues.deployment import CREATE2_DEPLOYER, deployment_data, rebalancer_address


def rebalancer_deployment(config: Path | str | LoadedConfig) -> DeploymentDocument:
    """Return the deployment, as the operators of the config agree on it. Raises ConfigError if the
    chain has no CREATE2 deployer, or other code at the address.
    """
    loaded = load_config(config)
    pool = wiring.open_endpoint_pool(loaded.config, None, wiring.SystemClock())
    transport, address = QuorumProvider(pool), rebalancer_address()
    deployer_code, code = transport.batch(
        [("eth_getCode", [contract, "latest"]) for contract in (CREATE2_DEPLOYER, address)]
    )
    if code not in (None, "0x"):
        require_own_rebalancer(transport, address)
    elif deployer_code in (None, "0x"):
        raise ConfigError(
            f"chain.chain_id {loaded.config.chain.chain_id}: there is no CREATE2 deployer at"
            f" {CREATE2_DEPLOYER}",
            "deploy it as its authors describe (deterministic-deployment-proxy), or use"
            " swap_router_02",
        )
    return {
        "chain_id": loaded.config.chain.chain_id,
        "address": address,
        "deployed": code not in (None, "0x"),
        "to": CREATE2_DEPLOYER,
        "value_wei": "0",
        "data": deployment_data(),
    }
