"""Profit attribution of the margin account between two readings, and funding by market and day.

The change in value is the agent's deposits less withdrawals, plus transfers by others, plus the
price result, less trading fees and funding. Fees and settled funding come from receipts, pending
funding and value from readings; the price result is the exact remainder, so the lines sum to the
change in value.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import pairwise

from agent.accounting.entries import MARGIN, WALLET
from agent.model import Entry, FuturesEntry, MarginReading, Valuation
from agent.units import Value

DAY_S = 86_400


@dataclass(frozen=True, slots=True)
class FuturesChange:
    """Change of the margin account between two valuations, in numeraire base units, at the
    collateral's price at the end.

    `change = deposited + transferred + price - fees - funding`. `deposited` moved within the
    portfolio; `transferred` came from or went to other accounts. `realised` is the profit that
    reductions report in their events, net of fees; it is part of `price`. `funding` is positive if
    paid.
    """

    start: Valuation
    end: Valuation
    deposited: Value
    transferred: Value
    price: Value
    fees: Value
    funding: Value
    realised: Value
    funding_by_market: tuple[tuple[str, Value], ...]

    @property
    def profit(self) -> Value:
        """Profit or loss of the futures."""
        return self.price - self.fees - self.funding


@dataclass(frozen=True, slots=True)
class FuturesProfit:
    """Profit of a period and its components: `profit = price - fees - funding`."""

    price: Value
    fees: Value
    funding: Value
    realised: Value
    transferred: Value

    @property
    def profit(self) -> Value:
        """Profit or loss of the futures."""
        return self.price - self.fees - self.funding

    def in_base_units(self) -> FuturesProfit:
        """Return the components rounded to numeraire base units; the rounded ones sum exactly."""
        profit, fees, funding = (
            Fraction(round(amount)) for amount in (self.profit, self.fees, self.funding)
        )
        price = profit + fees + funding
        return replace(self, price=price, fees=fees, funding=funding)


def futures_changes(
    entries: Sequence[Entry], valuations: Sequence[Valuation]
) -> tuple[FuturesChange, ...]:
    """Return the changes between consecutive valuations, skipping pairs without a margin account.
    All arguments are in chain order.

    An order of an off-chain venue has the block at which its outcome was known. If the order's step
    started from the snapshot that was valued at that block, the order was filled after the
    valuation.
    """
    valued_s = {valuation.block: valuation.chain_s for valuation in valuations}

    def place(entry: Entry) -> tuple[int, bool]:
        is_fill = entry.futures is not None and bool(entry.futures.fills)
        return entry.block, is_fill and valued_s.get(
            entry.block, entry.chain_s + 1
        ) <= entry.chain_s

    ordered = sorted(entries, key=place)
    changes, number = [], 0
    for start, end in pairwise(valuations):
        while number < len(ordered) and place(ordered[number]) <= (start.block, False):
            number += 1
        first = number
        while number < len(ordered) and place(ordered[number]) <= (end.block, False):
            number += 1
        if start.collateral is not None or end.collateral is not None:
            changes.append(_change(start, end, ordered[first:number]))
    return tuple(changes)


def summed(changes: Iterable[FuturesChange]) -> FuturesProfit:
    """Return the sums of changes."""
    changes, zero = tuple(changes), Fraction(0)
    return FuturesProfit(
        sum((change.price for change in changes), zero),
        sum((futures_change.fees for futures_change in changes), zero),
        sum((part.funding for part in changes), zero),
        sum((part.realised for part in changes), zero),
        sum((part.transferred for part in changes), zero),
    )


@dataclass(frozen=True, slots=True)
class FuturesLines:
    """Trading fees, settled funding (positive: paid) and realised profit of transactions, in
    numeraire base units at the collateral price of each step.
    """

    fees: Value
    funding: Value
    realised: Value


def futures_lines(entries: Iterable[Entry]) -> FuturesLines | None:
    """Return the sums of entries; None without fills and funding."""
    fees = funding = realised = Fraction(0)
    known = False
    for futures_entry in (entry.futures for entry in entries):
        if futures_entry is None or not (futures_entry.fills or futures_entry.funding):
            continue
        known, rate = True, (futures_entry.price or Fraction(0)) / futures_entry.settlement_raw
        fees += sum(fill.fee_raw for fill in futures_entry.fills) * rate
        realised += sum(fill.realised_raw for fill in futures_entry.fills) * rate
        funding += sum(paid.paid_raw for paid in futures_entry.funding) * rate
    return FuturesLines(fees, funding, realised) if known else None


def _change(start: Valuation, end: Valuation, within: Sequence[Entry]) -> FuturesChange:
    holding = end.collateral or start.collateral
    if holding is None:
        raise ValueError("neither valuation has a margin account")
    price = _price(end, holding.token) or holding.price
    change = _value(end) - _value(start)
    own = [entry.futures for entry in within if entry.futures]
    units = _moved(within, MARGIN, holding.token)
    before, after = (
        None if valuation.collateral is None else valuation.collateral.margin
        for valuation in (start, end)
    )
    if before is None or after is None:  # the account was opened or closed in between
        deposited, zero = units * price, Fraction(0)
        return FuturesChange(start, end, deposited, change - deposited, zero, zero, zero, zero, ())
    # A mined but not yet final move has no entry; it shows only in the wallet's balance.
    pending = _moved(within, WALLET, holding.token)
    pending -= _wallet(end, holding.token) - _wallet(start, holding.token)
    if abs(_unexplained(before, after, units + pending, own)) < after.settlement_raw:
        units += pending
    deposited = units * price
    rate = price / after.settlement_raw
    parts = _parts(before, after, units, own)
    fees, realised, transferred = (Fraction(raw) * rate for raw in parts.sums)
    by_market = tuple((market, raw * rate) for market, raw in parts.funding)
    funding = sum((value for _, value in by_market), Fraction(0))
    return FuturesChange(
        start,
        end,
        deposited,
        transferred,
        change - deposited - transferred + fees + funding,
        fees,
        funding,
        realised,
        by_market,
    )


@dataclass(frozen=True, slots=True)
class _Parts:
    """Quote base units: fees, realised profit and transfers; funding by market."""

    sums: tuple[int, int, int]
    funding: tuple[tuple[str, int], ...]


def _parts(
    before: MarginReading, after: MarginReading, units: int, own: Sequence[FuturesEntry]
) -> _Parts:
    """Split the change of an account by receipts and readings.

    A change in cash that receipts do not explain counts as a transfer if the collateral changed
    too; as funding settled by others if the receipts explain all position sizes; otherwise as price
    result, such as a liquidation or a manual trade.
    """
    fills = [fill for entry in own for fill in entry.fills]
    settled: dict[str, int] = {}
    for entry in own:
        for paid in entry.funding:
            settled[paid.market] = settled.get(paid.market, 0) + paid.paid_raw
    realised = sum(fill.realised_raw for fill in fills)
    rest = _unexplained(before, after, units, own)
    pending = {market.market: market.pending_raw for market in before.markets}
    funding = {market: raw - pending.get(market, 0) for market, raw in settled.items()}
    for market in after.markets:
        funding.setdefault(market.market, -pending.get(market.market, 0))
        funding[market.market] += market.pending_raw
    transferred = 0
    # Settling profit into the collateral rounds off less than one of its base units.
    if abs(rest) >= after.settlement_raw:
        if after.collateral_raw - before.collateral_raw != units * after.settlement_raw:
            transferred = rest if units >= 0 else 0
        elif _sizes_explained(before, after, own):
            _add_in_proportion(funding, pending, -rest)
    fees = sum(fill.fee_raw for fill in fills)
    return _Parts((fees, realised, transferred), tuple(sorted(funding.items())))


def _unexplained(
    before: MarginReading, after: MarginReading, units: int, own: Sequence[FuturesEntry]
) -> int:
    """Return the change in cash that neither `units` of moved collateral nor receipts explain."""
    realised = sum(fill.realised_raw for entry in own for fill in entry.fills)
    settled = sum(paid.paid_raw for entry in own for paid in entry.funding)
    explained = units * after.settlement_raw + realised - settled
    return after.cash_raw - before.cash_raw - explained


def _moved(entries: Iterable[Entry], account: str, token: str) -> int:
    """Return the base units of a token that entries post to an account."""
    return sum(
        posting.raw
        for entry in entries
        for posting in entry.postings
        if (posting.account, posting.token) == (account, token)
    )


def _wallet(at: Valuation, token: str) -> int:
    return sum(holding.wallet_raw for holding in at.held if holding.token == token)


def _sizes_explained(
    before: MarginReading, after: MarginReading, own: Sequence[FuturesEntry]
) -> bool:
    sizes = {market.market: market.size_raw for market in before.markets}
    for entry in own:
        for fill in entry.fills:
            sizes[fill.market] = sizes.get(fill.market, 0) + fill.size_raw
    now = {market.market: market.size_raw for market in after.markets}
    return all(sizes.get(market, 0) == now.get(market, 0) for market in {*sizes, *now})


def _add_in_proportion(funding: dict[str, int], weights: dict[str, int], raw: int) -> None:
    """Add an amount to the markets in proportion to their earlier pending funding; the last market
    takes the remainder.
    """
    markets = [market for market in sorted(funding) if weights.get(market)] or sorted(funding)[:1]
    whole, left = sum(abs(weights.get(market, 0)) for market in markets), raw
    for market in markets[:-1]:
        part = raw * abs(weights[market]) // whole
        funding[market] += part
        left -= part
    for market in markets[-1:]:
        funding[market] += left


def _price(at: Valuation, token: str) -> Value | None:
    return next((holding.price for holding in at.held if holding.token == token), None)


def _value(at: Valuation) -> Value:
    """Return the margin account's value in a valuation, numeraire base units."""
    holding = at.collateral
    return Fraction(0) if holding is None else holding.margin_raw * holding.price


