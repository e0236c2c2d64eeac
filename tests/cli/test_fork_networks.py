"""scripts/fork_run.py on a fork of each network's stand-in, with the config that `trimtab init` writes for it."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import ExitStack
from fractions import Fraction
from pathlib import Path

import pytest

from agent.config.load import load_config
from agent.config.networks import NETWORKS, Network
from agent.config.networks.presets import ETHEREUM_PRESET, TemplateAsset
from agent.config.writing.template import render_config
from agent.localchain.front import serve_front
from agent.model import DataFeeKind, data_fee_kind
from scripts.fork_run import fork_config
from tests.cli.tools import CommandResult
from tests.support.commands.scripts import run
from tests.support.networks import FEES_WEI, OWNER, PRICES_USD, ROLLUP_FEES_WEI, stand_in

USD = 500
OFTEN = ("base",)
Bare = Callable[..., CommandResult]


@pytest.mark.parametrize(
    "network", [pytest.param(network, id=network.name, marks=() if network.name in OFTEN else pytest.mark.slow) for network in NETWORKS]
)
def test_fork_of_each_network__pays_tip_and_data_fee(
    bare: Bare, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, network: Network
) -> None:
    _, tip_wei = FEES_WEI.get(network.name, ROLLUP_FEES_WEI)
    config = tmp_path / "trimtab.toml"
    with stand_in(network, USD) as chain, ExitStack() as stack:

        def as_the_network(method: str, answer: dict) -> dict:
            return answer | {"result": hex(tip_wei)} if method == "eth_maxPriorityFeePerGas" else answer

        url = stack.enter_context(serve_front(str(chain.url), as_the_network))
        monkeypatch.setenv("RPC_A", url)
        monkeypatch.setenv("RPC_B", url)
        options = ("--network", network.name, "--rpc", "RPC_A=one", "--rpc", "RPC_B=two", "--template", "60/40", "--ceiling", str(4 * USD))
        init = bare("init", *options, "--wallet", OWNER.address, "--yes", "--config", str(config), "--json")
        assert init.code == 0, init.err
        text = config.read_text()
        for key in ("turnover", "daily_turnover"):
            (line,) = [line for line in text.splitlines() if line.startswith(f"{key} = ")]
            text = text.replace(line, f'{key} = "off"')
        config.write_text(text)
        parent_state = (chain.rpc("eth_blockNumber"), chain.rpc("eth_getTransactionCount", OWNER.address, "latest"))
        monkeypatch.setenv("RPC_URL", url)
        native = Fraction(USD) / Fraction(PRICES_USD[network.tokens[0].symbol])
        fork_run = run("fork_run", str(config), "--native", f"{float(native):.6f}", "--json", capfd=capfd, monkeypatch=monkeypatch)
        assert fork_run.code == 0, fork_run.out + fork_run.err
        report = json.loads(fork_run.out)
        assert report["rebalance"]["outcome"] == "done", report["rebalance"]["reason"]
        assert report["after"]["decision"]["kind"] == "hold"
        assert (float(report["rebalance"]["cost"].get("data_fee", 0)) > 0) == (data_fee_kind(network.chain_id) is not DataFeeKind.PLAIN)
        assert (chain.rpc("eth_blockNumber"), chain.rpc("eth_getTransactionCount", OWNER.address, "latest")) == parent_state


@pytest.mark.parametrize("role", ["asset", "native asset", "hub", "neither"])
def test_the_wrapped_coin_of_a_fork_is_one_asset_whatever_it_was(tmp_path: Path, role: str) -> None:
    wrapped, *others = (TemplateAsset(token.symbol, token.address, "50%", token.feed) for token in ETHEREUM_PRESET.tokens[:3])
    assets = [wrapped, others[1]] if "asset" in role else others
    hubs = [wrapped] if role == "hub" else []
    config_text = render_config(ETHEREUM_PRESET, OWNER.address, assets, hubs, "USDC", [("RPC_A", "one"), ("RPC_B", "two")])
    if role == "native asset":
        config_text = config_text.replace(f'symbol = "WETH"\naddress = "{wrapped.address}"', 'symbol = "ETH"\naddress = "native"')
    config = tmp_path / "trimtab.toml"
    config.write_text(config_text)
    folder = tmp_path / "fork"
    folder.mkdir()
    portfolio = load_config(fork_config(config, "http://127.0.0.1:1", folder)).config.portfolio
    added_symbols = {"hub": ["WETH"], "neither": ["WNATIVE"]}.get(role, [])
    assert [asset.symbol for asset in portfolio.assets[len(assets) :]] == added_symbols
    assert portfolio.hubs == []
