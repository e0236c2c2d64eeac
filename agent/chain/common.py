"""Asks all endpoints about one and the same block: the newest that enough operators have with the same header."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

from agent.chain.ballot import REMEDY, NoQuorum, backed, needed
from agent.chain.level import common_height, uneven
from agent.chain.panel import Endpoint, Panel, operators
from agent.model import Head

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class AtBlock(Generic[T]):
    """Answers about one block, by endpoint. `uneven` says why that block may be old or made up; "" where endpoints are level."""

    said: list[tuple[Endpoint, T]]
    uneven: str


def at_one_block(panel: Panel, question: Callable[[Endpoint, int | None], T], head_of: Callable[[T], Head]) -> AtBlock[T]:
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
    newest = {endpoint: head.number for endpoint, head in heads.items()}
    found = same(heard.answers)
    if not found:
        height = common_height(newest, panel.min_operators)
        able = [endpoint for endpoint, head in heads.items() if head.number >= height]
        again = panel.ask(lambda endpoint: question(endpoint, height), among=able, enough=lambda answers: bool(same(answers)))
        panel.require(again)
        heads |= {endpoint: head_of(answer) for endpoint, answer in again.answers.items()}
        found = same(again.answers)
        if not found:
            told = "; ".join(f"{endpoint.operator}: {heads[endpoint].hash}" for endpoint in again.answers)
            raise NoQuorum(f"endpoints disagree on block {height} ({told})", REMEDY)
    common = head_of(found[0][1])
    told = uneven(panel, newest, common.number)
    for endpoint, head in heads.items():
        if head.number == common.number and head != common:
            panel.blame(endpoint, f"differs in the header of block {common.number}")
    return AtBlock(found, told)
