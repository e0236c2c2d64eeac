"""Capital of strategies: holdings and their transfers, target shares, and the health rule that
pauses a strategy.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

from agent.layers.strategies.state import (
    CapitalSplit,
    StrategyBook,
    StrategyHealth,
)
from agent.units import (
    BPS,
    Price,
    Value,
    floor_int,
    largest_remainder,
    sign_of,
)

# --- Strategy holdings: allocating inflows and outflows, payment in kind, internal netting,
# allocating trades.
# In whole base units that sum exactly (largest remainder); no holding goes below zero. Prices:
# numeraire base units per token base unit.


StrategyHoldings = dict[str, dict[str, int]]
"""Base units by strategy and token."""
StrategyValues = Mapping[str, Mapping[str, Value]]
"""Numeraire base units by strategy and token."""
Prices = Mapping[str, Price]


@dataclass(frozen=True, slots=True)
class NettedToken:
    """Purchases and sales of one token by strategies, in numeraire base units."""

    token: str
    bought: Value
    sold: Value

    @property
    def crossed(self) -> Value:
        """Value that some strategies sell and others buy."""
        return min(self.bought, self.sold)

    @property
    def net(self) -> Value:
        """Value left for the market, positive to buy."""
        return self.bought - self.sold


def copy_holdings(held: Mapping[str, Mapping[str, int]]) -> StrategyHoldings:
    """Return a copy that may be changed."""
    return {name: dict(tokens) for name, tokens in held.items()}


def holdings_value(tokens: Mapping[str, int], prices: Prices) -> Value:
    """Return the value of one strategy's holdings. Raises KeyError if a held token has no price."""
    return sum((raw * prices[token] for token, raw in tokens.items() if raw), Fraction(0))


def strategy_capital(held: Mapping[str, Mapping[str, int]], prices: Prices) -> dict[str, Value]:
    """Return the value of each strategy."""
    return {name: holdings_value(tokens, prices) for name, tokens in held.items()}


def split_pro_rata(raw: int, shares: Mapping[str, Fraction]) -> dict[str, int]:
    """Distribute `raw` base units in proportion to non-negative `shares`; equally if all are
    zero.
    """
    names = list(shares)
    if not names:
        raise ValueError("no strategies to distribute to")
    weights = [shares[name] for name in names]
    if sum(weights) <= 0:
        weights = [Fraction(1)] * len(names)
    parts = largest_remainder(weights, abs(raw))
    if raw < 0:
        parts = [-part for part in parts]
    return dict(zip(names, parts, strict=True))


def take_pro_rata(raw: int, token: str, held: Mapping[str, Mapping[str, int]]) -> dict[str, int]:
    """Return `raw` base units of a token by strategy, in proportion to their holdings and never
    above them. Raises ValueError if all hold less.
    """
    balances = {name: tokens.get(token, 0) for name, tokens in held.items()}
    if raw > sum(balances.values()):
        raise ValueError(f"{raw} base units of {token} are more than all strategies hold")
    if raw == 0:
        return dict.fromkeys(balances, 0)
    return split_pro_rata(raw, {name: Fraction(amount) for name, amount in balances.items()})


def transfer_value(
    held: StrategyHoldings,
    giver: str,
    receiver: str,
    value: Value,
    prices: Prices,
    first: Mapping[str, Value] | None = None,
) -> Value:
    """Move tokens worth at most `value` from one strategy to another, in place; return the value
    moved.

    Tokens in `first` are moved first, each up to the value given there, the largest first; the rest
    is paid in kind: the same fraction of every token, each rounded down.
    """
    left = value
    for token, most in sorted((first or {}).items(), key=lambda item: (-item[1], item[0])):
        left -= _give(held, giver, receiver, token, min(most, left), prices)
    whole = holdings_value(held[giver], prices)
    if left > 0 and whole > 0:
        part = min(left / whole, Fraction(1))
        for token, raw in list(held[giver].items()):
            if raw:
                left -= _give(held, giver, receiver, token, raw * prices[token] * part, prices)
    return value - left


def _give(
    held: StrategyHoldings, giver: str, receiver: str, token: str, value: Value, prices: Prices
) -> Value:
    """Move at most `value` of a token from one strategy to another, in place; return the value
    moved.
    """
    price, raw = prices[token], 0
    if value > 0 and price > 0:
        raw = min(held[giver].get(token, 0), floor_int(value / price))
    held[giver][token] = held[giver].get(token, 0) - raw
    held[receiver][token] = held[receiver].get(token, 0) + raw
    return raw * price


