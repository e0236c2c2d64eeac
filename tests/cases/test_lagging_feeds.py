"""References that lag behind the market, and a pool that is pushed to them before the snapshot (threat T29)."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import pytest

from agent.execution.step_context import OutcomeKind
from agent.localchain import LocalChain
from agent.units import BPS
from tests.support.searchers import (
    BUYING,
    LAG_TACTICS,
    ONE_POOL,
    PLAN_COST,
    ROUTERS,
    SLIPPAGE,
    Scene,
    Tactic,
    Turn,
    UnseenMove,
    attacked_after,
    best_responses,
    searcher_on,
)

LAG = Fraction(145, BPS)
"""Within limits.oracle_deviation of 1.5 %."""
MOST = PLAN_COST + 2 * SLIPPAGE
"""Of the turnover: cost at the better price, and the slippage of the swap."""
SKEW = Tactic("skew and back-run", Fraction(1), Fraction(0), True)
BOTH = Tactic("most of it skew, the rest in front", Fraction(4, 5), Fraction(1, 5), True)


def lags(chain: LocalChain, symbol: str, share: Fraction) -> None:
    """Write a round of the feed that is this much below the market."""
    answer = int(chain.deployed_world.prices_usd[symbol] * (1 - share) * 10**8)
    chain.send(chain.feed_contract(symbol).functions.push(answer), chain.whale.address)


@pytest.mark.parametrize(
    ("size", "tactic", "router", "end"),
    [
        pytest.param(1_500_000, SKEW, "swap_router_02", OutcomeKind.DONE, id="skew within the limits"),
        pytest.param(4_000_000, SKEW, "swap_router_02", OutcomeKind.REFUSED, id="skew beyond the limits"),
        pytest.param(2_000_000, BOTH, "swap_router_02", None, marks=pytest.mark.slow, id="both tactics, router"),
        pytest.param(1_800_000, BOTH, "rebalancer", None, marks=pytest.mark.slow, id="both tactics, rebalancer"),
        pytest.param(3_000_000, BOTH, "rebalancer", OutcomeKind.REFUSED, marks=pytest.mark.slow, id="both tactics, beyond the limits"),
    ],
)
def test_mean_beside_a_lagging_feed__bounds_a_pushed_pool(
    anvil_chain: LocalChain, tmp_path: Path, size: int, tactic: Tactic, router: str, end: OutcomeKind | None
) -> None:
    """By the feed alone 170 bps of the turnover were lost."""
    with searcher_on(anvil_chain, tmp_path, ONE_POOL, router) as searcher:
        lags(anvil_chain, "WETH", LAG)
        turn = searcher.attack(tactic, Fraction(size))
        assert end is None or turn.kind is end
        turn.require_shown()
        assert turn.lost <= MOST * turn.turnover + (0 if turn.turnover else 1), turn
        if turn.kind is not OutcomeKind.DONE:
            assert turn.profit < 0


def test_with_a_feed_alone_the_shown_worst_case_is_a_bound(anvil_chain: LocalChain, tmp_path: Path) -> None:
    """No other price contradicts it, so the pool can be pushed as far as it lags; what is shown before contains that."""
    scene = replace(ONE_POOL, changes={**ONE_POOL.changes, "reference.kind": ["feed"]})
    with searcher_on(anvil_chain, tmp_path, scene, "swap_router_02") as searcher:
        lags(anvil_chain, "WETH", LAG)
        turn = searcher.attack(SKEW, Fraction(4_000_000))
        assert turn.kind is OutcomeKind.DONE
        assert turn.lost > turn.limit, "slippage and plan_cost alone are no bound"
        turn.require_shown()


# --- Feed and long mean lag together after a move; the short mean follows it.


MINUTE_S = 60
SHORT_WINDOW_S = 5 * MINUTE_S
"""Of a new config."""
OFF = {"reference.short_window": "off"}
LAGGING_TOO = PLAN_COST + SLIPPAGE + Fraction(150, BPS)
"""What may be lost while the short mean lags like the others: limits.md, "all alike"."""


def worst_of(turns: list[Turn]) -> Fraction:
    """Return the largest loss as a share of the turnover, after a check of the bounds that were shown."""
    for turn in turns:
        turn.require_shown()
        if turn.turnover == 0:
            assert turn.lost <= 1, turn
    return max((turn.lost / turn.turnover for turn in turns if turn.turnover), default=Fraction(0))


def after(move_bps: int, minutes: int, step_count: int = 1) -> UnseenMove:
    return UnseenMove(move_bps, step_count, minutes * MINUTE_S)


@pytest.mark.parametrize(
    ("scene", "move"),
    [
        pytest.param(ONE_POOL, after(145, 5), id="sale after a rise", marks=pytest.mark.slow),
        pytest.param(BUYING, after(-145, 5), id="purchase after a fall"),
        pytest.param(ONE_POOL, after(145, 5, 10), id="sale after a ramp", marks=pytest.mark.slow),
    ],
)
def test_from_five_minutes_on_an_unseen_move_costs_little(anvil_chain: LocalChain, tmp_path: Path, scene: Scene, move: UnseenMove) -> None:
    assert worst_of(best_responses(anvil_chain, tmp_path, scene, ROUTERS[0], move, rounds=4)) <= MOST


def test_without_a_short_mean_an_unseen_move_costs_itself(anvil_chain: LocalChain, tmp_path: Path) -> None:
    """The attack of the test above takes more than its bound from an agent whose config switches the short mean off."""
    blind = replace(ONE_POOL, changes={**ONE_POOL.changes, **OFF})
    turn = attacked_after(anvil_chain, tmp_path, blind, ROUTERS[0], after(145, 5), LAG_TACTICS[1], Fraction(4_500_000))
    assert worst_of([turn]) > Fraction(190, BPS)


HARMFUL = ((ONE_POOL, 1), (BUYING, -1))
"""The wallet sells what has risen, or buys what has fallen."""
HARMLESS = ((ONE_POOL, -1), (BUYING, 1))
SLOW_ROWS = [
    *((scene, after(sign * 145, minutes), ROUTERS[0]) for minutes in (0, 2, 5, 10, 15, 40) for scene, sign in HARMFUL),
    *((scene, after(sign * 145, minutes), ROUTERS[0]) for minutes in (0, 5) for scene, sign in HARMLESS),
    *((scene, after(sign * 145, minutes, 10), ROUTERS[0]) for minutes in (0, 2, 5) for scene, sign in HARMFUL),
    *((scene, after(sign * 60, minutes), ROUTERS[0]) for minutes in (0, 5) for scene, sign in HARMFUL),
    *((scene, after(sign * 145, minutes), ROUTERS[1]) for minutes in (0, 5) for scene, sign in HARMFUL),
]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("scene", "move", "router"),
    SLOW_ROWS,
    ids=[f"{scene.name} {move.move_bps} in {move.step_count} {move.wait_s} s {router}" for scene, move, router in SLOW_ROWS],
)
def test_best_response_to_an_unseen_move_is_within_limits(
    anvil_chain: LocalChain, tmp_path: Path, scene: Scene, move: UnseenMove, router: str
) -> None:
    bound = MOST if move.wait_s >= SHORT_WINDOW_S else LAGGING_TOO
    assert worst_of(best_responses(anvil_chain, tmp_path, scene, router, move, rounds=6)) <= bound


@pytest.mark.parametrize("minutes", [5, *(pytest.param(minutes, marks=pytest.mark.slow) for minutes in (10, 15, 40))])
@pytest.mark.parametrize(("scene", "move_bps"), [(ONE_POOL, 290), (BUYING, -290)], ids=["sale", "purchase"])
def test_short_mean_beyond_the_limit_of_all_sizes_refuses(
    anvil_chain: LocalChain, tmp_path: Path, scene: Scene, move_bps: int, minutes: int
) -> None:
    """The pool is pushed back to feed and long mean, from which the market has moved by more than oracle_deviation."""
    turns = best_responses(anvil_chain, tmp_path, scene, ROUTERS[0], after(move_bps, minutes), rounds=2 if minutes == 5 else 6)
    assert {turn.kind for turn in turns} <= {OutcomeKind.REFUSED, OutcomeKind.HALT}
