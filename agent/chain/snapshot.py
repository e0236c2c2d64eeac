"""Snapshot: the chain data of one step at one block, in two requests per endpoint, by quorum."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice

from agent.chain import tokens
from agent.chain.endpoints import Endpoint, EndpointPool, PollResult, operators_of
from agent.chain.fees.minimum_tip import suggested_tip
from agent.chain.lens import LensAnswer, LensItem, LensPages
from agent.chain.pools.reading import deep_pool_item, with_deeper_ticks
from agent.chain.providers.checked import BLOCK_METHOD, read_batch
from agent.chain.providers.quorum import QuorumProvider, SnapshotProvider
from agent.chain.quorum import (
    NO_MAJORITY_REMEDY,
    NoQuorum,
    QuorumAgreement,
    check_heights,
    common_height,
    confirmed_value,
    highest_confirmed_number,
    lowest_sufficient_number,
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
from agent.chain.watch import (
    SnapshotScope,
    layer_questions,
    snapshot_parts,
    snapshot_questions,
)
from agent.errors import ErrorCode, PassingFault, Refused, Retryable, TrimtabError
from agent.model import (
    DataFeeKind,
    Head,
    PastPrices,
    ProxyImplementation,
    Snapshot,
    UnreadableItem,
)
from agent.ports import Clock


def read_past_prices(
    endpoint_pool: EndpointPool, scope: SnapshotScope, head: Head, block_count: int
) -> tuple[PastPrices, ...]:
    """Return the prices of the preceding blocks, newest first; fewer on a younger chain.

    Takes two requests per endpoint. Full nodes suffice: they keep the state of the newest 128
    blocks. Raises NoQuorum if too few operators agree, Retryable if too few answer or a reorg
    happened.
    """
    heights = range(head.number - 1, max(-1, head.number - 1 - block_count), -1)
    if not heights:
        return ()
    price_scope = replace(
        scope,
        tokens=(),
        spenders=(),
        code_addresses=(),
        positions=(),
        pair_token_spender=None,
        supply_tokens=(),
        layer_scopes=(),
        data_fee_kind=DataFeeKind.PLAIN,
        short_window_s=0,
    )
    subject = f"the prices of the {len(heights)} blocks before block {head.number}"
    lens_pages = LensPages(
        [question.item for question in snapshot_questions(price_scope)], scope.caller
    )
    provider = QuorumProvider(endpoint_pool, lens_pages, subject)
    header_calls: list[RpcCall] = [
        (BLOCK_METHOD, [hex(height), False]) for height in (head.number, *heights)
    ]
    newest_head, *past_heads = [
        parse_head(block, head.chain_id) for block in read_batch(provider, header_calls)
    ]
    if newest_head.hash != head.hash:
        raise Retryable(
            f"{provider.name} returned a different block {head.number} than before",
            "a reorg happened; try again",
            code=ErrorCode.REORG,
        )
    if [past_head.number for past_head in past_heads] != list(heights):
        raise Retryable(f"{provider.name} returned different blocks than requested")
    answers_by_block = _read_pages(
        provider, lens_pages, [past_head.hash for past_head in past_heads]
    )
    past_parts = [snapshot_parts(price_scope, block_answers) for block_answers in answers_by_block]
    return tuple(
        PastPrices(past_head, block_parts.feed_rounds, block_parts.pools)
        for past_head, block_parts in zip(past_heads, past_parts, strict=True)
    )


def _read_pages(
    provider: QuorumProvider, pages: LensPages, block_hashes: Sequence[str]
) -> list[list[LensAnswer]]:
    """Return the lens's answers at each block, in one request."""
    calls = [
        call for block_hash in block_hashes for call in pages.calls(block_ref_at_hash(block_hash))
    ]
    answers = read_batch(provider, calls)
    page_count = len(pages.pages)
    return [
        pages.decode(answers[block_index * page_count : (block_index + 1) * page_count])
        for block_index in range(len(block_hashes))
    ]


@dataclass(frozen=True, slots=True)
class _HeadAnswer:
    """First answer of an endpoint: head, fees and pending nonce. `nonce_pending` includes its own
    mempool.
    """

    head: Head
    nonce_pending: int
    priority_fee_wei: int
    gas_price_wei: int


