"""What a plan's taxable gain is told by: lots and this year's gains of the ledger, by the rules of [tax]."""

from __future__ import annotations

from fractions import Fraction

from agent.books.periods import year_start_s
from agent.books.taxes import TaxRun, run, same_rate
from agent.config.load import LoadedConfig
from agent.config.tax import read_rates, year_limit
from agent.errors import ConfigError
from agent.model import LotMethod, Portfolio, TaxStanding
from agent.store.store import Store


class TaxKeeper:
    """Runs over the ledger once for each of its states."""

    def __init__(self, loaded: LoadedConfig, portfolio: Portfolio) -> None:
        self._loaded = loaded
        self._portfolio = portfolio
        self._mark: tuple[int, ...] | None = None
        self._found: TaxRun | None = None

    def standing(self, store: Store, now_s: int) -> TaxStanding | None:
        """None without [tax], and where no limit depends on it and the rate table does not reach. Raises ConfigError where one does."""
        tax = self._loaded.config.tax
        if tax is None:
            return None
        try:
            table = read_rates(self._loaded)
            rate = same_rate if table is None else table.at
            numeraire, coin, method = self._portfolio.numeraire, self._portfolio.wrapped_native, LotMethod(tax.method)
            mark = store.ledger_mark()
            if self._found is None or mark != self._mark:
                self._found, self._mark = run(store.ledger(), method, numeraire.address, coin, rate), mark
            realised, limit = self._found.realised(year_start_s(now_s)), year_limit(tax.year_limit, numeraire.decimals)
            return TaxStanding(method, tax.currency or "", Fraction(rate(now_s)), self._found.open(), realised, limit)
        except ConfigError:
            if tax.year_limit is not None:
                raise
            return None
