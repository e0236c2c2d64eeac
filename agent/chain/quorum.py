"""Quorum of operators for snapshots, single values and blocks."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from agent.chain.chain_time import MAX_NEWEST_AGE_S
from agent.chain.endpoints import Endpoint, EndpointPool, operators_of
from agent.chain.rpc import Transport, header_verifies, parse_head, parse_quantity, require_result
from agent.errors import ErrorCode, Refused, Retryable, TrimtabError
from agent.model import Head, Verdict

NO_MAJORITY_REMEDY = (
    "replace the wrong endpoint, or ask the operators; nothing is sent until they agree"
)


@dataclass(frozen=True, slots=True)
class EndpointAnswer:
    """One endpoint's answers at one block: `block_values` are the wallet's nonce and native
    balance, and each answer of the lens, including code hashes, as its bytes, since the lens
    encodes canonically.
    """

    operator: str
    head: Head
    block_values: tuple[object, ...]

    @property
    def compared_values(self) -> tuple[object, ...]:
        """Values that must be equal."""
        return (self.head, self.block_values)


@dataclass(frozen=True, slots=True)
class QuorumAgreement:
    """The agreed answer, the operators behind it, and (operator, difference) of the others."""

    endpoint_answer: EndpointAnswer
    agreeing_operators: tuple[str, ...]
    dissent: tuple[tuple[str, str], ...]


def find_quorum(
    answers: Sequence[EndpointAnswer], value_names: Sequence[str], min_operators: int
) -> QuorumAgreement:
    """Return the answer that most operators give, if at least `min_operators` give it and no other
    answer has as many.

    Endpoints of one operator count once; an operator whose endpoints differ counts for none.
    `value_names` are those of the values, for the message. Raises Refused with a verdict that names
    dissenters and differences.
    """
    operators_by_values = operators_by_value(
        (answer.operator, answer.compared_values) for answer in answers
    )
    ranked_values = sorted(
        operators_by_values, key=lambda values: len(operators_by_values[values]), reverse=True
    )
    agreed_answer = next(answer for answer in answers if answer.compared_values == ranked_values[0])
    operators = sorted(operators_by_values[ranked_values[0]])
    dissent = tuple(
        (answer.operator, first_difference(agreed_answer, answer, value_names))
        for dissenting_values in ranked_values[1:]
        for answer in answers
        if answer.compared_values == dissenting_values
    )
    is_contested = len(ranked_values) > 1 and len(operators_by_values[ranked_values[1]]) == len(
        operators
    )
    if is_contested or len(operators) < min_operators:
        raise Refused(
            _refusal_message(answers, operators, dissent),
            [_verdict(operators, dissent, min_operators)],
            NO_MAJORITY_REMEDY,
        )
    return QuorumAgreement(agreed_answer, tuple(operators), dissent)


def first_difference(
    agreed_answer: EndpointAnswer, dissenting_answer: EndpointAnswer, value_names: Sequence[str]
) -> str:
    """Return the name of the first difference between two answers."""
    if agreed_answer.head != dissenting_answer.head:
        return f"the header of block {agreed_answer.head.number}"
    for value_name, agreed_value, dissenting_value in zip(
        value_names, agreed_answer.block_values, dissenting_answer.block_values, strict=True
    ):
        if agreed_value != dissenting_value:
            return f"the {value_name}"
    return "nothing"


def _refusal_message(
    answers: Sequence[EndpointAnswer],
    agreeing_operators: Sequence[str],
    dissent: Sequence[tuple[str, str]],
) -> str:
    block = answers[0].head.number
    if not dissent:
        return f"only {', '.join(agreeing_operators) or 'no operator'} confirms block {block}"
    differences_text = "; ".join(
        f"{operator} differs in {field_name}" for operator, field_name in dissent
    )
    majority_text = ", ".join(agreeing_operators) or "an operator that contradicts itself"
    return f"endpoints disagree on block {block}: {differences_text} (against {majority_text})"


def _verdict(
    agreeing_operators: Sequence[str], dissent: Sequence[tuple[str, str]], min_operators: int
) -> Verdict:
    against_text = ""
    if dissent:
        against_text = f", against {', '.join(sorted({operator for operator, _ in dissent}))}"
    return Verdict(
        "quorum",
        f"{len(agreeing_operators)} operators agree ({', '.join(agreeing_operators)}){against_text}",
        f"{min_operators} operators",
        False,
    )


H = TypeVar("H", bound=Hashable)
T = TypeVar("T")


class NoQuorum(Retryable):
    """Raised if too few operators agree."""


def quorum_size(operator_count: int, min_operators: int) -> int:
    """Return how many of `operator_count` operators must agree: a majority, at least
    `min_operators`.
    """
    return max(min_operators, operator_count // 2 + 1)


def confirmed_value(votes: Sequence[tuple[str, H]], min_operators: int, subject: str) -> H:
    """Return the only value that enough operators give. An operator that gives two values counts
    for neither. Raises NoQuorum naming dissenters.
    """
    quorum = quorum_size(len({operator for operator, _ in votes}), min_operators)
    operators_by_vote = operators_by_value(votes)
    ranked_values = sorted(
        operators_by_vote,
        key=lambda ranked_value: len(operators_by_vote[ranked_value]),
        reverse=True,
    )
    if not ranked_values or len(operators_by_vote[ranked_values[0]]) < quorum:
        # The values are untrusted text and are not repeated (T17).
        operator_groups = [
            ", ".join(
                sorted({operator for operator, voted_value in votes if voted_value == ranked_value})
            )
            for ranked_value in ranked_values
        ]
        raise NoQuorum(
            f"endpoints disagree on {subject}, {quorum} operators must agree"
            f" ({' against '.join(operator_groups) or 'none answered'})",
            NO_MAJORITY_REMEDY,
            code=ErrorCode.QUORUM,
        )
    return ranked_values[0]


def is_decided(
    vote: Callable[[Mapping[Endpoint, T]], object], answers: Mapping[Endpoint, T]
) -> bool:
    """Return whether the answers decide a vote, which raises NoQuorum or Refused if they do not."""
    try:
        vote(answers)
    except (NoQuorum, Refused):
        return False
    return True


def operators_by_value(votes: Iterable[tuple[str, H]]) -> dict[H, set[str]]:
    """Return the operators that give each value; an operator that gives two counts for neither."""
    values_by_operator: dict[str, set[H]] = {}
    operator_names_by_value: dict[H, set[str]] = {}
    for operator, voted_value in votes:
        values_by_operator.setdefault(operator, set()).add(voted_value)
        operator_names_by_value.setdefault(voted_value, set())
    for operator, operator_values in values_by_operator.items():
        if len(operator_values) == 1:
            operator_names_by_value[next(iter(operator_values))].add(operator)
    return operator_names_by_value


def number_by_operator(
    numbers: Iterable[tuple[Endpoint, int]], min_or_max: Callable[[int, int], int]
) -> dict[str, int]:
    """Return the lowest or highest number of each operator's endpoints."""
    operator_numbers: dict[str, int] = {}
    for endpoint, number in numbers:
        operator_numbers[endpoint.operator] = min_or_max(
            operator_numbers.get(endpoint.operator, number), number
        )
    return operator_numbers


