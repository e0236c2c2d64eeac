"""Known tokens: presets of networks, token lists, and the check for look-alike symbols. Tests
compare the presets' addresses with @uniswap/sdk-core.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from agent import codec
from agent.config.fields import parse_address
from agent.errors import ConfigError
from agent.model.rollups import UNSUPPORTED, unsupported_chain
from agent.units import safe_label


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
    known = [FEED_THRESHOLDS_BPS.get(feed or "") for feed in feeds]
    base = FEED_THRESHOLDS_BPS.get(numeraire or "")
    thresholds = [bps for bps in known if bps is not None]
    if base is None or len(thresholds) < len(known):
        return None
    return max(thresholds, default=0) + base + DEVIATION_MARGIN_BPS


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
    if not local and chain_id in UNSUPPORTED:
        raise ValueError(
            f"chain.chain_id: {unsupported_chain(chain_id)}; use another chain, such as 8453 (Base)"
        )


@dataclass(frozen=True, slots=True)
class TemplateAsset:
    """One asset or hub of the new config; `target` in the config's notation."""

    symbol: str
    address: str
    target: str
    feed: str | None
    decimals: int | None = None


# --- Token lists in Uniswap's format, and look-alike symbols.


_SHA256 = re.compile(r"(0x)?[0-9a-fA-F]{64}")
# Look-alike letters of token symbols, from the confusables of Unicode Technical Standard 39.
_CONFUSABLES = str.maketrans(
    "01|!il5$82" + "аеорсухіѕјһԁѡвкмнтгьԛ" + "αορυνικτχβεηγ" + "ᴀʙᴄᴅᴇɢʜɪᴊᴋʟᴍɴᴏᴘʀꜱᴛᴜᴠᴡʏᴢ",
    "ollllls" + "sbz" + "aeopcyxlsjhdwbkmhtrbq" + "aopuvlktxbeny" + "abcdeghljklmnoprstuvwyz",
)


@dataclass(frozen=True, slots=True)
class TokenList:
    """The tokens of one chain in a file whose SHA-256 is `digest`."""

    tokens: tuple[TemplateAsset, ...]
    digest: str


def read_token_list(path: Path, chain_id: int, pinned: str | None = None) -> TokenList:
    """Return the chain's tokens of a list, without those with deceptive names (T16, T17).

    Raises ConfigError if the file is not a token list, has no token of the chain, or its SHA-256 is
    not `pinned` (None: any).
    """
    if pinned is not None and not _SHA256.fullmatch(pinned):
        raise ConfigError(
            f"--token-list-sha256: {pinned!r} is not a SHA-256", "write its 64 hex digits"
        )
    try:
        raw = path.read_bytes()
        entries = codec.read_json(raw.decode())["tokens"]
        of_chain = [entry for entry in entries if entry["chainId"] == chain_id]
        assets = tuple(
            TemplateAsset(
                entry["symbol"],
                parse_address(entry["address"], "token list"),
                "",
                None,
                int(entry["decimals"]),
            )
            for entry in of_chain
            if safe_label(entry["symbol"], "") != ""
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(
            f"--token-list {path}: not a token list: {error!r}",
            "use a JSON file in Uniswap's token list format",
        ) from None
    digest = hashlib.sha256(raw).hexdigest()
    if pinned is not None and pinned.lower().removeprefix("0x") != digest:
        raise ConfigError(
            f"--token-list {path}: its SHA-256 is {digest}, but {pinned.lower()} is pinned",
            "find out why it changed before using it",
        )
    if not of_chain:
        raise ConfigError(
            f"--token-list {path}: no token of chain {chain_id}",
            "use the list of this chain",
        )
    return TokenList(assets, digest)


def confusable_skeleton(symbol: str) -> str:
    """Return the canonical form of a symbol: look-alike letters are equal, case and separators are
    ignored.
    """
    plain = unicodedata.normalize("NFKD", symbol).casefold()
    kept = "".join(char for char in plain if unicodedata.category(char)[0] in "LNS" or char in "|!")
    return kept.translate(_CONFUSABLES).replace("rn", "m").replace("vv", "w")


def refuse_look_alike(
    name: str,
    address: str | None,
    known: Iterable[TemplateAsset],
    listed: Sequence[TemplateAsset],
    field: str = "--target",
) -> None:
    """Raise ConfigError if `name` looks like another token's symbol, known or in the list. A known
    token's own symbol is always accepted.
    """
    known = tuple(known)
    if any(token.symbol == name for token in known):
        return
    skeleton = confusable_skeleton(name)
    for token in (*known, *listed):
        if name == token.symbol or address == token.address:
            continue
        if confusable_skeleton(token.symbol) == skeleton:
            raise ConfigError(
                f"{field}: {name!r} looks like {token.symbol}, which is another token"
                f" ({token.address})",
                "give the token's address instead",
            )
