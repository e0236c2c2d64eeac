"""The books of strategies while they are brought up to a block: replayed from what is written down, and what is booked on top."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from agent.model import StepInput
from agent.model.strategies import ASIDE, UNITS, Booking, BookingKind, SleeveLedger, Split
from agent.policy import coin, sleeve_books
from agent.policy.sleeve_books import Held
from agent.reference import reference_prices
from agent.units import Price, Value, floor_int

SCALE = 10**6
"""Units that a new strategy gets for one numeraire base unit."""
ONE = 10**12
"""A unit value of one, as it is at the opening."""


@dataclass
class Desk:
    """Holdings and units by strategy, and what is set aside, at the prices of `step`; `done` are bookings that are new."""

    step: StepInput
    prices: Mapping[str, Price]
    tokens: tuple[str, ...]
    held: Held
    units: dict[str, int]
    aside: dict[str, int]
    done: list[Booking]

    def book(
        self,
        source: str,
        kind: BookingKind,
        after: Held,
        aside: Mapping[str, int],
        base: Held | None = None,
        acted: tuple[str, ...] = (),
        costs: Mapping[str, Value] | None = None,
    ) -> None:
        """Takes `after` for the books. What makes capital other, up to `base` (all of it unless given), issues units or burns them at
        the unit value of before; what comes after that is performance.
        """
        changes = []
        base = after if base is None else base
        for name, tokens in after.items():
            moved = {token: tokens.get(token, 0) - self.held[name].get(token, 0) for token in {**self.held[name], **tokens}}
            changes += [(name, token, raw) for token, raw in moved.items() if raw]
            before, then = sleeve_books.worth(self.held[name], self.prices), sleeve_books.worth(base[name], self.prices)
            if delta := 0 if base[name] == self.held[name] else units_for(self.units[name], before, then):
                changes.append((name, UNITS, delta))
                self.units[name] += delta
        changes += [(ASIDE, token, raw) for token, raw in aside.items() if raw]
        for token, raw in aside.items():
            self.aside[token] = self.aside.get(token, 0) + raw
        self.held = after
        head, spent = self.step.snapshot.head, tuple((costs or {}).items())
        self.done.append(Booking(source, kind, head.number, head.timestamp_s, tuple(changes), acted, spent))

    def replay(self, booking: Booking) -> None:
        """Takes over what is written down."""
        for name, token, raw in booking.changes:
            if name == ASIDE:
                self.aside[token] = self.aside.get(token, 0) + raw
                continue
            tokens = self.held.setdefault(name, {})
            self.units.setdefault(name, 0)
            if token == UNITS:
                self.units[name] += raw
            else:
                tokens[token] = tokens.get(token, 0) + raw

    def total(self, token: str) -> int:
        """Base units of a token that all strategies hold."""
        return sum(tokens.get(token, 0) for tokens in self.held.values())


def opened(step: StepInput, split: Split, ledger: SleeveLedger) -> Desk | None:
    """The books as they are written down, as of the step's block; None without every price."""
    tokens = tuple(asset.token.address for asset in step.portfolio.assets)
    prices = {token: found.price for token, found in reference_prices(step).prices.items()}
    if not prices.keys() >= set(tokens):
        return None
    desk = Desk(step, prices, tokens, {}, {}, {}, [])
    for booking in ledger.bookings:
        if booking.block <= step.snapshot.head.number:
            desk.replay(booking)
    wanted = {one.name for one in split.strategies}
    for name in [name for name, held in desk.held.items() if name not in wanted and not any(held.values())]:
        del desk.held[name], desk.units[name]  # closed
    return desk


def units_for(units: int, before: Value, after: Value) -> int:
    """Units issued (or burnt) when a strategy worth `before` is made worth `after`: at its unit value, rounded down."""
    if before > 0 and units > 0:
        return floor_int(units * (after - before) / before)
    return floor_int(after * SCALE) - units


def unit_value(value: Value, units: int) -> int | None:
    """Value of a unit in 10^-12, as it was 10^12 at the opening; None for a strategy without units."""
    return floor_int(value * SCALE * ONE / units) if units > 0 else None


def wallet(step: StepInput) -> dict[str, int] | None:
    """Base units of each asset in the wallet, native coin with its wrapped token where it counts; None where one is not known."""
    read: dict[str, set[int]] = {}
    for holding in step.snapshot.holdings:
        read.setdefault(holding.token, set()).add(holding.raw)
    unsure = {item.address for item in step.snapshot.quarantined}
    found = {}
    for asset in step.portfolio.assets:
        raws = read.get(asset.token.address, set())
        if len(raws) != 1 or asset.token.address in unsure:
            return None
        found[asset.token.address] = next(iter(raws)) + (step.snapshot.native_wei if asset.native else 0)
    return found


def kept(step: StepInput, balances: Mapping[str, int]) -> dict[str, int]:
    """What of each balance is left alone, and so belongs to no strategy."""
    assets = step.portfolio.assets
    return {asset.token.address: min(balances[asset.token.address], coin.kept_raw(step, asset)) for asset in assets}
