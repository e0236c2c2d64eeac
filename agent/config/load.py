"""Load trimtab.toml; every mistake becomes one ConfigError that names field, value and remedy."""

from __future__ import annotations

import difflib
import hashlib
import os
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from agent.config.build import build_policy, build_split
from agent.config.schema import Config
from agent.config.validation_errors import describe_errors
from agent.errors import ConfigError
from agent.policy.triggers import rules
from agent.signing import keys, keystore
from agent.store.files.private_files import require_private

# --- Storable text of a config: its values in canonical form, without comments and secrets.


HIDDEN = "(secret)"
_URL = re.compile(r"[a-z][a-z0-9+.-]*://", re.IGNORECASE)
_KEY = re.compile(r"(0x)?[0-9a-fA-F]{64}")
_PHRASE = re.compile(r"([A-Za-z]+\s+){11,}[A-Za-z]+")
_PLAIN_STORE = "sqlite:///"


def redacted_text(values: Mapping[str, Any]) -> str:
    """TOML of these values; URLs, keys and recovery phrases are hidden everywhere."""
    import tomlkit

    return tomlkit.dumps(_cleaned(values))


def config_diff(before: str, after: str) -> tuple[str, ...]:
    """Removed ("- …") and added ("+ …") lines between two kept texts, each under its table."""
    lines = difflib.unified_diff(_placed(before), _placed(after), n=0, lineterm="")
    return tuple(f"{line[0]} {line[1:]}" for line in lines if line[:1] in "+-" and line[:3] not in ("+++", "---"))


def is_secret(value: str) -> bool:
    """True if a text looks like a URL, a key or a recovery phrase; the plain file of a store does not count."""
    if value.startswith(_PLAIN_STORE):
        value = value.removeprefix(_PLAIN_STORE)
    return any(pattern.search(value) for pattern in (_URL, _KEY, _PHRASE))


def _cleaned(value: Any) -> Any:
    match value:
        case dict():
            return {HIDDEN if is_secret(name) else name: _cleaned(inner) for name, inner in value.items()}
        case list():
            return [_cleaned(inner) for inner in value]
        case str() if is_secret(value):
            return HIDDEN
        case _:
            return value


def _placed(text: str) -> list[str]:
    """Each value with the names of its tables."""
    import tomlkit

    found: list[str] = []

    def walk(value: Any, place: str) -> None:
        match value:
            case dict():
                for name, inner in value.items():
                    walk(inner, f"{place}.{name}" if place else name)
            case list() if any(isinstance(inner, dict) for inner in value):
                for number, inner in enumerate(value):
                    walk(inner, f"{place}.{inner.get('symbol', number) if isinstance(inner, dict) else number}")
            case _:
                found.append(f"{place} = {tomlkit.item(value).as_string()}")

    walk(tomllib.loads(text), "")
    return found


# --- `.env` beside the config: missing variables, such as endpoint URLs. It is a secret like a keystore.


ENV_FILE = ".env"
ENV_PREFIX = "TRIMTAB_"
"""Prefix of variables that no config names, such as TRIMTAB_KEYSTORE_PASSWORD."""


def load_env_file(folder: Path, wanted: Iterable[str]) -> None:
    """Set the variables of `folder`/.env that are `wanted`, or begin with TRIMTAB_, and are not set yet: the environment wins.

    Others are left alone. Raises ConfigError for a line that is not NAME=VALUE, and if others may read, write or own the file although
    something is taken from it; its content is never repeated.
    """
    file = folder / ENV_FILE
    try:
        with file.open(encoding="utf-8") as lines:
            mode, read = os.fstat(lines.fileno()).st_mode, dict(_lines(file, lines))
    except (FileNotFoundError, NotADirectoryError):
        return
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file}: cannot be read ({type(error).__name__})", "make it a text that you may read, or remove it") from None
    names = {*wanted}
    found = {name: value for name, value in read.items() if (name in names or name.startswith(ENV_PREFIX)) and name not in os.environ}
    if found and mode & 0o077:
        raise ConfigError(f"{file}: others can read or change it (mode {mode & 0o777:04o}), and it holds secrets", f"run: chmod 600 {file}")
    if found:
        require_private(file, ENV_FILE)
    os.environ.update(found)


