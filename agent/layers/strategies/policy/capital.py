"""Capital of strategies: holdings and their transfers, and target shares. Transfers, payment in
kind, internal netting and the allocation of trades are in whole base units that sum exactly
(largest remainder); no holding goes below zero. Prices are numeraire base units per token base
unit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

from agent.layers.strategies.state import (
    CapitalSplit,
    Strategy,
    StrategyBook,
    StrategyHealth,
    StrategyState,
)
from agent.units import (
    BPS,
    Price,
    Value,
    ceil_int,
    floor_int,
    largest_remainder,
    sign_of,
)

StrategyHoldings = dict[str, dict[str, int]]
"""Base units by strategy and token."""
StrategyValues = Mapping[str, Mapping[str, Value]]
"""Numeraire base units by strategy and token."""
Prices = Mapping[str, Price]


@dataclass(frozen=True, slots=True)
class NettedToken:
    """Purchases and sales of one token by strategies, in numeraire base units."""

    token: str
    bought_value: Value
    sold_value: Value

    @property
    def crossed_value(self) -> Value:
        """Value that some strategies sell and others buy."""
        return min(self.bought_value, self.sold_value)

    @property
    def net_value(self) -> Value:
        """Value left for the market, positive to buy."""
        return self.bought_value - self.sold_value


def copy_holdings(holdings: Mapping[str, Mapping[str, int]]) -> StrategyHoldings:
    """Return a copy that may be changed."""
    return {name: dict(raw_by_token) for name, raw_by_token in holdings.items()}


def holdings_value(raw_by_token: Mapping[str, int], prices: Prices) -> Value:
    """Return the value of one strategy's holdings. Raises KeyError if a held token has no price."""
    return sum((raw * prices[token] for token, raw in raw_by_token.items() if raw), Fraction(0))


def strategy_capital(holdings: Mapping[str, Mapping[str, int]], prices: Prices) -> dict[str, Value]:
    """Return the value of each strategy."""
    return {name: holdings_value(raw_by_token, prices) for name, raw_by_token in holdings.items()}


def split_pro_rata(raw: int, share_by_name: Mapping[str, Fraction]) -> dict[str, int]:
    """Distribute `raw` base units in proportion to non-negative `share_by_name`; equally if all are
    zero.
    """
    names = list(share_by_name)
    if not names:
        raise ValueError("no strategies to distribute to")
    weights = [share_by_name[name] for name in names]
    if sum(weights) <= 0:
        weights = [Fraction(1)] * len(names)
    parts_raw = largest_remainder(weights, abs(raw))
    if raw < 0:
        parts_raw = [-part_raw for part_raw in parts_raw]
    return dict(zip(names, parts_raw, strict=True))


def take_pro_rata(
    raw: int, token: str, holdings: Mapping[str, Mapping[str, int]]
) -> dict[str, int]:
    """Return `raw` base units of a token by strategy, in proportion to their holdings and never
    above them. Raises ValueError if all hold less.
    """
    held_raw_by_name = {name: raw_by_token.get(token, 0) for name, raw_by_token in holdings.items()}
    if raw > sum(held_raw_by_name.values()):
        raise ValueError(f"{raw} base units of {token} are more than all strategies hold")
    if raw == 0:
        return dict.fromkeys(held_raw_by_name, 0)
    return split_pro_rata(
        raw, {name: Fraction(held_raw) for name, held_raw in held_raw_by_name.items()}
    )


def transfer_value(
    holdings: StrategyHoldings,
    giver: str,
    receiver: str,
    max_value: Value,
    prices: Prices,
    first_value_by_token: Mapping[str, Value] | None = None,
) -> Value:
    """Move tokens worth at most `max_value` from one strategy to another, in place; return the
    value moved.

    Tokens in `first_value_by_token` are moved first, each up to the value given there, the largest
    first; the rest is paid in kind: the same fraction of every token, each rounded down.
    """
    remaining_value = max_value
    for token, max_token_value in sorted(
        (first_value_by_token or {}).items(),
        key=lambda token_and_value: (-token_and_value[1], token_and_value[0]),
    ):
        remaining_value -= _move_token(
            holdings, giver, receiver, token, min(max_token_value, remaining_value), prices
        )
    giver_capital = holdings_value(holdings[giver], prices)
    if remaining_value > 0 and giver_capital > 0:
        paid_fraction = min(remaining_value / giver_capital, Fraction(1))
        for token, raw in list(holdings[giver].items()):
            if raw:
                remaining_value -= _move_token(
                    holdings, giver, receiver, token, raw * prices[token] * paid_fraction, prices
                )
    return max_value - remaining_value


