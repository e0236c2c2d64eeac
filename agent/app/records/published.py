"""Published data of [data]: downloaded once into a folder beside the config, and kept, until their
address changes.
"""

from __future__ import annotations

import hashlib
import urllib.error
import urllib.request
from dataclasses import dataclass
from http.client import HTTPException, HTTPMessage
from pathlib import Path
from typing import IO
from urllib.parse import urlsplit

from agent.config.loaded import LoadedConfig
from agent.config.tables.weights import DataTable
from agent.errors import ConfigError, Retryable
from agent.files import replace_file
from agent.foreign_text import failure_words

DATA_FOLDER = "data"
MAX_BYTES = 64 * 2**20
TIMEOUT_S = 30.0
EXTENSIONS = (".csv", ".parquet", ".pq", ".json", ".feather")


@dataclass(frozen=True, slots=True)
class PublishedFile:
    """A file of [data] with its SHA-256; `is_new` is True if it was downloaded now."""

    path: Path
    sha256: str
    is_new: bool


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    def http_error_302(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: HTTPMessage,
    ) -> None:
        """Refuse redirects, since the owner reviewed only the address in the config, and parse no
        target of one.
        """

    http_error_301 = http_error_303 = http_error_307 = http_error_308 = http_error_302


def fetch_published_file(loaded_config: LoadedConfig, name: str) -> PublishedFile:
    """Return the file of [data.NAME]; download it if the folder does not have it from this address
    yet. A file without a known address is the owner's, and stays. Raises ConfigError for an unknown
    name, a file that cannot be used, or a SHA-256 other than the pinned one; Retryable if the
    address does not answer.
    """
    data_table = loaded_config.config.data.get(name)
    if data_table is None:
        data_names = ", ".join(loaded_config.config.data) or "none"
        raise ConfigError(
            f"{name}: neither a file nor a name in [data]",
            f"names are {data_names}; write [data.{name}]",
        )
    folder = loaded_config.path.parent
    if "://" not in data_table.source:
        return _local_file(name, data_table, folder / data_table.source)
    extension = Path(urlsplit(data_table.source).path).suffix.lower()
    file_path = folder / DATA_FOLDER / f"{name}{extension if extension in EXTENSIONS else '.csv'}"
    address_path = file_path.with_name(f"{file_path.name}.source")
    address_digest = hashlib.sha256(data_table.source.encode()).hexdigest().encode()
    is_kept = file_path.exists()
    if is_kept and address_path.exists():
        is_kept = _read_published(name, address_path) == address_digest
    if is_kept:
        return _local_file(name, data_table, file_path)
    file_bytes = download(
        data_table.source, f"data.{name}.source", MAX_BYTES, "name a CSV or Parquet file"
    )
    digest = _verified_digest(name, data_table, file_bytes)
    try:
        file_path.parent.mkdir(mode=0o700, exist_ok=True)
        replace_file(file_path, file_bytes)
        replace_file(address_path, address_digest)
    except OSError as error:
        raise ConfigError(
            f"data.{name}: {file_path} cannot be written: {error.strerror}",
            "choose a writable folder",
        ) from None
    return PublishedFile(file_path, digest, True)


def _local_file(name: str, data_table: DataTable, file_path: Path) -> PublishedFile:
    digest = _verified_digest(name, data_table, _read_published(name, file_path))
    return PublishedFile(file_path, digest, False)


def _verified_digest(name: str, data_table: DataTable, file_bytes: bytes) -> str:
    digest = hashlib.sha256(file_bytes).hexdigest()
    if data_table.sha256 not in (None, digest):
        raise ConfigError(
            f"data.{name}.sha256: the file's SHA-256 is {digest}, {data_table.sha256} is pinned",
            "find out why it changed before using it",
        )
    return digest


def _read_published(name: str, file_path: Path) -> bytes:
    try:
        return file_path.read_bytes()
    except OSError as error:
        raise ConfigError(
            f"data.{name}.source: {file_path} cannot be read: {error.strerror}",
            "name an existing file",
        ) from None


def download(url: str, config_key: str, max_bytes: int, remedy: str) -> bytes:
    """Return the content of an address. Raises ConfigError naming `config_key` for a redirect or
    another refusal, and with `remedy` for nothing or more than `max_bytes`; Retryable without a whole
    answer.
    """
    opener = urllib.request.build_opener(_NoRedirects())
    try:
        with opener.open(url, timeout=TIMEOUT_S) as response:
            file_bytes: bytes = response.read(max_bytes + 1)
            missing_count: int = response.length or 0  # of Content-Length
    except urllib.error.HTTPError as error:
        raise ConfigError(
            f"{config_key}: the server answers {error.code}",
            "correct the address; redirects are not followed",
        ) from None
    except (OSError, HTTPException) as error:
        raise Retryable(
            f"{config_key}: the download failed: {failure_words(error)}",
            "check the address and the connection, then try again",
        ) from None
    if missing_count and len(file_bytes) <= max_bytes:
        raise Retryable(
            f"{config_key}: the download ended {missing_count:,} bytes early", "try again"
        )
    if not file_bytes or len(file_bytes) > max_bytes:
        raise ConfigError(
            f"{config_key}: {'empty' if not file_bytes else f'larger than {max_bytes:,} bytes'}",
            remedy,
        )
    return file_bytes
