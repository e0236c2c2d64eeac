"""Recorded prices: what is there, what a file brings, and what feeds and pools remember of the time before the agent looked."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

from agent.api.agent import Agent
from agent.api.price_files import read_prices
from agent.chain.past_means import past_means
from agent.chain.past_rounds import PastRound, past_rounds
from agent.config.fields import parse_duration_s
from agent.errors import ConfigError, TrimtabError
from agent.model import FeedRound, PricePoint, ReferenceKind, StepInput, V3Pool
from agent.reference import means, reference_prices, rounds
from agent.reference.recorded import rounded
from agent.store.prices import HOUR_S, KEPT_S, OWN
from agent.units import Token

Document = dict[str, Any]
FILE, FEED, POOLS = "import", "feed", "pools"
SOURCES = (FEED, POOLS)
_KINDS = {ReferenceKind.FEED: FEED, ReferenceKind.TWAP: POOLS}


@dataclass(frozen=True, slots=True)
class _Found:
    """Prices of one token from one source, and why there are no more."""

    token: Token
    source: str
    points: tuple[PricePoint, ...]
    why: str = ""


def prices(agent: Agent) -> Document:
    """What is recorded of each token, by source."""
    portfolio, spans = agent.portfolio, agent.desk.store.price_spans(agent.portfolio.numeraire.address)
    tokens, told = {token.address: token.label for token in _tokens(agent)}, {span.token for span in spans}
    return {
        "numeraire": portfolio.numeraire.label,
        "kept_s": KEPT_S,
        "prices": [
            {
                "symbol": tokens.get(span.token, span.token),
                "address": span.token,
                "source": span.source,
                "hours": span.count,
                "from_s": span.from_s,
                "until_s": span.until_s,
            }
            for span in spans
        ],
        "missing": [label for address, label in tokens.items() if address not in told and address != portfolio.numeraire.address],
    }


def import_prices(agent: Agent, path: Path, names: Sequence[str] = (), bar: str = "0s", check: bool = False) -> Document:
    """Writes the closes of a file down where no price of that hour is known; with `check` only looks. Raises ConfigError."""
    told = {}
    for name in names:
        theirs, equals, ours = name.partition("=")
        if not equals or not theirs or not ours:
            raise ConfigError(f"--as: {name!r} is no pair of symbols", "write the file's and the config's: --as BTC=WBTC")
        told[theirs] = ours
    now_s, numeraire = agent.desk.clock.now_s(), agent.portfolio.numeraire.address
    found = read_prices(path, agent.portfolio, told, parse_duration_s(bar, "--bar"), now_s)
    document: Document = {"file": str(path), "unit": found.unit, "checked_only": check, "skipped": list(found.skipped), "prices": []}
    for series in found.series:
        new = 0 if check else agent.desk.store.note_prices(numeraire, series.points, FILE)
        document["prices"].append(
            {
                "symbol": series.symbol,
                "rows": series.rows,
                "hours": len(series.points),
                "new": new,
                "from_s": series.points[0].at_s if series.points else None,
                "until_s": series.points[-1].at_s if series.points else None,
                "interval_s": series.interval_s,
                "gaps": series.gaps,
                "longest_gap_s": series.longest_gap_s,
            }
        )
    return document


def fetch_prices(agent: Agent, source: str | None = None, back: str = "90d") -> Document:
    """Asks the chain for prices at the end of each full hour of the last `back`, and writes down those of hours not known yet.

    From each token's feed, or the mean of its pinned pools, in the order of reference.kind, or from `source` alone. Answers count
    that enough operators give alike. Raises ConfigError for a source or a time that is none.
    """
    if source is not None and source not in SOURCES:
        raise ConfigError(f"--source: {source!r} is unknown", f"choose from {', '.join(SOURCES)}")
    back_s = parse_duration_s(back, "--back")
    if not HOUR_S <= back_s <= KEPT_S:
        raise ConfigError(f"--back: {back!r} is not between an hour and {KEPT_S // 86_400} days", "write for example 90d")
    step = agent.step_input()
    wanted = [source] if source else [_KINDS[kind] for kind in step.reference.kinds if kind in _KINDS]
    if not wanted:
        raise ConfigError("reference.kind: neither feeds nor means are configured, so that none can be asked", "see --source")
    now_s = step.snapshot.head.timestamp_s
    ends_s = [end - 1 for end in range(now_s // HOUR_S * HOUR_S, now_s - back_s, -HOUR_S)]
    found: list[_Found] = []
    left = [token for token in _tokens(agent) if token != agent.portfolio.numeraire]
    for one in wanted:
        told = _by_feeds(agent, step, left, ends_s) if one == FEED else _by_means(agent, step, left, ends_s)
        found += told
        left = [item.token for item in told if not item.points]
    numeraire = agent.portfolio.numeraire.address
    return {
        "back_s": back_s,
        "prices": [
            {
                "symbol": item.token.label,
                "source": item.source,
                "hours": len(item.points),
                "new": agent.desk.store.note_prices(numeraire, item.points, item.source) if item.points else 0,
                "from_s": item.points[0].at_s if item.points else None,
                "until_s": item.points[-1].at_s if item.points else None,
                "why": item.why,
            }
            for item in found
        ],
    }


def forget_prices(agent: Agent, source: str) -> Document:
    """Removes what one source told; the agent's own looks are never removed. Raises ConfigError."""
    if source not in (FILE, *SOURCES):
        own = ": the agent's own looks stay" if source == OWN else " is unknown"
        raise ConfigError(f"source: {source!r}{own}", f"choose from {', '.join((FILE, *SOURCES))}")
    return {"source": source, "removed": agent.desk.store.forget_prices(agent.portfolio.numeraire.address, source)}


