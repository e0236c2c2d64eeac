"""What status and doctor say while an asset has no price: every balance, which price is missing, and why, in the agent's words."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.app.controls.messages import status_text
from agent.app.documents.status import StatusDocument, status_document
from agent.app.start.doctor.checks import doctor
from agent.localchain import LocalChain
from tests.cli.documents import misfits
from tests.support.agents import ROOMY, fund, reopened_agent, trusted_config

TARGETS = {"WETH": "50%", "WBTC": "20%", "USDC": "30%"}
FEEDS_ALONE = {"reference.kind": ["feed"], "reference.short_window": "off"}
REVERT = "0x60006000fd"
WRONG = {"it reverts": REVERT, "it has no code": "0x", "it returns nothing": "0x00"}


@pytest.mark.parametrize("symbol", ["WETH", pytest.param("WBTC", marks=pytest.mark.slow)])
@pytest.mark.parametrize("fault", WRONG)
def test_status_shows_every_balance_while_a_price_is_missing(chain: LocalChain, tmp_path: Path, fault: str, symbol: str) -> None:
    fund(chain, {"WETH": 5_000, "WBTC": 2_000, "USDC": 3_000})
    loaded = trusted_config(chain, tmp_path, ROOMY | FEEDS_ALONE, TARGETS)
    feed = next(asset.feed for asset in loaded.config.portfolio.assets if asset.symbol == symbol)
    chain.transport.call("anvil_setCode", [feed, WRONG[fault]])
    with reopened_agent(chain, loaded) as agent:
        document = status_document(agent.status())
    checks = [row for row in doctor(loaded.path, [chain.transport])["checks"] if row["check"] == f"feed {symbol}"]
    assert [row["state"] for row in checks] == ["fail", "fail"], "its decimals and its round"
    assert all(str(feed) in row["finding"] and "reference.kind" in row["remedy"] for row in checks)
    assert misfits(StatusDocument, document) == []
    assert (document["holdings"], document["total_value"]) == ([], None)
    assert status_text(document).startswith("Total unknown at block")
    amount_by_symbol = {holding["symbol"]: (holding["amount"], holding["price"] is None) for holding in document["unvalued"]}
    assert amount_by_symbol.keys() == TARGETS.keys()
    assert {name for name, (_, is_missing) in amount_by_symbol.items() if is_missing} == {symbol}
    assert amount_by_symbol["USDC"][0] == "3000"
    assert symbol in document["decision"]["reason"]
