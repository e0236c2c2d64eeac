"""The accounts of strategies over one wallet: sharing what comes and goes, paying in kind, crossing wishes, sharing out a trade.

Everything is in whole base units and sums exactly: what one strategy gives another gets, and what the wallet gained or lost is given
out to the last unit (largest remainder). No holding ever goes below zero. Prices are numeraire base units per token base unit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

from agent.units import Price, Value, floor_int, largest_remainder

Held = dict[str, dict[str, int]]
"""Base units by strategy and token."""
Values = Mapping[str, Mapping[str, Value]]
"""Numeraire base units by strategy and token."""
Prices = Mapping[str, Price]


@dataclass(frozen=True, slots=True)
class Netted:
    """What strategies wanted of one token, numeraire base units: `crossed` never reaches the market, `net` does (with sign)."""

    token: str
    bought: Value
    sold: Value

    @property
    def crossed(self) -> Value:
        """What some sell and others buy."""
        return min(self.bought, self.sold)

    @property
    def net(self) -> Value:
        """What is left for the market, positive to buy."""
        return self.bought - self.sold


def copied(held: Mapping[str, Mapping[str, int]]) -> Held:
    """A copy that may be changed."""
    return {name: dict(tokens) for name, tokens in held.items()}


def worth(tokens: Mapping[str, int], prices: Prices) -> Value:
    """Value of one strategy's holdings. KeyError for a token without a price that is held."""
    return sum((raw * prices[token] for token, raw in tokens.items() if raw), Fraction(0))


def capital(held: Mapping[str, Mapping[str, int]], prices: Prices) -> dict[str, Value]:
    """Value of each strategy."""
    return {name: worth(tokens, prices) for name, tokens in held.items()}


def shared(raw: int, shares: Mapping[str, Fraction]) -> dict[str, int]:
    """`raw` base units given out in proportion to `shares`, none of which is negative; equally where all are zero."""
    names = list(shares)
    if not names:
        raise ValueError("nobody to share with")
    parts = [shares[name] for name in names]
    whole = parts if sum(parts) > 0 else [Fraction(1)] * len(parts)
    sign = -1 if raw < 0 else 1
    return dict(zip(names, (sign * part for part in largest_remainder(whole, abs(raw))), strict=True))


def taken(raw: int, token: str, held: Mapping[str, Mapping[str, int]]) -> dict[str, int]:
    """`raw` base units to take of a token, in proportion to who has how much; never more than each has. ValueError beyond the whole."""
    had = {name: tokens.get(token, 0) for name, tokens in held.items()}
    if raw > sum(had.values()):
        raise ValueError(f"{raw} base units of {token} are more than all strategies hold")
    if raw == 0:
        return dict.fromkeys(had, 0)
    return shared(raw, {name: Fraction(amount) for name, amount in had.items()})


def pay(held: Held, giver: str, receiver: str, value: Value, prices: Prices, first: Mapping[str, Value] | None = None) -> Value:
    """Moves tokens worth at most `value` from one strategy to another, in place; returns what was moved.

    Tokens in `first` go first, each up to the value named there, the largest first; the rest goes in kind: of every token the same
    part, each rounded down.
    """
    left = value
    for token, most in sorted((first or {}).items(), key=lambda item: (-item[1], item[0])):
        left -= _give(held, giver, receiver, token, min(most, left), prices)
    whole = worth(held[giver], prices)
    if left > 0 and whole > 0:
        part = min(left / whole, Fraction(1))
        for token, raw in list(held[giver].items()):
            left -= _give(held, giver, receiver, token, raw * prices[token] * part, prices) if raw else 0
    return value - left


def _give(held: Held, giver: str, receiver: str, token: str, value: Value, prices: Prices) -> Value:
    price = prices[token]
    raw = min(held[giver].get(token, 0), floor_int(value / price)) if value > 0 and price > 0 else 0
    held[giver][token] = held[giver].get(token, 0) - raw
    held[receiver][token] = held[receiver].get(token, 0) + raw
    return raw * price


def evened(held: Held, due: Mapping[str, Value], prices: Prices, wanted: Values | None = None) -> dict[tuple[str, str], Value]:
    """Moves tokens until each strategy is worth what it is `due`, to the rounding of a base unit, in place; returns who paid whom what.

    A payer gives first what it has beyond `wanted`; without that in kind.
    """
    paid: dict[tuple[str, str], Value] = {}
    for giver in held:
        for receiver in held:
            over, under = worth(held[giver], prices) - due[giver], due[receiver] - worth(held[receiver], prices)
            if giver == receiver or over <= 0 or under <= 0:
                continue
            first = None if wanted is None else _beyond(held[giver], wanted[giver], prices)
            paid[giver, receiver] = pay(held, giver, receiver, min(over, under), prices, first)
    return paid


def _beyond(tokens: Mapping[str, int], wanted: Mapping[str, Value], prices: Prices) -> dict[str, Value]:
    excess = {token: raw * prices[token] - wanted.get(token, Fraction(0)) for token, raw in tokens.items() if raw}
    return {token: value for token, value in excess.items() if value > 0}


def netted(wishes: Values, tokens: Sequence[str]) -> tuple[Netted, ...]:
    """What each token's wishes (positive: to buy) come to, in the order of `tokens`."""
    found = []
    for token in tokens:
        values = [wish.get(token, Fraction(0)) for wish in wishes.values()]
        bought, sold = sum((v for v in values if v > 0), Fraction(0)), -sum((v for v in values if v < 0), Fraction(0))
        found.append(Netted(token, bought, sold))
    return tuple(found)


