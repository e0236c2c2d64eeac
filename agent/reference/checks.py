"""Checks of reference prices: sequencer uptime, agreement of sources, confirmed prices, stablecoin
pegs. T numbers are threats of docs/threats.md.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import ROUND_HALF_EVEN, Context, Decimal
from fractions import Fraction

from agent.model import (
    Asset,
    FeedRound,
    PastPrices,
    PricePoint,
    PriceSource,
    ReferenceConfig,
    Snapshot,
    StepInput,
)
from agent.reference import prices as price_sources
from agent.reference.prices import (
    PriceInputs,
    ReferencePrices,
    price_inputs,
    prices_from,
    reference_prices,
)
from agent.units import BPS, Price, Token, Value, ceil_int


def sequencer_fault(snapshot: Snapshot, reference: ReferenceConfig) -> str:
    """Return the reason why the sequencer feed forbids trading (T13); empty if trading is allowed.

    Chainlink's L2 uptime feeds answer 0 while the sequencer is up and 1 while it is down. They
    write a round only at a change, so the age of a round is not a fault.
    """
    feed = reference.sequencer_feed
    now_s = snapshot.head.timestamp_s
    if feed is None:
        return ""
    feed_round = next(
        (reported_round for reported_round in snapshot.feeds if reported_round.feed == feed), None
    )
    if feed_round is None:
        unread_texts = (
            f": {unreadable_item.why}"
            for unreadable_item in snapshot.unreadable_items
            if unreadable_item.address == feed
        )
        unread_text = next(unread_texts, "")
        return f"the sequencer's uptime feed was not read{unread_text}"
    if feed_round.answer not in (0, 1):
        return (
            f"the sequencer's uptime feed returned {feed_round.answer}, neither up (0) nor down (1)"
        )
    if feed_round.started_at_s <= 0:
        return "the sequencer's uptime feed has no round yet"
    state_age_s = now_s - feed_round.started_at_s
    if state_age_s < 0:
        return f"the sequencer's uptime feed is dated {-state_age_s} s after the block"
    if feed_round.answer == 1:
        return f"the sequencer has been down for {state_age_s} s"
    if state_age_s < reference.sequencer_grace_s:
        return (
            f"the sequencer has been up again for only {state_age_s} s, reference.sequencer_grace is"
            f" {reference.sequencer_grace_s} s"
        )
    return ""


_FEED_AND_TWAP = (PriceSource.FEED, PriceSource.TWAP)


def source_deviations(inputs: PriceInputs) -> Iterator[tuple[Fraction, str]]:
    """Yield (relative deviation of the TWAP from the feed, token) if both sources are configured
    and have a price.
    """
    if not set(_FEED_AND_TWAP) <= set(inputs.reference.sources):
        return
    feed_price_by_token, twap_by_token = (
        prices_from(inputs.with_source(source)).price_by_token for source in _FEED_AND_TWAP
    )
    for token in feed_price_by_token.keys() & twap_by_token.keys():
        yield abs(twap_by_token[token] / feed_price_by_token[token] - 1), token


def short_mean_deviations(inputs: PriceInputs) -> Iterator[tuple[Fraction, str]]:
    """Yield (relative deviation of the short mean from the reference price, token) where both are
    known (T29).
    """
    price_by_token = prices_from(inputs).price_by_token
    short_mean_by_token = price_sources.short_mean_prices(inputs)
    for token in price_by_token.keys() & short_mean_by_token.keys():
        yield abs(short_mean_by_token[token] / price_by_token[token] - 1), token


def late_twap_tokens(inputs: PriceInputs, limit_bps: int | None) -> frozenset[str]:
    """Return the tokens whose price falls and whose TWAP lags behind, while feed and spot price
    agree: the feed is the first source, the TWAP is above it, and the pools' spot price is within
    limits.oracle_deviation of it, also at each preceding block that was read. An exit may sell
    them: its minimums come from the feed, and a pool that is pushed away from the feed ends the
    agreement.
    """
    sources = inputs.reference.sources
    if (
        limit_bps is None
        or not set(_FEED_AND_TWAP) <= set(sources)
        or sources[0] is not PriceSource.FEED
    ):
        return frozenset()
    feed_price_by_token, twap_by_token = (
        prices_from(inputs.with_source(source)).price_by_token for source in _FEED_AND_TWAP
    )
    late_tokens = {
        token
        for token in feed_price_by_token.keys() & twap_by_token.keys()
        if twap_by_token[token] > feed_price_by_token[token]
    }
    for inputs_at_block in (
        inputs,
        *(inputs.at_block(past_block) for past_block in inputs.snapshot.past_prices),
    ):
        feed_prices_at_block = prices_from(
            inputs_at_block.with_source(PriceSource.FEED)
        ).price_by_token
        spot_prices_at_block = price_sources.spot_prices(inputs_at_block)
        late_tokens = {
            token
            for token in late_tokens & feed_prices_at_block.keys() & spot_prices_at_block.keys()
            if abs(spot_prices_at_block[token] / feed_prices_at_block[token] - 1) * BPS <= limit_bps
        }
    return frozenset(late_tokens)


def source_conflict(
    step: StepInput, among_tokens: Collection[str] | None = None, *, of_exit: bool = False
) -> str:
    """Return the largest conflict of feed and TWAP; empty if they agree within
    limits.oracle_deviation. `among_tokens` restricts the tokens. For an exit
    `late_twap_tokens` do not count.
    """
    inputs = price_inputs(step)
    limit_bps = step.limits.oracle_deviation_bps
    deviations = [
        (deviation, token)
        for deviation, token in source_deviations(inputs)
        if among_tokens is None or token in among_tokens
    ]
    if limit_bps is None or max(deviations, default=(Fraction(0), ""))[0] * BPS <= limit_bps:
        return ""
    late_tokens = late_twap_tokens(inputs, limit_bps) if of_exit else frozenset()
    deviation, token = max(
        ((deviation, token) for deviation, token in deviations if token not in late_tokens),
        default=(Fraction(0), ""),
    )
    if deviation * BPS <= limit_bps:
        return ""
    return (
        f"sources contradict each other: the mean of {step.portfolio.token(token).label} is"
        f" {ceil_int(deviation * BPS)} bps off its feed, limits.oracle_deviation is {limit_bps} bps;"
        f" after a sharp move the mean follows within {step.reference.twap_window_s} s"
    )


def price_fault(step: StepInput, references: ReferencePrices, tokens: Collection[str]) -> str:
    """Return why the prices of these tokens must not be used for an exit or its order: a stablecoin
    is off its peg, or two sources disagree. Empty if they may.
    """
    faults = (depeg_fault(step, references, tokens), source_conflict(step, tokens, of_exit=True))
    return "; ".join(fault for fault in faults if fault)


PriceRange = tuple[Price, Price]
"""Lowest and highest price of a token."""


def price_ranges(
    step: StepInput, references: ReferencePrices | None = None
) -> dict[str, PriceRange]:
    """Return the lowest and highest price of each token: of its reference price, and of each
    configured source and short mean that agree with it within limits.oracle_deviation (T29).
    `references` replace the step's own.

    A feed may lag behind the market by its published threshold, a TWAP by its window; a short mean
    follows a move that both have missed. What the wallet sells is worth the highest price, what it
    buys the lowest one. Without reference.uses_worse_source, or with the limit off, the reference
    price alone counts; so it does for the floors of exits, because in a fall that the TWAP follows
    late, nobody pays the TWAP (T20).
    """
    limit_bps = step.limits.oracle_deviation_bps
    range_by_token = dict[str, PriceRange]()
    inputs = price_inputs(step)
    reference_price_by_token = (references or prices_from(inputs)).price_by_token
    prices_by_source: list[dict[str, Price]] = []
    if step.reference.uses_worse_source and limit_bps is not None:
        prices_by_source = [
            *(
                prices_from(inputs.with_source(source)).price_by_token
                for source in _FEED_AND_TWAP
                if source in step.reference.sources
            ),
            price_sources.short_mean_prices(inputs),
        ]
    for token, price in reference_price_by_token.items():
        source_prices = [
            round_price(price_by_token[token])
            for price_by_token in prices_by_source
            if token in price_by_token
        ]
        agreeing_prices = [
            source_price
            for source_price in source_prices
            if abs(source_price / price - 1) * BPS <= (limit_bps or 0)
        ]
        range_by_token[token] = (
            (min(price, *agreeing_prices), max(price, *agreeing_prices))
            if agreeing_prices
            else (price, price)
        )
    return range_by_token


def disagreement_loss(step: StepInput, delta_raw_by_token: Mapping[str, int]) -> Value:
    """Return how much more a trade costs at the worse of the agreeing prices for the wallet than at
    the reference prices: what it gives at the highest, what it receives at the lowest.
    `delta_raw_by_token` are the changes of the wallet.
    """
    reference_price_by_token = reference_prices(step).price_by_token
    range_by_token = price_ranges(step)
    priced_delta_raw_by_token = step.portfolio.asset_changes(delta_raw_by_token)
    losses = (
        delta_raw * (reference_price_by_token[token] - range_by_token[token][delta_raw < 0])
        for token, delta_raw in priced_delta_raw_by_token.items()
        if token in reference_price_by_token
    )
    return sum(losses, Fraction(0))


def deviation_loss(step: StepInput, delta_raw_by_token: Mapping[str, int]) -> Value:
    """Return the loss of a trade if all prices are limits.oracle_deviation off, each to the
    wallet's disadvantage: that share of the value of each token traded, except the numeraire.
    `delta_raw_by_token` are the changes of the wallet. Zero without
    reference.uses_worse_source, or with the limit off.
    """
    limit_bps = step.limits.oracle_deviation_bps
    if not step.reference.uses_worse_source or limit_bps is None:
        return Fraction(0)
    reference_price_by_token = reference_prices(step).price_by_token
    numeraire_address = step.portfolio.numeraire.address
    traded_values = (
        abs(delta_raw) * reference_price_by_token[token]
        for token, delta_raw in step.portfolio.asset_changes(delta_raw_by_token).items()
        if token in reference_price_by_token and token != numeraire_address
    )
    return sum(traded_values, Fraction(0)) * Fraction(limit_bps, BPS)


PRICE_DIGITS = 18
"""Significant figures of a recorded price, rounded half to even."""
_ROUNDING = Context(prec=PRICE_DIGITS, rounding=ROUND_HALF_EVEN)


def confirmed_prices(
    step: StepInput, past_prices: Sequence[PastPrices], at_s: int
) -> tuple[PricePoint, ...]:
    """Return the median price per token, except the numeraire, over this block and the
    policy.confirm_blocks preceding blocks (T3).

    A manipulation of fewer than half of the blocks does not change a recorded price. Tokens that
    lack a reference price at one of the blocks are missing. No price is returned if the preceding
    blocks are unknown, the sequencer is down or two sources disagree.
    """
    confirm_blocks = step.policy.confirm_blocks
    head_number = step.snapshot.head.number
    confirming_blocks = past_prices[:confirm_blocks]
    if [past_block.head.number for past_block in confirming_blocks] != list(
        range(head_number - 1, head_number - 1 - confirm_blocks, -1)
    ):
        return ()
    if sequencer_fault(step.snapshot, step.reference) or source_conflict(step):
        return ()
    inputs = price_inputs(step)
    prices_by_block = [
        prices_from(block_inputs).reference_by_token
        for block_inputs in (
            inputs,
            *(inputs.at_block(past_block) for past_block in confirming_blocks),
        )
    ]
    tokens = [token for token in prices_by_block[0] if token != step.portfolio.numeraire.address]
    priced_tokens = [
        token
        for token in tokens
        if all(token in price_by_token for price_by_token in prices_by_block)
    ]
    return tuple(
        PricePoint(
            token,
            at_s,
            round_price(
                _median([price_by_token[token].price for price_by_token in prices_by_block])
            ),
        )
        for token in priced_tokens
    )


def round_price(price: Price) -> Price:
    """Return a price rounded to PRICE_DIGITS significant figures, since mean prices of pools
    have hundreds.
    """
    rounded_price: Decimal = _ROUNDING.divide(Decimal(price.numerator), Decimal(price.denominator))
    return Fraction(rounded_price)


def _median(prices: Sequence[Price]) -> Price:
    """Return the median, for an even number of prices the lower of the middle two."""
    return sorted(prices)[(len(prices) - 1) // 2]


DOLLAR_SYMBOLS = frozenset({"DAI", "FRAX", "GHO", "MIM", "DOLA"})
"""Dollar tokens whose symbol does not contain USD."""
MAX_PEG_PRICE = Fraction(6, 5)
"""A dollar token above this price in USD is interest-bearing, not a stablecoin."""
REPEG_SHARE = Fraction(1, 2)
"""Share of the limit within which a depegged token must return, to avoid flapping at the limit."""


class PegUnknown(Exception):
    """The price of a stablecoin is unknown; the message is the reason."""


@dataclass(frozen=True, slots=True)
class DollarPeg:
    """Price of a stablecoin in dollars per whole token, and the limit of its deviation in bps."""

    token: Token
    price_usd: Fraction
    limit_bps: Fraction

    @property
    def deviation(self) -> Fraction:
        """Relative deviation from one dollar."""
        return abs(self.price_usd - 1)

    @property
    def is_depegged(self) -> bool:
        """True if the deviation exceeds the limit."""
        return self.deviation * BPS > self.limit_bps


def dollar_pegs(
    step: StepInput,
    references: ReferencePrices,
    limit_bps: int,
    among_tokens: Collection[str] | None = None,
) -> Iterator[DollarPeg]:
    """Yield the peg of each asset with a dollar symbol. `among_tokens` restricts the tokens. Raises
    PegUnknown. The price comes from the asset's USD feed, else from its reference price times the
    USD feed of the numeraire.
    """
    for asset in step.portfolio.assets:
        if is_dollar(asset.token.symbol) and (
            among_tokens is None or asset.token.address in among_tokens
        ):
            usd_price = _usd_price(price_inputs(step), references, asset)
            if usd_price <= MAX_PEG_PRICE:
                was_depegged = asset.token.address in step.history.depegged_tokens
                limit_share = REPEG_SHARE if was_depegged else Fraction(1)
                yield DollarPeg(asset.token, usd_price, limit_bps * limit_share)


def depegged_tokens(
    step: StepInput, references: ReferencePrices, among_tokens: Collection[str] | None = None
) -> tuple[str, ...]:
    """Return the addresses of depegged tokens. `among_tokens` restricts the tokens.

    A token whose price is unknown remains depegged if it was.
    """
    limit_bps = step.limits.depeg_bps
    if limit_bps is None:
        return ()
    depegged = []
    for asset in step.portfolio.assets:
        token = asset.token.address
        if among_tokens is not None and token not in among_tokens:
            continue
        try:
            pegs = [*dollar_pegs(step, references, limit_bps, {token})]
            is_depegged = any(peg.is_depegged for peg in pegs)
        except PegUnknown:
            is_depegged = token in step.history.depegged_tokens
        if is_depegged:
            depegged.append(token)
    return tuple(depegged)


def depeg_fault(
    step: StepInput, references: ReferencePrices, among_tokens: Collection[str] | None = None
) -> str:
    """Return why a depegged stablecoin stops trading; empty if none is depegged. `among_tokens`
    restricts the tokens. Without this check a rebalance would buy the falling stablecoin at an
    unreliable price. If a price is unknown, the guard `depeg` decides.
    """
    limit_bps = step.limits.depeg_bps
    depegged_addresses = depegged_tokens(step, references, among_tokens)
    if limit_bps is None or not depegged_addresses:
        return ""
    try:
        pegs = [
            peg for peg in dollar_pegs(step, references, limit_bps, among_tokens) if peg.is_depegged
        ]
    except PegUnknown as error:
        depegged_labels = ", ".join(
            step.portfolio.token(token).label for token in depegged_addresses
        )
        return f"{depegged_labels} lost the dollar peg, and its current price is unknown: {error}"
    limit_text = (
        f"limits.depeg is {limit_bps} bps, recovered within {float(limit_bps * REPEG_SHARE):g} bps"
    )
    return "; ".join(
        f"{peg.token.label} has lost its peg: {float(peg.price_usd):.4f} USD, {limit_text}"
        for peg in pegs
    )


def is_dollar(symbol: str) -> bool:
    """True if a token's symbol contains USD, in any case, or is in DOLLAR_SYMBOLS."""
    return "USD" in symbol.upper() or symbol.upper() in DOLLAR_SYMBOLS