def referenced_env_variables(table: Any) -> Iterator[str]:
    """Every environment variable that a config names: the values of keys that end with "_env"."""
    if isinstance(table, dict):
        for key, value in table.items():
            if key.endswith("_env") and isinstance(value, str):
                yield value
            else:
                yield from referenced_env_variables(value)
    elif isinstance(table, list):
        for inner in table:
            yield from referenced_env_variables(inner)


def _lines(file: Path, lines: Any) -> Iterator[tuple[str, str]]:
    from dotenv.parser import parse_stream

    for binding in parse_stream(lines):
        if binding.error or (binding.key is not None and binding.value is None):
            raise ConfigError(f"{file}: line {binding.original.line} is not NAME=VALUE", "correct it, or put a # before it")
        if binding.key is not None and binding.value is not None:
            yield binding.key, binding.value


NO_CONFIG = "write one with: trimtab init; or, to try it out on a local chain: trimtab localchain --write-config trimtab.toml"
"""Remedy for a missing config."""
PAPER_FILE = "paper.db"
"""The store of paper books, beside the live one."""


@dataclass(frozen=True, slots=True)
class LoadedConfig:
    """A config with its origin; `digest` is the SHA-256 of the file's bytes, `values` its parsed TOML.

    With `paper` it is for paper trading: another store, and no signing.
    """

    config: Config
    path: Path
    digest: str
    values: Mapping[str, Any] = field(default_factory=dict, repr=False)
    paper: bool = False

    @property
    def text(self) -> str:
        """Storable text: its values in canonical form, without comments and secrets."""
        return redacted_text(self.values)

    @property
    def store_url(self) -> str:
        """The store's URL with a relative SQLite path resolved beside the config file.

        Raises ConfigError if the live store has the path of the paper store.
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
        """URL of the live store, also with `paper`."""
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
    """Parse TOML text into a Config. Raises ConfigError listing every mistake."""
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
        raise ConfigError(
            f"{origin}: " + "; ".join(describe_errors(error, data, Config)), "correct these keys, then trimtab doctor"
        ) from None
    bands = {asset.symbol: asset.band for asset in config.portfolio.assets if asset.band is not None}
    rules.validate_policy(build_policy(config), bands)
    build_split(config)
    return config


ConfigSource = LoadedConfig | Path | str
"""A config file, or what was read of it."""


def load_config(path: ConfigSource = "trimtab.toml", *, guarded: bool = True) -> LoadedConfig:
    """Load and check a config file; a loaded one is returned unchanged. Raises ConfigError with the mistakes.

    A file that others may change is refused, unless not `guarded`: a pause must always work.
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
    return load_config_text(text, file.resolve(), str(file), guarded=guarded)


def load_config_text(text: str, path: Path, origin: str, *, guarded: bool = True) -> LoadedConfig:
    """Load a text that may not be in its file yet. Variables of .env beside it are loaded, unless not `guarded`."""
    values = _values(text, origin)
    found = LoadedConfig(_checked(values, origin), path, hashlib.sha256(text.encode()).hexdigest(), values)
    if guarded:
        load_env_file(path.parent, referenced_env_variables(values))
    return found


# --- Key source of the config.


def keyring_backend() -> str:
    """Name of the keyring of this system. Raises ConfigError when there is none."""
    return keystore.require_keyring()


def key_source(loaded: LoadedConfig) -> keys.KeySource:
    """Key source of the config. Raises ConfigError if it names none."""
    wallet = loaded.config.wallet
    if loaded.keystore_path is not None:
        return keys.KeystoreFile(loaded.keystore_path, "TRIMTAB_KEYSTORE_PASSWORD")
    if wallet.key_env is not None:
        return keys.KeyEnv(wallet.key_env)
    if wallet.keyring is not None:
        return keys.KeyringEntry(*wallet.keyring.split("/"))
    if wallet.test_account is not None:
        return keys.TestAccountKey(wallet.test_account)
    if wallet.prompt:
        return keys.KeyPrompt()
    raise ConfigError("wallet: no key source, so nothing can be signed", "set keystore, keyring, key_env or prompt = true")
