"""Exact simulation of routes: each leg on the state left by the previous legs, with every bound
checked.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from types import MappingProxyType

from agent.amm import pools
from agent.amm.swap_errors import BeyondKnownTicks, ContractRevert
from agent.model import Leg, LegFunding, PlanCost, Pool, StepInput, SwapResult
from agent.planning.approval_gas import approval_count, legs_bytes, swap_spend
from agent.planning.gas import gas_value, leg_gas_units, plan_gas_units, with_payment_legs
from agent.planning.problem import Problem, fair_floor, impact_bound_bps, min_out
from agent.planning.routes import Route, merge_routes
from agent.policy.minimum import APPROVAL_BYTES, APPROVAL_GAS
from agent.units import BPS, Value, floor_int

# --- A plan in the making: legs in exact integers, their balance changes and costs.


@dataclass(slots=True)
class PlanDraft:
    """Legs so far with their effects. `barred` are the pools of legs below their fair floor, with
    the reason; `unfair` is the value not traded because of them.
    """

    legs: list[Leg] = field(default_factory=list)
    leg_gas: list[int] = field(default_factory=list)
    delta: dict[str, int] = field(default_factory=dict)
    sold: dict[str, int] = field(default_factory=dict)
    bought: dict[str, int] = field(default_factory=dict)
    full: set[str] = field(default_factory=set)
    barred: dict[str, str] = field(default_factory=dict)
    unfair: dict[str, Value] = field(default_factory=dict)
    fees: Value = Fraction(0)
    impact: Value = Fraction(0)
    skew: Value = Fraction(0)
    gross: Value = Fraction(0)

    def gas_units(self, problem: Problem) -> int:
        """Return the gas of the transaction, payment in native coin included; 0 without legs."""
        return plan_gas_units(
            problem.gas, with_payment_legs(problem.coin, self.legs), sum(self.leg_gas)
        )

    def chains(self) -> list[list[int]]:
        """Return the positions of each chain's legs, in order, up to the leg that pays the
        wallet.
        """
        ends = [number + 1 for number, leg in enumerate(self.legs) if leg.sink is LegFunding.WALLET]
        return [list(range(a, b)) for a, b in zip([0, *ends], ends, strict=False)]

    def cost(self, problem: Problem) -> PlanCost:
        """Return the cost of all legs in numeraire base units, missing approvals included."""
        needed = approval_count(
            swap_spend(with_payment_legs(problem.coin, self.legs)), problem.gas.allowances
        )
        swaps, before = (
            gas_value(units, 1, problem.gas_unit_value)
            for units in (self.gas_units(problem), APPROVAL_GAS * needed)
        )
        if problem.data_fee is None or not self.legs:
            return PlanCost(self.fees, self.impact, self.skew, swaps, before)
        size = legs_bytes(with_payment_legs(problem.coin, self.legs))
        of_swaps = problem.data_fee_value(self.gas_units(problem), size)
        of_approvals = problem.data_fee_value(APPROVAL_GAS * needed, *[APPROVAL_BYTES] * needed)
        return PlanCost(
            self.fees,
            self.impact,
            self.skew,
            swaps + of_swaps,
            before + of_approvals,
            data_fee=of_swaps + of_approvals,
        )

    def turnover(self, problem: Problem) -> Value:
        """Return half the sum of absolute changes of holdings in value."""
        return (
            sum((abs(raw) * problem.price(token) for token, raw in self.delta.items()), Fraction(0))
            / 2
        )


# --- Ends of the known ticks, beyond which the state of a pool is unknown.


FULL = Fraction(999, 1_000)
"""Fraction of the known ticks above which a leg counts as reaching their end, because the solve
stops slightly before a bound.
"""


def plan_pools_out_of_ticks(step: StepInput, legs: Iterable[Leg]) -> tuple[str, ...]:
    """Return pools in which a plan's legs reach the end of the known ticks before
    limits.price_impact binds.
    """
    known = {pool.address: pool for pool in step.snapshot.pools}
    return pools_out_of_ticks(known, legs, impact_bound_bps(step.limits))


def pools_out_of_ticks(
    pools: Mapping[str, Pool], legs: Iterable[Leg], impact_bps: int
) -> tuple[str, ...]:
    """Return pools in which the legs reach the end of the known ticks before moving the price by
    `impact_bps`.
    """
    sold: Counter[tuple[str, str]] = Counter()
    for leg in legs:
        if leg.pool in pools:
            sold[leg.pool, leg.token_in] += leg.amount_in_raw
    return tuple(
        pool
        for (pool, token_in), raw in sorted(sold.items())
        if pools[pool].runs_out(token_in, impact_bps)
        and raw >= FULL * pools[pool].max_in(token_in, impact_bps)
    )


DUST_DIVISOR = 10**6
"""Divisor of an approval: a remainder up to this part is added to the last route. A plan repeated
after its approval differs by no more than that, and resetting a leftover allowance would cost a
transaction.
"""
NOTHING: Mapping[tuple[str, str], int] = MappingProxyType({})
UNSOLD = Fraction(1, 10**7)
"""Fraction of the traded amount that may stay unsold because of float error."""
COARSE = 100_000
"""Base units of a trade above which a single unit is negligible."""
WHOLE = 1_000
"""Divisor of an amount (ten basis points) that may be given up so that a token with a target of
zero is sold completely.
"""
RETRIES = 12
"""Maximum number of times that a route's amount is reduced; each try fits the leg that failed."""