def _tokens(agent: Agent) -> list[Token]:
    portfolio = agent.portfolio
    found = (*(asset.token for asset in portfolio.assets), *portfolio.hubs)
    return list({token.address: token for token in found}.values())


def _by_feeds(agent: Agent, step: StepInput, tokens: Sequence[Token], ends_s: Sequence[int]) -> list[_Found]:
    """Token over numeraire by the rounds of both feeds that were the latest then, and young enough."""
    numeraire = step.portfolio.numeraire
    unit, why = _rounds(agent, step, numeraire, ends_s[-1])
    found = []
    for token in tokens:
        own, lack = _rounds(agent, step, token, ends_s[-1]) if unit else ((), why)
        points = []
        for end_s in reversed(ends_s):
            price, base = _at(own, end_s, _age_s(step, token)), _at(unit, end_s, _age_s(step, numeraire))
            if price is not None and base is not None:
                scale = Fraction(10) ** (numeraire.decimals - token.decimals)
                points.append(PricePoint(token.address, end_s, rounded(price / base * scale)))
        found.append(_Found(token, FEED, tuple(points), lack))
    return found


def _rounds(agent: Agent, step: StepInput, token: Token, since_s: int) -> tuple[tuple[tuple[int, Fraction], ...], str]:
    """(chain time, USD) of the token's feed, oldest first, and why they do not reach back as far as asked."""
    feed = step.portfolio.feed(token.address)
    latest = next((one for one in step.snapshot.feeds if one.feed == feed), None)
    if feed is None or latest is None:
        return (), f"{token.label} has no feed" if feed is None else f"the feed of {token.label} was not read"
    try:
        told, whole = past_rounds(agent.desk.line, feed, step.snapshot.head, since_s)
    except TrimtabError as error:
        return (), error.message
    usd = tuple((one.at_s, Fraction(one.answer, 10**latest.decimals)) for one in told if not rounds.at_bound(_as_round(latest, one)))
    return usd, "" if whole else f"the feed of {token.label} tells no earlier rounds, or more than are asked for"


def _as_round(latest: FeedRound, past: PastRound) -> FeedRound:
    return replace(latest, answer=past.answer)


def _age_s(step: StepInput, token: Token) -> int:
    return step.reference.max_age_s(step.portfolio.feed(token.address) or "")


def _at(usd: Sequence[tuple[int, Fraction]], end_s: int, most_s: int) -> Fraction | None:
    """What the feed said at that time; None before its first round and where it had not spoken for longer than counts."""
    place = bisect_right(usd, end_s, key=lambda one: one[0])
    if place == 0 or end_s - usd[place - 1][0] > most_s:
        return None
    return usd[place - 1][1]


def _by_means(agent: Agent, step: StepInput, tokens: Sequence[Token], ends_s: Sequence[int]) -> list[_Found]:
    """Mean prices over each hour of pinned pools, put together as reference prices are."""
    pools = [pool for pool in step.snapshot.pools if isinstance(pool, V3Pool) and not means.not_pinned(step, pool)]
    told: Mapping[int, tuple[V3Pool, ...]] = {}
    why = "" if pools else "no V3 pool is pinned"
    try:
        told = past_means(agent.desk.line, pools, step.snapshot.head, ends_s, HOUR_S)
    except TrimtabError as error:
        why = error.message
    reference = replace(step.reference, kinds=(ReferenceKind.TWAP,), twap_window_s=HOUR_S)
    points: dict[str, list[PricePoint]] = {token.address: [] for token in tokens}
    for end_s in sorted(told):
        then = replace(step, reference=reference, snapshot=replace(step.snapshot, pools=told[end_s]))
        for address, found in reference_prices(then).prices.items():
            if address in points:
                points[address].append(PricePoint(address, end_s, rounded(found.price)))
    lack = why or "no pool with the numeraire or a hub remembers an hour"
    return [_Found(token, POOLS, tuple(points[token.address]), "" if points[token.address] else lack) for token in tokens]