@dataclass(frozen=True, slots=True)
class _BlockReading:
    """Agreed answers at one block, the first answers of the endpoints that agree, and the failures
    of others.
    """

    head: Head
    nonce: int
    native_wei: int
    answers: Sequence[LensAnswer]
    implementations: tuple[ProxyImplementation, ...]
    agreement: QuorumAgreement
    agreeing_head_answers: dict[Endpoint, _HeadAnswer]
    failures: Mapping[Endpoint, TrimtabError]


class ChainReader:
    """Implements ports.Reader over one or more endpoints."""

    def __init__(
        self,
        transports: Sequence[Transport] | EndpointPool,
        chain_id: int,
        scope: SnapshotScope,
        clock: Clock,
        min_operators: int,
        usual_tip_wei: int = 0,
    ) -> None:
        """Set the sources; `min_operators` different operators must agree. An endpoint that suggests
        no tip counts as suggesting `usual_tip_wei`. Raises ConfigError. Only configs that name a
        single operator allow 1.
        """
        endpoint_pool = (
            transports
            if isinstance(transports, EndpointPool)
            else EndpointPool(transports, min_operators)
        )
        self._endpoint_pool = endpoint_pool
        self._chain_id = chain_id
        self._clock = clock
        self._min_operators = min_operators
        self._usual_tip_wei = usual_tip_wei
        self.scope = scope

    def snapshot(self) -> Snapshot:
        """See ports.Reader. Reads the newest block that enough operators have.

        Endpoints that fail, lag or differ while enough others agree are listed in
        `unreadable_items`. If the operators disagree, an older block within chain.max_lag_blocks is
        read once: slower operators have it too and may outvote a dishonest one. Raises NoQuorum if
        too few operators' newest blocks are near it: it may be old or false (T19).
        """
        requests_before = self._endpoint_pool.request_count
        scope = self.scope
        now_s = self._clock.now_s()
        first_answers = self._first_answers(scope.owner)
        head = _newest_head(first_answers.answers, self._min_operators)
        if disagreement_text := check_heights(
            self._endpoint_pool,
            {
                endpoint: head_answer.head.number
                for endpoint, head_answer in first_answers.answers.items()
            },
            head.number,
            head.timestamp_s,
        ):
            raise NoQuorum(disagreement_text, NO_MAJORITY_REMEDY, code=ErrorCode.LAG)
        try:
            reading = self._read_block(head, first_answers, scope)
        except (Refused, Retryable):
            older_head = self._older_head(head, first_answers.answers)
            if older_head is None:
                raise
            reading = self._read_block(older_head, first_answers, scope)
        if (wider_scope := self._with_wider_layers(scope, reading)) is not None:
            self.scope = scope = wider_scope
            reading = self._read_block(reading.head, first_answers, scope)
        return self._assemble_and_extend(
            scope, reading, now_s, self._endpoint_pool.request_count - requests_before
        )

    def past_prices(self, head: Head, block_count: int) -> tuple[PastPrices, ...]:
        """See ports.Reader."""
        return read_past_prices(self._endpoint_pool, self.scope, head, block_count)

    def with_more_ticks(self, snapshot: Snapshot, pools: Collection[str]) -> Snapshot:
        """See ports.Reader."""
        requests_before = self._endpoint_pool.request_count
        pool_refs = [
            pool_ref
            for pool_ref in self.scope.pools
            if pool_ref.has_ticks and pool_ref.address in pools
        ]
        answers = self._read_items(
            [deep_pool_item(pool_ref) for pool_ref in pool_refs], snapshot.head
        )
        answer_by_pool = {
            pool_ref.address: answer for pool_ref, answer in zip(pool_refs, answers, strict=True)
        }
        deeper_pools = tuple(
            with_deeper_ticks(pool, answer_by_pool[pool.address])
            if pool.address in answer_by_pool
            else pool
            for pool in snapshot.pools
        )
        return replace(
            snapshot,
            pools=deeper_pools,
            http_request_count=snapshot.http_request_count
            + self._endpoint_pool.request_count
            - requests_before,
        )

    def _first_answers(self, owner: str) -> PollResult[_HeadAnswer]:
        """Send the first request. Endpoints of another chain are excluded; if they are half or
        more, or too few others remain, an operator has to act.
        """
        quorum = quorum_size(len(operators_of(self._endpoint_pool.endpoints)), self._min_operators)
        poll = self._endpoint_pool.ask(
            lambda endpoint: self._first_answer(endpoint, owner),
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
        self._endpoint_pool.require_quorum(poll)
        return poll

    def _read_block(
        self, head: Head, first_answers: PollResult[_HeadAnswer], scope: SnapshotScope
    ) -> _BlockReading:
        """Send the second request, at the head's hash, and a third for items that did not fit."""
        questions = snapshot_questions(scope)
        pages = LensPages([question.item for question in questions], scope.caller)
        item_names = ["wallet's nonce", "wallet's native balance"]
        item_names += [question.name for question in questions] + tokens.proxy_call_names(
            scope.proxies
        )
        endpoints_with_block = []
        failures = dict(first_answers.failures)
        for endpoint, head_answer in first_answers.answers.items():
            if (lag_blocks := head.number - head_answer.head.number) <= 0:
                endpoints_with_block.append(endpoint)
            elif lag_blocks > self._endpoint_pool.max_lag_blocks:
                failures[endpoint] = Retryable(
                    f"{endpoint.name} is {lag_blocks} blocks behind block {head.number}"
                )
        provider = SnapshotProvider(
            self._endpoint_pool, pages, head, endpoints_with_block, failures, item_names
        )
        block_ref = block_ref_at_hash(head.hash)
        block_answer, nonce_answer, native_answer, *page_answers = read_batch(
            provider,
            [
                (BLOCK_METHOD, [hex(head.number), False]),
                ("eth_getTransactionCount", [scope.owner, block_ref]),
                ("eth_getBalance", [scope.owner, block_ref]),
                *pages.calls(block_ref),
                *tokens.proxy_calls(scope.proxies, block_ref),
            ],
        )
        page_count = len(pages.pages)
        return _BlockReading(
            parse_head(block_answer, self._chain_id),
            parse_quantity(nonce_answer, item_names[0]),
            parse_quantity(native_answer, item_names[1]),
            pages.decode(page_answers[:page_count]),
            tokens.proxy_implementations(
                scope.proxies, tokens.proxy_answers(page_answers[page_count:])
            ),
            provider.agreement,
            {endpoint: first_answers.answers[endpoint] for endpoint in provider.agreeing_endpoints},
            provider.failures,
        )

    def _read_items(self, items: Sequence[LensItem], head: Head) -> list[LensAnswer]:
        """Return the agreed answers to further items at a head."""
        pages = LensPages(items)
        return _read_pages(QuorumProvider(self._endpoint_pool, pages), pages, [head.hash])[0]

    def _with_wider_layers(
        self, scope: SnapshotScope, reading: _BlockReading
    ) -> SnapshotScope | None:
        """Return the scope with what the answers show besides, such as markets in which someone
        else has opened a position for the account; None if they show nothing, or while that cannot
        be read. Later snapshots read it with the rest.
        """
        layer_answers = iter(reading.answers[len(reading.answers) - len(layer_questions(scope)) :])
        try:
            wider_layers = tuple(
                layer.wider_scope(
                    [*islice(layer_answers, len(layer.questions()))],
                    lambda items: self._read_items(items, reading.head),
                )
                for layer in scope.layer_scopes
            )
        except (Refused, Retryable):
            return None
        return (
            None
            if wider_layers == scope.layer_scopes
            else replace(scope, layer_scopes=wider_layers)
        )

    def _older_head(self, head: Head, first_answers: Mapping[Endpoint, _HeadAnswer]) -> Head | None:
        """Return the newest block that all endpoints without a large lag have, by quorum on its
        header; None without a quorum, or if the block is the same.
        """
        near_endpoints = [
            endpoint
            for endpoint, head_answer in first_answers.items()
            if head_answer.head.number >= head.number - self._endpoint_pool.max_lag_blocks
        ]
        if len(operators_of(near_endpoints)) <= quorum_size(
            len(operators_of(first_answers)), self._min_operators
        ):
            return None
        height = min(first_answers[endpoint].head.number for endpoint in near_endpoints)
        poll = self._endpoint_pool.ask(
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

    def _first_answer(self, transport: Transport, owner: str) -> _HeadAnswer:
        """Send the first request. A node may suggest no priority fee, as on legacy chains."""
        calls: list[RpcCall] = [
            ("eth_chainId", []),
            (BLOCK_METHOD, ["latest", False]),
            ("eth_getTransactionCount", [owner, "pending"]),
            ("eth_gasPrice", []),
            ("eth_maxPriorityFeePerGas", []),
        ]
        *answers, priority_answer = transport.batch(calls)
        answered_calls = zip(calls, answers, strict=False)
        chain_answer, block, *nonce_and_gas_price = [
            require_result(transport.name, call[0], answer) for call, answer in answered_calls
        ]
        chain_id = parse_quantity(chain_answer, "chain id")
        if chain_id != self._chain_id:
            raise WrongChain(
                f"{transport.name} is on chain {chain_id}, chain.chain_id is {self._chain_id}",
                "fix chain.chain_id or the endpoint's url",
                code=ErrorCode.CHAIN,
            )
        return _HeadAnswer(
            parse_head(block, chain_id),
            parse_quantity(nonce_and_gas_price[0], "pending nonce"),
            self._usual_tip_wei
            if (suggested_tip_wei := suggested_tip(priority_answer)) is None
            else suggested_tip_wei,
            parse_quantity(nonce_and_gas_price[1], "gas price"),
        )

    def _assemble_and_extend(
        self, scope: SnapshotScope, reading: _BlockReading, now_s: int, request_count: int
    ) -> Snapshot:
        agreement = reading.agreement
        parts = snapshot_parts(scope, reading.answers)
        # The code of new proxy implementations is read from the next snapshot on.
        known_addresses = (*scope.code_addresses, tokens.UNREAD_ADDRESS)
        if new_addresses := [
            implementation.address
            for implementation in reading.implementations
            if implementation.address not in known_addresses
        ]:
            self.scope = replace(
                self.scope, code_addresses=(*self.scope.code_addresses, *new_addresses)
            )
        failed_items = tuple(
            UnreadableItem("endpoint", endpoint.operator, failure.message)
            for endpoint, failure in reading.failures.items()
        )
        dissent_items = tuple(
            UnreadableItem("endpoint", operator, f"differs in {field_name}")
            for operator, field_name in agreement.dissent
        )
        # Mempools and suggested fees differ, so the majority decides. With two operators, the
        # cautious value is used: more pending transactions and lower fees.
        agreeing_head_answers = reading.agreeing_head_answers
        quorum = quorum_size(len(operators_of(agreeing_head_answers)), self._min_operators)
        pending_nonces = _reduced_by_operator(
            agreeing_head_answers, lambda head_answer: head_answer.nonce_pending, max
        )
        return Snapshot(
            head=reading.head,
            now_s=now_s,
            owner=scope.owner,
            native_wei=reading.native_wei,
            nonce_latest=reading.nonce,
            nonce_pending=max(reading.nonce, lowest_sufficient_number(pending_nonces, quorum)),
            priority_fee_wei=highest_confirmed_number(
                _reduced_by_operator(
                    agreeing_head_answers, lambda head_answer: head_answer.priority_fee_wei, min
                ),
                quorum,
            ),
            gas_price_wei=highest_confirmed_number(
                _reduced_by_operator(
                    agreeing_head_answers, lambda head_answer: head_answer.gas_price_wei, min
                ),
                quorum,
            ),
            holdings=parts.holdings,
            allowances=parts.allowances,
            pools=parts.pools,
            feeds=parts.feed_rounds,
            code_hashes=parts.code_hashes,
            unreadable_items=parts.quarantined_items + failed_items + dissent_items,
            operators=agreement.agreeing_operators,
            http_request_count=request_count,
            positions=parts.positions,
            implementations=reading.implementations,
            supplies=parts.supplies,
            data_fee=parts.data_fee_quote,
            layers=parts.layer_readings,
        )


def _newest_head(first_answers: Mapping[Endpoint, _HeadAnswer], min_operators: int) -> Head:
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


def _reduced_by_operator(
    first_answers: Mapping[Endpoint, _HeadAnswer],
    number_of: Callable[[_HeadAnswer], int],
    min_or_max: Callable[[int, int], int],
) -> dict[str, int]:
    number_by_operator: dict[str, int] = {}
    for endpoint, head_answer in first_answers.items():
        answer_number = number_of(head_answer)
        number_by_operator[endpoint.operator] = min_or_max(
            number_by_operator.get(endpoint.operator, answer_number), answer_number
        )
    return number_by_operator


class WrongChain(PassingFault):
    """Raised if an endpoint serves a different chain than configured."""
