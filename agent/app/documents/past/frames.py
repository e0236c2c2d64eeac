"""The history of an agent as frames of polars, for Python and notebooks."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Any

from agent.price_files.frames import load_polars
from agent.units import BPS

if TYPE_CHECKING:
    from agent.app.documents.records import HistoryDocument

COST_FIELDS = ("fees", "impact", "gas", "total")


class AgentHistory:
    """The newest steps of an agent, newest first. `document` is that of `trimtab history --json`."""

    def __init__(self, document: HistoryDocument) -> None:
        self.document = document

    def __repr__(self) -> str:
        steps = self.document["steps"]
        if not steps:
            return "AgentHistory(0 steps)"
        newest = steps[0]
        return f"AgentHistory({len(steps)} steps, newest {newest['time']}: {newest['outcome']})"

    def __dir__(self) -> list[str]:
        """Return the public names, for completion."""
        return [name for name in super().__dir__() if not name.startswith("_")]

    def frame(self) -> Any:
        """Return a polars frame with a row for each step: time, step, decision, outcome, reason, the
        number of transactions, and fees, impact, gas and total of its costs in the numeraire, null
        without a trade.
        """
        polars = load_polars()
        steps = self.document["steps"]
        columns: dict[str, Any] = {"time": _times(polars, [step["time"] for step in steps])}
        for name in ("step", "decision", "outcome", "reason"):
            texts = [str(dict(step)[name]) for step in steps]
            columns[name] = polars.Series(texts, dtype=polars.String)
        transaction_counts = [len(step["transactions"]) for step in steps]
        columns["transactions"] = polars.Series(transaction_counts, dtype=polars.Int64)
        costs = [step["cost"] for step in steps]
        for name in COST_FIELDS:
            amounts = [None if cost is None else float(str(dict(cost)[name])) for cost in costs]
            columns[name] = polars.Series(amounts, dtype=polars.Float64)
        return polars.DataFrame(columns)

    @property
    def values(self) -> Any:
        """A polars frame with a row for each recorded valuation, newest first: time, block, value in
        the numeraire, and the share of each symbol.
        """
        polars = load_polars()
        valuations = self.document["values"]
        symbols = dict.fromkeys(
            symbol for valuation in valuations for symbol in valuation["weights_bps"]
        )
        shares = {
            symbol: [valuation["weights_bps"].get(symbol, 0) / BPS for valuation in valuations]
            for symbol in symbols
        }
        amounts = [float(valuation["value"]) for valuation in valuations]
        return polars.DataFrame(
            {
                "time": _times(polars, [valuation["time"] for valuation in valuations]),
                "block": polars.Series(
                    [valuation["block"] for valuation in valuations], dtype=polars.Int64
                ),
                "value": polars.Series(amounts, dtype=polars.Float64),
                **shares,
            }
        )

    def _repr_html_(self) -> str:
        """Return the table of steps for a notebook."""
        return f"<div><p>{escape(repr(self))}</p>{self.frame()._repr_html_()}</div>"


def _times(polars: Any, texts: list[str]) -> Any:
    return polars.Series(texts, dtype=polars.String).str.to_datetime(time_zone="UTC")
