"""Report files: a page as HTML, and its data as JSON beside it."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path

from agent.backtest.futures.simulate import FuturesResult
from agent.backtest.report.backtest import backtest_page
from agent.backtest.report.futures import futures_page, futures_section
from agent.backtest.report.page import ReportPage, write_document, write_page
from agent.backtest.result import SimulationResult
from agent.backtest.stress.report import stress_page
from agent.backtest.stress.run import StressResult
from agent.backtest.tune.report import tune_page
from agent.backtest.tune.search import TuneResult
from agent.errors import ConfigError

SUFFIXES = (".html", ".htm")


def check_report_path(path: Path) -> None:
    """Raise ConfigError, before any work is done, if the report could not be written."""
    if path.suffix.lower() not in SUFFIXES:
        raise ConfigError(
            f"--html: {path.name} does not end in .html",
            "name a file such as report.html; its data are written beside it as JSON",
        )
    for target in (path, path.with_suffix(".json")):
        if not path.parent.is_dir() or target.is_dir():
            raise ConfigError(
                f"--html: {target} cannot be written", "name a file in an existing folder"
            )
    try:
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise _unwritable(path, error) from None


def write_pages(page: ReportPage, path: Path) -> tuple[Path, Path]:
    """Write the page and its data, and return both paths. Raises ConfigError if one cannot be
    written.
    """
    check_report_path(path)
    data = path.with_suffix(".json")
    try:
        write_page(page, path)
        write_document(page, data)
    except OSError as error:
        raise _unwritable(path, error) from None
    return path, data


def write_report(
    result: SimulationResult | None, path: Path, futures: FuturesResult | None = None
) -> tuple[Path, Path]:
    """Write the report of a backtest, of its futures book, or of both. See write_pages. Raises
    Refused without empyrical.
    """
    check_report_path(path)
    if futures is None or result is None:
        if result is not None:
            return write_pages(backtest_page(result), path)
        if futures is None:
            raise ValueError("a report needs a backtest")
        return write_pages(futures_page(futures), path)
    page = backtest_page(result)
    return write_pages(replace(page, sections=(*page.sections, futures_section(futures))), path)


def write_stress_report(result: StressResult, path: Path) -> tuple[Path, Path]:
    """Write the report of a stress test; see write_pages."""
    return write_pages(stress_page(result), path)


def write_tune_report(result: TuneResult, path: Path) -> tuple[Path, Path]:
    """Write the report of a parameter search; see write_pages."""
    return write_pages(tune_page(result), path)


def _unwritable(path: Path, error: OSError) -> ConfigError:
    return ConfigError(
        f"--html: {path} cannot be written: {error.strerror}",
        "name a file in a folder that you may write to",
    )