def highest_confirmed_number(operator_numbers: Mapping[str, int], quorum: int) -> int:
    """Return the highest value that `quorum` operators have reached, such as a height or a used
    nonce. Fewer than `quorum` dishonest operators cannot raise it above the highest honest value,
    nor lower it while `quorum` are honest.
    """
    return sorted(operator_numbers.values(), reverse=True)[quorum - 1]


def lowest_sufficient_number(operator_numbers: Mapping[str, int], quorum: int) -> int:
    """Return the lowest value that `quorum` operators call sufficient, such as gas or a pending
    nonce. With two operators, the higher value counts.
    """
    return sorted(operator_numbers.values())[quorum - 1]


def common_height(height_by_endpoint: Mapping[Endpoint, int], min_operators: int) -> int:
    """Return the highest block that enough operators have, by each operator's newest block. If one
    operator suffices, all its endpoints must have the block.
    """
    quorum = quorum_size(len(operators_of(height_by_endpoint)), min_operators)
    return highest_confirmed_number(
        number_by_operator(height_by_endpoint.items(), min if quorum == 1 else max), quorum
    )


def check_heights(
    endpoint_pool: EndpointPool,
    height_by_endpoint: Mapping[Endpoint, int],
    height: int,
    timestamp_s: int,
) -> str:
    """Return a message with each operator's height if too few newest blocks are within
    chain.max_lag_blocks of `height`, or if an endpoint proves that `height`, a block of
    `timestamp_s`, is old; else "". An operator then lags, or reports a block from the future. A
    lagging and a dishonest operator are a majority of three, so a newer header stops trading (T32).
    Records lagging and leading endpoints.
    """
    max_lag_blocks = endpoint_pool.max_lag_blocks
    height_by_operator = number_by_operator(height_by_endpoint.items(), max)
    near_count = sum(
        abs(block_number - height) <= max_lag_blocks for block_number in height_by_operator.values()
    )
    is_agreed = near_count >= quorum_size(len(height_by_operator), endpoint_pool.min_operators)
    is_agreed = is_agreed and not any(
        block_number - height > max_lag_blocks
        and _may_be_newest(endpoint_pool, block_number, height, timestamp_s)
        and _has_header(endpoint, block_number)
        for endpoint, block_number in height_by_endpoint.items()
    )
    newest_height = height if is_agreed else max(height_by_operator.values())
    for endpoint, block_number in height_by_endpoint.items():
        if newest_height - block_number > max_lag_blocks:
            endpoint_pool.record_lag(
                endpoint, f"is {newest_height - block_number} blocks behind block {newest_height}"
            )
            continue
        endpoint.health.record_caught_up()
        if block_number - height > max_lag_blocks:
            endpoint_pool.blame(
                endpoint,
                f"is {block_number - height} blocks ahead of block {height}",
                is_outvoted=is_agreed,
            )
    if is_agreed:
        endpoint_pool.chain_time.record_agreed(timestamp_s)
        return ""
    heights_text = ", ".join(
        f"{operator} is at block {block_number}"
        for operator, block_number in sorted(
            height_by_operator.items(), key=lambda operator_height: operator_height[1]
        )
    )
    distance_blocks = max(
        abs(block_number - height) for block_number in height_by_operator.values()
    )
    return (
        f"endpoints are {distance_blocks} blocks apart, chain.max_lag_blocks is {max_lag_blocks}: {heights_text}; one"
        " lags, or reports a block that the others lack"
    )


