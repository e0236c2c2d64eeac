"""Pools of the local chain."""

from __future__ import annotations

import pytest

from agent.localchain.contracts import LocalPool
from agent.units import Token

WETH = Token("0x" + "01" * 20, "WETH", 18)
USDC = Token("0x" + "02" * 20, "USDC", 6)
POOL = LocalPool("v2 WETH/USDC", "0x" + "03" * 20, 2, WETH, USDC, 3_000)


@pytest.mark.parametrize(("symbol_in", "tokens"), [("WETH", (WETH, USDC)), ("USDC", (USDC, WETH))])
def test_local_pool__sells_the_token_that_is_named(symbol_in: str, tokens: tuple[Token, Token]) -> None:
    assert POOL.sold_and_bought(symbol_in) == tokens


def test_local_pool__refuses_a_token_that_it_lacks() -> None:
    with pytest.raises(ValueError, match="WBTC is not in the pool v2 WETH/USDC"):
        POOL.sold_and_bought("WBTC")
