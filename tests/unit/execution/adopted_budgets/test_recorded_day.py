"""The day before a store was made, read from the chain once: in the books, or unknown by name (T6)."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import pytest

from agent.chain.endpoints import EndpointPool
from agent.chain.history import RecentTransactions
from agent.errors import Retryable
from agent.execution import adopted_budgets
from agent.execution.adopted_budgets import PriorDayPause, with_recorded_day
from agent.model import Budgets, StepInput
from agent.store import Store
from agent.units import NATIVE
from tests.support import builders
from tests.support.constants import DAY_S
from tests.support.ledgers import COIN, DOLLAR, GAS_WEI, LEDGER_USDC, LEDGER_WETH, at
from tests.support.old_chain import NOW_S, RECENT, SWAP, Node, event
from tests.support.stores import store_fixture
from tests.support.text import mentions
from tests.support.transactions import CHAIN_ID, OTHER, WALLET, grant, receipt, record_sent, tx

BLOCK = 19_000
GAS_VALUE = Fraction(GAS_WEI * 2_000 * DOLLAR, COIN)


store = store_fixture("file", wallet=WALLET, chain_id=CHAIN_ID, wrapped_native=LEDGER_WETH.address)


def forgetful_node() -> Node:
    """A node with a transaction of the day, of which it has kept no state."""
    return Node(sent={19_990: {}}, states_from=30_000)


def step_of(store: Store, node: Node, later_s: int = 0) -> StepInput:
    """A step of that much later, with prices of then."""
    node.later_s = later_s
    step = at(node.height, nonce_latest=node.nonce)
    feeds = tuple(replace(feed, updated_at_s=feed.updated_at_s + later_s) for feed in step.snapshot.feeds)
    return replace(step, snapshot=replace(step.snapshot, head=node.head, feeds=feeds), history=store.budgets.history(NOW_S + later_s))


def read_day(
    store: Store, node: Node, step: StepInput | None = None, *, is_contract: bool = False, pause: PriorDayPause | None = None
) -> StepInput:
    """Read the day before the store if it is not known yet, and return the step with its history."""
    panel = EndpointPool([node], 1)
    return with_recorded_day(step or step_of(store, node), store.balances, store.budgets, panel, is_contract, pause)


def budgets_after(store: Store, node: Node, step: StepInput | None = None, *, is_contract: bool = False) -> Budgets:
    return read_day(store, node, step, is_contract=is_contract).history.budgets


# --- A day that is known.


def test_new_store_reads_the_prior_day_once(store: Store) -> None:
    node = Node(sent={number: {"logs": SWAP} for number in RECENT})
    first = read_day(store, node).history
    request_count = node.request_count

    second = read_day(store, node).history

    assert (first.budgets.loss_24h, first.budgets.gas_24h_wei) == (len(RECENT) * (10 * DOLLAR + GAS_VALUE), len(RECENT) * GAS_WEI)
    assert second == first
    assert node.request_count == request_count
    assert store.budgets.history(NOW_S + DAY_S).budgets.loss_24h == 0


def test_payouts_of_the_day_count_in_their_limit(store: Store) -> None:
    node = Node(sent={BLOCK: {"logs": [event(LEDGER_USDC.address, WALLET, OTHER, 7 * DOLLAR)], "to": OTHER}})

    assert budgets_after(store, node).outflow_24h == 7 * DOLLAR


def test_trades_are_valued_at_the_feeds_of_then(store: Store) -> None:
    feeds = {builders.feed_address("WETH"): {BLOCK - 1: 1_990 * 10**8}, builders.feed_address("USDC"): 10**8}

    budgets = budgets_after(store, Node(sent={BLOCK: {"logs": SWAP}}, feeds=feeds))

    assert budgets.loss_24h == Fraction(GAS_WEI * 1_990 * DOLLAR, COIN)


def test_wallet_without_transactions_makes_no_request(store: Store) -> None:
    node = Node()

    assert budgets_after(store, node).unknown_reason == ""

    assert node.request_count == 0


def test_own_transaction_is_not_counted_twice(store: Store) -> None:
    tx_hash = f"0x{BLOCK:064x}"
    store.steps.begin("s", 1, "{}")
    intent = store.journal.add_intent("s", tx(0), grant(), "swap", 1, None)
    mined = record_sent(store.journal, intent, tx_hash, 1, receipt=receipt(tx_hash, BLOCK, tx_hash))
    store.budgets.book_intent(mined, Fraction(5), Fraction(7), 11, NOW_S - 5)

    budgets = budgets_after(store, Node(sent={BLOCK: {"logs": SWAP}, BLOCK + 1: {}}))

    assert (budgets.loss_24h, budgets.gas_24h_wei) == (7 + GAS_VALUE, 11 + GAS_WEI)


def test_adoption_explains_what_the_wallet_did_meanwhile(store: Store) -> None:
    """Balances that another machine moved with the same key are known, not flows; what came before the books is not counted again."""
    balances_raw = {LEDGER_WETH.address: 10 * COIN, LEDGER_USDC.address: 20_000 * DOLLAR, NATIVE: COIN}
    store.balances.record(at(18_500).snapshot, balances_raw, (), 0)
    store.journal.adopt_nonce(2, 1)

    read_day(store, Node(sent={18_000: {"logs": SWAP}, 19_000: {"logs": SWAP}}))

    own_change_by_token = {change.token: change.delta_raw for change in store.balances.expected().own_changes}
    assert own_change_by_token == {LEDGER_WETH.address: -COIN, LEDGER_USDC.address: 1_990 * DOLLAR, NATIVE: -GAS_WEI}
    assert store.budgets.history(NOW_S).budgets.loss_24h == 2 * (10 * DOLLAR + GAS_VALUE)


# --- A day that is not.


@pytest.mark.parametrize(
    ("later_s", "is_known"),
    [(0, False), (DAY_S - 1, False), (DAY_S, True)],
)
def test_prior_day_stays_unknown_until_the_store_covers_a_day(store: Store, later_s: int, is_known: bool) -> None:
    node = forgetful_node()
    read_day(store, node)

    unknown_reason = budgets_after(store, node, step_of(store, node, later_s)).unknown_reason

    assert (unknown_reason == "") is is_known
    assert is_known or mentions(unknown_reason, "last 24 h", "--nothing-lost")


def test_unreadable_day_is_read_again_after_growing_pauses(store: Store) -> None:
    """The pause doubles from a minute to an hour, and the day stays unknown."""
    node = forgetful_node()
    pause = PriorDayPause()
    reads_at_s: list[int] = []
    reasons: set[str] = set()

    for later_s in range(0, 12_000, 60):
        requests_before = node.request_count
        step_after = read_day(store, node, step_of(store, node, later_s), pause=pause)
        reasons.add(step_after.history.budgets.unknown_reason)
        if node.request_count > requests_before:
            reads_at_s.append(later_s)

    assert reads_at_s == [0, 60, 180, 420, 900, 1_860, 3_780, 7_380, 10_980]
    assert "" not in reasons


def test_day_that_can_be_read_again_is_known_after_the_pause(store: Store) -> None:
    node = forgetful_node()
    pause = PriorDayPause()
    read_day(store, node, pause=pause)
    node.states_from = 0

    reasons = [read_day(store, node, step_of(store, node, later_s), pause=pause).history.budgets.unknown_reason for later_s in (59, 60)]

    assert mentions(reasons[0], "last 24 h", "--nothing-lost")
    assert reasons[1] == ""


@pytest.mark.parametrize("states_from", [pytest.param(0, id="read"), pytest.param(30_000, id="not read")])
def test_requests_for_the_day_are_those_of_the_step(store: Store, states_from: int) -> None:
    node = Node(sent={19_990: {}}, states_from=states_from)
    step = step_of(store, node)

    step_after = read_day(store, node, step)

    assert node.request_count > 0
    assert step_after.snapshot.http_request_count - step.snapshot.http_request_count == node.request_count


def test_exchange_without_a_price_is_not_recorded_as_no_loss(store: Store) -> None:
    """A feed that is silent for one look must not empty the budget for a day."""
    node = Node(sent={BLOCK: {"logs": SWAP}})
    step = step_of(store, node)
    feeds = tuple(feed for feed in step.snapshot.feeds if feed.feed != builders.feed_address("WETH"))

    blind = budgets_after(store, node, replace(step, snapshot=replace(step.snapshot, feeds=feeds)))
    seeing = budgets_after(store, node, step)

    assert mentions(blind.unknown_reason, "WETH", "reference price")
    assert (seeing.unknown_reason, seeing.loss_24h) == ("", 10 * DOLLAR + GAS_VALUE)


def test_prior_day_that_its_owner_confirms_is_known(store: Store) -> None:
    node = forgetful_node()
    before = budgets_after(store, node)

    store.balances.record_prior_day((), 1)

    assert before.unknown_reason != ""
    assert budgets_after(store, node).unknown_reason == ""


def test_day_that_no_endpoint_answers_is_unknown(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> RecentTransactions:
        raise Retryable("no answer")

    monkeypatch.setattr(adopted_budgets, "recent_transactions", fail)

    assert "no answer" in budgets_after(store, Node(sent={BLOCK: {}})).unknown_reason


# --- A Safe, whose owners may send without it.


def test_day_of_a_safe_with_transactions_stays_unknown(store: Store) -> None:
    node = Node(sent={BLOCK: {"logs": SWAP}})

    reasons = [budgets_after(store, node, is_contract=True).unknown_reason for _ in range(2)]

    assert all(mentions(reason, "Safe's owners", "an earlier confirmation does not cover a later one") for reason in reasons)
    assert not any("archive" in reason for reason in reasons), "no endpoint helps"
    pause = PriorDayPause(until_s=NOW_S + 60, failure_text="as before")
    assert "archive" not in read_day(store, node, is_contract=True, pause=pause).history.budgets.unknown_reason
    assert node.request_count == 0


def test_day_of_a_safe_without_transactions_is_known(store: Store) -> None:
    assert budgets_after(store, Node(), is_contract=True).unknown_reason == ""

    assert store.balances.is_prior_day_known(NOW_S)


def test_reason_that_was_there_before_is_kept(store: Store) -> None:
    node = Node(sent={BLOCK: {}})
    step = step_of(store, node)
    budgets = replace(step.history.budgets, unknown_reason="a trade has no price")

    unknown_reason = budgets_after(
        store, node, replace(step, history=replace(step.history, budgets=budgets)), is_contract=True
    ).unknown_reason

    assert unknown_reason.startswith("a trade has no price; the wallet's last 24 h are not known")
