"""Recorded prices: list and delete them, import files, and fetch past prices of feeds and pools."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

from agent.app.agent import Agent
from agent.app.documents.records import ForgottenPricesDocument
from agent.app.records.price_checks import JumpCheck
from agent.app.records.published import fetch_published_file
from agent.config.tables.fields import parse_duration_s
from agent.config.weights import read_supplies
from agent.errors import ConfigError, TrimtabError
from agent.model import (
    Portfolio,
    PricePoint,
)
from agent.price_files.layout import file_symbol
from agent.price_files.read import (
    FileRemark,
    SymbolCloses,
    is_unit_of,
    read_closes,
    symbol_pairs,
)
from agent.price_files.times import gaps_text
from agent.reference import reference_prices
from agent.store.prices import AGENT_SOURCE, IMPORT_SOURCE, RETENTION_S
from agent.units import DAY_S, HOUR_S, Token, format_duration, format_time, pluralize
from agent.wiring.past_prices import CHAIN_SOURCES, FetchedPrices, chain_sources, fetch_hours

if TYPE_CHECKING:
    from agent.app.documents.research import (
        FetchedPricesDocument,
        FetchedSeriesDocument,
        FileRemarkDocument,
        ImportedPricesDocument,
        ImportedSeriesDocument,
        PricesDocument,
    )


@dataclass(frozen=True, slots=True)
class PriceSeries:
    """Hourly prices of one token in a file, oldest first, with the median interval of its rows, and
    each gap by its start and seconds.
    """

    symbol: str
    points: tuple[PricePoint, ...]
    row_count: int
    interval_s: int
    gaps: tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class PriceFile:
    """All series of a file, the symbols of skipped tokens, the unit of the closes, and what was left
    out of the file or how it was read.
    """

    series: tuple[PriceSeries, ...]
    skipped_symbols: tuple[str, ...]
    unit: str
    remarks: tuple[FileRemark, ...] = ()


def read_prices(
    path: Path,
    portfolio: Portfolio,
    config_symbols: Mapping[str, str],
    bar_s: int | None,
    now_s: int,
    jump_check: JumpCheck | None = None,
) -> PriceFile:
    """Read prices of the portfolio's tokens in its numeraire.

    `config_symbols` maps the file's symbols to the config's. A close is dated `bar_s` after its
    row's time; with None at the end of its bar, if the file has bars, otherwise at its time. Bars
    that end after `now_s` are left out. If the file has closes of the numeraire, all others are
    divided by them; otherwise closes count in the numeraire. Raises ConfigError as read_closes
    does, for closes in the future, for closes that are probably wrong (`jump_check`, by default
    without reference and recorded prices), and if nothing can be used.
    """
    jump_check = jump_check or JumpCheck()
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
    symbol_by_file_symbol = {
        file_symbol(name): config_symbol for name, config_symbol in config_symbols.items()
    }
    file_closes = read_closes(path, "prices import")
    names_in_file = {symbol_closes.symbol for symbol_closes in file_closes.series}
    if absent_names := [name for name in symbol_by_file_symbol if name not in names_in_file]:
        raise ConfigError(
            f"--as: {absent_names[0]!r} is not a symbol of {path.name}",
            f"its symbols are {', '.join(names_in_file)[:200]}",
        )
    remarks = list(file_closes.remarks)
    closes_by_symbol: dict[str, list[tuple[int, Fraction]]] = {}
    file_closes_by_symbol: dict[str, SymbolCloses] = {}
    skipped_symbols: list[str] = []
    for symbol_closes in file_closes.series:
        symbol = symbol_by_file_symbol.get(symbol_closes.symbol, symbol_closes.symbol)
        if symbol not in token_by_symbol:
            skipped_symbols.append(symbol_closes.symbol)
            continue
        if symbol in closes_by_symbol:
            raise ConfigError(
                f"--as: two symbols of the file get the name {symbol!r}",
                "give each symbol a different name",
            )
        dated_closes, date_remarks = _dated_closes(
            symbol_closes, symbol, path, bar_s, file_closes.has_bar_starts, now_s
        )
        remarks += date_remarks
        if dated_closes:
            closes_by_symbol[symbol] = dated_closes
            file_closes_by_symbol[symbol] = symbol_closes
    if not closes_by_symbol:
        raise ConfigError(
            f"{path.name}: holds no prices of {', '.join(token_by_symbol)}; its symbols are"
            f" {', '.join(skipped_symbols)[:200] or 'none'}",
            _naming_remedy(skipped_symbols, list(token_by_symbol)),
        )
    numeraire = portfolio.numeraire
    numeraire_closes = dict(closes_by_symbol.pop(numeraire.symbol, []))
    if numeraire_closes:
        numeraire_file_closes = file_closes_by_symbol[numeraire.symbol]
        remarks += jump_check.check(numeraire_file_closes, numeraire, numeraire, (), path.name)
    else:
        _require_currency(file_closes_by_symbol.values(), numeraire, path.name)
    price_series_list = []
    for symbol, dated_closes in closes_by_symbol.items():
        token = token_by_symbol[symbol]
        price_series, series_remarks = _series_in_numeraire(
            token, dated_closes, numeraire, numeraire_closes
        )
        price_series_list.append(price_series)
        remarks += series_remarks
        remarks += jump_check.check(
            file_closes_by_symbol[symbol], token, numeraire, price_series.points, path.name
        )
    if not price_series_list:
        raise ConfigError(
            f"{path.name}: has prices of {numeraire.label} alone, in which prices are recorded",
            _naming_remedy(
                skipped_symbols,
                [symbol for symbol in token_by_symbol if symbol != numeraire.symbol],
            )
            if skipped_symbols
            else "use a file with prices of other tokens",
        )
    if not any(price_series.points for price_series in price_series_list):
        raise ConfigError(
            f"{path.name}: no time has closes of both a token and {numeraire.label}",
            f"remove {numeraire.label} from the file",
        )
    unit_note = "by the file's closes of both" if numeraire_closes else "as given in the file"
    return PriceFile(
        tuple(price_series_list),
        tuple(skipped_symbols),
        f"{numeraire.label}, {unit_note}",
        tuple(remarks),
    )


def _require_currency(all_closes: Iterable[SymbolCloses], numeraire: Token, file_name: str) -> None:
    """Raise ConfigError for closes in another currency than the numeraire's."""
    for symbol_closes in all_closes:
        currency = symbol_closes.currency
        if not is_unit_of(numeraire.symbol, currency):
            raise ConfigError(
                f"{file_name}: {symbol_closes.symbol} has closes in {currency}, but prices are"
                f" recorded in {numeraire.label}",
                f"use closes in {numeraire.label}, or add those of {numeraire.label} in {currency}",
            )


