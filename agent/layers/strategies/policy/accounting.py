"""Accounts of strategies, updated to a block: openings, trades, deposits, withdrawals, and their
sum. The accounts of all strategies and the reserves (gas included) add up to the wallet's balances,
to the base unit. Every balance change is a transaction of the agent or a stored transfer, and a
difference of a single unit blocks every trade.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

from agent.layers.strategies.policy.capital import (
    StrategyHoldings,
    StrategyValues,
    apply_transfer,
    copy_holdings,
    holdings_value,
    restore_capital_shares,
    settle_trade,
    split_pro_rata,
    strategy_capital,
)
from agent.layers.strategies.policy.health import FIXED_POINT_ONE
from agent.layers.strategies.state import (
    STRATEGY_UNITS,
    UNALLOCATED,
    CapitalSplit,
    StrategiesState,
    StrategyBook,
    StrategyBooking,
    StrategyBookingKind,
    StrategyBooks,
    StrategyHealth,
    StrategyLedger,
    StrategyState,
)
from agent.model import (
    ExternalTransfer,
    Intent,
    IntentKind,
    Limits,
    Portfolio,
    Snapshot,
    StepInput,
)
from agent.policy import native_coin
from agent.reference import reference_prices
from agent.units import BPS, NATIVE, Price, Value, decimal_text, floor_int

UNITS_PER_VALUE = 10**6
"""Units that a new strategy gets for one numeraire base unit."""


@dataclass
class StrategyBooksUpdate:
    """Holdings and units by strategy, and reserves, at the prices of `step`; `bookings` are new."""

    step: StepInput
    prices: Mapping[str, Price]
    tokens: tuple[str, ...]
    holdings: StrategyHoldings
    units: dict[str, int]
    reserves: dict[str, int]
    bookings: list[StrategyBooking]

    def book(
        self,
        source: str,
        kind: StrategyBookingKind,
        holdings_after: StrategyHoldings,
        reserve_changes: Mapping[str, int],
        base_holdings: StrategyHoldings | None = None,
        acting_names: tuple[str, ...] = (),
        costs: Mapping[str, Value] | None = None,
    ) -> None:
        """Replace the books by `holdings_after` and record the booking.

        A change of capital up to `base_holdings` (all of it by default) issues or burns units at
        the unit value before; any further change is performance.
        """
        changes = []
        base_holdings = holdings_after if base_holdings is None else base_holdings
        for name, tokens in holdings_after.items():
            token_changes = {
                token: tokens.get(token, 0) - self.holdings[name].get(token, 0)
                for token in {**self.holdings[name], **tokens}
            }
            changes += [(name, token, raw) for token, raw in token_changes.items() if raw]
            value_before = holdings_value(self.holdings[name], self.prices)
            base_value = holdings_value(base_holdings[name], self.prices)
            if base_holdings[name] != self.holdings[name] and (
                new_units := units_for(self.units[name], value_before, base_value)
            ):
                changes.append((name, STRATEGY_UNITS, new_units))
                self.units[name] += new_units
        changes += [(UNALLOCATED, token, raw) for token, raw in reserve_changes.items() if raw]
        for token, raw in reserve_changes.items():
            self.reserves[token] = self.reserves.get(token, 0) + raw
        self.holdings = holdings_after
        head, cost_items = self.step.snapshot.head, tuple((costs or {}).items())
        self.bookings.append(
            StrategyBooking(
                source,
                kind,
                head.number,
                head.timestamp_s,
                tuple(changes),
                acting_names,
                cost_items,
            )
        )

    def replay(self, booking: StrategyBooking) -> None:
        """Apply a stored booking."""
        for name, token, raw in booking.changes:
            if name == UNALLOCATED:
                self.reserves[token] = self.reserves.get(token, 0) + raw
                continue
            tokens = self.holdings.setdefault(name, {})
            self.units.setdefault(name, 0)
            if token == STRATEGY_UNITS:
                self.units[name] += raw
            else:
                tokens[token] = tokens.get(token, 0) + raw

    def total_raw(self, token: str) -> int:
        """Return the base units of a token that all strategies hold together."""
        return sum(tokens.get(token, 0) for tokens in self.holdings.values())


def open_books(
    step: StepInput, split: CapitalSplit, ledger: StrategyLedger
) -> StrategyBooksUpdate | None:
    """Return the stored books as of the step's block; None if a price is missing."""
    tokens = tuple(asset.token.address for asset in step.portfolio.assets)
    prices = reference_prices(step).by_token
    if not prices.keys() >= set(tokens):
        return None
    update = StrategyBooksUpdate(step, prices, tokens, {}, {}, {}, [])
    for booking in ledger.bookings:
        if booking.block <= step.snapshot.head.number:
            update.replay(booking)
    configured_names = {strategy.name for strategy in split.strategies}
    for name in [
        name
        for name, holdings in update.holdings.items()
        if name not in configured_names and not any(holdings.values())
    ]:
        del update.holdings[name], update.units[name]  # closed
    return update


