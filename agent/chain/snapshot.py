"""Snapshot: the chain data of one step at one block, in two requests per endpoint, by quorum."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice

from agent.chain import tokens
from agent.chain.endpoints import Endpoint, EndpointPool, PollResult, operators_of
from agent.chain.lens import LensAnswer, LensItem, LensPages
from agent.chain.providers.checked import HEADER, read_batch
from agent.chain.providers.quorum import QuorumProvider, SnapshotProvider
from agent.chain.quorum import (
    NO_MAJORITY_REMEDY,
    NoQuorum,
    QuorumAgreement,
    common_height,
    confirmed_value,
    height_disagreement,
    highest_confirmed,
    lowest_sufficient,
    operators_by_value,
    quorum_size,
    read_head,
)
from agent.chain.rpc import (
    RpcCall,
    RpcFault,
    Transport,
    at_hash,
    parse_head,
    parse_quantity,
    require_result,
)
from agent.chain.watch import (
    PoolKind,
    SnapshotScope,
    deep_pool_item,
    layer_questions,
    snapshot_parts,
    snapshot_questions,
    with_deeper_ticks,
)
from agent.errors import ErrorCode, OperatorNeeded, Refused, Retryable, TrimtabError
from agent.model import (
    DataFee,
    Head,
    PastPrices,
    ProxyImplementation,
    QuarantinedItem,
    Snapshot,
)
from agent.ports import Clock


def read_past_prices(
    endpoint_pool: EndpointPool, watch: SnapshotScope, head: Head, blocks: int
) -> tuple[PastPrices, ...]:
    """Return the prices of the preceding blocks, newest first; fewer on a younger chain.

    Takes two requests per endpoint. Full nodes suffice: they keep the state of the newest 128
    blocks. Raises NoQuorum if too few operators agree, Retryable if too few answer or a reorg
    happened.
    """
    heights = range(head.number - 1, max(-1, head.number - 1 - blocks), -1)
    if not heights:
        return ()
    narrow = replace(
        watch,
        tokens=(),
        spenders=(),
        code=(),
        positions=(),
        pair_spender=None,
        supplies=(),
        layers=(),
        data_fee=DataFee.PLAIN,
    )
    what = f"the prices of the {len(heights)} blocks before block {head.number}"
    pages = LensPages([question.item for question in snapshot_questions(narrow)])
    provider = QuorumProvider(endpoint_pool, pages, what)
    headers: list[RpcCall] = [(HEADER, [hex(height), False]) for height in (head.number, *heights)]
    newest, *before = [parse_head(block, head.chain_id) for block in read_batch(provider, headers)]
    if newest.hash != head.hash:
        raise Retryable(
            f"{provider.name} returned a different block {head.number} than before",
            "a reorg happened; try again",
            code=ErrorCode.REORG,
        )
    if [past.number for past in before] != list(heights):
        raise Retryable(f"{provider.name} returned different blocks than requested")
    answers = _read_pages(provider, pages, [past.hash for past in before])
    parts = [snapshot_parts(narrow, read) for read in answers]
    return tuple(
        PastPrices(past, read.feeds, read.pools) for past, read in zip(before, parts, strict=True)
    )


def _read_pages(
    provider: QuorumProvider, pages: LensPages, hashes: Sequence[str]
) -> list[list[LensAnswer]]:
    """Return the lens's answers at each block, in one request."""
    calls = [call for block_hash in hashes for call in pages.calls(at_hash(block_hash))]
    read = read_batch(provider, calls)
    size = len(pages.pages)
    return [pages.decode(read[i * size : (i + 1) * size]) for i in range(len(hashes))]


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
    alike: dict[Endpoint, _HeadAnswer]
    lost: Mapping[Endpoint, TrimtabError]


