"""Reads trimtab.toml; every mistake becomes one ConfigError that names field, value and remedy."""

from __future__ import annotations

import hashlib
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from agent.config import environment, redaction
from agent.config.build import build_policy
from agent.config.mistakes import mistakes
from agent.config.schema import Config
from agent.config.split import build_split
from agent.errors import ConfigError
from agent.policy import trigger_rules
from agent.store.private import require_private

NO_CONFIG = "write one with: trimtab init; or, to try it out on a local chain: trimtab localchain --write-config trimtab.toml"
"""What to do where there is no config yet."""
PAPER_FILE = "paper.db"
"""The store of paper books, beside the live one."""


@dataclass(frozen=True, slots=True)
class LoadedConfig:
    """A config with where it came from; `digest` is the SHA-256 of the file's bytes, `values` what its TOML says.

    With `paper` it is about paper trading: another store, and nothing that signs.
    """

    config: Config
    path: Path
    digest: str
    values: Mapping[str, Any] = field(default_factory=dict, repr=False)
    paper: bool = False

    @property
    def text(self) -> str:
        """What may be kept of it: its values in one canonical form, without comments, which nobody can judge, and without secrets."""
        return redaction.kept(self.values)

    @property
    def store_url(self) -> str:
        """The store's URL with a relative SQLite path resolved beside the config file. Raises ConfigError for a live store that
        lies where paper books do.
        """
        url, prefix = self.live_url, "sqlite:///"
        if not url.startswith(prefix):
            return url
        live = Path(url.removeprefix(prefix))
        if live.name == PAPER_FILE:
            raise ConfigError(f"store.url: {PAPER_FILE} is the name of paper books", "name it otherwise, such as trimtab.db")
        return prefix + str(live.with_name(PAPER_FILE)) if self.paper else url

    @property
    def live_url(self) -> str:
        """The URL of the live store, whatever this is about."""
        url = self.config.store.url
        prefix = "sqlite:///"
        if url.startswith(prefix) and not Path(url.removeprefix(prefix)).is_absolute():
            return prefix + str((self.path.parent / url.removeprefix(prefix)).resolve())
        return url

    @property
    def keystore_path(self) -> Path | None:
        """The keystore file, relative to the config file."""
        name = self.config.wallet.keystore
        return None if name is None else (self.path.parent / name)

    @property
    def proposals_path(self) -> Path:
        """The folder of proposals, relative to the config file."""
        return self.path.parent / self.config.wallet.proposals


def parse_config(text: str, origin: str = "config") -> Config:
    """A Config from TOML text. Raises ConfigError listing every mistake."""
    return _checked(_values(text, origin), origin)


def _values(text: str, origin: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{origin}: not valid TOML: {error}", "correct it there; trimtab init writes one that is valid") from None


def _checked(data: dict[str, Any], origin: str) -> Config:
    try:
        config = Config.model_validate(data)
    except ValidationError as error:
        raise ConfigError(f"{origin}: " + "; ".join(mistakes(error, data, Config)), "correct these keys, then trimtab doctor") from None
    bands = {asset.symbol: asset.band for asset in config.portfolio.assets if asset.band is not None}
    trigger_rules.validate_policy(build_policy(config), bands)
    build_split(config)
    return config


Where = LoadedConfig | Path | str
"""A config file, or what was read of it."""


def load_config(path: Where = "trimtab.toml", *, guarded: bool = True) -> LoadedConfig:
    """Reads and checks a config file; one that was read already is handed back. Raises ConfigError naming what is wrong.

    Where others may change it, it is refused, unless not `guarded`: a pause has to work whoever wrote there.
    """
    if isinstance(path, LoadedConfig):
        return path
    file = Path(path)
    if guarded:
        require_private(file, "config")
    try:
        raw = file.read_bytes()
        text = raw.decode()
    except FileNotFoundError:
        raise ConfigError(f"{file}: no such file", NO_CONFIG) from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file}: cannot be read: {error}", "name a file of text that you may read") from None
    return loaded_from(text, file.resolve(), str(file), guarded=guarded)


def loaded_from(text: str, path: Path, origin: str, *, guarded: bool = True) -> LoadedConfig:
    """The same from a text that may not be in its file yet. What .env beside it has is taken, unless not `guarded`."""
    values = _values(text, origin)
    found = LoadedConfig(_checked(values, origin), path, hashlib.sha256(text.encode()).hexdigest(), values)
    if guarded:
        environment.take(path.parent, environment.named(values))
    return found