def _series_in_numeraire(
    token: Token,
    dated_closes: Sequence[tuple[int, Fraction]],
    numeraire: Token,
    numeraire_closes: Mapping[int, Fraction],
) -> tuple[PriceSeries, list[FileRemark]]:
    """Return the hourly prices of a token, divided by the numeraire's closes if there are any, with
    remarks on closes that are left out.
    """
    remarks = []
    prices_in_numeraire = dated_closes
    if numeraire_closes:
        prices_in_numeraire = [
            (close_s, close / numeraire_closes[close_s])
            for close_s, close in dated_closes
            if close_s in numeraire_closes
        ]
    if undivided_count := len(dated_closes) - len(prices_in_numeraire):
        remarks.append(
            FileRemark(
                undivided_count,
                f"{undivided_count} closes of {token.label} left out: {numeraire.label} has none"
                " at their time",
            )
        )
    price_series = _price_series(token, prices_in_numeraire, len(dated_closes), numeraire.decimals)
    if gap_count := len(price_series.gaps):
        text = f"{token.label} has {pluralize(gap_count, 'gap')}, {gaps_text(price_series.gaps)}"
        remarks.append(FileRemark(gap_count, text))
    if earlier_count := len(prices_in_numeraire) - len(price_series.points):
        remarks.append(
            FileRemark(
                earlier_count,
                f"{earlier_count} closes of {token.label} left out: the last of each hour counts",
            )
        )
    return price_series, remarks


