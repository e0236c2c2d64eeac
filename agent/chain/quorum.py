"""Whether enough operators say the same: endpoints' whole answers are compared, those that differ are named (threat T2)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from agent.chain.lens import Answer
from agent.errors import Refused
from agent.model import Head, Verdict

REMEDY = "ask the endpoints' operators, or replace the endpoint that is wrong; nothing is sent meanwhile"


@dataclass(frozen=True, slots=True)
class Testimony:
    """All that one endpoint says of one block. `items` are the lens's answers, code hashes among them."""

    operator: str
    head: Head
    nonce: int
    native_wei: int
    items: tuple[Answer, ...]

    @property
    def says(self) -> tuple[object, ...]:
        """Everything that has to be alike; the lens's bytes decode one to one, so alike means byte for byte."""
        return (self.head, self.nonce, self.native_wei, self.items)


@dataclass(frozen=True, slots=True)
class Agreement:
    """The testimony that counts, the operators behind it, and (operator, what it says otherwise) of the others."""

    testimony: Testimony
    operators: tuple[str, ...]
    dissent: tuple[tuple[str, str], ...]


def agree(heard: Sequence[Testimony], names: Sequence[str], min_operators: int) -> Agreement:
    """The answer that most operators give, if at least `min_operators` do and no other has as many behind it.

    Several endpoints of one operator count once; an operator whose own endpoints differ counts for neither answer.
    `names` are the items' names, for the report. Raises Refused with a verdict that names who differs and in what.
    """
    groups: dict[tuple[object, ...], list[Testimony]] = {}
    for one in heard:
        groups.setdefault(one.says, []).append(one)
    two_faced = {one.operator for one in heard if len({other.says for other in heard if other.operator == one.operator}) > 1}
    backing = {says: sorted({one.operator for one in group} - two_faced) for says, group in groups.items()}
    ranked = sorted(groups, key=lambda says: len(backing[says]), reverse=True)
    best = ranked[0]
    dissent = tuple((one.operator, difference(groups[best][0], one, names)) for says in ranked[1:] for one in groups[says])
    contested = len(ranked) > 1 and len(backing[ranked[1]]) == len(backing[best])
    if contested or len(backing[best]) < min_operators:
        raise Refused(_refusal(heard, backing[best], dissent), [_verdict(backing[best], dissent, min_operators)], REMEDY)
    return Agreement(groups[best][0], tuple(backing[best]), dissent)


def difference(one: Testimony, other: Testimony, names: Sequence[str]) -> str:
    """The first thing in which two testimonies differ, by name."""
    if one.head != other.head:
        return f"the header of block {one.head.number}"
    if one.nonce != other.nonce:
        return "the wallet's nonce"
    if one.native_wei != other.native_wei:
        return "the wallet's native balance"
    for name, mine, theirs in zip(names, one.items, other.items, strict=True):
        if mine != theirs:
            return f"the {name}"
    return "nothing"


def _refusal(heard: Sequence[Testimony], backing: Sequence[str], dissent: Sequence[tuple[str, str]]) -> str:
    block = heard[0].head.number
    if not dissent:
        return f"only {', '.join(backing) or 'nobody'} vouches for block {block}"
    told = "; ".join(f"{operator} differs in {what}" for operator, what in dissent)
    return f"endpoints disagree on block {block}: {told} (against {', '.join(backing) or 'an operator that contradicts itself'})"


def _verdict(backing: Sequence[str], dissent: Sequence[tuple[str, str]], min_operators: int) -> Verdict:
    against = f", against {', '.join(sorted({operator for operator, _ in dissent}))}" if dissent else ""
    return Verdict("quorum", f"{len(backing)} operators alike ({', '.join(backing)}){against}", f"{min_operators} operators", False)
