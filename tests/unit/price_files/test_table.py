"""Cells of a price file: which lines precede the header, and what is said of an unreadable file."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.errors import ConfigError
from agent.price_files.table import open_table


@pytest.mark.parametrize(
    ("banner", "header", "skipped_count"),
    [
        pytest.param('"Source a\nb"\n', "time,close", 1, id="two lines in one cell"),
        pytest.param('# a site\n"Source\n\na\nb"\nmore\n', "time,close", 3, id="blank line in a cell"),
        pytest.param("# a site\n", '"time\n(UTC)",close', 1, id="line end in the header"),
        pytest.param("", '"time\n(UTC)",close', 0, id="header of two lines first"),
        pytest.param("", "time,close", 0, id="no banner"),
    ],
)
def test_header__follows_all_lines_of_the_banner(tmp_path: Path, banner: str, header: str, skipped_count: int) -> None:
    path = tmp_path / "closes.csv"
    path.write_text(f"{banner}{header}\n2024-01-01,5\n")
    table = open_table(path, "--prices")
    assert table.header is not None
    assert table.header[1] == "close"
    assert len(table.skipped_lines) == skipped_count
    assert [list(row) for row in table.rows] == [["2024-01-01", "5"]]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        pytest.param(b"", "is empty", id="empty"),
        pytest.param(b"ARROW1 cut off", "is damaged", id="damaged"),
        pytest.param(None, "cannot be opened: ", id="no permission"),
    ],
)
def test_feather_file__that_cannot_be_read_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes | None, reason: str
) -> None:
    path = tmp_path / "closes.feather"
    path.write_bytes(content or b"")
    if content is None:
        monkeypatch.setattr(Path, "read_bytes", refuse_reading)
    with pytest.raises(ConfigError, match=reason):
        open_table(path, "--prices")


def refuse_reading(path: Path) -> bytes:
    raise PermissionError(13, "Permission denied", str(path))
