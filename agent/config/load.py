"""Load trimtab.toml. One ConfigError lists all mistakes, each with field, value and remedy."""

from __future__ import annotations

import difflib
import hashlib
import json
import os
import re
import shlex
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from agent.config.build import build_policy, build_split
from agent.config.futures import HyperliquidTable
from agent.config.schema import Config
from agent.errors import ConfigError, TrimtabError
from agent.key_variables import holds_key, named_key_variables, reads_no_keys
from agent.policy.triggers import rules
from agent.signing import keys
from agent.store.files.locks import make_private, require_private
from agent.units import safe_label

# --- Text of a config for the store: canonical values without comments and secrets.


HIDDEN = "(secret)"
_URL = re.compile(r"[a-z][a-z0-9+.-]*://", re.IGNORECASE)
_KEY = re.compile(r"(0x)?[0-9a-fA-F]{64}")
_PHRASE = re.compile(r"([A-Za-z]+\s+){11,}[A-Za-z]+")
_PLAIN_STORE = "sqlite:///"


def redacted_text(values: Mapping[str, Any]) -> str:
    """Return canonical TOML of the values with URLs, keys and recovery phrases redacted."""
    import tomlkit

    return tomlkit.dumps(_cleaned(values))


def config_diff(before: str, after: str) -> tuple[str, ...]:
    """Return the removed ("- …") and added ("+ …") values between two stored texts, each with its
    path.
    """
    lines = difflib.unified_diff(_value_lines(before), _value_lines(after), n=0, lineterm="")
    return tuple(
        f"{line[0]} {line[1:]}"
        for line in lines
        if line[:1] in "+-" and line[:3] not in ("+++", "---")
    )


def is_secret(value: str) -> bool:
    """Return whether a text looks like a URL, key or recovery phrase. A plain SQLite path does not
    count.
    """
    if value.startswith(_PLAIN_STORE):
        value = value.removeprefix(_PLAIN_STORE)
    return any(pattern.search(value) for pattern in (_URL, _KEY, _PHRASE))


def _cleaned(value: Any) -> Any:
    match value:
        case dict():
            return {
                HIDDEN if is_secret(name) else name: _cleaned(inner)
                for name, inner in value.items()
            }
        case list():
            return [_cleaned(inner) for inner in value]
        case str() if is_secret(value):
            return HIDDEN
        case _:
            return value


def _value_lines(text: str) -> list[str]:
    """Return one line for each value, with its path."""
    import tomlkit

    lines: list[str] = []

    def walk(value: Any, path: str) -> None:
        match value:
            case dict():
                for name, inner in value.items():
                    walk(inner, f"{path}.{name}" if path else name)
            case list() if any(isinstance(inner, dict) for inner in value):
                for number, inner in enumerate(value):
                    name = inner.get("symbol", number) if isinstance(inner, dict) else number
                    walk(inner, f"{path}.{name}")
            case _:
                lines.append(f"{path} = {tomlkit.item(value).as_string()}")

    walk(tomllib.loads(text), "")
    return lines


# --- `.env` beside the config: a secret file that sets missing variables, such as endpoint URLs.


ENV_FILE = ".env"
ENV_PREFIX = "TRIMTAB_"
"""Prefix of variables that are accepted without being named in the config, such as
TRIMTAB_KEYSTORE_PASSWORD.
"""


def load_env_file(folder: Path, wanted: Iterable[str], keys: Iterable[str] = ()) -> None:
    """Load variables from `folder`/.env; existing variables take precedence.

    Only variables in `wanted` or with prefix TRIMTAB_ are set; in a process that needs no key
    neither those in `keys` nor passwords. Raises ConfigError for a line that
    is not NAME=VALUE, or if the file sets a variable and another user owns it, or can read or write
    it. Error messages do not repeat the content.
    """
    file = folder / ENV_FILE
    try:
        with file.open(encoding="utf-8") as lines:
            mode, read = os.fstat(lines.fileno()).st_mode, dict(_lines(file, lines))
    except (FileNotFoundError, NotADirectoryError):
        return
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"{file}: cannot be read ({type(error).__name__})",
            "make it a readable text file, or remove it",
        ) from None
    names = {*wanted}
    missing = {
        name: value
        for name, value in read.items()
        if (name in names or name.startswith(ENV_PREFIX)) and name not in os.environ
    }
    if reads_no_keys():
        named = tuple(keys)
        missing = {name: value for name, value in missing.items() if not holds_key(name, named)}
    if missing and mode & 0o077:
        raise ConfigError(
            f"{file}: contains secrets, but others can read or change it (mode {mode & 0o777:04o})",
            f"run: chmod 600 {file}",
        )
    if missing:
        require_private(file, ENV_FILE)
    os.environ.update(missing)


