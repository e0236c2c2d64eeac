"""Every entry balances, the ledger equals a plain sum, lots consumed are lots created, and gains add up, whatever happens."""

from __future__ import annotations

from collections import Counter
from fractions import Fraction

import pytest
from hypothesis import given

from agent.accounting import entries
from agent.accounting.entries import QUANTA_PER_UNIT, from_quanta, split_quanta, to_quanta
from agent.accounting.tax_lots import Lot, Lots, TaxLotRun, run_tax_lots
from agent.model import Entry, LotMethod
from agent.units import NATIVE
from tests.support.ledgers import COUNTED, POSITION, TOKENS, USDC, WBTC, WETH, Wallet, histories
from tests.support.samples import examples

METHODS = list(LotMethod)
ETH = 10**18


class CountedLots(Lots):
    """Lots that count the base units acquired, and those disposed of, by token."""

    def __init__(self, method: LotMethod) -> None:
        super().__init__(method)
        self.acquired_raw = Counter[str]()
        self.disposed_raw = Counter[str]()

    def acquire(self, token: str, raw: int, cost_quanta: int, at_s: int) -> None:
        self.acquired_raw[token] += raw
        super().acquire(token, raw, cost_quanta, at_s)

    def dispose(self, token: str, raw: int, quanta_without_lot: int) -> list[Lot]:
        self.disposed_raw[token] += raw
        return super().dispose(token, raw, quanta_without_lot)


@examples(20)
@given(histories())
def test_entry__balances_token_by_token(wallet: Wallet) -> None:
    assert not [entry.id for entry in wallet.entries if entries.unbalanced_tokens(entry)]
    account_balances = entries.account_balances(wallet.entries)
    assert {token: account_balances.get((entries.WALLET, token), 0) for token in TOKENS} == wallet.held
    assert {token: account_balances.get((f"{entries.LP}:{POSITION}", token), 0) for token in wallet.lp} == wallet.lp


@examples(20)
@given(histories())
@pytest.mark.parametrize("method", METHODS)
def test_lots_consumed_and_left_are_the_lots_created(method: LotMethod, wallet: Wallet) -> None:
    lots = CountedLots(method)
    tax_run = run_tax_lots(wallet.entries, method, USDC, WETH, lots=lots)
    raw_left: dict[str, int] = {}
    for lot in tax_run.open_lots():
        assert lot.raw > 0
        raw_left[lot.token] = raw_left.get(lot.token, 0) + lot.raw
    for token, raw in lots.acquired_raw.items():
        assert raw == lots.disposed_raw[token] + raw_left.get(token, 0)
    raw_by_token = {token: raw + wallet.lp.get(token, 0) for token, raw in wallet.held.items()}
    raw_by_token[WETH] += raw_by_token.pop(NATIVE)
    assert {token: raw for token, raw in raw_by_token.items() if raw} == raw_left
    assert tax_run.lots.unmatched_raw_by_token() == {}


@examples(20)
@given(histories())
@pytest.mark.parametrize("method", METHODS)
def test_realised_and_unrealised_gains__are_the_total(method: LotMethod, wallet: Wallet) -> None:
    """What is there at the end, and what went, less what came: worked out without any lot."""
    tax_run = taxed(wallet, method)
    worth = wallet.worth()
    cost = sum((lot.cost for lot in tax_run.open_lots()), Fraction(0))
    assert (
        tax_run.realised_gain() + (worth - cost) + from_quanta(tax_run.untaxed_quanta + tax_run.income_quanta) - tax_run.gas_cost
        == worth + from_quanta(tax_run.withdrawn_quanta) - tax_run.deposits
    )
    assert all(disposal.cost.denominator <= QUANTA_PER_UNIT for disposal in tax_run.disposals)


@given(histories(8))
def test_the_numeraire_itself_never_gains(wallet: Wallet) -> None:
    tax_run = taxed(wallet, LotMethod.FIFO)
    bought_with = [disposal for disposal in tax_run.disposals if disposal.token == USDC and disposal.proceeds > 0]
    assert all(lot.gain == 0 for lot in bought_with if lot.cost == lot.raw)


