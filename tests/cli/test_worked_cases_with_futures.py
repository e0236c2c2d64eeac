"""Worked cases W3, W5 and W7 by the command line, on the real contracts of Perpetual Protocol v2."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from agent.localchain import LocalChain
from agent.localchain.perpetuals import LocalPerps, PerpSpec
from tests.cli.tools import CommandResult
from tests.support import agents
from tests.support.futures import futures_config_changes, futures_table
from tests.support.on_chain.worked_cases import require_traded
from tests.support.perps import MARKETS, WAD, perps_on

Run = Callable[..., CommandResult]


def asking(run: Run) -> Callable[..., Any]:
    """The document of a command that succeeds."""

    def document(*args: str) -> Any:
        result = run(*args, "--json")
        assert result.code == 0, result.why
        return result.json

    return document


def open_book(perps: LocalPerps, margin_usd: int, notionals: Mapping[str, int]) -> None:
    """The wallet deposits margin and trades by hand, at present prices."""
    chain = perps.chain
    perps.deposit(chain.wallet.address, margin_usd * 10**6)
    for symbol, usd in notionals.items():
        perps.trade(chain.wallet.address, symbol, int(Fraction(usd) / chain.deployed_world.prices_usd[symbol] * WAD))
    chain.perps = perps


def futures_sent(document: Any) -> list[str]:
    return [transaction["kind"] for transaction in document["transactions"] if transaction["kind"] == "futures"]


def test_w3__doubled_alts_are_sold_while_leverage_is_quiet(perps_chain: LocalPerps, tmp_path: Path, perps_run: Run) -> None:
    """30/30/40 of 10,000 beside 14,000 of margin, which counts in no weight."""
    perps = perps_chain
    chain = perps_chain.chain
    ask_perps = asking(perps_run)
    agents.fund(chain, {"WBTC": 3_000, "WETH": 3_000, "LINK": 4_000})
    open_book(perps, 14_000, {"WETH": 17_500, "WBTC": 17_500})
    changes = futures_config_changes(
        perps, {"WETH": "50%", "WBTC": "50%"}, "2.5x", max_leverage="4x", max_utilisation="95%", spot_multiple="4x"
    )
    changes["futures"]["margin_in_weights"] = False  # type: ignore[index]  # a table of the config
    changes["policy.trigger"] = {"kind": "threshold", "absolute": "15%"}
    changes["limits.plan_cost"] = "1%"  # a pool of 0.3 % and gas cost just more than half a percent
    targets = {"WBTC": "30%", "WETH": "30%", "LINK": "40%", "USDC": "0%"}
    agents.agent_config(chain, tmp_path, changes, targets)
    ask_perps("trust", "--yes")
    assert ask_perps("plan")["decision"]["kind"] == "hold"
    assert multiple(ask_perps("margin"), "spot_multiple") == pytest.approx(3.5, abs=0.03)

    chain.move_market({"LINK": chain.deployed_world.prices_usd["LINK"] * 2})
    document = ask_perps("status")
    weights = {holding["symbol"]: holding["weight_bps"] for holding in document["holdings"]}
    assert weights["LINK"] == pytest.approx(5_714, abs=30), "57.1 % of the spot portfolio"
    assert float(document["total_value"]) == pytest.approx(28_000, abs=120), "the total includes the margin"
    assert float(document["futures"]["leverage"]) == pytest.approx(2.5, abs=0.03)
    assert document["futures"]["broken"] == []
    assert multiple(ask_perps("margin"), "spot_multiple") == pytest.approx(2.5, abs=0.03)
    assert {
        exposure["symbol"]: float(exposure["futures"]) for exposure in document["futures"]["exposures"] if exposure["symbol"] != "LINK"
    }["WETH"] > 17_000
    before = agents.purse(chain)
    done = ask_perps("rebalance", "--send", "--yes")
    assert done["outcome"] == "done"
    assert futures_sent(done) == []
    require_traded(chain, before, {"LINK": -2_400, "WBTC": 1_200, "WETH": 1_200}, within=45)


def multiple(document: Any, limit: str) -> float:
    """What a limit measures, of a text such as 2.50x."""
    return float(next(limit_row["measured"] for limit_row in document["limits"] if limit_row["limit"] == limit).removesuffix("x"))


def shares(document: Any) -> dict[str, float]:
    """Share of each position in the gross notional, in percent."""
    notional_by_symbol = {position["symbol"]: abs(float(position["notional"])) for position in document["positions"]}
    return {symbol: 100 * value / sum(notional_by_symbol.values()) for symbol, value in notional_by_symbol.items()}


@pytest.mark.slow
def test_w5_a_margin_book_of_65_20_15_is_brought_to_50_30_20(chain: LocalChain, tmp_path: Path, run: Run) -> None:
    ask_document = asking(run)
    agents.fund(chain, {"WETH": 30_000, "USDC": 10_000})
    perps = perps_on(chain, (*MARKETS, PerpSpec("LINK", 4_000_000)))
    open_book(perps, 20_000, {"WBTC": 26_000, "WETH": 8_000, "LINK": 6_000})
    weights = {"WBTC": "50%", "WETH": "30%", "LINK": "20%"}
    changes = futures_config_changes(perps, weights)
    changes["futures"] = {**futures_table(perps, weights), "band": "1%"}
    agents.agent_config(chain, tmp_path, changes, {"WETH": "50%", "USDC": "50%"})
    ask_document("trust", "--yes")
    before = shares(ask_document("positions"))
    assert before == {symbol: pytest.approx(share, abs=0.5) for symbol, share in {"WBTC": 65, "WETH": 20, "LINK": 15}.items()}
    planned = {order["symbol"]: order for order in ask_document("margin")["plan"]["orders"]}
    assert {symbol: (order["side"], order["reduce_only"]) for symbol, order in planned.items()} == {
        "WBTC": ("sell", True),
        "WETH": ("buy", False),
        "LINK": ("buy", False),
    }
    sent = futures_sent(ask_document("rebalance", "--send", "--yes"))
    assert sent, "the reduction; nothing is opened in a step that freed margin"
    ask_document("rebalance", "--send", "--yes")
    after = shares(ask_document("positions"))
    assert after == {symbol: pytest.approx(share, abs=2) for symbol, share in {"WBTC": 50, "WETH": 30, "LINK": 20}.items()}
    assert float(ask_document("margin")["margin"]["leverage"]) == pytest.approx(2, abs=0.05)


def test_w7__60000_of_futures_beside_20000_close_ten(perps_chain: LocalPerps, tmp_path: Path, perps_run: Run) -> None:
    perps = perps_chain
    chain = perps_chain.chain
    ask_document = asking(perps_run)
    agents.fund(chain, {"WETH": 10_000, "USDC": 10_000})
    open_book(perps, 30_000, {"WETH": 60_000})
    changes = futures_config_changes(perps, {"WETH": "100%"}, spot_multiple="2.5x", hysteresis="0%", max_leverage="4x")
    agents.agent_config(chain, tmp_path, changes, {"WETH": "20%", "USDC": "80%"})
    ask_document("trust", "--yes")
    document = ask_document("margin")
    assert multiple(document, "spot_multiple") == pytest.approx(3, abs=0.03)
    [order] = document["plan"]["orders"]
    closes = float(order["size"]) * float(chain.deployed_world.prices_usd["WETH"])
    assert (document["plan"]["trigger"], order["side"], order["reduce_only"]) == ("spot_multiple", "sell", True)
    assert closes == pytest.approx(10_000, abs=300)
    done = ask_document("rebalance", "--send", "--yes")
    assert futures_sent(done), done["reason"]
    after = ask_document("margin")
    assert float(after["margin"]["gross"]) == pytest.approx(50_000, abs=300)
    assert "spot_multiple" not in {limit["limit"] for limit in after["limits"] if limit["broken"]}
