"""The futures of `whatif` after price shocks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from fractions import Fraction

from agent.app.positions.futures import COIN_RAW, FuturesOptions, parse_signed
from agent.app.research.shocks import OPTION, price_factor
from agent.app.research.whatif import VALUE_PLACES
from agent.config.tables.fields import parse_pairs
from agent.errors import ConfigError
from agent.units import decimal_text, parse_raw, value_text


def shocked_futures(
    options: FuturesOptions, shock_bps_by_symbol: Mapping[str, int], spot_value: Fraction
) -> FuturesOptions:
    """Return the options with notionals, prices and margin after the shocks. `spot_value` is the
    value of the spot portfolio after them, the margin where none is given. Raises ConfigError if the
    positions lose the whole margin.
    """
    notional_raw_by_symbol = {
        symbol: int(parse_signed(notional_text, f"--futures {symbol}") * COIN_RAW)
        for symbol, notional_text in parse_pairs(options.notional, "--futures").items()
    }
    price_raw_by_symbol = {
        symbol: parse_raw(price_text, VALUE_PLACES, f"--price {symbol}")
        for symbol, price_text in (
            parse_pairs(options.price, "--price").items() if options.price else ()
        )
    }
    margin_raw = int(spot_value * COIN_RAW)
    if options.margin:
        margin_raw = parse_raw(options.margin, VALUE_PLACES, "--futures margin")
    profit_raw = sum(
        (
            notional_raw * (price_factor(shock_bps_by_symbol, symbol) - 1)
            for symbol, notional_raw in notional_raw_by_symbol.items()
        ),
        Fraction(0),
    )
    if margin_raw and margin_raw + profit_raw <= 0:
        raise ConfigError(
            f"{OPTION}: the positions lose {value_text(-profit_raw, VALUE_PLACES, 2)}, all of the margin"
            f" of {value_text(Fraction(margin_raw), VALUE_PLACES, 2)}",
            "they are liquidated before; use a smaller shock, or more --futures margin",
        )
    return replace(
        options,
        notional=_shocked_pairs(notional_raw_by_symbol, shock_bps_by_symbol),
        price=_shocked_pairs(price_raw_by_symbol, shock_bps_by_symbol),
        margin=decimal_text(int(margin_raw + profit_raw), VALUE_PLACES),
    )


def _shocked_pairs(raw_by_symbol: Mapping[str, int], shock_bps_by_symbol: Mapping[str, int]) -> str:
    """Return SYMBOL=NUMBER pairs after the shocks."""
    return ",".join(
        f"{symbol}={decimal_text(round(raw * price_factor(shock_bps_by_symbol, symbol)), VALUE_PLACES)}"
        for symbol, raw in raw_by_symbol.items()
    )
