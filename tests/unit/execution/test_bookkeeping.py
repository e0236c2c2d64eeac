"""Tests of agent/execution/bookkeeping.py: entries derived from journal and receipts, valuations of the newest step, hourly prices."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from fractions import Fraction
from types import SimpleNamespace
from typing import Any, cast

import pytest

from agent import codec
from agent.accounting.entries import FEES
from agent.accounting.entries import WALLET as WALLET_ACCOUNT
from agent.errors import PassingFault, Refused, Retryable
from agent.execution.bookkeeping import (
    AuditedEntry,
    derive_entry,
    later_valuation,
    pending_entries,
    record_allocation,
    record_hourly_prices,
    valuation_of_step,
)
from agent.execution.step_context import StepReaders
from agent.model import (
    Allocation,
    AllocationMethod,
    Entry,
    EntryKind,
    Goal,
    Intent,
    IntentKind,
    IntentState,
    Leg,
    PastPrices,
    Plan,
    Posting,
    Rebalance,
    StepInput,
    Transfer,
    Valuation,
)
from agent.store import Store
from agent.units import NATIVE
from tests.support.builders import OWNER, step_input, token
from tests.support.records.transfers import transfer
from tests.support.signing import leg, plan_of
from tests.support.stores import store_fixture
from tests.support.transactions import OTHER, grant, receipt, record_sent, tx

WETH = token("WETH").address
USDC = token("USDC").address
COUNTED = frozenset({WETH, USDC, NATIVE})
STEP = step_input()
GAS_WEI = receipt("0xaa", 7, "0x07").gas_cost_wei


def step_later(blocks: int, seconds: int) -> StepInput:
    head = STEP.snapshot.head
    later = replace(head, number=head.number + blocks, timestamp_s=head.timestamp_s + seconds)
    return replace(STEP, snapshot=replace(STEP.snapshot, head=later))


def record_first_look(store: Store) -> None:
    store.steps.begin("s", 1, codec.dumps(STEP))
    store.balances.record(STEP.snapshot, dict.fromkeys(COUNTED, 10**18), (), 0)
    store.ledger.open_places(STEP.snapshot, {("", counted): (10**18, Fraction(1)) for counted in COUNTED})


store = store_fixture("memory", wallet=OWNER, wrapped_native=WETH, fill=record_first_look)


def entry(
    store: Store,
    plan: Plan | None = None,
    *transfers: Transfer,
    kind: IntentKind = IntentKind.SWAP,
    status: int = 1,
    value_wei: int = 0,
    ledger_tokens: frozenset[str] = COUNTED,
    current_step: StepInput = STEP,
    block_time_s: int = 0,
) -> Entry:
    """Return the entry of a transaction with these events."""
    unsigned = replace(tx(0), value_wei=value_wei, to=OTHER)
    intent = store.journal.add_intent("s", unsigned, replace(grant(kind), plan=plan), "swap", 1, None)
    block = replace(receipt("0xaa", 7, "0x07", status), transfers=transfers, block_time_s=block_time_s)
    mined = record_sent(store.journal, intent, "0xaa", 1, receipt=block)
    return derive_entry(store, mined, current_step, ledger_tokens, store.ledger.principal)


def amounts(derived: Entry, account: str) -> dict[str, int]:
    return {posting.token: posting.raw for posting in derived.postings if posting.account == account and posting.raw}


def paid(swap: Leg, raw: int) -> tuple[Transfer, Transfer]:
    """The events of a leg into which this much went."""
    return Transfer(swap.token_in, OWNER, swap.pool, raw), Transfer(swap.token_out, swap.pool, OWNER, swap.amount_out_raw)


@pytest.mark.parametrize(("amount", "fee"), [(1_000_000, 3_000), (1_000_001, 3_001), (333, 1), (334, 2), (1, 1)])
def test_fee__part_of_a_base_unit_is_rounded_up(store: Store, amount: int, fee: int) -> None:
    swap = leg(WETH, USDC, amount, 100)

    assert amounts(entry(store, plan_of(swap), *paid(swap, amount)), FEES) == {WETH: fee}


def test_fee__is_that_of_the_amount_in_the_receipt(store: Store) -> None:
    swap = leg(WETH, USDC, 1_000_000, 100)

    assert amounts(entry(store, plan_of(swap), *paid(swap, 2_000_000)), FEES) == {WETH: 6_000}


def test_fee__without_the_pool_s_events_is_that_of_the_plan(store: Store) -> None:
    assert amounts(entry(store, plan_of(leg(WETH, USDC, 1_000_000, 100))), FEES) == {WETH: 3_000}


def test_fee_of_legs_of_one_token_is_rounded_leg_by_leg(store: Store) -> None:
    legs = [leg(WETH, USDC, 333, 100, pool=pool) for pool in ("0xone", "0xtwo")]

    assert amounts(entry(store, plan_of(*legs)), FEES) == {WETH: 2}


def test_fee__each_token_has_its_own(store: Store) -> None:
    legs = (leg(WETH, USDC, 1_000_000, 100), leg(USDC, WETH, 1_000_000, 100, fee_pips=500))

    assert amounts(entry(store, plan_of(*legs)), FEES) == {WETH: 3_000, USDC: 500}


@pytest.mark.parametrize("changes", [{"status": 0}, {"ledger_tokens": frozenset()}], ids=["reverted", "before the ledger"])
def test_fee__there_is_none(store: Store, changes: dict[str, object]) -> None:
    derived = entry(store, plan_of(leg(WETH, USDC, 1_000_000, 100)), **changes)  # type: ignore[arg-type]  # keywords of entry

    assert amounts(derived, FEES) == {}


def test_fee__transaction_without_a_plan_has_none(store: Store) -> None:
    assert amounts(entry(store), FEES) == {}


def test_wallet__swap_changes_both_tokens_and_pays_its_gas(store: Store) -> None:
    swap = leg(WETH, USDC, 1_000_000, 100)

    derived = entry(store, plan_of(swap), *paid(swap, 1_000_000))

    assert amounts(derived, WALLET_ACCOUNT) == {WETH: -1_000_000, USDC: 100, NATIVE: -GAS_WEI}


@pytest.mark.parametrize(("status", "sent_wei"), [(1, 5), (0, 0)])
def test_wallet_loses_the_coin_it_sent_unless_reverted(store: Store, status: int, sent_wei: int) -> None:
    derived = entry(store, value_wei=5, status=status)

    assert amounts(derived, WALLET_ACCOUNT) == {NATIVE: -GAS_WEI - sent_wei}


def test_wallet__events_of_a_reverted_transaction_do_not_count(store: Store) -> None:
    derived = entry(store, None, Transfer(USDC, OTHER, OWNER, 5), status=0)

    assert (derived.kind, amounts(derived, WALLET_ACCOUNT)) == (EntryKind.GAS, {NATIVE: -GAS_WEI})


@pytest.mark.parametrize("kind", [IntentKind.SWAP, IntentKind.PAYOUT, IntentKind.APPROVE, IntentKind.UNWRAP])
@pytest.mark.parametrize(("status", "waited_s"), [(1, 3 * 86_400), (1, 12), (0, 1_200)], ids=["after days", "next block", "reverted"])
def test_entry_has_block_and_hash_and_time_of_its_block(store: Store, kind: IntentKind, status: int, waited_s: int) -> None:
    block_time_s = STEP.snapshot.head.timestamp_s + waited_s
    events = (Transfer(USDC, OWNER, OTHER, 5),)
    derived = entry(store, None, *events, kind=kind, status=status, current_step=step_later(5, 60), block_time_s=block_time_s)

    assert (derived.block, derived.tx_hash, derived.chain_s) == (7, "0xaa", block_time_s)


def test_entry_of_a_receipt_without_time_has_that_of_its_step(store: Store) -> None:
    assert entry(store, current_step=step_later(blocks=5, seconds=60)).chain_s == STEP.snapshot.head.timestamp_s


def test_entry__unreadable_step_is_replaced_by_the_current_one(store: Store) -> None:
    current_step = step_later(blocks=5, seconds=60)
    store.steps.begin("s", 1, "{}")

    assert entry(store, current_step=current_step).chain_s == current_step.snapshot.head.timestamp_s


def plan_by_hand(by_hand: bool) -> Plan:
    return replace(plan_of(leg(WETH, USDC, 1_000, 100)), decision=Rebalance("swap", Goal(()), by_hand=by_hand))


@pytest.mark.parametrize("by_hand", [True, False])
def test_entry__trade_by_hand_is_marked(store: Store, by_hand: bool) -> None:
    assert entry(store, plan_by_hand(by_hand)).by_hand is by_hand


@pytest.mark.parametrize("by_hand", [True, False])
def test_entry_without_a_plan_is_by_hand_if_its_step_is(store: Store, by_hand: bool) -> None:
    """An approval has no plan of its own; its step has."""
    store.steps.end("s", "rebalance", "", plan_by_hand(by_hand), "done")

    assert entry(store, kind=IntentKind.APPROVE).by_hand is by_hand


@pytest.mark.parametrize(
    ("recorded_raw", "differs"), [(None, False), (5, False), (6, True)], ids=["no recorded entry", "the same", "one unit more"]
)
def test_audited_entry_differs_from_a_recorded_one_alone(store: Store, recorded_raw: int | None, differs: bool) -> None:
    derived = replace(entry(store), postings=(Posting("wallet", USDC, 5, Fraction(5)),))
    recorded = None if recorded_raw is None else replace(derived, postings=(Posting("wallet", USDC, recorded_raw, Fraction(5)),))
    (intent,) = store.journal.intents()

    assert AuditedEntry(intent, recorded, derived).differs is differs


@pytest.mark.parametrize(("kind", "entry_kind"), [(IntentKind.UNWRAP, EntryKind.WRAP), (IntentKind.SWAP, EntryKind.TRADE)])
def test_entry__unwrapping_is_no_trade(store: Store, kind: IntentKind, entry_kind: EntryKind) -> None:
    assert entry(store, None, Transfer(WETH, OWNER, OTHER, 5), kind=kind).kind is entry_kind


def test_entry__payout_is_a_withdrawal(store: Store) -> None:
    assert entry(store, None, Transfer(USDC, OWNER, OTHER, 5), kind=IntentKind.PAYOUT).kind is EntryKind.PAYOUT


# --- Entries of transactions that are not final

PLAN = plan_of(leg(WETH, USDC, 1_000_000, 100))


def sent(store: Store, nonce: int = 0, replaces: Intent | None = None, plan: Plan | None = PLAN) -> Intent:
    granted = replace(grant(), plan=plan)
    intent = store.journal.add_intent("s", tx(nonce), granted, "swap", 1, None, None if replaces is None else replaces.id)
    return record_sent(store.journal, intent, f"0x{len(store.journal.intents()):02x}", 1)


def mined(store: Store, intent: Intent, status: int = 1) -> Intent:
    assert intent.tx_hash is not None
    block = receipt(intent.tx_hash, 7, "0x07", status)
    return store.journal.advance(intent.id, IntentState.MINED, 1, receipt=block)


def pending_ids(store: Store) -> list[str]:
    return [pending.id for pending in pending_entries(store, STEP)]


def test_pending_planned_swap_follows_its_plan_without_gas(store: Store) -> None:
    sent(store)

    (pending,) = pending_entries(store, STEP)

    assert amounts(pending, WALLET_ACCOUNT) == {WETH: -1_000_000, USDC: 100}


def test_pending__planned_transaction_without_a_plan_has_none(store: Store) -> None:
    sent(store, plan=None)

    assert pending_entries(store, STEP) == ()


def test_pending__mined_swap_has_the_entry_of_its_receipt(store: Store) -> None:
    mined(store, sent(store))

    (pending,) = pending_entries(store, STEP)

    assert amounts(pending, WALLET_ACCOUNT) == {NATIVE: -GAS_WEI}


def test_pending_first_of_two_counts_while_neither_is_mined(store: Store) -> None:
    first = sent(store)

    sent(store, replaces=first)

    assert pending_ids(store) == [first.id]


@pytest.mark.parametrize("mined_index", [0, 1])
def test_pending__mined_one_of_two_at_a_nonce_counts(store: Store, mined_index: int) -> None:
    first = sent(store)
    both = (first, sent(store, replaces=first))

    mined(store, both[mined_index])

    assert pending_ids(store) == [both[mined_index].id]


def test_pending__each_nonce_has_its_own(store: Store) -> None:
    first = mined(store, sent(store))

    second = sent(store, 1)

    assert sorted(pending_ids(store)) == sorted([first.id, second.id])


# --- Valuation of the newest step


@pytest.mark.parametrize(
    ("blocks", "seconds", "is_later"),
    [
        pytest.param(0, 60, False, id="same block"),
        pytest.param(1, 0, True, id="next block of that second"),
        pytest.param(1, -1, False, id="next block, one second earlier"),
        pytest.param(1, 12, True, id="next block"),
    ],
)
def test_later_valuation_is_of_a_later_block_and_no_earlier_time(store: Store, blocks: int, seconds: int, is_later: bool) -> None:
    head = STEP.snapshot.head

    newest = later_valuation(store, step_later(blocks, seconds), Valuation(head.number, head.timestamp_s, Fraction(1), ()))

    assert (newest is not None) is is_later


@pytest.mark.parametrize(("flow_id", "is_known"), [(0, False), (1, True)], ids=["unwritten flow", "written flow"])
def test_valuation_of_step_waits_for_unwritten_flows(store: Store, flow_id: int, is_known: bool) -> None:
    flows = replace(STEP.history.cash_flows, unexplained_transfers=(replace(transfer(), id=flow_id),))

    assert (valuation_of_step(store, replace(STEP, history=replace(STEP.history, cash_flows=flows))) is not None) is is_known


# --- Chosen weights and hourly prices


@dataclass
class RecordingAllocations:
    """Allocations in memory."""

    recorded: list[object]

    def newest(self) -> object:
        return self.recorded[-1] if self.recorded else None

    def record(self, allocation: object) -> None:
        self.recorded.append(allocation)


def test_allocation_is_recorded_once_it_changes() -> None:
    allocations = RecordingAllocations([])
    first = Allocation(1, AllocationMethod.FIXED, (("0xa", 10_000),), "hash", "a sample", "why")

    for allocation in (None, first, first, replace(first, at_s=2)):
        record_allocation(replace(STEP.history, allocation=allocation), cast(Any, allocations))

    assert allocations.recorded == [first, replace(first, at_s=2)]


@dataclass
class RecordingReader:
    """A reader that notes how many past blocks it read, or raises this error."""

    error: Exception | None = None
    block_counts: list[int] = field(default_factory=list)

    def past_prices(self, _head: object, blocks: int) -> tuple[PastPrices, ...]:
        self.block_counts.append(blocks)
        if self.error is not None:
            raise self.error
        return past_blocks(blocks)


def past_blocks(count: int) -> tuple[PastPrices, ...]:
    """Return as many blocks before that of STEP, at its prices."""
    snapshot = STEP.snapshot
    return tuple(
        PastPrices(replace(snapshot.head, number=snapshot.head.number - back), snapshot.feeds, snapshot.pools)
        for back in range(1, count + 1)
    )


def recorded_prices(store: Store, reader: RecordingReader, confirm_blocks: int = 0, read_blocks: int = 0) -> int:
    """Record the prices of a step that has read so many past blocks, and return how many are recorded."""
    snapshot = replace(STEP.snapshot, past_prices=past_blocks(read_blocks))
    step = replace(STEP, snapshot=snapshot, policy=replace(STEP.policy, confirm_blocks=confirm_blocks))
    record_hourly_prices(cast(StepReaders, SimpleNamespace(reader=reader)), step, store.prices)
    now_s = STEP.snapshot.head.timestamp_s
    return len(store.prices.prices_between(STEP.portfolio.numeraire.address, now_s - 7_200, now_s + 7_200))


@pytest.mark.parametrize(
    ("confirm_blocks", "read_blocks", "block_counts"),
    [
        pytest.param(0, 0, [], id="none to confirm"),
        pytest.param(2, 0, [2], id="none read"),
        pytest.param(2, 1, [2], id="one too few read"),
        pytest.param(2, 2, [], id="all read"),
    ],
)
def test_hourly_prices_read_the_blocks_that_confirm_them(
    store: Store, confirm_blocks: int, read_blocks: int, block_counts: list[int]
) -> None:
    reader = RecordingReader()

    assert recorded_prices(store, reader, confirm_blocks, read_blocks) == 1
    assert reader.block_counts == block_counts


def test_hourly_prices_are_read_once_an_hour(store: Store) -> None:
    reader = RecordingReader()

    for _ in range(2):
        recorded_prices(store, reader, confirm_blocks=1)

    assert reader.block_counts == [1]


@pytest.mark.parametrize("error", [Retryable("no answer"), Refused("no"), PassingFault("403")], ids=["endpoint", "refusal", "no access"])
def test_hourly_prices_that_cannot_be_read_fail_no_cycle(store: Store, error: Exception) -> None:
    assert recorded_prices(store, RecordingReader(error), confirm_blocks=1) == 0