@dataclass(frozen=True, slots=True)
class _SimulatedLeg:
    """One simulated leg: pool before and after, whether the wallet pays it and receives its output,
    and its sources.
    """

    token_in: str
    token_out: str
    swapped: SwapResult[Pool]
    before: Pool
    first: bool
    last: bool
    sources: range


@dataclass(slots=True)
class _RouteTrial:
    """Legs of a route not booked yet, with the pools after them.

    If a leg does not fit, `short` has the sources that pay it and the fraction of their amounts to
    try next.
    """

    amounts: list[int]
    runs: list[_SimulatedLeg] = field(default_factory=list)
    now: dict[str, Pool] = field(default_factory=dict)
    spent: dict[tuple[str, str], int] = field(default_factory=dict)
    short: tuple[range, Fraction] | None = None


class RouteSimulator:
    """Simulator of routes on the changing pool states, with the result in `draft`; with `exact`,
    amounts are not trimmed.
    """

    def __init__(self, problem: Problem, exact: bool = False) -> None:
        self.problem, self.exact = problem, exact
        self.now: dict[str, Pool] = dict(problem.pools)
        self.draft = PlanDraft()
        self.later: dict[str, int] = {}
        """Base units that the routes after this one want, by token sold."""
        self._room: dict[tuple[str, str], int] = {}
        self._spent: dict[tuple[str, str], int] = {}

    def spendable(self, token: str) -> int:
        """Return base units of the wallet's spendable balance that no leg has taken yet."""
        node = self.problem.nodes[self.problem.position[token]]
        return node.spendable_raw - self.draft.sold.get(token, 0)

    def run(self, route: Route, wanted: Sequence[int]) -> list[int]:
        """Trade up to the wanted amounts, by source, within bounds and balances; return the base
        units taken. Sources of a leg below its fair floor are dropped; the other sources of the
        route continue.
        """
        amounts = self._affordable([source.hops[0][1] for source in route.sources], wanted)
        for _ in amounts:
            trial = self._fitting(route, amounts)
            if trial is None:
                break
            trial = self._shifted(route, amounts, trial)
            for whole in (True, False):
                trial = self._trimmed(route, trial, whole)
                legs = [self._leg(run) for run in trial.runs]
                unfair = [at for at, leg in enumerate(legs) if leg.min_out_raw > leg.amount_out_raw]
                if not unfair:
                    self._book(trial, legs)
                    return trial.amounts
            amounts = self._without(route, trial, legs[unfair[0]], trial.runs[unfair[0]].sources)
        return [0] * len(amounts)

    def _fitting(self, route: Route, amounts: Sequence[int]) -> _RouteTrial | None:
        """Return the route with the largest amounts that all its legs take; None for nothing."""
        amounts = list(amounts)
        for _ in range(RETRIES):
            trial = _RouteTrial(amounts)
            if self._follow(route, trial, last=True) == 0:
                return None
            if trial.short is None:
                return trial
            sources, share = trial.short
            amounts = [
                max(0, min(raw - 1, floor_int(raw * share))) if at in sources else raw
                for at, raw in enumerate(amounts)
            ]
        return None

    def _shifted(self, route: Route, wanted: Sequence[int], trial: _RouteTrial) -> _RouteTrial:
        """Return the trial with what a source could not sell added to another source of the same
        token, if that one's legs take all of it.
        """
        tokens = [source.hops[0][1] for source in route.sources]
        for at, raw in enumerate(wanted):
            for other, token in enumerate(tokens):
                missing = raw - trial.amounts[at]
                if missing <= 0 or other == at or token != tokens[at]:
                    continue
                amounts = list(trial.amounts)
                amounts[other] += missing
                tried = _RouteTrial(amounts)
                self._follow(route, tried, last=True)
                if tried.short is None:
                    trial = tried
                    break
        return trial

    def _without(self, route: Route, trial: _RouteTrial, leg: Leg, sources: range) -> list[int]:
        """Return the amounts of a trial without the sources of a leg below its floor, and record
        its pool.
        """
        draft, problem = self.draft, self.problem
        draft.barred[leg.pool] = (
            f"pays {leg.amount_out_raw} base units, but the reference price requires at least"
            f" {leg.min_out_raw}"
        )
        tokens = [source.hops[0][1] for source in route.sources]
        lost = sum((trial.amounts[at] * problem.price(tokens[at]) for at in sources), Fraction(0))
        draft.unfair[leg.pool] = draft.unfair.get(leg.pool, Fraction(0)) + lost
        return [0 if at in sources else raw for at, raw in enumerate(trial.amounts)]

    def _trimmed(self, route: Route, trial: _RouteTrial, whole: bool) -> _RouteTrial:
        """Return the least amounts with equal output, if one base unit of a token on the route is a
        notable part of the trade. Outputs are whole base units, so excess input is lost to the
        pool. With `whole`, tokens with a target of zero are still sold to the last unit if that
        costs little.
        """
        problem, paid_raw = self.problem, trial.runs[-1].swapped.amount_out_raw
        value = paid_raw * problem.price(trial.runs[-1].token_out)
        if self.exact or all(problem.price(run.token_out) * COARSE <= value for run in trial.runs):
            return trial
        tokens = [source.hops[0][1] for source in route.sources]
        for at, token in reversed(list(enumerate(tokens))):
            less, enough, least = -1, trial.amounts[at], trial
            while enough - less > 1:
                middle = (less + enough) // 2
                tried = _RouteTrial([*trial.amounts[:at], middle, *trial.amounts[at + 1 :]])
                if self._follow(route, tried, last=True) >= paid_raw and tried.short is None:
                    least, enough = tried, middle
                else:
                    less = middle
            if not (
                whole
                and self._empties(token, tokens, trial)
                and (trial.amounts[at] - enough) * WHOLE <= trial.amounts[at]
            ):
                trial = least
        return trial

    def _empties(self, token: str, tokens: Sequence[str], trial: _RouteTrial) -> bool:
        """True if a token has a target of zero and, where the route has a coarse token, this trial
        and the routes that follow leave nothing of it.
        """
        problem = self.problem
        if token not in problem.leaving:
            return False
        if not any(problem.has_few_units(problem.position[run.token_out]) for run in trial.runs):
            return True
        amount = sum(raw for raw, of in zip(trial.amounts, tokens, strict=True) if of == token)
        rest = self.spendable(token) - amount - self.later.get(token, 0)
        return rest * problem.price(token) <= UNSOLD * problem.total

    def _affordable(self, tokens: Sequence[str], wanted: Sequence[int]) -> list[int]:
        """Return the wanted amounts, capped at the wallet's balances, plus a remainder of dust."""
        left = {token: self.spendable(token) for token in tokens}
        amounts = []
        for token, raw in zip(tokens, wanted, strict=True):
            amount = min(raw, left[token])
            if self._is_dust(token, left[token] - amount):
                amount = left[token]
            left[token] -= amount
            amounts.append(max(0, amount))
        return amounts

    def _is_dust(self, token: str, raw: int) -> bool:
        """True if the remainder of an approval, or of a token with a target of zero, is negligible."""
        node = self.problem.nodes[self.problem.position[token]]
        if token in self.problem.leaving and raw * node.price <= UNSOLD * self.problem.total:
            return True
        return node.cap_raw is not None and raw * DUST_DIVISOR <= node.spendable_raw

    def _follow(self, route: Route, trial: _RouteTrial, last: bool, begin: int = 0) -> int:
        """Run a route whose sources are numbered from `begin`; return its output in base units, or
        the input of a leg that does not fit.
        """
        end, amount = begin, 0
        for feed in route.feeds:
            amount += self._follow(feed, trial, last=False, begin=end)
            end += len(feed.sources)
        if not route.feeds:
            end, amount = begin + 1, trial.amounts[begin]
        for number, (pool, token_in) in enumerate(route.hops):
            if trial.short is not None or amount == 0:
                return amount
            fit = self._leg_fits(trial, pool, token_in, amount)
            if isinstance(fit, Fraction):
                trial.short = range(begin, end), fit
                return amount
            first, ends = number == 0 and not route.feeds, last and number == len(route.hops) - 1
            before = trial.now.get(pool, self.now[pool])
            trial.runs.append(
                _SimulatedLeg(
                    token_in,
                    pools.token_out(before, token_in),
                    fit,
                    before,
                    first,
                    ends,
                    range(begin, end),
                )
            )
            trial.now[pool] = fit.after
            trial.spent[pool, token_in] = trial.spent.get((pool, token_in), 0) + amount
            amount = fit.amount_out_raw
        return amount

    def _leg_fits(
        self, trial: _RouteTrial, pool_address: str, token_in: str, amount: int
    ) -> SwapResult[Pool] | Fraction:
        """Return the swap of a leg that fits, else the fraction of the amount to try next."""
        before = trial.now.get(pool_address, self.now[pool_address])
        room = self.room(pool_address, token_in, trial.spent)
        if amount > room:
            self.draft.full.add(pool_address)
            return Fraction(room, amount)
        try:
            swapped = before.swap(token_in, amount)
        except BeyondKnownTicks as error:
            self.draft.full.add(pool_address)
            return Fraction(min(error.largest_raw, amount - 1), amount)
        except ContractRevert:
            return Fraction(0)
        if (
            pools.price_move_bps(self.problem.pools[pool_address], swapped.after, token_in)
            > self.problem.impact_bps
        ):
            self.draft.full.add(pool_address)
            return Fraction(BPS - 1, BPS)
        if swapped.amount_in_raw != amount or swapped.amount_out_raw <= 0:
            return Fraction(0)
        return swapped

    def room(
        self, pool_address: str, token_in: str, more: Mapping[tuple[str, str], int] = NOTHING
    ) -> int:
        """Return base units that the pool still accepts within its bounds; zero once it has traded
        in the other direction. `more` is spent in addition.
        """
        key, start = (pool_address, token_in), self.problem.pools[pool_address]
        back = (pool_address, pools.token_out(start, token_in))
        if back in self._spent or back in more:
            return 0
        if key not in self._room:
            self._room[key] = self.problem.room(start, token_in)
        return self._room[key] - self._spent.get(key, 0) - more.get(key, 0)

    def _book(self, trial: _RouteTrial, legs: Sequence[Leg]) -> None:
        """Add a trial's legs to the draft."""
        draft = self.draft
        for run, leg in zip(trial.runs, legs, strict=True):
            key = (leg.pool, leg.token_in)
            self._spent[key] = self._spent.get(key, 0) + leg.amount_in_raw
            self.now[leg.pool] = run.swapped.after
            self._price_in(run, leg)
            if run.first:
                draft.sold[leg.token_in] = draft.sold.get(leg.token_in, 0) + leg.amount_in_raw
                draft.delta[leg.token_in] = draft.delta.get(leg.token_in, 0) - leg.amount_in_raw
            if run.last:
                draft.bought[leg.token_out] = (
                    draft.bought.get(leg.token_out, 0) + leg.amount_out_raw
                )
                draft.delta[leg.token_out] = draft.delta.get(leg.token_out, 0) + leg.amount_out_raw
        draft.legs += legs

    def _leg(self, run: _SimulatedLeg) -> Leg:
        problem, swapped = self.problem, run.swapped
        floor = fair_floor(
            swapped.amount_in_raw,
            *problem.floor_prices(run.token_in, run.token_out),
            run.before.fee_pips,
            problem.floor_impact_bps,
            problem.slippage_bps or 0,
        )
        return Leg(
            pool=run.before.address,
            venue=run.before.venue,
            token_in=run.token_in,
            token_out=run.token_out,
            fee_pips=run.before.fee_pips,
            amount_in_raw=swapped.amount_in_raw,
            amount_out_raw=swapped.amount_out_raw,
            min_out_raw=max(1, min_out(swapped.amount_out_raw, floor, problem.slippage_bps)),
            fee_raw=swapped.fee_raw,
            impact_bps=pools.price_move_bps(run.before, swapped.after, run.token_in),
            source=LegFunding.WALLET if run.first else LegFunding.ROUTER,
            sink=LegFunding.WALLET if run.last else LegFunding.ROUTER,
        )

    def _price_in(self, run: _SimulatedLeg, leg: Leg) -> None:
        """Split a leg's loss at reference prices into fee, impact against the snapshot, and
        skew.
        """
        problem, draft = self.problem, self.draft
        price_in, price_out = problem.price(leg.token_in), problem.price(leg.token_out)
        net_raw = leg.amount_in_raw - leg.fee_raw
        unmoved = net_raw * pools.marginal_price(problem.pools[leg.pool], leg.token_in) * price_out
        draft.fees += leg.fee_raw * price_in
        draft.impact += unmoved - leg.amount_out_raw * price_out
        draft.skew += net_raw * price_in - unmoved
        draft.gross += leg.amount_in_raw * price_in
        before, start = run.before.observed, problem.pools[leg.pool].observed
        moved = (
            run.swapped.after.observed != before == start
        )  # a pool writes one observation per block
        draft.leg_gas.append(
            leg_gas_units(
                run.before, run.swapped.ticks_crossed, run.swapped.steps, problem.gas.router, moved
            )
        )


