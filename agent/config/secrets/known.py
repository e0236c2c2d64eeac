"""The secrets of a config and its variables, which no text may show (T18)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent.config.secrets.env_file import read_variables, referenced_env_variables
from agent.foreign_text import key_like_texts
from agent.key_variables import holds_key, named_key_variables
from agent.observe.logs import Redactor

if TYPE_CHECKING:
    from agent.config.loaded import LoadedConfig

_redactor = Redactor()
_unread_config_by_path: dict[Path, LoadedConfig] = {}
"""The newest config of each file that this process has loaded since an error was shown."""


def remember_secrets(loaded_config: LoadedConfig) -> None:
    """Let the errors of this process hide the secrets of a config."""
    _unread_config_by_path[loaded_config.path] = loaded_config


def read_unset_variables(loaded_config: LoadedConfig, names: Iterable[str]) -> None:
    """Add those of the variables that were not set when the config was loaded and are set by now.
    Raises ConfigError as `read_variables` does.
    """
    unset_names = set(names) - loaded_config.variables.keys()
    if unset_names:
        key_names = named_key_variables(loaded_config.toml_values)
        variables = read_variables(loaded_config.path.parent, unset_names, key_names)
        loaded_config.variables.update(
            (name, value) for name, value in variables.items() if name in unset_names
        )
        remember_secrets(loaded_config)


def without_known_secrets(text: str) -> str:
    """Return a text without the secrets of any config that this process has loaded."""
    for path, loaded_config in list(_unread_config_by_path.items()):
        _redactor.add(secrets_of(loaded_config))
        if _unread_config_by_path.get(path) is loaded_config:
            del _unread_config_by_path[path]
    return _redactor.redact(text)


def secrets_of(loaded_config: LoadedConfig) -> list[str]:
    """Return every secret of a config and its variables: addresses, tokens, keys and passwords, also
    a key where its source belongs.
    Keys in a keyring are never converted to text, and paper trading reads no key.
    """
    variables = loaded_config.variables
    password_names = [name for name in variables if holds_key(name, ())]
    names = [*referenced_env_variables(loaded_config.toml_values), *password_names]
    if loaded_config.is_paper:
        key_names = tuple(named_key_variables(loaded_config.toml_values))
        names = [name for name in names if not holds_key(name, key_names)]
    secrets = [
        *(variables.get(name, "") for name in names),
        *_secret_texts(loaded_config.config),
        *loaded_config.config.alerts.secrets(),
        *key_like_texts(repr(loaded_config.toml_values.get("wallet"))),
        *key_like_texts(repr(loaded_config.toml_values.get("futures"))),
    ]
    return [secret for secret in dict.fromkeys(secrets) if secret]


def _secret_texts(table: Any) -> Iterator[str]:
    """Yield the texts of a table and its parts that are secret."""
    from pydantic import BaseModel, SecretStr

    match table:
        case SecretStr():
            yield table.get_secret_value()
        case BaseModel():
            for value in dict(table).values():
                yield from _secret_texts(value)
        case dict():
            for value in table.values():
                yield from _secret_texts(value)
        case list() | tuple():
            for value in table:
                yield from _secret_texts(value)
