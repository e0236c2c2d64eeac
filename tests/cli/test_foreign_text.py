"""Text that strangers choose (T17) and secrets (T18): neither reaches a terminal, a document or the store."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from agent.cli.display.terminal import escape_control_codes
from tests.cli.tools import SECRET, Desk, attach

HARMFUL = ("\x1b[31mRED\x1b[0m\x1b]0;owned\x07", "[bold red]X[/] \u202eCDSU <script>=1+1", "Q" * 5000)
COMMANDS = (
    ("status",),
    ("doctor",),
    ("trust", "--yes"),
    ("quote", "--in", "ODD", "--out", "USDC", "--amount", "1"),
    ("plan",),
    ("rebalance",),
    ("rebalance", "--send", "--yes"),
    ("swap", "--in", "USDC", "--out", "ODD", "--amount", "600"),
    ("history",),
)


@pytest.mark.parametrize(
    "symbol",
    [
        pytest.param("".join(HARMFUL), id="all"),
        *(
            pytest.param(symbol, id=name, marks=pytest.mark.slow)
            for symbol, name in zip(HARMFUL, ("escapes", "markup", "long"), strict=True)
        ),
    ],
)
def test_a_harmful_symbol_shows_up_in_no_command(desk: Desk, symbol: str) -> None:
    """The token takes LINK's place in the portfolio, is traded, and is called what the owner calls it."""
    chain = attach(desk)
    token = chain.add_token(symbol, 18, 15)
    chain.add_v2_pool(symbol, "USDC", 5_000_000)
    chain.set_balance(symbol, 80 * 10**18)
    tokens = desk.about["tokens"]
    feeds = desk.about["feeds"]
    desk.edit((f'symbol = "LINK"\naddress = "{tokens["LINK"]}"', f'symbol = "ODD"\naddress = "{token.address}"'))
    desk.edit((feeds["LINK"], chain.feed_addresses[symbol]), ('kind = ["feed", "twap"]', 'kind = ["feed"]'))
    shown_texts = []
    for command in COMMANDS:
        for form in ((), ("--json",)):
            if "--send" in command and form:
                continue
            result = desk.run(*command, *form)  # the runner itself looks for control codes
            assert result.code == 0, result.out
            shown_texts.append(result.out + result.err)
    for step in desk.ask("history")["steps"]:
        shown_texts.append(desk.run("explain", step["step"]).out)
    everything = "\n".join(shown_texts)
    assert "ODD" in everything
    assert "600 USDC for" in everything
    for part in (symbol, symbol[:40], "owned", "script", "CDSU", "QQQQ", ascii(symbol)[1:20]):
        assert part not in everything


def test_what_could_steer_a_terminal_is_written_out() -> None:
    assert escape_control_codes("\x1b[31m\x9b\u202e\u200bé\n\t✓") == "\\u001b[31m\\u009b\\u202e\\u200bé\n\t✓"


def test_a_reason_given_by_hand_is_shown_as_it_is(desk: Desk) -> None:
    assert desk.run("pause", "--reason", "[red]x[/] [/] \x1b[2J").code == 0
    for command in (("status",), ("doctor",), ("plan",), ("rebalance",), ("history",)):
        result = desk.run(*command)
        assert result.code in (0, 10)
    assert "[red]x[/] [/] \\u001b[2J" in desk.run("status").out


def test_the_endpoints_url_is_in_no_output_and_not_in_the_store(desk: Desk, tmp_path: Path) -> None:
    """Every test's config holds a secret in its URL, and the runner looks for it; here are the files."""
    assert SECRET in desk.config.read_text()
    saved = tmp_path / "input.json"
    desk.ask("plan", "--save-input", str(saved))
    desk.ask("rebalance", "--send", "--yes")
    files = [path for path in tmp_path.iterdir() if path.is_file() and path != desk.config]
    assert {path.name for path in files} >= {"input.json", "trimtab.db"}
    for path in files:
        assert SECRET.encode() not in path.read_bytes(), path
    assert json.loads(saved.read_text())
    assert (tmp_path / "trimtab.db").stat().st_mode & 0o077 == 0