class ChainReader:
    """Implements ports.Reader over one or more endpoints."""

    def __init__(
        self,
        lines: Sequence[Transport] | EndpointPool,
        chain_id: int,
        watch: SnapshotScope,
        clock: Clock,
        min_operators: int,
    ) -> None:
        """Set the sources; `min_operators` different operators must agree. Raises ConfigError. Only
        configs that name a single operator allow 1.
        """
        endpoint_pool = (
            lines if isinstance(lines, EndpointPool) else EndpointPool(lines, min_operators)
        )
        self._endpoint_pool = endpoint_pool
        self._chain_id = chain_id
        self._clock = clock
        self._min_operators = min_operators
        self.watch = watch

    def snapshot(self) -> Snapshot:
        """See ports.Reader. Reads the newest block that enough operators have.

        Endpoints that fail, lag or differ while enough others agree are listed in `quarantined`. If
        the operators disagree, an older block within chain.max_lag_blocks is read once: slower
        operators have it too and may outvote a dishonest one. Raises NoQuorum if too few operators'
        newest blocks are near it: it may be old or false (T19).
        """
        before, watch, now_s = self._endpoint_pool.requests, self.watch, self._clock.now_s()
        firsts = self._firsts(watch.owner)
        head = _newest(firsts.answers, self._min_operators)
        if message := height_disagreement(
            self._endpoint_pool,
            {line: first.head.number for line, first in firsts.answers.items()},
            head.number,
            head.timestamp_s,
        ):
            raise NoQuorum(message, NO_MAJORITY_REMEDY, code=ErrorCode.LAG)
        try:
            read = self._read(head, firsts, watch)
        except (Refused, Retryable):
            older = self._older(head, firsts.answers)
            if older is None:
                raise
            read = self._read(older, firsts, watch)
        if (wider := self._with_wider_layers(watch, read)) is not None:
            self.watch = watch = wider
            read = self._read(read.head, firsts, watch)
        return self._assemble(watch, read, now_s, self._endpoint_pool.requests - before)

    def past(self, head: Head, blocks: int) -> tuple[PastPrices, ...]:
        """See ports.Reader."""
        return read_past_prices(self._endpoint_pool, self.watch, head, blocks)

    def with_more_ticks(self, snapshot: Snapshot, pools: Collection[str]) -> Snapshot:
        """See ports.Reader."""
        before = self._endpoint_pool.requests
        refs = [ref for ref in self.watch.pools if ref.kind is PoolKind.V3 and ref.address in pools]
        answers = self._lens([deep_pool_item(ref) for ref in refs], snapshot.head)
        answer_of = {ref.address: answer for ref, answer in zip(refs, answers, strict=True)}
        read = tuple(
            with_deeper_ticks(pool, answer_of[pool.address]) if pool.address in answer_of else pool
            for pool in snapshot.pools
        )
        return replace(
            snapshot, pools=read, requests=snapshot.requests + self._endpoint_pool.requests - before
        )

    def _firsts(self, owner: str) -> PollResult[_HeadAnswer]:
        """Send the first request. Endpoints of another chain are excluded; if they are half or
        more, or too few others remain, an operator has to act.
        """
        quorum = quorum_size(len(operators_of(self._endpoint_pool.endpoints)), self._min_operators)
        poll = self._endpoint_pool.ask(
            lambda line: self._first(line, owner),
            enough=lambda answers: len(operators_of(answers)) >= quorum,
        )
        wrong_chain = [failure for failure in poll.lost.values() if isinstance(failure, WrongChain)]
        if wrong_chain and (
            len(wrong_chain) >= len(poll.answers) or len(poll.operators) < self._min_operators
        ):
            raise wrong_chain[0]
        self._endpoint_pool.require(poll)
        return poll

    def _read(
        self, head: Head, firsts: PollResult[_HeadAnswer], watch: SnapshotScope
    ) -> _BlockReading:
        """Send the second request, at the head's hash, and a third for items that did not fit."""
        questions = snapshot_questions(watch)
        pages = LensPages([question.item for question in questions])
        names = ["wallet's nonce", "wallet's native balance"]
        names += [question.name for question in questions] + tokens.proxy_call_names(watch.proxies)
        able, lost = [], dict(firsts.lost)
        for line, first in firsts.answers.items():
            if (lag := head.number - first.head.number) <= 0:
                able.append(line)
            elif lag > self._endpoint_pool.max_lag_blocks:
                lost[line] = Retryable(f"{line.name} is {lag} blocks behind block {head.number}")
        provider = SnapshotProvider(self._endpoint_pool, pages, head, able, lost, names)
        at = at_hash(head.hash)
        block, nonce, native, *read = read_batch(
            provider,
            [
                (HEADER, [hex(head.number), False]),
                ("eth_getTransactionCount", [watch.owner, at]),
                ("eth_getBalance", [watch.owner, at]),
                *pages.calls(at),
                *tokens.proxy_calls(watch.proxies, at),
            ],
        )
        size = len(pages.pages)
        return _BlockReading(
            parse_head(block, self._chain_id),
            parse_quantity(nonce, names[0]),
            parse_quantity(native, names[1]),
            pages.decode(read[:size]),
            tokens.proxy_implementations(watch.proxies, tokens.proxy_answers(read[size:])),
            provider.agreement,
            {line: firsts.answers[line] for line in provider.alike},
            provider.lost,
        )

    def _lens(self, items: Sequence[LensItem], head: Head) -> list[LensAnswer]:
        """Return the agreed answers to further items at a head."""
        pages = LensPages(items)
        return _read_pages(QuorumProvider(self._endpoint_pool, pages), pages, [head.hash])[0]

    def _with_wider_layers(
        self, watch: SnapshotScope, reading: _BlockReading
    ) -> SnapshotScope | None:
        """Return the scope with what the answers show besides, such as markets in which someone
        else has opened a position for the account; None if they show nothing, or while that cannot
        be read. Later snapshots read it with the rest.
        """
        answers = iter(reading.answers[len(reading.answers) - len(layer_questions(watch)) :])
        try:
            layers = tuple(
                layer.widened(
                    [*islice(answers, len(layer.questions()))],
                    lambda items: self._lens(items, reading.head),
                )
                for layer in watch.layers
            )
        except (Refused, Retryable):
            return None
        return None if layers == watch.layers else replace(watch, layers=layers)

    def _older(self, head: Head, firsts: Mapping[Endpoint, _HeadAnswer]) -> Head | None:
        """Return the newest block that all endpoints without a large lag have, by quorum on its
        header; None without a quorum, or if the block is the same.
        """
        near = [
            line
            for line, first in firsts.items()
            if first.head.number >= head.number - self._endpoint_pool.max_lag_blocks
        ]
        if len(operators_of(near)) <= quorum_size(len(operators_of(firsts)), self._min_operators):
            return None
        height = min(firsts[line].head.number for line in near)
        poll = self._endpoint_pool.ask(lambda line: read_head(line, height), among=near)
        votes = [(line.operator, answer) for line, answer in poll.answers.items()]
        try:
            older = confirmed_value(votes, self._min_operators, f"block {height}")
        except NoQuorum:
            return None
        return None if older == head else older

    def _first(self, line: Transport, owner: str) -> _HeadAnswer:
        """Send the first request. The priority fee may be missing, as on legacy chains."""
        calls: list[RpcCall] = [
            ("eth_chainId", []),
            (HEADER, ["latest", False]),
            ("eth_getTransactionCount", [owner, "pending"]),
            ("eth_gasPrice", []),
            ("eth_maxPriorityFeePerGas", []),
        ]
        *answers, priority = line.batch(calls)
        named = zip(calls, answers, strict=False)
        chain, block, *others = [
            require_result(line.name, call[0], answer) for call, answer in named
        ]
        chain_id = parse_quantity(chain, "chain id")
        if chain_id != self._chain_id:
            raise WrongChain(
                f"{line.name} is on chain {chain_id}, chain.chain_id is {self._chain_id}",
                "fix chain.chain_id or the endpoint's url",
                code=ErrorCode.CHAIN,
            )
        return _HeadAnswer(
            parse_head(block, chain_id),
            parse_quantity(others[0], "pending nonce"),
            0 if isinstance(priority, RpcFault) else parse_quantity(priority, "priority fee"),
            parse_quantity(others[1], "gas price"),
        )

    def _assemble(
        self, watch: SnapshotScope, reading: _BlockReading, now_s: int, requests: int
    ) -> Snapshot:
        agreement, read = reading.agreement, snapshot_parts(watch, reading.answers)
        # The code of new proxy implementations is read from the next snapshot on.
        known = (*watch.code, tokens.UNREADABLE)
        if new := [i.address for i in reading.implementations if i.address not in known]:
            self.watch = replace(self.watch, code=(*self.watch.code, *new))
        failed = tuple(
            QuarantinedItem("endpoint", line.operator, failure.message)
            for line, failure in reading.lost.items()
        )
        differing = tuple(
            QuarantinedItem("endpoint", operator, f"differs in {what}")
            for operator, what in agreement.dissent
        )
        # Mempools and suggested fees differ, so the majority decides. With two operators, the
        # cautious value is used: more pending transactions and lower fees.
        alike = reading.alike
        enough = quorum_size(len(operators_of(alike)), self._min_operators)
        pending = _by_operator(alike, lambda first: first.nonce_pending, max)
        return Snapshot(
            head=reading.head,
            now_s=now_s,
            owner=watch.owner,
            native_wei=reading.native_wei,
            nonce_latest=reading.nonce,
            nonce_pending=max(reading.nonce, lowest_sufficient(pending, enough)),
            priority_fee_wei=highest_confirmed(
                _by_operator(alike, lambda first: first.priority_fee_wei, min), enough
            ),
            gas_price_wei=highest_confirmed(
                _by_operator(alike, lambda first: first.gas_price_wei, min), enough
            ),
            holdings=read.holdings,
            allowances=read.allowances,
            pools=read.pools,
            feeds=read.feeds,
            code_hashes=read.code_hashes,
            quarantined=read.quarantined + failed + differing,
            operators=agreement.operators,
            requests=requests,
            positions=read.positions,
            implementations=reading.implementations,
            supplies=read.supplies,
            data_fee=read.data_fee,
            layers=read.layers,
        )


def _newest(firsts: Mapping[Endpoint, _HeadAnswer], min_operators: int) -> Head:
    """Return the highest block that enough operators have; of several headers at that height, the
    most frequent.
    """
    height = common_height(
        {line: first.head.number for line, first in firsts.items()}, min_operators
    )
    backing = operators_by_value(
        (line.operator, first.head) for line, first in firsts.items() if first.head.number == height
    )
    return max(backing, key=lambda head: len(backing[head]))


def _by_operator(
    firsts: Mapping[Endpoint, _HeadAnswer],
    field: Callable[[_HeadAnswer], int],
    choose: Callable[[int, int], int],
) -> dict[str, int]:
    values: dict[str, int] = {}
    for line, first in firsts.items():
        value = field(first)
        values[line.operator] = choose(values.get(line.operator, value), value)
    return values


class WrongChain(OperatorNeeded):
    """Raised if an endpoint serves a different chain than configured."""