INTERVAL_BLOCKS = 32
"""Blocks over which the block interval is measured."""


def _may_be_newest(
    endpoint_pool: EndpointPool, block_number: int, height: int, timestamp_s: int
) -> bool:
    """Return whether `block_number` can be the newest block although most operators are at
    `height`: by the chain's time enough has passed since `height`, half the usual interval for
    each block between. One operator can make up any header, also all between, but no time.
    """
    age_s = endpoint_pool.chain_time.now_s() - timestamp_s
    if age_s <= MAX_NEWEST_AGE_S:
        return False
    recent_blocks_s, block_count = _recent_duration_and_blocks(endpoint_pool, height, timestamp_s)
    return 2 * age_s * block_count >= recent_blocks_s * (block_number - height)


def _recent_duration_and_blocks(
    endpoint_pool: EndpointPool, height: int, timestamp_s: int
) -> tuple[int, int]:
    """Return the seconds and the number of the last INTERVAL_BLOCKS blocks up to `height`, as
    enough operators report it; no seconds if they disagree.
    """
    first_block = max(0, height - INTERVAL_BLOCKS)

    def read_timestamp(endpoint: Endpoint) -> int:
        block = endpoint.call("eth_getBlockByNumber", [hex(first_block), False])
        return parse_head(block, 0).timestamp_s

    poll = endpoint_pool.ask(read_timestamp)
    votes = [
        (endpoint.operator, block_timestamp_s)
        for endpoint, block_timestamp_s in poll.answers.items()
    ]
    try:
        first_timestamp_s = confirmed_value(
            votes, endpoint_pool.min_operators, f"block {first_block}"
        )
    except NoQuorum:
        first_timestamp_s = timestamp_s
    return max(0, timestamp_s - first_timestamp_s), max(1, height - first_block)


def _has_header(endpoint: Endpoint, block_number: int) -> bool:
    """Return whether an endpoint shows a valid header of its newest block, by one more request."""
    try:
        return header_verifies(
            endpoint.call("eth_getBlockByNumber", [hex(block_number), False]), block_number
        )
    except TrimtabError:
        return False


