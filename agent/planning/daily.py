"""Plans within what is left of limits.daily_loss: where the worst case of the whole exceeds it, a part of it goes now."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from fractions import Fraction

from agent.model import Funding, Leg, Plan, Rebalance, StepInput
from agent.planning import planner, taxed
from agent.planning.payments import NATIVE_VENUE
from agent.policy import approvals, coin
from agent.policy.drift import drift, total
from agent.reference import reference_prices
from agent.units import BPS, NATIVE, Price, Value, ceil_int, value_text

DAILY_LOSS = "limits.daily_loss"
TRIES = 8
"""Plans in search of one that fits."""
MARGIN = Fraction(99, 100)
"""Part of what seems to fit that is asked for: fees and impact of a smaller plan differ a little per unit."""
SHOWN_BPS = 10
"""A setting that would do it at once is rounded up to a tenth of a percent."""


def plan(step: StepInput, decision: Rebalance, whole: Plan | None = None) -> Plan:
    """taxed.plan; where its worst case exceeds what is left of the day, a smaller one that fits, cheapest moves first.

    An exit is never held back. Where no part is worth a trade the whole comes back, which the guard refuses. `whole` is
    taxed.plan's answer where it is known. Raises Refused like taxed.plan.
    """
    whole = whole or taxed.plan(step, decision)
    if decision.exit or (room := left(step)) is None:
        return whole
    if fits(step, whole):
        return _named(step, decision, whole, whole) if step.spend_caps else whole
    found, loses = whole, at_worst(step, whole)
    for _ in range(TRIES):
        gas = gas_at_worst(step, found)
        if room <= gas or loses <= gas:
            return whole
        try:
            found = taxed.plan(step, decision, (found.turnover * (room - gas) / (loses - gas) * MARGIN, DAILY_LOSS))
        except planner.NothingPlanned:
            return whole
        if (loses := at_worst(step, found)) <= room:
            return _named(step, decision, found, whole)
    return whole


def fits(step: StepInput, found: Plan) -> bool:
    """Whether its worst case is no more than what is left of the day; of an exit its predicted cost, as the guard counts it."""
    room = left_to_exits(step) if found.exits else left(step)
    return room is None or max(found.cost.total if found.exits else at_worst(step, found), Fraction(0)) <= room


def _named(step: StepInput, decision: Rebalance, found: Plan, whole: Plan) -> Plan:
    """The plan, told as a part where limits.daily_loss is why it is one: what this step has approved is no reason."""
    whole = unapproved(step, decision, whole)
    if fits(step, whole) or not found.turnover:
        return found
    parts = max(2, ceil_int(whole.turnover / found.turnover))
    told = f"{decision.reason}; part 1 of about {parts}: {words(step, at_worst(step, whole))}"
    return replace(found, decision=replace(decision, reason=told))


def unapproved(step: StepInput, decision: Rebalance, whole: Plan) -> Plan:
    """`whole`, the step's own plan, as it would be had nothing been approved yet."""
    return taxed.plan(replace(step, spend_caps=()), decision) if step.spend_caps else whole


def left(step: StepInput) -> Value | None:
    """The most that a plan may lose at worst now, numeraire base units; None where no limit says, or the day is unknown, which refuses."""
    limit_bps, history = step.limits.daily_loss_bps, step.history
    return None if limit_bps is None or history.unknown else _total(step) * Fraction(limit_bps, BPS) - history.loss_24h


def left_to_exits(step: StepInput) -> Value | None:
    """The same for an exit, which answers for what trades lost alone."""
    history, room = step.history, left(step)
    lost = history.fell_24h + history.wasted_24h_wei * _prices(step).get(step.portfolio.wrapped_native, Fraction(0))
    return None if room is None else room + min(lost, max(Fraction(0), history.loss_24h))


def at_worst(step: StepInput, found: Plan, prices: Mapping[str, Price] | None = None) -> Value:
    """The most that a plan may lose: every leg at its minimum, gas and approvals at their highest price.

    Against reference prices of now, unless others are given; numeraire base units.
    """
    known = with_native(step, _prices(step) if prices is None else prices)
    got = (leg.min_out_raw * known.get(leg.token_out, Fraction(0)) for leg in exchanges(found) if leg.sink is Funding.WALLET)
    return gives(found, known) - sum(got, Fraction(0)) + gas_at_worst(step, found, known)


def gas_at_worst(step: StepInput, found: Plan, prices: Mapping[str, Price] | None = None) -> Value:
    """The part of it that is gas."""
    known = with_native(step, _prices(step) if prices is None else prices)
    units = ceil_int((found.gas_units + approvals.gas_units(step, found)) * coin.GAS_MARGIN)
    return units * coin.worst_price_wei(step) * known.get(NATIVE, Fraction(0))


def words(step: StepInput, worst: Value) -> str:
    """Why a part goes now, when the rest follows, and the setting that would do it all at once."""
    limit_bps, whole = step.limits.daily_loss_bps or 0, _total(step)
    wanted_bps = ceil_int((max(step.history.loss_24h, Fraction(0)) + worst) * BPS / whole / SHOWN_BPS) * SHOWN_BPS if whole else 0
    return (
        f"the worst case of all of it is more than {DAILY_LOSS} of {limit_bps / 100:g}% leaves; the rest follows as the losses of the day "
        f'get 24 h old, and {DAILY_LOSS} = "{wanted_bps / 100:g}%" would do it at once'
    )


def waits(step: StepInput) -> str:
    """Why nothing goes now."""
    numeraire, lost = step.portfolio.numeraire, step.history.loss_24h
    told = (value_text(value, numeraire.decimals, 2) for value in (lost, (left(step) or Fraction(0)) + lost))
    return f"waits for {DAILY_LOSS}: {' of '.join(told)} {numeraire.label} were lost in 24 h; the next part follows as that gets older"


def gives(found: Plan, prices: Mapping[str, Price]) -> Value:
    """What a plan takes from the wallet, at these prices."""
    given = (leg.amount_in_raw * prices.get(leg.token_in, Fraction(0)) for leg in exchanges(found) if leg.source is Funding.WALLET)
    return sum(given, Fraction(0))


def exchanges(found: Plan) -> list[Leg]:
    """Its legs but for what only turns the wallet's native coin into its wrapped form, or back."""
    return [leg for leg in found.legs if leg.venue != NATIVE_VENUE or leg.source is not leg.sink]


def with_native(step: StepInput, prices: Mapping[str, Price]) -> dict[str, Price]:
    """The prices with that of the native coin, its wrapped token's."""
    return {**prices, NATIVE: prices.get(step.portfolio.wrapped_native, Fraction(0))}


def _total(step: StepInput) -> Value:
    return total(drift(step, _prices(step)))


def _prices(step: StepInput) -> dict[str, Price]:
    return {token: found.price for token, found in reference_prices(step).prices.items()}
