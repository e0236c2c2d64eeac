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
from agent.model import Leg, LegPlace, PlanCost, Pool, StepInput, SwapResult
from agent.planning.approval_gas import approval_count, legs_bytes, swap_spend
from agent.planning.gas import gas_value, leg_gas_units, plan_gas_units, with_payment_legs
from agent.planning.problem import Problem
from agent.planning.routes import Route, merge_routes
from agent.policy.minimum import APPROVAL_BYTES, APPROVAL_GAS
from agent.reference.floors import fair_floor, impact_bound_bps, min_out
from agent.units import BPS, Value, floor_int

# --- A plan in the making: legs in exact integers, their balance changes and costs.


@dataclass(slots=True)
class PlanDraft:
    """Legs so far with their effects: changes of the wallet, and what is sold and bought, by token.
    `leg_gas_units` is the gas of each leg, `full_pools` are pools that take no more.
    `below_floor_pools` are the pools of legs below their fair floor, with the reason;
    `untraded_values` is the value not traded because of them.
    """

    legs: list[Leg] = field(default_factory=list)
    leg_gas_units: list[int] = field(default_factory=list)
    delta_raw: dict[str, int] = field(default_factory=dict)
    sold_raw: dict[str, int] = field(default_factory=dict)
    bought_raw: dict[str, int] = field(default_factory=dict)
    full_pools: set[str] = field(default_factory=set)
    below_floor_pools: dict[str, str] = field(default_factory=dict)
    untraded_values: dict[str, Value] = field(default_factory=dict)
    fees: Value = Fraction(0)
    impact: Value = Fraction(0)
    skew: Value = Fraction(0)
    gross_volume: Value = Fraction(0)

    def gas_units(self, problem: Problem) -> int:
        """Return the gas of the transaction, payment in native coin included; 0 without legs."""
        return plan_gas_units(
            problem.gas_inputs,
            with_payment_legs(problem.wrapped_native, self.legs),
            sum(self.leg_gas_units),
        )

    def leg_chains(self) -> list[list[int]]:
        """Return the indices of each chain's legs, in order, up to the leg that pays the
        wallet.
        """
        chain_ends = [
            index + 1 for index, leg in enumerate(self.legs) if leg.sink is LegPlace.WALLET
        ]
        return [
            list(range(first_index, end_index))
            for first_index, end_index in zip([0, *chain_ends], chain_ends, strict=False)
        ]

    def cost(self, problem: Problem) -> PlanCost:
        """Return the cost of all legs in numeraire base units, missing approvals included."""
        approvals_needed = approval_count(
            swap_spend(with_payment_legs(problem.wrapped_native, self.legs)),
            problem.gas_inputs.allowances,
        )
        swap_gas, approval_gas = (
            gas_value(gas_units, 1, problem.gas_unit_value)
            for gas_units in (self.gas_units(problem), APPROVAL_GAS * approvals_needed)
        )
        if problem.data_fee is None or not self.legs:
            return PlanCost(self.fees, self.impact, self.skew, swap_gas, approval_gas)
        calldata_bytes = legs_bytes(with_payment_legs(problem.wrapped_native, self.legs))
        swap_data_fee = problem.data_fee_value(self.gas_units(problem), calldata_bytes)
        approval_data_fee = problem.data_fee_value(
            APPROVAL_GAS * approvals_needed, *[APPROVAL_BYTES] * approvals_needed
        )
        return PlanCost(
            self.fees,
            self.impact,
            self.skew,
            swap_gas + swap_data_fee,
            approval_gas + approval_data_fee,
            data_fee=swap_data_fee + approval_data_fee,
        )

    def turnover(self, problem: Problem) -> Value:
        """Return half the sum of absolute changes of holdings in value."""
        return (
            sum(
                (abs(raw) * problem.price(token) for token, raw in self.delta_raw.items()),
                Fraction(0),
            )
            / 2
        )


# --- Ends of the known ticks, beyond which the state of a pool is unknown.