def referenced_env_variables(table: Any) -> Iterator[str]:
    """Yield the environment variables that the config names: the values of keys ending in
    "_env".
    """
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
            raise ConfigError(
                f"{file}: line {binding.original.line} is not NAME=VALUE",
                "correct it, or put a # before it",
            )
        if binding.key is not None and binding.value is not None:
            yield binding.key, binding.value


NO_CONFIG = (
    "create one with: trimtab init; or, for a local chain: trimtab localchain --write-config"
    " trimtab.toml"
)
"""Remedy for a missing config."""
USUAL_STORE = "trimtab.db"
"""Store file of configs by trimtab init, beside the config."""
PAPER_FILE = "paper.db"
"""Store file of paper trading, beside the live store."""


@dataclass(frozen=True, slots=True)
class LoadedConfig:
    """A config with its file.

    `digest` is the SHA-256 of the file's bytes, `values` the parsed TOML. `paper` selects the paper
    store and excludes signing.
    """

    config: Config
    path: Path
    digest: str
    values: Mapping[str, Any] = field(default_factory=dict, repr=False)
    paper: bool = False

    @property
    def text(self) -> str:
        """Storable text: canonical values without comments and secrets."""
        return redacted_text(self.values)

    @property
    def store_url(self) -> str:
        """Return the store's URL with a relative SQLite path resolved against the config file.

        Raises ConfigError if the live store has the path of the paper store.
        """
        url, prefix = self.live_url, "sqlite:///"
        if not url.startswith(prefix):
            return url
        live = Path(url.removeprefix(prefix))
        if live.name == PAPER_FILE:
            raise ConfigError(
                f"store.url: {PAPER_FILE} is reserved for paper trading",
                "choose another name, such as trimtab.db",
            )
        return prefix + str(live.with_name(PAPER_FILE)) if self.paper else url

    @property
    def live_url(self) -> str:
        """Return the URL of the live store, even with `paper`."""
        url = self.config.store.url
        if (file := _sqlite_file(url, self.path.parent)) is None:
            return url
        return _PLAIN_STORE + str(file)

    @property
    def keystore_path(self) -> Path | None:
        """The keystore file, relative to the config file; None without one."""
        name = self.config.wallet.keystore
        return None if name is None else (self.path.parent / name)

    @property
    def proposals_path(self) -> Path:
        """The folder of proposals, relative to the config file."""
        return self.path.parent / self.config.wallet.proposals


def parse_config(text: str, origin: str = "config") -> Config:
    """Parse TOML text into a Config. Raises ConfigError listing every mistake."""
    return check_values(_values(text, origin), origin)


def _values(text: str, origin: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(
            f"{origin}: not valid TOML: {error}",
            _toml_remedy(text, str(error)),
        ) from None


def _toml_remedy(text: str, error: str) -> str:
    """Return the remedy of a TOML error: quotes, if it is at a bare percentage or duration."""
    if found := re.search(r"at line (\d+), column (\d+)", error):
        line, at = text.split("\n")[int(found[1]) - 1], int(found[2]) - 1
        number = re.search(r"=\s*([0-9][0-9.]*\s?)$", line[:at])
        unit = re.match("%|[a-z]+", line[at:])
        if number is not None and unit is not None:
            return f'put the value in quotes: "{number[1]}{unit[0]}"'
    return "correct it; trimtab init writes a valid config"


def check_values(data: dict[str, Any], origin: str) -> Config:
    """Return the config of parsed values. Raises ConfigError."""
    try:
        config = Config.model_validate(data)
    except ValidationError as error:
        raise ConfigError(
            f"{origin}: " + "; ".join(describe_errors(error, data, Config)),
            "correct these keys, then run trimtab doctor",
        ) from None
    bands = {
        asset.symbol: asset.band for asset in config.portfolio.assets if asset.band is not None
    }
    rules.validate_policy(build_policy(config), bands)
    build_split(config)
    return config


ConfigSource = LoadedConfig | Path | str
"""Path of a config file, or its loaded config."""


def load_config(path: ConfigSource = "trimtab.toml", *, guarded: bool = True) -> LoadedConfig:
    """Load and validate a config file; return a loaded config unchanged.

    Raises ConfigError with all mistakes. A file that other users can change is rejected, and one
    that they can read is made private, unless `guarded` is false, since a pause must always work.
    """
    if isinstance(path, LoadedConfig):
        return path
    file = Path(path)
    if guarded:
        make_private(file, "config")
    try:
        raw = file.read_bytes()
        text = raw.decode()
    except FileNotFoundError:
        raise ConfigError(f"{file}: no such file", NO_CONFIG) from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file}: cannot be read: {error}", "name a readable text file") from None
    return load_config_text(text, file.resolve(), str(file), guarded=guarded)


