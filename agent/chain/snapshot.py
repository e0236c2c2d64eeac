"""Snapshot: the chain data of one step at one block, in two requests per endpoint, by quorum."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from agent.chain import tokens
from agent.chain.endpoints import Endpoint, EndpointPool, PollResult, operators_of
from agent.chain.lens import LensAnswer, LensItem, complete_answers, page_calls, split_into_pages
from agent.chain.perpetuals import perp_questions, unnamed_markets, unread_bases
from agent.chain.quorum import (
    NO_MAJORITY_REMEDY,
    EndpointAnswer,
    NoQuorum,
    QuorumAgreement,
    QuorumTransport,
    common_height,
    confirmed_value,
    difference,
    find_quorum,
    height_disagreement,
    highest_confirmed,
    lowest_sufficient,
    operators_by_value,
    quorum_size,
)
from agent.chain.rpc import RpcCall, RpcFault, Transport, parse_head, parse_quantity, require_result
from agent.chain.watch import (
    PoolKind,
    SnapshotScope,
    deep_pool_item,
    snapshot_parts,
    snapshot_questions,
    with_deeper_ticks,
)
from agent.errors import ErrorCode, OperatorNeeded, Refused, Retryable, TrimtabError
from agent.model import DataFee, Head, PastPrices, QuarantinedItem, Snapshot
from agent.ports import Clock

# --- Prices of the blocks before a head: feeds and pools of each block, identified by hash, by
# quorum.


PastAnswers = tuple[tuple[Head, tuple[LensAnswer, ...]], ...]
"""Answers of one endpoint: the header of each block, and the lens's answers at it."""


def read_past_prices(
    endpoint_pool: EndpointPool, min_operators: int, watch: SnapshotScope, head: Head, blocks: int
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
        lp_spender=None,
        supplies=(),
        perps=None,
        data_fee=DataFee.PLAIN,
    )
    items = [question.item for question in snapshot_questions(narrow)]
    sized = split_into_pages(items)
    what = f"the prices of the {len(heights)} blocks before block {head.number}"

    def read_from(line: Endpoint) -> PastAnswers:
        newest, *before = _headers(line, head, heights)
        if newest.hash != head.hash:
            raise Retryable(
                f"{line.name} returned a different block {head.number} than before",
                "a reorg happened; try again",
                code=ErrorCode.REORG,
            )
        blocks_at = [{"blockHash": past.hash, "requireCanonical": True} for past in before]
        answered = line.batch([call for at in blocks_at for call in page_calls(items, sized, at)])
        answers = []
        for number, (past, at) in enumerate(zip(before, blocks_at, strict=True)):
            pages = answered[number * len(sized) : (number + 1) * len(sized)]
            answers.append((past, tuple(complete_answers(line, items, sized, pages, at))))
        return tuple(answers)

    def settled(answers: Mapping[Endpoint, PastAnswers]) -> bool:
        try:
            _agreed(answers, min_operators, what)
        except NoQuorum:
            return False
        return True

    poll = endpoint_pool.ask(read_from, enough=settled)
    endpoint_pool.require(poll)
    chosen = _agreed(poll.answers, min_operators, what)
    for endpoint, answer in poll.answers.items():
        if answer != chosen:
            endpoint_pool.blame(endpoint, f"differs in {what}")
    read = [(past, snapshot_parts(narrow, answers)) for past, answers in chosen]
    return tuple(PastPrices(past, parts.feeds, parts.pools) for past, parts in read)


def _headers(line: Endpoint, head: Head, heights: range) -> list[Head]:
    calls: list[RpcCall] = [
        ("eth_getBlockByNumber", [hex(height), False]) for height in (head.number, *heights)
    ]
    answers = line.batch(calls)
    headers = [
        parse_head(require_result(line.name, "eth_getBlockByNumber", answer), head.chain_id)
        for answer in answers
    ]
    if [header.number for header in headers] != [head.number, *heights]:
        raise Retryable(f"{line.name} returned different blocks than requested")
    return headers