def _dated_closes(
    symbol_closes: SymbolCloses,
    symbol: str,
    path: Path,
    bar_s: int | None,
    has_bar_starts: bool,
    now_s: int,
) -> tuple[list[tuple[int, Fraction]], list[FileRemark]]:
    """Return (time, close) of a symbol, the time that of the close, with remarks on what is left
    out. Raises ConfigError for a row in the future, and for a single bar of unknown length.
    """
    remarks = []
    times_s = symbol_closes.times_s
    if bar_s is None and has_bar_starts:
        if len(times_s) == 1:
            raise ConfigError(
                f"{path.name}: {symbol} has a single bar, dated at its start, and its end is not"
                " known",
                "name its length: --bar 1d, for example",
            )
        bar_s = symbol_closes.interval_s
        remarks.append(
            FileRemark(
                len(times_s),
                f"{symbol} has bars of {format_duration(bar_s)}, dated at their start: closes count"
                " at their end (--bar 0s: at the times of the file)",
            )
        )
    elif bar_s and len(times_s) > 1 and bar_s > symbol_closes.interval_s:
        raise ConfigError(
            f"{path.name}: {symbol} has a close every {format_duration(symbol_closes.interval_s)}, and"
            f" --bar is {format_duration(bar_s)}",
            "correct --bar, or omit it",
        )
    dated_closes = [
        (time_s + (bar_s or 0), Fraction(close))
        for time_s, close in zip(times_s, symbol_closes.closes, strict=True)
    ]
    if times_s and times_s[-1] > now_s:
        raise ConfigError(
            f"{path.name}, row {symbol_closes.row_numbers[-1]}: {symbol} has a close in the future",
            "remove the row, or correct --bar",
        )
    ended_closes = [(close_s, close) for close_s, close in dated_closes if close_s <= now_s]
    if open_count := len(dated_closes) - len(ended_closes):
        bars_text = f"{open_count} bars of {symbol} have"
        if open_count == 1:
            bars_text = f"the last bar of {symbol} has"
        remarks.append(FileRemark(open_count, f"{bars_text} not ended: left out"))
    return ended_closes, remarks


def _naming_remedy(file_symbols: Sequence[str], config_symbols: Sequence[str]) -> str:
    """Return --as with the pairs of symbols that fit, or an example."""
    pairs = symbol_pairs(file_symbols, config_symbols)
    if not pairs and len(file_symbols) == 1:
        return f"name its symbol: --as {file_symbols[0]}={config_symbols[0]}, for example"
    return "name its symbols: --as " + (
        ",".join(f"{name}={symbol}" for name, symbol in pairs.items()) or "BTC=WBTC"
    )


