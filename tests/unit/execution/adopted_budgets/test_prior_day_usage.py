"""What the wallet did before a store was made, in the books: valued, remembered, or unknown by name (T6)."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from agent.chain.endpoints import EndpointPool
from agent.chain.history import RecentTransactions, recent_transactions_from
from agent.execution.adopted_budgets import PriorDayPause, prior_day_usage, with_recorded_day
from agent.model import IntentKind, IntentState
from agent.store import open_store
from agent.units import NATIVE
from tests.support import builders
from tests.support.ledgers import COIN, DOLLAR, GAS_WEI, PRICE, at
from tests.support.ledgers import LEDGER_USDC as USDC
from tests.support.ledgers import LEDGER_WETH as WETH
from tests.support.old_chain import NOW_S, RECENT, ROUTER, SWAP, Node, event, told
from tests.support.text import mentions
from tests.support.transactions import CHAIN_ID, OTHER, WALLET, grant, receipt, tx


# what it is worth
def lost(**fields: Any) -> tuple[Fraction, Fraction, int]:
    """Loss and turnover in dollars, and gas, of one transaction."""
    (usage,) = prior_day_usage(at(), told(Node(sent={19_000: fields})))
    return usage.loss / DOLLAR, usage.turnover / DOLLAR, usage.gas_wei


GAS_USD = Fraction(GAS_WEI * 2_000, COIN)


@pytest.mark.parametrize(
    ("logs", "status", "to", "dollars", "turned"),
    [
        (SWAP, 1, ROUTER, 10, 1_995),
        (SWAP, 1, OTHER, 10, 1_995),
        ([event(WETH.address, WALLET, OTHER, COIN), event(USDC.address, OTHER, WALLET, 3_000 * DOLLAR)], 1, ROUTER, 0, 2_500),
        ([], 0, ROUTER, 0, 0),
        ([event(WETH.address, WALLET, OTHER, COIN)], 1, ROUTER, 2_000, 1_000),
        ([event(WETH.address, WALLET, OTHER, COIN)], 1, OTHER, 0, 0),
        ([event(builders.address("a stranger's token"), WALLET, OTHER, 10**30)], 1, ROUTER, 0, 0),
    ],
    ids=["swap", "swap elsewhere", "gain", "revert", "robbed by the router", "payment", "event of a stranger"],
)
def test_exchange_costs_its_loss_and_all_their_gas(logs: list[Any], status: int, to: str, dollars: int, turned: int) -> None:
    loss, turnover, gas_wei = lost(logs=logs, status=status, to=to)

    assert loss == max(dollars + GAS_USD, GAS_USD)
    assert (turnover, gas_wei) == (turned, GAS_WEI)


@pytest.mark.parametrize(
    ("back", "to", "dollars"),
    [(0, OTHER, 2_000), (1, OTHER, 2_000), (1_990 * DOLLAR, OTHER, 10), (1, ROUTER, 0)],
    ids=["payment", "payment for a crumb", "exchange elsewhere", "the router, whose losses are losses alone"],
)
def test_payment_without_return_is_an_outflow(back: int, to: str, dollars: int) -> None:
    logs = [event(WETH.address, WALLET, OTHER, COIN)] + ([event(USDC.address, OTHER, WALLET, back)] if back else [])

    (usage,) = prior_day_usage(at(), told(Node(sent={19_000: {"logs": logs, "to": to}})))

    assert round(usage.outflow / DOLLAR) == dollars


@pytest.mark.parametrize(
    ("back", "status", "dollars", "turned", "paid"),
    [
        ([], 1, 0, 0, 2_000),
        ([event(USDC.address, OTHER, WALLET, 1_990 * DOLLAR)], 1, 10, 1_995, 10),
        ([event(WETH.address, NATIVE, WALLET, COIN)], 1, 0, 0, 0),
        ([], 0, 0, 0, 0),
    ],
    ids=["payment", "exchange", "wrapping", "revert"],
)
def test_native_coin_counts_as_its_wrapped_token(back: list[Any], status: int, dollars: int, turned: int, paid: int) -> None:
    sent = {"logs": back, "to": OTHER, "value": hex(COIN), "status": status}

    (usage,) = prior_day_usage(at(), told(Node(sent={19_000: sent})))

    assert (usage.loss / DOLLAR, usage.turnover / DOLLAR) == (dollars + GAS_USD, turned)
    assert round(usage.outflow / DOLLAR) == paid


def test_exchange_is_valued_at_the_feeds_just_before_it() -> None:
    """WETH stood at 1,990 then and at 2,000 now: nothing was lost. A node that has forgotten leaves the prices of now."""
    feeds = {builders.feed_address("WETH"): {18_999: 1_990 * 10**8}, builders.feed_address("USDC"): 10**8}
    node = Node(sent={19_000: {"logs": SWAP}, 19_500: {}}, feeds=feeds)

    (swap, other) = recent_transactions_from(node, WALLET, node.head, node.nonce, list(feeds)).transactions

    assert dict(swap.feed_answers) == {builders.feed_address("WETH"): 1_990 * 10**8, builders.feed_address("USDC"): 10**8}
    assert other.feed_answers == ()
    (usage, _) = prior_day_usage(at(), RecentTransactions(0, (swap, other)))
    then = Fraction(GAS_WEI * 1_990, COIN)
    assert usage.loss / DOLLAR == then
    del feeds[builders.feed_address("USDC")]
    (swap, _) = recent_transactions_from(node, WALLET, node.head, node.nonce, [*feeds, builders.feed_address("USDC")]).transactions
    assert swap.feed_answers == ()


def test_new_store_reads_the_prior_day_once(tmp_path: Path) -> None:
    store = open_store(f"sqlite:///{tmp_path}/books.db", CHAIN_ID, WALLET, WETH.address)
    node = Node(sent={number: {"logs": SWAP} for number in RECENT})
    step = at(node.height, nonce_latest=node.nonce)
    step = replace(step, history=store.budgets.history(NOW_S))
    panel = EndpointPool([node], 1)

    history = with_recorded_day(step, store.balances, store.budgets, panel).history

    assert history.budgets.loss_24h == len(RECENT) * (10 + GAS_USD) * DOLLAR
    assert history.budgets.gas_24h_wei == len(RECENT) * GAS_WEI
    request_count = node.request_count
    assert with_recorded_day(replace(step, history=store.budgets.history(NOW_S)), store.balances, store.budgets, panel).history == history
    assert node.request_count == request_count
    assert store.budgets.history(NOW_S + 86_400).budgets.loss_24h == 0


def test_prior_day_stays_unknown_until_the_store_covers_a_day(tmp_path: Path) -> None:
    store = open_store(f"sqlite:///{tmp_path}/books.db", CHAIN_ID, WALLET, WETH.address)
    node = Node(sent={19_990: {}}, states_from=30_000)
    for later_s, unknown in ((0, True), (86_399, True), (86_400, False)):
        node.later_s = later_s
        step = at(node.height, nonce_latest=1)
        step = replace(step, snapshot=replace(step.snapshot, head=node.head), history=store.budgets.history(NOW_S + later_s))
        unknown_reason = with_recorded_day(step, store.balances, store.budgets, EndpointPool([node], 1)).history.budgets.unknown_reason
        assert bool(unknown_reason) is unknown
        assert not unknown or "--nothing-lost" in unknown_reason


def test_unreadable_day_is_read_again_after_growing_pauses(tmp_path: Path) -> None:
    """Each failed read is counted in the step's requests; the pause doubles from a minute to an hour, and the day stays unknown."""
    store = open_store(f"sqlite:///{tmp_path}/books.db", CHAIN_ID, WALLET, WETH.address)
    node = Node(sent={19_990: {}}, states_from=30_000)
    pause = PriorDayPause()
    reads_at_s: list[int] = []
    for later_s in range(0, 12_000, 30):
        node.later_s = later_s
        step = at(node.height, nonce_latest=1)
        step = replace(step, snapshot=replace(step.snapshot, head=node.head), history=store.budgets.history(NOW_S + later_s))
        requests_before = node.request_count
        step_after = with_recorded_day(step, store.balances, store.budgets, EndpointPool([node], 1), pause=pause)
        assert mentions(step_after.history.budgets.unknown_reason, "last 24 h", "--nothing-lost")
        assert step_after.snapshot.http_request_count - step.snapshot.http_request_count == node.request_count - requests_before
        if node.request_count > requests_before:
            reads_at_s.append(later_s)

    assert reads_at_s == [0, 60, 180, 420, 900, 1_860, 3_780, 7_380, 10_980]
    node.states_from = 0
    for later_s, is_known in ((14_579, False), (14_580, True)):
        node.later_s = later_s
        step = at(node.height, nonce_latest=1)
        feeds = tuple(replace(feed, updated_at_s=node.head.timestamp_s) for feed in step.snapshot.feeds)
        step = replace(step, snapshot=replace(step.snapshot, head=node.head, feeds=feeds), history=store.budgets.history(NOW_S + later_s))
        step_after = with_recorded_day(step, store.balances, store.budgets, EndpointPool([node], 1), pause=pause)
        assert (step_after.history.budgets.unknown_reason == "") is is_known


