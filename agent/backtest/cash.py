"""Which symbol may be the unit of prices without being named by --numeraire."""

from __future__ import annotations

from agent.errors import ConfigError

_FIAT = """
AED ARS AUD BRL CAD CHF CLP CNY COP CZK DKK EUR GBP HKD HUF IDR ILS INR JPY KRW MXN MYR NGN NOK NZD
PHP PLN RON SEK SGD THB TRY TWD UAH USD VND ZAR
"""
_STABLE = """
AGEUR ALUSD AUSD BUSD CEUR CRVUSD CUSD DAI DOLA EURA EURC EUROC EURS EURT FDUSD FRAX FRXUSD GHO GUSD
LUSD MAI MIM MUSD PYUSD RLUSD SUSD TUSD USD0 USDB USDBC USDC USDC.E USDD USDE USDP USDS USDT USDT.E
USDT0 USDX XDAI XSGD ZCHF
"""
CASH_SYMBOLS = frozenset((_FIAT + _STABLE).split())
"""Currencies in which exchanges quote coins (ISO 4217), and tokens that keep the value of one."""


def is_cash(symbol: str) -> bool:
    """Return whether this is the name of a currency or of a token that keeps its value."""
    return symbol.upper() in CASH_SYMBOLS


def require_unit_of_prices(symbol: str, remedy: str) -> None:
    """Raise ConfigError for a numeraire without prices that is no cash: its price is unknown, not
    one.
    """
    if not is_cash(symbol):
        raise ConfigError(
            f"numeraire: the file has no prices of {symbol}, and {symbol} is no known currency or"
            " stablecoin",
            remedy,
        )
