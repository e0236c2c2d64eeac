"""Endpoints that lie about liquidity positions: found out by the quorum, or by what was known before; nothing counts that is not so."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from agent.chain.pools import positions
from agent.chain.providers.endpoint import EndpointProvider
from agent.chain.snapshot import ChainReader
from agent.chain.watch import SnapshotScope
from agent.errors import ConfigError, Refused, Retryable
from agent.localchain import LocalChain
from agent.model import ConfirmedPosition
from tests.support import lp_on_chain
from tests.support.fakes.transport import RecordingTransport

V2 = "v2 WETH/USDC"
V3 = "v3 WETH/USDC 3000"
FORMAT_BYTES = 1
STATUS_BYTES = 1
LENGTH_BYTES = 2
WORD = 32


def honest(chain: LocalChain, operator: str) -> EndpointProvider:
    return EndpointProvider(chain.url or "", operator, 10, attempts=1)


def lying(chain: LocalChain, change: Callable[[bytearray], None]) -> RecordingTransport:
    """An endpoint that alters the pages of the lens."""

    def alter(method: str, params: list[Any], answer: Any) -> Any:
        if method != "eth_call":
            return answer
        page = bytearray.fromhex(answer[2:])
        change(page)
        return "0x" + page.hex()

    return RecordingTransport(honest(chain, "liar"), "liar", change=alter)


def watch(chain: LocalChain, own: list[ConfirmedPosition]) -> SnapshotScope:
    return SnapshotScope(chain.wallet.address, (), (), (), (), (), 0, 100, lp_on_chain.refs(chain, own))


def factories(chain: LocalChain) -> dict[str, str]:
    return {"uniswap_v2": chain.addresses.v2_factory, "uniswap_v3": chain.addresses.v3_factory}


@pytest.mark.parametrize("step", [29, pytest.param(11, marks=pytest.mark.slow)])
def test_every_byte_that_is_told_of_a_position_counts(chain: LocalChain, step: int) -> None:
    about = watch(chain, [lp_on_chain.provide_v2(chain, V2, 3_000), lp_on_chain.provide_v3(chain, V3, -30, 30, 1_500)])
    sizes: list[int] = []
    truth = ChainReader([lying(chain, lambda page: sizes.append(len(page)))], chain.chain_id, about, chain.clock, 1).snapshot()
    assert len(truth.positions) == 2
    alpha = honest(chain, "alpha")
    for at in range(1, sizes[0], step):

        def flip(page: bytearray, at: int = at) -> None:
            page[at] ^= 1

        with pytest.raises((Refused, Retryable), match="liar"):
            ChainReader([alpha, lying(chain, flip)], chain.chain_id, about, chain.clock, 2).snapshot()


@pytest.mark.parametrize("field", [2, 4, 5, 6], ids=["token0", "fee", "lower tick", "upper tick"])
def test_lie_at_the_start__is_found_out_by_the_first_snapshot(chain: LocalChain, field: int) -> None:
    """The place of a token is asked of one endpoint; each snapshot holds it against what the quorum says."""
    own = lp_on_chain.provide_v3(chain, V3, -30, 30, 1_500)
    word_item = STATUS_BYTES + LENGTH_BYTES + WORD
    last_byte = FORMAT_BYTES + 2 * word_item + STATUS_BYTES + LENGTH_BYTES + WORD * field + WORD - 1

    def alter(page: bytearray) -> None:
        if len(page) > last_byte:
            page[last_byte] ^= 4

    try:
        refs = positions.resolve_positions(lying(chain, alter), [own], factories(chain))
    except ConfigError as refused:
        assert own.name in str(refused)
        return
    snapshot = lp_on_chain.look(chain, refs)
    assert snapshot.positions == ()
    (bad,) = snapshot.unreadable_items
    assert bad.subject == f"position {own.name}"
    assert "since the agent started" in bad.why


def test_token_hidden_at_the_start__is_not_taken_for_gone(chain: LocalChain) -> None:
    own = lp_on_chain.provide_v3(chain, V3, -30, 30, 1_500)
    start = FORMAT_BYTES + 2 * (STATUS_BYTES + LENGTH_BYTES + WORD)

    def hide(page: bytearray) -> None:
        page[start:] = b"\1"

    snapshot = lp_on_chain.look(chain, positions.resolve_positions(lying(chain, hide), [own], factories(chain)))
    assert snapshot.positions == ()
    assert "start the" in snapshot.unreadable_items[0].why
