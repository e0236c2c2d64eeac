"""Steps after a plan of liquidity."""

from __future__ import annotations

from dataclasses import replace

from agent.model import StepInput
from tests.support.builders import with_snapshot
from tests.support.decisions.liquidity_plans import liquidity_answers
from tests.support.lp_worlds import planned


def step_after_plan(step: StepInput) -> StepInput:
    """Return the step that a new snapshot gives after the plan: positions and balances as predicted."""
    book_after = liquidity_answers(step, planned(step)).replay.book_after
    holdings = tuple(replace(holding, raw=book_after.wallet_raw_by_token[holding.token]) for holding in step.snapshot.holdings)
    step_after = with_snapshot(step, holdings=holdings, positions=tuple(position for _, position in book_after.position_states))
    return replace(step_after, portfolio=replace(step.portfolio, positions=tuple(confirmed for confirmed, _ in book_after.position_states)))
