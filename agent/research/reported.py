"""What all results of research have in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path

from agent.backtest.report.page import ReportPage, write_page
from agent.errors import ConfigError
from agent.research.arguments import described


class ReportedResult(ABC):
    """A result that writes a report, and completes its public names."""

    @abstractmethod
    def _page(self) -> ReportPage:
        """Return the page of the report."""

    def __dir__(self) -> list[str]:
        """Return the public names, for completion."""
        return [name for name in super().__dir__() if not name.startswith("_")]

    def report(self, path: str | Path) -> Path:
        """Write the whole report as one HTML file and return its path. Raises ConfigError if a
        package is missing or the path is of no file in a folder, OSError if the file cannot be
        written.

        >>> result.report("report.html").name
        'report.html'
        """
        if not isinstance(path, str | Path):
            raise ConfigError(
                f"path: {described(path)} is no path", 'write for example "report.html"'
            )
        report_path = Path(path)
        if not report_path.parent.is_dir():
            raise ConfigError(f"path: no such folder: {report_path.parent}", "create it first")
        if report_path.is_dir():
            raise ConfigError(
                f"path: {report_path} is a folder", f"write {report_path / 'report.html'}"
            )
        write_page(self._page(), report_path)
        return report_path
