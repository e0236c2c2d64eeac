"""SIGKILL between every two journal states and around every write and send: the trade happens exactly once, on a real chain."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import pytest

from agent.chain.providers.endpoint import EndpointProvider
from agent.errors import OperatorNeeded
from agent.execution import settlement
from agent.localchain import LocalChain
from agent.model import IntentKind, IntentState
from agent.store.files.locks import WalletLocks, wallet_lock
from tests.faults.rig import Trade, finished, in_child, killed_at, killing, ready
from tests.support.markets.step_kills import every_run
from tests.support.wallets import Desk

EVENTS = [
    f"{moment}:{act}" for act in ("planned", "signed", "broadcast", "send", "mined", "final") for moment in ("before", "after")
]  # fmt: skip
COMMITS = [f"commit {number}" for number in range(1, 8)]
"""The writes of a first run: nonce adopted, step, planned, signed, broadcast, mined, final."""
OFTEN = {"before:planned", *(f"after:{act}" for act in ("planned", "signed", "broadcast", "send", "mined", "final"))}
"""Between an act and the next one nothing is written: what comes just before the next one is slow, and so are writes of acts."""
NEVER_SIGNED = {"before:planned", "after:planned", "before:signed"}


@pytest.fixture
def trade(anvil_chain: LocalChain, tmp_path: Path) -> Iterator[Trade]:
    trade = ready(Desk(anvil_chain), tmp_path)
    yield trade
    call(trade, "anvil_dropAllTransactions")
    call(trade, "evm_setAutomine", True)


def call(trade: Trade, method: str, *params: object) -> object:
    return EndpointProvider(trade.context.chain.url or "", "local", 30).call(method, list(params))


class WalletBefore:
    """What the wallet had, so that what happened can be proven afterwards."""

    def __init__(self, trade: Trade) -> None:
        self.trade = trade
        self.balances = trade.context.balances()
        self.nonce = trade.context.sender.nonces(trade.context.wallet)[0]

    def require_exactly_one_swap(self) -> None:
        """One nonce used, by the swap, with the plan's amounts to the wei; nothing open; the journal tells the same."""
        desk = self.trade.context
        assert desk.sender.nonces(desk.wallet) == (self.nonce + 1, self.nonce + 1)
        store = self.trade.new_store()
        intents = store.journal.intents()
        assert store.journal.open_intents() == ()
        store.close()
        (swap,) = [intent for intent in intents if intent.state is IntentState.FINAL]
        assert {intent.state for intent in intents if intent.id != swap.id} <= {IntentState.CANCELLED}
        assert swap.kind is IntentKind.SWAP
        assert swap.receipt is not None
        for done in settlement.realised_legs(self.trade.plan, swap.receipt):
            assert (done.in_raw, done.out_raw) == (done.leg.amount_in_raw, done.leg.amount_out_raw)
        after = desk.balances()
        moved = {desk.at(symbol): after[symbol] - raw for symbol, raw in self.balances.items() if after[symbol] != raw}
        assert moved == {token: delta for token, delta in swap.receipt.net_transfers(desk.wallet).items() if delta}


def require_no_signed_bytes(trade: Trade) -> None:
    """Neither database nor log holds what was, or would have been, signed (T8)."""
    signed = trade.context.signer.sign(trade.tx, trade.grant).signed_bytes
    signature = signed[-64:]
    for path in trade.store_file.parent.iterdir():
        data = path.read_bytes()
        assert signature not in data
        assert signature.hex().encode() not in data.lower()


@pytest.mark.parametrize("at", every_run(EVENTS, OFTEN))
def test_process_killed_between_states__trades_exactly_once(trade: Trade, at: str) -> None:
    before = WalletBefore(trade)
    killed_at(trade, at)
    require_no_signed_bytes(trade)
    sent = before.nonce != trade.context.sender.nonces(trade.context.wallet)[0]
    assert sent == (at in ("after:send", "before:mined", "after:mined", "before:final", "after:final"))
    finished(trade)
    before.require_exactly_one_swap()
    require_no_signed_bytes(trade)
    if at not in NEVER_SIGNED:
        assert trade.context.sender.status_of(trade.context.signer.sign(trade.tx, trade.grant).hash).state == "mined"


@pytest.mark.parametrize("at", every_run(COMMITS, COMMITS[:2]))
def test_a_process_killed_before_any_commit_trades_exactly_once(trade: Trade, at: str) -> None:
    before = WalletBefore(trade)
    killed_at(trade, at)
    finished(trade)
    before.require_exactly_one_swap()


def test_the_commits_killed_at_cover_a_whole_run(trade: Trade) -> None:
    assert in_child(lambda: trade.attempt(killing(f"commit {len(COMMITS) + 1}"))) == 0


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("after:planned", "before:cancelled"),
        ("after:signed", "before:broadcast"),
        ("after:broadcast", "after:broadcast"),
        ("before:send", "after:send"),
        ("after:send", "before:final"),
    ],
)
def test_a_recovery_that_is_killed_too_trades_exactly_once(trade: Trade, first: str, second: str) -> None:
    before = WalletBefore(trade)
    killed_at(trade, first)
    killed_at(trade, second)
    finished(trade)
    before.require_exactly_one_swap()


