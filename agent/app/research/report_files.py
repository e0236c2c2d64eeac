"""Report files of backtests, stress tests and searches: a page as HTML, its data as JSON."""

from __future__ import annotations

import tempfile
from pathlib import Path

from agent.backtest.futures.simulate import FuturesResult
from agent.backtest.report.backtest import backtest_page
from agent.backtest.report.futures import futures_page
from agent.backtest.report.page import ReportPage, write_document, write_page
from agent.backtest.result import SimulationResult
from agent.backtest.stress.run import StressResult, stress_page
from agent.backtest.tune.report import tune_page
from agent.backtest.tune.search import TuneResult
from agent.errors import ConfigError

HTML_SUFFIXES = (".html", ".htm")


def check_report_path(path: Path) -> None:
    """Raise ConfigError, before any work is done, if the report could not be written."""
    if path.suffix.lower() not in HTML_SUFFIXES:
        raise ConfigError(
            f"--html: {path.name} does not end in .html",
            "name a file such as report.html; its data are written beside it as JSON",
        )
    for report_file in (path, path.with_suffix(".json")):
        if not path.parent.is_dir() or report_file.is_dir():
            raise ConfigError(
                f"--html: {report_file} cannot be written", "name a file in an existing folder"
            )
    try:
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise _unwritable_error(path, error) from None


def write_pages(page: ReportPage, path: Path) -> tuple[Path, Path]:
    """Write the page and its data, and return both paths. Raises ConfigError if one cannot be
    written.
    """
    check_report_path(path)
    data_path = path.with_suffix(".json")
    try:
        write_page(page, path)
        write_document(page, data_path)
    except OSError as error:
        raise _unwritable_error(path, error) from None
    return path, data_path


def write_report(result: SimulationResult | FuturesResult, path: Path) -> tuple[Path, Path]:
    """Write the report of a backtest or of a futures book alone. See write_pages. Raises Refused
    without empyrical.
    """
    page = futures_page(result) if isinstance(result, FuturesResult) else backtest_page(result)
    return write_pages(page, path)


def write_stress_report(result: StressResult, path: Path) -> tuple[Path, Path]:
    """Write the report of a stress test; see write_pages."""
    return write_pages(stress_page(result), path)


def write_tune_report(result: TuneResult, path: Path) -> tuple[Path, Path]:
    """Write the report of a parameter search; see write_pages."""
    return write_pages(tune_page(result), path)


def _unwritable_error(path: Path, error: OSError) -> ConfigError:
    return ConfigError(
        f"--html: {path} cannot be written: {error.strerror}",
        "name a file in a folder that you may write to",
    )
