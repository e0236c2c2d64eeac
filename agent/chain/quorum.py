"""The quorum: votes of operators on snapshots, values and blocks, and a transport whose every
answer is agreed.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from agent.chain.endpoints import Endpoint, EndpointPool, operators_of
from agent.chain.lens import LensAnswer
from agent.chain.rpc import RpcCall, RpcFault, parse_head, parse_quantity, require_result
from agent.errors import ErrorCode, Refused, Retryable
from agent.model import Head, Verdict

# --- Quorum on whole answers: endpoints are compared, and dissenters are named (T2).


REMEDY = (
    "ask the endpoints' operators, or replace the endpoint that is wrong; nothing is sent until"
    " then"
)


@dataclass(frozen=True, slots=True)
class EndpointAnswer:
    """One endpoint's answers about one block. `items` are the lens's answers, code hashes
    included.
    """

    operator: str
    head: Head
    nonce: int
    native_wei: int
    items: tuple[LensAnswer, ...]

    @property
    def says(self) -> tuple[object, ...]:
        """Everything that must be equal; the lens's bytes decode one to one, so equal means byte
        for byte.
        """
        return (self.head, self.nonce, self.native_wei, self.items)


@dataclass(frozen=True, slots=True)
class QuorumAgreement:
    """The agreed answer, the operators behind it, and (operator, difference) of the others."""

    endpoint_answer: EndpointAnswer
    operators: tuple[str, ...]
    dissent: tuple[tuple[str, str], ...]


def find_quorum(
    answers: Sequence[EndpointAnswer], names: Sequence[str], min_operators: int
) -> QuorumAgreement:
    """Return the answer that most operators give, if at least `min_operators` do and no other
    answer has as many. Several endpoints of one operator count once; an operator whose own
    endpoints differ counts for neither answer. `names` are the items' names, for the report. Raises
    Refused with a verdict that names dissenters and differences.
    """
    groups: dict[tuple[object, ...], list[EndpointAnswer]] = {}
    for one in answers:
        groups.setdefault(one.says, []).append(one)
    two_faced = {
        one.operator
        for one in answers
        if len({other.says for other in answers if other.operator == one.operator}) > 1
    }
    backing = {
        says: sorted({one.operator for one in group} - two_faced) for says, group in groups.items()
    }
    ranked = sorted(groups, key=lambda says: len(backing[says]), reverse=True)
    best = ranked[0]
    dissent = tuple(
        (one.operator, difference(groups[best][0], one, names))
        for says in ranked[1:]
        for one in groups[says]
    )
    contested = len(ranked) > 1 and len(backing[ranked[1]]) == len(backing[best])
    if contested or len(backing[best]) < min_operators:
        raise Refused(
            _refusal(answers, backing[best], dissent),
            [_verdict(backing[best], dissent, min_operators)],
            REMEDY,
        )
    return QuorumAgreement(groups[best][0], tuple(backing[best]), dissent)


def difference(one: EndpointAnswer, other: EndpointAnswer, names: Sequence[str]) -> str:
    """Return the name of the first difference between two answers."""
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


def _refusal(
    answers: Sequence[EndpointAnswer], backing: Sequence[str], dissent: Sequence[tuple[str, str]]
) -> str:
    block = answers[0].head.number
    if not dissent:
        return f"only {', '.join(backing) or 'no operator'} confirms block {block}"
    message = "; ".join(f"{operator} differs in {what}" for operator, what in dissent)
    return (
        f"endpoints disagree on block {block}: {message} (against"
        f" {', '.join(backing) or 'an operator that contradicts itself'})"
    )


def _verdict(
    backing: Sequence[str], dissent: Sequence[tuple[str, str]], min_operators: int
) -> Verdict:
    against = (
        f", against {', '.join(sorted({operator for operator, _ in dissent}))}" if dissent else ""
    )
    return Verdict(
        "quorum",
        f"{len(backing)} operators alike ({', '.join(backing)}){against}",
        f"{min_operators} operators",
        False,
    )


# --- Votes of operators on a transaction, a nonce, a block: one vote each, and a sufficient
# majority.


H = TypeVar("H", bound=Hashable)

NO_MAJORITY_REMEDY = (
    "ask the endpoints' operators, or replace the endpoint that is wrong; nothing is sent until"
    " then"
)


class NoQuorum(Retryable):
    """Too few operators agree: nothing is known, so nothing is done."""


def quorum_size(operators: int, min_operators: int) -> int:
    """Return the number of operators that must agree if `operators` answered: a majority, and at
    least `min_operators`.
    """
    return max(min_operators, operators // 2 + 1)


def confirmed_value(votes: Sequence[tuple[str, H]], min_operators: int, what: str) -> H:
    """Return the only value that enough operators give. An operator that gives two counts for
    neither. Raises NoQuorum naming dissenters.
    """
    enough = quorum_size(len({operator for operator, _ in votes}), min_operators)
    backing = operators_by_value(votes)
    ranked = sorted(backing, key=lambda value: len(backing[value]), reverse=True)
    if not ranked or len(backing[ranked[0]]) < enough:
        # their text is foreign and not repeated (T17)
        message = (
            " against ".join(
                ", ".join(sorted({who for who, answer in votes if answer == value}))
                for value in ranked
            )
            or "nobody"
        )
        raise NoQuorum(
            f"endpoints disagree on {what}, {enough} operators must say the same ({message})",
            NO_MAJORITY_REMEDY,
            code=ErrorCode.QUORUM,
        )
    return ranked[0]


def operators_by_value(votes: Iterable[tuple[str, H]]) -> dict[H, set[str]]:
    """Return the operators behind each value; self-contradicting operators are behind none."""
    operators: dict[str, set[H]] = {}
    values: dict[H, set[str]] = {}
    for operator, value in votes:
        operators.setdefault(operator, set()).add(value)
        values.setdefault(value, set())
    for operator, its in operators.items():
        if len(its) == 1:
            values[next(iter(its))].add(operator)
    return values


def highest_confirmed(values: Mapping[str, int], enough: int) -> int:
    """Return the highest value that `enough` operators confirm, where seeing n implies all below:
    heights, used nonces. Fewer than `enough` dishonest operators can neither raise it above the
    highest honest value, nor lower it while enough are honest.
    """
    return sorted(values.values(), reverse=True)[enough - 1]


def lowest_sufficient(values: Mapping[str, int], enough: int) -> int:
    """Return the lowest value that `enough` operators call sufficient: gas needed, nonces pending.
    Of two operators the higher counts.
    """
    return sorted(values.values())[enough - 1]


# --- Agreement on height: a block far from one of two operators is old or false, and is not traded
# on (T19).


def common_height(newest: Mapping[Endpoint, int], min_operators: int) -> int:
    """The highest block that enough operators have, by the newest of each; of one operator alone
    all its endpoints must have it.
    """
    enough = quorum_size(len(operators_of(newest)), min_operators)
    return highest_confirmed(_heights(newest, alone=enough == 1), enough)


def height_disagreement(
    endpoint_pool: EndpointPool, newest: Mapping[Endpoint, int], height: int
) -> str:
    """Return each operator's height if too few newest blocks are within chain.max_lag_blocks of
    `height`; else "". The cause is one of two operators that lags or names a block from the future;
    endpoint records show which.
    """
    most, heights = endpoint_pool.max_lag_blocks, _heights(newest)
    near = sum(abs(number - height) <= most for number in heights.values())
    level = near >= quorum_size(len(heights), endpoint_pool.min_operators)
    top = height if level else max(heights.values())
    for endpoint, number in newest.items():
        if top - number > most:
            endpoint_pool.lags(endpoint, f"is {top - number} blocks behind block {top}")
            continue
        endpoint.health.caught_up()
        if number - height > most:
            endpoint_pool.blame(
                endpoint, f"is {number - height} blocks ahead of block {height}", outvoted=level
            )
    if level:
        return ""
    message = ", ".join(
        f"{operator} is at block {number}"
        for operator, number in sorted(heights.items(), key=lambda one: one[1])
    )
    apart = max(abs(number - height) for number in heights.values())
    return (
        f"endpoints are {apart} blocks apart, chain.max_lag_blocks is {most}: {message}; one lags,"
        " or reports a block that no other has"
    )


def _heights(newest: Mapping[Endpoint, int], *, alone: bool = False) -> dict[str, int]:
    """Return the newest block by operator; with `alone`, the one that all its endpoints have."""
    found: dict[str, int] = {}
    for endpoint, number in newest.items():
        mine = found.get(endpoint.operator, number)
        found[endpoint.operator] = min(mine, number) if alone else max(mine, number)
    return found


# --- Questions to all endpoints about one block: the newest that enough operators have with the
# same header.


T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class BlockAnswers(Generic[T]):
    """Answers about one block, by endpoint. `height_disagreement` is why that block may be old or
    false, or "".
    """

    answers: list[tuple[Endpoint, T]]
    height_disagreement: str


def ask_at_one_block(
    endpoint_pool: EndpointPool,
    question: Callable[[Endpoint, int | None], T],
    head_of: Callable[[T], Head],
) -> BlockAnswers[T]:
    """Return the answers of a quorum with an equal header; `question` gets a height, None for the
    newest. Takes one round if the endpoints are level, else a second one about the highest block
    that enough of them have. Raises NoQuorum if they disagree on its header, or as
    EndpointPool.require. Dissenters are blamed.
    """

    def same(answers: Mapping[Endpoint, T]) -> list[tuple[Endpoint, T]]:
        heads = {endpoint: head_of(answer) for endpoint, answer in answers.items()}
        backing = operators_by_value((endpoint.operator, head) for endpoint, head in heads.items())
        enough = quorum_size(len(operators_of(answers)), endpoint_pool.min_operators)
        best = max(backing, key=lambda head: len(backing[head]), default=None)
        if best is None or len(backing[best]) < enough:
            return []
        return [
            (endpoint, answer) for endpoint, answer in answers.items() if heads[endpoint] == best
        ]

    poll = endpoint_pool.ask(
        lambda endpoint: question(endpoint, None), enough=lambda answers: bool(same(answers))
    )
    endpoint_pool.require(poll)
    heads = {endpoint: head_of(answer) for endpoint, answer in poll.answers.items()}
    newest = {endpoint: head.number for endpoint, head in heads.items()}
    found = same(poll.answers)
    if not found:
        height = common_height(newest, endpoint_pool.min_operators)
        able = [endpoint for endpoint, head in heads.items() if head.number >= height]
        again = endpoint_pool.ask(
            lambda endpoint: question(endpoint, height),
            among=able,
            enough=lambda answers: bool(same(answers)),
        )
        endpoint_pool.require(again)
        heads |= {endpoint: head_of(answer) for endpoint, answer in again.answers.items()}
        found = same(again.answers)
        if not found:
            message = "; ".join(
                f"{endpoint.operator}: {heads[endpoint].hash}" for endpoint in again.answers
            )
            raise NoQuorum(
                f"endpoints disagree on block {height} ({message})",
                NO_MAJORITY_REMEDY,
                code=ErrorCode.QUORUM,
            )
    common = head_of(found[0][1])
    message = height_disagreement(endpoint_pool, newest, common.number)
    for endpoint, head in heads.items():
        if head.number == common.number and head != common:
            endpoint_pool.blame(endpoint, f"differs in the header of block {common.number}")
    return BlockAnswers(found, message)


_FAULT = "an error"


class QuorumTransport:
    """Transport over an endpoint pool. "latest" is the newest block that enough operators agree on.

    Nodes word their errors differently: all errors count as the same answer.
    """

    def __init__(self, endpoint_pool: EndpointPool) -> None:
        self._endpoint_pool = endpoint_pool
        self.operator = ", ".join(
            sorted({endpoint.operator for endpoint in endpoint_pool.endpoints})
        )
        self.name = (
            f"endpoints of {self.operator}"
            if len(endpoint_pool.endpoints) > 1
            else endpoint_pool.endpoints[0].name
        )

    @property
    def requests(self) -> int:
        """See Transport."""
        return self._endpoint_pool.requests

    def call(self, method: str, params: list[Any]) -> Any:
        """See Transport."""
        return require_result(self.name, method, self.batch([(method, params)])[0])

    def batch(self, calls: Sequence[RpcCall]) -> list[Any]:
        """Send the batch as Transport. Raises NoQuorum if too few agree on one of the calls."""
        if not calls or len(self._endpoint_pool.endpoints) == 1:
            return self._endpoint_pool.endpoints[0].batch(calls)
        if any("latest" in params for _, params in calls):
            calls = _pinned(calls, self._head())
        poll = self._endpoint_pool.ask(lambda endpoint: endpoint.batch(calls))
        self._endpoint_pool.require(poll)
        answers = []
        for number, (method, _) in enumerate(calls):
            votes = [
                (endpoint.operator, _key(replies[number]))
                for endpoint, replies in poll.answers.items()
            ]
            chosen = confirmed_value(
                votes, self._endpoint_pool.min_operators, f"the answer to {method}"
            )
            for endpoint, replies in poll.answers.items():
                if _key(replies[number]) != chosen:
                    self._endpoint_pool.blame(endpoint, f"differs in the answer to {method}")
            answers.append(
                _usual(
                    [
                        replies[number]
                        for replies in poll.answers.values()
                        if _key(replies[number]) == chosen
                    ]
                )
            )
        return answers

    def _head(self) -> Head:
        """The newest agreed block.

        Raises NoQuorum if too few have it, or one near it, for their newest: contracts may be
        missing there.
        """

        def newest(endpoint: Any, height: int | None) -> Head:
            tag = "latest" if height is None else hex(height)
            chain_id, block = endpoint.batch(
                [("eth_chainId", []), ("eth_getBlockByNumber", [tag, False])]
            )
            found = parse_quantity(
                require_result(endpoint.name, "eth_chainId", chain_id), "chain id"
            )
            return parse_head(require_result(endpoint.name, "eth_getBlockByNumber", block), found)

        found = ask_at_one_block(self._endpoint_pool, newest, lambda head: head)
        if found.height_disagreement:
            raise NoQuorum(found.height_disagreement, NO_MAJORITY_REMEDY, code=ErrorCode.LAG)
        return found.answers[0][1]


def _pinned(calls: Sequence[RpcCall], head: Head) -> list[RpcCall]:
    at = {"blockHash": head.hash, "requireCanonical": True}
    return [
        (method, [at if param == "latest" else param for param in params])
        for method, params in calls
    ]


def _usual(alike: Sequence[Any]) -> Any:
    """Return one of the equal answers; of errors one with the most frequent code, so that no single
    operator decides the reason.
    """
    codes = [one.code for one in alike if isinstance(one, RpcFault)]
    return max(alike, key=lambda one: codes.count(one.code)) if codes else alike[0]


def _key(answer: object) -> str:
    if isinstance(answer, RpcFault):
        return _FAULT
    return json.dumps(_bare(answer), sort_keys=True).lower()


def _bare(answer: object) -> object:
    """Return events without fields that only some nodes add, such as the time of their block."""
    if isinstance(answer, list) and all(
        isinstance(one, dict) and "topics" in one for one in answer
    ):
        return [
            {field: one.get(field) for field in ("address", "blockNumber", "data", "topics")}
            for one in answer
        ]
    return answer
