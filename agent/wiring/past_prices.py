"""Past prices of feeds and pools, read from the chain and recorded in the store."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

from agent.chain.history import past_rounds, past_twaps
from agent.errors import TrimtabError
from agent.model import (
    Pool,
    Portfolio,
    PricePoint,
    PriceSource,
    ReferenceConfig,
    Snapshot,
    StepInput,
)
from agent.price_files.jumps import find_jumps
from agent.reference import reference_prices, round_price
from agent.reference.prices import answer_bound_fault, pin_rejection
from agent.units import HOUR_S, Token, format_time, pluralize
from agent.wiring.context import AgentContext

FEED_SOURCE = "feed"
POOL_SOURCE = "pools"
CHAIN_SOURCES = (FEED_SOURCE, POOL_SOURCE)
_SOURCE_NAMES = {PriceSource.FEED: FEED_SOURCE, PriceSource.TWAP: POOL_SOURCE}
Progress = Callable[[str], None]


def ignore_text(_: str) -> None:
    """Discard a progress message."""


@dataclass(frozen=True, slots=True)
class FetchedPrices:
    """Prices of one token from one source. `missing_reason` says why there are none, or why they do
    not reach further back; empty otherwise.
    """

    token: Token
    source: str
    points: tuple[PricePoint, ...]
    missing_reason: str = ""
    is_passing: bool = False
    """True if an endpoint failed, so that a later attempt may find more."""
    new_hour_count: int = 0
    """Hours of which the store had no price."""


def chain_sources(step: StepInput) -> list[str]:
    """Return the sources of past prices on the chain, in the order of reference.kind."""
    return [_SOURCE_NAMES[source] for source in step.reference.sources if source in _SOURCE_NAMES]


def fetch_hours(
    context: AgentContext,
    step: StepInput,
    sources: Sequence[str],
    tokens: Sequence[Token],
    lookback_s: int,
    progress: Progress = ignore_text,
) -> list[FetchedPrices]:
    """Read and record the prices at each full hour of the last `lookback_s`, and return each
    series; a later source is read for tokens of which the earlier had none.
    """
    now_s = step.snapshot.head.timestamp_s
    fetched = list[FetchedPrices]()
    hour_ends_s = [
        hour_s - 1 for hour_s in range(now_s // HOUR_S * HOUR_S, now_s - lookback_s, -HOUR_S)
    ]
    unpriced_tokens = list(tokens)
    for source_name in sources:
        progress(
            f"Reading {len(hour_ends_s):,} hours of"
            f" {', '.join(token.label for token in unpriced_tokens)} from the {source_name}"
        )
        fetch_series = _fetch_from_feeds if source_name == FEED_SOURCE else _fetch_pool_twaps
        series = fetch_series(context, step, unpriced_tokens, hour_ends_s)
        fetched += [_recorded(context, token_prices) for token_prices in series]
        unpriced_tokens = [token_prices.token for token_prices in series if not token_prices.points]
        if not unpriced_tokens:
            break
    return fetched


def _recorded(context: AgentContext, fetched_prices: FetchedPrices) -> FetchedPrices:
    """Record the prices, without those that jump and come back, and return them with the number of
    new hours.
    """
    fetched_prices = without_jumps(fetched_prices)
    if not fetched_prices.points:
        return fetched_prices
    new_hour_count = context.store.prices.record(
        context.portfolio.numeraire.address, fetched_prices.points, fetched_prices.source
    )
    return replace(fetched_prices, new_hour_count=new_hour_count)


def without_jumps(fetched_prices: FetchedPrices) -> FetchedPrices:
    """Return the prices without those that jump and come back, and why they are left out. The first
    and last stay: the chain's own answers need no confirmation.
    """
    jumps = find_jumps([float(point.price) for point in fetched_prices.points])
    left_out = {
        index for jump in jumps if not jump.is_edge for index in range(jump.start, jump.end)
    }
    if not left_out:
        return fetched_prices
    times_text = ", ".join(
        format_time(fetched_prices.points[index].at_s) for index in sorted(left_out)[:3]
    )
    count_text = pluralize(len(left_out), "price")
    reason = f"{count_text} left out after a jump that comes back, first at {times_text}"
    return replace(
        fetched_prices,
        points=tuple(
            point for index, point in enumerate(fetched_prices.points) if index not in left_out
        ),
        missing_reason="; ".join(filter(None, (fetched_prices.missing_reason, reason))),
    )


def _fetch_from_feeds(
    context: AgentContext, step: StepInput, tokens: Sequence[Token], hour_ends_s: Sequence[int]
) -> list[FetchedPrices]:
    """Return prices of the tokens in the numeraire at each time, from the latest rounds of both
    feeds. Times with a stale round, or one at a bound of its aggregator, are omitted.
    """
    numeraire = step.portfolio.numeraire
    numeraire_prices, numeraire_fault, has_numeraire_failed = _feed_prices(
        context, step.snapshot, step.portfolio, numeraire, hour_ends_s[-1]
    )
    all_fetched_prices = []
    for token in tokens:
        token_prices: FeedPrices = ()
        token_fault = ""
        has_failed = False
        if numeraire_prices:
            token_prices, token_fault, has_failed = _feed_prices(
                context, step.snapshot, step.portfolio, token, hour_ends_s[-1]
            )
        fault = "; ".join(filter(None, (numeraire_fault, token_fault)))
        price_scale = Fraction(10) ** (numeraire.decimals - token.decimals)
        points = []
        for end_s in reversed(hour_ends_s):
            price_usd = _price_at(
                token_prices, end_s, _max_age_s(step.portfolio, step.reference, token)
            )
            numeraire_price = _price_at(
                numeraire_prices, end_s, _max_age_s(step.portfolio, step.reference, numeraire)
            )
            if price_usd is not None and numeraire_price is not None:
                points.append(
                    PricePoint(
                        token.address, end_s, round_price(price_usd / numeraire_price * price_scale)
                    )
                )
        if not points and not fault:
            fault = (
                f"at no hour the feeds of {token.label} and {numeraire.label} both have a round within"
                " reference.feed_max_age and their bounds"
            )
        all_fetched_prices.append(
            FetchedPrices(
                token, FEED_SOURCE, tuple(points), fault, has_failed or has_numeraire_failed
            )
        )
    return all_fetched_prices


FeedPrices = tuple[tuple[int, Fraction | None], ...]
"""(chain time, USD) of a feed's rounds, oldest first; None at a bound of its aggregator."""


