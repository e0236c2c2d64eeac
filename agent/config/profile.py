"""A profile: weights, triggers and limits of a portfolio in one file, and nothing that says where money goes (T16)."""

from __future__ import annotations

import hashlib
import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import tomlkit
from pydantic import Field, ValidationError

from agent.config.fields import Duration, Weight, parse_address
from agent.config.load import LoadedConfig
from agent.config.mistakes import mistakes
from agent.config.native import NATIVE
from agent.config.redaction import is_secret
from agent.config.schema import LimitsTable
from agent.config.table import Table
from agent.config.tighter import DIRECTIONS, read_limits
from agent.config.triggers import Band, TriggerTable
from agent.config.weights import WeightsTable
from agent.config.zone import RiskTable
from agent.errors import ConfigError

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


class HeadTable(Table):
    """What the rest is about. The numeraire is what coins in the limits are counted in."""

    format: Literal[1]
    chain_id: int = Field(gt=0)
    numeraire: str = Field(pattern=r"^[A-Za-z0-9._-]{1,16}$")


class ShareTable(Table):
    """One target. `address` is what the token had where the profile comes from. What a symbol may be is judged where it is looked up,
    so that one that is drawn like another is named as that.
    """

    symbol: str = Field(min_length=1, max_length=64)
    address: str | None = None
    target: Weight
    band: Band | None = None


class WhenTable(Table):
    """Keys of [policy] that say when to act and how far to go; what confirms prices and hides times stays everybody's own."""

    trigger: TriggerTable
    destination: Literal["target", "band", "halfway", "zone"]
    cooldown: Duration
    only: Literal["sell", "buy", "winners", "losers"] | None = None
    risk: RiskTable | None = None


class ProfileTable(Table):
    """The whole file."""

    profile: HeadTable
    assets: list[ShareTable] = Field(min_length=2, max_length=MOST_ASSETS)
    weights: WeightsTable | None = None
    policy: WhenTable
    limits: dict[str, Any] = Field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Profile:
    """A profile as read: `raw` is the file's values, `digest` the SHA-256 of its bytes."""

    table: ProfileTable
    raw: Mapping[str, Any]
    digest: str
    origin: str


def profile_text(loaded: LoadedConfig) -> tuple[str, tuple[str, ...]]:
    """The profile of a config as TOML, and the names of its tables that stay out. Raises ConfigError where a value looks secret."""
    raw = tomllib.loads(loaded.path.read_text(encoding="utf-8"))
    portfolio = raw["portfolio"]
    found: dict[str, Any] = {
        "profile": {"format": FORMAT, "chain_id": raw["chain"]["chain_id"], "numeraire": portfolio["numeraire"]},
        "assets": [{key: asset[key] for key in ASSET_KEYS if key in asset} for asset in portfolio["assets"]],
        "policy": {key: raw["policy"][key] for key in POLICY_KEYS if key in raw["policy"]},
        "limits": {key: value for key, value in raw["limits"].items() if key in DIRECTIONS},
    }
    if "weights" in portfolio:
        found["weights"] = {key: value for key, value in portfolio["weights"].items() if key not in FILES}
    secret = next((place for place, value in _leaves(found, "") if isinstance(value, str) and is_secret(value)), None)
    if secret is not None:
        raise ConfigError(f"{secret}: looks like a secret, so no profile was written", "correct the config first")
    kept = {name for name in ("strategies", "split") if raw.get(name)} | ({"lp.targets"} if raw.get("lp", {}).get("targets") else set())
    kept |= {f"limits.{name}" for name in raw["limits"] if name not in DIRECTIONS}
    kept |= {f"portfolio.{name}" for name in ("orders", "positions") if portfolio.get(name)}
    kept |= {f"portfolio.weights.{name}" for name in FILES if name in portfolio.get("weights", {})}
    return HEAD + tomlkit.dumps(found), tuple(sorted(kept))


