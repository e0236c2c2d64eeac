"""Profit attribution of the margin account between two readings, and funding by market and day.

The change in value is the agent's deposits less withdrawals, plus transfers by others, plus the
price result, less trading fees and funding. Fees and settled funding come from receipts, pending
funding and value from readings; the price result is the exact remainder, so the lines sum to the
change in value.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import astuple, dataclass, replace
from fractions import Fraction
from itertools import pairwise

from agent.accounting.entries import MARGIN, WALLET
from agent.model import Entry, FuturesEntry, MarginReading, Valuation
from agent.units import DAY_S, Value

TX_HASH_LENGTH = 66
"""Characters of a transaction's hash; the id of an order at an off-chain venue is shorter."""


@dataclass(frozen=True, slots=True)
class FuturesProfit:
    """Profit of a period and its components: `profit = price - fees - funding`, beside the
    `transferred_value` that came from or went to other accounts. `realised_profit` is the profit
    that reductions report in their events, net of fees; it is part of `price_result`. `funding` is
    positive if paid.
    """

    price_result: Value = Fraction(0)
    fees: Value = Fraction(0)
    funding: Value = Fraction(0)
    realised_profit: Value = Fraction(0)
    transferred_value: Value = Fraction(0)

    @property
    def profit(self) -> Value:
        """Profit or loss of the futures."""
        return self.price_result - self.fees - self.funding

    def in_base_units(self) -> FuturesProfit:
        """Return the components rounded to numeraire base units; the rounded ones sum exactly."""
        profit, fees, funding = (
            Fraction(round(amount)) for amount in (self.profit, self.fees, self.funding)
        )
        price = profit + fees + funding
        return replace(self, price_result=price, fees=fees, funding=funding)


@dataclass(frozen=True, slots=True)
class FuturesChange:
    """Change of the margin account between two valuations, in numeraire base units, at the
    collateral's price at the end: `change = deposited + transferred + price - fees - funding`.
    `deposited_value` moved within the portfolio.
    """

    end: Valuation
    deposited_value: Value
    result: FuturesProfit
    funding_by_market: tuple[tuple[str, Value], ...]


def futures_changes(
    entries: Sequence[Entry], valuations: Sequence[Valuation]
) -> tuple[FuturesChange, ...]:
    """Return the changes between consecutive valuations, skipping pairs without a margin account.
    All arguments are in chain order.

    An order of an off-chain venue has the block at which its outcome was known, and the time of its
    step. If that step started from the snapshot that was valued at that block, the order was filled
    after the valuation.
    """
    valuation_s_by_block = {valuation.block: valuation.chain_s for valuation in valuations}

    def chain_order(entry: Entry) -> tuple[int, bool]:
        has_fills = entry.futures is not None and bool(entry.futures.fills)
        is_off_chain = len(entry.tx_hash) < TX_HASH_LENGTH
        return entry.block, has_fills and is_off_chain and valuation_s_by_block.get(
            entry.block, entry.chain_s + 1
        ) <= entry.chain_s

    ordered_entries = sorted(entries, key=chain_order)
    margin_changes = []
    entry_index = 0
    for start_valuation, end_valuation in pairwise(valuations):
        while entry_index < len(ordered_entries) and chain_order(ordered_entries[entry_index]) <= (
            start_valuation.block,
            False,
        ):
            entry_index += 1
        first_index = entry_index
        while entry_index < len(ordered_entries) and chain_order(ordered_entries[entry_index]) <= (
            end_valuation.block,
            False,
        ):
            entry_index += 1
        if start_valuation.collateral is not None or end_valuation.collateral is not None:
            margin_changes.append(
                _futures_change(
                    start_valuation, end_valuation, ordered_entries[first_index:entry_index]
                )
            )
    return tuple(margin_changes)


def sum_changes(margin_changes: Iterable[FuturesChange]) -> FuturesProfit:
    """Return the sums of changes."""
    results = (astuple(margin_change.result) for margin_change in margin_changes)
    return FuturesProfit(*(sum(parts, Fraction(0)) for parts in zip(*results, strict=True)))


