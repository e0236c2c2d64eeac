"""Fired exits that a proposal holds up, since nothing else is proposed while it waits."""

from __future__ import annotations

from agent.execution.submission.proposal_words import WITHDRAWAL_ADVICE
from agent.model import (
    PORTFOLIO_SUBJECT,
    ConditionalOrder,
    IntentKind,
    OrderStage,
    StepInput,
)
from agent.policy.orders.conditional import order_name
from agent.ports import Grant


def held_up_text(step: StepInput, grant: Grant) -> str:
    """Return which fired exits wait for the end of a proposal that does not sell them, and what ends it;
    "" for none.
    """
    names = [
        order_name(step.portfolio, order)
        for order in step.history.orders.states
        if order.is_exit and order.stage is OrderStage.FIRED and not _sells(step, grant, order)
    ]
    if not names:
        return ""
    verb = "have" if len(names) > 1 else "has"
    fired_text = f"{' and '.join(names)} {verb} fired, and nothing is sold before this"
    if grant.kind is IntentKind.CANCEL:
        return f"{fired_text} rejection is executed or has expired"
    return f"{fired_text} proposal is executed or given up: {WITHDRAWAL_ADVICE}"


def _sells(step: StepInput, grant: Grant, order: ConditionalOrder) -> bool:
    """Return whether a proposal sells for the order, or makes the approval for a sale of its token."""
    plan = grant.plan
    sold_tokens: set[str] = set()
    if plan is not None and plan.is_exit:
        sold_tokens = {leg.token_in for leg in plan.legs}
    elif grant.approval_terms is not None:
        sold_tokens = {grant.approval_terms[0]} - {step.portfolio.numeraire.address}
    return bool(sold_tokens) if order.token == PORTFOLIO_SUBJECT else order.token in sold_tokens
