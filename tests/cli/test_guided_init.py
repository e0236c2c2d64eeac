"""`trimtab init` at a terminal: every answer is checked and can be changed, and nothing is written before the last yes."""

from __future__ import annotations

import io
import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest

from agent.app.documents.owner import InitDocument
from agent.app.start import guide
from agent.app.start.past_results import template_result
from agent.cli import setup
from agent.cli.display.dialogue import guided_init
from agent.config.load import load_config
from agent.config.networks.presets import Preset
from agent.config.writing.portfolio_templates import PORTFOLIO_TEMPLATES, PortfolioTemplate
from agent.config.writing.template import with_safe
from agent.errors import ConfigError
from tests.cli.terminal import typed
from tests.support.commands.init import WALLET, Bare
from tests.support.samples import slow
from tests.support.text import mentions

PLAIN = {"COLUMNS": "80", "LINES": "24", "NO_COLOR": "1", "TERM": "dumb"}
ANSWERS = [
    ("Network [ethereum]: ", ""),
    ("Wallet: ", ""),
    ("Wallet: ", "0x12"),
    ("Wallet: ", WALLET),
    ("Endpoints: ", "RPC_A=alpha"),
    ("Endpoints: ", "RPC_A=alpha RPC_B=beta"),
    ("Basket: ", "WETH=60% USDC=60%"),
    ("Basket: ", "2"),
    ("Cash [all]: ", "1,000"),
    ("Ceiling [1500]: ", ""),
    ("Alerts [none]: ", "https://hooks.example/secret"),
    ("Alerts [none]: ", "TRIMTAB_ALERTS"),
]


CHANGE = [("change: ", "4"), ("Basket [moderate]: ", "60/40"), ("change: ", "9"), ("change: ", "yes")]


@pytest.mark.slow
def test_it_asks_at_a_terminal_of_eighty_columns_without_colour(tmp_path: Path) -> None:
    terminal_run = typed([*ANSWERS, *CHANGE], "init", cwd=tmp_path, env=PLAIN)
    assert terminal_run.code == 0, terminal_run.screen_text
    assert (tmp_path / "trimtab.toml").exists(), terminal_run.screen_text
    dialogue = terminal_run.screen_text.split("Written:")[0]
    assert "\x1b" not in dialogue
    assert max(map(len, dialogue.splitlines())) <= 80


def test_answer__is_checked_and_changeable_before_the_config(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    lines = [text for _, text in [*ANSWERS, *CHANGE]]
    assert dialogue_document(monkeypatch, tmp_path / "trimtab.toml", lines) is not None
    output = capfd.readouterr().err
    config = load_config(tmp_path / "trimtab.toml").config
    assert {asset.symbol: asset.target for asset in config.portfolio.assets} == {"WETH": 3_000, "WBTC": 3_000, "USDC": 4_000}
    assert (config.wallet.address, config.portfolio.use_cash) == (WALLET, "1000")
    assert config.alerts is not None
    assert [target.url_env for target in config.alerts.targets] == ["TRIMTAB_ALERTS"]
    assert [endpoint.operator for endpoint in config.chain.rpc] == ["alpha", "beta"]
    flat = " ".join(output.split())
    for basket in guide.baskets("ethereum"):
        past = template_result("ethereum", basket.name)
        assert past is not None
        assert f" {basket.name}: " in flat
        assert f"; from {basket.minimum_capital} USDC" in flat
        assert f"{float(past['return']) * 100:+.1f} % (held {float(past['return_of_holding']) * 100:+.1f} %)" in flat
        assert f"trades {past['rebalances']}, costs {past['costs']} of {int(past['value']):,}" in flat
    assert "docs/alerts.md" in output
    assert all(prompt.strip() in output for prompt, _ in ANSWERS)
    assert max(len(line) for line in re.sub(r"\w+( \[[^]]*\])?: ", "\n", output).splitlines()) <= 80


@pytest.mark.slow
def test_ctrl_c_leaves_no_file(tmp_path: Path) -> None:
    terminal_run = typed([*ANSWERS[:8], ("Cash [all]: ", "\x03")], "init", cwd=tmp_path, env=PLAIN)
    assert terminal_run.code == 130, terminal_run.screen_text
    assert list(tmp_path.iterdir()) == [], terminal_run.screen_text


@pytest.mark.parametrize("last", [[], pytest.param(["", "", "", "no"], id="a no at the end")])
def test_who_ends_early_leaves_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, last: list[str]) -> None:
    answers = [text for _, text in ANSWERS[:8]]
    if last:
        assert dialogue_document(monkeypatch, tmp_path / "trimtab.toml", [*answers, *last]) is None
    else:
        with pytest.raises(KeyboardInterrupt):  # the end of input
            dialogue_document(monkeypatch, tmp_path / "trimtab.toml", answers)
    assert list(tmp_path.iterdir()) == []


