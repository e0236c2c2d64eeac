"""What each earlier transaction used of the daily limits, to the base unit (T6)."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from typing import Any

import pytest

from agent.chain.history import HistoryUnavailable, RecentTransactions, recent_transactions_from
from agent.execution.adopted_budgets import prior_day_usage
from agent.model import ExternalTransaction, StepInput
from agent.units import NATIVE
from tests.support import builders
from tests.support.ledgers import COIN, DOLLAR, GAS_WEI, LEDGER_USDC, LEDGER_WETH, at
from tests.support.old_chain import NOW_S, ROUTER, SPACING_S, SWAP, Node, event, told
from tests.support.transactions import OTHER, WALLET

BLOCK = 19_000
GAS_VALUE = Fraction(GAS_WEI * 2_000 * DOLLAR, COIN)
WEI_VALUE = Fraction(2_000 * DOLLAR, COIN)
STRANGER = builders.address("a stranger's token")
WBTC = builders.token("WBTC")
WETH_FEED = builders.feed_address("WETH")
USDC_FEED = builders.feed_address("USDC")
Log = dict[str, Any]


def outgoing(token: str, raw: int) -> Log:
    return event(token, WALLET, OTHER, raw)


def incoming(token: str, raw: int) -> Log:
    return event(token, OTHER, WALLET, raw)


COIN_OUT = outgoing(LEDGER_WETH.address, COIN)
WRAPPING = event(LEDGER_WETH.address, NATIVE, WALLET, COIN)


def usage(logs: list[Log], *, to: str = OTHER, wei: int = 0, status: int = 1, step: StepInput | None = None) -> ExternalTransaction:
    """The one transaction of the day, as it is recorded."""
    node = Node(sent={BLOCK: {"logs": logs, "to": to, "value": hex(wei), "status": status}})
    (transaction,) = prior_day_usage(step or at(), told(node))
    return transaction


def without_feed(step: StepInput, symbol: str) -> StepInput:
    feeds = tuple(feed for feed in step.snapshot.feeds if feed.feed != builders.feed_address(symbol))
    return replace(step, snapshot=replace(step.snapshot, owner=WALLET, feeds=feeds))


def test_swap_is_recorded_whole() -> None:
    changes = ((NATIVE, -GAS_WEI), (LEDGER_WETH.address, -COIN), (LEDGER_USDC.address, 1_990 * DOLLAR))

    expected = ExternalTransaction(
        tx_hash=f"0x{BLOCK:064x}",
        block=BLOCK,
        chain_s=NOW_S - (20_000 - BLOCK) * SPACING_S,
        turnover=Fraction(1_995 * DOLLAR),
        loss=10 * DOLLAR + GAS_VALUE,
        gas_wei=GAS_WEI,
        changes=tuple(sorted(changes)),
        nonce=0,
        outflow=Fraction(0),
    )
    assert usage(SWAP, to=ROUTER) == expected


# --- By the router, whose losses are losses alone.


@pytest.mark.parametrize(
    ("logs", "status", "loss", "turnover"),
    [
        pytest.param(SWAP, 1, 10 * DOLLAR, 1_995 * DOLLAR, id="swap"),
        pytest.param([COIN_OUT, incoming(LEDGER_USDC.address, 3_000 * DOLLAR)], 1, 0, 2_500 * DOLLAR, id="gain"),
        pytest.param(
            [COIN_OUT, incoming(LEDGER_USDC.address, 1)], 1, 2_000 * DOLLAR - 1, Fraction(2_000 * DOLLAR + 1, 2), id="a unit back"
        ),
        pytest.param([COIN_OUT], 1, 2_000 * DOLLAR, 1_000 * DOLLAR, id="nothing back"),
        pytest.param([], 0, 0, 0, id="revert"),
        pytest.param([outgoing(STRANGER, 10**30)], 1, 0, 0, id="event of a stranger"),
    ],
)
def test_trade_costs_its_loss_and_all_their_gas(logs: list[Log], status: int, loss: int, turnover: Fraction | int) -> None:
    trade = usage(logs, to=ROUTER, status=status)

    assert (trade.loss, trade.turnover) == (loss + GAS_VALUE, turnover)
    assert (trade.outflow, trade.gas_wei) == (0, GAS_WEI)


# --- Elsewhere, where what does not come back was paid out.


@pytest.mark.parametrize(
    ("logs", "loss", "turnover", "outflow"),
    [
        pytest.param(SWAP, 10 * DOLLAR, 1_995 * DOLLAR, 10 * DOLLAR, id="exchange"),
        pytest.param(
            [COIN_OUT, incoming(LEDGER_USDC.address, 2_000 * DOLLAR - 1)], 1, 2_000 * DOLLAR - Fraction(1, 2), 1, id="loss of a unit"
        ),
        pytest.param([COIN_OUT, incoming(LEDGER_USDC.address, 2_000 * DOLLAR)], 0, 2_000 * DOLLAR, 0, id="even"),
        pytest.param(
            [COIN_OUT, incoming(LEDGER_USDC.address, 2_000 * DOLLAR + 1)], 0, 2_000 * DOLLAR + Fraction(1, 2), 0, id="gain below the gas"
        ),
        pytest.param([COIN_OUT, incoming(LEDGER_USDC.address, 2_001 * DOLLAR)], 0, Fraction(4_001 * DOLLAR, 2), 0, id="gain"),
        pytest.param(
            [COIN_OUT, incoming(LEDGER_USDC.address, 1)],
            2_000 * DOLLAR - 1,
            Fraction(2_000 * DOLLAR + 1, 2),
            2_000 * DOLLAR - 1,
            id="payment for a unit",
        ),
        pytest.param(
            [outgoing(LEDGER_WETH.address, 1), incoming(LEDGER_USDC.address, 100 * DOLLAR)],
            0,
            (100 * DOLLAR + WEI_VALUE) / 2,
            0,
            id="claim for a unit",
        ),
        pytest.param([COIN_OUT], 0, 0, 2_000 * DOLLAR, id="payment"),
        pytest.param([outgoing(LEDGER_USDC.address, 1)], 0, 0, 1, id="payment of a unit"),
        pytest.param([COIN_OUT, outgoing(LEDGER_USDC.address, 5 * DOLLAR)], 0, 0, 2_005 * DOLLAR, id="payment of two tokens"),
        pytest.param([incoming(LEDGER_USDC.address, 100 * DOLLAR)], 0, 0, 0, id="receipt"),
        pytest.param([incoming(LEDGER_USDC.address, 1)], 0, 0, 0, id="receipt of a unit"),
        pytest.param([incoming(STRANGER, 10**30)], 0, 0, 0, id="airdrop"),
        pytest.param([], 0, 0, 0, id="nothing moved"),
    ],
)
def test_transaction_elsewhere_pays_out_what_it_does_not_return(logs: list[Log], loss: int, turnover: Fraction | int, outflow: int) -> None:
    transaction = usage(logs)

    assert (transaction.loss, transaction.turnover, transaction.outflow) == (loss + GAS_VALUE, turnover, outflow)


@pytest.mark.parametrize(
    ("logs", "wei", "loss", "turnover", "outflow"),
    [
        pytest.param([], COIN, 0, 0, 2_000 * DOLLAR, id="payment"),
        pytest.param([COIN_OUT], 2 * COIN, 0, 0, 6_000 * DOLLAR, id="payment of both"),
        pytest.param([incoming(LEDGER_USDC.address, 1_990 * DOLLAR)], COIN, 10 * DOLLAR, 1_995 * DOLLAR, 10 * DOLLAR, id="exchange"),
        pytest.param([WRAPPING], COIN, 0, 0, 0, id="wrapping"),
        pytest.param([WRAPPING, outgoing(LEDGER_USDC.address, 100 * DOLLAR)], COIN, 0, 0, 100 * DOLLAR, id="payment beside a wrapping"),
        pytest.param([WRAPPING, incoming(LEDGER_USDC.address, 100 * DOLLAR)], COIN, 0, 0, 0, id="receipt beside a wrapping"),
    ],
)
def test_native_coin_counts_as_its_wrapped_token(logs: list[Log], wei: int, loss: int, turnover: int, outflow: int) -> None:
    transaction = usage(logs, wei=wei)

    assert (transaction.loss, transaction.turnover, transaction.outflow) == (loss + GAS_VALUE, turnover, outflow)


def test_reverted_payment_costs_its_gas_alone() -> None:
    reverted = usage([], wei=COIN, status=0)

    assert (reverted.loss, reverted.turnover, reverted.outflow, reverted.changes) == (GAS_VALUE, 0, 0, ((NATIVE, -GAS_WEI),))


def test_airdrop_is_remembered_without_a_value() -> None:
    assert dict(usage([incoming(STRANGER, 10**30)]).changes)[STRANGER] == 10**30


# --- Prices.


def test_gas_without_a_price_of_the_coin_is_unknown() -> None:
    with pytest.raises(HistoryUnavailable, match="WETH"):
        usage([], step=without_feed(at(), "WETH"))


def test_asset_that_left_without_a_price_is_unknown() -> None:
    step = without_feed(builders.step_input({"WETH": 4_000, "WBTC": 3_000, "USDC": 3_000}), "WBTC")

    with pytest.raises(HistoryUnavailable, match="WBTC"):
        usage([outgoing(WBTC.address, 1)], step=step)


def test_asset_that_came_back_needs_no_price() -> None:
    step = without_feed(builders.step_input({"WETH": 4_000, "WBTC": 3_000, "USDC": 3_000}), "WBTC")

    assert usage([outgoing(WBTC.address, 5), incoming(WBTC.address, 5)], step=step).loss == GAS_VALUE


@pytest.mark.parametrize(
    ("feeds", "answers"),
    [
        pytest.param(
            {WETH_FEED: {18_999: 1_990 * 10**8}, USDC_FEED: 10**8}, ((WETH_FEED, 1_990 * 10**8), (USDC_FEED, 10**8)), id="remembered"
        ),
        pytest.param({WETH_FEED: {18_999: 1_990 * 10**8}}, (), id="one of them forgotten"),
    ],
)
def test_feeds_are_read_just_before_an_exchange(feeds: dict[str, Any], answers: tuple[tuple[str, int], ...]) -> None:
    """A transaction that moved nothing needs no price."""
    node = Node(sent={BLOCK: {"logs": SWAP}, 19_500: {}}, feeds=feeds)

    (swap, other) = recent_transactions_from(node, WALLET, node.head, node.nonce, [WETH_FEED, USDC_FEED]).transactions

    assert sorted(swap.feed_answers) == sorted(answers)
    assert other.feed_answers == ()


@pytest.mark.parametrize(
    ("answer", "price"),
    [
        pytest.param(1_990 * 10**8, 1_990, id="known then"),
        pytest.param(0, 2_000, id="unknown then"),
    ],
)
def test_price_of_then_goes_before_that_of_now(answer: int, price: int) -> None:
    """WETH stood at 1,990 then and at 2,000 now: at the price of then nothing was lost."""
    (swap,) = told(Node(sent={BLOCK: {"logs": SWAP}})).transactions

    (transaction,) = prior_day_usage(at(), RecentTransactions(0, (replace(swap, feed_answers=((WETH_FEED, answer),)),)))

    assert transaction.loss == Fraction(GAS_WEI * price * DOLLAR, COIN) + (price - 1_990) * DOLLAR


def test_answer_of_then_is_fresh_if_late_now() -> None:
    step = at()
    late_feeds = tuple(replace(feed, updated_at_s=feed.updated_at_s - 10**6) for feed in step.snapshot.feeds)
    late_step = replace(step, snapshot=replace(step.snapshot, feeds=late_feeds))
    (swap,) = told(Node(sent={BLOCK: {"logs": SWAP}})).transactions
    swap = replace(swap, feed_answers=((WETH_FEED, 1_990 * 10**8), (USDC_FEED, 10**8)))

    (transaction,) = prior_day_usage(late_step, RecentTransactions(0, (swap,)))

    assert transaction.loss == Fraction(GAS_WEI * 1_990 * DOLLAR, COIN)
