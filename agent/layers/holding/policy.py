"""Tokens that a rebalance may not sell yet, and the reason that decisions give."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from agent.layers.holding.state import HoldingConfig, HoldingState
from agent.model import Hold, Plan, Rebalance, StepInput
from agent.policy.decision import DecisionResult
from agent.units import format_time


def hold_ends_s_by_token(step: StepInput) -> dict[str, int]:
    """Return the chain time from which each token that is held may be sold."""
    config = step.config(HoldingConfig)
    now_s = step.snapshot.head.timestamp_s
    hold_end_s_by_token = {
        token: bought_s + config.min_hold_s
        for token, bought_s in step.layer(HoldingState).bought_s_by_token
        if token in config.tokens
    }
    return {token: end_s for token, end_s in hold_end_s_by_token.items() if now_s < end_s}


def tokens_sold_early(step: StepInput, plan: Plan) -> list[str]:
    """Return the held tokens of which the plan leaves less in the wallet. Native coin counts as its
    wrapped token.
    """
    change_raw_by_token = step.portfolio.asset_changes(plan.wallet_changes())
    return [token for token in hold_ends_s_by_token(step) if change_raw_by_token.get(token, 0) < 0]


def held_text(step: StepInput, token: str) -> str:
    """Return when a held token was bought, and until when it is kept."""
    end_s = hold_ends_s_by_token(step)[token]
    bought_s = end_s - step.config(HoldingConfig).min_hold_s
    return f"bought {format_time(bought_s)}, is kept until {format_time(end_s)} (holding.hours)"


def held_reason(step: StepInput, tokens: Iterable[str]) -> str:
    """Return the same of several tokens with their names; empty without tokens."""
    return "; ".join(
        f"{step.portfolio.token(token).label}, {held_text(step, token)}" for token in tokens
    )


def explain_held_assets(step: StepInput, decision_result: DecisionResult) -> DecisionResult:
    """Return the decision with the reason for each asset above its band that is held. Exits and
    halts do not need it.
    """
    decision = decision_result.decision
    if not isinstance(decision, Hold | Rebalance):
        return decision_result
    if isinstance(decision, Rebalance) and (decision.is_exit or decision.by_hand):
        return decision_result
    hold_end_s_by_token = hold_ends_s_by_token(step)
    tokens_above_target = [
        drift.token
        for drift in decision_result.drifts
        if drift.token in hold_end_s_by_token and drift.is_outside_band and drift.drift_bps > 0
    ]
    reason = "; ".join(
        reason_part
        for reason_part in (decision.reason, held_reason(step, tokens_above_target))
        if reason_part
    )
    return replace(decision_result, decision=replace(decision, reason=reason))
