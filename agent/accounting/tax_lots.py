"""Tax lots: acquisitions and disposals from ledger entries, and realised gains in a reporting
currency.

An exchange against the numeraire is valued at the numeraire amount; between other tokens the
received amount counts at its reference price. Gas of an exchange lowers the proceeds, or raises the
cost if only the numeraire was sold. Native coin spent on gas is disposed of at its reference price.
A deposit is an acquisition at its reference price, a withdrawal a transfer to the owner at cost, a
loss a disposal with zero proceeds. Native coin and its wrapped token share lots.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from heapq import heappop, heappush
from typing import NamedTuple

from agent.accounting import entries as accounts
from agent.accounting.entries import (
    QUANTA_PER_UNIT,
    EntryPrices,
    SettledTransaction,
    from_quanta,
    prorated_value,
    split_quanta,
    to_quanta,
)
from agent.model import Entry, LotMethod, OpenLot, Plan, TaxInputs
from agent.units import NATIVE, Price, Value


class Lot(NamedTuple):
    """Base units, their cost in quanta, and the time of acquisition (None: no known lot)."""

    raw: int
    cost_quanta: int
    acquired_s: int | None


@dataclass(frozen=True, slots=True)
class NextLot:
    """The lot that a disposal consumes next, and the base units and cost over which its cost is
    averaged.
    """

    raw: int
    averaged_raw: int
    averaged_cost: Value

    def cost_of(self, raw: int) -> Value:
        """Return the cost of the first `raw` base units."""
        if raw == self.averaged_raw:
            return self.averaged_cost
        return prorated_value(self.averaged_cost, raw, self.averaged_raw)


class Lots:
    """Open lots by token, in the order of disposal.

    Oldest first (fifo and average), newest first (lifo), or highest cost per unit first (hifo; the
    older of equal ones). With average cost all units of a token have the same cost. Costs of
    disposals are rounded down to the grid of accounting/entries.py; the remainder stays with the
    open lots, so that both sum to the amount paid.
    """

    def __init__(self, method: LotMethod, lots: Iterable[OpenLot] = ()) -> None:
        self.method = method
        self._lots_by_token: dict[str, _TokenLots] = {}
        self._unmatched_raw_by_token: dict[str, int] = {}
        for lot in lots:
            self._lots_of(lot.token).add(Lot(lot.raw, to_quanta(lot.cost), lot.acquired_s))

    def acquire(self, token: str, raw: int, cost_quanta: int, at_s: int) -> None:
        """Acquire base units. Earlier disposals without a lot are covered first."""
        covered_raw = min(raw, self._unmatched_raw_by_token.get(token, 0))
        if covered_raw:
            self._unmatched_raw_by_token[token] -= covered_raw
        if raw > covered_raw:
            self._lots_of(token).add(
                Lot(raw - covered_raw, cost_quanta - cost_quanta * covered_raw // raw, at_s)
            )

    def dispose(self, token: str, raw: int, quanta_without_lot: int) -> list[Lot]:
        """Return the lots that `raw` base units consume. Base units without a lot cost their share
        of `quanta_without_lot`, which gives no gain.
        """
        token_lots = self._lots_of(token)
        remaining_raw = raw
        consumed_lots = []
        while remaining_raw > 0 and token_lots.raw:
            consumed_lots.append(token_lots.take(remaining_raw))
            remaining_raw -= consumed_lots[-1].raw
        if remaining_raw > 0:
            consumed_lots.append(
                Lot(remaining_raw, quanta_without_lot * remaining_raw // raw, None)
            )
            self._unmatched_raw_by_token[token] = (
                self._unmatched_raw_by_token.get(token, 0) + remaining_raw
            )
        return consumed_lots

    def pop_lots(self, token: str) -> Iterator[NextLot]:
        """Yield and remove the lots of a token in the order of disposal."""
        token_lots = self._lots_of(token)
        while token_lots.raw:
            lot = token_lots.peek()
            token_lots.take(lot.raw)
            yield lot

    def open_lots(self) -> tuple[OpenLot, ...]:
        """Return the open lots by token, oldest first; with average cost each lot has the average
        of its token.
        """
        return tuple(
            OpenLot(token, lot.raw, from_quanta(lot.cost_quanta), lot.acquired_s or 0)
            for token in sorted(self._lots_by_token)
            for lot in self._lots_by_token[token].open_lots()
        )

    def unmatched_raw_by_token(self) -> dict[str, int]:
        """Return the base units by token that were disposed of without a known acquisition."""
        return {token: raw for token, raw in self._unmatched_raw_by_token.items() if raw}

    def _lots_of(self, token: str) -> _TokenLots:
        return self._lots_by_token.setdefault(token, _TokenLots(self.method))


class _TokenLots:
    """Lots of one token. No operation scans all lots, since ledgers grow for years."""

    def __init__(self, method: LotMethod) -> None:
        self.method = method
        self.raw = self._cost = self._added_count = 0
        self._lots: deque[Lot] = deque()
        self._costliest: list[tuple[Fraction, int, Lot]] = []

    def add(self, lot: Lot) -> None:
        """Add the newest lot."""
        self._put(lot, self._added_count)
        self._added_count += 1
        self.raw += lot.raw
        self._cost += lot.cost_quanta

    def take(self, max_raw: int) -> Lot:
        """Consume the next lot, or at most `max_raw` base units of it."""
        lot, sequence = self._pop_next()
        raw = min(max_raw, lot.raw)
        averaged_raw, averaged_cost = self._averaging_base(lot)
        cost = averaged_cost if raw == averaged_raw else averaged_cost * raw // averaged_raw

        if raw < lot.raw:
            self._put(
                Lot(lot.raw - raw, lot.cost_quanta - cost, lot.acquired_s),
                sequence,
                is_remainder=True,
            )
        self.raw -= raw
        self._cost -= cost
        return Lot(raw, cost, lot.acquired_s)

    def peek(self) -> NextLot:
        """Return the next lot without consuming it."""
        lot, sequence = self._pop_next()
        self._put(lot, sequence, is_remainder=True)
        averaged_raw, averaged_cost = self._averaging_base(lot)
        return NextLot(lot.raw, averaged_raw, from_quanta(averaged_cost))

    def _averaging_base(self, lot: Lot) -> tuple[int, int]:
        """Return the base units and cost over which the cost of a lot is averaged."""
        if self.method is LotMethod.AVERAGE:
            return self.raw, self._cost
        return lot.raw, lot.cost_quanta

    def open_lots(self) -> list[Lot]:
        """Return the open lots, oldest first."""
        if self.method is LotMethod.HIFO:
            return [
                lot for _, _, lot in sorted(self._costliest, key=lambda ranked_lot: ranked_lot[1])
            ]
        if self.method is not LotMethod.AVERAGE:
            return list(self._lots)
        lots = []
        raw_left = self.raw
        cost_left = self._cost
        for lot in self._lots:
            cost = cost_left * lot.raw // raw_left
            cost_left -= cost
            raw_left -= lot.raw
            lots.append(Lot(lot.raw, cost, lot.acquired_s))
        return lots

    def _pop_next(self) -> tuple[Lot, int]:
        match self.method:
            case LotMethod.FIFO | LotMethod.AVERAGE:
                return self._lots.popleft(), 0
            case LotMethod.LIFO:
                return self._lots.pop(), 0
            case LotMethod.HIFO:
                _, sequence, lot = heappop(self._costliest)
                return lot, sequence

    def _put(self, lot: Lot, sequence: int, *, is_remainder: bool = False) -> None:
        """Insert a lot in order. With `is_remainder`, return the rest of a partly consumed lot to
        its place.
        """
        match self.method:
            case LotMethod.HIFO:
                heappush(self._costliest, (Fraction(-lot.cost_quanta, lot.raw), sequence, lot))
            case LotMethod.FIFO | LotMethod.AVERAGE if is_remainder:
                self._lots.appendleft(lot)
            case _:
                self._lots.append(lot)


RateAt = Callable[[int], Fraction]
"""Reporting units per numeraire unit at a chain time."""
_WITHDRAWAL_ACCOUNTS = (accounts.WITHDRAWALS,)
_DEPOSIT_ACCOUNTS = (accounts.OPENING, accounts.DEPOSITS)
_INCOME_ACCOUNTS = (accounts.GIFTS, accounts.REBASES, accounts.LP_INCOME)
_LOSS_ACCOUNTS = (accounts.LOSSES, accounts.LP_LOSSES)
_EXCHANGE_ACCOUNTS = (accounts.TRADING, accounts.FEES, accounts.GAS)


@dataclass(slots=True)
class Disposal:
    """Part of a lot that was disposed of. `acquired_s` is None without a known lot."""

    entry_id: str
    token: str
    raw: int
    proceeds_quanta: int
    cost_quanta: int
    acquired_s: int | None
    disposed_s: int
    by_hand: bool

    @property
    def proceeds(self) -> Value:
        """Proceeds in reporting units."""
        return from_quanta(self.proceeds_quanta)

    @property
    def cost(self) -> Value:
        """Cost in reporting units."""
        return from_quanta(self.cost_quanta)

    @property
    def gain(self) -> Value:
        """Gain, negative for a loss, in reporting units."""
        return from_quanta(self.proceeds_quanta - self.cost_quanta)

    @property
    def held_s(self) -> int | None:
        """Holding period in seconds; None without a known lot."""
        return None if self.acquired_s is None else self.disposed_s - self.acquired_s


@dataclass(slots=True)
class TaxLotRun:
    """Lots, disposals and sums of a ledger.

    `deposited_quanta`, `withdrawn_quanta` and `income_quanta` are values,
    `untaxed_quanta` the excess of value over cost of transfers to the owner, `gas_quanta` gas
    outside exchanges. `unpriced_entries` are ids of entries with a missing price, which counts as
    zero.
    """

    lots: Lots
    disposals: list[Disposal] = field(default_factory=list)
    deposited_quanta: int = 0
    withdrawn_quanta: int = 0
    income_quanta: int = 0
    untaxed_quanta: int = 0
    gas_quanta: int = 0
    unpriced_entries: set[str] = field(default_factory=set)

    @property
    def deposits(self) -> Value:
        """Deposits and openings, reporting units."""
        return from_quanta(self.deposited_quanta)

    @property
    def gas_cost(self) -> Value:
        """Gas outside exchanges, reporting units."""
        return from_quanta(self.gas_quanta)

    def realised_gain(self, from_s: int = 0, until_s: int | None = None) -> Value:
        """Return gains less losses of disposals with from_s <= time < until_s."""
        disposals = (
            disposal
            for disposal in self.disposals
            if from_s <= disposal.disposed_s and (until_s is None or disposal.disposed_s < until_s)
        )
        return net_gain(disposals)

    def gross_gain(self, from_s: int) -> Value:
        """Return the sum of gains per entry since `from_s`; losing entries count as zero."""
        gain_quanta_by_entry: Counter[str] = Counter()
        for disposal in self.disposals:
            if from_s <= disposal.disposed_s:
                gain_quanta_by_entry[disposal.entry_id] += (
                    disposal.proceeds_quanta - disposal.cost_quanta
                )
        return from_quanta(
            sum(gain_quanta for gain_quanta in gain_quanta_by_entry.values() if gain_quanta > 0)
        )

    def open_lots(self) -> tuple[OpenLot, ...]:
        """Return the open lots."""
        return self.lots.open_lots()


def net_gain(disposals: Iterable[Disposal]) -> Value:
    """Return the net gain of all disposals."""
    return from_quanta(
        sum(disposal.proceeds_quanta - disposal.cost_quanta for disposal in disposals)
    )


def identity_rate(_: int) -> Fraction:
    """Return the exchange rate 1: the reporting currency is the numeraire."""
    return Fraction(1)


def run_tax_lots(
    entries: Iterable[Entry],
    method: LotMethod,
    numeraire: str,
    wrapped_native: str,
    rate_at: RateAt = identity_rate,
    lots: Lots | None = None,
) -> TaxLotRun:
    """Return the lots and disposals of the entries, in ledger order, starting from `lots`. Raises
    the errors of `rate_at`.
    """
    tax_lot_run = TaxLotRun(lots or Lots(method))
    for entry in entries:
        _EntryLots(tax_lot_run, entry, numeraire, wrapped_native, rate_at(entry.chain_s)).book()
    return tax_lot_run


class _EntryLots:
    """Acquisitions and disposals of one entry; all values are in quanta."""

    def __init__(
        self,
        tax_lot_run: TaxLotRun,
        entry: Entry,
        numeraire: str,
        wrapped_native: str,
        rate: Fraction,
    ) -> None:
        self.tax_lot_run = tax_lot_run
        self.entry = entry
        self.numeraire = numeraire
        self.wrapped_native = wrapped_native
        self.rate = None if rate == 1 else rate
        self.posted_raw: dict[tuple[str, str], int] = {}
        self.posted_quanta: dict[tuple[str, str], int] = {}
        for posting in entry.postings:
            account = posting.account
            if posting.value is None and not account.startswith(accounts.LP):
                tax_lot_run.unpriced_entries.add(entry.id)
            if account.startswith("assets:"):  # the opposite posting has the same amount
                continue
            account_and_token = (
                account,
                wrapped_native if posting.token == NATIVE else posting.token,
            )
            self.posted_raw[account_and_token] = (
                self.posted_raw.get(account_and_token, 0) + posting.raw
            )
            if posting.value is not None:
                self.posted_quanta[account_and_token] = self.posted_quanta.get(
                    account_and_token, 0
                ) + to_quanta(posting.value)

    def book(self) -> None:
        received_raw_by_token, spent_raw_by_token = self._exchanged_raw()
        gas_raw = self.posted_raw.get((accounts.GAS, self.wrapped_native), 0)
        gas_quanta = self._to_reporting(
            self.posted_quanta.get((accounts.GAS, self.wrapped_native), 0)
        )
        if not all(account in _EXCHANGE_ACCOUNTS for account, _ in self.posted_raw):
            for account in (*_DEPOSIT_ACCOUNTS, *_INCOME_ACCOUNTS, accounts.UNEXPLAINED):
                self._book_external(account, True)
            for account in (*_WITHDRAWAL_ACCOUNTS, *_LOSS_ACCOUNTS):
                self._book_external(account, False)
        self._book_exchange(received_raw_by_token, spent_raw_by_token, gas_quanta)
        if gas_raw:
            self._dispose(self.wrapped_native, gas_raw, gas_quanta)
            if not received_raw_by_token and not spent_raw_by_token:
                self.tax_lot_run.gas_quanta += gas_quanta

    def _to_reporting(self, quanta: int) -> int:
        """Return a numeraire value as a reporting value."""
        return quanta if self.rate is None else round(quanta * self.rate)

    def _exchanged_raw(self) -> tuple[dict[str, int], dict[str, int]]:
        """Return the amounts that an exchange received and gave, fees included, in base units by
        token.
        """
        net_raw_by_token: dict[str, int] = {}
        for (account, token), raw in self.posted_raw.items():
            if account in (accounts.TRADING, accounts.FEES):
                net_raw_by_token[token] = net_raw_by_token.get(token, 0) - raw
        received_raw_by_token = {token: raw for token, raw in net_raw_by_token.items() if raw > 0}
        spent_raw_by_token = {token: -raw for token, raw in net_raw_by_token.items() if raw < 0}
        return received_raw_by_token, spent_raw_by_token

    def _traded_quanta(self, token: str) -> int:
        """Return the reference value of the exchanged amount of a token, unsigned."""
        exchange_quanta = self.posted_quanta.get((accounts.TRADING, token), 0)
        fee_quanta = self.posted_quanta.get((accounts.FEES, token), 0)
        return self._to_reporting(abs(exchange_quanta + fee_quanta))

    def _book_exchange(
        self,
        received_raw_by_token: dict[str, int],
        spent_raw_by_token: dict[str, int],
        gas_quanta: int,
    ) -> None:
        if not spent_raw_by_token:
            self._book_receipt(received_raw_by_token, gas_quanta)
        elif not received_raw_by_token:
            self._book_loss(spent_raw_by_token, gas_quanta)
        elif self.numeraire in spent_raw_by_token:
            self._book_purchase(received_raw_by_token, spent_raw_by_token, gas_quanta)
        else:
            self._book_sale(received_raw_by_token, spent_raw_by_token, gas_quanta)

    def _book_receipt(self, received_raw_by_token: dict[str, int], gas_quanta: int) -> None:
        """Book a receipt without payment: income, whose gas raises the cost."""
        bought_tokens = self._tokens_beside_numeraire(received_raw_by_token)
        bought_quanta = sum(map(self._traded_quanta, bought_tokens))
        numeraire_quanta = self._numeraire_quanta(received_raw_by_token)
        self.tax_lot_run.income_quanta += numeraire_quanta + bought_quanta
        if bought_tokens:
            self._acquire_all(bought_tokens, received_raw_by_token, bought_quanta + gas_quanta)
        else:
            numeraire_quanta += gas_quanta
        self._acquire_numeraire(received_raw_by_token, numeraire_quanta)

    def _book_loss(self, spent_raw_by_token: dict[str, int], gas_quanta: int) -> None:
        """Book a payment without receipt: no proceeds, less gas."""
        sold_tokens = self._tokens_beside_numeraire(spent_raw_by_token)
        self._dispose_all(sold_tokens, spent_raw_by_token, -gas_quanta)
        if self.numeraire in spent_raw_by_token:
            proceeds_quanta = 0 if sold_tokens else -gas_quanta
            self._dispose(self.numeraire, spent_raw_by_token[self.numeraire], proceeds_quanta)

    def _book_purchase(
        self,
        received_raw_by_token: dict[str, int],
        spent_raw_by_token: dict[str, int],
        gas_quanta: int,
    ) -> None:
        """Book a payment with the numeraire; tokens given beside it count at their reference prices,
        less gas, which else raises the cost.
        """
        sold_tokens = self._tokens_beside_numeraire(spent_raw_by_token)
        sold_quanta = sum(map(self._traded_quanta, sold_tokens))
        numeraire_quanta = self._numeraire_quanta(spent_raw_by_token)
        self._dispose_all(sold_tokens, spent_raw_by_token, sold_quanta - gas_quanta)
        self._dispose(self.numeraire, spent_raw_by_token[self.numeraire], numeraire_quanta)
        cost_quanta = numeraire_quanta + (sold_quanta if sold_tokens else gas_quanta)
        self._acquire_all(sorted(received_raw_by_token), received_raw_by_token, cost_quanta)

    def _book_sale(
        self,
        received_raw_by_token: dict[str, int],
        spent_raw_by_token: dict[str, int],
        gas_quanta: int,
    ) -> None:
        """Book a payment without the numeraire: the proceeds are the numeraire received, and other
        tokens at their reference prices, less gas.
        """
        bought_tokens = self._tokens_beside_numeraire(received_raw_by_token)
        bought_quanta = sum(map(self._traded_quanta, bought_tokens))
        numeraire_quanta = self._numeraire_quanta(received_raw_by_token)
        proceeds_quanta = numeraire_quanta + bought_quanta - gas_quanta
        self._dispose_all(sorted(spent_raw_by_token), spent_raw_by_token, proceeds_quanta)
        self._acquire_all(bought_tokens, received_raw_by_token, bought_quanta)
        self._acquire_numeraire(received_raw_by_token, numeraire_quanta)

    def _tokens_beside_numeraire(self, raw_by_token: dict[str, int]) -> list[str]:
        return sorted(raw_by_token.keys() - {self.numeraire})

    def _numeraire_quanta(self, raw_by_token: dict[str, int]) -> int:
        """Return the numeraire's amount as a reporting value."""
        return self._to_reporting(raw_by_token.get(self.numeraire, 0) * QUANTA_PER_UNIT)

    def _acquire_all(
        self, tokens: list[str], raw_by_token: dict[str, int], cost_quanta: int
    ) -> None:
        """Acquire tokens, which share the cost by their reference values."""
        for token, token_cost_quanta in self._split_by_value(tokens, cost_quanta):
            self._acquire(token, raw_by_token[token], token_cost_quanta)

    def _dispose_all(
        self, tokens: list[str], raw_by_token: dict[str, int], proceeds_quanta: int
    ) -> None:
        """Dispose of tokens, which share the proceeds by their reference values."""
        for token, token_proceeds_quanta in self._split_by_value(tokens, proceeds_quanta):
            self._dispose(token, raw_by_token[token], token_proceeds_quanta)

    def _split_by_value(self, tokens: list[str], quanta: int) -> list[tuple[str, int]]:
        if not tokens:
            return []
        values_quanta = [self._traded_quanta(token) for token in tokens]
        return list(zip(tokens, split_quanta(quanta, values_quanta), strict=True))

    def _acquire_numeraire(self, received_raw_by_token: dict[str, int], cost_quanta: int) -> None:
        if self.numeraire in received_raw_by_token:
            self._acquire(self.numeraire, received_raw_by_token[self.numeraire], cost_quanta)

    def _book_external(self, account: str, is_inflow: bool) -> None:
        for (posted_account, token), raw in self.posted_raw.items():
            if posted_account != account or raw == 0:
                continue
            value_quanta = self._to_reporting(
                abs(self.posted_quanta.get((posted_account, token), 0))
            )
            if raw < 0 and is_inflow:
                self._acquire(token, -raw, value_quanta)
                if account in _INCOME_ACCOUNTS:
                    self.tax_lot_run.income_quanta += value_quanta
                else:
                    self.tax_lot_run.deposited_quanta += value_quanta
            elif account in _LOSS_ACCOUNTS or account in _INCOME_ACCOUNTS:
                self._dispose(token, abs(raw), 0)
            else:
                self._transfer_out(token, abs(raw), value_quanta)

    def _acquire(self, token: str, raw: int, cost_quanta: int) -> None:
        self.tax_lot_run.lots.acquire(token, raw, cost_quanta, self.entry.chain_s)

    def _transfer_out(self, token: str, raw: int, value_quanta: int) -> None:
        self.tax_lot_run.withdrawn_quanta += value_quanta
        lots = self.tax_lot_run.lots.dispose(token, raw, value_quanta)
        cost_quanta = sum(lot.cost_quanta for lot in lots)
        self.tax_lot_run.untaxed_quanta += value_quanta - cost_quanta

    def _dispose(self, token: str, raw: int, proceeds_quanta: int) -> None:
        lots = self.tax_lot_run.lots.dispose(token, raw, proceeds_quanta)
        entry = self.entry
        proceeds_quanta_by_lot = split_quanta(proceeds_quanta, [lot.raw for lot in lots])
        for lot, lot_proceeds_quanta in zip(lots, proceeds_quanta_by_lot, strict=True):
            disposal = Disposal(
                entry_id=entry.id,
                token=token,
                raw=lot.raw,
                proceeds_quanta=lot_proceeds_quanta,
                cost_quanta=lot.cost_quanta,
                acquired_s=lot.acquired_s,
                disposed_s=entry.chain_s,
                by_hand=entry.by_hand,
            )
            self.tax_lot_run.disposals.append(disposal)


