"""HTML reports kept in a folder beside the store, for the dashboard: path of a new one, list, and
content.
"""

from __future__ import annotations

import json
import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO

from agent import wiring
from agent.app.documents.research import (
    KeptReportDocument,
    KeptReportsDocument,
    ReportFigureDocument,
)
from agent.config.load import load_config
from agent.config.loaded import ConfigSource
from agent.errors import ConfigError, ErrorCode

ENDING = ".reports"
NAME = re.compile(r"([0-9]{8}-[0-9]{6})(-[0-9]{1,3})?-(backtest|stress|tune)\.html")
MOST_BYTES = 32 * 2**20
"""Largest file that is shown. A report is about 2 MB, of which 1 MB are the charts' program."""
MOST_LISTED = 100
FIGURES = 4
LONGEST_TEXT = 200
_known: dict[tuple[str, int, int], tuple[str, str, list[ReportFigureDocument]]] = {}
"""Kind, title and figures of each report, by the name, time and size of its JSON file."""


def reports_folder(config: ConfigSource) -> Path:
    """Return the folder of reports, which is created for the first report."""
    store = wiring.store_file(load_config(config))
    return store.with_name(store.name + ENDING)


def new_report_path(config: Path | None, kind: str) -> Path:
    """Return the path for a new report of a kind, and create the folder of reports. Raises
    ConfigError without a config, or if the folder cannot be created.
    """
    path = Path("trimtab.toml") if config is None else config
    if not path.exists():
        raise ConfigError(
            f"--keep: {path}: no such config, so there is no store to keep a report beside",
            "name it with --config, or write the report to a file with --html",
        )
    folder, stamp = reports_folder(path), datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise ConfigError(
            f"--keep: {folder} cannot be made: {error.strerror}",
            "choose another place for the store",
        ) from None
    names = (f"{stamp}{f'-{number}' if number else ''}-{kind}.html" for number in range(999))
    return next(folder / name for name in names if not (folder / name).exists())


def dashboard_reports(config: str) -> dict[str, KeptReportsDocument]:
    """Return `reports`, the list of kept reports."""
    return {"reports": list_reports(config)}


def list_reports(config: ConfigSource) -> KeptReportsDocument:
    """Return the newest MOST_LISTED reports of the folder. Files with another form of name are
    ignored; `unshown` lists links, files of other users, and files that are too large.
    """
    folder = reports_folder(config)
    reports: list[KeptReportDocument] = []
    unshown: list[str] = []
    with _opened(folder) as place:
        names = [] if place is None else sorted(os.listdir(place), reverse=True)  # noqa: PTH208 an open folder
        for name in filter(NAME.fullmatch, names):
            if len(reports) == MOST_LISTED:
                unshown.append(f"reports older than the newest {MOST_LISTED}")
                break
            try:
                reports.append(_listed(place, name))
            except ConfigError as error:
                unshown.append(error.message)
    return {"folder": folder.name, "reports": reports, "unshown": unshown}


def read_report(config: ConfigSource, name: str) -> bytes:
    """Return the page of a report. Raises ConfigError for an unknown name."""
    if not NAME.fullmatch(name):
        raise _unknown(name)
    with _opened(reports_folder(config)) as place:
        return _content(place, name)


def _listed(place: int | None, name: str) -> KeptReportDocument:
    match = NAME.fullmatch(name)
    if match is None:
        raise _unknown(name)
    with _file(place, name) as (_, seen):
        size = seen.st_size
    data = name.removesuffix("html") + "json"
    with _file(place, data) as (_, seen):
        key = data, seen.st_mtime_ns, seen.st_size
    if key not in _known:
        if len(_known) > 5 * MOST_LISTED:
            _known.clear()
        try:
            content = json.loads(_content(place, data))
            figures: list[ReportFigureDocument] = [
                {"name": _text(fact["name"]), "value": _text(fact["value"])}
                for fact in content["facts"][:FIGURES]
            ]
            _known[key] = _text(content["kind"]), _text(content["title"]), figures
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            raise ConfigError(f"{name}: the file of its figures is damaged") from None
    kind, title, figures = _known[key]
    made_at = datetime.strptime(match[1], "%Y%m%d-%H%M%S").replace(tzinfo=UTC)
    return {
        "name": name,
        "kind": kind,
        "title": title,
        "made": made_at.strftime("%Y-%m-%d %H:%M:%S"),
        "bytes": size,
        "figures": figures,
    }


def _text(value: object) -> str:
    return str(value)[:LONGEST_TEXT]


def _content(place: int | None, name: str) -> bytes:
    with _file(place, name) as (file, _):
        content = file.read(MOST_BYTES + 1)
    if len(content) > MOST_BYTES:
        raise ConfigError(f"{name}: grew while it was read")
    return content


@contextmanager
def _opened(folder: Path) -> Iterator[int | None]:
    """Open the folder; None if no report was kept yet. Raises ConfigError for a link, and for a
    folder of another user.
    """
    try:
        place = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except FileNotFoundError:
        yield None
        return
    except OSError as error:
        raise ConfigError(
            f"{folder}: not a folder of reports: {error.strerror}", "move it away"
        ) from None
    try:
        if os.fstat(place).st_uid != os.getuid():
            raise ConfigError(f"{folder}: belongs to another user", "move it away")
        yield place
    finally:
        os.close(place)


@contextmanager
def _file(place: int | None, name: str) -> Iterator[tuple[BinaryIO, os.stat_result]]:
    """Open a file of the folder. Raises ConfigError unless it is a regular file of this user, without
    further hard links, and at most MOST_BYTES long.
    """
    if place is None:
        raise _unknown(name)
    try:
        # a pipe of this name must not keep the reader waiting
        number = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=place)
    except OSError as error:
        raise ConfigError(f"{name}: cannot be read: {error.strerror}") from None
    with os.fdopen(number, "rb") as file:
        seen = os.fstat(number)
        plain = stat.S_ISREG(seen.st_mode) and seen.st_nlink == 1
        if not plain or seen.st_uid != os.getuid():
            raise ConfigError(f"{name}: not a plain file of this user")
        if seen.st_size > MOST_BYTES:
            raise ConfigError(f"{name}: larger than {MOST_BYTES // 2**20} MB")
        yield file, seen


def _unknown(name: str) -> ConfigError:
    return ConfigError(f"{name[:60]!r}: no such report", code=ErrorCode.UNKNOWN)
