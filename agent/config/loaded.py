"""A loaded config with its file, and the places beside it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from agent.config.redaction import SQLITE_PREFIX, redacted_text
from agent.config.schema import Config
from agent.config.variables import Variables
from agent.errors import ConfigError
from agent.ports.paper import PaperConfig

USUAL_STORE = "trimtab.db"
"""Store file of configs by trimtab init, beside the config."""
SERVER_PREFIX = "postgresql"
"""Beginning of the URLs of stores on PostgreSQL."""
SERVER_PLACE_SUFFIX = ".store"
"""Suffix of the path beside which the local files of a store on PostgreSQL are."""
PAPER_SUFFIX = ".paper"
"""Suffix before the last of the names of paper trading."""
PAPER_FILE = "paper.db"
"""Store file of paper trading beside USUAL_STORE; beside another, such as mine.db, it is
mine.paper.db, so that each of several portfolios in a folder has its own.
"""


@dataclass(frozen=True, slots=True)
class LoadedConfig:
    """A config with its file.

    `digest` is the SHA-256 of the file's bytes, `toml_values` the parsed TOML. `is_paper` selects
    the paper store and excludes signing. `variables` are those of the environment and of .env
    beside the file, as they were when it was loaded, or when `read_unset_variables` added them.
    """

    config: Config
    path: Path
    digest: str
    toml_values: Mapping[str, Any] = field(default_factory=dict, repr=False)
    is_paper: bool = False
    variables: Variables = field(default_factory=Variables, repr=False, compare=False)

    @property
    def redacted_text(self) -> str:
        """Storable text: canonical values without comments and secrets."""
        return redacted_text(self.toml_values)

    @property
    def store_url(self) -> str:
        """Return the store's URL with a relative SQLite path resolved against the config file.

        Raises ConfigError if its place may be that of another store: a name for paper trading, or
        for the local files of a store on PostgreSQL.
        """
        url = self.live_store_url
        live_file = sqlite_file(url, self.path.parent)
        if live_file is None:
            if Path(self.path.stem).suffix == PAPER_SUFFIX:
                raise ConfigError(
                    f"{self.path.name}: names with {PAPER_SUFFIX} are reserved for paper trading",
                    "rename it",
                )
            return url
        is_paper_name = live_file.name == PAPER_FILE or PAPER_SUFFIX in (
            live_file.suffix,
            Path(live_file.stem).suffix,
        )
        if is_paper_name or live_file.suffix == SERVER_PLACE_SUFFIX:
            raise ConfigError(
                f"store.url: {live_file.name} is reserved for paper trading, or for PostgreSQL",
                "choose another name, such as trimtab.db",
            )
        return SQLITE_PREFIX + str(paper_file(live_file)) if self.is_paper else url

    @property
    def live_store_url(self) -> str:
        """Return the URL of the live store, even with `is_paper`."""
        url = self.config.store.url
        if (store_file := sqlite_file(url, self.path.parent)) is None:
            return url
        return SQLITE_PREFIX + str(store_file)

    @property
    def keystore_path(self) -> Path | None:
        """The keystore file, relative to the config file; None without one."""
        keystore_name = self.config.wallet.keystore
        return None if keystore_name is None else (self.path.parent / keystore_name)

    @property
    def proposals_path(self) -> Path:
        """The folder of proposals, relative to the config file."""
        return self.path.parent / self.config.wallet.proposals


ConfigSource = LoadedConfig | PaperConfig | Path | str
"""Path of a config file, or its loaded config."""


def sqlite_file(url: str, folder: Path) -> Path | None:
    """Return the file of a store's URL, relative to `folder`; None for another kind of store."""
    if not url.startswith(SQLITE_PREFIX):
        return None
    store_file = Path(url.removeprefix(SQLITE_PREFIX))
    return store_file if store_file.is_absolute() else (folder / store_file).resolve()


def paper_file(live_file: Path) -> Path:
    """Return the paper store's file beside that of a live store."""
    if live_file.name == USUAL_STORE:
        return live_file.with_name(PAPER_FILE)
    return live_file.with_name(f"{live_file.stem}{PAPER_SUFFIX}{live_file.suffix}")


def store_place(url: str, config_path: Path, *, is_paper: bool = False) -> Path:
    """Return the path beside which the local files of a store are: its secret, pause file and locks.
    It is the file of SQLite; for PostgreSQL a path next to the config at which no file is, such as
    trimtab.store for trimtab.toml.
    """
    store_file = sqlite_file(url, config_path.parent)
    if store_file is not None:
        return store_file
    return config_path.with_suffix(
        f"{PAPER_SUFFIX}{SERVER_PLACE_SUFFIX}" if is_paper else SERVER_PLACE_SUFFIX
    )


def is_place_of_server(place: Path) -> bool:
    """Return whether a path by `store_place` is that of a store on PostgreSQL."""
    return place.suffix == SERVER_PLACE_SUFFIX and not place.exists()