def dialogue_document(monkeypatch: pytest.MonkeyPatch, path: Path, lines: list[str]) -> InitDocument | None:
    """The dialogue with these answers."""
    monkeypatch.setattr(sys, "stdin", io.StringIO("".join(f"{line}\n" for line in lines)))
    return guided_init(path, guide.InitAnswers())


def test_network_option__is_checked_and_not_asked_again(bare: Bare, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(setup, "is_interactive", lambda: True)
    for name, lines in (("ethereum", []), ("mainnet", ["ethereum"])):
        path = tmp_path / f"{name}.toml"
        monkeypatch.setattr(sys, "stdin", io.StringIO("".join(f"{line}\n" for line in [*lines, *TO_CASH[1:], "2", "", "", "", "yes"])))
        result = bare("init", "--network", name, "--config", str(path))
        assert result.code == 0, result
        assert path.exists(), result
        assert ("Network [" in result.err) == bool(lines)


@pytest.mark.parametrize(
    "option", [("--futures", "moderate"), ("--numeraire", "WETH"), ("--price", "3000"), ("--token-list", "tokens.json")]
)
def test_option_without_a_question__is_not_dropped(
    bare: Bare, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, option: tuple[str, str]
) -> None:
    monkeypatch.setattr(setup, "is_interactive", lambda: True)
    monkeypatch.setattr(sys, "stdin", io.StringIO("".join(f"{line}\n" for line in ["", *TO_CASH[1:], "2", "", "", "", "yes"])))
    result = bare("init", *option, "--config", str(tmp_path / "trimtab.toml"))
    assert result.code == 2
    assert not list(tmp_path.iterdir())
    assert mentions(result.err, "--wallet", f"without {option[0]}")


def test_another_network_asks_for_its_endpoints_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An endpoint answers for one chain."""
    lines = [*TO_CASH, "WETH=50% USDC=50%", "", "", "", "1", "base", "BASE_A=alpha BASE_B=beta", "1", "base", "yes"]
    assert dialogue_document(monkeypatch, tmp_path / "trimtab.toml", lines) is not None
    chain = load_config(tmp_path / "trimtab.toml").config.chain
    assert (chain.chain_id, [endpoint.url_env for endpoint in chain.rpc]) == (8_453, ["BASE_A", "BASE_B"])


@pytest.mark.parametrize("basket", ["moderate", "WETH=50% LINK=30% USDC=20%"], ids=["template", "own weights"])
def test_basket_that_another_network_lacks__is_asked_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, basket: str) -> None:
    template_targets = guide.portfolio_templates.template_targets

    def targets_on(template: PortfolioTemplate, preset: Preset) -> list[tuple[str, str]]:
        if template.name == "moderate" and preset.chain_id == 8_453:
            raise ConfigError("no token for 20 % of it", "choose another")
        return template_targets(template, preset)

    monkeypatch.setattr(guide.portfolio_templates, "template_targets", targets_on)
    lines = [*TO_CASH, basket, "", "", "", "1", "base", "BASE_A=alpha BASE_B=beta", "WETH=50% USDC=50%", "yes"]
    assert dialogue_document(monkeypatch, tmp_path / "trimtab.toml", lines) is not None
    config = load_config(tmp_path / "trimtab.toml").config
    assert config.chain.chain_id == 8_453
    assert {asset.symbol: asset.target for asset in config.portfolio.assets} == {"WETH": 5_000, "USDC": 5_000}


def test_endpoints_of_options__are_those_of_the_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("base\nyes\n"))
    path = tmp_path / "trimtab.toml"
    answers = guide.InitAnswers(wallet=WALLET, endpoints=(("BASE_A", "alpha"), ("BASE_B", "beta")), template="60/40")
    assert guided_init(path, answers, ("wallet", "endpoints", "basket", "cash", "ceiling", "alert")) is not None
    assert [endpoint.url_env for endpoint in load_config(path).config.chain.rpc] == ["BASE_A", "BASE_B"]


def test_only_what_the_options_lack_is_asked(bare: Bare, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(setup, "is_interactive", lambda: True)
    path = tmp_path / "trimtab.toml"
    arguments = ("--wallet", WALLET, "--template", "60/40", "--use-cash", "3000", "--alert", "mail=TRIMTAB_MAIL")
    monkeypatch.setattr(sys, "stdin", io.StringIO("\nRPC_A=alpha RPC_B=beta\n\nyes\n"))
    result = bare("init", *arguments, "--config", str(path))
    assert result.code == 0, result
    assert [name for name in ("Network", "Wallet", "Endpoints", "Basket", "Cash", "Ceiling", "Alerts") if f"\n{name}. " in result.err] == [
        "Network", "Endpoints", "Ceiling"
    ]  # fmt: skip
    config = load_config(path).config
    assert (config.wallet.address, config.portfolio.use_cash, config.portfolio.max_live_value) == (WALLET, "3000", "4500")
    assert config.alerts is not None
    assert [(target.name, target.url_env) for target in config.alerts.targets] == [("mail", "TRIMTAB_MAIL")]


TO_CASH = ["", WALLET, "RPC_A=alpha RPC_B=beta"]


@pytest.mark.parametrize(
    ("basket", "cash", "words"),
    [
        pytest.param(
            "2",
            "500",
            (
                "With 500 USDC: not worth it here at 1 gwei and an assumed pool fee of 0.3 %, only from 19,380 USDC.",
                "To make it worth it: ",
            ),
            id="five coins, 500 dollars",
        ),
        pytest.param(
            "WETH=50% USDC=50%",
            "500",
            (
                "not worth it here at 1 gwei and an assumed pool fee of 0.3 %, only from 1,176 USDC.",
                "limits.plan_cost =",
                "30 gwei and an assumed pool fee of 0.3 %, only from 35,280",
            ),
            id="two coins, 500 dollars",
        ),
        pytest.param(
            "WETH=50% USDC=50%",
            "6000",
            (
                "With 6,000 USDC: about 3 rebalances and 2.0 USDC a year, simulated, at 1 gwei, the gas price of ordinary days.",
                "About 10 rebalances and 1.2 USDC a year, simulated, at 0.05 gwei, the gas price of quiet days",
            ),
            id="two coins, 6,000 dollars",
        ),
        pytest.param(
            "WETH=50% USDC=50%",
            "all",
            ("1,000 is the ceiling: above it every rebalance is", "With 1,000 USDC: not worth it here at 1 gwei"),
            id="two coins, all",
        ),
    ],
)
def test_dialogue__ends_in_two_lines_on_a_year_or_not_worth_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], basket: str, cash: str, words: tuple[str, ...]
) -> None:
    assert dialogue_document(monkeypatch, tmp_path / "trimtab.toml", [*TO_CASH, basket, cash, "", "", "no"]) is None
    text = " ".join(capfd.readouterr().err.split())
    assert all(word in text for word in words), text
    assert ("To make it worth it" in text) == ("With 6,000" not in text)


@pytest.mark.parametrize(
    ("cash", "answer", "ceiling"),
    [
        pytest.param("3000", "", "4500", id="ceiling by default"),
        pytest.param("3000", "5,000", "5000", id="own ceiling"),
        pytest.param("all", "", "1000", id="all the cash"),
        *slow([("600", "", "1000")]),
    ],
)
def test_ceiling__is_asked_and_follows_the_cash(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], cash: str, answer: str, ceiling: str
) -> None:
    document = dialogue_document(monkeypatch, tmp_path / "trimtab.toml", [*TO_CASH, "2", cash, answer, "", "yes"])
    text = " ".join(capfd.readouterr().err.split())
    assert "portfolio.max_live_value" in text
    assert document is not None
    config = load_config(tmp_path / "trimtab.toml").config
    assert (config.portfolio.max_live_value, config.limits.payout_per_day, document["ceiling"]) == (ceiling, ceiling, ceiling)
    assert not any("every rebalance is refused" in warning for warning in document["warnings"])


def test_ceiling_below_the_cash__is_refused_with_the_amount(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], bare: Bare
) -> None:
    assert dialogue_document(monkeypatch, tmp_path / "trimtab.toml", [*TO_CASH, "2", "3000", "2000", "3000", "", "yes"]) is not None
    text = " ".join(capfd.readouterr().err.split())
    assert "2000 is below the 3000 of cash to use" in text
    assert "write 4500" in text
    path = tmp_path / "other.toml"
    options = ("--wallet", WALLET, "--rpc", "A=a", "--rpc", "B=b", "--template", "equal", "--yes", "--config", str(path))
    result = bare("init", *options, "--use-cash", "3000", "--ceiling", "2000")
    assert result.code == 2
    assert mentions(result.err, "--ceiling", "2000", "3000", "4500")
    assert not path.exists()
    result = bare("init", *options, "--use-cash", "3000")
    config = load_config(path).config
    assert result.code == 0
    assert (config.portfolio.max_live_value, config.limits.payout_per_day) == ("4500", "4500")
    last = result.out.splitlines()[-2:]
    assert last[0].startswith("With 3,000 USDC: ")
    assert "at 0.05 gwei" in last[1]
    assert "at 30 gwei" in last[1]


@pytest.mark.parametrize(("answer", "ceiling"), [("", "1000"), ("600", "600")], ids=["default", "own"])
def test_another_amount_of_cash_asks_for_the_ceiling_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: str, ceiling: str
) -> None:
    lines = [*TO_CASH, "2", "3000", "7000", "", "5", "5000", "", "5", "400", answer, "yes"]
    assert dialogue_document(monkeypatch, tmp_path / "trimtab.toml", lines) is not None
    assert load_config(tmp_path / "trimtab.toml").config.portfolio.max_live_value == ceiling


def test_an_empty_answer_is_told_what_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    lines = ["", "", WALLET, "", "RPC_A=alpha RPC_B=beta", "", "2", "", "", "", "yes"]
    assert dialogue_document(monkeypatch, tmp_path / "trimtab.toml", lines) is not None
    text = " ".join(capfd.readouterr().err.split())
    for name, needed in (("Wallet", "0x…"), ("Endpoints", "RPC_URL_1=alchemy"), ("Basket", "a number or a name of the list")):
        assert f"! {name}: nothing was entered" in text
        assert needed in text.split(f"! {name}: nothing was entered")[1]


def test_settings_are_named_where_the_warning_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, cash in (("a", "500"), ("b", "all")):
        document = dialogue_document(monkeypatch, tmp_path / f"{name}.toml", [*TO_CASH, "WETH=50% USDC=50%", cash, "", "", "yes"])
        assert document is not None
        (warning,) = document["warnings"]
        rows = [row for row in document["least_total"] if float(row["total"] or 0) > 1_000]
        if "named below" in warning:
            assert cash == "500"
            assert all(row["changes"] for row in rows)
        else:
            assert "Raise max_live_value, or, for 1 gwei, take limits.plan_cost" in warning


def test_missing_options__are_named_without_a_terminal(bare: Bare, tmp_path: Path) -> None:
    config = tmp_path / "trimtab.toml"
    result = bare("init", "--rpc", "RPC_A=alpha", "--config", str(config), "--json")
    assert result.code == 2
    assert mentions(json.loads(result.out)["error"], "--wallet", "--target")
    both = ("--use-cash", "250", "--alert", "mail=TRIMTAB_MAIL", "--yes")
    result = bare(
        "init", "--wallet", WALLET, "--rpc", "A=a", "--rpc", "B=b", "--template", "equal", *both, "--config", str(config), "--json"
    )
    loaded = load_config(config).config
    assert result.code == 0
    assert loaded.portfolio.use_cash == "250"
    assert loaded.alerts is not None
    assert [target.name for target in loaded.alerts.targets] == ["mail"]


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        ("with_network", "mainnet"),
        ("with_network", "a" * 5_000),
        ("with_wallet", "vitalik.eth"),
        ("with_wallet", "0x" + "0" * 40),
        ("with_endpoints", "https://rpc.example/key"),
        ("with_endpoints", "A=one B=one"),
        ("with_endpoints", "A=one A=two"),
        ("with_cash", "-5"),
        ("with_cash", "0"),
        ("with_cash", "1,5"),
        ("with_cash", "1.000,50"),
        ("with_ceiling", "1000,50"),
        ("with_ceiling", "٣"),
        ("with_alert", "mailto://me:secret@example.org"),
    ],
)
def test_a_wrong_answer_is_refused_and_no_secret_repeated(answer: str, text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        getattr(guide.InitAnswers(), answer)(text)
    assert caught.value.remedy
    assert "secret" not in str(caught.value).replace("a secret", "")
    assert "rpc.example" not in str(caught.value)


@pytest.mark.parametrize(
    ("basket", "fault"),
    [
        ("WETH=25% WETH=25% USDC=50%", "name WETH twice"),
        ("WETH=60% USDC=60%", "sum to 120 %, 20 % too much"),
        ("WETH=60% USDC=30%", "sum to 90 %, 10 % is missing"),
        ("WETH=60% DOGE=40%", "name DOGE, which is not one of"),
        ("WETH=60% WBTC=40%", "lack USDC, the unit of account"),
        ("USDC=100%", "are of USDC alone"),
    ],
)
def test_own_shares_that_make_no_basket__are_refused(basket: str, fault: str) -> None:
    with pytest.raises(ConfigError) as caught:
        guide.InitAnswers().with_basket(basket, [])
    assert f"basket: the shares {fault}" in caught.value.message


@pytest.mark.parametrize("text", ["", "all", "All"])
def test_all_cash_is_named_in_either_case(text: str) -> None:
    assert guide.InitAnswers(use_cash="500").with_cash(text).use_cash == ""


def test_every_template_has_a_past_result_and_a_least_capital() -> None:
    known = guide.baskets("ethereum")
    assert [template_name.name for template_name in known] == list(PORTFOLIO_TEMPLATES)
    assert all(
        template_name.past_result is not None and float(template_name.minimum_capital.replace(",", "")) > 0 for template_name in known
    )


def test_local_chain_config__passes_doctor_and_leads_to_a_plan(
    served: tuple[Path, dict[str, Any]],
    bare: Bare,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    source, about = served
    monkeypatch.setenv("TRIMTAB_LOCAL_RPC", about["url"])
    assert dialogue_document(monkeypatch, tmp_path / "mine.toml", [str(source), about["wallet"], "", "60/40", "", "", "", "y"]) is not None
    output = capfd.readouterr().err
    assert "Past: " not in output
    assert "From: minimum capital" in output
    config = str(tmp_path / "mine.toml")
    assert bare("trust", "--config", config, "--yes").code == 0
    checked = bare("doctor", "--config", config, "--json")
    assert checked.code == 0, [row for row in checked.json["checks"] if row["state"] == "fail"]
    assert bare("plan", "--config", config, "--json").json["decision"]


@pytest.mark.parametrize("options", [(), ("--safe",)], ids=["without --safe", "with --safe"])
def test_local_safe_config__gives_the_safe_and_its_endpoint(
    served: tuple[Path, dict[str, Any]], bare: Bare, tmp_path: Path, options: tuple[str, ...]
) -> None:
    source, about = served
    (tmp_path / "safe.toml").write_text(with_safe(source.read_text()))
    config = tmp_path / "own.toml"
    output = bare("init", *options, "--network", str(tmp_path / "safe.toml"), "--template", "small", "--config", str(config), "--json")
    assert output.code == 0, output.why
    loaded = load_config(config).config
    assert (loaded.wallet.address, loaded.wallet.safe, loaded.wallet.mode) == (about["wallet"], True, "propose")
    assert (loaded.execution.deadline, loaded.limits.native_floor) == (1_800, None)
    assert [endpoint.read_url() for endpoint in loaded.chain.rpc] == [about["url"]]


def test_local_config__gives_wallet_and_endpoint_and_a_real_none(served: tuple[Path, dict[str, Any]], bare: Bare, tmp_path: Path) -> None:
    source, about = served
    config = tmp_path / "own.toml"
    result = bare("init", "--network", str(source), "--template", "small", "--config", str(config), "--json")
    assert result.code == 0, result.why
    assert not [line for line in result.json["next"] if "export" in line]
    loaded = load_config(config).config
    assert (loaded.wallet.address, loaded.wallet.test_account) == (about["wallet"], 0)
    assert [endpoint.read_url() for endpoint in loaded.chain.rpc] == [about["url"]]
    assert (loaded.policy.cooldown, loaded.policy.confirm_blocks) == (10, 0), "as an idle chain needs"
    assert bare("trust", "--config", str(config), "--yes").code == 0
    assert bare("plan", "--config", str(config), "--json").json["decision"]

    key = f"test_account = {loaded.wallet.test_account}"
    for name, old, new in (("fork", "[chain]\n", "[chain]\nfork = true\n"), ("keystore", key, 'keystore = "wallet.json"')):
        real = tmp_path / f"{name}.toml"
        real.write_text(source.read_text().replace(old, new, 1))
        refused = bare("init", "--network", str(real), "--template", "small", "--config", str(tmp_path / "none.toml"), "--json")
        assert refused.code == 2
        assert mentions(refused.error["remedy"], "--wallet", "--rpc"), "both at once"
    assert not (tmp_path / "none.toml").exists()
