"""Exports of the ledger: CSV tables, and trades and events for rotki's generic import.

Sources: rotki's documentation, "rotki Generic Import" (docs.rotki.com, usage guide, import data),
and its importers rotkehlchen/data_import/importers/rotki_trades.py and rotki_events.py with
data_import/utils.py, of 21 August 2026. The importers read columns by name and turn an unknown
location into "external"; fee and fee currency may both be empty. They skip a trade with the
location, time, assets and amounts of an earlier one as a duplicate.
"""

from __future__ import annotations

import csv
import re
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from fractions import Fraction
from itertools import accumulate

from agent.accounting import entries as accounts
from agent.accounting.futures import CollateralRounding
from agent.accounting.tax_lots import RateAt, TaxLotRun, identity_rate
from agent.errors import ConfigError
from agent.model import Entry, Valuation
from agent.model.rollups import ARBITRUM_CHAINS, OP_STACK_CHAINS
from agent.units import (
    BPS,
    DAY_S,
    NATIVE,
    Token,
    decimal_text,
    floor_int,
    largest_remainder,
    value_text,
    whole_number,
    written_number,
)

TRADE_COLUMNS = (
    "Location",
    "Spend Currency",
    "Receive Currency",
    "Receive Amount",
    "Spend Amount",
    "Fee",
    "Fee Currency",
    "Description",
    "Timestamp",
)
EVENT_COLUMNS = (
    "Type",
    "Location",
    "Currency",
    "Amount",
    "Fee",
    "Fee Currency",
    "Description",
    "Timestamp",
)
TRADE_LOCATION = "uniswap"
TRANSFER_LOCATION = "blockchain"
"""rotki's locations of swaps, and of all other events."""
ETHER_CHAINS = frozenset({1, *OP_STACK_CHAINS, *ARBITRUM_CHAINS})
"""Chains whose native coin is ether, which rotki calls ETH."""
_EVENT_TYPES = {
    accounts.OPENING: ("Deposit", "Deposit"),
    accounts.DEPOSITS: ("Deposit", "Withdrawal"),
    accounts.WITHDRAWALS: ("Deposit", "Withdrawal"),
    accounts.UNEXPLAINED: ("Deposit", "Withdrawal"),
    accounts.GIFTS: ("Income", "Loss"),
    accounts.REBASES: ("Income", "Loss"),
    accounts.LP_INCOME: ("Income", "Loss"),
    accounts.LOSSES: ("Income", "Loss"),
    accounts.LP_LOSSES: ("Income", "Loss"),
}
"""rotki's event types by account, for increases and for decreases."""
CsvRow = tuple[str, ...]
DecimalsOf = Callable[[str], int]


class RotkiAssets:
    """Names of assets in rotki: CAIP-19 for tokens of an EVM chain, `native_name` for native
    coin.
    """

    def __init__(self, chain_id: int, native: str, decimals: DecimalsOf) -> None:
        self.chain_id = chain_id
        self.native_name = native
        self._decimals = decimals

    def name(self, token: str) -> str:
        """Return the name of a token, such as eip155:1/erc20:0x…, or of the native coin."""
        return self.native_name if token == NATIVE else f"eip155:{self.chain_id}/erc20:{token}"

    def amount(self, token: str, raw: int) -> str:
        """Return base units as a plain decimal of whole coins, without sign."""
        return decimal_text(abs(raw), 18 if token == NATIVE else self._decimals(token))


def rotki_trades(entries: Iterable[Entry], assets: RotkiAssets) -> Iterator[CsvRow]:
    """Yield one row per pair of exchanged tokens of an entry; the gas is the fee of the first row.

    Together with the dust in `rotki_events`, the rows sum exactly. Equal rows are spaced a
    millisecond apart, since rotki skips duplicates.
    """
    written_keys: set[CsvRow] = set()
    for entry in entries:
        gas_wei = _gas_wei(entry)
        for (spent_token, spent_raw), (received_token, received_raw) in _exchange_pairs(entry)[0]:
            fee_cells = (
                (assets.amount(NATIVE, gas_wei), assets.name(NATIVE)) if gas_wei else ("", "")
            )
            trade_cells = (
                assets.name(spent_token),
                assets.name(received_token),
                assets.amount(received_token, received_raw),
                assets.amount(spent_token, spent_raw),
            )
            at_ms = entry.chain_s * 1_000
            while (*trade_cells, str(at_ms)) in written_keys:
                at_ms += 1
            written_keys.add((*trade_cells, str(at_ms)))
            yield (TRADE_LOCATION, *trade_cells, *fee_cells, _description(entry), str(at_ms))
            gas_wei = 0


