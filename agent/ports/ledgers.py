"""What the double-entry ledger needs of a store: entries of final intents, what places opened with, values over time."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from fractions import Fraction
from typing import Protocol

from agent.model import Entry, Intent, Snapshot, Stand, Valuation
from agent.units import Token


class Ledger(Protocol):
    """Kept with the journal: an entry goes in one transaction with the receipt that a reorganisation takes."""

    def unentered(self) -> tuple[Intent, ...]:
        """Final and reverted intents that the book lacks, oldest first."""
        ...

    def unsettled(self) -> tuple[Intent, ...]:
        """Intents that have not ended, or ended in a block and are not in the book yet, oldest first."""
        ...

    def enterable(self) -> tuple[Intent, ...]:
        """All final and reverted intents since the book opened, in the order of the chain, whether they are in it or not."""
        ...

    def entered(self) -> tuple[Entry, ...]:
        """Entries of intents, as they were written."""
        ...

    def ledger(self) -> tuple[Entry, ...]:
        """Every entry of the book, in the order of the chain."""
        ...

    def counted(self, intent_id: str) -> frozenset[str]:
        """Tokens whose movements by that intent belong into the book."""
        ...

    def by_hand(self, intent_id: str) -> bool:
        """Whether the plan of that intent's step was asked for by hand."""
        ...

    def principal(self, position: str) -> dict[str, int]:
        """What was put into a liquidity position and not taken out, base units by token."""
        ...

    def enter(self, intent: Intent, entry: Entry) -> bool:
        """Writes the entry of a final intent; False where it has one, or another receipt by now."""
        ...

    def open_places(self, snapshot: Snapshot, found: Mapping[tuple[str, str], tuple[int, Fraction | None]]) -> tuple[tuple[str, str], ...]:
        """Takes (place, token) with (base units, value) into the book that are not in it, once nothing of ours is on its way."""
        ...

    def has_places(self, places: Iterable[tuple[str, str]]) -> bool:
        """Whether all of these are in the book, or are positions of the agent's own making."""
        ...

    def stands(self, head_block: int) -> tuple[Stand, ...]:
        """What the wallet should hold at that block by the ledger."""
        ...

    def name_tokens(self, tokens: Sequence[Token], numeraire: Token, coin: str) -> None:
        """Remembers what tokens are called, also once they have left the portfolio."""
        ...

    def value(self, found: Valuation, forced: bool) -> bool:
        """Writes down what all is worth; at most once an hour unless `forced`."""
        ...

    def valued_block(self) -> int:
        """Block of the newest valuation; -1 where there is none."""
        ...
