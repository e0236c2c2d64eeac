"""What all results of research have in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path

from agent.backtest.report.page import ReportPage, write_page


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
        package is missing, OSError if the file cannot be written.
        """
        report_path = Path(path)
        write_page(self._page(), report_path)
        return report_path
