"""The planning problem: tokens with reference prices and spendable amounts, and usable pools."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction

import numpy as np

from agent.amm import pools as amm
from agent.errors import Refused
from agent.floats import IndexArray
from agent.layers.questions import raw_outside_wallet, unspendable_raw
from agent.model import DataFeeQuote, Pool, SkippedItem, StepInput, Verdict
from agent.planning.gas import (
    ROUTER_GAS,
    GasInputs,
    WrappedNative,
    least_base_gas_units,
    least_leg_gas_units,
    leg_gas_units,
    repeat_leg_gas_units,
    wrapped_native_of,
)
from agent.planning.pool_curves import (
    MAX_WHOLE_UNITS,
    ChargedCurves,
    CurveStack,
    TradeCurves,
    build_trade_curves,
    charged_curves,
    curve_after_charge,
    whole_unit_curves,
)
from agent.policy import native_coin
from agent.policy.minimum import LEG_BYTES
from agent.reference import PriceRange, ReferencePrices, price_ranges
from agent.reference.floors import UNBOUNDED_BPS, impact_bound_bps, least_rate
from agent.units import BPS, Price, Value


@dataclass(frozen=True, slots=True)
class TokenNode:
    """A token of the problem.

    A hub that is not an asset must start and end empty. `cap_raw` bounds the amount that legs take
    from the wallet: this step's approval, or native coin above the gas floor. `locked_raw` counts
    but cannot be spent: it is outside the wallet, or a layer keeps it there. `max_bps` is its share
    above which it is not bought (None: no limit).
    """

    address: str
    label: str
    price: Price
    investable_raw: int
    is_asset: bool
    cap_raw: int | None = None
    locked_raw: int = 0
    max_bps: int | None = None

    @property
    def spendable_raw(self) -> int:
        """Base units that legs may take from the wallet."""
        if self.cap_raw is None:
            return self.investable_raw
        return min(self.investable_raw, self.cap_raw)

    @property
    def value(self) -> Value:
        """Counted value, in the wallet and in positions, numeraire base units."""
        return (self.investable_raw + self.locked_raw) * self.price

    @property
    def locked_value(self) -> Value:
        """Value that cannot be spent, numeraire base units."""
        return self.locked_raw * self.price


@dataclass(frozen=True, slots=True)
class Problem:
    """Assets in portfolio order, then hubs; usable pools by address; bounds; excluded items with
    reasons.

    `gas_unit_value` is the value of a unit of gas in numeraire base units, `wrapped_native` the
    wrapped native coin if it is an asset, `gas_inputs` the inputs of a plan's gas. `leaving_tokens`
    are sold to the last unit. `data_fee` are the fees beyond gas, `wei_value` the value of a wei of
    native coin. `price_ranges` are the prices by token of all sources that agree.
    """

    nodes: tuple[TokenNode, ...]
    index_by_token: dict[str, int]
    pools: dict[str, Pool]
    impact_bps: int
    slippage_bps: int | None
    plan_cost_bps: int | None
    gas_unit_value: Value
    exclusions: tuple[SkippedItem, ...]
    wrapped_native: WrappedNative | None = None
    gas_inputs: GasInputs = field(default_factory=GasInputs)
    leaving_tokens: frozenset[str] = frozenset()
    data_fee: DataFeeQuote | None = None
    wei_value: Value = Fraction(0)
    price_ranges: Mapping[str, PriceRange] = field(default_factory=dict)

    def data_fee_value(self, gas_units: int, *calldata_bytes: int) -> Value:
        """Return what transactions are expected to pay beyond their gas, numeraire base units."""
        if self.data_fee is None or not calldata_bytes:
            return Fraction(0)
        return (
            self.data_fee.expected_fee_beyond_gas_wei(gas_units, *calldata_bytes) * self.wei_value
        )

    @property
    def leg_data_fee(self) -> Value:
        """Expected data fee that one more leg adds, numeraire base units."""
        if self.data_fee is None:
            return Fraction(0)
        one_leg_wei, two_legs_wei = (
            self.data_fee.expected_data_fee_wei((leg_count + 1) * LEG_BYTES) for leg_count in (1, 2)
        )
        return (two_legs_wei - one_leg_wei) * self.wei_value

    @property
    def assets(self) -> tuple[TokenNode, ...]:
        """Nodes with a target."""
        return tuple(node for node in self.nodes if node.is_asset)

    @property
    def total(self) -> Value:
        """Total counted value."""
        return sum((node.value for node in self.nodes), Fraction(0))

    def has_few_units(self, index: int) -> bool:
        """True if the portfolio is worth at most MAX_WHOLE_UNITS base units of a token."""
        return self.total <= MAX_WHOLE_UNITS * self.nodes[index].price

    def with_pools_between(self, tokens: Collection[str]) -> Problem:
        """Return the problem restricted to pools whose tokens are both among these."""
        pools = {
            address: pool
            for address, pool in self.pools.items()
            if {pool.token0, pool.token1} <= {*tokens}
        }
        return replace(self, pools=pools)

    def price(self, address: str) -> Price:
        """Return the reference price of a token."""
        return self.nodes[self.index_by_token[address]].price

    def floor_prices(self, token_in: str, token_out: str) -> tuple[Price, Price]:
        """Return the prices of a leg's fair floor: the highest of the token sold, and the lowest of
        the token bought (reference.price_ranges).
        """
        return (
            self.price_ranges[token_in][1]
            if token_in in self.price_ranges
            else self.price(token_in),
            self.price_ranges[token_out][0]
            if token_out in self.price_ranges
            else self.price(token_out),
        )

    def least_rate(self, pool: Pool, token_in: str) -> Fraction:
        """Return the least value out per value in, after fee, of a unit of `token_in` traded in
        `pool`: the rate of its fair floor.
        """
        rate = least_rate(pool.fee_for(token_in), self.floor_impact_bps, self.slippage_bps or 0)
        token_out = amm.token_out(pool, token_in)
        if token_in in self.price_ranges:
            rate *= self.price_ranges[token_in][1] / self.price(token_in)
        if token_out in self.price_ranges:
            rate *= self.price(token_out) / self.price_ranges[token_out][0]
        return rate

    @property
    def floor_impact_bps(self) -> int:
        """Price impact that a leg's fair floor allows: all of it if the limit is off."""
        return BPS if self.impact_bps == UNBOUNDED_BPS else self.impact_bps

    def max_input(self, pool: Pool, token_in: str) -> int:
        """Return base units of `token_in` that a pool accepts within its impact bound and above its
        floor.
        """
        token_out = amm.token_out(pool, token_in)
        return pool.best_amount_in(
            token_in,
            self.least_rate(pool, token_in) * self.price(token_in) / self.price(token_out),
            self.impact_bps,
        )


