"""Performance of one period: returns against buy and hold and a benchmark, costs, rebalancing
premium, and a hint.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from fractions import Fraction
from itertools import pairwise

from agent.accounting import entries as book
from agent.accounting.entries import GAS, exact_sum, quantize
from agent.errors import ConfigError
from agent.model import Entry, EntryKind, Valuation
from agent.units import NATIVE, YEAR_S, Value

# --- Returns from values over time: time-weighted by exact chain-linking, buy and hold by units,
# and external cash flows.


_EXTERNAL = (
    EntryKind.OPENING, EntryKind.DEPOSIT, EntryKind.WITHDRAWAL, EntryKind.GIFT, EntryKind.GAS_MONEY, EntryKind.PAYOUT, EntryKind.OUTSIDE,
)  # fmt: skip
"""Entry kinds caused neither by the market nor by the strategy."""


@dataclass(frozen=True, slots=True)
class ExternalCashFlow:
    """Value that entered or left the strategy: deposits positive, withdrawals negative, and the
    cost of manual swaps. `native` is its part in native coin.
    """

    block: int
    chain_s: int
    value: Value
    by_hand: bool
    native: Value = Fraction(0)


@dataclass(frozen=True, slots=True)
class ReturnPeriod:
    """Period between two valuations. `crossed` is the net inflow into the managed portfolio, dated
    at the end. `from_gas_money` is its part from gas money: gas paid, less refills.
    """

    start: Valuation
    end: Valuation
    crossed: Value
    from_gas_money: Value = Fraction(0)

    @property
    def factor(self) -> Fraction | None:
        """Growth without what crossed; None from a value of nothing."""
        return (
            (self.end.managed - self.crossed) / self.start.managed
            if self.start.managed > 0
            else None
        )


def external_cash_flows(entries: Iterable[Entry]) -> tuple[ExternalCashFlow, ...]:
    """Return every flow that is not the strategy's: deposits, withdrawals, and the cost of manual
    trades.

    An unexplained decrease is a loss, an increase a deposit.
    """
    found = []
    for entry in entries:
        if not (entry.kind in _EXTERNAL or entry.by_hand or entry.kind is EntryKind.UNEXPLAINED):
            continue
        accounts = (
            ("assets:",) if entry.by_hand else ("assets:", GAS)
        )  # gas that a payment burns is a cost
        value = _sum(entry, accounts)
        if entry.kind is not EntryKind.UNEXPLAINED or entry.by_hand or value > 0:
            by_hand = entry.by_hand and entry.kind is not EntryKind.PAYOUT
            found.append(
                ExternalCashFlow(
                    entry.block, entry.chain_s, value, by_hand, _sum(entry, accounts, NATIVE)
                )
            )
    return tuple(found)


def _sum(entry: Entry, accounts: tuple[str, ...], token: str | None = None) -> Value:
    return exact_sum(
        one.value
        for one in entry.postings
        if one.account.startswith(accounts)
        and one.value is not None
        and (token is None or one.token == token)
    )


def return_periods(
    valuations: Sequence[Valuation], cash_flows: Iterable[ExternalCashFlow]
) -> tuple[ReturnPeriod, ...]:
    """Return the periods between consecutive valuations; a block's snapshot includes what happened
    in it. An increased reserve is an outflow of the managed portfolio, a decreased one an inflow,
    at the prices of the end.
    """
    by_block = sorted(cash_flows, key=lambda one: one.block)
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
        found.append(ReturnPeriod(start, end, total, gas))
    return tuple(found)


def time_weighted(parts: Sequence[ReturnPeriod]) -> Fraction | None:
    """Return the product of (end - crossed) / start, less one (Global Investment Performance
    Standards, time-weighted rate of return). Exact: consecutive periods without flows cancel.
    Periods that start at zero are skipped; None if all are.
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