def market_part(wishes: Values, one: Netted) -> dict[str, Value]:
    """What of each strategy's wish for a token the market has to fill: on the heavier side all in proportion, on the other nothing."""
    heavier = max(one.bought, one.sold)
    found = {}
    for name, wish in wishes.items():
        value = wish.get(one.token, Fraction(0))
        found[name] = value * abs(one.net) / heavier if value * one.net > 0 else Fraction(0)
    return found


def cross(held: Held, wishes: Values, prices: Prices, tokens: Sequence[str]) -> None:
    """Exchanges inside, at reference prices and in place, what some strategies sell and others buy."""
    for one in netted(wishes, tokens):
        price = prices[one.token]
        if one.crossed <= 0 or price <= 0:
            continue
        wanted = {name: wish[one.token] for name, wish in wishes.items() if one.token in wish}
        out = {name: -value * one.crossed / one.sold for name, value in wanted.items() if value < 0}
        into = {name: value for name, value in wanted.items() if value > 0}
        given = {name: min(held[name].get(one.token, 0), floor_int(value / price)) for name, value in out.items()}
        for name, raw in given.items():
            held[name][one.token] -= raw
        for name, raw in shared(sum(given.values()), into).items():
            held[name][one.token] = held[name].get(one.token, 0) + raw


def settled(
    held: Mapping[str, Mapping[str, int]], wishes: Values, deltas: Mapping[str, int], prices: Prices, tokens: Sequence[str]
) -> tuple[Held, dict[str, Value]]:
    """The books after a trade that changed the wallet by `deltas` (base units by token), and what it cost each strategy.

    Opposite wishes are crossed at reference prices, what the market gave and took goes to those whose wishes are left, and the
    cost is shared by what each had left for the market (by capital where nobody had). Who got more than that pays the others,
    first from what it did not want. Without `deltas` wishes are crossed alone. ValueError when more went than all hold.
    """
    before = capital(held, prices)
    books = copied(held)
    left: dict[str, dict[str, Value]] = {name: {} for name in held}
    for one in netted(wishes, tokens):
        for name, value in market_part(wishes, one).items():
            left[name][one.token] = value
    cross(books, wishes, prices, tokens)
    for token in tokens:
        delta = deltas.get(token, 0)
        asked = {name: max(parts.get(token, Fraction(0)) * (1 if delta > 0 else -1), Fraction(0)) for name, parts in left.items()}
        if delta > 0:
            for name, raw in shared(delta, asked if sum(asked.values()) > 0 else before).items():
                books[name][token] = books[name].get(token, 0) + raw
        elif delta < 0:
            _take(books, token, -delta, asked)
    cost = -sum((delta * prices[token] for token, delta in deltas.items() if delta), Fraction(0))
    weight = {name: sum((abs(value) for value in parts.values()), Fraction(0)) for name, parts in left.items()}
    whole = sum(weight.values(), Fraction(0))
    basis = weight if whole > 0 else before
    whole = sum(basis.values(), Fraction(0))
    costs = {name: cost * basis[name] / whole if whole > 0 else cost / len(basis) for name in held}
    due = {name: before[name] - costs[name] for name in held}
    wanted = {name: {t: held[name].get(t, 0) * prices[t] + wishes.get(name, {}).get(t, Fraction(0)) for t in tokens} for name in held}
    evened(books, due, prices, wanted)
    return books, costs


def _take(books: Held, token: str, raw: int, asked: Mapping[str, Fraction]) -> None:
    """Takes from those who asked to sell as far as they have it, the rest from whoever has the token; in place."""
    if sum(asked.values()) > 0:
        for name, part in shared(raw, asked).items():
            gone = min(part, books[name].get(token, 0))
            books[name][token] = books[name].get(token, 0) - gone
            raw -= gone
    for name, part in taken(raw, token, books).items():
        books[name][token] = books[name].get(token, 0) - part


def flowed(held: Mapping[str, Mapping[str, int]], token: str, raw: int, prices: Prices, only: str | None = None) -> Held:
    """The books after `raw` base units came (or went) without a trade: by capital share, or to the account of one strategy `only`.

    What went is taken from whoever has the token; then the others are paid in kind, so that each bears its share of the value.
    ValueError when more went than all hold.
    """
    books, before = copied(held), capital(held, prices)
    whole = sum(before.values(), Fraction(0))
    part = {name: Fraction(name == only) if only in held else value for name, value in before.items()}
    if raw >= 0:
        for name, got in shared(raw, part).items():
            books[name][token] = books[name].get(token, 0) + got
        return books
    for name, gone in taken(-raw, token, books).items():
        books[name][token] = books[name].get(token, 0) - gone
    value = -raw * prices[token]
    if only in held:
        part = {name: Fraction(name == only) for name in held}
        value = min(value, before[only]) if only is not None else value
    elif whole > 0:
        part = {name: amount / whole for name, amount in before.items()}
    lost = whole - sum(capital(books, prices).values(), Fraction(0))
    due = {name: max(before[name] - value * part[name], Fraction(0)) for name in held}
    short = lost - sum((before[name] - due[name] for name in held), Fraction(0))
    if short > 0:  # more went than the one strategy has: the others bear the rest
        others = {name: amount for name, amount in due.items() if amount > 0}
        rest = sum(others.values(), Fraction(0))
        due |= {name: amount - short * amount / rest for name, amount in others.items()}
    evened(books, due, prices)
    return books