def build_problem(step: StepInput, references: ReferencePrices) -> Problem:
    """Return the problem. Raises Refused if an asset's price or balance is unknown, or gas cannot
    be valued while plan_cost is on.
    """
    asset_nodes = _asset_nodes(step, references)
    hub_nodes, excluded_hubs = _hub_nodes(step, references)
    gas_unit_value, excluded_gas = _gas_unit_value(step, references)
    exclusions = (*excluded_hubs, *excluded_gas)
    nodes = (*asset_nodes, *hub_nodes)
    return problem_for_tokens(step, nodes, references, gas_unit_value, exclusions)


def problem_for_tokens(
    step: StepInput,
    nodes: tuple[TokenNode, ...],
    references: ReferencePrices,
    gas_unit_value: Value,
    exclusions: Sequence[SkippedItem],
) -> Problem:
    """Return the problem over these tokens, with the usable pools between them."""
    limits = step.limits
    pools, excluded_pools = _usable_pools(step, nodes)
    return Problem(
        nodes=nodes,
        index_by_token={node.address: index for index, node in enumerate(nodes)},
        pools=pools,
        impact_bps=impact_bound_bps(limits),
        slippage_bps=limits.slippage_bps,
        plan_cost_bps=limits.plan_cost_bps,
        gas_unit_value=gas_unit_value,
        exclusions=(*exclusions, *_excluded_tokens(step), *excluded_pools),
        wrapped_native=wrapped_native_of(step),
        gas_inputs=_gas_inputs(step),
        data_fee=step.snapshot.data_fee,
        wei_value=_wei_value(step, references, gas_unit_value),
        price_ranges=price_ranges(step, references),
    )