FULL_FRACTION = Fraction(999, 1_000)
"""Fraction of the known ticks above which a leg counts as reaching their end, because the solve
stops slightly before a bound.
"""


def plan_pools_out_of_ticks(step: StepInput, legs: Iterable[Leg]) -> tuple[str, ...]:
    """Return pools in which a plan's legs reach the end of the known ticks before
    limits.price_impact binds.
    """
    pools_by_address = {pool.address: pool for pool in step.snapshot.pools}
    return pools_out_of_ticks(pools_by_address, legs, impact_bound_bps(step.limits))


def pools_out_of_ticks(
    pools: Mapping[str, Pool], legs: Iterable[Leg], impact_bps: int
) -> tuple[str, ...]:
    """Return pools in which the legs reach the end of the known ticks before moving the price by
    `impact_bps`.
    """
    sold_raw: Counter[tuple[str, str]] = Counter()
    for leg in legs:
        if leg.pool in pools:
            sold_raw[leg.pool, leg.token_in] += leg.amount_in_raw
    return tuple(
        pool
        for (pool, token_in), raw in sorted(sold_raw.items())
        if pools[pool].exceeds_known_ticks(token_in, impact_bps)
        and raw >= FULL_FRACTION * pools[pool].max_in(token_in, impact_bps)
    )


DUST_DIVISOR = 10**6
"""Divisor of an approval: a remainder up to this part is added to the last route. A plan repeated
after its approval differs by no more than that, and resetting a leftover allowance would cost a
transaction.
"""
NO_AMOUNTS: Mapping[tuple[str, str], int] = MappingProxyType({})
UNSOLD_FRACTION = Fraction(1, 10**7)
"""Fraction of the traded amount that may stay unsold because of float error."""
UNNAMED_FRACTION = Fraction(1, 10**5)
"""Fraction of the portfolio up to which a plan does not say that a token is off its target; a
remainder of a leaving token up to this is sold with the rest.
"""
ADDED_DIVISOR = 1_000
"""Divisor of an unsold amount: so much more of it is added to an earlier route, since the later one
ends at its bound a little sooner in whole units.
"""
MANY_UNITS = 100_000
"""Base units of a trade above which a single unit is negligible."""
GIVE_UP_DIVISOR = 1_000
"""Divisor of an amount (ten basis points) that may be given up so that a token with a target of
zero is sold completely.
"""
MAX_RETRIES = 12
"""Maximum number of times that a route's amount is reduced; each try fits the leg that failed."""


@dataclass(frozen=True, slots=True)
class _SimulatedLeg:
    """One simulated leg: pool before and after, whether the wallet pays it and receives its output,
    and its sources.
    """

    token_in: str
    token_out: str
    swap_result: SwapResult[Pool]
    pool_before: Pool
    from_wallet: bool
    to_wallet: bool
    sources: range


@dataclass(slots=True)
class _RouteTrial:
    """Legs of a route not booked yet, with the pools after them.

    If a leg does not fit, `retry` has the sources that pay it and the fraction of their amounts
    to try next.
    """

    amounts: list[int]
    simulated_legs: list[_SimulatedLeg] = field(default_factory=list)
    current_pools: dict[str, Pool] = field(default_factory=dict)
    spent_raw: dict[tuple[str, str], int] = field(default_factory=dict)
    retry: tuple[range, Fraction] | None = None


