"""A store that is created on a full disk: the room is named whatever SQLite calls it, and the next attempt succeeds."""

from __future__ import annotations

import resource
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from agent.errors import PassingFault
from agent.store import opening
from agent.store.opening import open_store
from tests.support.agents import WALLET
from tests.support.text import raises_code


@contextmanager
def files_of(most_bytes: int) -> Iterator[None]:
    """No file of this process grows beyond this size, as on a disk with so much room."""
    _, hard = limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, before)


@pytest.mark.parametrize("room_bytes", [0, 4_096, 20_000, 40_000])
def test_store_on_a_full_disk_names_its_room_and_opens_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, room_bytes: int) -> None:
    url = f"sqlite:///{tmp_path}/trimtab.db"
    monkeypatch.setattr(opening, "free_disk_bytes", lambda _: 0)

    with files_of(room_bytes), raises_code(PassingFault, "store", f"the disk of {tmp_path} has 0 bytes free") as caught:
        open_store(url, 1, WALLET)
    assert caught.value.remedy.startswith("free space there")
    open_store(url, 1, WALLET).close()


def test_a_failure_of_a_disk_with_room_is_not_called_full(tmp_path: Path) -> None:
    assert opening.free_disk_bytes(tmp_path) > opening.MIN_FREE_BYTES
    with files_of(4_096), pytest.raises(PassingFault) as caught:
        open_store(f"sqlite:///{tmp_path}/trimtab.db", 1, WALLET)
    assert "bytes free" not in caught.value.message


def test_a_folder_that_is_gone_has_room_enough(tmp_path: Path) -> None:
    assert opening.free_disk_bytes(tmp_path / "none") > opening.MIN_FREE_BYTES
