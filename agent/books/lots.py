"""Tax lots of every token: what each acquisition cost, and which of them a disposal takes, by four methods."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from fractions import Fraction

from agent.books.grain import part
from agent.model import LotMethod, OpenLot
from agent.units import Value


@dataclass(frozen=True, slots=True)
class Taken:
    """What a disposal took of one lot, base units, and what that had cost. `acquired_s` is None where no lot was there."""

    raw: int
    cost: Value
    acquired_s: int | None


class Lots:
    """Open lots by token. A disposal takes them oldest first (fifo, and average for dates), newest first (lifo), or the dearest
    per unit first (hifo, the older of two alike). With average cost every unit of a token costs the same.

    Costs of what is taken are rounded down to the grid of books/grain.py; the rest stays with what is left, so that all that is
    taken and all that is left cost exactly what was paid.
    """

    def __init__(self, method: LotMethod, lots: Iterable[OpenLot] = ()) -> None:
        self.method = method
        self._lots: dict[str, list[OpenLot]] = {}
        self._owed: dict[str, int] = {}
        for lot in lots:
            self._lots.setdefault(lot.token, []).append(lot)

    def acquire(self, token: str, raw: int, cost: Value, at_s: int) -> None:
        """Base units that came for `cost`. What was disposed of before it came is taken from them first."""
        filled = min(raw, self._owed.get(token, 0))
        if filled:
            self._owed[token] -= filled
        if raw > filled:
            kept = cost - part(cost, filled, raw)
            self._lots.setdefault(token, []).append(OpenLot(token, raw - filled, kept, at_s))

    def dispose(self, token: str, raw: int, at_cost: Value) -> tuple[Taken, ...]:
        """Lots that `raw` base units take. Where lots are missing the rest counts as acquired at its share of `at_cost`: no gain."""
        lots, left, found = self._lots.get(token, []), raw, []
        while left > 0 and lots:
            number = self._next(lots)
            lot = lots[number]
            taken = min(left, lot.raw)
            cost = self._cost(lots, lot, taken)
            found.append(Taken(taken, cost, lot.acquired_s))
            self._take(lots, number, taken, cost)
            left -= taken
        if left > 0:
            found.append(Taken(left, at_cost if left == raw else part(at_cost, left, raw), None))
            self._owed[token] = self._owed.get(token, 0) + left
        return tuple(found)

    def open(self) -> tuple[OpenLot, ...]:
        """Every lot that is left, by token, oldest first; with average cost each at the token's average."""
        found: list[OpenLot] = []
        for token in sorted(self._lots):
            lots = self._lots[token]
            total, raw = sum((lot.cost for lot in lots), Fraction(0)), sum(lot.raw for lot in lots)
            if self.method is not LotMethod.AVERAGE:
                found += lots
                continue
            for lot in lots:
                cost = part(total, lot.raw, raw)
                total, raw = total - cost, raw - lot.raw
                found.append(replace(lot, cost=cost))
        return tuple(found)

    def owed(self) -> dict[str, int]:
        """Base units that went before any acquisition was known, by token; nothing in sound books."""
        return {token: raw for token, raw in self._owed.items() if raw}

    def _next(self, lots: list[OpenLot]) -> int:
        match self.method:
            case LotMethod.FIFO | LotMethod.AVERAGE:
                return 0
            case LotMethod.LIFO:
                return len(lots) - 1
            case LotMethod.HIFO:
                return max(range(len(lots)), key=lambda number: (lots[number].cost / lots[number].raw, -number))

    def _cost(self, lots: list[OpenLot], lot: OpenLot, taken: int) -> Value:
        if self.method is not LotMethod.AVERAGE:
            return lot.cost if taken == lot.raw else part(lot.cost, taken, lot.raw)
        total, raw = sum((one.cost for one in lots), Fraction(0)), sum(one.raw for one in lots)
        return total if taken == raw else part(total, taken, raw)

    def _take(self, lots: list[OpenLot], number: int, taken: int, cost: Value) -> None:
        lot = lots[number]
        if self.method is LotMethod.AVERAGE:  # costs are pooled: the pool pays, whichever lot the units come from
            pooled = sum((one.cost for one in lots), Fraction(0)) - cost
            if taken == lot.raw:
                del lots[number]
            else:
                lots[number] = replace(lot, raw=lot.raw - taken)
            for position, one in enumerate(lots):
                lots[position] = replace(one, cost=pooled if position == 0 else Fraction(0))
        elif taken == lot.raw:
            del lots[number]
        else:
            lots[number] = replace(lot, raw=lot.raw - taken, cost=lot.cost - cost)
