"""The planning problem: tokens with reference prices and spendable amounts, usable pools, and the
objective.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from agent.amm import pools as amm
from agent.errors import ErrorCode, Refused
from agent.floats import FloatArray, fsum_array, matvec
from agent.model import Goal, Pool, SkippedItem, StepInput, TrackingRisk, Verdict
from agent.planning.gas import (
    ROUTER_GAS,
    GasInputs,
    WrappedNative,
    gas_price_wei,
    leg_gas_units,
    repeat_leg_gas_units,
    wrapped_native_of,
)
from agent.planning.pool_curves import CurveStack, TradeCurves, build_trade_curves, stack_curves
from agent.planning.utility import (
    WIDE,
    DeviationRisk,
    FlowOptimizer,
    PlanUtility,
    build_deviation_risk,
)
from agent.policy import native_coin
from agent.policy.liquidity import valuation
from agent.policy.risk import aversion, correlations, volatilities
from agent.reference import ReferencePrices
from agent.units import BPS, PIPS, Price, Value, floor_int

# --- Minimum output of a leg, from the reference price and never from a pool alone (T1).


def fair_floor(
    amount_in_raw: int,
    price_in: Fraction,
    price_out: Fraction,
    fee_pips: int,
    impact_bps: int,
    slippage_bps: int,
) -> int:
    """Return the least output by reference prices: fair value · (1 − fee − impact limit) · (1 −
    slippage), rounded down. Prices in numeraire base units per token base unit. A pool skewed
    before the snapshot cannot lower it. At least 1, so that no signed leg has a floor of zero.
    """
    if amount_in_raw <= 0:
        return 0
    return max(
        1,
        floor_int(
            amount_in_raw * price_in / price_out * least_rate(fee_pips, impact_bps, slippage_bps)
        ),
    )


def least_rate(fee_pips: int, impact_bps: int, slippage_bps: int) -> Fraction:
    """Return the least fraction of fair value that a leg must return.

    No unit is traded below it, so every leg reaches it.
    """
    kept = Fraction(1) - Fraction(fee_pips, PIPS) - Fraction(impact_bps, BPS)
    return max(kept, Fraction(0)) * Fraction(BPS - slippage_bps, BPS)


def min_out(simulated_raw: int, floor_raw: int, slippage_bps: int | None) -> int:
    """Return the minimum output of a leg: the larger of its fair floor and the simulated output
    less slippage; the fair floor if the slippage limit is off.
    """
    if slippage_bps is None:
        return floor_raw
    return max(floor_raw, simulated_raw * (BPS - slippage_bps) // BPS)


UNBOUNDED_BPS = BPS - 1
"""Impact bound when the limit is off: the range of known ticks."""


@dataclass(frozen=True, slots=True)
class TokenNode:
    """A token of the problem.

    A hub that is not an asset starts and must end empty. `cap_raw` bounds the amount that legs take
    from the wallet: this step's approval, or native coin above the gas floor. `lp_raw` is in
    liquidity positions: it counts, but cannot be spent.
    """

    address: str
    label: str
    price: Price
    investable_raw: int
    is_asset: bool
    cap_raw: int | None = None
    lp_raw: int = 0

    @property
    def spendable_raw(self) -> int:
        """Base units that legs may take from the wallet."""
        return (
            self.investable_raw if self.cap_raw is None else min(self.investable_raw, self.cap_raw)
        )

    @property
    def value(self) -> Value:
        """Counted value, in the wallet and in positions, numeraire base units."""
        return (self.investable_raw + self.lp_raw) * self.price

    @property
    def locked(self) -> Value:
        """Value that cannot be spent, numeraire base units."""
        return self.lp_raw * self.price


@dataclass(frozen=True, slots=True)
class Problem:
    """Assets first, in portfolio order, then hubs; usable pools by address; bounds; excluded items
    with reasons. `gas_unit_value` is the value of a unit of gas in numeraire base units, `coin` the
    wrapped native coin if it is an asset, `gas` the inputs of a plan's gas. `leaving` tokens are
    sold to the last unit.
    """

    nodes: tuple[TokenNode, ...]
    position: dict[str, int]
    pools: dict[str, Pool]
    impact_bps: int
    slippage_bps: int | None
    plan_cost_bps: int | None
    gas_unit_value: Value
    notes: tuple[SkippedItem, ...]
    coin: WrappedNative | None = None
    gas: GasInputs = field(default_factory=GasInputs)
    leaving: frozenset[str] = frozenset()

    @property
    def assets(self) -> tuple[TokenNode, ...]:
        """Nodes with a target."""
        return tuple(node for node in self.nodes if node.is_asset)

    @property
    def total(self) -> Value:
        """Total counted value."""
        return sum((node.value for node in self.nodes), Fraction(0))

    def price(self, address: str) -> Price:
        """Reference price of a token."""
        return self.nodes[self.position[address]].price

    def least_rate(self, pool: Pool) -> Fraction:
        """Return the least value out per value in, after fee, at which a unit is traded in `pool`:
        the rate of its floor.
        """
        impact_bps = BPS if self.impact_bps == UNBOUNDED_BPS else self.impact_bps
        return least_rate(pool.fee_pips, impact_bps, self.slippage_bps or 0)

    def room(self, pool: Pool, token_in: str) -> int:
        """Return base units of `token_in` that a pool takes within its impact bound and above its
        floor.
        """
        token_out = amm.token_out(pool, token_in)
        return pool.best_response(
            token_in,
            self.least_rate(pool) * self.price(token_in) / self.price(token_out),
            self.impact_bps,
        )


def build_problem(step: StepInput, references: ReferencePrices) -> Problem:
    """Return the problem. Raises Refused if an asset's price or balance is unknown, or gas cannot
    be valued while plan_cost is on.
    """
    notes: list[SkippedItem] = []
    nodes = (*_assets(step, references), *_hubs(step, references, notes))
    return problem_for_tokens(step, nodes, _gas_unit_value(step, references, notes), notes)


def problem_for_tokens(
    step: StepInput, nodes: tuple[TokenNode, ...], gas_unit_value: Value, notes: list[SkippedItem]
) -> Problem:
    """Return the problem over these tokens, with the usable pools between them."""
    position = {node.address: number for number, node in enumerate(nodes)}
    limits = step.limits
    notes += [
        SkippedItem(
            f"token {step.portfolio.token(one.token).label}",
            f"in quarantine: {one.why}; {one.finding.remedy}",
        )
        for one in step.quarantine
    ]
    notes += [
        SkippedItem(
            f"token {step.portfolio.token(one.token).label}",
            f"its exit cannot be done now: {one.why}",
        )
        for one in step.stuck
    ]
    return Problem(
        nodes=nodes,
        position=position,
        pools={
            pool.address: pool
            for pool in step.snapshot.pools
            if _usable(step, pool, nodes, position, notes)
        },
        impact_bps=(
            UNBOUNDED_BPS
            if limits.price_impact_bps is None
            else min(limits.price_impact_bps, UNBOUNDED_BPS)
        ),
        slippage_bps=limits.slippage_bps,
        plan_cost_bps=limits.plan_cost_bps,
        gas_unit_value=gas_unit_value,
        notes=tuple(notes),
        coin=wrapped_native_of(step),
        gas=_gas_facts(step),
    )


def _gas_facts(step: StepInput) -> GasInputs:
    snapshot, execution = step.snapshot, step.execution
    return GasInputs(
        ROUTER_GAS.get(execution.router_kind, ROUTER_GAS["swap_router_02"]),
        {holding.token: holding.raw for holding in snapshot.holdings},
        {
            allowance.token: allowance.raw
            for allowance in snapshot.allowances
            if allowance.spender == execution.router
        },
        {pool.address: pool for pool in snapshot.pools},
    )


def _assets(step: StepInput, references: ReferencePrices) -> list[TokenNode]:
    held, coin = native_coin.held_balances(step), wrapped_native_of(step)
    why_not = {item.token: item.why for item in references.unpriced}
    faults = {item.address: item.why for item in step.snapshot.quarantined}
    caps = dict(step.spend_caps)
    in_positions = valuation.holdings(step, references.by_token)
    nodes = []
    for asset in step.portfolio.assets:
        token = asset.token
        price = references.prices.get(token.address)
        if price is None or price.price <= 0:
            raise Refused(
                f"{token.label} has no reference price:"
                f" {why_not.get(token.address, 'its price is zero')}",
                (
                    Verdict(
                        "reference", f"no price of {token.label}", "a price of every asset", False
                    ),
                ),
                "give the asset a feed, or a V3 pool whose observations cover"
                " reference.twap_window",
            )
        if token.address not in held:
            raise Refused(
                f"the balance of {token.label} is unknown:"
                f" {faults.get(token.address, 'it was not read')}",
                (
                    Verdict(
                        "balance", f"{token.label} unknown", "the balance of every asset", False
                    ),
                ),
                "wait for the next snapshot, or remove the asset from the portfolio",
            )
        investable_raw, cap_raw = (
            max(0, held[token.address] - native_coin.reserved_raw(step, asset)),
            caps.get(token.address),
        )
        if coin is not None and token.address == coin.token:
            investable_raw -= 0 if coin.counts else coin.refill_raw
            cap_raw = coin.cap_raw
        lp_raw = in_positions.get(token.address, 0)
        nodes.append(
            TokenNode(
                token.address, token.label, price.price, investable_raw, True, cap_raw, lp_raw
            )
        )
    return nodes


def _hubs(
    step: StepInput, references: ReferencePrices, notes: list[SkippedItem]
) -> list[TokenNode]:
    known = {asset.token.address for asset in step.portfolio.assets}
    quarantined = {item.address: item.why for item in step.snapshot.quarantined}
    nodes = []
    for token in step.portfolio.hubs:
        if token.address in known or token.address in {one.token for one in step.quarantine}:
            continue
        known.add(token.address)
        price = references.prices.get(token.address)
        if token.address in quarantined:
            notes.append(
                SkippedItem(f"hub {token.label}", f"quarantined: {quarantined[token.address]}")
            )
        elif price is None or price.price <= 0:
            notes.append(
                SkippedItem(
                    f"hub {token.label}",
                    "no reference price, so that no floor could be set on a leg through it",
                )
            )
        else:
            nodes.append(TokenNode(token.address, token.label, price.price, 0, False))
    return nodes


def _usable(
    step: StepInput,
    pool: Pool,
    nodes: tuple[TokenNode, ...],
    position: dict[str, int],
    notes: list[SkippedItem],
) -> bool:
    """True if a pool is tradable; records reasons that concern the owner."""
    if pool.token0 not in position or pool.token1 not in position:
        return False
    if {pool.token0, pool.token1} & {one.token for one in step.quarantine}:
        return False  # the token itself is recorded once
    name = f"pool {pool.address}"
    fault = next(
        (item.why for item in step.snapshot.quarantined if item.address == pool.address), None
    )
    if fault is not None:
        notes.append(SkippedItem(name, f"quarantined: {fault}"))
        return False
    if pool.is_empty:
        notes.append(SkippedItem(name, "no liquidity"))
        return False
    least = step.limits.pool_min_value
    if least is None:
        return True
    value = sum(
        (pool.depth(token) * nodes[position[token]].price for token in (pool.token0, pool.token1)),
        Fraction(0),
    )
    if value < least:
        notes.append(SkippedItem(name, "holds less than limits.pool_min_value"))
        return False
    return True


def _gas_unit_value(
    step: StepInput, references: ReferencePrices, notes: list[SkippedItem]
) -> Value:
    native = references.prices.get(step.portfolio.wrapped_native)
    if native is not None:
        return gas_price_wei(step.snapshot) * native.price
    if step.limits.plan_cost_bps is not None:
        raise Refused(
            "gas cannot be valued: the wrapped native coin has no reference price",
            (
                Verdict(
                    "plan_cost", "gas without a price", f"{step.limits.plan_cost_bps} bps", False
                ),
            ),
            "add the wrapped native coin to portfolio.hubs, or give it a feed",
        )
    notes.append(SkippedItem("gas", "not valued: the wrapped native coin has no reference price"))
    return Fraction(0)


# --- Usable pools as edges of the continuous problem, with the value of a unit of gas.


IndexArray = NDArray[np.intp]
FAR = 1.25
"""Value out per value in above which a pool is not traded: pool or reference is broken."""


@dataclass(frozen=True, slots=True)
class PoolEdge:
    """One direction of a pool between two tokens, by their indices."""

    pool: str
    source: int
    target: int
    offer: TradeCurves


@dataclass(frozen=True, slots=True)
class EdgeFlow:
    """Flow of an edge at the dual prices; `surplus` is a lower bound of its contribution."""

    pool_edge: PoolEdge
    taken: float
    paid: float
    surplus: float


@dataclass(frozen=True, slots=True)
class PoolGraph:
    """Both directions of every usable pool, in units of `scale` numeraire base units, and the value
    of a unit of gas in them. `real` are the true curves, `counted` the curves capped at the
    reference; `has_gains` is true if they differ. `below_floor` are directions (pool, source,
    target) whose first unit pays less than the floor, or nothing; `far` are pools that pay
    implausibly much.
    """

    problem: Problem
    scale: float
    pool_edges: tuple[PoolEdge, ...]
    real: CurveStack
    counted: CurveStack
    has_gains: bool
    gas_unit: float
    below_floor: tuple[tuple[str, int, int], ...]
    far: tuple[str, ...]

    def rows(
        self, without: Iterable[str] = (), banned: Collection[tuple[str, int]] = ()
    ) -> IndexArray:
        """Return the rows of all pools, except some pools and some directions (pool, source)."""
        left = set(without)
        kept = (
            number
            for number, pool_edge in enumerate(self.pool_edges)
            if pool_edge.pool not in left and (pool_edge.pool, pool_edge.source) not in banned
        )
        return np.array(list(kept), dtype=np.intp)


def build_pool_graph(problem: Problem, scale: float, dearest: Fraction | None = None) -> PoolGraph:
    """Build the curves once, without units that cost more than `dearest` per unit of value."""
    pool_edges, poor, far = [], [], []
    for pool in problem.pools.values():
        least = (
            problem.least_rate(pool)
            if dearest is None
            else max(problem.least_rate(pool), 1 - dearest)
        )
        for token_in, token_out in ((pool.token0, pool.token1), (pool.token1, pool.token0)):
            prices, ends = (
                (problem.price(token_in), problem.price(token_out)),
                (problem.position[token_in], problem.position[token_out]),
            )
            offer = build_trade_curves(pool, token_in, *prices, scale, problem.impact_bps, least)
            if offer is None:
                poor.append((pool.address, *ends))
            elif offer.real.best_rate > FAR:
                far.append(pool.address)
            else:
                pool_edges.append(PoolEdge(pool.address, *ends, offer))
    real = stack_curves(
        [(pool_edge.source, pool_edge.target, pool_edge.offer.real) for pool_edge in pool_edges]
    )
    gains = any(pool_edge.offer.counted is not pool_edge.offer.real for pool_edge in pool_edges)
    counted = (
        stack_curves(
            [
                (pool_edge.source, pool_edge.target, pool_edge.offer.counted)
                for pool_edge in pool_edges
            ]
        )
        if gains
        else real
    )
    return PoolGraph(
        problem,
        scale,
        tuple(pool_edges),
        real,
        counted,
        gains,
        float(problem.gas_unit_value) / scale,
        tuple(poor),
        tuple(far),
    )


def first_leg_gas(market: PoolGraph, flow: EdgeFlow) -> float:
    """Return the gas value of the first leg of a flow, in units of the scale."""
    pool = market.problem.pools[flow.pool_edge.pool]
    return (
        leg_gas_units(
            pool,
            flow.pool_edge.offer.real.edges_passed(flow.taken),
            router=market.problem.gas.router,
        )
        * market.gas_unit
    )


def repeat_leg_gas(market: PoolGraph, pool_edge: PoolEdge) -> float:
    """Return the gas value of a further leg through an edge, in units of the scale; touched slots
    are cheaper.
    """
    return (
        repeat_leg_gas_units(market.problem.pools[pool_edge.pool], market.problem.gas.router)
        * market.gas_unit
    )


# --- Objective of a goal: target shares of the final total, the price of a unit off target, and the
# remaining turnover.


ROUNDED_RAW = 16
"""Base units by which rounded paths may miss an approved amount."""
FUZZ = Fraction(1, 10**12)
"""Float tolerance of a goal."""
REACH = 0.3
"""Penalty P in a zone, high enough never to stop an exchange: the quadratic risk decides, and
plan_cost bounds pools.
"""
MOST_SAVED = 0.25
"""Largest saving per unit of exchange in a zone.

