"""Which token of ours a profile means by a symbol: by the config first, then by the preset or a token list, never by its address."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from agent.config.native import NATIVE
from agent.config.presets import PRESETS
from agent.config.schema import AssetTable, Config
from agent.config.template import TemplateAsset
from agent.config.token_list import refuse_look_alike
from agent.errors import ConfigError
from agent.units import safe_label


@dataclass(frozen=True, slots=True)
class Found:
    """A token as this config has it: `address` may be "native", `source` is where it was found."""

    symbol: str
    address: str
    decimals: int | None
    feed: str | None
    source: str


def resolve(symbol: str, config: Config, listed: Sequence[TemplateAsset], origin: str) -> Found:
    """The token of that symbol. Raises ConfigError for one that is unknown, ambiguous, or drawn like another that is known."""
    own = [
        TemplateAsset(one.symbol, NATIVE if isinstance(one, AssetTable) and one.native else one.address, "", one.feed, one.decimals)
        for one in config.portfolio.listed
    ]
    preset = known_tokens(config.chain.chain_id)
    field = f"{origin}: symbol"
    mine = next((token for token in own if token.symbol == symbol), None)
    if mine is not None:
        return Found(symbol, mine.address, mine.decimals, mine.feed, "config")
    found = {token.address: token for token in reversed((*preset, *listed)) if token.symbol == symbol}
    refuse_look_alike(symbol, next(iter(found), None), (*own, *preset), listed, field)
    if safe_label(symbol, "") == "":
        raise ConfigError(f"{field}: {symbol!r} is no symbol", "up to 16 letters, digits, . _ -")
    if not found:
        raise ConfigError(f"{field}: {symbol!r} is known neither to your config nor to this network", "give a --token-list that has it")
    if len(found) > 1:
        raise ConfigError(
            f"{field}: {symbol!r} means several tokens: {', '.join(sorted(found))}", "add the one you mean to your config first"
        )
    token = next(iter(found.values()))
    return Found(symbol, token.address, token.decimals, token.feed, "preset" if token in preset else "token list")


def known_tokens(chain_id: int) -> tuple[TemplateAsset, ...]:
    """Tokens of the network's preset, its native coin too; none for a chain without one."""
    preset = next((one for one in PRESETS.values() if one.chain_id == chain_id), None)
    if preset is None:
        return ()
    tokens = [TemplateAsset(token.symbol, token.address, "", token.feed, token.decimals) for token in preset.tokens]
    wrapped = next(token for token in tokens if token.address == preset.wrapped_native)
    coin = TemplateAsset(wrapped.symbol.removeprefix("W"), NATIVE, "", wrapped.feed, wrapped.decimals)
    return (*tokens, coin)
