"""A year on a real node: recorded returns, deposits, withdrawals, edits, a stop loss, a new process each month; books equal the chain."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import pytest

from agent import app as api
from agent.config.writing.edits import ConfigChanges
from agent.localchain import LocalChain
from tests.support.long_runs import WEEK_S, Year, weeks, year

OWNERS = {
    "03": lambda life, agent: life.deposit(agent, "USDC", 5_000),
    "07": lambda life, agent: life.withdrawal(agent, 6_000),
    "09": lambda life, agent: life.deposit(agent, "WETH", 1),
    "11": lambda life, agent: life.withdrawal(agent, 9_000),
}
"""What the owner does in the first week of a month."""
EDITS = {
    "05": ConfigChanges(key_settings=(("portfolio.assets.2.stop_loss", '"18"'),)),
    "08": ConfigChanges(targets=(("WETH", "45%"), ("WBTC", "25%"))),
}
"""What he changes before a month begins; LINK stands at 23 then, and falls with all others soon."""


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("apart", [4, pytest.param(2, marks=pytest.mark.slow)])
def test_year_of_recorded_returns__ends_with_the_chain_s_books(anvil_chain: LocalChain, tmp_path: Path, apart: int) -> None:
    """The agent looks every so many weeks."""
    with year(anvil_chain, tmp_path) as life:
        months: dict[str, list[dict[str, Fraction]]] = {}
        for date, prices in weeks()[2::apart]:
            months.setdefault(date[5:7], []).append(prices)
        for month, moves in months.items():
            if month in EDITS:
                life.edited(EDITS[month])
            with life.process() as agent:
                for number, prices in enumerate(moves):
                    life.looked(agent, prices, apart * WEEK_S)
                    if number == 0 and month in OWNERS:
                        OWNERS[month](life, agent)
                        life.require_equal(agent)
        require_all_of_it(life)


def require_all_of_it(life: Year) -> None:
    """It traded, the stop sold once and stayed out, and the books' return is the observer's."""
    with life.process() as agent:
        api.refresh_ledger(agent)
        life.linked(life.value())
        stages = {row["subject"]: row["stage"] for row in api.standing_orders(agent)["orders"]}
    assert life.trades >= 6
    assert len(life.fired) == 1
    assert stages == {"LINK": "done"}
    assert life.chain.balance("LINK") * 20 < 20 * 10**18, "what the stop sold stays out"
    assert api.check_books(life.loaded.path)["sound"]
    (whole,) = api.pnl(life.loaded.path, "all")["periods"]
    assert whole["twr_bps"] == pytest.approx(float((life.growth - 1) * 10_000), abs=0.01)
    assert Fraction(whole["withdrawals"]) == 15_000
    assert Fraction(whole["end_value"]) == pytest.approx(float(life.value()), abs=1e-4)
