"""One round against several: each is simulated in exact integers, on pools that come back between rounds, and priced alike.

cost(n) = Σ (fees + impact + skew + gas with approvals) + waiting + rest. Impact of a trade grows with its square where pools are
smooth, so that n rounds on pools that come back pay about a n-th of it (Almgren, Chriss, "Optimal Execution of Portfolio
Transactions", 2000, with temporary impact); gas and waiting grow with n.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from math import isqrt

from agent.amm import pools as amm
from agent.errors import Refused
from agent.floats import DECIMAL
from agent.model import Goal, Holding, Pace, Pacing, Plan, PoolState, Rebalance, RoundsCost, StepInput, V2Pool, Zone
from agent.planning import planner
from agent.planning.payments import NATIVE_VENUE
from agent.policy import approvals
from agent.policy.campaign import partial
from agent.policy.drift import corrections, drift
from agent.policy.risk import penalty
from agent.reference import References
from agent.units import BPS, Price, Value, value_text

HOUR_S = 3_600
PRECISION = 10**12
"""What is left of a move is rounded up to one part in so many: a pool never comes back further than assumed."""
ALL = 2**127
"""More than any pool takes: what brings it back to a price stops there."""


def compare(step: StepInput, decision: Rebalance, goal: Goal, whole: Plan, references: References) -> Pacing:
    """What the way to `goal` costs in one round, which is `whole`, and in each number of rounds up to execution.pace.max_rounds.

    Rounds are alike and stand a mean interval apart; prices stay. Rounds smaller than limits.min_trade are none.
    """
    pace, prices = step.execution.pace, {token: found.price for token, found in references.prices.items()}
    wish = to_move(step, goal, prices)
    tried = [_Trial(step, decision, goal, references, prices, pace, count) for count in range(1, most_rounds(step, wish) + 1)]
    costs = [trial.cost(wish, whole if trial.count == 1 else None) for trial in tried]
    options = tuple(replace(cost, rest=cost.rest * _dearest(step, costs)) for cost in costs)
    chosen = min(options, key=lambda option: (option.total, option.rounds))
    return Pacing(options, chosen.rounds, _why(step, options[0], chosen, options))


def to_move(step: StepInput, goal: Goal, prices: Mapping[str, Price]) -> Value:
    """Value to sell, or to buy where that is more, until the goal is reached."""
    lacks = corrections(drift(step, prices), goal).values()
    return max(sum((-lack for lack in lacks if lack < 0), Fraction(0)), sum((lack for lack in lacks if lack > 0), Fraction(0)))


def most_rounds(step: StepInput, wish: Value) -> int:
    """As many as the config allows, and as leave the smallest of them above limits.min_trade; at least one."""
    pace, least = step.execution.pace, step.limits.min_trade
    smallest = 1 - Fraction(pace.size_jitter_bps, BPS)
    return pace.max_rounds if not least else max(1, min(pace.max_rounds, int(wish * smallest / least)))


def recovered(now: PoolState, start: PoolState, left: Fraction) -> PoolState:
    """The pool after its price came back to where it was at `start`, but for `left` of the way, on its own curve.

    The way is measured in square roots of prices; what is left is rounded away from the start. What a pool was off the reference
    before stays: that others take that away at no cost to us is not assumed.
    """
    if now == start:
        return now
    if isinstance(now, V2Pool):
        if not isinstance(start, V2Pool):
            raise ValueError("a pool does not change its kind")
        target = _between(_root(start.reserve1, start.reserve0), _root(now.reserve1, now.reserve0), left)
        product = now.reserve0 * now.reserve1
        return replace(now, reserve0=isqrt((product << 192) // target**2), reserve1=isqrt(product * target**2 >> 192))
    if isinstance(start, V2Pool):
        raise ValueError("a pool does not change its kind")
    target = _between(start.sqrt_price_x96, now.sqrt_price_x96, left)
    if target == now.sqrt_price_x96:
        return now
    token_in = now.token1 if target > now.sqrt_price_x96 else now.token0
    return amm.swap_exact_in(now, token_in, ALL, target).after


def left_after(seconds: int, half_life_s: int) -> Fraction:
    """Part of a move that is left after so long: 2^(-seconds / half-life), rounded up."""
    share = DECIMAL.power(2, DECIMAL.divide(-seconds, half_life_s))
    return Fraction(min(PRECISION, int(share * PRECISION) + 1), PRECISION)


@dataclass(slots=True)
class _Trial:
    """So many rounds, one after the other, on a step that each of them changes."""

    step: StepInput
    decision: Rebalance
    goal: Goal
    references: References
    prices: Mapping[str, Price]
    pace: Pace
    count: int

    def cost(self, wish: Value, whole: Plan | None) -> RoundsCost:
        """`rest` is what stays to be moved, in value. `whole` is the plan of a single round, where that is known."""
        fees = impact = skew = gas = waiting = moved = sold = Fraction(0)
        left = left_after(self.pace.interval_s, self.pace.recovery_s)
        start = {pool.address: pool for pool in self.step.snapshot.pools}
        for number in range(1, self.count + 1):
            plan = whole or self._plan(Fraction(1, self.count - number + 1))
            if plan is not None:
                fees, impact, skew = fees + plan.cost.fees, impact + plan.cost.impact, skew + plan.cost.skew
                gas += plan.cost.gas + plan.cost.approvals
                moved += plan.turnover
                sold += self._sold(plan)
                self.step = _after(self.step, plan)
            if number < self.count:
                waiting += self._waiting(max(Fraction(0), wish - sold))
                pools = tuple(recovered(pool, start[pool.address], left) for pool in self.step.snapshot.pools)
                self.step = replace(self.step, snapshot=replace(self.step.snapshot, pools=pools))
        return RoundsCost(self.count, moved, fees, impact, skew, gas, waiting, max(Fraction(0), wish - sold))

    def _plan(self, part: Fraction) -> Plan | None:
        goal = partial(drift(self.step, self.prices), self.goal, part)
        try:
            return planner.plan(self.step, replace(self.decision, goal=goal), self.references)
        except Refused:  # what is left then counts as rest
            return None

    def _sold(self, plan: Plan) -> Value:
        held = {holding.token: holding.raw for holding in self.step.snapshot.holdings}
        changes = {token: raw - held[token] for token, raw in plan.holdings_after}
        if plan.native_after_wei is not None:
            coin = self.step.portfolio.wrapped_native
            changes[coin] = changes.get(coin, 0) + plan.native_after_wei - self.step.snapshot.native_wei
        return sum((-raw * self.prices[token] for token, raw in changes.items() if raw < 0), Fraction(0))

    def _waiting(self, unmoved: Value) -> Value:
        """What an interval costs while this much is not moved yet, or while the portfolio stands as it does, by the zone's risk."""
        trigger = self.step.policy.trigger
        if self.pace.waiting_bps_hour is None and isinstance(trigger, Zone):
            drifts = drift(self.step, self.prices)
            values, tokens = [one.value for one in drifts], [one.token for one in drifts]
            points = [Fraction(one.target_bps, BPS) for one in drifts]
            standing = penalty(trigger.risk, tokens, points, values, sum(values, Fraction(0)))
            return standing * Fraction(self.pace.interval_s, trigger.risk.horizon_s)
        return unmoved * (self.pace.waiting_bps_hour or 0) / BPS * Fraction(self.pace.interval_s, HOUR_S)


