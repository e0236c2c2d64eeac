"""From journal entries to acquisitions and disposals, and what they realised by a lot rule in a reporting currency.

Values: an exchange is worth what was paid or got in the numeraire; between other tokens what was got counts at its reference
price. Gas of an exchange lowers what it brought, or where nothing but the numeraire was given raises what was bought. Native coin
that pays gas is disposed of at its reference price. What comes is acquired at its reference price; what the owner takes out
leaves at cost, as a transfer to himself; what is lost is disposed of for nothing. Native coin and its wrapped token are one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from fractions import Fraction

from agent.books import entries as accounts
from agent.books.grain import GRAIN, grains, shared, valued
from agent.books.lots import Lot, Lots
from agent.model import Entry, LotMethod, OpenLot
from agent.units import NATIVE, Value

Rate = Callable[[int], Fraction]
"""Reporting units per numeraire unit at a chain time."""
_LEAVES, _COMES = (accounts.WITHDRAWALS,), (accounts.OPENED, accounts.DEPOSITS)
_INCOME = (accounts.GIFTS, accounts.REBASES, accounts.LP_INCOME)
_LOST = (accounts.LOSSES, accounts.LP_LOSSES)
_OF_EXCHANGES = (accounts.TRADING, accounts.FEES, accounts.GAS)


@dataclass(slots=True)
class Disposal:
    """One lot, or a part of one, that was given; `acquired_s` is None where no lot was known. What it brought and had cost is kept in
    the grain of the books.
    """

    entry: str
    token: str
    raw: int
    brought: int
    had_cost: int
    acquired_s: int | None
    disposed_s: int
    by_hand: bool

    @property
    def proceeds(self) -> Value:
        """Reporting units."""
        return valued(self.brought)

    @property
    def cost(self) -> Value:
        """Reporting units."""
        return valued(self.had_cost)

    @property
    def gain(self) -> Value:
        """Above zero a gain."""
        return valued(self.brought - self.had_cost)

    @property
    def held_s(self) -> int:
        """Holding period."""
        return 0 if self.acquired_s is None else self.disposed_s - self.acquired_s


@dataclass(slots=True)
class TaxRun:
    """What a run over the ledger found. `sums` are in the grain of the books: what came, went, was income, was carried (what transfers
    to the owner were worth above their cost) and spent (gas that belongs to no exchange). `unpriced` are entries that came or went
    without a price and count at zero.
    """

    lots: Lots
    disposals: list[Disposal] = field(default_factory=list)
    created: dict[str, int] = field(default_factory=dict)
    consumed: dict[str, int] = field(default_factory=dict)
    sums: Counter[str] = field(default_factory=Counter)
    unpriced: list[str] = field(default_factory=list)

    @property
    def came(self) -> Value:
        """Deposits and openings, reporting units."""
        return valued(self.sums["came"])

    @property
    def went(self) -> Value:
        """Withdrawals, reporting units."""
        return valued(self.sums["went"])

    @property
    def income(self) -> Value:
        """Gifts, rebases and fees of positions, reporting units."""
        return valued(self.sums["income"])

    @property
    def spent(self) -> Value:
        """Gas that belongs to no exchange, reporting units."""
        return valued(self.sums["spent"])

    @property
    def carried(self) -> Value:
        """What transfers to the owner were worth above their cost, reporting units."""
        return valued(self.sums["carried"])

    def realised(self, from_s: int = 0, until_s: int | None = None) -> Value:
        """Gains less losses of disposals with from_s <= time < until_s."""
        within = (one for one in self.disposals if from_s <= one.disposed_s and (until_s is None or one.disposed_s < until_s))
        return gains(within)

    def gained(self, from_s: int) -> Value:
        """Of entries with from_s <= time what each gained, gains less losses in itself; one that lost takes nothing from the others."""
        each: Counter[str] = Counter()
        for one in self.disposals:
            if from_s <= one.disposed_s:
                each[one.entry] += one.brought - one.had_cost
        return valued(sum(gain for gain in each.values() if gain > 0))

    def open(self) -> tuple[OpenLot, ...]:
        """Lots that are left."""
        return self.lots.open()


def gains(disposals: Iterable[Disposal]) -> Value:
    """All of them, losses taken off."""
    return valued(sum(one.brought - one.had_cost for one in disposals))


def same_rate(_: int) -> Fraction:
    """The numeraire itself is what is reported in."""
    return Fraction(1)


def run(entries: Iterable[Entry], method: LotMethod, numeraire: str, coin: str, rate: Rate = same_rate, lots: Lots | None = None) -> TaxRun:
    """Goes through the ledger in its order, from `lots` on. Raises what `rate` raises where the table does not reach."""
    found = TaxRun(lots or Lots(method))
    for entry in entries:
        _Step(found, entry, numeraire, coin, rate(entry.chain_s)).book()
    return found


class _Step:
    """One entry's acquisitions and disposals, all values in the grain of the books."""

    def __init__(self, found: TaxRun, entry: Entry, numeraire: str, coin: str, rate: Fraction) -> None:
        self.run, self.entry, self.numeraire, self.coin = found, entry, numeraire, coin
        self.rate = None if rate == 1 else rate
        self.raw: dict[tuple[str, str], int] = {}
        self.value: dict[tuple[str, str], int] = {}
        for posting in entry.postings:
            account = posting.account
            if posting.value is None and not account.startswith(accounts.LP):
                found.unpriced.append(entry.id)
            if account.startswith("assets:"):  # what moved there is told by the other side
                continue
            key = (account, coin if posting.token == NATIVE else posting.token)
            self.raw[key] = self.raw.get(key, 0) + posting.raw
            self.value[key] = self.value.get(key, 0) + (0 if posting.value is None else grains(posting.value))

    def book(self) -> None:
        got, gave = self._exchanged()
        gas_raw = self.raw.get((accounts.GAS, self.coin), 0)
        gas = self._rated(self.value.get((accounts.GAS, self.coin), 0))
        if not all(account in _OF_EXCHANGES for account, _ in self.raw):
            for account in (*_COMES, *_INCOME, accounts.UNEXPLAINED):
                self._external(account, True)
            for account in (*_LEAVES, *_LOST):
                self._external(account, False)
        self._exchange(got, gave, gas)
        if gas_raw:
            self._dispose(self.coin, gas_raw, gas)
            if not got and not gave:
                self.run.sums["spent"] += gas

    def _rated(self, number: int) -> int:
        """Numeraire units as reporting units."""
        return number if self.rate is None else round(number * self.rate)

    def _exchanged(self) -> tuple[dict[str, int], dict[str, int]]:
        """What an exchange got and gave, base units by token; fees were part of what was given."""
        net: dict[str, int] = {}
        for (account, token), raw in self.raw.items():
            if account in (accounts.TRADING, accounts.FEES):
                net[token] = net.get(token, 0) - raw
        return {token: raw for token, raw in net.items() if raw > 0}, {token: -raw for token, raw in net.items() if raw < 0}

    def _worth(self, token: str) -> int:
        """Reference value of what was exchanged of a token, without sign."""
        return self._rated(abs(self.value.get((accounts.TRADING, token), 0) + self.value.get((accounts.FEES, token), 0)))

    def _exchange(self, got: dict[str, int], gave: dict[str, int], gas: int) -> None:
        if not got and not gave:
            return
        bought, sold = sorted(set(got) - {self.numeraire}), sorted(set(gave) - {self.numeraire})
        face_in, face_out = (self._rated(side.get(self.numeraire, 0) * GRAIN) for side in (got, gave))
        worth_bought, worth_sold = ([self._worth(token) for token in side] for side in (bought, sold))
        if not gave:  # for nothing: income
            self.run.sums["income"] += face_in + sum(worth_bought)
        if not got:
            face_out = paid = costs = 0
        elif face_out:  # what is sold beside the numeraire counts at its reference price, and what is bought costs both
            paid = sum(worth_sold)
            costs = face_out + paid
        else:
            costs = sum(worth_bought)
            paid = face_in + costs
        if sold:
            for token, proceeds in zip(sold, shared(paid - gas, worth_sold), strict=True):
                self._dispose(token, gave[token], proceeds)
        if self.numeraire in gave:
            self._dispose(self.numeraire, gave[self.numeraire], face_out if got or sold else -gas)
        if bought:
            for token, cost in zip(bought, shared(costs + (0 if sold else gas), worth_bought), strict=True):
                self._acquire(token, got[token], cost)
        if self.numeraire in got:
            self._acquire(self.numeraire, got[self.numeraire], face_in + (0 if sold or bought else gas))

    def _external(self, account: str, came: bool) -> None:
        for (where, token), raw in self.raw.items():
            if where != account or raw == 0:
                continue
            value = self._rated(abs(self.value[where, token]))
            if raw < 0 and came:
                self._acquire(token, -raw, value)
                self.run.sums["income" if account in _INCOME else "came"] += value
            elif account in _LOST or account in _INCOME:
                self._dispose(token, abs(raw), 0)
            else:
                self._leave(token, abs(raw), value)

    def _acquire(self, token: str, raw: int, cost: int) -> None:
        self.run.created[token] = self.run.created.get(token, 0) + raw
        self.run.lots.come(token, raw, cost, self.entry.chain_s)

    def _leave(self, token: str, raw: int, value: int) -> None:
        self.run.sums["went"] += value
        self.run.sums["carried"] += value - sum(taken.cost for taken in self._take(token, raw, value))

    def _dispose(self, token: str, raw: int, proceeds: int) -> None:
        taken, entry = self._take(token, raw, proceeds), self.entry
        for one, brought in zip(taken, shared(proceeds, [one.raw for one in taken]), strict=True):
            self.run.disposals.append(Disposal(entry.id, token, one.raw, brought, one.cost, one.acquired_s, entry.chain_s, entry.by_hand))

    def _take(self, token: str, raw: int, at_cost: int) -> list[Lot]:
        self.run.consumed[token] = self.run.consumed.get(token, 0) + raw
        return self.run.lots.go(token, raw, at_cost)
