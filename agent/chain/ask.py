"""Puts lens items to one endpoint: pages in one batch, and one more batch for what did not fit."""

from __future__ import annotations

from collections.abc import Sequence

from agent.chain.lens import PAGE_GAS, Answer, Item, Status, creation_code, decode, pages
from agent.chain.rpc import CallFailed, RpcFault, Transport
from agent.chain.wire import Call, octets
from agent.errors import Retryable

_SMALLER = 8


def ask(transport: Transport, items: Sequence[Item], at: object = "latest") -> list[Answer]:
    """Answers to `items` at one block, in one request, two when the node gave too little gas. Raises Retryable."""
    if not items:
        return []
    sized = pages(items)
    answers = complete(transport, items, sized, transport.batch(page_calls(items, sized, at)), at)
    if Status.UNREAD in answers:
        raise Retryable(f"{transport.name} gives too little gas to read one item", "use an endpoint that gives eth_call more gas")
    return answers


def page_calls(items: Sequence[Item], sized: Sequence[Sequence[int]], at: object) -> list[Call]:
    """The JSON-RPC calls of all pages."""
    return [("eth_call", [{"data": creation_code([items[i] for i in page])}, at]) for page in sized]


def complete(
    transport: Transport, items: Sequence[Item], sized: Sequence[Sequence[int]], answered: Sequence[object], at: object
) -> list[Answer]:
    """All answers in the order of `items`; what lacked gas, or was on a page that the node refused, is asked once more.

    Raises CallFailed when the node refuses smaller pages too. An item that still lacks gas is Status.UNREAD.
    """
    answers = _decoded(transport, items, sized, answered)
    unread = [i for i in range(len(items)) if answers.get(i, Status.UNREAD) is Status.UNREAD]
    if unread:
        rest = [items[i] for i in unread]
        smaller = pages(rest, PAGE_GAS // _SMALLER)
        answered = transport.batch(page_calls(rest, smaller, at))
        refused = next((answer for answer in answered if isinstance(answer, RpcFault)), None)
        if refused is not None:
            raise CallFailed(f"{transport.name} refused the lens: {refused.message}", refused, "it must allow eth_call of creation code")
        again = _decoded(transport, rest, smaller, answered)
        answers |= {unread[i]: answer for i, answer in again.items()}
    return [answers[i] for i in range(len(items))]


def _decoded(transport: Transport, items: Sequence[Item], sized: Sequence[Sequence[int]], answered: Sequence[object]) -> dict[int, Answer]:
    """Answers by index of item; pages that the node refused are left out."""
    answers: dict[int, Answer] = {}
    for page, answer in zip(sized, answered, strict=True):
        if not isinstance(answer, RpcFault):
            read = decode([items[i] for i in page], octets(answer, f"the lens from {transport.name}"))
            answers |= dict(zip(page, read, strict=True))
    return answers
