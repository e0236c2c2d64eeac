"""Proposals lie in files of their owner's alone, whole or not at all (T18)."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from agent.errors import OperatorNeeded
from agent.store.files.recorder import FileOutbox
from tests.support.text import raises_code


def test_proposal_file_is_its_owner_s_alone_and_removed(tmp_path: Path) -> None:
    outbox = FileOutbox(tmp_path / "proposals")

    place = Path(outbox.write_proposal("abc", "{}\n"))

    assert place.read_text() == "{}\n"
    assert place.stat().st_mode & 0o777 == 0o600
    assert place.parent.stat().st_mode & 0o777 == 0o700
    outbox.remove_proposal("abc")
    outbox.remove_proposal("abc")
    assert not list(place.parent.iterdir())


def test_proposal_file_is_left_or_restored(tmp_path: Path) -> None:
    outbox = FileOutbox(tmp_path)
    place = Path(outbox.write_proposal("abc", "{}\n"))

    before = place.stat().st_mtime_ns, place.stat().st_ino

    assert outbox.write_proposal("abc", "{}\n") == str(place)
    assert (place.stat().st_mtime_ns, place.stat().st_ino) == before
    for changed in (b'{"to": "a stranger"}', b"\xff\x00"):
        place.write_bytes(changed)
        outbox.write_proposal("abc", "{}\n")
        assert place.read_text() == "{}\n"
    assert place.read_text() == "{}\n"
    assert [file.name for file in tmp_path.iterdir()] == ["abc.json"]


def test_a_full_disk_leaves_no_half_of_a_proposal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)

    with raises_code(OperatorNeeded, "file", "No space left"):
        FileOutbox(tmp_path).write_proposal("abc", "{}\n")
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "proposals").write_text("a file")

    with raises_code(OperatorNeeded, "file", "be written"):
        FileOutbox(tmp_path / "proposals").write_proposal("abc", "{}\n")
