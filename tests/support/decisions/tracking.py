"""Steps under the tracking rule."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from fractions import Fraction
from typing import Any

from agent.model import Destination, Pool, StepInput
from agent.planning.proposals import propose_rebalance
from agent.policy.decide import decide
from agent.policy.risk_estimates import complete_risk
from agent.policy.triggers.no_trade_zone import ZoneInterval, ZoneView, build_tracking
from tests.support.builders import GWEI, history, price_of, step_input, token, v2_pool, with_snapshot

TARGETS = {"WETH": 2_500, "WBTC": 2_500, "LINK": 2_000, "USDC": 3_000}
ON_TARGET = {symbol: 5 * bps for symbol, bps in TARGETS.items()}
"""50,000 dollars."""
DEPTH = 100_000_000
TRADED_S = 1_600_000_000


def tracking_step(values: Mapping[str, int | Fraction] | None = None, strictness: str = "normal", **changes: Any) -> StepInput:
    """A step under the tracking rule in a wallet that has traded before, with deep pools of 0.3 % and gas of a dime."""
    step = step_input(
        changes.pop("targets", TARGETS),
        values or ON_TARGET,
        depth=DEPTH,
        trigger=build_tracking(strictness),
        destination=Destination.ZONE,
        past=history(last_rebalance_s=TRADED_S),
        cooldown_s=0,
        **changes,
    )
    head = replace(step.snapshot.head, base_fee_wei=GWEI // 4)
    return complete_risk(with_snapshot(step, priority_fee_wei=0, head=head))


def pools_of(depth: int, fee_pips: int = 3_000) -> list[Pool]:
    """A pool of each coin with the numeraire at its price."""
    return [v2_pool(token(symbol), token("USDC"), price_of(symbol), depth, fee_pips=fee_pips) for symbol in ("WETH", "WBTC", "LINK")]


def balance_changes(**dollars: int) -> dict[str, int]:
    """What is held if these were bought from the cash."""
    values = {symbol: ON_TARGET[symbol] + dollars.get(symbol, 0) for symbol in TARGETS}
    values["USDC"] -= sum(dollars.values())
    return values


def zone_of(step: StepInput) -> ZoneView:
    zone = decide(step).zone
    assert zone is not None
    return zone


def interval(step: StepInput, symbol: str) -> ZoneInterval:
    return next(row for row in zone_of(step).intervals if row.token == token(symbol).address)


def weights_after(step: StepInput) -> dict[str, float]:
    plan = propose_rebalance(step).plan
    assert plan is not None
    return {step.portfolio.token(address).symbol: bps / 100 for address, bps in plan.weights_after_bps}
