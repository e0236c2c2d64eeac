"""Load trimtab.toml. One ConfigError lists every mistake of the tables, each with field, value and
remedy; without any it has the first mistake between tables.
"""

from __future__ import annotations

import hashlib
import re
import shlex
import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from agent.config.build import build_policy
from agent.config.futures import require_valid_futures
from agent.config.limits import (
    require_accepted_limits,
    require_payable_tip,
    require_protection,
    require_valid_native_top_up,
    require_weights_within_max,
)
from agent.config.liquidity import require_usable_liquidity
from agent.config.loaded import (
    SERVER_PREFIX,
    USUAL_STORE,
    ConfigSource,
    LoadedConfig,
    store_place,
)
from agent.config.orders import require_strategy_orders
from agent.config.pace import require_valid_pace
from agent.config.redaction import SQLITE_PREFIX
from agent.config.schema import Config
from agent.config.secrets.env_file import read_variables, referenced_env_variables
from agent.config.secrets.known import remember_secrets
from agent.config.strategies import build_split, require_valid_strategies
from agent.config.tables.messages import describe_errors
from agent.config.triggers import require_valid_zone
from agent.config.variables import VARIABLES_KEY, Variables
from agent.config.venues import require_usable_venues
from agent.config.weights import require_futures_allocators, require_signals
from agent.errors import ConfigError, TrimtabError
from agent.foreign_text import (
    decode_text,
    failure_text,
    key_like_texts,
    read_toml,
    without_parts_of,
)
from agent.key_variables import named_key_variables
from agent.layers import settings
from agent.policy.triggers import validation
from agent.ports.paper import PaperConfig
from agent.store.files.locks import make_private

NO_CONFIG_REMEDY = (
    "create one with: trimtab init, or in a browser: trimtab serve --setup; or, for a local chain:"
    " trimtab localchain --write-config trimtab.toml"
)
"""Remedy for a missing config."""
FILE_REMEDY = "correct these keys, then run trimtab doctor"
"""Remedy for a mistake in a config file."""
UNSAVED_REMEDY = "nothing was written; correct what you gave"
"""Remedy for a mistake in a config that options, a form or a control would have written."""


def parse_config(toml_text: str, origin: str = "config", remedy: str = FILE_REMEDY) -> Config:
    """Parse TOML text into a Config, of which no variable is set. Raises ConfigError listing every
    mistake of the tables, else the first between them.
    """
    return validated_config(_parse_toml(toml_text, origin), origin, remedy=remedy)


def edit_error(error: ConfigError, text_before: str, origin: str) -> ConfigError:
    """Return the error of the file `origin` as it was, if an edit failed by its mistakes alone; else
    `error`.
    """
    try:
        parse_config(text_before, origin)
    except ConfigError as file_error:
        if file_error.message.partition(": ")[2] == error.message.partition(": ")[2]:
            return file_error
    return error


