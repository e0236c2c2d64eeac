"""Past rounds of the feeds of a local chain."""

from __future__ import annotations

from fractions import Fraction

from agent.chain.history import PastRound
from agent.localchain import LocalChain


def push_rounds(chain: LocalChain, symbol: str, factors: list[str]) -> list[PastRound]:
    """Rounds at these multiples of the present price, 40 minutes apart, with fresh rounds of the numeraire beside them."""
    pushed_rounds = []
    for factor in factors:
        chain.warp(2_400, refresh_feeds=False)
        chain.refresh_feeds(["USDC"])
        answer = round(chain.deployed_world.prices_usd[symbol] * Fraction(factor) * 10**8)
        chain.send(chain.feed_contract(symbol).functions.push(answer))
        pushed_rounds.append(PastRound(chain.now_s(), answer))
    return pushed_rounds
