"""What a terminal of 80 columns and 24 lines shows first, and tables of all commands at the widths that terminals have."""

from __future__ import annotations

import re

import pytest

from agent.policy.native_coin import GAS_MARGIN
from tests.cli.tools import CHECKED, Desk, at_terminal
from tests.cli.widths import WIDTHS

CODES = re.compile("\x1b\\[[0-9;?]*[A-Za-z]")
HEX = re.compile("0x[0-9a-fA-F]{4}")


def screen(screen: str) -> list[str]:
    """Lines of a terminal from the decision to the end, without colours and spinners."""
    plain = CODES.sub("", screen).replace("\r", "")
    return plain[plain.index("╭─") :].splitlines()


def test_the_plan_and_its_question_fit_one_screen(desk: Desk) -> None:
    code, screen_text = at_terminal(desk, "n\n", "rebalance", "--send", columns=80)
    lines = screen(screen_text[: screen_text.index("[y/N]")])
    assert code == 10
    assert len(lines) <= 24
    assert max(map(len, lines)) <= 80
    for part in ("WETH/USDC 0.05 %", "Cost: ", "Worst case: ", "Weights after: ", "Guards: ", "Signs: ", "Sign and send this?"):
        assert part in " ".join(lines), part


def test_refused_plan__names_the_failed_guard_on_one_screen(desk: Desk) -> None:
    desk.edit(('gas_price = "', 'gas_price = "0.0000001 gwei" # '))
    code, screen_text = at_terminal(desk, "", "plan", columns=80)
    assert code == 10
    lines = screen(screen_text)
    assert len(lines) <= 24
    assert any(line.startswith("refused  gas_price") for line in lines), screen_text


def test_everything_else_of_a_plan_comes_with_verbose(desk: Desk) -> None:
    short = desk.run("plan")
    whole = desk.run("plan", "--verbose")
    assert len(short.out.splitlines()) < 20 < 60 < len(whole.out.splitlines())
    assert not HEX.search(short.out)
    planned = desk.ask("plan")
    for item in planned["verdicts"]:
        assert item["guard"] in whole.out
    assert "kill_switch" not in short.out
    for leg in planned["legs"]:
        assert leg["pool"] in whole.out
        assert planned["pools"][leg["pool"]] in short.out
    for item in planned["skipped"]:
        assert item["subject"].removeprefix("pool ") in whole.out


def test_a_confirmation_with_verbose_shows_every_parameter(desk: Desk) -> None:
    _, screen = at_terminal(desk, "n\n", "rebalance", "--send", "--verbose")
    assert all(part in screen for part in ("Parameters", "daily_turnover", "kill_switch", "endpoints"))


def test_the_worst_case_is_the_cost_and_what_minimums_allow(desk: Desk) -> None:
    """And prices that are limits.oracle_deviation off, on what is traded besides the numeraire, and all gas that its limits allow."""
    planned = desk.ask("plan")
    cost = planned["cost"]
    most = planned["sandwich"]
    paid = float(cost["gas"]) + float(cost["approvals"])
    assert float(planned["worst_case"]) == pytest.approx(float(most["profit_at_most"]) + paid * float(GAS_MARGIN), abs=1e-4)
    assert float(planned["worst_case"]) > float(cost["total"]) + float(most["at_most"])


READING_CHAIN = (
    ("status",),
    ("plan", "--verbose"),
    ("quote", "--in", "WETH", "--out", "USDC", "--amount", "40"),
    ("rebalance", "--send", "--yes", "--verbose"),
    ("doctor",),
    ("trust", "--yes"),
    ("history",),
    ("txs",),
    ("pnl", "--now"),
    ("books", "journal"),
    ("books", "lots"),
    ("orders",),
    ("swap", "--in", "WETH", "--out", "USDC", "--amount", "0.1", "--price", "90000", "USDC/WETH", "--until", "4h", "--send", "--yes"),
    ("limit",),
    ("lp",),
    ("alerts",),
    ("weights",),
    ("oracle",),
    ("strategies",),
    ("withdraw",),
    ("invest",),
    ("flows", "--all"),
    ("whatif", "--target", "BTC=50,ETH=30,USD=20", "--value", "BTC=58000000,ETH=2700,USD=1500", "--band", "10%rel"),
    ("templates",),
)


@pytest.mark.slow
def test_no_table_of_any_command_is_cut_at_any_width(desk: Desk) -> None:
    """Each table that a command prints is drawn anew at every width (tests/cli/tools.py); here they all are, one after the other."""
    CHECKED.clear()
    for words in READING_CHAIN:
        result = desk.run(*words)
        assert result.code in (0, 2, 10), result.why
    assert WIDTHS == (40, 60, 80, 120)
    assert len({heading.partition(" at block ")[0] for heading in CHECKED}) >= 16, CHECKED