def _move_token(
    holdings: StrategyHoldings,
    giver: str,
    receiver: str,
    token: str,
    max_value: Value,
    prices: Prices,
) -> Value:
    """Move at most `max_value` of a token from one strategy to another, in place; return the value
    moved.
    """
    price = prices[token]
    raw = 0
    if max_value > 0 and price > 0:
        raw = min(holdings[giver].get(token, 0), floor_int(max_value / price))
    holdings[giver][token] = holdings[giver].get(token, 0) - raw
    holdings[receiver][token] = holdings[receiver].get(token, 0) + raw
    return raw * price


def restore_capital_shares(
    holdings: StrategyHoldings,
    target_values: Mapping[str, Value],
    prices: Prices,
    wanted_values: StrategyValues | None = None,
) -> dict[tuple[str, str], Value]:
    """Move tokens until each strategy has its value in `target_values`, to the rounding of a base
    unit, in place; return the payments.

    A payer first gives its holdings beyond `wanted_values`; without them it pays in kind.
    """
    payments: dict[tuple[str, str], Value] = {}
    for giver in holdings:
        for receiver in holdings:
            excess_value = holdings_value(holdings[giver], prices) - target_values[giver]
            shortfall_value = target_values[receiver] - holdings_value(holdings[receiver], prices)
            if giver == receiver or excess_value <= 0 or shortfall_value <= 0:
                continue
            first_value_by_token = None
            if wanted_values is not None:
                first_value_by_token = _excess_values(holdings[giver], wanted_values[giver], prices)
            payments[giver, receiver] = transfer_value(
                holdings,
                giver,
                receiver,
                min(excess_value, shortfall_value),
                prices,
                first_value_by_token,
            )
    return payments


def _excess_values(
    raw_by_token: Mapping[str, int], wanted_values: Mapping[str, Value], prices: Prices
) -> dict[str, Value]:
    excess_by_token = {
        token: raw * prices[token] - wanted_values.get(token, Fraction(0))
        for token, raw in raw_by_token.items()
        if raw
    }
    return {
        token: excess_value for token, excess_value in excess_by_token.items() if excess_value > 0
    }


def net_adjustments(adjustments: StrategyValues, tokens: Sequence[str]) -> tuple[NettedToken, ...]:
    """Return purchases and sales per token, in the order of `tokens`; a positive adjustment
    buys.
    """
    netted_tokens = []
    for token in tokens:
        adjustment_values = [
            adjustment.get(token, Fraction(0)) for adjustment in adjustments.values()
        ]
        bought_value = sum((value for value in adjustment_values if value > 0), Fraction(0))
        sold_value = -sum((value for value in adjustment_values if value < 0), Fraction(0))
        netted_tokens.append(NettedToken(token, bought_value, sold_value))
    return tuple(netted_tokens)


def market_remainder(adjustments: StrategyValues, netted_token: NettedToken) -> dict[str, Value]:
    """Return each strategy's part of a token that the market has to fill: pro rata on the heavier
    side, 0 on the other.
    """
    larger_side_value = max(netted_token.bought_value, netted_token.sold_value)
    remainder_by_name = dict.fromkeys(adjustments, Fraction(0))
    for name, adjustment in adjustments.items():
        adjustment_value = adjustment.get(netted_token.token, Fraction(0))
        if adjustment_value * netted_token.net_value > 0:
            remainder_by_name[name] = (
                adjustment_value * abs(netted_token.net_value) / larger_side_value
            )
    return remainder_by_name


def net_internally(
    holdings: StrategyHoldings, adjustments: StrategyValues, prices: Prices, tokens: Sequence[str]
) -> None:
    """Exchange opposite adjustments between strategies, at reference prices and in place."""
    for netted_token in net_adjustments(adjustments, tokens):
        token = netted_token.token
        price = prices[netted_token.token]
        if netted_token.crossed_value <= 0 or price <= 0:
            continue
        adjustment_by_name = {
            name: adjustment[token]
            for name, adjustment in adjustments.items()
            if token in adjustment
        }
        sale_value_by_name = {
            name: -value * netted_token.crossed_value / netted_token.sold_value
            for name, value in adjustment_by_name.items()
            if value < 0
        }
        purchase_value_by_name = {
            name: value for name, value in adjustment_by_name.items() if value > 0
        }
        sale_raw_by_name = {
            name: min(holdings[name].get(token, 0), floor_int(value / price))
            for name, value in sale_value_by_name.items()
        }
        for name, raw in sale_raw_by_name.items():
            holdings[name][token] -= raw
        for name, raw in split_pro_rata(
            sum(sale_raw_by_name.values()), purchase_value_by_name
        ).items():
            holdings[name][token] = holdings[name].get(token, 0) + raw


