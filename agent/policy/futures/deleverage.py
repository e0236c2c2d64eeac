"""Reductions requested by the owner: every position by the same share, or one market."""

from __future__ import annotations

from collections.abc import Collection
from fractions import Fraction

from agent.margin import account as margin
from agent.margin.account import index_bound_raw
from agent.model import MarginAccount, PerpMarket, Position
from agent.units import ceil_int


def closing_order(account: MarginAccount, market: str) -> dict[str, int]:
    """Return the order that closes the position in a market; empty without a position."""
    size = account.size_raw(market)
    return {market: -size} if size else {}


def deleverage_orders(
    account: MarginAccount, leverage: Fraction, markets: Collection[str], slippage_bps: int
) -> dict[str, int]:
    """Return the orders that reduce the positions in `markets` by the same share, in whole lots
    rounded up, until the leverage is at most `leverage`; empty if it already is. Each fill counts
    at its bound with its fee. Positions are closed if nothing less is enough.
    """
    gross, value = margin.gross_notional_raw(account), margin.account_value_raw(account)
    held = [one for one in account.positions if one.market in markets]
    excess = gross - leverage * max(0, value)
    if excess <= 0 or not held:
        return {}
    gained = sum(
        (
            abs(margin.value_at_mark_raw(account, one))
            * (1 - leverage * _cost_share(account.market(one.market), one, slippage_bps))
            for one in held
        ),
        Fraction(0),
    )
    share = min(Fraction(1), excess / gained) if gained > 0 else Fraction(1)
    orders = {}
    for one in held:
        lot = account.market(one.market).lot_raw
        size = min(abs(one.size_raw), ceil_int(abs(one.size_raw) * share / lot) * lot)
        orders[one.market] = -size if one.is_long else size
    return orders


def _cost_share(market: PerpMarket, held: Position, slippage_bps: int) -> Fraction:
    """Return the cost of closing at the bound, fee included, per notional at the mark."""
    value = abs(held.size_raw) * market.mark
    bound = index_bound_raw(market, -held.size_raw, slippage_bps)
    worse = value - bound if held.is_long else bound - value
    fee = max(value, Fraction(bound)) * market.fee_ppm / margin.PPM
    return (max(Fraction(0), Fraction(worse)) + fee) / value
