"""Usual volatility and correlation of tokens by class, for what is neither configured nor measured.

The tracking rule depends on ratios of volatilities only, and weakly (scripts/bench/bench_tracking.py,
part `robust`). A class is told by the token's symbol, which its owner chose;
a wrong one changes when the agent trades, never what a token is worth.
"""

from __future__ import annotations

from enum import Enum
from math import isqrt

from agent.units import BPS

_FIAT = """
AED ARS AUD BRL CAD CHF CLP CNY COP CZK DKK EUR GBP HKD HUF IDR ILS INR JPY KRW MXN MYR NGN NOK NZD
PHP PLN RON SEK SGD THB TRY TWD UAH USD VND ZAR
"""
_STABLE = """
AGEUR ALUSD AUSD AXLUSDC BUSD CEUR CRVUSD CUSD DAI DAI.E DOLA EURA EURC EURE EURI EUROC EURS EURT
FDUSD FRAX FRXUSD GHO GUSD LUSD MAI MIM MUSD PYUSD RLUSD SUSD TUSD USD0 USDB USDBC USDC USDC.E USDD
USDE USDM USDP USDS USDT USDT.E USDT0 USDX WXDAI XDAI XSGD ZCHF
"""
_BITCOIN = "BTC BTC.B BTCB CBBTC EBTC FBTC HBTC LBTC RENBTC SBTC SOLVBTC TBTC UBTC WBTC"
_ETHER = """
ANKRETH CBETH ETH ETHX EZETH FRXETH LSETH METH OETH OSETH RETH RSETH SETH SFRXETH STETH SUPEROETHB
SWETH UETH WBETH WEETH WETH WOETH WRSETH WSTETH
"""
FIAT_SYMBOLS = frozenset(_FIAT.split())
"""Currencies in which exchanges quote coins (ISO 4217)."""
CASH_SYMBOLS = frozenset((_FIAT + _STABLE).split())
"""Currencies, and tokens that keep the value of one."""


class AssetClass(Enum):
    """What a token follows."""

    CASH = "stable"
    BITCOIN = "bitcoin"
    ETHER = "ether"
    OTHER = "other"


_CLASS_BY_SYMBOL = {
    **dict.fromkeys(CASH_SYMBOLS, AssetClass.CASH),
    **dict.fromkeys(_BITCOIN.split(), AssetClass.BITCOIN),
    **dict.fromkeys(_ETHER.split(), AssetClass.ETHER),
}
VOLATILITY_BPS = {
    AssetClass.CASH: 200,
    AssetClass.BITCOIN: 5_000,
    AssetClass.ETHER: 6_500,
    AssetClass.OTHER: 9_000,
}
"""Annual volatility of each class against a currency."""
SAME_COIN_CORRELATION_BPS = 9_500
"""Correlation of two tokens of one coin, such as a staked form and its coin."""
COIN_CORRELATION_BPS = 6_700
"""Correlation of two coins."""


def class_of(symbol: str) -> AssetClass:
    """Return the class of a token with this symbol."""
    return _CLASS_BY_SYMBOL.get(symbol.upper(), AssetClass.OTHER)


def is_cash(symbol: str) -> bool:
    """Return whether this is the name of a currency or of a token that keeps its value."""
    return class_of(symbol) is AssetClass.CASH


def class_volatility_bps(symbol: str, numeraire_symbol: str) -> int:
    """Return the usual annual volatility of a token's price in the numeraire."""
    return isqrt(_covariance_against(symbol, symbol, numeraire_symbol, is_one_token=True))


def class_correlation_bps(first_symbol: str, second_symbol: str, numeraire_symbol: str) -> int:
    """Return the usual correlation of two tokens' prices in the numeraire."""
    covariance = _covariance_against(
        first_symbol, second_symbol, numeraire_symbol, is_one_token=False
    )
    volatility_product = class_volatility_bps(
        first_symbol, numeraire_symbol
    ) * class_volatility_bps(second_symbol, numeraire_symbol)
    return covariance * BPS // volatility_product


def _covariance_against(
    first_symbol: str, second_symbol: str, numeraire_symbol: str, *, is_one_token: bool
) -> int:
    """Return the annual covariance of two prices in the numeraire, bps²: a numeraire that is a coin
    moves itself, Σᵢⱼ − Σᵢₙ − Σⱼₙ + Σₙₙ.
    """
    first_class = class_of(first_symbol)
    second_class = class_of(second_symbol)
    covariance = (
        VOLATILITY_BPS[first_class] ** 2 if is_one_token else _covariance(first_class, second_class)
    )
    numeraire_class = class_of(numeraire_symbol)
    if numeraire_class is AssetClass.CASH:
        return covariance
    return (
        covariance
        - _covariance(first_class, numeraire_class)
        - _covariance(second_class, numeraire_class)
        + VOLATILITY_BPS[numeraire_class] ** 2
    )


def _covariance(first_class: AssetClass, second_class: AssetClass) -> int:
    """Return the annual covariance of two tokens' prices in a currency, bps²."""
    classes = {first_class, second_class}
    if AssetClass.CASH in classes:
        return 0
    is_same_coin = len(classes) == 1 and AssetClass.OTHER not in classes
    correlation_bps = SAME_COIN_CORRELATION_BPS if is_same_coin else COIN_CORRELATION_BPS
    return VOLATILITY_BPS[first_class] * VOLATILITY_BPS[second_class] * correlation_bps // BPS