def _feed_prices(
    context: AgentContext, snapshot: Snapshot, portfolio: Portfolio, token: Token, since_s: int
) -> tuple[FeedPrices, str, bool]:
    """Return the prices of the token's feed, the reason if they do not reach back to `since_s`
    (empty otherwise), and whether an endpoint failed.
    """
    feed = portfolio.feed(token.address)
    if feed is None:
        return (), f"{token.label} has no feed", False
    latest_round = next(
        (feed_round for feed_round in snapshot.feeds if feed_round.feed == feed), None
    )
    if latest_round is None:
        return (), f"the feed of {token.label} was not read", True
    try:
        past_answers, reaches_back = past_rounds(context.transport, feed, snapshot.head, since_s)
    except TrimtabError as error:
        return (), error.message, True
    usd_prices = tuple(
        (
            past_answer.at_s,
            None
            if answer_bound_fault(replace(latest_round, answer=past_answer.answer))
            else Fraction(past_answer.answer, 10**latest_round.decimals),
        )
        for past_answer in past_answers
    )
    if reaches_back:
        return usd_prices, "", False
    fault = f"the feed of {token.label} has no earlier rounds, or too many for one fetch"
    return usd_prices, fault, False


def _max_age_s(portfolio: Portfolio, reference: ReferenceConfig, token: Token) -> int:
    return reference.max_age_s(portfolio.feed(token.address) or "")


def _price_at(usd_prices: FeedPrices, end_s: int, max_age_s: int) -> Fraction | None:
    """Return the feed's price at a time; None before the first round, or if the round was stale or
    at a bound.
    """
    round_count = bisect_right(usd_prices, end_s, key=lambda dated_price: dated_price[0])
    if round_count == 0 or end_s - usd_prices[round_count - 1][0] > max_age_s:
        return None
    return usd_prices[round_count - 1][1]


def _fetch_pool_twaps(
    context: AgentContext, step: StepInput, tokens: Sequence[Token], hour_ends_s: Sequence[int]
) -> list[FetchedPrices]:
    """Return hourly TWAPs of pinned pools, combined like reference prices."""
    pools = []
    address_by_rejection: dict[str, str] = {}
    for pool in step.snapshot.pools:
        if not pool.keeps_observations:
            continue
        if rejection := pin_rejection(step.snapshot, step.reference, pool):
            address_by_rejection.setdefault(rejection, pool.address)
        else:
            pools.append(pool)
    pools_by_end_s: Mapping[int, tuple[Pool, ...]] = {}
    fault = ""
    if not pools:
        rejections = (
            f"{address}: {rejection}" for rejection, address in address_by_rejection.items()
        )
        fault = "; ".join(rejections) or "no pool keeps observations"
    has_failed = False
    try:
        pools_by_end_s = past_twaps(
            context.transport, pools, step.snapshot.head, hour_ends_s, HOUR_S
        )
    except TrimtabError as error:
        fault = error.message
        has_failed = True
    twap_reference = replace(step.reference, sources=(PriceSource.TWAP,), twap_window_s=HOUR_S)
    points_by_token: dict[str, list[PricePoint]] = {token.address: [] for token in tokens}
    for end_s in sorted(pools_by_end_s):
        past_step = replace(
            step,
            reference=twap_reference,
            snapshot=replace(step.snapshot, pools=pools_by_end_s[end_s]),
        )
        for address, reference_price in reference_prices(past_step).reference_by_token.items():
            if address in points_by_token:
                points_by_token[address].append(
                    PricePoint(address, end_s, round_price(reference_price.price))
                )
    missing_reason = fault or "no pool with the numeraire or a hub has an hour of observations"
    all_fetched_prices = []
    for token in tokens:
        points = points_by_token[token.address]
        reason = missing_reason
        if points and points[0].at_s == hour_ends_s[-1]:
            reason = ""
        elif points:
            reason = f"the pools of {token.label} have no earlier observations, or too many for one fetch"
        all_fetched_prices.append(
            FetchedPrices(token, POOL_SOURCE, tuple(points), reason, has_failed)
        )
    return all_fetched_prices