def read_profile(path: Path, loaded: LoadedConfig, pinned: str | None = None) -> Profile:
    """A profile for the chain of `loaded`. Raises ConfigError naming every key that a profile may not carry, another chain, or
    a file whose SHA-256 is not `pinned` (None: any).
    """
    if pinned is not None and not _SHA256.fullmatch(pinned):
        raise ConfigError(f"--sha256: {pinned!r} is not a SHA-256", "write its 64 hex digits")
    try:
        data = path.read_bytes()
        if len(data) > LARGEST:
            raise ConfigError(f"{path}: larger than {LARGEST} bytes, which no profile is", "ask for another file")
        raw = tomllib.loads(data.decode())
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError(f"{path}: not a profile: {error}", "give a file that trimtab export-profile wrote") from None
    digest = hashlib.sha256(data).hexdigest()
    if pinned is not None and pinned.lower().removeprefix("0x") != digest:
        raise ConfigError(f"{path}: its SHA-256 is {digest}, pinned is {pinned.lower()}", "find out who changed it before you use it")
    _refuse_foreign(raw, str(path))
    found: list[str] = []
    try:
        table = ProfileTable.model_validate(raw)
    except ValidationError as error:
        found = mistakes(error, raw, ProfileTable)
    else:
        try:
            read_limits(table.limits, loaded.config.limits)
        except ValidationError as error:
            found = [f"limits.{line}" for line in mistakes(error, table.limits, LimitsTable)]
    if found:
        raise ConfigError(f"{path}: {'; '.join(found)}", "give a file that trimtab export-profile wrote")
    symbols = [asset.symbol for asset in table.assets]
    if twice := [symbol for symbol in symbols if symbols.count(symbol) > 1]:
        raise ConfigError(f"{path}: assets: symbol {twice[0]!r} is given twice; each token once")
    chain_id = loaded.config.chain.chain_id
    if table.profile.chain_id != chain_id:
        raise ConfigError(
            f"{path}: profile.chain_id: it is of chain {table.profile.chain_id}, your config of chain {chain_id}",
            "use a profile of your chain: the same names are other tokens elsewhere",
        )
    return Profile(table, raw, digest, str(path))


def require_addresses(profile: Profile) -> None:
    """Raises ConfigError for an address to compare that is none."""
    for asset in profile.table.assets:
        if asset.address not in (None, NATIVE):
            parse_address(asset.address, f"{profile.origin}: address of {asset.symbol}")


def _refuse_foreign(raw: Mapping[str, Any], origin: str) -> None:
    """Raises ConfigError naming every key that is none of a profile's."""
    found = list(_foreign(raw))
    if found:
        raise ConfigError(
            f"{origin}: a profile may not carry {', '.join(found[:50])}",
            "take them out: it has weights, triggers and limits, and nothing that says where money goes",
        )


def _foreign(raw: Mapping[str, Any]) -> Iterator[str]:
    for name, value in raw.items():
        if name not in TABLES:
            yield from (place for place, _ in _leaves(value, name))
    assets = raw.get("assets")
    for asset in assets if isinstance(assets, list) else ():
        yield from _others(asset, "assets", ASSET_KEYS)
    yield from _others(raw.get("profile"), "profile", tuple(HeadTable.model_fields))
    yield from _others(raw.get("policy"), "policy", POLICY_KEYS)
    yield from _others(raw.get("limits"), "limits", tuple(DIRECTIONS))
    yield from _others(raw.get("weights"), "weights", tuple(name for name in WeightsTable.model_fields if name not in FILES))


def _others(table: Any, name: str, known: tuple[str, ...]) -> Iterator[str]:
    if isinstance(table, Mapping):
        yield from (f"{name}.{key}" for key in table if key not in known)


def _leaves(value: Any, place: str) -> Iterator[tuple[str, Any]]:
    """(place, value) of everything that holds no more; an empty table is one itself."""
    if isinstance(value, Mapping) and value:
        for name, inner in value.items():
            yield from _leaves(inner, f"{place}.{name}" if place else name)
    elif isinstance(value, list) and any(isinstance(inner, Mapping) for inner in value):
        for inner in value:
            yield from _leaves(inner, place)
    else:
        yield place, value