def _usd_price(inputs: PriceInputs, references: ReferencePrices, asset: Asset) -> Fraction:
    if asset.feed is not None:
        return _feed_answer(inputs, asset)
    numeraire = inputs.portfolio.numeraire
    asset_by_token = {
        portfolio_asset.token.address: portfolio_asset
        for portfolio_asset in inputs.portfolio.assets
    }
    numeraire_asset = asset_by_token.get(numeraire.address)
    reference_price = references.reference_by_token.get(asset.token.address)
    if numeraire_asset is None or numeraire_asset.feed is None:
        raise PegUnknown(f"no USD feed of {asset.token.label} or of the numeraire")
    if reference_price is None:
        raise PegUnknown(f"no reference price of {asset.token.label}")
    return (
        reference_price.price
        * Fraction(10) ** (asset.token.decimals - numeraire.decimals)
        * _feed_answer(inputs, numeraire_asset)
    )


def _feed_answer(inputs: PriceInputs, asset: Asset) -> Fraction:
    feed_round: FeedRound | None = next(
        (
            reported_round
            for reported_round in inputs.snapshot.feeds
            if reported_round.feed == asset.feed
        ),
        None,
    )
    if feed_round is None:
        raise PegUnknown(f"feed of {asset.token.label} was not read")
    fault = price_sources.feed_round_fault(inputs.snapshot, inputs.reference, feed_round)
    if fault:
        raise PegUnknown(f"feed of {asset.token.label} {fault}")
    return Fraction(feed_round.answer, 10**feed_round.decimals)
