"""What was final and lost its block: found to 64 blocks deep, sent again or cancelled, taken out of the books; deeper asks a person."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import pytest

from agent.errors import OperatorNeeded, Retryable
from agent.execution.submission.reorgs import REORG_WATCH_BLOCKS
from agent.model import IntentState
from tests.support.movements import movements
from tests.support.text import raises_code
from tests.support.transactions import START_S, Bench, Killed, bench, receipt, states

S = IntentState


def settle_swap(setup: Bench, nonce: int = 0) -> str:
    """One swap, final and booked; its hash."""
    ended = setup.run(nonce)
    assert ended.state is S.FINAL
    setup.store.budgets.book_intent(ended, Fraction(3), Fraction(5), ended.receipt.gas_cost_wei, START_S)
    return str(ended.tx_hash)


def bury(setup: Bench, depth: int) -> None:
    """The newest transaction lies so many blocks deep, its own counted."""
    setup.chain.blocks += [{} for _ in range(depth - 1)]


def books_of(setup: Bench) -> tuple[object, ...]:
    history = setup.store.budgets.history(START_S)
    return history.budgets.loss_24h, history.budgets.turnover_24h, history.reviews.last_rebalance_s, len(movements(setup.store))


DEPTHS = [1, 2, 30, 63, REORG_WATCH_BLOCKS]


def settle_and_reorg(setup: Bench, depth: int) -> str:
    """Settle a swap, bury it so deep and let a reorg take its block; return its hash."""
    tx_hash = settle_swap(setup)
    assert books_of(setup)[:2] == (5, 3)
    bury(setup, depth)
    setup.chain.reorg(depth)
    return tx_hash


def assert_unbooked_once(setup: Bench) -> None:
    """Assert that the books have nothing of the first block, and that the nonce has ended once."""
    assert books_of(setup) == (0, 0, None, 0)
    assert [intent.state for intent in setup.store.journal.unbooked_intents()] == [S.FINAL]
    assert setup.store.journal.expected_nonce() == 1
    assert setup.run(1).state is S.FINAL


@pytest.mark.parametrize("depth", DEPTHS)
def test_reorged_swap_is_resent_and_booked_once(setup: Bench, depth: int) -> None:
    tx_hash = settle_and_reorg(setup, depth)

    setup.executor().reconcile()

    assert states(setup) == [("swap", "final")]
    assert setup.chain.sent == [tx_hash, tx_hash]
    assert books_of(setup) == (0, 0, None, 0)
    (intent,) = setup.store.journal.unbooked_intents()
    for _ in range(2):
        setup.store.budgets.book_intent(intent, Fraction(3), Fraction(5), intent.receipt.gas_cost_wei, START_S)
        assert books_of(setup)[:2] == (5, 3)
        assert setup.store.journal.unbooked_intents() == ()
    assert setup.run(1).state is S.FINAL


@pytest.mark.parametrize("depth", DEPTHS)
def test_reorged_swap_past_its_deadline_is_cancelled(setup: Bench, depth: int) -> None:
    tx_hash = settle_and_reorg(setup, depth)
    setup.chain.timestamp_s += 90

    setup.executor().reconcile()

    assert states(setup) == [("swap", "cancelled"), ("cancel", "final")]
    assert setup.chain.sent[0] == tx_hash
    assert setup.chain.sent[1] != tx_hash
    assert_unbooked_once(setup)


def test_deeper_reorg_needs_the_operator_and_moves_nothing(setup: Bench) -> None:
    swap = settle_swap(setup)
    bury(setup, REORG_WATCH_BLOCKS + 1)
    setup.chain.reorg(REORG_WATCH_BLOCKS + 1)

    with raises_code(OperatorNeeded, "deep_reorg", swap, "block 1", f"{REORG_WATCH_BLOCKS + 1} deep"):
        setup.executor().reconcile()
    assert len(setup.chain.sent) == 1
    assert states(setup) == [("swap", "final")]
    assert books_of(setup)[0] == 5
    assert setup.executor().resync_nonce() == 0
    assert setup.executor().reconcile() == []


def test_ended_intent_without_a_receipt_asks_for_a_backup(setup: Bench) -> None:
    """A damaged row: without its block no reorganisation would be noticed."""
    settle_swap(setup)
    with setup.store.db.engine.begin() as connection:
        connection.exec_driver_sql("UPDATE intents SET receipt_json = NULL")

    with raises_code(OperatorNeeded, "receipt", "no receipt"):
        setup.executor().reconcile()
    assert len(setup.chain.sent) == 1


def test_deep_reorg_stops_the_shallow_ones_too(setup: Bench) -> None:
    settle_swap(setup, 0)
    bury(setup, REORG_WATCH_BLOCKS)
    settle_swap(setup, 1)
    setup.chain.reorg(REORG_WATCH_BLOCKS + 1)

    with raises_code(OperatorNeeded, "deep_reorg", "64 blocks"):
        setup.executor().reconcile()
    assert states(setup) == [("swap", "final"), ("swap", "final")]


def test_reorged_nonces_come_back_in_their_order(setup: Bench) -> None:
    hashes = [settle_swap(setup, nonce) for nonce in range(4)]
    setup.chain.reorg(3)

    setup.executor().reconcile()

    assert states(setup) == [("swap", "final")] * 4
    assert setup.chain.sent == [*hashes, *hashes[1:]]
    assert [intent.tx.nonce for intent in setup.store.journal.unbooked_intents()] == [1, 2, 3]


def test_reorg_of_more_than_the_newest_is_followed(setup: Bench) -> None:
    executor = setup.executor()

    hashes = [settle_swap(setup, nonce) for nonce in range(20)]

    assert executor.reconcile() == []
    setup.chain.reorg(18)
    executor.reconcile()
    assert states(setup)[:20] == [("swap", "final")] * 2 + [("swap", "cancelled")] * 18, "all of them are late"
    assert setup.chain.sent[:20] == hashes


def test_swap_in_another_block_is_booked_anew_and_not_sent(setup: Bench) -> None:
    swap = settle_swap(setup)
    bury(setup, 3)
    setup.chain.reorg(3)
    setup.chain.blocks[-1] = {swap: 0}

    (moved,) = setup.executor().reconcile()

    assert (moved.state, len(setup.chain.sent)) == (S.FINAL, 1)
    assert moved.receipt.block_number == 3
    assert books_of(setup) == (0, 0, None, 0)
    assert [intent.id for intent in setup.store.journal.unbooked_intents()] == [moved.id]


def test_swap_pending_again_is_waited_for_and_not_sent(setup: Bench) -> None:
    swap = settle_swap(setup)
    setup.chain.reorg(1)
    setup.chain.pool[swap] = 0
    setup.clock.on_sleep = lambda: setup.chain.mine(swap) if setup.chain.pool else None

    (intent,) = setup.executor().reconcile()

    assert (intent.state, len(setup.chain.sent)) == (S.FINAL, 1)


def test_reorged_revert_comes_back_like_a_success(setup: Bench) -> None:
    setup.chain.status = 0

    reverted = setup.run()

    assert reverted.state is S.REVERTED
    assert setup.store.budgets.history(START_S).failures.reverts_in_row == 1
    setup.chain.reorg(1)
    setup.chain.status = 1
    (again,) = setup.executor().reconcile()
    assert again.state is S.FINAL
    assert setup.store.budgets.history(START_S).failures.reverts_in_row == 0


@pytest.mark.parametrize(
    ("winner_index", "ended"),
    [
        pytest.param(0, [("swap", "final"), ("cancel", "replaced")], id="the original wins"),
        pytest.param(1, [("swap", "cancelled"), ("cancel", "final")], id="the cancel wins"),
    ],
)
def test_cancelled_swap_reopens_once_its_cancel_is_reorged(tmp_path: Path, winner_index: int, ended: list[tuple[str, str]]) -> None:
    """A cancelled swap whose bytes somebody kept can be mined after all: it is not lost from sight."""
    setup = bench(tmp_path, automine=False)
    setup.settings = replace(setup.settings, bump_after_s=2, mined_timeout_s=20)

    def pass_deadline() -> None:
        setup.chain.timestamp_s = START_S + 90
        if len(setup.chain.sent) == 2:
            setup.chain.mine(setup.chain.sent[1])

    setup.clock.on_sleep = pass_deadline
    assert setup.run().state is S.CANCELLED
    setup.chain.reorg(1)
    setup.clock.on_sleep = lambda: None
    setup.chain.mine(setup.chain.sent[winner_index])
    setup.executor().reconcile()

    assert states(setup) == ended
    assert setup.store.journal.open_intents() == ()


@pytest.mark.parametrize("at", ["before:broadcast", "after:broadcast", "before:send", "after:send", "before:mined", "after:final"])
def test_process_killed_while_resending_resends_once(setup: Bench, at: str) -> None:
    settle_swap(setup)
    setup.chain.reorg(1)

    def die(event) -> None:
        if event.name == at:
            raise Killed

    setup.on_event = die

    with pytest.raises(Killed):
        setup.executor().reconcile()
    setup.restart()
    setup.executor().reconcile()
    assert states(setup) == [("swap", "final")]
    assert books_of(setup)[0] == 0
    assert sum(len(block) for block in setup.chain.blocks) == 1


def test_reorg_while_paused_is_recorded_and_not_resent(setup: Bench) -> None:
    settle_swap(setup)
    setup.chain.reorg(1)
    setup.paused = True

    (intent,) = setup.executor().reconcile()

    assert (intent.state, len(setup.chain.sent)) == (S.BROADCAST, 1)
    assert books_of(setup)[0] == 0


def test_endpoint_without_the_block_proves_no_reorg(setup: Bench) -> None:
    settle_swap(setup)
    setup.chain.blocks.pop()

    with raises_code(Retryable, "lag"):
        setup.executor().reconcile()
    assert states(setup) == [("swap", "final")]
    assert books_of(setup)[0] == 5


def test_unchanged_chain_costs_one_block_request(setup: Bench) -> None:
    for nonce in range(5):
        settle_swap(setup, nonce)
    heights: list[int] = []
    block_hash = setup.chain.block_hash

    def counting(number: int) -> str | None:
        heights.append(number)
        return block_hash(number)

    setup.chain.block_hash = counting
    executor = setup.executor()

    executor.reconcile()

    assert len(heights) == 5
    executor.reconcile()
    assert len(heights) == 6
    setup.chain.reorg(2)
    executor.reconcile()
    assert states(setup) == [("swap", "final")] * 5
    assert len(setup.chain.sent) == 7


def test_reorg_before_an_adoption_is_not_followed(setup: Bench) -> None:
    settle_swap(setup)
    setup.store.journal.adopt_nonce(1, START_S)
    setup.chain.reorg(1)

    setup.chain.base_nonce = 1

    assert setup.executor().reconcile() == []
    assert states(setup) == [("swap", "final")]


def test_repeated_receipt_moves_nothing(tmp_path: Path) -> None:
    """Its block's hash is not known yet, its receipt is: the endpoint lags behind itself."""
    setup = bench(tmp_path, confirmations=2)

    assert setup.run().state is S.MINED
    block_hash = setup.chain.block_hash
    answers = iter([None])
    setup.chain.block_hash = lambda number: next(answers, block_hash(number))
    setup.clock.on_sleep = lambda: setup.chain.blocks.append({})
    (intent,) = setup.executor().reconcile()
    assert intent.state is S.FINAL
    assert intent.receipt == receipt(str(intent.tx_hash), 1, setup.chain.block_hash(1) or "")


