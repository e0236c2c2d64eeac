"""Report page of a simulated futures book: value, leverage, margin in use and funding over time."""

from __future__ import annotations

from fractions import Fraction

import numpy as np

from agent.backtest.futures.simulate import DECIMALS, QUOTE, BookResult, FuturesResult
from agent.backtest.report.page import (
    DASHED,
    PERCENT_FORMAT,
    STRONG,
    PlotlyDict,
    ReportFact,
    ReportPage,
    ReportSection,
    ReportTable,
    format_date_range,
    format_day,
    format_money,
    format_percent,
    line_trace,
    short_name,
    time_chart,
    to_milliseconds,
    values_at,
)
from agent.backtest.report.series import Indices, downsample_indices
from agent.backtest.simulate import library_versions
from agent.floats import FloatArray
from agent.units import BPS, decimal_text, pluralize

MULTIPLE_FORMAT = ".2f"
COINS_FORMAT = ",.2f"
CHART_HEIGHT_PX = 280


def futures_page(futures_result: FuturesResult) -> ReportPage:
    """Return the page of a futures book alone."""
    agent_book = futures_result.agent_book
    held_book = futures_result.held_book
    symbol_names = " and ".join(short_name(symbol) for symbol in futures_result.path.symbols)
    return ReportPage(
        title=f"Futures on {symbol_names}",
        subtitle=f"Backtest, {format_date_range(futures_result.path.times_s[0], futures_result.path.times_s[-1])}",
        facts=(
            ReportFact(
                "Final value",
                _money(agent_book.final_value_raw),
                f"held: {_money(held_book.final_value_raw)}",
            ),
            ReportFact("Funding paid", _money(agent_book.profit.funding_raw)),
            ReportFact(
                "Liquidations",
                str(len(agent_book.liquidations)),
                _held_liquidations_text(held_book),
            ),
        ),
        sections=(futures_section(futures_result),),
        summary=(_summary(futures_result),),
        provenance_facts=(
            ReportFact("config", futures_result.config_hash),
            ReportFact("data", futures_result.path.digest),
            ReportFact("seed", str(futures_result.settings.seed)),
            *(ReportFact(name, version) for name, version in library_versions()),
        ),
    )


def futures_section(futures_result: FuturesResult) -> ReportSection:
    """Return charts of the book and the held book, and the profit of both by source."""
    limits = futures_result.settings.policy.limits
    agent_book = futures_result.agent_book
    held_book = futures_result.held_book
    chart_columns = [
        _without_infinities(series)
        for book in (agent_book, held_book)
        for series in (book.equity, book.leverage, book.utilisation, book.funding_paid)
    ]
    chart_rows = downsample_indices(chart_columns)
    times_ms = to_milliseconds(np.asarray(futures_result.path.times_s, dtype=np.int64), chart_rows)

    def chart(
        title: str,
        agent_series: FloatArray,
        held_series: FloatArray,
        number_format: str,
        limit: float = 0,
    ) -> PlotlyDict:
        traces = [
            line_trace(
                times_ms,
                _points(held_series, chart_rows),
                "held",
                "--c2",
                number_format=number_format,
            ),
            line_trace(
                times_ms,
                _points(agent_series, chart_rows),
                "agent",
                "--c1",
                style=STRONG,
                number_format=number_format,
            ),
        ]
        if limit:
            end_times = [times_ms[0], times_ms[-1]]
            traces.append(
                line_trace(
                    end_times,
                    [limit] * 2,
                    "limit",
                    "--bad",
                    style=DASHED,
                    number_format=number_format,
                )
            )
        unit = {PERCENT_FORMAT: "", COINS_FORMAT: QUOTE.symbol}.get(number_format, "×")
        return time_chart(traces, unit, number_format) | {
            "title": title,
            "says": f"{title} of the agent's book and the held book over time",
            "height": CHART_HEIGHT_PX,
        }

    charts = (
        chart("Value of the futures book", agent_book.equity, held_book.equity, COINS_FORMAT),
        chart(
            "Leverage",
            agent_book.leverage,
            held_book.leverage,
            MULTIPLE_FORMAT,
            agent_book.max_leverage,
        ),
        chart(
            "Margin in use",
            agent_book.utilisation,
            held_book.utilisation,
            PERCENT_FORMAT,
            limits.max_utilisation_bps / BPS,
        ),
        chart("Funding paid so far", agent_book.funding_paid, held_book.funding_paid, COINS_FORMAT),
    )
    paragraphs = (
        _summary(futures_result),
        "Held is the same book without the agent: it keeps its first positions. Leverage is gross"
        " notional over account value, margin in use initial margin over account value; both after"
        " a bar's fills. Gaps are bars without account value. Negative funding was received.",
    )
    tables = [_profit_table(futures_result)]
    if futures_result.hedges:
        tables.append(_hedge_table(futures_result))
    return ReportSection("Futures", paragraphs, charts, tuple(tables))


