"""Snapshot: the chain data of one step at one block, in two requests per endpoint, by quorum."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from itertools import islice

from agent.chain import tokens
from agent.chain.endpoints import EndpointPool, operators_of
from agent.chain.lens import LensAnswer, LensItem, LensPages
from agent.chain.pools.reading import deep_pool_item, with_deeper_ticks
from agent.chain.providers.block_reading import BlockReader, WalletReading
from agent.chain.providers.checked import BLOCK_METHOD, read_batch
from agent.chain.providers.quorum import QuorumProvider
from agent.chain.quorum import (
    highest_confirmed_number,
    lowest_sufficient_number,
    number_by_operator,
    quorum_size,
)
from agent.chain.rpc import (
    RpcCall,
    Transport,
    block_ref_at_hash,
    parse_head,
)
from agent.chain.watch import (
    SnapshotScope,
    layer_questions,
    snapshot_parts,
    snapshot_questions,
)
from agent.errors import READ_FAILURES, ErrorCode, Retryable
from agent.model import (
    DataFeeKind,
    Head,
    PastPrices,
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


MAX_OFFER_AGE_S = 5
"""Age up to which a reading that was offered counts as one of the newest block."""


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
        self._block_reader = BlockReader(
            endpoint_pool, chain_id, clock, min_operators, usual_tip_wei
        )
        self._clock = clock
        self._min_operators = min_operators
        self._offer: tuple[BlockReader, WalletReading] | None = None
        self.scope = scope

    def snapshot(self) -> Snapshot:
        """See ports.Reader. Reads the newest block that enough operators have.

        Endpoints that fail, lag or differ while enough others agree are listed in
        `unreadable_items`. If the operators disagree, an older block within chain.max_lag_blocks is
        read once: slower operators have it too and may outvote a dishonest one. Raises NoQuorum if
        too few operators' newest blocks are near it: it may be old or false (T19).
        """
        offer = self._offer
        self._offer = None
        if offer is not None and self._is_current(offer[1]):
            return self.snapshot_of(*offer)
        return self.snapshot_of(self._block_reader, *self._block_reader.read([self.scope]))

    def offer(self, block_reader: BlockReader, reading: WalletReading) -> None:
        """Let the next snapshot be that of a reading for several wallets, unless the scope changes
        before it or MAX_OFFER_AGE_S pass.
        """
        self._offer = (block_reader, reading)

    def _is_current(self, reading: WalletReading) -> bool:
        age_s = self._clock.now_s() - reading.now_s
        return reading.scope == self.scope and 0 <= age_s <= MAX_OFFER_AGE_S

    def snapshot_of(self, block_reader: BlockReader, reading: WalletReading) -> Snapshot:
        """Return the snapshot of a reading of this scope by `block_reader`, perhaps for several
        wallets. What the layers then lack is read by itself, at the same block.
        """
        wider_scope = self._with_wider_layers(reading)
        if wider_scope is not None:
            self.scope = wider_scope
            requests_before = block_reader.endpoint_pool.request_count - reading.request_count
            (reading,) = block_reader.read_block(
                [wider_scope], reading.head, reading.first_poll, reading.now_s, requests_before
            )
        return self._assemble_and_extend(reading)

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

    def _read_items(self, items: Sequence[LensItem], head: Head) -> list[LensAnswer]:
        """Return the agreed answers to further items at a head."""
        pages = LensPages(items)
        return _read_pages(QuorumProvider(self._endpoint_pool, pages), pages, [head.hash])[0]

    def _with_wider_layers(self, reading: WalletReading) -> SnapshotScope | None:
        """Return the scope with what the answers show besides, such as markets in which someone
        else has opened a position for the account; None if they show nothing, or while that cannot
        be read. Later snapshots read it with the rest.
        """
        scope = reading.scope
        layer_answers = iter(reading.answers[len(reading.answers) - len(layer_questions(scope)) :])
        try:
            wider_layers = tuple(
                layer.wider_scope(
                    [*islice(layer_answers, len(layer.questions()))],
                    lambda items: self._read_items(items, reading.head),
                )
                for layer in scope.layer_scopes
            )
        except READ_FAILURES:
            return None
        return (
            None
            if wider_layers == scope.layer_scopes
            else replace(scope, layer_scopes=wider_layers)
        )

    def _assemble_and_extend(self, reading: WalletReading) -> Snapshot:
        scope = reading.scope
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
        head_answers = reading.agreeing_head_answers.items()
        quorum = quorum_size(len(operators_of(reading.agreeing_head_answers)), self._min_operators)
        pending_nonces = number_by_operator(
            ((endpoint, answer.pending_nonces[scope.owner]) for endpoint, answer in head_answers),
            max,
        )
        return Snapshot(
            head=reading.head,
            now_s=reading.now_s,
            owner=scope.owner,
            native_wei=reading.native_wei,
            nonce_latest=reading.nonce,
            nonce_pending=max(reading.nonce, lowest_sufficient_number(pending_nonces, quorum)),
            priority_fee_wei=highest_confirmed_number(
                number_by_operator(
                    ((endpoint, answer.priority_fee_wei) for endpoint, answer in head_answers), min
                ),
                quorum,
            ),
            gas_price_wei=highest_confirmed_number(
                number_by_operator(
                    ((endpoint, answer.gas_price_wei) for endpoint, answer in head_answers), min
                ),
                quorum,
            ),
            holdings=parts.holdings,
            allowances=parts.allowances,
            pools=parts.pools,
            feeds=parts.feed_rounds,
            code_hashes=parts.code_hashes,
            unreadable_items=parts.unreadable_items + failed_items + dissent_items,
            operators=agreement.agreeing_operators,
            http_request_count=reading.request_count,
            positions=parts.positions,
            implementations=reading.implementations,
            supplies=parts.supplies,
            data_fee=parts.data_fee_quote,
            layers=parts.layer_readings,
        )