class RouteSimulator:
    """Simulator of routes on the changing pool states, with the result in `draft`; with
    `is_exact_input`, amounts are not trimmed.
    """

    def __init__(self, problem: Problem, is_exact_input: bool = False) -> None:
        self.problem = problem
        self.is_exact_input = is_exact_input
        self.current_pools: dict[str, Pool] = dict(problem.pools)
        self.draft = PlanDraft()
        self.later_raw: dict[str, int] = {}
        """Base units that the routes after this one want, by token sold."""
        self._max_inputs: dict[tuple[str, str], int] = {}
        self._spent_raw: dict[tuple[str, str], int] = {}

    def spendable(self, token: str) -> int:
        """Return base units of the wallet's spendable balance that no leg has taken yet."""
        node = self.problem.nodes[self.problem.index_by_token[token]]
        return node.spendable_raw - self.draft.sold_raw.get(token, 0)

    def run(self, route: Route, requested_raw: Sequence[int]) -> list[int]:
        """Trade up to the requested amounts, by source, within bounds and balances; return the base
        units sold. Sources of a leg below its fair floor are dropped; the other sources of the
        route continue.
        """
        amounts_raw = self._affordable_amounts(
            [source.hops[0][1] for source in route.sources], requested_raw
        )
        for _ in amounts_raw:
            trial = self._largest_fit(route, amounts_raw)
            if trial is None:
                break
            trial = self._shift_unsold(route, amounts_raw, trial)
            for allows_sell_out in (True, False):
                trial = self._trim(route, trial, allows_sell_out)
                legs = [self._leg(simulated_leg) for simulated_leg in trial.simulated_legs]
                below_floor_indices = [
                    index for index, leg in enumerate(legs) if leg.min_out_raw > leg.amount_out_raw
                ]
                if not below_floor_indices:
                    self._book(trial, legs)
                    return trial.amounts
            amounts_raw = self._without_sources(
                route,
                trial,
                legs[below_floor_indices[0]],
                trial.simulated_legs[below_floor_indices[0]].sources,
            )
        return [0] * len(amounts_raw)

    def _largest_fit(self, route: Route, amounts_raw: Sequence[int]) -> _RouteTrial | None:
        """Return the route with the largest amounts that all its legs take; None for nothing."""
        amounts_raw = list(amounts_raw)
        for _ in range(MAX_RETRIES):
            trial = _RouteTrial(amounts_raw)
            if self._follow(route, trial, ends_route=True) == 0:
                return None
            if trial.retry is None:
                return trial
            source_range, fraction = trial.retry
            amounts_raw = [
                max(0, min(raw - 1, floor_int(raw * fraction)))
                if source_index in source_range
                else raw
                for source_index, raw in enumerate(amounts_raw)
            ]
        return None

    def _shift_unsold(
        self, route: Route, requested_raw: Sequence[int], trial: _RouteTrial
    ) -> _RouteTrial:
        """Return the trial with what a source could not sell added to another source of the same
        token, if that one's legs take all of it.
        """
        source_tokens = [source.hops[0][1] for source in route.sources]
        for source_index, raw in enumerate(requested_raw):
            for other_index, token in enumerate(source_tokens):
                unsold_raw = raw - trial.amounts[source_index]
                if (
                    unsold_raw <= 0
                    or other_index == source_index
                    or token != source_tokens[source_index]
                ):
                    continue
                amounts_raw = list(trial.amounts)
                amounts_raw[other_index] += unsold_raw
                retry_trial = _RouteTrial(amounts_raw)
                self._follow(route, retry_trial, ends_route=True)
                if retry_trial.retry is None:
                    trial = retry_trial
                    break
        return trial

    def _without_sources(
        self, route: Route, trial: _RouteTrial, leg: Leg, source_range: range
    ) -> list[int]:
        """Return the amounts of a trial without the sources of a leg below its floor, and record
        its pool.
        """
        draft = self.draft
        problem = self.problem
        draft.below_floor_pools[leg.pool] = (
            f"pays {leg.amount_out_raw} base units, but the reference price requires at least"
            f" {leg.min_out_raw}"
        )
        source_tokens = [source.hops[0][1] for source in route.sources]
        lost_value = sum(
            (
                trial.amounts[source_index] * problem.price(source_tokens[source_index])
                for source_index in source_range
            ),
            Fraction(0),
        )
        draft.untraded_values[leg.pool] = (
            draft.untraded_values.get(leg.pool, Fraction(0)) + lost_value
        )
        return [
            0 if source_index in source_range else raw
            for source_index, raw in enumerate(trial.amounts)
        ]

    def _trim(self, route: Route, trial: _RouteTrial, allows_sell_out: bool) -> _RouteTrial:
        """Return the least amounts with equal output, if one base unit of a token on the route is a
        notable part of the trade. Outputs are whole base units, so excess input is lost to the
        pool. With `allows_sell_out`, tokens with a target of zero are still sold to the last unit
        if that costs little.
        """
        problem = self.problem
        paid_raw = trial.simulated_legs[-1].swap_result.amount_out_raw
        paid_value = paid_raw * problem.price(trial.simulated_legs[-1].token_out)
        if self.is_exact_input or all(
            problem.price(simulated_leg.token_out) * MANY_UNITS <= paid_value
            for simulated_leg in trial.simulated_legs
        ):
            return trial
        source_tokens = [source.hops[0][1] for source in route.sources]
        for source_index, token in reversed(list(enumerate(source_tokens))):
            too_little_raw = -1
            enough_raw = trial.amounts[source_index]
            smallest_trial = trial
            while enough_raw - too_little_raw > 1:
                middle_raw = (too_little_raw + enough_raw) // 2
                candidate_trial = _RouteTrial(
                    [*trial.amounts[:source_index], middle_raw, *trial.amounts[source_index + 1 :]]
                )
                if (
                    self._follow(route, candidate_trial, ends_route=True) >= paid_raw
                    and candidate_trial.retry is None
                ):
                    smallest_trial = candidate_trial
                    enough_raw = middle_raw
                else:
                    too_little_raw = middle_raw
            if not (
                allows_sell_out
                and self._sells_out(token, source_tokens, trial)
                and (trial.amounts[source_index] - enough_raw) * GIVE_UP_DIVISOR
                <= trial.amounts[source_index]
            ):
                trial = smallest_trial
        return trial

    def _sells_out(self, token: str, source_tokens: Sequence[str], trial: _RouteTrial) -> bool:
        """True if a token has a target of zero and, where the route has a coarse token, this trial
        and the routes that follow leave nothing of it.
        """
        problem = self.problem
        if token not in problem.leaving_tokens:
            return False
        if not any(
            problem.has_few_units(problem.index_by_token[simulated_leg.token_out])
            for simulated_leg in trial.simulated_legs
        ):
            return True
        sold_raw = sum(
            raw
            for raw, source_token in zip(trial.amounts, source_tokens, strict=True)
            if source_token == token
        )
        remainder_raw = self.spendable(token) - sold_raw - self.later_raw.get(token, 0)
        return remainder_raw * problem.price(token) <= UNSOLD_FRACTION * problem.total

    def _affordable_amounts(
        self, source_tokens: Sequence[str], requested_raw: Sequence[int]
    ) -> list[int]:
        """Return the requested amounts, capped at the wallet's balances, plus a remainder of
        dust.
        """
        left_raw_by_token = {token: self.spendable(token) for token in source_tokens}
        amounts_raw = []
        for token, raw in zip(source_tokens, requested_raw, strict=True):
            amount_raw = min(raw, left_raw_by_token[token])
            if self._is_dust(token, left_raw_by_token[token] - amount_raw):
                amount_raw = left_raw_by_token[token]
            left_raw_by_token[token] -= amount_raw
            amounts_raw.append(max(0, amount_raw))
        return amounts_raw

    def _is_dust(self, token: str, raw: int) -> bool:
        """True if the remainder of an approval, or of a token with a target of zero, is
        negligible.
        """
        node = self.problem.nodes[self.problem.index_by_token[token]]
        return _is_leaving_dust(self.problem, token, raw) or (
            node.cap_raw is not None and raw * DUST_DIVISOR <= node.spendable_raw
        )

    def _follow(
        self, route: Route, trial: _RouteTrial, ends_route: bool, first_source: int = 0
    ) -> int:
        """Run a route whose sources are numbered from `first_source`; return its output in base
        units, or the input of a leg that does not fit.
        """
        source_end = first_source
        amount_raw = 0
        for feeding_route in route.feeding_routes:
            amount_raw += self._follow(
                feeding_route, trial, ends_route=False, first_source=source_end
            )
            source_end += len(feeding_route.sources)
        if not route.feeding_routes:
            source_end = first_source + 1
            amount_raw = trial.amounts[first_source]
        for hop_index, (pool, token_in) in enumerate(route.hops):
            if trial.retry is not None or amount_raw == 0:
                return amount_raw
            swap_or_fraction = self._try_leg(trial, pool, token_in, amount_raw)
            if isinstance(swap_or_fraction, Fraction):
                trial.retry = range(first_source, source_end), swap_or_fraction
                return amount_raw
            from_wallet = hop_index == 0 and not route.feeding_routes
            to_wallet = ends_route and hop_index == len(route.hops) - 1
            pool_before = trial.current_pools.get(pool, self.current_pools[pool])
            trial.simulated_legs.append(
                _SimulatedLeg(
                    token_in,
                    pools.token_out(pool_before, token_in),
                    swap_or_fraction,
                    pool_before,
                    from_wallet,
                    to_wallet,
                    range(first_source, source_end),
                )
            )
            trial.current_pools[pool] = swap_or_fraction.pool_after
            trial.spent_raw[pool, token_in] = trial.spent_raw.get((pool, token_in), 0) + amount_raw
            amount_raw = swap_or_fraction.amount_out_raw
        return amount_raw

    def _try_leg(
        self, trial: _RouteTrial, pool_address: str, token_in: str, amount_raw: int
    ) -> SwapResult[Pool] | Fraction:
        """Return the swap of a leg that fits, else the fraction of the amount to try next."""
        pool_before = trial.current_pools.get(pool_address, self.current_pools[pool_address])
        input_left_raw = self.remaining_input(pool_address, token_in, trial.spent_raw)
        if amount_raw > input_left_raw:
            self.draft.full_pools.add(pool_address)
            return Fraction(input_left_raw, amount_raw)
        try:
            swap_result = pool_before.swap(token_in, amount_raw)
        except BeyondKnownTicks as error:
            self.draft.full_pools.add(pool_address)
            return Fraction(min(error.largest_raw, amount_raw - 1), amount_raw)
        except ContractRevert:
            return Fraction(0)
        if (
            pools.price_move_bps(self.problem.pools[pool_address], swap_result.pool_after, token_in)
            > self.problem.impact_bps
        ):
            self.draft.full_pools.add(pool_address)
            return Fraction(BPS - 1, BPS)
        if swap_result.amount_in_raw != amount_raw or swap_result.amount_out_raw <= 0:
            return Fraction(0)
        return swap_result

    def remaining_input(
        self,
        pool_address: str,
        token_in: str,
        more_spent_raw: Mapping[tuple[str, str], int] = NO_AMOUNTS,
    ) -> int:
        """Return base units that the pool still accepts within its bounds; zero once it has traded
        in the other direction. `more_spent_raw` is spent in addition.
        """
        direction = (pool_address, token_in)
        pool_at_start = self.problem.pools[pool_address]
        opposite_direction = (pool_address, pools.token_out(pool_at_start, token_in))
        if opposite_direction in self._spent_raw or opposite_direction in more_spent_raw:
            return 0
        if direction not in self._max_inputs:
            self._max_inputs[direction] = self.problem.max_input(pool_at_start, token_in)
        return (
            self._max_inputs[direction]
            - self._spent_raw.get(direction, 0)
            - more_spent_raw.get(direction, 0)
        )

    def _book(self, trial: _RouteTrial, legs: Sequence[Leg]) -> None:
        """Add a trial's legs to the draft."""
        draft = self.draft
        for simulated_leg, leg in zip(trial.simulated_legs, legs, strict=True):
            direction = (leg.pool, leg.token_in)
            self._spent_raw[direction] = self._spent_raw.get(direction, 0) + leg.amount_in_raw
            self.current_pools[leg.pool] = simulated_leg.swap_result.pool_after
            self._add_costs(simulated_leg, leg)
            if simulated_leg.from_wallet:
                draft.sold_raw[leg.token_in] = (
                    draft.sold_raw.get(leg.token_in, 0) + leg.amount_in_raw
                )
                draft.delta_raw[leg.token_in] = (
                    draft.delta_raw.get(leg.token_in, 0) - leg.amount_in_raw
                )
            if simulated_leg.to_wallet:
                draft.bought_raw[leg.token_out] = (
                    draft.bought_raw.get(leg.token_out, 0) + leg.amount_out_raw
                )
                draft.delta_raw[leg.token_out] = (
                    draft.delta_raw.get(leg.token_out, 0) + leg.amount_out_raw
                )
        draft.legs += legs

    def _leg(self, simulated_leg: _SimulatedLeg) -> Leg:
        problem = self.problem
        swap_result = simulated_leg.swap_result
        fee_pips = simulated_leg.pool_before.fee_for(simulated_leg.token_in)
        floor_raw = fair_floor(
            swap_result.amount_in_raw,
            *problem.floor_prices(simulated_leg.token_in, simulated_leg.token_out),
            fee_pips,
            problem.floor_impact_bps,
            problem.slippage_bps or 0,
        )
        return Leg(
            pool=simulated_leg.pool_before.address,
            venue=simulated_leg.pool_before.venue,
            token_in=simulated_leg.token_in,
            token_out=simulated_leg.token_out,
            fee_pips=fee_pips,
            amount_in_raw=swap_result.amount_in_raw,
            amount_out_raw=swap_result.amount_out_raw,
            min_out_raw=max(
                1, min_out(swap_result.amount_out_raw, floor_raw, problem.slippage_bps)
            ),
            fee_raw=swap_result.fee_raw,
            impact_bps=pools.price_move_bps(
                simulated_leg.pool_before, swap_result.pool_after, simulated_leg.token_in
            ),
            source=LegPlace.WALLET if simulated_leg.from_wallet else LegPlace.ROUTER,
            sink=LegPlace.WALLET if simulated_leg.to_wallet else LegPlace.ROUTER,
        )

    def _add_costs(self, simulated_leg: _SimulatedLeg, leg: Leg) -> None:
        """Split a leg's loss at reference prices into fee, impact against the snapshot, and
        skew.
        """
        problem = self.problem
        draft = self.draft
        price_in = problem.price(leg.token_in)
        price_out = problem.price(leg.token_out)
        amount_after_fee_raw = leg.amount_in_raw - leg.fee_raw
        value_at_spot = (
            amount_after_fee_raw
            * pools.marginal_price(problem.pools[leg.pool], leg.token_in)
            * price_out
        )
        draft.fees += leg.fee_raw * price_in
        draft.impact += value_at_spot - leg.amount_out_raw * price_out
        draft.skew += amount_after_fee_raw * price_in - value_at_spot
        draft.gross_volume += leg.amount_in_raw * price_in
        observation_before = simulated_leg.pool_before.observation_key
        observation_at_start = problem.pools[leg.pool].observation_key
        writes_observation = (
            simulated_leg.swap_result.pool_after.observation_key
            != observation_before
            == observation_at_start
        )  # a pool writes one observation per block
        draft.leg_gas_units.append(
            leg_gas_units(
                simulated_leg.pool_before,
                simulated_leg.swap_result.ticks_crossed,
                simulated_leg.swap_result.stop_count,
                problem.gas_inputs.router_gas,
                writes_observation,
            )
        )


