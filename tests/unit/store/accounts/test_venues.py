"""What the store keeps of an off-chain futures venue: approvals of agent keys, market numbers, funding payments."""

from __future__ import annotations

from dataclasses import replace

import pytest

from agent.errors import OperatorNeeded
from agent.model import Entry, EntryKind, IntentKind
from agent.model.ledger import FuturesEntry, SettledFunding
from agent.model.transactions import FIRST_VENUE_NONCE
from agent.store import Store
from agent.store.accounts.ledger import FUNDING_OVERLAP_S
from tests.support.stores import store_fixture
from tests.support.transactions import START_S, grant, tx

AGENT = "0x" + "Ab" * 20
OTHER_AGENT = "0x" + "Ab" * 15 + "cD" * 5


store = store_fixture()


def test_the_end_of_an_approval_is_written_once_for_each_agent(store: Store) -> None:
    assert store.trust.agent_expiry_ms(AGENT) == 0
    assert store.trust.record_agent_expiry(AGENT, 1_000) == 1_000
    assert store.trust.record_agent_expiry(AGENT.lower(), 2_000) == 1_000
    assert store.trust.agent_expiry_ms(AGENT) == 1_000
    assert store.trust.agent_expiry_ms(OTHER_AGENT) == 0
    assert store.trust.record_agent_expiry(OTHER_AGENT, 3_000) == 3_000
    assert store.trust.agent_expiry_ms(AGENT) == 1_000


def test_nonces_of_approvals_only_rise(store: Store) -> None:
    assert [store.trust.take_approval_nonce(now_ms) for now_ms in (1_000, 1_000, 900, 5_000, 5_000)] == [1_000, 1_001, 1_002, 5_000, 5_001]


def test_market_numbers_are_pinned_by_network_and_replaced_whole(store: Store) -> None:
    assert store.trust.market_numbers("main") == {}
    store.trust.pin_markets("main", {"BTC": 0, "ETH": 1})
    store.trust.pin_markets("test", {"ETH": 4})
    assert (store.trust.market_numbers("main"), store.trust.market_numbers("test")) == ({"BTC": 0, "ETH": 1}, {"ETH": 4})
    store.trust.pin_markets("main", {"SOL": 5})
    assert store.trust.market_numbers("main") == {"SOL": 5}
    with store.db.write("damage") as db:
        db.exec_driver_sql("UPDATE meta SET value = '{' WHERE key = 'markets:main'")
    with pytest.raises(OperatorNeeded, match="damaged"):
        store.trust.market_numbers("main")


def funding(at_s: int, market: str = "ETH", paid_raw: int = 5) -> Entry:
    futures = FuturesEntry("0xusdc", 1, None, (), (SettledFunding(market, market, paid_raw),))
    return Entry(f"{market} {at_s}", EntryKind.FUTURES, 1_000, at_s, "", "", (), futures=futures)


def test_funding_enters_once_and_is_read_again_hours_back(store: Store) -> None:
    store.ledger.record_offchain_entries([funding(START_S)])

    assert store.ledger.funding_since_s() is None
    assert store.ledger.entries() == (), "there is no book yet"
    store.ledger.open_book(START_S, "")
    assert store.ledger.funding_since_s() == START_S
    before = store.ledger.version()
    payments = [funding(START_S + 3_600), funding(START_S + 3_600, "BTC"), funding(START_S + 36_000, paid_raw=-3)]
    store.ledger.record_offchain_entries(payments)
    assert store.ledger.version() != before
    assert [entry.id for entry in store.ledger.entries()] == ["BTC 1700003600", "ETH 1700003600", "ETH 1700036000"]
    assert store.ledger.funding_since_s() == START_S + 36_000 - FUNDING_OVERLAP_S
    store.ledger.record_offchain_entries([*payments, funding(START_S + 32_400)])
    assert len(store.ledger.entries()) == 4, "an hour that was listed late is new, the others are known"
    assert store.ledger.funding_since_s() == START_S + 36_000 - FUNDING_OVERLAP_S
    store.ledger.open_book(START_S + 40_000, "anew")
    assert store.ledger.entries() == ()
    assert store.ledger.funding_since_s() == START_S + 40_000
    store.ledger.record_offchain_entries([*payments, funding(START_S + 39_999)])
    assert store.ledger.entries() == (), "read before the book was opened: its opening contains them"
    store.ledger.record_offchain_entries([funding(START_S + 40_000)])
    assert len(store.ledger.entries()) == 1


@pytest.mark.parametrize("nonce", [FIRST_VENUE_NONCE, FIRST_VENUE_NONCE + 5])
def test_venue_order_moves_its_own_nonce_alone(store: Store, nonce: int) -> None:
    store.steps.begin("s", START_S, "{}")

    store.journal.adopt_nonce(3, START_S)

    assert store.journal.newest_venue_nonce() == 0
    store.journal.add_intent("s", replace(tx(3), nonce=nonce), grant(IntentKind.FUTURES), "order", START_S, None)
    assert (store.journal.expected_nonce(), store.journal.newest_venue_nonce()) == (3, nonce)
