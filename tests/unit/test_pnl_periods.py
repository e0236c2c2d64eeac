"""What each period of `trimtab pnl` realised, by hand, and that the ledger is gone through once for all of them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from agent.accounting.entries import OPENING, TRADING, WALLET, EntryPrices, SettledTransaction, trade_entry
from agent.accounting.export import TokenNames
from agent.app.records import ledger
from agent.model import Entry, EntryKind, Posting, Valuation, ValuedHolding
from tests.support import builders

WETH, USDC = builders.token("WETH"), builders.token("USDC")
COIN, DOLLAR = 10**18, 10**6


def test_each_month_realises_what_it_sold_and_the_ledger_is_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """2 WETH at 100. One is sold at 150 in January, one at 80 in March; nothing in February."""
    sold = [_sold("a", 2, _at(1, 10), 150), _sold("b", 4, _at(3, 10), 80)]
    months = [_worth(1, _at(1, 1), 2, 0, 100), _worth(3, _at(1, 31), 1, 150, 150), _worth(3, _at(2, 27), 1, 150, 90)]
    months.append(_worth(5, _at(3, 20), 0, 230, 80))
    loaded: Any = SimpleNamespace(config=SimpleNamespace(tax=None))
    store: Any = SimpleNamespace(ledger=SimpleNamespace(unsettled=tuple))
    names = TokenNames({WETH.address: WETH, USDC.address: USDC}, USDC)
    found = ledger.LedgerData(loaded, store, USDC, WETH.address, (_opened(), *sold), tuple(months), names)

    @contextmanager
    def opened(_: Path | str) -> Iterator[ledger.LedgerData]:
        yield found

    runs = []
    monkeypatch.setattr(ledger, "open_ledger_data", opened)
    monkeypatch.setattr(ledger, "run_tax_lots", lambda *args: runs.append(1) or _run(*args))  # type: ignore[func-returns-value]  # None, then the run
    told = ledger.pnl("trimtab.toml", "month")
    assert [row["realised"] for row in told["periods"]] == ["50", "0", "-20"]
    assert [row["profit"] for row in told["periods"]] == ["100", "-60", "-10"]
    assert told["unrealised"] == "0"
    assert len(runs) == 1


_run = ledger.run_tax_lots


def _at(month: int, day: int) -> int:
    return int(datetime(2026, month, day, tzinfo=UTC).timestamp())


def _opened() -> Entry:
    value = Fraction(200 * DOLLAR)
    postings = (Posting(WALLET, WETH.address, 2 * COIN, value), Posting(OPENING, WETH.address, -2 * COIN, -value))
    return Entry("o", EntryKind.OPENING, 1, _at(1, 1), "", "", postings)


def _sold(name: str, block: int, at_s: int, price: int) -> Entry:
    prices = EntryPrices({WETH.address: Fraction(price * DOLLAR, COIN), USDC.address: Fraction(1)}, WETH.address)
    change = SettledTransaction(name, block, at_s, "", "", {WETH.address: -COIN, USDC.address: price * DOLLAR}, 0)
    entry = trade_entry(change, prices, {WETH.address, USDC.address}, {})
    assert {posting.account for posting in entry.postings} == {WALLET, TRADING}
    return entry


def _worth(block: int, at_s: int, weth: int, usdc: int, price: int) -> Valuation:
    held = (
        ValuedHolding(WETH.address, weth * COIN, 0, Fraction(price * DOLLAR, COIN), 5_000),
        ValuedHolding(USDC.address, usdc * DOLLAR, 0, Fraction(1), 5_000),
    )
    return Valuation(block, at_s, Fraction((weth * price + usdc) * DOLLAR), held)
