"""Tax state of a plan: open lots and the year's realised gains, from [tax]."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

from agent.accounting.export import RateTable, rate_lookup
from agent.accounting.performance import year_start_s
from agent.accounting.tax_lots import Lots, TaxLotRun, run_tax_lots
from agent.config.loaded import LoadedConfig
from agent.errors import ConfigError
from agent.execution.bookkeeping import pending_entries
from agent.execution.step_memory import LayerReader
from agent.layers.tax.settings import read_rates, year_limit
from agent.layers.tax.state import TaxState
from agent.model import LotMethod, Portfolio, StepInput, TaxInputs
from agent.store.store import Store


class TaxRunCache:
    """Tax lots of the whole ledger, recomputed only when the ledger or the rates have changed."""

    def __init__(self, loaded_config: LoadedConfig, portfolio: Portfolio) -> None:
        self._loaded_config = loaded_config
        self._portfolio = portfolio
        self._booked_key: tuple[tuple[int, ...], RateTable | None] | None = None
        self._booked_run: TaxLotRun | None = None

    def reader(self, store: Store) -> LayerReader:
        """Return the reader of a step's tax state."""
        return lambda step, _: TaxState(
            self.tax_inputs(store, step, step.snapshot.head.timestamp_s)
        )

    def tax_inputs(self, store: Store, step: StepInput, now_s: int) -> TaxInputs | None:
        """Return the tax state of the year at `now_s`, with the fault of an exchange rate that cannot be
        read; None without [tax].

        Mined and pending transactions count with their gains but not with their losses, because a
        reorg may remove them.
        """
        tax_table = self._loaded_config.config.tax
        if tax_table is None:
            return None
        numeraire = self._portfolio.numeraire
        inputs = TaxInputs(
            LotMethod(tax_table.method),
            tax_table.currency or "",
            Fraction(1),
            (),
            Fraction(0),
            year_limit(tax_table.year_limit, numeraire.decimals),
            tax_table.rate or 0,
            pays_gas=not self._loaded_config.config.wallet.safe,
        )
        try:
            rate_table = read_rates(self._loaded_config)
            rate_at = rate_lookup(rate_table)
            booked_run = self._current_booked_run(store, inputs.method, rate_table)
            pending_run = run_tax_lots(
                pending_entries(store, step),
                inputs.method,
                numeraire.address,
                self._portfolio.wrapped_native,
                rate_at,
                Lots(inputs.method, booked_run.open_lots()),
            )
            year_begin_s = year_start_s(now_s)
            booked_gain = booked_run.realised_gain(year_begin_s)
            return replace(
                inputs,
                rate=Fraction(rate_at(now_s)),
                lots=pending_run.open_lots(),
                realised_gain=booked_gain + pending_run.gross_gain(year_begin_s),
            )
        except ConfigError as error:
            return replace(inputs, fault=error.message)

    def _current_booked_run(
        self, store: Store, method: LotMethod, rate_table: RateTable | None
    ) -> TaxLotRun:
        key = (store.ledger.version(), rate_table)
        if self._booked_run is None or key != self._booked_key:
            self._booked_run = run_tax_lots(
                store.ledger.entries(),
                method,
                self._portfolio.numeraire.address,
                self._portfolio.wrapped_native,
                rate_lookup(rate_table),
            )
            self._booked_key = key
        return self._booked_run
