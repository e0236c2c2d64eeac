"""Atomic replacement of files: what may be replaced, and who may read the result."""

from __future__ import annotations

import os
from pathlib import Path
from stat import S_IMODE

import pytest

from agent.files import replace_file


@pytest.mark.parametrize("is_link", [False, True], ids=["pipe", "link to a pipe"])
def test_replace_file__device_or_pipe_is_left_in_place(tmp_path: Path, is_link: bool) -> None:
    """--html /dev/null as root must not remove the device."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    path = pipe
    if is_link:
        path = tmp_path / "link"
        path.symlink_to(pipe)
    with pytest.raises(OSError, match="not a regular file"):
        replace_file(path, b"report")
    assert pipe.is_fifo()
    assert path.is_symlink() == is_link


def test_replace_file__readable_file_becomes_private(tmp_path: Path) -> None:
    path = tmp_path / "ledger.csv"
    path.write_text("old")
    path.chmod(0o644)
    replace_file(path, b"new")
    assert (path.read_bytes(), S_IMODE(path.stat().st_mode)) == (b"new", 0o600)
