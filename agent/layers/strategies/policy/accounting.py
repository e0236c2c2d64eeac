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
from agent.layers.strategies.policy.health import ONE
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

SCALE = 10**6
"""Units that a new strategy gets for one numeraire base unit."""


@dataclass
class StrategyBooksUpdate:
    """Holdings and units by strategy, and reserves, at the prices of `step`; `done` are new
    bookings.
    """

    step: StepInput
    prices: Mapping[str, Price]
    tokens: tuple[str, ...]
    held: StrategyHoldings
    units: dict[str, int]
    aside: dict[str, int]
    done: list[StrategyBooking]

    def book(
        self,
        source: str,
        kind: StrategyBookingKind,
        after: StrategyHoldings,
        aside: Mapping[str, int],
        base: StrategyHoldings | None = None,
        acted: tuple[str, ...] = (),
        costs: Mapping[str, Value] | None = None,
    ) -> None:
        """Replace the books by `after` and record the booking.

        A change of capital up to `base` (all of it by default) issues or burns units at the unit
        value before; any further change is performance.
        """
        changes = []
        base = after if base is None else base
        for name, tokens in after.items():
            moved = {
                token: tokens.get(token, 0) - self.held[name].get(token, 0)
                for token in {**self.held[name], **tokens}
            }
            changes += [(name, token, raw) for token, raw in moved.items() if raw]
            before = holdings_value(self.held[name], self.prices)
            then = holdings_value(base[name], self.prices)
            if base[name] != self.held[name] and (
                delta := units_for(self.units[name], before, then)
            ):
                changes.append((name, STRATEGY_UNITS, delta))
                self.units[name] += delta
        changes += [(UNALLOCATED, token, raw) for token, raw in aside.items() if raw]
        for token, raw in aside.items():
            self.aside[token] = self.aside.get(token, 0) + raw
        self.held = after
        head, spent = self.step.snapshot.head, tuple((costs or {}).items())
        self.done.append(
            StrategyBooking(
                source, kind, head.number, head.timestamp_s, tuple(changes), acted, spent
            )
        )

    def replay(self, booking: StrategyBooking) -> None:
        """Apply a stored booking."""
        for name, token, raw in booking.changes:
            if name == UNALLOCATED:
                self.aside[token] = self.aside.get(token, 0) + raw
                continue
            tokens = self.held.setdefault(name, {})
            self.units.setdefault(name, 0)
            if token == STRATEGY_UNITS:
                self.units[name] += raw
            else:
                tokens[token] = tokens.get(token, 0) + raw

    def total(self, token: str) -> int:
        """Return the base units of a token that all strategies hold together."""
        return sum(tokens.get(token, 0) for tokens in self.held.values())


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
    configured = {strategy.name for strategy in split.strategies}
    for name in [
        name
        for name, holdings in update.held.items()
        if name not in configured and not any(holdings.values())
    ]:
        del update.held[name], update.units[name]  # closed
    return update


def units_for(units: int, before: Value, after: Value) -> int:
    """Return the units issued (or burnt) for a change of a strategy's value from `before` to
    `after`: at its unit value, rounded down.
    """
    if before > 0 and units > 0:
        return floor_int(units * (after - before) / before)
    return floor_int(after * SCALE) - units


def unit_value(value: Value, units: int) -> int | None:
    """Return the value of a unit in 10^-12, which is 10^12 at the opening; None for a strategy
    without units.
    """
    if units <= 0:
        return None
    return floor_int(value * SCALE * ONE / units)


def wallet_balances(snapshot: Snapshot, portfolio: Portfolio) -> dict[str, int] | None:
    """Return the base units of each asset in the wallet, with native coin counted as its wrapped
    token if that is an asset; None if a balance is unknown.
    """
    read: dict[str, set[int]] = {}
    for holding in snapshot.holdings:
        read.setdefault(holding.token, set()).add(holding.raw)
    unsure = {item.address for item in snapshot.quarantined}
    balances = {}
    for asset in portfolio.assets:
        raws = read.get(asset.token.address, set())
        if len(raws) != 1 or asset.token.address in unsure:
            return None
        balances[asset.token.address] = next(iter(raws))
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


