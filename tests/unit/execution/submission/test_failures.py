"""What fails on the way: the endpoint, the send, the disk, the block; nothing is lost and nothing is sent twice."""

from __future__ import annotations

import resource
from pathlib import Path

import pytest
from sqlalchemy.exc import DBAPIError

from agent.app.records import maintenance
from agent.chain.endpoints import EndpointResting
from agent.chain.sender import NonceUsed, SendRefused, TipRefused
from agent.cli import history
from agent.errors import ErrorCode, NotAccepted, OperatorNeeded, Refused, Retryable, TrimtabError
from agent.model import IntentState
from agent.signing.terms import TIP_CAP_WEI
from tests.support.text import mentions, raises_code
from tests.support.transactions import Bench, bench

S = IntentState


def states(setup: Bench) -> list[str]:
    (intent,) = setup.store.journal.intents()
    return [move.new_state.value for move in setup.store.journal.transitions(intent.id)]


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


def test_send_of_unknown_fate_is_followed_by_its_hash(setup: Bench) -> None:
    setup.chain.send_error = Retryable("connection reset")

    assert setup.run().state is S.FINAL
    assert len(setup.chain.sent) == 1
    assert "fate-unknown" in [event.name for event in setup.events]


def test_lost_send_stays_open_and_is_not_planned_anew(setup: Bench) -> None:
    setup.chain.send_error = Retryable("connection reset")
    setup.chain.lose = True

    with raises_code(Retryable, "not_mined"):
        setup.run()
    with raises_code(Retryable, "open_transaction"):
        setup.run()
    assert len(setup.chain.sent) == 1
    assert states(setup) == ["planned", "signed", "broadcast"]


def test_rejected_send_is_raised_and_left_to_reconciliation(setup: Bench) -> None:
    setup.chain.send_error = Refused("insufficient funds")
    setup.chain.lose = True

    with pytest.raises(NotAccepted, match="insufficient funds"):
        setup.run()
    assert states(setup) == ["planned", "signed", "broadcast"]


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        pytest.param(SendRefused("the pool is full"), "the pool is full", id="pool"),
        pytest.param(TipRefused("low", min_tip_wei=TIP_CAP_WEI + 1), f"demands a tip of {TIP_CAP_WEI + 1} wei", id="tip"),
    ],
)
@pytest.mark.parametrize("is_resend", [False, True], ids=["first send", "resend"])
def test_refusal_after_a_send__says_what_stays_open(setup: Bench, error: SendRefused, reason: str, is_resend: bool) -> None:
    """A Refused means that nothing was sent; these bytes may be in any node."""
    setup.chain.lose = True
    if is_resend:
        with raises_code(Retryable, "not_mined"):
            setup.run()
    setup.chain.send_error = error
    with pytest.raises(NotAccepted) as caught:
        setup.executor().reconcile() if is_resend else setup.run()
    (intent,) = setup.store.journal.open_intents()
    assert intent.state is S.BROADCAST
    assert mentions(str(caught.value), reason, str(intent.tx_hash), "sends no second")


def test_pause_before_the_send__is_still_a_refusal(setup: Bench) -> None:
    def pause(event) -> None:
        setup.paused = setup.paused or event.name == "after:signed"

    setup.on_event = pause
    with pytest.raises(Refused, match="nothing is sent"):
        setup.run()
    assert setup.store.journal.open_intents() == ()


def notes(setup: Bench) -> list[str]:
    (intent,) = setup.store.journal.intents()
    return [move.note for move in setup.store.journal.transitions(intent.id)]


REASON = "in-flight transaction limit reached"
ANSWERS = {
    "refused": SendRefused(REASON),
    "unknown": Retryable(REASON, code=ErrorCode.UNKNOWN_IF_SENT),
    "nonce used": NonceUsed(REASON),
    "resting": EndpointResting(REASON),
}


@pytest.mark.parametrize("answer", ANSWERS.values(), ids=ANSWERS)
def test_refused_send_has_its_reason_in_journal_errors_and_txs(
    setup: Bench, answer: TrimtabError, capsys: pytest.CaptureFixture[str]
) -> None:
    setup.chain.lose = True
    for _ in range(2):  # the second time as the answer to the same bytes
        setup.chain.send_error = answer
        with pytest.raises(TrimtabError, match=REASON):
            setup.run() if not setup.chain.sent else setup.executor().reconcile()
            setup.run()

    assert notes(setup)[2:] == ["sent", f"not accepted: {REASON}"] * 2
    (intent,) = setup.store.journal.intents()
    document = maintenance._traced_document(setup.store, intent, 0)
    history._show_transactions({"transactions": [document], "waiting": 1, "confirming": 0})
    assert mentions(capsys.readouterr().out, f"Nonce {intent.tx.nonce}: not accepted: {REASON}")
    setup.restart()
    with raises_code(Retryable, "open_transaction", f"not accepted: {REASON}"):
        setup.run()
    setup.chain.lose = False
    (intent,) = setup.executor().reconcile()
    assert intent.state is S.FINAL


