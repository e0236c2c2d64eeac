"""Tax lots: acquisitions and disposals from journal entries, and realised gains in a reporting
currency.

An exchange against the numeraire is valued at the amount paid or received; between other tokens the
received amount counts at its reference price. Gas of an exchange lowers its proceeds, or raises the
cost of a purchase paid in the numeraire alone. Native coin spent on gas is disposed of at its
reference price. A deposit is acquired at its reference price. A withdrawal leaves at cost, as a
transfer to the owner. A loss is a disposal with zero proceeds. Native coin and its wrapped token
share lots.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from heapq import heappop, heappush
from typing import NamedTuple

from agent.accounting import entries as accounts
from agent.accounting import entries as book
from agent.accounting.entries import (
    QUANTA_PER_UNIT,
    EntryPrices,
    SettledTransaction,
    from_quanta,
    prorated_value,
    split_quanta,
    to_quanta,
)
from agent.model import Entry, LegFunding, LotMethod, OpenLot, Plan, TaxState
from agent.units import NATIVE, Price, Value

# --- Tax lots of every token: the cost of each acquisition, and the lots a disposal takes, by four
# methods.


@dataclass(frozen=True, slots=True)
class LotPortion:
    """Part of one lot taken by a disposal, base units, with its cost. `acquired_s` is None without
    a known lot.
    """

    raw: int
    cost: Value
    acquired_s: int | None


class Lot(NamedTuple):
    """Base units, their cost in quanta, and the time of acquisition (None: no lot was known)."""

    raw: int
    cost: int
    acquired_s: int | None


@dataclass(frozen=True, slots=True)
class NextLot:
    """The next lot of a disposal: its base units, and the base units and cost of the pool that it
    belongs to.
    """

    raw: int
    pool_raw: int
    pool_cost: Value

    def cost_of(self, raw: int) -> Value:
        """Return the cost of the first `raw` base units."""
        return (
            self.pool_cost
            if raw == self.pool_raw
            else prorated_value(self.pool_cost, raw, self.pool_raw)
        )


class Lots:
    """Open lots by token, in the order of disposal.

    Oldest first (fifo, and average for dates), newest first (lifo), or highest cost per unit first
    (hifo, the older of two equal). With average cost every unit of a token costs the same. Costs of
    disposals are rounded down to the grid of accounting/entries.py; the remainder stays with the
    open lots, so that both sum to the amount paid.
    """

    def __init__(self, method: LotMethod, lots: Iterable[OpenLot] = ()) -> None:
        self.method = method
        self._piles: dict[str, _TokenLots] = {}
        self._owed: dict[str, int] = {}
        for lot in lots:
            self._pile(lot.token).add(Lot(lot.raw, to_quanta(lot.cost), lot.acquired_s))

    def acquire(self, token: str, raw: int, cost: Value, at_s: int) -> None:
        """Acquire base units for `cost`. Earlier disposals without a lot are served first."""
        self.come(token, raw, to_quanta(cost), at_s)

    def dispose(self, token: str, raw: int, at_cost: Value) -> tuple[LotPortion, ...]:
        """Return the lots that `raw` base units take; missing lots count as acquired at their share
        of `at_cost`: no gain.
        """
        return tuple(
            LotPortion(lot.raw, from_quanta(lot.cost), lot.acquired_s)
            for lot in self.go(token, raw, to_quanta(at_cost))
        )

    def come(self, token: str, raw: int, cost: int, at_s: int) -> None:
        """Acquire like `acquire`, with the cost in quanta."""
        filled = min(raw, self._owed.get(token, 0))
        if filled:
            self._owed[token] -= filled
        if raw > filled:
            self._pile(token).add(Lot(raw - filled, cost - cost * filled // raw, at_s))

    def go(self, token: str, raw: int, at_cost: int) -> list[Lot]:
        """Dispose as `dispose`, with costs in quanta."""
        pile, left, found = self._pile(token), raw, []
        while left > 0 and pile.raw:
            found.append(pile.take(left))
            left -= found[-1].raw
        if left > 0:
            found.append(Lot(left, at_cost if left == raw else at_cost * left // raw, None))
            self._owed[token] = self._owed.get(token, 0) + left
        return found

    def lots_in_order(self, token: str) -> Iterator[NextLot]:
        """Yield and remove the lots of a token in the order of disposal."""
        pile = self._pile(token)
        while pile.raw:
            found = pile.stretch()
            pile.take(found.raw)
            yield found

    def open(self) -> tuple[OpenLot, ...]:
        """Return the open lots by token, oldest first; with average cost each at the token's
        average.
        """
        return tuple(
            OpenLot(token, lot.raw, from_quanta(lot.cost), lot.acquired_s or 0)
            for token in sorted(self._piles)
            for lot in self._piles[token].open()
        )

    def owed(self) -> dict[str, int]:
        """Return the base units disposed of before any known acquisition, by token; none in a sound
        ledger.
        """
        return {token: raw for token, raw in self._owed.items() if raw}

    def _pile(self, token: str) -> _TokenLots:
        return self._piles.setdefault(token, _TokenLots(self.method))


class _TokenLots:
    """One token's lots. Adding or taking a lot never scans the others: ledgers grow for years."""

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
        """Take the whole next lot, or at most `most` base units of it."""
        lot, number = self._next()
        raw = min(most, lot.raw)
        if (
            self.method is LotMethod.AVERAGE
        ):  # costs are pooled: the pool pays, whichever lot provides the units
            cost = self._cost if raw == self.raw else self._cost * raw // self.raw
        else:
            cost = lot.cost if raw == lot.raw else lot.cost * raw // lot.raw
        if raw < lot.raw:
            self._put(Lot(lot.raw - raw, lot.cost - cost, lot.acquired_s), number, back=True)
        self.raw, self._cost = self.raw - raw, self._cost - cost
        return Lot(raw, cost, lot.acquired_s)

    def stretch(self) -> NextLot:
        """Return the lot that the next disposal takes first; with average cost, the pooled cost."""
        lot, number = self._next()
        self._put(lot, number, back=True)
        raw, cost = (
            (self.raw, self._cost) if self.method is LotMethod.AVERAGE else (lot.raw, lot.cost)
        )
        return NextLot(lot.raw, raw, from_quanta(cost))

    def open(self) -> list[Lot]:
        """Return the open lots, oldest first."""
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
        """Put a lot into its order; with `back` the remainder of a lot returns to its place."""
        match self.method:
            case LotMethod.HIFO:
                heappush(self._dearest, (Fraction(-lot.cost, lot.raw), number, lot))
            case LotMethod.FIFO | LotMethod.AVERAGE if back:
                self._line.appendleft(lot)
            case _:
                self._line.append(lot)


