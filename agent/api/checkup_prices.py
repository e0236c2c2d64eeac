"""What the doctor says of prices: whose feed a feed is, what bounds it, whether means count, whether a rollup's sequencer is up."""

from __future__ import annotations

from collections.abc import Iterator

from agent import wiring
from agent.chain.abi import DESCRIPTION
from agent.chain.ask import ask
from agent.chain.lens import CallItem, Item
from agent.chain.tokens import symbol_text
from agent.model import FeedRound, ReferenceKind, StepInput, V3Pool
from agent.policy import schedules
from agent.reference import means, rounds, sequencer_fault
from agent.units import decimal_text, safe_label

Told = tuple[str, str, str, str]
"""(check, state, found, remedy)."""
OK, NOTE, FAIL = "ok", "warn", "fail"
_DESCRIPTION_BYTES = 160
_DOLLAR = "USD"
_UNKNOWN = "?"
UNBOUNDED = 2**95 - 1
"""From here on a largest answer bounds nothing: aggregators name the largest number of some type where they have no bound."""


def checks(desk: wiring.Desk, step: StepInput) -> Iterator[Told]:
    """A row for each feed, for means, for the sequencer, and for triggers that one block alone fires."""
    yield from _feeds(desk, step)
    yield from _means(step)
    yield from _sequencer(step)
    yield from _unguarded(desk, step)


def _unguarded(desk: wiring.Desk, step: StepInput) -> Iterator[Told]:
    """What somebody could foresee or bring about with the prices of a block; on local chains nobody would."""
    if desk.config.chain.local:
        return
    if step.policy.confirm_blocks == 0:
        yield "triggers", NOTE, "the prices of a single block fire them", "policy.confirm_blocks = 3"
    if step.policy.jitter_bps == 0 and schedules.of(step.policy.trigger):
        yield "schedule", NOTE, "whoever knows it knows when the agent trades", 'policy.jitter = "10%"'


def _feeds(desk: wiring.Desk, step: StepInput) -> Iterator[Told]:
    tokens = {token.address: token.label for token in (*(a.token for a in desk.portfolio.assets), *desk.portfolio.hubs)}
    named = {label: feed for address, label in tokens.items() if (feed := desk.portfolio.feed(address)) is not None}
    items: list[Item] = [CallItem(feed, DESCRIPTION, longest=_DESCRIPTION_BYTES) for feed in named.values()]
    for (label, feed), said in zip(named.items(), ask(desk.line, items), strict=True):
        found = next((one for one in step.snapshot.feeds if one.feed == feed), None)
        if found is None:
            continue  # it is quarantined, which has a row of its own
        base, quote = _pair(symbol_text(said))
        about = f"{base} / {quote}, {bounds(found)}"
        unfit = rounds.fault(step, found)
        if unfit:
            yield f"feed {label}", FAIL, f"it {unfit}", "wait for its next round, or correct the feed"
        elif quote != _DOLLAR or not _same(label, base):
            yield f"feed {label}", NOTE, about, f"make sure that {feed} is a feed of {label} in dollars"
        else:
            yield f"feed {label}", OK, about, ""


def _pair(description: str) -> tuple[str, str]:
    """Both sides of "ETH / USD"; what may not be shown is a question mark (T17)."""
    base, _, quote = description.partition("/")
    return safe_label(base.strip(), _UNKNOWN), safe_label(quote.strip(), _UNKNOWN)


def _same(label: str, base: str) -> bool:
    """A wrapped coin has the coin's feed: WETH that of ETH, cbBTC that of BTC."""
    return base != _UNKNOWN and label.upper().removesuffix(".E").endswith(base.upper())


def bounds(found: FeedRound) -> str:
    """Between which answers a feed's aggregator cuts off, in words."""
    if found.min_answer is None or found.max_answer is None:
        return "it names no bounds"
    low = f"from {decimal_text(found.min_answer, found.decimals)}"
    return f"{low} to {decimal_text(found.max_answer, found.decimals)}" if found.max_answer < UNBOUNDED else f"{low}, no upper bound"


def _means(step: StepInput) -> Iterator[Told]:
    if ReferenceKind.TWAP not in step.reference.kinds:
        return
    asked = [pool for pool in step.snapshot.pools if isinstance(pool, V3Pool)]
    lacking = [f"{pool.address}: {why}" for pool in asked if (why := means.outside(step, pool))]
    counted = f"those of {len(asked) - len(lacking)} of {len(asked)} V3 pools count"
    if lacking:
        more = f", and {len(lacking) - 1} more" if len(lacking) > 1 else ""
        yield "means", NOTE, f"{counted}; {lacking[0]}{more}", "trimtab oracle shows them all"
    else:
        yield "means", OK, counted, ""


def _sequencer(step: StepInput) -> Iterator[Told]:
    if step.reference.sequencer_feed is None:
        return
    fault = sequencer_fault(step)
    yield ("sequencer", FAIL, fault, "wait; nothing is traded meanwhile") if fault else ("sequencer", OK, "up", "")
