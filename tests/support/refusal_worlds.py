"""A simulated world for the rounds of a step, in which transactions may be refused before sending, over a real store."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

from agent import codec, engine
from agent.errors import UnsendableTransaction
from agent.execution import approvals as approving
from agent.execution.step_context import OutcomeKind, StepOutcome, StepReaders, StepTransactor
from agent.execution.step_result import StepPorts
from agent.model import (
    AgentCycle,
    Head,
    History,
    Holding,
    Intent,
    IntentKind,
    IntentState,
    PastPrices,
    Plan,
    Snapshot,
    StepInput,
    TokenRefusal,
    Transfer,
    UnsignedTx,
    Verdict,
)
from agent.planning import proposals
from agent.planning.approval_gas import swap_spend
from agent.policy.orders.exits import apply_orders
from agent.ports import Approval, Grant, PreparedTransaction
from agent.store import Store
from tests.support.builders import NOW_S, OWNER
from tests.support.decisions.exits import USDC, sold_symbols
from tests.support.fakes.evidence import FakeEvidenceSource
from tests.support.transactions import grant, receipt, record_sent, tx

NO = UnsendableTransaction("simulated: no", (Verdict("simulation", "no", "success", False),))


class World:
    """Chain, composer and executor in one, over the real store.

    `reverts` decides by the tokens that a plan sells whether its simulation fails; sales of `fails` are mined and revert.
    """

    def __init__(self, store: Store, step: StepInput, reverts: Callable[[set[str]], bool], lacks: Sequence[str] = ()) -> None:
        self.store, self.step, self.reverts, self.lacks = store, step, reverts, {*lacks}
        self.fails: set[str] = set()
        self.sold: list[set[str]] = []
        self.asked: list[StepOutcome] = []
        self.approved: Callable[[str, int], None] = lambda token_, raw: self.lacks.discard(token_)
        self.left: list[Approval] = []
        store.journal.adopt_nonce(step.snapshot.nonce_latest, NOW_S)
        assert store.orders.replace_orders(step.history.orders.states, step.history.orders.nav_per_share, 0)

    @property
    def late(self) -> tuple[TokenRefusal, ...]:
        """The exits whose submission was refused, from the journal."""
        return self.store.budgets.history(NOW_S).failures.submission_refusals

    # --- Reader.
    def snapshot(self) -> Snapshot:
        """Return the step's snapshot after the mined transactions: a block later for each, with their changes and costs."""
        snapshot = self.step.snapshot
        mined = [intent.receipt for intent in self.store.journal.intents() if intent.receipt is not None]
        raw_by_token = {holding.token: holding.raw for holding in snapshot.holdings}
        for token_, raw in (change for tx_receipt in mined for change in tx_receipt.net_transfers(OWNER).items()):
            raw_by_token[token_] = max(0, raw_by_token[token_] + raw)
        return replace(
            snapshot,
            head=replace(snapshot.head, number=snapshot.head.number + len(mined)),
            native_wei=snapshot.native_wei - sum(tx_receipt.gas_cost_wei for tx_receipt in mined),
            nonce_latest=snapshot.nonce_latest + len(mined),
            nonce_pending=snapshot.nonce_pending + len(mined),
            holdings=tuple(Holding(token_, raw) for token_, raw in raw_by_token.items()),
        )

    def past_prices(self, head: Head, blocks: int) -> tuple[PastPrices, ...]:
        return ()

    def with_more_ticks(self, snapshot: Snapshot, pools: Collection[str]) -> Snapshot:
        return snapshot

    # --- Composer.
    def missing_approvals(self, step: StepInput, plan: Plan) -> list[Approval]:
        return [Approval(spend, "router", raw, spend, "router") for spend, raw in swap_spend(plan.legs).items() if spend in self.lacks]

    def approval_transaction(self, step: StepInput, approval: Approval) -> PreparedTransaction:
        granted = replace(grant(IntentKind.APPROVE), approval_terms=(approval.token, approval.spender, approval.raw))
        return PreparedTransaction(replace(tx(step.snapshot.nonce_latest), to=approval.token), granted, str(approval.raw))

    def joins_approvals(self, _: Plan, __: Sequence[Approval]) -> bool:
        return False

    def swap_transaction(self, step: StepInput, plan: Plan) -> PreparedTransaction:
        return PreparedTransaction(tx(step.snapshot.nonce_latest), replace(grant(), plan=plan), "swap")

    def require_unexpired(self, step: StepInput, plan: Plan) -> None:
        pass

    def allowance_resets(self, step: StepInput) -> list[Approval]:
        return self.left

    # --- Executor.
    def may_send(self) -> bool:
        return True

    def run(self, step_id: str, transaction: UnsignedTx, granted: Grant, note: str) -> Intent:
        if granted.kind is IntentKind.APPROVE:
            self.approved(transaction.to, int(note))
            return self.mined(step_id, transaction, granted, note)
        assert granted.plan is not None
        sold = sold_symbols(granted.plan) - {USDC.address}
        if self.reverts(sold):
            raise NO
        self.sold.append(sold)
        return self.mined(step_id, transaction, granted, note)

    def mined(self, step_id: str, transaction: UnsignedTx, granted: Grant, note: str) -> Intent:
        """Record a transaction as signed, sent, mined as planned and final."""
        nonce = self.store.journal.expected_nonce()
        assert nonce is not None
        intent = self.store.journal.add_intent(step_id, replace(transaction, nonce=nonce), granted, note, NOW_S, None)
        legs = () if granted.plan is None else granted.plan.legs
        status = 0 if {leg.token_in for leg in legs} & self.fails else 1
        transfers = [
            transfer
            for leg in legs
            for transfer in (
                Transfer(leg.token_in, OWNER, leg.pool, leg.amount_in_raw),
                Transfer(leg.token_out, leg.pool, OWNER, leg.amount_out_raw),
            )
        ]
        done = receipt(f"0x{nonce:064x}", self.snapshot().head.number + 1, "0x01", status)
        done = replace(done, transfers=tuple(transfers) if status else ())
        record_sent(self.store.journal, intent, f"0x{nonce:064x}", NOW_S, receipt=done)
        return self.store.journal.advance(intent.id, IntentState.FINAL if status else IntentState.REVERTED, NOW_S, receipt=done)

    def rounds(self) -> StepOutcome:
        return engine.repeat_steps(self.ports(), AgentCycle())[1]

    def ports(self) -> StepPorts:
        return StepPorts(self.readers(), self.store, self.transactor())

    def tidy(self, kind: OutcomeKind, reason: str) -> StepOutcome:
        """Run the clean-up after a step that ended in this way."""
        step_id = f"s{len(self.store.steps.newest(100))}"
        self.store.steps.begin(step_id, NOW_S, codec.dumps(self.step))
        before = StepOutcome(step_id, kind, reason, self.step, proposals.propose_rebalance(self.step).decision_result, None)
        return approving.revoke_leftovers(self.readers(), self.transactor(), self.store, before)

    def readers(self) -> StepReaders:
        def assemble(snapshot: Snapshot, history: History) -> StepInput:
            return apply_orders(replace(self.step, snapshot=snapshot, history=history))

        clock = SimpleNamespace(now_s=lambda: NOW_S)
        return StepReaders(self, assemble, self.store.budgets.history, FakeEvidenceSource(), cast(Any, clock), lambda: 0.5)

    def transactor(self) -> StepTransactor:
        def yes(outcome: StepOutcome) -> bool:
            self.asked.append(outcome)
            return True

        return StepTransactor(cast(Any, self), cast(Any, self), yes)