def test_reason_is_forgotten_once_a_node_takes_the_send(tmp_path: Path) -> None:
    setup = bench(tmp_path, automine=False)
    setup.chain.lose, setup.chain.send_error = True, ANSWERS["refused"]

    with pytest.raises(NotAccepted, match="in-flight transaction limit reached"):
        setup.run()
    setup.chain.lose = False
    setup.executor().reconcile()
    with pytest.raises(Retryable) as caught:
        setup.run()
    assert REASON not in str(caught.value)
    assert "; sent" not in str(caught.value), "only why it was not taken is repeated"


def test_short_outage_while_waiting_is_retried(setup: Bench) -> None:
    def outage(event) -> None:
        if event.name == "after:send":
            setup.chain.offline = 3

    setup.on_event = outage

    assert setup.run().state is S.FINAL


def test_lasting_outage_is_retryable_and_stays_open(setup: Bench) -> None:
    def outage(event) -> None:
        if event.name == "after:send":
            setup.chain.offline = 1000

    setup.on_event = outage

    with pytest.raises(Retryable, match="is down"):
        setup.run()
    setup.chain.offline = 0
    (intent,) = setup.executor().reconcile()
    assert intent.state is S.FINAL


def test_block_lost_while_confirming_is_not_final(tmp_path: Path) -> None:
    setup = bench(tmp_path, confirmations=3)

    def reorganise() -> None:
        setup.clock.on_sleep = lambda: None
        setup.chain.reorg(1)

    setup.clock.on_sleep = reorganise

    with raises_code(Retryable, "not_mined", "run the command again"):
        setup.run()

    (intent,) = setup.store.journal.open_intents()
    assert intent.state is S.BROADCAST
    assert intent.receipt is None
    assert states(setup) == ["planned", "signed", "broadcast", "mined", "broadcast"]


@pytest.mark.parametrize("depths", [(1,), (1, 1)], ids=["once", "twice"])
def test_transaction_mined_again_after_its_block_was_lost_is_final(tmp_path: Path, depths: tuple[int, ...]) -> None:
    setup = bench(tmp_path, confirmations=3)
    left = list(depths)

    def act() -> None:
        (tx_hash,) = setup.chain.sent
        is_mined = any(tx_hash in block for block in setup.chain.blocks)
        if left and is_mined:
            setup.chain.reorg(left.pop())
        elif is_mined:
            setup.chain.blocks.append({})
        else:
            setup.chain.mine(tx_hash)

    setup.clock.on_sleep = act

    assert setup.run().state is S.FINAL
    assert len(setup.chain.sent) == 1


def test_chain_that_reorganises_without_end_ends_the_wait(tmp_path: Path) -> None:
    setup = bench(tmp_path, confirmations=3)

    def act() -> None:
        (tx_hash,) = setup.chain.sent
        if any(tx_hash in block for block in setup.chain.blocks):
            setup.chain.reorg(1)
        else:
            setup.chain.mine(tx_hash)

    setup.clock.on_sleep = act

    with raises_code(Retryable, "not_mined"):
        setup.run()


def test_transaction_in_another_block_has_its_new_receipt(tmp_path: Path) -> None:
    setup = bench(tmp_path, confirmations=3)

    def reorganise() -> None:
        setup.clock.on_sleep = lambda: setup.chain.blocks.append({})
        block = setup.chain.blocks[-1]
        setup.chain.reorg(1)
        setup.chain.blocks.append(block)

    setup.clock.on_sleep = reorganise

    intent = setup.run()

    assert intent.state is S.FINAL
    assert setup.chain.block_hash(intent.receipt.block_number) == intent.receipt.block_hash
    assert states(setup).count("mined") == 2


@pytest.mark.parametrize(("full_at", "transactions"), [("planned", 1), ("signed", 1), ("broadcast", 2)])
def test_full_disk_before_the_send_sends_nothing(tmp_path: Path, setup: Bench, full_at: str, transactions: int) -> None:
    unlimited = resource.getrlimit(resource.RLIMIT_FSIZE)

    def fill(event) -> None:
        if event.name == f"before:{full_at}":  # no file may grow beyond the log's present size
            resource.setrlimit(resource.RLIMIT_FSIZE, ((tmp_path / "trimtab.db-wal").stat().st_size, unlimited[1]))

    setup.on_event = fill
    try:
        with raises_code(OperatorNeeded, "store", "write") as caught:
            setup.run()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, unlimited)

    assert isinstance(caught.value.__cause__, DBAPIError)
    assert setup.chain.sent == []
    setup.restart()
    setup.executor().reconcile()
    assert setup.run(setup.chain.nonces("")[0]).state is S.FINAL
    assert len(setup.chain.sent) == transactions


@pytest.mark.parametrize("full_at", ["mined", "final"])
def test_full_disk_after_the_send_loses_nothing(tmp_path: Path, setup: Bench, full_at: str) -> None:
    unlimited = resource.getrlimit(resource.RLIMIT_FSIZE)

    def fill(event) -> None:
        if event.name == f"before:{full_at}":
            resource.setrlimit(resource.RLIMIT_FSIZE, ((tmp_path / "trimtab.db-wal").stat().st_size, unlimited[1]))

    setup.on_event = fill
    try:
        with raises_code(OperatorNeeded, "store", "write"):
            setup.run()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, unlimited)
    setup.restart()

    (intent,) = setup.executor().reconcile()

    assert intent.state is S.FINAL
    assert len(setup.chain.sent) == 1
