"""Recorded prices: list, import from files, and fetch past prices of feeds and pools from the
chain.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from fractions import Fraction
from importlib import import_module
from itertools import pairwise
from pathlib import Path
from typing import Any

from agent.app.agent import Agent
from agent.app.documents import fill
from agent.app.documents.positions import AllocationDocument, WeightedAssetDocument, WeightsDocument
from agent.backtest.data import why_unreadable
from agent.chain.history import PastRound, past_rounds, past_twaps
from agent.config.fields import parse_duration_s
from agent.errors import ConfigError, Refused, TrimtabError
from agent.model import (
    Allocation,
    AllocationMethod,
    AllocationNeeds,
    AllocatorConfig,
    FeedRound,
    Pool,
    Portfolio,
    PricePoint,
    PriceSource,
    StepInput,
)
from agent.policy import targets
from agent.reference import prices as means
from agent.reference import prices as rounds
from agent.reference import reference_prices
from agent.reference.checks import round_price
from agent.store.prices import AGENT_SOURCE, HOUR_S, RETENTION_S
from agent.units import Token
from agent.weights import choose
from agent.weights.allocators import WeightBounds
from agent.weights.returns import Returns

# --- Closing prices from a CSV or Parquet file: rows of our tokens, each mistake named with its
# row.


COLUMNS = ("time", "symbol", "close")
_EPOCH_S = 1_230_768_000
"""2009-01-01: no price of any coin is older, so that times in milliseconds, or of spreadsheets, are
noticed."""
LARGEST = 30
"""Powers of ten that a price has at most, either way."""


@dataclass(frozen=True, slots=True)
class PriceSeries:
    """Prices of one token in a file: hourly, oldest first; usual interval of its rows, and gaps."""

    symbol: str
    points: tuple[PricePoint, ...]
    rows: int
    interval_s: int
    gaps: int
    longest_gap_s: int


@dataclass(frozen=True, slots=True)
class PriceFile:
    """All series of a file; `skipped` are symbols of other tokens, `unit` is the unit of the
    closes.
    """

    series: tuple[PriceSeries, ...]
    skipped: tuple[str, ...]
    unit: str


def read_prices(
    path: Path, portfolio: Portfolio, names: Mapping[str, str], bar_s: int, now_s: int
) -> PriceFile:
    """Read prices of the portfolio's tokens in its numeraire.

    `names` maps symbols of the file to the config's. A row's close is valid `bar_s` after its time.
    If the file has closes of the numeraire, all others are divided by them; otherwise closes are in
    the numeraire. Raises ConfigError for missing columns and packages, times that go back or
    repeat, and invalid closes.
    """
    ours = {asset.token.symbol: asset.token for asset in portfolio.assets} | {
        hub.symbol: hub for hub in portfolio.hubs
    }
    strange = [name for name in names.values() if name not in ours]
    if strange:
        raise ConfigError(
            f"--as: {strange[0]!r} is not a token of the config", f"choose from {', '.join(ours)}"
        )
    closes: dict[str, dict[int, tuple[int, Fraction]]] = {}
    skipped: dict[str, None] = {}
    for number, (when, time_text, close) in enumerate(_rows(path), 1):
        symbol = names.get(str(time_text), str(time_text))
        if symbol not in ours:
            skipped[str(time_text)] = None
            continue
        at_s = _time(when, path, number) + bar_s
        if at_s > now_s:
            raise ConfigError(
                f"{path.name}, row {number}: {symbol} has a close of the future",
                "remove it, or see --bar",
            )
        before = closes.setdefault(symbol, {})
        newest_s = next(reversed(before.values()))[0] if before else 0
        if at_s <= newest_s:
            word = "twice" if at_s == newest_s else "after a later one"
            raise ConfigError(
                f"{path.name}, row {number}: {symbol} has that time {word}",
                "sort the file by time, each time once",
            )
        before[number] = (at_s, _close(close, path, number))
    if not closes:
        raise ConfigError(
            f"{path.name}: holds no prices of {', '.join(ours)}", "name its symbols: --as BTC=WBTC"
        )
    numeraire = portfolio.numeraire
    own = dict(closes.pop(numeraire.symbol, {}).values())
    unit = (
        f"{numeraire.label}, by the file's closes of both"
        if own
        else f"{numeraire.label}, as the file has it"
    )
    found = []
    for symbol, rows in closes.items():
        in_unit = [
            (at_s, close / own[at_s] if own else close)
            for at_s, close in rows.values()
            if not own or at_s in own
        ]
        found.append(
            _series(
                symbol,
                ours[symbol].address,
                in_unit,
                len(rows),
                ours[symbol].decimals,
                numeraire.decimals,
            )
        )
    if not any(series.points for series in found):
        raise ConfigError(
            f"{path.name}: no time has closes of both a token and {numeraire.label}",
            f"take {numeraire.label} out of the file",
        )
    return PriceFile(tuple(found), tuple(skipped), unit)


def _series(
    symbol: str,
    address: str,
    closes: Sequence[tuple[int, Fraction]],
    rows: int,
    decimals: int,
    numeraire_decimals: int,
) -> PriceSeries:
    scale = Fraction(10) ** (numeraire_decimals - decimals)
    hours = {at_s // HOUR_S: PricePoint(address, at_s, close * scale) for at_s, close in closes}
    steps = sorted(b - a for (a, _), (b, _) in pairwise(closes))
    usual_s = steps[len(steps) // 2] if steps else 0
    wide = [step for step in steps if 2 * step > 3 * usual_s]
    return PriceSeries(
        symbol, tuple(hours.values()), rows, usual_s, len(wide), max(wide, default=0)
    )


def _rows(path: Path) -> Iterator[tuple[object, object, object]]:
    """(time, symbol, close) of each row. Raises ConfigError if the file cannot be read as a table
    with these columns.
    """
    try:
        polars: Any = import_module("polars")
    except ModuleNotFoundError:
        raise ConfigError(
            "prices import: polars is not installed", "pip install 'trimtab[analysis]'"
        ) from None
    if not path.is_file():
        raise ConfigError(
            f"{path}: no such file",
            "name a CSV or Parquet file with the columns time, symbol, close",
        )
    try:
        if path.suffix.lower() in (".parquet", ".pq"):
            table = polars.read_parquet(path)
        else:
            table = polars.read_csv(path, infer_schema_length=0)
    except (
        Exception,
        polars.exceptions.PanicException,
    ):  # its errors for a broken file have no common base
        raise ConfigError(f"{path.name} {why_unreadable(path)}", "write CSV or Parquet") from None
    missing = [name for name in COLUMNS if name not in table.columns]
    if missing:
        raise ConfigError(
            f"{path.name}: has no column {missing[0]!r}", f"it needs {', '.join(COLUMNS)}"
        )
    return iter(table.select(COLUMNS).iter_rows())


def _time(value: object, path: Path, number: int) -> int:
    """Return Unix seconds of an ISO time (UTC by default), a number of seconds, or a Parquet
    time.
    """
    found: float | None = None
    try:
        if isinstance(value, datetime):
            found = (value if value.tzinfo else value.replace(tzinfo=UTC)).timestamp()
        elif isinstance(value, int | float):
            found = float(value)
        elif isinstance(value, str):
            plain = value.strip()
            time = None if plain.replace(".", "", 1).isdigit() else datetime.fromisoformat(plain)
            found = (
                float(plain)
                if time is None
                else (time if time.tzinfo else time.replace(tzinfo=UTC)).timestamp()
            )
    except ValueError:
        found = None
    if found is None or not _EPOCH_S <= found < 10 * _EPOCH_S:
        raise ConfigError(
            f"{path.name}, row {number}: {str(value)[:40]!r} is not a time",
            "write 2026-11-01T00:00:00Z, or unix seconds",
        )
    return int(found)


def _close(value: object, path: Path, number: int) -> Fraction:
    """An exact price above zero."""
    text = value.strip() if isinstance(value, str) else repr(value)
    try:
        found = Decimal(text) if isinstance(value, str | int | float) else None
    except InvalidOperation:
        found = None
    if found is None or not found.is_finite() or found <= 0 or abs(found.adjusted()) > LARGEST:
        raise ConfigError(
            f"{path.name}, row {number}: {str(value)[:40]!r} is not a price",
            "remove the row: a price is above zero",
        )
    return Fraction(found)


Document = dict[str, Any]
FILE, FEED, POOLS = "import", "feed", "pools"
SOURCES = (FEED, POOLS)
_KINDS = {PriceSource.FEED: FEED, PriceSource.TWAP: POOLS}


@dataclass(frozen=True, slots=True)
class _FetchedPrices:
    """Prices of one token from one source, and the reason for the end of the series."""

    token: Token
    source: str
    points: tuple[PricePoint, ...]
    why: str = ""


def prices(agent: Agent) -> Document:
    """Recorded prices of each token, by source."""
    portfolio, spans = (
        agent.portfolio,
        agent.context.store.prices.spans(agent.portfolio.numeraire.address),
    )
    tokens, priced = (
        {token.address: token.label for token in _tokens(agent)},
        {span.token for span in spans},
    )
    return {
        "numeraire": portfolio.numeraire.label,
        "kept_s": RETENTION_S,
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
        "missing": [
            label
            for address, label in tokens.items()
            if address not in priced and address != portfolio.numeraire.address
        ],
    }


def import_prices(
    agent: Agent, path: Path, names: Sequence[str] = (), bar: str = "0s", check: bool = False
) -> Document:
    """Record the closes of a file for hours without a price; with `check` only report them. Raises
    ConfigError.
    """
    imported = {}
    for name in names:
        theirs, equals, ours = name.partition("=")
        if not equals or not theirs or not ours:
            raise ConfigError(
                f"--as: {name!r} is not a pair of symbols",
                "write the file's and the config's: --as BTC=WBTC",
            )
        imported[theirs] = ours
    now_s, numeraire = agent.context.clock.now_s(), agent.portfolio.numeraire.address
    found = read_prices(path, agent.portfolio, imported, parse_duration_s(bar, "--bar"), now_s)
    document: Document = {
        "file": str(path),
        "unit": found.unit,
        "checked_only": check,
        "skipped": list(found.skipped),
        "prices": [],
    }
    for series in found.series:
        new = 0 if check else agent.context.store.prices.record(numeraire, series.points, FILE)
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
    """Read prices at each full hour of the last `back` from the chain, and record those of unknown
    hours. Sources are each token's feed or the mean of its pinned pools, in the order of
    reference.kind, or `source` alone. Enough operators must agree. Raises ConfigError for an
    invalid source or time.
    """
    if source is not None and source not in SOURCES:
        raise ConfigError(f"--source: {source!r} is unknown", f"choose from {', '.join(SOURCES)}")
    back_s = parse_duration_s(back, "--back")
    if not HOUR_S <= back_s <= RETENTION_S:
        raise ConfigError(
            f"--back: {back!r} is not between an hour and {RETENTION_S // 86_400} days",
            "write for example 90d",
        )
    step = agent.step_input()
    wanted = (
        [source] if source else [_KINDS[kind] for kind in step.reference.kinds if kind in _KINDS]
    )
    if not wanted:
        raise ConfigError(
            "reference.kind: neither feeds nor means are configured, so that none can be asked",
            "see --source",
        )
    now_s = step.snapshot.head.timestamp_s
    ends_s = [end - 1 for end in range(now_s // HOUR_S * HOUR_S, now_s - back_s, -HOUR_S)]
    found: list[_FetchedPrices] = []
    left = [token for token in _tokens(agent) if token != agent.portfolio.numeraire]
    for one in wanted:
        fetched = (
            _by_feeds(agent, step, left, ends_s)
            if one == FEED
            else _by_pool_twaps(agent, step, left, ends_s)
        )
        found += fetched
        left = [item.token for item in fetched if not item.points]
    numeraire = agent.portfolio.numeraire.address
    return {
        "back_s": back_s,
        "prices": [
            {
                "symbol": item.token.label,
                "source": item.source,
                "hours": len(item.points),
                "new": (
                    agent.context.store.prices.record(numeraire, item.points, item.source)
                    if item.points
                    else 0
                ),
                "from_s": item.points[0].at_s if item.points else None,
                "until_s": item.points[-1].at_s if item.points else None,
                "why": item.why,
            }
            for item in found
        ],
    }


def forget_prices(agent: Agent, source: str) -> Document:
    """Delete the prices of one source, but never those of the agent's own cycles. Raises
    ConfigError.
    """
    if source not in (FILE, *SOURCES):
        own = ": the agent's own records stay" if source == AGENT_SOURCE else " is unknown"
        raise ConfigError(f"source: {source!r}{own}", f"choose from {', '.join((FILE, *SOURCES))}")
    return {
        "source": source,
        "removed": agent.context.store.prices.forget(agent.portfolio.numeraire.address, source),
    }


def _tokens(agent: Agent) -> list[Token]:
    portfolio = agent.portfolio
    found = (*(asset.token for asset in portfolio.assets), *portfolio.hubs)
    return list({token.address: token for token in found}.values())


def _by_feeds(
    agent: Agent, step: StepInput, tokens: Sequence[Token], ends_s: Sequence[int]
) -> list[_FetchedPrices]:
    """Token over numeraire by the latest rounds of both feeds at each time, if young enough."""
    numeraire = step.portfolio.numeraire
    unit, why = _rounds(agent, step, numeraire, ends_s[-1])
    found = []
    for token in tokens:
        own, lack = _rounds(agent, step, token, ends_s[-1]) if unit else ((), why)
        points = []
        for end_s in reversed(ends_s):
            price, base = (
                _at(own, end_s, _age_s(step, token)),
                _at(unit, end_s, _age_s(step, numeraire)),
            )
            if price is not None and base is not None:
                scale = Fraction(10) ** (numeraire.decimals - token.decimals)
                points.append(PricePoint(token.address, end_s, round_price(price / base * scale)))
        found.append(_FetchedPrices(token, FEED, tuple(points), lack))
    return found


def _rounds(
    agent: Agent, step: StepInput, token: Token, since_s: int
) -> tuple[tuple[tuple[int, Fraction], ...], str]:
    """(chain time, USD) of the token's feed, oldest first, and the reason if they do not reach back
    far enough.
    """
    feed = step.portfolio.feed(token.address)
    latest = next((one for one in step.snapshot.feeds if one.feed == feed), None)
    if feed is None or latest is None:
        return (
            (),
            (
                f"{token.label} has no feed"
                if feed is None
                else f"the feed of {token.label} was not read"
            ),
        )
    try:
        answers, whole = past_rounds(agent.context.line, feed, step.snapshot.head, since_s)
    except TrimtabError as error:
        return (), error.message
    usd = tuple(
        (one.at_s, Fraction(one.answer, 10**latest.decimals))
        for one in answers
        if not rounds.answer_bound_fault(_as_round(latest, one))
    )
    return (
        usd,
        (
            ""
            if whole
            else f"the feed of {token.label} returns no earlier rounds, or more than requested"
        ),
    )


def _as_round(latest: FeedRound, past: PastRound) -> FeedRound:
    return replace(latest, answer=past.answer)


def _age_s(step: StepInput, token: Token) -> int:
    return step.reference.max_age_s(step.portfolio.feed(token.address) or "")


def _at(usd: Sequence[tuple[int, Fraction]], end_s: int, most_s: int) -> Fraction | None:
    """The feed's answer at that time; None before its first round and if the round was too old."""
    place = bisect_right(usd, end_s, key=lambda one: one[0])
    if place == 0 or end_s - usd[place - 1][0] > most_s:
        return None
    return usd[place - 1][1]


