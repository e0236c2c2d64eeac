"""The futures layer from the command line, on a served chain with Perpetual Protocol v2."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from decimal import Decimal
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from agent import wiring
from agent.cli.display.futures_tables import multiple_text
from agent.localchain.nodes import AnvilNode
from tests.cli.tools import STORE_ENDINGS, CommandResult, Desk
from tests.support.text import mentions

Ask = Callable[..., CommandResult]


@pytest.fixture
def config(futures_chain: tuple[Path, dict[str, Any]]) -> Path:
    return futures_chain[0]


def document_of(bare: Ask, config: Path, *args: str, want: int = 0) -> Any:
    result = bare(*args, "--config", str(config), "--json")
    assert result.code == want, result.why
    return result.json


def test_positions__name_size_prices_profit_and_liquidation(bare: Ask, config: Path) -> None:
    document = document_of(bare, config, "positions")
    rows = {row["symbol"]: row for row in document["positions"]}
    assert (document["unknown"], document["unit"]) == ("", "USD")
    assert {symbol: (row["side"], row["size"]) for symbol, row in rows.items()} == {"WETH": ("long", "0.4"), "WBTC": ("short", "-0.01")}
    short = rows["WBTC"]
    assert Decimal(short["notional"]) < 0 < Decimal(short["liquidation_distance"])
    assert Decimal(short["liquidation_price"]) > Decimal(short["mark"])
    assert rows["WETH"]["index"] == "3000"
    assert abs(Decimal(rows["WETH"]["entry"]) / 3_000 - 1) < Decimal("0.01")
    result = bare("positions", "--config", str(config))
    assert result.code == 0
    assert mentions(result.out, "WETH", "long", "WBTC", "short", "liquidation")


def test_margin_stands_beside_its_limits_with_the_plan(bare: Ask, config: Path) -> None:
    document = document_of(bare, config, "margin")
    figures = document["margin"]
    assert figures["collateral"] == "2000"
    assert Decimal(figures["gross"]) > 1_700
    assert Decimal(figures["leverage"]) == pytest.approx(Decimal(figures["gross"]) / Decimal(figures["value"]), abs=Decimal("0.00001"))
    assert {limit["limit"] for limit in document["limits"]} == {
        "max_leverage",
        "max_utilisation",
        "max_position",
        "spot_multiple",
        "stress_move",
    }
    assert not [limit for limit in document["limits"] if limit["broken"]]
    orders = {order["symbol"]: order for order in document["plan"]["orders"]}
    assert (document["plan"]["trigger"], orders["WETH"]["side"], orders["WBTC"]["side"]) == ("drift", "buy", "sell")
    assert (orders["WETH"]["bound_price"], orders["WBTC"]["bound_price"]) == ("3015", "59700"), "0.5 % from the index"
    result = bare("margin", "--config", str(config))
    assert result.code == 0
    assert mentions(result.out, "max_leverage", "would send now", "bound price")
    assert mentions(" ".join(result.out.split()), f"target leverage {multiple_text(figures['target_leverage'])}")


def test_funding_is_expected_at_the_rate_of_today(bare: Ask, config: Path) -> None:
    document = document_of(bare, config, "funding")
    assert [row["symbol"] for row in document["markets"]] == ["WETH", "WBTC"]
    for row in document["markets"]:
        assert Decimal(row["daily"]) == pytest.approx(Decimal(row["daily_rate"]) * Decimal(row["notional"]), abs=Decimal("1e-6"))
        assert Decimal(row["expected"]) == pytest.approx(30 * Decimal(row["daily"]), abs=Decimal("1e-15"))
    assert Decimal(document["daily"]) == sum(Decimal(row["daily"]) for row in document["markets"])
    assert {row["symbol"] for row in document["recorded"]} == {"WETH", "WBTC"}, "the present block counts today"
    assert (
        sum(Decimal(row["paid"]) for row in document["recorded"])
        == Decimal(document["today"])
        == sum(Decimal(row["today"]) for row in document["markets"])
    )
    assert mentions(bare("funding", "--config", str(config)).out, "daily rate", "30 days", "Recorded by day", "mean daily rate")


def test_status_and_plan_name_leverage_and_net_exposure(bare: Ask, config: Path) -> None:
    for command in ("status", "plan"):
        futures = document_of(bare, config, command)["futures"]
        assert (futures["max_leverage"], futures["broken"], futures["unknown"]) == ("4", [], "")
        for exposure in futures["exposures"]:
            assert Decimal(exposure["net"]) == pytest.approx(
                Decimal(exposure["spot"]) + Decimal(exposure["futures"]), abs=Decimal("0.000002")
            )
        assert Decimal({exposure["symbol"]: exposure for exposure in futures["exposures"]}["WBTC"]["futures"]) < 0
        assert Decimal(futures["utilisation"]) < Decimal(futures["max_utilisation"])
        assert futures["actions"] == []
        assert futures["liquidation"]["symbol"] in ("WETH", "WBTC")
        result = bare(command, "--config", str(config))
        assert mentions(result.out, "Futures: leverage 0.9", "Net exposure in USDC", "utilisation", "nearest liquidation")
    status = document_of(bare, config, "status")
    assert not [row for row in status["holdings"] if "margin_raw" in row]
    assert status["futures"]["margin_in_weights"] is False
    spot = sum(Decimal(row["value"]) for row in status["holdings"])
    assert 1_900 < Decimal(status["total_value"]) - spot < 2_000
    output = bare("status", "--config", str(config)).out
    assert mentions(output, "net exposure", "The total includes margin of 1,9", "weights are of the spot portfolio alone")
    assert status["futures"]["target_note"] == ""
    assert mentions(output, f"target {float(status['futures']['target_leverage']):.2f}x")
    counting = config.with_name("counting.toml")
    counting.write_text(config.read_text().replace("[futures]\n", "[futures]\nmargin_in_weights = true\n"))
    counted = document_of(bare, counting, "status")
    margined = {row["symbol"]: row["margin_raw"] for row in counted["holdings"] if "margin_raw" in row}
    assert list(margined) == ["USDC"]
    assert 1_900 * 10**6 < int(margined["USDC"]) < 2_000 * 10**6
    assert mentions(bare("status", "--config", str(counting)).out, "Values and weights include margin")


def test_the_config_passes_the_doctor_and_pins_the_venue(bare: Ask, config: Path) -> None:
    document = document_of(bare, config, "doctor")
    assert not [row for row in document["checks"] if row["state"] == "fail"]
    assert "34 contracts pinned" in next(row["finding"] for row in document["checks"] if row["check"] == "trust")


@pytest.mark.slow
def test_position_outside_the_config__is_shown_and_counted(bare: Ask, config: Path, tmp_path: Path) -> None:
    text = config.read_text()
    start_at = text.index('[[futures.markets]]\nsymbol = "WBTC"')
    end = text.index("[futures.limits]")
    changed = (text[:start_at] + text[end:]).replace('weight = "60%"', 'weight = "100%"').replace('"85%"', '"100%"')
    narrow = tmp_path / "trimtab.toml"
    narrow.write_text(changed.replace("sqlite:///local.db", f"sqlite:///{config.with_name('local.db')}"))
    whole = document_of(bare, config, "positions")
    positions_document = document_of(bare, narrow, "positions")
    [strange] = [position for position in positions_document["positions"] if position["symbol"] == "vWBTC"]
    [named] = [position for position in whole["positions"] if position["symbol"] == "WBTC"]
    assert (strange["market"], strange["size_raw"]) == (named["market"], named["size_raw"])
    figures = document_of(bare, narrow, "margin")
    assert figures["unknown"] == ""
    assert figures["margin"]["gross"] == document_of(bare, config, "margin")["margin"]["gross"]
    assert "vWBTC" in [market["symbol"] for market in document_of(bare, narrow, "funding")["markets"]]
    status = document_of(bare, narrow, "status")
    assert status["futures"]["unnamed"] == ["vWBTC"]
    assert document_of(bare, config, "status")["futures"]["unnamed"] == []
    result = bare("status", "--config", str(narrow))
    assert result.code == 0
    assert "Positions that the config does not name: vWBTC" in " ".join(result.out.split())
    plan = document_of(bare, narrow, "plan")
    assert "which the config does not name" in plan["decision"]["reason"]


@pytest.mark.skipif(find_spec("fastapi") is None and not os.environ.get("CI"), reason="needs the extra dashboard")
def test_dashboard_figure__is_that_of_its_command(
    bare: Ask, futures_chain: tuple[Path, dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from agent.web.pages import value_at
    from tests.support.dashboards import InProcessDocumentCache, Served

    source, about = futures_chain
    config = tmp_path / "trimtab.toml"
    store = tmp_path / "local.db"
    config.write_text(source.read_text())
    for ending in STORE_ENDINGS:
        if (file := source.with_name(f"local.db{ending}")).exists():
            shutil.copy(file, tmp_path / file.name)
    node = AnvilNode(about["url"])
    monkeypatch.setattr(wiring.SystemClock, "now_s", lambda _: node.now_s())
    mark = node.snapshot()
    try:
        for _ in range(2):
            assert bare("run", "--once", "--config", str(config), "--json").code == 0
            node.mine_at(node.now_s() + 86_400)
        documents = {command: document_of(bare, config, command) for command in ("positions", "margin", "funding")}
        with Served(board=InProcessDocumentCache(str(config), store)) as served:
            paths = served.compared("/futures", documents)
    finally:
        node.revert(mark)
    assert len({payment["day"] for payment in documents["funding"]["recorded"]}) == 3
    numbers = {
        "positions.positions": ("symbol", "side", "size", "notional", "entry", "mark", "unrealised", "liquidation_price"),
        "margin.limits": ("limit", "measured", "allowed"),
        "funding.markets": ("symbol", "daily_rate", "notional", "pending", "today", "daily", "expected"),
        "funding.recorded": ("day", "symbol", "paid", "daily_rate", "readings"),
    }
    expected_paths = {
        f"{path}.{number}.{key}" for path, keys in numbers.items() for number in range(len(value_at(documents, path))) for key in keys
    }
    totals = ("value", "free", "leverage", "utilisation", "gross", "net", "unrealised", "funding_pending")
    assert paths >= expected_paths | {f"margin.margin.{key}" for key in totals}


def test_a_config_without_futures_says_so_and_shows_none(desk: Desk) -> None:
    for command in ("positions", "margin", "funding"):
        result = desk.run(command, "--json")
        assert (result.code, result.error["message"]) == (2, "futures: the config has no [futures]")
    assert "futures" not in desk.ask("status")
    assert "futures" not in desk.ask("plan")


def test_a_moved_market_moves_index_and_virtual_pool(bare: Ask, futures_chain: tuple[Path, dict[str, Any]]) -> None:
    config, about = futures_chain
    result = bare("localchain", "--port", about["url"].rpartition(":")[2], "--move", "WETH=+5%", "--json")
    assert result.code == 0, result.why
    row = next(row for row in document_of(bare, config, "positions")["positions"] if row["symbol"] == "WETH")
    assert row["index"] == "3150"
    assert Decimal(row["unrealised"]) > 40