def _agreed(answers: Mapping[Endpoint, PastAnswers], min_operators: int, what: str) -> PastAnswers:
    return confirmed_value(
        [(endpoint.operator, answer) for endpoint, answer in answers.items()], min_operators, what
    )


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
    """Result of the second request: the agreement, the first answers of the endpoints that agree,
    and the failures of others.
    """

    agreement: QuorumAgreement
    alike: dict[Endpoint, _HeadAnswer]
    lost: dict[Endpoint, TrimtabError]


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
        if (wider := self._with_held_markets(watch, read)) is not None:
            self.watch = watch = wider
            read = self._read(read.agreement.endpoint_answer.head, firsts, watch)
        return self._assemble(watch, read, now_s, self._endpoint_pool.requests - before)

    def past(self, head: Head, blocks: int) -> tuple[PastPrices, ...]:
        """See ports.Reader."""
        return read_past_prices(self._endpoint_pool, self._min_operators, self.watch, head, blocks)

    def with_more_ticks(self, snapshot: Snapshot, pools: Collection[str]) -> Snapshot:
        """See ports.Reader."""
        before, at = (
            self._endpoint_pool.requests,
            {"blockHash": snapshot.head.hash, "requireCanonical": True},
        )
        refs = [ref for ref in self.watch.pools if ref.kind is PoolKind.V3 and ref.address in pools]
        items = [deep_pool_item(ref) for ref in refs]
        line, sized = QuorumTransport(self._endpoint_pool), split_into_pages(items)
        answers = complete_answers(line, items, sized, line.batch(page_calls(items, sized, at)), at)
        found = {ref.address: answer for ref, answer in zip(refs, answers, strict=True)}
        read = tuple(
            with_deeper_ticks(pool, found[pool.address]) if pool.address in found else pool
            for pool in snapshot.pools
        )
        return replace(
            snapshot, pools=read, requests=snapshot.requests + self._endpoint_pool.requests - before
        )

    def _firsts(self, owner: str) -> PollResult[_HeadAnswer]:
        """Send the first request. Endpoints of another chain are excluded; if they are half or
        more, or too few others remain, an operator has to act.
        """
        wanted = quorum_size(len(operators_of(self._endpoint_pool.endpoints)), self._min_operators)
        poll = self._endpoint_pool.ask(
            lambda line: self._first(line, owner),
            enough=lambda answers: len(operators_of(answers)) >= wanted,
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
        """Send the second request at one block. Returns the agreement and the failures."""
        able = [line for line, first in firsts.answers.items() if first.head.number >= head.number]
        lost = dict(firsts.lost)
        for line, first in firsts.answers.items():
            if (lag := head.number - first.head.number) > self._endpoint_pool.max_lag_blocks:
                lost[line] = Retryable(f"{line.name} is {lag} blocks behind block {head.number}")
        questions = snapshot_questions(watch)
        items = [question.item for question in questions]
        names = [question.name for question in questions] + tokens.proxy_call_names(watch.proxies)

        def settled(answers: Mapping[Endpoint, EndpointAnswer]) -> bool:
            try:
                find_quorum(list(answers.values()), names, self._min_operators)
            except Refused:
                return False
            return True

        poll = self._endpoint_pool.ask(
            lambda line: self._second(line, head, watch, items), among=able, enough=settled
        )
        lost |= poll.lost
        self._endpoint_pool.require(PollResult(poll.answers, lost))
        agreement = find_quorum(list(poll.answers.values()), names, self._min_operators)
        for line, endpoint_answer in poll.answers.items():
            if endpoint_answer.says != agreement.endpoint_answer.says:
                self._endpoint_pool.blame(
                    line,
                    f"differs in {difference(agreement.endpoint_answer, endpoint_answer, names)}",
                )
        alike = {
            line: firsts.answers[line]
            for line, answer in poll.answers.items()
            if answer.says == agreement.endpoint_answer.says
        }
        return _BlockReading(agreement, alike, lost)

    def _with_held_markets(
        self, watch: SnapshotScope, found: _BlockReading
    ) -> SnapshotScope | None:
        """Return the scope with the futures markets in which someone else, such as a stolen
        delegate, has opened a position for the account; None if there are none, or while they
        cannot be read, which leaves the account unknown. Later snapshots read them with the others.
        """
        if (perps := watch.perps) is None:
            return None
        items = found.agreement.endpoint_answer.items
        count = len(items) - len(tokens.proxy_call_names(watch.proxies))
        answers = items[count - len(perp_questions(perps)) : count]
        if not (bases := unread_bases(perps, answers)):
            return None
        head = found.agreement.endpoint_answer.head
        at: dict[str, object] = {"blockHash": head.hash, "requireCanonical": True}
        line = QuorumTransport(self._endpoint_pool)

        def ask(asked: Sequence[LensItem]) -> list[LensAnswer]:
            sized = split_into_pages(asked)
            return list(
                complete_answers(line, asked, sized, line.batch(page_calls(asked, sized, at)), at)
            )

        try:
            more = unnamed_markets(bases, [market.symbol for market in perps.markets], ask)
        except (Refused, Retryable):
            return None
        return replace(watch, perps=replace(perps, markets=(*perps.markets, *more)))

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
        poll = self._endpoint_pool.ask(lambda line: self._header(line, height), among=near)
        votes = [(line.operator, answer) for line, answer in poll.answers.items()]
        try:
            older = confirmed_value(votes, self._min_operators, f"block {height}")
        except NoQuorum:
            return None
        return None if older == head else older

    def _header(self, line: Transport, height: int) -> Head:
        return parse_head(line.call("eth_getBlockByNumber", [hex(height), False]), self._chain_id)

    def _first(self, transport: Transport, owner: str) -> _HeadAnswer:
        """Send the first request. The priority fee may be missing, as on legacy chains."""
        block, chain, pending, priority, price = transport.batch(
            [
                ("eth_getBlockByNumber", ["latest", False]),
                ("eth_chainId", []),
                ("eth_getTransactionCount", [owner, "pending"]),
                ("eth_maxPriorityFeePerGas", []),
                ("eth_gasPrice", []),
            ]
        )
        quantity = parse_quantity(require_result(transport.name, "eth_chainId", chain), "chain id")
        if quantity != self._chain_id:
            raise WrongChain(
                f"{transport.name} is on chain {quantity}, chain.chain_id is {self._chain_id}",
                "fix chain.chain_id or the endpoint's url",
                code=ErrorCode.CHAIN,
            )
        head = parse_head(require_result(transport.name, "eth_getBlockByNumber", block), quantity)
        suggested = (
            0 if isinstance(priority, RpcFault) else parse_quantity(priority, "priority fee")
        )
        gas_price = parse_quantity(
            require_result(transport.name, "eth_gasPrice", price), "gas price"
        )
        count = parse_quantity(
            require_result(transport.name, "eth_getTransactionCount", pending), "pending nonce"
        )
        return _HeadAnswer(head, count, suggested, gas_price)

    def _second(
        self, transport: Transport, head: Head, watch: SnapshotScope, items: Sequence[LensItem]
    ) -> EndpointAnswer:
        """Send the second request, at the head's hash, and a third for items that did not fit.
        Token implementations come after the items.
        """
        at: dict[str, object] = {"blockHash": head.hash, "requireCanonical": True}
        sized, further = split_into_pages(items), tokens.proxy_calls(watch.proxies, at)
        block, nonce, native, *answered = transport.batch(
            [
                ("eth_getBlockByNumber", [hex(head.number), False]),
                ("eth_getTransactionCount", [watch.owner, at]),
                ("eth_getBalance", [watch.owner, at]),
                *further,
                *page_calls(items, sized, at),
            ]
        )
        extra, answered = answered[: len(further)], answered[len(further) :]
        canonical = parse_head(
            require_result(transport.name, "eth_getBlockByNumber", block), self._chain_id
        )
        if canonical.hash != head.hash:
            raise Retryable(
                f"{transport.name} returned a different block {head.number} than before",
                "a reorg happened; try again",
                code=ErrorCode.REORG,
            )
        return EndpointAnswer(
            transport.operator,
            canonical,
            parse_quantity(
                require_result(transport.name, "eth_getTransactionCount by block hash", nonce),
                "nonce",
            ),
            parse_quantity(
                require_result(transport.name, "eth_getBalance by block hash", native),
                "native balance",
            ),
            (
                *complete_answers(transport, items, sized, answered, at),
                *tokens.proxy_answers(extra),
            ),
        )

    def _assemble(
        self, watch: SnapshotScope, found: _BlockReading, now_s: int, requests: int
    ) -> Snapshot:
        agreement = found.agreement
        items = agreement.endpoint_answer.items
        count = len(items) - len(tokens.proxy_call_names(watch.proxies))
        read, backing = (
            snapshot_parts(watch, items[:count]),
            tokens.proxy_implementations(watch.proxies, items[count:]),
        )
        self._also_watch(implementation.address for implementation in backing)
        failed = tuple(
            QuarantinedItem("endpoint", line.operator, failure.message)
            for line, failure in found.lost.items()
        )
        differing = tuple(
            QuarantinedItem("endpoint", operator, f"differs in {what}")
            for operator, what in agreement.dissent
        )
        nonce = agreement.endpoint_answer.nonce
        # Mempools and suggested fees differ, so the majority decides. With two operators, the
        # cautious value is used: more pending transactions and lower fees.
        alike = found.alike
        enough = quorum_size(len(operators_of(alike)), self._min_operators)
        pending = _by_operator(alike, lambda first: first.nonce_pending, max)
        return Snapshot(
            head=agreement.endpoint_answer.head,
            now_s=now_s,
            owner=watch.owner,
            native_wei=agreement.endpoint_answer.native_wei,
            nonce_latest=nonce,
            nonce_pending=max(nonce, lowest_sufficient(pending, enough)),
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
            implementations=backing,
            supplies=read.supplies,
            data_fee=read.data_fee,
            layers=read.layers,
        )

    def _also_watch(self, found: Iterable[str]) -> None:
        """Read the code of new proxy implementations from the next snapshot on."""
        new = [address for address in found if address not in (*self.watch.code, tokens.UNREADABLE)]
        if new:
            self.watch = replace(self.watch, code=(*self.watch.code, *new))


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
    found: dict[str, int] = {}
    for line, first in firsts.items():
        value = field(first)
        found[line.operator] = choose(found.get(line.operator, value), value)
    return found


class WrongChain(OperatorNeeded):
    """Raised if an endpoint serves a different chain than configured."""
