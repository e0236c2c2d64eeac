"""Entries and valuations from their stored JSON, many at a time: what codec.loads reads, without going through its general rules.

Whatever is not just as codec.dumps writes it goes to codec.loads, which reads it or says what is wrong.
"""

from __future__ import annotations

import gc
import json
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from typing import Any

from agent.model import Entry, EntryKind, Held, Posting
from agent.store import records

_KINDS = {kind.value: kind for kind in EntryKind}
_ENTRY = {"id", "kind", "block", "chain_s", "tx_hash", "note", "postings", "by_hand"}
_POSTING = {"account", "token", "raw", "value"}
_HELD = {"token", "wallet_raw", "lp_raw", "price", "target_bps"}
_RESERVED = _HELD | {"reserved_raw"}
"""Valuations from before gas money was told apart have no `reserved_raw`: all of them counts as managed."""


@contextmanager
def undisturbed() -> Iterator[None]:
    """Without the garbage collector, which would go through thousands of new objects again and again, though all of them stay."""
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()


class _Unusual(Exception):
    """Not as codec.dumps writes it."""


def entry(text: str) -> Entry:
    """One entry. Raises OperatorNeeded where the row is damaged."""
    try:
        return _entry(json.loads(text))
    except (_Unusual, ValueError, TypeError, KeyError, AttributeError, ZeroDivisionError):
        return records.loaded(Entry, text)


def held(text: str) -> tuple[Held, ...]:
    """What a valuation counted. Raises OperatorNeeded where the row is damaged."""
    try:
        return tuple(map(_held, json.loads(text)))
    except (_Unusual, ValueError, TypeError, KeyError, AttributeError, ZeroDivisionError):
        return records.loaded(tuple[Held, ...], text)


def _entry(data: dict[str, Any]) -> Entry:
    if data.keys() != _ENTRY or type(data["by_hand"]) is not bool or type(data["postings"]) is not list:
        raise _Unusual
    return Entry(
        _text(data["id"]),
        _KINDS[data["kind"]],
        _integer(data["block"]),
        _integer(data["chain_s"]),
        _text(data["tx_hash"]),
        _text(data["note"]),
        tuple(map(_posting, data["postings"])),
        data["by_hand"],
    )


def _posting(data: dict[str, Any]) -> Posting:
    if data.keys() != _POSTING:
        raise _Unusual
    value = data["value"]
    return Posting(_text(data["account"]), _text(data["token"]), _integer(data["raw"]), None if value is None else _fraction(value))


def _held(data: dict[str, Any]) -> Held:
    if data.keys() not in (_RESERVED, _HELD):
        raise _Unusual
    return Held(
        _text(data["token"]),
        _integer(data["wallet_raw"]),
        _integer(data["lp_raw"]),
        _fraction(data["price"]),
        _integer(data["target_bps"]),
        _integer(data.get("reserved_raw", 0)),
    )


def _text(value: object) -> str:
    if type(value) is not str:
        raise _Unusual
    return value


def _integer(value: object) -> int:
    """A JSON integer, or from 2^53 on the text of one."""
    if type(value) is int:
        return value
    if type(value) is str and value.isascii() and value.removeprefix("-").isdecimal():
        return int(value)
    raise _Unusual


def _fraction(value: str) -> Fraction:
    above, _, below = value.partition("/")
    if not below.isdecimal():
        raise _Unusual
    return Fraction(_integer(above), _integer(below))
