"""A config, store or folder that others may write: every command refuses with the chmod, doctor names it, and a pause works."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.tools import Desk
from tests.support.commands.sending import nonce
from tests.support.text import mentions

COMMANDS = (
    ("status",),
    ("plan",),
    ("rebalance", "--send", "--yes"),
    ("history",),
    ("trust",),
    ("resume",),
    ("edit", "--set", "policy.cooldown=2h"),
)


def places(desk: Desk) -> dict[str, Path]:
    store = desk.config.with_name("trimtab.db")
    return {"config": desk.config, "store": store, "folder": desk.config.parent}


@pytest.mark.parametrize(("what", "mode"), [("config", 0o664), ("config", 0o646), ("folder", 0o777)])
def test_every_command_refuses_with_the_chmod_that_mends_it(desk: Desk, what: str, mode: int) -> None:
    place = places(desk)[what]
    before = nonce(desk)
    place.chmod(mode)
    for command in COMMANDS:
        error = desk.ask(*command, want=2)["error"]
        assert mentions(error["message"], f"{place}", f"mode {mode:04o}"), command
        assert error["remedy"] == f"run: chmod go-w {place}"
    (row,) = desk.ask("doctor", want=2)["checks"]
    assert (row["check"], row["state"], row["remedy"]) == ("config", "fail", f"run: chmod go-w {place}")
    assert nonce(desk) == before
    place.chmod(mode & 0o755)
    desk.ask("status")


def test_a_store_that_others_may_write_is_refused_and_named(desk: Desk) -> None:
    store = places(desk)["store"]
    store.chmod(0o666)
    for command in (("status",), ("rebalance", "--send", "--yes"), ("history",)):
        assert desk.ask(*command, want=2)["error"]["remedy"] == f"run: chmod go-w {store}"
    rows = [row for row in desk.ask("doctor", want=2)["checks"] if row["state"] == "fail"]
    assert rows[0]["check"] == "store"
    assert rows[0]["remedy"] == f"run: chmod go-w {store}"
    store.chmod(0o644)
    desk.ask("status")
    assert store.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("what", ["config", "store", "folder"])
def test_a_pause_works_whoever_may_write(desk: Desk, what: str) -> None:
    place = places(desk)[what]
    mode = place.stat().st_mode & 0o777
    place.chmod(0o777)
    assert desk.ask("pause")["paused"]
    place.chmod(mode)
    assert desk.ask("rebalance", "--send", "--yes", want=10)["outcome"] == "refused"


def test_hard_pause_by_others_config__stops_and_sends_nothing(desk: Desk) -> None:
    desk.config.chmod(0o666)
    assert "error" in desk.ask("pause", "--hard", want=2)
    desk.config.chmod(0o600)
    assert desk.ask("rebalance", "--send", "--yes", want=10)["outcome"] == "refused"
