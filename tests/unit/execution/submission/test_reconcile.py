"""Tests of Reconciler in agent/execution/submission/reconcile.py: a restart at every state loses and repeats nothing (T7, T8, T14)."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from pathlib import Path

import pytest

from agent.chain.quorum import NoQuorum
from agent.chain.sender import NonceUsed
from agent.errors import OperatorNeeded, PassingFault, Retryable
from agent.execution.submission.reorgs import REORG_WATCH_BLOCKS
from agent.model import IntentState, SignedTx, UnsignedTx
from agent.ports import Grant, TransactionStatus
from tests.support.text import raises_code
from tests.support.transactions import GWEI, START_S, Bench, bench, killed_at, lost_in_broadcast, patient, states, when_sent

S = IntentState
FOREIGN = "0x" + "f0" * 32


@pytest.mark.parametrize("at", ["after:planned", "before:signed"])
def test_unsigned_intent_is_dropped(setup: Bench, at: str) -> None:
    killed_at(setup, at)

    (intent,) = setup.executor().reconcile()

    assert intent.state is S.CANCELLED
    assert setup.chain.sent == []
    assert setup.run().state is S.FINAL
    assert len(setup.chain.sent) == 1


@pytest.mark.parametrize("at", ["after:signed", "before:broadcast", "after:broadcast", "before:send"])
def test_signed_intent_goes_out_once_with_the_same_hash(setup: Bench, at: str) -> None:
    killed_at(setup, at)

    (intent,) = setup.executor().reconcile()

    assert intent.state is S.FINAL
    assert setup.chain.sent == [setup.signer.signed[0].hash]
    assert setup.signer.signed[0] == setup.signer.signed[1]


@pytest.mark.parametrize("at", ["after:send", "before:mined", "after:mined", "before:final", "after:final"])
def test_sent_intent_is_followed_and_never_sent_again(setup: Bench, at: str) -> None:
    killed_at(setup, at)
    setup.executor().reconcile()

    (intent,) = setup.store.journal.intents()

    assert intent.state is S.FINAL
    assert len(setup.chain.sent) == 1
    assert setup.executor().reconcile() == []


def test_a_pending_transaction_is_waited_for(tmp_path: Path) -> None:
    setup = bench(tmp_path, automine=False)
    killed_at(setup, "after:send")
    setup.clock.on_sleep = setup.chain.mine

    (intent,) = setup.executor().reconcile()

    assert intent.state is S.FINAL
    assert len(setup.chain.sent) == 1


def test_a_pending_transaction_that_stays_pending_is_left_open(tmp_path: Path) -> None:
    setup = bench(tmp_path, automine=False)
    killed_at(setup, "after:send")

    (intent,) = setup.executor().reconcile()

    assert intent.state is S.BROADCAST
    with raises_code(Retryable, "open_transaction"):
        setup.run(1)
    assert len(setup.chain.sent) == 1


@pytest.mark.parametrize("paused", [True, None], ids=["paused", "unreadable"])
@pytest.mark.parametrize("later_s", [0, 90], ids=["in time", "past its deadline"])
@pytest.mark.parametrize("at", ["after:signed", "after:broadcast"])
def test_reconcile_sends_nothing_while_paused(setup: Bench, paused: bool | None, later_s: int, at: str) -> None:
    killed_at(setup, at)
    setup.paused = paused
    setup.chain.timestamp_s += later_s

    setup.executor().reconcile()
    assert setup.chain.sent == []
    assert len(setup.store.journal.open_intents()) == 1

    setup.paused = False
    setup.executor().reconcile()
    assert setup.store.journal.open_intents() == ()


def test_pause_during_reconcile_stops_the_resend(tmp_path: Path) -> None:
    setup = lost_in_broadcast(tmp_path)
    sign = setup.signer.sign

    def pause_and_sign(unsigned: UnsignedTx, granted: Grant) -> SignedTx:
        setup.paused = True
        return sign(unsigned, granted)

    setup.signer.sign = pause_and_sign  # type: ignore[method-assign]
    setup.executor().reconcile()

    assert len(setup.chain.sent) == 1
    assert states(setup) == [("swap", "broadcast")]


def test_reconcile_that_may_not_send_only_looks(tmp_path: Path) -> None:
    setup = lost_in_broadcast(tmp_path)

    setup.executor().reconcile(may_send=False)

    assert len(setup.chain.sent) == 1
    assert states(setup) == [("swap", "broadcast")]


def test_lost_intent_waits_while_endpoints_are_not_level(tmp_path: Path) -> None:
    setup = lost_in_broadcast(tmp_path)
    setup.chain.height_disagreement = "endpoints are 15 blocks apart"

    with raises_code(NoQuorum, "lag", "15 blocks apart"):
        setup.executor().reconcile()
    assert len(setup.chain.sent) == 1
    setup.chain.height_disagreement = ""
    (intent,) = setup.executor().reconcile()
    assert intent.state is S.FINAL
    assert len(setup.chain.sent) == 2


def test_mined_intent_is_settled_while_paused(setup: Bench) -> None:
    killed_at(setup, "after:send")
    setup.paused = True

    (intent,) = setup.executor().reconcile()

    assert intent.state is S.FINAL


def test_foreign_nonce_needs_the_operator_and_is_named(tmp_path: Path) -> None:
    setup = lost_in_broadcast(tmp_path)
    setup.chain.base_nonce = 1
    setup.chain.foreign[0] = FOREIGN

    with pytest.raises(OperatorNeeded) as caught:
        setup.executor().reconcile()
    assert "nonce 0" in caught.value.message
    assert setup.signer.signed[0].hash in caught.value.message
    assert f"{FOREIGN}" in caught.value.message
    assert len(setup.chain.sent) == 1
    assert states(setup) == [("swap", "broadcast")]


def test_adoption_ends_what_a_stranger_replaced(tmp_path: Path) -> None:
    setup = lost_in_broadcast(tmp_path)

    with raises_code(Retryable, "open_transaction"):
        setup.executor().resync_nonce()
    setup.chain.base_nonce = 1
    assert setup.executor().resync_nonce() == 1
    assert states(setup) == [("swap", "replaced")]
    assert setup.run(1).state is S.FINAL


def test_adoption_waits_while_a_stranger_is_pending(setup: Bench) -> None:
    setup.chain.pool["0xforeign"] = 0

    with raises_code(Retryable, "foreign_pending"):
        setup.executor().resync_nonce()
    setup.chain.foreign[0] = FOREIGN
    with raises_code(OperatorNeeded, "foreign_pending", FOREIGN):
        setup.executor().reconcile()


def test_late_answer_of_an_endpoint_is_no_stranger(setup: Bench) -> None:
    killed_at(setup, "after:send")
    status_of = setup.chain.status_of
    late_answers = iter(["unknown", "unknown"])

    def late_status_of(tx_hash: str) -> TransactionStatus:
        status = status_of(tx_hash)
        return replace(status, state="unknown", receipt=None) if next(late_answers, None) else status

    setup.chain.status_of = late_status_of  # type: ignore[method-assign]
    began_s = setup.clock.time_s
    (intent,) = setup.executor().reconcile()

    assert intent.state is S.FINAL
    assert len(setup.chain.sent) == 1
    assert setup.clock.time_s - began_s >= 2 * setup.settings.poll_s, "it has time to catch up between two looks"


def test_reorged_intent_is_sent_again_by_the_next_reconcile(tmp_path: Path) -> None:
    setup = bench(tmp_path, confirmations=3)

    assert setup.run().state is S.MINED
    setup.chain.reorg(1)
    setup.executor().reconcile()
    assert states(setup) == [("swap", "broadcast")]
    setup.clock.on_sleep = lambda: setup.chain.blocks.append({})
    setup.executor().reconcile()
    assert states(setup) == [("swap", "final")]
    assert setup.chain.sent == [setup.signer.signed[0].hash] * 2


def test_first_reconcile_adopts_the_nonce_of_the_wallet(setup: Bench) -> None:
    setup.chain.base_nonce = 57

    assert setup.executor().reconcile() == []
    assert setup.store.journal.expected_nonce() == 57
    assert setup.run(57).state is S.FINAL


@pytest.mark.parametrize(
    ("gas_used", "gas_price_wei"),
    [
        pytest.param(100_000, 10 * GWEI + 1, id="one wei a gas more"),
        pytest.param(100_001, 10 * GWEI, id="one gas more"),
        pytest.param(50_000, 10**24, id="far more"),
    ],
)
def test_receipt_above_the_signed_cost_books_nothing(setup: Bench, gas_used: int, gas_price_wei: int) -> None:
    killed_at(setup, "after:send")
    setup.chain.gas_used = gas_used
    setup.chain.gas_price_wei = gas_price_wei

    with raises_code(Retryable, "answer", "signed for at most 1000000000000000 wei", "chain.rpc"):
        setup.executor().reconcile()
    assert states(setup) == [("swap", "broadcast")]
    assert setup.store.journal.unbooked_intents() == ()

    with raises_code(Retryable, "open_transaction"):
        setup.run(1)
    assert len(setup.chain.sent) == 1


def test_receipt_at_the_signed_cost_is_booked(setup: Bench) -> None:
    killed_at(setup, "after:send")
    setup.chain.gas_used = 100_000
    setup.chain.gas_price_wei = 10 * GWEI

    (intent,) = setup.executor().reconcile()

    assert intent.state is S.FINAL
    assert [intent.receipt and intent.receipt.gas_cost_wei for intent in setup.store.journal.unbooked_intents()] == [10**15]


def test_refused_receipt_lets_nothing_be_bumped_or_cancelled(tmp_path: Path) -> None:
    setup = patient(tmp_path, mined_timeout_s=60)
    setup.clock.on_sleep, setup.chain.gas_price_wei = setup.chain.mine, 10**24

    with raises_code(Retryable, "answer", "signed for at most"):
        setup.run()
    assert setup.clock.time_s - START_S >= 60
    assert len(setup.chain.sent) == 1
    assert states(setup) == [("swap", "broadcast")]


def test_moved_receipt_above_the_signed_cost_replaces_none(setup: Bench) -> None:
    stored_receipt = setup.run().receipt
    block = setup.chain.blocks[-1]
    setup.chain.reorg(1)
    setup.chain.blocks[-1], setup.chain.gas_price_wei = block, 10**24

    with raises_code(Retryable, "answer", "signed for at most"):
        setup.executor().reconcile()
    (intent,) = setup.store.journal.intents()
    assert (intent.state, intent.receipt) == (S.FINAL, stored_receipt)


@pytest.mark.parametrize(
    ("depth", "error_type", "code"),
    [
        pytest.param(REORG_WATCH_BLOCKS, Retryable, "lag", id="at the limit"),
        pytest.param(REORG_WATCH_BLOCKS + 1, OperatorNeeded, "deep_reorg", id="one block beyond"),
    ],
)
def test_lower_nonce_is_a_lag_up_to_a_reorg_of_64_blocks(setup: Bench, depth: int, error_type: type[Exception], code: str) -> None:
    setup.run()
    setup.chain.blocks += [{} for _ in range(depth - 1)]
    setup.chain.reorg(depth)

    with raises_code(error_type, code):
        setup.run()


def test_lower_nonce_is_a_lag_while_our_block_is_there(setup: Bench) -> None:
    setup.run()
    setup.chain.blocks += [{} for _ in range(64)]
    setup.chain.nonces = lambda _owner: (0, 0)

    with raises_code(Retryable, "lag"):
        setup.run()


def test_stranger_is_noticed_once_ours_is_settled(setup: Bench) -> None:
    killed_at(setup, "after:send")
    setup.chain.base_nonce = 2

    with raises_code(OperatorNeeded, "foreign_nonce"):
        setup.executor().reconcile()


HIDDEN = {
    "receipt and hash": ("hides_hashes",),
    "the receipt alone": (),
    "receipt, hash and the block's body": ("hides_hashes", "hides_bodies"),
}
"""What the endpoints hide beside the receipt."""


@pytest.mark.parametrize("mined_index", [0, -1], ids=["the original is mined", "the newest is mined"])
@pytest.mark.parametrize("hidden", HIDDEN.values(), ids=HIDDEN)
def test_hidden_receipt_is_waited_for_and_settled_once(tmp_path: Path, hidden: tuple[str, ...], mined_index: int) -> None:
    """Nothing is sent at a used nonce, whatever is tried."""
    setup = patient(tmp_path, mined_timeout_s=5)
    with raises_code(Retryable, "not_mined"):
        setup.run()
    sent = list(setup.chain.sent)
    assert len(sent) > 1, "it was bumped"
    setup.chain.mine(sent[mined_index])
    for name in ("hides_receipts", *hidden):
        setattr(setup.chain, name, True)

    for _ in range(3):
        try:
            setup.executor().reconcile()
        except Retryable as error:
            assert error.code == "lag"
        setup.chain.timestamp_s += 200  # past its deadline
        with raises_code(Retryable, "open_transaction"):
            setup.run(1)
    setup.paused = setup.hard = True
    with contextlib.suppress(Retryable):
        setup.executor().cancel_pending("hard pause")
    setup.paused = setup.hard = False
    if "hides_bodies" not in hidden:
        with raises_code(Retryable, "open_transaction"):
            setup.executor().resync_nonce()
    assert setup.chain.sent == sent

    setup.chain.hides_receipts = False
    setup.executor().reconcile()

    assert setup.chain.sent == sent
    assert [state for _, state in states(setup)].count("final") == 1
    assert len(setup.store.journal.unbooked_intents()) == 1
    assert setup.executor().reconcile() == []
    assert setup.store.journal.expected_nonce() == 1


def test_hidden_receipt_lets_nothing_replace_it(tmp_path: Path) -> None:
    setup = patient(tmp_path)
    setup.chain.hides_receipts = True
    when_sent(setup, 1, setup.chain.mine)

    with raises_code(Retryable, "not_mined"):
        setup.run()
    assert len(setup.chain.sent) == 1, "the nonce is used: neither a bump nor a cancel"


def test_hidden_receipt_names_our_hash_and_no_other_program(setup: Bench) -> None:
    killed_at(setup, "after:send")
    setup.chain.hides_receipts = setup.chain.hides_hashes = True

    with raises_code(Retryable, "lag", "our transaction", setup.signer.signed[0].hash) as caught:
        setup.executor().reconcile()
    assert "another program" not in str(caught.value)
    setup.chain.hides_bodies = True
    with raises_code(Retryable, "lag", "nonce 0", "neither", setup.signer.signed[0].hash, "trimtab adopt"):
        setup.executor().reconcile()


@pytest.mark.parametrize(
    ("hides_bodies", "may_pass"), [(True, True), (False, False)], ids=["no block shows another", "a block shows another"]
)
def test_used_nonce_of_an_unsent_intent_needs_the_operator(setup: Bench, hides_bodies: bool, may_pass: bool) -> None:
    """What no block shows may be an endpoint's mistake."""
    killed_at(setup, "after:signed")
    setup.chain.base_nonce = 1
    setup.chain.hides_bodies = hides_bodies
    setup.chain.foreign[0] = FOREIGN

    with raises_code(OperatorNeeded, "foreign_nonce", FOREIGN) as caught:
        setup.executor().reconcile()
    assert isinstance(caught.value, PassingFault) is may_pass


