"""What fails on the way: the endpoint, the send, the disk, the block; nothing is lost and nothing is sent twice."""

from __future__ import annotations

import resource
from pathlib import Path

import pytest
from sqlalchemy.exc import DBAPIError

from agent.app.records import maintenance
from agent.chain.sender import NonceUsed, SendRefused
from agent.cli import history
from agent.errors import ErrorCode, OperatorNeeded, Refused, Retryable, TrimtabError
from agent.model import IntentState
from tests.support.text import mentions, raises_code
from tests.support.transactions import Bench, bench

S = IntentState


def states(made: Bench) -> list[str]:
    (intent,) = made.store.journal.intents()
    return [move.new_state.value for move in made.store.journal.transitions(intent.id)]


def test_two_machines_with_one_backup_trade_once(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    first = bench(tmp_path / "one")
    first.run(0)
    first.store.close()
    (tmp_path / "two" / "trimtab.db").write_bytes((tmp_path / "one" / "trimtab.db").read_bytes())
    first.restart()
    first.run(1)
    second = bench(tmp_path / "two")
    second.chain = first.chain
    with raises_code(OperatorNeeded, "foreign_nonce"):
        second.run(2)
    assert len(first.chain.sent) == 2


def test_a_send_of_unknown_fate_is_followed_by_its_hash(tmp_path: Path) -> None:
    made = bench(tmp_path)
    made.chain.send_error = Retryable("connection reset")
    assert made.run().state is S.FINAL
    assert len(made.chain.sent) == 1
    assert "fate-unknown" in [event.name for event in made.events]


def test_a_lost_send_stays_open_and_is_not_planned_anew(tmp_path: Path) -> None:
    made = bench(tmp_path)
    made.chain.send_error = Retryable("connection reset")
    made.chain.lose = True
    with raises_code(Retryable, "not_mined"):
        made.run()
    with raises_code(Retryable, "open_transaction"):
        made.run()
    assert len(made.chain.sent) == 1
    assert states(made) == ["planned", "signed", "broadcast"]


def test_a_definite_rejection_is_told_and_left_to_reconciliation(tmp_path: Path) -> None:
    made = bench(tmp_path)
    made.chain.send_error = Refused("insufficient funds")
    made.chain.lose = True
    with pytest.raises(Refused, match="insufficient funds"):
        made.run()
    assert states(made) == ["planned", "signed", "broadcast"]


def notes(made: Bench) -> list[str]:
    (intent,) = made.store.journal.intents()
    return [move.note for move in made.store.journal.transitions(intent.id)]


REASON = "in-flight transaction limit reached"
ANSWERS = {
    "refused": SendRefused(REASON),
    "unknown": Retryable(REASON, code=ErrorCode.UNKNOWN_IF_SENT),
    "nonce used": NonceUsed(REASON),
}


@pytest.mark.parametrize("answer", ANSWERS.values(), ids=ANSWERS)
def test_the_reason_for_not_taking_a_send_is_in_journal_errors_and_txs(
    tmp_path: Path, answer: TrimtabError, capsys: pytest.CaptureFixture[str]
) -> None:
    made = bench(tmp_path)
    made.chain.lose = True
    for _ in range(2):  # the second time as the answer to the same bytes
        made.chain.send_error = answer
        with pytest.raises(TrimtabError, match=REASON):
            made.run() if not made.chain.sent else made.executor().reconcile()
            made.run()
    assert notes(made)[2:] == ["sent", f"not accepted: {REASON}"] * 2
    (intent,) = made.store.journal.intents()
    document = maintenance._traced_document(made.store, intent, 0)
    history._show_transactions({"transactions": [document], "waiting": 1, "confirming": 0})
    assert mentions(capsys.readouterr().out, f"Nonce {intent.tx.nonce}: not accepted: {REASON}")
    made.restart()
    with raises_code(Retryable, "open_transaction", f"not accepted: {REASON}"):
        made.run()
    made.chain.lose = False
    (intent,) = made.executor().reconcile()
    assert intent.state is S.FINAL


def test_a_reason_is_forgotten_once_a_node_takes_the_transaction(tmp_path: Path) -> None:
    made = bench(tmp_path, automine=False)
    made.chain.lose, made.chain.send_error = True, ANSWERS["refused"]
    with pytest.raises(SendRefused):
        made.run()
    made.chain.lose = False
    made.executor().reconcile()
    with pytest.raises(Retryable) as caught:
        made.run()
    assert REASON not in str(caught.value)
    assert "; sent" not in str(caught.value), "only why it was not taken is repeated"


def test_an_endpoint_that_fails_while_waiting_is_borne(tmp_path: Path) -> None:
    made = bench(tmp_path)

    def outage(event) -> None:
        if event.name == "after:send":
            made.chain.offline = 3

    made.on_event = outage
    assert made.run().state is S.FINAL


def test_an_outage_that_lasts_is_retryable_and_stays_open(tmp_path: Path) -> None:
    made = bench(tmp_path)

    def outage(event) -> None:
        if event.name == "after:send":
            made.chain.offline = 1000

    made.on_event = outage
    with pytest.raises(Retryable, match="is down"):
        made.run()
    made.chain.offline = 0
    (intent,) = made.executor().reconcile()
    assert intent.state is S.FINAL


def test_a_block_that_leaves_the_chain_while_confirming_is_not_final(tmp_path: Path) -> None:
    made = bench(tmp_path, confirmations=3)

    def reorganise() -> None:
        made.clock.each = lambda: None
        made.chain.reorg(1)

    made.clock.each = reorganise
    intent = made.run()
    assert intent.state is S.BROADCAST
    assert intent.receipt is None
    assert states(made) == ["planned", "signed", "broadcast", "mined", "broadcast"]


def test_a_transaction_that_moves_to_another_block_keeps_its_new_receipt(tmp_path: Path) -> None:
    made = bench(tmp_path, confirmations=3)

    def reorganise() -> None:
        made.clock.each = lambda: made.chain.blocks.append({})
        block = made.chain.blocks[-1]
        made.chain.reorg(1)
        made.chain.blocks.append(block)

    made.clock.each = reorganise
    intent = made.run()
    assert intent.state is S.FINAL
    assert made.chain.block_hash(intent.receipt.block_number) == intent.receipt.block_hash
    assert states(made).count("mined") == 2


@pytest.mark.parametrize(("full_at", "transactions"), [("planned", 1), ("signed", 1), ("broadcast", 2)])
def test_a_full_disk_before_the_bytes_leave_sends_nothing(tmp_path: Path, full_at: str, transactions: int) -> None:
    made = bench(tmp_path)
    unlimited = resource.getrlimit(resource.RLIMIT_FSIZE)

    def fill(event) -> None:
        if event.name == f"before:{full_at}":  # no file may grow beyond the log's present size
            resource.setrlimit(resource.RLIMIT_FSIZE, ((tmp_path / "trimtab.db-wal").stat().st_size, unlimited[1]))

    made.on_event = fill
    try:
        with raises_code(OperatorNeeded, "store", "write") as caught:
            made.run()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, unlimited)
    assert isinstance(caught.value.__cause__, DBAPIError)
    assert made.chain.sent == []
    made.restart()
    made.executor().reconcile()
    assert made.run(made.chain.nonces("")[0]).state is S.FINAL
    assert len(made.chain.sent) == transactions


@pytest.mark.parametrize("full_at", ["mined", "final"])
def test_a_full_disk_after_the_send_loses_nothing(tmp_path: Path, full_at: str) -> None:
    made = bench(tmp_path)
    unlimited = resource.getrlimit(resource.RLIMIT_FSIZE)

    def fill(event) -> None:
        if event.name == f"before:{full_at}":
            resource.setrlimit(resource.RLIMIT_FSIZE, ((tmp_path / "trimtab.db-wal").stat().st_size, unlimited[1]))

    made.on_event = fill
    try:
        with raises_code(OperatorNeeded, "store", "write"):
            made.run()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, unlimited)
    made.restart()
    (intent,) = made.executor().reconcile()
    assert intent.state is S.FINAL
    assert len(made.chain.sent) == 1