def _by_pool_twaps(
    agent: Agent, step: StepInput, tokens: Sequence[Token], ends_s: Sequence[int]
) -> list[_FetchedPrices]:
    """Mean prices over each hour of pinned pools, combined like reference prices."""
    pools = [
        pool
        for pool in step.snapshot.pools
        if pool.keeps_observations and not means.pin_rejection(step, pool)
    ]
    twaps: Mapping[int, tuple[Pool, ...]] = {}
    why = "" if pools else "no V3 pool is pinned"
    try:
        twaps = past_twaps(agent.context.line, pools, step.snapshot.head, ends_s, HOUR_S)
    except TrimtabError as error:
        why = error.message
    reference = replace(step.reference, kinds=(PriceSource.TWAP,), twap_window_s=HOUR_S)
    points: dict[str, list[PricePoint]] = {token.address: [] for token in tokens}
    for end_s in sorted(twaps):
        then = replace(
            step, reference=reference, snapshot=replace(step.snapshot, pools=twaps[end_s])
        )
        for address, found in reference_prices(then).prices.items():
            if address in points:
                points[address].append(PricePoint(address, end_s, round_price(found.price)))
    lack = why or "no pool with the numeraire or a hub remembers an hour"
    return [
        _FetchedPrices(
            token, POOLS, tuple(points[token.address]), "" if points[token.address] else lack
        )
        for token in tokens
    ]


