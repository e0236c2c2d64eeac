"""Profiles: weights, triggers and limits of a portfolio in one file, without keys or any address
that money could be sent to (T16).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import tomlkit
from pydantic import Field, ValidationError

from agent.config.loaded import LoadedConfig
from agent.config.redaction import is_secret
from agent.config.tables.fields import ConfigTable, Duration, Weight, parse_address
from agent.config.tables.limits import LimitsTable, read_limits
from agent.config.tables.messages import describe_errors
from agent.config.tables.portfolio import NATIVE
from agent.config.tables.triggers import Band, RiskTable, TriggerTable
from agent.config.tables.weights import AllocatorTable
from agent.config.writing.template import starting_values
from agent.errors import ConfigError
from agent.foreign_text import decode_text, read_toml
from agent.model import LIMITS

FORMAT = 1
MAX_BYTES = 65_536
MOST_ASSETS = 50
ASSET_KEYS = ("symbol", "address", "target", "band")
POLICY_KEYS = ("trigger", "destination", "cooldown", "only", "risk")
FILE_KEYS = ("supplies",)
"""Keys of an allocator that name local files."""
TABLES = ("profile", "assets", "weights", "policy", "limits")
OWN_TABLES = (
    "chain",
    "wallet",
    "reference",
    "venues",
    "execution",
    "store",
    "service",
    "alerts",
    "telegram",
    "record",
    "data",
)
"""Tables of a network, a machine or its owner, which nobody expects in a profile."""
PLACED_KEYS = {
    *(f"portfolio.{key}" for key in ("numeraire", "max_live_value", "use_cash", "hubs")),
    *(f"portfolio.assets.{key}" for key in ("decimals", "feed", "feed_max_age", "rebasing")),
    *(f"portfolio.assets.{key}" for key in ASSET_KEYS),
    *(f"portfolio.weights.{key}" for key in AllocatorTable.model_fields if key not in FILE_KEYS),
    *(f"policy.{key}" for key in POLICY_KEYS),
    *(f"limits.{key}" for key in LIMITS),
}
"""Keys that a profile has, and those of a network or an owner in the same tables."""
NO_SETTING = {"portfolio.assets.reserve": "0"}
HEADER_TEXT = """\
# A trimtab profile: weights, triggers and limits. It contains no router, factory, feed, endpoint,
# key or payout address. An import resolves each token by its symbol, and applies a limit only if it
# tightens that of the config. Addresses are for comparison. Import: trimtab import-profile FILE

"""


class ProfileHeaderTable(ConfigTable):
    """Chain, format and numeraire of a profile. Its limits in coins are in that numeraire."""

    format: Literal[1]
    chain_id: int = Field(gt=0)
    numeraire: str = Field(pattern=r"^[A-Za-z0-9._-]{1,16}$")


class ProfileAssetTable(ConfigTable):
    """One asset with its target. `address` is that of the source config, for comparison. Symbols
    are checked on resolution, so that a look-alike is reported as such.
    """

    symbol: str = Field(min_length=1, max_length=64)
    address: str | None = None
    target: Weight
    band: Band | None = None


class ProfilePolicyTable(ConfigTable):
    """Keys of [policy] for trigger and destination. Price confirmation and jitter are not part of a
    profile.
    """

    trigger: TriggerTable
    destination: Literal["target", "band", "halfway", "zone"] | None = None
    cooldown: Duration
    only: Literal["sell", "buy", "winners", "losers"] | None = None
    risk: RiskTable | None = None


class ProfileTable(ConfigTable):
    """The whole file."""

    profile: ProfileHeaderTable
    assets: list[ProfileAssetTable] = Field(min_length=2, max_length=MOST_ASSETS)
    weights: AllocatorTable | None = None
    policy: ProfilePolicyTable
    limits: dict[str, Any] = Field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Profile:
    """A parsed profile: `file_values` is the file's values, `digest` the SHA-256 of its bytes."""

    table: ProfileTable
    file_values: Mapping[str, Any]
    digest: str
    origin: str


def profile_text(loaded_config: LoadedConfig) -> tuple[str, tuple[str, ...]]:
    """Return the profile of a config as TOML, and the names of omitted tables and keys. Raises
    ConfigError if a value looks like a secret.
    """
    config_values = read_toml(loaded_config.path.read_text(encoding="utf-8"))
    portfolio = config_values["portfolio"]
    profile: dict[str, Any] = {
        "profile": {
            "format": FORMAT,
            "chain_id": config_values["chain"]["chain_id"],
            "numeraire": portfolio["numeraire"],
        },
        "assets": [
            {key: asset[key] for key in ASSET_KEYS if key in asset} for asset in portfolio["assets"]
        ],
        "policy": {
            key: config_values["policy"][key]
            for key in POLICY_KEYS
            if key in config_values["policy"]
        },
        "limits": {key: value for key, value in config_values["limits"].items() if key in LIMITS},
    }
    if "weights" in portfolio:
        profile["weights"] = {
            key: value for key, value in portfolio["weights"].items() if key not in FILE_KEYS
        }
    secret_path = next(
        (
            path
            for path, value in _leaf_values(profile, "")
            if isinstance(value, str) and is_secret(value)
        ),
        None,
    )
    if secret_path is not None:
        raise ConfigError(
            f"{secret_path}: looks like a secret, so no profile was written",
            "correct the config first",
        )
    return HEADER_TEXT + tomlkit.dumps(profile), tuple(sorted({*_omitted_keys(config_values)}))


