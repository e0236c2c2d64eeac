"""The scene of futures from the first command to the last: a futures_chain chain, its config, orders, a crash, a reduction."""

from __future__ import annotations

import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from agent.app.start.setup import FuturesStart, NewConfig, write_new_config
from agent.config.load import load_config
from agent.config.writing.futures_template import FUTURES_PROFILES
from agent.config.writing.portfolio_templates import PORTFOLIO_TEMPLATES
from agent.errors import ConfigError
from agent.units import parse_share_with_unit_bps
from tests.cli.tools import CommandResult
from tests.support.constants import WALLET

Ask = Callable[..., CommandResult]
RPC = [("RPC_A", "one"), ("RPC_B", "two")]
ROLES = ("clearing_house", "vault", "account_balance", "exchange", "market_registry", "config", "delegate_approval")


@pytest.fixture
def venue(tmp_path: Path) -> Path:
    """A venue file with two markets."""
    contracts = [f'{role} = "0x{number:040x}"' for number, role in enumerate(ROLES, 0xA0)]
    markets = [
        f'[markets.{symbol}]\nbase = "0x{number:040x}"\naggregator = "0x{number + 16:040x}"'
        for number, symbol in enumerate(("WETH", "WBTC"), 0xC0)
    ]
    path = tmp_path / "venue.toml"
    path.write_text("\n".join(['venue = "perpetual_protocol_v2"', *contracts, *markets, ""]))
    return path


@pytest.mark.parametrize("name", FUTURES_PROFILES)
def test_init_writes_the_futures_of_a_profile(name: str, venue: Path, tmp_path: Path) -> None:
    path = tmp_path / "trimtab.toml"
    write_new_config(path, NewConfig("ethereum", WALLET, [], "USDC", RPC, template="moderate", futures=FuturesStart(name, venue)))
    table = load_config(path).config.futures
    assert table is not None
    written = tomllib.loads(path.read_text())["futures"]
    assert {key: written["limits"][key] for key in FUTURES_PROFILES[name].limits} == dict(FUTURES_PROFILES[name].limits)
    assert (written["leverage"], written["collateral"]) == (FUTURES_PROFILES[name].leverage, "USDC")
    assert (written["leverage_band"], written["funding_horizon"]) == ("20%", "7d")
    assert [(market["symbol"], market["asset"], market["weight"]) for market in written["markets"]] == [
        ("WETH", "WETH", "50%"),
        ("WBTC", "WBTC", "50%"),
    ]
    bound = PORTFOLIO_TEMPLATES[name].futures_multiple
    assert bound is not None
    assert table.limits.spot_multiple == parse_share_with_unit_bps(f"{bound}x", "bound")


@pytest.mark.parametrize(
    ("profile", "targets", "why"),
    [
        pytest.param("bold", [], "--futures: 'bold' is not a profile", id="unknown profile"),
        pytest.param("moderate", [("LINK", "100%")], "--futures-target: 'LINK' has no market", id="target without a market"),
        pytest.param(
            "moderate",
            [("WETH", "-60%"), ("WETH", "100%")],
            "--futures-target: 'WETH' has no market at the venue, or its market was already",
            id="market without a mark",
        ),
        pytest.param(
            "moderate", [("WETH", "60%"), ("WBTC", "-30%")], "--futures-target: absolute weights sum to 90 %", id="weights below a whole"
        ),
    ],
)
def test_a_mistake_about_futures_is_named_and_nothing_written(
    profile: str, targets: list[tuple[str, str]], why: str, venue: Path, tmp_path: Path
) -> None:
    path = tmp_path / "trimtab.toml"
    with pytest.raises(ConfigError, match=why):
        write_new_config(
            path, NewConfig("ethereum", WALLET, [], "USDC", RPC, template="moderate", futures=FuturesStart(profile, venue, targets))
        )
    assert not path.exists()


