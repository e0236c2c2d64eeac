"""The signer asks the journal which nonce is next and what was paid there: the transaction's own word counts for nothing (T4)."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from agent.errors import Refused
from agent.execution.submission.signable_nonces import max_tip_by_nonce, open_transactions
from agent.model import FIRST_VENUE_NONCE, IntentState, Receipt
from agent.signing.terms import TIP_CAP_WEI, replacement_fee_wei, tip_range_wei
from tests.support.signing import CANCEL, CANCEL_GRANT, GWEI, KEY, NONCE, RULES, LocalSigner, assert_refused_by
from tests.support.text import raises_code
from tests.support.transactions import Bench, bench, grant, killed_at, lost_in_broadcast, tx

TIP = tx(0).max_priority_fee_wei


def test_a_journal_that_knows_no_nonce_lets_nothing_be_signed(setup: Bench) -> None:
    assert max_tip_by_nonce(setup.store.journal) == {}
    with raises_code(Refused, "signer.nonce"):
        LocalSigner(KEY, RULES, lambda: max_tip_by_nonce(setup.store.journal)).sign(CANCEL, CANCEL_GRANT)


@pytest.mark.parametrize("at", ["after:planned", "before:signed"])
def test_what_is_only_planned_lends_its_nonce_to_nobody(setup: Bench, at: str) -> None:
    killed_at(setup, at)

    assert max_tip_by_nonce(setup.store.journal) == {0: None}
    intend(setup, nonce=9)
    assert max_tip_by_nonce(setup.store.journal) == {0: None}


def intend(setup: Bench, nonce: int) -> None:
    """A caller plans a transaction at a nonce of its own choice."""
    setup.store.journal.add_intent("step0", replace(tx(nonce), data="0x"), grant(CANCEL_GRANT.kind, 2**40), "cancel", 0, None, None)


@pytest.mark.parametrize("at", ["after:signed", "before:broadcast", "after:broadcast", "before:send", "after:send"])
def test_max_tip_of_a_signed_transaction_is_its_own(tmp_path: Path, at: str) -> None:
    setup = bench(tmp_path, automine=False)
    killed_at(setup, at)

    assert max_tip_by_nonce(setup.store.journal) == {0: TIP}


def test_a_transaction_without_a_tip_has_paid_none(setup: Bench) -> None:
    setup.run()
    legacy = replace(tx(1), max_fee_wei=None, max_priority_fee_wei=None, gas_price_wei=GWEI)
    intent = setup.store.journal.add_intent("step0", legacy, grant(CANCEL_GRANT.kind, 2**40), "cancel", 0, None, None)

    setup.store.journal.advance(intent.id, IntentState.SIGNED, 1, tx_hash="0x" + "ab" * 32)

    assert max_tip_by_nonce(setup.store.journal) == {1: 0}


def test_max_tip__is_the_highest_at_a_nonce_and_not_the_latest(tmp_path: Path) -> None:
    setup = lost_in_broadcast(tmp_path)
    cheaper = replace(tx(0), max_priority_fee_wei=1)
    intent = setup.store.journal.add_intent("step0", cheaper, grant(CANCEL_GRANT.kind, 2**40), "cancel", 0, None, None)

    setup.store.journal.advance(intent.id, IntentState.SIGNED, 1, tx_hash="0x" + "ab" * 32)

    assert max_tip_by_nonce(setup.store.journal) == {0: TIP}


def test_after_a_block_the_next_nonce_alone_is_signed(setup: Bench) -> None:
    setup.run()

    assert max_tip_by_nonce(setup.store.journal) == {1: None}
    setup.run(nonce=1)
    assert max_tip_by_nonce(setup.store.journal) == {2: None}


def test_max_tip_of_a_lost_transaction_opens_no_later_nonce(tmp_path: Path) -> None:
    assert max_tip_by_nonce(lost_in_broadcast(tmp_path).store.journal) == {0: TIP}


def test_signer_takes_a_tip_of_one_bump_more() -> None:
    paid = 8 * GWEI
    signer = LocalSigner(KEY, RULES, lambda: {NONCE: paid})

    bump = replace(CANCEL, max_fee_wei=15 * GWEI, max_priority_fee_wei=replacement_fee_wei(paid))

    assert signer.sign(bump, CANCEL_GRANT).hash
    with raises_code(Refused, "signer.tip", "'tip'"):
        signer.sign(replace(bump, max_priority_fee_wei=replacement_fee_wei(paid) + 1), CANCEL_GRANT)


def test_a_first_tip_ends_at_its_cap_and_a_price_at_the_limit() -> None:
    signer = LocalSigner(KEY, RULES, lambda: {NONCE: None})

    most = replace(CANCEL, max_fee_wei=15 * GWEI, max_priority_fee_wei=TIP_CAP_WEI)

    assert signer.sign(most, CANCEL_GRANT).hash
    assert_refused_by("tip", replace(most, max_priority_fee_wei=TIP_CAP_WEI + 1), CANCEL_GRANT)
    assert_refused_by("gas_price", replace(most, max_fee_wei=15 * GWEI + 1), CANCEL_GRANT)


def test_tips_on_polygon_are_those_that_its_nodes_accept() -> None:
    least_wei, most_wei = tip_range_wei(137)

    assert (least_wei, most_wei, tip_range_wei(1)) == (25 * GWEI, 300 * GWEI, (0, TIP_CAP_WEI))
    signer = LocalSigner(KEY, replace(RULES, chain_id=137, max_fee_wei=1_000 * GWEI), lambda: {NONCE: None})
    tipped = replace(CANCEL, chain_id=137, max_fee_wei=400 * GWEI, max_priority_fee_wei=most_wei)
    assert signer.sign(tipped, CANCEL_GRANT).hash
    with raises_code(Refused, "signer.tip"):
        signer.sign(replace(tipped, max_priority_fee_wei=most_wei + 1), CANCEL_GRANT)


def test_an_order_of_a_venue_is_no_transaction_of_the_chain(setup: Bench) -> None:
    setup.run()

    journal = setup.store.journal

    assert journal.newest_venue_nonce() == 0
    intend(setup, nonce=FIRST_VENUE_NONCE + 7)
    [order] = journal.open_intents()
    journal.advance(order.id, IntentState.SIGNED, 1, tx_hash="0x" + "ab" * 16)
    assert max_tip_by_nonce(journal) == {1: None}
    assert open_transactions(journal) == []
    journal.advance(order.id, IntentState.BROADCAST, 2)
    journal.advance(order.id, IntentState.MINED, 3, receipt=Receipt("0x" + "ab" * 16, 0, 1, "", 0, 0, ()))
    journal.advance(order.id, IntentState.REVERTED, 4)
    assert (journal.expected_nonce(), journal.newest_venue_nonce()) == (1, FIRST_VENUE_NONCE + 7)
    assert order.id not in {intent.id for intent in journal.intents_ended_in_block(9)}
    setup.run(nonce=1)
    assert max_tip_by_nonce(journal) == {2: None}


@pytest.mark.parametrize(("paid_wei", "more_wei"), [(0, 1), (1, 2), (7, 8), (8, 9), (9, 11), (16, 18), (17, 20), (8 * GWEI, 9 * GWEI)])
def test_replacement_fee_is_an_eighth_more_rounded_up(paid_wei: int, more_wei: int) -> None:
    assert replacement_fee_wei(paid_wei) == more_wei
