"""The picture of loss against the width of the range: the tracking rule narrowed and widened, with
marks for the rule, for a policy and for a band.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from agent.backtest.loss.estimates import policy_losses
from agent.backtest.loss.policies import (
    COMPARED_CHOICE,
    RULE,
    RULE_AFTER_TAX,
    ComparedPolicy,
    LossPortfolio,
    loss_market,
    loss_policy,
)
from agent.backtest.loss.simulation import LossPolicy, SimulatedLoss, simulate_losses
from agent.backtest.loss.taxes import LossTax
from agent.model import Policy
from agent.units import format_duration

CHECK_INTERVAL_S = 3_600
"""A cooldown up to the time between two checks changes nothing."""
WIDTH_FACTORS = tuple(2 ** (step / 2) for step in range(-4, 5))
"""Widths of the picture, as factors of the rule's: a quarter to four times."""


@dataclass(frozen=True, slots=True)
class LossMark:
    """A policy in the picture: its width as a factor of the rule's, None for a schedule or a rule
    whose width depends on its gains, its loss without tax, and with it, None without tax.
    """

    name: str
    width_factor: float | None
    loss: SimulatedLoss
    taxed_loss: SimulatedLoss | None = None


@dataclass(frozen=True, slots=True)
class LossCurve:
    """Loss of the rule at each width, and marks; the rule's is the first."""

    points: tuple[tuple[float, SimulatedLoss], ...]
    marks: tuple[LossMark, ...]


def loss_curve(portfolio: LossPortfolio, policy: Policy, tax: LossTax | None = None) -> LossCurve:
    """Return the loss of the rule at a quarter to four times its width, with marks for the rule, the
    policy (unless it has no estimate) and a relative band of 10 %; with a tax also for the rule
    after it.
    """
    market = loss_market(portfolio, policy.trigger)
    own_choice = ComparedPolicy(policy.trigger, policy.destination, policy.cooldown_s)
    own_choices = [] if policy.trade_side else [own_choice]
    tax_choices = [] if tax is None else [RULE_AFTER_TAX]
    marked: dict[tuple[str, int], ComparedPolicy] = {}
    for choice in (RULE, *own_choices, COMPARED_CHOICE, *tax_choices):
        marked.setdefault((choice.name, max(choice.cooldown_s, CHECK_INTERVAL_S)), choice)
    choices = [*marked.values()]
    losses = policy_losses(portfolio, market, choices, None)
    taxed_losses = {} if tax is None else policy_losses(portfolio, market, choices, tax)
    rule = loss_policy(portfolio, market, RULE)
    if rule is None:
        raise ValueError("the tracking rule has no estimate")
    widened = tuple(_widened(rule, factor) for factor in WIDTH_FACTORS)
    return LossCurve(
        tuple(zip(WIDTH_FACTORS, simulate_losses(market, widened), strict=True)),
        tuple(
            LossMark(
                _label(choice),
                _width_factor(rule, loss_policy(portfolio, market, choice), choice),
                loss,
                taxed_losses.get(choice),
            )
            for choice, loss in losses.items()
        ),
    )


def _label(choice: ComparedPolicy) -> str:
    if choice.cooldown_s <= CHECK_INTERVAL_S:
        return choice.name
    return f"{choice.name}, cooldown {format_duration(choice.cooldown_s)}"


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


def _width_factor(
    rule: LossPolicy, policy: LossPolicy | None, choice: ComparedPolicy
) -> float | None:
    """Return how wide a policy is beside the rule: the geometric mean over the tokens. Their triggers
    come first; those of pairs and of the numeraire are infinite under some policies.
    """
    if policy is None or choice.name == RULE_AFTER_TAX.name:
        return None
    token_count = len(rule.risk or ())
    token_triggers = list(
        zip(policy.triggers[:token_count], rule.triggers[:token_count], strict=True)
    )
    if policy.has_schedule or not all(trigger > 0 for trigger, _ in token_triggers):
        return None
    log_factors = [math.log(trigger / rule_trigger) for trigger, rule_trigger in token_triggers]
    return math.exp(math.fsum(log_factors) / len(log_factors))
