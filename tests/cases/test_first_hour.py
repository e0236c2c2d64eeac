"""The first hour of a newcomer, by the commands: from init to a whole portfolio, or to the truth that it is not worth it.

500, 3,000 and 100,000 dollars, at gas of 0.05, 1 and 30 gwei, in the numeraire alone, towards 50/30/20 under the limits of init.
"""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from agent.localchain import LocalChain
from agent.localchain.nodes import AnvilNode
from tests.cli.tools import in_process
from tests.support.agents import fund, purse
from tests.support.on_chain.newcomers import TARGETS, newcomer
from tests.support.scenes import GWEI, without_tips

NOT_WORTH_IT = {(500, "30"), (3_000, "30")}
"""Gas of 350,000 units at 3,000 dollars per coin is 31 dollars: more than 0.5 % of what would be bought."""


@pytest.mark.parametrize(
    ("dollars", "gwei"),
    [
        (500, "1"),
        (100_000, "30"),
        *(pytest.param(500, gwei, marks=pytest.mark.slow) for gwei in ("0.05", "30")),
        *(pytest.param(3_000, gwei, marks=pytest.mark.slow) for gwei in ("0.05", "1", "30")),
        *(pytest.param(100_000, gwei, marks=pytest.mark.slow) for gwei in ("0.05", "1")),
    ],
)
def test_a_newcomer_holds_the_whole_portfolio_or_knows_why_not(
    chain: LocalChain, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, dollars: int, gwei: str
) -> None:
    fund(chain, {"USDC": dollars})
    with without_tips(chain) as url:
        path = newcomer(chain, url, tmp_path, lambda *args: in_process(capfd, monkeypatch, *args))

        def ask(*args: str) -> Any:
            """A command at this gas price; none of them may be refused or fail."""
            assert isinstance(chain.node, AnvilNode)
            chain.node.rpc("anvil_setNextBlockBaseFeePerGas", hex(int(Fraction(gwei) * GWEI)))
            chain.mine()
            result = in_process(capfd, monkeypatch, *args, "--config", str(path), "--json")
            assert result.code == 0, result.why
            return result.json

        ask("trust", "--yes")
        least = next(row for row in ask("doctor")["checks"] if row["check"] == "minimum total")
        now = ask("status")
        status = now["least_total"]
        decided = now["decision"]["kind"]
        remedy = f" To change that: {least['remedy']}." if least["remedy"] else ""
        assert status["gas_gwei"] == gwei
        assert least["finding"] + remedy == status["text"]
        plan = ask("plan")
        worth_it = (dollars, gwei) not in NOT_WORTH_IT
        assert plan["outcome"] == ("planned" if worth_it else "hold"), plan["reason"]
        assert decided == ("rebalance" if worth_it else "hold"), "status says what plan says"
        assert (dollars >= float(status["first_purchase"])) == worth_it
        ends = [ask("rebalance", "--send", "--yes") for _ in range(3)]
        weights = {item["symbol"]: item["weight_bps"] for item in ask("status")["holdings"]}
        history = ask("history")["steps"]
        if worth_it:
            assert [end["outcome"] for end in ends] == ["done", "hold", "hold"], [end["reason"] for end in ends]
            assert "first purchase" in ends[0]["reason"]
            assert all(abs(weights[symbol] - int(share[:-1]) * 100) <= 60 for symbol, share in TARGETS.items()), weights
            assert sum(transaction["kind"] == "swap" for end in ends for transaction in end["transactions"]) == 1
        else:
            assert [end["outcome"] for end in ends] == ["hold"] * 3
            assert purse(chain).raw["WETH"] == 0
            assert all("gas" in end["reason"] and "USDC" in end["reason"] for end in ends)
            assert not status["enough"]
            assert float(status["total"]) > dollars
            assert status["changes"]
            assert "gwei" in "".join(status["changes"])
            assert str(dollars) in status["text"].replace(",", "")
        assert {step["outcome"] for step in history} <= {"done", "approved", "hold"}
