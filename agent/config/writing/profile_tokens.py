"""Resolution of a profile's symbols to tokens, from the config, the preset or a token list."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from agent.config.networks.other_names import name_remedy
from agent.config.networks.presets import PRESETS, TemplateAsset
from agent.config.schema import Config
from agent.config.tables.portfolio import NATIVE, AssetTable
from agent.config.writing.token_lists import refuse_look_alike
from agent.errors import ConfigError
from agent.units import safe_label


@dataclass(frozen=True, slots=True)
class ResolvedToken:
    """A resolved token: `address` may be "native"; `source` is config, preset or token list."""

    symbol: str
    address: str
    decimals: int | None
    feed: str | None
    source: str


def resolve_token(
    symbol: str, config: Config, listed_tokens: Sequence[TemplateAsset], origin: str
) -> ResolvedToken:
    """Return the token with this symbol. Raises ConfigError if it is unknown, ambiguous, or
    resembles another known symbol.
    """
    config_tokens = [
        TemplateAsset(
            token_table.symbol,
            NATIVE
            if isinstance(token_table, AssetTable) and token_table.native
            else token_table.address,
            "",
            token_table.feed,
            token_table.decimals,
        )
        for token_table in config.portfolio.listed_tokens
    ]
    preset_tokens = known_tokens(config.chain.chain_id)
    symbol_field = f"{origin}: symbol"
    config_token = next((token for token in config_tokens if token.symbol == symbol), None)
    if config_token is not None:
        return ResolvedToken(
            symbol, config_token.address, config_token.decimals, config_token.feed, "config"
        )
    token_by_address = {
        token.address: token
        for token in reversed((*preset_tokens, *listed_tokens))
        if token.symbol == symbol
    }
    refuse_look_alike(
        symbol,
        next(iter(token_by_address), None),
        (*config_tokens, *preset_tokens),
        listed_tokens,
        symbol_field,
    )
    if safe_label(symbol, "") == "":
        raise ConfigError(
            f"{symbol_field}: {symbol!r} is not a symbol", "write up to 16 letters, digits, . _ -"
        )
    if not token_by_address:
        raise ConfigError(
            f"{symbol_field}: {symbol!r} is neither in your config nor in the network's preset",
            name_remedy(symbol, config.chain.chain_id) or "add a --token-list that contains it",
        )
    if len(token_by_address) > 1:
        raise ConfigError(
            f"{symbol_field}: {symbol!r} is the symbol of several tokens: {', '.join(sorted(token_by_address))}",
            "add the right token to your config first",
        )
    token = next(iter(token_by_address.values()))
    source = "preset" if token in preset_tokens else "token list"
    return ResolvedToken(symbol, token.address, token.decimals, token.feed, source)


def known_tokens(chain_id: int) -> tuple[TemplateAsset, ...]:
    """Return the tokens of the network's preset and its native coin; empty without a preset."""
    preset = next((preset for preset in PRESETS.values() if preset.chain_id == chain_id), None)
    if preset is None:
        return ()
    wrapped_token = next(token for token in preset.tokens if token.address == preset.wrapped_native)
    native_coin = replace(
        wrapped_token, symbol=wrapped_token.symbol.removeprefix("W"), address=NATIVE
    )
    return (*preset.tokens, native_coin)
