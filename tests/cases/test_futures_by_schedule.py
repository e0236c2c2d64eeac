"""Futures by a schedule on the deployed contracts: a review orders inside the bands, once, and is kept in the store."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import pytest

from agent.execution.step_context import OutcomeKind
from agent.localchain.perpetuals import LocalPerps
from agent.margin import account as margin
from tests.support import agents
from tests.support.constants import DAY_S
from tests.support.futures import EVEN, futures_config_changes
from tests.support.perpetuals.chain_orders import TWO, crash, orders_of, perps
from tests.support.perps import read_now
from tests.support.samples import slow

__all__ = ["perps"]
SCHEDULES = {
    "every": ({"every": "2d"}, "futures review every 172800"),
    "cron": ({"cron": "0 0 */2 * *", "timezone": "UTC"}, "futures review 0 0 */2 * * UTC"),
    "cron elsewhere": ({"cron": "30 9 * * *", "timezone": "Asia/Tokyo"}, "futures review 30 9 * * * Asia/Tokyo"),
}


def mine_to_noon(perps: LocalPerps) -> None:
    """The next noon in UTC, hours from each of the schedules' times."""
    perps.chain.node.mine_at((perps.chain.now_s() // DAY_S + 1) * DAY_S + DAY_S // 2)
    for symbol in ("WETH", "WBTC"):
        perps.set_index(symbol, perps.chain.deployed_world.prices_usd[symbol])
    perps.chain.refresh_feeds()


def leverage(perps: LocalPerps) -> Fraction:
    account = read_now(perps, perps.chain.wallet.address)
    return Fraction(margin.gross_notional_raw(account), margin.account_value_raw(account))


@pytest.mark.parametrize("name", ["cron elsewhere", *slow(["every", "cron"])])
def test_a_review_restores_the_leverage_inside_the_bands(perps: LocalPerps, tmp_path: Path, name: str) -> None:
    """WETH falls by a tenth: 60/40 becomes 57/43 and 2x becomes 2.14x, which no band of this config notices."""
    keys, schedule = SCHEDULES[name]
    mine_to_noon(perps)
    changes = futures_config_changes(perps, TWO)
    changes["futures"] = {**changes["futures"], **keys}  # type: ignore[dict-item]  # a table
    with agents.agent_on(perps.chain, tmp_path, changes, EVEN) as agent:
        first = agent.rebalance(send=True, confirm=agents.yes)
        assert len(orders_of(first)) == 2, first.reason
        outcome = agent.rebalance(send=True, confirm=agents.yes)
        assert (outcome.kind, outcome.transactions) == (OutcomeKind.HOLD, ()), outcome.reason
        reviews = dict(agent.context.store.budgets.history(perps.chain.now_s()).reviews.by_schedule)
        assert reviews.keys() == {schedule}
        crash(perps, "WETH", Fraction(1, 10))
        perps.set_index("WBTC", perps.chain.deployed_world.prices_usd["WBTC"])
        before = leverage(perps)
        assert before > Fraction(21, 10)
        waits = agent.rebalance(send=True, confirm=agents.yes)
        assert (waits.kind, waits.transactions) == (OutcomeKind.HOLD, ()), waits.reason
        perps.chain.node.mine_at(perps.chain.now_s() + 2 * DAY_S)
        perps.set_index("WETH", perps.chain.deployed_world.prices_usd["WETH"] * Fraction(9, 10))
        perps.set_index("WBTC", perps.chain.deployed_world.prices_usd["WBTC"])
        perps.chain.refresh_feeds()
        due = agent.rebalance(send=True, confirm=agents.yes)
        assert len(orders_of(due)) >= 1, due.reason
        assert abs(leverage(perps) - 2) < before - 2
        agent.rebalance(send=True, confirm=agents.yes)
        newest = dict(agent.context.store.budgets.history(perps.chain.now_s()).reviews.by_schedule)
        assert newest[schedule] > reviews[schedule]
