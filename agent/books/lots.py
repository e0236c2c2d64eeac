"""Tax lots of every token: what each acquisition cost, and which of them a disposal takes, by four methods."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from heapq import heappop, heappush
from typing import NamedTuple

from agent.books.grain import grains, part, valued
from agent.model import LotMethod, OpenLot
from agent.units import Value


@dataclass(frozen=True, slots=True)
class Taken:
    """What a disposal took of one lot, base units, and what that had cost. `acquired_s` is None where no lot was there."""

    raw: int
    cost: Value
    acquired_s: int | None


class Lot(NamedTuple):
    """Base units, what they had cost in the grain of the books, and when they came (None: no lot was known)."""

    raw: int
    cost: int
    acquired_s: int | None


@dataclass(frozen=True, slots=True)
class Stretch:
    """A lot as a disposal comes to it: its base units, and of what they are a part, base units and their cost."""

    raw: int
    pool_raw: int
    pool_cost: Value

    def cost_of(self, raw: int) -> Value:
        """What the first `raw` of them had cost."""
        return self.pool_cost if raw == self.pool_raw else part(self.pool_cost, raw, self.pool_raw)


class Lots:
    """Open lots by token. A disposal takes them oldest first (fifo, and average for dates), newest first (lifo), or the dearest
    per unit first (hifo, the older of two alike). With average cost every unit of a token costs the same.

    Costs of what is taken are rounded down to the grid of books/grain.py; the rest stays with what is left, so that all that is
    taken and all that is left cost exactly what was paid.
    """

    def __init__(self, method: LotMethod, lots: Iterable[OpenLot] = ()) -> None:
        self.method = method
        self._piles: dict[str, _Pile] = {}
        self._owed: dict[str, int] = {}
        for lot in lots:
            self._pile(lot.token).add(Lot(lot.raw, grains(lot.cost), lot.acquired_s))

    def acquire(self, token: str, raw: int, cost: Value, at_s: int) -> None:
        """Base units that came for `cost`. What was disposed of before it came is taken from them first."""
        self.come(token, raw, grains(cost), at_s)

    def dispose(self, token: str, raw: int, at_cost: Value) -> tuple[Taken, ...]:
        """Lots that `raw` base units take. Where lots are missing the rest counts as acquired at its share of `at_cost`: no gain."""
        return tuple(Taken(lot.raw, valued(lot.cost), lot.acquired_s) for lot in self.go(token, raw, grains(at_cost)))

    def come(self, token: str, raw: int, cost: int, at_s: int) -> None:
        """`acquire` with the cost in the grain of the books."""
        filled = min(raw, self._owed.get(token, 0))
        if filled:
            self._owed[token] -= filled
        if raw > filled:
            self._pile(token).add(Lot(raw - filled, cost - cost * filled // raw, at_s))

    def go(self, token: str, raw: int, at_cost: int) -> list[Lot]:
        """`dispose` with costs in the grain of the books."""
        pile, left, found = self._pile(token), raw, []
        while left > 0 and pile.raw:
            found.append(pile.take(left))
            left -= found[-1].raw
        if left > 0:
            found.append(Lot(left, at_cost if left == raw else at_cost * left // raw, None))
            self._owed[token] = self._owed.get(token, 0) + left
        return found

    def stretches(self, token: str) -> Iterator[Stretch]:
        """Each lot of a token in the order in which disposals take them; takes them as it goes."""
        pile = self._pile(token)
        while pile.raw:
            found = pile.stretch()
            pile.take(found.raw)
            yield found

    def open(self) -> tuple[OpenLot, ...]:
        """Every lot that is left, by token, oldest first; with average cost each at the token's average."""
        return tuple(
            OpenLot(token, lot.raw, valued(lot.cost), lot.acquired_s or 0)
            for token in sorted(self._piles)
            for lot in self._piles[token].open()
        )

    def owed(self) -> dict[str, int]:
        """Base units that went before any acquisition was known, by token; nothing in sound books."""
        return {token: raw for token, raw in self._owed.items() if raw}

    def _pile(self, token: str) -> _Pile:
        return self._piles.setdefault(token, _Pile(self.method))


class _Pile:
    """One token's lots. A lot comes or goes without a look at all the others: books grow for years."""

    def __init__(self, method: LotMethod) -> None:
        self.method = method
        self.raw = self._cost = self._count = 0
        self._line: deque[Lot] = deque()
        self._dearest: list[tuple[Fraction, int, Lot]] = []

    def add(self, lot: Lot) -> None:
        """Behind all others."""
        self._put(lot, self._count)
        self._count += 1
        self.raw, self._cost = self.raw + lot.raw, self._cost + lot.cost

    def take(self, most: int) -> Lot:
        """All of the lot that is next, or `most` base units of it."""
        lot, number = self._next()
        raw = min(most, lot.raw)
        if self.method is LotMethod.AVERAGE:  # costs are pooled: the pool pays, whichever lot the units come from
            cost = self._cost if raw == self.raw else self._cost * raw // self.raw
        else:
            cost = lot.cost if raw == lot.raw else lot.cost * raw // lot.raw
        if raw < lot.raw:
            self._put(Lot(lot.raw - raw, lot.cost - cost, lot.acquired_s), number, back=True)
        self.raw, self._cost = self.raw - raw, self._cost - cost
        return Lot(raw, cost, lot.acquired_s)

    def stretch(self) -> Stretch:
        """What the next disposal takes first; costs of the average are pooled."""
        lot, number = self._next()
        self._put(lot, number, back=True)
        raw, cost = (self.raw, self._cost) if self.method is LotMethod.AVERAGE else (lot.raw, lot.cost)
        return Stretch(lot.raw, raw, valued(cost))

    def open(self) -> list[Lot]:
        """What is left, oldest first."""
        if self.method is LotMethod.HIFO:
            return [lot for _, _, lot in sorted(self._dearest, key=lambda one: one[1])]
        if self.method is not LotMethod.AVERAGE:
            return list(self._line)
        found, raw, total = [], self.raw, self._cost
        for lot in self._line:
            cost = total * lot.raw // raw
            total, raw = total - cost, raw - lot.raw
            found.append(Lot(lot.raw, cost, lot.acquired_s))
        return found

    def _next(self) -> tuple[Lot, int]:
        match self.method:
            case LotMethod.FIFO | LotMethod.AVERAGE:
                return self._line.popleft(), 0
            case LotMethod.LIFO:
                return self._line.pop(), 0
            case LotMethod.HIFO:
                _, number, lot = heappop(self._dearest)
                return lot, number

    def _put(self, lot: Lot, number: int, *, back: bool = False) -> None:
        """`back`: the rest of a lot goes where it was taken from."""
        match self.method:
            case LotMethod.HIFO:
                heappush(self._dearest, (Fraction(-lot.cost, lot.raw), number, lot))
            case LotMethod.FIFO | LotMethod.AVERAGE if back:
                self._line.appendleft(lot)
            case _:
                self._line.append(lot)
