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


def states(setup: Bench) -> list[tuple[str, str]]:
    return [(intent.kind.value, intent.state.value) for intent in reversed(setup.store.journal.intents())]


@pytest.mark.parametrize("at", ["after:planned", "before:signed"])
def test_unsigned_intent_is_dropped(tmp_path: Path, at: str) -> None:
    setup = bench(tmp_path)
    killed_at(setup, at)
    (intent,) = setup.executor().reconcile()
    assert intent.state is S.CANCELLED
    assert setup.chain.sent == []
    assert setup.run().state is S.FINAL
    assert len(setup.chain.sent) == 1


@pytest.mark.parametrize("at", ["after:signed", "before:broadcast", "after:broadcast", "before:send"])
def test_signed_intent_goes_out_once_with_the_same_hash(tmp_path: Path, at: str) -> None:
    setup = bench(tmp_path)
    killed_at(setup, at)
    (intent,) = setup.executor().reconcile()
    assert intent.state is S.FINAL
    assert setup.chain.sent == [setup.signer.signed[0].hash]
    assert setup.signer.signed[0] == setup.signer.signed[1]


@pytest.mark.parametrize("at", ["after:send", "before:mined", "after:mined", "before:final", "after:final"])
def test_sent_intent_is_followed_and_never_sent_again(tmp_path: Path, at: str) -> None:
    setup = bench(tmp_path)
    killed_at(setup, at)
    setup.executor().reconcile()
    (intent,) = setup.store.journal.intents()
    assert intent.state is S.FINAL
    assert len(setup.chain.sent) == 1
    assert setup.executor().reconcile() == []


def test_a_pending_transaction_is_waited_for(tmp_path: Path) -> None:
    setup = bench(tmp_path, automine=False)
    killed_at(setup, "after:send")
    setup.clock.each = setup.chain.mine
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


@pytest.mark.parametrize("paused", [True, None])
@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("at", ["after:signed", "after:broadcast"])
def test_reconcile_sends_nothing_while_paused(tmp_path: Path, paused: bool | None, late: bool, at: str) -> None:
    setup = bench(tmp_path)
    killed_at(setup, at)
    setup.paused = paused
    setup.chain.timestamp_s += 90 if late else 0
    setup.executor().reconcile()
    assert setup.chain.sent == []
    assert len(setup.store.journal.open_intents()) == 1
    setup.paused = False
    setup.executor().reconcile()
    assert setup.store.journal.open_intents() == ()


def test_pause_during_reconcile_stops_the_resend(tmp_path: Path) -> None:
    setup = lost_in_broadcast(tmp_path)
    sign = setup.signer.sign

    def pausing(unsigned, granted):
        setup.paused = True
        return sign(unsigned, granted)

    setup.signer.sign = pausing
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


def test_mined_intent_is_settled_while_paused(tmp_path: Path) -> None:
    setup = bench(tmp_path)
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


def test_adoption_waits_while_a_stranger_is_pending(tmp_path: Path) -> None:
    setup = bench(tmp_path)
    setup.chain.pool["0xforeign"] = 0
    with raises_code(Retryable, "foreign_pending"):
        setup.executor().resync_nonce()
    setup.chain.foreign[0] = FOREIGN
    with raises_code(OperatorNeeded, "foreign_pending", FOREIGN):
        setup.executor().reconcile()


def test_late_answer_of_an_endpoint_is_no_stranger(tmp_path: Path) -> None:
    setup = bench(tmp_path)
    killed_at(setup, "after:send")
    look = setup.chain.status_of
    answers = iter(["unknown", "unknown"])
    setup.chain.status_of = lambda h: replace(look(h), state="unknown", receipt=None) if next(answers, None) else look(h)
    before_s = setup.clock.now
    (intent,) = setup.executor().reconcile()
    assert intent.state is S.FINAL
    assert len(setup.chain.sent) == 1
    assert setup.clock.now - before_s >= 2 * setup.settings.poll_s, "it has time to catch up between two looks"


def test_reorged_intent_is_sent_again_by_the_next_reconcile(tmp_path: Path) -> None:
    setup = bench(tmp_path, confirmations=3)
    assert setup.run().state is S.MINED
    setup.chain.reorg(1)
    setup.executor().reconcile()
    assert states(setup) == [("swap", "broadcast")]
    setup.clock.each = lambda: setup.chain.blocks.append({})
    setup.executor().reconcile()
    assert states(setup) == [("swap", "final")]
    assert setup.chain.sent == [setup.signer.signed[0].hash] * 2