@dataclass(frozen=True, slots=True)
class FuturesSums:
    """Trading fees, settled funding (positive: paid) and realised profit of transactions, in
    numeraire base units at the collateral price of each step.
    """

    fees: Value
    funding: Value
    realised: Value


def futures_sums(entries: Iterable[Entry]) -> FuturesSums | None:
    """Return the sums of entries; None without fills and funding."""
    fees = funding = realised = Fraction(0)
    has_events = False
    for futures_entry in (entry.futures for entry in entries):
        if futures_entry is None or not (futures_entry.fills or futures_entry.funding):
            continue
        has_events = True
        price_per_quote = futures_entry.quote_price or Fraction(0)
        fees += sum(fill.fee_raw for fill in futures_entry.fills) * price_per_quote
        realised += sum(fill.realised_raw for fill in futures_entry.fills) * price_per_quote
        funding += sum(payment.paid_raw for payment in futures_entry.funding) * price_per_quote
    return FuturesSums(fees, funding, realised) if has_events else None


def _futures_change(
    start_valuation: Valuation, end_valuation: Valuation, entries: Sequence[Entry]
) -> FuturesChange:
    holding = end_valuation.collateral or start_valuation.collateral
    if holding is None:
        raise ValueError("neither valuation has a margin account")
    collateral_price = _holding_price(end_valuation, holding.token) or holding.price
    value_change = _margin_value(end_valuation) - _margin_value(start_valuation)
    futures_entries = [entry.futures for entry in entries if entry.futures]
    moved_raw = _posted_raw(entries, MARGIN, holding.token)
    reading_before, reading_after = (
        None if valuation.collateral is None else valuation.collateral.margin
        for valuation in (start_valuation, end_valuation)
    )
    if (
        reading_before is None or reading_after is None
    ):  # the account was opened or closed in between
        deposited_value = moved_raw * collateral_price
        result = FuturesProfit(transferred_value=value_change - deposited_value)
        return FuturesChange(end_valuation, deposited_value, result, ())
    # A mined but not yet final move has no entry; it shows only in the wallet's balance.
    pending_raw = _posted_raw(entries, WALLET, holding.token)
    pending_raw -= _wallet_raw(end_valuation, holding.token) - _wallet_raw(
        start_valuation, holding.token
    )
    if (
        abs(
            _unexplained_raw(
                reading_before, reading_after, moved_raw + pending_raw, futures_entries
            )
        )
        < reading_after.collateral_unit_raw
    ):
        moved_raw += pending_raw
    deposited_value = moved_raw * collateral_price
    price_per_quote = collateral_price / reading_after.collateral_unit_raw
    change_parts = _split_change(reading_before, reading_after, moved_raw, futures_entries)
    fees, realised_profit, transferred_value = (
        Fraction(raw) * price_per_quote for raw in change_parts.fees_realised_transfers_raw
    )
    funding_by_market = tuple(
        (market, raw * price_per_quote) for market, raw in change_parts.funding_raw_by_market
    )
    funding = sum((funding_value for _, funding_value in funding_by_market), Fraction(0))
    price_result = value_change - deposited_value - transferred_value + fees + funding
    result = FuturesProfit(price_result, fees, funding, realised_profit, transferred_value)
    return FuturesChange(end_valuation, deposited_value, result, funding_by_market)


@dataclass(frozen=True, slots=True)
class _ChangeParts:
    """Quote base units: fees, realised profit and transfers; funding by market."""

    fees_realised_transfers_raw: tuple[int, int, int]
    funding_raw_by_market: tuple[tuple[str, int], ...]


