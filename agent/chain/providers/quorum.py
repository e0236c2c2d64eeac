"""web3 over several endpoints: every operator is asked, answers are compared, dissenters are
named.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from agent.chain.endpoints import Endpoint, EndpointPool, PollResult, operators_of
from agent.chain.lens import LensPages
from agent.chain.providers.checked import (
    BLOCK_METHOD,
    CALL_METHOD,
    HEADER_FIELDS,
    STORAGE_METHOD,
    CheckedProvider,
    checked_answer,
)
from agent.chain.quorum import (
    NO_MAJORITY_REMEDY,
    EndpointAnswer,
    NoQuorum,
    QuorumAgreement,
    ask_at_one_block,
    confirmed_value,
    find_quorum,
    first_difference,
    is_decided,
    quorum_size,
    read_head,
)
from agent.chain.rpc import (
    CallFailed,
    RpcCall,
    RpcFault,
    block_ref_at_hash,
    hex_data,
    parse_head,
    require_result,
)
from agent.errors import ErrorCode, Retryable, TrimtabError
from agent.model import Head

_FAULT_VOTE = "an error"


class QuorumProvider(CheckedProvider):
    """Provider over an endpoint pool: each answer is one that enough operators give. "latest" is
    the newest block that enough operators agree on. All errors count as the same answer, since
    error texts differ between nodes. Pages of `pages` are completed at each endpoint; `answer_name`
    names the answers in messages.
    """

    def __init__(
        self, endpoint_pool: EndpointPool, pages: LensPages | None = None, answer_name: str = ""
    ) -> None:
        super().__init__()
        self._endpoint_pool = endpoint_pool
        self._pages = pages
        self._answer_name = answer_name
        self.operator = ", ".join(sorted(operators_of(endpoint_pool.endpoints)))
        self.name = endpoint_pool.endpoints[0].name
        if len(endpoint_pool.endpoints) > 1:
            self.name = f"endpoints of {self.operator}"

    @property
    def request_count(self) -> int:
        """See Transport."""
        return self._endpoint_pool.request_count

    def batch(self, calls: Sequence[RpcCall]) -> list[Any]:
        """See Transport. Raises NoQuorum if a call has no answer that enough operators give."""
        endpoints = self._endpoint_pool.endpoints
        min_operators = self._endpoint_pool.min_operators
        if not calls or len(endpoints) == 1:
            return self._ask(endpoints[0], calls)
        if any("latest" in params for _, params in calls):
            block_ref = block_ref_at_hash(self._head().hash)
            calls = [
                (method, [block_ref if param == "latest" else param for param in params])
                for method, params in calls
            ]

        answer_names = [self._answer_name or f"the answer to {method}" for method, _ in calls]

        def vote(answers: Mapping[Endpoint, list[Any]]) -> list[str]:
            return [
                confirmed_value(
                    [
                        (endpoint.operator, _vote_key(call, replies[i]))
                        for endpoint, replies in answers.items()
                    ],
                    min_operators,
                    answer_names[i],
                )
                for i, call in enumerate(calls)
            ]

        quorum = quorum_size(len(operators_of(endpoints)), min_operators)
        poll = self._endpoint_pool.ask(
            lambda endpoint: self._ask(endpoint, calls),
            is_enough=lambda answers: (
                len(operators_of(answers)) >= quorum and is_decided(vote, answers)
            ),
        )
        self._endpoint_pool.require_quorum(poll)
        agreed_vote_keys = vote(poll.answers)
        agreed_answers_by_call: list[list[Any]] = [[] for _ in calls]
        for endpoint, replies in poll.answers.items():
            for i, call in enumerate(calls):
                if _vote_key(call, replies[i]) == agreed_vote_keys[i]:
                    agreed_answers_by_call[i].append(replies[i])
                else:
                    self._endpoint_pool.blame(endpoint, f"differs in {answer_names[i]}")
        return [_representative(answers) for answers in agreed_answers_by_call]

    def _ask(self, endpoint: Endpoint, calls: Sequence[RpcCall]) -> list[Any]:
        """Return one endpoint's raw answers, pages whole. Among several, a refusal is a vote."""
        answers = endpoint.batch(calls)
        if self._pages is None:
            return answers
        try:
            return self._pages.requery_unread(endpoint, calls, answers)
        except CallFailed:
            if len(self._endpoint_pool.endpoints) == 1:
                raise
            return answers

    def _head(self) -> Head:
        """Return the newest agreed block. Raises NoQuorum if too few newest blocks are near it,
        since an old block may lack contracts.
        """
        poll = ask_at_one_block(self._endpoint_pool, read_head, lambda head: head)
        if poll.height_disagreement_text:
            raise NoQuorum(poll.height_disagreement_text, NO_MAJORITY_REMEDY, code=ErrorCode.LAG)
        return poll.endpoints_and_answers[0][1]


