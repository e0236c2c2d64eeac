"""Types that the store returns (steps, movements, pins, pause), and decoding of stored values."""

from __future__ import annotations

import zlib
from collections.abc import Hashable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, TypeVar, cast

from agent import codec
from agent.errors import ConfigError, ErrorCode, OperatorNeeded
from agent.model import Intent, IntentKind, IntentState, Receipt, UnsignedTx
from agent.store.tables import IntentRow, StepRow
from agent.units import NATIVE

FUTURES_REDUCTION = "futures_reduction"
"""Budget kind of a futures reduction outside of emergencies; its turnover is the notional, which
turnover limits ignore.
"""
FUTURES_EMERGENCY = "futures_emergency"
"""Budget kind of a position closed ahead of liquidation."""
FUTURES_DEPOSIT = "futures_deposit"
"""Budget kind of a margin deposit; its turnover is the collateral, which turnover limits ignore
too.
"""

FUTURES_KINDS = (
    IntentKind.FUTURES.value,
    FUTURES_REDUCTION,
    FUTURES_EMERGENCY,
    FUTURES_DEPOSIT,
)
"""Budget kinds of the futures layer."""

UNTRIGGERED_SWAP = "swap_besides"
"""Budget kind of a swap without a trigger: an exit, a withdrawal, an investment, a swap by hand."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class StepSummary:
    """Summary of a past step; `decision` and `outcome` are None if it was interrupted."""

    id: str
    now_s: int
    decision: str | None
    reason: str | None
    outcome: str | None


@dataclass(frozen=True, slots=True)
class StepRecord:
    """A past step with StepInput, Plan and StepRequest as JSON.

    `asked_json`, the request, is None for steps from before store version 0016.
    """

    line: StepSummary
    input_json: str
    plan_json: str | None
    asked_json: str | None = None


@dataclass(frozen=True, slots=True)
class Movement:
    """A known change of one balance of the wallet, in signed base units; native coin is
    units.NATIVE.
    """

    token: str
    delta_raw: int
    kind: str
    block_number: int
    chain_s: int
    tx_hash: str


@dataclass(frozen=True, slots=True)
class IntentTransition:
    """One recorded transition of an intent."""

    intent_id: str
    before: IntentState | None
    after: IntentState
    at_s: int
    tx_hash: str | None
    note: str


@dataclass(frozen=True, slots=True)
class Pin:
    """A trusted contract: address and keccak256 of its code."""

    address: str
    code_hash: str
    pinned_s: int


@dataclass(frozen=True, slots=True)
class Pause:
    """State of the pause switch, with time and reason; `at_s` is None if it was never used.

    A hard pause also cancels pending transactions and revokes allowances.
    """

    paused: bool
    reason: str
    at_s: int | None
    hard: bool = False


def compress_text(text: str) -> bytes:
    """Compress text by zlib."""
    return zlib.compress(text.encode())


def decompress_text(data: bytes) -> str:
    """Decompress stored text. Raises OperatorNeeded if the bytes are damaged."""
    try:
        return zlib.decompress(data).decode()
    except (zlib.error, UnicodeDecodeError) as error:
        raise _damaged(str(error)) from None


def decode_json(cls: type[T], text: str) -> T:
    """Decode a model value from stored JSON. Raises OperatorNeeded if the row is damaged."""
    try:
        return cast(T, _read(cast(Hashable, cls), text))
    except ConfigError as error:
        raise _damaged(error.message) from None


@lru_cache(maxsize=1_024)
def _read(cls: Hashable, text: str) -> object:
    """Decode with a cache, because a step reads the same row many times and results are
    immutable.
    """
    return codec.loads(cls, text)


def _damaged(why: str) -> OperatorNeeded:
    return OperatorNeeded(
        f"store: a row is damaged: {why}",
        "keep the file, restore a backup, compare it with the chain",
        code=ErrorCode.DAMAGED,
    )


def step_summary(row: StepRow | Any) -> StepSummary:
    """Build the summary of a step's row."""
    return StepSummary(row.id, row.now_s, row.decision, row.reason, row.outcome)


def step_record(row: StepRow) -> StepRecord:
    """Build the record of a step's row."""
    return StepRecord(
        step_summary(row),
        decompress_text(row.input_z),
        None if row.plan_z is None else decompress_text(row.plan_z),
        row.asked_json,
    )


def intent_from_row(row: IntentRow) -> Intent:
    """Build the model's intent from a row."""
    try:
        kind, state = IntentKind(row.kind), IntentState(row.state)
    except ValueError as error:
        raise _damaged(str(error)) from None
    return Intent(
        id=row.id,
        step_id=row.step_id,
        kind=kind,
        state=state,
        tx=decode_json(UnsignedTx, row.tx_json),
        note=row.note,
        created_s=row.created_s,
        deadline_s=row.deadline_s,
        tx_hash=row.tx_hash,
        receipt=None if row.receipt_json is None else decode_json(Receipt, row.receipt_json),
        replaces=row.replaces,
    )


def movements(intent: Intent, wallet: str, coin: str, chain_s: int) -> tuple[Movement, ...]:
    """Return the balance changes of `wallet` from the receipt of an intent: tokens by events,
    native coin sent or unwrapped, gas. Only the Withdrawal events of `coin` count, because any
    contract may emit one.
    """
    receipt = intent.receipt
    if receipt is None:
        return ()
    changes = [
        (token, delta, intent.kind.value)
        for token, delta in sorted(receipt.net(wallet).items())
        if delta
    ]
    if native_wei := intent.coins(wallet, coin):
        changes.append((NATIVE, native_wei, intent.kind.value))
    if receipt.gas_cost_wei:
        changes.append((NATIVE, -receipt.gas_cost_wei, "gas"))
    return tuple(
        Movement(token, delta, kind, receipt.block_number, chain_s, receipt.tx_hash)
        for token, delta, kind in changes
    )
