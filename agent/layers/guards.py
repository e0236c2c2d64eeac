"""Guards of every plan, in the order of their verdicts, core and layers together."""

from __future__ import annotations

from typing import Any

from agent.guards import market, portfolio, safety
from agent.guards.guard import Guard
from agent.layers.futures import guards as futures
from agent.layers.holding import guards as holding
from agent.layers.liquidity import guards as liquidity
from agent.layers.tax import guards as tax

GUARDS: tuple[Guard[Any], ...] = (
    safety.KILL_SWITCH,
    safety.QUORUM,
    safety.ALLOWLIST,
    safety.TOKEN_SCREEN,
    safety.REVERTS_IN_ROW,
    safety.HEAD_AGE,
    safety.EXPIRY,
    safety.BALANCE.measured_by(liquidity.measure_overspending),
    safety.PREDICTION.measured_by(liquidity.measure_misprediction),
    market.PRICE_IMPACT,
    market.SLIPPAGE.measured_by(liquidity.slippage),
    market.FAIR_FLOOR.measured_by(liquidity.measure_fair_floor),
    market.POOL_MIN_VALUE,
    portfolio.PLAN_COST.measured_by(futures.plan_cost, liquidity.plan_cost),
    portfolio.TURNOVER,
    portfolio.DAILY_TURNOVER,
    portfolio.DAILY_LOSS,
    portfolio.TOTAL_LOSS,
    portfolio.BALANCE_JUMP,
    tax.YEAR_LIMIT,
    holding.HOLDING_GUARD,
    portfolio.MAX_WEIGHT,
    portfolio.MIN_TRADE.measured_by(liquidity.smallest_action),
    portfolio.MAX_LIVE_VALUE,
    *liquidity.POSITION_GUARDS,
    market.ORACLE_DEVIATION,
    market.FEED_HEALTH,
    market.SEQUENCER,
    market.SECOND_QUOTE_DEVIATION,
    market.DEPEG,
    safety.GAS_PRICE,
    safety.GAS_PER_DAY,
    safety.NATIVE_FLOOR,
    *futures.FUTURES_GUARDS,
)