Higher savings are scaled down; they still outweigh any cost.
"""
HAIR = 5e-5
"""Half a basis point inside a band's edge, so that rounding cannot leave a move outside."""


@dataclass(frozen=True, slots=True)
class PlanObjective:
    """Goal shares of the final total by node (hubs zero), present values, the price of a unit to
    move, and θ as `tie_break`. `least` is the value that cannot be sold: in positions, not
    approved, or protected. No token is bought beyond `most`. `off` is the value to move; in a zone
    `risk` prices the remainder.
    """

    held: FloatArray
    locked: FloatArray
    least: FloatArray
    most: FloatArray
    low: FloatArray
    high: FloatArray
    hubs: tuple[int, ...]
    price: float
    tie_break: float
    off: float
    risk: DeviationRisk | None = None

    def worth(self, scale: float, unmoved: Mapping[int, float]) -> PlanUtility:
        """Return the utility in units of `scale`; tokens in `unmoved` end at the given value."""
        pinned = dict.fromkeys(self.hubs, 0.0) | {
            token: value / scale for token, value in unmoved.items()
        }
        risk = (
            None
            if self.risk is None
            else DeviationRisk(self.risk.volatility, self.risk.bend / scale)
        )
        return PlanUtility(
            self.low, self.high, self.price if risk is None else REACH, self.tie_break, pinned, risk
        )

    def search(
        self, scale: float, extra: FloatArray, unmoved: Mapping[int, float], budget: float | None
    ) -> FlowOptimizer:
        """Return the optimizer for pools that add `extra` (in units of `scale`); `budget` bounds
        turnover.
        """
        held = self.held / scale
        bounds = self.least / scale, self.most / scale
        return FlowOptimizer(
            self.worth(scale, unmoved),
            held,
            held + extra,
            *bounds,
            None if budget is None else budget / scale,
        )


