"""Reading of one block for the wallets of a chain, in two requests per endpoint, by quorum."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

from agent.chain import tokens
from agent.chain.endpoints import Endpoint, EndpointPool, PollResult, operators_of
from agent.chain.fees.minimum_tip import suggested_tip
from agent.chain.lens import LensAnswer, LensItem, LensPages
from agent.chain.providers.checked import BLOCK_METHOD, read_batch
from agent.chain.providers.quorum import SnapshotProvider
from agent.chain.quorum import (
    NO_MAJORITY_REMEDY,
    NoQuorum,
    QuorumAgreement,
    check_heights,
    common_height,
    confirmed_value,
    operators_by_value,
    quorum_size,
    read_head,
)
from agent.chain.rpc import (
    RpcCall,
    Transport,
    block_ref_at_hash,
    parse_head,
    parse_quantity,
    require_result,
)
from agent.chain.watch import SnapshotScope, snapshot_questions
from agent.errors import ErrorCode, PassingFault, Refused, Retryable, TrimtabError
from agent.model import Head, ProxyImplementation
from agent.ports import Clock


@dataclass(frozen=True, slots=True)
class HeadAnswer:
    """First answer of an endpoint: head, fees, and the pending nonce of each wallet, which includes
    its own mempool.
    """

    head: Head
    pending_nonces: Mapping[str, int]
    priority_fee_wei: int
    gas_price_wei: int


@dataclass(frozen=True, slots=True)
class ReadPlan:
    """What is asked for wallets read together: each different item once, with its name, and the
    places of each scope's items among them.
    """

    pages: LensPages
    item_names: Sequence[str]
    item_indexes: Sequence[Sequence[int]]
    proxies: Sequence[tokens.ProxyRef]


@lru_cache(maxsize=32)
def _read_plan(scopes: tuple[SnapshotScope, ...]) -> ReadPlan:
    """Return the plan, which is the same at each look of the same wallets."""
    name_by_item: dict[LensItem, str] = {}
    index_by_item: dict[LensItem, int] = {}
    item_indexes = []
    for scope in scopes:
        own_indexes = []
        for question in snapshot_questions(scope):
            own_indexes.append(index_by_item.setdefault(question.item, len(index_by_item)))
            name_by_item[question.item] = question.name
        item_indexes.append(own_indexes)
    proxies = list(dict.fromkeys(proxy for scope in scopes for proxy in scope.proxies))
    pages = LensPages(list(index_by_item), scopes[0].caller)
    return ReadPlan(pages, list(name_by_item.values()), item_indexes, proxies)


@dataclass(frozen=True, slots=True)
class WalletReading:
    """Agreed answers to a wallet's scope at one block. `first_poll` has the first answers of all
    endpoints, `agreeing_head_answers` those of the endpoints that agree, `failures` why others do
    not count. `now_s` is the local time before the first request, `request_count` the number of
    requests of this reading, which other wallets may share.
    """

    scope: SnapshotScope
    head: Head
    nonce: int
    native_wei: int
    answers: Sequence[LensAnswer]
    implementations: tuple[ProxyImplementation, ...]
    agreement: QuorumAgreement
    agreeing_head_answers: Mapping[Endpoint, HeadAnswer]
    failures: Mapping[Endpoint, TrimtabError]
    first_poll: PollResult[HeadAnswer]
    now_s: int
    request_count: int


class BlockReader:
    """Reads the newest block of a chain for one wallet, or for several in the same requests."""

    def __init__(
        self,
        endpoint_pool: EndpointPool,
        chain_id: int,
        clock: Clock,
        min_operators: int,
        usual_tip_wei: int = 0,
    ) -> None:
        """See ChainReader."""
        self.endpoint_pool = endpoint_pool
        self._chain_id = chain_id
        self._clock = clock
        self._min_operators = min_operators
        self._usual_tip_wei = usual_tip_wei

    def read(self, scopes: Sequence[SnapshotScope]) -> list[WalletReading]:
        """Return the reading of each scope at the newest block that enough operators have. All
        scopes have the same caller. Raises as ChainReader.snapshot.
        """
        now_s = self._clock.now_s()
        requests_before = self.endpoint_pool.request_count
        first_poll = self._first_answers([scope.owner for scope in scopes])
        head = _newest_head(first_poll.answers, self._min_operators)
        if disagreement_text := check_heights(
            self.endpoint_pool,
            {
                endpoint: head_answer.head.number
                for endpoint, head_answer in first_poll.answers.items()
            },
            head.number,
            head.timestamp_s,
        ):
            raise NoQuorum(disagreement_text, NO_MAJORITY_REMEDY, code=ErrorCode.LAG)
        try:
            return self.read_block(scopes, head, first_poll, now_s, requests_before)
        except (Refused, Retryable):
            older_head = self._older_head(head, first_poll.answers)
            if older_head is None:
                raise
            return self.read_block(scopes, older_head, first_poll, now_s, requests_before)

    def read_block(
        self,
        scopes: Sequence[SnapshotScope],
        head: Head,
        first_poll: PollResult[HeadAnswer],
        now_s: int,
        requests_before: int,
    ) -> list[WalletReading]:
        """Send the second request, at the head's hash, and a third for items that did not fit.
        `requests_before` are the pool's requests before this reading.
        """
        plan = _read_plan(tuple(scopes))
        pages = plan.pages.for_one_read()
        proxies = plan.proxies
        wallet_calls = ("eth_getTransactionCount", "eth_getBalance")
        answer_names = ["wallet's nonce", "wallet's native balance"] * len(scopes)
        answer_names += [*plan.item_names, *tokens.proxy_call_names(proxies)]
        endpoints_with_block = []
        failures = dict(first_poll.failures)
        for endpoint, head_answer in first_poll.answers.items():
            if (lag_blocks := head.number - head_answer.head.number) <= 0:
                endpoints_with_block.append(endpoint)
            elif lag_blocks > self.endpoint_pool.max_lag_blocks:
                failures[endpoint] = Retryable(
                    f"{endpoint.name} is {lag_blocks} blocks behind block {head.number}"
                )
        provider = SnapshotProvider(
            self.endpoint_pool, pages, head, endpoints_with_block, failures, answer_names
        )
        block_ref = block_ref_at_hash(head.hash)
        block_answer, *call_answers = read_batch(
            provider,
            [
                (BLOCK_METHOD, [hex(head.number), False]),
                *(
                    (method, [scope.owner, block_ref])
                    for scope in scopes
                    for method in wallet_calls
                ),
                *pages.calls(block_ref),
                *tokens.proxy_calls(proxies, block_ref),
            ],
        )
        answered_head = parse_head(block_answer, self._chain_id)
        wallet_quantities = [
            parse_quantity(answer, name)
            for answer, name in zip(call_answers, answer_names[: 2 * len(scopes)], strict=False)
        ]
        page_answers = call_answers[len(wallet_quantities) :]
        page_count = len(pages.pages)
        item_answers = pages.decode(page_answers[:page_count])
        implementation_by_proxy = {
            implementation.proxy: implementation
            for implementation in tokens.proxy_implementations(
                proxies, tokens.proxy_answers(page_answers[page_count:])
            )
        }
        agreeing_head_answers = {
            endpoint: first_poll.answers[endpoint] for endpoint in provider.agreeing_endpoints
        }
        request_count = self.endpoint_pool.request_count - requests_before
        return [
            WalletReading(
                scope,
                answered_head,
                wallet_quantities[2 * index],
                wallet_quantities[2 * index + 1],
                [item_answers[item_index] for item_index in plan.item_indexes[index]],
                tuple(implementation_by_proxy[proxy.proxy] for proxy in scope.proxies),
                provider.agreement,
                agreeing_head_answers,
                provider.failures,
                first_poll,
                now_s,
                request_count,
            )
            for index, scope in enumerate(scopes)
        ]

    def _first_answers(self, owners: Sequence[str]) -> PollResult[HeadAnswer]:
        """Send the first request. Endpoints of another chain are excluded; if they are half or
        more, or too few others remain, an operator has to act.
        """
        quorum = quorum_size(len(operators_of(self.endpoint_pool.endpoints)), self._min_operators)
        poll = self.endpoint_pool.ask(
            lambda endpoint: self._first_answer(endpoint, owners),
            is_enough=lambda answers: len(operators_of(answers)) >= quorum,
        )
        wrong_chain_failures = [
            failure for failure in poll.failures.values() if isinstance(failure, WrongChain)
        ]
        if wrong_chain_failures and (
            len(wrong_chain_failures) >= len(poll.answers)
            or len(poll.operators) < self._min_operators
        ):
            raise wrong_chain_failures[0]
        self.endpoint_pool.require_quorum(poll)
        return poll

    def _older_head(self, head: Head, first_answers: Mapping[Endpoint, HeadAnswer]) -> Head | None:
        """Return the newest block that all endpoints without a large lag have, by quorum on its
        header; None without a quorum, or if the block is the same.
        """
        near_endpoints = [
            endpoint
            for endpoint, head_answer in first_answers.items()
            if head_answer.head.number >= head.number - self.endpoint_pool.max_lag_blocks
        ]
        if len(operators_of(near_endpoints)) <= quorum_size(
            len(operators_of(first_answers)), self._min_operators
        ):
            return None
        height = min(first_answers[endpoint].head.number for endpoint in near_endpoints)
        poll = self.endpoint_pool.ask(
            lambda endpoint: read_head(endpoint, height), candidates=near_endpoints
        )
        votes = [
            (endpoint.operator, endpoint_head) for endpoint, endpoint_head in poll.answers.items()
        ]
        try:
            older_head = confirmed_value(votes, self._min_operators, f"block {height}")
        except NoQuorum:
            return None
        return None if older_head == head else older_head

    def _first_answer(self, transport: Transport, owners: Sequence[str]) -> HeadAnswer:
        """Send the first request. A node may suggest no priority fee, as on legacy chains."""
        calls: list[RpcCall] = [
            ("eth_chainId", []),
            (BLOCK_METHOD, ["latest", False]),
            *(("eth_getTransactionCount", [owner, "pending"]) for owner in owners),
            ("eth_gasPrice", []),
            ("eth_maxPriorityFeePerGas", []),
        ]
        *answers, priority_answer = transport.batch(calls)
        answered_calls = zip(calls, answers, strict=False)
        chain_answer, block, *nonce_answers, gas_price_answer = [
            require_result(transport.name, call[0], answer) for call, answer in answered_calls
        ]
        chain_id = parse_quantity(chain_answer, "chain id")
        if chain_id != self._chain_id:
            raise WrongChain(
                f"{transport.name} is on chain {chain_id}, chain.chain_id is {self._chain_id}",
                "fix chain.chain_id or the endpoint's url",
                code=ErrorCode.CHAIN,
            )
        return HeadAnswer(
            parse_head(block, chain_id),
            {
                owner: parse_quantity(nonce_answer, "pending nonce")
                for owner, nonce_answer in zip(owners, nonce_answers, strict=True)
            },
            self._usual_tip_wei
            if (suggested_tip_wei := suggested_tip(priority_answer)) is None
            else suggested_tip_wei,
            parse_quantity(gas_price_answer, "gas price"),
        )


def _newest_head(first_answers: Mapping[Endpoint, HeadAnswer], min_operators: int) -> Head:
    """Return the highest block that enough operators have; of several headers at that height, the
    most frequent.
    """
    height = common_height(
        {endpoint: head_answer.head.number for endpoint, head_answer in first_answers.items()},
        min_operators,
    )
    operators_by_head = operators_by_value(
        (endpoint.operator, head_answer.head)
        for endpoint, head_answer in first_answers.items()
        if head_answer.head.number == height
    )
    return max(operators_by_head, key=lambda head: len(operators_by_head[head]))


class WrongChain(PassingFault):
    """Raised if an endpoint serves a different chain than configured."""
