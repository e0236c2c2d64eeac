"""Values of the store from rows: steps, transitions and intents, and decoding of stored columns."""

from __future__ import annotations

import zlib
from collections.abc import Hashable
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from typing import Any, TypeVar, cast

from sqlalchemy import Row

from agent import codec
from agent.errors import ConfigError
from agent.model import Intent, IntentKind, IntentState, Receipt, UnsignedTx
from agent.store.database.errors import damaged_row_error
from agent.store.tables import IntentRow, StepRow

T = TypeVar("T")


def parse_whole(number_text: str, place: str) -> int:
    """Return a stored whole number. Raises OperatorNeeded, naming its place, if it is damaged."""
    try:
        return int(number_text)
    except (ValueError, TypeError) as error:
        raise damaged_row_error(str(error), place) from None


def parse_fraction(fraction_text: str, place: str = "a budget entry") -> Fraction:
    """Return a stored fraction. Raises OperatorNeeded, naming its place, if it is damaged."""
    try:
        return Fraction(fraction_text)
    except (ValueError, TypeError, ZeroDivisionError) as error:
        raise damaged_row_error(str(error), place) from None


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

    `request_json`, the request, is None if it was not recorded.
    """

    summary: StepSummary
    input_json: str
    plan_json: str | None
    request_json: str | None = None


@dataclass(frozen=True, slots=True)
class IntentTransition:
    """One recorded transition of an intent."""

    intent_id: str
    old_state: IntentState | None
    new_state: IntentState
    at_s: int
    tx_hash: str | None
    note: str


def compress_text(text: str) -> bytes:
    """Compress text by zlib."""
    return zlib.compress(text.encode())


def decompress_text(compressed_text: bytes) -> str:
    """Decompress stored text. Raises OperatorNeeded if the bytes are damaged."""
    try:
        return zlib.decompress(compressed_text).decode()
    except (zlib.error, UnicodeDecodeError) as error:
        raise damaged_row_error(str(error)) from None


def decode_json(cls: type[T], text: str) -> T:
    """Decode a model value from stored JSON. Raises OperatorNeeded if the row is damaged."""
    try:
        decode = _decode_short if len(text) <= MAX_SHORT_CHARS else _decode_long
        return cast(T, decode(cast(Hashable, cls), text))
    except ConfigError as error:
        raise damaged_row_error(error.message) from None


def decode_optional(cls: type[T], text: str | None) -> T | None:
    """Decode as `decode_json`; None stays None."""
    return None if text is None else decode_json(cls, text)


MAX_SHORT_CHARS = 4_096
"""Longest text of which many decoded values are kept. Plans and their grants are longer: hundreds of
them would be tens of megabytes.
"""


@lru_cache(maxsize=256)
def _decode_short(cls: Hashable, text: str) -> object:
    """Decode with a cache, because a step reads the same row many times and results are
    immutable.
    """
    return codec.loads(cls, text)


@lru_cache(maxsize=16)
def _decode_long(cls: Hashable, text: str) -> object:
    """Decode as `_decode_short`, keeping few values: those of the transactions that are open."""
    return codec.loads(cls, text)


def step_summary(row: StepRow | Row[*tuple[Any, ...]]) -> StepSummary:
    """Build the summary of a step's row."""
    return StepSummary(row.id, row.now_s, row.decision, row.reason, row.outcome)


def step_record(row: StepRow) -> StepRecord:
    """Build the record of a step's row."""
    return StepRecord(
        step_summary(row),
        decompress_text(row.input_z),
        None if row.plan_z is None else decompress_text(row.plan_z),
        row.request_json,
    )


def intent_from_row(row: IntentRow) -> Intent:
    """Build the model's intent from a row."""
    try:
        kind = IntentKind(row.kind)
        state = IntentState(row.state)
    except ValueError as error:
        raise damaged_row_error(str(error)) from None
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
        receipt=decode_optional(Receipt, row.receipt_json),
        replaced_intent_id=row.replaces,
    )
