"""Ledger reports: profit and loss, entries, checks, tax."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent import wiring
from agent.accounting.agreement import require_agreement
from agent.accounting.entries import MARGIN, prorated_value, unbalanced_tokens
from agent.accounting.export import (
    TokenNames,
    format_utc,
    rate_lookup,
    weights_bps,
)
from agent.accounting.futures_export import futures_events, futures_profit_by_year
from agent.accounting.money_weighted import annualize
from agent.accounting.performance import (
    BuyAndHoldTokens,
    Performance,
    ReturnPeriod,
    calendar_periods,
    hold_values,
    managed_inflows,
    performance,
)
from agent.accounting.tax_lots import Disposal, TaxLotRun, net_gain, run_tax_lots
from agent.app.agent import Agent
from agent.app.documents import fill
from agent.app.documents.records import (
    BookDocument,
    EntryDocument,
    FuturesEventDocument,
    FuturesResultDocument,
    PeriodDocument,
)
from agent.app.records.period_counts import period_counts
from agent.config.load import load_config
from agent.config.loaded import ConfigSource, LoadedConfig
from agent.errors import ConfigError, ErrorCode, Refused
from agent.execution.approvals import settled_step_input
from agent.execution.bookkeeping import (
    audit_entries,
    current_valuations,
    unsettled_payout_entries,
    update_ledger,
)
from agent.floats import dispersion
from agent.layers.futures.policy.targets import uncertain_profit_reason
from agent.layers.futures.state import margin_account
from agent.layers.tax.settings import read_rates
from agent.model import Entry, EntryKind, LotMethod, OpenLot, Receipt, StepInput, Valuation
from agent.policy.cash_flows.transfers import unbooked_payment_reason
from agent.units import BPS, DAY_S, NATIVE, Token, Value, format_time, value_text

if TYPE_CHECKING:
    from agent.app.documents.records import (
        EntriesDocument,
        LedgerBalanceDocument,
        LedgerChainDocument,
        LedgerCheckDocument,
        ProfitDocument,
        StatisticsDocument,
        TaxYearsDocument,
        ValueSeriesDocument,
    )
    from agent.store.store import Store


DAYS_A_YEAR = 365
MIN_RETURN_DAYS = 5
INSTALL_HINT = "needs the extra analysis: pip install 'trimtab[analysis]'"


def daily_returns(periods: Sequence[ReturnPeriod]) -> list[float]:
    """Return the return of each UTC day, net of external transfers; zero on days without a
    valuation.
    """
    growth_by_day: dict[int, float] = {}
    for period in periods:
        if period.growth_factor is not None:
            day = period.end.chain_s // DAY_S
            growth_by_day[day] = growth_by_day.get(day, 1.0) * float(period.growth_factor)
    days = range(min(growth_by_day), max(growth_by_day) + 1) if growth_by_day else ()
    return [growth_by_day.get(day, 1.0) - 1 for day in days]


def statistics(returns: Sequence[float]) -> StatisticsDocument | None:
    """Return annualised statistics of daily returns (365 days, risk-free rate zero); None for fewer
    than five days. Without empyrical only `days` is set, and `missing` names the extra to install.
    """
    if len(returns) < MIN_RETURN_DAYS:
        return None
    try:
        import empyrical
        import numpy as np
    except ImportError:
        return {
            "days": len(returns),
            "volatility": None,
            "sharpe": None,
            "max_drawdown": None,
            "missing": INSTALL_HINT,
        }
    returns_array = np.array(returns)
    daily_dispersion = dispersion(returns_array)
    return {
        "days": len(returns),
        "volatility": _rounded_or_none(daily_dispersion * math.sqrt(DAYS_A_YEAR)),
        "sharpe": _rounded_or_none(
            empyrical.sharpe_ratio(returns_array, annualization=DAYS_A_YEAR)
            if daily_dispersion
            else math.nan
        ),
        "max_drawdown": _rounded_or_none(empyrical.max_drawdown(returns_array)),
    }


def _rounded_or_none(statistic: Any) -> float | None:
    statistic_float = float(statistic)
    return round(statistic_float, 6) if math.isfinite(statistic_float) else None


MAX_PERIODS = 400
OLD_RATE_DAYS = 31
"""Age from which an exchange rate is reported as old. Monthly rates are common."""


@dataclass(frozen=True, slots=True)
class LedgerData:
    """Data of all ledger reports."""

    loaded_config: LoadedConfig
    store: Store
    numeraire: Token
    wrapped_native: str
    entries: tuple[Entry, ...]
    valuations: tuple[Valuation, ...]
    token_names: TokenNames
    newest_step: StepInput | None = None
    """Input of the newest step; None without steps."""
    lot_runs: dict[tuple[bool, LotMethod], TaxLotRun] = field(default_factory=dict)
    """Cached results of `lot_run` by exchange rates (True: with) and method. Years of entries take
    long to compute.
    """

    def lot_run(self, numeraire_only: bool = False, method: LotMethod | None = None) -> TaxLotRun:
        """Return lots and disposals by `method`, or else that of [tax], in its currency unless
        `numeraire_only`; FIFO without [tax].
        """
        tax_settings = self.loaded_config.config.tax
        rates = None if numeraire_only else read_rates(self.loaded_config)
        method = method or (
            LotMethod.FIFO if tax_settings is None else LotMethod(tax_settings.method)
        )
        run_key = rates is not None, method
        if run_key not in self.lot_runs:
            self.lot_runs[run_key] = run_tax_lots(
                self.entries,
                method,
                self.numeraire.address,
                self.wrapped_native,
                rate_lookup(rates),
            )
        return self.lot_runs[run_key]

    def with_payouts(self) -> LedgerData:
        """Return the ledger with the entries of payouts that are mined and not final, up to the newest
        valuation, which is without their amounts; itself without any.
        """
        if self.newest_step is None or not self.valuations:
            return self
        payout_entries = [
            entry
            for entry in unsettled_payout_entries(self.store, self.newest_step)
            if entry.block <= self.valuations[-1].block
        ]
        if not payout_entries:
            return self
        entries = sorted((*self.entries, *payout_entries), key=lambda entry: entry.block)
        return replace(self, entries=tuple(entries), lot_runs={})


@contextmanager
def open_ledger_data(config: ConfigSource) -> Iterator[LedgerData]:
    """Open the ledger. Raises ConfigError before the first cycle."""
    loaded_config = load_config(config)
    with wiring.open_store_offline(loaded_config) as (store, _):
        yield ledger_data(loaded_config, store, store.steps.newest_input())


def ledger_data(
    loaded_config: LoadedConfig, store: Store, newest_step: StepInput | None
) -> LedgerData:
    """Return the ledger with the valuation of a step, which is not recorded. Raises ConfigError
    before the first cycle.
    """
    ledger_tokens = store.ledger.ledger_tokens()
    if ledger_tokens is None:
        raise ConfigError(
            "the ledger is empty: no cycle has run yet",
            "run trimtab pnl --now, or trimtab run, first",
        )
    token_names = TokenNames(
        {token.address: token for token in ledger_tokens.tokens}, ledger_tokens.numeraire
    )
    return LedgerData(
        loaded_config,
        store,
        ledger_tokens.numeraire,
        ledger_tokens.wrapped_native,
        store.ledger.entries(),
        current_valuations(store, newest_step),
        token_names,
        newest_step,
    )


def refresh_ledger(agent: Agent) -> str:
    """Read the chain and bring the ledger up to date; sends nothing. Return which payment, mined
    perhaps and not booked, prevents a valuation; empty without one.
    """
    readers = agent.context.readers
    store = agent.context.store
    step = settled_step_input(readers, store, readers.reader.snapshot())
    update_ledger(store, step, is_forced=True)
    return unbooked_payment_reason(step)


def pnl(
    config: ConfigSource, period: str = "all", benchmark: str | None = None, period_count: int = 12
) -> ProfitDocument:
    """Return profit and loss of the last periods, newest last. Raises ConfigError for an unknown
    period or benchmark, fewer than one period, and an empty ledger.
    """
    if period_count < 1:
        raise ConfigError(f"period_count: {period_count} is below 1", "write for example 12")
    with open_ledger_data(config) as ledger:
        return _profit_document(ledger, period, benchmark, period_count)


def newest_pnl(ledger: LedgerData, period_kinds: Sequence[str]) -> dict[str, ProfitDocument]:
    """Return the newest period of each kind, as `pnl` does with `period_count` 1."""
    return {
        period_kind: _profit_document(ledger, period_kind, None, 1) for period_kind in period_kinds
    }


SERIES_SPAN_DAYS = (1, 7, 30, 365)
"""Days before the newest valuation of which a series shows more than of the time before them."""
MAX_SPAN_POINTS = 80
"""Most points that each of these spans, and the whole time, adds to a series."""


def value_series(ledger: LedgerData) -> ValueSeriesDocument:
    """Return value, and that of buy and hold, over time. Raises ConfigError without valuations."""
    if not (valuations := ledger.valuations):
        raise _no_valuations_error()
    sample_indices = {0, len(valuations) - 1}
    for span_s in (*(days * DAY_S for days in SERIES_SPAN_DAYS), valuations[-1].chain_s):
        first_index = bisect_left(
            valuations,
            valuations[-1].chain_s - span_s,
            key=lambda dated_valuation: dated_valuation.chain_s,
        )
        sample_indices |= set(
            range(
                first_index, len(valuations), -(-(len(valuations) - first_index) // MAX_SPAN_POINTS)
            )
        )
    sampled_valuations = [valuations[index] for index in sorted(sample_indices)]
    opening_tokens = BuyAndHoldTokens(ledger.numeraire.address, ledger.wrapped_native)
    sampled_blocks = [valuation.block for valuation in sampled_valuations]
    paid_entries = ledger.with_payouts().entries
    hold_value_by_block = hold_values(
        paid_entries, valuations, opening_tokens, frozenset(sampled_blocks)
    )

    def index_after(block: int) -> int:
        return min(bisect_left(sampled_blocks, block), len(sampled_valuations) - 1)

    rebalance_blocks = {
        entry.block
        for entry in ledger.entries
        if entry.kind is EntryKind.TRADE and not entry.by_hand
    }
    return {
        "times_s": [valuation.chain_s for valuation in sampled_valuations],
        "values": [money_text(ledger, valuation.managed_value) for valuation in sampled_valuations],
        "hold_values": [money_text(ledger, hold_value_by_block[block]) for block in sampled_blocks],
        "rebalances": sorted(set(map(index_after, rebalance_blocks))),
        "inflows": [
            {
                "time": format_utc(valuation.chain_s),
                "value": money_text(ledger, inflow),
                "index": index_after(valuation.block),
            }
            for valuation, inflow in managed_inflows(paid_entries, valuations)
        ],
    }


def _no_valuations_error() -> ConfigError:
    return ConfigError(
        "the ledger has no valuations yet",
        "run trimtab pnl --now, or trimtab run",
        code=ErrorCode.EMPTY,
    )


def _profit_document(
    ledger: LedgerData, period_kind: str, benchmark: str | None, period_count: int
) -> ProfitDocument:
    if not ledger.valuations:
        raise _no_valuations_error()
    benchmark_token = ledger.numeraire.address
    if benchmark is not None:
        benchmark_token = _token_address(ledger, benchmark)
    first_valuation = ledger.valuations[0]
    last_valuation = ledger.valuations[-1]
    period_bounds_s = calendar_periods(
        period_kind, first_valuation.chain_s, last_valuation.chain_s
    )[-min(period_count, MAX_PERIODS) :]
    opening_tokens = BuyAndHoldTokens(ledger.numeraire.address, ledger.wrapped_native)
    paid_ledger = ledger.with_payouts()
    performances = [
        performance(
            paid_ledger.entries,
            ledger.valuations,
            start_s,
            end_s,
            benchmark_token,
            opening_tokens,
        )
        for start_s, end_s in period_bounds_s
    ]
    # one run serves all periods: later disposals do not change earlier gains
    lot_run = ledger.lot_run(numeraire_only=True)
    entry_blocks = {entry.id: entry.block for entry in ledger.entries}
    period_documents = [
        _period_document(ledger, period_performance, bounds_s, lot_run, entry_blocks)
        for period_performance, bounds_s in zip(performances, period_bounds_s, strict=True)
        if period_performance is not None
    ]
    account = None if ledger.newest_step is None else margin_account(ledger.newest_step.snapshot)
    uncertain_reason = "" if account is None else uncertain_profit_reason(account)
    receipts = unbooked_receipts(ledger)
    profit_document: ProfitDocument = {
        "numeraire": ledger.numeraire.label,
        "benchmark": ledger.token_names.label(benchmark_token),
        "period": period_kind,
        "why_empty": "" if period_documents else _why_empty(ledger.valuations),
        "since": format_utc(first_valuation.chain_s),
        "until": format_utc(last_valuation.chain_s),
        "value": money_text(ledger, last_valuation.managed_value),
        "gas_money": money_text(ledger, last_valuation.gas_money_value),
        "reserved": money_text(
            ledger, last_valuation.reserved_value - last_valuation.gas_money_value
        ),
        "periods": period_documents,
        "unrealised": money_text(ledger, _unrealised_gain(paid_ledger)),
        "method": lot_run.lots.method.value,
        "unpriced": sorted(lot_run.unpriced_entries),
        "tax": _tax_years(ledger),
        "not_final": len(receipts),
        "mined_since": sum(receipt.block_number > last_valuation.block for receipt in receipts),
    }
    if uncertain_reason:
        profit_document["uncertain"] = uncertain_reason
    return profit_document


def check_books(config: ConfigSource, rebuild: bool = False) -> LedgerCheckDocument:
    """Check that every entry balances and matches its transaction, and that the sums match the
    entries; with `rebuild` rewrite all sums and the differing entries whose steps are readable, and
    return whether the rewritten ledger is sound.
    """
    with open_ledger_data(config) as stored_ledger:
        ledger = stored_ledger
        store_ledger = ledger.store.ledger
        step = ledger.newest_step
        audited_entries = [] if step is None else audit_entries(ledger.store, step)
        differing_entries = [
            audited_entry for audited_entry in audited_entries if audited_entry.differs
        ]
        rebuilt_entries = [
            (audited_entry.intent, audited_entry.derived_entry)
            for audited_entry in differing_entries
            if audited_entry.is_step_readable
        ]
        is_rebuildable = len(rebuilt_entries) == len(differing_entries)
        misstatements = store_ledger.find_misstatements()
        if rebuild:
            store_ledger.replace_entries(rebuilt_entries)
            store_ledger.rebuild_sums()
            ledger = replace(ledger, entries=store_ledger.entries(), lot_runs={})
        unbalanced_ids = [entry.id for entry in ledger.entries if unbalanced_tokens(entry)]
        unmatched_raw = ledger.lot_run(numeraire_only=True).lots.unmatched_raw_by_token()
        current_book = store_ledger.current_book()
        return {
            "book": None if current_book is None else fill(BookDocument, current_book),
            "entries": len(ledger.entries),
            "unbalanced": unbalanced_ids,
            "differing": [audited_entry.intent.id for audited_entry in differing_entries],
            "unaudited": [
                audited_entry.intent.id
                for audited_entry in audited_entries
                if not audited_entry.is_step_readable
            ],
            "misstated": list(misstatements),
            "rebuilt": rebuild and bool(rebuilt_entries or misstatements),
            "missing_lots": {
                ledger.token_names.label(token): str(raw) for token, raw in unmatched_raw.items()
            },
            "sound": not unbalanced_ids
            and is_rebuildable
            and (rebuild or not (differing_entries or misstatements)),
        }


def compare_with_chain(agent: Agent) -> LedgerChainDocument:
    """Compare each balance of the ledger with the chain, at one block."""
    step = agent.step_input()
    chain_balances = {holding.token: holding.raw for holding in step.snapshot.holdings}
    chain_balances[NATIVE] = step.snapshot.native_wei
    ledger_balances = agent.context.store.ledger.balances(step.snapshot.head.number)
    token_names = TokenNames(
        {asset.token.address: asset.token for asset in step.portfolio.assets},
        step.portfolio.numeraire,
    )
    balance_documents: list[LedgerBalanceDocument] = [
        {
            "symbol": token_names.label(balance.token),
            "ledger_raw": str(balance.raw),
            "chain_raw": str(chain_balances[balance.token])
            if balance.token in chain_balances
            else None,
        }
        for balance in ledger_balances
    ]
    unrecorded_transfers = [
        transfer for transfer in step.history.cash_flows.unexplained_transfers if transfer.id == 0
    ]
    return {
        "block": step.snapshot.head.number,
        "balances": balance_documents,
        "disagreement": step.history.ledger_mismatch,
        "unwritten_flows": len(unrecorded_transfers),
    }


def open_new_book(config: Path | str, note: str) -> BookDocument:
    """Close the current book and open a new one, which starts from the next cycle's balances. Raises
    Refused while a transaction has not ended or has no entry, which would be in neither book, and
    LockHeld while another process acts for the wallet.
    """
    loaded_config = load_config(config)
    clock = wiring.SystemClock()
    with (
        wiring.open_store_offline(loaded_config) as (store, _),
        wiring.hold_wallet_lock(loaded_config, store, clock),
    ):
        for intent in store.ledger.unsettled_intents():
            raise Refused(
                f"books: transaction {intent.tx_hash or intent.id} is not in the ledger yet",
                remedy="repeat this after the first cycle in which it is final; trimtab txs lists it",
                code=ErrorCode.OPEN_TRANSACTION,
            )
        return fill(BookDocument, store.ledger.open_book(clock.now_s(), note))


def list_entries(config: ConfigSource, limit: int) -> EntriesDocument:
    """Return the newest entries with their postings, newest first."""
    with open_ledger_data(config) as ledger_data:
        return {
            "numeraire": ledger_data.numeraire.label,
            "entries": [
                fill(
                    EntryDocument,
                    entry,
                    ledger_data,
                    **_futures_event_fields(entry, ledger_data.token_names),
                )
                for entry in ledger_data.entries[::-1][:limit]
            ],
        }


def _futures_event_fields(
    entry: Entry, token_names: TokenNames
) -> dict[str, list[FuturesEventDocument]]:
    """Return the key `futures` with the events of an entry; empty without futures."""
    event_documents: list[FuturesEventDocument] = [
        {"event": event, "symbol": symbol, "amount": amount, "value": event_value or None}
        for event, market, symbol, _, _, amount, event_value in futures_events(entry, token_names)
        if market  # moves of collateral are postings
    ]
    return {"futures": event_documents} if event_documents else {}


def _period_document(
    ledger: LedgerData,
    performance_result: Performance,
    bounds_s: tuple[int, int],
    lot_run: TaxLotRun,
    entry_blocks: dict[str, int],
) -> PeriodDocument:
    first_valuation = performance_result.start
    last_valuation = performance_result.end
    returns = daily_returns(performance_result.periods)
    require_agreement(performance_result, returns)
    mwr_bps = None
    mwr_year_bps = None
    if performance_result.mwr is not None:
        mwr_bps = round(performance_result.mwr * BPS, 2)
        mwr_year = annualize(
            performance_result.mwr, last_valuation.chain_s - first_valuation.chain_s
        )
        mwr_year_bps = None if mwr_year is None else round(mwr_year * BPS, 2)
    disposals = [
        disposal
        for disposal in lot_run.disposals
        if first_valuation.block < entry_blocks[disposal.entry_id] <= last_valuation.block
    ]
    weight_bps_by_label = {
        ledger.token_names.label(token): weight_bps
        for token, weight_bps in weights_bps(last_valuation).items()
    }
    extra_fields: dict[str, object] = {
        "from": format_utc(first_valuation.chain_s),
        "to": format_utc(last_valuation.chain_s),
        "mwr_bps": mwr_bps,
        "mwr_year_bps": mwr_year_bps,
        "manual_swaps": {
            "swaps": performance_result.manual_swap_count,
            "effect": money_text(ledger, performance_result.manual_effect),
        },
        "realised": money_text(ledger, net_gain(disposals)),
        "realised_by_token": {
            ledger.token_names.label(token): money_text(
                ledger, net_gain(disposal for disposal in disposals if disposal.token == token)
            )
            for token in sorted({disposal.token for disposal in disposals})
        },
        "weights_bps": weight_bps_by_label,
        "statistics": statistics(returns),
        **period_counts(ledger.store, ledger.entries, performance_result, bounds_s),
    }
    if performance_result.futures_profit is not None:
        extra_fields["futures"] = fill(
            FuturesResultDocument, performance_result.futures_profit.in_base_units(), ledger
        )
    return fill(PeriodDocument, performance_result, ledger, **extra_fields)


def _why_empty(valuations: Sequence[Valuation]) -> str:
    """Return the reason why a report has no periods. A period needs two valuations."""
    if len(valuations) == 1:
        return (
            f"the ledger has one valuation so far, of {format_time(valuations[0].chain_s)}; profit and"
            " loss need two. The run values the portfolio once an hour and after each transaction"
        )
    return "no period has two valuations"


def _tax_years(ledger: LedgerData) -> TaxYearsDocument | None:
    """Return the realised gains by calendar year, in the currency of [tax]; None without [tax]."""
    tax_settings = ledger.loaded_config.config.tax
    if tax_settings is None:
        return None
    disposals = ledger.lot_run().disposals
    disposals_by_year: dict[str, list[Disposal]] = {}
    for disposal in disposals:
        disposals_by_year.setdefault(format_utc(disposal.disposed_s)[:4], []).append(disposal)
    gains_by_year = {
        year: net_gain(year_disposals) for year, year_disposals in disposals_by_year.items()
    }
    exchange_rates = read_rates(ledger.loaded_config)
    futures_by_year = futures_profit_by_year(ledger.entries, rate_lookup(exchange_rates))
    tax_document: TaxYearsDocument = {
        "method": tax_settings.method,
        "currency": tax_settings.currency or ledger.numeraire.label,
        "years": {year: money_text(ledger, gain) for year, gain in sorted(gains_by_year.items())},
        "year_limit": tax_settings.year_limit,
        "rate_warning": _rate_warning(ledger),
    }
    if futures_by_year:
        tax_document["futures"] = {
            year: money_text(ledger, futures_gain)
            for year, futures_gain in sorted(futures_by_year.items())
        }
    return tax_document


def _rate_warning(ledger: LedgerData) -> str:
    """Return a warning if the oldest exchange rate used is more than a month old: the table has
    gaps or ends early.
    """
    exchange_rates = read_rates(ledger.loaded_config)
    if exchange_rates is None or not ledger.entries:
        return ""
    oldest_rate_entry_s = max((entry.chain_s for entry in ledger.entries), key=exchange_rates.age_s)
    age_days = exchange_rates.age_s(oldest_rate_entry_s) // DAY_S
    if age_days <= OLD_RATE_DAYS:
        return ""
    return (
        f"{exchange_rates.name}: the rate used on {format_utc(oldest_rate_entry_s)[:10]} is {age_days} days old; add"
        " newer lines"
    )


def _unrealised_gain(ledger: LedgerData) -> Value:
    """Return the value of the holdings less the cost of their lots, without gas money and without the
    lots of assets that an edit removed. Positions count with their current amounts, the margin
    account with its deposits, since its profit is reported separately.
    """
    lot_run = ledger.lot_run(numeraire_only=True)
    holding_lots, _ = split_gas_money(lot_run.open_lots(), ledger)
    valuation = ledger.valuations[-1]
    valued_tokens = {  # native coin and its wrapped token share lots
        ledger.wrapped_native if holding.token == NATIVE else holding.token
        for holding in valuation.holdings
        if not holding.is_gas_money
    }
    lots_cost = sum((lot.cost for lot in holding_lots if lot.token in valued_tokens), Fraction(0))
    value_without_gas = valuation.value - valuation.gas_money_value
    if (collateral := valuation.collateral) is not None:
        deposited_raw = sum(
            posting.raw
            for entry in ledger.entries
            for posting in entry.postings
            if (posting.account, posting.token) == (MARGIN, collateral.token)
        )
        value_without_gas += (deposited_raw - collateral.margin_raw) * collateral.price
    return value_without_gas - lots_cost


def split_gas_money(
    lots: Sequence[OpenLot], ledger: LedgerData
) -> tuple[tuple[OpenLot, ...], tuple[OpenLot, ...]]:
    """Split the lots into those of holdings and those of gas money, the native coin that only pays
    for gas. Gas money is that of the newest valuation plus the gas of mined transactions without an
    entry. Native coin and its wrapped token share lots; the oldest are gas money.
    """
    newest_holdings = ledger.valuations[-1].holdings if ledger.valuations else ()
    gas_left_raw = sum(holding.reserved_raw for holding in newest_holdings if holding.is_gas_money)
    if gas_left_raw:
        valuation_block = ledger.valuations[-1].block
        gas_left_raw += sum(
            receipt.gas_cost_wei
            for receipt in unbooked_receipts(ledger)
            if receipt.block_number <= valuation_block
        )
    holding_lots = list[OpenLot]()
    gas_lots = list[OpenLot]()
    for lot in lots:  # of each token the oldest first
        gas_raw = min(gas_left_raw, lot.raw) if lot.token == ledger.wrapped_native else 0
        gas_cost = prorated_value(lot.cost, gas_raw, lot.raw) if gas_raw < lot.raw else lot.cost
        if gas_raw:
            gas_lots.append(replace(lot, token=NATIVE, raw=gas_raw, cost=gas_cost))
        if gas_raw < lot.raw:
            holding_lots.append(replace(lot, raw=lot.raw - gas_raw, cost=lot.cost - gas_cost))
        gas_left_raw -= gas_raw
    return tuple(holding_lots), tuple(gas_lots)


def unbooked_receipts(ledger: LedgerData) -> list[Receipt]:
    """Return the receipts of transactions that are mined but have no entry in this ledger."""
    entry_ids = {entry.id for entry in ledger.entries}
    return [
        intent.receipt
        for intent in ledger.store.ledger.unsettled_intents()
        if intent.receipt is not None and intent.id not in entry_ids
    ]


def _token_address(ledger: LedgerData, symbol_or_address: str) -> str:
    for address, token in ledger.token_names.tokens.items():
        if (
            symbol_or_address in (token.symbol, address)
            or symbol_or_address.lower() == address.lower()
        ):
            return address
    labels = ", ".join(token.label for token in ledger.token_names.tokens.values())
    raise ConfigError(
        f"--benchmark: {symbol_or_address!r} was never held",
        f"choose from {labels}",
        code=ErrorCode.UNKNOWN,
    )


def money_text(ledger: LedgerData, value: Value) -> str:
    """Return a value in whole coins of the numeraire, or of the currency in which it is."""
    return value_text(value, ledger.numeraire.decimals)
