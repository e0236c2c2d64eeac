"""Ledger reports from the store alone: profit and loss, entries, checks, tax, export."""

from __future__ import annotations

import csv
import io
import math
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent import codec, wiring
from agent.accounting import entries as book
from agent.accounting import export as rotki
from agent.accounting.export import (
    ExportTable,
    TokenNames,
    escape_formula,
    export_tables,
    format_utc,
    weights_bps,
)
from agent.accounting.performance import (
    Performance,
    ReturnPeriod,
    annualize,
    calendar_periods,
    performance,
)
from agent.accounting.tax_lots import Disposal, TaxLotRun, identity_rate, net_gain, run_tax_lots
from agent.app.agent import Agent
from agent.app.documents import fill
from agent.app.documents.records import BookDocument, EntryDocument, PeriodDocument
from agent.config.load import ConfigSource, LoadedConfig, load_config
from agent.config.schema import read_rates
from agent.errors import ConfigError
from agent.execution.bookkeeping import audit_entries, update_ledger
from agent.execution.settlement import settle_mined
from agent.model import Entry, LotMethod, StepInput, Valuation
from agent.units import BPS, NATIVE, Token, Value, value_text

if TYPE_CHECKING:
    from agent.app.documents.records import (
        EntriesDocument,
        LedgerBalanceDocument,
        LedgerChainDocument,
        LedgerCheckDocument,
        ProfitDocument,
        StatisticsDocument,
        TaxYearsDocument,
    )
    from agent.store.store import Store


# --- Volatility, Sharpe ratio and drawdown of daily returns; empyrical-reloaded from the extra
# `analysis` if installed.


DAY_S = 86_400
DAYS_A_YEAR = 365
MIN_DAYS = 5
MISSING = "needs the extra analysis: pip install 'trimtab[analysis]'"


def daily_returns(parts: Sequence[ReturnPeriod]) -> list[float]:
    """Return of each UTC day, net of external transfers; zero for days without a valuation."""
    days: dict[int, float] = {}
    for part in parts:
        if part.factor is not None:
            day = part.end.chain_s // DAY_S
            days[day] = days.get(day, 1.0) * float(part.factor)
    return [days.get(day, 1.0) - 1 for day in range(min(days), max(days) + 1)] if days else []


def statistics(parts: Sequence[ReturnPeriod]) -> StatisticsDocument | None:
    """Return annualised statistics (365 days, risk-free rate zero).

    None for fewer than five days; `missing` without the library.
    """
    returns = daily_returns(parts)
    if len(returns) < MIN_DAYS:
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
            "missing": MISSING,
        }
    series = np.array(returns)
    return {
        "days": len(returns),
        "volatility": _known(empyrical.annual_volatility(series, annualization=DAYS_A_YEAR)),
        "sharpe": _known(empyrical.sharpe_ratio(series, annualization=DAYS_A_YEAR)),
        "max_drawdown": _known(empyrical.max_drawdown(series)),
    }


def _known(value: Any) -> float | None:
    found = float(value)
    return round(found, 6) if math.isfinite(found) else None


MOST_PERIODS = 400
LEDGERS_DAY_S, OLD_RATE_DAYS = 86_400, 31
"""Maximum age of an exchange rate before a warning; monthly rates are common."""


@dataclass(frozen=True, slots=True)
class LedgerData:
    """Source data of all ledger reports."""

    loaded: LoadedConfig
    store: Store
    numeraire: Token
    coin: str
    entries: tuple[Entry, ...]
    valuations: tuple[Valuation, ...]
    names: TokenNames
    runs: dict[bool, TaxLotRun] = field(default_factory=dict)
    """Cache of `taxed` by currency: computing years of entries takes time."""

    def taxed(self, numeraire_only: bool = False) -> TaxLotRun:
        """Return lots and disposals by [tax]; first in, first out in the numeraire without it."""
        tax = self.loaded.config.tax
        table = None if numeraire_only else read_rates(self.loaded)
        method = LotMethod.FIFO if tax is None else LotMethod(tax.method)
        rated = table is not None
        if rated not in self.runs:
            rate = identity_rate if table is None else table.at
            self.runs[rated] = run_tax_lots(
                self.entries, method, self.numeraire.address, self.coin, rate
            )
        return self.runs[rated]


