"""Export of the margin account's events: fees, realised profit, funding, moves of collateral."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from fractions import Fraction

from agent.accounting import entries as accounts
from agent.accounting.export import CsvRow, ExportTable, TokenNames, format_utc
from agent.accounting.tax_lots import RateAt, identity_rate
from agent.model import Entry
from agent.units import Value, decimal_text, value_text


def futures_table(entries: Iterable[Entry], token_names: TokenNames) -> ExportTable:
    """Return one row per event of the margin account: fee and realised profit of each order, each
    settled funding payment, each move of collateral. Costs are negative.
    """
    columns = (
        "time",
        "block",
        "entry",
        "transaction",
        "event",
        "market",
        "symbol",
        "size",
        "notional",
        "amount",
        "value",
        "currency",
    )
    rows = [
        (
            format_utc(entry.chain_s),
            str(entry.block),
            entry.id,
            entry.tx_hash,
            *event_cells,
            token_names.numeraire.label,
        )
        for entry in entries
        for event_cells in futures_events(entry, token_names)
    ]
    return ExportTable("futures", columns, tuple(rows))


def futures_profit_by_year(
    entries: Iterable[Entry], rate_at: RateAt = identity_rate
) -> dict[str, Value]:
    """Return realised profit less settled funding by calendar year (UTC), in base units of the
    numeraire times `rate_at`: the sum of the export's rows of these two events. Events without a
    price do not count.
    """
    profit_by_year: dict[str, Value] = {}
    for entry in entries:
        futures_entry = entry.futures
        if (
            futures_entry is None
            or (quote_price := futures_entry.quote_price) is None
            or not (futures_entry.fills or futures_entry.funding)
        ):
            continue
        profit_raw = sum(fill.realised_raw for fill in futures_entry.fills)
        profit_raw -= sum(payment.paid_raw for payment in futures_entry.funding)
        year = format_utc(entry.chain_s)[:4]
        profit_value = profit_raw * quote_price * rate_at(entry.chain_s)
        profit_by_year[year] = profit_by_year.get(year, Fraction(0)) + profit_value
    return profit_by_year


def futures_events(entry: Entry, token_names: TokenNames) -> Iterator[CsvRow]:
    """Yield event, market, symbol, size, notional, amount and value of each event. The amount is in
    the venue's quote, and for a margin deposit or withdrawal in its token, whose label is the
    symbol.
    """
    futures_entry = entry.futures
    value_decimals = token_names.numeraire.decimals
    for posting in entry.postings:
        if posting.account == accounts.MARGIN:
            event_name = "margin deposit" if posting.raw > 0 else "margin withdrawal"
            amount_text = decimal_text(posting.raw, token_names.decimals(posting.token))
            value_cell = "" if posting.value is None else value_text(posting.value, value_decimals)
            yield (
                event_name,
                "",
                token_names.label(posting.token),
                "",
                "",
                amount_text,
                value_cell,
            )
    if futures_entry is None:
        return
    quote_price = futures_entry.quote_price
    quote_decimals = futures_entry.quote_decimals(token_names.decimals(futures_entry.collateral))

    def amount_cells(amount_raw: int) -> tuple[str, str]:
        value_cell = (
            "" if quote_price is None else value_text(amount_raw * quote_price, value_decimals)
        )
        return decimal_text(amount_raw, quote_decimals), value_cell

    for fill in futures_entry.fills:
        size_text = (
            "" if fill.size_decimals is None else decimal_text(fill.size_raw, fill.size_decimals)
        )
        notional_text = decimal_text(fill.notional_raw, quote_decimals)
        order_cells = (fill.market, fill.symbol, size_text, notional_text)
        yield ("trading fee", *order_cells, *amount_cells(-fill.fee_raw))
        if fill.realised_raw:
            yield ("realised profit", *order_cells, *amount_cells(fill.realised_raw))
    for payment in futures_entry.funding:
        yield ("funding", payment.market, payment.symbol, "", "", *amount_cells(-payment.paid_raw))
