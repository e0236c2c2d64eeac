"""`wallet.mode = "propose"` at the command line: a document with the file, exit code 11, and the next run goes on from the chain."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from eth_account import Account

from tests.cli.tools import CommandResult, Desk
from tests.support.commands.sending import WALLET_KEY
from tests.support.text import mentions


def signed_elsewhere(desk: Desk, transaction: dict[str, str]) -> str:
    """The wallet's owner signs what the file says and sends it."""
    fields = {name: int(value, 16) if name not in ("to", "data") else value for name, value in transaction.items()}
    signed = Account.sign_transaction(fields, WALLET_KEY)
    return str(desk.node.rpc("eth_sendRawTransaction", "0x" + bytes(signed[0]).hex()))


def test_a_rebalance_is_proposed_signed_elsewhere_and_finished(desk: Desk) -> None:
    desk.edit(("test_account = 0", 'mode = "propose"'), ('deadline = "90s"', 'deadline = "30m"'))
    (key,) = [row for row in desk.ask("doctor")["checks"] if row["check"] == "key"]
    assert key["state"] == "ok"
    assert "proposed" in key["finding"]
    purposes = []
    for _ in range(9):
        result = desk.run("rebalance", "--send", "--yes", "--json")
        if result.code == 0:
            break
        assert result.code == 11, result.why
        proposal = result.error["proposal"]
        path = Path(proposal.pop("file"))
        assert path.parent == desk.config.parent / "proposals"
        assert json.loads(path.read_text()) == proposal
        assert result.error["kind"] == "AwaitingExternalSignature"
        assert str(path) in result.error["message"]
        purposes.append(proposal["purpose"])
        assert signed_elsewhere(desk, proposal["transaction"]).startswith("0x")
    assert purposes[-1] == "swap"
    assert set(purposes[:-1]) == {"approve"}
    assert result.json["decision"]["kind"] == "hold"
    output = desk.run("history").out
    assert "final" in output


def test_people_are_told_where_the_proposal_lies_and_until_when(desk: Desk) -> None:
    desk.edit(("test_account = 0", 'mode = "propose"'), ('deadline = "90s"', 'deadline = "30m"'))
    result = desk.run("rebalance", "--send", "--yes")
    assert result.code == 11
    assert result.err.strip().startswith("Proposed: ")
    assert not mentions(result.err, "later")
    assert "signature" in " ".join(result.err.split())


def test_modes_that_contradict_themselves_are_named(desk: Desk) -> None:
    for new, words in (
        ('test_account = 0\nmode = "propose"', "and takes no test_account"),
        ("safe = true", 'write mode = "propose"'),
        ('mode = "guess"', "wallet.mode"),
        ('mode = "propose"\nproposals = ""', "wallet.proposals"),
    ):
        text = desk.config.read_text()
        desk.edit(("test_account = 0", new))
        assert words in desk.ask("rebalance", "--send", "--yes", want=2)["error"]["message"]
        desk.config.write_text(text)


def test_a_missing_config_is_named_before_a_missing_confirmation(bare: Callable[..., CommandResult], tmp_path: Path) -> None:
    for command in (("proposal", "sign"), ("proposal", "execute", "--send"), ("withdraw", "10", "--send")):
        error = bare(*command, "--config", str(tmp_path / "none.toml"), "--json").error
        assert "no such file" in error["message"]