def _excluded_tokens(step: StepInput) -> list[SkippedItem]:
    """Return the tokens in quarantine, and those whose exit is blocked."""
    quarantined_items = [
        SkippedItem(
            f"token {step.portfolio.token(quarantined_token.token).label}",
            f"in quarantine: {quarantined_token.why}; {quarantined_token.finding.remedy}",
        )
        for quarantined_token in step.targets.quarantined_tokens
    ]
    blocked_items = [
        SkippedItem(
            f"token {step.portfolio.token(blocked_exit.token).label}",
            f"its exit is not possible now: {blocked_exit.why}",
        )
        for blocked_exit in step.blocked_exits
        if blocked_exit.why  # an earlier sale of the same stop has none
    ]
    return quarantined_items + blocked_items


def _gas_inputs(step: StepInput) -> GasInputs:
    snapshot = step.snapshot
    execution = step.execution
    router = ROUTER_GAS.get(execution.router_kind, ROUTER_GAS["swap_router_02"])
    return GasInputs(
        router if execution.sweeps_outputs else replace(router, sweep_units=None),
        {holding.token: holding.raw for holding in snapshot.holdings},
        {
            allowance.token: allowance.raw
            for allowance in snapshot.allowances
            if allowance.spender == execution.router
        },
        {pool.address: pool for pool in snapshot.pools},
    )


def _asset_nodes(step: StepInput, references: ReferencePrices) -> list[TokenNode]:
    balances_raw = native_coin.held_balances(step)
    wrapped_native = wrapped_native_of(step)
    unpriced_reasons = {
        unpriced_asset.token: unpriced_asset.why for unpriced_asset in references.unpriced
    }
    unreadable_reasons = {
        unreadable_item.address: unreadable_item.why
        for unreadable_item in step.snapshot.unreadable_items
    }
    spend_caps_raw = dict(step.progress.spend_caps)
    outside_raw_by_token = raw_outside_wallet(step, references.price_by_token)
    locked_raw_by_token = unspendable_raw(step)
    nodes = []
    for asset in step.portfolio.assets:
        token = asset.token
        reference_price = references.reference_by_token.get(token.address)
        if reference_price is None or reference_price.price <= 0:
            raise Refused(
                f"{token.label} has no reference price:"
                f" {unpriced_reasons.get(token.address, 'its price is zero')}",
                (
                    Verdict(
                        "reference", f"no price of {token.label}", "a price of every asset", False
                    ),
                ),
                "give the asset a feed, or a V3 pool whose observations cover"
                " reference.twap_window",
            )
        if token.address not in balances_raw:
            raise Refused(
                f"the balance of {token.label} is unknown:"
                f" {unreadable_reasons.get(token.address, 'it was not read')}",
                (
                    Verdict(
                        "balance", f"{token.label} unknown", "the balance of every asset", False
                    ),
                ),
                "wait for the next snapshot, or remove the asset from the portfolio",
            )
        investable_raw = max(
            0, balances_raw[token.address] - native_coin.reserved_raw(step.limits, asset)
        )
        cap_raw = spend_caps_raw.get(token.address)
        if wrapped_native is not None and token.address == wrapped_native.token:
            investable_raw -= 0 if wrapped_native.native_counts else wrapped_native.refill_raw
            cap_raw = wrapped_native.cap_raw
        locked_in_wallet_raw = max(
            0, min(investable_raw, locked_raw_by_token.get(token.address, 0))
        )
        nodes.append(
            TokenNode(
                token.address,
                token.label,
                reference_price.price,
                investable_raw - locked_in_wallet_raw,
                True,
                cap_raw,
                outside_raw_by_token.get(token.address, 0) + locked_in_wallet_raw,
                asset.max_bps,
            )
        )
    return nodes