def test_methods_take_the_lots_they_say() -> None:
    gains = {}
    for method in METHODS:
        lots = Lots(method)
        for at_s, cost in ((1, 100), (2, 300), (3, 200)):
            lots.acquire(WETH, ETH, to_quanta(Fraction(cost)), at_s)
        (taken,) = lots.dispose(WETH, ETH, 0)
        gains[method] = (250 - from_quanta(taken.cost_quanta), taken.acquired_s)
    assert gains == {LotMethod.FIFO: (150, 1), LotMethod.LIFO: (50, 3), LotMethod.HIFO: (-50, 2), LotMethod.AVERAGE: (50, 1)}


def test_disposal_over_several_lots__says_their_costs_and_ages() -> None:
    lots = Lots(LotMethod.FIFO)
    lots.acquire(WETH, ETH, to_quanta(Fraction(1_000)), 100)
    lots.acquire(WETH, ETH, to_quanta(Fraction(3_000)), 200)
    taken = lots.dispose(WETH, ETH * 3 // 2, 0)
    assert [(part.raw, from_quanta(part.cost_quanta), part.acquired_s) for part in taken] == [(ETH, 1_000, 100), (ETH // 2, 1_500, 200)]
    assert [(lot.raw, lot.cost) for lot in lots.open_lots()] == [(ETH // 2, 1_500)]


def test_token_gone_before_it_came__gains_nothing_and_is_named() -> None:
    lots = Lots(LotMethod.FIFO)
    (taken,) = lots.dispose(WETH, ETH, to_quanta(Fraction(7)))
    assert (from_quanta(taken.cost_quanta), taken.acquired_s, lots.unmatched_raw_by_token()) == (7, None, {WETH: ETH})
    lots.acquire(WETH, 2 * ETH, to_quanta(Fraction(20)), 5)
    assert lots.unmatched_raw_by_token() == {}
    assert [(lot.raw, lot.cost) for lot in lots.open_lots()] == [(ETH, 10)]


def test_sale_for_the_numeraire__counts_what_was_paid_less_gas() -> None:
    wallet = Wallet()
    wallet.usd[WETH] = Fraction(3_000)
    change = wallet.change({WETH: -ETH, USDC: 2_990 * 10**6}, 10**15)
    wallet.entries.append(entries.trade_entry(change, wallet.prices(), COUNTED, {WETH: ETH * 3 // 1_000}))
    tax_run = taxed(wallet, LotMethod.FIFO)
    sale, gas = tax_run.disposals
    assert (sale.token, sale.proceeds, sale.cost) == (WETH, (2_990 - 3) * 10**6, 2_000 * 10**6)
    assert (gas.raw, gas.proceeds, gas.gain) == (10**15, 3 * 10**6, 10**6)
    assert tax_run.realised_gain() == (987 + 1) * 10**6


def test_a_purchase_costs_what_was_paid_and_its_gas() -> None:
    wallet = Wallet()
    change = wallet.change({WBTC: 10**7, USDC: -6_030 * 10**6}, 10**15)
    wallet.entries.append(entries.trade_entry(change, wallet.prices(), COUNTED, {USDC: 18 * 10**6}))
    bought = [lot for lot in taxed(wallet, LotMethod.FIFO).open_lots() if lot.token == WBTC][-1]
    assert (bought.raw, bought.cost) == (10**7, 6_032 * 10**6)


def test_token_for_another__counts_at_the_price_of_what_was_got() -> None:
    wallet = Wallet()
    change = wallet.change({WETH: -3 * ETH, WBTC: 98 * 10**5}, 0)
    wallet.entries.append(entries.trade_entry(change, wallet.prices(), COUNTED, {}))
    tax_run = taxed(wallet, LotMethod.FIFO)
    assert [(disposal.token, disposal.proceeds) for disposal in tax_run.disposals] == [(WETH, 5_880 * 10**6)]
    assert [lot.cost for lot in tax_run.open_lots() if lot.token == WBTC][-1] == 5_880 * 10**6


def test_wrapping_is_no_disposal_and_gas_alone_is_an_expense() -> None:
    wallet = Wallet()
    change = wallet.change({NATIVE: -(10**17), WETH: 10**17}, 10**15)
    wallet.entries.append(entries.trade_entry(change, wallet.prices(), COUNTED, {}))
    tax_run = taxed(wallet, LotMethod.LIFO)
    assert [(disposal.token, disposal.raw) for disposal in tax_run.disposals] == [(WETH, 10**15)]
    assert tax_run.gas_cost == 2 * 10**6


def test_pool_fees_and_exchange__are_apart_when_liquidity_returns() -> None:
    wallet = Wallet()
    wallet.provide(50)
    wallet.take_out(100, 20)
    entry = wallet.entries[-1]
    by_account = {(p.account, p.token): p.raw for p in entry.postings}
    assert by_account[f"{entries.LP}:{POSITION}", WETH] == -5 * ETH
    assert by_account[entries.LP_INCOME, WETH] == -6 * ETH // 1_000
    assert by_account[entries.TRADING, USDC] == 10**9 + 4 * 10**6
    assert entries.account_balances(wallet.entries)[f"{entries.LP}:{POSITION}", WETH] == 0


def test_pool_fees_beyond_what_was_received__are_no_income() -> None:
    wallet = Wallet()
    change = wallet.change({WETH: 3, USDC: -1}, 0)
    entry = entries.withdrawal_entry(change, wallet.prices(), COUNTED, POSITION, {}, Fraction(0), {WETH: 5, USDC: 2})
    income = {posting.token: -posting.raw for posting in entry.postings if posting.account == entries.LP_INCOME}
    assert income == {WETH: 3}


@pytest.mark.parametrize(
    ("moved_raw", "account", "raw"),
    [
        pytest.param({NATIVE: -7}, None, 0, id="gas alone"),
        pytest.param({NATIVE: -8}, entries.WITHDRAWALS, 1, id="a wei beside the gas"),
        pytest.param({NATIVE: -6}, entries.DEPOSITS, -1, id="a wei received"),
        pytest.param({NATIVE: -7, USDC: 2}, entries.DEPOSITS, -2, id="tokens received"),
    ],
)
def test_external_transaction_moves_what_is_not_its_gas(moved_raw: dict[str, int], account: str | None, raw: int) -> None:
    entry = entries.external_entry("0x1", 1, 1, moved_raw, 7, Wallet().prices(), COUNTED)
    moved = {posting.account: posting.raw for posting in entry.postings if posting.account not in (entries.WALLET, entries.GAS)}
    assert moved == ({} if account is None else {account: raw})
    assert {posting.account: posting.raw for posting in entry.postings if posting.account == entries.GAS} == {entries.GAS: 7}


def test_a_rate_table_reports_in_another_currency() -> None:
    wallet = Wallet()
    wallet.usd[WETH] = Fraction(3_000)
    change = wallet.change({WETH: -ETH, USDC: 3_000 * 10**6}, 0)
    wallet.entries.append(entries.trade_entry(change, wallet.prices(), COUNTED, {}))
    turned = wallet.entries[-1].chain_s
    tax_lot_run = run_tax_lots(
        wallet.entries, LotMethod.FIFO, USDC, WETH, lambda at_s: Fraction(9, 10) if at_s < turned else Fraction(4, 5)
    )
    assert tax_lot_run.disposals[0].gain == (2_400 - 1_800) * 10**6


def test_shares_of_a_value_sum_to_it() -> None:
    assert split_quanta(10, [1, 1, 1]) == [3, 3, 4]
    assert split_quanta(-10, [1, 0, 1, 0]) == [-5, 0, -5, 0]
    assert split_quanta(4, [0, 0]) == [2, 2]
    assert split_quanta(7, [5]) == [7]


def test_tokens_that_do_not_count_never_enter() -> None:
    wallet = Wallet()
    entry: Entry = entries.trade_entry(wallet.change({WETH: 1}, 0), wallet.prices(), {USDC, NATIVE}, {})
    assert entry.postings == ()


def taxed(wallet: Wallet, method: LotMethod) -> TaxLotRun:
    return run_tax_lots(wallet.entries, method, USDC, WETH)