UNRECORDED_TRANSFER = "flow without a record"
REMEDY = "review and accept it with trimtab strategies apply"
AdjustmentSource = Callable[[StepInput], tuple[StrategyValues, StrategyHoldings]]
"""Function that returns the strategies' adjustments at a step (values by strategy and token) and
their accounts after capital transfers.
"""
IntentStep = Callable[[Intent], StepInput | None]
"""Function that returns the step of a trade; None if the strategies did not cause the trade, or its
step is unknown.
"""
_OWNERS = (IntentKind.PAYOUT, IntentKind.UNWRAP, IntentKind.LIQUIDITY, IntentKind.FUTURES)
"""Transactions that change only reserves, not the tokens of a strategy."""
_CARRIED = (StrategyBookingKind.TRADE, StrategyBookingKind.CROSS)


def update_books(
    step: StepInput,
    ledger: StrategyLedger,
    own: IntentStep,
    adjustments: AdjustmentSource,
    fresh: Sequence[ExternalTransfer] = (),
) -> StrategyBooks:
    """Return the accounts at the step's block; `fresh` are transfers not stored yet. `step` is the
    input before any quarantine.
    """
    split, balances = step.config(CapitalSplit), wallet_balances(step.snapshot, step.portfolio)
    if not split.strategies:
        return StrategyBooks(())
    update = open_books(step, split, ledger)
    if balances is None or update is None:
        return StrategyBooks(
            (), "some balances or prices of the assets are unknown", turn=ledger.turn
        )
    aside = reserved_balances(step.portfolio, step.limits, balances)
    if not ledger.bookings:
        _open(update, split, {token: raw - aside[token] for token, raw in balances.items()}, aside)
        return _updated_books(update, split, ledger, "")
    for source, kind, changes, intent in _events(step.snapshot, step.portfolio, ledger, fresh):
        if kind is StrategyBookingKind.FLOW:
            _flow(update, source, changes, ledger.flows_to)
        elif intent is not None and intent.kind in _OWNERS:
            update.book(source, StrategyBookingKind.FLOW, copy_holdings(update.held), changes)
        else:
            _trade(update, source, changes, None if intent is None else own(intent), adjustments)
    fault = _mismatch(update, balances) or _other_names(update, split)
    if not fault:
        _set_aside(update, aside, ledger.turn)
    return _updated_books(update, split, ledger, fault)


def apply_configured_split(
    step: StepInput,
    ledger: StrategyLedger,
    own: IntentStep,
    adjustments: AdjustmentSource,
    fresh: Sequence[ExternalTransfer] = (),
) -> StrategyBooks:
    """Return the accounts after the owner assigned the current wallet to the strategies of the
    config. An unexplained difference is shared like a transfer. If strategies were added or
    removed, each gets its share of the capital in kind, at reference prices, without a trade;
    removed ones are closed.
    """
    books = update_books(step, ledger, own, adjustments, fresh)
    split, balances = step.config(CapitalSplit), wallet_balances(step.snapshot, step.portfolio)
    update = open_books(step, split, ledger) if split.strategies else None
    if balances is None or update is None or not books.fault:
        return books
    for booking in books.pending:
        update.replay(booking)
    update.done = list(books.pending)
    before, aside = (
        copy_holdings(update.held),
        reserved_balances(step.portfolio, step.limits, balances),
    )
    after = before
    for token in update.tokens:
        after = apply_transfer(
            after, token, balances[token] - aside[token] - update.total(token), update.prices
        )
    names = [strategy.name for strategy in split.strategies]
    if set(names) != set(before):
        after = _resplit(after, split, update)
    update.held = before | {name: {} for name in names if name not in before}
    update.units = {name: update.units.get(name, 0) for name in update.held}
    moved = {token: aside[token] - update.aside.get(token, 0) for token in update.tokens}
    update.book(
        f"change {step.snapshot.head.number} {ledger.turn}",
        StrategyBookingKind.CHANGE,
        after,
        moved,
    )
    update.held = {name: update.held[name] for name in names}
    return _updated_books(update, split, ledger, "")


