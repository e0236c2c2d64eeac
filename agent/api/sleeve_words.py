"""Strategies as a document and in sentences; loads no chain."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from typing import Any

from agent.model import Portfolio, StepInput
from agent.model.strategies import Sleeve, Split, Strategy
from agent.policy import trigger_words
from agent.policy.sleeve_desk import ONE, unit_value
from agent.policy.sleeve_wishes import SleeveWish, due_shares
from agent.policy.sleeves import SleevesView
from agent.policy.words import span
from agent.units import BPS, Price, decimal_text, value_text

Document = dict[str, Any]


def netting(found: SleevesView | None, portfolio: Portfolio) -> Document | None:
    """Who acts, what is exchanged inside and what that saves; None where one strategy has the whole wallet. Values in the numeraire."""
    if found is None:
        return None

    def money(value: Fraction) -> str:
        return value_text(value, portfolio.numeraire.decimals)

    return {
        "acting": [one.name for one in found.wishes if one.acts],
        "reasons": {one.name: one.reason for one in found.wishes},
        "capital_moved": [{"from": giver, "to": receiver, "value": money(value)} for giver, receiver, value in found.moved],
        "netted": [
            {
                "symbol": portfolio.token(one.token).label,
                "bought": money(one.bought),
                "sold": money(one.sold),
                "crossed": money(one.crossed),
                "net": money(one.net),
            }
            for one in found.netted
            if one.bought or one.sold
        ],
        "crossed": money(found.crossed),
        "saved_fees": money(found.saved),
    }


def sentences(found: SleevesView | None, step: StepInput) -> list[str]:
    """The same in words; nothing where one strategy has the whole wallet."""
    told = netting(found, step.portfolio)
    if found is None or told is None:
        return []
    unit = step.portfolio.numeraire.label
    words = [f"Strategy {one.name} {'acted' if one.acts else 'waited'}: {one.reason}." for one in found.wishes]
    words += [f"Capital worth {one['value']} {unit} went from {one['from']} to {one['to']}, inside." for one in told["capital_moved"]]
    words += [
        f"{one['symbol']}: {one['bought']} {unit} were wanted and {one['sold']} offered, {one['crossed']} exchanged inside, "
        f"{one['net']} left for the market."
        for one in told["netted"]
    ]
    return words + ([f"That saved at least {told['saved_fees']} {unit} of pool fees."] if found.saved else [])


def sleeve(one: Sleeve, split: Split, wish: SleeveWish | None, due: Fraction, step: StepInput, prices: dict[str, Price]) -> Document:
    """One strategy: capital, share, unit value, return, Sharpe ratio, state, and what it holds."""
    portfolio = step.portfolio
    decimals = portfolio.numeraire.decimals
    value = sum((raw * prices[token] for token, raw in one.holdings if raw), Fraction(0))
    unit = unit_value(value, one.units)
    strategy = next(item for item in split.strategies if item.name == one.name)
    whole = max(value, Fraction(1))
    return {
        "name": one.name,
        "state": one.state.health.value,
        "since_s": one.state.since_s,
        "why": one.state.reason,
        "capital": value_text(value, decimals),
        "share_bps": None if wish is None else round(wish.share * BPS),
        "target_share_bps": round(due * BPS),
        "floor_bps": strategy.floor_bps,
        "units": str(one.units),
        "unit_value": None if unit is None else decimal_text(unit, 12),
        "return_bps": None if unit is None else round(Fraction(unit - ONE, ONE) * BPS),
        "sharpe": None if one.state.sharpe_milli is None else decimal_text(one.state.sharpe_milli, 3),
        "sharpe_window_s": None if strategy.health is None else strategy.health.window_s,
        "turning_since_s": one.state.turning_s,
        "costs": value_text(one.costs, decimals),
        "last_rebalance_s": one.last_rebalance_s,
        "acts": wish is not None and wish.acts,
        "reason": "" if wish is None else wish.reason,
        "holdings": [
            {
                "symbol": portfolio.token(token).label,
                "raw": str(raw),
                "amount": value_text(Fraction(raw), portfolio.token(token).decimals),
                "value": value_text(raw * prices[token], decimals),
                "weight_bps": round(raw * prices[token] / whole * BPS),
                "target_bps": dict(strategy.weights_bps).get(token, 0),
            }
            for token, raw in one.holdings
        ],
    }


def shares_due(step: StepInput) -> dict[str, Fraction]:
    """Share of the capital that each strategy of the config should have; those of the config where the books are other ones."""
    split, books = step.split, step.history.sleeves
    if split is None or books is None:
        return {}
    if {one.name for one in split.strategies} != set(books.named):
        return {one.name: Fraction(one.share_bps, BPS) for one in split.strategies}
    return due_shares(split, books.named)


def parameters(split: Split | None, portfolio: Portfolio, chosen: Mapping[str, str]) -> dict[str, str]:
    """What binds each strategy, and the split, in words by name; nothing where one strategy has the whole wallet.

    `chosen` says by name how an allocator chooses its weights.
    """
    if split is None:
        return {}
    found = {f"strategy {one.name}": _bound(one, portfolio, chosen.get(one.name, "")) for one in split.strategies}
    band = split.band
    widths = [] if band.absolute_bps is None else [f"{band.absolute_bps / 100:g} points"]
    widths += [] if band.relative_bps is None else [f"{band.relative_bps / 100:g}% of a share"]
    return found | {"split": f"restored beyond {' or '.join(widths)}"}


def _bound(one: Strategy, portfolio: Portfolio, chosen: str) -> str:
    labels = {asset.token.address: asset.token.label for asset in portfolio.assets}
    weights = ", ".join(f"{labels.get(token, token)} {bps / 100:g}%" for token, bps in one.weights_bps)
    rule, health = one.health, "off"
    if rule is not None:
        low, high = decimal_text(rule.limit_milli, 3), decimal_text(rule.recover_milli, 3)
        health = f"Sharpe ratio of {span(rule.window_s)} below {low} for {span(rule.period_s)}, back at {high} for {span(rule.recover_s)}"
    parts = [f"{one.share_bps / 100:g}% of the capital, floor {one.floor_bps / 100:g}%", weights, *([chosen] if chosen else [])]
    parts += [trigger_words.trigger(one.trigger, portfolio), one.destination.value, f"cooldown {span(one.cooldown_s)}", f"health {health}"]
    return "; ".join(parts)
