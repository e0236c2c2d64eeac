"""Two years of trades with fees and gas, by each lot method, against a calculation that shares nothing with the books."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from agent.accounting import entries as book
from agent.accounting.entries import EntryPrices, SettledTransaction
from agent.accounting.export import RateTable, TokenNames, export_tables
from agent.accounting.tax_lots import run_tax_lots
from agent.app.documents.records import LotsDocument
from agent.app.records import ledger
from agent.app.records.lots import lots_document
from agent.errors import ConfigError
from agent.layers.tax.settings import read_rates
from agent.model import Entry, LedgerOpening, LotMethod, Valuation, ValuedHolding
from agent.units import NATIVE, Token
from tests.cli.documents import misfits
from tests.support.ledgers import COUNTED, USDC, WBTC, WETH
from tests.support.text import mentions

TOKENS = {WETH: Token(WETH, "WETH", 18), WBTC: Token(WBTC, "WBTC", 8), USDC: Token(USDC, "USDC", 6)}
NAMES = TokenNames(TOKENS, TOKENS[USDC])
DOLLAR = 10**6
START_S = int(datetime(2025, 1, 3, tzinfo=UTC).timestamp())
NEW_YEAR_S = int(datetime(2026, 1, 1, tzinfo=UTC).timestamp())
RATES = RateTable("eur.csv", (START_S - 1, NEW_YEAR_S - 40 * 86_400), (Fraction(9, 10), Fraction(8, 10)))


@dataclass(frozen=True)
class Trade:
    """Base units given and got, gas in wei, and dollars per whole coin then."""

    at_s: int
    sold: str
    gave: int
    bought: str
    got: int
    gas_wei: int
    usd: dict[str, float]


def year_of_trades() -> list[Trade]:
    """A walk of prices, with sells, buys, and one coin for the other, over the turn of a year."""
    draw = random.Random(11)
    dice = []
    usd = {WETH: 2_000.0, WBTC: 60_000.0}
    prices = {WETH: 20 * 10**18, WBTC: 10**8, USDC: 30_000 * DOLLAR}
    for number in range(150):
        usd = {token: round(price * draw.uniform(0.93, 1.075), 2) for token, price in usd.items()}
        sold, bought = draw.choice(((WETH, USDC), (USDC, WETH), (WBTC, USDC), (USDC, WBTC), (WETH, WBTC), (WBTC, WETH)))
        gave = prices[sold] * draw.randint(3, 25) // 100
        dollars = gave / 10 ** TOKENS[sold].decimals * usd.get(sold, 1.0) * 0.996
        bought_raw = int(dollars / usd.get(bought, 1.0) * 10 ** TOKENS[bought].decimals)
        prices[sold], prices[bought] = prices[sold] - gave, prices[bought] + bought_raw
        dice.append(Trade(START_S + number * 4 * 86_400, sold, gave, bought, bought_raw, draw.randint(1, 9) * 10**14, usd))
    return dice


def entries(trades: list[Trade]) -> tuple[Entry, ...]:
    """The same as the ledger has it."""
    start = _prices({WETH: 2_000.0, WBTC: 60_000.0})
    opened = [(WETH, 20 * 10**18), (WBTC, 10**8), (USDC, 30_000 * DOLLAR), (NATIVE, 10**18)]
    entries = [book.opening_entry(LedgerOpening("", token, raw, raw * (start.of(token) or 0), 1, START_S - 1)) for token, raw in opened]
    for number, trade in enumerate(trades):
        moved = {trade.sold: -trade.gave, trade.bought: trade.got}
        fee = {trade.sold: trade.gave * 3 // 1_000}
        change = SettledTransaction(f"t{number}", number + 2, trade.at_s, f"0x{number:x}", "", moved, trade.gas_wei)
        entries.append(book.trade_entry(change, _prices(trade.usd), COUNTED, fee))
    return tuple(entries)


def _prices(usd: dict[str, float]) -> EntryPrices:
    exact = {token: Fraction(str(price)) * DOLLAR / 10 ** TOKENS[token].decimals for token, price in usd.items()}
    return EntryPrices({**exact, USDC: Fraction(1)}, WETH)


def independent(
    trades: list[Trade], method: str, rate: Any = lambda _: 1.0, numeraire_gains: bool = False, left: Any = None
) -> dict[int, float]:
    """Gain of each year in whole coins, in floating point, by lists of [amount, cost of one, number] that are sorted anew each time.

    Written from docs/ledger.md: a sale brings what was got less gas; a purchase for dollars costs them and gas; between coins what was
    got counts at its price; gas is a sale of the coin at its price. `rate` is euros per dollar, and dollars then gain too. `left` gets
    amount and cost of what is left of each token.
    """
    lots: dict[str, list[list[float]]] = {token: [] for token in (WETH, WBTC, USDC)}
    years: dict[int, float] = {}
    count = 0

    def buy(token: str, amount: float, cost: float) -> None:
        nonlocal count
        count += 1
        lots[token].append([amount, cost / amount, count])

    def sell(token: str, amount: float, brings: float, at_s: int) -> None:
        if token == USDC and not numeraire_gains:
            return
        pile = lots[token]
        if method == "average":
            whole = sum(lot[0] for lot in pile)
            mean = sum(lot[0] * lot[1] for lot in pile) / whole
            pile[:] = [[whole - amount, mean, 0]]
            cost = amount * mean
        else:
            pile.sort(key={"fifo": lambda lot: lot[2], "lifo": lambda lot: -lot[2], "hifo": lambda lot: (-lot[1], lot[2])}[method])
            raw_left = amount
            cost = 0.0
            while raw_left > 1e-15 and pile:
                taken = min(raw_left, pile[0][0])
                cost += taken * pile[0][1]
                pile[0][0], raw_left = pile[0][0] - taken, raw_left - taken
                if pile[0][0] <= 1e-12:
                    pile.pop(0)
        year = datetime.fromtimestamp(at_s, UTC).year
        years[year] = years.get(year, 0.0) + brings - cost

    first = rate(START_S)
    for token, amount, price in ((WETH, 20.0, 2_000.0), (WBTC, 1.0, 60_000.0), (USDC, 30_000.0, 1.0), (WETH, 1.0, 2_000.0)):
        buy(token, amount, amount * price * first)
    for trade in trades:
        euros = rate(trade.at_s)
        gave = trade.gave / 10 ** TOKENS[trade.sold].decimals
        gross = trade.got / 10 ** TOKENS[trade.bought].decimals
        gas = trade.gas_wei / 10**18 * trade.usd[WETH] * euros
        if trade.sold == USDC:
            sell(USDC, gave, gave * euros, trade.at_s)
            buy(trade.bought, gross, gave * euros + gas)
        else:
            worth = gross * trade.usd.get(trade.bought, 1.0) * euros
            sell(trade.sold, gave, worth - gas, trade.at_s)
            buy(trade.bought, gross, worth)
        sell(WETH, trade.gas_wei / 10**18, gas, trade.at_s)
    if left is not None:
        left |= {token: (sum(lot[0] for lot in pile), sum(lot[0] * lot[1] for lot in pile)) for token, pile in lots.items()}
    return years


TRADES = year_of_trades()
WRITTEN = entries(TRADES)


@pytest.mark.parametrize("method", LotMethod)
def test_each_year_realises_what_an_independent_calculation_says(method: LotMethod) -> None:
    expected = independent(TRADES, method.value)
    tax_lot_run = run_tax_lots(WRITTEN, method, USDC, WETH)
    assert set(expected) == {2025, 2026}
    assert all(abs(gain) > 500 for gain in expected.values())
    assert float(tax_lot_run.realised_gain(0, NEW_YEAR_S)) / DOLLAR == pytest.approx(expected[2025], abs=1e-4)
    assert float(tax_lot_run.realised_gain(NEW_YEAR_S)) / DOLLAR == pytest.approx(expected[2026], abs=1e-4)
    assert tax_lot_run.lots.unmatched_raw_by_token() == {}


@pytest.mark.parametrize("method", [LotMethod.FIFO, LotMethod.HIFO])
def test_in_another_currency_dollars_gain_too_as_the_rate_moves(method: LotMethod) -> None:
    expected = independent(TRADES, method.value, lambda at_s: float(RATES.at(at_s)), numeraire_gains=True)
    tax_lot_run = run_tax_lots(WRITTEN, method, USDC, WETH, RATES.at)
    assert float(tax_lot_run.realised_gain(0, NEW_YEAR_S)) / DOLLAR == pytest.approx(expected[2025], abs=1e-3)
    assert float(tax_lot_run.realised_gain(NEW_YEAR_S)) / DOLLAR == pytest.approx(expected[2026], abs=1e-3)


@pytest.mark.parametrize(("content", "words"), [(None, "No such file or directory"), (b"\xff\xfe", "it is not plain text")])
def test_unreadable_rate_table__is_named_in_plain_words(tmp_path: Path, content: bytes | None, words: str) -> None:
    loaded: Any = SimpleNamespace(config=SimpleNamespace(tax=SimpleNamespace(rates="eur.csv")), path=tmp_path / "trimtab.toml")
    if content is not None:
        (tmp_path / "eur.csv").write_bytes(content)
    with pytest.raises(ConfigError, match=f"eur.csv cannot be read: {words}"):
        read_rates(loaded)


def test_rate_table_that_ended_early__is_named(tmp_path: Path) -> None:
    """It goes on counting, since tables of yearly means are used too, but not without a word."""
    path = tmp_path / "eur.csv"
    tax = SimpleNamespace(method="fifo", currency="EUR", rates="eur.csv", year_limit=None)
    loaded: Any = SimpleNamespace(config=SimpleNamespace(tax=tax), path=tmp_path / "trimtab.toml")
    store: Any = SimpleNamespace(ledger=SimpleNamespace(unsettled_intents=tuple))
    ledger_data = ledger.LedgerData(loaded, store, TOKENS[USDC], WETH, WRITTEN, (), NAMES)
    path.write_text(f"time,rate\n{START_S - 1},0.9\n{NEW_YEAR_S},0.8\n")
    tax_years_document = ledger._tax_years(ledger_data)
    assert mentions(tax_years_document["rate_warning"], "tax.rates eur.csv", "2025-12-29", "360 days")
    path.write_text("time,rate\n" + "".join(f"{START_S - 1 + day * 86_400},0.9\n" for day in range(0, 900, 20)))
    tax_years_document = ledger._tax_years(ledger_data)
    assert tax_years_document["rate_warning"] == ""


@pytest.mark.parametrize("method", LotMethod)
def test_open_lots__have_independent_entry_prices_and_gains(tmp_path: Path, method: LotMethod) -> None:
    """In euros, with the method of the command instead of that of the config; of WBTC no price is known at the newest valuation."""
    lots_left: dict[str, tuple[float, float]] = {}
    expected = independent(TRADES, method.value, lambda at_s: float(RATES.at(at_s)), numeraire_gains=True, left=lots_left)
    (tmp_path / "eur.csv").write_text(
        "time,rate\n" + "".join(f"{at_s},{float(rate)}\n" for at_s, rate in zip(RATES.times_s, RATES.rates, strict=True))
    )
    tax = SimpleNamespace(method="fifo", currency="EUR", rates="eur.csv", year_limit=None)
    loaded: Any = SimpleNamespace(config=SimpleNamespace(tax=tax), path=tmp_path / "trimtab.toml")
    valued_holdings = tuple(
        ValuedHolding(token, 1, 0, Fraction(price), 5_000) for token, price in ((NATIVE, Fraction(3_000, 10**12)), (USDC, 1), (WBTC, 0))
    )
    store: Any = SimpleNamespace(ledger=SimpleNamespace(unsettled_intents=tuple))
    ledger_data = ledger.LedgerData(
        loaded, store, TOKENS[USDC], WETH, WRITTEN, (Valuation(999, TRADES[-1].at_s + 60, Fraction(1), valued_holdings),), NAMES
    )
    lots = lots_document(ledger_data, method)
    assert misfits(LotsDocument, lots) == []
    assert (lots["method"], lots["currency"], lots["year"]) == (method.value, "EUR", "2026")
    assert float(lots["realised"]) == pytest.approx(expected[2026], abs=1e-3)
    assert [asset["symbol"] for asset in lots["assets"]] == ["USDC", "WBTC", "WETH"]
    for asset in lots["assets"]:
        amount, cost = lots_left[asset["address"]]
        assert float(asset["amount"]) == pytest.approx(amount)
        assert float(asset["cost"]) == pytest.approx(cost)
        assert float(asset["entry_price"] or 0) == pytest.approx(cost / amount)
        assert sum(float(lot["amount"]) for lot in asset["lots"]) == pytest.approx(amount)
        assert all(float(lot["entry_price"]) == pytest.approx(float(lot["cost"]) / float(lot["amount"]), rel=1e-3) for lot in asset["lots"])
        worth = {"WETH": 3_000, "USDC": 1, "WBTC": None}[asset["symbol"]]
        if worth is None:
            assert (asset["price"], asset["value"], asset["unrealised"]) == (None, None, None)
        else:
            assert float(asset["unrealised"] or 0) == pytest.approx(amount * worth * 0.8 - cost, abs=0.01)
    assert sum(float(asset["realised"]) for asset in lots["assets"]) == pytest.approx(expected[2026], abs=1e-3)


@pytest.mark.parametrize("method", LotMethod)
def test_pnl_and_exported_disposals__agree_on_each_year(monkeypatch: pytest.MonkeyPatch, method: LotMethod) -> None:
    expected = independent(TRADES, method.value)
    tax = SimpleNamespace(method=method.value, currency=None, rates=None, year_limit=None)
    loaded: Any = SimpleNamespace(config=SimpleNamespace(tax=tax))
    day_counts = SimpleNamespace(count=lambda *_: 0)
    store: Any = SimpleNamespace(ledger=SimpleNamespace(unsettled_intents=tuple), day_counts=day_counts)
    valued_holdings = (ValuedHolding(WETH, 10**18, 0, Fraction(2_000 * DOLLAR, 10**18), 10_000),)
    values = tuple(Valuation(block, START_S + block * 86_400, Fraction(2_000 * DOLLAR), valued_holdings) for block in (1, 200))
    ledger_data = ledger.LedgerData(loaded, store, TOKENS[USDC], WETH, WRITTEN, values, NAMES)

    @contextmanager
    def opened(_: Path | str) -> Iterator[ledger.LedgerData]:
        yield ledger_data

    monkeypatch.setattr(ledger, "open_ledger_data", opened)
    tax_document = ledger.pnl("trimtab.toml")["tax"]
    assert {int(year): float(gain) for year, gain in tax_document["years"].items()} == pytest.approx(expected, abs=1e-4)
    table = next(
        export_table
        for export_table in export_tables(WRITTEN, ledger_data.lot_run(), values, NAMES, "USDC")
        if export_table.name == "disposals"
    )
    at = table.columns.index("time")
    gain = table.columns.index("gain")
    sums = {year: sum(float(row[gain]) for row in table.rows if row[at].startswith(str(year))) for year in expected}
    assert sums == pytest.approx(expected, abs=1e-6 * len(table.rows))
