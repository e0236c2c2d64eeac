"""The paper trading wallet and its pending transactions."""

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
    """Balances, allowances and transactions of the paper wallet as of `block`, in base units and wei. `waiting` are not executed yet.

    `receipts` are the newest ones, `blocks` (number, hash) of the newest blocks with a transaction of this wallet.
    """

    balances: tuple[Holding, ...]
    allowances: tuple[Allowance, ...]
    native_wei: int
    nonce: int
    block: int
    waiting: tuple[PaperTx, ...] = ()
    receipts: tuple[Receipt, ...] = ()
    blocks: tuple[tuple[int, str], ...] = ()
