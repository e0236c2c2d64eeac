"""Several wallets in the requests of one: each gets the snapshot that it would have read alone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from agent.chain.endpoints import EndpointPool
from agent.chain.providers.block_reading import BlockReader
from agent.chain.snapshot import ChainReader
from agent.chain.watch import SnapshotScope
from agent.errors import Refused
from agent.fleet.chains import FleetChain
from agent.localchain import LocalChain
from agent.model import Snapshot
from tests.support.agents import agent_config
from tests.support.endpoints import tokens, watch
from tests.support.fakes.clock import FakeClock
from tests.support.fakes.transport import RecordingTransport

STRANGER = "0x" + "22" * 20
EMPTY_WALLET = "0x" + "33" * 20


def scopes_of_three(chain: LocalChain) -> list[SnapshotScope]:
    """The rich wallet with everything, one with two of its tokens and pools, one with another spender."""
    everything = watch(chain)
    smaller = replace(everything, owner=STRANGER, tokens=everything.tokens[:2], pools=everything.pools[:2], feeds=())
    return [everything, smaller, replace(everything, owner=EMPTY_WALLET, spenders=(STRANGER,))]


def block_reader(chain: LocalChain, *transports: Any, min_operators: int = 1) -> BlockReader:
    pool = EndpointPool(transports or (chain.transport,), min_operators)
    return BlockReader(pool, chain.chain_id, chain.clock, min_operators)


def shared_snapshots(chain: LocalChain, reader: BlockReader, scopes: list[SnapshotScope]) -> list[Snapshot]:
    return [
        ChainReader((chain.transport,), chain.chain_id, scope, chain.clock, 1).snapshot_of(reader, reading)
        for scope, reading in zip(scopes, reader.read(scopes), strict=True)
    ]


def test_each_of_three_wallets_gets_what_it_would_read_alone(anvil_chain: LocalChain) -> None:
    scopes = scopes_of_three(anvil_chain)
    shared = shared_snapshots(anvil_chain, block_reader(anvil_chain), scopes)
    alone = [ChainReader((anvil_chain.transport,), anvil_chain.chain_id, scope, anvil_chain.clock, 1).snapshot() for scope in scopes]
    assert shared == alone
    assert [len(snapshot.pools) for snapshot in shared] == [len(scope.pools) for scope in scopes]
    assert [snapshot.owner for snapshot in shared] == [scope.owner for scope in scopes]


@pytest.mark.parametrize(("age_s", "request_count"), [(0, 0), (5, 0), (6, 2), (-1, 2)])
def test_reading_that_is_offered__counts_once_for_five_seconds(anvil_chain: LocalChain, age_s: int, request_count: int) -> None:
    scope = watch(anvil_chain)
    shared_reader = block_reader(anvil_chain)
    (reading,) = shared_reader.read([scope])
    line = RecordingTransport(anvil_chain.transport, "counted")
    own_reader = ChainReader((line,), anvil_chain.chain_id, scope, FakeClock(reading.now_s + age_s), 1)
    own_reader.offer(shared_reader, reading)
    own_reader.snapshot()
    assert line.request_count == request_count
    own_reader.snapshot()
    assert line.request_count == request_count + 2


def test_fifty_wallets__take_two_requests_and_their_own_items(anvil_chain: LocalChain) -> None:
    requests: list[tuple[str, list[Any]]] = []

    def note(method: str, params: list[Any]) -> tuple[str, list[Any]]:
        requests.append((method, params))
        return method, params

    line = RecordingTransport(anvil_chain.transport, "counted", ask=note)
    first = watch(anvil_chain)
    scopes = [replace(first, owner=f"0x{number:040x}") for number in range(1, 51)]
    readings = block_reader(anvil_chain, line).read(scopes)
    assert line.request_count == 2
    assert {reading.request_count for reading in readings} == {2}
    page_bytes = sum(len(params[0]["data"]) // 2 for method, params in requests if method == "eth_call")
    requests.clear()
    block_reader(anvil_chain, line).read(scopes[:1])
    single_bytes = sum(len(params[0]["data"]) // 2 for method, params in requests if method == "eth_call")
    item_bytes = 26 + 68
    items_each = 2 * len(tokens(anvil_chain))
    assert page_bytes < 2 * single_bytes + 49 * items_each * item_bytes, "two pages of the lens, what all share once, and what is theirs"


def test_a_lie_about_one_wallet_is_outvoted_and_named(anvil_chain: LocalChain) -> None:
    scopes = scopes_of_three(anvil_chain)

    def lie(method: str, params: list[Any], answer: Any) -> Any:
        return hex(10**24) if method == "eth_getBalance" and params[0] == STRANGER else answer

    lines = (
        RecordingTransport(anvil_chain.transport, "alpha"),
        RecordingTransport(anvil_chain.transport, "liar", lie),
        RecordingTransport(anvil_chain.transport, "gamma"),
    )
    shared = shared_snapshots(anvil_chain, block_reader(anvil_chain, *lines, min_operators=2), scopes)
    assert [snapshot.native_wei for snapshot in shared[1:]] == [0, 0]
    assert shared[1].operators == ("alpha", "gamma")
    assert any(item.address == "liar" for item in shared[1].unreadable_items)


def test_operators_that_differ_about_a_wallet__give_no_snapshot(anvil_chain: LocalChain) -> None:
    def lie(method: str, params: list[Any], answer: Any) -> Any:
        return hex(7) if method == "eth_getTransactionCount" and params[0] == EMPTY_WALLET and params[1] != "pending" else answer

    lines = (RecordingTransport(anvil_chain.transport, "alpha"), RecordingTransport(anvil_chain.transport, "liar", lie))
    with pytest.raises(Refused, match="wallet's nonce"):
        block_reader(anvil_chain, *lines, min_operators=2).read(scopes_of_three(anvil_chain))


def test_wallet_answered_differently__is_left_out_of_shared_reads(anvil_chain: LocalChain, tmp_path: Path) -> None:
    """As with pools of Slipstream: it asks by itself, from its own account."""
    senders: list[str] = []

    def note(method: str, params: list[Any]) -> tuple[str, list[Any]]:
        if method == "eth_call" and "from" in params[0]:
            senders.append(params[0]["from"])
        return method, params

    line = RecordingTransport(anvil_chain.transport, "counted", ask=note)
    scopes = scopes_of_three(anvil_chain)
    scopes[1] = replace(scopes[1], caller=STRANGER)
    readers = [ChainReader((line,), anvil_chain.chain_id, scope, anvil_chain.clock, 1) for scope in scopes]
    contexts: Any = [SimpleNamespace(position_reader=SimpleNamespace(update_scope=lambda: None, reader=reader)) for reader in readers]
    FleetChain(agent_config(anvil_chain, tmp_path).config, (line,), anvil_chain.clock).read_ahead(contexts)
    assert (line.request_count, senders) == (2, [])
    assert [readers[number].snapshot().owner for number in (0, 2)] == [scopes[0].owner, scopes[2].owner]
    assert line.request_count == 2, "both have what was read for them"
    assert readers[1].snapshot().owner == STRANGER
    assert line.request_count == 4
    assert set(senders) == {STRANGER}