def _after(step: StepInput, plan: Plan) -> StepInput:
    """The step once the plan is carried out: pools, balances, what may be taken, and the turnover of the day."""
    pools = {pool.address: pool for pool in step.snapshot.pools}
    for leg in plan.legs:
        if leg.venue != NATIVE_VENUE:
            pools[leg.pool] = amm.swap_exact_in(pools[leg.pool], leg.token_in, leg.amount_in_raw).after
    after, spent = dict(plan.holdings_after), approvals.spent(plan.legs)
    snapshot = step.snapshot
    allowances = tuple(
        replace(one, raw=max(0, one.raw - spent.get(one.token, 0))) if one.spender == step.execution.router else one
        for one in snapshot.allowances
    )
    return replace(
        step,
        snapshot=replace(
            snapshot,
            pools=tuple(pools[pool.address] for pool in snapshot.pools),
            holdings=tuple(Holding(one.token, after.get(one.token, one.raw)) for one in snapshot.holdings),
            allowances=allowances,
            native_wei=snapshot.native_wei if plan.native_after_wei is None else plan.native_after_wei,
        ),
        history=replace(step.history, turnover_24h=step.history.turnover_24h + plan.turnover),
    )


def _root(one: int, other: int) -> int:
    """Square root of their ratio, times 2^96."""
    return isqrt((one << 192) // other)


def _between(start: int, now: int, left: Fraction) -> int:
    """`left` of the way from start to now, rounded towards now."""
    way = (abs(now - start) * left.numerator + left.denominator - 1) // left.denominator
    return start + way if now > start else start - way


def _dearest(step: StepInput, costs: list[RoundsCost]) -> Fraction:
    """What a unit that stays unmoved counts: limits.plan_cost, the most that moving it may cost; else the dearest of all ways."""
    if step.limits.plan_cost_bps is not None:
        return Fraction(step.limits.plan_cost_bps, BPS)
    return max((_paid(cost) / cost.moved for cost in costs if cost.moved > 0), default=Fraction(0))


def _paid(cost: RoundsCost) -> Value:
    return cost.fees + cost.impact + cost.skew + cost.gas + cost.waiting


def _why(step: StepInput, one: RoundsCost, chosen: RoundsCost, options: tuple[RoundsCost, ...]) -> str:
    numeraire = step.portfolio.numeraire

    def money(value: Value) -> str:
        return f"{value_text(value, numeraire.decimals, 2)} {numeraire.label}"

    if len(options) == 1:
        return "what is to be moved is too small for more than one round"
    if chosen.rounds == 1:
        best = min(options[1:], key=lambda option: option.total)
        return f"all at once costs {money(one.total)}, {best.rounds} rounds would cost {money(best.total)}"
    swaps = (one.fees + one.impact + one.skew + one.rest) - (chosen.fees + chosen.impact + chosen.skew + chosen.rest)
    more = (chosen.gas + chosen.waiting) - (one.gas + one.waiting)
    return (
        f"{chosen.rounds} rounds cost {money(chosen.total)}, all at once {money(one.total)}: the pools take {money(swaps)} less, "
        f"gas and waiting {money(more)} more"
    )
