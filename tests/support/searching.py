"""Scenes that searchers attack, and the search for the size that earns most."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

from agent.localchain import LocalChain
from tests.support.agents import ROOMY, agent_on
from tests.support.searchers import Searcher, Tactic, Turn

BIG = {**ROOMY, "limits.daily_loss": "off", "limits.gas_per_day": "off", "portfolio.max_live_value": "off"}
"""Only the limits of a single plan stand between the searcher and the portfolio."""


@dataclass(frozen=True, slots=True)
class Scene:
    """A portfolio large enough to be worth an attack: config changes, targets, and what it holds in dollars."""

    name: str
    changes: Mapping[str, object]
    targets: Mapping[str, str] | None
    held: Mapping[str, int]


ONE_POOL = Scene(
    "one pool",
    {**BIG, "venues.uniswap_v2.pools": [], "venues.uniswap_v3.fee_tiers": [500]},
    {"WETH": "50%", "USDC": "50%"},
    {"WETH": 1_200_000, "USDC": 600_000},
)
"""300,000 dollars through one V3 pool of 40 million."""
EVERY_POOL = Scene("every pool", BIG, None, {"WETH": 900_000, "WBTC": 250_000, "USDC": 250_000, "USDT": 400_000, "LINK": 200_000})
"""Five tokens over all pools of V2 and V3."""
SCENES = (ONE_POOL, EVERY_POOL)
ROUTERS = ("swap_router_02", "rebalancer")


@contextmanager
def searcher_on(chain: LocalChain, folder: Path, scene: Scene, router: str) -> Iterator[Searcher]:
    """A searcher against an agent that holds what the scene says."""
    with agent_on(chain, folder, {**scene.changes, "execution.router": router}, scene.targets) as agent:
        yield Searcher(chain, agent, scene.held)


def searched(searcher: Searcher, tactic: Tactic, sizes: Sequence[int], rounds: int) -> list[Turn]:
    """Turns of every size tried, the most profitable first: a grid, then in each round the middle of the larger gap beside the best."""

    def attack(size_usd: Fraction) -> Turn:
        turn = searcher.attack(tactic, size_usd)
        turn.require_bounded()
        return turn

    turns = explored(attack, [Fraction(size) for size in sizes], rounds)
    return sorted(turns, key=lambda turn: turn.profit, reverse=True)


def explored(attack: Callable[[Fraction], Turn], sizes: Sequence[Fraction], rounds: int) -> list[Turn]:
    """Turns by rising size."""
    turns = {size: attack(size) for size in sizes}
    for _ in range(rounds):
        known = sorted(turns)
        best = max(range(len(known)), key=lambda number: turns[known[number]].profit)
        beside = [(low, high) for low, high in pairwise(known) if known[best] in (low, high)]
        if not beside:
            break
        low, high = max(beside, key=lambda ends: ends[1] - ends[0])
        turns[(low + high) / 2] = attack((low + high) / 2)
    return [turns[size] for size in sorted(turns)]