def objective_for_goal(problem: Problem, goal: Goal) -> PlanObjective:
    """Return the objective of a goal, with slightly narrower intervals; P is plan_cost."""
    by_token = {weight.token: weight for weight in goal.weights}
    if set(by_token) != {node.address for node in problem.assets}:
        raise Refused(
            "the goal names other tokens than the portfolio's assets",
            remedy="decide and plan from the same input",
            code=ErrorCode.GOAL,
        )
    wanted = [by_token.get(node.address) for node in problem.nodes]
    held = np.array([float(node.value) for node in problem.nodes])
    low = np.array([float(weight.low) if weight else 0.0 for weight in wanted])
    high = np.array([float(weight.high) if weight else 0.0 for weight in wanted])
    hair = np.minimum(HAIR, (high - low) / 4)
    low, high = low + hair, high - hair
    whole = fsum_array(held)
    above, below = (
        fsum_array(np.maximum(held - high * whole, 0.0)),
        fsum_array(np.maximum(low * whole - held, 0.0)),
    )
    points = bool((low == high).all())
    tie_break = 0.5 if points or above + below <= 0 else above / (above + below)
    price = WIDE if problem.plan_cost_bps is None else min(problem.plan_cost_bps / BPS, WIDE)
    locked = np.array([float(node.locked) for node in problem.nodes])
    least = np.array([float(_kept(node, goal)) for node in problem.nodes])
    most = np.array(
        [float(node.value) if node.address in goal.unbought else np.inf for node in problem.nodes]
    )
    hubs = tuple(number for number, node in enumerate(problem.nodes) if not node.is_asset)
    risk = None if goal.risk is None else _risk(problem, goal.risk, held - low * whole)
    return PlanObjective(
        held, locked, least, most, low, high, hubs, price, tie_break, max(above, below), risk
    )