def test_bump_mined_for_the_original_takes_its_place(tmp_path: Path) -> None:
    """Otherwise both would be mined there, and the one that is not would wait for its confirmations for ever."""
    setup = bench(tmp_path, automine=False, confirmations=2)
    setup.settings = replace(setup.settings, bump_after_s=2, mined_timeout_s=3)

    with raises_code(Retryable, "not_mined"):
        setup.run()
    original, bump = setup.chain.sent
    setup.chain.mine(original)
    setup.executor().reconcile()
    assert states(setup) == [("swap", "mined"), ("swap", "broadcast")]
    setup.chain.reorg(1)
    setup.chain.mine(bump)
    setup.executor().reconcile(may_send=False)
    assert states(setup) == [("swap", "broadcast"), ("swap", "mined")]
    setup.chain.blocks.append({})
    setup.executor().reconcile()
    assert states(setup) == [("swap", "replaced"), ("swap", "final")]


def test_stale_receipt_of_a_slow_look_is_not_booked(setup: Bench) -> None:
    """Dry looks hold no lock: one may have read a receipt that the journal lost meanwhile."""
    ended = setup.run()
    (stale,) = setup.store.journal.unbooked_intents()
    setup.store.journal.advance(ended.id, S.BROADCAST, START_S)

    setup.store.budgets.book_intent(stale, Fraction(3), Fraction(5), 7, START_S)

    assert books_of(setup) == (0, 0, None, 0)
    reverted = receipt(str(ended.tx_hash), 2, "0x" + "b" * 64, status=0)
    setup.store.journal.advance(ended.id, S.MINED, START_S, receipt=reverted)
    assert [intent.receipt for intent in setup.store.journal.unbooked_intents()] == [reverted]


def test_unknown_height_is_asked_for_again(setup: Bench) -> None:
    """A node that is busy with a reorganisation may have a new head and no block at a height below it for a moment."""
    settle_swap(setup)
    bury(setup, 3)
    setup.chain.reorg(3)
    block_hash = setup.chain.block_hash
    answers = iter([None])
    setup.chain.block_hash = lambda number: next(answers, block_hash(number))
    executor = setup.executor()

    with raises_code(Retryable, "lag"):
        executor.reconcile()
    executor.reconcile()
    assert len(setup.chain.sent) == 2
    assert states(setup) == [("swap", "final")]
