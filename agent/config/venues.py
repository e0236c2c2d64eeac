"""[[venues]]: the deployments that positions and the router's transactions need."""

from __future__ import annotations

from agent.amm import POOL_KINDS
from agent.amm.lp.venues import LpVenue
from agent.config.schema import Config
from agent.config.tables.venues import VenueTable


def find_venue(config: Config, name: str) -> VenueTable | None:
    """Return the deployment with this name, None if the config has none."""
    return next((venue for venue in config.venues if venue.name == name), None)


def position_manager(config: Config) -> str | None:
    """Return the contract of V3 positions, None if the config names none."""
    venue = find_venue(config, LpVenue.V3)
    return None if venue is None else venue.position_manager


def foreign_position_managers(config: Config) -> dict[str, str]:
    """Return the contracts of positions that never count, with the names of their venues."""
    return {
        venue.position_manager: venue.name
        for venue in reversed(config.venues)
        if venue.position_manager is not None and venue.name != LpVenue.V3
    }


def require_usable_venues(config: Config) -> None:
    """Raise ValueError naming a deployment that is given twice, or in which the router of the
    config does not trade: SwapRouter02 finds the pools of one deployment of each kind, by Uniswap's
    own code.
    """
    venue_names = [venue.name for venue in config.venues]
    router = config.execution.router
    for venue_index, venue in enumerate(config.venues):
        if venue.name in venue_names[:venue_index]:
            raise ValueError(f"venues.{venue.name}: given twice; give one of them a label")
        pool_kind = POOL_KINDS[venue.kind]
        pool_sets = [
            (
                earlier_venue.factory,
                earlier_venue.hooks,
                POOL_KINDS[earlier_venue.kind].trades_native,
            )
            for earlier_venue in config.venues[:venue_index]
        ]
        if (venue.factory, venue.hooks, pool_kind.trades_native) in pool_sets:
            raise ValueError(f"venues.{venue.name}.factory: given twice; each factory is one venue")
        is_fork = venue.label or venue.fee is not None or venue.init_code_hash is not None
        is_traded = router in pool_kind.gas.swap_units_by_router
        if not is_traded or (is_fork and router != "rebalancer"):
            raise ValueError(
                f"venues.{venue.name}: execution.router {router} does not trade there; remove this"
                " venue"
            )
        if pool_kind.trades_native and any(asset.native for asset in config.portfolio.assets):
            raise ValueError(
                f"venues.{venue.name}: while the native coin is an asset, only its wrapped form is"
                " traded; remove this venue"
            )