def refuse_nonce_at_resend(setup: Bench, *mined_hashes: str) -> None:
    """Let the node answer a resend with "nonce too low", after it mined these, and hide receipts and hashes from then on."""

    def send(_signed: SignedTx) -> None:
        setup.chain.mine(*mined_hashes)
        setup.chain.hides_receipts = setup.chain.hides_hashes = True
        setup.chain.base_nonce = 1
        raise NonceUsed("nonce too low")

    setup.chain.send = send  # type: ignore[method-assign]


def test_nonce_refused_at_a_resend_is_ours_by_default(tmp_path: Path) -> None:
    setup = lost_in_broadcast(tmp_path)
    refuse_nonce_at_resend(setup, setup.signer.signed[0].hash)

    setup.executor().reconcile()
    assert states(setup) == [("swap", "broadcast")]

    setup.chain.hides_receipts = False
    (intent,) = setup.executor().reconcile()
    assert intent.state is S.FINAL


def test_nonce_refused_at_a_resend_is_foreign_if_mined(tmp_path: Path) -> None:
    setup = lost_in_broadcast(tmp_path)
    refuse_nonce_at_resend(setup)
    setup.chain.foreign[0] = FOREIGN

    with pytest.raises(NonceUsed):
        setup.executor().reconcile()


def add_data_fee(setup: Bench, data_fee_wei: int) -> None:
    """Let each receipt charge a data fee, as a rollup does beside the gas that was signed for."""
    status_of = setup.chain.status_of

    def status_with_data_fee(tx_hash: str) -> TransactionStatus:
        status = status_of(tx_hash)
        return replace(status, receipt=status.receipt and replace(status.receipt, data_fee_wei=data_fee_wei))

    setup.chain.status_of = status_with_data_fee  # type: ignore[method-assign]


@pytest.mark.parametrize("data_fee_wei", [1, 10**18])
@pytest.mark.parametrize(("status", "state"), [(1, S.FINAL), (0, S.REVERTED)], ids=["success", "revert"])
def test_data_fee_is_booked_beside_the_signed_cost(setup: Bench, status: int, state: IntentState, data_fee_wei: int) -> None:
    killed_at(setup, "after:send")
    setup.chain.gas_used = 100_000
    setup.chain.gas_price_wei = 10 * GWEI
    setup.chain.status = status
    add_data_fee(setup, data_fee_wei)

    (intent,) = setup.executor().reconcile()

    assert intent.state is state
    assert [intent.receipt and intent.receipt.gas_cost_wei for intent in setup.store.journal.unbooked_intents()] == [10**15 + data_fee_wei]


def test_data_fee_excuses_no_gas_above_the_signed_cost(setup: Bench) -> None:
    killed_at(setup, "after:send")
    setup.chain.gas_used = 100_001
    setup.chain.gas_price_wei = 10 * GWEI
    add_data_fee(setup, 1)

    with raises_code(Retryable, "answer", "signed for at most"):
        setup.executor().reconcile()
