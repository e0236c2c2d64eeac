"""What strategies over one wallet need of a store: their books, states and unit values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from agent.model.strategies import Booking, SleeveLedger, SleeveState, UnitPoint


class SleeveJournal(Protocol):
    """Kept with the journal: what a transaction did to the books goes when a reorganisation takes its block."""

    def sleeve_ledger(self) -> SleeveLedger:
        """The books of strategies, and what happened to the wallet that is not booked yet."""
        ...

    def note_sleeves(self, bookings: Sequence[Booking], at_turn: int) -> bool:
        """Writes bookings down; False, and nothing written, when the books of `at_turn` have been turned since."""
        ...

    def note_units(self, states: Sequence[SleeveState], points: Mapping[str, UnitPoint]) -> None:
        """Writes down how strategies stand and what their units are worth, the first of each hour for good."""
        ...

    def unit_points(self, name: str, since_s: int) -> tuple[UnitPoint, ...]:
        """Unit values of one strategy since then, oldest first."""
        ...
