"""Known tokens: presets of networks, token lists, and the check for look-alike symbols. Tests
compare the presets' addresses with @uniswap/sdk-core.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from agent.model.rollups import UNSUPPORTED_CHAINS, unsupported_chain_reason


@dataclass(frozen=True, slots=True)
class PresetToken:
    """A token and its Chainlink USD feed. A wrapped coin has the feed of its underlying coin, which
    does not reflect a depeg of the wrapped coin. `decimals` is None for tokens of a local chain.
    """

    symbol: str
    address: str
    decimals: int | None
    feed: str | None


@dataclass(frozen=True, slots=True)
class Preset:
    """Initial config values of a network."""

    chain_id: int
    wrapped_native: str
    v2_factory: str
    v2_router: str
    v3_factory: str
    v3_router: str
    v3_quoter: str
    v3_quoter_v1: str
    v3_position_manager: str
    tokens: tuple[PresetToken, ...]


ETHEREUM = Preset(
    chain_id=1,
    wrapped_native="0xC02aaA39b223FE8D0A0e5C4F27eAD9083C756Cc2",
    v2_factory="0x5C69bEe701ef814a2B6a3EDD4B1652CB9cc5aA6f",
    v2_router="0x7a250d5630B4cF539739dF2C5dAcb4c659F2488D",
    v3_factory="0x1F98431c8aD98523631AE4a59f267346ea31F984",
    v3_router="0x68b3465833fb72A70ecDF485E0e4C7bD8665Fc45",
    v3_quoter="0x61fFE014bA17989E743c5F6cB21bF9697530B21e",
    v3_quoter_v1="0xb27308f9F90D607463bb33eA1BeBb41C27CE5AB6",
    v3_position_manager="0xC36442b4a4522E871399CD717aBDD847Ab11FE88",
    tokens=(
        PresetToken(
            "WETH",
            "0xC02aaA39b223FE8D0A0e5C4F27eAD9083C756Cc2",
            18,
            "0x5f4eC3Df9cbd43714FE2740f5E3616155c5b8419",
        ),
        PresetToken(
            "WBTC",
            "0x2260FAC5E5542a773Aa44fBCfeDf7C193bc2C599",
            8,
            "0xF4030086522a5bEEa4988F8cA5B36dbC97BeE88c",
        ),
        PresetToken(
            "USDC",
            "0xA0b86991c6218b36c1d19D4a2e9Eb0cE3606eB48",
            6,
            "0x8fFfFfd4AfB6115b954Bd326cbe7B4BA576818f6",
        ),
        PresetToken(
            "USDT",
            "0xdAC17F958D2ee523a2206206994597C13D831ec7",
            6,
            "0x3E7d1eAB13ad0104d2750B8863b489D65364e32D",
        ),
        PresetToken(
            "DAI",
            "0x6B175474E89094C44Da98b954EedeAC495271d0F",
            18,
            "0xAed0c38402a5d19df6E4c03F4E2DceD6e29c1ee9",
        ),
        PresetToken(
            "LINK",
            "0x514910771AF9Ca656af840dff83E8264EcF986CA",
            18,
            "0x2c1d072e956AFFC0D435Cb7AC38EF18d24d9127c",
        ),
        PresetToken(
            "AAVE",
            "0x7Fc66500c84A76Ad7e9c93437bFc5Ac33E2DDaE9",
            18,
            "0x547a514d5e3769680Ce22B2361c10Ea13619e8a9",
        ),
    ),
)

PRESETS = {"ethereum": ETHEREUM}

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
"""Feeds that write a round at least every hour, from the same file; those of USDC and USDT write one
each day. The price of a feed that no longer writes is not within its threshold.
"""
HOURLY_FEED_MAX_AGE = "2h"
DEVIATION_MARGIN_BPS = 25
"""Added to the thresholds of two feeds for the distance between pools and the market, which
their fees permit.
"""


def starting_deviation_bps(feeds: Iterable[str | None], numeraire: str | None) -> int | None:
    """Return limits.oracle_deviation for a new config: the thresholds of an asset's feed and of the
    numeraire's, the largest of all assets, plus a margin. None if a threshold is not known.
    """
    asset_thresholds = [FEED_THRESHOLDS_BPS.get(feed or "") for feed in feeds]
    numeraire_threshold = FEED_THRESHOLDS_BPS.get(numeraire or "")
    thresholds = [bps for bps in asset_thresholds if bps is not None]
    if numeraire_threshold is None or len(thresholds) < len(asset_thresholds):
        return None
    return max(thresholds, default=0) + numeraire_threshold + DEVIATION_MARGIN_BPS


SEQUENCER_FEEDS = {
    10: "0x371EAD81c9102C9BF4874A9075FFFf170F2Ee389",
    8453: "0xBCF85224fc0756B9Fa45aA7892530B47e10b6433",
    42161: "0xFdB631F5EE196F0ed6FAa767959853A9F217697D",
}
"""Chainlink's uptime feed of the sequencer by chain id: OP Mainnet, Base, Arbitrum One
(docs.chain.link, L2 sequencer feeds)."""
SEQUENCER_GRACE = "1h"


def require_known_fees(chain_id: int, *, local: bool) -> None:
    """Raise ValueError for a live rollup whose fees are not implemented (T13)."""
    if not local and chain_id in UNSUPPORTED_CHAINS:
        raise ValueError(
            f"chain.chain_id: {unsupported_chain_reason(chain_id)}; use another chain, such as 8453 (Base)"
        )


@dataclass(frozen=True, slots=True)
class TemplateAsset:
    """One asset or hub of the new config; `target` in the config's notation."""

    symbol: str
    address: str
    target: str
    feed: str | None
    decimals: int | None = None
