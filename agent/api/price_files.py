"""Closing prices from a CSV or Parquet file: which of its rows are prices of our tokens, each mistake named with its row."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from fractions import Fraction
from importlib import import_module
from itertools import pairwise
from pathlib import Path
from typing import Any

from agent.backtest.unreadable import why_unreadable
from agent.errors import ConfigError
from agent.model import Portfolio, PricePoint
from agent.store.prices import HOUR_S

COLUMNS = ("time", "symbol", "close")
_EPOCH_S = 1_230_768_000
"""2009-01-01: no price of any coin is older, so that times in milliseconds, or of spreadsheets, are noticed."""
LARGEST = 30
"""Powers of ten that a price has at most, either way."""


@dataclass(frozen=True, slots=True)
class Series:
    """What a file holds of one token: prices per hour, oldest first, the usual distance of its rows, and its gaps."""

    symbol: str
    points: tuple[PricePoint, ...]
    rows: int
    interval_s: int
    gaps: int
    longest_gap_s: int


@dataclass(frozen=True, slots=True)
class PriceFile:
    """All of it; `skipped` are symbols of others, `unit` says what closes are counted in."""

    series: tuple[Series, ...]
    skipped: tuple[str, ...]
    unit: str


def read_prices(path: Path, portfolio: Portfolio, names: Mapping[str, str], bar_s: int, now_s: int) -> PriceFile:
    """Prices of the portfolio's tokens in its numeraire. `names` are symbols of the file with those of the config.

    A row's close holds `bar_s` after its time. Where the file has the numeraire's own closes, all others are divided by them;
    else they are taken to be in the numeraire. Raises ConfigError for missing columns and packages, for times that go back or come
    twice, and for closes that are no price.
    """
    ours = {asset.token.symbol: asset.token for asset in portfolio.assets} | {hub.symbol: hub for hub in portfolio.hubs}
    strange = [name for name in names.values() if name not in ours]
    if strange:
        raise ConfigError(f"--as: {strange[0]!r} is no token of the config", f"choose from {', '.join(ours)}")
    closes: dict[str, dict[int, tuple[int, Fraction]]] = {}
    skipped: dict[str, None] = {}
    for number, (when, told, close) in enumerate(_rows(path), 1):
        symbol = names.get(str(told), str(told))
        if symbol not in ours:
            skipped[str(told)] = None
            continue
        at_s = _time(when, path, number) + bar_s
        if at_s > now_s:
            raise ConfigError(f"{path.name}, row {number}: {symbol} has a close of the future", "remove it, or see --bar")
        before = closes.setdefault(symbol, {})
        newest_s = next(reversed(before.values()))[0] if before else 0
        if at_s <= newest_s:
            word = "twice" if at_s == newest_s else "after a later one"
            raise ConfigError(f"{path.name}, row {number}: {symbol} has that time {word}", "sort the file by time, each time once")
        before[number] = (at_s, _close(close, path, number))
    if not closes:
        raise ConfigError(f"{path.name}: holds no prices of {', '.join(ours)}", "name its symbols: --as BTC=WBTC")
    numeraire = portfolio.numeraire
    own = dict(closes.pop(numeraire.symbol, {}).values())
    unit = f"{numeraire.label}, by the file's closes of both" if own else f"{numeraire.label}, as the file has it"
    found = []
    for symbol, rows in closes.items():
        in_unit = [(at_s, close / own[at_s] if own else close) for at_s, close in rows.values() if not own or at_s in own]
        found.append(_series(symbol, ours[symbol].address, in_unit, len(rows), ours[symbol].decimals, numeraire.decimals))
    if not any(series.points for series in found):
        raise ConfigError(
            f"{path.name}: no time has closes of both a token and {numeraire.label}", f"take {numeraire.label} out of the file"
        )
    return PriceFile(tuple(found), tuple(skipped), unit)


def _series(symbol: str, address: str, closes: Sequence[tuple[int, Fraction]], rows: int, decimals: int, numeraire_decimals: int) -> Series:
    scale = Fraction(10) ** (numeraire_decimals - decimals)
    hours = {at_s // HOUR_S: PricePoint(address, at_s, close * scale) for at_s, close in closes}
    steps = sorted(b - a for (a, _), (b, _) in pairwise(closes))
    usual_s = steps[len(steps) // 2] if steps else 0
    wide = [step for step in steps if 2 * step > 3 * usual_s]
    return Series(symbol, tuple(hours.values()), rows, usual_s, len(wide), max(wide, default=0))


def _rows(path: Path) -> Iterator[tuple[object, object, object]]:
    """(time, symbol, close) of each row. Raises ConfigError where the file cannot be read as a table with these columns."""
    try:
        polars: Any = import_module("polars")
    except ModuleNotFoundError:
        raise ConfigError("prices import: polars is not installed", "pip install 'trimtab[analysis]'") from None
    if not path.is_file():
        raise ConfigError(f"{path}: no such file", "name a CSV or Parquet file with the columns time, symbol, close")
    try:
        if path.suffix.lower() in (".parquet", ".pq"):
            table = polars.read_parquet(path)
        else:
            table = polars.read_csv(path, infer_schema_length=0)
    except (Exception, polars.exceptions.PanicException):  # no common base for what a broken file makes it raise
        raise ConfigError(f"{path.name} {why_unreadable(path)}", "write CSV or Parquet") from None
    missing = [name for name in COLUMNS if name not in table.columns]
    if missing:
        raise ConfigError(f"{path.name}: has no column {missing[0]!r}", f"it needs {', '.join(COLUMNS)}")
    return iter(table.select(COLUMNS).iter_rows())


def _time(value: object, path: Path, number: int) -> int:
    """Unix seconds of an ISO time (UTC unless it says another zone), a number of seconds, or a time of Parquet."""
    found: float | None = None
    try:
        if isinstance(value, datetime):
            found = (value if value.tzinfo else value.replace(tzinfo=UTC)).timestamp()
        elif isinstance(value, int | float):
            found = float(value)
        elif isinstance(value, str):
            plain = value.strip()
            told = None if plain.replace(".", "", 1).isdigit() else datetime.fromisoformat(plain)
            found = float(plain) if told is None else (told if told.tzinfo else told.replace(tzinfo=UTC)).timestamp()
    except ValueError:
        found = None
    if found is None or not _EPOCH_S <= found < 10 * _EPOCH_S:
        raise ConfigError(f"{path.name}, row {number}: {str(value)[:40]!r} is no time", "write 2026-11-01T00:00:00Z, or unix seconds")
    return int(found)


def _close(value: object, path: Path, number: int) -> Fraction:
    """An exact price above zero."""
    text = value.strip() if isinstance(value, str) else repr(value)
    try:
        found = Decimal(text) if isinstance(value, str | int | float) else None
    except InvalidOperation:
        found = None
    if found is None or not found.is_finite() or found <= 0 or abs(found.adjusted()) > LARGEST:
        raise ConfigError(f"{path.name}, row {number}: {str(value)[:40]!r} is no price", "remove the row: a price is above zero")
    return Fraction(found)
