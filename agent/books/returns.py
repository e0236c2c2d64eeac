"""Returns from values over time: time-weighted by exact chain-linking, held by units, and what came and went between."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise

from agent.books.entries import GAS
from agent.books.grain import grained, summed
from agent.model import Entry, EntryKind, Valuation
from agent.units import NATIVE, Value

_EXTERNAL = (
    EntryKind.OPENING, EntryKind.DEPOSIT, EntryKind.WITHDRAWAL, EntryKind.GIFT, EntryKind.GAS_MONEY, EntryKind.PAYOUT, EntryKind.OUTSIDE,
)  # fmt: skip
"""What is neither the market's doing nor the strategy's."""


@dataclass(frozen=True, slots=True)
class Crossing:
    """Value that crossed the edge of the strategy: deposits above zero, withdrawals below, and what a swap by hand cost.

    `native` is the part of it in native coin.
    """

    block: int
    chain_s: int
    value: Value
    by_hand: bool
    native: Value = Fraction(0)


@dataclass(frozen=True, slots=True)
class Span:
    """From one valuation to the next; `crossed` is what came into the managed portfolio in between, taken to have come at the end.

    `from_gas_money` is the part of it that gas money gave: gas that it paid, less what refilled it.
    """

    start: Valuation
    end: Valuation
    crossed: Value
    from_gas_money: Value = Fraction(0)

    @property
    def factor(self) -> Fraction | None:
        """Growth without what crossed; None from a value of nothing."""
        return (self.end.managed - self.crossed) / self.start.managed if self.start.managed > 0 else None


def crossings(entries: Iterable[Entry]) -> tuple[Crossing, ...]:
    """Everything that is not the strategy's: what came and went, and the cost of what was done by hand. A fall that nobody has
    explained is a loss, a rise a deposit.
    """
    found = []
    for entry in entries:
        if not (entry.kind in _EXTERNAL or entry.by_hand or entry.kind is EntryKind.UNEXPLAINED):
            continue
        accounts = ("assets:",) if entry.by_hand else ("assets:", GAS)  # gas that a payment burns is a cost
        value = _sum(entry, accounts)
        if entry.kind is not EntryKind.UNEXPLAINED or entry.by_hand or value > 0:
            by_hand = entry.by_hand and entry.kind is not EntryKind.PAYOUT
            found.append(Crossing(entry.block, entry.chain_s, value, by_hand, _sum(entry, accounts, NATIVE)))
    return tuple(found)


def _sum(entry: Entry, accounts: tuple[str, ...], token: str | None = None) -> Value:
    return summed(
        one.value
        for one in entry.postings
        if one.account.startswith(accounts) and one.value is not None and (token is None or one.token == token)
    )


def spans(valuations: Sequence[Valuation], crossed: Iterable[Crossing]) -> tuple[Span, ...]:
    """Between neighbouring valuations; a block's own snapshot holds what happened in that block.

    What is reserved more than before left the managed portfolio, what is reserved less came back, at the price of the end.
    """
    by_block = sorted(crossed, key=lambda one: one.block)
    found, number = [], 0
    for start, end in pairwise(valuations):
        while number < len(by_block) and by_block[number].block <= start.block:
            number += 1
        total = native = Fraction(0)
        while number < len(by_block) and by_block[number].block <= end.block:
            total, native = total + by_block[number].value, native + by_block[number].native
            number += 1
        before, gas = {one.token: one.reserved_raw for one in start.held}, Fraction(0)
        for one in end.held:
            back = (before.pop(one.token, 0) - one.reserved_raw) * one.price
            total += back
            gas += back + native if one.is_gas_money else 0
        found.append(Span(start, end, total, gas))
    return tuple(found)


def time_weighted(parts: Sequence[Span]) -> Fraction | None:
    """Product of (end - crossed) / start, less one (Global Investment Performance Standards, time-weighted rate of return).

    Exact: neighbours with nothing between them cancel. Spans from a value of nothing are left out; None where all are.
    """
    found, known = Fraction(1), False
    first: Value | None = None
    last = Fraction(0)
    for part in parts:
        if part.start.managed <= 0:
            found, first = found * (last / first if first else 1), None
            continue
        known, first, last = True, part.start.managed if first is None else first, part.end.managed
        if part.crossed:
            found *= (last - part.crossed) / first
            first = last if last > 0 else None
    return found * (last / first if first else 1) - 1 if known else None


def held(valuations: Sequence[Valuation], crossed: Iterable[Crossing]) -> tuple[Value, Fraction | None]:
    """(profit, time-weighted return) of doing nothing: what was there at the first valuation stays, unit by unit; each deposit buys
    at that block's targets and reference prices, at no cost; each withdrawal takes the same share of everything. Gas money is no part.
    """
    units = {one.token: Fraction(one.managed_raw) for one in valuations[0].held}
    prices = {one.token: one.price for one in valuations[0].held}
    start = before = valuations[0].managed
    factor, came, known = Fraction(1), Fraction(0), start > 0
    for part in spans(valuations, (one for one in crossed if not one.by_hand)):
        prices |= {one.token: one.price for one in part.end.held}  # a token that has left the portfolio keeps its last price
        deposited = part.crossed - part.from_gas_money
        if not deposited and part.end is not valuations[-1]:
            continue
        worth = _worth(units, prices)
        if before > 0:
            factor, known = grained(factor * worth / before), True
        came += deposited
        if deposited > 0:
            targets = [one for one in part.end.held if one.target_bps and one.price > 0]
            whole = sum(one.target_bps for one in targets)
            for one in targets:
                units[one.token] = units.get(one.token, Fraction(0)) + grained(deposited * one.target_bps / whole / one.price)
        elif deposited < 0 and worth > 0:
            rest = max(Fraction(0), 1 + deposited / worth)
            units = {token: grained(raw * rest) for token, raw in units.items()}
        before = _worth(units, prices)
    return before - start - came, factor - 1 if known else None


def _worth(units: dict[str, Fraction], prices: dict[str, Fraction]) -> Value:
    return sum((raw * prices[token] for token, raw in units.items()), Fraction(0))
