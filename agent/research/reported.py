"""What all results of research have in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path

from agent.backtest.report.page import ReportPage, write_page
from agent.errors import ConfigError
from agent.foreign_text import failure_text
from agent.research.arguments import research_call


class ReportedResult(ABC):
    """A result that writes a report, and completes its public names."""

    @abstractmethod
    def _page(self) -> ReportPage:
        """Return the page of the report."""

    def __dir__(self) -> list[str]:
        """Return the public names, for completion."""
        return [name for name in super().__dir__() if not name.startswith("_")]

    @research_call
    def report(self, path: str | Path) -> Path:
        """Write the whole report as one HTML file and return its path. Raises ConfigError for another
        suffix than .html, without the path's folder, and if a package is missing or the file cannot
        be written.

        >>> result.report("report.html").name
        'report.html'
        """
        report_path = Path(path)
        try:
            if report_path.is_dir():
                raise ConfigError(
                    f"path: {report_path} is a folder", f"write {report_path / 'report.html'}"
                )
            if report_path.suffix.lower() not in (".html", ".htm"):
                raise ConfigError(
                    f"path: {report_path.name} does not end in .html, which a report is",
                    f"write {report_path.with_suffix('.html')}",
                )
            if not report_path.parent.is_dir():
                raise ConfigError(
                    f"path: {report_path.parent} is no folder", "make it, or choose another"
                )
            write_page(self._page(), report_path)
        except OSError as error:
            raise ConfigError(
                f"path: {report_path} cannot be written: {failure_text(error)}",
                "choose another folder",
            ) from None
        return report_path
