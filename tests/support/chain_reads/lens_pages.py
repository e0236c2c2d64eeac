"""A node that answers the lens by a script."""

from __future__ import annotations

from collections.abc import Sequence

from agent.chain.lens import PAGE_FORMAT, CallStatus, uint_word
from tests.support.fakes.transport import ScriptedTransport

Answer = bytes | CallStatus


def scripted_lens(*pages: Sequence[Answer]) -> ScriptedTransport:
    """Return a node that answers each request to the lens with the next page."""
    page_bytes = iter(["0x" + (bytes([PAGE_FORMAT]) + b"".join(map(_encoded, page))).hex() for page in pages])
    return ScriptedTransport(eth_call=lambda _params: next(page_bytes))


def word_answers(*numbers: int | CallStatus) -> list[Answer]:
    """Return an answer of one word for each number."""
    return [number if isinstance(number, CallStatus) else uint_word(number) for number in numbers]


def _encoded(answer: Answer) -> bytes:
    return bytes([answer.value]) if isinstance(answer, CallStatus) else b"\0" + len(answer).to_bytes(2, "big") + answer