def _hub_nodes(
    step: StepInput, references: ReferencePrices
) -> tuple[list[TokenNode], list[SkippedItem]]:
    """Return the hubs that routes may use, and those that they may not, with the reason."""
    node_tokens = {asset.token.address for asset in step.portfolio.assets}
    unreadable_reasons = {
        unreadable_item.address: unreadable_item.why
        for unreadable_item in step.snapshot.unreadable_items
    }
    nodes = []
    exclusions = []
    for token in step.portfolio.hubs:
        if token.address in node_tokens or token.address in {
            screened_token.token for screened_token in step.targets.quarantined_tokens
        }:
            continue
        node_tokens.add(token.address)
        reference_price = references.reference_by_token.get(token.address)
        if token.address in unreadable_reasons:
            exclusions.append(
                SkippedItem(
                    f"hub {token.label}", f"quarantined: {unreadable_reasons[token.address]}"
                )
            )
        elif reference_price is None or reference_price.price <= 0:
            exclusions.append(
                SkippedItem(
                    f"hub {token.label}",
                    "no reference price, so no floor can be set for its legs",
                )
            )
        else:
            nodes.append(TokenNode(token.address, token.label, reference_price.price, 0, False))
    return nodes, exclusions


def _usable_pools(
    step: StepInput, nodes: Sequence[TokenNode]
) -> tuple[dict[str, Pool], list[SkippedItem]]:
    """Return the tradable pools between these tokens by address, and the others with the reason, if
    it concerns the owner.
    """
    price_by_token = {node.address: node.price for node in nodes}
    # a token in quarantine is recorded once, not with each of its pools
    quarantined_tokens = {
        screened_token.token for screened_token in step.targets.quarantined_tokens
    }
    usable_pools = {}
    exclusions = []
    for pool in step.snapshot.pools:
        pool_tokens = {pool.token0, pool.token1}
        if not pool_tokens <= price_by_token.keys() or pool_tokens & quarantined_tokens:
            continue
        if why := _unusable_reason(step, pool, price_by_token):
            exclusions.append(SkippedItem(f"pool {pool.address}", why))
        else:
            usable_pools[pool.address] = pool
    return usable_pools, exclusions


def _unusable_reason(step: StepInput, pool: Pool, price_by_token: Mapping[str, Price]) -> str:
    """Return why a pool is not tradable; empty if it is."""
    for unreadable_item in step.snapshot.unreadable_items:
        if unreadable_item.address == pool.address:
            return f"quarantined: {unreadable_item.why}"
    if pool.is_empty:
        return "no liquidity"
    if not amm.is_deep_enough(pool, step.limits.pool_min_value, price_by_token):
        return "holds less than limits.pool_min_value"
    return ""


def _wei_value(step: StepInput, references: ReferencePrices, gas_unit_value: Value) -> Value:
    """Return the value of a wei: that of gas by its price or, where gas is free, that of the
    reference.
    """
    if wei_per_gas := step.snapshot.current_gas_price_wei:
        return gas_unit_value / wei_per_gas
    native_reference = references.reference_by_token.get(step.portfolio.wrapped_native)
    return Fraction(0) if native_reference is None else native_reference.price


def _gas_unit_value(
    step: StepInput, references: ReferencePrices
) -> tuple[Value, list[SkippedItem]]:
    """Return the value of a unit of gas; zero, with the reason, if it is unknown."""
    native_reference = references.reference_by_token.get(step.portfolio.wrapped_native)
    if native_reference is not None:
        return step.snapshot.current_gas_price_wei * native_reference.price, []
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
    why = "not valued: the wrapped native coin has no reference price"
    return Fraction(0), [SkippedItem("gas", why)]


