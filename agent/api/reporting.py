"""Reports as files: where they may be written, and the writing."""

from __future__ import annotations

import tempfile
from pathlib import Path

from agent.backtest.report import Page, write_document, write_page
from agent.backtest.report_backtest import page_of
from agent.backtest.report_series import figures as backtest_figures
from agent.backtest.result import SimulationResult
from agent.errors import ConfigError

__all__ = ["backtest_figures", "check_report_path", "write_pages", "write_report"]
SUFFIXES = (".html", ".htm")


def check_report_path(path: Path) -> None:
    """Raises ConfigError before any work is done for a report that could not be written."""
    if path.suffix.lower() not in SUFFIXES:
        raise ConfigError(f"--html: {path.name} is no name of a page", "let it end with .html; the same as JSON is written beside it")
    for one in (path, path.with_suffix(".json")):
        if not path.parent.is_dir() or one.is_dir():
            raise ConfigError(f"--html: {one} cannot be written", "name a file in a folder that is there")
    try:
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise _unwritable(path, error) from None


def write_pages(page: Page, path: Path) -> tuple[Path, Path]:
    """Writes the page, and beside it the same as JSON; returns both paths. Raises ConfigError where that cannot be."""
    check_report_path(path)
    beside = path.with_suffix(".json")
    try:
        write_page(page, path)
        write_document(page, beside)
    except OSError as error:
        raise _unwritable(path, error) from None
    return path, beside


def write_report(result: SimulationResult, path: Path) -> tuple[Path, Path]:
    """The same of a simulation. Raises Refused without empyrical, too."""
    check_report_path(path)
    return write_pages(page_of(result), path)


def _unwritable(path: Path, error: OSError) -> ConfigError:
    return ConfigError(f"--html: {path} cannot be written: {error.strerror}", "name a file in a folder that you may write to")
