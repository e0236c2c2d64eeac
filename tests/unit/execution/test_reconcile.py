"""A restart at every state: nothing is lost, nothing happens twice, and a nonce ends only with one final hash (T7, T8, T14)."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from agent.chain.quorum import NoQuorum
from agent.chain.sender import NonceUsed
from agent.errors import OperatorNeeded, PassingFault, Retryable
from agent.model import IntentState, SignedTx
from agent.ports import TransactionStatus
from tests.support.text import raises_code
from tests.support.transactions import GWEI, START_S, Bench, bench, killed_at, lost_in_broadcast, patient, when_sent

S = IntentState
FOREIGN = "0x" + "f0" * 32


def states(made: Bench) -> list[tuple[str, str]]:
    return [(intent.kind.value, intent.state.value) for intent in reversed(made.store.journal.intents())]


@pytest.mark.parametrize("at", ["after:planned", "before:signed"])
def test_what_was_never_signed_is_dropped(tmp_path: Path, at: str) -> None:
    made = bench(tmp_path)
    killed_at(made, at)
    (intent,) = made.executor().reconcile()
    assert intent.state is S.CANCELLED
    assert made.chain.sent == []
    assert made.run().state is S.FINAL
    assert len(made.chain.sent) == 1


@pytest.mark.parametrize("at", ["after:signed", "before:broadcast", "after:broadcast", "before:send"])
def test_what_was_signed_and_not_sent_goes_out_once_with_the_same_hash(tmp_path: Path, at: str) -> None:
    made = bench(tmp_path)
    killed_at(made, at)
    (intent,) = made.executor().reconcile()
    assert intent.state is S.FINAL
    assert made.chain.sent == [made.signer.signed[0].hash]
    assert made.signer.signed[0] == made.signer.signed[1]


@pytest.mark.parametrize("at", ["after:send", "before:mined", "after:mined", "before:final", "after:final"])
def test_what_was_sent_is_followed_and_never_sent_again(tmp_path: Path, at: str) -> None:
    made = bench(tmp_path)
    killed_at(made, at)
    made.executor().reconcile()
    (intent,) = made.store.journal.intents()
    assert intent.state is S.FINAL
    assert len(made.chain.sent) == 1
    assert made.executor().reconcile() == []


def test_a_pending_transaction_is_waited_for(tmp_path: Path) -> None:
    made = bench(tmp_path, automine=False)
    killed_at(made, "after:send")
    made.clock.each = made.chain.mine
    (intent,) = made.executor().reconcile()
    assert intent.state is S.FINAL
    assert len(made.chain.sent) == 1


def test_a_pending_transaction_that_stays_pending_is_left_open(tmp_path: Path) -> None:
    made = bench(tmp_path, automine=False)
    killed_at(made, "after:send")
    (intent,) = made.executor().reconcile()
    assert intent.state is S.BROADCAST
    with raises_code(Retryable, "open_transaction"):
        made.run(1)
    assert len(made.chain.sent) == 1


@pytest.mark.parametrize("paused", [True, None])
@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("at", ["after:signed", "after:broadcast"])
def test_recovery_sends_nothing_while_paused(tmp_path: Path, paused: bool | None, late: bool, at: str) -> None:
    made = bench(tmp_path)
    killed_at(made, at)
    made.paused = paused
    made.chain.timestamp_s += 90 if late else 0
    made.executor().reconcile()
    assert made.chain.sent == []
    assert len(made.store.journal.open_intents()) == 1
    made.paused = False
    made.executor().reconcile()
    assert made.store.journal.open_intents() == ()


def test_a_pause_during_recovery_stops_the_resend(tmp_path: Path) -> None:
    made = lost_in_broadcast(tmp_path)
    sign = made.signer.sign

    def pausing(unsigned, granted):
        made.paused = True
        return sign(unsigned, granted)

    made.signer.sign = pausing
    made.executor().reconcile()
    assert len(made.chain.sent) == 1
    assert states(made) == [("swap", "broadcast")]


def test_recovery_that_may_not_send_only_looks(tmp_path: Path) -> None:
    made = lost_in_broadcast(tmp_path)
    made.executor().reconcile(may_send=False)
    assert len(made.chain.sent) == 1
    assert states(made) == [("swap", "broadcast")]


def test_while_endpoints_are_not_level_nothing_lost_goes_out_again(tmp_path: Path) -> None:
    made = lost_in_broadcast(tmp_path)
    made.chain.height_disagreement = "endpoints are 15 blocks apart"
    with raises_code(NoQuorum, "lag", "15 blocks apart"):
        made.executor().reconcile()
    assert len(made.chain.sent) == 1
    made.chain.height_disagreement = ""
    (intent,) = made.executor().reconcile()
    assert intent.state is S.FINAL
    assert len(made.chain.sent) == 2


def test_what_is_mined_is_settled_even_while_paused(tmp_path: Path) -> None:
    made = bench(tmp_path)
    killed_at(made, "after:send")
    made.paused = True
    (intent,) = made.executor().reconcile()
    assert intent.state is S.FINAL


def test_a_nonce_used_by_a_stranger_needs_the_operator_and_names_what_is_known(tmp_path: Path) -> None:
    made = lost_in_broadcast(tmp_path)
    made.chain.base_nonce = 1
    made.chain.foreign[0] = FOREIGN
    with pytest.raises(OperatorNeeded) as caught:
        made.executor().reconcile()
    assert "nonce 0" in caught.value.message
    assert made.signer.signed[0].hash in caught.value.message
    assert f"{FOREIGN}" in caught.value.message
    assert len(made.chain.sent) == 1
    assert states(made) == [("swap", "broadcast")]


def test_adopting_ends_what_a_stranger_replaced(tmp_path: Path) -> None:
    made = lost_in_broadcast(tmp_path)
    with raises_code(Retryable, "open_transaction"):
        made.executor().resync_nonce()
    made.chain.base_nonce = 1
    assert made.executor().resync_nonce() == 1
    assert states(made) == [("swap", "replaced")]
    assert made.run(1).state is S.FINAL


def test_nothing_is_adopted_while_a_stranger_is_pending(tmp_path: Path) -> None:
    made = bench(tmp_path)
    made.chain.pool["0xforeign"] = 0
    with raises_code(Retryable, "foreign_pending"):
        made.executor().resync_nonce()
    made.chain.foreign[0] = FOREIGN
    with raises_code(OperatorNeeded, "foreign_pending", FOREIGN):
        made.executor().reconcile()


def test_a_late_answer_of_a_slow_endpoint_is_not_taken_for_a_stranger(tmp_path: Path) -> None:
    made = bench(tmp_path)
    killed_at(made, "after:send")
    look = made.chain.status_of
    answers = iter(["unknown", "unknown"])
    made.chain.status_of = lambda h: replace(look(h), state="unknown", receipt=None) if next(answers, None) else look(h)
    before_s = made.clock.now
    (intent,) = made.executor().reconcile()
    assert intent.state is S.FINAL
    assert len(made.chain.sent) == 1
    assert made.clock.now - before_s >= 2 * made.settings.poll_s, "it has time to catch up between two looks"


def test_a_reorganised_transaction_is_sent_again_by_the_next_reconciliation(tmp_path: Path) -> None:
    made = bench(tmp_path, confirmations=3)
    assert made.run().state is S.MINED
    made.chain.reorg(1)
    made.executor().reconcile()
    assert states(made) == [("swap", "broadcast")]
    made.clock.each = lambda: made.chain.blocks.append({})
    made.executor().reconcile()
    assert states(made) == [("swap", "final")]
    assert made.chain.sent == [made.signer.signed[0].hash] * 2


def test_the_first_use_adopts_the_nonce_of_a_wallet_with_a_past(tmp_path: Path) -> None:
    made = bench(tmp_path)
    made.chain.base_nonce = 57
    assert made.executor().reconcile() == []
    assert made.store.journal.expected_nonce() == 57
    assert made.run(57).state is S.FINAL


@pytest.mark.parametrize(("gas_used", "price_wei"), [(100_000, 10 * GWEI + 1), (100_001, 10 * GWEI), (50_000, 10**24)])
def test_a_receipt_that_costs_more_than_was_signed_books_nothing(tmp_path: Path, gas_used: int, price_wei: int) -> None:
    made = bench(tmp_path)
    killed_at(made, "after:send")
    made.chain.gas_used, made.chain.gas_price_wei = gas_used, price_wei
    with raises_code(Retryable, "answer", "signed for at most 1000000000000000 wei", "chain.rpc"):
        made.executor().reconcile()
    assert states(made) == [("swap", "broadcast")]
    assert made.store.journal.unbooked_intents() == ()
    with raises_code(Retryable, "open_transaction"):
        made.run(1)
    assert len(made.chain.sent) == 1
    made.chain.gas_used, made.chain.gas_price_wei = 100_000, 10 * GWEI
    (ended,) = made.executor().reconcile()
    assert ended.state is S.FINAL
    assert [intent.receipt and intent.receipt.gas_cost_wei for intent in made.store.journal.unbooked_intents()] == [10**15]


def test_while_a_receipt_is_refused_nothing_is_bumped_or_cancelled(tmp_path: Path) -> None:
    made = patient(tmp_path, mined_timeout_s=60)
    made.clock.each, made.chain.gas_price_wei = made.chain.mine, 10**24
    with raises_code(Retryable, "answer", "signed for at most"):
        made.run()
    assert made.clock.now - START_S >= 60
    assert len(made.chain.sent) == 1
    assert states(made) == [("swap", "broadcast")]


def test_a_moved_receipt_that_costs_more_than_was_signed_replaces_none(tmp_path: Path) -> None:
    made = bench(tmp_path)
    known = made.run().receipt
    block = made.chain.blocks[-1]
    made.chain.reorg(1)
    made.chain.blocks[-1], made.chain.gas_price_wei = block, 10**24
    with raises_code(Retryable, "answer", "signed for at most"):
        made.executor().reconcile()
    (intent,) = made.store.journal.intents()
    assert (intent.state, intent.receipt) == (S.FINAL, known)


@pytest.mark.parametrize(("depth", "error", "code"), [(64, Retryable, "lag"), (65, OperatorNeeded, "deep_reorg")])
def test_a_nonce_below_ours_is_a_lag_unless_a_reorg_of_more_than_64_blocks_took_our_transaction(
    tmp_path: Path, depth: int, error: type[Exception], code: str
) -> None:
    setup = bench(tmp_path)
    setup.run()
    setup.chain.blocks += [{} for _ in range(depth - 1)]
    setup.chain.reorg(depth)
    with raises_code(error, code):
        setup.run()


def test_a_nonce_below_ours_is_a_lag_while_the_chain_has_the_block_of_our_transaction(tmp_path: Path) -> None:
    setup = bench(tmp_path)
    setup.run()
    setup.chain.blocks += [{} for _ in range(64)]
    setup.chain.nonces = lambda _owner: (0, 0)
    with raises_code(Retryable, "lag"):
        setup.run()


def test_a_stranger_is_noticed_by_the_look_that_settles_our_transaction(tmp_path: Path) -> None:
    setup = bench(tmp_path)
    killed_at(setup, "after:send")
    setup.chain.base_nonce = 2
    with raises_code(OperatorNeeded, "foreign_nonce"):
        setup.executor().reconcile()


def mine_original(made: Bench) -> None:
    """The first of our transactions is mined, though a bump followed it."""
    made.chain.mine(made.chain.sent[0])


def mine_newest(made: Bench) -> None:
    made.chain.mine(made.chain.sent[-1])


HIDDEN = {
    "receipt and hash": {"hides_hashes": True},
    "the receipt alone": {},
    "receipt, hash and the block's body": {"hides_hashes": True, "hides_bodies": True},
}


@pytest.mark.parametrize("mines", [mine_original, mine_newest])
@pytest.mark.parametrize("hiding", HIDDEN.values(), ids=HIDDEN)
def test_a_hidden_receipt_of_ours_is_waited_for_and_settled_once(
    tmp_path: Path, hiding: dict[str, bool], mines: Callable[[Bench], None]
) -> None:
    made = patient(tmp_path, mined_timeout_s=5)
    with raises_code(Retryable, "not_mined"):
        made.run()
    sent = len(made.chain.sent)
    assert sent > 1, "it was bumped"
    mines(made)
    for name in ("hides_receipts", *hiding):
        setattr(made.chain, name, True)
    for _ in range(3):
        try:
            made.executor().reconcile()
        except Retryable as error:
            assert error.code == "lag"
        made.chain.timestamp_s += 200  # past its deadline
        with pytest.raises(Retryable):
            made.run(1)
    made.paused = made.hard = True
    with contextlib.suppress(Retryable):
        made.executor().cancel_pending("hard pause")
    made.paused = made.hard = False
    assert len(made.chain.sent) == sent, "nothing is sent at a used nonce"
    if "hides_bodies" not in hiding:
        with raises_code(Retryable, "open_transaction"):
            made.executor().resync_nonce()
    made.chain.hides_receipts = False
    made.executor().reconcile()
    assert len(made.chain.sent) == sent
    assert [state for _, state in states(made)].count("final") == 1
    assert len(made.store.journal.unbooked_intents()) == 1
    assert made.executor().reconcile() == []
    assert made.store.journal.expected_nonce() == 1


def test_nothing_replaces_a_transaction_whose_receipt_is_hidden_while_we_wait(tmp_path: Path) -> None:
    made = patient(tmp_path)
    made.chain.hides_receipts = True
    when_sent(made, 1, made.chain.mine)
    with raises_code(Retryable, "not_mined"):
        made.run()
    assert len(made.chain.sent) == 1, "the nonce is used: neither a bump nor a cancel"


def test_a_hidden_receipt_names_our_hash_and_no_other_program(tmp_path: Path) -> None:
    made = bench(tmp_path)
    killed_at(made, "after:send")
    made.chain.hides_receipts = made.chain.hides_hashes = True
    with raises_code(Retryable, "lag", "our transaction", made.signer.signed[0].hash) as caught:
        made.executor().reconcile()
    assert "another program" not in str(caught.value)
    made.chain.hides_bodies = True
    with raises_code(Retryable, "lag", "nonce 0", "neither", made.signer.signed[0].hash, "trimtab adopt"):
        made.executor().reconcile()


@pytest.mark.parametrize("hides_bodies", [True, False])
def test_a_used_nonce_of_what_was_never_sent_needs_the_operator(tmp_path: Path, hides_bodies: bool) -> None:
    made = bench(tmp_path)
    killed_at(made, "after:signed")
    made.chain.base_nonce, made.chain.hides_bodies = 1, hides_bodies
    made.chain.foreign[0] = FOREIGN
    with raises_code(OperatorNeeded, "foreign_nonce", FOREIGN) as caught:
        made.executor().reconcile()
    assert isinstance(caught.value, PassingFault) is hides_bodies, "what no block shows may be an endpoint's mistake"


@pytest.mark.parametrize("by_another", [False, True])
def test_a_nonce_refused_at_a_resend_is_ours_unless_a_block_has_another(tmp_path: Path, by_another: bool) -> None:
    """A node that lags until we resend: it answers "nonce too low", and hides our receipt."""
    made = lost_in_broadcast(tmp_path)

    def send(signed: SignedTx) -> None:
        made.chain.mine(*([] if by_another else [signed.hash]))
        made.chain.hides_receipts = made.chain.hides_hashes = True
        made.chain.base_nonce = 1
        if by_another:
            made.chain.foreign[0] = FOREIGN
        raise NonceUsed("nonce too low")

    made.chain.send = send
    if by_another:
        with pytest.raises(NonceUsed):
            made.executor().reconcile()
        return
    made.executor().reconcile()
    assert states(made) == [("swap", "broadcast")]
    made.chain.hides_receipts = False
    (intent,) = made.executor().reconcile()
    assert intent.state is S.FINAL


@pytest.mark.parametrize(("gas_used", "status", "ok"), [(100_000, 1, True), (100_000, 0, True), (100_001, 1, False)])
@pytest.mark.parametrize("data_fee_wei", [1, 10**18])
def test_a_data_fee_beside_the_signed_gas_is_no_reason_to_refuse_a_receipt(
    tmp_path: Path, gas_used: int, status: int, ok: bool, data_fee_wei: int
) -> None:
    """A rollup charges it beside the gas that was signed for; it is booked, not compared."""
    made = bench(tmp_path)
    killed_at(made, "after:send")
    made.chain.gas_used, made.chain.gas_price_wei, made.chain.status = gas_used, 10 * GWEI, status
    look = made.chain.status_of

    def with_data_fee(tx_hash: str) -> TransactionStatus:
        found = look(tx_hash)
        return replace(found, receipt=found.receipt and replace(found.receipt, data_fee_wei=data_fee_wei))

    made.chain.status_of = with_data_fee
    if not ok:
        with raises_code(Retryable, "answer", "signed for at most"):
            made.executor().reconcile()
        return
    (intent,) = made.executor().reconcile()
    assert intent.state is (S.FINAL if status else S.REVERTED)
    (unbooked,) = made.store.journal.unbooked_intents()
    assert unbooked.receipt is not None
    assert unbooked.receipt.gas_cost_wei == 10**15 + data_fee_wei
