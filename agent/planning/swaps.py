"""Plans of a manual swap: the best split over pools and hubs; and quotes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from fractions import Fraction
from functools import partial

import numpy as np

from agent.amm import pools
from agent.amm.swap_errors import KnownTicksExceeded
from agent.errors import ConfigError, ErrorCode, Refused
from agent.model import (
    Goal,
    GoalWeight,
    Leg,
    LegPlace,
    OptimalityGap,
    Plan,
    Pool,
    Portfolio,
    Rebalance,
    SkippedItem,
    Snapshot,
    StepInput,
    Verdict,
)
from agent.planning.plan_builder import assemble_plan, rounded_gap
from agent.planning.pool_curves import CurveStack
from agent.planning.problem import (
    OVERPAYING_REASON,
    Problem,
    TokenNode,
    build_pool_graph,
    build_problem,
    problem_for_tokens,
)
from agent.planning.rounding import PlanDraft, pools_out_of_ticks, run_routes
from agent.planning.routes import FlowPaths, Route, decompose_flows
from agent.planning.solver.dual import DualProgram, DualSolution, solve_dual
from agent.planning.solver.fixed_point import legs_by_edge, to_routes
from agent.planning.solver.search import PoolSelection, PoolSelector
from agent.planning.solver.utility import sell_program
from agent.policy.cash_flows import cash_limit
from agent.reference import price_inputs, reference_prices, spot_prices
from agent.reference.floors import UNBOUNDED_BPS, min_out
from agent.units import Value, decimal_text

SOLD_FRACTION = 1 - 1e-9
"""Fraction of the total capacity that a smaller set of pools has to absorb."""
PRICE_RANGE = 0.9
"""Range of the dual price of the sold token: a manual swap accepts any proceeds within impact
bounds and floors.
"""


@dataclass(frozen=True, slots=True)
class Quote:
    """Quote of a swap now. Amounts in base units, `fee` in numeraire base units at reference (or
    else spot) prices.

    `price_impact_bps` is the largest move of a pool's marginal price, fees excluded. The legs'
    minimum outputs are the quote less the slippage limit.
    """

    legs: tuple[Leg, ...]
    amount_in_raw: int
    amount_out_raw: int
    price_impact_bps: int
    fee: Value


def plan_swap(step: StepInput, token_in: str, token_out: str, amount_in_raw: int) -> Plan:
    """Return a plan that sells exactly `amount_in_raw` base units for as much `token_out` as
    possible, split over pools and one-hub routes.

    Raises ConfigError for tokens outside the portfolio, Refused if the wallet, the impact bound or
    the floors forbid it.
    """
    _require_pair(step.portfolio, token_in, token_out, amount_in_raw)
    _require_not_quarantined(step, token_in, token_out)
    problem = build_problem(step, reference_prices(step))
    if token_in in problem.index_by_token:
        sold_node = problem.nodes[problem.index_by_token[token_in]]
    else:
        sold_node = None
    if sold_node is None or token_out not in problem.index_by_token:
        raise Refused(
            "no reference price for one of the tokens",
            remedy="add a feed, or list it in portfolio.assets",
            code=ErrorCode.REFERENCE_PRICE,
        )
    if amount_in_raw > sold_node.spendable_raw:
        decimals = step.portfolio.token(token_in).decimals
        spendable_text = decimal_text(sold_node.spendable_raw, decimals)
        amount_text = decimal_text(amount_in_raw, decimals)
        remedy = cash_limit.append_exclusions(step.exclusions, "sell less, or lower the reserve")
        raise Refused(
            f"{amount_text} {sold_node.label} exceeds the spendable balance",
            (
                Verdict(
                    "balance",
                    f"{amount_text} {sold_node.label}",
                    f"{spendable_text} {sold_node.label} less reserve",
                    False,
                ),
            ),
            "; ".join(
                filter(
                    None,
                    (remedy, cash_limit.unused_cash_text(step.portfolio, step.history.cash_flows)),
                )
            ),
        )
    split = _best_split(problem, token_in, token_out, amount_in_raw)
    _require_all_sold(step.portfolio, problem, split, token_in, amount_in_raw)
    skips = (
        *problem.exclusions,
        *(
            SkippedItem(f"pool {pool}", why)
            for pool, why in (split.barred_pools | split.dropped_pools).items()
        ),
    )
    reason = (
        f"manual swap of {decimal_text(amount_in_raw, step.portfolio.token(token_in).decimals)}"
        f" {sold_node.label}"
    )
    reason = cash_limit.append_exclusions(step.exclusions, reason)
    decision = Rebalance(reason, _goal_after(problem, split.draft), by_hand=True)
    return assemble_plan(step, problem, decision, split.draft, skips, split.gap)


def quote(
    step: StepInput, token_in: str, token_out: str, amount_in_raw: int, pool: str | None = None
) -> Quote:
    """Quote `amount_in_raw`: with `pool` the exact output of that pool, else the best split.

    Only limits.pool_min_value applies, and pools that pay over MAX_RATE times the reference price are
    left out. Raises ConfigError for unknown tokens or pool,
    KnownTicksExceeded if the ticks that were read do not reach far enough, Refused if no route
    exists or the pools cannot take the amount.
    """
    _require_pair(step.portfolio, token_in, token_out, amount_in_raw)
    prices = _quote_prices(step)
    if pool is not None:
        legs = [
            _single_leg(
                step, _find_pool(step.snapshot, pool, token_in, token_out), token_in, amount_in_raw
            )
        ]
    else:
        problem = _quote_problem(step, prices, token_in, amount_in_raw)
        if not {token_in, token_out} <= set(problem.index_by_token):
            raise Refused(
                "no usable pool connects the two tokens",
                remedy="trimtab doctor lists the pools found",
                code=ErrorCode.ROUTE,
            )
        split = _best_split(problem, token_in, token_out, amount_in_raw)
        _require_all_sold(step.portfolio, problem, split, token_in, amount_in_raw)
        legs = split.draft.legs
    return Quote(
        legs=tuple(legs),
        amount_in_raw=amount_in_raw,
        amount_out_raw=sum(leg.amount_out_raw for leg in legs if leg.sink is LegPlace.WALLET),
        price_impact_bps=max(leg.impact_bps for leg in legs),
        fee=sum((leg.fee_raw * prices.get(leg.token_in, Fraction(0)) for leg in legs), Fraction(0)),
    )


def _require_not_quarantined(step: StepInput, *tokens: str) -> None:
    """Raise Refused if one of the tokens is in quarantine."""
    for quarantined_token in step.targets.quarantined_tokens:
        if quarantined_token.token in tokens:
            label = step.portfolio.token(quarantined_token.token).label
            verdict = Verdict(
                "token_screen",
                f"{label}: {quarantined_token.finding.value}",
                "a token that transfers the exact amount",
                False,
            )
            raise Refused(
                f"{label} is in quarantine: {quarantined_token.why}",
                (verdict,),
                quarantined_token.finding.remedy,
            )


def _require_pair(portfolio: Portfolio, token_in: str, token_out: str, amount_in_raw: int) -> None:
    for field_name, address in (("token in", token_in), ("token out", token_out)):
        if portfolio.find_token(address) is None:
            raise ConfigError(
                f"{field_name}: {address} is neither an asset nor a hub of the portfolio"
            )
    if token_in == token_out:
        raise ConfigError("the two tokens are the same")
    if amount_in_raw <= 0:
        raise ConfigError(f"amount: {amount_in_raw} base units; it must be above zero")


@dataclass(frozen=True, slots=True)
class _Split:
    """Best split: its draft, the pools below their fair floor, the pools not worth their gas, and
    its gap.
    """

    draft: PlanDraft
    barred_pools: dict[str, str]
    dropped_pools: dict[str, str]
    gap: OptimalityGap


def _best_split(problem: Problem, token_in: str, token_out: str, amount_in_raw: int) -> _Split:
    """Return the split that pays the most net of gas, along routes of one or two pools."""
    source = problem.index_by_token[token_in]
    target = problem.index_by_token[token_out]
    sold_value = amount_in_raw * problem.nodes[source].price
    graph = build_pool_graph(problem, float(sold_value))
    end_values = {
        node_index: 0.0 for node_index in range(len(problem.nodes)) if node_index != target
    }
    start_values = np.array(
        [1.0 if node_index == source else 0.0 for node_index in range(len(problem.nodes))]
    )
    program = sell_program(start_values, end_values, PRICE_RANGE)

    def paths_of(candidate_selection: PoolSelection) -> FlowPaths:
        return decompose_flows(
            candidate_selection.flows,
            [source, *(set(end_values) - {source}), target],
            frozenset({source}),
            frozenset({target}),
        )

    def serves_swap(row: int) -> bool:
        pool_edge = graph.pool_edges[row]
        return (
            pool_edge.token_in_index != target
            and pool_edge.token_out_index != source
            and (pool_edge.token_in_index == source or pool_edge.token_out_index == target)
        )

    barred_pools = {
        pool: why
        for directions, why in (
            (graph.directions_below_floor, "pays less than the floor set by the reference price"),
            (graph.overpaying_directions, OVERPAYING_REASON),
        )
        for pool, edge_source, edge_target in directions
        if edge_source == source or edge_target == target
    }
    first_bound = None
    while True:
        curve_rows = np.array(
            [row for row in graph.rows(barred_pools).tolist() if serves_swap(row)], dtype=np.intp
        )
        solution = solve_dual(program, graph.real_curves.rows(curve_rows))
        first_bound = solution.bound if first_bound is None else first_bound
        least_sold = (
            -float(solution.token_changes(graph.real_curves.rows(curve_rows))[source])
            * SOLD_FRACTION
        )
        solve_flows = partial(_solve_sale, program, source, least_sold)
        selection = PoolSelector(
            graph,
            solve_flows,
            0.0,
            lambda candidate_selection: legs_by_edge(paths_of(candidate_selection)),
        ).best_selection(curve_rows, solution)
        routes = to_routes(graph, paths_of(selection))
        if routes:
            remainder_raw = amount_in_raw - sum(route.amount_raw for route in routes)
            routes[0] = replace(routes[0], amount_raw=max(0, routes[0].amount_raw + remainder_raw))
        draft = _run_exact(problem, routes, token_in, amount_in_raw)
        if not draft.below_floor_pools or draft.sold_raw.get(token_in) == amount_in_raw:
            output_share = (
                draft.bought_raw.get(token_out, 0) * problem.nodes[target].price / sold_value
            )
            return _Split(
                draft,
                barred_pools,
                {pool: reason.text for pool, reason in selection.dropped_pools.items()},
                OptimalityGap.of_bps(
                    rounded_gap(Fraction(first_bound) - output_share, Fraction(1))
                ),
            )
        barred_pools |= draft.below_floor_pools


def _run_exact(
    problem: Problem, routes: list[Route], token_in: str, amount_in_raw: int
) -> PlanDraft:
    """Run routes, and return the draft. While that leaves a part unsold, run them again from another
    first one: what a pool at its bound leaves moves to later routes only.
    """
    drafts = []
    for first in range(max(1, len(routes))):
        draft = run_routes(
            problem,
            (*routes[first:], *routes[:first]),
            lambda draft: float(draft.sold_raw.get(token_in, 0)),
            is_exact_input=True,
        )
        drafts.append(draft)
        if not draft.full_pools or draft.sold_raw.get(token_in, 0) == amount_in_raw:
            break
    return max(drafts, key=lambda draft: draft.sold_raw.get(token_in, 0))


def _solve_sale(
    program: DualProgram,
    source: int,
    least_sold: float,
    stack: CurveStack,
    earlier_solution: DualSolution | None,
) -> DualSolution:
    """Return the best flows. If they sell less than `least_sold`, their bound is −∞, so that saved
    gas never justifies an unsold remainder.
    """
    solution = solve_dual(program, stack, earlier_solution)
    if -float(solution.token_changes(stack)[source]) >= least_sold:
        return solution
    return replace(solution, bound=-np.inf)


def _require_all_sold(
    portfolio: Portfolio, problem: Problem, split: _Split, token_in: str, amount_in_raw: int
) -> None:
    """Raise Refused unless the whole amount is traded: a manual swap is exact."""
    draft = split.draft
    barred_pools = split.barred_pools
    sold_raw = draft.sold_raw.get(token_in, 0)
    if sold_raw == amount_in_raw:
        return
    token = portfolio.token(token_in)
    amount_text = decimal_text(amount_in_raw, token.decimals)
    sold_text = decimal_text(sold_raw, token.decimals)
    if barred_pools:
        reasons_text = "; ".join(f"pool {pool} {why}" for pool, why in barred_pools.items())
        raise Refused(
            f"only {sold_text} of {amount_text} {token.label} can be sold near the reference price: {reasons_text}",
            (
                Verdict(
                    "fair_floor",
                    f"{sold_text} {token.label}",
                    f"{amount_text} {token.label}",
                    False,
                ),
            ),
            "a pool off the reference price may be manipulated: wait, or check limits.price_impact"
            " and limits.slippage",
        )
    if not draft.full_pools:
        raise Refused(
            f"no route of one or two usable pools sells {amount_text} {token.label} for the other "
            "token, or the amount buys less than one base unit",
            (Verdict("route", "none", "one or two pools", False),),
            "sell more, add a hub that both tokens trade with, or lower limits.pool_min_value",
        )
    verdict = Verdict(
        "price_impact", f"{amount_text} {token.label}", f"{sold_text} {token.label}", False
    )
    remedy = f"sell at most {sold_text} {token.label} at a time"
    if pools_without_ticks := pools_out_of_ticks(problem.pools, draft.legs, problem.impact_bps):
        raise KnownTicksExceeded(
            f"only {sold_text} of {amount_text} {token.label} fit within the ticks read of {', '.join(pools_without_ticks)}",
            verdict,
            remedy,
            pools_without_ticks,
        )
    if problem.impact_bps == UNBOUNDED_BPS:
        bound_text = "the pools' liquidity"
    else:
        bound_text = f"limits.price_impact of {problem.impact_bps} bps"
    raise Refused(
        f"only {sold_text} of {amount_text} {token.label} fit within {bound_text}",
        (verdict,),
        remedy,
    )


def _goal_after(problem: Problem, draft: PlanDraft) -> Goal:
    """Return the shares after the swap as the goal of a manual plan."""
    values_after = [
        node.value + draft.delta_raw.get(node.address, 0) * node.price for node in problem.assets
    ]
    total = sum(values_after, Fraction(0))
    shares = [value_after / total if total > 0 else Fraction(0) for value_after in values_after]
    return Goal(
        tuple(
            GoalWeight(node.address, share, share)
            for node, share in zip(problem.assets, shares, strict=True)
        )
    )


def _quote_prices(step: StepInput) -> dict[str, Fraction]:
    """Return reference prices, or spot prices if there is none; a quote has no effect on
    decisions.
    """
    prices = {token: price for token, price in spot_prices(price_inputs(step)).items() if price > 0}
    return prices | {
        token: price for token, price in reference_prices(step).price_by_token.items() if price > 0
    }


def _quote_problem(
    step: StepInput, prices: dict[str, Fraction], token_in: str, amount_in_raw: int
) -> Problem:
    """Return a problem of every priced token with just the amount to sell, and no impact bound."""
    portfolio = step.portfolio
    token_by_address = {
        token.address: token
        for token in (
            *(asset.token for asset in portfolio.assets),
            *portfolio.hubs,
            portfolio.numeraire,
        )
    }
    nodes = tuple(
        TokenNode(
            address,
            token.label,
            prices[address],
            amount_in_raw if address == token_in else 0,
            False,
        )
        for address, token in token_by_address.items()
        if address in prices
    )
    gas_unit_value = step.snapshot.current_gas_price_wei * prices.get(
        portfolio.wrapped_native, Fraction(0)
    )
    references = reference_prices(step)
    limits = replace(step.limits, price_impact_bps=None, plan_cost_bps=None)
    return problem_for_tokens(replace(step, limits=limits), nodes, references, gas_unit_value, ())


def _find_pool(snapshot: Snapshot, pool_address: str, token_in: str, token_out: str) -> Pool:
    for known_pool in snapshot.pools:
        if known_pool.address == pool_address:
            if {known_pool.token0, known_pool.token1} != {token_in, token_out}:
                raise ConfigError(f"pool: {pool_address} does not trade these tokens")
            return known_pool
    raise ConfigError(
        f"pool: {pool_address} is not a known pool", "trimtab doctor lists the pools found"
    )


def _single_leg(step: StepInput, pool: Pool, token_in: str, amount_in_raw: int) -> Leg:
    swap_result = pool.swap(token_in, amount_in_raw)
    if swap_result.amount_in_raw < amount_in_raw:
        token = step.portfolio.token(token_in)
        amount_text = decimal_text(amount_in_raw, token.decimals)
        fitting_text = decimal_text(swap_result.amount_in_raw, token.decimals)
        verdict = Verdict(
            "pool", f"{amount_text} {token.label}", f"{fitting_text} {token.label}", False
        )
        remedy = f"sell at most {fitting_text} {token.label} at a time"
        raise Refused(
            f"pool {pool.address} takes only {fitting_text} of {amount_text} {token.label}: its liquidity ends"
            " there",
            (verdict,),
            remedy,
        )
    slippage_bps = step.limits.slippage_bps
    return Leg(
        pool=pool.address,
        venue=pool.venue,
        token_in=token_in,
        token_out=pools.token_out(pool, token_in),
        fee_pips=pool.fee_for(token_in),
        amount_in_raw=swap_result.amount_in_raw,
        amount_out_raw=swap_result.amount_out_raw,
        min_out_raw=min_out(swap_result.amount_out_raw, 1, slippage_bps),
        fee_raw=swap_result.fee_raw,
        impact_bps=pools.price_move_bps(pool, swap_result.pool_after, token_in),
        source=LegPlace.WALLET,
        sink=LegPlace.WALLET,
    )