def _median(ordered: Sequence[int]) -> int:
    return ordered[len(ordered) // 2]


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
    intervals = [
        (earlier_s, later_s - earlier_s) for (earlier_s, _), (later_s, _) in pairwise(dated_closes)
    ]
    median_interval_s = (
        _median(sorted(interval_s for _, interval_s in intervals)) if intervals else 0
    )
    gaps = [interval for interval in intervals if 2 * interval[1] > 3 * median_interval_s]
    return PriceSeries(
        token.symbol,
        tuple(points_by_hour.values()),
        row_count,
        median_interval_s,
        tuple(gaps),
    )


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


def _check_supplies(path: Path, sha256: str, portfolio: Portfolio) -> ImportedPricesDocument:
    """Return the document of a file of supplies, of which nothing is recorded. Raises
    ConfigError.
    """
    label_by_address = {asset.token.address: asset.token.label for asset in portfolio.assets}
    labels = [label_by_address[supply.token] for supply in read_supplies(path, portfolio)]
    return {
        "file": str(path),
        "unit": f"supplies of {', '.join(labels)}",
        "checked_only": True,
        "skipped": [],
        "remarks": [],
        "prices": [],
        "sha256": sha256,
    }


def import_prices(
    agent: Agent,
    path: Path,
    symbol_pair_texts: Sequence[str] = (),
    bar: str = "",
    check_only: bool = False,
    accepts_jumps: bool = False,
) -> ImportedPricesDocument:
    """Record a file's closes for hours without a price; with `check_only` only report them. If
    there is no file at this path, it is a name in [data]; supplies there are only checked.
    `symbol_pair_texts` are texts FILE=CONFIG, or several with commas, `bar` is the time from a row
    to its close; empty: see read_prices. `accepts_jumps` records closes that are probably wrong.
    Raises ConfigError.
    """
    config_symbols = {}
    sha256 = ""
    data_table = agent.context.config.data.get(str(path))
    if data_table is not None and not path.exists():
        published_prices = fetch_published_file(agent.context.loaded_config, str(path))
        path = published_prices.path
        sha256 = published_prices.sha256
        if data_table.kind == "supplies":
            return _check_supplies(path, sha256, agent.portfolio)
        config_symbols = dict(data_table.symbols)
        bar = bar or data_table.bar
    for symbol_pair in [
        pair_text for pairs_text in symbol_pair_texts for pair_text in pairs_text.split(",")
    ]:
        name_in_file, _, config_symbol = symbol_pair.partition("=")
        if not name_in_file or not config_symbol:
            raise ConfigError(
                f"--as: {symbol_pair!r} is not a pair of symbols",
                "write the file's and the config's: --as BTC=WBTC",
            )
        config_symbols[name_in_file] = config_symbol
    now_s = agent.context.clock.now_s()
    numeraire = agent.portfolio.numeraire.address
    price_file = read_prices(
        path,
        agent.portfolio,
        config_symbols,
        parse_duration_s(bar, "--bar") if bar else None,
        now_s,
        _jump_check_today(agent, now_s, accepts_jumps),
    )
    import_document: ImportedPricesDocument = {
        "file": str(path),
        "unit": price_file.unit,
        "checked_only": check_only,
        "skipped": list(price_file.skipped_symbols),
        "remarks": [{"count": remark.count, "text": remark.text} for remark in price_file.remarks],
        "prices": [],
        "sha256": sha256,
    }
    newest_s = max(series.points[-1].at_s for series in price_file.series if series.points)
    kept_after_s = agent.context.store.prices.kept_after_s(newest_s)
    for price_series in price_file.series:
        old_points = [point for point in price_series.points if point.at_s <= kept_after_s]
        if old_points:
            import_document["remarks"].append(_retention_remark(price_series.symbol, old_points))
        kept_points = price_series.points[len(old_points) :]
        new_hour_count = (
            0
            if check_only
            else agent.context.store.prices.record(numeraire, kept_points, IMPORT_SOURCE)
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
                "gaps": len(price_series.gaps),
                "longest_gap_s": max((gap_s for _, gap_s in price_series.gaps), default=0),
            }
        )
    import_document["remarks"] += _remarks_on_windows(agent, import_document["prices"], now_s)
    return import_document


def _retention_remark(symbol: str, old_points: Sequence[PricePoint]) -> FileRemarkDocument:
    first_text, last_text = (format_time(point.at_s) for point in (old_points[0], old_points[-1]))
    text = (
        f"{pluralize(len(old_points), 'price')} of {symbol} left out, {first_text} to {last_text}:"
        f" prices are kept for {RETENTION_S // DAY_S} days before the newest"
    )
    return {"count": len(old_points), "text": text}


def _remarks_on_windows(
    agent: Agent, price_documents: Sequence[ImportedSeriesDocument], now_s: int
) -> list[FileRemarkDocument]:
    """Return a remark if every close is older than the windows of the allocators."""
    allocators = [
        agent.portfolio.allocator,
        *(part.allocator for layer in agent.context.layers for part in layer.allocators),
    ]
    windows_s = [allocator.window_s for allocator in allocators if allocator and allocator.window_s]
    newest_s = max((document["until_s"] or 0 for document in price_documents), default=now_s)
    if not windows_s or newest_s > now_s - max(windows_s):
        return []
    text = (
        f"no choice of weights uses these prices: the newest is of {format_time(newest_s)}, the"
        f" window starts {format_time(now_s - max(windows_s))}"
    )
    return [{"count": len(price_documents), "text": text}]


def _jump_check_today(agent: Agent, now_s: int, accepts_jumps: bool) -> JumpCheck:
    """Return the check against the recorded prices, and the reference prices of the newest block or
    the reason why they cannot be read.
    """
    try:
        reference_by_token = reference_prices(agent.step_input()).price_by_token
        unread_reason = ""
    except TrimtabError as error:
        reference_by_token = {}
        unread_reason = error.message
    recorded_prices = {
        (point.token, point.at_s // HOUR_S): point.price
        for point in agent.context.store.prices.prices_between(
            agent.portfolio.numeraire.address, 0, now_s
        )
    }
    return JumpCheck(reference_by_token, now_s, accepts_jumps, unread_reason, recorded_prices)


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
            f"--back: {lookback_text!r} is not between an hour and {RETENTION_S // DAY_S} days",
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
