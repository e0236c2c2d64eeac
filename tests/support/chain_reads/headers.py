"""A block header as a node answers it."""

from __future__ import annotations

from agent.chain.rpc import HASHED_HEADER_FIELDS

HEADER = {name: hex(0x10) if is_number else "0x" + "12" * 32 for name, is_number in HASHED_HEADER_FIELDS}
