"""trimtab lp: its document, its words, and positions that are unreadable, gone or from strangers."""

from __future__ import annotations

import os
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from agent.localchain import LocalChain
from tests.cli.tools import CommandResult, in_process
from tests.support import agents, lp_on_chain
from tests.support.on_chain.liquidity import V2, V3, config_with_positions
from tests.support.on_chain.lp_actions import config_with_targets
from tests.support.text import mentions

Run = Callable[..., CommandResult]


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.delenv("FORCE_COLOR", raising=False)
    return lambda *args: in_process(capfd, monkeypatch, *args, "--config", str(tmp_path / "trimtab.toml"))


def lp_document(run: Run, *args: str) -> Any:
    result = run(*args, "--json")
    assert result.code == 0, result
    return result.json


def test_lp_tells_where_each_target_stands_and_what_it_asks_for(chain: LocalChain, tmp_path: Path, run: Run) -> None:
    own = [lp_on_chain.provide_v2(chain, V2, 300), lp_on_chain.provide_v3(chain, V3, 20, 40, 1_500)]
    wants = dict(config_with_targets(chain, V3, own))
    pair = {"kind": "uniswap_v2", "pair": chain.address_by_pool[V2], "share": "3%"}
    agents.agent_config(chain, tmp_path, {**wants, "lp.targets": [*wants["lp.targets"], pair]})  # type: ignore[misc]  # a list of tables
    document = lp_document(run, "lp")
    ranged, paired = document["targets"]
    assert (ranged["pool"], ranged["share_bps"], ranged["width_bps"], ranged["compound_above"]) == (
        chain.address_by_pool[V3],
        2_000,
        2_000,
        None,
    )
    assert ranged["out_of_range"] == [own[1].name]
    assert mentions(ranged["due_reasons"][0], "left the")
    assert "new range" in ranged["due_reasons"][1]
    assert float(paired["weight_bps"]) == pytest.approx(280, rel=0.1)
    assert (paired["due_reasons"], paired["out_of_range"]) == ([], [])
    text = " ".join(run("lp").out.split())  # wherever a line breaks
    assert "Liquidity targets" in text
    assert all(part in text for part in ("20.00 %", "12.7", "the range", "limits.plan_cost", "0.5 %"))


