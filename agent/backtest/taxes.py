"""Realised gains by the books of a simulation. The native coin that pays gas lies beside the portfolio and is left out of them."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from fractions import Fraction

from agent.backtest.result import YearGain
from agent.backtest.wanted import TaxRule
from agent.books.periods import periods, year_start_s
from agent.books.taxes import TaxRun, run
from agent.model import Portfolio, TaxStanding
from agent.store import Store
from agent.units import NATIVE


class TaxBooks:
    """Runs over the ledger once for each of its states."""

    def __init__(self, store: Store, portfolio: Portfolio, rule: TaxRule) -> None:
        self._store, self._portfolio, self._rule = store, portfolio, rule
        self._mark: tuple[int, ...] | None = None
        self._found: TaxRun | None = None

    def standing(self, now_s: int) -> TaxStanding | None:
        """What a plan's gain is told by; None where no limit depends on it."""
        if self._rule.year_limit is None:
            return None
        mark = self._store.ledger_mark()
        if self._found is None or mark != self._mark:
            self._found, self._mark = self._run(), mark
        realised = self._found.realised(year_start_s(now_s))
        return TaxStanding(self._rule.method, "", Fraction(1), self._found.open(), realised, self._rule.year_limit)

    def years(self, from_s: int, until_s: int) -> tuple[YearGain, ...]:
        """Every calendar year that the simulation touches."""
        found = self._run()
        spans = periods("year", from_s, until_s)
        return tuple(YearGain(datetime.fromtimestamp(start, UTC).year, found.realised(start, end)) for start, end in spans)

    def _run(self) -> TaxRun:
        entries = [replace(one, postings=tuple(p for p in one.postings if p.token != NATIVE)) for one in self._store.ledger()]
        return run(entries, self._rule.method, self._portfolio.numeraire.address, self._portfolio.wrapped_native)
