"""What a plan would realise: its taxable gain by the lot rule, per token, before anything is sent."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fractions import Fraction

from agent.books import entries as book
from agent.books.entries import Change, Prices
from agent.books.lots import Lots, Stretch
from agent.books.taxes import Disposal, run
from agent.model import Funding, LotMethod, OpenLot, Plan, TaxStanding
from agent.units import NATIVE, Price, Value


@dataclass(frozen=True, slots=True)
class PlannedGain:
    """What a plan realises of one token, reporting units: base units that go, what they bring, what they had cost."""

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
        if leg.source is Funding.WALLET:
            changes[leg.token_in] = changes.get(leg.token_in, 0) - leg.amount_in_raw
        if leg.sink is Funding.WALLET:
            changes[leg.token_out] = changes.get(leg.token_out, 0) + leg.amount_out_raw
    return changes


def planned_gains(
    plan: Plan, tax: TaxStanding, prices: Mapping[str, Price], numeraire: str, coin: str, now_s: int
) -> tuple[PlannedGain, ...]:
    """Of each token that the swaps and their gas dispose of. Approvals before them are not part of it."""
    moved = wallet_changes(plan)
    price = prices.get(coin)
    gas_wei = round(plan.cost.gas / price) if price else 0
    counted = {*moved, NATIVE}
    change = Change("plan", plan.block, now_s, "", "", moved, gas_wei)
    entry = book.exchange(change, Prices(prices, coin), counted, {})
    found = run([entry], tax.method, numeraire, coin, lambda _: tax.rate, Lots(tax.method, tax.lots)).disposals
    return tuple(_gain(token, [one for one in found if one.token == token]) for token in dict.fromkeys(one.token for one in found))


def sellable(lots: Iterable[OpenLot], method: LotMethod, token: str, price: Value, gain: Value, most_raw: int) -> int:
    """The most base units that may go at `price` (reporting units per base unit) while they realise no more than `gain` at any
    lot's end on the way; at most `most_raw`. Losses of lots that go before make room for gains of those behind, and what no lot
    is known of gains nothing.
    """
    if gain < 0:
        return 0
    total, sold = Fraction(0), 0
    for stretch in Lots(method, (lot for lot in lots if lot.token == token)).stretches(token):
        raw, before = min(stretch.raw, most_raw - sold), total
        total = before + raw * price - stretch.cost_of(raw)
        if total > gain:
            return sold + _longest(stretch, price, gain - before, raw)
        sold += raw
        if sold == most_raw:
            return sold
    return most_raw


def _longest(stretch: Stretch, price: Value, gain: Value, too_many: int) -> int:
    """The most units of one lot that gain no more than that; within a lot each unit gains alike."""
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
