"""What the wallet's balances should be, and what came or went without the agent: the part of the store that keeps accounts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from agent.model import Books, Earlier, Flow, FlowKind, LpMove, Snapshot
from agent.store import balances, earlier, positions
from agent.store.database import Database


class Accounts(Database):
    """Balances, flows, and what was before this store; each method is a transaction of its own."""

    def books(self) -> Books:
        """What balances should be, and the newest flows."""
        with self._read("read the books") as db:
            return balances.books(db, self.wallet, self.coin)

    def note_balances(self, snapshot: Snapshot, found: Mapping[str, int], flows: Sequence[Flow], turn: int) -> bool:
        """Writes unexplained flows down, and the balances `found` as those to go on from. False, and nothing written, when the
        books have been turned since: another process was faster.
        """
        with self._write("write the books") as db:
            return balances.note(db, self.wallet, self.coin, snapshot, found, flows, turn)

    def flows(self, limit: int = 1000) -> tuple[Flow, ...]:
        """The newest unexplained changes of balances, explained ones too, oldest first."""
        with self._read("read the flows") as db:
            return balances.flows(db, limit)

    def tell_flow(self, flow_id: int | None, kind: FlowKind | None, now_s: int) -> tuple[Flow, ...]:
        """What an open flow was, on the owner's word; None means every open one, and what is plainest. Raises ConfigError."""
        with self._write("write what a flow was") as db:
            return balances.tell(db, flow_id, kind, now_s)

    def day_is_known(self, chain_now_s: int) -> bool:
        """Whether all that the wallet did in the last 24 h of chain time is in the books."""
        with self._read("read the books") as db:
            return earlier.is_known(db, chain_now_s)

    def ask_day(self, chain_now_s: int) -> None:
        """Remembers since when the chain was asked in vain what the wallet did before."""
        with self._write("write the books") as db:
            earlier.asked(db, chain_now_s)

    def tell_day(self, found: Iterable[Earlier], nonce: int) -> None:
        """Writes down what the wallet did that this store does not know, up to its next `nonce`: from here on its last 24 h are
        known.
        """
        with self._write("write the books") as db:
            earlier.remember(db, tuple(found), nonce)

    # liquidity
    def liquidity_moves(self) -> tuple[LpMove, ...]:
        """What the agent's own transactions did to liquidity positions, and what it took over, oldest first."""
        with self._read("read liquidity positions") as db:
            return positions.moves(db)

    def positions_are_known(self) -> bool:
        """Whether the wallet was looked through for positions since the store was new, or adopted."""
        with self._read("read liquidity positions") as db:
            return positions.looked(db)

    def mark_left_alone(self) -> None:
        """Remembers that every rise that nobody has explained is left alone, until somebody does."""
        with self._write("write what is left alone") as db:
            balances.mark_left_alone(db)

    def note_positions(self, names: Iterable[str], now_s: int) -> None:
        """Remembers positions that the owner has to decide on."""
        with self._write("write liquidity positions") as db:
            positions.note(db, names, now_s)

    def decide_position(self, name: str, move: LpMove | None, now_s: int) -> None:
        """The owner's word on a position: `move` stands for its mint and it counts from here on, or None and it is forgotten."""
        with self._write("write a liquidity position") as db:
            positions.decide(db, name, move, now_s)