def restore_capital_shares(
    held: StrategyHoldings,
    due: Mapping[str, Value],
    prices: Prices,
    wanted: StrategyValues | None = None,
) -> dict[tuple[str, str], Value]:
    """Move tokens until each strategy has its `due` value, to the rounding of a base unit, in
    place; return the payments.

    A payer first gives its holdings beyond `wanted`; without `wanted` it pays in kind.
    """
    paid: dict[tuple[str, str], Value] = {}
    for giver in held:
        for receiver in held:
            over = holdings_value(held[giver], prices) - due[giver]
            under = due[receiver] - holdings_value(held[receiver], prices)
            if giver == receiver or over <= 0 or under <= 0:
                continue
            first = None
            if wanted is not None:
                first = _beyond(held[giver], wanted[giver], prices)
            paid[giver, receiver] = transfer_value(
                held, giver, receiver, min(over, under), prices, first
            )
    return paid


def _beyond(
    tokens: Mapping[str, int], wanted: Mapping[str, Value], prices: Prices
) -> dict[str, Value]:
    excess = {
        token: raw * prices[token] - wanted.get(token, Fraction(0))
        for token, raw in tokens.items()
        if raw
    }
    return {token: value for token, value in excess.items() if value > 0}


def net_adjustments(adjustments: StrategyValues, tokens: Sequence[str]) -> tuple[NettedToken, ...]:
    """Return purchases and sales per token, in the order of `tokens`; a positive adjustment
    buys.
    """
    netted_tokens = []
    for token in tokens:
        values = [adjustment.get(token, Fraction(0)) for adjustment in adjustments.values()]
        bought = sum((v for v in values if v > 0), Fraction(0))
        sold = -sum((v for v in values if v < 0), Fraction(0))
        netted_tokens.append(NettedToken(token, bought, sold))
    return tuple(netted_tokens)


def market_remainder(adjustments: StrategyValues, netted: NettedToken) -> dict[str, Value]:
    """Return each strategy's part of a token that the market has to fill: pro rata on the heavier
    side, 0 on the other.
    """
    heavier = max(netted.bought, netted.sold)
    parts = dict.fromkeys(adjustments, Fraction(0))
    for name, adjustment in adjustments.items():
        value = adjustment.get(netted.token, Fraction(0))
        if value * netted.net > 0:
            parts[name] = value * abs(netted.net) / heavier
    return parts


def net_internally(
    held: StrategyHoldings, adjustments: StrategyValues, prices: Prices, tokens: Sequence[str]
) -> None:
    """Exchange opposite adjustments between strategies, at reference prices and in place."""
    for netted in net_adjustments(adjustments, tokens):
        token, price = netted.token, prices[netted.token]
        if netted.crossed <= 0 or price <= 0:
            continue
        of_token = {
            name: adjustment[token]
            for name, adjustment in adjustments.items()
            if token in adjustment
        }
        sold = {
            name: -value * netted.crossed / netted.sold
            for name, value in of_token.items()
            if value < 0
        }
        bought = {name: value for name, value in of_token.items() if value > 0}
        sales_raw = {
            name: min(held[name].get(token, 0), floor_int(value / price))
            for name, value in sold.items()
        }
        for name, raw in sales_raw.items():
            held[name][token] -= raw
        for name, raw in split_pro_rata(sum(sales_raw.values()), bought).items():
            held[name][token] = held[name].get(token, 0) + raw