Rate = Callable[[int], Fraction]
"""Reporting units per numeraire unit at a chain time."""
_LEAVES, _COMES = (accounts.WITHDRAWALS,), (accounts.OPENING, accounts.DEPOSITS)
_INCOME = (accounts.GIFTS, accounts.REBASES, accounts.LP_INCOME)
_LOST = (accounts.LOSSES, accounts.LP_LOSSES)
_OF_EXCHANGES = (accounts.TRADING, accounts.FEES, accounts.GAS)


@dataclass(slots=True)
class Disposal:
    """A lot, or part of a lot, that was disposed of; `acquired_s` is None without a known lot.
    Proceeds and cost in quanta.
    """

    entry: str
    token: str
    raw: int
    proceeds_quanta: int
    cost_quanta: int
    acquired_s: int | None
    disposed_s: int
    by_hand: bool

    @property
    def proceeds(self) -> Value:
        """Reporting units."""
        return from_quanta(self.proceeds_quanta)

    @property
    def cost(self) -> Value:
        """Reporting units."""
        return from_quanta(self.cost_quanta)

    @property
    def gain(self) -> Value:
        """Above zero a gain."""
        return from_quanta(self.proceeds_quanta - self.cost_quanta)

    @property
    def held_s(self) -> int:
        """Holding period."""
        return 0 if self.acquired_s is None else self.disposed_s - self.acquired_s