def units_for(units: int, value_before: Value, value_after: Value) -> int:
    """Return the units issued (or burnt) for a change of a strategy's value from `value_before` to
    `value_after`: at its unit value, rounded down.
    """
    if value_before > 0 and units > 0:
        return floor_int(units * (value_after - value_before) / value_before)
    return floor_int(value_after * UNITS_PER_VALUE) - units


def nav_per_unit(value: Value, units: int) -> int | None:
    """Return the value of a unit in 10^-12, which is 10^12 at the opening; None for a strategy
    without units.
    """
    if units <= 0:
        return None
    return floor_int(value * UNITS_PER_VALUE * FIXED_POINT_ONE / units)


def wallet_balances(snapshot: Snapshot, portfolio: Portfolio) -> dict[str, int] | None:
    """Return the base units of each asset in the wallet, with native coin counted as its wrapped
    token if that is an asset; None if a balance is unknown.
    """
    known_raw_by_token: dict[str, set[int]] = {}
    for holding in snapshot.holdings:
        known_raw_by_token.setdefault(holding.token, set()).add(holding.raw)
    quarantined_addresses = {item.address for item in snapshot.quarantined}
    balances = {}
    for asset in portfolio.assets:
        known_raw = known_raw_by_token.get(asset.token.address, set())
        if len(known_raw) != 1 or asset.token.address in quarantined_addresses:
            return None
        balances[asset.token.address] = next(iter(known_raw))
        if asset.native:
            balances[asset.token.address] += snapshot.native_wei
    return balances


def reserved_balances(
    portfolio: Portfolio, limits: Limits, balances: Mapping[str, int]
) -> dict[str, int]:
    """Return the reserved part of each balance, which belongs to no strategy."""
    assets = portfolio.assets
    return {
        asset.token.address: min(
            balances[asset.token.address], native_coin.reserved_raw(limits, asset)
        )
        for asset in assets
    }


UNRECORDED_TRANSFER_SOURCE = "flow without a record"
REMEDY = "review and accept it with trimtab strategies apply"
AdjustmentSource = Callable[[StepInput], tuple[StrategyValues, StrategyHoldings]]
"""Function that returns the strategies' adjustments at a step (values by strategy and token) and
their accounts after capital transfers.
"""
IntentStep = Callable[[Intent], StepInput | None]
"""Function that returns the step of a trade; None if the strategies did not cause the trade, or its
step is unknown.
"""
_RESERVE_KINDS = (IntentKind.PAYOUT, IntentKind.UNWRAP, IntentKind.LIQUIDITY, IntentKind.FUTURES)
"""Transactions that change only reserves, not the tokens of a strategy."""
_REBALANCE_KINDS = (StrategyBookingKind.TRADE, StrategyBookingKind.CROSS)


def update_books(
    step: StepInput,
    ledger: StrategyLedger,
    step_of_trade: IntentStep,
    adjustment_source: AdjustmentSource,
    new_transfers: Sequence[ExternalTransfer] = (),
) -> StrategyBooks:
    """Return the accounts at the step's block; `new_transfers` are transfers not stored yet. `step`
    is the input before any quarantine.
    """
    split, balances = step.config(CapitalSplit), wallet_balances(step.snapshot, step.portfolio)
    if not split.strategies:
        return StrategyBooks(())
    update = open_books(step, split, ledger)
    if balances is None or update is None:
        return StrategyBooks(
            (),
            "some balances or prices of the assets are unknown",
            record_version=ledger.record_version,
        )
    reserves = reserved_balances(step.portfolio, step.limits, balances)
    if not ledger.bookings:
        _book_opening(
            update,
            split,
            {token: raw - reserves[token] for token, raw in balances.items()},
            reserves,
        )
        return _updated_books(update, split, ledger, "")
    for source, kind, changes, intent in _events(
        step.snapshot, step.portfolio, ledger, new_transfers
    ):
        if kind is StrategyBookingKind.FLOW:
            _book_transfer(update, source, changes, ledger.flows_to)
        elif intent is not None and intent.kind in _RESERVE_KINDS:
            update.book(source, StrategyBookingKind.FLOW, copy_holdings(update.holdings), changes)
        else:
            _book_trade(
                update,
                source,
                changes,
                None if intent is None else step_of_trade(intent),
                adjustment_source,
            )
    fault = _balance_mismatch_text(update, balances) or _name_mismatch_text(update, split)
    if not fault:
        _fill_reserves(update, reserves, ledger.record_version)
    return _updated_books(update, split, ledger, fault)


