"""What a search has done so far, as Parquet files in a folder: each written whole or not at all, so that a killed search goes on."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock, Timeout

from agent.backtest.tune_grid import Choice
from agent.backtest.tune_job import Chunk, Found
from agent.errors import ConfigError, OperatorNeeded

STAMP = "search.json"
NAMES = {
    "format": "the format of the files",
    "version": "the version of trimtab",
    "grid": "the grid",
    "data": "the prices",
    "settings": "the portfolio or the market",
    "search": "how the search is made",
}
"""What a search is known by, as its stamp and as words."""
_COLUMNS = ("run", "final_value", "turnover", "costs", "rebalances")


class Kept:
    """What is done: in the folder, or in memory alone where there is none. One process at a time writes there."""

    def __init__(self, folder: Path | None, stamp: Mapping[str, str], runs: Sequence[Choice]) -> None:
        self._folder, self._stamp, self._runs = folder, dict(stamp), runs
        self.done: dict[str, list[Found]] = {}

    @contextmanager
    def opened(self) -> Iterator[Kept]:
        """Reads what an earlier run left, and holds the folder. Raises ConfigError for a folder of another search, or of something
        else, OperatorNeeded while another process writes there.
        """
        if self._folder is None:
            yield self
            return
        lock = FileLock(self._folder / ".lock")
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            lock.acquire(timeout=0)
        except Timeout:
            raise OperatorNeeded(f"--out: another search writes into {self._folder}", "wait for it, or name another folder") from None
        except OSError as error:
            raise _unwritable(self._folder, error) from None
        try:
            self._read(self._folder)
            yield self
        finally:
            lock.release()

    def _read(self, folder: Path) -> None:
        for left in folder.glob(".*.part"):  # of a process that was killed while it wrote
            left.unlink(missing_ok=True)
        path, files = folder / STAMP, sorted(folder.glob("*.parquet"))
        if not path.is_file():
            if files:
                raise ConfigError(f"--out: {folder} holds files that are no search of this kind", "name an empty folder")
            _write(path, json.dumps(self._stamp, indent=1).encode())
            return
        _require_same(path, self._stamp)
        for file in files:
            self.done[file.stem] = _founds(file)

    def key(self, chunk: Chunk) -> str:
        """The name of a chunk's file."""
        return f"runs-{chunk.start:07d}-{chunk.end:07d}"

    def keep(self, key: str, found: list[Found], choices: Sequence[Choice]) -> None:
        """Written to the disk before it counts as done."""
        if self._folder is not None:
            frame = _polars().DataFrame(_rows(found, choices))
            _write(self._folder / f"{key}.parquet", frame)
        self.done[key] = found


def _polars() -> Any:
    return import_module("polars")


def _rows(found: list[Found], choices: Sequence[Choice]) -> dict[str, Any]:
    bands = [choice.band for choice in choices]
    return {
        **{name: [getattr(one, name) for one in found] for name in _COLUMNS},
        "band_absolute_bps": [None if band is None else band.absolute_bps for band in bands],
        "band_relative_bps": [None if band is None else band.relative_bps for band in bands],
        "every_s": [choice.every_s for choice in choices],
        "destination": [choice.destination.value for choice in choices],
        "allocator": [choice.allocator.value for choice in choices],
        "values": [one.values.tolist() for one in found],
    }


def _founds(path: Path) -> list[Found]:
    try:
        frame = _polars().read_parquet(path)
        return [_found(row) for row in frame.iter_rows(named=True)]
    except Exception:  # whatever a broken file makes the library say
        raise ConfigError(f"--out: {path} is damaged", "remove that file; its runs are done anew") from None


def _found(row: Mapping[str, Any]) -> Found:
    final, turnover, costs = (float(row[name]) for name in ("final_value", "turnover", "costs"))
    return Found(int(row["run"]), final, turnover, costs, int(row["rebalances"]), np.array(row["values"], dtype=np.float64))


def _require_same(path: Path, stamp: Mapping[str, str]) -> None:
    try:
        before = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        before = None
    if not isinstance(before, dict):
        raise ConfigError(f"--out: {path} says nothing that can be read", "name an empty folder")
    others = [words for name, words in NAMES.items() if before.get(name) != stamp[name]]
    if others:
        raise ConfigError(
            f"--out: {path.parent} holds another search: {', '.join(others)} differ", "name another folder, or repeat the command of then"
        )


def _unwritable(path: Path, error: OSError) -> ConfigError:
    return ConfigError(
        f"--out: {path} cannot be written: {error.strerror or error}", "name a folder that you may write, or make room; what is done stays"
    )


def _write(path: Path, content: Any) -> None:
    """See `_put`. Raises ConfigError where nothing can be written."""
    try:
        _put(path, content)
    except OSError as error:
        raise _unwritable(path, error) from None


def _put(path: Path, content: Any) -> None:
    """Bytes or a table, beside it, to the disk, and renamed: a kill leaves the file whole, or not there."""
    descriptor, scratch = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
    try:
        with os.fdopen(descriptor, "wb") as file:
            if isinstance(content, bytes):
                file.write(content)
            else:
                content.write_parquet(file)
            file.flush()
            os.fsync(file.fileno())
        Path(scratch).replace(path)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except BaseException:
        Path(scratch).unlink(missing_ok=True)
        raise
