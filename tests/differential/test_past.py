"""Blocks before a head, read by hash: what they say is what a snapshot said there, and nobody alone can say otherwise (T2, T3)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from agent.chain.providers.endpoint import EndpointProvider
from agent.chain.quorum import NoQuorum
from agent.errors import Retryable
from agent.localchain import LocalChain
from agent.model import Snapshot
from tests.support.endpoints import reader
from tests.support.fakes.transport import RecordingTransport
from tests.support.text import raises_code


def history(chain: LocalChain) -> list[Snapshot]:
    """Snapshots at four blocks in a row, in each of which a pool or a feed changed, newest first."""
    snapshots = []
    for number in range(4):
        if number == 2:
            chain.refresh_feeds(["WETH"])
        else:
            chain.swap("v3 WETH/USDC 500", "WETH", (number + 1) * 10**18)
        snapshots.append(reader(chain).snapshot())
    return snapshots[::-1]


def test_each_block_says_what_a_snapshot_said_there(anvil_chain: LocalChain) -> None:
    snapshots = history(anvil_chain)
    now = reader(anvil_chain)
    past = now.past_prices(snapshots[0].head, 3)
    assert [past_snapshot.head for past_snapshot in past] == [snapshot.head for snapshot in snapshots[1:]]
    for past_snapshot, then in zip(past, snapshots[1:], strict=True):
        assert (past_snapshot.feeds, past_snapshot.pools) == (then.feeds, then.pools)
    assert len({past_snapshot.pools for past_snapshot in past} | {snapshots[0].pools}) >= 3
    assert now.past_prices(snapshots[0].head, 0) == ()


def test_young_chain__gives_the_blocks_it_has(anvil_chain: LocalChain) -> None:
    head = reader(anvil_chain).snapshot().head
    early = anvil_chain.w3.eth.get_block(2)
    young = replace(head, number=2, hash="0x" + bytes(early["hash"]).hex(), timestamp_s=int(early["timestamp"]))
    assert [token_prices.head.number for token_prices in reader(anvil_chain).past_prices(young, 9)] == [1, 0]


def test_a_block_that_is_no_longer_there_is_looked_for_again(local_chain: LocalChain) -> None:
    mark = local_chain.snapshot()
    local_chain.swap("v3 WETH/USDC 500", "WETH", 10**18)
    head = reader(local_chain).snapshot().head
    local_chain.revert(mark)
    local_chain.swap("v3 WETH/USDC 500", "WETH", 2 * 10**18)
    with raises_code(Retryable, "reorg", "local"):
        reader(local_chain).past_prices(head, 2)


def honest(chain: LocalChain, operator: str) -> EndpointProvider:
    return EndpointProvider(chain.url or "", operator, 10, attempts=1)


def about_the_past(method: str, _params: list[Any], answer: Any) -> Any:
    """Lies by one byte, and only where it is asked about a block by its hash."""
    return answer[:-1] + ("0" if answer[-1] != "0" else "1") if method == "eth_call" else answer


def test_a_lie_about_the_past_alone_moves_nothing(chain: LocalChain) -> None:
    snapshots = history(chain)
    liar = RecordingTransport(honest(chain, "liar"), "liar", change=about_the_past)
    with raises_code(NoQuorum, "quorum", "3 blocks"):
        reader(chain, honest(chain, "alpha"), liar, min_operators=2).past_prices(snapshots[0].head, 3)
    truth = reader(chain).past_prices(snapshots[0].head, 3)
    assert reader(chain, honest(chain, "alpha"), liar, honest(chain, "beta"), min_operators=2).past_prices(snapshots[0].head, 3) == truth
