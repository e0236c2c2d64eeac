"""How what was measured is written in a verdict: short text with its unit, never rounded to the safe side of a limit."""

from __future__ import annotations

from fractions import Fraction

from agent.units import BPS, Token, ceil_int, decimal_text, value_text

OFF = "off"


def bps(limit: int) -> str:
    """Limit in basis points: 100 -> "100 bps"."""
    return f"{limit} bps"


def ratio(share: Fraction) -> str:
    """Exact share as basis points, rounded up at two places, so that a breach never reads like the limit."""
    return f"{decimal_text(ceil_int(share * BPS * 100), 2)} bps"


def money(value: Fraction, numeraire: Token) -> str:
    """Value in numeraire base units as whole coins."""
    return f"{value_text(value, numeraire.decimals)} {numeraire.label}"


def gwei(wei: int) -> str:
    """Gas price."""
    return f"{decimal_text(wei, 9)} gwei"


def native(wei: int) -> str:
    """Amount of the native coin in whole coins."""
    return f"{decimal_text(wei, 18)} native"


def seconds(number: int) -> str:
    """Duration."""
    return f"{number} s"