def load_config_text(text: str, path: Path, origin: str, *, guarded: bool = True) -> LoadedConfig:
    """Load a config from text that may not be saved yet, and .env beside `path` unless `guarded` is
    false.
    """
    values = _values(text, origin)
    digest = hashlib.sha256(text.encode()).hexdigest()
    loaded = LoadedConfig(check_values(values, origin), path, digest, values)
    if guarded:
        load_env_file(path.parent, referenced_env_variables(values), named_key_variables(values))
    return loaded


def store_file_unchecked(path: Path | str, error: TrimtabError) -> Path:
    """Return the store's file of a config that may be invalid otherwise, for the emergency stop.

    Raises `error` with the file to create as remedy if the TOML or its store.url cannot be read.
    """
    file = Path(path).resolve()
    try:
        text = file.read_text(encoding="utf-8", errors="replace")
    except OSError:
        raise error from None
    try:
        url = tomllib.loads(text)["store"]["url"]
        found = _sqlite_file(url, file.parent)
    except (tomllib.TOMLDecodeError, LookupError, TypeError, AttributeError):
        found = None
    if found is None:
        raise ConfigError(
            error.message,
            f"{error.remedy}. To pause now: touch {shlex.quote(str(_likely_store(text, file)))}"
            ".paused (the file of store.url with .paused added)",
        ) from error
    return found


def _likely_store(text: str, config: Path) -> Path:
    """Return the store's file by the only URL in the text that names one, else the usual file."""
    urls = set(re.findall(rf"""["']({_PLAIN_STORE}[^"'\n]+)""", text))
    found = _sqlite_file(urls.pop(), config.parent) if len(urls) == 1 else None
    return found or config.parent / USUAL_STORE


def _sqlite_file(url: str, folder: Path) -> Path | None:
    """Return the file of a store's URL, relative to `folder`; None for another kind of store."""
    if not url.startswith(_PLAIN_STORE):
        return None
    name = Path(url.removeprefix(_PLAIN_STORE))
    return name if name.is_absolute() else (folder / name).resolve()


# --- Key source of the config.


def keyring_backend() -> str:
    """Return the name of this system's keyring. Raises ConfigError without one."""
    return keys.require_keyring()


def key_source(loaded: LoadedConfig) -> keys.KeySource:
    """Return the key source of the config. Raises ConfigError if none is configured."""
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
    raise ConfigError(
        "wallet: no key source, so nothing can be signed",
        "set keystore, keyring, key_env or prompt = true",
    )


def agent_key_source(loaded: LoadedConfig) -> keys.KeySource:
    """Return the source of the futures venue's agent key. Raises ConfigError if none is
    configured.
    """
    table = loaded.config.futures
    if isinstance(table, HyperliquidTable):
        if table.agent_keystore is not None:
            return keys.KeystoreFile(
                loaded.path.parent / table.agent_keystore, "TRIMTAB_AGENT_PASSWORD"
            )
        if table.agent_key_env is not None:
            return keys.KeyEnv(table.agent_key_env)
        if table.agent_keyring is not None:
            return keys.KeyringEntry(*table.agent_keyring.split("/"))
    raise ConfigError(
        "futures: no agent key, so no order can be signed",
        "set agent_keystore, agent_keyring or agent_key_env",
    )


# --- Messages of validation errors, in place of pydantic's: field (with the name of its asset),
# value, and remedy.


SECRETS = ("url", "key")
"""Parts of the names of keys whose values may be secrets. Errors do not repeat them."""
NAMES = ("symbol", "name", "operator", "pool", "pair", "token_id")
"""Keys that identify an entry of a list."""
LONGEST = 80
_ADDRESS = re.compile(r"0x[0-9a-fA-F]{40}")
_KINDS = {
    "string": "a text in quotes",
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "list": "a list such as [1, 2]",
    "tuple": "a list such as [1, 2]",
    "dict": "a table such as { WETH = 1 }",
    "model": "a table such as [limits]",
}
_BOUNDS = {
    "greater_than": ("above", "gt"),
    "greater_than_equal": ("at least", "ge"),
    "less_than": ("below", "lt"),
    "less_than_equal": ("at most", "le"),
}


def describe_errors(error: ValidationError, data: object, root: type[BaseModel]) -> list[str]:
    """Return one line for each error of `data` against `root`, with field, value and remedy.
    Possible secrets are not repeated.
    """
    lines = []
    for item in error.errors(include_url=False):
        names, tables = _path_and_tables(item, data, root)
        key = ".".join(names)
        if item["type"] == "extra_forbidden":
            lines.append(f"{key}: unknown key; {_suggestion(str(item['loc'][-1]), tables, root)}")
        elif item["type"] == "missing":
            lines.append(f"{key}: missing; trimtab init writes every key with an initial value")
        else:
            message = _message(item)
            if not any(word in key for word in SECRETS):
                message = _with_value_in_list(message, item["input"])
                ours = item["type"] in ("value_error", "union_tag_invalid")
                message += _got(item["input"], message if ours else "")
            lines.append(f"{key}: {message}" if key else message)
    return lines


