"""Checks of the doctor about prices: feeds, TWAPs, sequencer, data fee, and triggers."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from agent import wiring
from agent.app.documents.owner import FAIL, OK, WARN, CheckLine
from agent.chain.lens import DESCRIPTION, CallItem, LensItem, query_lens
from agent.chain.tokens import symbol_text
from agent.config.networks import feed_name
from agent.model import (
    FeedRound,
    Policy,
    Pool,
    PriceSource,
    ReferenceConfig,
    Snapshot,
    schedules_of,
)
from agent.policy import minimum
from agent.reference import sequencer_fault
from agent.reference.prices import feed_round_fault, short_mean_rejection, twap_rejection
from agent.units import decimal_text, safe_label

_MAX_DESCRIPTION_BYTES = 160
_DOLLAR_SYMBOL = "USD"
_UNKNOWN_SYMBOL = "?"
UNBOUNDED_ANSWER = 2**95 - 1
"""A maximum answer at or above this counts as no bound: aggregators without an upper bound return
the maximum of an integer type.
"""


def price_checks(
    context: wiring.AgentContext, snapshot: Snapshot, policy: Policy, reference: ReferenceConfig
) -> Iterator[CheckLine]:
    """Yield a row for each feed, for TWAPs, for sequencer and data fee of a rollup, and for
    triggers without price confirmation.
    """
    yield from _feed_checks(context, snapshot, reference)
    yield from _twap_checks(snapshot, reference)
    yield from _sequencer_checks(snapshot, reference)
    yield from _data_fee_checks(snapshot)
    yield from _trigger_checks(context, policy)


def _trigger_checks(context: wiring.AgentContext, policy: Policy) -> Iterator[CheckLine]:
    """Yield warnings about triggers that prices of a single block can fire, and about schedules
    without jitter, which an attacker can predict; none on local chains.
    """
    if context.config.chain.is_local:
        return
    if policy.confirm_blocks == 0:
        yield (
            "triggers",
            WARN,
            "the prices of a single block can fire it",
            "policy.confirm_blocks = 3",
        )
    if policy.jitter_bps == 0 and schedules_of(policy.trigger):
        yield (
            "schedule",
            WARN,
            "it makes the agent's trades predictable",
            'policy.jitter = "10%"',
        )


def _feed_checks(
    context: wiring.AgentContext, snapshot: Snapshot, reference: ReferenceConfig
) -> Iterator[CheckLine]:
    label_by_address = {
        token.address: token.label
        for token in (*(asset.token for asset in context.portfolio.assets), *context.portfolio.hubs)
    }
    token_feeds = [
        (address, feed)
        for address in label_by_address
        if (feed := context.portfolio.feed(address)) is not None
    ]
    description_calls: list[LensItem] = [
        CallItem(feed, DESCRIPTION, max_answer_bytes=_MAX_DESCRIPTION_BYTES)
        for _, feed in token_feeds
    ]
    for (address, feed), description_answer in zip(
        token_feeds, query_lens(context.transport, description_calls), strict=True
    ):
        label = label_by_address[address]
        latest_round = next(
            (feed_round for feed_round in snapshot.feeds if feed_round.feed == feed), None
        )
        if latest_round is None:
            continue  # a quarantined token has its own row
        base_symbol, quote_symbol = _parse_pair(symbol_text(description_answer))
        pair_and_bounds_text = (
            f"{base_symbol} / {quote_symbol}, {format_answer_bounds(latest_round)}"
        )
        check_name = f"feed {label}"
        fault = feed_round_fault(snapshot, reference, latest_round)
        if fault:
            yield check_name, FAIL, f"it {fault}", "wait for its next round, or correct the feed"
        elif quote_symbol != _DOLLAR_SYMBOL or not (
            base_symbol == feed_name(context.config.chain.chain_id, address)
            or is_base_of(base_symbol, label)
        ):
            yield (
                check_name,
                WARN,
                pair_and_bounds_text,
                f"make sure that {feed} is a feed of {label} in dollars",
            )
        else:
            yield check_name, OK, pair_and_bounds_text, ""


def _parse_pair(description: str) -> tuple[str, str]:
    """Split "ETH / USD" into both sides; text that is not a plain symbol becomes "?" (T17)."""
    base_text, _, quote_text = description.partition("/")
    return safe_label(base_text.strip(), _UNKNOWN_SYMBOL), safe_label(
        quote_text.strip(), _UNKNOWN_SYMBOL
    )


_WRAPPED_LABELS = {
    "ETH": ("WETH",),
    "BTC": ("WBTC", "CBBTC", "TBTC", "BTCB", "BTC.B"),
    "BNB": ("WBNB",),
    "POL": ("WPOL", "MATIC", "WMATIC"),
    "MATIC": ("POL", "WPOL", "WMATIC"),
    "AVAX": ("WAVAX",),
    "USDT": ("USDT0",),
    "USDC": ("USDBC",),
}
"""Tokens of which each is one coin of a feed's base. Staked ones, such as wstETH, grow beyond it."""


