"""Every order of original, bump, cancel, block, loss, reorganisation and crash at one nonce, walked state by state (T7)."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.support.samples import slow
from tests.support.transactions import Walk, World

WHOLE = "TRIMTAB_ORDERS_DEPTH" in os.environ
DEPTHS = [(int(os.environ["TRIMTAB_ORDERS_DEPTH"]), 200)] if WHOLE else [(3, 80), *slow([(4, 200)])]
"""How many acts deep, and how many states at least that finds; a depth of 99 walks until nothing new is found."""
CALMED = 1 if WHOLE else 10
"""From every so many of the states the nonce is brought to its end."""


@pytest.mark.parametrize(("depth", "least"), DEPTHS)
def test_nonce_ends_exactly_once_in_every_order_of_acts(tmp_path: Path, depth: int, least: int) -> None:
    walk = Walk(tmp_path)
    first = walk.start()
    keys = {walk.key(first)}
    edge = [first]
    acts = 0
    for _ in range(depth):
        next_edge: list[World] = []
        for world in edge:
            for name, act in walk.acts(world, whole=WHOLE):
                acts += 1
                try:
                    next_world = walk.after(world, name, act)
                    key = walk.key(next_world)
                    if key not in keys:
                        keys.add(key)
                        next_edge.append(next_world)
                        if len(keys) % CALMED == 0:
                            walk.calm(next_world)
                except Exception as error:
                    raise AssertionError(f"after {' · '.join((*world.path, name))}: {error}") from error
        edge = next_edge

    print(f"{len(keys)} states, {acts} acts")

    assert len(keys) > least
