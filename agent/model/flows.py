"""Changes of the wallet's balances that the books do not explain, and what the books say of each balance."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from fractions import Fraction

from agent.units import Value


class FlowKind(Enum):
    """What an unexplained change was. REBASE, GAS_MONEY, UNDONE and ACCEPTED are told by themselves, the others by the owner.

    UNDONE is a fall that came back to the last base unit, and the rise that brought it back. ACCEPTED is a rise that nobody
    explained within limits.balance_jump_wait: it counts as a deposit, and its owner may still call it something else.
    """

    DEPOSIT = "deposit"
    WITHDRAWAL = "withdrawal"
    GIFT = "gift"
    LOSS = "loss"
    REBASE = "rebase"
    GAS_MONEY = "gas money"
    UNDONE = "undone"
    ACCEPTED = "accepted"


FALLS_OF_OTHERS = (FlowKind.WITHDRAWAL, FlowKind.UNDONE)
"""Kinds of a fall that is nobody's loss. Every other fall counts as one, also while nobody has said what it was."""


@dataclass(frozen=True, slots=True)
class Flow:
    """A change of one balance between two blocks that no transaction of the agent made, base units with sign.

    `value` is in numeraire base units with sign at the reference price when it was found, or once there was one (None: no price
    yet). `chain_s` is chain time when it was found. `halts` says that it went beyond limits.balance_jump: nothing is bought or
    rebalanced until its `kind` is known. Exits, withdrawals and the end of a bot go on.
    `id` is 0 while it is not written down. `undoes` are ids of open falls that this rise brings back: they end with it.
    """

    id: int
    token: str
    delta_raw: int
    value: Value | None
    since_block: int
    block: int
    chain_s: int
    halts: bool
    kind: FlowKind | None
    undoes: tuple[int, ...] = ()

    @property
    def is_open(self) -> bool:
        """Whether nobody has said what it was."""
        return self.kind is None

    @property
    def holds(self) -> bool:
        """Whether it holds purchases and rebalances back now."""
        return self.halts and self.is_open

    @property
    def is_loss(self) -> bool:
        """Whether it counts against limits.daily_loss: every fall that the owner has not called a withdrawal."""
        return self.delta_raw < 0 and self.kind not in FALLS_OF_OTHERS


@dataclass(frozen=True, slots=True)
class Opening:
    """What a balance was at `block` with every transaction in Books.own taken off; units.NATIVE is the native coin."""

    token: str
    raw: int
    block: int


@dataclass(frozen=True, slots=True)
class OwnChange:
    """What one mined transaction of the agent did to one balance, its gas included."""

    token: str
    delta_raw: int
    block: int


@dataclass(frozen=True, slots=True)
class Books:
    """What balances should be: openings, own transactions since, and the newest flows.

    `unsettled_nonce` is the lowest nonce of ours whose end the journal does not know yet; `turn` counts how often the openings
    were written, so that two processes do not write one flow twice.
    """

    openings: tuple[Opening, ...]
    own: tuple[OwnChange, ...]
    flows: tuple[Flow, ...]
    unsettled_nonce: int | None
    turn: int


@dataclass(frozen=True, slots=True)
class Earlier:
    """A transaction of the wallet that the store did not send: what it used up of the limits of a day, and did to balances.

    Values in numeraire base units, `changes` as (token, base units with sign), gas included. `outflow` is what it gave away for
    nothing in return.
    """

    tx_hash: str
    block: int
    chain_s: int
    turnover: Value
    loss: Value
    gas_wei: int
    changes: tuple[tuple[str, int], ...]
    outflow: Value = Fraction(0)