# --- Usable pools as edges of the continuous problem, with the value of a unit of gas.


MAX_RATE = 1.25
"""Value out per value in above which a pool is not traded, because the pool or the reference is
broken.
"""
OVERPAYING_REASON = f"pays over {MAX_RATE:g} times the reference price: one of the two is wrong"


@dataclass(frozen=True, slots=True)
class PoolEdge:
    """One direction of a pool between two tokens, by their indices, with its curves."""

    pool_address: str
    token_in_index: int
    token_out_index: int
    curves: TradeCurves


@dataclass(frozen=True, slots=True)
class EdgeFlow:
    """Flow of an edge at the dual prices, in units of the graph's scale: value into the pool, and
    out of it. `surplus` is a lower bound of its contribution.
    """

    pool_edge: PoolEdge
    amount_in: float
    amount_out: float
    surplus: float


@dataclass(frozen=True, slots=True)
class PoolGraph:
    """Both directions of every usable pool, and the value of a unit of gas, in units of `scale`
    numeraire base units. `real_curves` are the true curves, `counted_curves` the curves capped at
    the reference; `pays_above_reference` is true if they differ. `real_after_charges` and
    `counted_after_charges` are the same curves less what any use of them costs: its least gas, its
    data fee, and what it loses to rounding to whole base units; `base_gas` is the least gas of a
    plan beside its swaps. `directions_below_floor` are directions (pool, source, target) whose
    first unit pays less than the floor, or nothing; `overpaying_directions` pay implausibly much.
    """

    problem: Problem
    scale: float
    pool_edges: tuple[PoolEdge, ...]
    real_curves: CurveStack
    counted_curves: CurveStack
    real_after_charges: ChargedCurves
    counted_after_charges: ChargedCurves
    pays_above_reference: bool
    gas_unit_value: float
    base_gas: float
    leg_data_fee: float
    directions_below_floor: tuple[tuple[str, int, int], ...]
    overpaying_directions: tuple[tuple[str, int, int], ...]

    def rows(
        self, dropped_pools: Iterable[str] = (), banned_directions: Collection[tuple[str, int]] = ()
    ) -> IndexArray:
        """Return the rows of all pools, except some pools and some directions (pool, source)."""
        excluded_pools = set(dropped_pools)
        kept_rows = (
            row
            for row, pool_edge in enumerate(self.pool_edges)
            if pool_edge.pool_address not in excluded_pools
            and (pool_edge.pool_address, pool_edge.token_in_index) not in banned_directions
        )
        return np.array(list(kept_rows), dtype=np.intp)

    def least_gas(self, used_directions: Collection[tuple[str, int]]) -> float:
        """Return the least gas value of a plan that uses these directions (pool, source) once, in
        units of the scale.
        """
        gas_values = [
            float(self.real_after_charges.charges[row]) - edge.curves.rounding_loss
            for row, edge in enumerate(self.pool_edges)
            if (edge.pool_address, edge.token_in_index) in used_directions
        ]
        return self.base_gas + math.fsum(gas_values) if used_directions else 0.0