def buy_and_hold(
    valuations: Sequence[Valuation], cash_flows: Iterable[ExternalCashFlow]
) -> tuple[Value, Fraction | None]:
    """Return (profit, time-weighted return) of buy and hold from the first valuation.

    Each deposit buys at that block's targets and reference prices, at no cost; each withdrawal
    takes the same share of everything. Gas money does not count.
    """
    units = {one.token: Fraction(one.managed_raw) for one in valuations[0].held}
    prices = {one.token: one.price for one in valuations[0].held}
    start = before = valuations[0].managed
    factor, came, known = Fraction(1), Fraction(0), start > 0
    for part in return_periods(valuations, (one for one in cash_flows if not one.by_hand)):
        prices |= {
            one.token: one.price for one in part.end.held
        }  # a token no longer in the portfolio keeps its last price
        deposited = part.crossed - part.from_gas_money
        if not deposited and part.end is not valuations[-1]:
            continue
        worth = _worth(units, prices)
        if before > 0:
            factor, known = quantize(factor * worth / before), True
        came += deposited
        if deposited > 0:
            targets = [one for one in part.end.held if one.target_bps and one.price > 0]
            whole = sum(one.target_bps for one in targets)
            for one in targets:
                units[one.token] = units.get(one.token, Fraction(0)) + quantize(
                    deposited * one.target_bps / whole / one.price
                )
        elif deposited < 0 and worth > 0:
            rest = max(Fraction(0), 1 + deposited / worth)
            units = {token: quantize(raw * rest) for token, raw in units.items()}
        before = _worth(units, prices)
    return before - start - came, factor - 1 if known else None


def _worth(units: dict[str, Fraction], prices: dict[str, Fraction]) -> Value:
    return sum((raw * prices[token] for token, raw in units.items()), Fraction(0))


# --- Money-weighted return: the rate at which all cash flows grow to the final value (internal rate
# of return).


_DAYS = 36_500
"""Days to which a period is scaled: pyxirr counts whole days, and this resolves a 36,500th of any
period.
"""
_ORIGIN = date(1970, 1, 1)
_CLOSE = 1e-6
"""Largest residual at the found rate, as a fraction of the largest amount, discounted to the
period's end.
"""


def money_weighted(
    start_s: int,
    end_s: int,
    start: Fraction,
    end: Fraction,
    cash_flows: Sequence[tuple[int, Fraction]],
) -> float | None:
    """Return the internal rate of return over the whole period, not annualised.

    `crossed` are (chain time, value), deposits positive. None without flows, time or solution, or
    if the money was invested for so small a part of the period that the return is not finite.
    Sources: internal rate of return; pyxirr's xirr solves sum of amount / (1 + rate)^(days / 365).
    """
    span_s = end_s - start_s
    amounts = [
        (0, -start),
        *((_day(at_s, start_s, span_s), -value) for at_s, value in cash_flows),
        (_DAYS, end),
    ]
    if span_s <= 0 or not any(value < 0 for _, value in amounts) or end < 0:
        return None
    import pyxirr

    most = max(abs(value) for _, value in amounts)
    dated = [
        (day, float(value / most)) for day, value in amounts if value
    ]  # with an amount of zero pyxirr finds a wrong rate
    try:
        rate = pyxirr.xirr(
            [_ORIGIN + timedelta(days=day) for day, _ in dated], [value for _, value in dated]
        )
    except pyxirr.InvalidPaymentsError:
        return None
    if rate is None or not math.isfinite(rate) or rate <= -1:
        return None
    growth = math.log1p(rate) / 365
    try:  # pyxirr accepts a rate so high that every discounted amount is near zero
        ends = [value * math.exp(growth * (_DAYS - day)) for day, value in dated]
        whole = math.expm1(growth * _DAYS)
    except OverflowError:
        return None
    return whole if whole > -1 and abs(math.fsum(ends)) <= _CLOSE * max(map(abs, ends)) else None


def annualize(whole: float, span_s: int) -> float | None:
    """Return the annualized rate; None for less than 30 days, which are too short, and if it is not
    finite.
    """
    if span_s < 30 * 86_400 or whole <= -1:
        return None
    try:
        return math.expm1(math.log1p(whole) * YEAR_S / span_s)
    except OverflowError:
        return None


def _day(at_s: int, start_s: int, span_s: int) -> int:
    return 0 if span_s <= 0 else min(_DAYS, max(0, round((at_s - start_s) * _DAYS / span_s)))


MIN_REBALANCES, MIN_DAYS = 5, 28
"""Minimum number of trades, and time, for a statement on the rebalancing frequency."""
HIGH_COST_SHARE, LOW_COST_SHARE = Fraction(1, 2), Fraction(1, 10)
"""Cost as a share of the gross rebalancing premium: above the first it is high, below the second
low."""


