"""Markets such as ETH/USDT among the symbols of prices: which asset each prices, and in what."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import replace

from agent.backtest.data import PriceTable
from agent.errors import ConfigError
from agent.price_files.layout import CURRENCY_BY_NAME, file_symbol
from agent.price_files.read import asset_of_pair, currency_of_pair

_COIN_QUOTES = ("BTC", "XBT", "ETH", "BNB", "SOL", "WBTC", "WETH")
"""Coins in which exchanges and pools quote others."""


def name_markets(table: PriceTable, targets: Collection[str]) -> PriceTable:
    """Return the prices with the name of a target in place of its market in a currency: ETH for
    ETH-USDT. Raises ConfigError for a target that has several markets, or a market in a coin, or is
    itself written as a market.
    """
    symbol_by_market: dict[str, str] = {}
    for symbol in targets:
        markets = _markets_of(symbol, table.symbols)
        if len(markets) > 1:
            raise ConfigError(
                f"targets: {symbol} has the prices of {' and '.join(markets)}",
                f"keep one of them, and name it {symbol}",
            )
        for market in markets:
            asset = _asset_of(market)
            if coin := _coin_quote(market):
                raise ConfigError(
                    f"targets: the closes of {market} are in {coin}, not in a currency",
                    f"give closes of {asset} in the numeraire, named {asset}",
                )
            if symbol not in (market, asset) and file_symbol(symbol) == market:
                raise ConfigError(f"targets: {symbol} is no symbol of an asset", f'write "{asset}"')
            symbol_by_market[market] = symbol
    symbols = tuple(symbol_by_market.get(symbol, symbol) for symbol in table.symbols)
    return replace(table, symbols=symbols)


def _markets_of(symbol: str, table_symbols: Collection[str]) -> list[str]:
    """Return the symbols of the prices that are this asset; a fiat currency has no market."""
    for market in (symbol, file_symbol(symbol)):
        if market in table_symbols:
            return [market]
    return [
        market
        for market in table_symbols
        if re.search("[-_]", market)
        and (currency_of_pair(market) or _coin_quote(market))
        and _asset_of(market) == symbol.upper() != CURRENCY_BY_NAME.get(symbol.upper())
    ]


def _asset_of(market: str) -> str:
    coin = _coin_quote(market)
    return asset_of_pair(market[: -len(f"-{coin}")] if coin else market)


def _coin_quote(market: str) -> str:
    """Return the coin in which a market is quoted: BTC of ETH-BTC; empty for one in a currency."""
    _, *quotes = re.split("[-_]", market.upper())
    return quotes[-1] if quotes and quotes[-1] in _COIN_QUOTES else ""