@contextmanager
def open_ledger_data(config: ConfigSource) -> Iterator[LedgerData]:
    """Open the ledger. Raises ConfigError before the first cycle has opened it."""
    loaded = load_config(config)
    with wiring.open_store_offline(loaded) as (store, _):
        known = store.ledger.token_names()
        if known is None:
            raise ConfigError(
                "the books are empty: no cycle has run yet",
                "run trimtab pnl --now, or trimtab run, first",
            )
        names = TokenNames({token.address: token for token in known.tokens}, known.numeraire)
        yield LedgerData(
            loaded,
            store,
            known.numeraire,
            known.coin,
            store.ledger.entries(),
            store.valuations.between(),
            names,
        )


def newest_step_input(store: Store) -> StepInput | None:
    """Input of the newest step; None without one."""
    for line in store.steps.newest(1):
        record = store.steps.get(line.id)
        return None if record is None else codec.loads(StepInput, record.input_json)
    return None


def refresh_ledger(agent: Agent) -> None:
    """Read the chain and bring the ledger up to date; sends nothing."""
    readers, store = agent.context.readers, agent.context.store
    snapshot = readers.reader.snapshot()
    present = partial(readers.step_input_at, snapshot)
    settle_mined(store, snapshot, present)
    update_ledger(store, present(), force=True)


def pnl(
    config: ConfigSource, period: str = "all", benchmark: str | None = None, last: int = 12
) -> ProfitDocument:
    """Profit and loss of each period, newest last. Raises ConfigError for an unknown period or
    benchmark, or an empty ledger.
    """
    with open_ledger_data(config) as found:
        if not found.valuations:
            raise ConfigError(
                "the books hold no values yet", "run trimtab pnl --now, or trimtab run"
            )
        token = found.numeraire.address if benchmark is None else _token(found, benchmark)
        first, final = found.valuations[0], found.valuations[-1]
        spans = calendar_periods(period, first.chain_s, final.chain_s)[-min(last, MOST_PERIODS) :]
        periods = [
            performance(found.entries, found.valuations, start, end, token) for start, end in spans
        ]
        taxed = found.taxed(
            numeraire_only=True
        )  # computed once for all periods: later disposals do not change the gain of earlier ones
        blocks = {entry.id: entry.block for entry in found.entries}
        rows = [
            _period(found, one, span, taxed, blocks)
            for one, span in zip(periods, spans, strict=True)
            if one is not None
        ]
        return {
            "numeraire": found.numeraire.label,
            "benchmark": found.names.label(token),
            "period": period,
            "why_empty": "" if rows else _why_empty(found.valuations),
            "since": format_utc(first.chain_s),
            "until": format_utc(final.chain_s),
            "value": _money(found, final.managed),
            "gas_money": _money(found, final.gas_money),
            "reserved": _money(found, final.reserved - final.gas_money),
            "periods": rows,
            "unrealised": _money(found, _unrealised(taxed, final)),
            "method": taxed.lots.method.value,
            "unpriced": sorted(set(taxed.unpriced)),
            "tax": _tax(found),
        }


def check_books(config: ConfigSource, rebuild: bool = False) -> LedgerCheckDocument:
    """Check that every entry balances and matches its transaction; `rebuild` rewrites those that do
    not.
    """
    with open_ledger_data(config) as found:
        step = newest_step_input(found.store)
        unbalanced = [entry.id for entry in found.entries if book.unbalanced_tokens(entry)]
        differing = (
            []
            if step is None
            else [
                pair
                for pair in audit_entries(found.store, found.store.ledger, step)
                if pair.differs
            ]
        )
        misstated = found.store.ledger.find_misstatements()
        if rebuild:
            found.store.ledger.rewrite([(pair.intent, pair.derived) for pair in differing])
            found.store.ledger.rebuild_sums()
        owed = found.taxed(numeraire_only=True).lots.owed()
        kept = found.store.ledger.current_book()
        return {
            "book": None if kept is None else fill(BookDocument, kept),
            "entries": len(found.entries),
            "unbalanced": unbalanced,
            "differing": [pair.intent.id for pair in differing],
            "misstated": list(misstated),
            "rebuilt": rebuild and bool(differing or misstated),
            "missing_lots": {found.names.label(token): str(raw) for token, raw in owed.items()},
            "sound": not unbalanced and (rebuild or not (differing or misstated)),
        }


def compare_with_chain(agent: Agent) -> LedgerChainDocument:
    """Compare each balance of the ledger with the chain, at one block."""
    step = agent.step_input()
    held = {holding.token: holding.raw for holding in step.snapshot.holdings} | {
        NATIVE: step.snapshot.native_wei
    }
    stands = agent.context.store.ledger.balances(step.snapshot.head.number)
    names = TokenNames(
        {asset.token.address: asset.token for asset in step.portfolio.assets},
        step.portfolio.numeraire,
    )
    rows: list[LedgerBalanceDocument] = [
        {
            "symbol": names.label(one.token),
            "ledger_raw": str(one.raw),
            "chain_raw": str(held[one.token]) if one.token in held else None,
        }
        for one in stands
    ]
    unwritten = [flow for flow in step.history.flows if flow.id == 0]
    return {
        "block": step.snapshot.head.number,
        "balances": rows,
        "disagreement": step.history.books,
        "unwritten_flows": len(unwritten),
    }


