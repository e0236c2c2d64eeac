"""Profiles: weights, triggers and limits of a portfolio in one file, without payout addresses
(T16).
"""

from __future__ import annotations

import hashlib
import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import tomlkit
from pydantic import Field, ValidationError

from agent.config.fields import ConfigTable, Duration, Weight, parse_address
from agent.config.limits import LimitsTable, read_limits
from agent.config.load import LoadedConfig, describe_errors, is_secret
from agent.config.presets import PRESETS, TemplateAsset, refuse_look_alike
from agent.config.schema import NATIVE, AssetTable, Config
from agent.config.triggers import Band, RiskTable, TriggerTable
from agent.config.weights import WeightsTable
from agent.errors import ConfigError
from agent.model import LIMITS
from agent.units import safe_label

FORMAT = 1
LARGEST = 65_536
MOST_ASSETS = 50
ASSET_KEYS = ("symbol", "address", "target", "band")
POLICY_KEYS = ("trigger", "destination", "cooldown", "only", "risk")
FILES = ("supplies",)
"""Keys of an allocator that name files of their owner's."""
TABLES = ("profile", "assets", "weights", "policy", "limits")
HEAD = """\
# A trimtab profile: weights, triggers and limits. It names no router, factory, feed, endpoint, key or address to pay to, and an
# import takes none: it finds each token anew by its symbol, and of the limits only those that are tighter than its own.
# Addresses are there to compare. Take it over with: trimtab import-profile FILE

"""
_SHA256 = re.compile(r"(0x)?[0-9a-fA-F]{64}")


class ProfileHeaderTable(ConfigTable):
    """Chain, format and numeraire of a profile; coins in its limits are counted in the numeraire."""

    format: Literal[1]
    chain_id: int = Field(gt=0)
    numeraire: str = Field(pattern=r"^[A-Za-z0-9._-]{1,16}$")


class ProfileAssetTable(ConfigTable):
    """One target. `address` is the token's in the source config. Symbols are checked at look-up, so
    that a look-alike is reported as such.
    """

    symbol: str = Field(min_length=1, max_length=64)
    address: str | None = None
    target: Weight
    band: Band | None = None


class ProfilePolicyTable(ConfigTable):
    """Keys of [policy] for trigger and destination; price confirmation and jitter are not part of a profile."""

    trigger: TriggerTable
    destination: Literal["target", "band", "halfway", "zone"]
    cooldown: Duration
    only: Literal["sell", "buy", "winners", "losers"] | None = None
    risk: RiskTable | None = None


class ProfileTable(ConfigTable):
    """The whole file."""

    profile: ProfileHeaderTable
    assets: list[ProfileAssetTable] = Field(min_length=2, max_length=MOST_ASSETS)
    weights: WeightsTable | None = None
    policy: ProfilePolicyTable
    limits: dict[str, Any] = Field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Profile:
    """A parsed profile: `raw` is the file's values, `digest` the SHA-256 of its bytes."""

    table: ProfileTable
    raw: Mapping[str, Any]
    digest: str
    origin: str


def profile_text(loaded: LoadedConfig) -> tuple[str, tuple[str, ...]]:
    """Return the profile of a config as TOML, and the names of omitted tables. Raises ConfigError
    if a value looks secret.
    """
    raw = tomllib.loads(loaded.path.read_text(encoding="utf-8"))
    portfolio = raw["portfolio"]
    found: dict[str, Any] = {
        "profile": {
            "format": FORMAT,
            "chain_id": raw["chain"]["chain_id"],
            "numeraire": portfolio["numeraire"],
        },
        "assets": [
            {key: asset[key] for key in ASSET_KEYS if key in asset} for asset in portfolio["assets"]
        ],
        "policy": {key: raw["policy"][key] for key in POLICY_KEYS if key in raw["policy"]},
        "limits": {key: value for key, value in raw["limits"].items() if key in LIMITS},
    }
    if "weights" in portfolio:
        found["weights"] = {
            key: value for key, value in portfolio["weights"].items() if key not in FILES
        }
    secret = next(
        (
            place
            for place, value in _leaf_values(found, "")
            if isinstance(value, str) and is_secret(value)
        ),
        None,
    )
    if secret is not None:
        raise ConfigError(
            f"{secret}: looks like a secret, so no profile was written", "correct the config first"
        )
    kept = {name for name in ("strategies", "split") if raw.get(name)} | (
        {"lp.targets"} if raw.get("lp", {}).get("targets") else set()
    )
    kept |= {f"limits.{name}" for name in raw["limits"] if name not in LIMITS}
    kept |= {f"portfolio.{name}" for name in ("orders", "positions") if portfolio.get(name)}
    kept |= {f"portfolio.weights.{name}" for name in FILES if name in portfolio.get("weights", {})}
    return HEAD + tomlkit.dumps(found), tuple(sorted(kept))