def run_routes(
    problem: Problem,
    routes: Sequence[Route],
    worth: Callable[[PlanDraft], float],
    exact: bool = False,
) -> PlanDraft:
    """Run merged routes, and single routes if merging leaves a part unsold.

    Merging uses pools in another order. Return the draft with the higher utility. Sales of native
    coin go first and separately, because SwapRouter02 pays with native coin as long as it has any.
    """
    coin = problem.coin
    native = [
        route
        for route in routes
        if coin is not None and coin.free_wei and route.hops[0][1] == coin.token
    ]
    draft, unsold = _run(
        problem, (*native, *merge_routes([route for route in routes if route not in native])), exact
    )
    if unsold <= UNSOLD * draft.gross:
        return draft
    return max(
        draft,
        _run(problem, (*native, *(route for route in routes if route not in native)), exact)[0],
        key=worth,
    )


def _run(problem: Problem, routes: Sequence[Route], exact: bool) -> tuple[PlanDraft, Value]:
    """Run routes in order; return the draft and the unsold value.

    Amounts that a route cannot absorb move to the next route between the same tokens, so that no
    token overshoots.
    """
    walk = RouteSimulator(problem, exact)
    left: dict[tuple[str, str], int] = {}
    for source in (source for route in routes for source in route.sources):
        token = source.hops[0][1]
        walk.later[token] = walk.later.get(token, 0) + source.amount_raw
    for route in routes:
        for source in route.sources:
            walk.later[source.hops[0][1]] -= source.amount_raw
        last_pool, last_in = route.hops[-1]
        end = pools.token_out(problem.pools[last_pool], last_in)
        ends = [(source.hops[0][1], end) for source in route.sources]
        amounts = [
            source.amount_raw + left.pop(pair, 0)
            for source, pair in zip(route.sources, ends, strict=True)
        ]
        for pair, amount, taken in zip(ends, amounts, walk.run(route, amounts), strict=True):
            left[pair] = left.get(pair, 0) + amount - taken
    return walk.draft, sum(
        (raw * problem.price(token) for (token, _), raw in left.items()), Fraction(0)
    )
