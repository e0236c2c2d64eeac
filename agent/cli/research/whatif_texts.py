"""Texts of `trimtab whatif` as prices and the typed options of its futures."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction

from agent.app import FuturesOptions
from agent.cli.research.futures_texts import POLICY_PARSERS, share_parser
from agent.cli.research.value_texts import (
    FieldParsers,
    parse_by_symbol,
    parse_fields,
    parse_fraction,
)
from agent.config.tables.fields import parse_duration_s
from agent.errors import ConfigError
from agent.units import BPS, Price, parse_share_with_unit_bps


def futures_options(texts: Mapping[str, str], price: str) -> FuturesOptions:
    """Return the futures of a what-if, from the texts of --futures by their names and that of
    --price. Raises ConfigError naming the option.
    """
    return FuturesOptions(
        price_by_symbol=parse_prices(price),
        **parse_fields({name: text for name, text in texts.items() if text}, _PARSERS),
    )


def parse_prices(prices_text: str) -> dict[str, Price]:
    """Return the prices by symbol. Raises ConfigError for a price of zero."""
    price_by_symbol = parse_fractions(prices_text, "--price") if prices_text else {}
    for symbol, price in price_by_symbol.items():
        if price == 0:
            raise ConfigError(f"--price {symbol}: must be above 0", "give its current price")
    return price_by_symbol


def parse_fractions(pairs_text: str, option: str) -> dict[str, Fraction]:
    """Return plain decimals by symbol. Raises ConfigError naming the option."""
    return parse_by_symbol(pairs_text, option, parse_fraction)


def _parse_signed(number_text: str, option: str) -> Fraction:
    sign = -1 if number_text.startswith("-") else 1
    return sign * parse_fraction(number_text.removeprefix("-"), option)


def _parse_funding(rates_text: str) -> dict[str, Fraction]:
    """Return funding rates by symbol as shares a day; a bare number is percent."""
    return parse_by_symbol(
        rates_text,
        "--futures funding",
        lambda text, option: _parse_signed(text.removesuffix("%"), option) / 100,
    )


def _parse_notionals(notionals_text: str) -> dict[str, Fraction]:
    return parse_by_symbol(notionals_text, "--futures", _parse_signed)


def _parse_leverage_band_bps(share_text: str) -> int:
    if share_text == "off":
        return 0
    return parse_share_with_unit_bps(share_text, "--futures leverage-band")


def _parse_hedge_bps(share_text: str) -> int:
    hedge_bps = parse_share_with_unit_bps(share_text, "--futures hedge")
    if hedge_bps > BPS:
        raise ConfigError(
            "--futures hedge: is above 100 %", "give the share of the excess to short"
        )
    return hedge_bps


_PARSERS: FieldParsers = {
    **POLICY_PARSERS,
    "notional": ("notional_by_symbol", _parse_notionals),
    "margin": ("margin", lambda text: parse_fraction(text, "--futures margin")),
    "leverage_band": ("leverage_band_bps", _parse_leverage_band_bps),
    "max_position": ("max_position_bps", share_parser("max-position")),
    "hedge": ("hedge_bps", _parse_hedge_bps),
    "tax": ("tax_by_symbol", lambda text: parse_fractions(text, "--futures tax")),
    "funding": ("funding_by_symbol", _parse_funding),
    "horizon": ("horizon_s", lambda text: parse_duration_s(text, "--futures horizon")),
}
