"""Price observations of pools: UniswapV3Pool.observe, and means over a window."""

from __future__ import annotations

from collections.abc import Sequence

from agent.amm.v3.math import MAX_TICK, MIN_TICK
from agent.chain.lens import LensAnswer, answer_words, to_signed, uint_word
from agent.model import TickMean

OBSERVE = bytes.fromhex("883bdbfd")
OBSERVE_GAS = 400_000
"""Three binary searches over at most 65,535 observations, two cold reads a step."""
OBSERVE_WORDS = 8
"""Words that observe returns for the two ends of a window."""
_UINT160_MAX = 2**160 - 1


def observe_calldata(ages_s: Sequence[int]) -> bytes:
    """Return the call observe(uint32[]) for these numbers of seconds before the block."""
    return OBSERVE + b"".join(uint_word(word) for word in (32, len(ages_s), *ages_s))


def mean_over(
    window_s: int, tick_change: int, seconds_per_liquidity_change: int
) -> TickMean | None:
    """Return the mean over a window from the changes of both cumulatives in it
    (OracleLibrary.consult); None if no second was counted, or if no pool can have had the tick.
    """
    if seconds_per_liquidity_change <= 0:
        return None
    tick = tick_change // window_s
    liquidity = window_s * _UINT160_MAX // (seconds_per_liquidity_change << 32)
    if not MIN_TICK <= tick <= MAX_TICK:
        return None
    return TickMean(window_s, tick, min(liquidity, 2**128 - 1))


def observed_mean(window_s: int, answer: LensAnswer) -> TickMean | None:
    """Return the mean over a window from the answer of observe at its two ends; None if the call
    failed, because the pool's observations do not reach back that far, or if the answer is
    malformed.
    """
    words = answer_words(answer, OBSERVE_WORDS)
    if not isinstance(words, tuple) or (words[0], words[1], words[2], words[5]) != (64, 160, 2, 2):
        return None
    tick_change = to_signed(words[4]) - to_signed(words[3])
    return mean_over(window_s, tick_change, (words[7] - words[6]) % 2**160)
