"""A stuck mempool on a real node: bumped, cancelled, overtaken by the original, and a stranger on the nonce (T7, T8)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import pytest

from agent.chain.endpoints import EndpointPool
from agent.chain.providers.endpoint import EndpointProvider
from agent.chain.sender import QuorumSender
from agent.errors import OperatorNeeded, Retryable
from agent.execution import JournaledExecutor, SubmissionSettings, settlement
from agent.execution.submission.submitter import Submitter
from agent.localchain import LocalChain
from agent.model import Intent, IntentKind, IntentState
from agent.store import Store
from tests.faults.rig import Trade, quick_clock, ready
from tests.support.text import raises_code
from tests.support.wallets import GWEI, Desk

S = IntentState
PATIENT = SubmissionSettings(confirmations=1, poll_s=1, mined_timeout_s=40, final_timeout_s=40, max_fee_wei=100 * GWEI, bump_after_s=5)


@pytest.fixture
def trade(anvil_chain: LocalChain, tmp_path: Path) -> Iterator[Trade]:
    trade = ready(Desk(anvil_chain), tmp_path)
    call(trade, "evm_setAutomine", False)
    yield trade
    call(trade, "anvil_dropAllTransactions")
    call(trade, "evm_setAutomine", True)


def call(trade: Trade, method: str, *params: object) -> object:
    return EndpointProvider(trade.context.chain.url or "", "local", 30).call(method, list(params))


def executor(
    trade: Trade, store: Store, on_sleep: Callable[[], None] = lambda: None, settings: SubmissionSettings = PATIENT
) -> JournaledExecutor:
    panel = EndpointPool([EndpointProvider(trade.context.chain.url or "", "local", 30)], 1)
    sender = QuorumSender(panel, trade.context.chain.chain_id)
    return JournaledExecutor(
        Submitter(
            store.journal, store.budgets, trade.context.signer_of(store, settings), sender, quick_clock(on_sleep), settings, lambda: False
        )
    )


def run(trade: Trade, store: Store, on_sleep: Callable[[], None]) -> Intent:
    store.steps.begin("s", 0, "{}")
    return executor(trade, store, on_sleep).run("s", trade.tx, trade.grant, "swap")


def once_sent(store: Store, count: int, act: Callable[[], object]) -> Callable[[], None]:
    """Something happens once, when so many transactions are in the journal and out."""
    done: list[bool] = []

    def look() -> None:
        if not done and len(store.journal.intents()) >= count and all(intent.state is S.BROADCAST for intent in store.journal.intents()):
            done.append(True)
            act()

    return look


def states(store: Store) -> list[tuple[str, str]]:
    return [(intent.kind.value, intent.state.value) for intent in reversed(store.journal.intents())]


def mine(trade: Trade) -> None:
    call(trade, "evm_mine")


def late(trade: Trade) -> None:
    """A block after its deadline, whose miner had not heard of our transaction; then nodes have it again."""
    call(trade, "anvil_dropAllTransactions")
    call(trade, "evm_increaseTime", 200)
    call(trade, "evm_mine")
    trade.context.sender.send(trade.context.signer.sign(trade.tx, trade.grant))


def test_waiting_swap__is_sent_again_for_more_and_mined(trade: Trade) -> None:
    before = trade.context.balances()
    nonce = trade.context.sender.nonces(trade.context.wallet)[0]
    store = trade.new_store()
    ended = run(trade, store, once_sent(store, 2, lambda: mine(trade)))
    original, bump = reversed(store.journal.intents())
    assert states(store) == [("swap", "replaced"), ("swap", "final")]
    assert ended == bump
    assert trade.context.sender.status_of(str(original.tx_hash)).state == "unknown"  # the node keeps the dearer one
    assert bump.tx.max_fee_wei * 8 >= original.tx.max_fee_wei * 9
    assert trade.context.sender.nonces(trade.context.wallet) == (nonce + 1, nonce + 1)
    assert ended.receipt is not None
    for done in settlement.realised_legs(trade.plan, ended.receipt):
        assert (done.in_raw, done.out_raw) == (done.leg.amount_in_raw, done.leg.amount_out_raw)
    assert trade.context.balances() != before
    store.close()


def test_original__wins_where_its_miner_never_heard_of_the_bump(trade: Trade) -> None:
    store = trade.new_store()
    signed = trade.context.signer.sign(trade.tx, trade.grant)

    def the_first_one() -> None:
        call(trade, "anvil_dropAllTransactions")
        trade.context.sender.send(signed)
        mine(trade)

    ended = run(trade, store, once_sent(store, 2, the_first_one))
    assert (ended.state, ended.tx_hash) == (S.FINAL, signed.hash)
    assert states(store) == [("swap", "final"), ("swap", "replaced")]
    store.close()


def test_swap_past_its_deadline__is_cancelled_and_moves_nothing(trade: Trade) -> None:
    before = trade.context.balances()
    store = trade.new_store()
    acts = [once_sent(store, 1, lambda: late(trade)), once_sent(store, 2, lambda: mine(trade))]
    ended = run(trade, store, lambda: [act() for act in acts] and None)
    assert (ended.kind, ended.state) == (IntentKind.SWAP, S.CANCELLED)
    assert states(store) == [("swap", "cancelled"), ("cancel", "final")]
    assert trade.context.balances() == before
    assert [intent.kind for intent in store.journal.unbooked_intents()] == [IntentKind.CANCEL]
    store.close()


def test_swap_whose_floor_fails__is_cancelled_before_its_deadline(trade: Trade) -> None:
    """Sent again as it is, it would be a free option: mined only once the market has come back beyond its floor."""
    store = trade.new_store()
    chain = trade.context.chain

    def market_falls() -> None:
        call(trade, "anvil_dropAllTransactions")
        call(trade, "evm_setAutomine", True)
        chain.swap("v3 WETH/USDC 500", "WETH", 50 * 10**18)
        call(trade, "evm_setAutomine", False)
        trade.context.sender.send(trade.context.signer.sign(trade.tx, trade.grant))

    acts = [once_sent(store, 1, market_falls), once_sent(store, 2, lambda: mine(trade))]
    assert run(trade, store, lambda: [act() for act in acts] and None).state is S.CANCELLED
    assert "Too little received" in store.journal.intents()[0].note
    store.close()


def test_a_cancel_that_waits_is_sent_again_for_more(trade: Trade) -> None:
    store = trade.new_store()
    acts = [once_sent(store, 1, lambda: late(trade)), once_sent(store, 3, lambda: mine(trade))]
    assert run(trade, store, lambda: [act() for act in acts] and None).state is S.CANCELLED
    assert states(store) == [("swap", "cancelled"), ("cancel", "cancelled"), ("cancel", "final")]
    first, second = list(reversed(store.journal.intents()))[1:]
    assert second.tx.max_fee_wei * 8 >= first.tx.max_fee_wei * 9
    store.close()


def test_bump_forgotten_by_its_node__is_sent_again(trade: Trade) -> None:
    store = trade.new_store()
    with raises_code(Retryable, "not_mined"):
        store.steps.begin("s", 0, "{}")
        short = replace(PATIENT, mined_timeout_s=7)
        executor(trade, store, settings=short).run("s", trade.tx, trade.grant, "swap")
    assert states(store) == [("swap", "broadcast"), ("swap", "broadcast")]
    call(trade, "anvil_dropAllTransactions")
    executor(trade, store, lambda: mine(trade)).reconcile()
    assert states(store) == [("swap", "replaced"), ("swap", "final")]
    store.close()


@pytest.mark.parametrize("mined", [True, False])
def test_a_stranger_on_our_nonce_is_named_with_both_hashes(trade: Trade, mined: bool) -> None:
    store = trade.new_store()
    desk = trade.context
    with raises_code(Retryable, "not_mined"):
        store.steps.begin("s", 0, "{}")
        executor(trade, store, settings=replace(PATIENT, mined_timeout_s=1)).run("s", trade.tx, trade.grant, "swap")
    (ours,) = store.journal.intents()
    call(trade, "anvil_dropAllTransactions")
    call(trade, "evm_setAutomine", True)
    if mined:
        foreign = desk.approve(desk.at("WETH"), 1).tx_hash
    else:
        executor(trade, store).reconcile()
        call(trade, "evm_setAutomine", False)
        signed = desk.signer.sign(replace(desk.tx(desk.wallet, "0x"), gas=21_000), desk.grant(IntentKind.CANCEL))
        desk.sender.send(signed)
        foreign = signed.hash
    with pytest.raises(OperatorNeeded) as caught:
        executor(trade, store).reconcile()
    assert foreign in caught.value.message
    assert ("pending" in caught.value.message) != mined
    if mined:
        assert str(ours.tx_hash) in caught.value.message
    store.close()


def test_cancelled_swap_mined_after_a_reorg__is_seen(trade: Trade) -> None:
    before = trade.context.balances()
    store = trade.new_store()
    acts = [once_sent(store, 1, lambda: late(trade)), once_sent(store, 2, lambda: mine(trade))]
    assert run(trade, store, lambda: [act() for act in acts] and None).state is S.CANCELLED
    (cancel,) = store.journal.unbooked_intents()
    store.budgets.book_intent(cancel, Fraction(0), Fraction(1), 1, 0)
    call(trade, "anvil_reorg", 1, [])
    trade.context.sender.send(trade.context.signer.sign(trade.tx, trade.grant))  # somebody kept its bytes
    mine(trade)
    executor(trade, store).reconcile()
    assert states(store) == [("swap", "reverted"), ("cancel", "replaced")]  # its deadline is over: it costs its gas and no more
    assert [intent.kind for intent in store.journal.unbooked_intents()] == [IntentKind.SWAP]
    assert store.budgets.history(trade.context.sender.head().timestamp_s).budgets.loss_24h == 0
    assert trade.context.balances() == before
    store.close()
