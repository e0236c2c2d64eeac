"""Whether operators stand at the same height: a block that one of two is far from is old, or made up, and is not traded on (T19)."""

from __future__ import annotations

from collections.abc import Mapping

from agent.chain.ballot import needed, vouched
from agent.chain.panel import Endpoint, Panel, operators


def common_height(newest: Mapping[Endpoint, int], min_operators: int) -> int:
    """The highest block that enough operators have, by the newest of each; of one operator alone all its endpoints must have it."""
    enough = needed(len(operators(newest)), min_operators)
    return vouched(_heights(newest, alone=enough == 1), enough)


def uneven(panel: Panel, newest: Mapping[Endpoint, int], height: int) -> str:
    """Who stands where, when the newest blocks of too few operators are within chain.max_lag_blocks of block `height`; else "".

    Too few can be one of two that lags, or one of two that names a block from the future. The records say who lags and who is ahead.
    """
    most, heights = panel.max_lag_blocks, _heights(newest)
    near = sum(abs(number - height) <= most for number in heights.values())
    level = near >= needed(len(heights), panel.min_operators)
    top = height if level else max(heights.values())
    for endpoint, number in newest.items():
        if top - number > most:
            panel.lags(endpoint, f"is {top - number} blocks behind block {top}")
            continue
        endpoint.health.caught_up()
        if number - height > most:
            panel.blame(endpoint, f"is {number - height} blocks ahead of block {height}", outvoted=level)
    if level:
        return ""
    told = ", ".join(f"{operator} is at block {number}" for operator, number in sorted(heights.items(), key=lambda one: one[1]))
    apart = max(abs(number - height) for number in heights.values())
    return f"endpoints are {apart} blocks apart, chain.max_lag_blocks is {most}: {told}; one lags, or names a block that nobody else has"


def _heights(newest: Mapping[Endpoint, int], *, alone: bool = False) -> dict[str, int]:
    """Newest block by operator; where it is `alone`, the one that all its endpoints have."""
    found: dict[str, int] = {}
    for endpoint, number in newest.items():
        mine = found.get(endpoint.operator, number)
        found[endpoint.operator] = min(mine, number) if alone else max(mine, number)
    return found