def apply_configured_split(
    step: StepInput,
    ledger: StrategyLedger,
    step_of_trade: IntentStep,
    adjustment_source: AdjustmentSource,
    new_transfers: Sequence[ExternalTransfer] = (),
) -> StrategyBooks:
    """Return the accounts after the owner assigned the current wallet to the strategies of the
    config. An unexplained difference is shared like a transfer. If strategies were added or
    removed, each gets its share of the capital in kind, at reference prices, without a trade;
    removed ones are closed.
    """
    books = update_books(step, ledger, step_of_trade, adjustment_source, new_transfers)
    split, balances = step.config(CapitalSplit), wallet_balances(step.snapshot, step.portfolio)
    update = open_books(step, split, ledger) if split.strategies else None
    if balances is None or update is None or not books.fault:
        return books
    for booking in books.pending:
        update.replay(booking)
    update.bookings = list(books.pending)
    holdings_before, reserves = (
        copy_holdings(update.holdings),
        reserved_balances(step.portfolio, step.limits, balances),
    )
    holdings_after = holdings_before
    for token in update.tokens:
        holdings_after = apply_transfer(
            holdings_after,
            token,
            balances[token] - reserves[token] - update.total_raw(token),
            update.prices,
        )
    names = [strategy.name for strategy in split.strategies]
    if set(names) != set(holdings_before):
        holdings_after = _resplit(holdings_after, split, update)
    update.holdings = holdings_before | {name: {} for name in names if name not in holdings_before}
    update.units = {name: update.units.get(name, 0) for name in update.holdings}
    reserve_changes = {
        token: reserves[token] - update.reserves.get(token, 0) for token in update.tokens
    }
    update.book(
        f"change {step.snapshot.head.number} {ledger.record_version}",
        StrategyBookingKind.RESPLIT,
        holdings_after,
        reserve_changes,
    )
    update.holdings = {name: update.holdings[name] for name in names}
    return _updated_books(update, split, ledger, "")


def netting_booking(
    step: StepInput, step_id: str, adjustment_source: AdjustmentSource
) -> StrategyBooking | None:
    """Return the booking of a step that moves capital and nets opposite adjustments without a
    trade; None if nothing changes.
    """
    books = step.layer(StrategiesState).books
    if books is None or books.fault:
        return None
    tokens = tuple(asset.token.address for asset in step.portfolio.assets)
    prices = reference_prices(step).by_token
    holdings = {book.name: dict(book.holdings) for book in books.strategies}
    update = StrategyBooksUpdate(
        step, prices, tokens, holdings, {book.name: book.units for book in books.strategies}, {}, []
    )
    values_to_trade, base_holdings = adjustment_source(step)
    holdings_after, _ = settle_trade(base_holdings, values_to_trade, {}, prices, tokens)
    update.book(
        f"cross {step_id}",
        StrategyBookingKind.CROSS,
        holdings_after,
        {},
        base_holdings,
        _acting_strategies(values_to_trade),
    )
    if update.bookings[0].changes:
        return update.bookings[0]
    return None


def _resplit(
    holdings: StrategyHoldings, split: CapitalSplit, update: StrategyBooksUpdate
) -> StrategyHoldings:
    """Give each strategy its share of the whole, and removed strategies nothing."""
    names = [strategy.name for strategy in split.strategies]
    split_holdings: StrategyHoldings = {
        name: holdings.get(name, {}) for name in dict.fromkeys((*names, *holdings))
    }
    total = sum(strategy_capital(split_holdings, update.prices).values(), Fraction(0))
    target_values = dict.fromkeys(split_holdings, Fraction(0)) | {
        strategy.name: total * strategy.share_bps / BPS for strategy in split.strategies
    }
    restore_capital_shares(split_holdings, target_values, update.prices)
    # Rounding dust left after the payments above; the first strategy gets it.
    for name in split_holdings.keys() - set(names):
        for token, raw in split_holdings[name].items():
            split_holdings[names[0]][token] = split_holdings[names[0]].get(token, 0) + raw
        split_holdings[name] = dict.fromkeys(split_holdings[name], 0)
    return split_holdings


