"""Steps of a wallet with a margin account that holds ETH."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

from agent.layers.futures.state import planned_futures, with_policy
from agent.model import Plan, StepInput
from agent.model.futures import FuturesLimits, FuturesPlan, FuturesPolicy, FuturesTarget, MarginAccount
from tests.support.builders import NOW_S, step_input, with_history, with_snapshot
from tests.support.perpetuals.accounts import E18, account, market
from tests.support.plans import proposed_plan

LIMITS = FuturesLimits(30_000, 9_000, 10_000, 0, 500, 100, 500, 200, 300, 500, 600, 20_000)
FUTURES_POLICY = FuturesPolicy((FuturesTarget("ETH", 10_000),), 20_000, 500, LIMITS)
EVEN = {"WETH": 5_000, "USDC": 5_000}


def book(collateral: int, eth: int = 0, **changes: object) -> MarginAccount:
    """ETH at 2,000, of `eth` base units held."""
    margin_account = account(collateral, {"ETH": eth} if eth else {}, market("ETH"))
    fields = {"index_s": NOW_S - 60} | changes
    return replace(margin_account, markets=tuple(replace(perp, **fields) for perp in margin_account.markets))  # type: ignore[arg-type]


def step_of(margin_account: MarginAccount | None, policy: FuturesPolicy | None = FUTURES_POLICY, **history: object) -> StepInput:
    step = with_policy(with_snapshot(step_input(values=EVEN), futures=margin_account), policy)
    return with_history(step, **history)


def futures_of(plan: Plan) -> FuturesPlan:
    """Return a plan's actions on futures. Raises AssertionError with the decision's reason if it has none."""
    futures = planned_futures(plan)
    assert futures is not None, plan.decision.reason
    return futures


def proposed_futures(step: StepInput) -> FuturesPlan:
    """Return the actions on futures that are proposed for a step. Raises AssertionError if there are none."""
    return futures_of(proposed_plan(step))


OVER = book(10_000, 20 * E18)
"""4x where 3x is allowed."""
EMPTY = book(10_000)
PUSHED = book(10_000, 15 * E18, mark=Fraction(1_900))
"""3.4x at a mark 5 % below its index; 3x at the index."""
