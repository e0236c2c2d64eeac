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
    UNALLOCATED_HOLDER,
    CapitalSplit,
    StrategiesState,
    StrategyBook,
    StrategyBooking,
    StrategyBookingKind,
    StrategyBooks,
    StrategyHealth,
    StrategyLedger,
    StrategyState,
    transfer_source,
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
from agent.policy.cash_flows.balance_changes import balances_of
from agent.reference import reference_prices
from agent.units import BPS, NATIVE, Price, Value, decimal_text, floor_int

UNITS_PER_VALUE = 10**6
"""Units of a strategy's opening for one numeraire base unit."""


@dataclass
class StrategyBooksUpdate:
    """Holdings and units by strategy, and reserves, at the prices of `step`; `bookings` are new.
    `unit_navs` are the unit values in 10^-12 of the last records.
    """

    step: StepInput
    prices: Mapping[str, Price]
    tokens: tuple[str, ...]
    holdings: StrategyHoldings
    units: dict[str, int]
    reserves: dict[str, int]
    bookings: list[StrategyBooking]
    unit_navs: Mapping[str, int]

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
        for name, raw_by_token in holdings_after.items():
            change_by_token = {
                token: raw_by_token.get(token, 0) - self.holdings[name].get(token, 0)
                for token in {**self.holdings[name], **raw_by_token}
            }
            changes += [(name, token, raw) for token, raw in change_by_token.items() if raw]
            value_before = holdings_value(self.holdings[name], self.prices)
            base_value = holdings_value(base_holdings[name], self.prices)
            if base_holdings[name] != self.holdings[name] and (
                new_units := units_to_issue(
                    self.units[name], value_before, base_value, self.unit_navs.get(name, 0)
                )
            ):
                changes.append((name, STRATEGY_UNITS, new_units))
                self.units[name] += new_units
        changes += [
            (UNALLOCATED_HOLDER, token, raw) for token, raw in reserve_changes.items() if raw
        ]
        for token, raw in reserve_changes.items():
            self.reserves[token] = self.reserves.get(token, 0) + raw
        self.holdings = holdings_after
        head = self.step.snapshot.head
        costs_by_strategy = tuple((costs or {}).items())
        self.bookings.append(
            StrategyBooking(
                source,
                kind,
                head.number,
                head.timestamp_s,
                tuple(changes),
                acting_names,
                costs_by_strategy,
            )
        )

    def replay(self, booking: StrategyBooking) -> None:
        """Apply a stored booking."""
        for name, token, change_raw in booking.changes:
            if name == UNALLOCATED_HOLDER:
                self.reserves[token] = self.reserves.get(token, 0) + change_raw
                continue
            raw_by_token = self.holdings.setdefault(name, {})
            self.units.setdefault(name, 0)
            if token == STRATEGY_UNITS:
                self.units[name] += change_raw
            else:
                raw_by_token[token] = raw_by_token.get(token, 0) + change_raw

    def total_raw(self, token: str) -> int:
        """Return the base units of a token that all strategies hold together."""
        return sum(raw_by_token.get(token, 0) for raw_by_token in self.holdings.values())


def open_books(
    step: StepInput, split: CapitalSplit, ledger: StrategyLedger
) -> StrategyBooksUpdate | None:
    """Return the stored books as of the step's block; None if a price is missing."""
    tokens = tuple(asset.token.address for asset in step.portfolio.assets)
    prices = reference_prices(step).price_by_token
    if not prices.keys() >= set(tokens):
        return None
    unit_navs = {state.name: state.unit_nav for state in ledger.states}
    books_update = StrategyBooksUpdate(step, prices, tokens, {}, {}, {}, [], unit_navs)
    for booking in ledger.bookings:
        if booking.block <= step.snapshot.head.number:
            books_update.replay(booking)
    configured_names = {strategy.name for strategy in split.strategies}
    for name in [
        name
        for name, holdings in books_update.holdings.items()
        if name not in configured_names and not any(holdings.values())
    ]:
        del books_update.holdings[name], books_update.units[name]  # closed
    return books_update