def test_exchange_without_a_price_is_not_recorded_as_no_loss(tmp_path: Path) -> None:
    """A feed that is silent for one look must not empty the budget for a day."""
    store = open_store(f"sqlite:///{tmp_path}/books.db", CHAIN_ID, WALLET, WETH.address)
    node = Node(sent={19_000: {"logs": SWAP}})
    step = replace(at(node.height, nonce_latest=1), history=store.budgets.history(NOW_S))
    feeds = tuple(feed for feed in step.snapshot.feeds if feed.feed != builders.feed_address("WETH"))

    blind = replace(step, snapshot=replace(step.snapshot, feeds=feeds))

    assert mentions(
        with_recorded_day(blind, store.balances, store.budgets, EndpointPool([node], 1)).history.budgets.unknown_reason,
        "WETH",
        "reference price",
    )
    history = with_recorded_day(step, store.balances, store.budgets, EndpointPool([node], 1)).history
    assert (history.budgets.unknown_reason, history.budgets.loss_24h) == ("", (10 + GAS_USD) * DOLLAR)


def test_prior_day_that_its_owner_confirms_is_known(tmp_path: Path) -> None:
    store = open_store(f"sqlite:///{tmp_path}/books.db", CHAIN_ID, WALLET, WETH.address)
    node = Node(sent={19_990: {}}, states_from=30_000)

    step = replace(at(node.height, nonce_latest=1), history=store.budgets.history(NOW_S))

    assert with_recorded_day(step, store.balances, store.budgets, EndpointPool([node], 1)).history.budgets.unknown_reason
    store.balances.record_prior_day((), 1)
    assert with_recorded_day(step, store.balances, store.budgets, EndpointPool([node], 1)).history.budgets.unknown_reason == ""