def rotki_events(entries: Iterable[Entry], assets: RotkiAssets) -> Iterator[CsvRow]:
    """Yield transfers, income, dust of exchanges, futures results, and gas outside exchanges. Moves
    into liquidity positions and margin are omitted, since both belong to the owner.
    """
    collateral_rounding = CollateralRounding()
    for entry in entries:
        exchange_pairs, dust_amounts = _exchange_pairs(entry)
        gas_wei = 0 if exchange_pairs else _gas_wei(entry)
        events = [
            (_EVENT_TYPES[posting.account][posting.raw > 0], posting.token, posting.raw)
            for posting in entry.postings
            if posting.account in _EVENT_TYPES and posting.raw
        ]
        events += [("Income" if raw > 0 else "Loss", token, raw) for token, raw in dust_amounts]
        events += [
            ("Income" if raw > 0 else "Loss", *futures_result)
            for futures_result in collateral_rounding.round_results(entry)
            if (raw := futures_result[1])
        ]
        for event_type, token, raw in events:
            fee_cells = (
                (assets.amount(NATIVE, gas_wei), assets.name(NATIVE)) if gas_wei else ("", "")
            )
            yield (
                event_type,
                TRANSFER_LOCATION,
                assets.name(token),
                assets.amount(token, raw),
                *fee_cells,
                _description(entry),
                _milliseconds(entry),
            )
            gas_wei = 0
        if gas_wei:
            yield (
                "Spend",
                TRANSFER_LOCATION,
                assets.name(NATIVE),
                assets.amount(NATIVE, gas_wei),
                "",
                "",
                _description(entry),
                _milliseconds(entry),
            )


TokenAmount = tuple[str, int]
"""A token and its base units."""


def _exchange_pairs(
    entry: Entry,
) -> tuple[list[tuple[TokenAmount, TokenAmount]], list[TokenAmount]]:
    """Return the exchange of an entry, split by value into pairs of amounts (spent, received), and
    the signed amounts without a counterpart.

    n spent and m received tokens make at most n + m - 1 pairs. A piece worth less than one base
    unit of its counterpart is merged with a second pair of its token, so that no row has an amount
    of zero.
    """
    net_raw_by_token: dict[str, int] = {}
    value_by_token: dict[str, Fraction] = {}
    for posting in entry.postings:
        token = posting.token
        posting_value = posting.value or Fraction(0)
        if posting.account in (accounts.TRADING, accounts.FEES):
            net_raw_by_token[token] = net_raw_by_token.get(token, 0) - posting.raw
            value_by_token[token] = value_by_token.get(token, Fraction(0)) - posting_value
    spent_amounts, received_amounts = (
        [(token, raw) for token, raw in net_raw_by_token.items() if raw * sign > 0]
        for sign in (-1, 1)
    )
    if not spent_amounts or not received_amounts:
        return [], [*spent_amounts, *received_amounts]
    pieces = list(_exchange_pieces(spent_amounts, received_amounts, value_by_token))
    amounts_by_pair = {
        (sold_token, bought_token): [raw_in, raw_out]
        for sold_token, bought_token, raw_in, raw_out in pieces
        if raw_in and raw_out
    }
    dust_amounts = []
    for sold_token, bought_token, raw_in, raw_out in pieces:
        if bool(raw_in) == bool(raw_out):
            continue
        side_index, token, raw = (0, sold_token, raw_in) if raw_in else (1, bought_token, raw_out)
        pair_amounts = next(
            (
                pair_amounts
                for token_pair, pair_amounts in amounts_by_pair.items()
                if token_pair[side_index] == token
            ),
            None,
        )
        if pair_amounts is None:
            dust_amounts.append((token, raw if side_index else -raw))
        else:
            pair_amounts[side_index] += raw
    return [
        ((sold_token, raw_in), (bought_token, raw_out))
        for (sold_token, bought_token), (raw_in, raw_out) in amounts_by_pair.items()
    ], dust_amounts