def _split_change(
    reading_before: MarginReading,
    reading_after: MarginReading,
    moved_raw: int,
    futures_entries: Sequence[FuturesEntry],
) -> _ChangeParts:
    """Split the change of an account by receipts and readings.

    A change in cash that receipts do not explain counts as a transfer if the collateral changed
    too; as funding settled by others if the receipts explain all position sizes; otherwise as price
    result, such as a liquidation or a manual trade. What is missing beside a withdrawal is a price
    result too: its fee, as far as is known.
    """
    fills = [order_fill for entry in futures_entries for order_fill in entry.fills]
    settled_raw_by_market: dict[str, int] = {}
    for entry in futures_entries:
        for payment in entry.funding:
            settled_raw_by_market[payment.market] = (
                settled_raw_by_market.get(payment.market, 0) + payment.paid_raw
            )
    realised_raw = sum(order_fill.realised_raw for order_fill in fills)
    unexplained_raw = _unexplained_raw(reading_before, reading_after, moved_raw, futures_entries)
    pending_raw_by_market = {
        market_reading.market: market_reading.pending_funding_raw
        for market_reading in reading_before.markets
    }
    funding_raw_by_market = {
        market: raw - pending_raw_by_market.get(market, 0)
        for market, raw in settled_raw_by_market.items()
    }
    for market_reading in reading_after.markets:
        funding_raw_by_market.setdefault(
            market_reading.market, -pending_raw_by_market.get(market_reading.market, 0)
        )
        funding_raw_by_market[market_reading.market] += market_reading.pending_funding_raw
    transferred_raw = 0
    # Settling profit into the collateral rounds off less than one of its base units.
    if abs(unexplained_raw) >= reading_after.collateral_unit_raw:
        if (
            reading_after.collateral_raw - reading_before.collateral_raw
            != moved_raw * reading_after.collateral_unit_raw
        ):
            transferred_raw = unexplained_raw if moved_raw >= 0 else max(unexplained_raw, 0)
        elif _are_sizes_explained(reading_before, reading_after, futures_entries):
            _add_in_proportion(funding_raw_by_market, pending_raw_by_market, -unexplained_raw)
    fees_raw = sum(order_fill.fee_raw for order_fill in fills)
    return _ChangeParts(
        (fees_raw, realised_raw, transferred_raw), tuple(sorted(funding_raw_by_market.items()))
    )


def _unexplained_raw(
    reading_before: MarginReading,
    reading_after: MarginReading,
    moved_raw: int,
    futures_entries: Sequence[FuturesEntry],
) -> int:
    """Return the change in cash that neither `moved_raw` of moved collateral nor receipts
    explain.
    """
    realised_raw = sum(fill.realised_raw for entry in futures_entries for fill in entry.fills)
    paid_funding_raw = sum(
        payment.paid_raw for entry in futures_entries for payment in entry.funding
    )
    explained_raw = moved_raw * reading_after.collateral_unit_raw + realised_raw - paid_funding_raw
    return reading_after.cash_raw - reading_before.cash_raw - explained_raw


def _posted_raw(entries: Iterable[Entry], account: str, token: str) -> int:
    """Return the base units of a token that entries post to an account."""
    return sum(
        posting.raw
        for entry in entries
        for posting in entry.postings
        if (posting.account, posting.token) == (account, token)
    )


def _wallet_raw(valuation: Valuation, token: str) -> int:
    return sum(holding.wallet_raw for holding in valuation.holdings if holding.token == token)


def _are_sizes_explained(
    reading_before: MarginReading,
    reading_after: MarginReading,
    futures_entries: Sequence[FuturesEntry],
) -> bool:
    expected_size_by_market = {
        market_reading.market: market_reading.size_raw for market_reading in reading_before.markets
    }
    for entry in futures_entries:
        for fill in entry.fills:
            expected_size_by_market[fill.market] = (
                expected_size_by_market.get(fill.market, 0) + fill.size_raw
            )
    size_after_by_market = {
        market_reading.market: market_reading.size_raw for market_reading in reading_after.markets
    }
    return all(
        expected_size_by_market.get(market, 0) == size_after_by_market.get(market, 0)
        for market in {*expected_size_by_market, *size_after_by_market}
    )