def leaving_tokens(problem: Problem, goal: Goal) -> frozenset[str]:
    """Return the tokens that the goal sells to the last unit."""
    high = {weight.token: weight.high for weight in goal.weights}
    return frozenset(
        node.address
        for node in problem.assets
        if high[node.address] * problem.total <= node.locked * (1 + FUZZ)
    )


def objective_for_exit(objective: PlanObjective, into: int) -> PlanObjective:
    """Return the objective of an exit into an underweight token of any amount.

    Each unit sold saves the full price. Otherwise the last part of the exit would remain if pools
    pay more for other tokens, once this one has its share.
    """
    if (
        objective.held[into] >= objective.low[into] * fsum_array(objective.held)
        or objective.high[into] >= 1
    ):
        return objective
    high = objective.high.copy()
    high[into] = 1.0
    return replace(objective, high=high, tie_break=1.0)


def _risk(problem: Problem, risk: TrackingRisk, off: FloatArray) -> DeviationRisk:
    """Return the zone's risk in value: its factor is λ·H / V. `off` is the present deviation."""
    tokens = [node.address for node in problem.assets]
    known = dict(zip(tokens, volatilities(risk, tokens), strict=True))
    spread = np.array([float(known.get(node.address, 0)) for node in problem.nodes])
    related = np.array([[float(entry) for entry in row] for row in correlations(risk, tokens)])
    factor = float(aversion(risk) / problem.total)
    slopes = factor * spread[: len(tokens)] * matvec(related, (spread * off)[: len(tokens)])
    return build_deviation_risk(
        spread, related, factor * min(1.0, MOST_SAVED / max(float(np.ptp(slopes)), MOST_SAVED))
    )


