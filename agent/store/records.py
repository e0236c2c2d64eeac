"""What the store hands out: steps, movements, pins, pause; and the intents of the model from their rows."""

from __future__ import annotations

import zlib
from collections.abc import Hashable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, TypeVar, cast

from agent import codec
from agent.errors import ConfigError, OperatorNeeded
from agent.model import Intent, IntentKind, IntentState, Receipt, UnsignedTx
from agent.store.tables import IntentRow, StepRow

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class StepSummary:
    """A past step in one line; `decision` and `outcome` are None when it was interrupted."""

    id: str
    now_s: int
    decision: str | None
    reason: str | None
    outcome: str | None


@dataclass(frozen=True, slots=True)
class StepRecord:
    """A past step with what it decided from (StepInput as JSON), what it planned (Plan as JSON) and what asked for it (Asked as JSON;
    None in a store of before version 0016).
    """

    line: StepSummary
    input_json: str
    plan_json: str | None
    asked_json: str | None = None


@dataclass(frozen=True, slots=True)
class Movement:
    """A known change of one balance of the wallet, base units with sign; the native coin is units.NATIVE."""

    token: str
    delta_raw: int
    kind: str
    block_number: int
    chain_s: int
    tx_hash: str


@dataclass(frozen=True, slots=True)
class IntentTransition:
    """One transition of an intent, as it was written."""

    intent_id: str
    before: IntentState | None
    after: IntentState
    at_s: int
    tx_hash: str | None
    note: str


@dataclass(frozen=True, slots=True)
class Pin:
    """A contract the owner trusts: address and keccak256 of its code."""

    address: str
    code_hash: str
    pinned_s: int


@dataclass(frozen=True, slots=True)
class Pause:
    """Where the pause switch stands, since when and why; `at_s` is None when it was never turned.

    `hard` says that what waits is cancelled, and what may still be taken is set to zero.
    """

    paused: bool
    reason: str
    at_s: int | None
    hard: bool = False


def compress_text(text: str) -> bytes:
    """Text as it is stored: zlib."""
    return zlib.compress(text.encode())


def decompress_text(data: bytes) -> str:
    """Text from its stored form. Raises OperatorNeeded when the bytes are damaged."""
    try:
        return zlib.decompress(data).decode()
    except (zlib.error, UnicodeDecodeError) as error:
        raise _damaged(str(error)) from None


def decode_json(cls: type[T], text: str) -> T:
    """A model value from its stored JSON. Raises OperatorNeeded when it does not fit."""
    try:
        return cast(T, _read(cast(Hashable, cls), text))
    except ConfigError as error:
        raise _damaged(error.message) from None


@lru_cache(maxsize=256)
def _read(cls: Hashable, text: str) -> object:
    """The same row is read many times within a step. What comes out is frozen all through, so that whoever has it may share it."""
    return codec.loads(cls, text)


def _damaged(why: str) -> OperatorNeeded:
    return OperatorNeeded(f"store: a row is damaged: {why}", "keep the file, restore a backup, compare it with the chain")


def step_summary(row: StepRow | Any) -> StepSummary:
    """The line of a step's row."""
    return StepSummary(row.id, row.now_s, row.decision, row.reason, row.outcome)


def step_record(row: StepRow) -> StepRecord:
    """The whole of a step's row."""
    return StepRecord(
        step_summary(row), decompress_text(row.input_z), None if row.plan_z is None else decompress_text(row.plan_z), row.asked_json
    )


def intent_from_row(row: IntentRow) -> Intent:
    """The model's intent of a row."""
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
