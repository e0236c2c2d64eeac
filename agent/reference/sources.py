"""Whether two sources of one price contradict each other: a feed, and the mean of the pools."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction

from agent.model import ReferenceKind, StepInput
from agent.reference.prices import reference_prices
from agent.units import BPS

_TWO = (ReferenceKind.FEED, ReferenceKind.TWAP)


def distances(step: StepInput) -> Iterator[tuple[Fraction, str]]:
    """(relative distance of the mean from the feed, token) where both are configured sources and both have a price."""
    if not set(_TWO) <= set(step.reference.kinds):
        return
    by_feed, by_mean = (_by(step, kind) for kind in _TWO)
    for token in by_feed.keys() & by_mean.keys():
        yield abs(by_mean[token] / by_feed[token] - 1), token


def contradiction(step: StepInput) -> str:
    """Why neither source is believed, with the token furthest apart; empty where they agree within limits.oracle_deviation."""
    limit_bps = step.limits.oracle_deviation_bps
    apart, token = max(distances(step), default=(Fraction(0), ""))
    if limit_bps is None or apart * BPS <= limit_bps:
        return ""
    return (
        f"sources contradict each other: the mean of {step.portfolio.token(token).label} is {float(apart * BPS):.2f} bps off its feed, "
        f"limits.oracle_deviation is {limit_bps} bps; after a sharp move the mean follows within {step.reference.twap_window_s} s"
    )


def _by(step: StepInput, kind: ReferenceKind) -> dict[str, Fraction]:
    """Prices by one source alone."""
    alone = replace(step, reference=replace(step.reference, kinds=(kind,)))
    return {token: found.price for token, found in reference_prices(alone).prices.items()}