def _with_value_in_list(message: str, value: object) -> str:
    """Return the message with an entered text as the only entry of its example list."""
    if not isinstance(value, str) or len(value) > LONGEST:
        return message
    entry = value if value.isdecimal() else json.dumps(value)
    return message.replace("[1, 2]", f"[{entry}]")


def _got(value: object, message: str) -> str:
    """Return the value in brackets; empty if it is a table or already in the message."""
    if isinstance(value, dict | list) or (shown := repr(value)) in message:
        return ""
    if len(shown) > LONGEST:
        shown = shown[:LONGEST] + "…"
    return f" (got {shown})"


def _message(item: ErrorDetails) -> str:
    """Describe the mistake without its field; pydantic's wording is not shown."""
    kind, about = item["type"], item.get("ctx", {})
    if kind == "value_error":
        return item["msg"].removeprefix("Value error, ")
    if kind == "literal_error":
        return f"choose from {about['expected']}"
    if kind == "union_tag_invalid":
        return f"{about['tag']!r} is not a kind; choose from {about['expected_tags']}"
    if kind == "union_tag_not_found":
        return f"{about['discriminator']} is missing; set it".replace("'", "")
    if kind in _BOUNDS:
        bound, key = _BOUNDS[kind]
        return f"write {bound} {about[key]}"
    if kind in ("too_short", "too_long"):
        bound, key = (
            ("at least", "min_length") if kind == "too_short" else ("at most", "max_length")
        )
        return f"{about['actual_length']} entries; write {bound} {about[key]}"
    if kind == "string_too_short":
        return "it is empty; write text"
    if kind == "string_pattern_mismatch":
        longest = re.search(r"\{1,(\d+)\}", about["pattern"])
        count = "only" if longest is None else f"1 to {longest[1]}"
        return f"write {count} letters, digits, . _ or -"
    for start, description in _KINDS.items():
        if kind.startswith(start):
            return f"write {description}"
    return "write another value"


def _suggestion(key: str, tables: Sequence[type[BaseModel]], root: type[BaseModel]) -> str:
    """Suggest the closest known key for an unknown one, or the table that it belongs to."""
    known = {name for table in tables for name in table.model_fields}
    if near := difflib.get_close_matches(key, known, 1, 0.6):
        return f"did you mean {near[0]}?"
    sections = [
        name
        for name, section in root.model_fields.items()
        for table in _models(section.annotation)
        if key in table.model_fields
    ]
    if len(sections) == 1:
        return f"it belongs in [{sections[0]}]"
    return "remove it or check its spelling"


def _path_and_tables(
    item: ErrorDetails, data: object, root: type[BaseModel]
) -> tuple[list[str], list[type[BaseModel]]]:
    """Return the path of the field with list entries by name, and the tables that its last key may
    belong to.

    Pydantic's path also contains the assumed kind of table.
    """
    names: list[str] = []
    tables: list[type[BaseModel]] = [root]
    for part in item["loc"]:
        lacking = item["type"] == "missing" and part == item["loc"][-1]
        if isinstance(part, int):
            data = data[part] if isinstance(data, list) and part < len(data) else None
            names.append(_name(data) or str(part))
        elif isinstance(data, dict) and (part in data or lacking):
            shown = part.isprintable() and len(part) <= LONGEST
            names.append(part if shown else "(a key that cannot be shown)")
            data = data.get(part)
            if part != item["loc"][-1]:
                fields = [
                    table.model_fields[part] for table in tables if part in table.model_fields
                ]
                inner = [model for info in fields for model in _models(info.annotation)]
                tables = inner or tables
        else:
            tables = [table for table in tables if part in _kinds_of(table)] or tables
    return names, tables


def _name(entry: object) -> str:
    """Return the name of an entry; empty without a name that may be shown."""
    if not isinstance(entry, Mapping):
        return ""
    name = next((str(entry[key]) for key in NAMES if isinstance(entry.get(key), str | int)), "")
    return name if _ADDRESS.fullmatch(name) else safe_label(name, "")


def _kinds_of(table: type[BaseModel]) -> tuple[str, ...]:
    """Return the kinds, or the venue, that select a table of a union."""
    names = [name for name in ("kind", "venue") if name in table.model_fields]
    return tuple(kind for name in names for kind in get_args(table.model_fields[name].annotation))


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    """Yield every table type in an annotation, including those in lists, unions and annotated
    types.
    """
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for inner in get_args(annotation):
        yield from _models(inner)