def _book_opening(
    update: StrategyBooksUpdate,
    split: CapitalSplit,
    free_balances: Mapping[str, int],
    reserves: Mapping[str, int],
) -> None:
    shares = {strategy.name: Fraction(strategy.share_bps) for strategy in split.strategies}
    holdings: StrategyHoldings = {name: {} for name in shares}
    for token, raw in free_balances.items():
        for name, strategy_raw in split_pro_rata(raw, shares).items():
            holdings[name][token] = strategy_raw
    update.holdings, update.units = {name: {} for name in shares}, dict.fromkeys(shares, 0)
    update.book("open", StrategyBookingKind.OPEN, holdings, reserves)


def _events(
    snapshot: Snapshot,
    portfolio: Portfolio,
    ledger: StrategyLedger,
    new_transfers: Iterable[ExternalTransfer],
) -> list[tuple[str, StrategyBookingKind, dict[str, int], Intent | None]]:
    """Return the asset changes since the stored bookings, oldest first: (source, kind, base units
    by token, transaction).
    """
    native_assets = {asset.token.address for asset in portfolio.assets if asset.native}
    assets = {asset.token.address for asset in portfolio.assets}
    owner = snapshot.owner
    wrapped_native = portfolio.wrapped_native
    head = snapshot.head.number

    def asset_changes(changes: Iterable[tuple[str, int]]) -> dict[str, int]:
        change_by_asset: dict[str, int] = {}
        for token, raw in changes:
            asset_token = (
                wrapped_native if token == NATIVE and wrapped_native in native_assets else token
            )
            if asset_token in assets:
                change_by_asset[asset_token] = change_by_asset.get(asset_token, 0) + raw
        return change_by_asset

    events: list[tuple[int, str, StrategyBookingKind, dict[str, int], Intent | None]] = []
    for intent in ledger.intents:
        if intent.receipt is not None and intent.receipt.block_number <= head:
            changes = asset_changes(intent.balance_changes(owner, wrapped_native).items())
            events.append(
                (intent.receipt.block_number, intent.id, StrategyBookingKind.TRADE, changes, intent)
            )
    for tx_hash, block, tx_changes in ledger.unjournalled:
        if block <= head:
            events.append(
                (block, tx_hash, StrategyBookingKind.FLOW, asset_changes(tx_changes), None)
            )
    for index, transfer in enumerate((*ledger.flows, *new_transfers)):
        source = f"flow {transfer.id}" if transfer.id else f"{UNRECORDED_TRANSFER_SOURCE} {index}"
        events.append(
            (
                transfer.block,
                source,
                StrategyBookingKind.FLOW,
                asset_changes([(transfer.token, transfer.delta_raw)]),
                None,
            )
        )
    return [event[1:] for event in sorted(events, key=lambda event: event[0])]


def _split_at_holdings(
    update: StrategyBooksUpdate, changes: Mapping[str, int]
) -> tuple[dict[str, int], dict[str, int]]:
    """Return the part of changes that strategies bear, and the part beyond all their holdings,
    which reserves bear.
    """
    strategy_changes = {token: max(raw, -update.total_raw(token)) for token, raw in changes.items()}
    return strategy_changes, {
        token: raw - strategy_changes[token] for token, raw in changes.items()
    }


def _book_transfer(
    update: StrategyBooksUpdate, source: str, changes: Mapping[str, int], flows_to: str | None
) -> None:
    strategy_changes, reserve_changes = _split_at_holdings(update, changes)
    holdings_after = copy_holdings(update.holdings)
    for token, raw in strategy_changes.items():
        holdings_after = apply_transfer(holdings_after, token, raw, update.prices, flows_to)
    update.book(source, StrategyBookingKind.FLOW, holdings_after, reserve_changes)


def _book_trade(
    update: StrategyBooksUpdate,
    source: str,
    changes: Mapping[str, int],
    trade_step: StepInput | None,
    adjustment_source: AdjustmentSource,
) -> None:
    """Allocate a transaction by the adjustments and prices of its own step; by capital if they are
    unknown.
    """
    strategy_changes, reserve_changes = _split_at_holdings(update, changes)
    values_to_trade: StrategyValues = {}
    base_holdings, prices = update.holdings, update.prices
    if trade_step is not None:
        trade_prices = reference_prices(trade_step).by_token
        trade_adjustments, holdings_after_transfers = adjustment_source(trade_step)
        if (
            trade_prices.keys() >= set(update.tokens)
            and holdings_after_transfers.keys() == update.holdings.keys()
        ):
            values_to_trade, prices = trade_adjustments, trade_prices
            if _has_same_totals(update, holdings_after_transfers):
                # no other booking has changed the accounts since
                base_holdings = holdings_after_transfers
    holdings_after, costs = settle_trade(
        base_holdings, values_to_trade, strategy_changes, prices, update.tokens
    )
    update.book(
        source,
        StrategyBookingKind.TRADE,
        holdings_after,
        reserve_changes,
        base_holdings,
        _acting_strategies(values_to_trade),
        costs,
    )