def settle_trade(
    holdings_before: Mapping[str, Mapping[str, int]],
    adjustments: StrategyValues,
    change_raw_by_token: Mapping[str, int],
    prices: Prices,
    tokens: Sequence[str],
) -> tuple[StrategyHoldings, dict[str, Value]]:
    """Return the holdings after a trade that changed the wallet by `change_raw_by_token` (base
    units by token), and its cost by strategy.

    Opposite adjustments are netted at reference prices, and the market's fills go to those with a
    remainder; what is sold beyond it, such as an asset above limits.max_weight, all holders give.
    The cost is shared in proportion to it, and that of such sales by capital (all of it if there is
    no remainder). A strategy that received more than its part pays the others, first in tokens that
    it did not want. Without `change_raw_by_token` adjustments are only netted. Raises ValueError if
    the trade spent more than all hold.
    """
    capital_before = strategy_capital(holdings_before, prices)
    holdings = copy_holdings(holdings_before)
    remainder_values: dict[str, dict[str, Value]] = {name: {} for name in holdings_before}
    for netted_token in net_adjustments(adjustments, tokens):
        for name, value in market_remainder(adjustments, netted_token).items():
            remainder_values[name][netted_token.token] = value
    net_internally(holdings, adjustments, prices, tokens)
    unrequested_value = Fraction(0)
    for token in tokens:
        change_raw = change_raw_by_token.get(token, 0)
        change_sign = sign_of(change_raw)
        requested_values = {
            name: max(token_values.get(token, Fraction(0)) * change_sign, Fraction(0))
            for name, token_values in remainder_values.items()
        }
        if change_raw > 0:
            split_weights = (
                requested_values if sum(requested_values.values()) > 0 else capital_before
            )
            for name, raw in split_pro_rata(change_raw, split_weights).items():
                holdings[name][token] = holdings[name].get(token, 0) + raw
        elif change_raw < 0:
            _deduct_sale(holdings, token, -change_raw, requested_values, prices[token])
            requested_value = sum(requested_values.values(), Fraction(0))
            unrequested_value += max(Fraction(0), -change_raw * prices[token] - requested_value)
    total_cost = -sum(
        (
            change_raw * prices[token]
            for token, change_raw in change_raw_by_token.items()
            if change_raw
        ),
        Fraction(0),
    )
    remainder_sizes = {
        name: sum((abs(value) for value in token_values.values()), Fraction(0))
        for name, token_values in remainder_values.items()
    }
    cost_weights = remainder_sizes if any(remainder_sizes.values()) else capital_before
    # a sale may exceed the wishes by what the trade costs
    unrequested_value -= max(Fraction(0), total_cost)
    if unrequested_value > 0 and cost_weights is remainder_sizes:
        total_capital = sum(capital_before.values(), Fraction(0))
        cost_weights = {
            name: size + unrequested_value * capital_before[name] / total_capital
            for name, size in remainder_sizes.items()
        }
    weight_sum = sum(cost_weights.values(), Fraction(0))
    if weight_sum > 0:
        cost_by_name = {
            name: total_cost * cost_weights[name] / weight_sum for name in holdings_before
        }
    else:
        cost_by_name = {name: total_cost / len(cost_weights) for name in holdings_before}
    target_values = {name: capital_before[name] - cost_by_name[name] for name in holdings_before}
    wanted_values = {
        name: {
            priced_token: holdings_before[name].get(priced_token, 0) * prices[priced_token]
            + adjustments.get(name, {}).get(priced_token, Fraction(0))
            for priced_token in tokens
        }
        for name in holdings_before
    }
    restore_capital_shares(holdings, target_values, prices, wanted_values)
    return holdings, cost_by_name


