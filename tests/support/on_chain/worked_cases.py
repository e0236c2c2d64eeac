"""What a worked case trades on a local chain."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from agent.localchain import LocalChain
from tests.support.agents import WalletBalances, purse


def traded_usd(chain: LocalChain, before: WalletBalances) -> dict[str, float]:
    """Dollars by which each balance grew, at world prices."""
    now = purse(chain)
    return {
        symbol: float((now.raw[symbol] - raw) * chain.deployed_world.prices_usd[symbol] / 10 ** chain.tokens[symbol].decimals)
        for symbol, raw in before.raw.items()
    }


def require_traded(chain: LocalChain, before: WalletBalances, usd_by_symbol: Mapping[str, float], within: float) -> None:
    done = traded_usd(chain, before)
    assert {symbol: done[symbol] for symbol in usd_by_symbol} == {
        symbol: pytest.approx(usd, abs=within) for symbol, usd in usd_by_symbol.items()
    }
