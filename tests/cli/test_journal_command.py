"""trimtab txs, cancel and reconcile: what was sent, what waits, settled against the chain, taken back when that is confirmed."""

from __future__ import annotations

import time

from tests.cli.tools import Desk, forked
from tests.support.commands.sending import nonce
from tests.support.commands.waiting import something_waits, waiting_hashes


def test_a_new_store_has_sent_nothing_and_nothing_waits(desk: Desk) -> None:
    txs_document = desk.ask("txs")
    assert (txs_document["transactions"], txs_document["waiting"]) == ([], 0)
    desk.ask("cancel", "--send", "--yes")
    assert "No pending" in desk.run("cancel").out
    settled = desk.ask("reconcile")
    assert (settled["waiting"], settled["booked"], settled["next_nonce"]) == (0, 0, nonce(desk))


def test_txs_shows_every_transaction_with_its_moves(desk: Desk) -> None:
    sent = desk.ask("rebalance", "--send", "--yes")["transactions"]
    txs_document = desk.ask("txs")
    assert [item["hash"] for item in reversed(txs_document["transactions"])] == [item["hash"] for item in sent]
    assert {tuple(move["status"] for move in item["moves"])[:4] for item in txs_document["transactions"]} == {
        ("planned", "signed", "broadcast", "mined")
    }
    assert txs_document["waiting"] == 0
    assert len(desk.ask("txs", "--limit", "1")["transactions"]) == 1
    for command, count in (("txs", 1), ("txs", 20), ("history", 1), ("history", 10_000)):
        hint = f"At most the newest {count} are shown; --limit shows more."
        assert (hint in desk.run(command, "--limit", str(count)).err) == (count == 1), (command, count)
    words = desk.run("txs").out
    assert all(item["kind"] in words for item in sent)
    assert "0 pending" in words


def test_what_waits_is_shown_and_kept_until_sending_is_allowed(desk: Desk) -> None:
    before = something_waits(desk)
    cancel_document = desk.ask("cancel")
    (item,) = cancel_document["transactions"]
    assert (item["kind"], item["status"], item["nonce"], cancel_document["waiting"]) == ("approve", "broadcast", before, 1)
    assert desk.ask("txs")["transactions"][0]["hash"] == item["hash"]
    assert f"trimtab cancel --config {desk.config} --send" in desk.run("cancel").err
    assert waiting_hashes(desk) == {item["hash"]}
    desk.ask("pause")
    assert desk.ask("cancel", "--send", "--yes", want=10)["error"]["verdicts"][0]["guard"] == "kill_switch"
    assert desk.ask("reconcile", "--send", "--yes", want=10)["error"]["verdicts"][0]["guard"] == "kill_switch"
    assert waiting_hashes(desk) == {item["hash"]}


def test_nobody_to_ask_is_a_usage_error_before_anything_is_done(desk: Desk) -> None:
    before = something_waits(desk)
    for command in ("cancel", "reconcile"):
        assert "--yes" in desk.ask(command, "--send", want=2)["error"]["remedy"]
    assert nonce(desk) == before


def test_cancel_takes_the_nonce_back(desk: Desk) -> None:
    before = something_waits(desk)
    original = desk.ask("cancel")["transactions"][0]["hash"]
    child = forked(desk, "cancel", "--send", "--yes", "--json")
    end = time.monotonic() + 60
    while waiting_hashes(desk) <= {original}:
        assert time.monotonic() < end, child.err.read_text()
        time.sleep(0.01)
    desk.node.rpc("evm_setAutomine", True)
    desk.node.mine(2)
    output = child.ended()
    assert output.code == 0, output.why
    document = output.json
    assert [(item["kind"], item["status"]) for item in document["transactions"]] == [("approve", "cancelled"), ("cancel", "final")]
    assert document["transactions"][1]["replaces"] == document["transactions"][0]["id"]
    assert (document["waiting"], document["booked"], nonce(desk)) == (0, 1, before + 1)
    assert desk.ask("rebalance", "--send", "--yes")["outcome"] == "done"


def test_reconcile__settles_what_was_mined_without_a_key(desk: Desk) -> None:
    before = something_waits(desk)
    desk.node.rpc("evm_setAutomine", True)
    desk.node.mine(2)
    desk.edit(("test_account = 0", 'keystore = "nowhere.json"'))
    reconcile_document = desk.ask("reconcile")
    assert [(item["kind"], item["status"]) for item in reconcile_document["transactions"]] == [("approve", "final")]
    assert (reconcile_document["waiting"], reconcile_document["booked"], reconcile_document["next_nonce"]) == (0, 1, before + 1)


def test_reconcile_sends_nothing_unless_told(desk: Desk) -> None:
    before = something_waits(desk)
    desk.node.rpc("anvil_dropAllTransactions")
    desk.node.rpc("evm_setAutomine", True)
    looked = desk.ask("reconcile", want=11)
    assert [(item["status"], looked["waiting"]) for item in looked["transactions"]] == [("broadcast", 1)]
    assert nonce(desk) == before
    sent = desk.ask("reconcile", "--send", "--yes")
    assert sent["waiting"] == 0
    assert nonce(desk) == before + 1
