"""The contracts that the config names besides tokens and pools, by address and what they are."""

from __future__ import annotations

from collections.abc import Sequence

from agent.config.lp_contracts import lp_venues
from agent.config.schema import Config
from agent.model import LpMove


def factories(config: Config) -> dict[str, str]:
    """Factory of each venue by its name."""
    venues = {"uniswap_v2": config.venues.uniswap_v2, "uniswap_v3": config.venues.uniswap_v3}
    return {name: venue.factory for name, venue in venues.items() if venue is not None}


def fixed_contracts(config: Config, moves: Sequence[LpMove] = ()) -> dict[str, str]:
    """Routers and factories, by address: the contracts that the config names besides tokens and pools.

    The position manager is one of them once a position of it counts or is wanted: weights go by what it says, and `moves` are
    what the agent itself did there.
    """
    found: dict[str, str] = {}
    for name, venue in (("v2", config.venues.uniswap_v2), ("v3", config.venues.uniswap_v3)):
        if venue is not None:
            found |= {venue.factory: f"{name} factory", venue.router: f"{name} router"}
    if config.venues.uniswap_v3 is not None and "uniswap_v3" in lp_venues(config, moves):
        found[config.venues.uniswap_v3.position_manager] = "v3 position manager"
    if config.execution.router == "rebalancer" and config.execution.rebalancer is not None:
        found[config.execution.rebalancer] = "rebalancer"
    return found