def test_lp_tells_value_loss_fees_forecast_and_what_is_ignored(
    chain: LocalChain, tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    own = [lp_on_chain.provide_v2(chain, V2, 3_000), lp_on_chain.provide_v3(chain, V3, -30, 30, 1_500)]
    stray = lp_on_chain.provide_v3(chain, V3, -50, 50, 500)
    agents.agent_config(chain, tmp_path, config_with_positions(chain, own, **{"limits.impermanent_loss": "1bps"}))
    document = lp_document(run, "lp")
    pair, token = document["positions"]
    assert (pair["position"], pair["state"], token["state"]) == (own[0].name, "every price", "in range")
    assert float(pair["value"]) == pytest.approx(3_000, rel=1e-3)
    assert float(pair["hold_value"]) == pytest.approx(3_000, rel=1e-3)
    assert abs(float(pair["loss"])) < 1
    assert float(pair["lvr_per_day"]) == pytest.approx(3_000 * 0.36 / 8 / 365, rel=1e-3)
    for item in pair["forecasts"]:
        x = 1 + item["move_bps"] / 10_000
        assert float(item["loss_bps"]) == pytest.approx((1 - 2 * x**0.5 / (1 + x)) * 10_000, abs=0.01)
    assert float(token["forecasts"][2]["loss_bps"]) > 13.86, "a range loses more"
    assert [item["position"] for item in document["ignored"]] == [stray.name]
    assert document["expected_loss"]["within"] is False
    assert document["weight"]["within"] is True
    words = run("lp").out
    for part in (stray.name, "exceeded", "not confirmed", f"#{own[1].token_id}", "LVR a day", "-50 %", "uncollected fees"):
        assert part in words


@pytest.mark.skipif(find_spec("fastapi") is None and not os.environ.get("CI"), reason="needs the extra dashboard")
def test_dashboard_figure__is_that_of_the_command(chain: LocalChain, tmp_path: Path, run: Run) -> None:
    from tests.support.dashboards import InProcessDocumentCache, Served

    own = [lp_on_chain.provide_v2(chain, V2, 300), lp_on_chain.provide_v3(chain, V3, 20, 40, 1_500)]
    stray = lp_on_chain.provide_v3(chain, V3, -50, 50, 500)
    agents.agent_config(chain, tmp_path, {**config_with_targets(chain, V3, own), "limits.impermanent_loss": "1bps"})
    document = lp_document(run, "lp")
    with Served(board=InProcessDocumentCache(str(tmp_path / "trimtab.toml"), tmp_path / "trimtab.db")) as served:
        paths = served.compared("/liquidity", {"lp": document})
        text = served.ask("/liquidity")[2].decode()
    assert "exceeds its limit" in text
    assert stray.name in text
    expected_paths = [
        f"positions.{number}.{key}"
        for number, position in enumerate(document["positions"])
        for key in (
            "position", "state", "value", "hold_value", "loss", "loss_bps", "fees", "lvr_per_day", "expected_loss", "pool_deviation_bps",
            *(f"{name}.{symbol}" for name in ("redeemable_raw", "fees_raw") for symbol in position["tokens"]),
            *(
                f"forecasts.{move}.{key}"
                for move in range(len(position["forecasts"]))
                for key in ("moving", "move_bps", "loss", "loss_bps")
            ),
        )
    ]  # fmt: skip
    target = [f"targets.0.{key}" for key in ("pool", "share_bps", "width_bps", "weight_bps", "value", "fees", "due_reasons.0")]
    sums = [f"{name}.{key}" for name in ("weight", "expected_loss") for key in ("value", "share_bps", "limit_bps")]
    assert len(document["positions"]) == 2
    assert paths >= {f"lp.{path}" for path in (*expected_paths, *target, *sums)}


def test_status_counts_positions_and_says_so(chain: LocalChain, tmp_path: Path, run: Run) -> None:
    agents.agent_config(chain, tmp_path, config_with_positions(chain, [lp_on_chain.provide_v2(chain, V2, 3_000)]))
    status = lp_document(run, "status")
    assert {item["symbol"] for item in status["holdings"] if item["lp_raw"] != "0"} == {"WETH", "USDC"}
    assert float(status["total_value"]) == pytest.approx(13_000, rel=1e-3)
    output = run("status").out
    assert "positions" in output
    assert "trimtab lp" in output


def test_without_positions_lp_says_how_none_is_confirmed(anvil_chain: LocalChain, tmp_path: Path, run: Run) -> None:
    agents.agent_config(anvil_chain, tmp_path)
    document = lp_document(run, "lp")
    assert (document["positions"], document["weight"]["share_bps"], document["weight"]["within"]) == ([], "0", True)
    assert "The config lists no liquidity positions." in run("lp").out


def test_other_owner_s_position__is_named_and_not_summed(chain: LocalChain, tmp_path: Path, run: Run) -> None:
    own = [lp_on_chain.provide_v2(chain, V2, 3_000), lp_on_chain.provide_v3(chain, V3, -30, 30, 1_500, owner=chain.whale.address)]
    agents.agent_config(chain, tmp_path, config_with_positions(chain, own))
    document = lp_document(run, "lp")
    assert [item["position"] for item in document["positions"]] == [own[0].name]
    assert f"{chain.whale.address}" in document["unreadable"][0]
    assert (document["portfolio_value"], document["weight"]["within"]) == (None, None)
    words = " ".join(run("lp").out.split())
    assert "unknown" in words
    assert "belongs" in words


def test_a_token_that_never_existed_is_told_as_gone(chain: LocalChain, tmp_path: Path, run: Run) -> None:
    own = lp_on_chain.provide_v3(chain, V3, -30, 30, 1_500)
    agents.agent_config(chain, tmp_path, {**config_with_positions(chain, [own]), "portfolio.positions.0.token_id": 10**6})
    document = lp_document(run, "lp")
    assert mentions(document["positions"][0]["state"], "burned", "minted")
    assert (document["positions"][0]["value"], document["weight"]["share_bps"]) == ("0", "0")
    assert "not exist" in document["warnings"][0]
    assert "gone" in run("lp").out


def test_a_mistaken_position_is_wrong_input(chain: LocalChain, tmp_path: Path, run: Run) -> None:
    own = lp_on_chain.provide_v3(chain, V3, -30, 30, 1_500)
    agents.agent_config(chain, tmp_path, {**config_with_positions(chain, [own]), "portfolio.positions.0.entry": {"WETH": "1", "LINK": "2"}})
    result = run("lp", "--json")
    assert (result.code, result.error["kind"]) == (2, "ConfigError")
    assert own.name in result.error["message"]
