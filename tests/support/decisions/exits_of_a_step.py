"""Many stops that have fired in one step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from agent.model import ConditionalOrder, OrdersConfig, StepInput
from agent.policy.orders.exits import apply_orders
from tests.support.builders import step_input, token, v2_pool, with_history, with_limits
from tests.support.decisions.exits import FIRED, MARKET, STOP, USDC
from tests.support.standing_orders import price_of, terms

HEAVIER = {"WETH": 5_000, "WBTC": 2_000, "LINK": 2_000, "USDC": 1_000}


def step_with_equal_stops(symbols: Sequence[str]) -> StepInput:
    """A portfolio of these, WETH and USDC, all worth the same; the stops of these have fired."""
    share = 10_000 // (len(symbols) + 2)
    targets = dict.fromkeys((*symbols, "WETH"), share) | {"USDC": 10_000 - share * (len(symbols) + 1)}
    pools = (*MARKET, *(v2_pool(token(symbol), USDC, 10, 50_000_000) for symbol in symbols))
    step = step_input(targets, None, dict.fromkeys(symbols, 10), pools=pools)
    step = with_limits(step, turnover_bps=None, daily_turnover_bps=None)
    wished = tuple(terms(symbol, STOP, 1) for symbol in symbols)
    orders = tuple(ConditionalOrder(stop.token, STOP, FIRED, stop, 1, price_of("T0", 20), None, price_of("T0", 10)) for stop in wished)
    return apply_orders(replace(with_history(step, states=orders), portfolio=replace(step.portfolio, orders=OrdersConfig(wished))))