def _parse_toml(toml_text: str, origin: str) -> dict[str, Any]:
    try:
        return read_toml(toml_text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(
            f"{origin}: not valid TOML: {error}",
            _toml_remedy(toml_text, str(error)),
        ) from None


def _toml_remedy(toml_text: str, toml_error: str) -> str:
    """Return the remedy of a TOML error: quotes at a bare percentage or duration, the name of a key
    that is set twice, or of a table.
    """
    if error_position := re.search(r"at line (\d+), column (\d+)", toml_error):
        line = toml_text.split("\n")[int(error_position[1]) - 1]
        column = int(error_position[2]) - 1
        key = re.match(r"\s*\[*([A-Za-z0-9_.-]+)", line)
        if toml_error.startswith("Cannot overwrite a value") and key is not None:
            return f"{key[1]} is set twice: keep one line"
        if toml_error.startswith("Cannot declare") and key is not None:
            return f"the file has a table [{key[1]}] already: write these keys there, each once"
        bare_number = re.search(r"=\s*([0-9][0-9.]*\s?)$", line[:column])
        unit = re.match("%|[a-z]+", line[column:])
        if bare_number is not None and unit is not None:
            return f'put the value in quotes: "{bare_number[1]}{unit[0]}"'
    return "correct it; trimtab init writes a valid config"


CHECKS = (
    require_protection,
    require_weights_within_max,
    require_usable_venues,
    require_usable_liquidity,
    require_valid_zone,
    require_valid_pace,
    require_valid_strategies,
    require_strategy_orders,
    require_valid_native_top_up,
    require_valid_futures,
    require_signals,
    require_futures_allocators,
    require_accepted_limits,
    require_payable_tip,
    *(layer.check for layer in settings.LAYERS),
)
"""Checks between tables; each raises ValueError naming field and remedy."""


def validated_config(
    toml_values: dict[str, Any],
    origin: str,
    variables: Variables | None = None,
    *,
    remedy: str = FILE_REMEDY,
) -> Config:
    """Return the config of parsed values, whose tables carry `variables`. Raises ConfigError."""
    try:
        config = Config.model_validate(
            toml_values, context={VARIABLES_KEY: Variables() if variables is None else variables}
        )
        for check in CHECKS:
            check(config)
        if config.wallet.test_account is not None and not config.chain.is_local:
            raise ValueError("wallet.test_account is for local chains only; use keystore")
    except ValueError as error:
        mistakes = (
            describe_errors(error, toml_values, Config)
            if isinstance(error, ValidationError)
            else [str(error)]
        )
        mistakes_text = without_parts_of("; ".join(mistakes), key_like_texts(repr(toml_values)))
        raise ConfigError(f"{origin}: {mistakes_text}", remedy) from None
    band_by_symbol = {
        asset.symbol: asset.band for asset in config.portfolio.assets if asset.band is not None
    }
    try:
        validation.validate_policy(build_policy(config), band_by_symbol)
        build_split(config)
    except ConfigError as error:
        message, own_remedy = (
            without_parts_of(text, key_like_texts(repr(toml_values)))
            for text in (error.message, error.remedy)
        )
        raise ConfigError(f"{origin}: {message}", own_remedy, code=error.code) from None
    return config


def load_config(
    path: ConfigSource = "trimtab.toml", *, checks_permissions: bool = True
) -> LoadedConfig:
    """Load and validate a config file with its variables; return a loaded config unchanged.

    Raises ConfigError as parse_config does. A file that other users can change is rejected, and one
    that they can read is made private, and .env is read, unless `checks_permissions` is false,
    since a pause must always work.
    """
    if isinstance(path, LoadedConfig):
        return path
    if isinstance(path, PaperConfig):
        live_config = load_config(path.path, checks_permissions=checks_permissions)
        return replace(live_config, is_paper=True)
    config_file = Path(path)
    try:
        if checks_permissions:
            make_private(config_file, "config")
        config_bytes = config_file.read_bytes()
        config_text = decode_text(config_bytes)
    except FileNotFoundError:
        raise ConfigError(f"{config_file}: no such file", NO_CONFIG_REMEDY) from None
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"{config_file}: cannot be read: {failure_text(error)}", "name a readable text file"
        ) from None
    return load_config_text(
        config_text, config_file.resolve(), str(config_file), loads_env=checks_permissions
    )


def load_config_text(
    config_text: str,
    path: Path,
    origin: str,
    *,
    loads_env: bool = True,
    remedy: str = FILE_REMEDY,
) -> LoadedConfig:
    """Load a config from text that may not be saved yet, with the variables of the environment and,
    unless `loads_env` is false, of .env beside `path`; `remedy` is that of a mistake.
    """
    toml_values = _parse_toml(config_text, origin)
    config_digest = hashlib.sha256(config_text.encode()).hexdigest()
    variables = Variables()
    config = validated_config(toml_values, origin, variables, remedy=remedy)
    variables |= read_variables(  # after a mistake in the config was named
        path.parent if loads_env else None,
        referenced_env_variables(toml_values),
        named_key_variables(toml_values),
    )
    loaded_config = LoadedConfig(config, path, config_digest, toml_values, variables=variables)
    remember_secrets(loaded_config)
    return loaded_config


def store_file_unchecked(path: Path | str, error: TrimtabError) -> Path:
    """Return the store's file of a config that may be invalid otherwise, for the emergency stop.

    Raises `error` with the file to create as remedy if the TOML or its store.url cannot be read.
    """
    config_file = Path(path).resolve()
    try:
        config_text = config_file.read_text(encoding="utf-8", errors="replace")
    except OSError:
        raise error from None
    try:
        store_url = read_toml(config_text)["store"]["url"]
        is_known_kind = store_url.startswith((SQLITE_PREFIX, SERVER_PREFIX))
        store_file = store_place(store_url, config_file) if is_known_kind else None
    except (tomllib.TOMLDecodeError, LookupError, TypeError, AttributeError):
        store_file = None
    if store_file is None:
        raise ConfigError(
            error.message,
            f"{error.remedy}. To pause now: touch {shlex.quote(str(_likely_store(config_text, config_file)))}"
            ".paused (the file of store.url with .paused added)",
        ) from error
    return store_file


def _likely_store(config_text: str, config_file: Path) -> Path:
    """Return the store's file by the only URL in the text that names one, else the usual file."""
    store_urls = set(
        re.findall(rf"""["']((?:{SQLITE_PREFIX}|{SERVER_PREFIX})[^"'\n]+)""", config_text)
    )
    if len(store_urls) != 1:
        return config_file.parent / USUAL_STORE
    return store_place(store_urls.pop(), config_file)
