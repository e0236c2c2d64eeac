"""Asks all endpoints about one and the same block: the newest that enough operators have with the same header."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeVar

from agent.chain.ballot import REMEDY, NoQuorum, backed, needed, vouched
from agent.chain.panel import Endpoint, Panel, operators
from agent.model import Head

T = TypeVar("T")


def at_one_block(panel: Panel, question: Callable[[Endpoint, int | None], T], head_of: Callable[[T], Head]) -> list[tuple[Endpoint, T]]:
    """Answers of the operators, enough of them, that give the same header; `question` gets a height, None for the newest.

    One round where the endpoints are level. Where they are not, a second one about the highest block that enough of them
    have. Raises NoQuorum when they do not agree on its header, or what Panel.require raises. Those that differ are blamed.
    """

    def same(answers: Mapping[Endpoint, T]) -> list[tuple[Endpoint, T]]:
        heads = {endpoint: head_of(answer) for endpoint, answer in answers.items()}
        backing = backed((endpoint.operator, head) for endpoint, head in heads.items())
        enough = needed(len(operators(answers)), panel.min_operators)
        best = max(backing, key=lambda head: len(backing[head]), default=None)
        if best is None or len(backing[best]) < enough:
            return []
        return [(endpoint, answer) for endpoint, answer in answers.items() if heads[endpoint] == best]

    heard = panel.ask(lambda endpoint: question(endpoint, None), enough=lambda answers: bool(same(answers)))
    panel.require(heard)
    heads = {endpoint: head_of(answer) for endpoint, answer in heard.answers.items()}
    found = same(heard.answers)
    if not found:
        heights: dict[str, int] = {}
        for endpoint, head in heads.items():
            heights[endpoint.operator] = min(heights.get(endpoint.operator, head.number), head.number)
        height = vouched(heights, needed(len(heights), panel.min_operators))
        able = [endpoint for endpoint, head in heads.items() if head.number >= height]
        again = panel.ask(lambda endpoint: question(endpoint, height), among=able, enough=lambda answers: bool(same(answers)))
        panel.require(again)
        heads |= {endpoint: head_of(answer) for endpoint, answer in again.answers.items()}
        found = same(again.answers)
        if not found:
            told = "; ".join(f"{endpoint.operator}: {heads[endpoint].hash}" for endpoint in again.answers)
            raise NoQuorum(f"endpoints disagree on block {height} ({told})", REMEDY)
    common = head_of(found[0][1])
    for endpoint, head in heads.items():
        if head.number == common.number and head != common:
            panel.blame(endpoint, f"differs in the header of block {common.number}")
        elif common.number - head.number > panel.max_lag_blocks:
            panel.blame(endpoint, f"is {common.number - head.number} blocks behind block {common.number}")
    return found