def test_a_transaction_left_in_the_mempool_is_waited_for(trade: Trade) -> None:
    before = WalletBefore(trade)
    call(trade, "evm_setAutomine", False)
    killed_at(trade, "waiting")
    assert trade.context.sender.nonces(trade.context.wallet) == (before.nonce, before.nonce + 1)
    store = trade.new_store()
    (swap,) = trade.executor(store, lambda _name: None, on_sleep=lambda: call(trade, "evm_mine")).reconcile()
    store.close()
    assert swap.state is IntentState.FINAL
    before.require_exactly_one_swap()


def test_forgotten_transaction__is_sent_again_with_its_hash(trade: Trade) -> None:
    before = WalletBefore(trade)
    call(trade, "evm_setAutomine", False)
    killed_at(trade, "after:send")
    call(trade, "anvil_dropAllTransactions")
    call(trade, "evm_setAutomine", True)
    finished(trade)
    before.require_exactly_one_swap()
    assert trade.context.sender.status_of(trade.context.signer.sign(trade.tx, trade.grant).hash).state == "mined"


def test_pending_transaction_past_its_deadline__loses_to_a_cancel(trade: Trade) -> None:
    before = WalletBefore(trade)
    call(trade, "evm_setAutomine", False)
    killed_at(trade, "after:send")
    store = trade.new_store()

    call(trade, "anvil_setNextBlockBaseFeePerGas", hex(10**12))  # too dear for the swap, so that it stays pending
    late_by(trade, 200)
    call(trade, "anvil_setNextBlockBaseFeePerGas", hex(10**9))

    def mine_once_cancelled() -> None:
        if len(store.journal.intents()) == 2:
            call(trade, "evm_mine")

    trade.executor(store, lambda _name: None, on_sleep=mine_once_cancelled).reconcile()
    swap, cancel = reversed(store.journal.intents())
    assert (swap.state, cancel.state, cancel.kind) == (IntentState.CANCELLED, IntentState.FINAL, IntentKind.CANCEL)
    assert cancel.tx.max_fee_wei * 8 >= swap.tx.max_fee_wei * 9
    assert trade.context.balances() == before.balances
    assert trade.context.sender.nonces(trade.context.wallet)[0] == before.nonce + 1
    store.close()


def late_by(trade: Trade, seconds: int) -> None:
    call(trade, "evm_increaseTime", seconds)
    call(trade, "evm_mine")


def test_swap_mined_after_its_deadline__reverts_at_a_loss_of_gas(trade: Trade) -> None:
    before = WalletBefore(trade)
    call(trade, "evm_setAutomine", False)
    store = trade.new_store()
    store.steps.begin("s", 0, "{}")
    executor = trade.executor(store, lambda _name: None, on_sleep=lambda: late_by(trade, 200))
    intent = executor.run("s", trade.tx, trade.grant, "swap")
    assert intent.state is IntentState.REVERTED
    assert trade.context.balances() == before.balances
    prices = settlement.BookingPrices({}, Fraction(1))
    lost = settlement.book_intent(store.budgets, intent, trade.context.wallet, prices, trade.context.sender.head().timestamp_s)
    assert lost == intent.receipt.gas_cost_wei > 0
    assert store.budgets.history(trade.context.sender.head().timestamp_s).failures.reverts_in_row == 1
    store.close()


@pytest.mark.parametrize(
    ("at", "paused"),
    [
        ("after:signed", True),
        ("after:broadcast", None),
        pytest.param("after:signed", None, marks=pytest.mark.slow),
        pytest.param("after:broadcast", True, marks=pytest.mark.slow),
    ],
)
def test_a_recovery_sends_nothing_while_paused(trade: Trade, at: str, paused: bool | None) -> None:
    before = WalletBefore(trade)
    killed_at(trade, at)
    store = trade.new_store()
    trade.executor(store, lambda _name: None, paused=paused).reconcile()
    assert len(store.journal.open_intents()) == 1
    store.close()
    assert trade.context.sender.nonces(trade.context.wallet) == (before.nonce, before.nonce)
    finished(trade)
    before.require_exactly_one_swap()


def test_a_nonce_that_another_program_took_needs_the_operator(trade: Trade) -> None:
    killed_at(trade, "after:broadcast")
    desk = trade.context
    desk.approve(desk.at("WETH"), 1)
    store = trade.new_store()
    with pytest.raises(OperatorNeeded, match=trade.context.signer.sign(trade.tx, trade.grant).hash):
        trade.executor(store, lambda _name: None).reconcile()
    store.close()


def test_a_second_process_is_locked_out_while_the_first_trades(trade: Trade) -> None:
    path = trade.store_file.with_suffix(".lock")
    with wallet_lock(WalletLocks(path, trade.context.chain.chain_id, trade.context.wallet)):
        assert in_child(lambda: locked_out(trade)) == 0
    finished(trade)


def locked_out(trade: Trade) -> None:
    with pytest.raises(OperatorNeeded, match="already acts"):
        trade.attempt(lambda _name: None)
