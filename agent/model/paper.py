"""The wallet of paper trading, and the chain of its own that its transactions are on."""

from __future__ import annotations

from dataclasses import dataclass

from agent.model.market import Allowance, Holding
from agent.model.transactions import Receipt, UnsignedTx


@dataclass(frozen=True, slots=True)
class PaperTx:
    """A transaction that waits for a block above `sent_block`; `hash` is that of its fields, no chain's."""

    hash: str
    tx: UnsignedTx
    sent_block: int


@dataclass(frozen=True, slots=True)
class PaperWallet:
    """What the wallet has, allows and has sent, as of `block`: base units, wei. Only `waiting` is still to be carried out.

    `receipts` are the newest ones, `blocks` (number, hash) of the newest blocks that held a transaction of its own.
    """

    balances: tuple[Holding, ...]
    allowances: tuple[Allowance, ...]
    native_wei: int
    nonce: int
    block: int
    waiting: tuple[PaperTx, ...] = ()
    receipts: tuple[Receipt, ...] = ()
    blocks: tuple[tuple[int, str], ...] = ()