def _exchange_pieces(
    spent_amounts: list[TokenAmount],
    received_amounts: list[TokenAmount],
    value_by_token: dict[str, Fraction],
) -> Iterator[tuple[str, str, int, int]]:
    """Yield (token spent, token received, base units spent, base units received) of each piece;
    each side sums to its total.
    """
    ends_in, ends_out = (
        _segment_ends(side_amounts, value_by_token)
        for side_amounts in (spent_amounts, received_amounts)
    )
    index_in = index_out = used_in_raw = used_out_raw = 0
    while index_in < len(spent_amounts) and index_out < len(received_amounts):
        segment_end = min(ends_in[index_in], ends_out[index_out])
        raw_in = _raw_up_to(spent_amounts, ends_in, index_in, segment_end) - used_in_raw
        raw_out = _raw_up_to(received_amounts, ends_out, index_out, segment_end) - used_out_raw
        yield spent_amounts[index_in][0], received_amounts[index_out][0], raw_in, raw_out
        used_in_raw += raw_in
        used_out_raw += raw_out
        if segment_end == ends_in[index_in]:
            index_in += 1
            used_in_raw = 0
        if segment_end == ends_out[index_out]:
            index_out += 1
            used_out_raw = 0


def _segment_ends(
    token_amounts: list[TokenAmount], value_by_token: dict[str, Fraction]
) -> list[Fraction]:
    """Return the end of each token's segment of [0, 1], by value; equal segments if a price is
    missing.
    """
    segment_sizes = [abs(value_by_token[token]) for token, _ in token_amounts]
    if not all(segment_sizes):
        segment_sizes = [Fraction(1)] * len(token_amounts)
    segment_size_sum = sum(segment_sizes, Fraction(0))
    return [running_total / segment_size_sum for running_total in accumulate(segment_sizes)]


def _raw_up_to(
    token_amounts: list[TokenAmount],
    segment_ends: list[Fraction],
    token_index: int,
    segment_end: Fraction,
) -> int:
    """Return the base units of a token up to `segment_end`; all of them at the end of its
    segment.
    """
    raw = abs(token_amounts[token_index][1])
    if segment_end == segment_ends[token_index]:
        return raw
    segment_start = segment_ends[token_index - 1] if token_index else Fraction(0)
    return floor_int(
        raw * (segment_end - segment_start) / (segment_ends[token_index] - segment_start)
    )


def _gas_wei(entry: Entry) -> int:
    return sum(posting.raw for posting in entry.postings if posting.account == accounts.GAS)


def _description(entry: Entry) -> str:
    suffix = " by hand" if entry.by_hand else ""
    return f"trimtab {entry.kind.value}{suffix} {entry.tx_hash or entry.id}"


def _milliseconds(entry: Entry) -> str:
    return str(entry.chain_s * 1_000)


_NUMBER_PATTERN = re.compile(r"-?[0-9]+(\.[0-9]+)?")
_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r", "\n", "|", "%")


@dataclass(frozen=True, slots=True)
class ExportTable:
    """A table; each row has one cell per column."""

    name: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True, slots=True)
class TokenNames:
    """Names and decimals of tokens. Unknown tokens are shown by address and in base units."""

    tokens: dict[str, Token]
    numeraire: Token

    def label(self, token: str) -> str:
        """Return the symbol of a token, or its address."""
        if token == NATIVE:
            return "native"
        return self.tokens[token].label if token in self.tokens else token

    def decimals(self, token: str) -> int:
        """Return the decimals of a token; 18 for native coin."""
        if token == NATIVE:
            return 18
        return self.tokens[token].decimals if token in self.tokens else 0


def export_tables(
    entries: Sequence[Entry],
    tax_lot_run: TaxLotRun,
    valuations: Sequence[Valuation],
    token_names: TokenNames,
    currency: str,
) -> tuple[ExportTable, ...]:
    """Return all tables: ledger and values in the numeraire, disposals and lots in the reporting
    `currency`.
    """
    return (
        _ledger_table(entries, token_names),
        _disposals_table(tax_lot_run, token_names, currency),
        _lots_table(tax_lot_run, token_names, currency),
        _values_table(valuations, token_names),
    )


def escape_formula(cell_text: str) -> str:
    """Neutralise a cell so that no spreadsheet parses it as a formula (T17): strip control codes
    and prefix an apostrophe if needed.
    """
    plain_text = "".join(
        " " if ord(char) < 32 or 127 <= ord(char) < 160 else char for char in cell_text
    )
    if cell_text.startswith(_FORMULA_STARTS) and not _NUMBER_PATTERN.fullmatch(cell_text):
        return f"'{plain_text}"
    return plain_text


