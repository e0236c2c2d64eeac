"""Tax lots by four methods: by hand, random books against RP2 and a slow restatement, and work that grows with the books."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import pytest

from agent.accounting.entries import prorated_value, to_quanta
from agent.accounting.tax_lots import Disposal, LotPortion, Lots, TaxLotRun
from agent.model import LotMethod, OpenLot

COIN = "0x" + "c0" * 20
ROOT = Path(__file__).parent.parent.parent


@pytest.mark.parametrize(
    ("method", "first", "second"),
    [
        (LotMethod.FIFO, 100 + 60, 60 + 180),
        (LotMethod.LIFO, 180 + 60, 60 + 100),
        (LotMethod.HIFO, 180 + 100, 60 + 60),
        (LotMethod.AVERAGE, 200, 200),
    ],
)
def test_four_methods_by_hand(method: LotMethod, first: int, second: int) -> None:
    """Bought 1 at 100, 2 at 60 each, 1 at 180: 400 in all, 100 each on average. Sold 2, then the other 2."""
    lots = Lots(method)
    for raw, cost, at_s in ((1, 100, 1), (2, 120, 2), (1, 180, 3)):
        lots.acquire(COIN, raw, Fraction(cost), at_s)
    assert sum(taken.cost for taken in lots.dispose(COIN, 2, Fraction(0))) == first
    assert sum(lot.cost for lot in lots.open_lots()) == 400 - first
    assert sum(taken.cost for taken in lots.dispose(COIN, 2, Fraction(0))) == second
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
        lots, slow = Lots(method), _Slow(method)
        for at_s in range(60):
            raw = rng.randint(1, 50)
            if rng.random() < 0.5:
                cost = Fraction(rng.randint(0, 9))  # few costs, so that some are alike
                lots.acquire(COIN, raw, cost, at_s)
                slow.come(OpenLot(COIN, raw, cost, at_s))
            else:
                raw = min(raw, sum(lot.raw for lot in slow.lots))
                assert lots.dispose(COIN, raw, Fraction(0)) == tuple(slow.take(raw))
            assert sum((lot.cost for lot in lots.open_lots()), Fraction(0)) == slow.cost()
            assert [(lot.raw, lot.acquired_s) for lot in lots.open_lots()] == [(lot.raw, lot.acquired_s) for lot in slow.lots]


def test_random_books_take_the_lots_and_costs_that_rp2_takes(tmp_path: Path) -> None:
    histories = [(method.value, _history(random.Random(seed))) for method in set(LotMethod) - {LotMethod.AVERAGE} for seed in range(10)]
    command, environment = [sys.executable, "-m", "tests.support.rp2_lots"], {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, input=json.dumps(histories), cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
    for (method, events), told in zip(histories, json.loads(done.stdout), strict=True):
        lots, found = Lots(LotMethod(method)), []
        for day, (bought, units, price) in enumerate(events):
            if bought:
                lots.acquire(COIN, units, Fraction(units * price), day)
            else:
                found += [[day, lot.acquired_s, lot.raw, lot.cost] for lot in lots.dispose(COIN, units, Fraction(0))]
        assert sorted(found) == sorted([sold, bought, int(units), Fraction(cost)] for sold, bought, units, cost in told)
        assert len(found) > 50


def _history(rng: random.Random) -> list[tuple[bool, int, int]]:
    """A hundred and fifty purchases and sales: whether bought, units, price of one."""
    events, held = [], 0
    for _ in range(150):
        bought = held == 0 or rng.random() < 0.5
        units = rng.randint(1, 50 if bought else held)
        held += units if bought else -units
        events.append((bought, units, rng.randint(1, 9)))
    return events


@pytest.mark.parametrize("method", list(LotMethod))
def test_a_disposal_does_not_go_through_all_lots(method: LotMethod) -> None:
    """Four times the books is hardly more than four times the calls, not sixteen times."""
    assert _calls(method, 800) < 6 * _calls(method, 200)


def _calls(method: LotMethod, count: int) -> int:
    lots = Lots(method)
    for at_s in range(count):
        lots.acquire(COIN, 10, Fraction(at_s * 7 % 31), at_s)
    found = 0

    def called(*_: object) -> None:
        nonlocal found
        found += 1

    sys.setprofile(called)
    try:
        for _ in range(count):
            lots.dispose(COIN, 7, Fraction(0))
    finally:
        sys.setprofile(None)
    return found


class _Slow:
    """The rules of docs/ledger.md, said once more: look at every lot each time."""

    def __init__(self, method: LotMethod) -> None:
        self.method = method
        self.lots: list[OpenLot] = []
        self.paid = self.taken = Fraction(0)

    def come(self, lot: OpenLot) -> None:
        self.lots.append(lot)
        self.paid += lot.cost

    def take(self, raw: int) -> list[LotPortion]:
        found = []
        while raw:
            lot = self._next()
            units = min(raw, lot.raw)
            whole, of_raw = (self.cost(), sum(one.raw for one in self.lots)) if self.method is LotMethod.AVERAGE else (lot.cost, lot.raw)
            cost = prorated_value(whole, units, of_raw)
            self.taken += cost
            found.append(LotPortion(units, cost, lot.acquired_s))
            place = self.lots.index(lot)
            rest = OpenLot(lot.token, lot.raw - units, lot.cost - (0 if self.method is LotMethod.AVERAGE else cost), lot.acquired_s)
            self.lots[place : place + 1] = [rest] if rest.raw else []
            raw -= units
        return found

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
