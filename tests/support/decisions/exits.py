"""Stops that have fired, and steps that sell for them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from agent.execution import evaluation
from agent.execution.step_context import StepOutcome
from agent.model import ConditionalOrder, OrderKind, OrdersConfig, OrderStage, Plan, Pool, StepInput
from agent.planning import proposals
from agent.policy.orders.exits import apply_orders
from tests.support.builders import Number, step_input, v2_pool, with_history, with_limits
from tests.support.fakes.evidence import FakeEvidenceSource
from tests.support.standing_orders import price_of, terms
from tests.support.tokens import LINK, USDC, WBTC, WETH

STOP = OrderKind.STOP_LOSS
DONE = OrderStage.DONE
FIRED = OrderStage.FIRED
TARGETS = {"WETH": 3_000, "WBTC": 3_000, "LINK": 2_000, "USDC": 2_000}
PRICES = {"LINK": 10}
HEAVY = {"WETH": 5_000, "WBTC": 3_000, "LINK": 2_000, "USDC": 0}
MARKET = (v2_pool(WETH, USDC, 2_000, 50_000_000), v2_pool(WBTC, USDC, 60_000, 50_000_000))
SOUND = v2_pool(LINK, USDC, 10, 50_000_000)
OFF = v2_pool(LINK, USDC, 11, 50_000_000)
"""Pays a tenth above the reference: good for us, and beyond limits.oracle_deviation all the same."""
DEAR = v2_pool(WBTC, USDC, 66_000, 50_000_000)
"""The same for WBTC."""


def step_with_stops(*symbols: str, values: Mapping[str, Number] | None = None, pools: tuple[Pool, ...] = MARKET) -> StepInput:
    """Stops of these have fired; values in USDC, on target by default."""
    step = with_limits(step_input(TARGETS, values, PRICES, pools=pools), turnover_bps=None, daily_turnover_bps=None)
    wished = tuple(terms(symbol, STOP, 1) for symbol in symbols)
    orders = tuple(ConditionalOrder(stop.token, STOP, FIRED, stop, 1, price_of("LINK", 20), None, price_of("LINK", 10)) for stop in wished)
    portfolio = replace(step.portfolio, orders=OrdersConfig(wished))
    return apply_orders(replace(with_history(step, states=orders), portfolio=portfolio))


def outcome_of(step: StepInput) -> StepOutcome:
    return evaluation.evaluate_input(step, proposals.propose_rebalance, FakeEvidenceSource(), "abc")


def sold_symbols(plan: Plan | None) -> set[str]:
    assert plan is not None
    return {token_ for leg in plan.legs for token_ in (leg.token_in, leg.token_out)}


def step_with_unpriced_stop(*symbols: str, values: Mapping[str, Number] | None = None) -> StepInput:
    """Stops of these have fired; LINK has neither a feed round nor a mean."""
    step = step_with_stops(*symbols, pools=(*MARKET, SOUND), values=values)
    feeds = tuple(feed for feed in step.snapshot.feeds if feed.answer != 10 * 10**8)
    return replace(step, snapshot=replace(step.snapshot, feeds=feeds))