@dataclass(frozen=True, slots=True)
class PerformanceCosts:
    """Costs of the strategy's transactions: pool fees, all other output below the reference, and
    gas.
    """

    fees: Value
    impact: Value
    gas: Value

    @property
    def total(self) -> Value:
        """Sum of all costs."""
        return self.fees + self.impact + self.gas


@dataclass(frozen=True, slots=True)
class Performance:
    """Performance between the first and last valuation of a period. Values in numeraire base units;
    returns per unit, not annualised.

    For the managed portfolio, reserves unchanged: `start.managed + came - went + by_hand +
    from_gas_money + profit = end.managed`. `came` and `went` are deposits and withdrawals.
    `by_hand` is the effect of manual swaps, which `profit` excludes. `from_gas_money` is gas paid
    by gas money less its refills. `effect` is profit less that of buy and hold: the rebalancing
    premium after costs. `benchmark` is the return of one token.
    """

    start: Valuation
    end: Valuation
    came: Value
    went: Value
    by_hand: Value
    from_gas_money: Value
    profit: Value
    twr: Fraction | None
    mwr: float | None
    hold_profit: Value
    hold_return: Fraction | None
    benchmark: Fraction | None
    effect: Value
    rebalances: int
    by_hand_swaps: int
    turnover: Value
    costs: PerformanceCosts
    parts: tuple[ReturnPeriod, ...]

    @property
    def hint(self) -> str:
        """Return a hint on the frequency of rebalancing by a stated rule; empty without enough
        data.
        """
        days = (self.end.chain_s - self.start.chain_s) // 86_400
        if self.rebalances < MIN_REBALANCES or days < MIN_DAYS:
            return ""
        earned = self.effect + self.costs.total
        if earned <= 0:
            return (
                "rebalancing earned nothing before its costs, as in a market that moves one way:"
                " wider bands or longer intervals cost less"
            )
        if self.costs.total > earned * HIGH_COST_SHARE:
            return (
                "costs took more than half of what rebalancing earned: wider bands or longer"
                " intervals may keep more of it"
            )
        if self.costs.total < earned * LOW_COST_SHARE:
            return (
                "costs took less than a tenth of what rebalancing earned: narrower bands or shorter"
                " intervals may earn more"
            )
        return ""


def performance(
    entries: Sequence[Entry],
    valuations: Sequence[Valuation],
    from_s: int,
    until_s: int,
    benchmark: str,
) -> Performance | None:
    """Return the performance from the last valuation at or before `from_s` (else the first after
    it) to the last before `until_s`; None without two valuations. Of several blocks in one second
    the first is the start, so that changes between them count. Entries and valuations are in chain
    order.
    """
    last = max(0, bisect_right(valuations, from_s, key=_valued_s) - 1)
    first = bisect_left(valuations, valuations[last].chain_s, key=_valued_s) if valuations else 0
    chosen = valuations[first : bisect_right(valuations, until_s - 1, key=_valued_s)]
    if len(chosen) < 2:
        return None
    start, end = chosen[0], chosen[-1]
    within = entries[
        bisect_right(entries, start.block, key=_block) : bisect_right(
            entries, end.block, key=_block
        )
    ]
    cash_flows = external_cash_flows(within)
    parts = return_periods(chosen, cash_flows)
    profit = end.managed - start.managed - sum((one.crossed for one in parts), Fraction(0))
    hold_profit, hold_return = buy_and_hold(chosen, cash_flows)
    apart = any(one.is_gas_money for one in end.held)
    by_hand_gas = sum(
        (one.native for one in cash_flows if one.by_hand and apart), Fraction(0)
    )  # already in `by_hand`
    from_gas_money = sum((one.from_gas_money for one in parts), Fraction(0)) - by_hand_gas
    own = [entry for entry in within if not entry.by_hand]
    return Performance(
        start=start,
        end=end,
        came=_performance_sum(cash_flows, apart, above=True),
        went=-_performance_sum(cash_flows, apart, above=False),
        by_hand=sum((one.value for one in cash_flows if one.by_hand), Fraction(0)),
        from_gas_money=from_gas_money,
        profit=profit,
        twr=time_weighted(parts),
        mwr=money_weighted(
            start.chain_s,
            end.chain_s,
            start.managed,
            end.managed,
            [(one.end.chain_s, one.crossed) for one in parts],
        ),
        hold_profit=hold_profit,
        hold_return=hold_return,
        benchmark=_change(start, end, benchmark),
        effect=profit - hold_profit,
        rebalances=sum(map(_is_trade, own)),
        by_hand_swaps=sum(_is_trade(entry) for entry in within if entry.by_hand),
        turnover=exact_sum(map(turnover, own)),
        costs=performance_costs(own),
        parts=parts,
    )