def _add_in_proportion(
    raw_by_market: dict[str, int], weight_by_market: dict[str, int], added_raw: int
) -> None:
    """Add an amount to the markets in proportion to their earlier pending funding; the last market
    takes the remainder.
    """
    markets = [
        market for market in sorted(raw_by_market) if weight_by_market.get(market)
    ] or sorted(raw_by_market)[:1]
    weight_sum = sum(abs(weight_by_market.get(market, 0)) for market in markets)
    remaining_raw = added_raw
    for market in markets[:-1]:
        part_raw = added_raw * abs(weight_by_market[market]) // weight_sum
        raw_by_market[market] += part_raw
        remaining_raw -= part_raw
    for market in markets[-1:]:
        raw_by_market[market] += remaining_raw


def _holding_price(valuation: Valuation, token: str) -> Value | None:
    return next((holding.price for holding in valuation.holdings if holding.token == token), None)


def _margin_value(valuation: Valuation) -> Value:
    """Return the margin account's value in a valuation, numeraire base units."""
    holding = valuation.collateral
    return Fraction(0) if holding is None else holding.margin_raw * holding.price


class CollateralRounding:
    """Realised profits and settled funding in base units of the collateral, each rounded so that
    their running sum is at most one base unit off.
    """

    def __init__(self) -> None:
        self._remainder_raw = 0

    def round_results(self, entry: Entry) -> list[tuple[str, int]]:
        """Return the results of an entry: token and signed base units."""
        futures_entry = entry.futures
        token_amounts = list[tuple[str, int]]()
        if futures_entry is None:
            return token_amounts
        results_raw = [fill.realised_raw for fill in futures_entry.fills]
        results_raw += [-payment.paid_raw for payment in futures_entry.funding]
        for quote_raw in results_raw:
            collateral_raw, self._remainder_raw = divmod(
                quote_raw + self._remainder_raw, futures_entry.collateral_unit_raw
            )
            token_amounts.append((futures_entry.collateral, collateral_raw))
        return token_amounts


@dataclass(frozen=True, slots=True)
class FundingDay:
    """Funding of one market on one day, which starts at `day_s`: `paid` in numeraire base units
    (negative: received), `daily_rate` the mean of the rates read that day, and `reading_count`
    their number.
    """

    day_s: int
    market: str
    symbol: str
    paid: Value
    daily_rate: Fraction
    reading_count: int


def funding_days(
    valuations: Sequence[Valuation], margin_changes: Iterable[FuturesChange]
) -> tuple[FundingDay, ...]:
    """Return funding by day and market, oldest first. A payment belongs to the day of the reading
    that found it.
    """
    rates_by_day_and_market: dict[tuple[int, str], list[Fraction]] = {}
    symbol_by_market: dict[str, str] = {}
    for valuation in valuations:
        holding = valuation.collateral
        reading = None if holding is None else holding.margin
        for market_reading in () if reading is None else reading.markets:
            day_and_market = (valuation.chain_s // DAY_S * DAY_S, market_reading.market)
            rates_by_day_and_market.setdefault(day_and_market, []).append(
                market_reading.funding_daily
            )
            symbol_by_market[market_reading.market] = market_reading.symbol
    paid_by_day_and_market: dict[tuple[int, str], Value] = {}
    for margin_change in margin_changes:
        day_s = margin_change.end.chain_s // DAY_S * DAY_S
        for market_name, paid_value in margin_change.funding_by_market:
            paid_by_day_and_market[day_s, market_name] = (
                paid_by_day_and_market.get((day_s, market_name), Fraction(0)) + paid_value
            )
    funding_days = []
    for day_s, market_name in sorted(
        rates_by_day_and_market.keys() | paid_by_day_and_market.keys()
    ):
        day_rates = rates_by_day_and_market.get((day_s, market_name), [])
        mean_rate = sum(day_rates, Fraction(0)) / len(day_rates) if day_rates else Fraction(0)
        funding_days.append(
            FundingDay(
                day_s,
                market_name,
                symbol_by_market.get(market_name, market_name),
                paid_by_day_and_market.get((day_s, market_name), Fraction(0)),
                mean_rate,
                len(day_rates),
            )
        )
    return tuple(funding_days)
