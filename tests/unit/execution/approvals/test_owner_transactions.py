"""Payouts, transactions of the owner's commands, and a hard pause: what is judged, sent, recorded and booked."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from agent.errors import OperatorNeeded, PassingFault, Refused, Retryable, TrimtabError, UnsendableTransaction
from agent.execution.approvals import (
    OwnerAction,
    cancel_and_revoke,
    execute_together,
    pay,
    prepare_approval,
    revoke_allowances,
    revoke_approvals,
    revoke_leftovers,
    send_by_command,
)
from agent.execution.step_context import OutcomeKind, StepOutcome
from agent.model import Intent, IntentKind, IntentState, Payout, Snapshot, StepInput
from agent.planning import proposals
from agent.ports import Approval, Grant, PreparedTransaction
from agent.store import open_store
from tests.support.builders import NOW_S, OWNER, address, with_limits
from tests.support.decisions.exits import LINK, USDC, WBTC, step_with_stops
from tests.support.refusal_worlds import World
from tests.support.text import mentions, raises_code
from tests.support.transactions import CHAIN_ID, grant, receipt, record_sent, tx

HOME = address("home")
PAYMENT = Payout(USDC.address, HOME, 10**6, 10**6, 1)


class OwnerWorld(World):
    """A world with allowances in its snapshots, payouts, and transactions that fail on request."""

    is_ready = True
    is_left = False
    payout_error: TrimtabError | None = None
    paid_by: StepInput | None = None
    succeeds = True

    def may_send(self, *, for_revoking: bool = False) -> bool:
        return self.is_ready and for_revoking

    def cancel_pending(self, why: str) -> None:
        """Leave pending what is pending."""

    def snapshot(self) -> Snapshot:
        snapshot = super().snapshot()
        reset_tokens = set() if self.is_left else {intent.tx.to for intent in self.store.journal.intents()}
        allowances = tuple(
            replace(allowance, raw=7 if allowance.token == LINK.address and LINK.address not in reset_tokens else 0)
            for allowance in snapshot.allowances
        )
        return replace(snapshot, allowances=allowances)

    def payout_transaction(self, step: StepInput, payout: Payout) -> PreparedTransaction:
        self.paid_by = step
        if self.payout_error is not None:
            raise self.payout_error
        return PreparedTransaction(replace(tx(step.snapshot.nonce_latest), to=payout.to), grant(IntentKind.APPROVE), "0")

    def run(self, step_id: str, unsigned: Any, granted: Grant, note: str) -> Intent:
        intent = super().run(step_id, unsigned, granted, note)
        return intent if self.succeeds else replace(intent, state=IntentState.REVERTED)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[OwnerWorld]:
    step = with_limits(step_with_stops("LINK", "WBTC"), payout_per_day=Fraction(10**9))
    store = open_store(f"sqlite:///{tmp_path}/trimtab.db", CHAIN_ID, OWNER, step.portfolio.wrapped_native)
    yield OwnerWorld(store, step, lambda _: False)
    store.close()


def pending(world: OwnerWorld, kind: IntentKind = IntentKind.SWAP, *, is_resting: bool = False) -> Intent:
    """Record a transaction that was sent; one that rests at its venue is in a block."""
    world.store.steps.begin("before", NOW_S, "{}")
    nonce = world.store.journal.expected_nonce() or 0
    intent = world.store.journal.add_intent("before", tx(nonce), grant(kind), "an old swap", NOW_S, None)
    intent = record_sent(world.store.journal, intent, f"0x{99:064x}", NOW_S)
    if not is_resting:
        return intent
    block = replace(receipt(f"0x{99:064x}", 7, "0x07"), is_open=True)
    return world.store.journal.advance(intent.id, IntentState.MINED, NOW_S, receipt=block)


def last_step(world: OwnerWorld) -> tuple[str | None, str | None]:
    """Return decision and outcome of the newest step."""
    newest = world.store.steps.newest(1)[0]
    return newest.decision, newest.outcome


# Payouts


def test_a_payout_to_an_unconfirmed_address_is_refused(world: OwnerWorld) -> None:
    with raises_code(Refused, "payout_address"):
        pay(world.readers(), world.store, world.transactor(), PAYMENT, (OWNER,))
    assert world.store.journal.intents() == ()
    assert last_step(world) == ("payout", "refused")


@pytest.mark.parametrize(("error", "outcome"), [(Refused("no"), "refused"), (Retryable("no answer"), "error")])
def test_a_payout_that_is_not_sent_is_recorded_with_its_kind(world: OwnerWorld, error: TrimtabError, outcome: str) -> None:
    world.payout_error = error

    with pytest.raises(type(error)):
        pay(world.readers(), world.store, world.transactor(), PAYMENT, (HOME,))
    assert last_step(world) == ("payout", outcome)


@pytest.mark.parametrize(("succeeds", "outcome"), [(True, "done"), (False, "failed")])
def test_a_payout_is_booked_before_it_returns(world: OwnerWorld, succeeds: bool, outcome: str) -> None:
    world.succeeds = succeeds

    pay(world.readers(), world.store, world.transactor(), PAYMENT, (HOME,))

    assert world.store.journal.unbooked_intents() == ()
    assert last_step(world) == ("payout", outcome)


@pytest.mark.parametrize(
    "error", [Retryable("no answer"), PassingFault("HTTP 403"), KeyboardInterrupt()], ids=["no answer", "403", "ctrl-c"]
)
def test_a_payout_that_cannot_be_read_back_is_recorded(world: OwnerWorld, error: BaseException) -> None:
    snapshot = world.snapshot

    def fail_after_the_payout() -> Snapshot:
        if any(intent.state is IntentState.FINAL for intent in world.store.journal.intents()):
            raise error
        return snapshot()

    world.snapshot = fail_after_the_payout  # type: ignore[method-assign]

    with pytest.raises(type(error)):
        pay(world.readers(), world.store, world.transactor(), PAYMENT, (HOME,))
    assert last_step(world) == ("payout", "done")


def test_a_payout_may_take_what_is_excluded_from_the_portfolio(world: OwnerWorld) -> None:
    world.step = replace(world.step, exclusions=replace(world.step.exclusions, reason="a gift", raw_by_token=((USDC.address, 5),)))

    pay(world.readers(), world.store, world.transactor(), PAYMENT, (HOME,))

    assert world.paid_by.exclusions.reason == ""


# Commands


@pytest.mark.parametrize(
    ("is_confirmed", "succeeds", "outcome"),
    [(True, True, "done"), (True, False, "failed"), (False, True, "declined")],
    ids=["confirmed", "confirmed and reverted", "declined"],
)
def test_a_command_sends_only_what_is_confirmed(world: OwnerWorld, is_confirmed: bool, succeeds: bool, outcome: str) -> None:
    world.succeeds = succeeds
    action = OwnerAction("deploy", lambda step: world.payout_transaction(step, PAYMENT), "deployed")

    named, intents = send_by_command(world.readers(), world.store, world.transactor(), world.step, action, lambda _: is_confirmed)

    assert (named, len(intents)) == (outcome, int(is_confirmed))
    assert len(world.store.journal.intents()) == int(is_confirmed)
    assert world.store.journal.unbooked_intents() == ()
    assert last_step(world) == ("deploy", outcome)


# Approvals


def test_a_refused_amount_is_not_replaced_by_another(world: OwnerWorld) -> None:
    approvals = [Approval(LINK.address, "router", raw, "LINK", "router") for raw in (7, 8)]

    def refuse(step: StepInput, approval: Approval) -> PreparedTransaction:
        if approval.raw == 7:
            raise UnsendableTransaction("seven is refused")
        return World.approval_transaction(world, step, approval)

    world.approval_transaction = refuse  # type: ignore[method-assign]

    with pytest.raises(UnsendableTransaction, match="seven is refused"):
        prepare_approval(world, world.step, approvals)


def test_a_transaction_without_companions_runs_alone(world: OwnerWorld) -> None:
    alone = world.payout_transaction(world.step, PAYMENT)
    world.run_together = lambda _step_id, orders: orders  # type: ignore[attr-defined]
    world.store.steps.begin("alone", NOW_S, "{}")

    [intent] = execute_together(world.transactor(), "alone", alone)

    assert (type(intent), intent.tx.to) == (Intent, HOME)
    paired = replace(alone, companions=(alone,))
    assert execute_together(world.transactor(), "alone", paired) == (paired, alone)  # type: ignore[comparison-overlap]


def test_an_approval_that_reverts_is_a_failure_with_its_token(world: OwnerWorld) -> None:
    world.succeeds = False
    world.store.steps.begin("revoking", NOW_S, "{}")
    approvals = [Approval(token.address, "router", 0, token.label, "router") for token in (LINK, WBTC)]
    intents: list[Intent] = []

    failures = revoke_approvals(world.transactor(), "revoking", world.step, approvals, intents)

    assert [failure.message for failure in failures] == ['LINK: "0" did not succeed', 'WBTC: "0" did not succeed']
    assert len(intents) == 2


def leftovers(world: OwnerWorld, **changes: Any) -> tuple[StepOutcome, list[StepInput]]:
    """Return the outcome of the clean-up after a step that sent a transaction, and the steps that it looked at."""
    intent = world.mined("before", tx(0), grant(IntentKind.APPROVE), "0")
    looks: list[StepInput] = []
    resets = world.allowance_resets
    world.allowance_resets = lambda step: looks.append(step) or resets(step)  # type: ignore[method-assign, func-returns-value]
    world.may_send = lambda **_: True  # type: ignore[method-assign]
    decision = proposals.propose_rebalance(world.step).decision_result
    outcome = StepOutcome("before", OutcomeKind.DONE, "traded", world.step, decision, None, transactions=(intent,))
    return revoke_leftovers(world.readers(), world.transactor(), world.store, replace(outcome, **changes)), looks


def test_leftovers_are_looked_for_in_the_newest_step(world: OwnerWorld) -> None:
    world.store.steps.begin("before", NOW_S, "{}")

    _, [read_again] = leftovers(world)

    assert read_again.snapshot.nonce_latest == world.step.snapshot.nonce_latest + 1


def test_leftovers_are_looked_for_in_the_step_after_the_trades(world: OwnerWorld) -> None:
    world.store.steps.begin("before", NOW_S, "{}")
    after = replace(world.step, snapshot=replace(world.step.snapshot, native_wei=1))

    _, [look] = leftovers(world, input_after=after)

    assert look is after


@pytest.mark.parametrize("error", [Retryable("no answer"), Refused("no")])
def test_leftovers_that_cannot_be_read_are_named(world: OwnerWorld, error: TrimtabError) -> None:
    world.store.steps.begin("before", NOW_S, "{}")

    def fail(_step: StepInput) -> list[Approval]:
        raise error

    world.allowance_resets = fail  # type: ignore[method-assign]

    outcome, _ = leftovers(world)

    assert outcome.reason == f"traded; open allowances remain: {error.message}"


# Hard pause


def paused(world: OwnerWorld) -> StepOutcome:
    return cancel_and_revoke(world.readers(), world.store, world.transactor(), "why")


def test_a_hard_pause_sets_allowances_to_zero(world: OwnerWorld) -> None:
    outcome = paused(world)

    assert (outcome.kind, outcome.reason) == (OutcomeKind.DONE, "hard pause (why): 1 of 1 allowances set to zero")
    assert last_step(world) == ("retreat", "done")
    again = paused(world)
    assert (again.kind, again.transactions) == (OutcomeKind.HALT, ())


def test_a_hard_pause_fails_while_an_allowance_is_left(world: OwnerWorld) -> None:
    world.is_left = True

    outcome = paused(world)

    assert outcome.kind is OutcomeKind.FAILED
    assert mentions(outcome.reason, "1 of 1 allowances set to zero", "the router can still spend LINK")


def test_a_hard_pause_fails_while_a_transaction_is_pending(world: OwnerWorld) -> None:
    pending(world)
    world.step = replace(world.step, snapshot=replace(world.step.snapshot, allowances=()))

    outcome = paused(world)

    assert outcome.kind is OutcomeKind.FAILED
    assert mentions(outcome.reason, "0 of 1 pending transactions cancelled", '"an old swap" is still pending')


@pytest.mark.parametrize(
    ("kind", "status", "count"),
    [(IntentKind.CANCEL, 1, 1), (IntentKind.SWAP, 1, 0), (IntentKind.SWAP, 0, 0), (None, 1, 0), (None, 0, 0)],
    ids=["cancel", "replacement", "replacement that reverts", "itself", "itself, reverting"],
)
def test_a_hard_pause_counts_what_was_cancelled(world: OwnerWorld, kind: IntentKind | None, status: int, count: int) -> None:
    """Another transaction at its nonce, of this kind, or itself is in a block."""
    old_swap = pending(world)
    world.step = replace(world.step, snapshot=replace(world.step.snapshot, allowances=()))

    def end(_why: str) -> None:
        journal = world.store.journal
        winner = old_swap
        if kind is not None:
            winner = journal.add_intent("before", old_swap.tx, grant(kind), "an old swap", NOW_S, None, old_swap.id)
            winner = record_sent(journal, winner, f"0x{100:064x}", NOW_S)
        assert winner.tx_hash is not None
        block = receipt(winner.tx_hash, 7, "0x07", status)
        journal.advance(winner.id, IntentState.MINED, NOW_S, receipt=block)
        journal.advance(winner.id, IntentState.FINAL if status else IntentState.REVERTED, NOW_S, receipt=block)
        if kind is not None:
            journal.advance(old_swap.id, IntentState.CANCELLED if kind is IntentKind.CANCEL else IntentState.REPLACED, NOW_S)

    world.cancel_pending = end  # type: ignore[method-assign]

    reason = paused(world).reason
    assert f"{count} of 1 pending transactions cancelled" in reason
    assert ("was mined before it could be cancelled" in reason) is (count == 0)


LAG = PassingFault("nonce 8 has a pending transaction that is not in this store")


@pytest.mark.parametrize("error", [LAG, Retryable("no answer"), Refused("no")])
def test_a_hard_pause_names_what_it_revoked_before_an_error(world: OwnerWorld, error: TrimtabError) -> None:
    """An endpoint that lags shows the first revocation as a transaction that is pending."""
    tokens = (LINK, WBTC)
    run = world.run
    world.store.steps.begin("before", NOW_S, "{}")

    def fail_second(*args: Any) -> Intent:
        if world.store.journal.intents():
            raise error
        return run(*args)

    world.run = fail_second  # type: ignore[method-assign]
    approvals = [Approval(token.address, "router", 0, token.symbol, "router") for token in tokens]
    intents, [failure] = revoke_allowances(world.transactor(), "before", world.step, approvals)
    assert ([intent.tx.to for intent in intents], error.message in failure.message) == ([LINK.address], True)


@pytest.mark.parametrize("error", [LAG, OperatorNeeded("foreign nonce"), Retryable("no answer"), Refused("no")])
def test_a_hard_pause_that_fails_ends_its_step(world: OwnerWorld, error: TrimtabError) -> None:
    def fail(**_: bool) -> bool:
        raise error

    world.may_send = fail  # type: ignore[method-assign]
    with pytest.raises(type(error)):
        paused(world)
    assert last_step(world) == ("retreat", "refused" if isinstance(error, Refused) else "error")


def test_a_hard_pause_that_cancels_is_done(world: OwnerWorld) -> None:
    intent = pending(world)
    world.step = replace(world.step, snapshot=replace(world.step.snapshot, allowances=()))

    def cancel(_why: str) -> None:
        journal = world.store.journal
        replacement = journal.add_intent("before", intent.tx, grant(IntentKind.CANCEL), "", NOW_S, None, intent.id)
        tx_hash = f"0x{100:064x}"
        record_sent(journal, replacement, tx_hash, NOW_S, receipt=receipt(tx_hash, 7, "0x07"))

    world.cancel_pending = cancel  # type: ignore[method-assign]

    outcome = paused(world)

    assert (outcome.kind, outcome.reason) == (OutcomeKind.DONE, "hard pause (why): 1 of 1 pending transactions cancelled")


def test_a_resting_order_that_a_hard_pause_ends_is_cancelled(world: OwnerWorld) -> None:
    intent = pending(world, is_resting=True)
    world.step = replace(world.step, snapshot=replace(world.step.snapshot, allowances=()))

    def cancel(_why: str) -> None:
        block = receipt(f"0x{99:064x}", 7, "0x07")
        world.store.journal.advance(intent.id, IntentState.FINAL, NOW_S, receipt=block)

    world.cancel_pending = cancel  # type: ignore[method-assign]

    assert paused(world).reason == "hard pause (why): 1 of 1 pending transactions cancelled"


def test_nothing_is_revoked_beside_a_pending_transaction(world: OwnerWorld) -> None:
    world.is_ready = False
    approvals = [Approval(LINK.address, "router", 0, "LINK", "router")]

    intents, [failure] = revoke_allowances(world.transactor(), "step", world.step, approvals)

    assert (intents, failure.message) == ([], "allowances are revoked once nothing is pending")
    assert revoke_allowances(world.transactor(), "step", world.step, []) == ([], [])
