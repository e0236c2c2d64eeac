"""`trimtab init`: a config that loads, addresses of the real networks as their publishers give them, symbols never guessed."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
from eth_abi import encode as abi_encode

from agent.app.start.doctor.checks import doctor
from agent.artifacts import npm_root
from agent.chain.rpc import RpcFault
from agent.config.load import load_config
from agent.config.networks.presets import ETHEREUM_PRESET
from agent.config.writing.portfolio_templates import PORTFOLIO_TEMPLATES
from agent.figures import reader_text
from tests.support.commands.init import RPC, TWO, WALLET, Bare, init
from tests.support.fakes.transport import ScriptedTransport
from tests.support.text import mentions
from tests.support.worlds import missing


def test_init__writes_a_commented_config_that_loads(bare: Bare, tmp_path: Path) -> None:
    config = tmp_path / "trimtab.toml"
    result = init(bare, config, *TWO)
    assert result.code == 0
    assert result.json["next"][-2:] == [f"trimtab doctor --config {config}", f"trimtab trust --config {config}"]
    asset_by_symbol = {asset["symbol"]: (asset["address"], asset["target"], asset["feed"]) for asset in result.json["assets"]}
    by_symbol = {token.symbol: token for token in ETHEREUM_PRESET.tokens}
    assert asset_by_symbol == {
        name: (by_symbol[name].address, share, by_symbol[name].feed) for name, share in (("WETH", "60%"), ("USDC", "40%"))
    }
    loaded = load_config(config).config
    assert loaded.wallet.address == WALLET
    assert [endpoint.operator for endpoint in loaded.chain.rpc] == ["alpha", "beta"]
    assert config.stat().st_mode & 0o777 == 0o600
    assert config.read_text().count("#") > 20
    words = bare("init", "--wallet", WALLET, *RPC, *TWO, "--config", str(tmp_path / "other.toml"))
    assert by_symbol["WETH"].address in words.out
    assert "trimtab trust" in words.out


def test_the_least_total_is_said_at_three_gas_prices(bare: Bare, tmp_path: Path) -> None:
    least_total = init(bare, tmp_path / "trimtab.toml", *TWO).json["least_total"]
    assert [amount["gas_gwei"] for amount in least_total] == ["0.05", "1", "30"]
    totals = [float(amount["total"]) for amount in least_total]
    assert totals[0] < totals[1] < totals[2]
    assert all("Minimum total" in amount["text"] for amount in least_total)
    values = bare("whatif", "--target", "WETH=60,USDC=40", "--value", "WETH=300,USDC=200", "--band", "10%rel", "--json")
    small = values.json["least_total"]
    assert [amount["enough"] for amount in small] == [False] * 3 or small[0]["enough"]
    assert not small[2]["enough"]
    assert small[2]["changes"]


def test_a_ceiling_below_the_least_total_is_said(bare: Bare, tmp_path: Path) -> None:
    document = init(bare, tmp_path / "trimtab.toml", *TWO).json
    totals = {amount["gas_gwei"]: float(amount["total"]) for amount in document["least_total"]}
    (warning,) = document["warnings"]
    assert mentions(warning, "portfolio.max_live_value", "1,000 USDC", "minimum total")
    assert [f"at {gwei} gwei" in warning or f"and {gwei} gwei" in warning for gwei in totals] == [
        total > 1_000 for total in totals.values()
    ]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        pytest.param(("--rpc", "A=alpha"), "two different operators are needed", id="one"),
        pytest.param(("--rpc", "A=alpha", "--rpc", "B=alpha"), "two different operators are needed", id="one of two endpoints"),
        pytest.param(("--rpc", "A=alpha", "--rpc", "A=beta"), "a variable is named twice", id="one variable"),
    ],
)
def test_too_few_operators__write_no_config_and_say_how_to_get_a_second(
    bare: Bare, tmp_path: Path, options: tuple[str, ...], message: str
) -> None:
    """The same rule as in the dialogue and on the page (tests/unit/app/start/test_setup.py)."""
    path = tmp_path / "trimtab.toml"
    result = init(bare, path, *TWO, rpc=options)
    assert result.code == 2
    assert mentions(result.error, f"--rpc: {message}", "for example --rpc RPC_URL_1=alchemy --rpc RPC_URL_2=infura")
    assert not path.exists()


def test_base_portfolio__is_told_what_waits_on_a_busy_day(bare: Bare, tmp_path: Path) -> None:
    document = init(bare, tmp_path / "trimtab.toml", "--network", "base", "--template", "small", "--use-cash", "500").json
    assert document["warnings"] == [
        "On a busy day, at 0.3 gwei, corrections wait for cheaper gas: the minimum total is then 1,045 USDC,"
        " above portfolio.max_live_value of 1,000 USDC."
    ]
    *_, estimated, _, measured = document["year_costs"]
    assert estimated == "With 500 USDC: about 6 rebalances and 0.11 USDC a year, simulated, at 0.011 gwei, the gas price of ordinary days."
    assert measured.startswith("Measured in a back-test, beside the estimate above: Template small, 60/40")
    assert "The estimate has the volatilities and pool fees that it names, the measured year its own" in measured


def test_tracking_loss__is_said_beside_other_triggers(bare: Bare, tmp_path: Path) -> None:
    targets = ("--target", "WETH=40%", "--target", "cbBTC=30%", "--target", "USDC=30%")
    options = ("--network", "base", *targets, "--use-cash", "50000")
    document = init(bare, tmp_path / "trimtab.toml", *options).json
    loss = document["tracking_loss"]
    words = bare("init", "--wallet", WALLET, *RPC, *options, "--config", str(tmp_path / "other.toml")).out
    pattern = (
        r"About \d+ bps a year behind a perfect tracker \(\S+ costs, \S+ drift\), \d+ of 50,000 USDC; (.*) would lose (more|less): \d+\."
    )
    sentence = re.fullmatch(pattern, loss["lines"][0])
    assert sentence is not None
    assert {sentence[1], loss["own"]["policy"]} == {"tracking", "relative 10 %"}
    assert all(line in document["year_costs"] and reader_text(line) in " ".join(words.split()) for line in loss["lines"])
    by_policy = {row["policy"]: float(row["loss_bps"]) for row in (loss["own"], *loss["others"])}
    assert by_policy["tracking"] < by_policy["relative 20 % to halfway"] < by_policy["relative 10 %"] < 8
    assert float(loss["money"]) == pytest.approx(float(loss["own"]["loss_bps"]) * 5, rel=0.1)
    assert "Pool fees WETH 0.05 %, cbBTC 0.1 %" in loss["lines"][-1]


def test_gas_that_is_dear_for_the_portfolio_is_warned_of(bare: Bare, tmp_path: Path) -> None:
    small = init(bare, tmp_path / "trimtab.toml", *TWO, "--use-cash", "60").json
    assert any(line.startswith("Gas: each trade costs 0.75 % of the portfolio (0.45 USDC)") for line in small["warnings"])
    large = init(bare, tmp_path / "other.toml", *TWO, "--use-cash", "600").json
    assert not any(line.startswith("Gas") for line in large["warnings"])


def test_a_pair_that_plan_cost_leaves_off_target_is_warned_of(bare: Bare, tmp_path: Path) -> None:
    altcoins = ("--target", "WETH=40%", "--target", "LINK=20%", "--target", "AAVE=20%", "--target", "USDC=20%")
    warnings = init(bare, tmp_path / "trimtab.toml", *altcoins).json["warnings"]
    assert [mentions(line, "60 bps", "limits.plan_cost allows 50") for line in warnings if line.startswith("LINK and AAVE: ")] == [True]


def test_each_template_says_about_what_it_loses_with_a_value(bare: Bare) -> None:
    document = bare("templates", "--network", "base", "--value", "50,000", "--json").json
    losses = {template["name"]: template["tracking_loss"]["own"]["loss_bps"] for template in document["templates"]}
    assert len(losses) == len(PORTFOLIO_TEMPLATES)
    assert all(1 < float(loss) < 60 for loss in losses.values())
    words = " ".join(bare("templates", "--network", "base", "--value", "50000").out.split())
    assert "About the loss behind a perfect tracker, bps a year with 50,000 USDC" in words
    assert mentions(words, "tracking, normal", "compare those of one strictness")
    assert re.search(r"a year with 50,000 USDC .* conservative tracking,.{0,60} relaxed", words), "a narrow table breaks the cell"
    assert all(re.search(rf" {re.escape(name)} .* {re.escape(loss)} ", words) for name, loss in losses.items())
    assert mentions(bare("templates", "--value", "many", "--json").error["message"], "--value", "'many' is not an amount of USDC")


def test_the_least_total_is_exact_in_a_dear_numeraire(bare: Bare, tmp_path: Path) -> None:
    halves = ("--target", "WETH=50%", "--target", "USDC=50%")
    least_total = init(bare, tmp_path / "trimtab.toml", *halves, "--numeraire", "WETH", "--price", "3000").json["least_total"]
    assert [amount["total"] for amount in least_total] == ["0.0196", "0.392", "11.76"]
    assert mentions(least_total[0]["text"], "0.05 gwei", "0.02 WETH", "a drift of 50 % of its target")
    assert "cost 0.000009 WETH" in least_total[0]["text"]
    dollars = init(bare, tmp_path / "dollars.toml", *halves).json["least_total"]
    assert mentions(dollars[2]["text"], "30 gwei", "35,280 USDC")


def test_more_than_six_assets_are_said_to_be_harder(bare: Bare, tmp_path: Path) -> None:
    def told(count: int) -> list[str]:
        symbols = [token.symbol for token in ETHEREUM_PRESET.tokens][:count]
        first = 100 - 10 * (count - 1)
        targets = [f"{symbol}={10 if number else first}%" for number, symbol in enumerate(symbols)]
        result = init(bare, tmp_path / f"{count}.toml", *(part for target in targets for part in ("--target", target)))
        assert result.code == 0, result.why
        return [line for line in result.json["warnings"] if "max_live_value" not in line and "plan_cost" not in line]

    assert told(6) == []
    assert [line.split(":")[0] for line in told(7)] == ["7 assets"]


def test_a_store_that_exists_already_is_questioned(bare: Bare, tmp_path: Path) -> None:
    assert not any("store.url" in line for line in init(bare, tmp_path / "trimtab.toml", *TWO).json["warnings"])
    (tmp_path / "trimtab.db").touch()
    assert not any("store.url" in line for line in init(bare, tmp_path / "third.toml", *TWO).json["warnings"]), "it has its own"
    (tmp_path / "other.db").touch()
    (warning,) = [line for line in init(bare, tmp_path / "other.toml", *TWO).json["warnings"] if "store.url" in line]
    assert mentions(warning, "other.db", "one portfolio", 'url = "sqlite:///other-new.db"')


@pytest.mark.parametrize("options", [(), ("--safe",)], ids=["key", "safe"])
def test_second_portfolio_of_a_wallet__is_warned_of(bare: Bare, tmp_path: Path, options: tuple[str, ...]) -> None:
    def shared(name: str, *others: str) -> list[str]:
        result = init(bare, tmp_path / name, *TWO, *options, *others)
        return [line for line in result.json["warnings"] if "the same wallet" in line]

    assert shared("first.toml") == []
    assert shared("second.toml") == [], "the first has done nothing"
    (tmp_path / "first.db").touch()
    (warning,) = shared("third.toml")
    assert mentions(warning, "wallet.address", WALLET, "first.toml", "another wallet for this one. Only if", "trimtab stop --config")
    (row, *_) = [row for row in doctor(tmp_path / "third.toml", [])["checks"] if row["check"] == "wallet"]
    assert (row["state"], "first.toml is a config of the same wallet" in row["finding"]) == ("warn", True)
    (tmp_path / "broken.toml").write_text("[wallet")
    (tmp_path / "own").mkdir()
    assert shared("own/fourth.toml") == []
    (tmp_path / "first.toml").write_text((tmp_path / "first.toml").read_text().replace("chain_id = 1\n", "chain_id = 8453\n"))
    assert shared("fifth.toml") == [], "a wallet on another chain is another"


@pytest.mark.parametrize("price", ["0.00002", "0.5", "3000"])
def test_price_of_the_numeraire__has_no_exponent(bare: Bare, tmp_path: Path, price: str) -> None:
    result = init(bare, tmp_path / "trimtab.toml", *TWO, "--numeraire", "WETH", "--price", price)
    assert result.json["numeraire_usd"] == price


def test_an_existing_file_is_left_alone(bare: Bare, tmp_path: Path) -> None:
    config = tmp_path / "trimtab.toml"
    config.write_text("mine")
    result = init(bare, config, *TWO)
    assert result.code == 2
    assert "exists already" in result.error["message"]
    assert mentions(result.error["remedy"], "--config other.toml", "another directory")
    assert config.read_text() == "mine"


def test_native_coin__is_an_asset_by_name_with_its_wrapped_token(bare: Bare, tmp_path: Path) -> None:
    config = tmp_path / "trimtab.toml"
    result = init(bare, config, "--target", "native=60%", "--target", "USDC=40%")
    assert result.code == 0
    assert result.json["assets"][0]["symbol"] == "ETH"
    assert tomllib.loads(config.read_text())["portfolio"]["assets"][0]["address"] == "native"
    portfolio = load_config(config).config.portfolio
    assert (portfolio.assets[0].native, portfolio.assets[0].address) == (True, ETHEREUM_PRESET.wrapped_native)
    assert not portfolio.hubs
    both = init(bare, tmp_path / "both.toml", "--target", "native=30%", "--target", "WETH=30%", "--target", "USDC=40%")
    assert both.code == 2
    assert "one asset" in both.error["message"]
    assert "remove WETH" in both.error["message"]


def test_wrapped_native_coin__becomes_a_hub_where_not_held(bare: Bare, tmp_path: Path) -> None:
    config = tmp_path / "trimtab.toml"
    assert init(bare, config, "--target", "WBTC=50%", "--target", "USDC=50%").code == 0
    hubs = load_config(config).config.portfolio.hubs
    assert [(hub.symbol, hub.address) for hub in hubs] == [("WETH", ETHEREUM_PRESET.wrapped_native)]
    assert hubs[0].feed is not None


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (("--target", "WETH=60%", "--target", "USDC=30%"), ("90 %", "add 10 %")),
        (("--target", "WETH=60", "--target", "USDC=40"), ("no unit",)),
        (("--target", "USDC=100%"), ("portfolio.assets", "at least 2")),
        (("--target", "WETH=60%", "--target", "WETH=40%", "--numeraire", "WETH", "--price", "3000"), ("given twice",)),
        ((*TWO, "--numeraire", "WETH"), ("--numeraire WETH", "caps are in WETH", "--price", "RPC_A")),
        ((*TWO, "--numeraire", "WETH", "--price", "3,000"), ("--price", "'3,000'", "such as 3000")),
        ((*TWO, "--numeraire", "WETH", "--price", "0"), ("--price",)),
        (("--target", "WETH=60%", "--target", "NOSUCH=40%"), ("'NOSUCH'", "--token-list")),
        (("--target", "WETH", "--target", "USDC=40%"), ("--target", "NAME=VALUE")),
        ((*TWO, "--numeraire", "EUR"), ("--numeraire", "'EUR'")),
        ((*TWO, "--use-cash", "0"), ("--use-cash: '0' is not an amount of USDC",)),
        ((*TWO, "--use-cash", "1.000,5"), ("--use-cash: '1.000,5'", "write 1000")),
        ((*TWO, "--ceiling", "0"), ("--ceiling: '0' is not an amount of USDC",)),
        ((*TWO, "--network", "moon"), ("--network", "'moon'", "ethereum")),
        ((*TWO, "--token-list", "/nonexistent/list.json"), ("--token-list",)),
    ],
)
def test_a_mistake_is_named_and_nothing_is_written(bare: Bare, tmp_path: Path, args: tuple[str, ...], words: tuple[str, ...]) -> None:
    config = tmp_path / "trimtab.toml"
    result = init(bare, config, *args)
    assert result.code == 2
    for word in words:
        assert word in result.error["message"] + result.error["remedy"], result.error
    assert not config.exists()


def test_amounts_of_options__are_written_as_on_the_pages(bare: Bare, tmp_path: Path) -> None:
    config = tmp_path / "trimtab.toml"
    assert init(bare, config, *TWO, "--use-cash", "$1,000", "--ceiling", "2,500 USDC").code == 0
    portfolio = load_config(config).config.portfolio
    assert (portfolio.use_cash, portfolio.max_live_value) == ("1000", "2500")


def test_url_or_key_in_place_of_a_name__is_refused_unrepeated(bare: Bare, tmp_path: Path) -> None:
    for rpc in ("https://node.example/canary", "https://node.example/?key=canary", f"{'ab' * 32}=alpha", "RPC_A=al pha"):
        result = init(bare, tmp_path / "x.toml", *TWO, rpc=("--rpc", rpc))
        assert result.code == 2
        assert "canary" not in result.out + result.err
        assert "abab" not in result.out + result.err
    assert init(bare, tmp_path / "y.toml", *TWO, wallet="0x1234").code == 2


def token_list(path: Path, *entries: dict[str, Any]) -> Path:
    path.write_text(json.dumps({"tokens": [{"chainId": 1, "decimals": 18, "name": "x", **entry} for entry in entries]}))
    return path


UNI = "0x1f9840a85d5aF5bf1D1762F925BDADdC4201F984"
OTHER = "0x7D1AfA7B718fb893dB30A3aBc0Cfc608AaCfeBB0"


def test_symbols_are_resolved_by_a_token_list(bare: Bare, tmp_path: Path) -> None:
    listed = token_list(
        tmp_path / "list.json", {"symbol": "UNI", "address": UNI, "decimals": 18}, {"symbol": "UNI", "address": OTHER, "chainId": 10}
    )
    config = tmp_path / "trimtab.toml"
    result = init(bare, config, "--target", "UNI=50%", "--target", "USDC=50%", "--token-list", str(listed))
    assert result.code == 0, result
    assert result.json["assets"][0]["address"] == UNI
    assert tomllib.loads(config.read_text())["portfolio"]["assets"][0]["decimals"] == 18


def test_ambiguous_symbol__is_refused_and_an_address_decides(bare: Bare, tmp_path: Path) -> None:
    listed = token_list(tmp_path / "list.json", {"symbol": "UNI", "address": UNI}, {"symbol": "UNI", "address": OTHER})
    config = tmp_path / "trimtab.toml"
    args = ("--target", "USDC=50%", "--token-list", str(listed))
    result = init(bare, config, "--target", "UNI=50%", *args)
    assert result.code == 2
    assert UNI in result.error["message"]
    assert OTHER in result.error["message"]
    assert init(bare, config, "--target", f"{OTHER}=50%", *args).json["assets"][0] == {
        "symbol": "UNI",
        "address": OTHER,
        "target": "50%",
        "feed": None,
    }


def test_a_lists_own_usdc_does_not_pass_for_the_known_one(bare: Bare, tmp_path: Path) -> None:
    listed = token_list(tmp_path / "list.json", {"symbol": "USDC", "address": OTHER})
    result = init(bare, tmp_path / "trimtab.toml", *TWO, "--token-list", str(listed))
    assert result.code == 2
    assert OTHER in result.error["message"]


def test_deceptive_symbols__are_left_out_and_a_broken_list_named(bare: Bare, tmp_path: Path) -> None:
    listed = token_list(tmp_path / "list.json", {"symbol": "UN\u0406", "address": UNI}, {"symbol": "\x1b[31mU", "address": OTHER})
    result = init(bare, tmp_path / "a.toml", "--target", f"{UNI}=50%", "--target", "USDC=50%", "--token-list", str(listed))
    assert result.json["assets"][0]["symbol"] == "T1f9840"
    for content in (b"[]", b"{", b"\xff", b'{"tokens": [{}]}', b"[" * 100_000):
        (tmp_path / "broken.json").write_bytes(content)
        broken = init(bare, tmp_path / "b.toml", *TWO, "--token-list", str(tmp_path / "broken.json"))
        assert broken.code == 2
        assert "token list" in broken.error["message"]


def test_the_whole_default_token_list_can_be_read(bare: Bare, tmp_path: Path) -> None:
    path = npm_root() / "@uniswap" / "default-token-list" / "build" / "uniswap-default.tokenlist.json"
    if not path.exists():
        missing(f"no token list at {path}")
    result = init(bare, tmp_path / "trimtab.toml", "--target", "UNI=50%", "--target", "USDC=50%", "--token-list", str(path))
    assert result.code == 0, result
    assert result.json["assets"][0]["address"] == UNI


def test_a_safe_s_owners_sign_by_proposals(bare: Bare, tmp_path: Path) -> None:
    """No endpoint answers here, so the address is not checked."""
    config = tmp_path / "trimtab.toml"
    result = init(bare, config, *TWO, "--safe")
    assert result.code == 0, result.why
    loaded = load_config(config).config
    assert (loaded.wallet.mode, loaded.wallet.safe, loaded.wallet.keystore) == ("propose", True, None)
    assert loaded.execution.deadline == 1_800
    assert (loaded.limits.native_floor, loaded.limits.native_top_up) == (None, None)
    assert config.read_text().count('mode = "propose"') == 1, "the comment that offers it is left out"


@pytest.mark.parametrize(("version", "code"), [("1.3.0", 0), ("1.4.1", 0), ("1.2.0", 2), ("1.5.0", 2), ("", 2)])
def test_address_that_is_no_safe__is_refused(bare: Bare, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str, code: int) -> None:
    answer = "0x" + abi_encode(["string"], [version]).hex()
    monkeypatch.setattr("agent.app.start.setup._open_endpoint", lambda *_: ScriptedTransport(eth_chainId="0x1", eth_call=answer))
    result = init(bare, tmp_path / "trimtab.toml", *TWO, "--safe")
    assert result.code == code, result.why
    assert (tmp_path / "trimtab.toml").exists() == (code == 0)
    if code:
        assert mentions(result.error["message"], WALLET, "is not a Safe of version 1.3.0 or 1.4.1")


def test_safe_at_an_endpoint_that_cannot_tell__is_written_unchecked(bare: Bare, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    node = ScriptedTransport(eth_chainId="0x1", eth_call=RpcFault(-32005, "limit exceeded"))
    monkeypatch.setattr("agent.app.start.setup._open_endpoint", lambda *_: node)
    assert init(bare, tmp_path / "trimtab.toml", *TWO, "--safe").code == 0