def open_books(config: Path | str, note: str) -> BookDocument:
    """Close the current book and open a new one with the chain's balances of the next cycle."""
    loaded = load_config(config)
    with wiring.open_store_offline(loaded) as (store, _):
        made = store.ledger.open_book(wiring.SystemClock().now_s(), note)
        return fill(BookDocument, made)


def list_entries(config: ConfigSource, limit: int) -> EntriesDocument:
    """The newest entries with their postings, newest first."""
    with open_ledger_data(config) as found:
        return {
            "numeraire": found.numeraire.label,
            "entries": [
                fill(EntryDocument, entry, found) for entry in reversed(found.entries[-limit:])
            ],
        }


def _period(
    found: LedgerData,
    one: Performance,
    span: tuple[int, int],
    taxed: TaxLotRun,
    blocks: dict[str, int],
) -> PeriodDocument:
    seconds = one.end.chain_s - one.start.chain_s
    mwr_year = None if one.mwr is None else annualize(one.mwr, seconds)
    disposals = [
        d
        for d in taxed.disposals
        if span[0] <= d.disposed_s < span[1] and blocks[d.entry] <= one.end.block
    ]
    given: dict[str, object] = {
        "from": format_utc(one.start.chain_s),
        "to": format_utc(one.end.chain_s),
        "mwr_bps": None if one.mwr is None else round(one.mwr * BPS, 2),
        "mwr_year_bps": None if mwr_year is None else round(mwr_year * BPS, 2),
        "by_hand": {"swaps": one.by_hand_swaps, "effect": _money(found, one.by_hand)},
        "realised": _money(found, net_gain(disposals)),
        "realised_by_token": _by_token(found, disposals),
        "weights_bps": {
            found.names.label(token): bps for token, bps in weights_bps(one.end).items()
        },
        "statistics": statistics(one.parts),
    }
    return fill(PeriodDocument, one, found, **given)


def _why_empty(valuations: Sequence[Valuation]) -> str:
    """Return why there is no period; each needs two valuations."""
    if len(valuations) == 1:
        return (
            f"the books hold one value so far, of {format_utc(valuations[0].chain_s)}; profit and"
            " loss need two"
        )
    return "no period holds two values"


def _tax(found: LedgerData) -> TaxYearsDocument | None:
    """Return realised gains by calendar year under [tax], in its currency; None without [tax]."""
    tax = found.loaded.config.tax
    if tax is None:
        return None
    disposals = found.taxed().disposals
    spans = (
        calendar_periods(
            "year", min(d.disposed_s for d in disposals), max(d.disposed_s for d in disposals)
        )
        if disposals
        else ()
    )
    within = {
        format_utc(start)[:4]: [d for d in disposals if start <= d.disposed_s < end]
        for start, end in spans
    }
    years = {year: net_gain(chosen) for year, chosen in within.items() if chosen}
    return {
        "method": tax.method,
        "currency": tax.currency or found.numeraire.label,
        "years": {year: _money(found, gain) for year, gain in sorted(years.items())},
        "year_limit": tax.year_limit,
        "old_rate": _old_rate(found),
    }


def _old_rate(found: LedgerData) -> str:
    """Return the entry with the oldest exchange rate if older than a month: the rate table has gaps
    or ends early.
    """
    table = read_rates(found.loaded)
    if table is None or not found.entries:
        return ""
    at_s = max((entry.chain_s for entry in found.entries), key=table.age_s)
    days = table.age_s(at_s) // LEDGERS_DAY_S
    return (
        ""
        if days <= OLD_RATE_DAYS
        else (
            f"{table.name}: the rate that counts on {format_utc(at_s)[:10]} is {days} days old; add"
            " newer lines"
        )
    )


def _by_token(found: LedgerData, disposals: Sequence[Disposal]) -> dict[str, str]:
    tokens = sorted({one.token for one in disposals})
    return {
        found.names.label(token): _money(found, net_gain(d for d in disposals if d.token == token))
        for token in tokens
    }


def _unrealised(taxed: TaxLotRun, at: Valuation) -> Value:
    """Return the value of the holdings less the cost of their lots; positions count with their
    present amounts.
    """
    cost = sum((lot.cost for lot in taxed.open()), Fraction(0))
    return at.value - cost


