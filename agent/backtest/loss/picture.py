"""The picture of loss against the width of the range: the tracking rule narrowed and widened, with
marks for the rule, for a policy and for a band.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from agent.backtest.loss.policies import (
    COMPARED_CHOICE,
    RULE,
    ComparedPolicy,
    LossPortfolio,
    loss_market,
    loss_policy,
)
from agent.backtest.loss.simulation import LossPolicy, SimulatedLoss, simulate_losses
from agent.model import Policy

WIDTH_FACTORS = tuple(2 ** (step / 2) for step in range(-4, 5))
"""Widths of the picture, as factors of the rule's: a quarter to four times."""


@dataclass(frozen=True, slots=True)
class LossMark:
    """A policy in the picture: its width as a factor of the rule's, None for a schedule, and its
    loss.
    """

    name: str
    width_factor: float | None
    loss: SimulatedLoss


@dataclass(frozen=True, slots=True)
class LossCurve:
    """Loss of the rule at each width, and marks; the rule's is the first."""

    points: tuple[tuple[float, SimulatedLoss], ...]
    marks: tuple[LossMark, ...]


def loss_curve(portfolio: LossPortfolio, policy: Policy) -> LossCurve:
    """Return the loss of the rule at a quarter to four times its width, with marks for the rule, the
    policy (unless it has no estimate) and a relative band of 10 %.
    """
    market = loss_market(portfolio, policy.trigger)
    own_choice = ComparedPolicy(policy.trigger, policy.destination, policy.cooldown_s)
    rule = loss_policy(portfolio, market, RULE)
    if rule is None:
        raise ValueError("the tracking rule has no estimate")
    marked = {RULE.name: rule}
    for choice in (own_choice, COMPARED_CHOICE):
        marked_policy = loss_policy(portfolio, market, choice)
        if marked_policy is not None and not (choice is own_choice and policy.trade_side):
            marked.setdefault(choice.name, marked_policy)
    widened = [_widened(rule, factor) for factor in WIDTH_FACTORS]
    losses = simulate_losses(market, (*widened, *marked.values()))
    width_losses = losses[: len(widened)]
    mark_losses = losses[len(widened) :]
    return LossCurve(
        tuple(zip(WIDTH_FACTORS, width_losses, strict=True)),
        tuple(
            LossMark(name, _width_factor(rule, marked_policy), loss)
            for (name, marked_policy), loss in zip(marked.items(), mark_losses, strict=True)
        ),
    )


def _widened(rule: LossPolicy, factor: float) -> LossPolicy:
    """Return the rule with edges and triggers times `factor`, for which the same cost is weighed
    against less risk.
    """
    return replace(
        rule,
        triggers=tuple(trigger * factor for trigger in rule.triggers),
        edges=tuple(edge * factor for edge in rule.edges),
        risk=None
        if rule.risk is None
        else tuple(tuple(entry / factor for entry in row) for row in rule.risk),
    )


def _width_factor(rule: LossPolicy, policy: LossPolicy) -> float | None:
    """Return how wide a policy is beside the rule: the geometric mean over the tokens, without the
    numeraire, whose trigger is the last and under the rule infinite.
    """
    token_triggers = list(zip(policy.triggers[:-1], rule.triggers[:-1], strict=True))
    if policy.has_schedule or not all(trigger > 0 for trigger, _ in token_triggers):
        return None
    log_factors = [math.log(trigger / rule_trigger) for trigger, rule_trigger in token_triggers]
    return math.exp(math.fsum(log_factors) / len(log_factors))