def test_first_reconcile_adopts_the_nonce_of_the_wallet(tmp_path: Path) -> None:
    setup = bench(tmp_path)
    setup.chain.base_nonce = 57
    assert setup.executor().reconcile() == []
    assert setup.store.journal.expected_nonce() == 57
    assert setup.run(57).state is S.FINAL


@pytest.mark.parametrize(("gas_used", "price_wei"), [(100_000, 10 * GWEI + 1), (100_001, 10 * GWEI), (50_000, 10**24)])
def test_receipt_above_the_signed_cost_books_nothing(tmp_path: Path, gas_used: int, price_wei: int) -> None:
    setup = bench(tmp_path)
    killed_at(setup, "after:send")
    setup.chain.gas_used, setup.chain.gas_price_wei = gas_used, price_wei
    with raises_code(Retryable, "answer", "signed for at most 1000000000000000 wei", "chain.rpc"):
        setup.executor().reconcile()
    assert states(setup) == [("swap", "broadcast")]
    assert setup.store.journal.unbooked_intents() == ()
    with raises_code(Retryable, "open_transaction"):
        setup.run(1)
    assert len(setup.chain.sent) == 1
    setup.chain.gas_used, setup.chain.gas_price_wei = 100_000, 10 * GWEI
    (ended,) = setup.executor().reconcile()
    assert ended.state is S.FINAL
    assert [intent.receipt and intent.receipt.gas_cost_wei for intent in setup.store.journal.unbooked_intents()] == [10**15]


def test_refused_receipt_lets_nothing_be_bumped_or_cancelled(tmp_path: Path) -> None:
    setup = patient(tmp_path, mined_timeout_s=60)
    setup.clock.each, setup.chain.gas_price_wei = setup.chain.mine, 10**24
    with raises_code(Retryable, "answer", "signed for at most"):
        setup.run()
    assert setup.clock.now - START_S >= 60
    assert len(setup.chain.sent) == 1
    assert states(setup) == [("swap", "broadcast")]


def test_moved_receipt_above_the_signed_cost_replaces_none(tmp_path: Path) -> None:
    setup = bench(tmp_path)
    stored_receipt = setup.run().receipt
    block = setup.chain.blocks[-1]
    setup.chain.reorg(1)
    setup.chain.blocks[-1], setup.chain.gas_price_wei = block, 10**24
    with raises_code(Retryable, "answer", "signed for at most"):
        setup.executor().reconcile()
    (intent,) = setup.store.journal.intents()
    assert (intent.state, intent.receipt) == (S.FINAL, stored_receipt)


@pytest.mark.parametrize(("depth", "error", "code"), [(64, Retryable, "lag"), (65, OperatorNeeded, "deep_reorg")])
def test_lower_nonce_is_a_lag_up_to_a_reorg_of_64_blocks(tmp_path: Path, depth: int, error: type[Exception], code: str) -> None:
    setup = bench(tmp_path)
    setup.run()
    setup.chain.blocks += [{} for _ in range(depth - 1)]
    setup.chain.reorg(depth)
    with raises_code(error, code):
        setup.run()


def test_lower_nonce_is_a_lag_while_our_block_is_there(tmp_path: Path) -> None:
    setup = bench(tmp_path)
    setup.run()
    setup.chain.blocks += [{} for _ in range(64)]
    setup.chain.nonces = lambda _owner: (0, 0)
    with raises_code(Retryable, "lag"):
        setup.run()


def test_stranger_is_noticed_once_ours_is_settled(tmp_path: Path) -> None:
    setup = bench(tmp_path)
    killed_at(setup, "after:send")
    setup.chain.base_nonce = 2
    with raises_code(OperatorNeeded, "foreign_nonce"):
        setup.executor().reconcile()


def mine_original(setup: Bench) -> None:
    """The first of our transactions is mined, though a bump followed it."""
    setup.chain.mine(setup.chain.sent[0])


def mine_newest(setup: Bench) -> None:
    setup.chain.mine(setup.chain.sent[-1])


HIDDEN = {
    "receipt and hash": {"hides_hashes": True},
    "the receipt alone": {},
    "receipt, hash and the block's body": {"hides_hashes": True, "hides_bodies": True},
}


