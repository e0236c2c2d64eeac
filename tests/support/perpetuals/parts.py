"""Outcomes of steps that trade spot and futures."""

from __future__ import annotations

from dataclasses import replace

from agent.execution.evaluation import evaluate_input
from agent.execution.step_context import StepOutcome
from agent.layers.futures.state import with_policy
from agent.model import StepInput
from agent.model.futures import MarginAccount
from agent.planning.proposals import propose_rebalance
from tests.support.builders import step_input, with_history, with_snapshot
from tests.support.fakes.evidence import FakeEvidenceSource
from tests.support.perpetuals.steps import FUTURES_POLICY


def step_of(margin_account: MarginAccount, values: dict[str, int], **history: object) -> StepInput:
    step = with_policy(with_snapshot(step_input(values=values), futures=margin_account), FUTURES_POLICY)
    step = replace(step, limits=replace(step.limits, daily_loss_bps=1_000))
    return with_history(step, **history)


def outcome_of(step: StepInput, *, paused: bool = False) -> StepOutcome:
    return evaluate_input(step, propose_rebalance, FakeEvidenceSource(paused=paused))