# --- Weights that the allocator would choose now, with data and reasons, and the last choice.


def weights(agent: Agent) -> WeightsDocument:
    """Weights that the allocator would choose now; writes nothing. Raises ConfigError if the config
    has no allocator.
    """
    settings = agent.portfolio.weights
    if settings is None or settings.method is AllocationMethod.FIXED:
        raise ConfigError(
            "portfolio.weights: the config has no allocator; targets are fixed",
            "see docs/weights.md",
        )
    step = agent.step_input()
    now_s, store, assets = (
        targets.trusted_time_s(step.snapshot),
        agent.context.store,
        agent.portfolio.assets,
    )
    since_s = now_s - settings.window_s - max(settings.step_s, settings.max_age_s)
    recorded = store.prices.between(
        agent.portfolio.numeraire.address, since_s, now_s, settings.step_s
    )
    facts = targets.allocator_inputs(replace(step, history=replace(step.history, prices=recorded)))
    last = store.allocations.newest()
    standing = choose.valid_allocation(settings, assets, last)
    seen: Returns | None = None
    bounds: WeightBounds | None = None
    chosen: Allocation | None = None
    fault = ""
    try:
        bounds = choose.bounds_of(settings, assets)
        seen = choose.unrounded_weights(settings, assets, facts)[1].seen
        chosen = choose.choose_allocation(settings, assets, facts, last)
    except Refused as missing:
        fault = str(missing)
    return {
        "block": step.snapshot.head.number,
        "at_s": now_s,
        "kind": settings.method.value,
        "due": choose.is_allocation_due(settings, assets, last, now_s),
        "next_s": None if standing is None else standing.at_s + settings.every_s,
        "standing": None if standing is None else _weights_document(step, standing),
        "now": None if chosen is None else _weights_document(step, chosen),
        "fault": fault,
        "turnover_bps": (
            None if chosen is None or standing is None else _turnover_bps(chosen, standing)
        ),
        "assets": _assets(step, settings, bounds, standing, chosen, seen, agent),
        "correlations": _correlations(step, seen),
        "wishes": list(step.wishes),
    }