@dataclass(slots=True)
class TaxLotRun:
    """Result of a run over the ledger.

    `sums` are in quanta: deposits, withdrawals, income, the excess of value over cost of transfers
    to the owner (carried), and gas outside exchanges (spent). `unpriced` are entries without a
    price, which count as zero.
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
        return from_quanta(self.sums["came"])

    @property
    def went(self) -> Value:
        """Withdrawals, reporting units."""
        return from_quanta(self.sums["went"])

    @property
    def income(self) -> Value:
        """Gifts, rebases and fees of positions, reporting units."""
        return from_quanta(self.sums["income"])

    @property
    def spent(self) -> Value:
        """Gas that belongs to no exchange, reporting units."""
        return from_quanta(self.sums["spent"])

    @property
    def carried(self) -> Value:
        """Value of transfers to the owner above their cost, reporting units."""
        return from_quanta(self.sums["carried"])

    def realised(self, from_s: int = 0, until_s: int | None = None) -> Value:
        """Gains less losses of disposals with from_s <= time < until_s."""
        within = (
            one
            for one in self.disposals
            if from_s <= one.disposed_s and (until_s is None or one.disposed_s < until_s)
        )
        return net_gain(within)

    def gained(self, from_s: int) -> Value:
        """Return the sum of gains per entry since `from_s`; losing entries count as zero."""
        each: Counter[str] = Counter()
        for one in self.disposals:
            if from_s <= one.disposed_s:
                each[one.entry] += one.proceeds_quanta - one.cost_quanta
        return from_quanta(sum(gain for gain in each.values() if gain > 0))

    def open(self) -> tuple[OpenLot, ...]:
        """Open lots."""
        return self.lots.open()


def net_gain(disposals: Iterable[Disposal]) -> Value:
    """Return the net gain of all disposals."""
    return from_quanta(sum(one.proceeds_quanta - one.cost_quanta for one in disposals))


def identity_rate(_: int) -> Fraction:
    """Exchange rate 1: the reporting currency is the numeraire."""
    return Fraction(1)


def run_tax_lots(
    entries: Iterable[Entry],
    method: LotMethod,
    numeraire: str,
    coin: str,
    rate: Rate = identity_rate,
    lots: Lots | None = None,
) -> TaxLotRun:
    """Goes through the ledger in its order, from `lots` on. Raises what `rate` raises where the
    table does not reach.
    """
    found = TaxLotRun(lots or Lots(method))
    for entry in entries:
        _EntryLots(found, entry, numeraire, coin, rate(entry.chain_s)).book()
    return found


class _EntryLots:
    """One entry's acquisitions and disposals, all values in quanta."""

    def __init__(
        self, found: TaxLotRun, entry: Entry, numeraire: str, coin: str, rate: Fraction
    ) -> None:
        self.run, self.entry, self.numeraire, self.coin = found, entry, numeraire, coin
        self.rate = None if rate == 1 else rate
        self.raw: dict[tuple[str, str], int] = {}
        self.value: dict[tuple[str, str], int] = {}
        for posting in entry.postings:
            account = posting.account
            if posting.value is None and not account.startswith(accounts.LP):
                found.unpriced.append(entry.id)
            if account.startswith("assets:"):  # the other side of the entry accounts for it
                continue
            key = (account, coin if posting.token == NATIVE else posting.token)
            self.raw[key] = self.raw.get(key, 0) + posting.raw
            self.value[key] = self.value.get(key, 0) + (
                0 if posting.value is None else to_quanta(posting.value)
            )

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
        """Return the amounts that an exchange received and gave, base units by token; fees are part
        of the amounts given.
        """
        net: dict[str, int] = {}
        for (account, token), raw in self.raw.items():
            if account in (accounts.TRADING, accounts.FEES):
                net[token] = net.get(token, 0) - raw
        return {token: raw for token, raw in net.items() if raw > 0}, {
            token: -raw for token, raw in net.items() if raw < 0
        }

    def _worth(self, token: str) -> int:
        """Return the reference value of the exchanged amount of a token, unsigned."""
        return self._rated(
            abs(
                self.value.get((accounts.TRADING, token), 0)
                + self.value.get((accounts.FEES, token), 0)
            )
        )

    def _exchange(self, got: dict[str, int], gave: dict[str, int], gas: int) -> None:
        if not got and not gave:
            return
        bought, sold = sorted(set(got) - {self.numeraire}), sorted(set(gave) - {self.numeraire})
        face_in, face_out = (
            self._rated(side.get(self.numeraire, 0) * QUANTA_PER_UNIT) for side in (got, gave)
        )
        worth_bought, worth_sold = (
            [self._worth(token) for token in side] for side in (bought, sold)
        )
        if not gave:  # for nothing: income
            self.run.sums["income"] += face_in + sum(worth_bought)
        if not got:
            face_out = paid = costs = 0
        elif (
            face_out
        ):  # other tokens given count at their reference prices, and the purchase costs both
            paid = sum(worth_sold)
            costs = face_out + paid
        else:
            costs = sum(worth_bought)
            paid = face_in + costs
        if sold:
            for token, proceeds in zip(sold, split_quanta(paid - gas, worth_sold), strict=True):
                self._dispose(token, gave[token], proceeds)
        if self.numeraire in gave:
            self._dispose(self.numeraire, gave[self.numeraire], face_out if got or sold else -gas)
        if bought:
            for token, cost in zip(
                bought, split_quanta(costs + (0 if sold else gas), worth_bought), strict=True
            ):
                self._acquire(token, got[token], cost)
        if self.numeraire in got:
            self._acquire(
                self.numeraire, got[self.numeraire], face_in + (0 if sold or bought else gas)
            )

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
        self.run.sums["carried"] += value - sum(
            taken.cost for taken in self._take(token, raw, value)
        )

    def _dispose(self, token: str, raw: int, proceeds: int) -> None:
        taken, entry = self._take(token, raw, proceeds), self.entry
        for one, brought in zip(
            taken, split_quanta(proceeds, [one.raw for one in taken]), strict=True
        ):
            self.run.disposals.append(
                Disposal(
                    entry.id,
                    token,
                    one.raw,
                    brought,
                    one.cost,
                    one.acquired_s,
                    entry.chain_s,
                    entry.by_hand,
                )
            )

    def _take(self, token: str, raw: int, at_cost: int) -> list[Lot]:
        self.run.consumed[token] = self.run.consumed.get(token, 0) + raw
        return self.run.lots.go(token, raw, at_cost)


