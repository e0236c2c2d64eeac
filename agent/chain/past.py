"""Reads what the blocks just before a head say of prices: feeds and pools of each block by its hash, agreed by enough operators."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from agent.chain.ask import complete, page_calls
from agent.chain.ballot import NoQuorum, agreed
from agent.chain.lens import Answer, pages
from agent.chain.panel import Endpoint, Panel
from agent.chain.watch import Watch, parts, questions
from agent.chain.wire import Call, only, parse_head
from agent.errors import Retryable
from agent.model import Head, PastPrices

Told = tuple[tuple[Head, tuple[Answer, ...]], ...]
"""What one endpoint says: each block's header, and the lens's answers there."""


def read_past(panel: Panel, min_operators: int, watch: Watch, head: Head, blocks: int) -> tuple[PastPrices, ...]:
    """Newest first; fewer where the chain is younger. Two requests per endpoint.

    Full nodes keep the state of the newest 128 blocks, so that none needs an archive. Raises NoQuorum where too few operators
    say the same, Retryable where too few answer or the chain was reorganised meanwhile.
    """
    heights = range(head.number - 1, max(-1, head.number - 1 - blocks), -1)
    if not heights:
        return ()
    narrow = replace(watch, tokens=(), spenders=(), code=(), positions=(), lp_spender=None, supplies=())
    items = [question.item for question in questions(narrow)]
    sized, what = pages(items), f"the prices of the {len(heights)} blocks before block {head.number}"

    def tell(line: Endpoint) -> Told:
        now, *before = _headers(line, head, heights)
        if now.hash != head.hash:
            raise Retryable(f"{line.name} no longer has block {head.number} as it was a moment ago", "a reorganisation; look again")
        places = [{"blockHash": one.hash, "requireCanonical": True} for one in before]
        answered = line.batch([call for at in places for call in page_calls(items, sized, at)])
        return tuple(
            (one, tuple(complete(line, items, sized, answered[number * len(sized) : (number + 1) * len(sized)], at)))
            for number, (one, at) in enumerate(zip(before, places, strict=True))
        )

    def settled(answers: Mapping[Endpoint, Told]) -> bool:
        try:
            _agreed(answers, min_operators, what)
        except NoQuorum:
            return False
        return True

    heard = panel.ask(tell, enough=settled)
    panel.require(heard)
    chosen = _agreed(heard.answers, min_operators, what)
    for endpoint, told in heard.answers.items():
        if told != chosen:
            panel.blame(endpoint, f"differs in {what}")
    read = [(one, parts(narrow, answers)) for one, answers in chosen]
    return tuple(PastPrices(one, found.feeds, found.pools) for one, found in read)


def _headers(line: Endpoint, head: Head, heights: range) -> list[Head]:
    calls: list[Call] = [("eth_getBlockByNumber", [hex(height), False]) for height in (head.number, *heights)]
    answers = line.batch(calls)
    found = [parse_head(only(line.name, "eth_getBlockByNumber", answer), head.chain_id) for answer in answers]
    if [one.number for one in found] != [head.number, *heights]:
        raise Retryable(f"{line.name} gives other blocks than those it was asked for")
    return found


def _agreed(answers: Mapping[Endpoint, Told], min_operators: int, what: str) -> Told:
    return agreed([(endpoint.operator, told) for endpoint, told in answers.items()], min_operators, what)