def read_profile(path: Path, loaded: LoadedConfig, pinned: str | None = None) -> Profile:
    """Read a profile for the chain of `loaded`.

    Raises ConfigError naming every key that a profile may not have, another chain, or a file whose SHA-256 is not `pinned` (None: any).
    """
    if pinned is not None and not _SHA256.fullmatch(pinned):
        raise ConfigError(f"--sha256: {pinned!r} is not a SHA-256", "write its 64 hex digits")
    try:
        data = path.read_bytes()
        if len(data) > LARGEST:
            raise ConfigError(
                f"{path}: larger than {LARGEST} bytes, which no profile is", "use another file"
            )
        raw = tomllib.loads(data.decode())
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError(
            f"{path}: not a profile: {error}", "give a file that trimtab export-profile wrote"
        ) from None
    digest = hashlib.sha256(data).hexdigest()
    if pinned is not None and pinned.lower().removeprefix("0x") != digest:
        raise ConfigError(
            f"{path}: its SHA-256 is {digest}, pinned is {pinned.lower()}",
            "find out who changed it before you use it",
        )
    _refuse_foreign(raw, str(path))
    found: list[str] = []
    try:
        table = ProfileTable.model_validate(raw)
    except ValidationError as error:
        found = describe_errors(error, raw, ProfileTable)
    else:
        try:
            read_limits(table.limits, loaded.config.limits)
        except ValidationError as error:
            found = [f"limits.{line}" for line in describe_errors(error, table.limits, LimitsTable)]
    if found:
        raise ConfigError(
            f"{path}: {'; '.join(found)}", "give a file that trimtab export-profile wrote"
        )
    symbols = [asset.symbol for asset in table.assets]
    if twice := [symbol for symbol in symbols if symbols.count(symbol) > 1]:
        raise ConfigError(f"{path}: assets: symbol {twice[0]!r} is given twice; each token once")
    chain_id = loaded.config.chain.chain_id
    if table.profile.chain_id != chain_id:
        raise ConfigError(
            f"{path}: profile.chain_id: it is of chain {table.profile.chain_id}, your config of"
            f" chain {chain_id}",
            "use a profile of your chain: the same names are other tokens elsewhere",
        )
    return Profile(table, raw, digest, str(path))


def require_addresses(profile: Profile) -> None:
    """Raise ConfigError for an invalid address."""
    for asset in profile.table.assets:
        if asset.address not in (None, NATIVE):
            parse_address(asset.address, f"{profile.origin}: address of {asset.symbol}")


def _refuse_foreign(raw: Mapping[str, Any], origin: str) -> None:
    """Raise ConfigError naming every key that is not a profile's."""
    found = list(_foreign(raw))
    if found:
        raise ConfigError(
            f"{origin}: a profile may not carry {', '.join(found[:50])}",
            "remove them: a profile has weights, triggers and limits, and nothing that decides"
            " where money goes",
        )


def _foreign(raw: Mapping[str, Any]) -> Iterator[str]:
    for name, value in raw.items():
        if name not in TABLES:
            yield from (place for place, _ in _leaf_values(value, name))
    assets = raw.get("assets")
    for asset in assets if isinstance(assets, list) else ():
        yield from _others(asset, "assets", ASSET_KEYS)
    yield from _others(raw.get("profile"), "profile", tuple(ProfileHeaderTable.model_fields))
    yield from _others(raw.get("policy"), "policy", POLICY_KEYS)
    yield from _others(raw.get("limits"), "limits", tuple(LIMITS))
    yield from _others(
        raw.get("weights"),
        "weights",
        tuple(name for name in WeightsTable.model_fields if name not in FILES),
    )


def _others(table: Any, name: str, known: tuple[str, ...]) -> Iterator[str]:
    if isinstance(table, Mapping):
        yield from (f"{name}.{key}" for key in table if key not in known)


def _leaf_values(value: Any, place: str) -> Iterator[tuple[str, Any]]:
    """Yield (place, value) of every leaf; an empty table is a leaf."""
    if isinstance(value, Mapping) and value:
        for name, inner in value.items():
            yield from _leaf_values(inner, f"{place}.{name}" if place else name)
    elif isinstance(value, list) and any(isinstance(inner, Mapping) for inner in value):
        for inner in value:
            yield from _leaf_values(inner, place)
    else:
        yield place, value


# --- Resolution of a profile's symbols: by the config first, then by the preset or a token list, never by its address.


@dataclass(frozen=True, slots=True)
class ResolvedToken:
    """A token as this config has it: `address` may be "native", `source` names its origin."""

    symbol: str
    address: str
    decimals: int | None
    feed: str | None
    source: str


