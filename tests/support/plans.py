"""Builds plans whose predictions are exact and evidence that lets them pass, so that tests of guards say only what differs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

from agent import guards
from agent.amm import pools
from agent.guards.safety import moved_tokens
from agent.model import (
    Evidence,
    Goal,
    Leg,
    LegFunding,
    Plan,
    PlanCost,
    PoolState,
    Rebalance,
    ScreenedToken,
    SecondQuote,
    StepInput,
    TokenFinding,
    Verdict,
)
from agent.planning.problem import fair_floor, min_out
from agent.reference import reference_prices
from tests.support.builders import raw, token, with_snapshot

W, R = LegFunding.WALLET, LegFunding.ROUTER
GAS_UNITS = 200_000


@dataclass(frozen=True, slots=True)
class Swap:
    """One leg to be: a router-funded one spends what the legs before it left there, whatever `amount_in_raw` says."""

    pool: PoolState
    token_in: str
    amount_in_raw: int = 0
    source: LegFunding = W
    sink: LegFunding = W


def plan_of(step: StepInput, swaps: Sequence[Swap], gas_units: int = GAS_UNITS) -> Plan:
    """The plan of these swaps on the snapshot's pools: exact amounts, floors as the limits ask, balances after."""
    states = {pool.address: pool for pool in step.snapshot.pools}
    held = {holding.token: holding.raw for holding in step.snapshot.holdings}
    router: dict[str, int] = {}
    legs = []
    for swap in swaps:
        amount_in = swap.amount_in_raw if swap.source is W else router.pop(swap.token_in)
        before = states[swap.pool.address]
        done = pools.swap_exact_in(before, swap.token_in, amount_in)
        states[swap.pool.address] = done.after
        out = pools.token_out(before, swap.token_in)
        if swap.source is W:
            held[swap.token_in] = held.get(swap.token_in, 0) - amount_in
        target = held if swap.sink is W else router
        target[out] = target.get(out, 0) + done.amount_out_raw
        legs.append(
            Leg(
                pool=before.address,
                venue=before.venue,
                token_in=swap.token_in,
                token_out=out,
                fee_pips=before.fee_pips,
                amount_in_raw=amount_in,
                amount_out_raw=done.amount_out_raw,
                min_out_raw=floor_of(step, before, swap.token_in, amount_in, done.amount_out_raw),
                fee_raw=done.fee_raw,
                impact_bps=pools.price_move_bps(before, done.after, swap.token_in),
                source=swap.source,
                sink=swap.sink,
            )
        )
    block, zero = step.snapshot.head.number, Fraction(0)
    return Plan(
        block=block,
        decision=Rebalance("test", Goal(())),
        legs=tuple(legs),
        holdings_after=tuple(held.items()),
        weights_after_bps=(),
        cost=PlanCost(zero, zero, zero, zero),
        turnover=zero,
        gross_volume=zero,
        gas_units=gas_units,
        gap_bps=None,
        verdicts=(),
        skipped=(),
        expires_block=block + step.execution.expire_blocks,
    )


def approved(step: StepInput) -> StepInput:
    """The step with nothing left to approve."""
    return with_snapshot(step, allowances=tuple(replace(one, raw=2**255) for one in step.snapshot.allowances))


def floor_of(step: StepInput, pool: PoolState, token_in: str, amount_in_raw: int, out_raw: int) -> int:
    """Minimum output by the limits; where the reference is unknown, by slippage alone."""
    prices, limits = reference_prices(step).prices, step.limits
    token_out = pools.token_out(pool, token_in)
    if token_in not in prices or token_out not in prices:
        return min_out(out_raw, 1, limits.slippage_bps)
    slippage, impact = limits.slippage_bps or 0, limits.price_impact_bps or 0
    fair = fair_floor(amount_in_raw, prices[token_in].price, prices[token_out].price, pool.fee_pips, impact, slippage)
    return min_out(out_raw, fair, limits.slippage_bps)


def with_leg(plan: Plan, number: int, **changes: object) -> Plan:
    """The plan with other fields in one leg."""
    legs = list(plan.legs)
    legs[number] = replace(legs[number], **changes)  # type: ignore[arg-type]  # keywords are field names, checked by replace
    return replace(plan, legs=tuple(legs))


def evidence(step: StepInput, plan: Plan, **changes: object) -> Evidence:
    """Evidence that has nothing against the plan: all code pinned, second quotes equal, not paused, clock at the head."""
    plain = Evidence(
        paused=False,
        pause_reason="",
        trusted=tuple((entry.address, entry.hash) for entry in step.snapshot.code_hashes),
        second_quotes=tuple(SecondQuote(number, leg.amount_out_raw) for number, leg in enumerate(plan.legs)),
        quorum=True,
        now_s=step.snapshot.head.timestamp_s,
        screens=tuple(ScreenedToken(token, TokenFinding.CLEAN) for token in moved_tokens(plan)),
    )
    return replace(plain, **changes)  # type: ignore[arg-type]  # keywords are field names, checked by replace


def verdict(name: str, step: StepInput, plan: Plan, seen: Evidence | None = None) -> Verdict:
    """What one guard says of the plan, by evidence that has nothing against it unless given."""
    found = [v for v in guards.judge(step, plan, seen or evidence(step, plan)) if v.guard == name]
    assert len(found) == 1
    return found[0]


def sell_weth(step: StepInput, whole: Fraction | int = Fraction(1, 2)) -> Plan:
    """One leg that sells WETH in the snapshot's first pool."""
    return plan_of(step, [Swap(step.snapshot.pools[0], token("WETH").address, raw(whole, token("WETH")))])
