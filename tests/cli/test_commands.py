"""Every command: its document, its words for people, its exit code; and that nothing moves without --send."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

from agent.app import open_agent
from agent.cli.display.tables import money_text
from agent.planning import planner
from tests.cli.terminal import typed
from tests.cli.tools import TRIMTAB, CommandResult, Desk, attach
from tests.support.text import mentions
from tests.support.worlds import SHORTCUTS

QUOTE_SINGLE = "0xc6a5026a"
"""Selector of QuoterV2.quoteExactInputSingle: token in, token out, amount in, fee, price limit."""
COMMANDS = (
    "init",
    "doctor",
    "trust",
    "status",
    "quote",
    "plan",
    "rebalance",
    "swap",
    "run",
    "history",
    "explain",
    "pause",
    "resume",
    "adopt",
)
NOT_FOR_STATUS = {
    *("uniswap", "eth_tester", "eth", "keyring", "scipy", "alembic", "mako", "apprise"),
    *("prometheus_client", "pyxirr", "polars", "pandas", "numba", "skfolio", "plotly", "empyrical"),
    *("filelock", "sqlalchemy.dialects.postgresql", "tomlkit"),
}
WEB3 = {"web3", "ens", "eth_abi", "eth_account", "eth_keyfile", "aiohttp", "websockets"}
"""web3 and what it loads: `status` reads the chain through it."""
NOT_FOR_HELP = {
    *NOT_FOR_STATUS,
    *WEB3,
    "sqlalchemy",
    "numpy",
    "pydantic",
    "requests",
    "eth_utils",
    "tenacity",
    "cattrs",
    "asyncio",
    "agent.wiring",
}
READING_CHAIN = [
    (("status",), "rebalance"),
    (("doctor",), "gas money"),
    (("quote", "--in", "WETH", "--out", "USDC", "--amount", "0.5"), "would buy"),
    (("plan", "--verbose"), "second_quote_deviation"),
    (("rebalance",), "Dry run: nothing was sent"),
    (("swap", "--in", "WETH", "--out", "USDC", "--amount", "0.1"), "Dry run: nothing was sent"),
    (("run", "--once"), "Dry run: nothing was sent"),
    (("trust",), "unchanged"),
    (("history",), "Steps"),
]


@pytest.mark.parametrize(("command", "word"), READING_CHAIN, ids=lambda p: p[0] if isinstance(p, tuple) else "")
def test_reading_command__prints_document_and_words_only(desk: Desk, command: tuple[str, ...], word: str) -> None:
    chain = attach(desk)

    def state() -> tuple[Any, ...]:
        return desk.node.rpc("eth_getTransactionCount", desk.about["wallet"], "latest"), *map(chain.balance, chain.tokens)

    before = state()
    desk.ask(*command)
    result = desk.run(*command)
    assert result.code == 0
    assert word in result.out
    assert not result.out.lstrip().startswith("{")
    assert state() == before


def test_status_adds_up(desk: Desk) -> None:
    status = desk.ask("status")
    assert sum(item["weight_bps"] for item in status["holdings"]) == 10_000
    assert sum(item["target_bps"] for item in status["holdings"]) == 10_000
    assert status["decision"]["kind"] == "rebalance"
    assert status["paused"] is False
    weth = next(item for item in status["holdings"] if item["symbol"] == "WETH")
    assert (weth["amount"], weth["raw"], weth["price"], weth["value"]) == ("1.4", "1400000000000000000", "3000", "4200")
    assert (weth["weight_bps"], weth["target_bps"], weth["drift_bps"], weth["band_bps"]) == (4118, 3000, 1118, [2700, 3300])


def test_a_quote_of_one_pool_is_what_that_pool_pays(desk: Desk) -> None:
    pool = desk.about["pools"]["v3 WETH/USDC 500"]
    quote_document = desk.ask("quote", "--in", "WETH", "--out", "USDC", "--amount", "2", "--pool", pool.lower())
    assert [leg["pool"] for leg in quote_document["legs"]] == [pool]
    quoter = desk.config.read_text().split('quoter = "')[1].split('"')[0]
    tokens = desk.about["tokens"]
    words = [tokens["WETH"][2:], tokens["USDC"][2:], f"{2 * 10**18:x}", f"{500:x}", "0"]
    data = QUOTE_SINGLE + "".join(word.rjust(64, "0") for word in words)
    answer = desk.node.rpc("eth_call", {"to": quoter, "data": data}, hex(quote_document["block"]))
    assert int(answer[2:66], 16) == int(quote_document["amount_out_raw"])


def test_a_symbol_is_found_in_any_case(desk: Desk) -> None:
    for command in ("swap", "quote"):
        written, exact = (
            desk.ask(command, "--in", sold, "--out", bought, "--amount", "0.1") for sold, bought in (("weth", "Usdc"), ("WETH", "USDC"))
        )
        assert written["legs"]
        assert written["legs"] == exact["legs"]


def test_the_whole_of_the_pools_pays_at_least_what_one_does(desk: Desk) -> None:
    pool = desk.about["pools"]["v3 WETH/USDC 500"]
    pool_quote, best = (desk.ask("quote", "--in", "WETH", "--out", "USDC", "--amount", "40", *more) for more in (("--pool", pool), ()))
    assert len(best["legs"]) > 1
    assert int(best["amount_out_raw"]) >= int(pool_quote["amount_out_raw"])
    assert sum(int(leg["amount_in_raw"]) for leg in best["legs"] if leg["source"] == "wallet") == 40 * 10**18


def test_a_plan_from_a_saved_input_is_the_same_plan(desk: Desk, tmp_path: Path) -> None:
    saved = tmp_path / "input.json"
    first = desk.ask("plan", "--save-input", str(saved))
    again = desk.ask("plan", "--input", str(saved))
    assert first["legs"]
    for key in ("block", "legs", "weights_after_bps", "cost", "turnover", "gap_bps", "skipped", "expires_block", "decision"):
        assert again[key] == first[key], key
    words = desk.run("plan", "--input", str(saved), "--verbose")
    assert words.code == 0
    assert "did not run" in words.out
    assert f"{first['gap_bps']:.3f} bps" in words.out
    assert 0 <= first["gap_bps"] < 5


def test_a_saved_input_needs_neither_chain_nor_config(desk: Desk, tmp_path: Path, bare: Callable[..., CommandResult]) -> None:
    saved = tmp_path / "input.json"
    desk.ask("plan", "--save-input", str(saved))
    result = bare("plan", "--config", str(tmp_path / "none.toml"), "--input", str(saved), "--json")
    assert result.code == 0


def test_history_and_explain_tell_every_step(desk: Desk) -> None:
    desk.ask("rebalance")
    desk.ask("rebalance", "--send", "--yes")
    desk.ask("swap", "--in", "USDC", "--out", "WETH", "--amount", "150", "--send", "--yes")
    steps = desk.ask("history")["steps"]
    assert [step["outcome"] for step in steps] == ["done", "approved", "done", "approved", "planned"]
    for step in steps:
        explain_document = desk.ask("explain", step["step"])
        assert step["step"] in explain_document["sentences"][-1]
        assert any(mentions(line, "decided", "rebalance") or line.startswith("Manual: ") for line in explain_document["sentences"])
    assert "150 USDC" in desk.run("explain").out, "the newest, where none is named"
    assert [item["kind"] for item in steps[2]["transactions"]] == ["swap"]


def test_piped_history_and_doctor_cut_nothing(desk: Desk) -> None:
    """A reason longer than a terminal's cell is whole, and each check is one line that ends where its text does."""
    desk.ask("rebalance")
    (step,) = desk.ask("history")["steps"]
    output = desk.run("history").out
    assert len(step["reason"]) > 100
    assert "…" not in output
    assert step["reason"].split()[-1] in output
    checks = desk.ask("doctor")["checks"]
    lines = desk.run("doctor").out.splitlines()
    assert len(lines) == len(checks)
    assert all(
        f"{row['check']}: {row['finding'].split()[0]}" in line and line == line.rstrip() for row, line in zip(checks, lines, strict=True)
    )