def test_a_short_and_a_broken_venue_file(venue: Path, tmp_path: Path) -> None:
    path = tmp_path / "trimtab.toml"
    start_at = FuturesStart("moderate", venue, [("WETH", "60%"), ("WBTC", "-40%")])
    write_new_config(path, NewConfig("ethereum", WALLET, [("WETH", "50%"), ("USDC", "50%")], "USDC", RPC, futures=start_at))
    markets = tomllib.loads(path.read_text())["futures"]["markets"]
    assert [(market["weight"], "asset" in market) for market in markets] == [("60%", True), ("-40%", False)]
    venue.write_text(venue.read_text().replace("vault = ", "safe = "))
    with pytest.raises(ConfigError, match="vault: missing"):
        start_at.config_text("USDC", [])
    with pytest.raises(ConfigError, match="no venue is given"):
        FuturesStart("moderate", None).config_text("USDC", [])


def test_init_takes_the_venue_from_the_config_of_a_local_chain(
    bare: Ask, futures_chain: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    network = futures_chain[0]
    path = tmp_path / "mine.toml"
    result = bare(
        *("init", "--network", str(network), "--wallet", WALLET, "--rpc", "RPC_A=local", "--template", "moderate"),
        *("--futures", "moderate", "--config", str(path), "--json"),
    )
    assert result.code == 0, result.why
    theirs, ours = (tomllib.loads(file.read_text())["futures"] for file in (network, path))
    assert ours["clearing_house"] == theirs["clearing_house"]
    assert ours["delegate_approval"] == theirs["delegate_approval"]
    assert [(row["symbol"], row["base"], row["aggregator"]) for row in ours["markets"]] == [
        (row["symbol"], row["base"], row["aggregator"]) for row in theirs["markets"]
    ]


def test_a_config_without_futures_is_no_venue(tmp_path: Path) -> None:
    (tmp_path / "chain.toml").write_text("[chain]\nchain_id = 31337\n")
    with pytest.raises(ConfigError, match="this config has no \\[futures\\]"):
        FuturesStart("moderate", tmp_path / "chain.toml").config_text("USDC", [])


@pytest.mark.slow
def test_the_whole_scene_opens_reduces_and_reports(bare: Ask, futures_chain: tuple[Path, dict[str, Any]]) -> None:
    config, about = futures_chain
    config.write_text(config.read_text().replace('leverage = "2x"', 'leverage = "3.5x"'))

    def asked(*args: str) -> Any:
        result = bare(*args, "--config", str(config), "--json")
        assert result.code == 0, result.why
        return result.json

    def sent(document: Any) -> list[str]:
        return [transaction["kind"] for transaction in document["transactions"] if transaction["kind"] == "futures"]

    assert asked("plan")["outcome"] == "planned"
    first = asked("rebalance", "--send", "--yes")
    assert first["outcome"] == "done"
    if not sent(first):  # spot comes first, openings with the next step
        assert sent(asked("rebalance", "--send", "--yes")) == ["futures", "futures"]
    sizes = {row["symbol"]: float(row["size"]) for row in asked("positions")["positions"]}
    assert sizes["WETH"] > 1
    assert sizes["WBTC"] < -0.03
    assert float(asked("margin")["margin"]["leverage"]) == pytest.approx(3.5, abs=0.05)
    assert [row["symbol"] for row in asked("funding")["markets"]] == ["WETH", "WBTC"]

    result = bare("localchain", "--port", about["url"].rpartition(":")[2], "--move", "WETH=-8%", "--move", "WBTC=+8%", "--json")
    assert result.code == 0, result.why
    # The means of pool and index follow at once, so a move alone makes nobody pay funding.
    assert [abs(float(row["daily_rate"])) < 0.01 for row in asked("funding")["markets"]] == [True, True], asked("funding")["markets"]
    broken = {limit["limit"] for limit in asked("margin")["limits"] if limit["broken"]}
    assert "max_leverage" in broken
    assert "max_leverage" in asked("status")["futures"]["broken"]
    reduced = asked("rebalance", "--send", "--yes")
    assert sent(reduced), reduced["reason"]
    assert "max_leverage" not in {limit["limit"] for limit in asked("margin")["limits"] if limit["broken"]}
    explanation = asked("explain", asked("history")["steps"][0]["step"])
    assert explanation["sentences"]
