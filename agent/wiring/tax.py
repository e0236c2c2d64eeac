"""What a plan's taxable gain is told by: lots and this year's gains of the ledger, by the rules of [tax]."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction

from agent.books.lots import Lots
from agent.books.periods import year_start_s
from agent.books.taxes import TaxRun, run, same_rate
from agent.config.load import LoadedConfig
from agent.config.tax import read_rates, year_limit
from agent.errors import ConfigError
from agent.execution.pending import pending
from agent.model import LotMethod, Portfolio, StepInput, TaxStanding
from agent.store.store import Store


class TaxKeeper:
    """Runs over the ledger once for each of its states."""

    def __init__(self, loaded: LoadedConfig, portfolio: Portfolio) -> None:
        self._loaded = loaded
        self._portfolio = portfolio
        self._mark: tuple[int, ...] | None = None
        self._found: TaxRun | None = None

    def standing(self, store: Store, present: StepInput, now_s: int) -> TaxStanding | None:
        """What is mined or on its way counts with its gain, and makes no room by a loss: a reorganisation may take it. None without
        [tax], and where no limit depends on it and the rate table does not reach. Raises ConfigError where one does.
        """
        tax = self._loaded.config.tax
        if tax is None:
            return None
        try:
            table = read_rates(self._loaded)
            rate = same_rate if table is None else table.at
            method = LotMethod(tax.method)
            found = self._run(store, method, rate)
            numeraire, coin, since_s = self._portfolio.numeraire, self._portfolio.wrapped_native, year_start_s(now_s)
            later = run(pending(store, present), method, numeraire.address, coin, rate, Lots(method, found.open()))
            realised = found.realised(since_s) + later.gained(since_s)
            limit = year_limit(tax.year_limit, numeraire.decimals)
            return TaxStanding(method, tax.currency or "", Fraction(rate(now_s)), later.open(), realised, limit)
        except ConfigError:
            if tax.year_limit is not None:
                raise
            return None

    def _run(self, store: Store, method: LotMethod, rate: Callable[[int], Fraction]) -> TaxRun:
        """All of the ledger; again only where it has changed."""
        mark = store.ledger_mark()
        if self._found is None or mark != self._mark:
            self._found = run(store.ledger(), method, self._portfolio.numeraire.address, self._portfolio.wrapped_native, rate)
            self._mark = mark
        return self._found
