"""What V3 pools remember of themselves: their mean price in each hour, as far back as their observations go."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from agent.chain.abi import signed, word
from agent.chain.rpc import Transport
from agent.chain.wire import Call, RpcFault, hex_data, octets
from agent.model import Head, V3Pool

OBSERVE = bytes.fromhex("883bdbfd")
AT_ONCE = 48
MOST_REQUESTS = 60
"""Four months of hours for all pools together; few pools remember more than days."""
_UINT160_MAX = 2**160 - 1
_WORDS = 8


def past_means(
    line: Transport, pools: Sequence[V3Pool], head: Head, ends_s: Sequence[int], window_s: int
) -> Mapping[int, tuple[V3Pool, ...]]:
    """Pools as their observations tell them by the end of each window (`ends_s`, chain seconds, newest first), with mean tick and
    harmonic mean liquidity of the `window_s` before it; a pool is not asked beyond what it remembers. UniswapV3Pool.observe.
    """
    at: dict[str, object] = {"blockHash": head.hash, "requireCanonical": True}
    found: dict[int, list[V3Pool]] = {}
    requests = 0
    for pool in pools:
        for start in range(0, len(ends_s), AT_ONCE):
            page = [end_s for end_s in ends_s[start : start + AT_ONCE] if end_s <= head.timestamp_s]
            if not page or requests == MOST_REQUESTS:
                break
            requests += 1
            answers = line.batch([_call(pool.address, head.timestamp_s - end_s, window_s, at) for end_s in page])
            told = [(end_s, _mean(pool, answer, window_s)) for end_s, answer in zip(page, answers, strict=True)]
            for end_s, mean in told:
                found.setdefault(end_s, []).extend([] if mean is None else [mean])
            if told[-1][1] is None:  # reverts OLD: nothing further back is remembered either
                break
    return {end_s: tuple(means) for end_s, means in found.items()}


def _call(pool: str, ago_s: int, window_s: int, at: dict[str, object]) -> Call:
    """observe(uint32[]) of both ends of the window."""
    data = OBSERVE + word(32) + word(2) + word(ago_s + window_s) + word(ago_s)
    return ("eth_call", [{"to": pool, "data": hex_data(data)}, at])


def _mean(pool: V3Pool, answer: object, window_s: int) -> V3Pool | None:
    """OracleLibrary.consult over the window: the mean tick towards minus infinity, liquidity as harmonic mean."""
    if isinstance(answer, RpcFault):
        return None
    raw = octets(answer, "observations of a pool", 32 * _WORDS)
    _, _, _, tick_before, tick_after, _, seconds_before, seconds_after = (
        int.from_bytes(raw[start : start + 32], "big") for start in range(0, 32 * _WORDS, 32)
    )
    ticks = signed(tick_after) - signed(tick_before)
    seconds = (seconds_after - seconds_before) % 2**160
    if seconds == 0:
        return None
    liquidity = min(window_s * _UINT160_MAX // (seconds << 32), 2**128 - 1)
    return replace(pool, twap_tick=ticks // window_s, twap_liquidity=liquidity, twap_window_s=window_s)
