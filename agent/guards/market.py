"""Guards of markets: price impact, pool depth, floors, second quotes, price sources and pegs; and
sandwich exposure.
"""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from typing import Any

from agent.amm import pools
from agent.guards.case import GuardCase, GuardMeasurement, MissingData
from agent.guards.guard import Guard, always, format_money, format_ratio, format_seconds, limited
from agent.guards.replay import SimulatedSwap
from agent.layers import guards as layers
from agent.model import (
    Asset,
    FeedRound,
    Pool,
    PriceSource,
    Provide,
    StepInput,
)
from agent.planning.problem import fair_floor
from agent.reference import (
    PegUnknown,
    answer_bound_fault,
    dollar_pegs,
    late_means,
    price_inputs,
    round_regression_fault,
    sequencer_fault,
    source_deviations,
)
from agent.units import BPS


def price_impact(case: GuardCase, limit_bps: int) -> GuardMeasurement:
    """Return the largest price move of a pool, without fees, cumulated over the legs in the
    pool.
    """
    moved = [
        (pools.price_move_bps(run.start, run.after, run.leg.token_in), run.leg.pool)
        for run in case.runs()
    ]
    if not moved:
        return GuardMeasurement("no trade", True)
    worst, pool = max(moved)
    return GuardMeasurement(f"{worst} bps in {pool}", worst <= limit_bps)


