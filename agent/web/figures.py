"""Figures of documents as HTML: the exact value and its path in the documents are kept beside the
formatted text, so that each can be compared with the command's JSON.
"""

from __future__ import annotations

import math
from typing import Any

from agent.units import decimal_text
from agent.web.reading import Documents

MINUS = "−"
NONE = "–"
PLACES = 6


def at(documents: Documents, path: str) -> Any:
    """Return the value at a path such as `status.holdings.0.value`."""
    found: Any = documents
    for name in path.split("."):
        found = found[int(name)] if isinstance(found, list) else found[name]
    return found


def format_figure(value: Any, form: str) -> str:
    """Format a value: `money` and `amount` of a decimal string, `percent` of bps, `ratio` of a share,
    `number`, `text`, `coins:6` of base units with 6 decimals. With a `+` at the end a positive value
    has its sign.
    """
    if value is None:
        return NONE
    kind, signed = form.removesuffix("+"), form.endswith("+")
    if kind == "text":
        return str(value)
    if kind.startswith("coins:"):
        return _decimal(decimal_text(int(value), int(kind.removeprefix("coins:"))), "amount")
    if kind in ("percent", "ratio"):
        share = float(value) / (100 if kind == "percent" else 0.01)
        if not math.isfinite(share):
            return NONE
        text = f"{abs(share):,.2f} %"
        negative = share < 0
    else:
        text = _decimal(str(value).lstrip("-"), kind)
        negative = str(value).startswith("-")
    if not any(digit in "123456789" for digit in text):
        return text
    return MINUS + text if negative else "+" + text if signed else text


def sign_class(value: Any) -> str:
    """Return the style of a profit or loss: "up", "down", or nothing for zero and None."""
    if value is None or float(value) == 0:
        return ""
    return "up" if float(value) > 0 else "down"


def _decimal(text: str, kind: str) -> str:
    """Format a positive decimal string with thousands separators, cut and never rounded."""
    whole, _, part = text.partition(".")
    if kind == "number":
        return f"{int(whole or 0):,}" + (f".{part}" if part else "")
    if kind == "money":
        return f"{int(whole or 0):,}.{part[:2]:0<2}"
    leading = len(whole) if int(whole or 0) else -(len(part) - len(part.lstrip("0")))
    cut = part[: max(2, PLACES - leading)].rstrip("0")
    return f"{int(whole or 0):,}" + (f".{cut}" if cut else "")
