"""A reader that also watches what the agent itself opened: positions become part of the snapshot as soon as the store knows them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import replace

from agent.chain.positions import Place, PositionRef
from agent.chain.reader import ChainReader
from agent.lp import own
from agent.model import ConfirmedPosition, Head, LpMove, PastPrices, Snapshot


class PositionReader:
    """ports.Reader over a ChainReader, with the positions of the moment: those of `found`, and those that `moves` opened.

    `known` says which positions count, given the moves. Where a position that the agent minted lies is known from its own
    transaction; the snapshot then proves it, like that of any other.
    """

    def __init__(
        self,
        reader: ChainReader,
        found: Sequence[PositionRef],
        factories: dict[str, str],
        moves: Callable[[], Sequence[LpMove]],
        known: Callable[[Sequence[LpMove]], tuple[ConfirmedPosition, ...]],
    ) -> None:
        self.chain = reader
        self._found = {ref.confirmed.name: ref for ref in found}
        self._factories = factories
        self._moves = moves
        self._known = known

    def snapshot(self) -> Snapshot:
        """See ports.Reader."""
        moves = self._moves()
        refs = tuple(self._ref(one, moves) for one in self._known(moves))
        if refs != self.chain.watch.positions:
            self.chain.watch = replace(self.chain.watch, positions=refs)
        return self.chain.snapshot()

    def past(self, head: Head, blocks: int) -> tuple[PastPrices, ...]:
        """See ports.Reader."""
        return self.chain.past(head, blocks)

    def deeper(self, snapshot: Snapshot, pools: Collection[str]) -> Snapshot:
        """See ports.Reader."""
        return self.chain.deeper(snapshot, pools)

    def _ref(self, one: ConfirmedPosition, moves: Sequence[LpMove]) -> PositionRef:
        found = self._found.get(one.name)
        if found is not None:
            return replace(found, confirmed=one)
        return PositionRef(
            one, self._factories[one.venue], next((_place(mint) for mint in own.opened(moves) if mint.name == one.name), None)
        )


def _place(mint: LpMove) -> Place:
    lower, upper = mint.ticks or (0, 0)
    return Place(mint.pool, mint.fee_pips, lower, upper)
