"""Numbers of price files: plain decimals, commas between thousands, and nothing that has two
readings.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from decimal import Decimal

from agent.errors import ConfigError

MAX_EXPONENT = 30
"""Largest absolute power of ten of a price."""
PLAIN_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]{1,3})?")
_GROUPED_NUMBER = re.compile(r"[1-9][0-9]{0,2}((?:,[0-9]{3})+)(\.[0-9]+)?")
_DECIMAL_COMMA = re.compile(r"[0-9]{1,3}(?:\.[0-9]{3})*,[0-9]+|[0-9]+,[0-9]+")
_MAYBE_GROUPED = re.compile(r"[1-9][0-9]{0,2}\.[0-9]{3}")
_WITH_UNIT = re.compile(r"(\D{1,3}) ?([0-9][0-9.,]*)|([0-9][0-9.,]*) ?(\D{1,4})")
EMPTY_WORDS = frozenset({"", "null", "none", "nan", "na", "n/a", "-"})
"""Cells that say that there is no number, in small letters."""


def cell_text(cell: object) -> str:
    """Return a cell as text; numbers exactly, and None as an empty text."""
    if cell is None:
        return ""
    return cell.strip() if isinstance(cell, str) else repr_number(cell)


def repr_number(cell: object) -> str:
    """Return the shortest text of a number that gives it back."""
    return repr(cell) if isinstance(cell, float) else str(cell)


def is_empty(cell: object) -> bool:
    """Return True if a cell says that there is no number."""
    return cell_text(cell).lower() in EMPTY_WORDS


def is_number(cell: object) -> bool:
    """Return True if a cell is a plain decimal, or one with commas."""
    text = cell_text(cell)
    return bool(
        PLAIN_NUMBER.fullmatch(text)
        or _GROUPED_NUMBER.fullmatch(text)
        or _DECIMAL_COMMA.fullmatch(text)
    )


def parse_prices(
    cells: Sequence[object],
    row_numbers: Sequence[int],
    row_text: Callable[[int], str],
    symbol: str,
) -> list[Decimal]:
    """Return the exact prices of a column, all above zero. Raises ConfigError for anything else,
    and for commas that may be decimal signs; `row_text` names a row in it.
    """
    prices: list[Decimal] = []
    unclear_row: int | None = None
    has_point = False
    for row_number, cell in zip(row_numbers, cells, strict=True):
        text = cell_text(cell)
        if "," in text:
            grouped = _GROUPED_NUMBER.fullmatch(text)
            if grouped is None:
                raise _comma_error(text, row_text(row_number))
            if len(grouped[1]) == len(",000") and grouped[2] is None:
                unclear_row = unclear_row or row_number
            else:
                has_point = True
            text = text.replace(",", "")
        elif not has_point:
            has_point = "." in text
        price = Decimal(text) if PLAIN_NUMBER.fullmatch(text) else None
        if price is None or price <= 0 or abs(price.adjusted()) > MAX_EXPONENT:
            raise _price_error(cell, row_text(row_number), symbol)
        prices.append(price)
    if unclear_row is not None and not has_point:
        unclear_text = cell_text(cells[list(row_numbers).index(unclear_row)])
        raise ConfigError(
            f"{row_text(unclear_row)}: {unclear_text!r} may be"
            f" {unclear_text.replace(',', '')} or {unclear_text.replace(',', '.')}",
            f"write {unclear_text.replace(',', '')} or {unclear_text.replace(',', '.')}, in all"
            " rows without commas",
        )
    return prices


def require_clear_points(
    cells: Sequence[object], row_numbers: Sequence[int], file_name: str
) -> None:
    """Raise ConfigError if each cell has one point before three digits: in countries that separate
    cells by semicolons, points stand between thousands.
    """
    if cells and all(_MAYBE_GROUPED.fullmatch(cell_text(cell)) for cell in cells):
        text = cell_text(cells[0])
        raise ConfigError(
            f"{file_name}, row {row_numbers[0]}: {text!r} may be {text.replace('.', '')} or"
            f" {text}0, and no row decides it",
            f"write {text.replace('.', '')} or {text}0 in row {row_numbers[0]}",
        )


def _comma_error(text: str, row_text: str) -> ConfigError:
    if _DECIMAL_COMMA.fullmatch(text):
        plain_text = text.replace(".", "").replace(",", ".")
        return ConfigError(
            f"{row_text}: {text[:40]!r} has a decimal comma",
            f"write {plain_text[:40]}: a point for decimals, no sign between thousands",
        )
    return ConfigError(
        f"{row_text}: {text[:40]!r} is not a price",
        _remedy_of_unit(text) or "write plain decimals such as 1850.25",
    )


def _remedy_of_unit(text: str) -> str:
    """Return how to write a price without its unit; empty if it has none, or no number."""
    united = _WITH_UNIT.fullmatch(text)
    if united is None:
        return ""
    number_text = united[2] or united[3]
    grouped = _GROUPED_NUMBER.fullmatch(number_text)
    if grouped is not None:
        plain_text = number_text.replace(",", "")
        if len(grouped[1]) == len(",000") and grouped[2] is None:
            plain_text += f" or {number_text.replace(',', '.')}"
    elif _DECIMAL_COMMA.fullmatch(number_text):
        plain_text = number_text.replace(".", "").replace(",", ".")
    elif PLAIN_NUMBER.fullmatch(number_text):
        plain_text = number_text
    else:
        return ""
    return f"write {plain_text}, without {(united[1] or united[4]).strip()!r}"


def _price_error(cell: object, row_text: str, symbol: str) -> ConfigError:
    text = cell_text(cell)
    message = f"{row_text}: {text[:40]!r} is not a price of {symbol}"
    remedy = "prices must be above zero: leave it out, or write a plain decimal such as 1850.25"
    if text.startswith("-"):
        remedy = "prices must be above zero; if these are returns, give the prices they are of"
    elif text.lstrip("+").lower() in ("inf", "infinity"):
        remedy = "prices must be finite: leave it out"
    elif remedy_of_unit := _remedy_of_unit(text):
        return ConfigError(message, remedy_of_unit)
    return ConfigError(message, f"{remedy}; if {symbol} is no asset, drop it")
