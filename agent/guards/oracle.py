"""Guards on prices: pools against the reference, feeds against the clock, averages against feeds, dollars against a dollar."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction

from agent.amm import pools
from agent.guards.case import Case, Measured, Missing
from agent.guards.words import ratio, seconds
from agent.model import Asset, FeedRound, ReferenceKind
from agent.reference import sequencer_fault
from agent.reference.peg import Unknown, pegs
from agent.reference.rounds import at_bound, fallen
from agent.reference.sources import distances
from agent.units import BPS


def oracle_deviation(case: Case, limit_bps: int) -> Measured:
    """Largest relative distance from the reference: of each asset's spot price, of each pool that the plan uses, of a feed from its mean.

    An asset whose spot price no pool tells refuses. Feed and TWAP are compared where both are configured sources and
    both have a price: after a sharp move the agent waits until the mean has followed.
    """
    deviations = [*_assets(case), *_pools(case), *_means(case)]
    worst, what = max(deviations, default=(Fraction(0), "nothing to compare"))
    return Measured(f"{ratio(worst)} ({what})", worst * BPS <= limit_bps)


def feed_health(case: Case, max_age_s: int) -> Measured:
    """Age of the feed that is nearest its greatest age, of any asset, by block time; a round that was not read or does not count refuses.

    Stricter than the reference price, which may fall back to a TWAP: a feed that is configured must answer before money moves.
    """
    if ReferenceKind.FEED not in case.step.reference.kinds:
        return Measured("no feed in use", True)
    found = [(_age(case, asset), asset, asset.feed) for asset in case.step.portfolio.assets if asset.feed is not None]
    if not found:
        return Measured("0 s (no feed in use)", True)
    ages = [(age_s - case.step.reference.max_age_s(feed), age_s, asset.token.label, feed) for age_s, asset, feed in found]
    over_s, oldest_s, label, feed = max(ages)
    most_s = case.step.reference.max_age_s(feed)
    return Measured(f"{seconds(oldest_s)} ({label}{'' if most_s == max_age_s else f', at most {seconds(most_s)}'})", over_s <= 0)


def sequencer(case: Case, _grace_s: int) -> Measured:
    """The rollup's sequencer is up, and was for the time of grace (T13)."""
    return Measured(sequencer_fault(case.step) or "up", not sequencer_fault(case.step))


def depeg(case: Case, limit_bps: int) -> Measured:
    """Largest distance from 1 USD of a dollar token: the numeraire and every asset that its symbol marks as a dollar.

    Tokens above 1.20 USD are no dollars (savings tokens), while one that fell counts however far it fell. One that left its peg
    must come back within half of the limit. Where a price is unknown the guard refuses. A portfolio without dollars passes.
    """
    try:
        found = list(pegs(case.step, case.references, limit_bps))
    except Unknown as why:
        raise Missing(str(why)) from None
    if not found:
        return Measured("no dollar token", True)
    worst = max(found, key=lambda peg: peg.distance - peg.limit_bps / BPS)
    left = "" if worst.limit_bps == limit_bps else f", which left its peg: at most {ratio(worst.limit_bps / BPS)}"
    return Measured(f"{ratio(worst.distance)} ({worst.token.label}{left})", not worst.off)


def _assets(case: Case) -> Iterator[tuple[Fraction, str]]:
    alone = {one.token for one in case.step.stuck}  # no plan touches it, and often it is stuck for lack of any pool
    for asset in case.step.portfolio.assets:
        if asset.token.address in alone:
            continue
        spot = case.spots.get(asset.token.address)
        if spot is None:
            raise Missing(f"no pool tells the spot price of {asset.token.label}")
        yield _distance(spot, case.price(asset.token.address)), f"spot of {asset.token.label}"


def _pools(case: Case) -> Iterator[tuple[Fraction, str]]:
    for run in case.runs():
        fair = case.price(run.leg.token_in) / case.price(run.leg.token_out)
        yield _distance(pools.marginal_price(run.start, run.leg.token_in), fair), f"pool {run.leg.pool}"
    for action in case.actions():
        if action.off is None:
            raise Missing(f"pool {action.action.pool} has no price")
        yield action.off, f"pool {action.action.pool}"


def _means(case: Case) -> Iterator[tuple[Fraction, str]]:
    for apart, token in distances(case.step):
        yield apart, f"TWAP of {case.label(token)} against its feed"


def _distance(price: Fraction, reference: Fraction) -> Fraction:
    return abs(price / reference - 1)


def _round(case: Case, asset: Asset) -> FeedRound:
    """The asset's latest round (AggregatorV3Interface.latestRoundData). Raises Missing when it cannot count."""
    answer = next((found for found in case.step.snapshot.feeds if found.feed == asset.feed), None)
    label = asset.token.label
    if answer is None:
        raise Missing(f"feed of {label} was not read")
    if answer.answer <= 0:
        raise Missing(f"feed of {label} answers {answer.answer}")
    if answer.updated_at_s <= 0 or answer.answered_in_round < answer.round_id:
        raise Missing(f"feed of {label} has an unfinished round")
    if answer.updated_at_s > case.step.snapshot.head.timestamp_s:
        raise Missing(f"feed of {label} is dated after the block")
    unfit = at_bound(answer) or fallen(case.step.snapshot, answer)
    if unfit:
        raise Missing(f"feed of {label} {unfit}")
    return answer


def _age(case: Case, asset: Asset) -> int:
    return case.step.snapshot.head.timestamp_s - _round(case, asset).updated_at_s