def _weights_document(step: StepInput, chosen: Allocation) -> AllocationDocument:
    weights_bps = {step.portfolio.token(token).label: bps for token, bps in chosen.weights_bps}
    return fill(AllocationDocument, chosen, weights_bps=weights_bps)


def _assets(
    step: StepInput,
    settings: AllocatorConfig,
    bounds: WeightBounds | None,
    standing: Allocation | None,
    chosen: Allocation | None,
    seen: Returns | None,
    agent: Agent,
) -> list[WeightedAssetDocument]:
    volatility = {} if seen is None else dict(zip(seen.tokens, seen.volatility, strict=True))
    limits = (
        {}
        if bounds is None
        else {
            t: [low, high]
            for t, low, high in zip(bounds.tokens, bounds.low, bounds.high, strict=True)
        }
    )
    supplies = {}
    if settings.method.needs is AllocationNeeds.SUPPLIES:
        supplies = {one.token: one for one in (*step.snapshot.supplies, *settings.supplies)}
    found: list[WeightedAssetDocument] = []
    for asset in agent.portfolio.assets:
        address, supply = asset.token.address, supplies.get(asset.token.address)
        found.append(
            {
                "symbol": asset.token.label,
                "address": address,
                "fixed": address in settings.fixed,
                "target_bps": asset.target_bps,
                "standing_bps": None if standing is None else standing.bps(address),
                "now_bps": None if chosen is None else chosen.bps(address),
                "limits_bps": limits.get(address),
                "volatility": f"{volatility[address]:.6f}" if address in volatility else None,
                "supply_raw": None if supply is None else str(supply.raw),
                "supply_source": None if supply is None else supply.source or "its contract",
            }
        )
    return found


def _correlations(step: StepInput, seen: Returns | None) -> dict[str, str]:
    """Return sample correlations by pair "A/B"; each pair once."""
    if seen is None:
        return {}
    names, table = [step.portfolio.token(token).label for token in seen.tokens], seen.correlation
    pairs = [(i, j) for i in range(len(names)) for j in range(i + 1, len(names))]
    return {f"{names[i]}/{names[j]}": f"{table[i, j]:.6f}" for i, j in pairs}


def _turnover_bps(chosen: Allocation, standing: Allocation) -> int:
    """Half of the sum of absolute weight changes, rounded up."""
    return -(-sum(abs(bps - standing.bps(token)) for token, bps in chosen.weights_bps) // 2)