def build_pool_graph(
    problem: Problem,
    scale: float,
    max_unit_cost: Fraction | None = None,
    *,
    counts_rounding: bool = True,
) -> PoolGraph:
    """Return the graph of usable pools, without units that cost more than `max_unit_cost` per unit
    of value. Without `counts_rounding`, losses to rounding are ignored here and counted by the
    integer planning.
    """
    pool_edges = []
    directions_below_floor = []
    overpaying_directions = []
    largest_value = max(problem.total, Fraction(scale))
    for pool in problem.pools.values():
        for token_in, token_out in ((pool.token0, pool.token1), (pool.token1, pool.token0)):
            pool_least_rate = problem.least_rate(pool, token_in)
            if max_unit_cost is not None:
                pool_least_rate = max(pool_least_rate, 1 - max_unit_cost)
            token_prices = (problem.price(token_in), problem.price(token_out))
            edge_indices = (problem.index_by_token[token_in], problem.index_by_token[token_out])
            curves = build_trade_curves(
                pool, token_in, *token_prices, scale, problem.impact_bps, pool_least_rate
            )
            if curves is not None and counts_rounding:
                portfolio_raw = largest_value / token_prices[0]
                unit_values = (float(price) / scale for price in token_prices)
                curves = whole_unit_curves(
                    curves, pool.quoter(token_in), portfolio_raw, *unit_values
                )
            if curves is None:
                directions_below_floor.append((pool.address, *edge_indices))
            elif curves.real_curve.best_rate > MAX_RATE:
                overpaying_directions.append((pool.address, *edge_indices))
            else:
                pool_edges.append(PoolEdge(pool.address, *edge_indices, curves))
    pays_above_reference = any(
        edge.curves.counted_curve is not edge.curves.real_curve for edge in pool_edges
    )
    gas_unit_value = float(problem.gas_unit_value) / scale
    leg_data_fee = float(problem.leg_data_fee) / scale
    edge_ends = [(edge.token_in_index, edge.token_out_index) for edge in pool_edges]
    router = problem.gas_inputs.router_gas
    gas_charges = np.array(
        [
            least_leg_gas_units(problem.pools[edge.pool_address], router) * gas_unit_value
            + leg_data_fee
            for edge in pool_edges
        ]
    )
    rounding_losses = np.array([edge.curves.rounding_loss for edge in pool_edges])
    real_curves = [edge.curves.real_curve for edge in pool_edges]
    counted_curves = [edge.curves.counted_curve for edge in pool_edges]
    charges = (gas_charges + rounding_losses).tolist()
    real_after = [
        curve_after_charge(curve, charge)
        for curve, charge in zip(real_curves, charges, strict=True)
    ]
    real_after_charges = charged_curves(
        edge_ends, real_curves, real_after, gas_charges, rounding_losses
    )
    counted_after_charges = real_after_charges
    if pays_above_reference:
        counted_after = [
            after_charge if counted is real else curve_after_charge(counted, charge)
            for counted, real, after_charge, charge in zip(
                counted_curves, real_curves, real_after, charges, strict=True
            )
        ]
        counted_after_charges = charged_curves(
            edge_ends, counted_curves, counted_after, gas_charges, rounding_losses
        )
    all_rows = np.arange(len(pool_edges), dtype=np.intp)
    return PoolGraph(
        problem,
        scale,
        tuple(pool_edges),
        real_after_charges.curve_stack.rows(all_rows),
        counted_after_charges.curve_stack.rows(all_rows),
        real_after_charges,
        counted_after_charges,
        pays_above_reference,
        gas_unit_value,
        least_base_gas_units(router) * gas_unit_value,
        leg_data_fee,
        tuple(directions_below_floor),
        tuple(overpaying_directions),
    )


def first_leg_cost(graph: PoolGraph, flow: EdgeFlow) -> float:
    """Return what the first leg of a flow costs beside its price: its gas, its data fee, and what
    it loses to whole base units, in units of the scale.
    """
    pool = graph.problem.pools[flow.pool_edge.pool_address]
    curves = flow.pool_edge.curves
    ticks_passed = curves.tick_curve.range_ends_crossed(flow.amount_in)
    gas_units = leg_gas_units(pool, ticks_passed, router_gas=graph.problem.gas_inputs.router_gas)
    return gas_units * graph.gas_unit_value + graph.leg_data_fee + curves.rounding_loss


def repeat_leg_cost(graph: PoolGraph, pool_edge: PoolEdge) -> float:
    """Return what a further leg through an edge costs beside its price. Its gas is lower,
    because its storage slots were already touched.
    """
    return (
        repeat_leg_gas_units(
            graph.problem.pools[pool_edge.pool_address], graph.problem.gas_inputs.router_gas
        )
        * graph.gas_unit_value
        + graph.leg_data_fee
        + pool_edge.curves.rounding_loss
    )
