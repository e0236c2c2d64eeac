"""Gradual executions for tests: their config, and a clock during which the market recovers."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

from sqlalchemy import select

from agent.layers.gradual.state import GradualExecution, SliceDraw
from agent.localchain import LocalChain
from agent.model import Destination, ExecutionPace, ExecutionStyle, Goal, GoalWeight, Holding, Plan, StepInput
from agent.store.store import Store
from agent.store.tables import ExecutionAttemptRow
from tests.support.builders import step_input, with_limits, with_snapshot
from tests.support.constants import USD
from tests.support.fakes.clock import FakeClock, chain_clock
from tests.support.tokens import USDC, WETH

LARGE = {
    "portfolio.max_live_value": "10000000",
    "limits.turnover": "off",
    "limits.daily_turnover": "off",
    "limits.price_impact": "4%",
    "limits.plan_cost": "3%",
    "limits.oracle_deviation": "4%",
    "policy.cooldown": "1h",
}
"""Limits for corrections that move real pools."""
ROUNDS = LARGE | {
    "execution.style": "rounds",
    "execution.max_rounds": 3,
    "execution.interval": "40s",
    "execution.recovery": "12s",
    "execution.waiting_cost": "0.1bps",
    "execution.size_jitter": "30%",
    "execution.time_jitter": "50%",
    "execution.budget": "1%",
}
TWAP = LARGE | {
    "execution.style": "twap",
    "execution.max_rounds": 4,
    "execution.over": "4m",
    "execution.size_jitter": "30%",
    "execution.time_jitter": "50%",
    "execution.budget": "1%",
}
TARGETS = {"WETH": "50%", "USDC": "50%"}
OFF = {"WETH": 1_600_000, "USDC": 400_000}
"""600,000 dollars off target: a single trade has most of a percent of impact."""
COMES_BACK_S = 20


def recovering_clock(chain: LocalChain, pools: str = "WETH/USDC") -> FakeClock:
    """Return the chain's clock; while it sleeps, the pools return to the world's prices."""

    def recover() -> None:
        if sum(clock.sleeps) >= COMES_BACK_S:
            clock.sleeps.clear()
            for name, pool in chain.deployed_world.pool_by_name.items():
                if pools in name:
                    chain.arbitrage(pool)

    clock = chain_clock(chain, on_sleep=recover)
    return clock


# --- Without a chain.
PACE = ExecutionPace(
    ExecutionStyle.ROUNDS,
    max_rounds=6,
    interval_s=600,
    recovery_s=600,
    size_jitter_bps=3_000,
    time_jitter_bps=5_000,
    max_loss_bps=100,
    waiting_bps_hour=Fraction(1, 2),
)


STORED_EXECUTION = GradualExecution(
    pace=PACE,
    targets_bps=((WETH.address, 5_000), (USDC.address, 5_000)),
    destination=Destination.TARGET,
    goal=Goal(tuple(GoalWeight(token.address, Fraction(1, 2), Fraction(1, 2)) for token in (WETH, USDC))),
    arrival_prices=((USDC.address, Fraction(1)), (WETH.address, Fraction(2_000, 10**12))),
    side_by_token=((WETH.address, -1), (USDC.address, 1)),
    value_to_move=Fraction(3_000 * USD),
    rounds=3,
    max_loss=Fraction(30 * USD),
    began_s=1_000,
    ends_s=5_000,
    expires_s=5_600,
    first_draw=SliceDraw(1, 2),
)
"""An execution that sells 3,000 dollars of WETH in three slices, from second 1,000 on."""


def paced(step: StepInput, pace: ExecutionPace | None = None, **changes: object) -> StepInput:
    """Return the step under this pace, by default PACE with `changes`."""
    pace_of_plan = replace(pace or PACE, **changes)  # type: ignore[arg-type]  # fields by name
    return replace(step, execution=replace(step.execution, pace=pace_of_plan))


def roomy(step: StepInput, **limits: object) -> StepInput:
    """Return the step with limits that allow a large correction."""
    limit_fields: dict[str, object] = {"turnover_bps": None, "daily_turnover_bps": None, "plan_cost_bps": 500, "price_impact_bps": 2_000}
    return with_limits(step, **limit_fields | limits)


def step_after_plan(step: StepInput, plan: Plan, seconds: int) -> StepInput:
    """Return the step `seconds` after the plan was executed, with all pools and feeds back at the previous prices."""
    raw_by_token = dict(plan.holdings_after)
    head = step.snapshot.head
    snapshot = replace(
        step.snapshot,
        head=replace(head, number=head.number + 1, timestamp_s=head.timestamp_s + seconds),
        now_s=step.snapshot.now_s + seconds,
        holdings=tuple(Holding(holding.token, raw_by_token.get(holding.token, holding.raw)) for holding in step.snapshot.holdings),
        feeds=tuple(replace(feed, updated_at_s=feed.updated_at_s + seconds) for feed in step.snapshot.feeds),
    )
    return replace(step, snapshot=snapshot)


def later(step: StepInput, seconds: int) -> StepInput:
    """Return the step `seconds` later, otherwise unchanged."""
    holdings = tuple((holding.token, holding.raw) for holding in step.snapshot.holdings)
    head = step.snapshot.head
    snapshot = replace(
        step.snapshot,
        head=replace(head, number=head.number + 1, timestamp_s=head.timestamp_s + seconds),
        now_s=step.snapshot.now_s + seconds,
        holdings=tuple(Holding(token, raw) for token, raw in holdings),
        feeds=tuple(replace(feed, updated_at_s=feed.updated_at_s + seconds) for feed in step.snapshot.feeds),
    )
    return replace(step, snapshot=snapshot)


def market(step: StepInput, price: Fraction) -> StepInput:
    """Return the step with another price of WETH, in pools of 20 million on each side and in feeds."""
    other = step_input(None, {"WETH": 1, "USDC": 1}, {"WETH": price}, depth=20_000_000, now_s=step.snapshot.head.timestamp_s)
    return with_snapshot(step, pools=other.snapshot.pools, feeds=other.snapshot.feeds)


def part_of_step(store: Store, step_id: str) -> tuple[str, int]:
    """Return execution and number of the part that a step attempted."""
    attempts = select(ExecutionAttemptRow.execution_id, ExecutionAttemptRow.part_number)
    with store.db.read("read the attempts") as db:
        (attempt,) = db.execute(attempts.where(ExecutionAttemptRow.step_id == step_id))
    return attempt.execution_id, attempt.part_number
