#!/usr/bin/env python3
"""Check the types of the Python blocks of README.md and docs/ with mypy. tests/cases/
test_documented_python.py runs them.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

REPO = Path(__file__).resolve().parents[2]
_BLOCK = re.compile(r"^```python\n(.*?)^```$", re.DOTALL | re.MULTILINE)


@dataclass(frozen=True, slots=True)
class PythonBlock:
    """A Python block of a page; `line` is its first line there."""

    page: str
    line: int
    source: str

    @property
    def file_name(self) -> str:
        """Name of the block as a module: the page and the line."""
        return f"{Path(self.page).stem.replace('-', '_')}_{self.line}.py"


def python_blocks(repo: Path = REPO) -> list[PythonBlock]:
    """Return the Python blocks of every page, in order."""
    pages = [repo / "README.md", *sorted((repo / "docs").rglob("*.md"))]
    return [
        PythonBlock(str(page.relative_to(repo)), text.count("\n", 0, match.start(1)) + 1, match[1])
        for page in pages
        for text in [page.read_text(encoding="utf-8")]
        for match in _BLOCK.finditer(text)
    ]


def check_types(blocks: list[PythonBlock]) -> str:
    """Return mypy's complaints about the blocks; empty without one."""
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder) / block.file_name for block in blocks]
        for file, block in zip(files, blocks, strict=True):
            file.write_text(block.source, encoding="utf-8")
        command = [
            sys.executable,
            "-m",
            "mypy",
            "--config-file",
            "pyproject.toml",
            *map(str, files),
        ]
        report = subprocess.run(command, cwd=REPO, capture_output=True, text=True, check=False)
    return "" if report.returncode == 0 else (report.stdout + report.stderr).replace(folder, "")


if __name__ == "__main__":
    documented_blocks = python_blocks()
    complaints = check_types(documented_blocks)
    print(complaints or f"mypy: {len(documented_blocks)} documented blocks clean")
    sys.exit(bool(complaints))
