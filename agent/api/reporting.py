"""Reports as files: where they may be written, and the writing."""

from __future__ import annotations

from pathlib import Path

from agent.backtest.report_backtest import write_report as _write
from agent.backtest.result import SimulationResult
from agent.errors import ConfigError

SUFFIXES = (".html", ".htm")


def check_report_path(path: Path) -> None:
    """Raises ConfigError before any work is done for a report that could not be written."""
    if path.suffix.lower() not in SUFFIXES:
        raise ConfigError(f"--html: {path.name} is no name of a page", "let it end with .html; the same as JSON is written beside it")
    if not path.parent.is_dir() or path.is_dir():
        raise ConfigError(f"--html: {path} cannot be written", "name a file in a folder that is there")


def write_report(result: SimulationResult, path: Path) -> tuple[Path, Path]:
    """Writes the page and the same as JSON, and returns where. Raises ConfigError where that cannot be, Refused without empyrical."""
    check_report_path(path)
    try:
        return _write(result, path)
    except OSError as error:
        raise ConfigError(f"--html: {path} cannot be written: {error.strerror}", "name a file that you may write") from None
