"""The block that an idle served chain gets: not while its user holds blocks back, or what shall wait would be mined by time."""

from __future__ import annotations

import time

import pytest

from agent.localchain import LocalChain
from agent.localchain.market import IDLE_BLOCK_INTERVAL_S, _mine_if_idle


def test_an_idle_chain_gets_a_block_unless_automine_is_off(chain: LocalChain, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "time", lambda: chain.now_s() + IDLE_BLOCK_INTERVAL_S)

    def blocks_of_a_beat() -> int:
        before = int(chain.transport.call("eth_blockNumber", []), 16)
        _mine_if_idle(chain)
        return int(chain.transport.call("eth_blockNumber", []), 16) - before

    assert blocks_of_a_beat() == 1
    chain.transport.call("evm_setAutomine", [False])
    try:
        assert blocks_of_a_beat() == 0
    finally:
        chain.transport.call("evm_setAutomine", [True])
    assert blocks_of_a_beat() == 1
