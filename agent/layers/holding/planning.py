"""Plans that do not sell held tokens."""

from __future__ import annotations

from dataclasses import replace

from agent.layers.holding.policy import (
    held_reason,
    held_text,
    hold_ends_s_by_token,
    tokens_sold_early,
)
from agent.model import Plan, Rebalance, SkippedItem, StepInput
from agent.planning import planner
from agent.planning.plan_builder import LOCKED_EXCESS
from agent.units import Value


def without_held_sales(
    step: StepInput,
    decision: Rebalance,
    unrestricted_plan: Plan,
    turnover_cap: tuple[Value, str] | None,
) -> Plan:
    """Return the plan, or one that sells no token that is held. Its decision lists these tokens as
    unsold, so that later plans from it do not sell them either. Exits never wait.

    `turnover_cap` bounds the plan's turnover, with the name of that limit. Raises NothingPlanned if
    nothing else is worth a trade.
    """
    sold_tokens = tokens_sold_early(step, unrestricted_plan)
    if decision.is_exit or not sold_tokens:
        return unrestricted_plan
    unsold_tokens = tuple(dict.fromkeys((*decision.goal.never_sold, *hold_ends_s_by_token(step))))
    restricted_decision = replace(decision, goal=replace(decision.goal, never_sold=unsold_tokens))
    try:
        plan = planner.plan(step, restricted_decision, turnover_cap=turnover_cap)
    except planner.NothingPlanned as error:
        reason = held_reason(
            step, [token for token in sold_tokens if held_text(step, token) not in decision.reason]
        )
        raise planner.NothingPlanned(
            "; ".join(
                sentence
                for sentence in (reason, "no other swap is possible or worth its cost")
                if sentence
            ),
            error.verdicts,
            "wait until then, or lower holding.hours",
            LOCKED_EXCESS,
            error.drift_value,
            error.off_target_items,
        ) from None
    held_text_by_label = {
        step.portfolio.token(token).label: held_text(step, token) for token in sold_tokens
    }
    unaffected_items = [
        skipped_item
        for skipped_item in plan.skipped
        if skipped_item.subject not in held_text_by_label
    ]
    held_items = [
        SkippedItem(label, sentence, LOCKED_EXCESS)
        for label, sentence in held_text_by_label.items()
    ]
    return replace(plan, skipped=(*unaffected_items, *held_items))
