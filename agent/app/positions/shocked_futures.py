"""The futures of `whatif` after price shocks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from fractions import Fraction

from agent.app.positions.futures import FuturesOptions
from agent.app.research.whatif import SHOCK_OPTION, price_factor
from agent.errors import ConfigError
from agent.units import value_text


def shocked_futures(
    options: FuturesOptions, shock_bps_by_symbol: Mapping[str, int], spot_value: Fraction
) -> FuturesOptions:
    """Return the options with notionals, prices and margin after the shocks. `spot_value` is the
    value of the spot portfolio after them, the margin where none is given. Raises ConfigError if the
    positions lose the whole margin.
    """
    factor_by_symbol = {
        symbol: price_factor(shock_bps_by_symbol, symbol)
        for symbol in (*options.notional_by_symbol, *options.price_by_symbol)
    }
    margin = spot_value if options.margin is None else options.margin
    profit = sum(
        (
            notional * (factor_by_symbol[symbol] - 1)
            for symbol, notional in options.notional_by_symbol.items()
        ),
        Fraction(0),
    )
    if margin and margin + profit <= 0:
        raise ConfigError(
            f"{SHOCK_OPTION}: the positions lose {value_text(-profit, 0, 2)}, all of the margin of"
            f" {value_text(margin, 0, 2)}",
            "they are liquidated before; use a smaller shock, or more --futures margin",
        )
    notional_by_symbol, price_by_symbol = (
        {symbol: value * factor_by_symbol[symbol] for symbol, value in values.items()}
        for values in (options.notional_by_symbol, options.price_by_symbol)
    )
    return replace(
        options,
        notional_by_symbol=notional_by_symbol,
        price_by_symbol=price_by_symbol,
        margin=margin + profit,
    )