def units_to_issue(units: int, value_before: Value, value_after: Value, last_unit_nav: int) -> int:
    """Return the units issued (or burnt) for a change of a strategy's value from `value_before` to
    `value_after`: at its unit value, rounded down. Without one it is that of the last record,
    `last_unit_nav` in 10^-12, so that capital which comes back is no return; zero: none is known.
    """
    if value_before > 0 and units > 0:
        return floor_int(units * (value_after - value_before) / value_before)
    first_unit_nav = Fraction(last_unit_nav or FIXED_POINT_ONE, FIXED_POINT_ONE)
    return floor_int(value_after * UNITS_PER_VALUE / first_unit_nav) - units


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
    balances_raw = balances_of(snapshot)
    balance_by_token = {}
    for asset in portfolio.assets:
        if asset.token.address not in balances_raw:
            return None
        balance_by_token[asset.token.address] = balances_raw[asset.token.address]
        if asset.includes_native:
            balance_by_token[asset.token.address] += snapshot.native_wei
    return balance_by_token


def reserved_balances(
    portfolio: Portfolio, limits: Limits, balance_by_token: Mapping[str, int]
) -> dict[str, int]:
    """Return the reserved part of each balance, which belongs to no strategy."""
    assets = portfolio.assets
    return {
        asset.token.address: min(
            balance_by_token[asset.token.address], native_coin.reserved_raw(limits, asset)
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
    split = step.config(CapitalSplit)
    balance_by_token = wallet_balances(step.snapshot, step.portfolio)
    if not split.strategies:
        return StrategyBooks(())
    books_update = open_books(step, split, ledger)
    if balance_by_token is None or books_update is None:
        return StrategyBooks(
            (),
            "some balances or prices of the assets are unknown",
            record_version=ledger.record_version,
            unbooked_states=ledger.states,
        )
    reserve_by_token = reserved_balances(step.portfolio, step.limits, balance_by_token)
    if not ledger.bookings:
        _book_opening(
            books_update,
            split,
            {token: raw - reserve_by_token[token] for token, raw in balance_by_token.items()},
            reserve_by_token,
        )
        return _updated_books(books_update, split, ledger, "")
    for source, kind, change_by_token, intent in _balance_events(
        step.snapshot, step.portfolio, ledger, new_transfers
    ):
        if kind is StrategyBookingKind.FLOW:
            _book_transfer(books_update, source, change_by_token, ledger.transfer_strategy)
        elif intent is not None and intent.kind in _RESERVE_KINDS:
            books_update.book(
                source,
                StrategyBookingKind.FLOW,
                copy_holdings(books_update.holdings),
                change_by_token,
            )
        else:
            _book_trade(
                books_update,
                source,
                change_by_token,
                step_of_trade(intent) if intent is not None and intent.succeeded else None,
                adjustment_source,
            )
    fault = _balance_mismatch_text(books_update, balance_by_token) or _name_mismatch_text(
        books_update, split
    )
    if not fault:
        _fill_reserves(books_update, reserve_by_token, ledger.record_version)
    return _updated_books(books_update, split, ledger, fault)


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
    split = step.config(CapitalSplit)
    balance_by_token = wallet_balances(step.snapshot, step.portfolio)
    books_update = open_books(step, split, ledger) if split.strategies else None
    if balance_by_token is None or books_update is None or not books.fault:
        return books
    for booking in books.unstored_bookings:
        books_update.replay(booking)
    books_update.bookings = list(books.unstored_bookings)
    holdings_before = copy_holdings(books_update.holdings)
    reserve_by_token = reserved_balances(step.portfolio, step.limits, balance_by_token)
    holdings_after = holdings_before
    for token in books_update.tokens:
        holdings_after = apply_transfer(
            holdings_after,
            token,
            balance_by_token[token] - reserve_by_token[token] - books_update.total_raw(token),
            books_update.prices,
        )
    configured_names = [strategy.name for strategy in split.strategies]
    if set(configured_names) != set(holdings_before):
        holdings_after = _resplit(holdings_after, split, books_update)
    books_update.holdings = holdings_before | {
        name: {} for name in configured_names if name not in holdings_before
    }
    books_update.units = {name: books_update.units.get(name, 0) for name in books_update.holdings}
    reserve_changes = {
        token: reserve_by_token[token] - books_update.reserves.get(token, 0)
        for token in books_update.tokens
    }
    books_update.book(
        f"change {step.snapshot.head.number} {ledger.record_version}",
        StrategyBookingKind.RESPLIT,
        holdings_after,
        reserve_changes,
    )
    books_update.holdings = {name: books_update.holdings[name] for name in configured_names}
    return _updated_books(books_update, split, ledger, "")


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
    prices = reference_prices(step).price_by_token
    holdings = {book.name: dict(book.holdings) for book in books.strategy_books}
    books_update = StrategyBooksUpdate(
        step,
        prices,
        tokens,
        holdings,
        {book.name: book.units for book in books.strategy_books},
        {},
        [],
        {book.name: book.state.unit_nav for book in books.strategy_books},
    )
    values_to_trade, base_holdings = adjustment_source(step)
    holdings_after, _ = settle_trade(base_holdings, values_to_trade, {}, prices, tokens)
    books_update.book(
        f"cross {step_id}",
        StrategyBookingKind.CROSS,
        holdings_after,
        {},
        base_holdings,
        _acting_strategies(values_to_trade),
    )
    if books_update.bookings[0].changes:
        return books_update.bookings[0]
    return None


def _resplit(
    holdings: StrategyHoldings, split: CapitalSplit, books_update: StrategyBooksUpdate
) -> StrategyHoldings:
    """Give each strategy its share of the whole, and removed strategies nothing."""
    configured_names = [strategy.name for strategy in split.strategies]
    split_holdings: StrategyHoldings = {
        name: holdings.get(name, {}) for name in dict.fromkeys((*configured_names, *holdings))
    }
    total_capital = sum(strategy_capital(split_holdings, books_update.prices).values(), Fraction(0))
    target_values = dict.fromkeys(split_holdings, Fraction(0)) | {
        strategy.name: total_capital * strategy.share_bps / BPS for strategy in split.strategies
    }
    restore_capital_shares(split_holdings, target_values, books_update.prices)
    # Rounding dust left after the payments above; the first strategy gets it.
    for name in split_holdings.keys() - set(configured_names):
        for token, raw in split_holdings[name].items():
            split_holdings[configured_names[0]][token] = (
                split_holdings[configured_names[0]].get(token, 0) + raw
            )
        split_holdings[name] = dict.fromkeys(split_holdings[name], 0)
    return split_holdings


def _book_opening(
    books_update: StrategyBooksUpdate,
    split: CapitalSplit,
    free_raw_by_token: Mapping[str, int],
    reserve_by_token: Mapping[str, int],
) -> None:
    share_by_name = {strategy.name: Fraction(strategy.share_bps) for strategy in split.strategies}
    holdings: StrategyHoldings = {name: {} for name in share_by_name}
    for token, raw in free_raw_by_token.items():
        for name, strategy_raw in split_pro_rata(raw, share_by_name).items():
            holdings[name][token] = strategy_raw
    books_update.holdings = {name: {} for name in share_by_name}
    books_update.units = dict.fromkeys(share_by_name, 0)
    books_update.book("open", StrategyBookingKind.OPEN, holdings, reserve_by_token)


def _balance_events(
    snapshot: Snapshot,
    portfolio: Portfolio,
    ledger: StrategyLedger,
    new_transfers: Iterable[ExternalTransfer],
) -> list[tuple[str, StrategyBookingKind, dict[str, int], Intent | None]]:
    """Return the asset changes since the stored bookings, oldest first: (source, kind, base units
    by token, transaction).
    """
    native_asset_tokens = {
        asset.token.address for asset in portfolio.assets if asset.includes_native
    }
    asset_tokens = {asset.token.address for asset in portfolio.assets}
    wallet = snapshot.owner
    wrapped_native = portfolio.wrapped_native
    head_block = snapshot.head.number

    def asset_changes(changes: Iterable[tuple[str, int]]) -> dict[str, int]:
        change_by_asset: dict[str, int] = {}
        for token, raw in changes:
            asset_token = (
                wrapped_native
                if token == NATIVE and wrapped_native in native_asset_tokens
                else token
            )
            if asset_token in asset_tokens:
                change_by_asset[asset_token] = change_by_asset.get(asset_token, 0) + raw
        return change_by_asset

    events: list[tuple[int, str, StrategyBookingKind, dict[str, int], Intent | None]] = []
    for intent in ledger.unbooked_intents:
        if intent.receipt is not None and intent.receipt.block_number <= head_block:
            changes = asset_changes(intent.balance_changes(wallet, wrapped_native).items())
            events.append(
                (intent.receipt.block_number, intent.id, StrategyBookingKind.TRADE, changes, intent)
            )
    for tx_hash, block, tx_changes in ledger.external_transactions:
        if block <= head_block:
            events.append(
                (block, tx_hash, StrategyBookingKind.FLOW, asset_changes(tx_changes), None)
            )
    for index, transfer in enumerate((*ledger.transfers, *new_transfers)):
        source = (
            transfer_source(transfer.id) if transfer.id else f"{UNRECORDED_TRANSFER_SOURCE} {index}"
        )
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
    books_update: StrategyBooksUpdate, change_by_token: Mapping[str, int]
) -> tuple[dict[str, int], dict[str, int]]:
    """Return the part of changes that strategies bear, and the part beyond all their holdings,
    which reserves bear.
    """
    strategy_changes = {
        token: max(raw, -books_update.total_raw(token)) for token, raw in change_by_token.items()
    }
    return strategy_changes, {
        token: raw - strategy_changes[token] for token, raw in change_by_token.items()
    }


def _book_transfer(
    books_update: StrategyBooksUpdate,
    source: str,
    change_by_token: Mapping[str, int],
    receiving_strategy: str | None,
) -> None:
    strategy_changes, reserve_changes = _split_at_holdings(books_update, change_by_token)
    holdings_after = copy_holdings(books_update.holdings)
    for token, raw in strategy_changes.items():
        holdings_after = apply_transfer(
            holdings_after, token, raw, books_update.prices, receiving_strategy
        )
    books_update.book(source, StrategyBookingKind.FLOW, holdings_after, reserve_changes)


def _book_trade(
    books_update: StrategyBooksUpdate,
    source: str,
    change_by_token: Mapping[str, int],
    trade_step: StepInput | None,
    adjustment_source: AdjustmentSource,
) -> None:
    """Allocate a transaction by the adjustments and prices of its own step; by capital if they are
    unknown.
    """
    strategy_changes, reserve_changes = _split_at_holdings(books_update, change_by_token)
    values_to_trade: StrategyValues = {}
    base_holdings = books_update.holdings
    prices = books_update.prices
    if trade_step is not None:
        trade_prices = reference_prices(trade_step).price_by_token
        trade_adjustments, holdings_after_transfers = adjustment_source(trade_step)
        if (
            trade_prices.keys() >= set(books_update.tokens)
            and holdings_after_transfers.keys() == books_update.holdings.keys()
        ):
            values_to_trade = trade_adjustments
            prices = trade_prices
            if _has_same_totals(books_update, holdings_after_transfers):
                # no other booking has changed the accounts since
                base_holdings = holdings_after_transfers
    holdings_after, costs = settle_trade(
        base_holdings, values_to_trade, strategy_changes, prices, books_update.tokens
    )
    books_update.book(
        source,
        StrategyBookingKind.TRADE,
        holdings_after,
        reserve_changes,
        base_holdings,
        _acting_strategies(values_to_trade),
        costs,
    )


def _has_same_totals(
    books_update: StrategyBooksUpdate, holdings_after_transfers: StrategyHoldings
) -> bool:
    return all(
        sum(raw_by_token.get(token, 0) for raw_by_token in holdings_after_transfers.values())
        == books_update.total_raw(token)
        for token in books_update.tokens
    )


def _acting_strategies(values_to_trade: StrategyValues) -> tuple[str, ...]:
    return tuple(name for name, adjustment in values_to_trade.items() if any(adjustment.values()))


def _balance_mismatch_text(
    books_update: StrategyBooksUpdate, balance_by_token: Mapping[str, int]
) -> str:
    """Return the balances that differ from the accounts; empty if none does."""
    mismatches = []
    for token in books_update.tokens:
        booked_raw = books_update.reserves.get(token, 0) + books_update.total_raw(token)
        if booked_raw != balance_by_token[token]:
            listed_token = books_update.step.portfolio.token(token)
            amount_texts = (
                decimal_text(raw, listed_token.decimals)
                for raw in (booked_raw, balance_by_token[token])
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


def _name_mismatch_text(books_update: StrategyBooksUpdate, split: CapitalSplit) -> str:
    configured_names = {strategy.name for strategy in split.strategies}
    if configured_names == set(books_update.holdings):
        return ""
    closed_names = ", ".join(sorted(set(books_update.holdings) - configured_names))
    opened_names = ", ".join(sorted(configured_names - set(books_update.holdings)))
    change_texts = [f"{closed_names} will be closed"] * bool(closed_names) + [
        f"{opened_names} will be opened"
    ] * bool(opened_names)
    return f"the strategies of the config differ from those of the books ({'; '.join(change_texts)}); {REMEDY}"


def _fill_reserves(
    books_update: StrategyBooksUpdate, reserve_by_token: Mapping[str, int], record_version: int
) -> None:
    """Fill reserves and the gas floor first: all strategies pay a shortfall and share an excess."""
    holdings_after = copy_holdings(books_update.holdings)
    reserve_changes = {}
    for token in books_update.tokens:
        if change_raw := reserve_by_token[token] - books_update.reserves.get(token, 0):
            holdings_after = apply_transfer(holdings_after, token, -change_raw, books_update.prices)
            reserve_changes[token] = change_raw
    if reserve_changes:
        books_update.book(
            f"aside {books_update.step.snapshot.head.number} {record_version}",
            StrategyBookingKind.RESERVE,
            holdings_after,
            reserve_changes,
        )


def _updated_books(
    books_update: StrategyBooksUpdate, split: CapitalSplit, ledger: StrategyLedger, fault: str
) -> StrategyBooks:
    state_by_name = {state.name: state for state in ledger.states}
    now_s = books_update.step.snapshot.head.timestamp_s
    bookings = (*ledger.bookings, *books_update.bookings)
    strategy_books = []
    for name in (
        strategy.name for strategy in split.strategies if strategy.name in books_update.holdings
    ):
        rebalance_times_s = [
            booking.at_s
            for booking in bookings
            if booking.kind in _REBALANCE_KINDS and name in booking.requesters
        ]
        total_cost = sum(
            (
                cost
                for strategy_booking in bookings
                for strategy_name, cost in strategy_booking.costs
                if strategy_name == name
            ),
            Fraction(0),
        )
        holdings = tuple(
            (token, books_update.holdings[name].get(token, 0)) for token in books_update.tokens
        )
        state = state_by_name.get(name) or StrategyState(name, StrategyHealth.ACTIVE, now_s)
        strategy_books.append(
            StrategyBook(
                name,
                holdings,
                books_update.units[name],
                state,
                max(rebalance_times_s, default=None),
                total_cost,
            )
        )
    return StrategyBooks(
        tuple(strategy_books), fault, tuple(books_update.bookings), ledger.record_version
    )


def paused_strategies(
    portfolio: Portfolio, split: CapitalSplit, state: StrategiesState
) -> dict[str, str]:
    """Return a message by name for each strategy that the health rule paused."""
    books = state.books
    names_with_futures = {strategy.name for strategy in split.strategies if strategy.market_bps}
    return {
        book.name: (
            f"Strategy {book.name} is paused and held in {portfolio.numeraire.label}"
            f"{', without futures' if book.name in names_with_futures else ''}: {book.state.reason}. trimtab"
            " strategies"
        )
        for book in (() if books is None else books.strategy_books)
        if book.state.health is StrategyHealth.PAUSED
    }
