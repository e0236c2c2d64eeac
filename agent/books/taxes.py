"""From journal entries to acquisitions and disposals, and what they realised by a lot rule in a reporting currency.

Values: an exchange is worth what was paid or got in the numeraire; between other tokens what was got counts at its reference
price. Gas of an exchange lowers what it brought, or where nothing but the numeraire was given raises what was bought. Native coin
that pays gas is disposed of at its reference price. What comes is acquired at its reference price; what the owner takes out
leaves at cost, as a transfer to himself; what is lost is disposed of for nothing. Native coin and its wrapped token are one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from fractions import Fraction

from agent.books import entries as accounts
from agent.books.grain import grained, shared
from agent.books.lots import Lots, Taken
from agent.model import Entry, LotMethod, OpenLot
from agent.units import NATIVE, Value

Rate = Callable[[int], Fraction]
"""Reporting units per numeraire unit at a chain time."""
_LEAVES, _COMES = (accounts.WITHDRAWALS,), (accounts.OPENED, accounts.DEPOSITS)
_INCOME = (accounts.GIFTS, accounts.REBASES, accounts.LP_INCOME)
_LOST = (accounts.LOSSES, accounts.LP_LOSSES)


@dataclass(frozen=True, slots=True)
class Disposal:
    """One lot, or a part of one, that was given for `proceeds`; `acquired_s` is None where no lot was known. Reporting units."""

    entry: str
    token: str
    raw: int
    proceeds: Value
    cost: Value
    acquired_s: int | None
    disposed_s: int
    by_hand: bool

    @property
    def gain(self) -> Value:
        """Above zero a gain."""
        return self.proceeds - self.cost

    @property
    def held_s(self) -> int:
        """Holding period."""
        return 0 if self.acquired_s is None else self.disposed_s - self.acquired_s


@dataclass(slots=True)
class TaxRun:
    """What a run over the ledger found. Reporting units. `carried` is what transfers to the owner were worth above their cost,
    `spent` gas that belongs to no exchange, `unpriced` entries that came or went without a price and count at zero.
    """

    lots: Lots
    disposals: list[Disposal] = field(default_factory=list)
    created: dict[str, int] = field(default_factory=dict)
    consumed: dict[str, int] = field(default_factory=dict)
    came: Value = Fraction(0)
    went: Value = Fraction(0)
    income: Value = Fraction(0)
    spent: Value = Fraction(0)
    carried: Value = Fraction(0)
    unpriced: list[str] = field(default_factory=list)

    def realised(self, from_s: int = 0, until_s: int | None = None) -> Value:
        """Gains less losses of disposals with from_s <= time < until_s."""
        return sum(
            (one.gain for one in self.disposals if from_s <= one.disposed_s and (until_s is None or one.disposed_s < until_s)), _ZERO
        )

    def open(self) -> tuple[OpenLot, ...]:
        """Lots that are left."""
        return self.lots.open()


_ZERO = Fraction(0)


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
    """One entry's acquisitions and disposals."""

    def __init__(self, found: TaxRun, entry: Entry, numeraire: str, coin: str, rate: Fraction) -> None:
        self.run, self.entry, self.numeraire, self.coin, self.rate = found, entry, numeraire, coin, rate
        self.raw: dict[tuple[str, str], int] = {}
        self.value: dict[tuple[str, str], Fraction] = {}
        for posting in entry.postings:
            token = coin if posting.token == NATIVE else posting.token
            key = (posting.account, token)
            self.raw[key] = self.raw.get(key, 0) + posting.raw
            if posting.value is None and not posting.account.startswith("assets:lp"):
                self.run.unpriced.append(entry.id)
            self.value[key] = self.value.get(key, _ZERO) + (posting.value or _ZERO)

    def book(self) -> None:
        got, gave = self._exchanged()
        gas_raw = self.raw.get((accounts.GAS, self.coin), 0)
        gas = grained(self.value.get((accounts.GAS, self.coin), _ZERO) * self.rate)
        for account, came in ((one, True) for one in (*_COMES, *_INCOME, accounts.UNEXPLAINED)):
            self._external(account, came)
        for account in (*_LEAVES, *_LOST):
            self._external(account, False)
        self._exchange(got, gave, gas)
        if gas_raw:
            self._dispose(self.coin, gas_raw, gas)
            if not got and not gave:
                self.run.spent += gas

    def _exchanged(self) -> tuple[dict[str, int], dict[str, int]]:
        """What an exchange got and gave, base units by token; fees were part of what was given."""
        net: dict[str, int] = {}
        for (account, token), raw in self.raw.items():
            if account in (accounts.TRADING, accounts.FEES):
                net[token] = net.get(token, 0) - raw
        return {token: raw for token, raw in net.items() if raw > 0}, {token: -raw for token, raw in net.items() if raw < 0}

    def _worth(self, token: str) -> Fraction:
        """Reference value of what was exchanged of a token, reporting units, without sign."""
        keys = ((accounts.TRADING, token), (accounts.FEES, token))
        return grained(abs(sum((self.value.get(key, _ZERO) for key in keys), _ZERO)) * self.rate)

    def _exchange(self, got: dict[str, int], gave: dict[str, int], gas: Value) -> None:
        bought, sold = sorted(set(got) - {self.numeraire}), sorted(set(gave) - {self.numeraire})
        face_in, face_out = (grained(side.get(self.numeraire, 0) * self.rate) for side in (got, gave))
        worth_bought, worth_sold = ([self._worth(token) for token in side] for side in (bought, sold))
        if not gave:  # for nothing: income
            self.run.income += face_in + sum(worth_bought, _ZERO)
        if not got:
            face_out, paid, costs = _ZERO, _ZERO, _ZERO
        elif face_out:  # what is sold beside the numeraire counts at its reference price, and what is bought costs both
            paid = sum(worth_sold, _ZERO)
            costs = face_out + paid
        else:
            costs = sum(worth_bought, _ZERO)
            paid = face_in + costs
        if sold:
            for token, proceeds in zip(sold, shared(paid - gas, worth_sold), strict=True):
                self._dispose(token, gave[token], proceeds)
        if self.numeraire in gave:
            self._dispose(self.numeraire, gave[self.numeraire], face_out if got or sold else -gas)
        if bought:
            for token, cost in zip(bought, shared(costs + (_ZERO if sold else gas), worth_bought), strict=True):
                self._acquire(token, got[token], cost)
        if self.numeraire in got:
            self._acquire(self.numeraire, got[self.numeraire], face_in + (_ZERO if sold or bought else gas))

    def _external(self, account: str, came: bool) -> None:
        for (where, token), raw in self.raw.items():
            if where != account or raw == 0:
                continue
            value = grained(abs(self.value[where, token]) * self.rate)
            if raw < 0 and came:
                self._acquire(token, -raw, value)
                if account in _INCOME:
                    self.run.income += value
                else:
                    self.run.came += value
            elif account in _LOST or account in _INCOME:
                self._dispose(token, abs(raw), _ZERO)
            else:
                self._leave(token, abs(raw), value)

    def _acquire(self, token: str, raw: int, cost: Value) -> None:
        self.run.created[token] = self.run.created.get(token, 0) + raw
        self.run.lots.acquire(token, raw, cost, self.entry.chain_s)

    def _leave(self, token: str, raw: int, value: Value) -> None:
        cost = sum((taken.cost for taken in self._take(token, raw, value)), _ZERO)
        self.run.went += value
        self.run.carried += value - cost

    def _dispose(self, token: str, raw: int, proceeds: Value) -> None:
        taken = self._take(token, raw, proceeds)
        for one, part in zip(taken, shared(proceeds, [Fraction(one.raw) for one in taken]), strict=True):
            self.run.disposals.append(
                Disposal(self.entry.id, token, one.raw, part, one.cost, one.acquired_s, self.entry.chain_s, self.entry.by_hand)
            )

    def _take(self, token: str, raw: int, at_cost: Value) -> tuple[Taken, ...]:
        self.run.consumed[token] = self.run.consumed.get(token, 0) + raw
        return self.run.lots.dispose(token, raw, at_cost)
