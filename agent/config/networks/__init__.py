"""Networks that a new config can start from; docs/networks.md says where their values come from."""

from agent.config.networks.arbitrum import ARBITRUM
from agent.config.networks.base import BASE
from agent.config.networks.bnb import BNB
from agent.config.networks.ethereum import ETHEREUM
from agent.config.networks.network import (
    PUBLIC_MEMPOOL,
    SEQUENCER_ORDERS,
    Network,
    NetworkToken,
    VenueDeployment,
)
from agent.config.networks.optimism import OPTIMISM
from agent.config.networks.polygon import POLYGON
from agent.config.networks.unichain import UNICHAIN

NETWORKS = (ETHEREUM, BASE, ARBITRUM, BNB, OPTIMISM, POLYGON, UNICHAIN)

__all__ = [
    "NETWORKS",
    "PUBLIC_MEMPOOL",
    "SEQUENCER_ORDERS",
    "Network",
    "NetworkToken",
    "VenueDeployment",
]
