"""Guards on prices: pools against the reference, feeds against the clock, averages against feeds, dollars against a dollar."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction

from agent.amm import pools
from agent.guards.case import Case, Measured, Missing
from agent.guards.words import ratio, seconds
from agent.model import Asset, FeedRound, ReferenceKind
from agent.reference import reference_prices, sequencer_fault
from agent.reference.rounds import at_bound, fallen
from agent.units import BPS, Token

DOLLAR_NAMES = frozenset({"DAI", "FRAX", "GHO", "MIM", "DOLA"})
"""Dollar tokens whose symbol does not contain USD."""
ABOVE_PEG = Fraction(6, 5)
"""A token worth more than this many dollars is not pegged to one, whatever its name: interest-bearing dollars grow."""


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

    A symbol marks a dollar when it contains USD in any case or is one of DOLLAR_NAMES; tokens above 1.20 USD are no
    dollars (savings tokens), while one that fell counts however far it fell. The price is the token's own USD feed, else its
    reference price times the numeraire's USD feed; without either the guard refuses. A portfolio without dollars passes.
    """
    distances = []
    for asset in case.step.portfolio.assets:
        if not _is_dollar(asset.token):
            continue
        price = _usd(case, asset)
        if price <= ABOVE_PEG:
            distances.append((abs(price - 1), asset.token.label))
    if not distances:
        return Measured("no dollar token", True)
    worst, label = max(distances)
    return Measured(f"{ratio(worst)} ({label})", worst * BPS <= limit_bps)


def _assets(case: Case) -> Iterator[tuple[Fraction, str]]:
    for asset in case.step.portfolio.assets:
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
    if not {ReferenceKind.FEED, ReferenceKind.TWAP} <= set(case.step.reference.kinds):
        return
    by_feed, by_mean = (_by(case, kind) for kind in (ReferenceKind.FEED, ReferenceKind.TWAP))
    for token in by_feed.keys() & by_mean.keys():
        yield _distance(by_mean[token], by_feed[token]), f"TWAP of {case.label(token)} against its feed"


def _by(case: Case, kind: ReferenceKind) -> dict[str, Fraction]:
    """Prices by one source alone."""
    step = replace(case.step, reference=replace(case.step.reference, kinds=(kind,)))
    return {token: found.price for token, found in reference_prices(step).prices.items()}


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


def _is_dollar(token: Token) -> bool:
    return "USD" in token.symbol.upper() or token.symbol.upper() in DOLLAR_NAMES


def _usd(case: Case, asset: Asset) -> Fraction:
    """Dollars per whole token. Raises Missing."""
    if asset.feed is not None:
        return _fresh(case, asset)
    unit = next((found for found in case.step.portfolio.assets if found.token.address == case.numeraire.address), None)
    if unit is None or unit.feed is None:
        raise Missing(f"no USD feed of {asset.token.label} or of the numeraire")
    whole = case.price(asset.token.address) * Fraction(10) ** (asset.token.decimals - case.numeraire.decimals)
    return whole * _fresh(case, unit)


def _fresh(case: Case, asset: Asset) -> Fraction:
    """Answer of a feed that is not too old. Raises Missing."""
    answer = _round(case, asset)
    if _age(case, asset) > case.step.reference.max_age_s(answer.feed):
        raise Missing(f"feed of {asset.token.label} is {_age(case, asset)} s old")
    return Fraction(answer.answer, 10**answer.decimals)
