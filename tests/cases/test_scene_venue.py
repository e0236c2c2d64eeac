"""A futures book at Hyperliquid, by the commands from init on: a crash of four markets while the venue limits requests, and a venue
that refuses every order while liquidation is near.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path

import pytest

from agent.config.load import load_config
from agent.localchain import LocalChain
from tests.support import agents
from tests.support.futures import EVEN
from tests.support.hyperliquid import AGENT_ENV
from tests.support.hyperliquid_server import HyperliquidServer, ServerPosition
from tests.support.perpetuals.chain_protection import (
    FOUR_MINUTES_S,
    MAX_LEVERAGE,
    TEN_MINUTES_S,
    UPGRADE,
    actions,
    crash,
    leverage,
    run_until,
)
from tests.support.perpetuals.chain_protection import server as venue_server
from tests.support.samples import slow
from tests.support.scenes import Scene, scene_on

server = venue_server
VENUE_MARKETS = '\n[markets]\nWETH = "ETH"\nBTC = "BTC"\nDOGE = "DOGE"\nSOL = "SOL"\n'
SEND = ("--send", "--yes")
WIDE = {
    'agent_keystore = "agent.json"': f'agent_key_env = "{AGENT_ENV}"',
    'spot_multiple = "2.5x"': 'spot_multiple = "off"',
    'slippage = "0.5%"': 'slippage = "2%"',
    'emergency_slippage = "3%"': 'emergency_slippage = "5%"',
    'max_basis = "2%"': 'max_basis = "5%"',
    'max_reduction_per_day = "2x"': 'max_top_up_per_day = "0%"',
}
"""What the owner of both scenes edits in the file of init: an agent's key of the environment, and the room of thin test markets."""


@contextmanager
def book(
    server: HyperliquidServer,
    chain: LocalChain,
    folder: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    targets: Mapping[str, str],
    edits: Mapping[str, str],
) -> Iterator[Scene]:
    """Write a config by init, edit it as its owner, pin the contracts, and open the book."""
    venue_file = folder / "venue.toml"
    venue_file.write_text(f'venue = "hyperliquid"\nurl = "{server.url}"\nnetwork = "testnet"\n{VENUE_MARKETS}')
    shares = [part for symbol, share in targets.items() for part in ("--futures-target", f"{symbol}={share}")]
    with scene_on(chain, folder, "0.05", capfd, monkeypatch) as scene:
        scene.init(EVEN, "--ceiling", "200000", "--futures", "moderate", "--futures-venue", str(venue_file), *shares)
        for old, new in {**WIDE, **edits}.items():
            scene.edit_file(f"\n{old}\n", f"\n{new}\n")
        scene.say("trust", "--yes")
        opened = scene.ask("rebalance", *SEND)
        assert opened["outcome"] == "done", opened["reason"]
        assert len(server.wallet(chain.wallet.address).positions) == len(targets)
        chain.warp(61)
        chain.refresh_feeds()
        yield scene


@pytest.mark.parametrize("weight", [1_200, pytest.param(500, marks=pytest.mark.slow)])
def test_crash_of_four_markets__is_reduced_under_request_limits(
    server: HyperliquidServer,
    anvil_chain: LocalChain,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    weight: int,
) -> None:
    targets = {"WETH": "30%", "BTC": "-20%", "DOGE": "25%", "SOL": "25%"}
    edits = {
        'leverage = "2x"': 'leverage = "2.5x"',
        'max_leverage = "4x"': 'max_leverage = "3x"',
        'max_position = "85%"': 'max_position = "100%"',
        'max_utilisation = "60%"': 'max_utilisation = "90%"',
        'stress_move = "20%"': 'stress_move = "10%"',
    }
    with book(server, anvil_chain, tmp_path, capfd, monkeypatch, targets, edits) as scene:
        crash(server, "-36/100", "ETH", "DOGE", "SOL")
        server.weight_per_minute = weight
        assert leverage(server, anvil_chain) > MAX_LEVERAGE
        sent = len(actions(server))
        began_s = anvil_chain.now_s()
        reduced = scene.ask("rebalance", *SEND)
        assert leverage(server, anvil_chain) <= MAX_LEVERAGE, reduced["reason"]
        assert anvil_chain.now_s() - began_s <= 60
        [action] = actions(server)[sent:]
        assert [order["r"] for order in action["orders"]] == [True] * 4


@pytest.mark.parametrize("refused_s", [FOUR_MINUTES_S, *slow([TEN_MINUTES_S])])
def test_run__reduces_soon_after_a_venue_refused_for_minutes(
    server: HyperliquidServer,
    anvil_chain: LocalChain,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    refused_s: int,
) -> None:
    edits = {
        'leverage = "2x"': 'leverage = "5x"',
        'max_leverage = "4x"': 'max_leverage = "5.5x"',
        'max_utilisation = "60%"': 'max_utilisation = "100%"',
        'stress_move = "20%"': 'stress_move = "5%"',
        'emergency_distance = "5%"': 'emergency_distance = "3%"',
    }
    with book(server, anvil_chain, tmp_path, capfd, monkeypatch, {"WETH": "100%"}, edits) as scene:
        account = server.wallet(anvil_chain.wallet.address)
        size = account.positions["ETH"].size
        crash(server, "-17/100", "ETH")
        assert leverage(server, anvil_chain) > Fraction(20), "liquidation is near"
        server.refusal = UPGRADE
        began_s = anvil_chain.now_s()
        with agents.reopened_agent(anvil_chain, load_config(scene.config)) as agent:
            for now_s, _ in run_until(agent, anvil_chain, began_s + 1_000, "1h"):
                anvil_chain.refresh_feeds()
                if now_s - began_s >= refused_s:
                    server.refusal = ""
                if account.positions.get("ETH", ServerPosition()).size < size:
                    break
        assert now_s - began_s <= refused_s + 130
        assert UPGRADE.split()[0] in scene.say("history"), "the owner reads the venue's reason"