# --- Planned gains: a plan's taxable gain by the lot rule, per token, before anything is sent.


@dataclass(frozen=True, slots=True)
class PlannedGain:
    """Gain that a plan realises of one token, reporting units: base units sold, their proceeds and
    their cost.
    """

    token: str
    raw: int
    proceeds: Value
    cost: Value
    oldest_s: int | None
    newest_s: int | None

    @property
    def gain(self) -> Value:
        """Above zero a gain."""
        return self.proceeds - self.cost


def wallet_changes(plan: Plan) -> dict[str, int]:
    """Net change of each wallet balance that the legs predict, base units."""
    changes: dict[str, int] = {}
    for leg in plan.legs:
        if leg.source is LegFunding.WALLET:
            changes[leg.token_in] = changes.get(leg.token_in, 0) - leg.amount_in_raw
        if leg.sink is LegFunding.WALLET:
            changes[leg.token_out] = changes.get(leg.token_out, 0) + leg.amount_out_raw
    return changes


def planned_gains(
    plan: Plan, tax: TaxState, prices: Mapping[str, Price], numeraire: str, coin: str, now_s: int
) -> tuple[PlannedGain, ...]:
    """Return the gain of each token that the swaps and their gas dispose of; preceding approvals
    are excluded.
    """
    moved = wallet_changes(plan)
    price = prices.get(coin)
    gas_wei = round(plan.cost.gas / price) if price else 0
    counted = {*moved, NATIVE}
    change = SettledTransaction("plan", plan.block, now_s, "", "", moved, gas_wei)
    entry = book.trade_entry(change, EntryPrices(prices, coin), counted, {})
    found = run_tax_lots(
        [entry], tax.method, numeraire, coin, lambda _: tax.rate, Lots(tax.method, tax.lots)
    ).disposals
    return tuple(
        _gain(token, [one for one in found if one.token == token])
        for token in dict.fromkeys(one.token for one in found)
    )


def max_sellable_raw(
    lots: Iterable[OpenLot], method: LotMethod, token: str, price: Value, gain: Value, most_raw: int
) -> int:
    """Return the most base units, up to `most_raw`, that may be sold at `price` without realising
    more than `gain`. `price` is in reporting units per base unit. The bound holds at the end of
    every lot. Losses of earlier lots offset gains of later ones; amounts without a known lot gain
    nothing.
    """
    if gain < 0:
        return 0
    total, sold = Fraction(0), 0
    for stretch in Lots(method, (lot for lot in lots if lot.token == token)).lots_in_order(token):
        raw, before = min(stretch.raw, most_raw - sold), total
        total = before + raw * price - stretch.cost_of(raw)
        if total > gain:
            return sold + _longest(stretch, price, gain - before, raw)
        sold += raw
        if sold == most_raw:
            return sold
    return most_raw


def _longest(stretch: NextLot, price: Value, gain: Value, too_many: int) -> int:
    """Return the most units of one lot within a gain; the gain per unit is constant within a
    lot.
    """
    low, high = 0, too_many - 1
    while low < high:
        middle = (low + high + 1) // 2
        if middle * price - stretch.cost_of(middle) <= gain:
            low = middle
        else:
            high = middle - 1
    return low


def _gain(token: str, parts: list[Disposal]) -> PlannedGain:
    times = [one.acquired_s for one in parts if one.acquired_s is not None]
    return PlannedGain(
        token,
        sum(one.raw for one in parts),
        sum((one.proceeds for one in parts), Fraction(0)),
        sum((one.cost for one in parts), Fraction(0)),
        min(times, default=None),
        max(times, default=None),
    )
