"""Plans within a limit of realised gain per year: sales are trimmed to what the year still allows, or wait."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

from agent.books.plans import PlannedGain, planned_gains, sellable, wallet_changes
from agent.model import Plan, Rebalance, Skipped, StepInput, TaxStanding
from agent.planning import planner
from agent.reference import reference_prices
from agent.units import Price, Value, value_text

ROUNDS = 4
MARGIN = Fraction(999, 1_000)
"""Part of what may be sold that is asked for: what pools pay differs a little from the reference that the bound goes by."""


def plan(step: StepInput, decision: Rebalance, most: tuple[Value, str] | None = None) -> Plan:
    """planner.plan, and where tax.year_limit would be exceeded the same with less sold of what gains. Exits are never held back.

    `most` is the turnover that the plan may have at most, with the limit that says so. Raises NothingPlanned where nothing is left
    that the year allows.
    """
    found = planner.plan(step, decision, most=most)
    tax = step.history.tax
    if tax is None or tax.year_limit is None or decision.exit:
        return found
    left = tax.year_limit - tax.realised
    gains = _gains(step, tax, found)
    if _total(gains) <= max(left, Fraction(0)):
        return found
    wanted, room = {one.token for one in gains if one.gain > 0}, max(left, Fraction(0))
    for turn in range(ROUNDS):
        caps = _caps(step, tax, gains, room * MARGIN ** (turn + 1))
        capped = replace(decision, goal=replace(decision.goal, sell_at_most=tuple(sorted(caps.items()))))
        try:
            found = planner.plan(step, capped, most=most)
        except planner.NothingPlanned as nothing:
            raise planner.NothingPlanned(f"{nothing.message}; {_why(step, tax)}", nothing.verdicts, nothing.remedy) from None
        gains = _gains(step, tax, found)
        if _total(gains) <= room:
            note = [Skipped(step.portfolio.token(token).label, _why(step, tax)) for token in sorted(wanted & set(caps))]
            return replace(found, decision=decision, skipped=(*found.skipped, *note))
    raise planner.NothingPlanned(
        f"no plan stays within the year's gain: {_why(step, tax)}", (), "raise tax.year_limit, or wait for the new year"
    )


def _caps(step: StepInput, tax: TaxStanding, gains: tuple[PlannedGain, ...], room: Value) -> dict[str, int]:
    """Base units that may be sold of each asset: tokens that gain share the room by their gains, others may gain nothing."""
    prices, whole = _prices(step), sum((max(one.gain, Fraction(0)) for one in gains), Fraction(0))
    shares = {one.token: max(one.gain, Fraction(0)) / whole for one in gains} if whole else {}
    caps = {}
    for asset in step.portfolio.assets:
        token = asset.token.address
        if token == step.portfolio.numeraire.address and not tax.currency:
            continue
        held = sum(lot.raw for lot in tax.lots if lot.token == token)
        share = shares.get(token, Fraction(0)) * room
        caps[token] = sellable(tax.lots, tax.method, token, prices[token] * tax.rate, share, held)
    return caps


def _gains(step: StepInput, tax: TaxStanding, found: Plan) -> tuple[PlannedGain, ...]:
    at_s, portfolio = step.snapshot.head.timestamp_s, step.portfolio
    return (
        planned_gains(found, tax, _prices(step), portfolio.numeraire.address, portfolio.wrapped_native, at_s)
        if wallet_changes(found)
        else ()
    )


def _total(gains: tuple[PlannedGain, ...]) -> Value:
    return sum((one.gain for one in gains), Fraction(0))


def _prices(step: StepInput) -> dict[str, Price]:
    return {token: found.price for token, found in reference_prices(step).prices.items()}


def _why(step: StepInput, tax: TaxStanding) -> str:
    decimals, unit = step.portfolio.numeraire.decimals, tax.currency or step.portfolio.numeraire.label
    limit, done = (value_text(value, decimals, 2) for value in (tax.year_limit or Fraction(0), tax.realised))
    return f"tax.year_limit of {limit} {unit} leaves what would gain more: {done} {unit} are realised this year"
