"""Presets of networks: what a new config takes from agent/config/networks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from agent.amm import POOL_KINDS
from agent.config.networks import NETWORKS, Network, VenueDeployment
from agent.model.rollups import UNSUPPORTED_CHAINS, unsupported_chain_reason

SWAP_ROUTER_02 = "swap_router_02"
"""Router of a new config."""
V4_TIERS = [[100, 1], [500, 10], [3_000, 60], [10_000, 200]]
"""Fees and tick spacings of Uniswap V4 that its interface offers; any other is allowed too."""


@dataclass(frozen=True, slots=True)
class TemplateAsset:
    """A token of a preset or a token list, or an asset or hub of the new config; `target` is in the
    config's notation, empty for what has none. A wrapped coin has the Chainlink USD feed of its
    underlying coin, which does not reflect a depeg of the wrapped coin. `decimals` is None where
    only the chain tells them.
    """

    symbol: str
    address: str
    target: str
    feed: str | None
    decimals: int | None = None


@dataclass(frozen=True, slots=True)
class Preset:
    """Initial config values of a network; each venue as the keys and values of its table. The
    router of a new config does not trade in `untraded_venues`. `network` is None for a local chain.
    """

    chain_id: int
    wrapped_native: str
    venues: tuple[Mapping[str, Any], ...]
    tokens: tuple[TemplateAsset, ...]
    untraded_venues: tuple[Mapping[str, Any], ...] = ()
    network: Network | None = None


def _preset(network: Network) -> Preset:
    venue_tables = [(venue, table) for venue in network.venues for table in _venue_tables(venue)]
    return Preset(
        network.chain_id,
        network.wrapped_native,
        tuple(table for venue, table in venue_tables if _is_traded(venue, table)),
        tuple(
            TemplateAsset(token.symbol, token.address, "", network.feed_of(token), token.decimals)
            for token in network.tokens
        ),
        tuple(table for venue, table in venue_tables if not _is_traded(venue, table)),
        network,
    )


def _is_traded(venue: VenueDeployment, table: Mapping[str, Any]) -> bool:
    """Return whether the router of a new config trades in a table's pools."""
    return (
        not venue.needs_rebalancer
        and SWAP_ROUTER_02 in POOL_KINDS[table["kind"]].gas.swap_units_by_router
    )


def _venue_tables(venue: VenueDeployment) -> list[dict[str, Any]]:
    """Return the config's tables of a deployment, with one for its pools of the native coin where
    they are a kind of their own; none if its kind is not traded, or a key that it needs is not
    published.
    """
    if venue.kind not in POOL_KINDS:
        return []
    venue_keys = POOL_KINDS[venue.kind].venue_keys
    factory = venue.factory or venue.pool_manager
    value_by_key: dict[str, Any] = {
        "router": venue.router,
        "quoter": venue.quoter,
        "quoter_v1": venue.quoter_v1,
        "position_manager": venue.position_manager,
        "deployer": venue.deployer,
        "pool_implementation": None,
        "fee_tiers": list(venue.fee_tiers) or None,
        "tick_spacings": list(venue.tick_spacings) or None,
        "tiers": V4_TIERS,
        "hooks": None,
    }
    if factory is None or any(value_by_key[key] is None for key in venue_keys.required):
        return []
    known_values = {
        key: config_value
        for key, config_value in value_by_key.items()
        if config_value is not None and key in (*venue_keys.required, *venue_keys.optional)
    }
    pool_kinds = [kind for kind in (venue.kind, f"{venue.kind}_native") if kind in POOL_KINDS]
    return [{"kind": kind, "factory": factory} | known_values for kind in pool_kinds]


PRESETS = {network.name: _preset(network) for network in NETWORKS}
ETHEREUM_PRESET = PRESETS["ethereum"]

FEED_THRESHOLDS_BPS = {
    "0x5f4eC3Df9cbd43714FE2740f5E3616155c5b8419": 50,  # ETH
    "0xF4030086522a5bEEa4988F8cA5B36dbC97BeE88c": 50,  # BTC
    "0x8fFfFfd4AfB6115b954Bd326cbe7B4BA576818f6": 25,  # USDC
    "0x3E7d1eAB13ad0104d2750B8863b489D65364e32D": 25,  # USDT
    "0xAed0c38402a5d19df6E4c03F4E2DceD6e29c1ee9": 25,  # DAI
    "0x2c1d072e956AFFC0D435Cb7AC38EF18d24d9127c": 50,  # LINK
    "0x547a514d5e3769680Ce22B2361c10Ea13619e8a9": 100,  # AAVE
}
"""Move of the price, by feed, after which Chainlink writes a new round: the most that a live feed
lags, beside the time to write it. From feeds-mainnet.json of Chainlink's reference data directory,
which docs.chain.link shows, as of 18 March 2026. Chainlink may change them without notice.
"""
HOURLY_FEEDS = frozenset(
    {
        "0x5f4eC3Df9cbd43714FE2740f5E3616155c5b8419",  # ETH
        "0xF4030086522a5bEEa4988F8cA5B36dbC97BeE88c",  # BTC
        "0xAed0c38402a5d19df6E4c03F4E2DceD6e29c1ee9",  # DAI
        "0x2c1d072e956AFFC0D435Cb7AC38EF18d24d9127c",  # LINK
        "0x547a514d5e3769680Ce22B2361c10Ea13619e8a9",  # AAVE
    }
)
"""Feeds that write a round at least every hour, from the same file; those of USDC and USDT write
one each day. The price of a feed that no longer writes is not within its threshold.
"""
HOURLY_FEED_MAX_AGE = "2h"
DEVIATION_MARGIN_BPS = 25
"""Added to the thresholds of two feeds for the distance between pools and the market, which
their fees permit.
"""


def starting_deviation_bps(feeds: Iterable[str | None], numeraire_feed: str | None) -> int | None:
    """Return limits.oracle_deviation for a new config: the thresholds of an asset's feed and of the
    numeraire's, the largest of all assets, plus a margin. None if a threshold is not known.
    """
    asset_thresholds_bps = [FEED_THRESHOLDS_BPS.get(feed or "") for feed in feeds]
    numeraire_threshold_bps = FEED_THRESHOLDS_BPS.get(numeraire_feed or "")
    known_thresholds_bps = [bps for bps in asset_thresholds_bps if bps is not None]
    if numeraire_threshold_bps is None or len(known_thresholds_bps) < len(asset_thresholds_bps):
        return None
    return max(known_thresholds_bps, default=0) + numeraire_threshold_bps + DEVIATION_MARGIN_BPS


SEQUENCED_CHAINS = {network.chain_id for network in NETWORKS if network.is_sequenced}
"""Ids of chains whose transactions only the sequencer sees before their block."""
SEQUENCER_FEEDS = {
    network.chain_id: network.sequencer_feed
    for network in NETWORKS
    if network.sequencer_feed is not None
}
"""Chainlink's uptime feed of the sequencer by chain id."""
SEQUENCER_GRACE = "1h"


def require_known_fees(chain_id: int, *, local: bool) -> None:
    """Raise ValueError for a live rollup whose fees are not implemented (T13)."""
    if not local and chain_id in UNSUPPORTED_CHAINS:
        raise ValueError(
            f"chain.chain_id: {unsupported_chain_reason(chain_id)}; use another chain, such as 8453 (Base)"
        )
