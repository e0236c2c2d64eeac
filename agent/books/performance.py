"""Profit and loss of one period: against holding, against a benchmark, what it cost, what rebalancing earned, and a hint."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

from agent.books import entries as book
from agent.books.grain import summed
from agent.books.money_weighted import money_weighted
from agent.books.returns import Crossing, Span, crossings, held, spans, time_weighted
from agent.model import Entry, EntryKind, Valuation
from agent.units import Value

ENOUGH_REBALANCES, ENOUGH_DAYS = 5, 28
"""Fewer, or less time, say nothing about how often to rebalance."""
TOO_DEAR, CHEAP = Fraction(1, 2), Fraction(1, 10)
"""Shares of what rebalancing earned before its costs that these may be: above the first it is dear, below the second cheap."""


@dataclass(frozen=True, slots=True)
class Costs:
    """What the strategy's transactions cost: pool fees, everything else that pools paid below the reference, and gas."""

    fees: Value
    impact: Value
    gas: Value

    @property
    def total(self) -> Value:
        """All of it."""
        return self.fees + self.impact + self.gas


@dataclass(frozen=True, slots=True)
class Performance:
    """One period, from its first valuation to its last. Values in numeraire base units, returns per unit, not a year's.

    Of the managed portfolio: `start.managed + came - went + by_hand + from_gas_money + profit = end.managed`, but for reserves that
    changed. `came` and `went` are deposits and withdrawals, `by_hand` what swaps by hand changed and no part of `profit`,
    `from_gas_money` gas that gas money paid less what refilled it. `effect` is profit less that of holding: what rebalancing earned,
    its costs taken off. `benchmark` is the return of one token.
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
    costs: Costs
    parts: tuple[Span, ...]

    @property
    def hint(self) -> str:
        """What the figures say about how often to rebalance, by a stated rule; empty where they say nothing."""
        days = (self.end.chain_s - self.start.chain_s) // 86_400
        if self.rebalances < ENOUGH_REBALANCES or days < ENOUGH_DAYS:
            return ""
        earned = self.effect + self.costs.total
        if earned <= 0:
            return (
                "rebalancing earned nothing before its costs, as in a market that moves one way: wider bands or longer intervals cost less"
            )
        if self.costs.total > earned * TOO_DEAR:
            return "costs took more than half of what rebalancing earned: wider bands or longer intervals may keep more of it"
        if self.costs.total < earned * CHEAP:
            return "costs took less than a tenth of what rebalancing earned: narrower bands or shorter intervals may earn more"
        return ""


def performance(entries: Sequence[Entry], valuations: Sequence[Valuation], from_s: int, until_s: int, benchmark: str) -> Performance | None:
    """From the last valuation at or before `from_s` (else the first after it) to the last before `until_s`; None where there are
    not two. Of blocks of one second the first begins, so that what happened between them counts. Entries and valuations stand in
    the order of the chain.
    """
    last = max(0, bisect_right(valuations, from_s, key=_valued_s) - 1)
    first = bisect_left(valuations, valuations[last].chain_s, key=_valued_s) if valuations else 0
    chosen = valuations[first : bisect_right(valuations, until_s - 1, key=_valued_s)]
    if len(chosen) < 2:
        return None
    start, end = chosen[0], chosen[-1]
    within = entries[bisect_right(entries, start.block, key=_block) : bisect_right(entries, end.block, key=_block)]
    crossed = crossings(within)
    parts = spans(chosen, crossed)
    profit = end.managed - start.managed - sum((one.crossed for one in parts), Fraction(0))
    hold_profit, hold_return = held(chosen, crossed)
    apart = any(one.is_gas_money for one in end.held)
    by_hand_gas = sum((one.native for one in crossed if one.by_hand and apart), Fraction(0))  # already in `by_hand`
    from_gas_money = sum((one.from_gas_money for one in parts), Fraction(0)) - by_hand_gas
    own = [entry for entry in within if not entry.by_hand]
    return Performance(
        start=start,
        end=end,
        came=_sum(crossed, apart, above=True),
        went=-_sum(crossed, apart, above=False),
        by_hand=sum((one.value for one in crossed if one.by_hand), Fraction(0)),
        from_gas_money=from_gas_money,
        profit=profit,
        twr=time_weighted(parts),
        mwr=money_weighted(start.chain_s, end.chain_s, start.managed, end.managed, [(one.end.chain_s, one.crossed) for one in parts]),
        hold_profit=hold_profit,
        hold_return=hold_return,
        benchmark=_change(start, end, benchmark),
        effect=profit - hold_profit,
        rebalances=sum(map(_is_trade, own)),
        by_hand_swaps=sum(_is_trade(entry) for entry in within if entry.by_hand),
        turnover=summed(map(turnover, own)),
        costs=costs(own),
        parts=parts,
    )


def _valued_s(one: Valuation) -> int:
    return one.chain_s


def _block(entry: Entry) -> int:
    return entry.block


def costs(entries: Sequence[Entry]) -> Costs:
    """Of trades their fees and what else they lost against the reference, of everything its gas."""
    trades = [entry for entry in entries if entry.kind is EntryKind.TRADE]
    return Costs(_posted(trades, book.FEES), _posted(trades, book.TRADING), _posted(entries, book.GAS))


def turnover(entry: Entry) -> Value:
    """Half of what a trade exchanged, both ways, at reference prices."""
    if entry.kind is not EntryKind.TRADE:
        return Fraction(0)
    gas = {one.token: one.value for one in entry.postings if one.account == book.GAS and one.value}
    moved = [(one.token, one.value) for one in entry.postings if one.account == book.WALLET and one.value]
    return summed(abs(value + gas[token] if token in gas else value) for token, value in moved) / 2


def _is_trade(entry: Entry) -> bool:
    return entry.kind is EntryKind.TRADE


def _posted(entries: Sequence[Entry], account: str) -> Value:
    """All that was posted to one account."""
    return summed(one.value for entry in entries for one in entry.postings if one.account == account and one.value is not None)


def _sum(crossed: Sequence[Crossing], apart: bool, *, above: bool) -> Value:
    """What came or went and was no gas money."""
    values = [one.value - one.native if apart else one.value for one in crossed if not one.by_hand]
    return sum((value for value in values if (value > 0) == above), Fraction(0))


def _change(start: Valuation, end: Valuation, token: str) -> Fraction | None:
    """Return of one token's price; None where either valuation lacks it."""
    before, after = ({one.token: one.price for one in found.held}.get(token) for found in (start, end))
    return after / before - 1 if before and after else None