def run_routes(
    problem: Problem,
    routes: Sequence[Route],
    utility: Callable[[PlanDraft], float],
    is_exact_input: bool = False,
) -> PlanDraft:
    """Run merged routes, and return the draft. If that leaves a part unsold, run them again with
    leaving tokens first, and single routes, since the last route meets a pool's bound; what is
    unsold of a token to be sold whole is added to the first route between the same tokens. Then
    return the draft with the highest utility.

    Sales of native coin go first and separately, because SwapRouter02 pays with native coin as long
    as it has any.
    """
    wrapped_native = problem.wrapped_native
    native_routes = [
        route
        for route in routes
        if wrapped_native is not None
        and wrapped_native.wrappable_wei
        and route.hops[0][1] == wrapped_native.token
    ]
    single_routes = [route for route in routes if route not in native_routes]
    routes_after_native = merge_routes(single_routes)
    draft, unsold_raw = _run_in_order(
        problem, (*native_routes, *routes_after_native), is_exact_input
    )
    unsold_value = sum(
        (raw * problem.price(token) for (token, _), raw in unsold_raw.items()), Fraction(0)
    )
    if unsold_value <= UNSOLD_FRACTION * draft.gross_volume:
        return draft
    unsold_leaving_raw = {
        token_pair: raw + raw // ADDED_DIVISOR + 1
        for token_pair, raw in unsold_raw.items()
        if raw > 0 and _sells_all(problem, routes, token_pair[0])
    }
    leaving_first = sorted(
        routes_after_native,
        key=lambda route: any(
            source.hops[0][1] not in problem.leaving_tokens for source in route.sources
        ),
    )
    for other_routes in (leaving_first, single_routes):
        other_draft, _ = _run_in_order(
            problem, (*native_routes, *other_routes), is_exact_input, unsold_leaving_raw
        )
        draft = max(draft, other_draft, key=utility)
    return draft