def netting_booking(
    step: StepInput, step_id: str, adjustments: AdjustmentSource
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
    wished, base = adjustments(step)
    after, _ = settle_trade(base, wished, {}, prices, tokens)
    update.book(f"cross {step_id}", StrategyBookingKind.CROSS, after, {}, base, _acted(wished))
    if update.done[0].changes:
        return update.done[0]
    return None


def _resplit(
    held: StrategyHoldings, split: CapitalSplit, update: StrategyBooksUpdate
) -> StrategyHoldings:
    """Give each strategy its share of the whole, and removed strategies nothing."""
    names = [strategy.name for strategy in split.strategies]
    after: StrategyHoldings = {name: held.get(name, {}) for name in dict.fromkeys((*names, *held))}
    whole = sum(strategy_capital(after, update.prices).values(), Fraction(0))
    due = dict.fromkeys(after, Fraction(0)) | {
        strategy.name: whole * strategy.share_bps / BPS for strategy in split.strategies
    }
    restore_capital_shares(after, due, update.prices)
    # Rounding dust left after the payments above; the first strategy gets it.
    for name in after.keys() - set(names):
        for token, raw in after[name].items():
            after[names[0]][token] = after[names[0]].get(token, 0) + raw
        after[name] = dict.fromkeys(after[name], 0)
    return after


def _open(
    update: StrategyBooksUpdate,
    split: CapitalSplit,
    free: Mapping[str, int],
    aside: Mapping[str, int],
) -> None:
    shares = {strategy.name: Fraction(strategy.share_bps) for strategy in split.strategies}
    holdings: StrategyHoldings = {name: {} for name in shares}
    for token, raw in free.items():
        for name, part in split_pro_rata(raw, shares).items():
            holdings[name][token] = part
    update.held, update.units = {name: {} for name in shares}, dict.fromkeys(shares, 0)
    update.book("open", StrategyBookingKind.OPEN, holdings, aside)


def _events(
    snapshot: Snapshot,
    portfolio: Portfolio,
    ledger: StrategyLedger,
    fresh: Iterable[ExternalTransfer],
) -> list[tuple[str, StrategyBookingKind, dict[str, int], Intent | None]]:
    """Return the asset changes since the stored bookings, oldest first: (source, kind, base units
    by token, transaction).
    """
    native = {asset.token.address for asset in portfolio.assets if asset.native}
    assets = {asset.token.address for asset in portfolio.assets}
    owner = snapshot.owner
    wrapped = portfolio.wrapped_native
    head = snapshot.head.number

    def of_assets(changes: Iterable[tuple[str, int]]) -> dict[str, int]:
        by_asset: dict[str, int] = {}
        for token, raw in changes:
            named = wrapped if token == NATIVE and wrapped in native else token
            if named in assets:
                by_asset[named] = by_asset.get(named, 0) + raw
        return by_asset

    events: list[tuple[int, str, StrategyBookingKind, dict[str, int], Intent | None]] = []
    for intent in ledger.intents:
        if intent.receipt is not None and intent.receipt.block_number <= head:
            changes = of_assets(intent.changes(owner, wrapped).items())
            events.append(
                (intent.receipt.block_number, intent.id, StrategyBookingKind.TRADE, changes, intent)
            )
    for tx_hash, block, moved in ledger.earlier:
        if block <= head:
            events.append((block, tx_hash, StrategyBookingKind.FLOW, of_assets(moved), None))
    for number, flow in enumerate((*ledger.flows, *fresh)):
        source = f"flow {flow.id}" if flow.id else f"{UNRECORDED_TRANSFER} {number}"
        events.append(
            (
                flow.block,
                source,
                StrategyBookingKind.FLOW,
                of_assets([(flow.token, flow.delta_raw)]),
                None,
            )
        )
    return [event[1:] for event in sorted(events, key=lambda event: event[0])]


def _within(
    update: StrategyBooksUpdate, changes: Mapping[str, int]
) -> tuple[dict[str, int], dict[str, int]]:
    """Return the part of changes that strategies bear, and the part beyond all their holdings,
    which reserves bear.
    """
    inside = {token: max(raw, -update.total(token)) for token, raw in changes.items()}
    return inside, {token: raw - inside[token] for token, raw in changes.items()}


def _flow(
    update: StrategyBooksUpdate, source: str, changes: Mapping[str, int], flows_to: str | None
) -> None:
    inside, aside = _within(update, changes)
    after = copy_holdings(update.held)
    for token, raw in inside.items():
        after = apply_transfer(after, token, raw, update.prices, flows_to)
    update.book(source, StrategyBookingKind.FLOW, after, aside)


def _trade(
    update: StrategyBooksUpdate,
    source: str,
    changes: Mapping[str, int],
    own: StepInput | None,
    adjustments: AdjustmentSource,
) -> None:
    """Allocate a transaction by the adjustments and prices of its own step; by capital if they are
    unknown.
    """
    inside, aside = _within(update, changes)
    wished: StrategyValues = {}
    base, prices = update.held, update.prices
    if own is not None:
        known = reference_prices(own).by_token
        own_adjustments, moved = adjustments(own)
        if known.keys() >= set(update.tokens) and moved.keys() == update.held.keys():
            wished, prices = own_adjustments, known
            if _same(update, moved):  # no other booking has changed the accounts since
                base = moved
    after, costs = settle_trade(base, wished, inside, prices, update.tokens)
    update.book(source, StrategyBookingKind.TRADE, after, aside, base, _acted(wished), costs)


def _same(update: StrategyBooksUpdate, moved: StrategyHoldings) -> bool:
    return all(
        sum(tokens.get(token, 0) for tokens in moved.values()) == update.total(token)
        for token in update.tokens
    )


def _acted(wished: StrategyValues) -> tuple[str, ...]:
    return tuple(name for name, adjustment in wished.items() if any(adjustment.values()))


def _mismatch(update: StrategyBooksUpdate, balances: Mapping[str, int]) -> str:
    """Return the balances that differ from the accounts; empty if none does."""
    wrong = []
    for token in update.tokens:
        booked = update.aside.get(token, 0) + update.total(token)
        if booked != balances[token]:
            named = update.step.portfolio.token(token)
            texts = (decimal_text(raw, named.decimals) for raw in (booked, balances[token]))
            wrong.append(f"{named.label}: {' against '.join(texts)} in the wallet")
    if wrong:
        return (
            f"the books of the strategies do not match the wallet's balances ({'; '.join(wrong)});"
            f" {REMEDY}"
        )
    return ""


def _other_names(update: StrategyBooksUpdate, split: CapitalSplit) -> str:
    names = {strategy.name for strategy in split.strategies}
    if names == set(update.held):
        return ""
    gone = ", ".join(sorted(set(update.held) - names))
    new = ", ".join(sorted(names - set(update.held)))
    what = [f"{gone} will be closed"] * bool(gone) + [f"{new} will be opened"] * bool(new)
    return (
        f"the strategies of the config differ from those of the books ({'; '.join(what)}); {REMEDY}"
    )


def _set_aside(update: StrategyBooksUpdate, wanted: Mapping[str, int], turn: int) -> None:
    """Fill reserves and the gas floor first: all strategies pay a shortfall and share an excess."""
    after, moved = copy_holdings(update.held), {}
    for token in update.tokens:
        if raw := wanted[token] - update.aside.get(token, 0):
            after, moved[token] = apply_transfer(after, token, -raw, update.prices), raw
    if moved:
        update.book(
            f"aside {update.step.snapshot.head.number} {turn}",
            StrategyBookingKind.ASIDE,
            after,
            moved,
        )


def _updated_books(
    update: StrategyBooksUpdate, split: CapitalSplit, ledger: StrategyLedger, fault: str
) -> StrategyBooks:
    states = {state.name: state for state in ledger.states}
    now_s = update.step.snapshot.head.timestamp_s
    bookings = (*ledger.bookings, *update.done)
    strategy_books = []
    for name in (strategy.name for strategy in split.strategies if strategy.name in update.held):
        acted = [
            booking.at_s
            for booking in bookings
            if booking.kind in _CARRIED and name in booking.acted
        ]
        costs = sum(
            (
                cost
                for strategy_booking in bookings
                for who, cost in strategy_booking.costs
                if who == name
            ),
            Fraction(0),
        )
        holdings = tuple((token, update.held[name].get(token, 0)) for token in update.tokens)
        state = states.get(name) or StrategyState(name, StrategyHealth.ACTIVE, now_s)
        strategy_books.append(
            StrategyBook(name, holdings, update.units[name], state, max(acted, default=None), costs)
        )
    return StrategyBooks(tuple(strategy_books), fault, tuple(update.done), ledger.turn)


def paused_strategies(
    portfolio: Portfolio, split: CapitalSplit, state: StrategiesState
) -> dict[str, str]:
    """Return a message by name for each strategy that the health rule paused."""
    books = state.books
    levered = {strategy.name for strategy in split.strategies if strategy.market_bps}
    return {
        book.name: (
            f"Strategy {book.name} is paused and held in {portfolio.numeraire.label}"
            f"{', without futures' if book.name in levered else ''}: {book.state.reason}. trimtab"
            " strategies"
        )
        for book in (() if books is None else books.strategies)
        if book.state.health is StrategyHealth.PAUSED
    }
