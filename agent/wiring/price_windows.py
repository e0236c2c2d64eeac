"""Recorded prices that an allocator or the trigger needs: which are missing, and reading them from
the chain before the first look, so that nothing waits for the agent's own records.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256

from agent.errors import TrimtabError
from agent.model import AllocatorConfig, Policy, Portfolio
from agent.model.layers import LayerConfig
from agent.policy import risk_estimates
from agent.policy.triggers.rules import required_history_s
from agent.store.prices import RETENTION_S, PriceStore
from agent.units import HOUR_S, format_duration
from agent.wiring.context import AgentContext
from agent.wiring.past_prices import Progress, chain_sources, fetch_hours, ignore_text

RETRY_S = 86_400
"""Time after which prices that feeds and pools did not have are looked for again."""


@dataclass(frozen=True, slots=True)
class NeededPrices:
    """Prices that a rule needs: one of each token in every `interval_s` of the last `span_s`."""

    tokens: tuple[str, ...]
    span_s: int
    interval_s: int


@dataclass(frozen=True, slots=True)
class MissingPrices:
    """Intervals of a window without a price of a token: how many of how many."""

    token: str
    missing_count: int
    interval_count: int
    interval_s: int
    first_s: int
    """The first one of any window."""


def needed_windows(
    portfolio: Portfolio, policy: Policy, layers: Sequence[LayerConfig]
) -> tuple[NeededPrices, ...]:
    """Return the windows of the portfolio's and its parts' allocators, the zone and the market
    events; empty if no rule needs recorded prices.
    """
    numeraire = portfolio.numeraire.address
    tokens = tuple(
        asset.token.address for asset in portfolio.assets if asset.token.address != numeraire
    )
    allocators = [part.allocator for layer in layers for part in layer.allocators]
    if portfolio.allocator is not None:
        allocators.append(portfolio.allocator)
    windows = [
        NeededPrices(
            _weighted_tokens(allocator, tokens),
            allocator.window_s + allocator.step_s,
            allocator.step_s,
        )
        for allocator in allocators
        if allocator.method.needs_window
    ]
    triggers = [trigger for layer in layers for trigger in layer.triggers]
    windows.append(NeededPrices(tokens, *risk_estimates.price_history_and_step_s(policy, triggers)))
    windows.append(NeededPrices(tokens, required_history_s(policy, triggers), HOUR_S))
    return tuple(window for window in windows if window.span_s and window.tokens)


def _weighted_tokens(allocator: AllocatorConfig, tokens: Sequence[str]) -> tuple[str, ...]:
    if allocator.futures is not None:
        return tuple(side.token for side in allocator.futures.sides)
    return tuple(token for token in tokens if token not in allocator.fixed_tokens)


def missing_prices(
    prices: PriceStore,
    numeraire: str,
    windows: Iterable[NeededPrices],
    now_s: int,
    tried_until_s: int = 0,
) -> tuple[MissingPrices, ...]:
    """Return, for each token, the window with the most time without a price; tokens with all prices
    are left out. The interval of `now_s` is not over, so it does not count, nor do those that were
    over at `tried_until_s`.
    """
    gaps_by_token: dict[str, list[MissingPrices]] = {}
    for window in windows:
        interval_s = window.interval_s
        since_s = now_s - min(window.span_s, RETENTION_S)
        first = max(since_s // interval_s + 1, tried_until_s // interval_s)
        intervals = range(first, now_s // interval_s)
        recorded = {
            (point.token, point.at_s // interval_s)
            for point in prices.prices_between(numeraire, since_s, now_s, interval_s)
        }
        for token in window.tokens:
            missing = [interval for interval in intervals if (token, interval) not in recorded]
            if missing:
                gap = MissingPrices(
                    token,
                    len(missing),
                    len(intervals),
                    interval_s,
                    first_s=missing[0] * interval_s,
                )
                gaps_by_token.setdefault(token, []).append(gap)
    return tuple(
        replace(
            max(gaps, key=lambda gap: gap.missing_count * gap.interval_s),
            first_s=min(gap.first_s for gap in gaps),
        )
        for gaps in gaps_by_token.values()
    )


def fill_price_windows(context: AgentContext, progress: Progress = ignore_text) -> tuple[str, ...]:
    """Read the missing prices of all windows from feeds and pools, record them, and return a line
    on each token: what was read, or what is missing and why. Empty if nothing was looked for: no
    rule needs prices, or none is missing but those that were looked for within RETRY_S.

    If an endpoint fails, the reason is kept in the store, and no first weights are chosen, and
    nothing is traded towards the targets in their place, until a later call reads the prices.
    """
    windows = needed_windows(context.portfolio, context.policy, context.layers)
    if not windows:
        return ()
    prices = context.store.prices
    now_s = context.clock.now_s()
    windows_hash = sha256(repr(windows).encode()).hexdigest()
    whole_s, tried_until_s = prices.last_fetch_s(windows_hash) or (0, 0)
    if not 0 <= now_s - whole_s < RETRY_S:  # the clock may have been set back
        whole_s = now_s
        tried_until_s = 0
    numeraire = context.portfolio.numeraire.address
    if not missing_prices(prices, numeraire, windows, now_s, tried_until_s):
        if prices.fetch_fault():
            prices.mark_fetch("", now_s, now_s)
        return ()
    try:
        lines, fault, tried_until_s = _fetch_missing(context, windows, tried_until_s, progress)
    except TrimtabError as error:
        lines = (f"past prices were not read: {error.message}",)
        fault = error.message
    prices.mark_fetch(windows_hash, whole_s, tried_until_s, fault)
    return lines


def _fetch_missing(
    context: AgentContext, windows: Sequence[NeededPrices], tried_until_s: int, progress: Progress
) -> tuple[tuple[str, ...], str, int]:
    """Return the lines of `fill_price_windows`, the fault of an endpoint (empty: none), and the
    chain's time until which prices were looked for.
    """
    progress("Looking for past prices")
    numeraire = context.portfolio.numeraire.address
    step = context.readers.step_input_at(context.readers.reader.snapshot())
    now_s = step.snapshot.head.timestamp_s
    missing = missing_prices(context.store.prices, numeraire, windows, now_s, tried_until_s)
    if not missing:
        return (), "", now_s
    lookback_s = min(now_s - min(gap.first_s for gap in missing), RETENTION_S)
    tokens = [step.portfolio.token(gap.token) for gap in missing]
    sources = chain_sources(step)
    fetched = fetch_hours(context, step, sources, tokens, lookback_s, progress) if sources else ()
    still_missing = {
        gap.token: gap for gap in missing_prices(context.store.prices, numeraire, windows, now_s)
    }
    why_by_label = {token.label: "no feed and no pinned pool has them" for token in tokens}
    why_by_label |= {series.token.label: series.missing_reason for series in fetched}
    new_hours_by_label: dict[str, int] = {}
    for series in fetched:
        label = series.token.label
        new_hours_by_label[label] = new_hours_by_label.get(label, 0) + series.new_hour_count
    lines = []
    for token in tokens:
        line = f"{token.label}: {new_hours_by_label.get(token.label, 0):,} hours of past prices"
        if (gap := still_missing.get(token.address)) is not None:
            line += (
                f"; {gap.missing_count:,} of {gap.interval_count:,} intervals of"
                f" {format_duration(gap.interval_s)} are missing"
            )
            line += f", {why}" if (why := why_by_label.get(token.label)) else ""
        lines.append(line)
    faults = (series.missing_reason for series in fetched if series.is_passing)
    return tuple(lines), next(faults, ""), now_s