@pytest.mark.parametrize("mines", [mine_original, mine_newest])
@pytest.mark.parametrize("hiding", HIDDEN.values(), ids=HIDDEN)
def test_hidden_receipt_is_waited_for_and_settled_once(tmp_path: Path, hiding: dict[str, bool], mines: Callable[[Bench], None]) -> None:
    setup = patient(tmp_path, mined_timeout_s=5)
    with raises_code(Retryable, "not_mined"):
        setup.run()
    sent = len(setup.chain.sent)
    assert sent > 1, "it was bumped"
    mines(setup)
    for name in ("hides_receipts", *hiding):
        setattr(setup.chain, name, True)
    for _ in range(3):
        try:
            setup.executor().reconcile()
        except Retryable as error:
            assert error.code == "lag"
        setup.chain.timestamp_s += 200  # past its deadline
        with pytest.raises(Retryable):
            setup.run(1)
    setup.paused = setup.hard = True
    with contextlib.suppress(Retryable):
        setup.executor().cancel_pending("hard pause")
    setup.paused = setup.hard = False
    assert len(setup.chain.sent) == sent, "nothing is sent at a used nonce"
    if "hides_bodies" not in hiding:
        with raises_code(Retryable, "open_transaction"):
            setup.executor().resync_nonce()
    setup.chain.hides_receipts = False
    setup.executor().reconcile()
    assert len(setup.chain.sent) == sent
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


def test_hidden_receipt_names_our_hash_and_no_other_program(tmp_path: Path) -> None:
    setup = bench(tmp_path)
    killed_at(setup, "after:send")
    setup.chain.hides_receipts = setup.chain.hides_hashes = True
    with raises_code(Retryable, "lag", "our transaction", setup.signer.signed[0].hash) as caught:
        setup.executor().reconcile()
    assert "another program" not in str(caught.value)
    setup.chain.hides_bodies = True
    with raises_code(Retryable, "lag", "nonce 0", "neither", setup.signer.signed[0].hash, "trimtab adopt"):
        setup.executor().reconcile()


@pytest.mark.parametrize("hides_bodies", [True, False])
def test_used_nonce_of_an_unsent_intent_needs_the_operator(tmp_path: Path, hides_bodies: bool) -> None:
    setup = bench(tmp_path)
    killed_at(setup, "after:signed")
    setup.chain.base_nonce, setup.chain.hides_bodies = 1, hides_bodies
    setup.chain.foreign[0] = FOREIGN
    with raises_code(OperatorNeeded, "foreign_nonce", FOREIGN) as caught:
        setup.executor().reconcile()
    assert isinstance(caught.value, PassingFault) is hides_bodies, "what no block shows may be an endpoint's mistake"


@pytest.mark.parametrize("by_another", [False, True])
def test_nonce_refused_at_a_resend_is_ours_by_default(tmp_path: Path, by_another: bool) -> None:
    """A node that lags until we resend: it answers "nonce too low", and hides our receipt."""
    setup = lost_in_broadcast(tmp_path)

    def send(signed: SignedTx) -> None:
        setup.chain.mine(*([] if by_another else [signed.hash]))
        setup.chain.hides_receipts = setup.chain.hides_hashes = True
        setup.chain.base_nonce = 1
        if by_another:
            setup.chain.foreign[0] = FOREIGN
        raise NonceUsed("nonce too low")

    setup.chain.send = send
    if by_another:
        with pytest.raises(NonceUsed):
            setup.executor().reconcile()
        return
    setup.executor().reconcile()
    assert states(setup) == [("swap", "broadcast")]
    setup.chain.hides_receipts = False
    (intent,) = setup.executor().reconcile()
    assert intent.state is S.FINAL


@pytest.mark.parametrize(("gas_used", "status", "ok"), [(100_000, 1, True), (100_000, 0, True), (100_001, 1, False)])
@pytest.mark.parametrize("data_fee_wei", [1, 10**18])
def test_data_fee_is_not_compared_with_the_signed_cost(tmp_path: Path, gas_used: int, status: int, ok: bool, data_fee_wei: int) -> None:
    """A rollup charges it beside the gas that was signed for; it is booked, not compared."""
    setup = bench(tmp_path)
    killed_at(setup, "after:send")
    setup.chain.gas_used, setup.chain.gas_price_wei, setup.chain.status = gas_used, 10 * GWEI, status
    look = setup.chain.status_of

    def with_data_fee(tx_hash: str) -> TransactionStatus:
        status = look(tx_hash)
        return replace(status, receipt=status.receipt and replace(status.receipt, data_fee_wei=data_fee_wei))

    setup.chain.status_of = with_data_fee
    if not ok:
        with raises_code(Retryable, "answer", "signed for at most"):
            setup.executor().reconcile()
        return
    (intent,) = setup.executor().reconcile()
    assert intent.state is (S.FINAL if status else S.REVERTED)
    (unbooked,) = setup.store.journal.unbooked_intents()
    assert unbooked.receipt is not None
    assert unbooked.receipt.gas_cost_wei == 10**15 + data_fee_wei
