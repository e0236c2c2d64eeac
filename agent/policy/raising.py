"""Which assets to sell when money is wanted: as little as serves, the most overweight first; and where money that came goes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from fractions import Fraction

from agent.errors import Refused
from agent.model import AssetDrift, Goal, GoalWeight, StepInput, Verdict
from agent.policy import flows, outflow
from agent.policy.drift import drift, total
from agent.reference import reference_prices
from agent.units import BPS, Value, floor_int, value_text

OFF_BPS = 100
"""In place of limits.plan_cost and limits.slippage where one is off."""


def goal_to_raise(step: StepInput, token: str) -> Goal:
    """Shares at which nothing of `token` is lacking any more that is set aside (`agent.policy.outflow`).

    What is sold is what lacks and at most what limits.plan_cost and limits.slippage may take of it: of the asset that is furthest
    above its target of what will be left, then of the next, so that few assets are sold and none falls below its target
    before all others are at theirs. Raises Refused when everything else together is worth less than what lacks.
    """
    drifts, price = _drifts(step), outflow.price_of(step, token)
    if price is None:
        raise Refused(f"{step.portfolio.token(token).label} has no reference price", remedy="give the asset a feed")
    need = outflow.lacking(step, token) * price
    others = [one for one in drifts if one.token != token]
    free = {one.token: one.investable_raw * one.price for one in others}
    if need > (there := sum(free.values(), Fraction(0))):
        raise above_holdings(step, need, there)
    gross = _gross(step, need, there)
    left = total(drifts) - need
    over = {one.token: min(free[one.token], max(Fraction(0), one.value - left * Fraction(one.target_bps, BPS))) for one in others}
    sold = _taken(over, gross, step.limits.min_trade or Fraction(0), free)
    rest = gross - sum(sold.values(), Fraction(0))
    if rest > 0:  # everything is at its target or below: the rest in parts alike
        room = {name: free[name] - sold.get(name, Fraction(0)) for name in free}
        whole = sum(room.values(), Fraction(0))
        sold = {name: sold.get(name, Fraction(0)) + (rest * room[name] / whole if whole else 0) for name in free}
    return _moved(drifts, {name: -value for name, value in sold.items()} | {token: sum(sold.values(), Fraction(0))})


def gross(step: StepInput, token: str) -> Value:
    """What is sold at most for what `token` lacks, numeraire base units: no drift, so limits of turnover do not count it."""
    price = outflow.price_of(step, token) or Fraction(0)
    there = sum((one.investable_raw * one.price for one in _drifts(step) if one.token != token), Fraction(0))
    return _gross(step, outflow.lacking(step, token) * price, there)


def _gross(step: StepInput, need: Value, there: Value) -> Value:
    return min(there, max(need * (1 + _margin(step)), step.limits.min_trade or Fraction(0)))


def goal_to_invest(step: StepInput, came: Mapping[str, int]) -> Goal:
    """Shares at which what came (base units by asset) is spread over what is below its target; nothing else is sold.

    Of an asset that came only what is above its own target is sold, and what the swaps cost is taken from nothing else. Where the
    shortfalls are smaller, the rest stays.
    """
    drifts = _drifts(step)
    whole = total(drifts)
    missing = {one.token: Fraction(one.target_bps, BPS) * whole - one.value for one in drifts}
    spare = {
        one.token: min(came[one.token] * one.price, one.investable_raw * one.price, -missing[one.token])
        for one in drifts
        if came.get(one.token, 0) > 0 and missing[one.token] < 0
    }
    short = {name: value for name, value in missing.items() if value > 0}
    moved = min(sum(spare.values(), Fraction(0)), sum(short.values(), Fraction(0)))
    if moved <= 0:
        return _moved(drifts, {})
    out, into = moved / sum(spare.values(), Fraction(0)), moved / sum(short.values(), Fraction(0))
    goal = _moved(drifts, {name: -value * out for name, value in spare.items()} | {name: value * into for name, value in short.items()})
    most = tuple((one.token, min(came[one.token], one.investable_raw)) for one in drifts if one.token in spare)
    return replace(goal, unsold=tuple(one.token for one in drifts if one.token not in spare), sell_at_most=most)


def above_holdings(step: StepInput, asked: Value, there: Value) -> Refused:
    """More is asked for than there is, in numbers; what came unexplained is held back, and is named."""
    numeraire = step.portfolio.numeraire
    wanted, found, short = (f"{value_text(value, numeraire.decimals, 2)} {numeraire.label}" for value in (asked, there, asked - there))
    return Refused(
        f"insufficient balance: short by {short}; what is free for it is worth {found}",
        (Verdict("holdings", wanted, found, False),),
        f"ask for less; reserves, gas money and liquidity positions are left alone{'; ' * bool(held := flows.halting(step))}{held}",
    )


def free_raw(step: StepInput) -> dict[str, int]:
    """Base units of each asset that neither a reserve nor gas money nor a position holds, in the portfolio's order."""
    return {one.token: one.investable_raw for one in _drifts(step)}


def parts(step: StepInput, value: Value) -> dict[str, int]:
    """The same part of every free asset, together worth `value` at reference prices; each rounded down to a base unit.

    Raises Refused when there is less.
    """
    free = {one.token: (one.investable_raw, one.price) for one in _drifts(step)}
    there = sum((raw * price for raw, price in free.values()), Fraction(0))
    if value > there:
        raise above_holdings(step, value, there)
    return {name: part for name, (raw, _) in free.items() if (part := floor_int(raw * value / there)) > 0}


def _taken(over: Mapping[str, Value], gross: Value, least: Value, free: Mapping[str, Value]) -> dict[str, Value]:
    """From the largest surplus to the smallest until `gross` is there; the last at least `least`, where it is free."""
    sold: dict[str, Value] = {}
    for name in sorted(over, key=lambda one: over[one], reverse=True):
        wanted = gross - sum(sold.values(), Fraction(0))
        if wanted <= 0 or over[name] <= 0:
            break
        part = min(over[name], wanted)
        sold[name] = part if part >= least else min(least, free[name])
    return sold


def _moved(drifts: tuple[AssetDrift, ...], changes: Mapping[str, Value]) -> Goal:
    whole = total(drifts)
    shares = [(one.token, (one.value + changes.get(one.token, Fraction(0))) / whole if whole else Fraction(0)) for one in drifts]
    return Goal(tuple(GoalWeight(token, share, share) for token, share in shares))


def _margin(step: StepInput) -> Fraction:
    limits = step.limits
    return Fraction(sum(OFF_BPS if bps is None else bps for bps in (limits.plan_cost_bps, limits.slippage_bps)), BPS)


def _drifts(step: StepInput) -> tuple[AssetDrift, ...]:
    prices = {token: found.price for token, found in reference_prices(step).prices.items()}
    lacking = [asset.token.label for asset in step.portfolio.assets if asset.token.address not in prices]
    if lacking:
        raise Refused(f"{', '.join(lacking)}: no reference price", remedy="trimtab doctor tells why")
    return drift(step, prices)
