"""The ledger in the store, without a chain: when it opens, what it counts, what it calls a disagreement, whose books it keeps."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import pytest
from sqlalchemy import text

from agent.accounting import entries
from agent.accounting.entries import QUANTA_PER_UNIT
from agent.execution import settlement
from agent.execution.bookkeeping import audit_entries, derive_entry, update_ledger
from agent.model import EntryKind, ExternalTransaction, ExternalTransferKind, IntentState, StepInput, Transfer, Valuation
from agent.policy.step_input import reconcile_ledger
from agent.store import Store
from agent.store.accounts.ledger_sums import round_loss_up
from agent.units import HOUR_S, NATIVE
from tests.support.ledgers import COIN, DOLLAR, GAS_WEI, LEDGER_USDC, LEDGER_WETH, at, finalise, moved
from tests.support.stores import store_fixture
from tests.support.text import mentions
from tests.support.transactions import OTHER, START_S, WALLET

store = store_fixture()


def mismatch_of_look(store: Store, step: StepInput) -> str:
    """One look; what ledger and chain disagree in."""
    mismatch = reconcile_ledger(step, store.balances.expected(), store.ledger.balances(step.snapshot.head.number)).history.ledger_mismatch
    update_ledger(store, step, settlement.settle_mined(store, step.snapshot, lambda: step))
    return mismatch


def sums(store: Store, block: int) -> dict[str, int]:
    return {balance.token: balance.raw for balance in store.ledger.balances(block)}


def step_after_sale(block: int, nonce: int = 0, store: Store | None = None) -> StepInput:
    """One WETH went for 2,000 USDC at that block."""
    if store is not None:
        moved(
            store,
            nonce,
            block,
            Transfer(LEDGER_WETH.address, WALLET, OTHER, COIN),
            Transfer(LEDGER_USDC.address, OTHER, WALLET, 2_000 * DOLLAR),
        )
    return at(block, weth="9", usdc=22_000, native=COIN - GAS_WEI)


def test_a_book_opens_at_the_first_look_and_agrees_from_there_on(store: Store) -> None:
    assert mismatch_of_look(store, at()) == ""
    assert sums(store, 1_000) == {LEDGER_WETH.address: 10 * COIN, LEDGER_USDC.address: 20_000 * DOLLAR, NATIVE: COIN}
    assert [entry.kind for entry in store.ledger.entries()] == [EntryKind.OPENING] * 3
    assert len(store.valuations.between()) == 1


def test_book_does_not_open_beside_an_open_transaction(store: Store) -> None:
    step = step_after_sale(1_001, store=store)

    mismatch_of_look(store, step)

    assert store.ledger.entries() == ()
    assert store.valuations.between() == ()
    finalise(store)
    mismatch_of_look(store, replace(step, snapshot=replace(step.snapshot, head=replace(step.snapshot.head, number=1_002))))
    assert sums(store, 1_002)[LEDGER_WETH.address] == 9 * COIN
    assert len(store.ledger.entries()) == 3


def test_mined_intent_counts_at_once_and_enters_once_final(store: Store) -> None:
    mismatch_of_look(store, at())

    step = step_after_sale(1_001, store=store)

    assert mismatch_of_look(store, step) == ""
    assert sums(store, 1_001)[LEDGER_WETH.address] == 9 * COIN
    assert sums(store, 1_000)[LEDGER_WETH.address] == 10 * COIN
    assert len(store.ledger.entries()) == 3
    finalise(store)
    assert mismatch_of_look(store, replace(step, snapshot=replace(step.snapshot, head=replace(step.snapshot.head, number=1_002)))) == ""
    (entry,) = store.ledger.intent_entries()
    assert entry.kind is EntryKind.TRADE
    assert entry.block == 1_001
    assert [pair.differs for pair in audit_entries(store, step)] == [False]


def test_a_change_that_nobody_made_is_a_flow_and_no_disagreement(store: Store) -> None:
    mismatch_of_look(store, at())

    assert mismatch_of_look(store, at(1_001, usdc=20_005)) == ""
    assert mismatch_of_look(store, at(1_002, usdc=20_005)) == ""
    assert [entry.kind for entry in store.ledger.entries()][3:] == [EntryKind.UNEXPLAINED]


def test_version__classification_of_an_accepted_deposit__rises(store: Store) -> None:
    mismatch_of_look(store, at())
    mismatch_of_look(store, at(1_001, usdc=20_005))
    (deposit,) = store.balances.transfers()

    accepted = replace(deposit, kind=ExternalTransferKind.ACCEPTED)

    assert store.balances.record(at(1_002).snapshot, {}, (accepted,), store.balances.expected().version)
    version = store.ledger.version()
    store.balances.classify(deposit.id, ExternalTransferKind.GIFT, 5)
    assert [entry.kind for entry in store.ledger.entries()][3:] == [EntryKind.GIFT]
    assert store.ledger.version() != version


def test_ledger_mismatch_names_both_figures(store: Store) -> None:
    mismatch_of_look(store, at())
    with store.db.write("falsify") as db:
        db.execute(text("UPDATE running SET raw = '19999000000' WHERE token = :token"), {"token": LEDGER_USDC.address})

    mismatch = mismatch_of_look(store, at(1_001))

    assert mentions(mismatch, "USDC: 19999", "20000")
    assert "trimtab books check" in mismatch
    assert "WETH" not in mismatch


def test_valuation_is_hourly_and_after_each_transfer(store: Store) -> None:
    mismatch_of_look(store, at())

    mismatch_of_look(store, at(1_001, later_s=60))

    assert len(store.valuations.between()) == 1
    mismatch_of_look(store, at(1_002, later_s=3_700))
    assert len(store.valuations.between()) == 2
    mismatch_of_look(store, at(1_003, usdc=21_000, later_s=3_760))
    assert [valuation.block for valuation in store.valuations.between()] == [1_000, 1_002, 1_003]
    assert [valuation.block for valuation in store.valuations.newest(2)] == [1_003, 1_002]


def test_paper_has_its_own_book_and_live_opens_a_new_one(store: Store) -> None:
    store.db.store_kind = "paper"
    mismatch_of_look(store, at())
    paper_book = store.ledger.current_book()

    mismatch_of_look(store, at(1_001, usdc=25_000))

    assert len(store.ledger.entries()) == 4
    store.db.store_kind = "live"
    assert store.ledger.entries() == ()
    assert store.ledger.current_book() is None
    assert mismatch_of_look(store, at(1_002, usdc=25_000)) == ""
    book = store.ledger.current_book()
    assert book.number > paper_book.number
    assert book.kind == "live"
    assert sums(store, 1_002)[LEDGER_USDC.address] == 25_000 * DOLLAR
    assert len(store.ledger.entries()) == 3


def test_tokens_keep_their_names_when_they_leave_the_portfolio(store: Store) -> None:
    mismatch_of_look(store, at())
    step = at(1_001)
    fewer = replace(step, portfolio=replace(step.portfolio, assets=tuple(a for a in step.portfolio.assets if a.token.symbol == "USDC")))
    mismatch_of_look(store, fewer)

    ledger_tokens = store.ledger.ledger_tokens()

    assert {token.symbol for token in ledger_tokens.tokens} >= {"WETH", "USDC"}


def test_tokens__of_a_writer_in_between_are_kept(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(type(store.ledger), "ledger_tokens", lambda _: None)  # read before the other wrote
        store.ledger.record_ledger_tokens([LEDGER_WETH], LEDGER_USDC, LEDGER_WETH.address)
        store.ledger.record_ledger_tokens([LEDGER_USDC], LEDGER_USDC, LEDGER_WETH.address)

    ledger_tokens = store.ledger.ledger_tokens()

    assert {token.symbol for token in ledger_tokens.tokens} == {"WETH", "USDC"}


@pytest.mark.parametrize(
    ("block", "later_s", "forced", "changed", "is_due"),
    [
        (1_000, HOUR_S, True, (), False),
        (1_001, HOUR_S - 1, False, (), False),
        (1_001, HOUR_S, False, (), True),
        (1_001, 0, True, (), True),
        (1_005, 0, False, (1_000,), False),
        (1_005, 0, False, (1_001,), True),
        (1_005, 0, False, (1_005,), True),
        (1_005, 0, False, (1_006,), False),
    ],
    ids=[
        "same block",
        "one second before the hour",
        "another hour",
        "forced",
        "change at the last block",
        "change after it",
        "change at this block",
        "change beyond it",
    ],
)
def test_valuation_is_due_in_another_hour_or_after_a_change(
    store: Store, block: int, later_s: int, forced: bool, changed: tuple[int, ...], is_due: bool
) -> None:
    hour_s = 1_700_000_000 // HOUR_S * HOUR_S

    first = Valuation(1_000, hour_s, Fraction(1), ())

    assert not store.valuations.record(first, is_forced=True), "there is no book"
    store.ledger.open_book(1, "")
    assert store.valuations.record(first, is_forced=False)
    assert store.valuations.record(Valuation(block, hour_s + later_s, Fraction(2), ()), forced, changed) is is_due
    assert len(store.valuations.between()) == 1 + is_due


def test_valuations_between_include_both_ends(store: Store) -> None:
    store.ledger.open_book(1, "")
    for number in range(3):
        assert store.valuations.record(Valuation(number, 100 + number, Fraction(number), ()), is_forced=True)

    assert [valuation.chain_s for valuation in store.valuations.between(101, 102)] == [101, 102]
    assert [valuation.chain_s for valuation in store.valuations.between(101, 101)] == [101]
    assert [valuation.value for valuation in store.valuations.newest(2)] == [2, 1]


@pytest.mark.parametrize(
    ("loss", "quanta"),
    [
        (Fraction(-5), 0),
        (Fraction(0), 0),
        (Fraction(1, QUANTA_PER_UNIT), 1),
        (Fraction(1, 3 * QUANTA_PER_UNIT), 1),
        (Fraction(4), 4 * QUANTA_PER_UNIT),
    ],
)
def test_a_loss_is_summed_rounded_up_and_a_gain_as_nothing(loss: Fraction, quanta: int) -> None:
    assert round_loss_up(loss) == quanta


def test_entries_of_are_those_of_the_current_book(store: Store) -> None:
    assert store.ledger.entries_of(["nothing"]) == ()
    mismatch_of_look(store, at())
    step = step_after_sale(1_001, store=store)
    finalise(store)
    mismatch_of_look(store, replace(step, snapshot=replace(step.snapshot, head=replace(step.snapshot.head, number=1_002))))
    (entry,) = store.ledger.intent_entries()
    assert store.ledger.entries_of([entry.id, "nothing"]) == (entry,)
    store.ledger.open_book(1, "anew")
    assert store.ledger.entries_of([entry.id]) == ()
    assert store.ledger.intent_entries() == ()


def test_intent_before_the_book_is_not_counted_or_entered(store: Store) -> None:
    step_after_sale(1_001, store=store)
    (before,) = store.journal.open_intents()

    finalise(store)

    assert store.ledger.intents_without_entry() == ()
    assert store.ledger.counted_tokens(before.id) == frozenset()
    mismatch_of_look(store, at(1_002))
    assert store.ledger.counted_tokens(before.id) == frozenset()
    assert store.ledger.intents_without_entry() == ()
    assert store.ledger.unsettled_intents() == ()
    step_after_sale(1_003, 1, store)
    (after,) = store.journal.open_intents()
    assert store.ledger.unsettled_intents() == (after,)
    finalise(store)
    assert store.ledger.counted_tokens(after.id) == {LEDGER_WETH.address, LEDGER_USDC.address, NATIVE}
    assert [intent.id for intent in store.ledger.intents_without_entry()] == [after.id]
    assert [intent.id for intent in store.ledger.enterable_intents()] == [after.id]


def test_entries_of_external_transactions_of_one_block_go_by_nonce(store: Store) -> None:
    mismatch_of_look(store, at())
    first = ExternalTransaction("0x0b", 1_001, START_S, Fraction(0), Fraction(0), 0, ((LEDGER_WETH.address, -5),), 0)

    store.balances.record_prior_day((replace(first, tx_hash="0x0a", nonce=1), first), 2)

    assert [entry.id for entry in store.ledger.entries() if entry.kind is EntryKind.EXTERNAL] == ["0x0b", "0x0a"]


@pytest.mark.parametrize(("raw", "account"), [(5, entries.DEPOSITS), (-5, entries.WITHDRAWALS)])
def test_gas_of_an_external_transaction__makes_no_exchange_of_it(store: Store, raw: int, account: str) -> None:
    mismatch_of_look(store, at())
    changes = ((LEDGER_WETH.address, raw), (NATIVE, -3))

    store.balances.record_prior_day((ExternalTransaction("0x0b", 1_001, START_S, Fraction(0), Fraction(0), 3, changes, 0),), 1)

    (entry,) = (entry for entry in store.ledger.entries() if entry.kind is EntryKind.EXTERNAL)
    assert {(posting.account, posting.token): posting.raw for posting in entry.postings} == {
        (entries.WALLET, LEDGER_WETH.address): raw,
        (account, LEDGER_WETH.address): -raw,
        (entries.WALLET, NATIVE): -3,
        (entries.GAS, NATIVE): 3,
    }


def test_intent_enters_once_and_with_its_own_receipt(store: Store) -> None:
    mismatch_of_look(store, at())
    step = step_after_sale(1_001, store=store)
    finalise(store)
    mismatch_of_look(store, replace(step, snapshot=replace(step.snapshot, head=replace(step.snapshot.head, number=1_002))))
    (entry,) = store.ledger.intent_entries()

    (intent,) = store.ledger.enterable_intents()

    assert not store.ledger.record_entry(intent, entry), "it has an entry"
    step_after_sale(1_003, 1, store)
    (open_intent,) = store.journal.open_intents()
    assert not store.ledger.record_entry(open_intent, replace(entry, id=open_intent.id)), "it is not final"
    finalise(store)
    (waiting,) = store.ledger.intents_without_entry()
    assert waiting.receipt is not None
    stale = replace(waiting, receipt=replace(waiting.receipt, block_number=1_004))
    assert not store.ledger.record_entry(stale, replace(entry, id=waiting.id)), "a reorganisation has moved it"
    assert store.ledger.record_entry(waiting, replace(entry, id=waiting.id))


@pytest.mark.parametrize("looks", [0, 1, 2], ids=["no look since", "a look since", "two looks since"])
def test_entry_derived_before_a_new_book__is_not_in_it(store: Store, looks: int) -> None:
    """Its opening has the balances after the transaction, so that the entry would count twice."""
    mismatch_of_look(store, at())
    step = step_after_sale(1_001, store=store)
    finalise(store)
    (intent,) = store.ledger.intents_without_entry()
    entry = derive_entry(store, intent, step, store.ledger.counted_tokens(intent.id), store.ledger.principal)

    store.ledger.open_book(1, "anew")
    for block in range(1_002, 1_002 + looks):
        mismatch_of_look(store, replace(step, snapshot=replace(step.snapshot, head=replace(step.snapshot.head, number=block))))

    assert not store.ledger.record_entry(intent, entry)
    assert store.ledger.intent_entries() == ()
    assert sums(store, 1_003).get(LEDGER_WETH.address, 9 * COIN) == 9 * COIN


def test_reorg_takes_an_entry_out_of_the_balances_once(store: Store) -> None:
    mismatch_of_look(store, at())
    step = step_after_sale(1_001, store=store)
    (sale,) = store.journal.open_intents()
    finalise(store)

    mismatch_of_look(store, replace(step, snapshot=replace(step.snapshot, head=replace(step.snapshot.head, number=1_002))))

    assert sums(store, 1_002)[LEDGER_WETH.address] == 9 * COIN
    store.journal.advance(sale.id, IntentState.BROADCAST, 2)
    assert sums(store, 1_002) == {LEDGER_WETH.address: 10 * COIN, LEDGER_USDC.address: 20_000 * DOLLAR, NATIVE: COIN}
    assert store.ledger.intent_entries() == ()
    assert store.ledger.find_misstatements() == ()