def is_base_of(base: str, label: str) -> bool:
    """Return whether the token is the feed's base or one coin of it, wrapped: WETH for ETH, cbBTC for
    BTC.
    """
    own_label = label.upper().removesuffix(".E")
    return base != _UNKNOWN_SYMBOL and own_label in (
        base.upper(),
        *_WRAPPED_LABELS.get(base.upper(), ()),
    )


def format_answer_bounds(feed_round: FeedRound) -> str:
    """Format the bounds of the answers that a feed's aggregator reports."""
    if feed_round.min_answer is None or feed_round.max_answer is None:
        return "no bounds"
    low_text = f"from {decimal_text(feed_round.min_answer, feed_round.decimals)}"
    if feed_round.max_answer >= UNBOUNDED_ANSWER:
        return f"{low_text}, no upper bound"
    return f"{low_text} to {decimal_text(feed_round.max_answer, feed_round.decimals)}"


def _twap_checks(snapshot: Snapshot, reference: ReferenceConfig) -> Iterator[CheckLine]:
    if PriceSource.TWAP not in reference.sources:
        return
    yield _mean_check("TWAP", snapshot, reference, twap_rejection)
    if reference.short_window_s:
        yield _mean_check("short TWAP", snapshot, reference, short_mean_rejection)


def _mean_check(
    mean_name: str,
    snapshot: Snapshot,
    reference: ReferenceConfig,
    rejection_of: Callable[[Snapshot, ReferenceConfig, Pool], str],
) -> CheckLine:
    """Return the row that counts the pools with such a mean, and names the first without."""
    pools = [pool for pool in snapshot.pools if pool.keeps_observations]
    rejected_pool_texts = [
        f"{pool.address}: {rejection}"
        for pool in pools
        if (rejection := rejection_of(snapshot, reference, pool))
    ]
    usable_count = len(pools) - len(rejected_pool_texts)
    count_text = f"{usable_count} of {len(pools)} V3 pools have a usable {mean_name}"
    if not rejected_pool_texts:
        return f"{mean_name}s", OK, count_text, ""
    finding = f"{count_text}; the first without: {rejected_pool_texts[0]}"
    return f"{mean_name}s", WARN, finding, "trimtab oracle shows them all"


def _sequencer_checks(snapshot: Snapshot, reference: ReferenceConfig) -> Iterator[CheckLine]:
    if reference.sequencer_feed is None:
        return
    if fault := sequencer_fault(snapshot, reference):
        yield "sequencer", FAIL, fault, "wait; trading is halted until it is up"
    else:
        yield "sequencer", OK, "up", ""


def _data_fee_checks(snapshot: Snapshot) -> Iterator[CheckLine]:
    """Yield a row on rollups: the data fee of one swap now."""
    if unknown_reason := snapshot.data_fee_unknown_reason:
        remedy = "check chain.chain_id and the endpoints; trading is halted until it is read"
        yield "data_fee", FAIL, f"not read: {unknown_reason}", remedy
    elif snapshot.data_fee is not None:
        fee_wei = snapshot.max_fee_beyond_gas_wei(minimum.LEG_GAS, 2 * minimum.LEG_BYTES)
        yield "data_fee", OK, f"at most {decimal_text(fee_wei, 18)} native for a swap", ""
