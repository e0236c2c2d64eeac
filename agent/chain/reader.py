"""Reads everything that one step needs, at one block, in two requests per endpoint, agreed by a quorum of operators."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

from agent.chain.ask import complete, page_calls
from agent.chain.lens import Item, pages
from agent.chain.quorum import Agreement, Testimony, agree
from agent.chain.rpc import RpcFault, Transport
from agent.chain.watch import Watch, parts, questions
from agent.chain.wire import only, parse_head, quantity
from agent.errors import ConfigError, OperatorNeeded, Retryable, TrimtabError
from agent.model import Head, Quarantined, Snapshot
from agent.ports import Clock

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class _First:
    """What trip 1 says; `nonce_pending` counts what the endpoint's own pool holds."""

    head: Head
    nonce_pending: int
    priority_fee_wei: int
    gas_price_wei: int


class ChainReader:
    """Implements ports.Reader over one or more endpoints."""

    def __init__(self, transports: Sequence[Transport], chain_id: int, watch: Watch, clock: Clock, min_operators: int) -> None:
        """`min_operators` different operators must agree; 1 is for those who allowed a single one by name. Raises ConfigError."""
        operators = sorted({transport.operator for transport in transports})
        if len(operators) < max(1, min_operators):
            raise ConfigError(
                f"chain.rpc names endpoints of {len(operators)} operator(s) ({', '.join(operators)}), {min_operators} must agree",
                "add an endpoint that another operator runs, or allow the one by name in chain.single_operator",
            )
        self._transports = tuple(transports)
        self._chain_id = chain_id
        self._clock = clock
        self._min_operators = min_operators
        self._wanted = max(min_operators, min(2, len(operators)))
        self.watch = watch

    def snapshot(self) -> Snapshot:
        """See ports.Reader. Endpoints that failed or differ while enough others agree are named in `quarantined`."""
        before = sum(transport.requests for transport in self._transports)
        watch, now_s = self.watch, self._clock.now_s()
        firsts, lost = self._each(self._transports, lambda transport: self._first(transport, watch.owner))
        head = self._common_head(firsts, lost)
        asked = questions(watch)
        able = [transport for transport in firsts if firsts[transport].head.number >= head.number]
        lost |= {late: Retryable(f"{late.name} is behind block {head.number}") for late in firsts if late not in able}
        items = [question.item for question in asked]
        heard, lost_later = self._each(able, lambda transport: self._second(transport, head, watch.owner, items))
        lost |= lost_later
        self._enough({transport.operator for transport in heard}, lost)
        agreement = agree(list(heard.values()), [question.name for question in asked], self._min_operators)
        alike = [firsts[transport] for transport, one in heard.items() if one.says == agreement.testimony.says]
        requests = sum(transport.requests for transport in self._transports) - before
        return self._assemble(watch, agreement, alike, lost, now_s, requests)

    def _each(
        self, transports: Sequence[Transport], ask: Callable[[Transport], T]
    ) -> tuple[dict[Transport, T], dict[Transport, TrimtabError]]:
        """Asks all endpoints at the same time. A wrong chain ends everything; other failures are handed back."""
        answers: dict[Transport, T] = {}
        failures: dict[Transport, TrimtabError] = {}
        with ThreadPoolExecutor(max_workers=max(1, len(transports))) as pool:
            futures = [(transport, pool.submit(ask, transport)) for transport in transports]
        for transport, future in futures:
            try:
                answers[transport] = future.result()
            except WrongChain:
                raise
            except (Retryable, OperatorNeeded) as failure:
                failures[transport] = failure
        return answers, failures

    def _first(self, transport: Transport, owner: str) -> _First:
        """Trip 1. The fee suggestions may be missing: legacy chains know no priority fee."""
        block, chain, pending, priority, price = transport.batch(
            [
                ("eth_getBlockByNumber", ["latest", False]),
                ("eth_chainId", []),
                ("eth_getTransactionCount", [owner, "pending"]),
                ("eth_maxPriorityFeePerGas", []),
                ("eth_gasPrice", []),
            ]
        )
        found = quantity(only(transport.name, "eth_chainId", chain), "chain id")
        if found != self._chain_id:
            raise WrongChain(
                f"{transport.name} is on chain {found}, the config says {self._chain_id}", "fix chain.chain_id or the endpoint's url"
            )
        head = parse_head(only(transport.name, "eth_getBlockByNumber", block), found)
        suggested = 0 if isinstance(priority, RpcFault) else quantity(priority, "priority fee")
        gas_price = quantity(only(transport.name, "eth_gasPrice", price), "gas price")
        count = quantity(only(transport.name, "eth_getTransactionCount", pending), "pending nonce")
        return _First(head, count, suggested, gas_price)

    def _common_head(self, firsts: dict[Transport, _First], lost: dict[Transport, TrimtabError]) -> Head:
        """The highest block that two operators (or as many as must agree) have; the one of the slowest among them."""
        self._enough({transport.operator for transport in firsts}, lost)
        wanted = min(self._wanted, len({transport.operator for transport in firsts}))
        have: set[str] = set()
        for transport in sorted(firsts, key=lambda transport: firsts[transport].head.number, reverse=True):
            have.add(transport.operator)
            if len(have) >= wanted:
                return firsts[transport].head
        raise AssertionError("there are at least `wanted` operators")

    def _enough(self, operators: set[str], lost: dict[Transport, TrimtabError]) -> None:
        if len(operators) >= self._min_operators:
            return
        told = "; ".join(_named(line, failure) for line, failure in lost.items())
        kind = OperatorNeeded if lost and all(isinstance(failure, OperatorNeeded) for failure in lost.values()) else Retryable
        raise kind(f"{len(operators)} of {self._min_operators} operators answered: {told}", next((f.remedy for f in lost.values()), ""))

    def _second(self, transport: Transport, head: Head, owner: str, items: Sequence[Item]) -> Testimony:
        """Trip 2, all at the head's hash; a third one for what did not fit."""
        at: dict[str, object] = {"blockHash": head.hash, "requireCanonical": True}
        sized = pages(items)
        block, nonce, native, *answered = transport.batch(
            [
                ("eth_getBlockByNumber", [hex(head.number), False]),
                ("eth_getTransactionCount", [owner, at]),
                ("eth_getBalance", [owner, at]),
                *page_calls(items, sized, at),
            ]
        )
        canonical = parse_head(only(transport.name, "eth_getBlockByNumber", block), self._chain_id)
        if canonical.hash != head.hash:
            raise Retryable(f"{transport.name} no longer has block {head.number} as it was a moment ago", "a reorganisation; look again")
        return Testimony(
            transport.operator,
            canonical,
            quantity(only(transport.name, "eth_getTransactionCount by block hash", nonce), "nonce"),
            quantity(only(transport.name, "eth_getBalance by block hash", native), "native balance"),
            tuple(complete(transport, items, sized, answered, at)),
        )

    def _assemble(
        self,
        watch: Watch,
        agreement: Agreement,
        alike: Sequence[_First],
        lost: dict[Transport, TrimtabError],
        now_s: int,
        requests: int,
    ) -> Snapshot:
        read = parts(watch, agreement.testimony.items)
        failed = tuple(Quarantined("endpoint", transport.operator, failure.message) for transport, failure in lost.items())
        differing = tuple(Quarantined("endpoint", operator, f"differs in {what}") for operator, what in agreement.dissent)
        nonce = agreement.testimony.nonce
        return Snapshot(
            head=agreement.testimony.head,
            now_s=now_s,
            owner=watch.owner,
            native_wei=agreement.testimony.native_wei,
            nonce_latest=nonce,
            # Pools of transactions differ; what any of the endpoints knows of is pending. Of the fees suggested the lowest.
            nonce_pending=max(nonce, *(first.nonce_pending for first in alike)),
            priority_fee_wei=min(first.priority_fee_wei for first in alike),
            gas_price_wei=min(first.gas_price_wei for first in alike),
            holdings=read.holdings,
            allowances=read.allowances,
            pools=read.pools,
            feeds=read.feeds,
            code_hashes=read.code_hashes,
            quarantined=read.quarantined + failed + differing,
            operators=agreement.operators,
            requests=requests,
            positions=read.positions,
        )


def _named(line: Transport, failure: TrimtabError) -> str:
    return failure.message if line.name in failure.message else f"{line.name}: {failure.message}"


class WrongChain(OperatorNeeded):
    """An endpoint serves another chain than the config names."""
