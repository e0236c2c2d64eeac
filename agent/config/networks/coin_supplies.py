"""Circulating supplies of coins that move slowly enough to be listed: `supplies = "package"`.

A token's contract knows only what is wrapped or bridged. Each figure is valid for as long as issuance
changes it by at most 5 %; coins that unlock faster (ARB, OP, LINK) are not listed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime

from agent.config.networks import NETWORKS
from agent.errors import ConfigError
from agent.model import TokenSupply
from agent.units import YEAR_S, Token

PACKAGE = "package"
"""Value of portfolio.weights.supplies for these figures."""


@dataclass(frozen=True, slots=True)
class CoinSupply:
    """Coins in circulation on a day, by whom, and for how many years they count."""

    coins: int
    as_of: date
    source: str
    valid_years: int


COIN_SUPPLIES: Mapping[str, CoinSupply] = {
    # 450 new coins a day: 0.8 % a year, and less from 2028 on.
    "BTC": CoinSupply(19_950_000, date(2025, 11, 21), "mexc.us", 3),
    # Issuance less burnt fees: below 1 % a year.
    "ETH": CoinSupply(120_700_000, date(2025, 10, 25), "mexc.ge", 3),
    # 2 % a year.
    "POL": CoinSupply(10_534_582_487, date(2025, 11, 14), "gatedex.com", 2),
    # At most 16,000,000: 4.4 % more.
    "AAVE": CoinSupply(15_330_000, date(2026, 2, 26), "mexc.co", 3),
}
_COIN_BY_SYMBOL = {
    "WETH": "ETH",
    "ETH": "ETH",
    "WBTC": "BTC",
    "cbBTC": "BTC",
    "BTCB": "BTC",
    "WPOL": "POL",
    "AAVE": "AAVE",
}


def package_supplies(
    tokens: Iterable[Token], wrapped_native: str, chain_id: int
) -> list[TokenSupply]:
    """Return the supplies of the tokens that are listed; those of others are read from their
    contracts.

    Raises ConfigError if two tokens are the same coin, whose market capitalisation would count
    twice, and for a wrapped native coin that is not listed, since its contract knows only a part.
    """
    coin_by_address = _coins_of_network(chain_id)
    label_by_coin: dict[str, str] = {}
    supplies = []
    for token in tokens:
        coin = coin_by_address.get(token.address)
        if coin is None and token.address == wrapped_native:
            raise ConfigError(
                f"portfolio.weights.supplies: the package has no supply of {token.label}",
                "name it in portfolio.weights.fixed, or write a file of supplies",
            )
        if coin is None:
            continue
        if coin in label_by_coin:
            raise ConfigError(
                f"portfolio.weights.supplies: {label_by_coin[coin]} and {token.label} are both {coin}",
                "name one of them in portfolio.weights.fixed, or write a file of supplies",
            )
        label_by_coin[coin] = token.label
        supplies.append(_token_supply(token, COIN_SUPPLIES[coin]))
    return supplies


def _coins_of_network(chain_id: int) -> dict[str, str]:
    return {
        token.address: _COIN_BY_SYMBOL[token.symbol]
        for network in NETWORKS
        if network.chain_id == chain_id
        for token in network.tokens
        if token.symbol in _COIN_BY_SYMBOL
    }


def _token_supply(token: Token, supply: CoinSupply) -> TokenSupply:
    as_of = datetime(supply.as_of.year, supply.as_of.month, supply.as_of.day, tzinfo=UTC)
    as_of_s = int(as_of.timestamp())
    return TokenSupply(
        token.address,
        supply.coins * 10**token.decimals,
        f"{supply.source} of {supply.as_of.isoformat()}",
        as_of_s,
        as_of_s + supply.valid_years * YEAR_S,
    )