def _token(found: LedgerData, name: str) -> str:
    for address, token in found.names.tokens.items():
        if name in (token.symbol, address) or name.lower() == address.lower():
            return address
    labels = ", ".join(token.label for token in found.names.tokens.values())
    raise ConfigError(
        f"--benchmark: {name!r} is none of the tokens that were held", f"choose from {labels}"
    )


def _money(found: LedgerData, value: Value) -> str:
    return value_text(value, found.numeraire.decimals)


# --- Ledger export: rotki's generic CSV, plain CSV, Parquet.


FORMATS = ("rotki", "csv", "parquet")


def export(
    config: ConfigSource,
    kind: str,
    folder: Path | str,
    force: bool = False,
    native: str | None = None,
) -> dict[str, Any]:
    """Write the whole book into `folder`, created if missing; files are owner-only, and overwritten
    only with `force`.

    `native` is rotki's name of the chain's native coin, known by default for ether. Raises
    ConfigError.
    """
    if not str(folder).strip():
        raise ConfigError(
            "--out: it is empty", "name the folder to write to, for example books-2026"
        )
    folder = Path(folder)
    if kind not in FORMATS:
        raise ConfigError(f"--format: {kind!r} is unknown", f"choose from {', '.join(FORMATS)}")
    if native is not None and not native.strip():
        raise ConfigError(
            "--native-asset: it is empty, and rotki would know no asset of that name",
            "write for example ETH",
        )
    with open_ledger_data(config) as found:
        tables = _rotki(found, native) if kind == "rotki" else _plain(found)
    encoded = [
        (f"{sheet.name}.{'parquet' if kind == 'parquet' else 'csv'}", sheet) for sheet in tables
    ]
    _folder(folder)
    taken = [name for name, _ in encoded if (folder / name).exists()]
    if taken and not force:
        raise ConfigError(
            f"--out {folder}: {', '.join(taken)} would be overwritten",
            "name another folder, or add --force",
        )
    for name, sheet in encoded:
        _write(
            folder / name,
            _parquet(sheet) if kind == "parquet" else csv_text(sheet.columns, sheet.rows).encode(),
        )
    return {
        "format": kind,
        "folder": str(folder),
        "files": [{"name": name, "rows": len(sheet.rows)} for name, sheet in encoded],
    }


def csv_text(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return RFC 4180 CSV with Unix line ends; cells never parse as formulas in a spreadsheet
    (T17).
    """
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows([escape_formula(cell) for cell in row] for row in rows)
    return out.getvalue()


def _plain(found: LedgerData) -> tuple[ExportTable, ...]:
    tax = found.loaded.config.tax
    currency = found.numeraire.label if tax is None or tax.currency is None else tax.currency
    return export_tables(found.entries, found.taxed(), found.valuations, found.names, currency)


def _rotki(found: LedgerData, native: str | None) -> tuple[ExportTable, ...]:
    chain = found.loaded.config.chain
    if native is None and not chain.local and chain.chain_id not in rotki.ETHER_CHAINS:
        raise ConfigError(
            f"--native-asset: what rotki calls the native coin of chain {chain.chain_id} is not"
            " known here",
            "name it as rotki does, for example XDAI",
        )
    assets = rotki.RotkiAssets(chain.chain_id, native or "ETH", found.names.decimals)
    return (
        ExportTable(
            "rotki_generic_trades",
            rotki.TRADE_COLUMNS,
            tuple(rotki.rotki_trades(found.entries, assets)),
        ),
        ExportTable(
            "rotki_generic_events",
            rotki.EVENT_COLUMNS,
            tuple(rotki.rotki_events(found.entries, assets)),
        ),
    )


def _parquet(sheet: ExportTable) -> bytes:
    """Write Parquet with text columns: base units exceed Parquet's integers."""
    try:
        import polars
    except ImportError:
        raise ConfigError(
            "--format parquet needs polars", "pip install 'trimtab[analysis]', or choose csv"
        ) from None
    columns = {
        name: [row[number] for row in sheet.rows] for number, name in enumerate(sheet.columns)
    }
    out = io.BytesIO()
    polars.DataFrame(columns, schema=dict.fromkeys(sheet.columns, polars.String)).write_parquet(out)
    return out.getvalue()


def _folder(folder: Path) -> None:
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise ConfigError(
            f"--out {folder}: {error.strerror}", "name a folder that can be written"
        ) from None


def _write(path: Path, data: bytes) -> None:
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
    except OSError as error:
        raise ConfigError(
            f"--out {path}: {error.strerror}", "make room there, or name another folder"
        ) from None