def _hedge_table(futures_result: FuturesResult) -> ReportTable:
    """Return a table of hedges: opening and closing times, reason for closing, and profit."""
    hedge_rows = tuple(
        (
            f"{hedge.symbol}, {format_day(hedge.opened_s)}",
            decimal_text(abs(hedge.initial_size_raw), DECIMALS),
            "open" if hedge.closed_s is None else format_day(hedge.closed_s),
            "unknown" if hedge.profit_raw is None else _money(hedge.profit_raw),
            hedge.close_reason,
        )
        for hedge in futures_result.hedges
    )
    column_names = ("hedge", "short", "closed", f"earned, {QUOTE.symbol}", "reason for closing")
    return ReportTable(
        column_names, hedge_rows, "Hedges, excluding funding; open hedges at the mark price"
    )


def _profit_table(futures_result: FuturesResult) -> ReportTable:
    books = (futures_result.agent_book, futures_result.held_book)
    deposits_raw = [_wallet_deposits_raw(futures_result, book) for book in books]
    deposit_rows = [("from the wallet", *map(_money, deposits_raw))] if any(deposits_raw) else []
    profit_rows: list[tuple[str, ...]] = [
        ("start value", *(_money(futures_result.settings.start_value_raw) for _ in books)),
        *deposit_rows,
        *(
            (label, *(_money(sign * getattr(book.profit, f"{profit_part}_raw")) for book in books))
            for label, profit_part, sign in (
                ("from price", "price_gain", 1),
                ("from slippage", "slippage", -1),
                ("from funding", "funding", -1),
                ("from fees", "fees", -1),
                ("from liquidation penalties", "penalties", -1),
                ("from the venue's insurance", "insured", 1),
            )
        ),
        ("final value", *(_money(book.final_value_raw) for book in books)),
    ]
    profit_rows += [
        (
            "bars above the leverage limit",
            *(str(book.bars_above_limit) for book in books),
        ),
        ("consecutive", *(str(book.longest_above_limit) for book in books)),
        ("orders filled", *(str(len(book.fills)) for book in books)),
        ("liquidations", *(str(len(book.liquidations)) for book in books)),
    ]
    return ReportTable(("what", "agent", "held"), tuple(profit_rows), f"in {QUOTE.symbol}")


def _summary(futures_result: FuturesResult) -> str:
    agent_book = futures_result.agent_book
    held_book = futures_result.held_book
    total_return = agent_book.profit.total_raw / futures_result.settings.start_value_raw
    deposits_raw = _wallet_deposits_raw(futures_result, agent_book)
    deposits_text = f" without {_money(deposits_raw)} from the wallet" if deposits_raw else ""
    return (
        f"The futures book ends at {_money(agent_book.final_value_raw)} {QUOTE.symbol}"
        f" ({format_percent(total_return, signed=True)}{deposits_text}); held without the agent, at"
        f" {_money(held_book.final_value_raw)}. The agent's book is"
        f" above its limit of {agent_book.max_leverage:g}x for at most"
        f" {pluralize(agent_book.longest_above_limit, 'bar')}"
        f" in a row, and liquidated {pluralize(len(agent_book.liquidations), 'time')};"
        f" {_held_liquidations_text(held_book)}."
    )


def _wallet_deposits_raw(futures_result: FuturesResult, book: BookResult) -> int:
    """Return what the book got from the wallet beside its own reserve, quote base units."""
    start_value_raw = futures_result.settings.start_value_raw
    return book.final_value_raw - start_value_raw - book.profit.total_raw


def _held_liquidations_text(book: BookResult) -> str:
    return f"the held book {pluralize(len(book.liquidations), 'time')}"


def _money(raw: int) -> str:
    return format_money(Fraction(raw), DECIMALS)


def _without_infinities(series: FloatArray) -> FloatArray:
    """Return the path with infinite values as gaps."""
    finite_series: FloatArray = np.where(np.isfinite(series), series, np.nan)
    return finite_series


def _points(series: FloatArray, chart_rows: Indices) -> list[float]:
    return values_at(_without_infinities(series), chart_rows)
