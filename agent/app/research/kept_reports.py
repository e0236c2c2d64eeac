"""HTML reports kept in a folder beside the store, for the dashboard: path of a new one, list, and
content.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from functools import partial
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
from agent.files import open_unlinked
from agent.foreign_text import read_json

FOLDER_SUFFIX = ".reports"
NAME_PATTERN = re.compile(r"([0-9]{8}-[0-9]{6})(-[0-9]{1,3})?-(backtest|stress|tune)\.html")
MAX_REPORT_BYTES = 32 * 2**20
"""Largest file that is shown. A report is about 2 MB, of which 1 MB are the charts' program."""
MAX_LISTED = 100
MAX_FIGURES = 4
MAX_TEXT_LENGTH = 200
MAX_REPORTS_PER_SECOND = 999
_figures_by_file: dict[tuple[int, ...], tuple[str, str, list[ReportFigureDocument]]] = {}
"""Kind, title and figures of each report, by device, inode, time and size of its JSON file."""


def reports_folder(config: ConfigSource) -> Path:
    """Return the folder of reports, which is created for the first report."""
    store_path = wiring.store_file(load_config(config))
    return store_path.with_name(store_path.name + FOLDER_SUFFIX)


def new_report_path(config: Path | None, report_kind: str) -> Path:
    """Return the path for a new report of a kind, taken by an empty file. Raises ConfigError
    without a config, if folder or file cannot be created, or if all names of this second are taken.
    """
    config_path = Path("trimtab.toml") if config is None else config
    if not config_path.exists():
        raise ConfigError(
            f"--keep: {config_path}: no such config, so there is no store to keep a report beside",
            "name it with --config, or write the report to a file with --html",
        )
    folder = reports_folder(config_path)
    time_stamp = datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        for suffix_number in range(MAX_REPORTS_PER_SECOND):
            suffix = f"-{suffix_number}" if suffix_number else ""
            report_path = folder / f"{time_stamp}{suffix}-{report_kind}.html"
            with suppress(FileExistsError):
                report_path.touch(exist_ok=False)
                return report_path
    except OSError as error:
        raise ConfigError(
            f"--keep: {folder} cannot be written: {error.strerror}",
            "choose another place for the store",
        ) from None
    raise ConfigError(
        f"--keep: {folder} has {MAX_REPORTS_PER_SECOND} reports of {time_stamp}", "try again"
    )


def dashboard_reports(config: str) -> dict[str, KeptReportsDocument]:
    """Return `reports`, the list of kept reports."""
    return {"reports": list_reports(config)}


def list_reports(config: ConfigSource) -> KeptReportsDocument:
    """Return the newest MAX_LISTED reports of the folder. Files with another form of name are
    ignored, and empty ones, of reports that are not written yet; `skipped` names links, files of
    other users, files that are too large, and damaged ones, and says if there are older reports.
    """
    folder = reports_folder(config)
    reports: list[KeptReportDocument] = []
    skip_reasons: list[str] = []
    with _open_folder(folder) as folder_fd:
        if folder_fd is None:
            return {"folder": folder.name, "reports": [], "skipped": []}
        file_names = os.listdir(folder_fd)  # noqa: PTH208 an open folder
        report_names = sorted(
            filter(NAME_PATTERN.fullmatch, file_names), key=_age_key, reverse=True
        )
        for file_name in report_names:
            if len(reports) == MAX_LISTED:
                skip_reasons.append(f"reports older than the newest {MAX_LISTED}")
                break
            try:
                if (report := _report_document(folder_fd, file_name)) is not None:
                    reports.append(report)
            except ConfigError as error:
                skip_reasons.append(error.message)
    return {"folder": folder.name, "reports": reports, "skipped": skip_reasons}


def read_report(config: ConfigSource, name: str) -> bytes:
    """Return the page of a report. Raises ConfigError for an unknown name."""
    if not NAME_PATTERN.fullmatch(name):
        raise _unknown_report_error(name)
    with _open_folder(reports_folder(config)) as folder_fd:
        if folder_fd is None:
            raise _unknown_report_error(name)
        return _read_content(folder_fd, name)


