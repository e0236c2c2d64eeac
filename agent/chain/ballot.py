"""What operators say together of a transaction, a nonce, a block: one vote each, and a majority that is large enough."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import TypeVar

from agent.errors import Retryable

H = TypeVar("H", bound=Hashable)

REMEDY = "ask the endpoints' operators, or replace the endpoint that is wrong; nothing is sent meanwhile"


class NoQuorum(Retryable):
    """Too few operators say the same: nothing is known, so nothing is done."""


def needed(operators: int, min_operators: int) -> int:
    """How many must say the same when `operators` different ones answered: a majority, and never fewer than the config wants."""
    return max(min_operators, operators // 2 + 1)


def agreed(votes: Sequence[tuple[str, H]], min_operators: int, what: str) -> H:
    """The one value that enough operators give. An operator that gives two counts for neither. Raises NoQuorum naming who differs."""
    enough = needed(len({operator for operator, _ in votes}), min_operators)
    backing = backed(votes)
    ranked = sorted(backing, key=lambda value: len(backing[value]), reverse=True)
    if not ranked or len(backing[ranked[0]]) < enough:
        # what they say is not repeated: it is foreign text (T17)
        told = " against ".join(", ".join(sorted({who for who, said in votes if said == value})) for value in ranked) or "nobody"
        raise NoQuorum(f"endpoints disagree on {what}, {enough} operators must say the same ({told})", REMEDY)
    return ranked[0]


def backed(votes: Iterable[tuple[str, H]]) -> dict[H, set[str]]:
    """Operators behind each value; those that contradict themselves are behind none."""
    said: dict[str, set[H]] = {}
    values: dict[H, set[str]] = {}
    for operator, value in votes:
        said.setdefault(operator, set()).add(value)
        values.setdefault(value, set())
    for operator, its in said.items():
        if len(its) == 1:
            values[next(iter(its))].add(operator)
    return values


def vouched(values: Mapping[str, int], enough: int) -> int:
    """The most that `enough` operators vouch for, where whoever has seen n has seen all below: heights, used nonces.

    Fewer than `enough` liars can neither raise it above what an honest one has seen, nor lower it while enough are honest.
    """
    return sorted(values.values(), reverse=True)[enough - 1]


def sufficing(values: Mapping[str, int], enough: int) -> int:
    """The least that `enough` operators say is all there is: gas needed, nonces pending. Of two operators the higher word counts."""
    return sorted(values.values())[enough - 1]
