"""Guards of markets: price impact, pool depth, floors, second quotes, price sources and pegs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from fractions import Fraction
from operator import itemgetter

from agent.amm import pools
from agent.guards.case import GuardCase, GuardMeasurement, MissingData, measure_in_layer
from agent.guards.guard import (
    Guard,
    GuardScope,
    fixed_guard,
    format_money,
    format_ratio,
    format_seconds,
    limit_guard,
)
from agent.guards.replay import SimulatedSwap
from agent.model import (
    FeedRound,
    Pool,
    PriceSource,
    Provide,
    SecondQuote,
    StepInput,
)
from agent.reference import (
    PegUnknown,
    answer_bound_fault,
    dollar_pegs,
    late_twap_tokens,
    price_inputs,
    round_regression_fault,
    sequencer_fault,
    short_mean_deviations,
    source_deviations,
)
from agent.reference.floors import fair_floor
from agent.units import BPS


def price_impact(case: GuardCase, limit_bps: int) -> GuardMeasurement:
    """Return the largest price move of a pool, without fees, cumulated over the legs in the
    pool.
    """
    moves_and_pools = [
        (
            pools.price_move_bps(swap.snapshot_pool, swap.pool_after, swap.leg.token_in),
            swap.leg.pool,
        )
        for swap in case.swaps()
    ]
    if not moves_and_pools:
        return GuardMeasurement("no trade", True)
    largest_move_bps, moved_pool = max(moves_and_pools)
    return GuardMeasurement(
        f"{largest_move_bps} bps in {moved_pool}", largest_move_bps <= limit_bps
    )


def slippage(case: GuardCase, limit_bps: int) -> GuardMeasurement:
    """Return the smallest slippage s, in whole bps, that allows each minimum output: minimum ≥ ⌊out
    · (1 − s)⌋.

    A minimum above the simulated output would revert.
    """
    largest_slippage_bps = 0
    for swap in case.swaps():
        min_out_raw = swap.leg.min_out_raw
        simulated_out_raw = swap.amount_out_raw
        if min_out_raw > simulated_out_raw:
            return GuardMeasurement(
                f"leg {swap.number} has a minimum of {min_out_raw}, the pool pays {simulated_out_raw}",
                False,
            )
        if min_out_raw <= 0:
            return GuardMeasurement(f"leg {swap.number} has no minimum output", False)
        largest_slippage_bps = max(
            largest_slippage_bps,
            BPS * (simulated_out_raw - min_out_raw - 1) // simulated_out_raw + 1,
        )
    return GuardMeasurement(f"{largest_slippage_bps} bps", largest_slippage_bps <= limit_bps)


def measure_fair_floor(case: GuardCase) -> GuardMeasurement:
    """Require each minimum output to be at least fair value less fee, impact limit and slippage
    limit (T1).

    This guard cannot be switched off. If one of the two limits is off, the other still bounds the
    price. If both are off, the guard refuses, because a searcher could take all but one base unit.
    """
    if case.step.limits.slippage_bps is None and case.step.limits.price_impact_bps is None:
        return GuardMeasurement(
            "any price: limits.slippage and limits.price_impact are both off", False
        )
    for swap in case.swaps():
        required_out_raw = _least_out_raw(case, swap)
        if swap.leg.min_out_raw < required_out_raw:
            return GuardMeasurement(
                f"leg {swap.number} has a minimum of"
                f" {case.amount_text(swap.leg.token_out, swap.leg.min_out_raw)}, the reference requires"
                f" {case.amount_text(swap.leg.token_out, required_out_raw)}",
                False,
            )
    return GuardMeasurement("every leg at or above it", True)


def pool_min_value(case: GuardCase, limit: Fraction) -> GuardMeasurement:
    """Return the smallest depth of a used pool: the value of both sides at reference prices."""
    values_and_pools = [
        (_depth_value(case, swap.snapshot_pool), swap.leg.pool) for swap in case.swaps()
    ]
    provided_pools = {
        action.pool for action in case.plan.layer_actions if isinstance(action, Provide)
    }
    values_and_pools += [
        (_depth_value(case, pool), pool.address)
        for pool in case.step.snapshot.pools
        if pool.address in provided_pools
    ]
    if not values_and_pools:
        return GuardMeasurement("no trade", True)
    smallest_value, pool_address = min(values_and_pools)
    return GuardMeasurement(
        f"{format_money(smallest_value, case.numeraire)} in {pool_address}", smallest_value >= limit
    )


def second_quote(case: GuardCase, limit_bps: int) -> GuardMeasurement:
    """Return the largest relative deviation of an independent quote from the simulation. A missing
    quote refuses the plan.
    """
    quote_by_leg = {quote.leg_index + 1: quote for quote in case.evidence.second_quotes}
    largest_deviation = Fraction(0)
    for swap in case.swaps():
        quote = quote_by_leg.get(swap.number)
        if quote is None:
            raise MissingData(f"no second quote for leg {swap.number}")
        if quote.amount_out_raw is None:
            raise MissingData(
                f"no second quote for leg {swap.number}: {quote.error or 'no reason given'}"
            )
        largest_deviation = max(
            largest_deviation,
            Fraction(abs(quote.amount_out_raw - swap.amount_out_raw), swap.amount_out_raw),
        )
    measured_text = format_ratio(largest_deviation)
    if source_text := quote_source_text(case.evidence.second_quotes):
        measured_text += f"; quoted by {source_text}"
    return GuardMeasurement(measured_text, largest_deviation * BPS <= limit_bps)


def quote_source_text(quotes: Sequence[SecondQuote]) -> str:
    """Return who quoted the swaps: "the venue's contracts and uniswap-python (2 of 3 swaps)"; empty
    if the quotes name no source.
    """
    swaps_by_source = Counter(source for quote in quotes for source in quote.sources)
    return " and ".join(
        source if swap_count == len(quotes) else f"{source} ({swap_count} of {len(quotes)} swaps)"
        for source, swap_count in swaps_by_source.items()
    )


def _least_out_raw(case: GuardCase, swap: SimulatedSwap) -> int:
    limits = case.step.limits
    return fair_floor(
        swap.amount_in_raw,
        case.price_range(swap.leg.token_in)[1],
        case.price_range(swap.leg.token_out)[0],
        swap.pool_before.fee_for(swap.leg.token_in),
        BPS if limits.price_impact_bps is None else limits.price_impact_bps,
        BPS if limits.slippage_bps is None else limits.slippage_bps,
    )


def _depth_value(case: GuardCase, pool: Pool) -> Fraction:
    return sum(
        (pool.depth(token) * case.price(token) for token in (pool.token0, pool.token1)), Fraction(0)
    )


PRICE_IMPACT = limit_guard(
    "price_impact",
    lambda limits: limits.price_impact_bps,
    price_impact,
    "trade less per slice, add deeper pools, or raise limits.price_impact",
    scope=GuardScope.MARKET,
)
SLIPPAGE = limit_guard(
    "slippage",
    lambda limits: limits.slippage_bps,
    slippage,
    "plan again at a new block, or raise limits.slippage",
    scope=GuardScope.MARKET,
)
FAIR_FLOOR = fixed_guard(
    "fair_floor",
    "reference less fee, impact and slippage limits",
    measure_fair_floor,
    "a pool is off the reference price or the minimum is too low; plan again later, and keep"
    " slippage or price_impact on",
    scope=GuardScope.MARKET,
    judges_minimums=True,
)
POOL_MIN_VALUE = limit_guard(
    "pool_min_value",
    lambda limits: limits.pool_min_value,
    pool_min_value,
    "remove this pool, or lower limits.pool_min_value",
    scope=GuardScope.MARKET,
)


# --- Guards of prices: pool against reference, feed age, feed against TWAP, stablecoin pegs.


def oracle_deviation(case: GuardCase, limit_bps: int) -> GuardMeasurement:
    """Return the largest relative deviation from the reference price.

    The guard compares the spot price of each asset and the price of each pool of the plan with the
    reference, and the TWAP with the feed if both are configured and have a price; after a sharp
    move the agent waits for the TWAP. The short means of the tokens traded are compared with the
    reference. For an exit only prices that it depends on are compared, and neither
    `late_twap_tokens` nor short means. An asset without a spot price refuses the plan.
    """
    deviations = [*_spot_deviations(case), *_pool_deviations(case), *_twap_deviations(case)]
    largest_deviation, label = max(
        [
            max(deviations, default=(Fraction(0), "nothing to compare")),
            *_short_mean_deviations(case),
        ],
        key=itemgetter(0),
    )
    return GuardMeasurement(
        f"{format_ratio(largest_deviation)} ({label})", largest_deviation * BPS <= limit_bps
    )


def feed_health(case: GuardCase, max_age_s: int) -> GuardMeasurement:
    """Return the age, by block time, of the feed nearest to its maximum age.

    A missing or invalid round refuses the plan, although the reference price may fall back to a
    TWAP: the configured feeds of the assets, of the native coin and of hubs that the plan trades must
    be live before money moves. An exit needs only the feeds of its own tokens and of the native coin.
    """
    if PriceSource.FEED not in case.step.reference.sources:
        return GuardMeasurement("no feed in use", True)
    judged_tokens = case.judged_tokens()
    portfolio = case.step.portfolio
    traded_tokens = {portfolio.wrapped_native}
    for leg in case.plan.legs:
        traded_tokens |= {leg.token_in, leg.token_out}
    feed_by_token = {asset.token.address: asset.feed for asset in portfolio.assets} | {
        hub: feed for hub, feed in portfolio.hub_feeds if hub in traded_tokens
    }
    excesses_and_feeds = []
    for token, feed in feed_by_token.items():
        if feed is not None and (judged_tokens is None or token in judged_tokens):
            label = case.label(token)
            age_s = (
                case.step.snapshot.head.timestamp_s - _latest_round(case, feed, label).updated_at_s
            )
            limit_s = case.step.reference.max_age_s(feed)
            excesses_and_feeds.append((age_s - limit_s, age_s, label, feed))
    if not excesses_and_feeds:
        return GuardMeasurement("0 s (no feed in use)", True)
    excess_s, age_s, label, feed = max(excesses_and_feeds)
    limit_s = case.step.reference.max_age_s(feed)
    if limit_s != max_age_s:
        label += f", at most {format_seconds(limit_s)}"
    return GuardMeasurement(f"{format_seconds(age_s)} ({label})", excess_s <= 0)


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
    except PegUnknown as error:
        raise MissingData(str(error)) from None
    if not pegs:
        return GuardMeasurement("no dollar token", True)
    worst_peg = max(pegs, key=lambda peg: peg.deviation - peg.limit_bps / BPS)
    label = worst_peg.token.label
    if worst_peg.limit_bps != limit_bps:
        label += f", which left its peg: at most {format_ratio(worst_peg.limit_bps / BPS)}"
    return GuardMeasurement(
        f"{format_ratio(worst_peg.deviation)} ({label})", not worst_peg.is_depegged
    )


def _spot_deviations(case: GuardCase) -> Iterator[tuple[Fraction, str]]:
    """Yield the deviation of each asset's spot price; for an exit only of assets that it trades, so
    that pools of other assets cannot block it.
    """
    ignored_tokens = {
        blocked_exit.token for blocked_exit in case.step.blocked_exits
    }  # not traded; often has no pool

    if case.layer_answers.only_reduces():
        return
    if case.is_sell_only():
        traded_tokens = set(map(case.step.portfolio.pricing_token, case.replay.tokens))
        ignored_tokens |= {
            asset.token.address for asset in case.step.portfolio.assets
        } - traded_tokens
    for asset in case.step.portfolio.assets:
        if asset.token.address in ignored_tokens:
            continue
        spot_price = case.spot_prices.get(asset.token.address)
        if spot_price is None:
            raise MissingData(f"no pool has a spot price of {asset.token.label}")
        yield (
            _relative_deviation(spot_price, case.price(asset.token.address)),
            f"spot of {asset.token.label}",
        )


def _pool_deviations(case: GuardCase) -> Iterator[tuple[Fraction, str]]:
    for swap in case.swaps():
        reference_rate = case.price(swap.leg.token_in) / case.price(swap.leg.token_out)
        yield (
            _relative_deviation(
                pools.marginal_price(swap.snapshot_pool, swap.leg.token_in), reference_rate
            ),
            f"pool {swap.leg.pool}",
        )
    yield from measure_in_layer(case.layer_answers.pool_deviations)


def _twap_deviations(case: GuardCase) -> Iterator[tuple[Fraction, str]]:
    judged_tokens = case.judged_tokens(with_gas=False)
    price_sources = price_inputs(case.step)
    limit_bps = case.step.limits.oracle_deviation_bps
    tokens_with_late_twap = (
        late_twap_tokens(price_sources, limit_bps) if case.is_sell_only() else frozenset[str]()
    )
    for deviation, token in source_deviations(price_sources):
        if (judged_tokens is None or token in judged_tokens) and token not in tokens_with_late_twap:
            yield deviation, f"TWAP of {case.label(token)} against its feed"


def _short_mean_deviations(case: GuardCase) -> Iterator[tuple[Fraction, str]]:
    """Yield the deviations of the short means of the tokens that the plan trades or provides; none
    for what reduces risk, because a pool that is pushed for minutes must not hold it back (T20).
    """
    if case.is_risk_reducing():
        return
    traded_tokens = set(map(case.step.portfolio.pricing_token, case.replay.tokens))
    for action in case.plan.layer_actions:
        traded_tokens |= {action.token0, action.token1}
    for deviation, token in short_mean_deviations(price_inputs(case.step)):
        if token in traded_tokens:
            yield deviation, f"short TWAP of {case.label(token)} against its reference price"


def _relative_deviation(price: Fraction, reference_price: Fraction) -> Fraction:
    return abs(price / reference_price - 1)


def _latest_round(case: GuardCase, feed: str, label: str) -> FeedRound:
    """Return the latest round of the feed of the token `label`
    (AggregatorV3Interface.latestRoundData). Raises MissingData if it is invalid.
    """
    feed_round = next(
        (
            candidate_round
            for candidate_round in case.step.snapshot.feeds
            if candidate_round.feed == feed
        ),
        None,
    )
    if feed_round is None:
        raise MissingData(f"feed of {label} was not read")
    if feed_round.answer <= 0:
        raise MissingData(f"feed of {label} returned {feed_round.answer}")
    if feed_round.updated_at_s <= 0 or feed_round.answered_in_round < feed_round.round_id:
        raise MissingData(f"feed of {label} has an unfinished round")
    if feed_round.updated_at_s > case.step.snapshot.head.timestamp_s:
        raise MissingData(f"feed of {label} is dated after the block")
    fault = answer_bound_fault(feed_round) or round_regression_fault(case.step.snapshot, feed_round)
    if fault:
        raise MissingData(f"feed of {label} {fault}")
    return feed_round


def _feed_max_age_s(step: StepInput) -> int | None:
    """Return the maximum feed age; None if the oracle guard is off."""
    return None if step.limits.oracle_deviation_bps is None else step.reference.feed_max_age_s


def _sequencer_grace_s(step: StepInput) -> int | None:
    """Return the grace period; None without a sequencer feed."""
    return None if step.reference.sequencer_feed is None else step.reference.sequencer_grace_s


ORACLE_DEVIATION = limit_guard(
    "oracle_deviation",
    lambda limits: limits.oracle_deviation_bps,
    oracle_deviation,
    "pools and reference disagree: wait, or check feeds and pools with trimtab doctor",
    scope=GuardScope.MARKET,
)
FEED_HEALTH = Guard(
    "feed_health",
    _feed_max_age_s,
    lambda limit, _: format_seconds(limit),
    feed_health,
    "wait for a fresh round, check the feed's address, or raise reference.feed_max_age",
    scope=GuardScope.WALLET,
    judges_prices=True,
)
SEQUENCER = Guard(
    "sequencer",
    _sequencer_grace_s,
    lambda grace_s, _: f"up for {format_seconds(grace_s)}",
    sequencer,
    "wait until the rollup's sequencer has been up for reference.sequencer_grace",
    judges_prices=True,
)
SECOND_QUOTE_DEVIATION = limit_guard(
    "second_quote_deviation",
    lambda limits: limits.second_quote_deviation_bps,
    second_quote,
    "check addresses and endpoint with trimtab doctor, or limits.second_quote_deviation = 'off'",
    scope=GuardScope.MARKET,
)
DEPEG = limit_guard(
    "depeg",
    lambda limits: limits.depeg_bps,
    depeg,
    "a stablecoin is off its peg: decide what to hold, or raise limits.depeg",
    scope=GuardScope.WALLET,
)
