"""A feed that lags behind the market within limits.oracle_deviation, and a pool that is pushed to it before the snapshot (threat T29)."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import pytest

from agent.execution.step_context import OutcomeKind
from agent.localchain import LocalChain
from agent.units import BPS
from tests.support.searchers import ONE_POOL, PLAN_COST, SLIPPAGE, Tactic, searcher_on

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
        (1_500_000, SKEW, "swap_router_02", OutcomeKind.DONE),
        (4_000_000, SKEW, "swap_router_02", OutcomeKind.REFUSED),
        pytest.param(2_000_000, BOTH, "swap_router_02", None, marks=pytest.mark.slow),
        pytest.param(1_800_000, BOTH, "rebalancer", None, marks=pytest.mark.slow),
        pytest.param(3_000_000, BOTH, "rebalancer", OutcomeKind.REFUSED, marks=pytest.mark.slow),
    ],
)
def test_a_mean_beside_a_lagging_feed_bounds_what_a_pushed_pool_takes(
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
