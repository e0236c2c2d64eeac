"""Tax lots by four methods: by hand, random books against RP2 and a slow restatement, and work that grows with the books."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.accounting import entries
from agent.accounting.entries import EntryPrices, SettledTransaction, from_quanta, prorated_value, to_quanta
from agent.accounting.tax_lots import Disposal, Lot, Lots, TaxLotRun, _TokenLots, max_sellable_raw, run_tax_lots
from agent.model import Entry, ExternalTransfer, ExternalTransferKind, LotMethod, OpenLot
from tests.support.constants import DAY_S
from tests.support.ledgers import USDC, WETH
from tests.support.samples import slow

COIN = "0x" + "c0" * 20
RP2_METHODS = sorted(method.value for method in LotMethod if method is not LotMethod.AVERAGE)
TRADES = {"buy": 1, "sell": -1}
TRANSFERS = {**TRADES, "deposit": 1, "withdraw": -1}
Event = tuple[str, int, int]
ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize(
    ("method", "first", "second"),
    [
        pytest.param(LotMethod.FIFO, 100 + 60, 60 + 180, id="first in first out"),
        pytest.param(LotMethod.LIFO, 180 + 60, 60 + 100, id="last in first out"),
        pytest.param(LotMethod.HIFO, 180 + 100, 60 + 60, id="highest cost first"),
        pytest.param(LotMethod.AVERAGE, 200, 200, id="average cost"),
    ],
)
def test_four_methods_by_hand(method: LotMethod, first: int, second: int) -> None:
    """Bought 1 at 100, 2 at 60 each, 1 at 180: 400 in all, 100 each on average. Sold 2, then the other 2."""
    lots = Lots(method)
    for raw, cost, at_s in ((1, 100, 1), (2, 120, 2), (1, 180, 3)):
        lots.acquire(COIN, raw, to_quanta(Fraction(cost)), at_s)
    assert sum(taken.cost_quanta for taken in lots.dispose(COIN, 2, 0)) == to_quanta(Fraction(first))
    assert sum(lot.cost for lot in lots.open_lots()) == 400 - first
    assert sum(taken.cost_quanta for taken in lots.dispose(COIN, 2, 0)) == to_quanta(Fraction(second))
    assert lots.open_lots() == ()


def test_gains_of_a_period_count_from_its_first_second() -> None:
    """Two disposals of one entry gain 30 together, a later entry loses 20."""
    parts = (("a", 150, 100, 10), ("a", 80, 100, 10), ("b", 80, 100, 20))
    disposals = [
        Disposal(entry, COIN, 1, to_quanta(Fraction(proceeds)), to_quanta(Fraction(cost)), 1, at_s, by_hand=False)
        for entry, proceeds, cost, at_s in parts
    ]
    run = TaxLotRun(Lots(LotMethod.FIFO), disposals)
    assert [run.realised_gain(*period) for period in ((10, 20), (10, 21), (11, 20), (0, 10))] == [30, 10, 0, 0]
    assert [run.gross_gain(from_s) for from_s in (10, 11)] == [30, 0]


@pytest.mark.parametrize("method", list(LotMethod))
def test_random_books_take_what_a_search_through_all_lots_takes(method: LotMethod) -> None:
    """Every lot that is taken, its cost to the grid, and what is left."""
    for seed in range(15):
        rng = random.Random(seed)
        lots = Lots(method)
        slow = _PlainLots(method)
        for at_s in range(60):
            raw = rng.randint(1, 50)
            if rng.random() < 0.5:
                cost = Fraction(rng.randint(0, 9))  # few costs, so that some are alike
                lots.acquire(COIN, raw, to_quanta(cost), at_s)
                slow.come(OpenLot(COIN, raw, cost, at_s))
            else:
                raw = min(raw, sum(lot.raw for lot in slow.lots))
                assert lots.dispose(COIN, raw, 0) == slow.take(raw)
            assert sum((lot.cost for lot in lots.open_lots()), Fraction(0)) == slow.cost()
            assert [(lot.raw, lot.acquired_s) for lot in lots.open_lots()] == [(lot.raw, lot.acquired_s) for lot in slow.lots]


def test_random_books_take_the_lots_and_costs_that_rp2_takes(tmp_path: Path) -> None:
    histories = [(method, _history(random.Random(seed), TRADES)) for method in RP2_METHODS for seed in range(10)]
    for (method, events), rp2_lot in zip(histories, _rp2_lots(histories, tmp_path), strict=True):
        lots = Lots(LotMethod(method))
        expected_lots = []
        for day, (kind, units, price) in enumerate(events):
            if kind == "buy":
                lots.acquire(COIN, units, to_quanta(Fraction(units * price)), day)
            else:
                sold_lots = lots.dispose(COIN, units, 0)
                expected_lots += [[day, lot.acquired_s, lot.raw, from_quanta(lot.cost_quanta)] for lot in sold_lots]
        assert sorted(expected_lots) == sorted([sold, bought, int(units), Fraction(cost)] for sold, bought, units, cost, _ in rp2_lot)
        assert len(expected_lots) > 50


@pytest.mark.parametrize("first_seed", slow(range(0, 500, 50)))
def test_ledgers_with_transfers_gain_what_rp2_says(first_seed: int, tmp_path: Path) -> None:
    """Five hundred in all: each sale's lots, cost and gain, and the cost of what is left, which withdrawals took at cost."""
    seeds = range(first_seed, first_seed + 50)
    histories = [(RP2_METHODS[seed % len(RP2_METHODS)], _history(random.Random(seed), TRANSFERS)) for seed in seeds]
    for (method, events), rp2_lots in zip(histories, _rp2_lots(histories, tmp_path), strict=True):
        tax_lots = run_tax_lots(_ledger(events), LotMethod(method), USDC, WETH)
        sales = [
            [part.disposed_s // DAY_S, (part.acquired_s or 0) // DAY_S, part.raw, float(part.cost), float(part.gain)]
            for part in tax_lots.disposals
            if part.token == COIN
        ]
        rp2_rows = [[day, lot_day, *map(float, numbers)] for day, lot_day, *numbers in rp2_lots]
        expected = [row for row in rp2_rows if events[row[0]][0] == "sell"]
        assert len(sales) == len(expected) > 20
        for sale, row in zip(sorted(sales), sorted(expected), strict=True):
            assert sale == pytest.approx(row, rel=1e-9, abs=1e-9)
        paid = sum(units * price for kind, units, price in events if kind in ("buy", "deposit"))
        cost_left = sum(float(lot.cost) for lot in tax_lots.open_lots() if lot.token == COIN)
        assert cost_left == pytest.approx(paid - sum(row[3] for row in rp2_rows), rel=1e-9, abs=1e-6)


def _rp2_lots(histories: Sequence[tuple[str, list[Event]]], folder: Path) -> list[list[Any]]:
    command = [sys.executable, "-m", "tests.unit.accounting.rp2_lots"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.run(command, input=json.dumps(histories), cwd=folder, env=environment, capture_output=True, text=True, check=True)
    rows: list[list[Any]] = json.loads(process.stdout)
    return rows


def _history(rng: random.Random, kinds: Mapping[str, int]) -> list[Event]:
    """Return a hundred and fifty events: kind, units, price of one."""
    events: list[Event] = []
    balance = 0
    for _ in range(150):
        kind = rng.choice([kind for kind, sign in kinds.items() if sign > 0 or balance])
        units = rng.randint(1, 50 if kinds[kind] > 0 else balance)
        balance += kinds[kind] * units
        events.append((kind, units, rng.randint(1, 9)))
    return events


def _ledger(events: Sequence[Event]) -> list[Entry]:
    """Return the entries of trades against USDC and of transfers of the owner, one a day."""
    ledger_entries = []
    for day, (kind, units, price) in enumerate(events):
        signed_units = TRANSFERS[kind] * units
        if kind in TRADES:
            moved = {COIN: signed_units, USDC: -signed_units * price}
            transaction = SettledTransaction(f"i{day}", day, day * DAY_S, f"0x{day:064x}", "", moved, 0, by_hand=False)
            prices = EntryPrices({COIN: Fraction(price), USDC: Fraction(1)}, WETH)
            ledger_entries.append(entries.trade_entry(transaction, prices, {COIN, USDC}, {}))
        else:
            value = Fraction(signed_units * price)
            transfer_kind = ExternalTransferKind.DEPOSIT if signed_units > 0 else ExternalTransferKind.WITHDRAWAL
            transfer = ExternalTransfer(day, COIN, signed_units, value, 0, day, day * DAY_S, False, transfer_kind)
            ledger_entries.append(entries.transfer_entry(transfer))
    return ledger_entries


@pytest.mark.parametrize("method", list(LotMethod))
def test_a_disposal_does_not_go_through_all_lots(method: LotMethod) -> None:
    """Four times the books is hardly more than four times the calls, not sixteen times."""
    assert _calls(method, 800) < 6 * _calls(method, 200)


def _calls(method: LotMethod, count: int) -> int:
    lots = Lots(method)
    for at_s in range(count):
        lots.acquire(COIN, 10, to_quanta(Fraction(at_s * 7 % 31)), at_s)
    call_count = 0

    def called(*_: object) -> None:
        nonlocal call_count
        call_count += 1

    sys.setprofile(called)
    try:
        for _ in range(count):
            lots.dispose(COIN, 7, 0)
    finally:
        sys.setprofile(None)
    return call_count


class _PlainLots:
    """The rules of docs/ledger.md, said once more: look at every lot each time."""

    def __init__(self, method: LotMethod) -> None:
        self.method = method
        self.lots: list[OpenLot] = []
        self.paid = self.taken = Fraction(0)

    def come(self, lot: OpenLot) -> None:
        self.lots.append(lot)
        self.paid += lot.cost

    def take(self, raw: int) -> list[Lot]:
        taken_lots = []
        while raw:
            lot = self._next()
            units = min(raw, lot.raw)
            whole, of_raw = (self.cost(), sum(lot.raw for lot in self.lots)) if self.method is LotMethod.AVERAGE else (lot.cost, lot.raw)
            cost = prorated_value(whole, units, of_raw)
            self.taken += cost
            taken_lots.append(Lot(units, to_quanta(cost), lot.acquired_s))
            place = self.lots.index(lot)
            rest = OpenLot(lot.token, lot.raw - units, lot.cost - (0 if self.method is LotMethod.AVERAGE else cost), lot.acquired_s)
            self.lots[place : place + 1] = [rest] if rest.raw else []
            raw -= units
        return taken_lots

    def cost(self) -> Fraction:
        """What all lots that are left had cost: with average cost all that was paid less all that was taken."""
        if self.method is LotMethod.AVERAGE:
            return self.paid - self.taken
        return sum((lot.cost for lot in self.lots), Fraction(0))

    def _next(self) -> OpenLot:
        match self.method:
            case LotMethod.LIFO:
                return self.lots[-1]
            case LotMethod.HIFO:
                return max(self.lots, key=lambda lot: (lot.cost / lot.raw, -lot.acquired_s))
            case _:
                return self.lots[0]


# --- how much may be sold


PRICE = Fraction(100)
LOT_PARTS = st.lists(st.tuples(st.integers(1, 25), st.integers(0, 3_000)), min_size=1, max_size=6)


def lots_of(parts: list[tuple[int, int]]) -> list[OpenLot]:
    return [OpenLot(WETH, raw, Fraction(cost), number) for number, (raw, cost) in enumerate(parts)]


def largest_gain(lots: list[OpenLot], method: LotMethod, raw: int) -> Fraction:
    """Return the largest gain of a sale after any of its lots; zero at least."""
    gain = Fraction(0)
    gains = [gain]
    for portion in Lots(method, lots).dispose(WETH, raw, 0):
        gain += portion.raw * PRICE - from_quanta(portion.cost_quanta)
        gains.append(gain)
    return max(gains)


@given(LOT_PARTS, st.integers(0, 3_000), st.integers(0, 100), st.sampled_from(LotMethod))
def test_max_sellable_gains_at_most_its_room(parts: list[tuple[int, int]], room: int, missing_raw: int, method: LotMethod) -> None:
    """The longest sale that has gained more after none of its lots; one unit more has."""
    lots = lots_of(parts)
    most_raw = max(0, sum(lot.raw for lot in lots) - missing_raw)

    sellable_raw = max_sellable_raw(lots, method, WETH, PRICE, Fraction(room), most_raw)

    assert sellable_raw == max(raw for raw in range(most_raw + 1) if largest_gain(lots, method, raw) <= room)
    assert sellable_raw == most_raw or largest_gain(lots, method, sellable_raw + 1) > room


@given(LOT_PARTS, st.sampled_from(LotMethod))
def test_max_sellable_is_zero_below_no_room(parts: list[tuple[int, int]], method: LotMethod) -> None:
    lots = lots_of(parts)

    assert max_sellable_raw(lots, method, WETH, PRICE, Fraction(-1), sum(lot.raw for lot in lots)) == 0


def test_max_sellable_goes_through_the_lots_once(monkeypatch: pytest.MonkeyPatch) -> None:
    lots = [OpenLot(WETH, 10**18, Fraction(number), number) for number in range(300)]
    calls: list[int] = []
    take = _TokenLots.take

    def counting_take(token_lots: _TokenLots, most_raw: int) -> object:
        calls.append(most_raw)
        return take(token_lots, most_raw)

    monkeypatch.setattr(_TokenLots, "take", counting_take)
    max_sellable_raw(lots, LotMethod.HIFO, WETH, Fraction(1), Fraction(10**18) * 250, 300 * 10**18)

    assert 0 < len(calls) <= 300