def _sells_all(problem: Problem, routes: Sequence[Route], token: str) -> bool:
    """True if a token has a target of zero and the routes sell all but dust of it."""
    node = problem.nodes[problem.index_by_token[token]]
    requested_raw = sum(route.amount_raw for route in routes if route.hops[0][1] == token)
    remainder_raw = node.spendable_raw - requested_raw
    return _is_leaving_dust(problem, token, remainder_raw)


def _is_leaving_dust(problem: Problem, token: str, raw: int) -> bool:
    """True if the remainder of a token with a target of zero is too little to be named."""
    return (
        token in problem.leaving_tokens
        and raw * problem.price(token) <= UNNAMED_FRACTION * problem.total
    )


def _run_in_order(
    problem: Problem,
    routes: Sequence[Route],
    is_exact_input: bool,
    added_raw: Mapping[tuple[str, str], int] = NO_AMOUNTS,
) -> tuple[PlanDraft, dict[tuple[str, str], int]]:
    """Run routes in order; return the draft and the unsold base units by sold and bought token.

    Amounts that a route cannot absorb move to the next route between the same tokens, so that no
    token overshoots. `added_raw` is added to the first route between its tokens.
    """
    simulator = RouteSimulator(problem, is_exact_input)
    unsold_raw_by_pair = dict(added_raw)
    for source in (source for route in routes for source in route.sources):
        token = source.hops[0][1]
        simulator.later_raw[token] = simulator.later_raw.get(token, 0) + source.amount_raw
    for route in routes:
        for source in route.sources:
            simulator.later_raw[source.hops[0][1]] -= source.amount_raw
        last_pool, last_token_in = route.hops[-1]
        token_out = pools.token_out(problem.pools[last_pool], last_token_in)
        token_pairs = [(source.hops[0][1], token_out) for source in route.sources]
        amounts_raw = [
            source.amount_raw + unsold_raw_by_pair.pop(token_pair, 0)
            for source, token_pair in zip(route.sources, token_pairs, strict=True)
        ]
        for token_pair, amount_raw, sold_raw in zip(
            token_pairs, amounts_raw, simulator.run(route, amounts_raw), strict=True
        ):
            unsold_raw_by_pair[token_pair] = (
                unsold_raw_by_pair.get(token_pair, 0) + amount_raw - sold_raw
            )
    return simulator.draft, unsold_raw_by_pair
