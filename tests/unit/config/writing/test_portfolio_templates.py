"""The ready portfolios: shares and bounds as promised, tokens of the network, configs that load, and a reserve that is restored (W6)."""

from __future__ import annotations

import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from agent import app as api
from agent.app.start.setup import NewConfig, write_new_config
from agent.config.build import build_policy, build_portfolio
from agent.config.load import load_config
from agent.config.networks.presets import PRESETS
from agent.config.schema import Config
from agent.config.weights import build_allocator
from agent.config.writing.portfolio_templates import PORTFOLIO_TEMPLATES, TOKEN_CLASSES, template_targets
from agent.errors import ConfigError
from agent.planning.proposals import Proposal, propose_rebalance
from agent.policy.risk_estimates import complete_risk
from agent.units import BPS, Token
from tests.support.builders import GWEI, history, price_of, step_input, token, v2_pool, with_snapshot
from tests.support.constants import WALLET

RPC = [("RPC_A", "one"), ("RPC_B", "two")]
HAS_TRADED = history(last_rebalance_s=1_600_000_000)
PROMISED = {
    "conservative": (7_000, 2_000, 1_000, "1.5x"),
    "moderate": (5_000, 3_000, 2_000, "2.5x"),
    "aggressive": (3_000, 1_000, 6_000, "4.0x"),
}


def template_config(folder: Path, template: str, stable: str | None = None) -> tuple[Config, str]:
    path = folder / "trimtab.toml"
    write_new_config(path, NewConfig("ethereum", WALLET, [], "USDC", RPC, template=template, stable_share=stable))
    return load_config(path).config, path.read_text()


@pytest.mark.parametrize("name", PORTFOLIO_TEMPLATES)
def test_template__makes_a_config_that_loads_in_its_places(name: str, tmp_path: Path) -> None:
    config, text = template_config(tmp_path, name)
    written: dict[str, Any] = tomllib.loads(text)
    portfolio_template = PORTFOLIO_TEMPLATES[name]
    assert sum(asset.target for asset in config.portfolio.assets) == BPS
    assert {key: written["limits"][key] for key in portfolio_template.limits} == dict(portfolio_template.limits)
    assert {key: written["policy"][key] for key in portfolio_template.policy} == dict(portfolio_template.policy)
    assert written["portfolio"].get("weights", {}) == dict(portfolio_template.allocator_values)
    assert text.startswith(f"# Template: {name},")
    plain = tmp_path / "plain.toml"
    write_new_config(plain, NewConfig("ethereum", WALLET, [("WETH", "50%"), ("USDC", "50%")], "USDC", RPC))
    others = tomllib.loads(plain.read_text())
    assert written["limits"].pop("futures_notional", None) == (
        None if portfolio_template.futures_multiple is None else f"{portfolio_template.futures_multiple}x"
    )
    by_feeds = {*portfolio_template.limits, "oracle_deviation"}
    assert {key: value for key, value in written["limits"].items() if key not in by_feeds} == {
        key: value for key, value in others["limits"].items() if key not in by_feeds
    }
    assert (others["limits"]["oracle_deviation"], written["limits"]["oracle_deviation"]) in (("1%", "1%"), ("1%", "1.5%"))
    comments = [line.partition("# ")[2] for line in plain.read_text().splitlines() if "# " in line]
    assert not [comment for comment in comments if comment not in text], "a comment was lost"


@pytest.mark.parametrize("name", PROMISED)
def test_profiles__have_the_promised_shares_and_futures_bound(name: str, tmp_path: Path) -> None:
    core, stable, beta, futures = PROMISED[name]
    config, text = template_config(tmp_path, name)
    shares = {asset.symbol: asset.target for asset in config.portfolio.listed_tokens}
    classes = {name: [symbols[0] for symbols in alternatives] for name, alternatives in TOKEN_CLASSES.items()}
    assert [sum(shares[symbol] for symbol in classes[kind]) for kind in ("core", "stable", "high-beta")] == [core, stable, beta]
    assert tomllib.loads(text)["limits"]["futures_notional"] == futures


@pytest.mark.parametrize("network", PRESETS)
def test_every_template_finds_its_tokens_on_every_network(network: str) -> None:
    """The presets themselves are compared with what is published in tests/unit/config/networks/test_networks.py."""
    known = {token.symbol: token.address for token in PRESETS[network].tokens}
    document = api.templates(network)
    assert [template["name"] for template in document["templates"]] == list(PORTFOLIO_TEMPLATES)
    for template in document["templates"]:
        assert {token["symbol"]: token["address"] for token in template["tokens"]}.items() <= known.items()
        assert len(template["tokens"]) == len({token["symbol"] for token in template["tokens"]})
    assert network == "unichain" or all(token.feed is not None for token in PRESETS[network].tokens)


@pytest.mark.parametrize("network", PRESETS)
def test_equal_begins_where_its_allocator_ends(network: str) -> None:
    """Also where the network lacks a token: the others share its part alike."""
    targets = template_targets(PORTFOLIO_TEMPLATES["equal"], PRESETS[network])
    assert {share for _, share in targets} == {"20%" if len(targets) == 5 else "25%"}


