"""Closes of a table that are probably wrong, the table without them, and how they change a result."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from agent.backtest.data import PriceTable, columns_by_token
from agent.backtest.settings import BacktestSpec, SimulationSettings
from agent.errors import ConfigError
from agent.price_files.jumps import find_jumps
from agent.units import minute_text, pluralize

MAX_NAMED = 5
"""Suspect closes that a note names."""


@dataclass(frozen=True, slots=True)
class SuspectClose:
    """A close that is probably wrong, with its neighbours; None at the ends of the prices."""

    bar: int
    column: int
    symbol: str
    time_s: int
    close: float
    before: float | None
    after: float | None

    @property
    def text(self) -> str:
        """Return symbol, time, close and neighbours."""
        neighbours = [
            f"{word} {price:.8g}"
            for word, price in (("after", self.before), ("before", self.after))
            if price is not None
        ]
        return (
            f"{self.symbol} is {self.close:.8g} at"
            f" {minute_text(self.time_s)}, {' and '.join(neighbours)}"
        )


def suspect_closes(table: PriceTable, spec: BacktestSpec | None = None) -> tuple[SuspectClose, ...]:
    """Return the closes that are probably wrong, by symbol and time; with `spec` only those of its
    symbols.
    """
    columns = set(range(len(table.symbols)))
    if spec is not None:
        columns &= set(columns_by_token(spec, table).values())
    suspects = []
    for column in sorted(columns):
        bars = np.flatnonzero(~np.isnan(table.closes[:, column]))
        closes = table.closes[bars, column].tolist()
        for jump in find_jumps(closes):
            before = closes[jump.start - 1] if jump.start > 0 else None
            after = closes[jump.end] if jump.end < len(closes) else None
            suspects += [
                SuspectClose(
                    int(bars[index]),
                    column,
                    table.symbols[column],
                    int(table.times_s[bars[index]]),
                    closes[index],
                    before,
                    after,
                )
                for index in range(jump.start, jump.end)
            ]
    return tuple(suspects)


def without_closes(table: PriceTable, suspects: Sequence[SuspectClose]) -> PriceTable:
    """Return the table with the suspect closes missing."""
    closes = table.closes.copy()
    for suspect in suspects:
        closes[suspect.bar, suspect.column] = np.nan
    return replace(table, closes=closes)


def settings_of_last_bars(settings: SimulationSettings, bar_count: int) -> SimulationSettings:
    """Return the settings for the last `bar_count` bars."""
    if isinstance(settings.gas_price_wei, int):
        return settings
    return replace(settings, gas_price_wei=tuple(settings.gas_price_wei)[-bar_count:])


def suspect_note(suspects: Sequence[SuspectClose]) -> str:
    """Return a sentence that names the suspect closes; the first MAX_NAMED of many."""
    named_text = "; ".join(suspect.text for suspect in suspects[:MAX_NAMED])
    more_count = len(suspects) - MAX_NAMED
    are_text = "is" if len(suspects) == 1 else "are"
    return (
        f"{pluralize(len(suspects), 'close')} {are_text} probably wrong: {named_text}"
        f"{f'; and {more_count} more' if more_count > 0 else ''}"
    )


def note_without_suspects(suspects: Sequence[SuspectClose], change_text: Callable[[], str]) -> str:
    """Return a note that names the suspect closes, with the text of what changes without them, or
    the reason why there is no result without them.
    """
    try:
        text = change_text()
    except ConfigError as error:
        text = f"There is no result without them: {error.message}"
    return f"{suspect_note(suspects)}. {text}"


def with_suspect_note(table: PriceTable, spec: BacktestSpec | None = None) -> PriceTable:
    """Return the table with a note on closes that are probably wrong, if there are any."""
    if not (suspects := suspect_closes(table, spec)):
        return table
    note = f"{suspect_note(suspects)}. Correct or remove them, and run again"
    return replace(table, notes=(note, *table.notes))
