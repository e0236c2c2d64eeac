"""Plans within the annual limit of realised gains: sales are reduced to the year's remainder, or
wait; and the gain on which a plan's tax is due.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from fractions import Fraction

from agent.accounting.tax_lots import PlannedGain, max_sellable_raw, planned_gains
from agent.layers.tax.state import TaxState
from agent.layers.tax.year import is_within_year, total_gain
from agent.model import Plan, Portfolio, Rebalance, SkippedItem, StepInput, TaxInputs
from agent.planning import planner
from agent.planning.plan_builder import LOCKED_EXCESS
from agent.policy.native_coin import held_balances
from agent.reference import ReferencePrices, reference_prices
from agent.units import BPS, Value, cents_text

MAX_ATTEMPTS = 4
PLANNED_SHARE = Fraction(999, 1_000)
"""Fraction of the remaining gain to plan for, applied once more with each try, because pool outputs
differ slightly from the reference.
"""
REMEDY = "raise tax.year_limit, or wait for the new year"
FAULT_REMEDY = "mend the file of tax.rates; exits and manual swaps are not bound"


def within_year_limit(
    step: StepInput, decision: Rebalance, full_plan: Plan, turnover_cap: tuple[Value, str] | None
) -> Plan:
    """Return the plan, or one with fewer sales that realise gains if tax.year_limit would be
    exceeded. Exits are never reduced.

    `turnover_cap` bounds the plan's turnover, with the name of that limit. Raises NothingPlanned if
    the year's remainder allows no plan, or if tax is a cost of the decision and is unknown.
    """
    tax_inputs = step.layer(TaxState).inputs
    if tax_inputs is None or decision.is_exit:
        return full_plan
    if tax_inputs.fault and tax_inputs.tax_rate_bps and decision.goal.risk is not None:
        raise _unknown_tax(step, full_plan, tax_inputs)
    if tax_inputs.year_limit is None:
        return full_plan
    if tax_inputs.fault:
        raise _beyond_year(
            step, full_plan, f"its gain is unknown: {tax_inputs.fault}", FAULT_REMEDY
        )
    unused_gain = tax_inputs.year_limit - tax_inputs.realised_gain
    plan_gains = _gains_of(
        step.portfolio,
        reference_prices(step),
        step.snapshot.head.timestamp_s,
        tax_inputs,
        full_plan,
    )
    if is_within_year(step.portfolio, full_plan, plan_gains, unused_gain):
        return full_plan
    tokens_with_gains = {planned_gain.token for planned_gain in plan_gains if planned_gain.gain > 0}
    allowed_gain = max(unused_gain, Fraction(0))
    for attempt in range(MAX_ATTEMPTS):
        cap_raw_by_token = _sale_caps(
            step.portfolio,
            held_balances(step),
            reference_prices(step),
            tax_inputs,
            plan_gains,
            allowed_gain * PLANNED_SHARE ** (attempt + 1),
        )
        capped_decision = replace(decision, goal=decision.goal.with_sale_caps(cap_raw_by_token))
        try:
            trimmed_plan = planner.plan(step, capped_decision, turnover_cap=turnover_cap)
        except planner.NothingPlanned as error:
            raise planner.NothingPlanned(
                f"{error.message}; {_limit_reason(step.portfolio, tax_inputs)}",
                error.verdicts,
                REMEDY,
                LOCKED_EXCESS,
                error.drift_value,
                error.off_target_items,
            ) from None
        plan_gains = _gains_of(
            step.portfolio,
            reference_prices(step),
            step.snapshot.head.timestamp_s,
            tax_inputs,
            trimmed_plan,
        )
        if is_within_year(step.portfolio, trimmed_plan, plan_gains, allowed_gain):
            skip_notes = [
                SkippedItem(
                    step.portfolio.token(token).label, _limit_reason(step.portfolio, tax_inputs)
                )
                for token in sorted(tokens_with_gains & set(cap_raw_by_token))
            ]
            # the caps are this plan's: its record keeps the decision that came without them
            return replace(
                trimmed_plan, decision=decision, skipped=(*trimmed_plan.skipped, *skip_notes)
            )
    raise _beyond_year(step, full_plan, _limit_reason(step.portfolio, tax_inputs), REMEDY)


def _beyond_year(
    step: StepInput, full_plan: Plan, reason: str, remedy: str
) -> planner.NothingPlanned:
    """Return the refusal of a plan that cannot be brought within the limit."""
    return _nothing_planned(step, full_plan, f"no plan keeps tax.year_limit: {reason}", remedy)


def _unknown_tax(step: StepInput, plan: Plan, tax_inputs: TaxInputs) -> planner.NothingPlanned:
    """Return the refusal of a plan whose tax cannot be weighed."""
    return _nothing_planned(step, plan, f"its tax is unknown: {tax_inputs.fault}", FAULT_REMEDY)


def _nothing_planned(
    step: StepInput, full_plan: Plan, message: str, remedy: str
) -> planner.NothingPlanned:
    """Return the refusal of a plan, with what it would sell."""
    price_by_token = reference_prices(step).price_by_token
    changes_raw = step.portfolio.asset_changes(full_plan.wallet_changes())
    sold_values = (
        -change_raw * price_by_token.get(token, Fraction(0))
        for token, change_raw in changes_raw.items()
        if change_raw < 0
    )
    return planner.NothingPlanned(
        message,
        (),
        remedy,
        LOCKED_EXCESS,
        sum(sold_values, Fraction(0)),
        full_plan.skipped,
    )


def sale_caps(step: StepInput, plan: Plan) -> dict[str, int]:
    """Return the base units by token that slices with the sales of this plan may sell together
    within the year's limit; empty without a limit, none if gains are unknown.
    """
    tax_inputs = step.layer(TaxState).inputs
    if tax_inputs is None or tax_inputs.year_limit is None:
        return {}
    if tax_inputs.fault:
        return {leg.token_in: 0 for leg in plan.legs}
    references = reference_prices(step)
    unused_gain = max(tax_inputs.year_limit - tax_inputs.realised_gain, Fraction(0))
    return _sale_caps(
        step.portfolio,
        held_balances(step),
        references,
        tax_inputs,
        _gains_of(step.portfolio, references, step.snapshot.head.timestamp_s, tax_inputs, plan),
        unused_gain * PLANNED_SHARE,
    )


def _sale_caps(
    portfolio: Portfolio,
    balances_raw: Mapping[str, int],
    references: ReferencePrices,
    tax_inputs: TaxInputs,
    plan_gains: tuple[PlannedGain, ...],
    allowed_gain: Value,
) -> dict[str, int]:
    """Return the base units that may be sold of each asset: tokens with gains share the remainder
    in proportion, others must not realise a gain.
    """
    prices = references.price_by_token
    positive_gain_sum = sum(
        (max(planned_gain.gain, Fraction(0)) for planned_gain in plan_gains), Fraction(0)
    )
    if positive_gain_sum:
        gain_share_by_token = {
            planned_gain.token: max(planned_gain.gain, Fraction(0)) / positive_gain_sum
            for planned_gain in plan_gains
        }
    else:
        gain_share_by_token = {}
    cap_raw_by_token = {}
    for asset in portfolio.assets:
        token = asset.token.address
        if token == portfolio.numeraire.address and not tax_inputs.currency:
            continue
        allowed_token_gain = gain_share_by_token.get(token, Fraction(0)) * allowed_gain
        cap_raw_by_token[token] = max_sellable_raw(
            tax_inputs.lots,
            tax_inputs.method,
            token,
            prices[token] * tax_inputs.rate,
            allowed_token_gain,
            balances_raw.get(token, 0),
        )
    return cap_raw_by_token


def _gains_of(
    portfolio: Portfolio, references: ReferencePrices, now_s: int, tax_inputs: TaxInputs, plan: Plan
) -> tuple[PlannedGain, ...]:
    if plan.wallet_changes():
        return planned_gains(
            plan,
            tax_inputs,
            references.price_by_token,
            portfolio.numeraire.address,
            portfolio.wrapped_native,
            now_s,
        )
    return ()


def _limit_reason(portfolio: Portfolio, tax_inputs: TaxInputs) -> str:
    decimals = portfolio.numeraire.decimals
    currency = tax_inputs.currency or portfolio.numeraire.label
    limit_text, realised_text = (
        cents_text(gain, decimals)
        for gain in (tax_inputs.year_limit or Fraction(0), tax_inputs.realised_gain)
    )
    return f"tax.year_limit of {limit_text} {currency} leaves too little: {realised_text} {currency} were realised this year"


def plan_tax(step: StepInput, plan: Plan) -> Value:
    """Return the tax on the gain that a plan adds to the year, in numeraire base units; zero
    without tax.rate.
    """
    tax_inputs = step.layer(TaxState).inputs
    if tax_inputs is None or not tax_inputs.tax_rate_bps:
        return Fraction(0)
    return taxed_gain(step, plan) * tax_inputs.tax_rate_bps / BPS


def taxed_gain(step: StepInput, plan: Plan) -> Value:
    """Return the gain that a plan adds to the year's taxed gain, net of the year's losses, in
    numeraire base units; zero without [tax]. Raises NothingPlanned if gains are unknown.
    """
    tax_inputs = step.layer(TaxState).inputs
    if tax_inputs is None:
        return Fraction(0)
    if tax_inputs.fault:
        raise _unknown_tax(step, plan, tax_inputs)
    plan_gain = total_gain(
        _gains_of(
            step.portfolio, reference_prices(step), step.snapshot.head.timestamp_s, tax_inputs, plan
        )
    )
    added_taxed_gain = max(Fraction(0), tax_inputs.realised_gain + plan_gain) - max(
        Fraction(0), tax_inputs.realised_gain
    )
    return added_taxed_gain / tax_inputs.rate
