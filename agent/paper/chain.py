"""The chain that paper transactions go to: real blocks and pools, a wallet of its own, and nothing that could reach a node."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Protocol

from agent.backtest import router
from agent.backtest.keyless import unsigned
from agent.backtest.router import FAILED_UNITS, Beyond, Effects, Place, Reverted
from agent.errors import OperatorNeeded
from agent.model import Allowance, Head, Holding, Paper, PaperTx, PoolState, Receipt, SignedTx, Snapshot, UnsignedTx, V3Pool
from agent.ports import Reader, Simulation, TxSeen

RECEIPTS, BLOCKS = 16, 256
"""How many of the newest are kept: a journal asks for receipts of what is not final, and for blocks of what was lately."""


class Book(Protocol):
    """Where the paper wallet is kept; what a method wrote is on disk when it returns."""

    def paper(self) -> Paper | None:
        """The wallet; None before it began."""
        ...

    def keep_paper(self, state: Paper) -> None:
        """Writes how it stands now."""
        ...


class PaperChain:
    """ports.Sender. A transaction is carried out at the pools of the first snapshot of a later block than the one it was sent at.

    So nothing is filled at a price that was only seen before. What it does to pools lasts for its block alone: the next snapshot
    has the real ones. The gas is that of the planner's model at the header's fees. Its own blocks are never reorganised away.
    """

    def __init__(self, book: Book, reader: Reader, heads: Callable[[], Head], place: Place) -> None:
        """`reader` reads the real chain, `heads` its newest header; neither can send."""
        self._book = book
        self._reader = reader
        self._heads = heads
        self._place = place
        self._seen: Snapshot | None = None

    # what reading needs
    def state(self) -> Paper:
        """The wallet as it stands. Raises OperatorNeeded before it began."""
        found = self._book.paper()
        if found is None:
            raise OperatorNeeded("there is no paper wallet yet", "trimtab paper begins one")
        return found

    def snapshot(self) -> Snapshot:
        """The real chain now, with the real wallet."""
        self._seen = self._reader.snapshot()
        return self._seen

    def real(self, block_hash: str) -> Snapshot | None:
        """The newest real snapshot, if it is of that block."""
        return self._seen if self._seen is not None and self._seen.head.hash == block_hash else None

    # ports.Sender
    def head(self) -> Head:
        """See ports.Sender."""
        head = self._heads()
        self._catch_up(head)
        return head

    def block_hash(self, number: int) -> str | None:
        """See ports.Sender; known of blocks that hold a transaction of its own."""
        return dict(self.state().blocks).get(number)

    def nonces(self, _owner: str) -> tuple[int, int]:
        """See ports.Sender."""
        self._catch_up(None)
        state = self.state()
        return state.nonce, state.nonce + len(state.waiting)

    def simulate(self, tx: UnsignedTx, _sender: str) -> Simulation:
        """See ports.Sender: at the pools of the newest block."""
        head = self._heads()
        self._catch_up(head)
        seen = self._seen
        if seen is None or seen.head.number < head.number:
            seen = self.snapshot()
        try:
            try:
                done = self._run(tx, self.state(), _pools(seen), seen.head)
            except Beyond:
                done = self._run(tx, self.state(), _pools(self._deeper(seen)), seen.head)
        except Reverted as error:
            return Simulation(False, str(error), 0, seen.head, reverted=True)
        return Simulation(True, "", done.gas, seen.head)

    def send(self, signed: SignedTx) -> None:
        """See ports.Sender. What is at the same nonce already makes way, as in a pool of transactions."""
        state, tx = self.state(), unsigned(signed)
        if any(one.hash == signed.hash for one in state.waiting) or any(one.tx_hash == signed.hash for one in state.receipts):
            return
        if tx.nonce < state.nonce:
            raise OperatorNeeded(f"nonce {tx.nonce} of the paper wallet is used", "remove the paper store to begin anew")
        sent_block = max(self._heads().number, 0 if self._seen is None else self._seen.head.number)
        others = tuple(one for one in state.waiting if one.tx.nonce != tx.nonce)
        waiting = tuple(sorted((*others, PaperTx(signed.hash, tx, sent_block)), key=lambda one: one.tx.nonce))
        self._book.keep_paper(replace(state, waiting=waiting))

    def look(self, tx_hash: str) -> TxSeen:
        """See ports.Sender."""
        self._catch_up(None)
        state = self.state()
        for receipt in state.receipts:
            if receipt.tx_hash == tx_hash:
                return TxSeen("mined", receipt)
        return TxSeen("pending" if any(one.hash == tx_hash for one in state.waiting) else "unknown", None)

    # filling
    def _catch_up(self, head: Head | None) -> None:
        """Carries out what waits, once a block has come since."""
        state = self.state()
        if not state.waiting:
            return
        since = state.waiting[0].sent_block
        if (self._heads() if head is None else head).number <= since:
            return
        seen = self.snapshot()
        if seen.head.number > since:
            self._fill(state, seen)

    def _fill(self, state: Paper, seen: Snapshot) -> None:
        """The next nonces, one after the other in one block, as far as each was sent before it and pays the block's fee."""
        try:
            filled, left = self._filled(state, _pools(seen), seen.head, further=True)
        except Beyond:
            filled, left = self._filled(state, _pools(self._deeper(seen)), seen.head, further=False)
        if len(left) < len(state.waiting):
            blocks = (*state.blocks, (seen.head.number, seen.head.hash))[-BLOCKS:]
            self._book.keep_paper(replace(filled, waiting=tuple(left), block=seen.head.number, blocks=blocks))

    def _filled(self, state: Paper, pools: dict[str, PoolState], head: Head, *, further: bool) -> tuple[Paper, list[PaperTx]]:
        """The wallet after them, and what still waits. Raises Beyond where one needs more ticks than were read, and there may be some."""
        left = list(state.waiting)
        while left and left[0].tx.nonce == state.nonce and left[0].sent_block < head.number:
            price_wei = _price_wei(left[0].tx, head)
            if price_wei is None:
                break
            state, pools = self._applied(state, left.pop(0), pools, head, price_wei, further)
        return state, left

    def _deeper(self, seen: Snapshot) -> Snapshot:
        """The same with more ticks of its V3 pools."""
        return self._reader.deeper(seen, [pool.address for pool in seen.pools if isinstance(pool, V3Pool)])

    def _applied(
        self, state: Paper, one: PaperTx, pools: dict[str, PoolState], head: Head, price_wei: int, further: bool
    ) -> tuple[Paper, dict[str, PoolState]]:
        """The wallet and the pools after a transaction, which may have reverted."""
        try:
            done: Effects | None = self._run(one.tx, state, pools, head)
        except Reverted as error:
            if further and isinstance(error, Beyond):
                raise
            done = None
        units = min(one.tx.gas, FAILED_UNITS) if done is None else done.gas
        if done is not None and (units > one.tx.gas or done.native_wei < units * price_wei):
            done, units = None, one.tx.gas
        receipt = Receipt(
            tx_hash=one.hash,
            status=int(done is not None),
            block_number=head.number,
            block_hash=head.hash,
            gas_used=units,
            effective_gas_price_wei=price_wei,
            transfers=() if done is None else tuple(done.transfers),
            wrapped=() if done is None else tuple(done.wrapped),
        )
        state = replace(
            state,
            nonce=state.nonce + 1,
            native_wei=max(0, (state.native_wei if done is None else done.native_wei) - units * price_wei),
            receipts=(*state.receipts, receipt)[-RECEIPTS:],
        )
        if done is None:
            return state, pools
        balances = tuple(Holding(token, raw) for token, raw in sorted(done.balances.items()))
        allowances = tuple(Allowance(token, self._place.router, raw) for token, raw in sorted(done.allowances.items()))
        return replace(state, balances=balances, allowances=allowances), done.pools

    def _run(self, tx: UnsignedTx, state: Paper, pools: Mapping[str, PoolState], head: Head) -> Effects:
        return router.run(
            tx.to,
            tx.data,
            {held.token: held.raw for held in state.balances},
            {one.token: one.raw for one in state.allowances if one.spender == self._place.router},
            pools,
            head.timestamp_s,
            self._place,
            tx.value_wei,
            state.native_wei,
        )


def _pools(seen: Snapshot) -> dict[str, PoolState]:
    return {pool.address: pool for pool in seen.pools}


def _price_wei(tx: UnsignedTx, head: Head) -> int | None:
    """What a unit of gas costs in that block; None where the block takes no transaction that pays so little."""
    base_wei = head.base_fee_wei or 0
    if tx.max_fee_wei is None:
        price_wei = tx.gas_price_wei or 0
        return price_wei if price_wei >= base_wei else None
    return None if tx.max_fee_wei < base_wei else min(tx.max_fee_wei, base_wei + (tx.max_priority_fee_wei or 0))
