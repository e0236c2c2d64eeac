"""Recorded prices: list and delete them, import files, and fetch past prices of feeds and pools."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from fractions import Fraction
from importlib import import_module
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent.app.agent import Agent
from agent.app.documents.records import ForgottenPricesDocument
from agent.app.records.published import fetch_published_file
from agent.backtest.data import unreadable_reason
from agent.config.tables.fields import parse_duration_s
from agent.config.weights import read_supplies
from agent.errors import ConfigError
from agent.model import (
    Portfolio,
    PricePoint,
)
from agent.store.prices import AGENT_SOURCE, HOUR_S, RETENTION_S
from agent.units import Token
from agent.wiring.past_prices import CHAIN_SOURCES, FetchedPrices, chain_sources, fetch_hours

if TYPE_CHECKING:
    from agent.app.documents.research import (
        FetchedPricesDocument,
        FetchedSeriesDocument,
        ImportedPricesDocument,
        PricesDocument,
    )


PRICE_COLUMNS = ("time", "symbol", "close")
_EARLIEST_S = 1_230_768_000
"""2009-01-01, before any coin. A smaller number, or one above ten times this value, is not Unix
seconds: it is milliseconds or a spreadsheet's day count.
"""
MAX_EXPONENT = 30
"""Largest absolute power of ten of a price."""


@dataclass(frozen=True, slots=True)
class PriceSeries:
    """Hourly prices of one token in a file, oldest first, with the median interval of its rows, and
    gaps.
    """

    symbol: str
    points: tuple[PricePoint, ...]
    row_count: int
    interval_s: int
    gap_count: int
    longest_gap_s: int


@dataclass(frozen=True, slots=True)
class PriceFile:
    """All series of a file, the symbols of skipped tokens, and the unit of the closes."""

    series: tuple[PriceSeries, ...]
    skipped_symbols: tuple[str, ...]
    unit: str


def read_prices(
    path: Path, portfolio: Portfolio, config_symbols: Mapping[str, str], bar_s: int, now_s: int
) -> PriceFile:
    """Read prices of the portfolio's tokens in its numeraire.

    `config_symbols` maps the file's symbols to the config's. A close is dated `bar_s` after its
    row's time. If the file has closes of the numeraire, all others are divided by them; otherwise
    closes count in the numeraire. Raises ConfigError for missing columns or packages, unordered or
    repeated times, and invalid closes.
    """
    token_by_symbol = {asset.token.symbol: asset.token for asset in portfolio.assets}
    token_by_symbol |= {hub.symbol: hub for hub in portfolio.hubs}
    unknown_symbols = [
        config_symbol
        for config_symbol in config_symbols.values()
        if config_symbol not in token_by_symbol
    ]
    if unknown_symbols:
        raise ConfigError(
            f"--as: {unknown_symbols[0]!r} is not a token of the config",
            f"choose from {', '.join(token_by_symbol)}",
        )
    closes_by_symbol: dict[str, dict[int, tuple[int, Fraction]]] = {}
    skipped_symbols: dict[str, None] = {}
    for row_number, (time_cell, file_symbol, close_cell) in enumerate(_read_rows(path), 1):
        symbol = config_symbols.get(str(file_symbol), str(file_symbol))
        if symbol not in token_by_symbol:
            skipped_symbols[str(file_symbol)] = None
            continue
        close_s = _parse_time_s(time_cell, path, row_number) + bar_s
        if close_s > now_s:
            raise ConfigError(
                f"{path.name}, row {row_number}: {symbol} has a close in the future",
                "remove the row, or correct --bar",
            )
        symbol_closes = closes_by_symbol.setdefault(symbol, {})
        last_close_s = next(reversed(symbol_closes.values()))[0] if symbol_closes else 0
        if close_s <= last_close_s:
            time_fault = "a repeated" if close_s == last_close_s else "an unordered"
            raise ConfigError(
                f"{path.name}, row {row_number}: {symbol} has {time_fault} time",
                "sort the file by time, without duplicates",
            )
        symbol_closes[row_number] = (close_s, _parse_price(close_cell, path, row_number))
    if not closes_by_symbol:
        raise ConfigError(
            f"{path.name}: holds no prices of {', '.join(token_by_symbol)}",
            "name its symbols: --as BTC=WBTC",
        )
    numeraire = portfolio.numeraire
    numeraire_closes = dict(closes_by_symbol.pop(numeraire.symbol, {}).values())
    price_series_list = []
    for symbol, dated_closes in closes_by_symbol.items():
        prices_in_numeraire = list(dated_closes.values())
        if numeraire_closes:
            prices_in_numeraire = [
                (close_s, close / numeraire_closes[close_s])
                for close_s, close in prices_in_numeraire
                if close_s in numeraire_closes
            ]
        price_series_list.append(
            _price_series(
                token_by_symbol[symbol], prices_in_numeraire, len(dated_closes), numeraire.decimals
            )
        )
    if not any(price_series.points for price_series in price_series_list):
        raise ConfigError(
            f"{path.name}: no time has closes of both a token and {numeraire.label}",
            f"remove {numeraire.label} from the file",
        )
    unit_note = "by the file's closes of both" if numeraire_closes else "as given in the file"
    return PriceFile(
        tuple(price_series_list), tuple(skipped_symbols), f"{numeraire.label}, {unit_note}"
    )


def _price_series(
    token: Token,
    dated_closes: Sequence[tuple[int, Fraction]],
    row_count: int,
    numeraire_decimals: int,
) -> PriceSeries:
    price_scale = Fraction(10) ** (numeraire_decimals - token.decimals)
    points_by_hour = {
        close_s // HOUR_S: PricePoint(token.address, close_s, close * price_scale)
        for close_s, close in dated_closes
    }
    intervals_s = sorted(
        later_s - earlier_s for (earlier_s, _), (later_s, _) in pairwise(dated_closes)
    )
    median_interval_s = intervals_s[len(intervals_s) // 2] if intervals_s else 0
    gaps_s = [interval_s for interval_s in intervals_s if 2 * interval_s > 3 * median_interval_s]
    return PriceSeries(
        token.symbol,
        tuple(points_by_hour.values()),
        row_count,
        median_interval_s,
        len(gaps_s),
        max(gaps_s, default=0),
    )


def _read_rows(path: Path) -> Iterator[tuple[object, object, object]]:
    """Return (time, symbol, close) of each row. Raises ConfigError if the file is not a table with
    these columns.
    """
    try:
        polars: Any = import_module("polars")
    except ModuleNotFoundError:
        raise ConfigError(
            "prices import: polars is not installed", "pip install 'trimtab[analysis]'"
        ) from None
    if not path.is_file():
        raise ConfigError(
            f"{path}: no such file",
            "name a CSV or Parquet file with the columns time, symbol and close",
        )
    try:
        if path.suffix.lower() in (".parquet", ".pq"):
            price_table = polars.read_parquet(path)
        else:
            price_table = polars.read_csv(path, infer_schema_length=0)
    except (
        Exception,
        polars.exceptions.PanicException,
    ):  # errors for a broken file have no common base class
        raise ConfigError(
            f"{path.name} {unreadable_reason(path)}", "write CSV or Parquet"
        ) from None
    missing_columns = [
        column_name for column_name in PRICE_COLUMNS if column_name not in price_table.columns
    ]
    if missing_columns:
        raise ConfigError(
            f"{path.name}: has no column {missing_columns[0]!r}",
            f"it needs {', '.join(PRICE_COLUMNS)}",
        )
    return iter(price_table.select(PRICE_COLUMNS).iter_rows())


def _parse_time_s(cell: object, path: Path, row_number: int) -> int:
    """Return Unix seconds from an ISO time (UTC by default), a number of seconds, or a Parquet
    time.
    """
    parsed_time, time_s = cell, 0.0
    try:
        if isinstance(cell, str):
            cell_text = cell.strip()
            is_numeric = cell_text.replace(".", "", 1).isdigit()
            parsed_time = float(cell_text) if is_numeric else datetime.fromisoformat(cell_text)
        if isinstance(parsed_time, datetime):
            time_s = (
                parsed_time if parsed_time.tzinfo else parsed_time.replace(tzinfo=UTC)
            ).timestamp()
        elif isinstance(parsed_time, int | float):
            time_s = float(parsed_time)
    except ValueError:
        time_s = 0.0
    if not _EARLIEST_S <= time_s < 10 * _EARLIEST_S:
        raise ConfigError(
            f"{path.name}, row {row_number}: {str(cell)[:40]!r} is not a time",
            "write 2026-11-01T00:00:00Z, or unix seconds",
        )
    return int(time_s)


def _parse_price(cell: object, path: Path, row_number: int) -> Fraction:
    """Return an exact price above zero. Raises ConfigError for anything else."""
    price: Decimal | None = None
    if isinstance(cell, str | int | float):
        with suppress(InvalidOperation):
            price = Decimal(cell.strip() if isinstance(cell, str) else repr(cell))
    is_valid = price is not None and price.is_finite() and price > 0
    if price is None or not is_valid or abs(price.adjusted()) > MAX_EXPONENT:
        raise ConfigError(
            f"{path.name}, row {row_number}: {str(cell)[:40]!r} is not a price",
            "remove the row: prices must be above zero",
        )
    return Fraction(price)


IMPORT_SOURCE = "import"


def recorded_price_spans(agent: Agent) -> PricesDocument:
    """Return for each token and source how many hours have a price, the first and the last, and the
    tokens without any.
    """
    numeraire = agent.portfolio.numeraire
    spans = agent.context.store.prices.spans(numeraire.address)
    label_by_address = {token.address: token.label for token in _portfolio_tokens(agent)}
    priced_addresses = {span.token for span in spans} | {numeraire.address}
    return {
        "numeraire": numeraire.label,
        "retention_s": RETENTION_S,
        "prices": [
            {
                "symbol": label_by_address.get(span.token, span.token),
                "address": span.token,
                "source": span.source,
                "hours": span.hour_count,
                "from_s": span.from_s,
                "until_s": span.until_s,
            }
            for span in spans
        ],
        "missing": [
            label for address, label in label_by_address.items() if address not in priced_addresses
        ],
    }


def import_prices(
    agent: Agent,
    path: Path,
    symbol_pairs: Sequence[str] = (),
    bar: str = "0s",
    check_only: bool = False,
) -> ImportedPricesDocument:
    """Record a file's closes for hours without a price; with `check_only` only report them. If
    there is no file at this path, it is a name in [data]; supplies there are only checked.
    `symbol_pairs` are texts FILE=CONFIG, or several with commas, `bar` is the time from a row to
    its close. Raises ConfigError.
    """
    config_symbols, sha256, data_table = {}, "", agent.context.config.data.get(str(path))
    if data_table is not None and not path.exists():
        published_prices = fetch_published_file(agent.context.loaded_config, str(path))
        path, sha256 = published_prices.path, published_prices.sha256
        if data_table.kind == "supplies":
            supplies = read_supplies(path, agent.portfolio)
            label_by_address = {
                asset.token.address: asset.token.label for asset in agent.portfolio.assets
            }
            return {
                "file": str(path),
                "unit": f"supplies of {', '.join(label_by_address[supply.token] for supply in supplies)}",
                "checked_only": True,
                "skipped": [],
                "prices": [],
                "sha256": sha256,
            }
        config_symbols, bar = dict(data_table.symbols), data_table.bar if bar == "0s" else bar
    for symbol_pair in [
        pair_text for pairs_text in symbol_pairs for pair_text in pairs_text.split(",")
    ]:
        file_symbol, _, config_symbol = symbol_pair.partition("=")
        if not file_symbol or not config_symbol:
            raise ConfigError(
                f"--as: {symbol_pair!r} is not a pair of symbols",
                "write the file's and the config's: --as BTC=WBTC",
            )
        config_symbols[file_symbol] = config_symbol
    now_s, numeraire = agent.context.clock.now_s(), agent.portfolio.numeraire.address
    price_file = read_prices(
        path, agent.portfolio, config_symbols, parse_duration_s(bar, "--bar"), now_s
    )
    import_document: ImportedPricesDocument = {
        "file": str(path),
        "unit": price_file.unit,
        "checked_only": check_only,
        "skipped": list(price_file.skipped_symbols),
        "prices": [],
        "sha256": sha256,
    }
    for price_series in price_file.series:
        new_hour_count = (
            0
            if check_only
            else agent.context.store.prices.record(numeraire, price_series.points, IMPORT_SOURCE)
        )
        from_s, until_s = _first_and_last_s(price_series.points)
        import_document["prices"].append(
            {
                "symbol": price_series.symbol,
                "rows": price_series.row_count,
                "hours": len(price_series.points),
                "new": new_hour_count,
                "from_s": from_s,
                "until_s": until_s,
                "interval_s": price_series.interval_s,
                "gaps": price_series.gap_count,
                "longest_gap_s": price_series.longest_gap_s,
            }
        )
    return import_document


def fetch_prices(
    agent: Agent, source: str | None = None, lookback_text: str = "90d"
) -> FetchedPricesDocument:
    """Read the prices of the last `lookback_text` at each full hour from the chain, and record
    those for hours without a price. Each token's feed or the TWAP of its pinned pools is read, in
    the order of reference.kind, or `source` alone; a quorum of operators must agree. Raises
    ConfigError for an invalid source or time.
    """
    if source is not None and source not in CHAIN_SOURCES:
        raise ConfigError(
            f"--source: {source!r} is unknown", f"choose from {', '.join(CHAIN_SOURCES)}"
        )
    lookback_s = parse_duration_s(lookback_text, "--back")
    if not HOUR_S <= lookback_s <= RETENTION_S:
        raise ConfigError(
            f"--back: {lookback_text!r} is not between an hour and {RETENTION_S // 86_400} days",
            "write for example 90d",
        )
    step = agent.step_input()
    sources = chain_sources(step) if source is None else [source]
    if not sources:
        raise ConfigError(
            "reference.kind: neither feeds nor TWAPs are configured", "choose one by --source"
        )
    tokens = [token for token in _portfolio_tokens(agent) if token != agent.portfolio.numeraire]
    fetched = fetch_hours(agent.context, step, sources, tokens, lookback_s)
    return {"lookback_s": lookback_s, "prices": [_fetched_document(series) for series in fetched]}


def _fetched_document(fetched_prices: FetchedPrices) -> FetchedSeriesDocument:
    from_s, until_s = _first_and_last_s(fetched_prices.points)
    return {
        "symbol": fetched_prices.token.label,
        "source": fetched_prices.source,
        "hours": len(fetched_prices.points),
        "new": fetched_prices.new_hour_count,
        "from_s": from_s,
        "until_s": until_s,
        "why": fetched_prices.missing_reason,
    }


def _first_and_last_s(points: Sequence[PricePoint]) -> tuple[int | None, int | None]:
    """Return the first and last time of prices."""
    return (points[0].at_s, points[-1].at_s) if points else (None, None)


def forget_prices(agent: Agent, source: str) -> ForgottenPricesDocument:
    """Delete the prices of one source. Raises ConfigError for an unknown source, and for the prices
    of the agent's cycles, which are kept.
    """
    if source not in (IMPORT_SOURCE, *CHAIN_SOURCES):
        source_fault = (
            ": prices of the agent's cycles are kept" if source == AGENT_SOURCE else " is unknown"
        )
        raise ConfigError(
            f"source: {source!r}{source_fault}",
            f"choose from {', '.join((IMPORT_SOURCE, *CHAIN_SOURCES))}",
        )
    return {
        "source": source,
        "removed": agent.context.store.prices.forget(agent.portfolio.numeraire.address, source),
    }


def _portfolio_tokens(agent: Agent) -> list[Token]:
    portfolio = agent.portfolio
    tokens = (*(asset.token for asset in portfolio.assets), *portfolio.hubs)
    return list({token.address: token for token in tokens}.values())
