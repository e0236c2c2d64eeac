"""The commands about balances and the store's file: flows, db; and where status and plan show what nobody explained."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.tools import Desk
from tests.support.commands.native_coin import ETHER, change_native_coin
from tests.support.text import mentions


def test_missing_balance__stops_the_agent_until_explained(desk: Desk) -> None:
    nothing = desk.ask("flows")
    assert nothing["flows"] == []
    assert "explained" in desk.run("flows").out.lower()
    change_native_coin(desk, -ETHER)

    status_document = desk.ask("status")
    (flow,) = status_document["flows"]
    assert (flow["id"], flow["symbol"], flow["delta_raw"], flow["counts_as_loss"]) == (None, "native coin", str(-ETHER), True)

    listed = desk.ask("flows")
    (flow,) = listed["flows"]
    assert flow["id"] == 1
    words = desk.run("status").out
    assert "native coin" in words
    assert "fell by 1" in words.replace("\n", " ")
    planned = desk.ask("plan", want=10 if flow["halts"] else 0)
    assert [item["id"] for item in planned["flows"]] == [1]

    desk.ask("flows", "confirm", "1", "--as", "withdrawal")
    assert desk.ask("flows")["flows"] == []
    (flows,) = desk.ask("flows", "--all")["flows"]
    assert (flows["kind"], flows["counts_as_loss"], flows["halts"]) == ("withdrawal", False, False)
    assert desk.ask("status")["flows"] == []


def test_gas_money_that_comes_waits_for_nobody(desk: Desk) -> None:
    desk.ask("flows")
    change_native_coin(desk, ETHER)
    assert desk.ask("flows")["flows"] == []
    assert [item["kind"] for item in desk.ask("flows", "--all")["flows"]] == ["gas money"]
    assert mentions(desk.run("flows", "confirm", "all").out, "explained")


@pytest.mark.parametrize(
    ("args", "part"),
    [
        (("confirm", "7"), "flow 7 is not in the store"),
        (("confirm", "seven"), "'seven' is not the id of a transfer"),
        (("confirm", "9" * 5_000), "is not the id of a transfer"),
        (("confirm", "7", "--as", "theft"), "--as: 'theft' is unknown"),
    ],
)
def test_a_flow_that_is_none_is_wrong_input(desk: Desk, args: tuple[str, ...], part: str) -> None:
    assert part in desk.ask("flows", *args, want=2)["error"]["message"]


def test_store__is_copied_checked_put_back_and_adopted(desk: Desk, tmp_path: Path) -> None:
    desk.ask("flows")
    db_document = desk.ask("db", "backup", str(tmp_path / "copy.db"))
    assert (tmp_path / "copy.db").stat().st_size == db_document["bytes"]
    assert "not overwritten" in desk.ask("db", "backup", str(tmp_path / "copy.db"), want=2)["error"]["message"]
    checked = desk.ask("db", "check")
    assert (checked["wallet"], checked["copy"]) == (desk.about["wallet"], None)
    assert "is intact" in desk.run("db", "check").out
    assert checked["version"] == checked["present_version"]

    assert "not overwritten" in desk.ask("db", "restore", str(tmp_path / "copy.db"), want=2)["error"]["message"]
    restored = desk.ask("db", "restore", str(tmp_path / "copy.db"), "--force")
    assert Path(restored["kept"]).is_file()
    assert desk.ask("db", "check")["copy"] is not None
    status = desk.ask("status")
    assert status["paused"] is True
    assert "trimtab adopt" in status["pause_reason"]
    desk.run("resume")
    assert desk.ask("status")["paused"] is True
    adopted = desk.ask("adopt", "--yes")
    assert adopted["released"] == []
    assert adopted["nonce"] == int(desk.node.rpc("eth_getTransactionCount", desk.about["wallet"], "latest"), 16)
    assert desk.ask("status")["paused"] is False


def test_a_file_that_is_no_backup_changes_nothing(desk: Desk, tmp_path: Path) -> None:
    desk.ask("flows")
    (tmp_path / "notes.txt").write_text("no database " * 500)
    before = desk.ask("db", "check")
    assert desk.run("db", "restore", str(tmp_path / "notes.txt"), "--force").code == 12
    assert desk.run("db", "restore", str(tmp_path / "nowhere.db"), "--force").code == 2
    assert desk.ask("db", "check") == before


def test_unknown_position__is_neither_taken_nor_forgotten(desk: Desk) -> None:
    assert mentions(desk.ask("lp", "take", "123456", want=2)["error"]["message"], "no such")
    error = desk.ask("lp", "forget", "123456", want=2)["error"]
    assert "uniswap_v3 #123456 is not a position that the agent opened or adopted" in error["message"]
    assert desk.run("lp").code == 0
