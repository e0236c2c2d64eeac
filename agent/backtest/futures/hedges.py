"""Hedges of a simulation: opening and closing times and reasons, and the profit of each short."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from fractions import Fraction

from agent.backtest.futures.book import BookFill
from agent.margin.account import position_value_raw
from agent.model.futures import Hedge, MarginAccount


@dataclass(frozen=True, slots=True)
class SentPlan:
    """A futures plan with a sent first action: reason, the hedges after it, and its fill (None for
    an action without one, such as a deposit).
    """

    trigger: str = ""
    reason: str = ""
    hedges: tuple[Hedge, ...] = ()
    fill: BookFill | None = None


@dataclass(frozen=True, slots=True)
class HedgeRecord:
    """One hedge: the market's symbol, its initial size, chain times, and the reasons for opening
    and closing. `closed_s` is None while it is open.

    `profit_raw` is the profit of its fills in quote base units: proceeds less the cost of buying
    back, less fees, with an open rest at the mark price. It excludes funding. None if a part was
    liquidated.
    """

    symbol: str
    token: str
    size_raw: int
    opened_s: int
    reason: str
    closed_s: int | None = None
    end: str = ""
    profit_raw: int | None = 0


def hedge_records(sent: Iterable[SentPlan], account: MarginAccount) -> tuple[HedgeRecord, ...]:
    """Return the hedges of a simulation by opening time, from its plans and the account at the end."""
    ended: list[HedgeRecord] = []
    held: dict[str, tuple[int, HedgeRecord]] = {}
    for plan in sent:
        for hedge in plan.hedges:
            size_raw, record = held.get(hedge.token, (0, None))
            if hedge.size_raw == size_raw:
                continue
            fill, change_raw = plan.fill, hedge.size_raw - size_raw
            if record is None:
                symbol = account.market(hedge.market).symbol
                record = HedgeRecord(symbol, hedge.token, hedge.size_raw, hedge.at_s, plan.reason)
            part = Fraction(0) if fill is None else Fraction(change_raw, fill.size_raw)
            if fill is None or fill.symbol != record.symbol or not 0 < part <= 1:
                record = replace(record, profit_raw=None)  # liquidated since the previous plan
            elif record.profit_raw is not None:
                earned = (fill.quote_raw - fill.fee_raw) * part
                record = replace(record, profit_raw=record.profit_raw + round(earned))
            held[hedge.token] = hedge.size_raw, record
            if not hedge.size_raw:
                closed_s = hedge.at_s if fill is None else fill.time_s
                ended.append(replace(record, closed_s=closed_s, end=plan.reason))
                del held[hedge.token]
    for size_raw, record in held.values():
        market = next(one for one in account.markets if one.symbol == record.symbol)
        profit_raw = record.profit_raw
        if profit_raw is not None and abs(account.size_raw(market.market)) >= abs(size_raw):
            profit_raw += position_value_raw(market, size_raw)
        ended.append(replace(record, profit_raw=profit_raw))
    return tuple(sorted(ended, key=lambda one: (one.opened_s, one.symbol)))