def _omitted_keys(config_values: Mapping[str, Any]) -> Iterator[str]:
    """Yield each key or table that a profile has no place for and whose value is not that of a new
    config, apart from what is of one network, machine or owner.
    """
    new_values = dict(_leaf_values(starting_values(config_values["portfolio"]["numeraire"]), ""))
    tables = {path.partition(".")[0] for path in new_values}
    for path, value in _leaf_values(config_values, ""):
        keys = path.split(".")
        if keys[0] in OWN_TABLES or value in (new_values.get(path, NO_SETTING.get(path)), [], {}):
            continue
        depth = 3 if keys[:2] in (["portfolio", "assets"], ["portfolio", "weights"]) else 2
        omitted_key = ".".join(keys[: depth if keys[0] in tables else 1])
        if omitted_key not in PLACED_KEYS:
            yield omitted_key


def read_profile(
    profile_bytes: bytes, origin: str, loaded_config: LoadedConfig, pinned_sha256: str | None = None
) -> Profile:
    """Read the content of a profile for the chain of `loaded_config`; `origin` is its file or
    address.

    Raises ConfigError if the SHA-256 is not `pinned_sha256` (None: any), before anything is parsed,
    for a key not allowed in a profile, or for another chain.
    """
    sha256_digest = hashlib.sha256(profile_bytes).hexdigest()
    if pinned_sha256 is not None and pinned_sha256.lower().removeprefix("0x") != sha256_digest:
        raise ConfigError(
            f"{origin}: its SHA-256 is {sha256_digest}, but {pinned_sha256.lower()} is pinned",
            "find out why it changed before using it",
        )
    try:
        profile_values = read_toml(decode_text(profile_bytes))
    except ValueError as error:
        raise ConfigError(
            f"{origin}: not a profile: {error}", "use a file written by trimtab export-profile"
        ) from None
    _refuse_foreign_keys(profile_values, origin)
    mistakes: list[str] = []
    try:
        profile_table = ProfileTable.model_validate(profile_values)
    except ValidationError as error:
        mistakes = describe_errors(error, profile_values, ProfileTable, "missing")
    else:
        try:
            read_limits(profile_table.limits, loaded_config.config.limits)
        except ValidationError as error:
            limit_mistakes = describe_errors(error, profile_table.limits, LimitsTable, "missing")
            mistakes = [f"limits.{limit_mistake}" for limit_mistake in limit_mistakes]
    if mistakes:
        raise ConfigError(
            f"{origin}: {'; '.join(mistakes)}", "use a file written by trimtab export-profile"
        )
    symbols = [asset.symbol for asset in profile_table.assets]
    if repeated_symbols := [symbol for symbol in symbols if symbols.count(symbol) > 1]:
        raise ConfigError(
            f"{origin}: assets: symbol {repeated_symbols[0]!r} is given twice; list each token once"
        )
    chain_id = loaded_config.config.chain.chain_id
    if profile_table.profile.chain_id != chain_id:
        raise ConfigError(
            f"{origin}: profile.chain_id: the profile is for chain {profile_table.profile.chain_id}, your"
            f" config for chain {chain_id}",
            "use a profile for your chain: the same symbols are different tokens on other chains",
        )
    return Profile(profile_table, profile_values, sha256_digest, origin)


def require_valid_addresses(profile: Profile) -> None:
    """Raise ConfigError for an invalid address."""
    for asset in profile.table.assets:
        if asset.address not in (None, NATIVE):
            parse_address(asset.address, f"{profile.origin}: address of {asset.symbol}")


def _refuse_foreign_keys(profile_values: Mapping[str, Any], origin: str) -> None:
    """Raise ConfigError naming every key that is not allowed in a profile."""
    foreign_keys = list(_foreign_keys(profile_values))
    if foreign_keys:
        raise ConfigError(
            f"{origin}: a profile may not have {', '.join(foreign_keys[:50])}",
            "remove these keys: a profile has weights, triggers and limits only",
        )


def _foreign_keys(profile_values: Mapping[str, Any]) -> Iterator[str]:
    for name, value in profile_values.items():
        if name not in TABLES:
            yield from (path for path, _ in _leaf_values(value, name))
    assets = profile_values.get("assets")
    for asset in assets if isinstance(assets, list) else ():
        yield from _unknown_keys(asset, "assets", ASSET_KEYS)
    yield from _unknown_keys(
        profile_values.get("profile"), "profile", tuple(ProfileHeaderTable.model_fields)
    )
    yield from _unknown_keys(profile_values.get("policy"), "policy", POLICY_KEYS)
    yield from _unknown_keys(profile_values.get("limits"), "limits", tuple(LIMITS))
    yield from _unknown_keys(
        profile_values.get("weights"),
        "weights",
        tuple(name for name in AllocatorTable.model_fields if name not in FILE_KEYS),
    )


def _unknown_keys(table: Any, table_name: str, allowed_keys: tuple[str, ...]) -> Iterator[str]:
    if isinstance(table, Mapping):
        yield from (f"{table_name}.{key}" for key in table if key not in allowed_keys)


def _leaf_values(toml_value: Any, path: str) -> Iterator[tuple[str, Any]]:
    """Yield (path, value) of every leaf; an empty table is a leaf."""
    if isinstance(toml_value, Mapping) and toml_value:
        for key, inner_value in toml_value.items():
            yield from _leaf_values(inner_value, f"{path}.{key}" if path else key)
    elif isinstance(toml_value, list) and any(
        isinstance(inner_value, Mapping) for inner_value in toml_value
    ):
        for inner_value in toml_value:
            yield from _leaf_values(inner_value, path)
    else:
        yield path, toml_value