@dataclass(frozen=True, slots=True)
class BlockAnswers(Generic[T]):
    """Answers at one block, by endpoint. `height_disagreement_text` is the reason why that block
    may be old or forged, or "".
    """

    endpoints_and_answers: list[tuple[Endpoint, T]]
    height_disagreement_text: str


def ask_at_one_block(
    endpoint_pool: EndpointPool,
    question: Callable[[Endpoint, int | None], T],
    head_of: Callable[[T], Head],
) -> BlockAnswers[T]:
    """Return answers with equal headers from a quorum of operators. `question` is called with an
    endpoint and a height (None: newest block).

    One round suffices if enough operators are at the same block. Otherwise a second round asks at
    the highest block that enough operators have. Dissenting endpoints are recorded. Raises NoQuorum
    if no header has a quorum, and the errors of EndpointPool.require_quorum.
    """

    def agreeing_answers(answers: Mapping[Endpoint, T]) -> list[tuple[Endpoint, T]]:
        head_by_endpoint = {endpoint: head_of(answer) for endpoint, answer in answers.items()}
        operators_by_head = operators_by_value(
            (endpoint.operator, head) for endpoint, head in head_by_endpoint.items()
        )
        quorum = quorum_size(len(operators_of(answers)), endpoint_pool.min_operators)
        best_head = max(
            operators_by_head, key=lambda head: len(operators_by_head[head]), default=None
        )
        if best_head is None or len(operators_by_head[best_head]) < quorum:
            return []
        return [
            (endpoint, answer)
            for endpoint, answer in answers.items()
            if head_by_endpoint[endpoint] == best_head
        ]

    poll = endpoint_pool.ask(
        lambda endpoint: question(endpoint, None),
        is_enough=lambda answers: bool(agreeing_answers(answers)),
    )
    endpoint_pool.require_quorum(poll)
    head_by_endpoint = {endpoint: head_of(answer) for endpoint, answer in poll.answers.items()}
    height_by_endpoint = {endpoint: head.number for endpoint, head in head_by_endpoint.items()}
    agreed_answers = agreeing_answers(poll.answers)
    if not agreed_answers:
        height = common_height(height_by_endpoint, endpoint_pool.min_operators)
        endpoints_with_block = [
            endpoint for endpoint, head in head_by_endpoint.items() if head.number >= height
        ]
        second_poll = endpoint_pool.ask(
            lambda endpoint: question(endpoint, height),
            candidates=endpoints_with_block,
            is_enough=lambda answers: bool(agreeing_answers(answers)),
        )
        endpoint_pool.require_quorum(second_poll)
        head_by_endpoint |= {
            endpoint: head_of(answer) for endpoint, answer in second_poll.answers.items()
        }
        agreed_answers = agreeing_answers(second_poll.answers)
        if not agreed_answers:
            disagreement_text = "; ".join(
                f"{endpoint.operator}: {head_by_endpoint[endpoint].hash}"
                for endpoint in second_poll.answers
            )
            raise NoQuorum(
                f"endpoints disagree on block {height} ({disagreement_text})",
                NO_MAJORITY_REMEDY,
                code=ErrorCode.QUORUM,
            )
    common_head = head_of(agreed_answers[0][1])
    disagreement_text = check_heights(
        endpoint_pool, height_by_endpoint, common_head.number, common_head.timestamp_s
    )
    for endpoint, head in head_by_endpoint.items():
        if head.number == common_head.number and head != common_head:
            endpoint_pool.blame(endpoint, f"differs in the header of block {common_head.number}")
    return BlockAnswers(agreed_answers, disagreement_text)


def read_head(transport: Transport, height: int | None = None) -> Head:
    """Return one endpoint's newest header, or that at `height`, with its chain id. Raises
    CallFailed if it refuses, else as Transport.
    """
    block_tag = "latest" if height is None else hex(height)
    chain_id_answer, block = transport.batch(
        [("eth_chainId", []), ("eth_getBlockByNumber", [block_tag, False])]
    )
    chain_id = parse_quantity(
        require_result(transport.name, "eth_chainId", chain_id_answer), "chain id"
    )
    return parse_head(require_result(transport.name, "eth_getBlockByNumber", block), chain_id)
