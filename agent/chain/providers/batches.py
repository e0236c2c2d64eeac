"""Refusals of whole batches: which of a provider's messages are about the size, and its limit."""

from __future__ import annotations

import re

from agent.chain.rpc import RpcFault
from agent.errors import TrimtabError

RESPONSE_TOO_LARGE_CODE = -32003
"""Code of geth for the calls of a batch whose answers together exceed its limit."""
_PER_TIME = re.compile(r"\bper (second|minute|hour|day|month)\b|\brps\b|\brate\b")
_SIZE_LIMIT = re.compile(
    r"\btoo (large|big|long|many)\b|\b(limit\w*|max\w*|exceed\w*|size|more than|at most|up to|only)\b"
)
_CALLS = re.compile(r"\b(requests|calls|items|payloads)\b")
_NO_BATCHES = re.compile(
    r"\b(unsupported|disabled)\b"
    r"|(\bnot|n't) (be )?(supported|allowed|enabled|available|permitted)\b"
)
_NUMBER = re.compile(r"(?<![\d.-])\d{1,9}(?!\d|\.\d)")


class BatchRefused(Exception):
    """A batch was refused because of its size. `limit` is a smaller size that may be accepted,
    `error` what to raise if there is none.
    """

    def __init__(self, limit: int, error: TrimtabError) -> None:
        super().__init__(error.message)
        self.limit = limit
        self.error = error


def smaller_batch(fault: RpcFault, call_count: int) -> int:
    """Return the size to which a batch of `call_count` calls must be split after a refusal: the
    limit in the message, or half of it without one, one call if batches are not supported; 0 if the
    refusal is not about the size. The reason of a revert is a contract's text and does not count.
    """
    message = fault.message.lower()
    if call_count < 2 or "revert" in message or _PER_TIME.search(message):
        return 0
    if fault.code == RESPONSE_TOO_LARGE_CODE and "too large" in message:
        return call_count // 2
    limits = [int(number) for number in _NUMBER.findall(message)]
    stated_limit = max((limit for limit in limits if 0 < limit < call_count), default=0)
    names_limit = _SIZE_LIMIT.search(message) is not None
    if "batch" not in message:
        return stated_limit if names_limit and _CALLS.search(message) else 0
    if names_limit and stated_limit:
        return stated_limit
    if _NO_BATCHES.search(message):
        return 1
    return call_count // 2 if names_limit else 0