def slippage(case: GuardCase, limit_bps: int) -> GuardMeasurement:
    """Return the smallest slippage s, in whole bps, that allows each minimum output: minimum ≥ ⌊out
    · (1 − s)⌋.

    A minimum above the simulated output would revert. A plan of a layer's actions is measured by
    the layer.
    """
    for slippage_of in layers.SLIPPAGES:
        if (measured := slippage_of(case, limit_bps)) is not None:
            return measured
    worst = 0
    for run in case.runs():
        floor, out = run.leg.min_out_raw, run.amount_out_raw
        if floor > out:
            return GuardMeasurement(
                f"leg {run.number} has a minimum of {floor}, the pool pays {out}", False
            )
        if floor <= 0:
            return GuardMeasurement(f"leg {run.number} has no minimum output", False)
        worst = max(worst, BPS * (out - floor - 1) // out + 1)
    return GuardMeasurement(f"{worst} bps", worst <= limit_bps)


def fair_floor_kept(case: GuardCase) -> GuardMeasurement:
    """Require each minimum output to be at least fair value less fee, impact limit and slippage
    limit (T1).

    This guard cannot be switched off. If one of the two limits is off, the other still bounds the
    price. If both are off, the guard refuses, because a searcher could take all but one base unit.
    """
    for floor_of in layers.FLOORS:
        if (measured := floor_of(case)) is not None:
            return measured
    if case.step.limits.slippage_bps is None and case.step.limits.price_impact_bps is None:
        return GuardMeasurement(
            "any price: limits.slippage and limits.price_impact are both off", False
        )
    for run in case.runs():
        least = _least_out(case, run)
        if run.leg.min_out_raw < least:
            return GuardMeasurement(
                f"leg {run.number} has a minimum of {run.leg.min_out_raw}, the reference requires"
                f" {least}",
                False,
            )
    return GuardMeasurement("every leg at or above it", True)


def pool_min_value(case: GuardCase, limit: Fraction) -> GuardMeasurement:
    """Return the smallest depth of a used pool: the value of both sides at reference prices."""
    depths = [(_depth_value(case, run.start), run.leg.pool) for run in case.runs()]
    provided = {action.pool for action in case.plan.actions if isinstance(action, Provide)}
    depths += [
        (_depth_value(case, pool), pool.address)
        for pool in case.step.snapshot.pools
        if pool.address in provided
    ]
    if not depths:
        return GuardMeasurement("no trade", True)
    smallest, pool = min(depths)
    return GuardMeasurement(
        f"{format_money(smallest, case.numeraire)} in {pool}", smallest >= limit
    )


def second_quote(case: GuardCase, limit_bps: int) -> GuardMeasurement:
    """Return the largest relative deviation of an independent quote from the simulation. A missing
    quote refuses the plan.
    """
    quotes = {quote.leg: quote for quote in case.evidence.second_quotes}
    worst = Fraction(0)
    for run in case.runs():
        quote = quotes.get(run.number)
        if quote is None:
            raise MissingData(f"no second quote for leg {run.number}")
        if quote.amount_out_raw is None:
            raise MissingData(
                f"no second quote for leg {run.number}: {quote.error or 'no reason given'}"
            )
        worst = max(
            worst, Fraction(abs(quote.amount_out_raw - run.amount_out_raw), run.amount_out_raw)
        )
    return GuardMeasurement(format_ratio(worst), worst * BPS <= limit_bps)


def _least_out(case: GuardCase, run: SimulatedSwap) -> int:
    limits = case.step.limits
    return fair_floor(
        run.amount_in_raw,
        case.price_range(run.leg.token_in)[1],
        case.price_range(run.leg.token_out)[0],
        run.start.fee_pips,
        BPS if limits.price_impact_bps is None else limits.price_impact_bps,
        BPS if limits.slippage_bps is None else limits.slippage_bps,
    )


def _depth_value(case: GuardCase, pool: Pool) -> Fraction:
    return sum(
        (pool.depth(token) * case.price(token) for token in (pool.token0, pool.token1)), Fraction(0)
    )


LEG_GUARDS: tuple[Guard[Any], ...] = (
    limited(
        "price_impact",
        lambda limits: limits.price_impact_bps,
        price_impact,
        "trade less per slice, add deeper pools, or raise limits.price_impact",
        judges_market=True,
    ),
    limited(
        "slippage",
        lambda limits: limits.slippage_bps,
        slippage,
        "plan again at a new block, or raise limits.slippage",
        judges_market=True,
    ),
    always(
        "fair_floor",
        "reference less fee, impact and slippage limits",
        fair_floor_kept,
        "a pool is off the reference price or the minimum is too low; plan again later, and keep"
        " slippage or price_impact on",
        judges_market=True,
    ),
    limited(
        "pool_min_value",
        lambda limits: limits.pool_min_value,
        pool_min_value,
        "remove this pool, or lower limits.pool_min_value",
        judges_market=True,
    ),
)
"""Guards of legs and pools, in the order of their verdicts."""


# --- Guards of prices: pool against reference, feed age, feed against TWAP, stablecoin pegs.


def oracle_deviation(case: GuardCase, limit_bps: int) -> GuardMeasurement:
    """Return the largest relative deviation from the reference price.

    The guard compares the spot price of each asset and the price of each pool of the plan with the
    reference, and the TWAP with the feed if both are configured and have a price; after a sharp
    move the agent waits for the TWAP. For an exit only prices that it depends on are compared, and
    `late_means` are not. An asset without a spot price refuses the plan.
    """
    deviations = [*_assets(case), *_pools(case), *_means(case)]
    worst, what = max(deviations, default=(Fraction(0), "nothing to compare"))
    return GuardMeasurement(f"{format_ratio(worst)} ({what})", worst * BPS <= limit_bps)


def feed_health(case: GuardCase, max_age_s: int) -> GuardMeasurement:
    """Return the age, by block time, of the feed nearest to its maximum age.

    A missing or invalid round refuses the plan, although the reference price may fall back to a
    TWAP: configured feeds must be live before money moves. An exit needs only the feeds of its own
    tokens.
    """
    if PriceSource.FEED not in case.step.reference.kinds:
        return GuardMeasurement("no feed in use", True)
    judged = case.judged_tokens()
    ages = []
    for asset in case.step.portfolio.assets:
        if asset.feed is not None and (judged is None or asset.token.address in judged):
            age_s, limit_s = _age(case, asset), case.step.reference.max_age_s(asset.feed)
            ages.append((age_s - limit_s, age_s, asset.token.label, asset.feed))
    if not ages:
        return GuardMeasurement("0 s (no feed in use)", True)
    over_s, age_s, label, feed = max(ages)
    limit_s = case.step.reference.max_age_s(feed)
    if limit_s != max_age_s:
        label += f", at most {format_seconds(limit_s)}"
    return GuardMeasurement(f"{format_seconds(age_s)} ({label})", over_s <= 0)


def sequencer(case: GuardCase, _grace_s: int) -> GuardMeasurement:
    """Require that the rollup's sequencer has been up for the grace period (T13)."""
    fault = sequencer_fault(case.step.snapshot, case.step.reference)
    return GuardMeasurement(fault or "up", not fault)


def depeg(case: GuardCase, limit_bps: int) -> GuardMeasurement:
    """Return the largest deviation from 1 USD among assets with a dollar symbol.

    A token above 1.20 USD is not a stablecoin but a savings token. A depegged token must return to
    within half of the limit. An unknown price refuses the plan. For an exit only its own tokens are
    compared.
    """
    try:
        pegs = list(dollar_pegs(case.step, case.references, limit_bps, case.judged_tokens()))
    except PegUnknown as why:
        raise MissingData(str(why)) from None
    if not pegs:
        return GuardMeasurement("no dollar token", True)
    worst = max(pegs, key=lambda peg: peg.distance - peg.limit_bps / BPS)
    label = worst.token.label
    if worst.limit_bps != limit_bps:
        label += f", which left its peg: at most {format_ratio(worst.limit_bps / BPS)}"
    return GuardMeasurement(f"{format_ratio(worst.distance)} ({label})", not worst.off)


def _assets(case: GuardCase) -> Iterator[tuple[Fraction, str]]:
    """Yield the deviation of each asset's spot price; for an exit only of assets that it trades, so
    that pools of other assets cannot block it.
    """
    ignored = {
        blocked.token for blocked in case.step.blocked_exits
    }  # not traded; often has no pool

    if case.layer.only_reduces():
        return
    if case.is_sell_only():
        traded = set(map(case.step.portfolio.held_as, case.replay.tokens))
        ignored |= {asset.token.address for asset in case.step.portfolio.assets} - traded
    for asset in case.step.portfolio.assets:
        if asset.token.address in ignored:
            continue
        spot = case.spots.get(asset.token.address)
        if spot is None:
            raise MissingData(f"no pool has a spot price of {asset.token.label}")
        yield _distance(spot, case.price(asset.token.address)), f"spot of {asset.token.label}"


def _pools(case: GuardCase) -> Iterator[tuple[Fraction, str]]:
    for run in case.runs():
        fair = case.price(run.leg.token_in) / case.price(run.leg.token_out)
        yield (
            _distance(pools.marginal_price(run.start, run.leg.token_in), fair),
            f"pool {run.leg.pool}",
        )
    for deviations in layers.DEVIATIONS:
        yield from deviations(case)


def _means(case: GuardCase) -> Iterator[tuple[Fraction, str]]:
    judged = case.judged_tokens(with_gas=False)
    inputs, limit_bps = price_inputs(case.step), case.step.limits.oracle_deviation_bps
    late = late_means(inputs, limit_bps) if case.is_sell_only() else frozenset[str]()
    for deviation, token in source_deviations(inputs):
        if (judged is None or token in judged) and token not in late:
            yield deviation, f"TWAP of {case.label(token)} against its feed"


def _distance(price: Fraction, reference: Fraction) -> Fraction:
    return abs(price / reference - 1)


def _round(case: GuardCase, asset: Asset) -> FeedRound:
    """Return the latest round of an asset's feed (AggregatorV3Interface.latestRoundData). Raises
    MissingData if it is invalid.
    """
    answer = next((feed for feed in case.step.snapshot.feeds if feed.feed == asset.feed), None)
    label = asset.token.label
    if answer is None:
        raise MissingData(f"feed of {label} was not read")
    if answer.answer <= 0:
        raise MissingData(f"feed of {label} returned {answer.answer}")
    if answer.updated_at_s <= 0 or answer.answered_in_round < answer.round_id:
        raise MissingData(f"feed of {label} has an unfinished round")
    if answer.updated_at_s > case.step.snapshot.head.timestamp_s:
        raise MissingData(f"feed of {label} is dated after the block")
    fault = answer_bound_fault(answer) or round_regression_fault(case.step.snapshot, answer)
    if fault:
        raise MissingData(f"feed of {label} {fault}")
    return answer


def _age(case: GuardCase, asset: Asset) -> int:
    return case.step.snapshot.head.timestamp_s - _round(case, asset).updated_at_s


def _feed_max_age(step: StepInput) -> int | None:
    """Return the maximum feed age; None if the oracle guard is off."""
    return None if step.limits.oracle_deviation_bps is None else step.reference.feed_max_age_s


def _sequencer_grace(step: StepInput) -> int | None:
    """Return the grace period; None without a sequencer feed."""
    return None if step.reference.sequencer_feed is None else step.reference.sequencer_grace_s


PRICE_GUARDS: tuple[Guard[Any], ...] = (
    limited(
        "oracle_deviation",
        lambda limits: limits.oracle_deviation_bps,
        oracle_deviation,
        "pools and reference disagree: wait, or check feeds and pools with trimtab doctor",
        judges_market=True,
    ),
    Guard(
        "feed_health",
        _feed_max_age,
        lambda limit, _: format_seconds(limit),
        feed_health,
        "wait for a fresh round, check the feed's address, or raise reference.feed_max_age",
    ),
    Guard(
        "sequencer",
        _sequencer_grace,
        lambda grace_s, _: f"up for {format_seconds(grace_s)}",
        sequencer,
        "wait until the rollup's sequencer has been up for reference.sequencer_grace",
    ),
    limited(
        "second_quote_deviation",
        lambda limits: limits.second_quote_deviation_bps,
        second_quote,
        "check addresses and endpoint with trimtab doctor, or limits.second_quote_deviation ="
        " 'off'",
        judges_market=True,
    ),
    limited(
        "depeg",
        lambda limits: limits.depeg_bps,
        depeg,
        "a stablecoin is off its peg: decide what to hold, or raise limits.depeg",
    ),
)
"""Guards of prices, in the order of their verdicts."""