def _valued_s(one: Valuation) -> int:
    return one.chain_s


def _block(entry: Entry) -> int:
    return entry.block


def performance_costs(entries: Sequence[Entry]) -> PerformanceCosts:
    """Return costs: fees and slippage against the reference of trades, gas of everything."""
    trades = [entry for entry in entries if entry.kind is EntryKind.TRADE]
    return PerformanceCosts(
        _posted(trades, book.FEES), _posted(trades, book.TRADING), _posted(entries, book.GAS)
    )


def turnover(entry: Entry) -> Value:
    """Return half of the value exchanged by a trade, both sides, at reference prices."""
    if entry.kind is not EntryKind.TRADE:
        return Fraction(0)
    gas = {one.token: one.value for one in entry.postings if one.account == book.GAS and one.value}
    moved = [
        (one.token, one.value) for one in entry.postings if one.account == book.WALLET and one.value
    ]
    return (
        exact_sum(abs(value + gas[token] if token in gas else value) for token, value in moved) / 2
    )


def _is_trade(entry: Entry) -> bool:
    return entry.kind is EntryKind.TRADE


def _posted(entries: Sequence[Entry], account: str) -> Value:
    """All that was posted to one account."""
    return exact_sum(
        one.value
        for entry in entries
        for one in entry.postings
        if one.account == account and one.value is not None
    )


def _performance_sum(cash_flows: Sequence[ExternalCashFlow], apart: bool, *, above: bool) -> Value:
    """Return the sum of deposits or of withdrawals without gas money."""
    values = [
        one.value - one.native if apart else one.value for one in cash_flows if not one.by_hand
    ]
    return sum((value for value in values if (value > 0) == above), Fraction(0))


def _change(start: Valuation, end: Valuation, token: str) -> Fraction | None:
    """Return the price return of one token; None if either valuation lacks it."""
    before, after = (
        {one.token: one.price for one in found.held}.get(token) for found in (start, end)
    )
    return after / before - 1 if before and after else None


# --- Days, weeks, months and years (UTC) that overlap a period.


PERIOD_KINDS = ("day", "week", "month", "year", "all")


def calendar_periods(kind: str, from_s: int, until_s: int) -> tuple[tuple[int, int], ...]:
    """Return (first second, first second after) of each period from `from_s` to `until_s`; weeks
    begin on Monday. Raises ConfigError.
    """
    if kind not in PERIOD_KINDS:
        raise ConfigError(
            f"--period: {kind!r} is unknown", f"choose from {', '.join(PERIOD_KINDS)}"
        )
    if kind == "all":
        return ((from_s, until_s + 1),)
    found = []
    at = _floor(kind, datetime.fromtimestamp(from_s, UTC))
    while at.timestamp() <= until_s:
        after = _next(kind, at)
        found.append((int(at.timestamp()), int(after.timestamp())))
        at = after
    return tuple(found)


def year_start_s(at_s: int) -> int:
    """The first second of the year."""
    return int(_floor("year", datetime.fromtimestamp(at_s, UTC)).timestamp())


def _floor(kind: str, at: datetime) -> datetime:
    day = at.replace(hour=0, minute=0, second=0, microsecond=0)
    match kind:
        case "week":
            return day - timedelta(days=day.weekday())
        case "month":
            return day.replace(day=1)
        case "year":
            return day.replace(month=1, day=1)
        case _:
            return day


def _next(kind: str, at: datetime) -> datetime:
    match kind:
        case "day":
            return at + timedelta(days=1)
        case "week":
            return at + timedelta(days=7)
        case "month":
            return at.replace(year=at.year + at.month // 12, month=at.month % 12 + 1)
        case _:
            return at.replace(year=at.year + 1)
