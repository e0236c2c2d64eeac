"""Draw docs/report.png: the top of the report that the README's command writes, with that command in
the picture's metadata.

Needs Chromium. A test compares the command in the picture with that in the README.
"""

from __future__ import annotations

import re
import shlex
import struct
import subprocess
import sys
import tempfile
import zlib
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from playwright.sync_api import sync_playwright

from tests.browser.chromium import OPTIONS, PATIENCE_MS, program

ROOT = Path(__file__).resolve().parents[2]
PICTURE = ROOT / "docs" / "report.png"
SIZE = {"width": 1280, "height": 1300}
HEADER_BYTES = 8 + 25
"""Length of a PNG's signature and IHDR chunk, in bytes."""


def readme_command() -> str:
    """Return the arguments of the backtest in the README."""
    match = re.search(
        r"trimtab (backtest --sample .*--html report\.html)",
        (ROOT / "README.md").read_text(encoding="utf-8"),
    )
    if match is None:
        raise SystemExit("README.md shows no backtest with --html report.html")
    return match[1]


def with_text(picture: bytes, text: str) -> bytes:
    """Return the PNG with the text in a tEXt chunk named Comment (PNG specification, 11.3.3.3)."""
    chunk_body = b"tEXt" + b"Comment\0" + text.encode("latin-1")
    chunk = (
        struct.pack(">I", len(chunk_body) - 4)
        + chunk_body
        + struct.pack(">I", zlib.crc32(chunk_body))
    )
    return picture[:HEADER_BYTES] + chunk + picture[HEADER_BYTES:]


def main() -> None:
    """Write the picture."""
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        subprocess.run(
            [
                sys.executable,
                "-c",
                "from agent.cli.main import main; main()",
                *shlex.split(readme_command()),
            ],
            cwd=folder,
            check=True,
        )
        browser = playwright.chromium.launch(executable_path=program(), args=list(OPTIONS))
        page = browser.new_page(viewport=SIZE, color_scheme="light")
        page.goto((Path(folder) / "report.html").as_uri())
        page.wait_for_selector("html[data-drawn]", timeout=PATIENCE_MS)
        PICTURE.write_bytes(with_text(page.screenshot(), readme_command()))
        browser.close()


if __name__ == "__main__":
    main()