class FuturesUnits:
    """Realised profits and settled funding in base units of the collateral, each rounded so that
    their running sum is at most one base unit off.
    """

    def __init__(self) -> None:
        self._left_raw = 0

    def results(self, entry: Entry) -> list[tuple[str, int]]:
        """Return the results of an entry: token and signed base units."""
        futures_entry, amounts = entry.futures, list[tuple[str, int]]()
        if futures_entry is None:
            return amounts
        results = [fill.realised_raw for fill in futures_entry.fills]
        results += [-paid.paid_raw for paid in futures_entry.funding]
        for raw in results:
            units, self._left_raw = divmod(raw + self._left_raw, futures_entry.settlement_raw)
            amounts.append((futures_entry.collateral, units))
        return amounts


@dataclass(frozen=True, slots=True)
class FundingDay:
    """Funding of one market on one day, which starts at `day_s`: `paid` in numeraire base units
    (negative: received), `daily_rate` the mean of the rates read that day, and `readings` their
    number.
    """

    day_s: int
    market: str
    symbol: str
    paid: Value
    daily_rate: Fraction
    readings: int


def funding_days(
    valuations: Sequence[Valuation], changes: Iterable[FuturesChange]
) -> tuple[FundingDay, ...]:
    """Return funding by day and market, oldest first. A payment belongs to the day of the reading
    that found it.
    """
    rates: dict[tuple[int, str], list[Fraction]] = {}
    symbols: dict[str, str] = {}
    for valuation in valuations:
        holding = valuation.collateral
        reading = None if holding is None else holding.margin
        for market in () if reading is None else reading.markets:
            key = (valuation.chain_s // DAY_S * DAY_S, market.market)
            rates.setdefault(key, []).append(market.funding_daily)
            symbols[market.market] = market.symbol
    paid: dict[tuple[int, str], Value] = {}
    for change in changes:
        day_s = change.end.chain_s // DAY_S * DAY_S
        for name, value in change.funding_by_market:
            paid[day_s, name] = paid.get((day_s, name), Fraction(0)) + value
    return tuple(
        FundingDay(
            day_s,
            name,
            symbols.get(name, name),
            paid.get((day_s, name), Fraction(0)),
            sum(rate, Fraction(0)) / len(rate)
            if (rate := rates.get((day_s, name)))
            else Fraction(0),
            len(rates.get((day_s, name), ())),
        )
        for day_s, name in sorted(rates.keys() | paid.keys())
    )
