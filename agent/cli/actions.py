"""What a plan does with liquidity: as documents and as a table."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from agent.cli.output import cell
from agent.units import decimal_text

if TYPE_CHECKING:
    from agent.cli.tables import FigureTable
    from agent.model import LpAction, Portfolio

Document = dict[str, Any]


def document(action: LpAction, portfolio: Portfolio) -> Document:
    """One action. Amounts by symbol are base units as decimal strings, as the contracts move them at this block.

    `kind` is "withdraw", "collect" or "provide"; `min_raw`, `desired_raw`, `liquidity` and `ticks` are None where there are none.
    """
    symbols = [portfolio.token(address).label for address in (action.token0, action.token1)]

    def pair(name: str) -> dict[str, str] | None:
        raw = getattr(action, name, None)
        return None if raw is None else {symbol: str(amount) for symbol, amount in zip(symbols, raw, strict=True)}

    liquidity, ticks = getattr(action, "liquidity", None), getattr(action, "ticks", None)
    return {
        "kind": type(action).__name__.lower(),
        "position": action.name,
        "venue": action.venue,
        "contract": action.contract,
        "token_id": None if action.token_id is None else str(action.token_id),
        "pool": action.pool,
        "tokens": symbols,
        "liquidity": None if liquidity is None else str(liquidity),
        "ticks": None if ticks is None else list(ticks),
        "amounts_raw": pair("amounts_raw"),
        "desired_raw": pair("desired_raw"),
        "min_raw": pair("min_raw"),
        "fees_raw": pair("fees_raw"),
        "gas_units": action.gas_units,
        "reason": action.reason,
    }


def table(found: list[Document], decimals: dict[str, int]) -> FigureTable:
    """Each action with what it moves and the least that is accepted."""
    from agent.cli import tables

    made = tables.table("Liquidity, one transaction each", ("", "position", "token", "why"), ("amount", "at least", "fees"),
                        order=("", "position", "token", "amount", "at least", "fees", "why"))  # fmt: skip
    for item in found:
        for number, symbol in enumerate(item["tokens"]):
            first = number == 0
            made.add_row(
                cell(item["kind"] if first else ""),
                cell(item["position"] if first else ""),
                cell(symbol),
                *(_amount(item[name], symbol, decimals) for name in ("amounts_raw", "min_raw", "fees_raw")),
                cell(item["reason"] if first else ""),
            )
    return made


def _amount(raw: dict[str, str] | None, symbol: str, decimals: dict[str, int]) -> str:
    from agent.cli import tables

    return "" if raw is None else tables.brief(decimal_text(int(raw[symbol]), decimals[symbol]))