def settle_trade(
    held: Mapping[str, Mapping[str, int]],
    adjustments: StrategyValues,
    deltas: Mapping[str, int],
    prices: Prices,
    tokens: Sequence[str],
) -> tuple[StrategyHoldings, dict[str, Value]]:
    """Return the holdings after a trade that changed the wallet by `deltas` (base units by token),
    and its cost by strategy.

    Opposite adjustments are netted at reference prices, and the market's fills go to those with a
    remainder. The cost is shared in proportion to it (to capital if none). A strategy that
    received more than its part pays the others, first in tokens that it did not want. Without
    `deltas` adjustments are only netted. Raises ValueError if the trade spent more than all hold.
    """
    before = strategy_capital(held, prices)
    books = copy_holdings(held)
    left: dict[str, dict[str, Value]] = {name: {} for name in held}
    for netted in net_adjustments(adjustments, tokens):
        for name, value in market_remainder(adjustments, netted).items():
            left[name][netted.token] = value
    net_internally(books, adjustments, prices, tokens)
    for token in tokens:
        delta = deltas.get(token, 0)
        side = sign_of(delta)
        requested = {
            name: max(parts.get(token, Fraction(0)) * side, Fraction(0))
            for name, parts in left.items()
        }
        if delta > 0:
            shares = requested if sum(requested.values()) > 0 else before
            for name, raw in split_pro_rata(delta, shares).items():
                books[name][token] = books[name].get(token, 0) + raw
        elif delta < 0:
            _take(books, token, -delta, requested)
    cost = -sum((delta * prices[token] for token, delta in deltas.items() if delta), Fraction(0))
    weight = {
        name: sum((abs(value) for value in parts.values()), Fraction(0))
        for name, parts in left.items()
    }
    whole = sum(weight.values(), Fraction(0))
    basis = weight if whole > 0 else before
    whole = sum(basis.values(), Fraction(0))
    if whole > 0:
        costs = {name: cost * basis[name] / whole for name in held}
    else:
        costs = {name: cost / len(basis) for name in held}
    due = {name: before[name] - costs[name] for name in held}
    after = {
        name: {
            t: held[name].get(t, 0) * prices[t] + adjustments.get(name, {}).get(t, Fraction(0))
            for t in tokens
        }
        for name in held
    }
    restore_capital_shares(books, due, prices, after)
    return books, costs


def _take(books: StrategyHoldings, token: str, raw: int, sales: Mapping[str, Fraction]) -> None:
    """Take from the strategies in proportion to their `sales`, up to their holdings, and the
    remainder pro rata from all holders; in place.
    """
    if sum(sales.values()) > 0:
        for name, part in split_pro_rata(raw, sales).items():
            taken = min(part, books[name].get(token, 0))
            books[name][token] = books[name].get(token, 0) - taken
            raw -= taken
    for name, part in take_pro_rata(raw, token, books).items():
        books[name][token] = books[name].get(token, 0) - part


def apply_transfer(
    held: Mapping[str, Mapping[str, int]],
    token: str,
    raw: int,
    prices: Prices,
    only: str | None = None,
) -> StrategyHoldings:
    """Return the holdings after a transfer of `raw` base units (negative: out of the wallet), by
    capital share or for the strategy `only`. A decrease is taken from the holders of the token; the
    others then pay them in kind, so that each bears its share of the value. Raises ValueError if
    the decrease exceeds all holdings.
    """
    books, before = copy_holdings(held), strategy_capital(held, prices)
    whole = sum(before.values(), Fraction(0))
    part = dict(before)
    if only in held:
        part = {name: Fraction(name == only) for name in before}
    if raw >= 0:
        for name, received in split_pro_rata(raw, part).items():
            books[name][token] = books[name].get(token, 0) + received
        return books
    for name, taken in take_pro_rata(-raw, token, books).items():
        books[name][token] = books[name].get(token, 0) - taken
    value = -raw * prices[token]
    if only is not None and only in held:
        value = min(value, before[only])
    elif whole > 0:
        part = {name: amount / whole for name, amount in before.items()}
    lost = whole - sum(strategy_capital(books, prices).values(), Fraction(0))
    due = {name: max(before[name] - value * part[name], Fraction(0)) for name in held}
    short = lost - sum((before[name] - due[name] for name in held), Fraction(0))
    if short > 0:  # the strategy has less than the decrease, so the others bear the remainder
        others = {name: amount for name, amount in due.items() if amount > 0}
        rest = sum(others.values(), Fraction(0))
        due |= {name: amount - short * amount / rest for name, amount in others.items()}
    restore_capital_shares(books, due, prices)
    return books


def target_capital_shares(
    split: CapitalSplit, books: Mapping[str, StrategyBook]
) -> dict[str, Fraction]:
    """Return each strategy's target share of the capital: paused ones their floor, the others the
    rest in proportion.
    """
    paused = {
        strategy.name
        for strategy in split.strategies
        if books[strategy.name].state.health is StrategyHealth.PAUSED
    }
    if len(paused) == len(split.strategies):
        return {strategy.name: Fraction(strategy.share_bps, BPS) for strategy in split.strategies}
    floors = sum(strategy.floor_bps for strategy in split.strategies if strategy.name in paused)
    working = sum(
        strategy.share_bps for strategy in split.strategies if strategy.name not in paused
    )
    return {
        strategy.name: (
            Fraction(strategy.floor_bps, BPS)
            if strategy.name in paused
            else Fraction(strategy.share_bps * (BPS - floors), working * BPS)
        )
        for strategy in split.strategies
    }