def _has_same_totals(
    update: StrategyBooksUpdate, holdings_after_transfers: StrategyHoldings
) -> bool:
    return all(
        sum(tokens.get(token, 0) for tokens in holdings_after_transfers.values())
        == update.total_raw(token)
        for token in update.tokens
    )


def _acting_strategies(values_to_trade: StrategyValues) -> tuple[str, ...]:
    return tuple(name for name, adjustment in values_to_trade.items() if any(adjustment.values()))


def _balance_mismatch_text(update: StrategyBooksUpdate, balances: Mapping[str, int]) -> str:
    """Return the balances that differ from the accounts; empty if none does."""
    mismatches = []
    for token in update.tokens:
        booked_raw = update.reserves.get(token, 0) + update.total_raw(token)
        if booked_raw != balances[token]:
            listed_token = update.step.portfolio.token(token)
            amount_texts = (
                decimal_text(raw, listed_token.decimals) for raw in (booked_raw, balances[token])
            )
            mismatches.append(
                f"{listed_token.label}: {' against '.join(amount_texts)} in the wallet"
            )
    if mismatches:
        return (
            f"the books of the strategies do not match the wallet's balances ({'; '.join(mismatches)});"
            f" {REMEDY}"
        )
    return ""


def _name_mismatch_text(update: StrategyBooksUpdate, split: CapitalSplit) -> str:
    names = {strategy.name for strategy in split.strategies}
    if names == set(update.holdings):
        return ""
    closed_names = ", ".join(sorted(set(update.holdings) - names))
    opened_names = ", ".join(sorted(names - set(update.holdings)))
    change_texts = [f"{closed_names} will be closed"] * bool(closed_names) + [
        f"{opened_names} will be opened"
    ] * bool(opened_names)
    return f"the strategies of the config differ from those of the books ({'; '.join(change_texts)}); {REMEDY}"


def _fill_reserves(update: StrategyBooksUpdate, reserves: Mapping[str, int], version: int) -> None:
    """Fill reserves and the gas floor first: all strategies pay a shortfall and share an excess."""
    holdings_after, reserve_changes = copy_holdings(update.holdings), {}
    for token in update.tokens:
        if raw := reserves[token] - update.reserves.get(token, 0):
            holdings_after, reserve_changes[token] = (
                apply_transfer(holdings_after, token, -raw, update.prices),
                raw,
            )
    if reserve_changes:
        update.book(
            f"aside {update.step.snapshot.head.number} {version}",
            StrategyBookingKind.RESERVE,
            holdings_after,
            reserve_changes,
        )


def _updated_books(
    update: StrategyBooksUpdate, split: CapitalSplit, ledger: StrategyLedger, fault: str
) -> StrategyBooks:
    states = {state.name: state for state in ledger.states}
    now_s = update.step.snapshot.head.timestamp_s
    bookings = (*ledger.bookings, *update.bookings)
    strategy_books = []
    for name in (
        strategy.name for strategy in split.strategies if strategy.name in update.holdings
    ):
        rebalance_times_s = [
            booking.at_s
            for booking in bookings
            if booking.kind in _REBALANCE_KINDS and name in booking.requesters
        ]
        costs = sum(
            (
                cost
                for strategy_booking in bookings
                for strategy_name, cost in strategy_booking.costs
                if strategy_name == name
            ),
            Fraction(0),
        )
        holdings = tuple((token, update.holdings[name].get(token, 0)) for token in update.tokens)
        state = states.get(name) or StrategyState(name, StrategyHealth.ACTIVE, now_s)
        strategy_books.append(
            StrategyBook(
                name,
                holdings,
                update.units[name],
                state,
                max(rebalance_times_s, default=None),
                costs,
            )
        )
    return StrategyBooks(
        tuple(strategy_books), fault, tuple(update.bookings), ledger.record_version
    )


def paused_strategies(
    portfolio: Portfolio, split: CapitalSplit, state: StrategiesState
) -> dict[str, str]:
    """Return a message by name for each strategy that the health rule paused."""
    books = state.books
    with_futures = {strategy.name for strategy in split.strategies if strategy.market_bps}
    return {
        book.name: (
            f"Strategy {book.name} is paused and held in {portfolio.numeraire.label}"
            f"{', without futures' if book.name in with_futures else ''}: {book.state.reason}. trimtab"
            " strategies"
        )
        for book in (() if books is None else books.strategies)
        if book.state.health is StrategyHealth.PAUSED
    }
