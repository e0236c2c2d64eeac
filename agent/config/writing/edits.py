"""Edits of a config's text. Only the named keys change; comments and order are preserved."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import tomlkit
from tomlkit.exceptions import TOMLKitError
from tomlkit.items import AoT, Array, Table

from agent import files
from agent.config.networks.presets import HOURLY_FEED_MAX_AGE, HOURLY_FEEDS, PRESETS, TemplateAsset
from agent.config.redaction import is_secret
from agent.config.tables.fields import parse_address
from agent.config.tables.portfolio import NATIVE
from agent.config.writing.token_lists import refuse_look_alike
from agent.errors import ConfigError
from agent.units import parse_bps, safe_label

_HEADER = re.compile(r"\s*\[\[\s*portfolio\s*\.\s*assets\s*\]\]")
_ANY_HEADER = re.compile(r"\s*\[")


@dataclass(frozen=True, slots=True)
class ConfigChanges:
    """Changes: `sets` are (dotted key, value), `targets` (symbol, share), `adds` (symbol, address,
    share), `removes` symbols.
    """

    sets: tuple[tuple[str, str], ...] = ()
    targets: tuple[tuple[str, str], ...] = ()
    adds: tuple[tuple[str, str, str], ...] = ()
    removes: tuple[str, ...] = ()

    @property
    def any(self) -> bool:
        """True if there is a change."""
        return bool(self.sets or self.targets or self.adds or self.removes)


def parse_changes(
    sets: Sequence[str], targets: Sequence[str], adds: Sequence[str], removes: Sequence[str]
) -> ConfigChanges:
    """Parse options: KEY=VALUE, SYMBOL=SHARE, SYMBOL=ADDRESS:SHARE, SYMBOL. Raises ConfigError; if
    a value is a secret, the message does not repeat it.
    """
    added_assets = []
    for text in adds:
        symbol, address_and_share = _pair(text, "--add SYMBOL=ADDRESS:SHARE")
        address, separator, share = address_and_share.rpartition(":")
        if not separator:
            raise ConfigError(
                "--add SYMBOL=ADDRESS:SHARE: the share is missing", "for example --add LINK=0x…:10%"
            )
        if address != NATIVE:
            address = parse_address(address, "--add")
        added_assets.append((symbol, address, share))
    pairs = tuple(_pair(text, "--set KEY=VALUE") for text in sets)
    for key, value in pairs:
        if is_secret(value) or key.rpartition(".")[2].endswith("url"):
            raise ConfigError(
                "--set: a URL or a key is a secret and must not be given on a command line",
                "name an environment variable (url_env), or write it into the file with trimtab"
                " edit",
            )
    return ConfigChanges(
        pairs,
        tuple(_pair(text, "--target SYMBOL=SHARE") for text in targets),
        tuple(added_assets),
        tuple(removes),
    )


def apply_changes(text: str, changes: ConfigChanges) -> str:
    """Apply the changes to the text.

    Raises ConfigError for an unknown key or asset, or if an added asset exists already. The result
    is not validated as a config.
    """
    for symbol in changes.removes:
        text = _without_asset(text, symbol)
    for symbol, address, share in changes.adds:
        text = _with_asset(text, symbol, address, share)
    try:
        document = tomlkit.parse(text)
    except TOMLKitError as error:
        raise ConfigError(
            f"the config is not TOML: {error}", "correct it in an editor: trimtab edit"
        ) from None
    for symbol, share in changes.targets:
        parse_bps(share, f"--target {symbol}")
        _asset(document, symbol)["target"] = share
    for key, value in changes.sets:
        _set_key(document, key, value)
    return tomlkit.dumps(document)


def sell_removed_assets(changes: ConfigChanges) -> ConfigChanges:
    """Replace each removal by a target of 0 % and no reserve, so that the next rebalance sells the
    whole asset.
    """
    targets = tuple((symbol, "0%") for symbol in changes.removes)
    sets = tuple((f"portfolio.assets.{symbol}.reserve", "0") for symbol in changes.removes)
    return replace(changes, removes=(), targets=changes.targets + targets, sets=changes.sets + sets)


def _pair(text: str, field: str) -> tuple[str, str]:
    name, separator, value = text.partition("=")
    if not separator or not name.strip() or not value.strip():
        raise ConfigError(
            f"{field}: invalid form",
            "for example --set policy.cooldown=2h, --target WETH=40%",
        )
    return name.strip(), value.strip()


def _assets(document: Any) -> Any:
    assets = document.get("portfolio", {}).get("assets")
    if not isinstance(assets, AoT | Array):
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
    table, name = document, key
    while "." in name and not (hasattr(table, "get") and name in table):
        table, name = _descend(table, name, key)
    if not hasattr(table, "__setitem__") or isinstance(table, AoT | Array | str):
        raise ConfigError(f"--set {key}: there is no such key", "the config file lists all keys")
    parsed_value = _parse_value(value)
    if name in table:
        keeps_text = isinstance(table[name], str) and not isinstance(parsed_value, str)
        table[name] = value if keeps_text else parsed_value
    else:
        insert_key(table, name, parsed_value)


def insert_key(table: Any, key: str, value: Any) -> None:
    """Add a key after the last one of the table: at its end comments of the next section follow."""
    body = table.value.body if isinstance(table, Table) else ()
    own_keys = [name for name, item in body if name and not isinstance(item, Table | AoT)]
    if own_keys:
        table.value._insert_after(own_keys[-1], key, tomlkit.item(value))
    else:
        table[key] = value


def _descend(table: Any, path: str, key: str) -> tuple[Any, str]:
    """Return the first inner table on the path, and the rest of the path. Symbols and names may have
    dots, such as USDC.e.
    """
    table_name, _, rest = path.partition(".")
    if isinstance(table, AoT | Array):
        tagged_tables = {
            f"{tag}.": inner
            for number, inner in enumerate(table)
            if hasattr(inner, "get")
            for tag in (number, inner.get("name"), inner.get("symbol"))
            if tag is not None
        }
        if tags := [tag for tag in tagged_tables if path.startswith(tag)]:
            longest_tag = max(tags, key=len)
            return tagged_tables[longest_tag], path.removeprefix(longest_tag)
    elif hasattr(table, "get") and table_name in table:
        return table[table_name], rest
    raise ConfigError(
        f"--set {key}: there is no {table_name!r} in the config",
        "trimtab edit opens the config in an editor",
    )


def _parse_value(value: str) -> Any:
    """Parse a value as TOML. Values such as 2h or 10%, which are not TOML, and addresses, which TOML
    reads as numbers, stay text.
    """
    if value[:2].lower() == "0x":
        return value
    try:
        parsed = tomllib.loads(f"x = {value}")["x"]
    except tomllib.TOMLDecodeError:
        return value
    return parsed if isinstance(parsed, str | bool | int | float | list | dict) else value


def _without_asset(text: str, symbol: str) -> str:
    """Return the text without an asset's lines. Comments after them are kept."""
    config = _parse(text)
    position = next(
        (n for n, asset in enumerate(_asset_list(config)) if asset.get("symbol") == symbol), None
    )
    if position is None:
        raise ConfigError(
            f"--remove {symbol}: not an asset of the portfolio", "trimtab status lists them"
        )
    lines = text.splitlines(keepends=True)
    first, end = _block_bounds(lines, position)
    edited_text = "".join(lines[:first] + lines[end:])
    del config["portfolio"]["assets"][position]
    return _require_parsed(edited_text, config, "--remove")


