"""Where the tokens of a portfolio stand in a price table, and what they cost in the numeraire."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from agent.backtest.table import PriceTable
from agent.backtest.wanted import Wanted
from agent.units import Token


def columns_of(wanted: Wanted, table: PriceTable) -> dict[str, int]:
    """The table's column of each token, by address; the numeraire has none where closes are in it."""
    return {address: table.symbols.index(symbol) for address, symbol in wanted.symbols if symbol in table.symbols}


def only_wanted(wanted: Wanted, table: PriceTable) -> PriceTable:
    """The table of the portfolio's symbols alone; see PriceTable.only. The numeraire may be missing. Raises ConfigError."""
    money = wanted.portfolio.numeraire.address
    return table.only([symbol for address, symbol in wanted.symbols if symbol in table.symbols or address != money])


def prices_of(wanted: Wanted, table: PriceTable, closes: NDArray[np.float64], tokens: Sequence[Token]) -> NDArray[np.float64]:
    """One column of prices in whole coins of the numeraire for each token, from closes in the table's order; NaN where there is none."""
    columns, ones = columns_of(wanted, table), np.ones(len(closes))
    each = {address: closes[:, column] for address, column in columns.items()}
    found: NDArray[np.float64] = np.column_stack([each.get(token.address, ones) for token in tokens])
    return found / each.get(wanted.portfolio.numeraire.address, ones)[:, None]


def priced_gas(wanted: Wanted, table: PriceTable) -> bool:
    """Whether it was said what the native coin is, and that is an asset or hub with prices."""
    return wanted.gas_priced and wanted.portfolio.wrapped_native in columns_of(wanted, table)
