"""Configs in one folder that trade with the same wallet."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from agent.config.load import store_file_unchecked
from agent.config.schema import Config
from agent.config.tables.fields import parse_address
from agent.errors import ConfigError, TrimtabError
from agent.files import folder_configs
from agent.foreign_text import read_toml

SHARED_WALLET_TEXT = (
    "each of two portfolios that trade undoes what the other does, and takes its nonces"
)


def configs_of_wallet(
    path: Path, config: Config, further_paths: Iterable[Path] = ()
) -> Iterator[Path]:
    """Yield each config beside the file `path`, or of `further_paths`, with the wallet and chain of
    `config` and a store.
    """
    own_path = path.absolute()
    for other_path in sorted({*folder_configs(own_path.parent), *further_paths} - {own_path}):
        with suppress(OSError, ValueError, LookupError, TypeError, TrimtabError):
            tables = read_toml(other_path.read_text())
            wallet = parse_address(tables["wallet"]["address"], "wallet.address")
            is_same = (wallet, tables["chain"]["chain_id"]) == (
                config.wallet.address,
                config.chain.chain_id,
            )
            if is_same and store_file_unchecked(other_path, ConfigError("no store")).is_file():
                yield other_path