def _with_asset(text: str, symbol: str, address: str, share: str) -> str:
    """Return the text with an asset after the last one."""
    config = _parse(text)
    if safe_label(symbol, "") != symbol:
        raise ConfigError(
            "--add: a symbol is up to 16 letters, digits, . _ -", "for example --add LINK=0x…:10%"
        )
    parse_bps(share, f"--add {symbol}")
    for asset in _asset_list(config):
        if symbol == asset.get("symbol") or address.lower() == str(asset.get("address")).lower():
            raise ConfigError(
                f"--add {symbol}: already an asset", "change its weight with --target"
            )
    feed = _known_feed(config, symbol, address)
    fields = {"symbol": symbol, "address": address, "target": share, "reserve": "0"}
    if feed is not None:
        fields["feed"] = feed
    if feed in HOURLY_FEEDS:
        fields["feed_max_age"] = HOURLY_FEED_MAX_AGE
    lines = text.splitlines(keepends=True)
    _, end = _block_bounds(lines, len(_asset_list(config)) - 1)
    if end and not lines[end - 1].endswith("\n"):
        lines[end - 1] += "\n"
    block_lines = [
        "[[portfolio.assets]]\n",
        *(f'{name} = "{value}"\n' for name, value in fields.items()),
    ]
    config["portfolio"]["assets"].append(fields)
    return _require_parsed("".join(lines[:end] + block_lines + lines[end:]), config, "--add")