def resolve_token(
    symbol: str, config: Config, listed: Sequence[TemplateAsset], origin: str
) -> ResolvedToken:
    """Return the token of that symbol. Raises ConfigError if it is unknown, ambiguous, or resembles
    another known symbol.
    """
    own = [
        TemplateAsset(
            one.symbol,
            NATIVE if isinstance(one, AssetTable) and one.native else one.address,
            "",
            one.feed,
            one.decimals,
        )
        for one in config.portfolio.listed
    ]
    preset = known_tokens(config.chain.chain_id)
    field = f"{origin}: symbol"
    mine = next((token for token in own if token.symbol == symbol), None)
    if mine is not None:
        return ResolvedToken(symbol, mine.address, mine.decimals, mine.feed, "config")
    found = {
        token.address: token for token in reversed((*preset, *listed)) if token.symbol == symbol
    }
    refuse_look_alike(symbol, next(iter(found), None), (*own, *preset), listed, field)
    if safe_label(symbol, "") == "":
        raise ConfigError(f"{field}: {symbol!r} is no symbol", "up to 16 letters, digits, . _ -")
    if not found:
        raise ConfigError(
            f"{field}: {symbol!r} is known neither to your config nor to this network",
            "give a --token-list that has it",
        )
    if len(found) > 1:
        raise ConfigError(
            f"{field}: {symbol!r} means several tokens: {', '.join(sorted(found))}",
            "add the one you mean to your config first",
        )
    token = next(iter(found.values()))
    return ResolvedToken(
        symbol,
        token.address,
        token.decimals,
        token.feed,
        "preset" if token in preset else "token list",
    )


def known_tokens(chain_id: int) -> tuple[TemplateAsset, ...]:
    """Tokens of the network's preset, its native coin too; empty for a chain without one."""
    preset = next((one for one in PRESETS.values() if one.chain_id == chain_id), None)
    if preset is None:
        return ()
    tokens = [
        TemplateAsset(token.symbol, token.address, "", token.feed, token.decimals)
        for token in preset.tokens
    ]
    wrapped = next(token for token in tokens if token.address == preset.wrapped_native)
    coin = TemplateAsset(
        wrapped.symbol.removeprefix("W"), NATIVE, "", wrapped.feed, wrapped.decimals
    )
    return (*tokens, coin)


# --- Merging a profile into trimtab.toml: weights, trigger and tighter limits; the rest is unchanged.


OFF = "off"


def merge_profile(
    text: str,
    config: Config,
    profile: Profile,
    tokens: Sequence[ResolvedToken],
    limits: Mapping[str, object],
    sell_others: bool = False,
) -> str:
    """Merge the profile into the config's `text`, which parses as `config`.

    `tokens` are those of its assets, in order; `limits` those to take. Assets missing from the
    profile are removed, and their holdings kept; with `sell_others` they stay with a target of 0,
    as the numeraire always does. Raises ConfigError if the wrapped native coin would be lost.
    """
    document: Any = tomlkit.parse(text)
    portfolio, wrapped = document["portfolio"], config.chain.wrapped_native
    assets, wanted = (
        portfolio["assets"],
        dict(zip((token.symbol for token in tokens), profile.raw["assets"], strict=True)),
    )
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


def _table(token: ResolvedToken, reserve: bool = True) -> Any:
    """A token as a table of the config; its holdings count from here on."""
    made = tomlkit.table()
    for key, value in (
        ("symbol", token.symbol),
        ("address", token.address),
        ("decimals", token.decimals),
        ("feed", token.feed),
    ):
        if value is not None:
            made[key] = value
    if reserve:
        made["reserve"] = "0"
        made["target"] = "0%"
    return made


def _hubs(portfolio: Any, held: Set[str], wrapped: ResolvedToken | None) -> None:
    """Remove hubs that are now held, and add the wrapped native coin if it is neither held nor a
    hub: it prices gas.
    """
    hubs = portfolio.get("hubs", [])
    for number in reversed(range(len(hubs))):
        if str(hubs[number]["address"]).lower() in held:
            del hubs[number]
    if wrapped is not None and wrapped.address.lower() not in {
        str(hub["address"]).lower() for hub in hubs
    }:
        if "hubs" not in portfolio:
            portfolio["hubs"] = tomlkit.aot()
        portfolio["hubs"].append(_table(wrapped, reserve=False))
    elif "hubs" in portfolio and not hubs:
        portfolio.pop("hubs")


def _wrapped(config: Config, wrapped: str) -> ResolvedToken:
    own = [
        one
        for one in config.portfolio.listed
        if one.address == wrapped and not getattr(one, "native", False)
    ]
    if own:
        return ResolvedToken(own[0].symbol, wrapped, own[0].decimals, own[0].feed, "config")
    preset = next(
        (one for one in known_tokens(config.chain.chain_id) if one.address == wrapped), None
    )
    if preset is None:
        raise ConfigError(
            "portfolio.hubs: without the native coin among the assets gas has no price",
            "add its wrapped token to [[portfolio.hubs]] first",
        )
    return ResolvedToken(preset.symbol, wrapped, preset.decimals, preset.feed, "preset")


def _weights(portfolio: Any, profile: Profile) -> None:
    """The allocator of the profile, with our own files if it is of the same kind as ours."""
    before, after = portfolio.get("weights", {}), profile.raw.get("weights")
    files = {
        key: before[key]
        for key in FILES
        if after and key in before and before.get("kind") == after.get("kind")
    }
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
    """The value on one line."""
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
