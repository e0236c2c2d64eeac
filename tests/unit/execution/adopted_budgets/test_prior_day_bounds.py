"""What each earlier transaction used of the daily limits, to the base unit; and the earlier transactions of a Safe, which are unknown."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from agent.chain.endpoints import EndpointPool
from agent.chain.history import HistoryUnavailable, RecentTransactions
from agent.errors import Retryable
from agent.execution import adopted_budgets
from agent.execution.adopted_budgets import prior_day_usage, with_recorded_day
from agent.model import Budgets, ExternalTransaction, StepInput
from agent.store import Store, open_store
from agent.units import NATIVE
from tests.support import builders
from tests.support.ledgers import COIN, DOLLAR, GAS_WEI, at
from tests.support.ledgers import LEDGER_USDC as USDC
from tests.support.ledgers import LEDGER_WETH as WETH
from tests.support.old_chain import NOW_S, ROUTER, SPACING_S, SWAP, Node, event, told
from tests.support.transactions import CHAIN_ID, OTHER, WALLET

BLOCK = 19_000
GAS_VALUE = Fraction(GAS_WEI * 2_000 * DOLLAR, COIN)
PER_WEI = Fraction(2_000 * DOLLAR, COIN)
STRANGER = builders.address("a stranger's token")


def usage(*logs: dict[str, Any], to: str = OTHER, wei: int = 0, status: int = 1) -> ExternalTransaction:
    node = Node(sent={BLOCK: {"logs": list(logs), "to": to, "value": hex(wei), "status": status}})
    (transaction,) = prior_day_usage(at(), told(node))
    return transaction


def outgoing(token: str, raw: int) -> dict[str, Any]:
    return event(token, WALLET, OTHER, raw)


def incoming(token: str, raw: int) -> dict[str, Any]:
    return event(token, OTHER, WALLET, raw)


WRAPPING = event(WETH.address, NATIVE, WALLET, COIN)


def test_prior_usage__swap_is_recorded_whole() -> None:
    tx_hash, chain_s = f"0x{BLOCK:064x}", NOW_S - (20_000 - BLOCK) * SPACING_S
    changes = ((NATIVE, -GAS_WEI), (WETH.address, -COIN), (USDC.address, 1_990 * DOLLAR))
    loss = 10 * DOLLAR + GAS_VALUE

    expected = ExternalTransaction(tx_hash, BLOCK, chain_s, Fraction(1_995 * DOLLAR), loss, GAS_WEI, tuple(sorted(changes)), 0)

    assert usage(*SWAP, to=ROUTER) == expected


def test_prior_usage__loss_elsewhere_is_paid_out_without_its_gas() -> None:
    assert usage(*SWAP).outflow == 10 * DOLLAR


def test_prior_usage__gain_elsewhere_pays_nothing_out() -> None:
    assert usage(outgoing(WETH.address, COIN), incoming(USDC.address, 2_001 * DOLLAR)).outflow == 0


def test_prior_usage_without_transfers_pays_nothing_out() -> None:
    assert usage().outflow == 0


def test_prior_usage__loss_without_transfers_is_its_gas() -> None:
    assert usage().loss == GAS_VALUE


def test_prior_usage_gain_below_its_gas_counts_as_the_gas() -> None:
    assert usage(outgoing(WETH.address, COIN), incoming(USDC.address, 2_000 * DOLLAR + 1)).loss == GAS_VALUE


def test_prior_usage__loss_of_one_base_unit_is_added_to_the_gas() -> None:
    assert usage(outgoing(WETH.address, COIN), incoming(USDC.address, 2_000 * DOLLAR - 1)).loss == GAS_VALUE + 1


def test_prior_usage_base_unit_in_return_makes_an_exchange() -> None:
    payment = usage(outgoing(WETH.address, COIN), incoming(USDC.address, 1))

    assert payment.loss == 2_000 * DOLLAR - 1 + GAS_VALUE
    assert payment.turnover == Fraction(2_000 * DOLLAR + 1, 2)


def test_prior_usage_base_unit_paid_makes_an_exchange() -> None:
    claim = usage(outgoing(WETH.address, 1), incoming(USDC.address, 100 * DOLLAR))

    assert claim.turnover == (100 * DOLLAR + PER_WEI) / 2


def test_prior_usage__receipt_alone_is_no_turnover() -> None:
    assert usage(incoming(USDC.address, 100 * DOLLAR)).turnover == 0


def test_prior_usage__receipt_of_one_base_unit_is_no_payout() -> None:
    assert usage(incoming(USDC.address, 1)).outflow == 0


def test_prior_usage__payment_of_one_base_unit_counts() -> None:
    assert usage(outgoing(USDC.address, 1)).outflow == 1


def test_prior_usage__two_tokens_paid_at_once_both_count() -> None:
    assert usage(outgoing(WETH.address, COIN), outgoing(USDC.address, 5 * DOLLAR)).outflow == 2_005 * DOLLAR


def test_prior_usage_coin_and_its_wrapped_token_are_summed() -> None:
    assert usage(outgoing(WETH.address, COIN), wei=2 * COIN).outflow == 6_000 * DOLLAR


def test_prior_usage__payment_beside_a_wrapping_is_no_exchange() -> None:
    """The coin and its wrapped token cancel, and zero is no receipt."""
    payment = usage(WRAPPING, outgoing(USDC.address, 100 * DOLLAR), wei=COIN)

    assert (payment.loss, payment.turnover, payment.outflow) == (GAS_VALUE, 0, 100 * DOLLAR)


def test_prior_usage__receipt_beside_a_wrapping_is_no_exchange() -> None:
    claim = usage(WRAPPING, incoming(USDC.address, 100 * DOLLAR), wei=COIN)

    assert (claim.loss, claim.turnover, claim.outflow) == (GAS_VALUE, 0, 0)


def test_prior_usage__reverted_payment_costs_its_gas_alone() -> None:
    reverted = usage(wei=COIN, status=0)

    assert (reverted.loss, reverted.outflow, reverted.changes) == (GAS_VALUE, 0, ((NATIVE, -GAS_WEI),))


def test_prior_usage_stranger_s_token_has_no_value() -> None:
    airdrop = usage(incoming(STRANGER, 10**30))

    assert (airdrop.turnover, dict(airdrop.changes)[STRANGER]) == (0, 10**30)


def without_feed(symbol: str) -> StepInput:
    step = at()
    feeds = tuple(feed for feed in step.snapshot.feeds if feed.feed != builders.feed_address(symbol))
    return replace(step, snapshot=replace(step.snapshot, feeds=feeds))


def test_prior_usage__gas_without_a_price_of_the_coin_is_unknown() -> None:
    with pytest.raises(HistoryUnavailable, match="WETH"):
        prior_day_usage(without_feed("WETH"), told(Node(sent={BLOCK: {}})))


def three_assets() -> StepInput:
    """Return a portfolio with WBTC, whose feed does not answer."""
    step = builders.step_input({"WETH": 4_000, "WBTC": 3_000, "USDC": 3_000})
    feeds = tuple(feed for feed in step.snapshot.feeds if feed.feed != builders.feed_address("WBTC"))
    return replace(step, snapshot=replace(step.snapshot, owner=WALLET, feeds=feeds))


WBTC = builders.token("WBTC")


def test_prior_usage__asset_that_left_without_a_price_is_unknown() -> None:
    with pytest.raises(HistoryUnavailable, match="WBTC"):
        prior_day_usage(three_assets(), told(Node(sent={BLOCK: {"logs": [outgoing(WBTC.address, 1)], "to": OTHER}})))


def test_prior_usage_asset_that_came_back_needs_no_price() -> None:
    logs = [outgoing(WBTC.address, 5), incoming(WBTC.address, 5)]

    (transaction,) = prior_day_usage(three_assets(), told(Node(sent={BLOCK: {"logs": logs, "to": OTHER}})))

    assert transaction.loss == GAS_VALUE


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(f"sqlite:///{tmp_path}/books.db", CHAIN_ID, WALLET, WETH.address)


def budgets_after(store: Store, node: Node, nonce: int, *, is_contract: bool, unknown: str = "") -> Budgets:
    """Return the budgets of the step after the prior day has been asked for."""
    step = at(node.height, nonce_latest=nonce)
    history = store.budgets.history(NOW_S)
    step = replace(step, history=replace(history, budgets=replace(history.budgets, unknown_reason=unknown)))
    panel = EndpointPool([node], 1)
    return with_recorded_day(step, store.balances, store.budgets, panel, is_contract).history.budgets


def test_prior_day__safe_with_transactions_is_unknown(store: Store) -> None:
    node = Node(sent={BLOCK: {"logs": SWAP}})

    unknown_reason = budgets_after(store, node, 1, is_contract=True).unknown_reason

    assert "Safe's owners" in unknown_reason
    assert "an earlier confirmation does not cover a later one" in unknown_reason
    assert node.request_count == 0


def test_prior_day__safe_with_transactions_stays_unknown(store: Store) -> None:
    node = Node(sent={BLOCK: {"logs": SWAP}})

    budgets_after(store, node, 1, is_contract=True)

    assert budgets_after(store, node, 1, is_contract=True).unknown_reason


def test_prior_day__safe_without_transactions_is_known(store: Store) -> None:
    assert budgets_after(store, Node(), 0, is_contract=True).unknown_reason == ""
    assert store.balances.is_prior_day_known(NOW_S)


def test_prior_day__wallet_of_a_key_with_transactions_is_read(store: Store) -> None:
    budgets = budgets_after(store, Node(sent={BLOCK: {"logs": SWAP}}), 1, is_contract=False)

    assert (budgets.unknown_reason, budgets.loss_24h) == ("", 10 * DOLLAR + GAS_VALUE)


def test_prior_day__its_payouts_count_in_the_limit_of_payouts(store: Store) -> None:
    node = Node(sent={BLOCK: {"logs": [outgoing(USDC.address, 7 * DOLLAR)], "to": OTHER}})

    assert budgets_after(store, node, 1, is_contract=False).outflow_24h == 7 * DOLLAR


def test_prior_day_trades_are_valued_at_the_feeds_of_then(store: Store) -> None:
    feeds = {builders.feed_address("WETH"): {BLOCK - 1: 1_990 * 10**8}, builders.feed_address("USDC"): 10**8}

    budgets = budgets_after(store, Node(sent={BLOCK: {"logs": SWAP}}, feeds=feeds), 1, is_contract=False)

    assert budgets.loss_24h == Fraction(GAS_WEI * 1_990 * DOLLAR, COIN)


def test_prior_day__that_no_endpoint_answers_is_unknown(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> RecentTransactions:
        raise Retryable("no answer")

    monkeypatch.setattr(adopted_budgets, "recent_transactions", fail)

    assert "no answer" in budgets_after(store, Node(sent={BLOCK: {}}), 1, is_contract=False).unknown_reason


@pytest.mark.parametrize(("answer", "price"), [(1_990 * 10**8, 1_990), (0, 2_000)], ids=["known then", "unknown then"])
def test_prior_usage__price_of_then_goes_before_that_of_now(answer: int, price: int) -> None:
    [swap] = told(Node(sent={BLOCK: {"logs": SWAP}})).transactions
    then = replace(swap, feed_answers=((builders.feed_address("WETH"), answer),))

    [usage_then] = prior_day_usage(at(), RecentTransactions(0, (then,)))

    assert usage_then.loss == Fraction(GAS_WEI * price * DOLLAR, COIN) + (price - 1_990) * DOLLAR


def test_prior_usage_answer_of_then_is_fresh_if_late_now() -> None:
    step = at()
    late = tuple(replace(feed, updated_at_s=feed.updated_at_s - 10**6) for feed in step.snapshot.feeds)
    [swap] = told(Node(sent={BLOCK: {"logs": SWAP}})).transactions
    answers = ((builders.feed_address("WETH"), 1_990 * 10**8), (builders.feed_address("USDC"), 10**8))
    then = RecentTransactions(0, (replace(swap, feed_answers=answers),))

    [usage_then] = prior_day_usage(replace(step, snapshot=replace(step.snapshot, feeds=late)), then)

    assert usage_then.loss == Fraction(GAS_WEI * 1_990 * DOLLAR, COIN)


def test_prior_day__reason_that_was_there_before_is_kept(store: Store) -> None:
    why = budgets_after(store, Node(sent={BLOCK: {}}), 1, is_contract=True, unknown="a trade has no price").unknown_reason

    assert why.startswith("a trade has no price; the wallet's last 24 h are not known")
