"""Guards on the pools a plan trades in: how far it moves them, how deep they are, how low its floors are."""

from __future__ import annotations

from fractions import Fraction

from agent.amm import pools
from agent.guards.case import Case, Measured, Missing
from agent.guards.lp_replay import dearest
from agent.guards.replay import LegRun
from agent.guards.words import money, ratio
from agent.model import Collect, LpAction, PoolState, Provide
from agent.planning.floors import fair_floor
from agent.units import BPS


def price_impact(case: Case, limit_bps: int) -> Measured:
    """Largest move of a pool's marginal price, fees excluded, from the snapshot to after any leg, all its legs together."""
    moved = [(pools.move_bps(run.start, run.after, run.leg.token_in), run.leg.pool) for run in case.runs()]
    if not moved:
        return Measured("no trade", True)
    worst, pool = max(moved)
    return Measured(f"{worst} bps in {pool}", worst <= limit_bps)


def slippage(case: Case, limit_bps: int) -> Measured:
    """Least slippage limit, whole bps, that allows each minimum output; one above the simulated output could only revert.

    A floor of out · (1 − s) is rounded down to a base unit, so floor ≥ ⌊out · (1 − s)⌋ is what counts. Of actions with liquidity:
    the most that its minimums let liquidity cost above its worth at the reference (lp/floors.py).
    """
    if case.plan.actions:
        return _overpaid(case, limit_bps)
    worst = 0
    for run in case.runs():
        floor, out = run.leg.min_out_raw, run.amount_out_raw
        if floor > out:
            return Measured(f"leg {run.number} asks for {floor} where the pool pays {out}", False)
        if floor <= 0:
            return Measured(f"leg {run.number} has no minimum output", False)
        worst = max(worst, BPS * (out - floor - 1) // out + 1)
    return Measured(f"{worst} bps", worst <= limit_bps)


def fair_floor_kept(case: Case) -> Measured:
    """Every minimum output is at or above fair value at reference prices less fee, impact limit and slippage limit (T1).

    It has no switch of its own. With one of the two limits off the other one bounds the price; with both off nothing would,
    and a searcher could take everything but a base unit: no such plan is sent.
    """
    for action in case.actions():
        for least, given in zip(action.least, _minimums(action.action), strict=True):
            if given < least:
                return Measured(f"action {action.number} accepts {given} where the reference asks for {least}", False)
    if case.plan.actions:
        return Measured("every action at or above it", True)
    if case.step.limits.slippage_bps is None and case.step.limits.price_impact_bps is None:
        return Measured("any price: limits.slippage and limits.price_impact are both off", False)
    for run in case.runs():
        least = _least_out(case, run)
        if run.leg.min_out_raw < least:
            return Measured(f"leg {run.number} accepts {run.leg.min_out_raw} where the reference asks for {least}", False)
    return Measured("every leg at or above it", True)


def pool_min_value(case: Case, limit: Fraction) -> Measured:
    """Smallest depth of a pool used, both sides together in value at reference prices."""
    depths = [(_depth_value(case, run.start), run.leg.pool) for run in case.runs()]
    provided = {action.pool for action in case.plan.actions if isinstance(action, Provide)}
    depths += [(_depth_value(case, pool), pool.address) for pool in case.step.snapshot.pools if pool.address in provided]
    if not depths:
        return Measured("no trade", True)
    smallest, pool = min(depths)
    return Measured(f"{money(smallest, case.numeraire)} in {pool}", smallest >= limit)


def second_quote(case: Case, limit_bps: int) -> Measured:
    """Largest difference of an independent library's quote from our simulation, either way; no quote for a leg refuses."""
    quotes = {quote.leg: quote for quote in case.evidence.second_quotes}
    worst = Fraction(0)
    for run in case.runs():
        quote = quotes.get(run.number)
        if quote is None:
            raise Missing(f"no second quote for leg {run.number}")
        if quote.amount_out_raw is None:
            raise Missing(f"no second quote for leg {run.number}: {quote.error or 'no reason given'}")
        worst = max(worst, Fraction(abs(quote.amount_out_raw - run.amount_out_raw), run.amount_out_raw))
    return Measured(ratio(worst), worst * BPS <= limit_bps)


def _least_out(case: Case, run: LegRun) -> int:
    limits = case.step.limits
    return fair_floor(
        run.amount_in_raw,
        case.price(run.leg.token_in),
        case.price(run.leg.token_out),
        pools.fee_pips(run.start),
        BPS if limits.price_impact_bps is None else limits.price_impact_bps,
        BPS if limits.slippage_bps is None else limits.slippage_bps,
    )


def _depth_value(case: Case, pool: PoolState) -> Fraction:
    return sum((pools.depth(pool, token) * case.price(token) for token in (pool.token0, pool.token1)), Fraction(0))


def _overpaid(case: Case, limit_bps: int) -> Measured:
    worst = Fraction(0)
    for run in case.actions():
        action = run.action
        if not isinstance(action, Collect) and any(given > real for given, real in zip(action.min_raw, run.amounts, strict=True)):
            return Measured(f"action {run.number} asks for {action.min_raw} where the contracts move {run.amounts}", False)
        worst = max(worst, dearest(run, case.step.limits))
    return Measured(ratio(worst), worst * BPS <= limit_bps)


def _minimums(action: LpAction) -> tuple[int, int]:
    return (0, 0) if isinstance(action, Collect) else action.min_raw
