"""Copying a store into another database: what lies beside it, and that a refused copy leaves the target alone."""

from __future__ import annotations

import errno
from collections.abc import Callable
from pathlib import Path

import pytest

from agent import wiring
from agent.app.records import store_copy
from agent.app.records.store_copy import copy_store, with_store_url
from agent.config.load import load_config
from agent.errors import PassingFault, Refused
from tests.support import agents

TARGET = "sqlite:///target.db"


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = agents.config(tmp_path)
    with wiring.open_store_offline(load_config(path)):
        return path


def is_target_paused(config: Path) -> bool:
    with wiring.open_store_offline(with_store_url(load_config(config), TARGET)) as (_, switch):
        return switch.is_paused() is not False


@pytest.mark.parametrize(("is_adopted", "refusal"), [(False, "a copy itself"), (True, "already")])
def test_copy__refused_does_not_pause_the_store_in_use(config: Path, is_adopted: bool, refusal: str) -> None:
    with wiring.open_store_offline(load_config(config)) as (store, _):
        store.steps.begin("s", 1, "{}")
    copy_store(config, TARGET)
    config.with_name("mine.db.paused").touch()
    with wiring.open_store_offline(load_config(config)) as (store, _):
        if is_adopted:
            store.adopt_copy()
    with pytest.raises(Refused, match=refusal):
        copy_store(config, TARGET)
    assert not is_target_paused(config)


@pytest.mark.parametrize(
    "make", [Path.touch, Path.mkdir, lambda file: file.symlink_to("nowhere")], ids=["file", "folder", "link to nothing"]
)
def test_copy__whatever_pauses_the_source_pauses_the_target(config: Path, make: Callable[[Path], None]) -> None:
    make(config.with_name("mine.db.paused"))
    copy_store(config, TARGET)
    assert is_target_paused(config)


def test_copy__names_the_file_that_a_full_disk_refuses(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full_disk(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(store_copy, "create_file", full_disk)
    with pytest.raises(PassingFault, match=r"cannot write .*target\.db\.secret"):
        copy_store(config, TARGET)
    assert not config.with_name("target.db").exists()


@pytest.mark.parametrize("step", ["_copy_secret", "_copy_pause", "copy_users", "copy_rows"])
def test_copy__can_be_repeated_after_any_step_failed(config: Path, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    def full_disk(*_: object) -> None:
        raise PassingFault("the disk is full")

    with monkeypatch.context() as fault:
        fault.setattr(store_copy, step, full_disk)
        with pytest.raises(PassingFault, match="disk is full"):
            copy_store(config, TARGET)
    assert copy_store(config, TARGET)["rows"]