class SnapshotProvider(QuorumProvider):
    """Provider of one batch at the block `head`, whose header comes first, asked of the endpoints
    `endpoints_with_block`: all answers of an endpoint are one vote (T2). `names` are those of the
    answers after the header, items of a page one by one. After the batch, `agreement` has the
    operators that agree, `agreeing_endpoints` their endpoints, and `failures` those of others.
    """

    agreement: QuorumAgreement
    agreeing_endpoints: Sequence[Endpoint]

    def __init__(
        self,
        endpoint_pool: EndpointPool,
        pages: LensPages,
        head: Head,
        endpoints_with_block: Sequence[Endpoint],
        failures: Mapping[Endpoint, TrimtabError],
        answer_names: Sequence[str],
    ) -> None:
        super().__init__(endpoint_pool)
        self._snapshot_pages = pages
        self._block_head = head
        self._endpoints_with_block = endpoints_with_block
        self._answer_names = answer_names
        self.failures = dict(failures)

    def batch(self, calls: Sequence[RpcCall]) -> list[Any]:
        """See Transport. Raises Refused if there is no quorum, naming dissenters and
        differences.
        """
        endpoint_pool = self._endpoint_pool
        answers = dict[Endpoint, list[Any]]()

        def cast_vote(endpoint: Endpoint) -> EndpointAnswer:
            header, *call_answers = answers[endpoint] = self._ask(endpoint, calls)
            compared_values = [
                compared_value
                for call, answer in zip(calls[1:], call_answers, strict=True)
                for compared_value in self._compared_values(call, answer)
            ]
            return EndpointAnswer(endpoint.operator, parse_head(header, 0), tuple(compared_values))

        def find_agreement(votes: Mapping[Endpoint, EndpointAnswer]) -> QuorumAgreement:
            return find_quorum(
                list(votes.values()), self._answer_names, endpoint_pool.min_operators
            )

        poll = endpoint_pool.ask(
            cast_vote, self._endpoints_with_block, lambda votes: is_decided(find_agreement, votes)
        )
        self.failures |= poll.failures
        endpoint_pool.require_quorum(PollResult(poll.answers, self.failures))
        self.agreement = find_agreement(poll.answers)
        agreed_answer = self.agreement.endpoint_answer
        self.agreeing_endpoints = [
            endpoint
            for endpoint, vote in poll.answers.items()
            if vote.compared_values == agreed_answer.compared_values
        ]
        for endpoint, vote in poll.answers.items():
            if vote.compared_values != agreed_answer.compared_values:
                field_name = first_difference(agreed_answer, vote, self._answer_names)
                endpoint_pool.blame(endpoint, f"differs in {field_name}")
        return answers[self.agreeing_endpoints[0]]

    def _ask(self, endpoint: Endpoint, calls: Sequence[RpcCall]) -> list[Any]:
        """Return one endpoint's answers in canonical form; of a contract or a slot that it refuses
        to read, nothing.
        """
        raw_answers = endpoint.batch(calls)
        header = require_result(endpoint.name, BLOCK_METHOD, raw_answers[0])
        if parse_head(header, 0).hash != self._block_head.hash:
            raise Retryable(
                f"{endpoint.name} returned a different block {self._block_head.number} than before",
                "a reorg happened; try again",
                code=ErrorCode.REORG,
            )
        answers: list[Any] = []
        complete_answers = self._snapshot_pages.requery_unread(endpoint, calls, raw_answers)
        for (method, params), answer in zip(calls, complete_answers, strict=True):
            if isinstance(answer, RpcFault) and method in _EMPTY_ANSWERS:
                answers.append(_EMPTY_ANSWERS[method])
                continue
            method_name = f"{method} by block hash" if isinstance(params[-1], Mapping) else method
            answers.append(
                checked_answer(method, require_result(endpoint.name, method_name, answer))
            )
        return answers

    def _compared_values(self, call: RpcCall, answer: Any) -> Sequence[Any]:
        """Return what must be equal: of a page, each item's answer."""
        pages = self._snapshot_pages
        return pages.encoded_answers(call, answer, "the lens") if pages.items_of(call) else [answer]


_EMPTY_ANSWERS = {CALL_METHOD: "0x", STORAGE_METHOD: hex_data(bytes(32))}


def _representative(equal_answers: Sequence[Any]) -> Any:
    """Return one of the equal answers. Of errors, return one with the most frequent code, so that
    no single operator decides the reason.
    """
    error_codes = [answer.code for answer in equal_answers if isinstance(answer, RpcFault)]
    return (
        max(equal_answers, key=lambda answer: error_codes.count(answer.code))
        if error_codes
        else equal_answers[0]
    )


def _vote_key(call: RpcCall, answer: object) -> str:
    if isinstance(answer, RpcFault):
        return _FAULT_VOTE
    return json.dumps(_without_extra_fields(call, answer), sort_keys=True).lower()


def _without_extra_fields(call: RpcCall, answer: object) -> object:
    """Reduce a block without transactions to the header fields that are read, and a list of events
    to address, block, data and topics, since nodes differ in the other fields; return any other
    answer unchanged.
    """
    method, params = call
    if method == BLOCK_METHOD and params[-1] is False and isinstance(answer, Mapping):
        return {field: answer.get(field) for field in HEADER_FIELDS}
    if isinstance(answer, list) and all(
        isinstance(event, dict) and "topics" in event for event in answer
    ):
        return [
            {field: event.get(field) for field in ("address", "blockNumber", "data", "topics")}
            for event in answer
        ]
    return answer