def _age_key(file_name: str) -> tuple[str, int, str]:
    """Return time, number within its second, and name of a report."""
    name_match = NAME_PATTERN.fullmatch(file_name)
    if name_match is None:
        raise _unknown_report_error(file_name)
    return name_match[1], int((name_match[2] or "-0")[1:]), file_name


def _report_document(folder_fd: int, file_name: str) -> KeptReportDocument | None:
    """Return the document of a report; None if it is not written yet."""
    try:
        made_at = datetime.strptime(_age_key(file_name)[0], "%Y%m%d-%H%M%S").replace(tzinfo=UTC)
    except ValueError:
        raise ConfigError(f"{file_name}: the time in its name does not exist") from None
    with _open_file(folder_fd, file_name) as (_, file_status):
        content_bytes = file_status.st_size
    if not content_bytes:
        return None
    json_file_name = file_name.removesuffix("html") + "json"
    with _open_file(folder_fd, json_file_name) as (_, file_status):
        file_key = (
            file_status.st_dev,
            file_status.st_ino,
            file_status.st_mtime_ns,
            file_status.st_size,
        )
    if file_key not in _figures_by_file:
        if len(_figures_by_file) > 5 * MAX_LISTED:
            _figures_by_file.clear()
        try:
            report_json = read_json(_read_content(folder_fd, json_file_name).decode())
            figures: list[ReportFigureDocument] = [
                {"name": _short_text(figure["name"]), "value": _short_text(figure["value"])}
                for figure in report_json["facts"][:MAX_FIGURES]
            ]
            _figures_by_file[file_key] = (
                _short_text(report_json["kind"]),
                _short_text(report_json["title"]),
                figures,
            )
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            raise ConfigError(f"{file_name}: the file of its figures is damaged") from None
    kind, title, figures = _figures_by_file[file_key]
    return {
        "name": file_name,
        "kind": kind,
        "title": title,
        "created": made_at.strftime("%Y-%m-%d %H:%M:%S"),
        "bytes": content_bytes,
        "figures": figures,
    }


def _short_text(json_value: object) -> str:
    return str(json_value)[:MAX_TEXT_LENGTH]


def _read_content(folder_fd: int, file_name: str) -> bytes:
    with _open_file(folder_fd, file_name) as (file, _):
        page_bytes = file.read(MAX_REPORT_BYTES + 1)
    if len(page_bytes) > MAX_REPORT_BYTES:
        raise ConfigError(f"{file_name}: grew while it was read")
    return page_bytes


@contextmanager
def _open_folder(folder: Path) -> Iterator[int | None]:
    """Open the folder; None if no report was kept yet. Raises ConfigError for a link, and for a
    folder of another user.
    """
    try:
        folder_fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except FileNotFoundError:
        yield None
        return
    except OSError as error:
        raise ConfigError(
            f"{folder}: not a folder of reports: {error.strerror}", "move it away"
        ) from None
    try:
        if os.fstat(folder_fd).st_uid != os.getuid():
            raise ConfigError(f"{folder}: belongs to another user", "move it away")
        yield folder_fd
    finally:
        os.close(folder_fd)


@contextmanager
def _open_file(folder_fd: int, file_name: str) -> Iterator[tuple[BinaryIO, os.stat_result]]:
    """Open a file of the folder. Raises ConfigError unless it is a regular file of this user,
    without further hard links, and at most MAX_REPORT_BYTES long.
    """
    try:
        file = open(file_name, "rb", opener=partial(open_unlinked, dir_fd=folder_fd))  # noqa: SIM115 closed below
    except FileNotFoundError:
        raise _unknown_report_error(file_name) from None
    except OSError as error:
        raise ConfigError(f"{file_name}: cannot be read: {error.strerror}") from None
    with file:
        file_status = os.fstat(file.fileno())
        is_plain = stat.S_ISREG(file_status.st_mode) and file_status.st_nlink == 1
        if not is_plain or file_status.st_uid != os.getuid():
            raise ConfigError(f"{file_name}: not a plain file of this user")
        if file_status.st_size > MAX_REPORT_BYTES:
            raise ConfigError(f"{file_name}: larger than {MAX_REPORT_BYTES // 2**20} MB")
        yield file, file_status


def _unknown_report_error(file_name: str) -> ConfigError:
    return ConfigError(f"{file_name[:60]!r}: no such report", code=ErrorCode.UNKNOWN)
