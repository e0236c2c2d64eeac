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
from agent.cli.display.dialogue import guided_init
from agent.config.load import load_config
from agent.config.template import PORTFOLIO_TEMPLATES
from agent.errors import ConfigError
from tests.cli.terminal import typed
from tests.cli.test_init import WALLET, Bare
from tests.support.text import mentions

PLAIN = {"COLUMNS": "80", "LINES": "24", "NO_COLOR": "1", "TERM": "dumb"}
ANSWERS = [
    ("Network [ethereum]: ", ""),
    ("Wallet: ", "0x12"),
    ("Wallet: ", WALLET),
    ("Endpoints: ", "RPC_A=alpha"),
    ("Endpoints: ", "RPC_A=alpha RPC_B=beta"),
    ("Basket: ", "WETH=60% USDC=60%"),
    ("Basket: ", "2"),
    ("Cash [all]: ", "1,000"),
    ("Alerts [none]: ", "https://hooks.example/secret"),
    ("Alerts [none]: ", "TRIMTAB_ALERTS"),
]


CHANGE = [("change: ", "4"), ("Basket [moderate]: ", "60/40"), ("change: ", "9"), ("change: ", "yes")]


@pytest.mark.slow
def test_it_asks_at_a_terminal_of_eighty_columns_without_colour(tmp_path: Path) -> None:
    seen = typed([*ANSWERS, *CHANGE], "init", cwd=tmp_path, env=PLAIN)
    assert seen.code == 0 and (tmp_path / "trimtab.toml").exists(), seen.shown
    dialogue = seen.shown.split("Written:")[0]
    assert "\x1b" not in dialogue and max(map(len, dialogue.splitlines())) <= 80


def test_each_answer_is_checked_and_changeable_and_the_config_is_what_was_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    lines = [text for _, text in [*ANSWERS, *CHANGE]]
    assert answered(monkeypatch, tmp_path / "trimtab.toml", lines) is not None
    shown = capfd.readouterr().err
    config = load_config(tmp_path / "trimtab.toml").config
    assert {one.symbol: one.target for one in config.portfolio.assets} == {"WETH": 3_000, "WBTC": 3_000, "USDC": 4_000}
    assert (config.wallet.address, config.portfolio.use_cash) == (WALLET, "1000")
    assert config.alerts is not None and [target.url_env for target in config.alerts.targets] == ["TRIMTAB_ALERTS"]
    assert [endpoint.operator for endpoint in config.chain.rpc] == ["alpha", "beta"]
    past = template_result("moderate")
    assert past is not None and mentions(shown, "from", f"{float(past['return']) * 100:+.1f} %", "docs/alerts.md")
    assert all(prompt.strip() in shown for prompt, _ in ANSWERS)
    assert max(len(line) for line in re.sub(r"\w+( \[[^]]*\])?: ", "\n", shown).splitlines()) <= 80


@pytest.mark.slow
def test_ctrl_c_leaves_no_file(tmp_path: Path) -> None:
    seen = typed([*ANSWERS[:7], ("Cash [all]: ", "\x03")], "init", cwd=tmp_path, env=PLAIN)
    assert seen.code == 130 and list(tmp_path.iterdir()) == [], seen.shown


@pytest.mark.parametrize("last", [[], ["", "", "no"]])
def test_who_ends_early_leaves_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, last: list[str]) -> None:
    answers = [text for _, text in ANSWERS[:7]]
    if last:
        assert answered(monkeypatch, tmp_path / "trimtab.toml", [*answers, *last]) is None
    else:
        with pytest.raises(KeyboardInterrupt):  # the end of input
            answered(monkeypatch, tmp_path / "trimtab.toml", answers)
    assert list(tmp_path.iterdir()) == []


def answered(monkeypatch: pytest.MonkeyPatch, path: Path, lines: list[str]) -> InitDocument | None:
    """The dialogue with these answers."""
    monkeypatch.setattr(sys, "stdin", io.StringIO("".join(f"{line}\n" for line in lines)))
    return guided_init(path, guide.InitAnswers())


def test_without_a_terminal_the_missing_options_are_named_and_the_others_work_as_before(bare: Bare, tmp_path: Path) -> None:
    config = tmp_path / "trimtab.toml"
    said = bare("init", "--rpc", "RPC_A=alpha", "--config", str(config), "--json")
    assert said.code == 2 and mentions(json.loads(said.out)["error"], "--wallet", "--target")
    both = ("--use-cash", "250", "--alert", "mail=TRIMTAB_MAIL", "--yes")
    said = bare("init", "--wallet", WALLET, "--rpc", "A=a", "--rpc", "B=b", "--template", "equal", *both, "--config", str(config), "--json")
    found = load_config(config).config
    assert said.code == 0 and found.portfolio.use_cash == "250"
    assert found.alerts is not None and [target.name for target in found.alerts.targets] == ["mail"]


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        ("with_network", "mainnet"),
        ("with_wallet", "vitalik.eth"),
        ("with_endpoints", "https://rpc.example/key"),
        ("with_endpoints", "A=one B=one"),
        ("with_cash", "-5"),
        ("with_cash", "0"),
        ("with_alert", "mailto://me:secret@example.org"),
    ],
)
def test_a_wrong_answer_is_refused_and_no_secret_repeated(answer: str, text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        getattr(guide.InitAnswers(), answer)(text)
    assert caught.value.remedy and "secret" not in str(caught.value).replace("a secret", "") and "rpc.example" not in str(caught.value)


def test_every_template_has_a_past_result_and_a_least_capital() -> None:
    known = guide.baskets("ethereum")
    assert [one.name for one in known] == list(PORTFOLIO_TEMPLATES)
    assert all(one.past is not None and float(one.least.replace(",", "")) > 0 for one in known)


def test_the_config_of_a_local_chain_passes_doctor_and_leads_to_a_plan(
    served: tuple[Path, dict[str, Any]], bare: Bare, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, about = served
    monkeypatch.setenv("TRIMTAB_LOCAL_RPC", about["url"])
    assert answered(monkeypatch, tmp_path / "mine.toml", [str(source), about["wallet"], "", "60/40", "", "", "y"]) is not None
    config = str(tmp_path / "mine.toml")
    assert bare("trust", "--config", config, "--yes").code == 0
    checked = bare("doctor", "--config", config, "--json")
    assert checked.code == 0, [row for row in checked.json["checks"] if row["state"] == "fail"]
    assert bare("plan", "--config", config, "--json").json["decision"]