@dataclass(frozen=True, slots=True)
class PlannedGain:
    """Gain that a plan realises in one token: base units sold, proceeds and cost in reporting
    units. `raw_without_lot` of the base units have no lot; they count with a gain of zero.
    """

    token: str
    raw: int
    proceeds: Value
    cost: Value
    oldest_acquired_s: int | None
    newest_acquired_s: int | None
    raw_without_lot: int

    @property
    def gain(self) -> Value:
        """Gain, negative for a loss, in reporting units."""
        return self.proceeds - self.cost


def planned_gains(
    plan: Plan,
    tax_inputs: TaxInputs,
    price_by_token: Mapping[str, Price],
    numeraire: str,
    wrapped_native: str,
    now_s: int,
) -> tuple[PlannedGain, ...]:
    """Return the gain of each token that the swaps and their gas dispose of, without the gas of
    approvals.
    """
    changes_raw = plan.wallet_changes()
    native_price = price_by_token.get(wrapped_native)
    gas_wei = round(plan.cost.gas / native_price) if native_price and tax_inputs.pays_gas else 0
    ledger_tokens = {*changes_raw, NATIVE}
    transaction = SettledTransaction("plan", plan.block, now_s, "", "", changes_raw, gas_wei)
    entry = accounts.trade_entry(
        transaction, EntryPrices(price_by_token, wrapped_native), ledger_tokens, {}
    )
    disposals = run_tax_lots(
        [entry],
        tax_inputs.method,
        numeraire,
        wrapped_native,
        lambda _: tax_inputs.rate,
        Lots(tax_inputs.method, tax_inputs.lots),
    ).disposals
    return tuple(
        _planned_gain(token, [disposal for disposal in disposals if disposal.token == token])
        for token in dict.fromkeys(disposal.token for disposal in disposals)
    )


