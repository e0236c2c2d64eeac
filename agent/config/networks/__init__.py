"""Networks that a new config can start from; docs/networks.md says where their values come from."""

from agent.config.networks.arbitrum import ARBITRUM
from agent.config.networks.base import BASE
from agent.config.networks.bnb import BNB
from agent.config.networks.ethereum import ETHEREUM
from agent.config.networks.network import (
    ORDERED_BY_SEQUENCER,
    Network,
    NetworkToken,
    TypicalFees,
    VenueDeployment,
)
from agent.config.networks.optimism import OPTIMISM
from agent.config.networks.polygon import POLYGON
from agent.config.networks.unichain import UNICHAIN
from agent.model.rollups import ARBITRUM_CHAINS, OP_STACK_CHAINS

NETWORKS = (ETHEREUM, BASE, ARBITRUM, BNB, OPTIMISM, POLYGON, UNICHAIN)


def typical_fees(chain_id: int) -> TypicalFees:
    """Return the fees of a chain; for one without a module here those of Base if it is a rollup, else
    of Ethereum.
    """
    fees_by_chain_id = {network.chain_id: network.fees for network in NETWORKS}
    is_rollup = chain_id in {**OP_STACK_CHAINS, **ARBITRUM_CHAINS}
    return fees_by_chain_id.get(chain_id, (BASE if is_rollup else ETHEREUM).fees)


def feed_name(chain_id: int, address: str) -> str | None:
    """Return what the feed of a token is called: USDT for USDT0 on Arbitrum; None for a token that
    has no feed here.
    """
    return next(
        (
            token.priced_as
            for network in NETWORKS
            for token in network.tokens
            if (network.chain_id, token.address) == (chain_id, address)
        ),
        None,
    )


__all__ = [
    "BASE",
    "ETHEREUM",
    "NETWORKS",
    "ORDERED_BY_SEQUENCER",
    "Network",
    "NetworkToken",
    "TypicalFees",
    "VenueDeployment",
    "feed_name",
    "typical_fees",
]


def wrapped_native_of(chain_id: int) -> str:
    """Return the wrapped native coin of a chain; empty for one that is none of NETWORKS."""
    wrapped_by_chain_id = {network.chain_id: network.wrapped_native for network in NETWORKS}
    return wrapped_by_chain_id.get(chain_id, "")
