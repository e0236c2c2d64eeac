"""Merging a profile into trimtab.toml."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import tomlkit
from tomlkit.items import AoT

from agent.config.networks.presets import HOURLY_FEED_MAX_AGE, HOURLY_FEEDS
from agent.config.schema import Config
from agent.config.tables.portfolio import NATIVE
from agent.config.writing.allocator_edits import fix_weight
from agent.config.writing.edits import notation_error, without_asset
from agent.config.writing.hubs import update_hubs
from agent.config.writing.profile import FILE_KEYS, POLICY_KEYS, Profile
from agent.config.writing.profile_tokens import ResolvedToken, known_tokens
from agent.errors import ConfigError
from agent.foreign_text import bounded_toml, read_toml

OFF = "off"


def merge_profile(
    config_text: str,
    config: Config,
    profile: Profile,
    tokens: Sequence[ResolvedToken],
    limits: Mapping[str, object],
    sell_others: bool = False,
) -> str:
    """Merge the profile into the config's `config_text`, which parses as `config`.

    `tokens` are the resolved tokens of its assets, in order; `limits` are written to the config.
    Assets missing from the profile are removed, and their holdings kept; with `sell_others` they
    stay with a target of 0. The numeraire is never removed. Raises ConfigError if no asset would
    price gas.
    """
    entry_by_symbol = dict(
        zip((token.symbol for token in tokens), profile.file_values["assets"], strict=True)
    )
    feed_ages = _feed_ages(config_text)
    other_symbols = [
        asset.symbol for asset in config.portfolio.assets if asset.symbol not in entry_by_symbol
    ]
    for symbol in other_symbols:
        if not sell_others and symbol != config.portfolio.numeraire:
            config_text = without_asset(config_text, symbol)
    document: Any = tomlkit.parse(bounded_toml(config_text))
    portfolio = document["portfolio"]
    wrapped_address = config.chain.wrapped_native
    assets = portfolio["assets"]
    if not isinstance(assets, AoT):
        raise notation_error()
    for asset in assets:
        if asset["symbol"] in other_symbols:
            _set_target_and_band(asset, {"target": "0%"})
    asset_by_symbol = {str(asset["symbol"]): asset for asset in assets}
    for token in tokens:
        if token.symbol not in asset_by_symbol:
            assets.append(_token_table(token, feed_ages))
            asset_by_symbol[token.symbol] = assets[-1]
        _set_target_and_band(asset_by_symbol[token.symbol], entry_by_symbol[token.symbol])
    asset_addresses = {str(asset["address"]).lower() for asset in assets}
    holds_native = NATIVE in asset_addresses or wrapped_address.lower() in asset_addresses
    wrapped_token = None if holds_native else _wrapped_token(config, wrapped_address)
    update_hubs(
        portfolio,
        wrapped_address,
        None if wrapped_token is None else _token_table(wrapped_token, feed_ages, is_asset=False),
    )
    _replace_allocator(portfolio, profile, other_symbols)
    _replace_policy(document["policy"], profile)
    for key, value in limits.items():
        document["limits"][key] = value
    if not holds_native and document["limits"].get("native_top_up", OFF) != OFF:
        document["limits"]["native_top_up"] = OFF
    return tomlkit.dumps(document)


def _feed_ages(config_text: str) -> dict[str, str]:
    """Return the maximum age of each feed that has its own, in the config or by its heartbeat."""
    portfolio = read_toml(config_text)["portfolio"]
    return dict.fromkeys(HOURLY_FEEDS, HOURLY_FEED_MAX_AGE) | {
        str(entry["feed"]): str(entry["feed_max_age"])
        for entry in (*portfolio["assets"], *portfolio.get("hubs", []))
        if "feed" in entry and "feed_max_age" in entry
    }


def _set_target_and_band(asset: Any, profile_entry: Mapping[str, Any]) -> None:
    asset["target"] = profile_entry["target"]
    asset.pop("band", None)
    if "band" in profile_entry:
        asset["band"] = profile_entry["band"]


def _token_table(token: ResolvedToken, feed_ages: Mapping[str, str], is_asset: bool = True) -> Any:
    """Return the config table of a token, with the maximum age of its feed in `feed_ages`; without
    `is_asset` it is a hub.
    """
    table = tomlkit.table()
    for key, value in (
        ("symbol", token.symbol),
        ("address", token.address),
        ("decimals", token.decimals),
        ("feed", token.feed),
        ("feed_max_age", feed_ages.get(token.feed or "")),
    ):
        if value is not None:
            table[key] = value
    if is_asset:
        table["reserve"] = "0"
        table["target"] = "0%"
    return table


def _wrapped_token(config: Config, wrapped_address: str) -> ResolvedToken:
    for listed_token in config.portfolio.listed_tokens:
        if listed_token.address == wrapped_address and not getattr(listed_token, "native", False):
            return ResolvedToken(
                listed_token.symbol,
                wrapped_address,
                listed_token.decimals,
                listed_token.feed,
                "config",
            )
    preset_token = next(
        (
            token
            for token in known_tokens(config.chain.chain_id)
            if token.address == wrapped_address
        ),
        None,
    )
    if preset_token is None:
        raise ConfigError(
            "portfolio.hubs: gas has no price without the native coin or a hub for it",
            "add its wrapped token to [[portfolio.hubs]] first",
        )
    return ResolvedToken(
        preset_token.symbol, wrapped_address, preset_token.decimals, preset_token.feed, "preset"
    )


def _replace_allocator(portfolio: Any, profile: Profile, other_symbols: Sequence[str]) -> None:
    """Replace the allocator by that of the profile, which has no choice for other assets. Local
    files are kept if the kind is the same.
    """
    old_allocator = portfolio.get("weights", {})
    new_allocator = profile.file_values.get("weights")
    local_files = {
        key: old_allocator[key]
        for key in FILE_KEYS
        if new_allocator
        and key in old_allocator
        and old_allocator.get("kind") == new_allocator.get("kind")
    }
    portfolio.pop("weights", None)
    if new_allocator is not None:
        allocator_table = tomlkit.table()
        for key, value in {**new_allocator, **local_files}.items():
            allocator_table[key] = to_inline(value)
        for asset in portfolio["assets"]:
            if asset["symbol"] in other_symbols:
                fix_weight(allocator_table, str(asset["symbol"]))
        portfolio["weights"] = allocator_table


def _replace_policy(policy: Any, profile: Profile) -> None:
    for key in POLICY_KEYS:
        value = profile.file_values["policy"].get(key)
        if value is None:
            policy.pop(key, None)
        elif policy.get(key) != value:
            policy[key] = to_inline(value) if isinstance(value, dict | list) else value


def to_inline(toml_value: Any) -> Any:
    """Return the value in TOML's inline form."""
    if isinstance(toml_value, Mapping):
        table = tomlkit.inline_table()
        for key, inner_value in toml_value.items():
            table[key] = to_inline(inner_value)
        return table
    if isinstance(toml_value, list):
        array = tomlkit.array()
        for inner_value in toml_value:
            array.append(to_inline(inner_value))
        return array
    return toml_value
