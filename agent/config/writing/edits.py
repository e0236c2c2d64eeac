"""Edits of a config's text. Only the named keys change; comments and order are preserved."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, MutableMapping, Sequence
from dataclasses import dataclass, replace
from tomllib import TOMLDecodeError
from typing import Any, get_args

import tomlkit
from tomlkit.exceptions import TOMLKitError
from tomlkit.items import AoT, Array, Table

from agent.config.networks.presets import HOURLY_FEED_MAX_AGE, HOURLY_FEEDS
from agent.config.redaction import is_secret_value
from agent.config.schema import Config
from agent.config.tables.alerts import AlertTargetTable
from agent.config.tables.fields import OFF, ConfigTable, parse_address
from agent.config.tables.portfolio import NATIVE
from agent.config.writing.allocator_edits import chooses_weights, fix_weight, forget_choice
from agent.config.writing.hubs import update_hubs
from agent.config.writing.profile_tokens import known_tokens
from agent.config.writing.token_lists import refuse_look_alike
from agent.errors import ConfigError
from agent.foreign_text import bounded_toml, read_toml
from agent.model import LIMITS, LimitUnit
from agent.units import parse_bps, safe_label

_ASSET_HEADER = re.compile(r"\s*\[\[\s*portfolio\s*\.\s*assets\s*\]\]")
_TABLE_HEADER = re.compile(r"\s*\[")
ALERT_TARGETS_PREFIX = "alerts.targets."
RESERVE_KEY = ".reserve"
SEPARATED_AMOUNT_PATTERN = re.compile(r"[1-9][0-9]{0,2}(,[0-9]{3})+(\.[0-9]+)?")
HUB_KEYS = ("decimals", "feed", "feed_max_age")
"""Keys that a token keeps when it becomes a hub, or an asset."""
ALL_EVENTS = "all"
"""Text in place of the events of an alert target that receives all."""


@dataclass(frozen=True, slots=True)
class ConfigChanges:
    """Changes: `key_settings` are (dotted key, value), `targets` (symbol, share), `added_assets` (symbol, address,
    share), `removed_symbols` symbols. `unweighted_symbols` are assets whose weight no allocator may
    choose from then on.
    """

    key_settings: tuple[tuple[str, str], ...] = ()
    targets: tuple[tuple[str, str], ...] = ()
    added_assets: tuple[tuple[str, str, str], ...] = ()
    removed_symbols: tuple[str, ...] = ()
    unweighted_symbols: tuple[str, ...] = ()

    @property
    def has_changes(self) -> bool:
        """True if there is a change."""
        return bool(self.key_settings or self.targets or self.added_assets or self.removed_symbols)


def parse_changes(
    set_options: Sequence[str],
    targets: Sequence[str],
    add_options: Sequence[str],
    remove_options: Sequence[str],
) -> ConfigChanges:
    """Parse options: KEY=VALUE, SYMBOL=SHARE, SYMBOL=ADDRESS:SHARE, SYMBOL. Raises ConfigError; if
    a value is a secret, the message does not repeat it.
    """
    added_assets = []
    for assignment in add_options:
        symbol, address_and_share = _pair(assignment, "--add SYMBOL=ADDRESS:SHARE")
        address, separator, share = address_and_share.rpartition(":")
        if not separator:
            raise ConfigError(
                "--add SYMBOL=ADDRESS:SHARE: the share is missing", "for example --add LINK=0x…:10%"
            )
        if address != NATIVE:
            address = parse_address(address, "--add")
        added_assets.append((symbol, address, share))
    target_pairs = tuple(_pair(assignment, "--target SYMBOL=SHARE") for assignment in targets)
    set_pairs = tuple(_pair(assignment, "--set KEY=VALUE") for assignment in set_options)
    for key, value in set_pairs:
        name = key.rpartition(".")[2]
        if is_secret_value(name, value) or name.endswith("url"):
            raise ConfigError(
                "--set: a URL or a key is a secret and must not be given on a command line",
                "name an environment variable (url_env), or write it into the file with trimtab"
                " edit",
            )
    for option, pairs in (("--target", target_pairs), ("--set", set_pairs)):
        names = [name for name, _ in pairs]
        if repeated_names := sorted({name for name in names if names.count(name) > 1}):
            raise ConfigError(f"{option}: {repeated_names[0]} is given twice", "give it once")
    return ConfigChanges(
        set_pairs,
        target_pairs,
        tuple(added_assets),
        tuple(remove_options),
    )


def apply_changes(config_text: str, changes: ConfigChanges) -> str:
    """Apply the changes to the text.

    Raises ConfigError for an unknown key or asset, or if an added asset exists already. The result
    is not validated as a config.
    """
    assets_before = _parse(config_text).get("portfolio", {}).get("assets", [])
    for symbol in changes.removed_symbols:
        config_text = without_asset(config_text, symbol)
    for symbol, address, share in changes.added_assets:
        config_text = _with_asset(config_text, symbol, address, share)
    try:
        document = tomlkit.parse(bounded_toml(config_text))
    except (TOMLKitError, TOMLDecodeError) as error:
        raise ConfigError(
            f"the config is not TOML: {error}", "correct it in an editor: trimtab edit"
        ) from None
    if changes.removed_symbols or changes.added_assets:
        wrapped_address = str(document["chain"].get("wrapped_native"))
        wrapped_hub = _wrapped_hub(document, wrapped_address, assets_before)
        update_hubs(document["portfolio"], wrapped_address, wrapped_hub)
    for symbol, share in changes.targets:
        parse_bps(share, f"--target {symbol}")
        _asset(document, symbol)["target"] = share
    allocator = document["portfolio"].get("weights")
    if allocator is not None:
        for symbol in (*changes.removed_symbols, *changes.unweighted_symbols):
            forget_choice(allocator, symbol)
    for symbol in changes.unweighted_symbols:
        _require_no_weight_in_strategies(document, symbol)
        if allocator is not None:
            fix_weight(allocator, symbol)
    for key, value in changes.key_settings:
        if key.startswith(ALERT_TARGETS_PREFIX):
            _set_alert_target(document, key, value)
        else:
            _set_key(document, key, value)
    return tomlkit.dumps(document)


def removals_as_sales(changes: ConfigChanges) -> ConfigChanges:
    """Replace each removal by a target of 0 % that no allocator changes, and no reserve, so that the
    next rebalance sells the whole asset.
    """
    zero_targets = tuple((symbol, "0%") for symbol in changes.removed_symbols)
    reserve_sets = tuple(
        (f"portfolio.assets.{symbol}.reserve", "0") for symbol in changes.removed_symbols
    )
    return replace(
        changes,
        removed_symbols=(),
        unweighted_symbols=changes.removed_symbols,
        targets=changes.targets + zero_targets,
        key_settings=changes.key_settings + reserve_sets,
    )


def _wrapped_hub(
    document: Any, wrapped_address: str, assets_before: Sequence[dict[str, Any]]
) -> Any:
    """Return the table of a hub for the wrapped native coin, which prices gas, if it was an asset
    and no asset is native now; else None.
    """

    def prices_gas(asset: Mapping[str, Any]) -> bool:
        return str(asset.get("address")).lower() in (wrapped_address.lower(), NATIVE)

    native_asset = next(filter(prices_gas, assets_before), None)
    if native_asset is None or any(map(prices_gas, document["portfolio"]["assets"])):
        return None
    hub = tomlkit.table()
    symbol = str(native_asset["symbol"])
    is_native = str(native_asset["address"]) == NATIVE
    hub["symbol"] = f"W{symbol}" if is_native else symbol
    hub["address"] = wrapped_address
    for key in HUB_KEYS:
        if key in native_asset:
            hub[key] = native_asset[key]
    return hub


def _require_no_weight_in_strategies(document: Any, symbol: str) -> None:
    """Raise ConfigError if a strategy may give the asset a weight."""
    for strategy in document.get("strategies", ()):
        allocator = strategy.get("allocator")
        is_chosen = allocator == "equal" or (
            isinstance(allocator, Mapping)
            and chooses_weights(allocator)
            and symbol not in allocator.get("fixed", ())
        )
        if is_chosen or strategy.get("weights", {}).get(symbol, "0%") != "0%":
            raise ConfigError(
                f"--remove {symbol}: strategy {strategy.get('name')} gives it a weight",
                "give the strategy weights without it, in an editor: trimtab edit",
            )


def _pair(assignment: str, option: str) -> tuple[str, str]:
    name, separator, value = assignment.partition("=")
    if not separator or not name.strip():
        raise ConfigError(
            f"{option}: invalid form",
            "for example --set policy.cooldown=2h, --target WETH=40%",
        )
    if not value.strip():
        raise ConfigError(
            f"{option}: {name.strip()} has no value",
            "write one; a list is emptied as by --set 'wallet.payout_addresses=[]'",
        )
    return name.strip(), value.strip()


def _assets(document: Any) -> Any:
    """Return the list of assets of a config, parsed with or without its notation."""
    assets = document.get("portfolio", {}).get("assets")
    if not isinstance(assets, list):
        raise ConfigError(
            "portfolio.assets: no assets in the config", "write them in an editor: trimtab edit"
        )
    return assets


def _asset(document: Any, symbol: str) -> Any:
    for asset in _assets(document):
        if asset.get("symbol") == symbol:
            return asset
    symbols = ", ".join(str(asset.get("symbol")) for asset in _assets(document))
    raise ConfigError(
        f"{symbol!r} is not an asset of the portfolio", f"choose from {symbols}, or --add it"
    )


def _set_key(document: Any, key: str, value: str) -> None:
    """Set one key; a text value stays text. In a list of tables, a part of the key is a symbol, a name
    or an index from 0.
    """
    _add_tables(document, key)
    table = document
    inner_path = key
    while "." in inner_path and not (hasattr(table, "get") and inner_path in table):
        table, inner_path = _descend(table, inner_path, key)
    if not hasattr(table, "__setitem__") or isinstance(table, AoT | Array | str):
        raise ConfigError(f"--set {key}: there is no such key", "the config file lists all keys")
    parsed_value = _parse_value(value)
    if isinstance(parsed_value, str):
        numeraire = document.get("portfolio", {}).get("numeraire")
        parsed_value = _without_coin(key, parsed_value, numeraire)
    if inner_path in table:
        old_value = table[inner_path]
        if isinstance(old_value, str):
            parsed_value = parsed_value if isinstance(parsed_value, str | dict | list) else value
        elif isinstance(old_value, Array) and isinstance(parsed_value, str):
            parsed_value = [element.strip() for element in parsed_value.split(",")]
        table[inner_path] = parsed_value
    else:
        insert_key(table, inner_path, parsed_value)


def _add_tables(document: Any, key: str) -> None:
    """Add the tables of a key that a config may have and this one has as a comment at most."""
    table_type: type[ConfigTable] = Config
    table = document
    for name in key.split(".")[:-1]:
        field = table_type.model_fields.get(name)
        annotation = None if field is None else field.annotation
        table_types = [
            part
            for part in (annotation, *get_args(annotation))
            if isinstance(part, type) and issubclass(part, ConfigTable)
        ]
        if len(table_types) != 1 or not isinstance(table, MutableMapping):
            return
        table = table.setdefault(name, tomlkit.table())
        table_type = table_types[0]


def _set_alert_target(document: Any, key: str, value: str) -> None:
    """Set a key of an alert target, which is added if it is new, or remove the target: "off"."""
    path = key.removeprefix(ALERT_TARGETS_PREFIX)
    alerts_table = document.setdefault("alerts", tomlkit.table())
    targets = alerts_table.get("targets", [])
    target_by_name = {target.get("name"): target for target in targets}
    parsed_value = _parse_value(value)
    if path in target_by_name and parsed_value == OFF:
        targets.remove(target_by_name[path])
        if not targets:
            del alerts_table["targets"]
        return
    name, _, field = path.rpartition(".")
    if not name or field not in AlertTargetTable.model_fields:
        raise ConfigError(
            f"--set {key}: there is no such alert target",
            f"its variable adds one: {ALERT_TARGETS_PREFIX}NAME.url_env=VARIABLE",
        )
    if name not in target_by_name:
        if not targets:
            alerts_table["targets"] = tomlkit.aot()
        alerts_table["targets"].append({"name": name})
        target_by_name[name] = alerts_table["targets"][-1]
    target = target_by_name[name]
    if field == "events" and parsed_value == ALL_EVENTS:
        target.pop("events", None)
    elif field == "events" and isinstance(parsed_value, str):
        target["events"] = [event.strip() for event in parsed_value.split(",")]
    else:
        target[field] = parsed_value


def _without_coin(key: str, value: str, numeraire: object) -> str:
    """Return an amount without its coin and separators, with which Settings shows it: "1000" for
    "1,000 USDC". Without the coin a comma is left, since it may be a decimal one. The coin of a
    reserve and of a position's entry is their own; another coin is left, and is refused later.
    """
    table_name, _, name = key.partition(".")
    if table_name not in ("limits", "portfolio"):
        return value
    asset_key = key.removeprefix("portfolio.assets.")
    coin = numeraire
    if name in LIMITS and LIMITS[name].unit is LimitUnit.NATIVE:
        coin = "native"
    elif asset_key != key and asset_key.endswith(RESERVE_KEY):
        coin = asset_key.removesuffix(RESERVE_KEY)
    elif key.startswith("portfolio.positions."):
        coin = key.partition(".entry.")[2]
    amount = value.removesuffix(f" {coin}")
    if amount != value and SEPARATED_AMOUNT_PATTERN.fullmatch(amount):
        return amount.replace(",", "")
    return amount


def insert_key(table: Any, key: str, value: Any) -> None:
    """Add a key after the last one of the table: at its end comments of the next section follow."""
    body = table.value.body if isinstance(table, Table) else ()
    own_keys = [name for name, element in body if name and not isinstance(element, Table | AoT)]
    if own_keys:
        table.value._insert_after(own_keys[-1], key, tomlkit.item(value))
    else:
        table[key] = value


def _descend(table: Any, path: str, key: str) -> tuple[Any, str]:
    """Return the first inner table on the path, and the rest of the path. Symbols and names may have
    dots, such as USDC.e.
    """
    table_by_tag: dict[Any, Any] = {}
    if isinstance(table, AoT | Array):
        table_by_tag = {
            tag: inner_table
            for table_index, inner_table in enumerate(table)
            if hasattr(inner_table, "get")
            for tag in (table_index, inner_table.get("name"), inner_table.get("symbol"))
        }
    elif hasattr(table, "items"):
        table_by_tag = dict(table.items())
    if matching_tags := [tag for tag in table_by_tag if path.startswith(f"{tag}.")]:
        longest_tag = max(matching_tags, key=lambda tag: len(str(tag)))
        return table_by_tag[longest_tag], path.removeprefix(f"{longest_tag}.")
    table_name = path.partition(".")[0]
    raise ConfigError(
        f"--set {key}: there is no {table_name!r} in the config",
        "trimtab edit opens the config in an editor",
    )


def _parse_value(value_text: str) -> Any:
    """Parse a value as TOML. Values such as 2h or 10%, which are not TOML, and addresses, which TOML
    reads as numbers, stay text.
    """
    if value_text[:2].lower() == "0x":
        return value_text
    try:
        parsed_value = read_toml(f"x = {value_text}")["x"]
    except TOMLDecodeError:
        return value_text
    return (
        parsed_value
        if isinstance(parsed_value, str | bool | int | float | list | dict)
        else value_text
    )


def without_asset(config_text: str, symbol: str) -> str:
    """Return the text without an asset's lines. Comments after them are kept. Raises ConfigError if
    it is no asset, or its notation is another one.
    """
    config = _parse(config_text)
    asset_index = next(
        (index for index, asset in enumerate(_assets(config)) if asset.get("symbol") == symbol),
        None,
    )
    if asset_index is None:
        raise ConfigError(
            f"--remove {symbol}: not an asset of the portfolio", "trimtab status lists them"
        )
    config_lines = config_text.splitlines(keepends=True)
    block_start, block_end = _block_bounds(config_lines, asset_index)
    edited_text = "".join(config_lines[:block_start] + config_lines[block_end:])
    del config["portfolio"]["assets"][asset_index]
    return _require_parsed(edited_text, config, "--remove")


def _with_asset(config_text: str, symbol: str, address: str, share: str) -> str:
    """Return the text with an asset after the last one. A hub with its address stays in the text."""
    config = _parse(config_text)
    if safe_label(symbol, "") != symbol:
        raise ConfigError(
            "--add: a symbol is up to 16 letters, digits, . _ -", "for example --add LINK=0x…:10%"
        )
    parse_bps(share, f"--add {symbol}")
    for asset in _assets(config):
        if symbol == asset.get("symbol") or address.lower() == str(asset.get("address")).lower():
            raise ConfigError(
                f"--add {symbol}: already an asset", "change its weight with --target"
            )
    feed = _known_feed(config, symbol, address)
    hub: dict[str, Any] = next(
        (
            hub
            for hub in config["portfolio"].get("hubs", [])
            if str(hub.get("address")).lower() == address.lower()
        ),
        {},
    )
    asset_fields = {"symbol": symbol, "address": address, "target": share, "reserve": "0"}
    if feed is not None:
        asset_fields["feed"] = feed
    asset_fields |= {key: hub[key] for key in HUB_KEYS if key in hub}
    if asset_fields.get("feed") in HOURLY_FEEDS:
        asset_fields.setdefault("feed_max_age", HOURLY_FEED_MAX_AGE)
    config_lines = config_text.splitlines(keepends=True)
    _, block_end = _block_bounds(config_lines, len(_assets(config)) - 1)
    if block_end and not config_lines[block_end - 1].endswith("\n"):
        config_lines[block_end - 1] += "\n"
    block_lines = [
        "[[portfolio.assets]]\n",
        *(f"{name} = {json.dumps(value)}\n" for name, value in asset_fields.items()),
    ]
    config["portfolio"]["assets"].append(asset_fields)
    return _require_parsed(
        "".join(config_lines[:block_end] + block_lines + config_lines[block_end:]), config, "--add"
    )


def _known_feed(config: dict[str, Any], symbol: str, address: str) -> str | None:
    """Return the USD feed of a known token. Raises ConfigError for a symbol of another known token,
    or a look-alike (T16).
    """
    tokens = known_tokens(config.get("chain", {}).get("chain_id"))
    for token in tokens:
        if token.symbol == symbol and token.address != address:
            raise ConfigError(
                f"--add {symbol}: the known token with that symbol is {token.address}",
                "compare the address with a source you trust",
            )
    refuse_look_alike(symbol, address, tokens, ())
    return next((token.feed for token in tokens if token.address == address), None)


def notation_error() -> ConfigError:
    """Return the error of assets in a notation that cannot be edited automatically."""
    return ConfigError(
        "portfolio.assets: not in the form of [[portfolio.assets]] tables",
        "change them in an editor: trimtab edit",
    )


def _block_bounds(config_lines: Sequence[str], asset_index: int) -> tuple[int, int]:
    """Return the indices of the first line of the asset's table and of the line after its last
    key.
    """
    header_lines = [
        line_index for line_index, line in enumerate(config_lines) if _ASSET_HEADER.match(line)
    ]
    if asset_index >= len(header_lines):
        raise notation_error()
    block_start = header_lines[asset_index]
    next_table_line = next(
        (
            index
            for index in range(block_start + 1, len(config_lines))
            if _TABLE_HEADER.match(config_lines[index])
        ),
        len(config_lines),
    )
    key_lines = [
        index
        for index in range(block_start, next_table_line)
        if index == block_start
        or ("=" in config_lines[index] and not config_lines[index].lstrip().startswith("#"))
    ]
    return block_start, key_lines[-1] + 1


def _parse(config_text: str) -> dict[str, Any]:
    try:
        return read_toml(config_text)
    except TOMLDecodeError as error:
        raise ConfigError(
            f"the config is not TOML: {error}", "correct it in an editor: trimtab edit"
        ) from None


def _require_parsed(edited_text: str, expected_config: dict[str, Any], option: str) -> str:
    """Return the text if it parses as `expected_config`. Raises ConfigError for a notation that
    cannot be edited automatically.
    """
    if _parse(edited_text) != expected_config:
        raise ConfigError(
            f"{option}: this notation of the asset tables cannot be edited automatically",
            "change them in an editor: trimtab edit",
        )
    return edited_text