def _deduct_sale(
    holdings: StrategyHoldings,
    token: str,
    raw: int,
    sale_values: Mapping[str, Fraction],
    price: Price,
) -> None:
    """Take from the strategies in proportion to their `sale_values`, up to these and their
    holdings, and the remainder pro rata from all holders; in place.
    """
    if sum(sale_values.values()) > 0:
        for name, part_raw in split_pro_rata(raw, sale_values).items():
            requested_raw = ceil_int(sale_values[name] / price)
            taken_raw = min(part_raw, requested_raw, holdings[name].get(token, 0))
            holdings[name][token] = holdings[name].get(token, 0) - taken_raw
            raw -= taken_raw
    for name, part_raw in take_pro_rata(raw, token, holdings).items():
        holdings[name][token] = holdings[name].get(token, 0) - part_raw


def apply_transfer(
    holdings_before: Mapping[str, Mapping[str, int]],
    token: str,
    raw: int,
    prices: Prices,
    only_strategy: str | None = None,
) -> StrategyHoldings:
    """Return the holdings after a transfer of `raw` base units (negative: out of the wallet), by
    capital share or for `only_strategy`. A decrease is taken from the holders of the token; the
    others then pay them in kind, so that each bears its share of the value. Raises ValueError if
    the decrease exceeds all holdings.
    """
    holdings = copy_holdings(holdings_before)
    capital_before = strategy_capital(holdings_before, prices)
    total_capital = sum(capital_before.values(), Fraction(0))
    weight_by_name = dict(capital_before)
    if only_strategy in holdings_before:
        weight_by_name = {name: Fraction(name == only_strategy) for name in capital_before}
    if raw >= 0:
        for name, received_raw in split_pro_rata(raw, weight_by_name).items():
            holdings[name][token] = holdings[name].get(token, 0) + received_raw
        return holdings
    for name, taken_raw in take_pro_rata(-raw, token, holdings).items():
        holdings[name][token] = holdings[name].get(token, 0) - taken_raw
    decrease_value = -raw * prices[token]
    if only_strategy is not None and only_strategy in holdings_before:
        decrease_value = min(decrease_value, capital_before[only_strategy])
    elif total_capital > 0:
        weight_by_name = {
            name: strategy_value / total_capital for name, strategy_value in capital_before.items()
        }
    lost_value = total_capital - sum(strategy_capital(holdings, prices).values(), Fraction(0))
    target_values = {
        name: max(capital_before[name] - decrease_value * weight_by_name[name], Fraction(0))
        for name in holdings_before
    }
    unpaid_value = lost_value - sum(
        (capital_before[name] - target_values[name] for name in holdings_before), Fraction(0)
    )
    if unpaid_value > 0:
        # the strategy has less than the decrease, so the others bear the remainder
        other_values = {
            name: strategy_value
            for name, strategy_value in target_values.items()
            if strategy_value > 0
        }
        other_values_sum = sum(other_values.values(), Fraction(0))
        target_values |= {
            name: strategy_value - unpaid_value * strategy_value / other_values_sum
            for name, strategy_value in other_values.items()
        }
    restore_capital_shares(holdings, target_values, prices)
    return holdings


def target_capital_shares(
    split: CapitalSplit, books: Mapping[str, StrategyBook]
) -> dict[str, Fraction]:
    """Return each strategy's target share of the capital: paused ones their floor, the others the
    rest in proportion.
    """
    paused_names = {
        strategy.name
        for strategy in split.strategies
        if books[strategy.name].state.health is StrategyHealth.PAUSED
    }
    if len(paused_names) == len(split.strategies):
        return {strategy.name: Fraction(strategy.share_bps, BPS) for strategy in split.strategies}
    floors_bps = sum(
        strategy.floor_bps for strategy in split.strategies if strategy.name in paused_names
    )
    active_bps = sum(
        strategy.share_bps for strategy in split.strategies if strategy.name not in paused_names
    )
    return {
        strategy.name: (
            Fraction(strategy.floor_bps, BPS)
            if strategy.name in paused_names
            else Fraction(strategy.share_bps * (BPS - floors_bps), active_bps * BPS)
        )
        for strategy in split.strategies
    }


def current_weights(strategy: Strategy, state: StrategyState, numeraire: str) -> dict[str, int]:
    """Return a strategy's target weights, bps by token: all in the numeraire while it is paused."""
    if state.health is StrategyHealth.PAUSED:
        return {numeraire: BPS}
    return dict(strategy.weights_bps)