@pytest.mark.parametrize("network", PRESETS)
def test_market_cap_needs_no_file_on_any_network(tmp_path: Path, network: str) -> None:
    write_new_config(tmp_path / "cap.toml", NewConfig(network, WALLET, [], "USDC", RPC, template="market-cap"))
    config = load_config(tmp_path / "cap.toml").config
    token_by_address = {
        listed.address: Token(listed.address, listed.symbol, listed.decimals or 18) for listed in config.portfolio.listed_tokens
    }
    portfolio = build_portfolio(config, token_by_address)
    weights = build_allocator(config.portfolio.weights, portfolio, tmp_path, chain_id=config.chain.chain_id)
    symbol_by_address = {asset.address: asset.symbol for asset in config.portfolio.listed_tokens}
    listed_symbols = {symbol_by_address[supply.token] for supply in weights.supplies}
    core_symbols = {"bnb": {"ETH", "BTCB"}, "base": {"WETH", "cbBTC"}}.get(network, {"WETH", "WBTC"})
    assert listed_symbols - {"AAVE"} == core_symbols
    assert {limit.high_bps for limit in weights.limits} == {4_000}


def test_the_riskier_the_profile_the_wider_its_bands_and_limits(tmp_path: Path) -> None:
    order = []
    for name in PROMISED:
        folder = tmp_path / name
        folder.mkdir()
        limits = template_config(folder, name)[0].limits
        order.append(
            (limits.turnover or 0, limits.daily_turnover or 0, limits.daily_loss or 0, limits.plan_cost or 0, limits.price_impact or 0)
        )
    assert all(earlier <= later for i in range(2) for earlier, later in zip(order[i], order[i + 1], strict=True))


@pytest.mark.parametrize(
    ("args", "words"),
    [
        ({"template": "reckless"}, "'reckless' is not known"),
        ({"template": "moderate", "targets": [("WETH", "50%"), ("USDC", "50%")]}, "--target: a template has its own targets"),
        ({"template": "moderate", "stable_share": "40%"}, "--stable: the shares of moderate are fixed"),
        ({"template": "stable-reserve", "stable_share": "100%"}, "--stable: 100% leaves nothing"),
        ({"template": "stable-reserve", "stable_share": "0%"}, "--stable: 0% leaves nothing"),
        ({"template": "stable-reserve", "stable_share": "99.99%"}, "--stable: 99.99% leaves nothing for WBTC"),
        ({"template": "stable-reserve", "stable_share": "many"}, "--stable: 'many'"),
        ({"stable_share": "40%"}, "--stable: only valid with --template"),
        ({}, "--target: missing"),
        ({"template": "moderate", "numeraire": "DAI"}, "--numeraire: 'DAI' is not a target"),
    ],
)
def test_a_mistake_is_named_and_nothing_is_written(args: dict[str, Any], words: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=words):
        write_new_config(
            tmp_path / "x.toml", NewConfig("ethereum", WALLET, args.pop("targets", []), args.pop("numeraire", "USDC"), RPC, **args)
        )
    assert not list(tmp_path.iterdir())


def test_template_without_a_class__names_it() -> None:
    coins = tuple(token for token in PRESETS["ethereum"].tokens if token.symbol in ("WETH", "WBTC", "USDC"))
    preset = replace(PRESETS["ethereum"], tokens=coins)
    with pytest.raises(ConfigError, match=r"--template: moderate needs a high-beta token .*, and none is known for chain 1"):
        template_targets(PORTFOLIO_TEMPLATES["moderate"], preset)
    assert template_targets(PORTFOLIO_TEMPLATES["60/40"], preset) == [("WETH", "30%"), ("WBTC", "30%"), ("USDC", "40%")]


def decided(config: Config, shares: dict[str, int]) -> Proposal:
    """The template's step over a portfolio of 10,000 dollars with these shares in bps, in deep pools of 0.05 %."""
    assets = {asset.symbol: asset.target for asset in config.portfolio.listed_tokens}
    policy = build_policy(config)
    pools = [v2_pool(token(coin), token("USDC"), price_of(coin), 100_000_000, fee_pips=500) for coin in ("WETH", "WBTC")]
    step = step_input(assets, shares, pools=pools, trigger=policy.trigger, destination=policy.destination, past=HAS_TRADED, cooldown_s=0)
    head = replace(step.snapshot.head, base_fee_wei=GWEI // 100)
    return propose_rebalance(complete_risk(with_snapshot(step, priority_fee_wei=0, head=head)))


def weights_bps(proposal: Proposal) -> dict[str, int]:
    symbol_by_address = {token(symbol).address: symbol for symbol in ("WETH", "WBTC", "USDC")}
    return {symbol_by_address[address]: bps for address, bps in proposal.plan.weights_after_bps}


def test_w6_grown_crypto__fills_the_stable_reserve_again(tmp_path: Path) -> None:
    config, _ = template_config(tmp_path, "stable-reserve", "80%")
    after = weights_bps(decided(config, {"WETH": 1_750, "WBTC": 1_750, "USDC": 6_500}))
    assert 7_500 < after["USDC"] < 8_000, "back to the edge of the rule"
    assert after["WETH"] == pytest.approx(after["WBTC"], abs=100)


def test_w6_shrunk_reserve__is_filled_and_one_that_holds_is_left(tmp_path: Path) -> None:
    config, _ = template_config(tmp_path, "stable-reserve")
    assert 1_500 < weights_bps(decided(config, {"WETH": 4_400, "WBTC": 4_400, "USDC": 1_200}))["USDC"] < 2_000
    assert decided(config, {"WETH": 4_100, "WBTC": 4_100, "USDC": 1_800}).plan is None