def max_sellable_raw(
    lots: Iterable[OpenLot],
    method: LotMethod,
    token: str,
    price: Value,
    max_gain: Value,
    limit_raw: int,
) -> int:
    """Return the most base units, up to `limit_raw`, that may be sold without realising more than
    `max_gain`.

    `price` is in reporting units per base unit. The bound holds at the end of every lot. Losses of
    earlier lots offset gains of later ones; amounts without a known lot have no gain.
    """
    if max_gain < 0:
        return 0
    total_gain = Fraction(0)
    sold_raw = 0
    for lot in Lots(method, (lot for lot in lots if lot.token == token)).pop_lots(token):
        part_raw = min(lot.raw, limit_raw - sold_raw)
        gain_before = total_gain
        total_gain = gain_before + part_raw * price - lot.cost_of(part_raw)
        if total_gain > max_gain:
            return sold_raw + _largest_part(lot, price, max_gain - gain_before, part_raw)
        sold_raw += part_raw
        if sold_raw == limit_raw:
            return sold_raw
    return limit_raw


def _largest_part(lot: NextLot, price: Value, max_gain: Value, too_many_raw: int) -> int:
    """Return the most base units of a lot within a gain, by bisection."""
    low_raw = 0
    high_raw = too_many_raw - 1
    while low_raw < high_raw:
        middle_raw = (low_raw + high_raw + 1) // 2
        if middle_raw * price - lot.cost_of(middle_raw) <= max_gain:
            low_raw = middle_raw
        else:
            high_raw = middle_raw - 1
    return low_raw


def _planned_gain(token: str, disposals: list[Disposal]) -> PlannedGain:
    acquired_times_s = [
        disposal.acquired_s for disposal in disposals if disposal.acquired_s is not None
    ]
    return PlannedGain(
        token,
        sum(disposal.raw for disposal in disposals),
        sum((disposal.proceeds for disposal in disposals), Fraction(0)),
        sum((disposal.cost for disposal in disposals), Fraction(0)),
        min(acquired_times_s, default=None),
        max(acquired_times_s, default=None),
        sum(disposal.raw for disposal in disposals if disposal.acquired_s is None),
    )
