"""The books of the margin account: lines that sum exactly, transfers apart from results, funding by market and day."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent import codec
from agent.accounting import entries as book
from agent.accounting.entries import EntryPrices, SettledTransaction
from agent.accounting.export import EVENT_COLUMNS, RotkiAssets, TokenNames, rotki_events
from agent.accounting.futures import FuturesChange, funding_days, futures_changes, futures_sums, sum_changes
from agent.accounting.futures_export import futures_profit_by_year, futures_table
from agent.accounting.performance import BuyAndHoldTokens, performance
from agent.app.records.ledger import _futures_event_fields
from agent.layers.futures.accounting import futures_effect, futures_entry, margin_entry
from agent.model import (
    Entry,
    FuturesEntry,
    FuturesFill,
    MarginReading,
    MarketReading,
    PerpFill,
    PerpFunding,
    Receipt,
    SettledFunding,
    Valuation,
    ValuedHolding,
)
from agent.units import NATIVE, Token
from tests.support.constants import DAY_S
from tests.support.ledgers import COUNTED, USDC, WETH
from tests.support.perpetuals.accounts import USD, account, market
from tests.support.perpetuals.steps import FUTURES_POLICY, step_of

E6 = 10**6
E12 = 10**12
E18 = 10**18
OPENING = BuyAndHoldTokens(USDC, WETH)
PRICES = EntryPrices({USDC: Fraction(1), WETH: Fraction(2_000, E12)}, WETH)


def reading(collateral: int = 0, realised: int = 0, unrealised: int = 0, pending: int = 0, size: int = 0, rate: int = 0) -> MarginReading:
    """Amounts in whole coins of the quote, of 18 decimals; collateral has 6."""
    market = MarketReading("0xeth", "ETH", size * E18, size * 2_000 * E18, pending * E18, Fraction(rate, 10_000))
    return MarginReading(E12, collateral * E18, realised * E18, unrealised * E18, (market,))


def valued(number: int, margin: MarginReading | None, wallet: int = 1_000, at_s: int | None = None) -> Valuation:
    valued_holding = ValuedHolding(USDC, wallet * E6, 0, Fraction(1), 10_000, 0, margin)
    return Valuation(number, number * 3_600 if at_s is None else at_s, valued_holding.total_raw * valued_holding.price, (valued_holding,))


def change(number: int, moved: int = 0) -> SettledTransaction:
    return SettledTransaction(f"intent {number}", number, number * 3_600, f"0x{number}", "", {USDC: moved * E6} if moved else {}, 0)


def effect(fee: int = 0, realised: int = 0, size: int = 0, funding: int = 0) -> FuturesEntry:
    fills = (FuturesFill("0xeth", "ETH", size * E18, abs(size) * 2_000 * E18, fee * E18, realised * E18),) if size or fee else ()
    return FuturesEntry(USDC, E12, Fraction(1), fills, (SettledFunding("0xeth", "ETH", funding * E18),) if funding else ())


def order(number: int, **parts: int) -> Entry:
    return futures_entry(change(number), PRICES, COUNTED, effect(**parts))


def deposit(number: int, coins: int) -> Entry:
    return margin_entry(change(number, -coins), PRICES, COUNTED, None)


def only(futures_changes: tuple[FuturesChange, ...]) -> FuturesChange:
    [change] = futures_changes
    return change


def test_a_deposit_is_a_move_inside_the_portfolio() -> None:
    entry = deposit(2, 400)
    assert {posting.account: posting.raw for posting in entry.postings} == {book.WALLET: -400 * E6, book.MARGIN: 400 * E6}
    assert book.unbalanced_tokens(entry) == ()
    valuations = (valued(1, reading(100)), valued(3, reading(500), wallet=600))
    change = only(futures_changes([entry], valuations))
    assert (change.deposited_value, change.result.transferred_value, change.result.profit) == (400 * E6, 0, 0)
    whole = performance([entry], valuations, 0, 10**9, USDC, OPENING)
    assert (whole.deposits, whole.withdrawals, whole.profit, whole.twr) == (0, 0, 0, 0)


def test_a_deposit_that_is_not_final_yet_is_no_flow() -> None:
    for moved in (400, -400):
        valuations = (valued(1, reading(1_000, unrealised=5)), valued(3, reading(1_000 + moved, unrealised=8), wallet=1_000 - moved))
        whole = performance([], valuations, 0, 10**9, USDC, OPENING)
        assert (whole.deposits, whole.withdrawals, whole.profit, whole.futures_profit.transferred_value) == (0, 0, 3 * E6, 0)


def test_price_fees_and_funding_are_the_profit_to_the_base_unit() -> None:
    before = valued(1, reading(1_000, size=1, unrealised=50, pending=3))
    after = valued(5, reading(1_000, realised=28, size=2, unrealised=90, pending=1))
    entries = [order(2, fee=2, size=2, funding=5), order(3, fee=1, size=-1, realised=33)]
    change = only(futures_changes(entries, (before, after)))
    assert (change.result.fees, change.result.funding, change.result.realised_profit) == (3 * E6, 3 * E6, 33 * E6)
    assert change.result.price_result - change.result.fees - change.result.funding == after.value - before.value == 70 * E6
    whole = performance(entries, (before, after), 0, 10**9, USDC, OPENING)
    assert whole.profit == whole.futures_profit.profit == 70 * E6


def test_money_sent_to_the_account_by_someone_else_is_no_profit() -> None:
    valuations = (valued(1, reading(1_000, unrealised=10)), valued(2, reading(1_600, unrealised=30)))
    whole = performance([], valuations, 0, 10**9, USDC, OPENING)
    assert (whole.deposits, whole.profit, whole.futures_profit.transferred_value) == (600 * E6, 20 * E6, 600 * E6)


@pytest.mark.parametrize(("tx_hash", "fees"), [("0x" + "ab" * 32, [2, 0]), ("0x" + "ab" * 16, [0, 2])], ids=["on chain", "off chain"])
def test_fill_in_the_block_of_a_valuation_is_part_of_it_on_chain(tx_hash: str, fees: list[int]) -> None:
    """The order of an off-chain venue is filled after the snapshot of its step, whose block and time it has."""
    entry = replace(order(2, fee=2, size=1), tx_hash=tx_hash)
    valuations = (valued(1, reading(1_000)), valued(2, reading(1_000)), valued(3, reading(1_000)))
    assert [change.result.fees for change in futures_changes([entry], valuations)] == [fee * E6 for fee in fees]


def test_an_account_that_enters_the_books_is_no_profit() -> None:
    valuations = (valued(1, None), valued(2, reading(1_600)), valued(3, None))
    whole = performance([], valuations, 0, 10**9, USDC, OPENING)
    assert (whole.deposits, whole.withdrawals, whole.profit) == (1_600 * E6, 1_600 * E6, 0)


def test_funding_that_someone_else_settled_stays_funding() -> None:
    before = valued(1, reading(1_000, size=1, pending=8))
    after = valued(2, reading(1_000, realised=-9, size=1, pending=0))
    change = only(futures_changes([], (before, after)))
    assert (change.result.funding, change.result.price_result, change.result.transferred_value) == (1 * E6, 0, 0), (
        "8 were owed before, 9 were settled"
    )


def test_a_liquidation_is_a_loss_and_no_transfer() -> None:
    before = valued(1, reading(1_000, size=2, unrealised=-100))
    after = valued(2, reading(1_000, realised=-160, size=1, unrealised=-55))
    change = only(futures_changes([], (before, after)))
    assert (change.result.transferred_value, change.result.funding, change.result.profit) == (0, 0, -115 * E6)


def test_a_withdrawal_that_settles_profit_is_no_result() -> None:
    before = valued(1, reading(1_000, realised=50))
    after = valued(3, reading(750), wallet=1_300)
    entry = margin_entry(change(2, 300), PRICES, COUNTED, None)
    only_change = only(futures_changes([entry], (before, after)))
    assert (only_change.deposited_value, only_change.result.transferred_value, only_change.result.profit) == (-300 * E6, 0, 0)


@pytest.mark.parametrize(
    ("collateral_after", "deposits", "profit"),
    [
        pytest.param(1_300, 600, 0, id="others added 600"),
        pytest.param(701, 1, 0, id="others added 1"),
        pytest.param(700, 0, 0, id="nothing else"),
        pytest.param(699, 0, -1, id="a fee of 1"),
    ],
)
def test_withdrawal__leaves_what_others_add_a_deposit(collateral_after: int, deposits: int, profit: int) -> None:
    entry = margin_entry(change(2, 300), PRICES, COUNTED, None)
    valuations = (valued(1, reading(1_000)), valued(3, reading(collateral_after), wallet=1_300))
    whole = performance([entry], valuations, 0, 10**9, USDC, OPENING)
    assert (whole.deposits, whole.profit) == (deposits * E6, profit * E6)


cash = st.integers(-500, 500)


@given(cash, cash, cash, st.integers(0, 20), cash, cash)
def test_the_lines_sum_to_the_change_whatever_happens(
    collateral: int, realised: int, unrealised: int, fee: int, funding: int, pending: int
) -> None:
    before = valued(1, reading(5_000, 7, 9, 3, 1))
    after = valued(3, reading(5_000 + collateral, realised, unrealised, pending, 2))
    entries = [order(2, fee=fee, size=1, realised=realised, funding=funding)]
    change = only(futures_changes(entries, (before, after)))
    assert (
        after.value - before.value
        == change.deposited_value
        + change.result.transferred_value
        + change.result.price_result
        - change.result.fees
        - change.result.funding
    )
    assert sum((value for _, value in change.funding_by_market), Fraction(0)) == change.result.funding
    whole = performance(entries, (before, after), 0, 10**9, USDC, OPENING)
    assert whole.profit == change.result.profit == sum_changes([change]).profit


def test_funding_is_booked_by_market_and_day() -> None:
    first = valued(1, reading(1_000, size=1, pending=0, rate=1), at_s=10 * DAY_S)
    second = valued(2, reading(1_000, size=1, pending=4, rate=3), at_s=10 * DAY_S + 3_600)
    third = valued(3, reading(1_000, size=1, pending=2, rate=-1), at_s=11 * DAY_S + 60)
    days = funding_days((first, second, third), futures_changes([], (first, second, third)))
    assert [(day.day_s // DAY_S, day.symbol, day.paid / E6, day.daily_rate * 10_000, day.reading_count) for day in days] == [
        (10, "ETH", 4, 2, 2),
        (11, "ETH", -2, -1, 1),
    ]


def test_readings_and_effects__are_read_back_where_they_are() -> None:
    plain = valued(1, None)
    margined = valued(1, reading(5, 1, 2, 3, 4, 5))
    assert codec.from_jsonable(ValuedHolding, codec.to_jsonable(plain.holdings[0])) == plain.holdings[0]
    assert codec.from_jsonable(ValuedHolding, codec.to_jsonable(margined.holdings[0])) == margined.holdings[0]
    order_entry = order(2, fee=1, size=1, funding=2)
    assert codec.loads(Entry, codec.dumps(order_entry)) == order_entry
    assert codec.loads(Entry, codec.dumps(replace(order_entry, futures=None))) == replace(order_entry, futures=None)
    assert NATIVE in COUNTED


def test_realised_futures__count_in_their_settlement_s_year() -> None:
    first = order(2, size=-1, realised=40, funding=-3)
    second = replace(order(3, size=-1, realised=-10), chain_s=366 * DAY_S)
    unpriced = replace(first, futures=replace(effect(realised=7, size=1), price=None))
    assert futures_profit_by_year([first, second, unpriced, deposit(1, 400)]) == {"1970": 43 * E6, "1971": -10 * E6}
    assert futures_profit_by_year([first, second], lambda at_s: Fraction(1, 2) if at_s < DAY_S else Fraction(2)) == {
        "1970": 43 * E6 / 2,
        "1971": -20 * E6,
    }


NAMES = TokenNames({USDC: Token(USDC, "USDC", 6)}, Token(USDC, "USDC", 6))


def test_the_export_names_each_fee_profit_payment_and_move() -> None:
    entries = [deposit(1, 400), order(2, fee=2, size=2), order(3, fee=1, size=-1, realised=33, funding=5)]
    rows = [dict(zip(futures_table(entries, NAMES).columns, row, strict=True)) for row in futures_table(entries, NAMES).rows]
    assert [(row["event"], row["amount"], row["value"]) for row in rows] == [
        ("margin deposit", "400", "400"),
        ("trading fee", "-2", "-2"),
        ("trading fee", "-1", "-1"),
        ("realised profit", "33", "33"),
        ("funding", "-5", "-5"),
    ]
    assert futures_profit_by_year(entries) == {"1970": 28 * E6}, (
        "the profit less the funding; fees of openings count when their share is closed"
    )
    assert {row["currency"] for row in rows} == {"USDC"}
    assert rows[1]["size"] == "2"
    assert futures_table([], NAMES).rows == ()


@pytest.mark.parametrize(("price", "value"), [(Fraction(1), "-5"), (None, None)], ids=["priced", "no price"])
def test_ledger_document__event_without_a_price__has_no_value(price: Fraction | None, value: str | None) -> None:
    entry = replace(order(3), futures=replace(effect(funding=5), price=price))
    assert _futures_event_fields(entry, NAMES) == {
        "futures": [{"event": "funding", "symbol": "ETH", "amount": "-5", "value": value}],
    }


def test_effect__other_market_s_fill_has_unknown_decimals() -> None:
    """Market and quote differ in decimals, as at Hyperliquid: a size in those of the quote would be a hundredth."""
    eth = replace(market("ETH"), symbol="Ether", size_decimals=4)
    step = step_of(account(10_000, {}, eth))
    key = (USD.address, FUTURES_POLICY.trader)
    receipt = Receipt(
        "0x1", 1, 7, "0x2", 0, 0, (),
        fills=tuple(PerpFill(*key, name, 20_000, -4_000 * E18, E18) for name in ("ETH", "DOGE")),
        funding=tuple(PerpFunding(*key, name, 3 * E18) for name in ("ETH", "DOGE")),
    )  # fmt: skip
    effect_of_receipt = futures_effect(step.snapshot, FUTURES_POLICY, receipt, PRICES)
    assert [(fill.symbol, fill.size_decimals) for fill in effect_of_receipt.fills] == [("Ether", 4), ("DOGE", None)]
    assert effect_of_receipt.funding == (SettledFunding("ETH", "Ether", 3 * E18), SettledFunding("DOGE", "DOGE", 3 * E18))
    entry = futures_entry(change(2), PRICES, COUNTED, replace(effect_of_receipt, collateral=USDC))
    assert codec.loads(Entry, codec.dumps(entry)) == entry
    columns = futures_table([entry], NAMES).columns
    rows = [dict(zip(columns, row, strict=True)) for row in futures_table([entry], NAMES).rows]
    assert [(row["symbol"], row["size"]) for row in rows if row["event"] == "trading fee"] == [("Ether", "2"), ("DOGE", "")]


@pytest.mark.parametrize(
    "key", [("0xOtherHouse", FUTURES_POLICY.trader), (USD.address, "0xOtherTrader")], ids=["another venue", "another trader"]
)
def test_effect__leaves_out_events_of_other_accounts(key: tuple[str, str]) -> None:
    step = step_of(account(10_000, {}, market("ETH")))
    receipt = Receipt(
        "0x1", 1, 7, "0x2", 0, 0, (), fills=(PerpFill(*key, "ETH", E18, -E18, 1),), funding=(PerpFunding(*key, "ETH", 1),)
    )  # fmt: skip
    effect_of_receipt = futures_effect(step.snapshot, FUTURES_POLICY, receipt, PRICES)
    assert (effect_of_receipt.fills, effect_of_receipt.funding) == ((), ())


def test_rotki__gets_income_and_loss_that_sum_to_a_unit() -> None:
    half = replace(effect(size=-1), fills=(replace(effect(size=-1).fills[0], realised_raw=E12 * 5 // 2),))
    entries = [replace(order(number), futures=half) for number in range(1, 6)] + [order(9, funding=7), deposit(10, 100)]
    rows = [dict(zip(EVENT_COLUMNS, row, strict=True)) for row in rotki_events(entries, RotkiAssets(1, "ETH", NAMES.decimals))]
    gains = [row for row in rows if row["Type"] == "Income"]
    assert [row["Amount"] for row in gains] == ["0.000002", "0.000003", "0.000002", "0.000003", "0.000002"], "12.5 base units in all"
    [loss] = [row for row in rows if row["Type"] == "Loss"]
    assert loss["Amount"] in ("6.999999", "7")
    assert loss["Currency"].endswith(USDC)
    assert not [row for row in rows if row["Type"] in ("Deposit", "Withdrawal")], "a move into margin is no event"


def test_the_lines_of_a_step_are_those_of_its_entries() -> None:
    sums = futures_sums([order(2, fee=2, size=2), order(3, fee=1, size=-1, realised=33, funding=-5), deposit(4, 10)])
    assert (sums.fees, sums.funding, sums.realised) == (3 * E6, -5 * E6, 33 * E6)
    assert futures_sums([deposit(4, 10)]) is None