def _kept(node: TokenNode, goal: Goal) -> Value:
    """Return the lowest value to which the goal lets a token fall."""
    if node.address in goal.unsold:
        return node.value
    caps = dict(goal.sell_at_most)
    if node.address not in caps:
        return _least(node)
    return max(_least(node), node.value - caps[node.address] * node.price)


def _least(node: TokenNode) -> Value:
    """Return the value in positions, or held beyond the step's approval.

    The bound is slightly beyond the approval, where legs stop exactly, so that no dust of it
    remains.
    """
    if node.cap_raw is None:
        return node.locked
    spendable = (node.cap_raw + ROUNDED_RAW) * node.price * (1 + FUZZ)
    return max(node.locked, node.value - spendable)


def turnover_left(
    step: StepInput, total: Value, apart: Value = Fraction(0)
) -> tuple[Value | None, str]:
    """Return the turnover left for this plan, and its limit's name; `apart` does not count.

    Raises Refused if less than a trade is left of the day's turnover, unless something is apart.
    """
    limits, found = step.limits, []
    if limits.turnover_bps is not None:
        found.append((total * Fraction(limits.turnover_bps, BPS), "limits.turnover"))
    if limits.daily_turnover_bps is not None:
        day = total * Fraction(limits.daily_turnover_bps, BPS)
        left = day - step.history.turnover_24h
        if left <= (limits.min_trade or 0) and not apart:
            raise Refused(
                "the turnover of the last 24 hours has used up limits.daily_turnover",
                (
                    Verdict(
                        "daily_turnover",
                        f"{float(step.history.turnover_24h / total):.2%}",
                        f"{float(day / total):.2%}",
                        False,
                    ),
                ),
                "wait until the last day's trades are 24 h old",
            )
        found.append((max(Fraction(0), left), "limits.daily_turnover"))
    least, name = min(found, default=(None, ""), key=lambda item: item[0])
    return (None if least is None else least + apart), name