def test_an_edit_shows_amounts_as_tables_do_and_pools_by_name(desk: Desk) -> None:
    changes = ("edit", "--target", "WETH=25%", "--target", "USDC=25%")
    document = desk.ask(*changes, want=2)
    output = desk.run(*changes, "--verbose").out
    assert not any("pool 0x" in line for line in document["warnings"])
    assert any(" V2 0.3 %: " in line for line in document["warnings"])
    turnover = document["transition"]["turnover"]
    assert f"{money_text(turnover)} USDC" in output
    assert turnover not in output
    assert "Guards" in output, "--verbose shows the whole plan"


def test_history_is_cut_at_its_limit(desk: Desk) -> None:
    desk.ask("rebalance")
    desk.ask("rebalance")
    assert len(desk.ask("history", "--limit", "1")["steps"]) == 1
    assert desk.run("history", "--limit", "0").code == 2


def test_version_and_help_need_nothing(bare: Callable[..., CommandResult]) -> None:
    assert bare("--version") == CommandResult(0, f"trimtab {version('trimtab')}\n", "")
    result = bare("help", "all")
    assert result.code == 0
    for name in (*COMMANDS, "localchain", "demo"):
        assert name in result.out


def test_help_of_help_is_that_without_a_command(bare: Callable[..., CommandResult]) -> None:
    assert bare("help", "help") == bare("help")
    assert bare("help").code == 0
    assert bare("help", "status") == bare("status", "--help")
    assert bare("help", "frobnicate").code == 2


def test_no_command_shows_the_help_and_is_a_usage_error(bare: Callable[..., CommandResult]) -> None:
    assert bare("frobnicate", "--json").error["exit"] == 2
    result = bare()
    assert result.code == 2
    assert "rebalance" in result.out