def _known_feed(config: dict[str, Any], symbol: str, address: str) -> str | None:
    """Return the USD feed of a known token. Raises ConfigError for a symbol of another known token,
    or a look-alike (T16).
    """
    chain_id = config.get("chain", {}).get("chain_id")
    tokens = next((preset.tokens for preset in PRESETS.values() if preset.chain_id == chain_id), ())
    for token in tokens:
        if token.symbol == symbol and token.address != address:
            raise ConfigError(
                f"--add {symbol}: the known token with that symbol is {token.address}",
                "compare the address with a source you trust",
            )
    refuse_look_alike(
        symbol,
        address,
        [TemplateAsset(token.symbol, token.address, "", token.feed) for token in tokens],
        (),
    )
    return next((token.feed for token in tokens if token.address == address), None)


def _block_bounds(lines: Sequence[str], position: int) -> tuple[int, int]:
    """Return the indices of the first line of the asset's table and of the line after its last
    key.
    """
    headers = [number for number, line in enumerate(lines) if _HEADER.match(line)]
    if position >= len(headers):
        raise ConfigError(
            "portfolio.assets: not in the form of [[portfolio.assets]] tables",
            "change them in an editor: trimtab edit",
        )
    first = headers[position]
    next_table = next(
        (n for n in range(first + 1, len(lines)) if _ANY_HEADER.match(lines[n])), len(lines)
    )
    keys = [
        n
        for n in range(first, next_table)
        if n == first or ("=" in lines[n] and not lines[n].lstrip().startswith("#"))
    ]
    return first, keys[-1] + 1


def _parse(text: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(
            f"the config is not TOML: {error}", "correct it in an editor: trimtab edit"
        ) from None


def _asset_list(config: dict[str, Any]) -> list[dict[str, Any]]:
    assets = config.get("portfolio", {}).get("assets")
    if not isinstance(assets, list):
        raise ConfigError(
            "portfolio.assets: no assets in the config", "write them in an editor: trimtab edit"
        )
    return assets


def _require_parsed(text: str, expected: dict[str, Any], option: str) -> str:
    """Return the text if it parses as `expected`. Raises ConfigError for a notation that cannot be
    edited automatically.
    """
    if _parse(text) != expected:
        raise ConfigError(
            f"{option}: this notation of the asset tables cannot be edited automatically",
            "change them in an editor: trimtab edit",
        )
    return text


def write_config(path: Path, text: str, mode: int | None = None) -> None:
    """Replace the file's text atomically; without `mode` the file keeps its mode. Raises
    ConfigError.
    """
    try:
        if mode is None:
            mode = path.stat().st_mode & 0o777
        files.replace_file(path, text.encode(), mode)
    except OSError as error:
        raise ConfigError(
            f"{path}: cannot be written: {error.strerror}",
            "free space and make its folder writable, then run it again",
        ) from None
