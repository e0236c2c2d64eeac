"""A real executor in a process of its own, which dies by SIGKILL where a test says, on a real chain with a real swap."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from sqlalchemy import Connection
from sqlalchemy import event as database_event

from agent.chain.providers.endpoint import EndpointProvider
from agent.chain.sender import NodeSender
from agent.execution import JournaledExecutor, SubmissionEvent, SubmissionSettings
from agent.execution.submission.submitter import Submitter
from agent.model import Intent, IntentKind, Plan, UnsignedTx
from agent.ports import Grant
from agent.store import Store, open_store
from agent.store.database.connection import WRITE_FLAG
from agent.store.files.locks import WalletLocks, wallet_lock
from tests.support.fakes.clock import FakeClock
from tests.support.wallets import Desk, three_way_plan

Hook = Callable[[str], None]
FORK = multiprocessing.get_context("fork")
"""Children start from this process as it is, so that imports are paid once."""


def quick_clock(on_sleep: Callable[[], object] = lambda: None) -> FakeClock:
    """Return the real time whose sleeps are short: anvil answers at once."""
    return FakeClock(0, source=time.time, wait=lambda _: time.sleep(0.01), on_sleep=on_sleep)


@dataclass
class Trade:
    """One swap of three legs over V3, V2 and a hub, approved and ready to be sent again and again by new processes."""

    context: Desk
    store_file: Path
    plan: Plan
    tx: UnsignedTx
    grant: Grant

    def new_store(self) -> Store:
        return open_store(f"sqlite:///{self.store_file}", self.context.chain.chain_id, self.context.wallet)

    def executor(
        self, store: Store, hook: Hook, paused: bool | None = False, on_sleep: Callable[[], None] = lambda: None
    ) -> JournaledExecutor:
        """The real executor with connections of its own; `hook` hears every event."""
        sender = NodeSender(EndpointProvider(self.context.chain.url or "", "local", 30))
        settings = SubmissionSettings(confirmations=1, poll_s=1, mined_timeout_s=40, final_timeout_s=40, max_fee_wei=None)

        def tell(event: SubmissionEvent) -> None:
            hook(event.name)

        signer = self.context.signer_of(store, settings)
        return JournaledExecutor(
            Submitter(store.journal, store.budgets, signer, sender, quick_clock(on_sleep), settings, lambda: paused, tell)
        )

    def fresh(self) -> Trade:
        """The same trade with the nonce and deadline of now, as the next step would make it."""
        return prepared(self.context, self.store_file, self.plan)

    def attempt(self, hook: Hook) -> Intent:
        """What one process does: lock, open, reconcile, and send the trade if the journal does not hold it already.

        `hook` hears every event, and "commit N" when the N-th write is about to be committed.
        """
        with wallet_lock(WalletLocks(self.store_file.with_suffix(".lock"), self.context.chain.chain_id, self.context.wallet)):
            store = self.new_store()
            counted = 0

            def before_commit(connection: Connection) -> None:
                nonlocal counted
                if WRITE_FLAG in connection.info:
                    counted += 1
                    hook(f"commit {counted}")

            database_event.listen(store.db.engine, "commit", before_commit)
            executor = self.executor(store, hook)
            executor.reconcile()
            done = [intent for intent in store.journal.intents() if intent.kind is IntentKind.SWAP and intent.receipt is not None]
            if not done:
                trade = self.fresh() if store.journal.intents() else self
                step_id = f"step{len(store.steps.newest(99))}"
                store.steps.begin(step_id, 0, "{}")
                done = [executor.run(step_id, trade.tx, trade.grant, "swap")]
            store.close()
            return done[0]


def prepared(desk: Desk, store_file: Path, plan: Plan) -> Trade:
    """Transaction and grant of a plan at the chain's next nonce; approvals must be there."""
    tx = desk.swap_tx(plan)
    gas = NodeSender(EndpointProvider(desk.chain.url or "", "local", 30)).simulate(tx, desk.wallet).gas
    floors = tuple(leg.min_out_raw for leg in plan.legs)
    return Trade(desk, store_file, plan, with_gas(tx, gas), desk.grant(IntentKind.SWAP, plan=plan, floors_raw=floors))


def with_gas(tx: UnsignedTx, gas: int) -> UnsignedTx:
    """The transaction with some more gas than it needs."""
    assert gas > 0
    return replace(tx, gas=gas * 5 // 4)


def ready(desk: Desk, folder: Path) -> Trade:
    """A trade whose approvals are mined."""
    plan = three_way_plan(desk)
    desk.approve_for(plan)
    return prepared(desk, folder / "trimtab.db", plan)


def killing(at: str) -> Hook:
    """A hook that ends its process for good when it hears `at`."""

    def hook(name: str) -> None:
        if name == at:
            os.kill(os.getpid(), signal.SIGKILL)

    return hook


def in_child(work: Callable[[], object], timeout_s: float = 60) -> int:
    """Exit code of a forked process that did `work`; the negative signal number when it was killed."""
    child = FORK.Process(target=work)
    child.start()
    child.join(timeout_s)
    if child.is_alive():
        child.kill()
        child.join()
        raise AssertionError(f"the child still ran after {timeout_s} s")
    assert child.exitcode is not None
    return child.exitcode


def killed_at(trade: Trade, at: str) -> None:
    """One process tries the trade and dies at `at`."""
    code = in_child(lambda: trade.attempt(killing(at)))
    assert code == -signal.SIGKILL, f"the process ended with {code} and never reached {at!r}"


def finished(trade: Trade) -> None:
    """The next process resolves what was left and completes the trade."""
    assert in_child(lambda: trade.attempt(lambda _name: None)) == 0