def format_utc(at_s: int) -> str:
    """Format a time as ISO 8601 in UTC."""
    return datetime.fromtimestamp(at_s, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _ledger_table(entries: Iterable[Entry], token_names: TokenNames) -> ExportTable:
    columns = (
        "time",
        "block",
        "entry",
        "kind",
        "by_hand",
        "transaction",
        "account",
        "token",
        "address",
        "amount",
        "raw",
        "value",
        "currency",
        "note",
    )
    rows = [
        (
            format_utc(entry.chain_s),
            str(entry.block),
            entry.id,
            entry.kind.value,
            str(entry.by_hand).lower(),
            entry.tx_hash,
            posting.account,
            token_names.label(posting.token),
            posting.token,
            decimal_text(posting.raw, token_names.decimals(posting.token)),
            str(posting.raw),
            ""
            if posting.value is None
            else value_text(posting.value, token_names.numeraire.decimals),
            token_names.numeraire.label,
            entry.note,
        )
        for entry in entries
        for posting in entry.postings
    ]
    return ExportTable("ledger", columns, tuple(rows))


def _disposals_table(tax_lot_run: TaxLotRun, token_names: TokenNames, currency: str) -> ExportTable:
    columns = (
        "time",
        "entry",
        "by_hand",
        "token",
        "address",
        "amount",
        "proceeds",
        "cost",
        "gain",
        "currency",
        "acquired",
        "held_days",
    )
    value_decimals = token_names.numeraire.decimals
    rows = [
        (
            format_utc(disposal.disposed_s),
            disposal.entry_id,
            str(disposal.by_hand).lower(),
            token_names.label(disposal.token),
            disposal.token,
            decimal_text(disposal.raw, token_names.decimals(disposal.token)),
            value_text(disposal.proceeds, value_decimals),
            value_text(disposal.cost, value_decimals),
            value_text(disposal.gain, value_decimals),
            currency,
            "" if disposal.acquired_s is None else format_utc(disposal.acquired_s),
            "" if disposal.held_s is None else str(disposal.held_s // DAY_S),
        )
        for disposal in tax_lot_run.disposals
    ]
    return ExportTable("disposals", columns, tuple(rows))


def _lots_table(tax_lot_run: TaxLotRun, token_names: TokenNames, currency: str) -> ExportTable:
    columns = ("acquired", "token", "address", "amount", "cost", "currency")
    rows = [
        (
            format_utc(lot.acquired_s),
            token_names.label(lot.token),
            lot.token,
            decimal_text(lot.raw, token_names.decimals(lot.token)),
            value_text(lot.cost, token_names.numeraire.decimals),
            currency,
        )
        for lot in tax_lot_run.open_lots()
    ]
    return ExportTable("lots", columns, tuple(rows))


def _values_table(valuations: Sequence[Valuation], token_names: TokenNames) -> ExportTable:
    """Return one row per valuation and token; with a margin account also the column `in_margin`."""
    has_margin = any(valuation.collateral is not None for valuation in valuations)
    columns = (
        "time",
        "block",
        "total",
        "token",
        "address",
        "in_wallet",
        "in_positions",
        *(("in_margin",) if has_margin else ()),
        "reserved",
        "value",
        "currency",
        "weight_bps",
    )
    value_decimals = token_names.numeraire.decimals
    rows = []
    for valuation in valuations:
        weight_bps_by_token = weights_bps(valuation)
        for holding in valuation.holdings:
            decimals = token_names.decimals(holding.token)
            rows.append(
                (
                    format_utc(valuation.chain_s),
                    str(valuation.block),
                    value_text(valuation.managed_value, value_decimals),
                    token_names.label(holding.token),
                    holding.token,
                    decimal_text(holding.wallet_raw, decimals),
                    decimal_text(holding.outside_raw, decimals),
                    *((decimal_text(holding.margin_raw, decimals),) if has_margin else ()),
                    decimal_text(holding.reserved_raw, decimals),
                    value_text(holding.total_raw * holding.price, value_decimals),
                    token_names.numeraire.label,
                    str(weight_bps_by_token.get(holding.token, 0)),
                )
            )
    return ExportTable("values", columns, tuple(rows))


def weights_bps(valuation: Valuation) -> dict[str, int]:
    """Return each token's weight in bps, as the step judged it; empty if nothing has a weight."""
    managed_holdings = [holding for holding in valuation.holdings if not holding.is_gas_money]
    holding_values = [holding.raw_in_weights * holding.price for holding in managed_holdings]
    if not any(holding_values):
        return {}
    return dict(
        zip(
            (holding.token for holding in managed_holdings),
            largest_remainder(holding_values, BPS),
            strict=True,
        )
    )


MAX_RATE_LINES = 1_000_000
"""Maximum number of lines of a rate table."""
MIN_UNIX_S = 1_000_000_000
"""Smaller numbers are rejected as Unix seconds: 20260131 is a date."""


@dataclass(frozen=True, slots=True)
class RateTable:
    """Reporting units per numeraire unit over time. Each rate is valid from its time until the
    next; `name` appears in errors.
    """

    name: str
    times_s: tuple[int, ...]
    rates: tuple[Fraction, ...]

    def at(self, at_s: int) -> Fraction:
        """Return the last rate at or before a chain time. Raises ConfigError before the first."""
        earlier_count = bisect_right(self.times_s, at_s)
        if earlier_count == 0:
            day = datetime.fromtimestamp(at_s, UTC).strftime("%Y-%m-%d")
            raise ConfigError(
                f"{self.name}: no rate at or before {day}", "add earlier lines: time,rate"
            )
        return self.rates[earlier_count - 1]

    def age_s(self, at_s: int) -> int:
        """Return the rate's age at a chain time, in seconds. Raises ConfigError as `at` does."""
        self.at(at_s)
        return at_s - self.times_s[bisect_right(self.times_s, at_s) - 1]


def rate_lookup(rate_table: RateTable | None) -> RateAt:
    """Return the rates of a table; 1 without one."""
    return identity_rate if rate_table is None else rate_table.at


def parse_rates(table_name: str, lines: Iterable[str]) -> RateTable:
    """Parse lines of `time,rate` after the header `time,rate`. Times are UTC dates, ISO times or
    Unix seconds. Raises ConfigError with the line number.
    """
    timed_rates: list[tuple[int, Fraction]] = []
    for line_number, line in enumerate(lines, 1):
        if line_number > MAX_RATE_LINES:
            raise ConfigError(
                f"{table_name}: more than {MAX_RATE_LINES:,} lines",
                "write one rate a day, or fewer",
            )
        cells = _split_cells(line)
        if (line_number == 1 and cells == ["time", "rate"]) or not any(cells):
            continue
        if line_number == 1 or len(cells) != 2:
            raise ConfigError(
                f"{table_name}: line {line_number} is not time,rate",
                "write a header line time,rate and then lines such as 2026-01-31,0.92",
            )
        timed_rates.append(
            (
                _parse_time(table_name, line_number, cells[0]),
                _parse_rate(table_name, line_number, cells[1]),
            )
        )
        if len(timed_rates) > 1 and timed_rates[-1][0] <= timed_rates[-2][0]:
            raise ConfigError(
                f"{table_name}: line {line_number} is not later than the previous line",
                "sort the table by time, one line per time",
            )
    if not timed_rates:
        raise ConfigError(
            f"{table_name}: the table is empty",
            "write lines such as 2026-01-31,0.92 after the header time,rate",
        )
    return RateTable(
        table_name, tuple(at_s for at_s, _ in timed_rates), tuple(rate for _, rate in timed_rates)
    )


def _split_cells(line: str) -> list[str]:
    """Return the cells of a line of CSV; the line as one cell if it is none."""
    try:
        cells = next(csv.reader([line.strip().lstrip("\ufeff")]), [])
    except csv.Error:
        return [line]
    return [cell.strip() for cell in cells]


def _parse_time(table_name: str, line_number: int, time_text: str) -> int:
    unix_s = whole_number(time_text)
    if unix_s is not None and len(time_text) <= 11 and unix_s >= MIN_UNIX_S:
        return unix_s
    try:
        parsed_time = datetime.fromisoformat(time_text)
    except ValueError:
        raise ConfigError(
            f"{table_name}: line {line_number}: {time_text[:40]!r} is not a time",
            "write 2026-01-31, 2026-01-31T12:00:00Z or Unix seconds",
        ) from None
    return int((parsed_time if parsed_time.tzinfo else parsed_time.replace(tzinfo=UTC)).timestamp())


def _parse_rate(table_name: str, line_number: int, rate_text: str) -> Fraction:
    try:
        rate = written_number(rate_text)
    except ValueError:
        rate = Fraction(0)
    if not Fraction(1, 10**30) <= rate < 10**31 or len(rate_text) > 40:
        raise ConfigError(
            f"{table_name}: line {line_number}: {rate_text[:40]!r} is not a rate above zero",
            "write reporting units per numeraire coin, such as 0.92",
        )
    return rate
