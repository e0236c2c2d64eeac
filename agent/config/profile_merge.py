"""Puts a profile into trimtab.toml: its weights, its trigger and the limits that are tighter; all else stays as its owner wrote it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from typing import Any

import tomlkit

from agent.config.native import NATIVE
from agent.config.profile import FILES, POLICY_KEYS, Profile
from agent.config.profile_tokens import Found, known_tokens
from agent.config.schema import Config
from agent.errors import ConfigError

OFF = "off"


def merged(
    text: str, config: Config, profile: Profile, tokens: Sequence[Found], limits: Mapping[str, object], sell_others: bool = False
) -> str:
    """The config's `text`, which reads as `config`, with the profile in it. `tokens` are those of its assets, in order; `limits`
    those to be taken.

    Assets that the profile does not have are taken out, and what is held of them is left alone; with `sell_others` they stay with
    a target of nothing, and so does the numeraire in any case. Raises ConfigError where the wrapped native coin would be lost.
    """
    document: Any = tomlkit.parse(text)
    portfolio, wrapped = document["portfolio"], config.chain.wrapped_native
    assets, wanted = portfolio["assets"], dict(zip((token.symbol for token in tokens), profile.raw["assets"], strict=True))
    for number in reversed(range(len(assets))):
        symbol = str(assets[number]["symbol"])
        if symbol not in wanted and (sell_others or symbol == portfolio["numeraire"]):
            _share(assets[number], {"target": "0%"})
        elif symbol not in wanted:
            del assets[number]
    known = {str(asset["symbol"]): asset for asset in assets}
    for token in tokens:
        if token.symbol not in known:
            assets.append(_table(token))
            known[token.symbol] = assets[-1]
        _share(known[token.symbol], wanted[token.symbol])
    held = {str(asset["address"]).lower() for asset in assets}
    coined = NATIVE in held or wrapped.lower() in held
    _hubs(portfolio, held, None if coined else _wrapped(config, wrapped))
    _weights(portfolio, profile)
    _policy(document["policy"], profile)
    for key, value in limits.items():
        document["limits"][key] = value
    if not coined and document["limits"].get("native_top_up", OFF) != OFF:
        document["limits"]["native_top_up"] = OFF
    return tomlkit.dumps(document)


def _share(asset: Any, written: Mapping[str, Any]) -> None:
    asset["target"] = written["target"]
    asset.pop("band", None)
    if "band" in written:
        asset["band"] = written["band"]


def _table(token: Found, reserve: bool = True) -> Any:
    """A token as the config has it; what is held of it counts from here on."""
    made = tomlkit.table()
    for key, value in (("symbol", token.symbol), ("address", token.address), ("decimals", token.decimals), ("feed", token.feed)):
        if value is not None:
            made[key] = value
    if reserve:
        made["reserve"] = "0"
        made["target"] = "0%"
    return made


def _hubs(portfolio: Any, held: Set[str], wrapped: Found | None) -> None:
    """Hubs that are not held now; and the wrapped native coin, where it is none and not held: it prices gas."""
    hubs = portfolio.get("hubs", [])
    for number in reversed(range(len(hubs))):
        if str(hubs[number]["address"]).lower() in held:
            del hubs[number]
    if wrapped is not None and wrapped.address.lower() not in {str(hub["address"]).lower() for hub in hubs}:
        if "hubs" not in portfolio:
            portfolio["hubs"] = tomlkit.aot()
        portfolio["hubs"].append(_table(wrapped, reserve=False))
    elif "hubs" in portfolio and not hubs:
        portfolio.pop("hubs")


def _wrapped(config: Config, wrapped: str) -> Found:
    own = [one for one in config.portfolio.listed if one.address == wrapped and not getattr(one, "native", False)]
    if own:
        return Found(own[0].symbol, wrapped, own[0].decimals, own[0].feed, "config")
    preset = next((one for one in known_tokens(config.chain.chain_id) if one.address == wrapped), None)
    if preset is None:
        raise ConfigError(
            "portfolio.hubs: without the native coin among the assets gas has no price",
            "add its wrapped token to [[portfolio.hubs]] first",
        )
    return Found(preset.symbol, wrapped, preset.decimals, preset.feed, "preset")


def _weights(portfolio: Any, profile: Profile) -> None:
    """The allocator of the profile, with files of our own where it is of the kind that we had."""
    before, after = portfolio.get("weights", {}), profile.raw.get("weights")
    files = {key: before[key] for key in FILES if after and key in before and before.get("kind") == after.get("kind")}
    portfolio.pop("weights", None)
    if after is not None:
        made = tomlkit.table()
        for key, value in {**after, **files}.items():
            made[key] = _inline(value)
        portfolio["weights"] = made


def _policy(policy: Any, profile: Profile) -> None:
    for key in POLICY_KEYS:
        value = profile.raw["policy"].get(key)
        if value is None:
            policy.pop(key, None)
        elif policy.get(key) != value:
            policy[key] = _inline(value) if isinstance(value, dict | list) else value


def _inline(value: Any) -> Any:
    """On one line, so that it can stand where a line stood."""
    if isinstance(value, Mapping):
        table = tomlkit.inline_table()
        for name, inner in value.items():
            table[name] = _inline(inner)
        return table
    if isinstance(value, list):
        array = tomlkit.array()
        for inner in value:
            array.append(_inline(inner))
        return array
    return value
