"""Hedges of tokens of a wallet by short positions."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

from agent.layers.futures.policy.hedges import apply_hedges
from agent.layers.futures.state import with_policy
from agent.layers.tax.state import TaxState
from agent.model import LotMethod, OpenLot, StepInput, TaxInputs
from agent.model.futures import FuturesPolicy, FuturesTarget, Hedge, HedgePolicy, MarginAccount
from tests.support.builders import NOW_S, step_input, token, with_history, with_snapshot
from tests.support.perpetuals.steps import LIMITS, book

E6 = 10**6
E18 = 10**18
DAY_S = 86_400
USDC, WETH, WBTC = (token(symbol).address for symbol in ("USDC", "WETH", "WBTC"))
TERMS = HedgePolicy(ratio_bps=5_000, horizon_s=30 * DAY_S, min_saving_bps=50, tax_rate_bps=2_500, capital_cost_bps=400)
HEDGING = FuturesPolicy((FuturesTarget("ETH", 0),), 0, 500, LIMITS, USDC, hedge_policy=TERMS)


def hedge_account(collateral: int, eth: int = 0, **market: object) -> MarginAccount:
    """A margin account of USDC with a market of WETH at 2,000."""
    return replace(book(collateral, eth, **{"asset": WETH} | market), collateral_unit_raw=10**12)


def overweight_step(
    margin_account: MarginAccount | None = None,
    cost: int = 0,
    policy: FuturesPolicy = HEDGING,
    weth: int = 80_000,
    usdc: int = 30_000,
    **history: object,
) -> StepInput:
    """80,000 of WETH bought for `cost`, 30,000 of USDC and 10,000 of margin: half should be WETH, 20,000 less."""
    account = hedge_account(10_000) if margin_account is None else margin_account
    step = with_policy(with_snapshot(step_input(values={"WETH": weth, "USDC": usdc}, depth=100_000_000), futures=account), policy)
    lots = (OpenLot(WETH, 100 * E18, Fraction(cost * E6), NOW_S - 100 * DAY_S),)
    tax = TaxInputs(LotMethod.FIFO, "", Fraction(1), lots, Fraction(0), None)
    return apply_hedges(with_history(step, **history).with_layer(TaxState(tax)))


OPEN = Hedge("ETH", WETH, -5 * E18, NOW_S, Fraction(2_500 * E6))
SHORT = hedge_account(10_000, -5 * E18)


def hedge_step_after(seconds: int, **changes: object) -> StepInput:
    """An open hedge this many seconds after its opening."""
    return overweight_step(SHORT, hedges=(replace(OPEN, at_s=NOW_S - seconds),), **{"weth": 70_000} | changes)  # type: ignore[arg-type]