def timed(*args: str) -> tuple[CommandResult, set[str]]:
    """What a command as a process of its own answers, and the modules that it loads, each with the packages it lies in."""
    program = [sys.executable, "-X", "importtime", *TRIMTAB[1:], *args]
    done = subprocess.run(program, capture_output=True, text=True, check=False)
    lines = [line for line in done.stderr.splitlines(keepends=True) if not line.startswith("import time:")]
    texts = {line.split("|")[2].strip() for line in done.stderr.splitlines() if line.startswith("import time:")}
    loaded = {".".join(name.split(".")[:depth]) for name in texts for depth in range(1, name.count(".") + 2)}
    return CommandResult(done.returncode, done.stdout, "".join(lines)), loaded


def figures(result: CommandResult) -> list[str]:
    """Words and numbers of what it printed, whatever the width."""
    return re.sub("[─━┃╌]+", " ", result.out).split()


def test_status_imports_nothing_that_it_does_not_need(desk: Desk) -> None:
    """And the installed program is the same command line."""
    desk.node.rpc("evm_setAutomine", False)  # no block comes between the two
    timed_result, loaded = timed("status", "--config", str(desk.config))
    here = desk.run("status")
    assert (
        (timed_result.code, timed_result.err, figures(timed_result))
        == (here.code, here.err, figures(here))
        == (0, "", figures(timed_result))
    )
    assert {"agent.wiring.context", "sqlalchemy", "rich.table", "web3"} <= loaded
    assert not loaded & NOT_FOR_STATUS, sorted(loaded & NOT_FOR_STATUS)


def test_help_imports_neither_the_agent_nor_its_libraries() -> None:
    timed_result, loaded = timed("--help")
    assert timed_result.code == 0
    assert "agent.cli.main" in loaded
    assert not loaded & NOT_FOR_HELP


@pytest.mark.slow  # the shorter command of tests/cli/test_pipes.py goes the same way
def test_sated_reader__ends_the_command_without_a_traceback(desk: Desk) -> None:
    line = " ".join(f"'{part}'" for part in (*TRIMTAB, "status", "--config", str(desk.config), "--json"))
    done = subprocess.run(["bash", "-c", f"{line} | true; echo ${{PIPESTATUS[0]}}"], capture_output=True, text=True, check=False)
    assert done.stdout.strip() in ("0", "12")
    assert done.stderr == ""


def test_removing_the_last_user__asks_for_a_dashboard_restart(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PW", "correct-horse-battery-staple-9")
    for name in ("ann", "eve"):
        desk.ask("user", "add", name, "--password-env", "PW")
    assert desk.ask("user", "remove", "eve") == {"removed": "eve", "remaining": 1}
    desk.ask("user", "add", "eve", "--password-env", "PW")
    assert "restart" not in desk.run("user", "remove", "eve").out
    assert mentions(" ".join(desk.run("user", "remove", "ann").out.split()), "No users are left", "trimtab serve", "restart it")


def test_secrets_to_copy__are_on_one_line_of_a_narrow_terminal(desk: Desk) -> None:
    narrow = {"COLUMNS": "40", "NO_COLOR": "1"}
    replies = [("New password", "correct-horse-battery-staple-9"), ("Again", "correct-horse-battery-staple-9")]
    user = typed(replies, "user", "add", "ann", "--config", str(desk.config), cwd=desk.config.parent, env=narrow)
    token = typed([], "token", "add", "eye", "--scope", "read", "--config", str(desk.config), cwd=desk.config.parent, env=narrow)
    assert re.search(r"^otpauth://totp/\S+issuer=trimtab\s*$", user.screen_text, re.MULTILINE), user.screen_text
    assert len(re.findall(r"^[\u2580\u2584\u2588 ]{29,}\s*$", user.screen_text, re.MULTILINE)) > 14, "the QR code of the same"
    assert re.search(r"^trimtab_[0-9a-f]{16}_\S{43}\s*$", token.screen_text, re.MULTILINE), token.screen_text


def test_trust_shows_the_contracts_once_at_a_terminal(desk: Desk) -> None:
    fresh = desk.config.parent / "fresh" / desk.config.name
    fresh.parent.mkdir()
    fresh.write_text(desk.config.read_text())
    terminal_run = typed([("Pin these?", "n")], "trust", "--config", str(fresh), cwd=fresh.parent)
    assert terminal_run.code == 10, terminal_run.screen_text
    assert terminal_run.screen_text.count("Contracts at block") == 1, terminal_run.screen_text


def test_a_step_without_an_outcome_has_a_reason_in_the_history(desk: Desk) -> None:
    with open_agent(desk.config) as agent:
        agent.context.store.steps.begin("s1", 1_700_000_000, "{}")
    (row,) = desk.ask("history")["steps"]
    assert row["outcome"] == "unfinished"
    assert "its process ended" in row["reason"]


@pytest.mark.usefixtures("desk")
def test_a_run_without_shortcuts_solves_each_plan_anew() -> None:
    assert (planner._best_within_plan_cost.__name__ == "_planned_once") is SHORTCUTS
