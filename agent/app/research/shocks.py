"""Price shocks of single assets, as entered with --shock."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from fractions import Fraction

from agent.errors import ConfigError
from agent.units import BPS, decimal_text, parse_share_with_unit_bps

OPTION = "--shock"
MAX_RISE_BPS = 1_000 * BPS
"""Largest rise, a thousandfold price."""


def parse_shocks(
    share_text_by_symbol: Mapping[str, str], known_symbols: Collection[str], option: str = OPTION
) -> dict[str, int]:
    """Return the change of each price in basis points, from texts such as "-50%". Raises ConfigError
    naming the `option` for a name that is not in `known_symbols`, and for a change without sign or
    unit.
    """
    shock_bps_by_symbol = {}
    for symbol, share_text in share_text_by_symbol.items():
        if symbol not in known_symbols:
            raise ConfigError(
                f"{option}: {symbol!r} is not an asset", f"choose from {', '.join(known_symbols)}"
            )
        shock_bps_by_symbol[symbol] = _parse_shock(share_text, f"{option} {symbol}")
    return shock_bps_by_symbol


def _parse_shock(share_text: str, field: str) -> int:
    sign = share_text[:1]
    magnitude_text = share_text[1:].strip()
    if sign not in ("-", "+") or not magnitude_text.endswith(("%", "bps")):
        raise ConfigError(
            f"{field}: {share_text!r} is not a change of the price",
            "write -50% for a fall, +50% for a rise",
        )
    magnitude_bps = parse_share_with_unit_bps(magnitude_text, field)
    if magnitude_bps == 0:
        raise ConfigError(f"{field}: {share_text!r} changes nothing", "omit it, or correct it")
    if sign == "-" and magnitude_bps >= BPS:
        raise ConfigError(
            f"{field}: {share_text!r} leaves no price", "write a fall of less than 100 %"
        )
    if magnitude_bps > MAX_RISE_BPS:
        raise ConfigError(
            f"{field}: {share_text!r} is more than a thousandfold price",
            f"write at most +{decimal_text(MAX_RISE_BPS, 2)}%",
        )
    return -magnitude_bps if sign == "-" else magnitude_bps


def price_factor(shock_bps_by_symbol: Mapping[str, int], symbol: str) -> Fraction:
    """Return the price of a symbol after the shocks over that before."""
    return 1 + Fraction(shock_bps_by_symbol.get(symbol, 0), BPS)
