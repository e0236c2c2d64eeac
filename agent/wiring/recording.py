"""Where steps are written down as files, if anywhere."""

from __future__ import annotations

from pathlib import Path

from agent.config.load import LoadedConfig
from agent.config.record import FILES, MEGABYTES
from agent.store.recorder import Bounds, Recorder

MEGABYTE = 10**6
PAPER_FOLDER = "paper"
"""Steps on paper go into a folder of their own below record.dir."""


def open_recorder(loaded: LoadedConfig, folder: Path | None) -> Recorder | None:
    """A recorder into `folder`, else into record.dir beside the config; None where neither is named. Raises ConfigError."""
    table, books = loaded.config.record, "paper" if loaded.paper else "live"
    files, megabytes = (FILES, MEGABYTES) if table is None else (table.keep_files, table.keep_megabytes)
    bounds = Bounds(files, megabytes * MEGABYTE)
    if folder is not None:
        return Recorder(folder, loaded.digest, books, bounds)
    if table is None:
        return None
    place = loaded.path.parent / table.dir
    if not loaded.paper:
        return Recorder(place, loaded.digest, books, bounds)
    Recorder(place, loaded.digest, books, bounds)
    return Recorder(place / PAPER_FOLDER, loaded.digest, books, bounds)