def test_wallet_without_transactions_makes_no_request(tmp_path: Path) -> None:
    store = open_store(f"sqlite:///{tmp_path}/books.db", CHAIN_ID, WALLET)
    node = Node()

    step = at(node.height, nonce_latest=0)

    assert with_recorded_day(step, store.balances, store.budgets, EndpointPool([node], 1)).history.budgets.unknown_reason == ""
    assert node.request_count == 0


def test_own_transaction_is_not_counted_twice(tmp_path: Path) -> None:
    store = open_store(f"sqlite:///{tmp_path}/books.db", CHAIN_ID, WALLET, WETH.address)
    store.steps.begin("s", 1, "{}")
    intent = store.journal.add_intent("s", IntentKind.SWAP, tx(0), grant(), "swap", 1, None)
    tx_hash = f"0x{19_000:064x}"
    store.journal.advance(intent.id, IntentState.SIGNED, 1, tx_hash=tx_hash)
    store.journal.advance(intent.id, IntentState.BROADCAST, 1)
    mined = store.journal.advance(intent.id, IntentState.MINED, 1, receipt=receipt(tx_hash, 19_000, f"0x{19_000:064x}"))
    store.budgets.book_intent(mined, Fraction(5), Fraction(7), 11, NOW_S - 5)
    node = Node(sent={19_000: {"logs": SWAP}, 19_001: {}})
    step = replace(at(node.height, nonce_latest=2), history=store.budgets.history(NOW_S))

    history = with_recorded_day(step, store.balances, store.budgets, EndpointPool([node], 1)).history

    assert history.budgets.loss_24h == 7 + GAS_USD * DOLLAR
    assert history.budgets.gas_24h_wei == 11 + GAS_WEI


def test_adoption_explains_what_the_wallet_did_meanwhile(tmp_path: Path) -> None:
    """Balances that another machine moved with the same key are known, not flows; what came before the books is not counted again."""
    store = open_store(f"sqlite:///{tmp_path}/books.db", CHAIN_ID, WALLET, WETH.address)
    before = at(18_500)
    store.balances.record(before.snapshot, {WETH.address: 10 * COIN, USDC.address: 20_000 * DOLLAR, NATIVE: COIN}, (), 0)
    store.journal.adopt_nonce(2, 1)
    node = Node(sent={18_000: {"logs": SWAP}, 19_000: {"logs": SWAP}})
    with_recorded_day(
        replace(at(node.height, nonce_latest=2), history=store.budgets.history(NOW_S)),
        store.balances,
        store.budgets,
        EndpointPool([node], 1),
    )

    own = {change.token: change.delta_raw for change in store.balances.expected().own_changes}

    assert own == {WETH.address: -COIN, USDC.address: 1_990 * DOLLAR, NATIVE: -GAS_WEI}
    assert store.budgets.history(NOW_S).budgets.loss_24h == 2 * (10 + GAS_USD) * DOLLAR
    assert PRICE == 2_000 * DOLLAR
