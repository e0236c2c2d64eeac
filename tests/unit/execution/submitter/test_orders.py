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
def test_every_order_of_original_bump_cancel_and_reorganisation_ends_the_nonce_exactly_once(tmp_path: Path, depth: int, least: int) -> None:
    walk = Walk(tmp_path)
    first = walk.start()
    seen, edge, acts = {walk.key(first)}, [first], 0
    for _ in range(depth):
        found: list[World] = []
        for world in edge:
            for name, act in walk.acts(world, whole=WHOLE):
                acts += 1
                try:
                    made = walk.after(world, name, act)
                    key = walk.key(made)
                    if key not in seen:
                        seen.add(key)
                        found.append(made)
                        if len(seen) % CALMED == 0:
                            walk.calm(made)
                except Exception as error:
                    raise AssertionError(f"after {' · '.join((*world.path, name))}: {error}") from error
        edge = found
    print(f"{len(seen)} states, {acts} acts")
    assert len(seen) > least
