"""Bars at which the tracking rule surely holds, and its ranges there.

A whole step at every hour of a year takes minutes. Here the deviations of many bars are compared with
the triggers at once, in floats. The triggers are the step's own (agent/policy/triggers/tracking.py), at
costs rounded down to a step of COST_STEP. By the rule's equations a trigger moves by at most a quarter
of such a step, an edge by half of it, or three quarters where half the target caps its trigger, and a
volatility of the plan's risk by half as much as the edge whose horizon it has. What this and whole
basis points can change is added to each deviation. Bars that reach a trigger then are compared once
more, at their own costs; those that still do are evaluated by a step.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from agent.backtest.result import TargetBands
from agent.execution.step_context import OutcomeKind, StepOutcome
from agent.floats import FloatArray
from agent.model import NoTradeZone, TrackingRisk
from agent.policy import minimum
from agent.policy.risk import COVARIANCE_UNIT, covariance
from agent.policy.triggers.exchange_costs import PricedMarket, exchange_costs
from agent.policy.triggers.tracking import risk_at_costs, trading_costs
from agent.policy.triggers.tracking_rule import TradingCost
from agent.units import BPS, PIPS

COST_STEP = 0.005
"""Relative step to which the gas of a leg and the smallest trade are rounded down."""
ROUNDING_BPS = 3
"""Twice the rounding of a volatility or a correlation, with a margin for floats, in bps."""
WIDTH_ROUNDING = 2 / PIPS


@dataclass(frozen=True, slots=True)
class RuleRange:
    """Distances from the targets, deviations and triggers of the tokens at some bars, a column for
    each token, in shares of the portfolio. `errors` bound what the deviations lack; triggers are
    infinite for tokens that are not traded for their own sake. The costs of the rule are rounded down
    to steps of `cost_step`.
    """

    distances: FloatArray
    deviations: FloatArray
    errors: FloatArray
    triggers: FloatArray
    cost_step: float

    def may_fire(self) -> NDArray[np.bool_]:
        """Return which bars may have a token beyond its trigger."""
        least_triggers = self.triggers * (1 - self.cost_step) - WIDTH_ROUNDING
        is_near = np.abs(self.deviations) + self.errors >= least_triggers
        return np.asarray(is_near.any(axis=1))


@dataclass(frozen=True, slots=True)
class RuleTerms:
    """What the tracking rule of a portfolio rests on beside the gas of a leg: `risk` without widths,
    the targets, and the cost of trading each token per unit, by index. `numeraire` is the index of
    the numeraire.
    """

    risk: TrackingRisk
    tokens: tuple[str, ...]
    target_shares: tuple[float, ...]
    numeraire: int
    unit_costs: tuple[tuple[int, float], ...]


@dataclass(frozen=True, slots=True)
class RuleAtCosts:
    """The tracking rule at costs rounded down to a step: the deviation and its error per unit of
    each token's distance from its target, and the triggers.
    """

    exposures: FloatArray
    error_shares: FloatArray
    triggers: FloatArray


@dataclass(frozen=True, slots=True)
class RuleAtStep:
    """The tracking rule of a step. `min_trade` is the smallest trade in whole coins of the numeraire,
    `leg_wei` the gas of a leg at the price `gas_price_wei`.
    """

    terms: RuleTerms
    min_trade: float
    leg_wei: int
    gas_price_wei: int

    def leg_values(self, gas_prices_wei: FloatArray, native_prices: FloatArray) -> FloatArray:
        """Return the gas of a leg at these prices, in coins of the numeraire."""
        leg_wei = self.leg_wei + minimum.LEG_GAS * (gas_prices_wei - self.gas_price_wei)
        return np.asarray(leg_wei / 1e18 * native_prices)

    def may_fire(self, asset_values: FloatArray, leg_values: FloatArray) -> NDArray[np.bool_]:
        """Return which bars may have a token beyond its trigger. Arguments as for `at`.

        The first of them is judged at its own costs, those after it at rounded ones.
        """
        is_near = self.at(asset_values, leg_values).may_fire()
        for bar in np.flatnonzero(is_near).tolist():
            one_bar = slice(bar, bar + 1)
            if self._at_own_costs(asset_values[one_bar], leg_values[one_bar]).may_fire()[0]:
                break
            is_near[bar] = False
        return is_near

    def at(self, asset_values: FloatArray, leg_values: FloatArray) -> RuleRange:
        """Return the rule at bars at rounded costs, from the values of the assets, a column for
        each, and of the gas of a leg, in coins of the numeraire.
        """
        totals = asset_values.sum(axis=1)
        distances = asset_values / totals[:, None] - self.terms.target_shares
        costs = np.column_stack(
            (_rounded_down(leg_values / totals), _rounded_down(self.min_trade / totals))
        )
        different_costs, cost_rows = np.unique(costs, axis=0, return_inverse=True)
        deviations = np.zeros_like(distances)
        errors = np.zeros_like(distances)
        triggers = np.zeros_like(distances)
        for row, (leg_cost, min_trade) in enumerate(different_costs.tolist()):
            bars = np.flatnonzero(cost_rows.reshape(-1) == row)
            rule = _rule_at_rounded_costs(self.terms, leg_cost, min_trade)
            deviations[bars] = distances[bars] @ rule.exposures.T
            errors[bars] = np.abs(distances[bars]) @ rule.error_shares.T
            triggers[bars] = rule.triggers
        return RuleRange(distances, deviations, errors, triggers, COST_STEP)

    def _at_own_costs(self, asset_values: FloatArray, leg_values: FloatArray) -> RuleRange:
        """Return the rule at one bar at its own costs. Arguments as for `at`."""
        total = float(asset_values.sum())
        distances = asset_values / total - self.terms.target_shares
        rule = _rule_at(self.terms, float(leg_values[0]) / total, self.min_trade / total, 0.0)
        return RuleRange(
            distances,
            distances @ rule.exposures.T,
            np.abs(distances) @ rule.error_shares.T,
            rule.triggers,
            0.0,
        )

    def target_bands(self, rule_range: RuleRange, start_bar: int) -> list[TargetBands]:
        """Return targets and ranges of these bars, of which the first is `start_bar`."""
        tokens = self.terms.tokens
        targets = dict(zip(tokens, self.terms.target_shares, strict=True))
        centres = rule_range.distances + self.terms.target_shares - rule_range.deviations
        lows = np.clip(centres - rule_range.triggers, 0, 1).tolist()
        highs = np.clip(centres + rule_range.triggers, 0, 1).tolist()
        return [
            TargetBands(
                bar,
                targets,
                {
                    tokens[index]: (bar_lows[index], bar_highs[index])
                    for index, _ in self.terms.unit_costs
                },
            )
            for bar, (bar_lows, bar_highs) in enumerate(zip(lows, highs, strict=True), start_bar)
        ]


def _rule_at(terms: RuleTerms, leg_cost: float, min_trade: float, cost_step: float) -> RuleAtCosts:
    """Return the rule at these costs of a leg and of the smallest trade, shares of the portfolio,
    rounded down to steps of `cost_step`.

    The deviation of token i is that of its exchange with the numeraire n:
    ((Σx)ᵢ − (Σx)ₙ) / (Σᵢᵢ + Σₙₙ − 2·Σᵢₙ).
    """
    risk = risk_at_costs(
        terms.risk,
        terms.tokens,
        terms.target_shares,
        terms.numeraire,
        {
            index: TradingCost(unit_cost, leg_cost, min_trade)
            for index, unit_cost in terms.unit_costs
        },
    )
    sigma = np.array(covariance(risk, terms.tokens)) / COVARIANCE_UNIT
    volatilities = np.sqrt(np.diag(sigma))
    numeraire_row = sigma[terms.numeraire]
    variances = np.diag(sigma) + numeraire_row[terms.numeraire] - 2 * numeraire_row
    variances[terms.numeraire] = np.inf
    relative_errors = cost_step + ROUNDING_BPS / (volatilities * BPS)
    sums = volatilities + volatilities[terms.numeraire]
    error_shares = (
        (sums * sums * sums / (variances * variances))[:, None]
        * volatilities
        * (relative_errors[:, None] + relative_errors)
    )
    trigger_by_token = {width.token: width.trigger_ppm / PIPS for width in risk.widths}
    return RuleAtCosts(
        (sigma - numeraire_row) / variances[:, None],
        error_shares,
        np.array([trigger_by_token.get(token, np.inf) for token in terms.tokens]),
    )


@lru_cache(maxsize=4096)
def _rule_at_rounded_costs(terms: RuleTerms, leg_cost: float, min_trade: float) -> RuleAtCosts:
    """Return the rule at costs that were rounded down; most bars of a backtest share theirs with
    others.
    """
    return _rule_at(terms, leg_cost, min_trade, COST_STEP)


def _rounded_down(costs: FloatArray) -> FloatArray:
    """Return costs rounded down to powers of 1 + COST_STEP; zero stays."""
    logarithms = np.log(np.where(costs > 0, costs, 1.0)) / np.log1p(COST_STEP)
    rounded: FloatArray = np.where(costs > 0, (1 + COST_STEP) ** np.floor(logarithms), 0.0)
    return rounded


def rule_after(outcome: StepOutcome | None) -> RuleAtStep | None:
    """Return the rule of a step after which nothing but a trigger makes a later one trade; None if
    that is not certain.
    """
    if outcome is None or outcome.kind not in (OutcomeKind.HOLD, OutcomeKind.DONE):
        return None
    step = outcome.step_input
    decision_result = outcome.decision_result
    trigger = step.policy.trigger
    zone = decision_result.zone
    if not isinstance(trigger, NoTradeZone) or zone is None or not zone.risk.widths:
        return None
    if step.history.cash_flows.purchase is not None or zone.risk.pair_widths:
        return None
    tokens = tuple(drift.token for drift in decision_result.drifts)
    market = PricedMarket.of_step(step, decision_result.references.price_by_token)
    cost_by_index = trading_costs(market, decision_result.drifts, exchange_costs(market, tokens))
    return RuleAtStep(
        RuleTerms(
            trigger.risk,
            tokens,
            tuple(drift.target_bps / BPS for drift in decision_result.drifts),
            tokens.index(step.portfolio.numeraire.address),
            tuple((index, cost.unit_cost) for index, cost in cost_by_index.items()),
        ),
        float(step.limits.min_trade or 0) / 10**step.portfolio.numeraire.decimals,
        int(minimum.leg_gas_value(step.snapshot, Fraction(1))),
        step.snapshot.head.base_fee_wei or 0,
    )
