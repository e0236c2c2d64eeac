"""Pending transactions and open allowances: what a hard pause still has to do, and which allowances are set to zero once more."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from itertools import count
from pathlib import Path

import pytest

from agent import codec
from agent.errors import PassingFault, Refused, Retryable, UnsendableTransaction
from agent.execution.approvals import (
    MAX_RESETS,
    RESET_LOOKBACK_NONCES,
    format_open_allowances,
    pending_intents,
    prepare_approval,
    revoke_approvals,
    revoke_leftovers,
)
from agent.execution.step_context import OutcomeKind, StepOutcome, StepTransactor
from agent.model import Intent, IntentKind, IntentState, StepInput
from agent.planning import proposals
from agent.ports import Approval, PreparedTransaction
from agent.store import Store, open_store
from tests.support.builders import NOW_S, OWNER
from tests.support.decisions.exits import LINK, WBTC, step_with_stops
from tests.support.refusal_worlds import World
from tests.support.stores import store_fixture
from tests.support.transactions import CHAIN_ID, grant, receipt, record_sent, tx

STEP_ID = "before"


# Pending transactions


store = store_fixture("file", fill=lambda store: store.steps.begin(STEP_ID, NOW_S, "{}"))


def sent(store: Store, nonce: int, replaces: str | None = None) -> Intent:
    intent = store.journal.add_intent(STEP_ID, tx(nonce), grant(), "swap", NOW_S, None, replaces)
    return record_sent(store.journal, intent, f"0x{len(store.journal.intents()):064x}", NOW_S)


def mined(store: Store, intent: Intent, *, is_open: bool = False) -> Intent:
    assert intent.tx_hash is not None
    block = replace(receipt(intent.tx_hash, 7, "0x07"), is_open=is_open)
    return store.journal.advance(intent.id, IntentState.MINED, NOW_S, receipt=block)


def pending_ids(store: Store) -> list[str]:
    return [intent.id for intent in pending_intents(store.journal)]


def test_pending__transaction_that_was_sent_is_pending(store: Store) -> None:
    intent = sent(store, 0)

    assert pending_ids(store) == [intent.id]


def test_pending__transaction_in_a_block_is_not(store: Store) -> None:
    mined(store, sent(store, 0))

    assert pending_ids(store) == []


def test_pending__replacement_of_a_transaction_in_a_block_is_not(store: Store) -> None:
    first = sent(store, 0)
    sent(store, 0, first.id)

    mined(store, first)

    assert pending_ids(store) == []


def test_pending__both_transactions_of_a_nonce_in_no_block_are(store: Store) -> None:
    first = sent(store, 0)

    second = sent(store, 0, first.id)

    assert pending_ids(store) == [first.id, second.id]


def test_pending__another_nonce_s_block_does_not_count(store: Store) -> None:
    mined(store, sent(store, 0))

    second = sent(store, 1)

    assert pending_ids(store) == [second.id]


def test_pending__limit_order_that_rests_is_pending(store: Store) -> None:
    order = mined(store, sent(store, 0), is_open=True)

    assert order.is_resting
    assert pending_ids(store) == [order.id]


# Allowances


class StoppableWorld(World):
    """A world whose executor may wait, and whose confirmation may be refused."""

    is_ready = True
    confirms = True

    def may_send(self) -> bool:
        return self.is_ready

    def transactor(self) -> StepTransactor:
        transactor = super().transactor()
        return transactor if self.confirms else replace(transactor, confirm=lambda _: False)


@pytest.fixture
def worlds(tmp_path: Path) -> Iterator[Callable[[], StoppableWorld]]:
    with ExitStack() as stores:
        numbers = count()

        def opened() -> StoppableWorld:
            step = step_with_stops("LINK", "WBTC")
            store = open_store(f"sqlite:///{tmp_path / f'{next(numbers)}.db'}", CHAIN_ID, OWNER, step.portfolio.wrapped_native)
            stores.callback(store.close)
            store.steps.begin(STEP_ID, NOW_S, codec.dumps(step))
            world = StoppableWorld(store, step, lambda _: False)
            world.left = [open_allowance(LINK.address, "LINK")]
            return world

        yield opened


def open_allowance(token: str, label: str, holder: str = "router") -> Approval:
    return Approval(token, "router", 0, label, holder)


def set_before(world: World, token: str = LINK.address, raw: int = 0, status: int = 1, spender: str = "router") -> None:
    """Record an approval of an earlier step, in a block."""
    granted = replace(grant(IntentKind.APPROVE), approval_terms=(token, spender, raw))
    nonce = world.store.journal.expected_nonce()
    assert nonce is not None
    intent = world.store.journal.add_intent(STEP_ID, replace(tx(nonce), to=token), granted, "", NOW_S, None)
    tx_hash = f"0x{nonce:064x}"
    block = receipt(tx_hash, 1, "0x01", status)
    record_sent(world.store.journal, intent, tx_hash, NOW_S, receipt=block)
    world.store.journal.advance(intent.id, IntentState.FINAL if status else IntentState.REVERTED, NOW_S, receipt=block)


def outcome_of(world: World, kind: OutcomeKind = OutcomeKind.HOLD, **changes: object) -> StepOutcome:
    outcome = StepOutcome(STEP_ID, kind, "holds", world.step, proposals.propose_rebalance(world.step).decision_result, None)
    return replace(outcome, **changes)  # type: ignore[arg-type]  # field names


def revoked(world: World, outcome: StepOutcome | None = None) -> list[str]:
    """Return the tokens of the approvals that the clean-up after a step sends."""
    before = {intent.id for intent in world.store.journal.intents()}
    revoke_leftovers(world.readers(), world.transactor(), world.store, outcome or outcome_of(world))
    return [intent.tx.to for intent in world.store.journal.intents() if intent.id not in before]


def test_leftovers__open_allowance_is_set_to_zero(worlds: Callable[[], StoppableWorld]) -> None:
    assert revoked(worlds()) == [LINK.address]


def test_leftovers_declined_step_without_sends_sends_none(worlds: Callable[[], StoppableWorld]) -> None:
    world = worlds()

    assert revoked(world, outcome_of(world, OutcomeKind.DECLINED)) == []


def test_leftovers__declined_step_ends_as_it_was(worlds: Callable[[], StoppableWorld]) -> None:
    world = worlds()

    declined = outcome_of(world, OutcomeKind.DECLINED)

    assert revoke_leftovers(world.readers(), world.transactor(), world.store, declined) is declined


def test_leftovers_declined_step_with_sends_is_cleaned_up(worlds: Callable[[], StoppableWorld]) -> None:
    world = worlds()

    set_before(world, WBTC.address)

    assert revoked(world, outcome_of(world, OutcomeKind.DECLINED, transactions=tuple(world.store.journal.intents()))) == [LINK.address]


def test_leftovers_wait_while_the_executor_is_not_ready(worlds: Callable[[], StoppableWorld]) -> None:
    world = worlds()

    world.is_ready = False

    assert revoked(world) == []


def test_leftovers__nothing_is_sent_without_confirmation(worlds: Callable[[], StoppableWorld]) -> None:
    world = worlds()

    world.confirms = False

    assert revoked(world) == []


def test_leftovers_confirmed_step_is_not_confirmed_again(worlds: Callable[[], StoppableWorld]) -> None:
    world = worlds()
    set_before(world, WBTC.address)

    world.confirms = False

    assert revoked(world, outcome_of(world, transactions=tuple(world.store.journal.intents()))) == [LINK.address]


def test_leftovers__transactions_of_the_step_come_first(worlds: Callable[[], StoppableWorld]) -> None:
    world = worlds()
    set_before(world, WBTC.address)
    outcome = outcome_of(world, transactions=tuple(world.store.journal.intents()))

    after = revoke_leftovers(world.readers(), world.transactor(), world.store, outcome)

    assert [intent.tx.to for intent in after.transactions] == [WBTC.address, LINK.address]


def test_leftovers_step_without_allowances_is_unchanged(worlds: Callable[[], StoppableWorld]) -> None:
    world = worlds()
    world.left = []

    outcome = outcome_of(world)

    assert revoke_leftovers(world.readers(), world.transactor(), world.store, outcome) is outcome


@pytest.mark.parametrize(("resets", "tokens"), [(MAX_RESETS - 1, [LINK.address]), (MAX_RESETS, []), (MAX_RESETS + 1, [])])
def test_misreported__allowance_is_left_after_as_many_resets(worlds: Callable[[], StoppableWorld], resets: int, tokens: list[str]) -> None:
    world = worlds()
    for _ in range(resets):
        set_before(world)

    assert revoked(world) == tokens


def test_misreported__reset_that_reverted_does_not_count(worlds: Callable[[], StoppableWorld]) -> None:
    world = worlds()
    for status in (1, 0, 1):
        set_before(world, status=status)

    assert revoked(world) == [LINK.address]


def test_misreported__resets_of_another_spender_do_not_count(worlds: Callable[[], StoppableWorld]) -> None:
    world = worlds()
    for spender in ("vault", "vault", "router"):
        set_before(world, spender=spender)

    assert revoked(world) == [LINK.address]


def test_misreported__allowance_of_one_base_unit_ends_the_row(worlds: Callable[[], StoppableWorld]) -> None:
    world = worlds()
    for raw in (0, 1, 0, 0):
        set_before(world, raw=raw)

    assert revoked(world) == [LINK.address]


def test_misreported__allowance_before_the_row_does_not_end_it(worlds: Callable[[], StoppableWorld]) -> None:
    world = worlds()
    for raw in (1, 0, 0, 0):
        set_before(world, raw=raw)

    assert revoked(world) == []


@pytest.mark.parametrize(
    ("others", "tokens"), [(RESET_LOOKBACK_NONCES - MAX_RESETS, []), (RESET_LOOKBACK_NONCES - MAX_RESETS + 1, [LINK.address])]
)
def test_misreported__resets_of_the_newest_twelve_nonces_count(
    worlds: Callable[[], StoppableWorld], others: int, tokens: list[str]
) -> None:
    world = worlds()
    for token in [LINK.address] * MAX_RESETS + [WBTC.address] * others:
        set_before(world, token)

    assert revoked(world) == tokens


def test_misreported__nonce_zero_counts(worlds: Callable[[], StoppableWorld]) -> None:
    world = worlds()
    world.store.journal.adopt_nonce(0, NOW_S)
    for _ in range(MAX_RESETS):
        set_before(world)

    assert revoked(world) == []


def zeroed(world: World, approvals: list[Approval]) -> tuple[list[str], list[str]]:
    """Return the tokens that were set to zero, and the failures."""
    intents: list[Intent] = []
    failures = revoke_approvals(world.transactor(), STEP_ID, world.step, approvals, intents)
    return [intent.tx.to for intent in intents], [failure.message for failure in failures]


BOTH = [open_allowance(LINK.address, "LINK"), open_allowance(WBTC.address, "WBTC")]


def failing(world: World, error: Exception) -> None:
    """Make the approval of LINK fail with an error."""
    approve = world.approval_transaction

    def fail(step: StepInput, approval: Approval) -> PreparedTransaction:
        if approval.token == LINK.address:
            raise error
        return approve(step, approval)

    world.approval_transaction = fail  # type: ignore[method-assign]


def test_set_to_zero__refusal_does_not_stop_the_others(worlds: Callable[[], StoppableWorld]) -> None:
    world = worlds()

    failing(world, Refused("the token says no"))

    assert zeroed(world, BOTH) == ([WBTC.address], ["LINK: the token says no"])


@pytest.mark.parametrize(
    ("error", "is_by_token"),
    [(UnsendableTransaction("it reverts"), True), (Refused("a gas limit"), False), (Retryable("no answer"), False)],
    ids=["revert", "limit", "endpoint"],
)
def test_set_to_zero__only_a_refusal_by_the_token_is_final(
    worlds: Callable[[], StoppableWorld], error: Exception, is_by_token: bool
) -> None:
    world = worlds()
    failing(world, error)

    (failure,) = revoke_approvals(world.transactor(), STEP_ID, world.step, BOTH[:1], [])

    assert failure.is_by_token is is_by_token


RESET = BOTH[0]
AMOUNT = replace(BOTH[0], raw=7)


def test_reset__amount_is_approved_if_the_token_refuses_zero(worlds: Callable[[], StoppableWorld]) -> None:
    world = worlds()
    approve = world.approval_transaction

    def refuse_zero(step: StepInput, approval: Approval) -> PreparedTransaction:
        if approval.raw == 0:
            raise UnsendableTransaction("zero is refused")
        return approve(step, approval)

    world.approval_transaction = refuse_zero  # type: ignore[method-assign]

    assert prepare_approval(world, world.step, [RESET, AMOUNT]) == approve(world.step, AMOUNT)
    for others in ([], [replace(AMOUNT, token=WBTC.address)], [replace(AMOUNT, spender="manager")]):
        with pytest.raises(UnsendableTransaction):
            prepare_approval(world, world.step, [RESET, *others])


@pytest.mark.parametrize("error", [Refused("a gas limit"), Retryable("no answer")], ids=["limit", "endpoint"])
def test_reset__other_faults_are_no_reason_to_skip_it(worlds: Callable[[], StoppableWorld], error: Exception) -> None:
    world = worlds()
    failing(world, error)

    with pytest.raises(type(error)):
        prepare_approval(world, world.step, [RESET, AMOUNT])


def test_reset__it_comes_first_if_the_token_allows_it(worlds: Callable[[], StoppableWorld]) -> None:
    world = worlds()

    assert prepare_approval(world, world.step, [RESET, AMOUNT]) == world.approval_transaction(world.step, RESET)


@pytest.mark.parametrize("error", [Retryable("no answer"), PassingFault("no answer")])
def test_set_to_zero__endpoint_that_fails_stops_the_others(worlds: Callable[[], StoppableWorld], error: Exception) -> None:
    world = worlds()

    failing(world, error)

    assert zeroed(world, BOTH) == ([], ["no answer"])


def test_set_to_zero__all_that_succeed_are_no_failures(worlds: Callable[[], StoppableWorld]) -> None:
    assert zeroed(worlds(), BOTH) == ([LINK.address, WBTC.address], [])


def test_set_to_zero_deducts_its_gas_before_the_next(worlds: Callable[[], StoppableWorld]) -> None:
    world = worlds()
    coins = []
    approve = world.approval_transaction

    def approve_noted(step: StepInput, approval: Approval) -> PreparedTransaction:
        coins.append(step.snapshot.native_wei)
        return approve(step, approval)

    world.approval_transaction = approve_noted  # type: ignore[method-assign]
    zeroed(world, BOTH)

    (cost_wei,) = {intent.receipt.gas_cost_wei for intent in world.store.journal.intents() if intent.receipt is not None}

    assert coins == [world.step.snapshot.native_wei, world.step.snapshot.native_wei - cost_wei]


def test_open_allowances__are_named_by_their_holder() -> None:
    approvals = [*BOTH, open_allowance(LINK.address, "LINK", "margin account")]

    assert format_open_allowances(approvals) == "the router can still spend LINK, WBTC and the margin account can still spend LINK"
