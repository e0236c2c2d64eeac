"""Corrections over time and swaps at a price on the command line: the arithmetic, the order's life, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from agent.localchain import LocalChain
from tests.cli.tools import CommandResult, Desk, at_terminal
from tests.support import agents
from tests.support.gradual_execution import OFF, ROUNDS, TARGETS
from tests.support.text import mentions

SWAP = ("swap", "--in", "WETH", "--out", "USDC", "--amount", "1")


def test_plan__shows_what_each_number_of_rounds_costs(anvil_chain: LocalChain, tmp_path: Path, run: Callable[..., CommandResult]) -> None:
    agents.trusted_config(anvil_chain, tmp_path, ROUNDS, TARGETS)
    agents.fund(anvil_chain, OFF)
    plan = run("plan", "--json").json
    costs = {option["rounds"]: float(option["total"]) for option in plan["pacing"]["options"]}
    assert list(costs) == [1, 2, 3]
    assert costs[plan["pacing"]["chosen"]] == min(costs.values()) < costs[1]
    assert "1 of about" in plan["decision"]["reason"]
    words = run("plan", "--verbose").out
    assert "in USDC" in words
    assert "one trade" in words
    step = run("rebalance", "--json").json["step"]
    output = run("explain", step).out
    assert "Slices" in output
    assert "not executed" in output


def test_an_order_is_shown_placed_listed_and_cancelled(anvil_chain: LocalChain, tmp_path: Path, run: Callable[..., CommandResult]) -> None:
    agents.trusted_config(anvil_chain, tmp_path, {}, TARGETS)
    agents.fund(anvil_chain, {"WETH": 5_000, "USDC": 5_000})
    dry = run(*SWAP, "--price", "3100", "USDC/WETH", "--until", "4h", "--json")
    assert dry.code == 0, dry.why
    assert dry.json["order"]["id"] == ""
    assert run("limit", "--json").json == {"orders": [], "gradual_executions": []}
    placed = run(*SWAP, "--price", "3100", "USDC/WETH", "--until", "4h", "--send", "--yes", "--json")
    assert placed.code == 0, placed.why
    assert placed.json["order"]["state"] == "open"
    assert "price is 29" in placed.json["reason"]
    listed = run("limit", "--json").json
    (order,) = listed["orders"]
    assert mentions(order["note"], "1 WETH", "3100 USDC")
    output = run("limit").out
    assert mentions(output, "1 WETH", "3,100.00 USDC")
    sending_run = f"Only trimtab run --config {tmp_path / 'trimtab.toml'} --send"
    assert " ".join(output.split()).count(f"{sending_run} fills open limit orders") == 1
    assert "Only trimtab run --send" in " ".join(run("limit", "--help").out.split())
    assert run("limit", "--cancel", order["id"]).code == 0
    assert sending_run not in " ".join(run("limit").out.split())
    assert run("limit", "--json").json["orders"][0]["state"] == "cancelled"
    again = run("limit", "--cancel", order["id"], "--json")
    assert (again.code, again.error["kind"]) == (2, "ConfigError")
    for more in (("--price", "3100", "USDC/WETH"), ("--until", "4h"), ("--wait",), ("--again",)):
        alone = run(*SWAP, *more, "--json")
        assert alone.code == 2
        assert "needs --until" in alone.error["message"]


def test_repeated_order__shows_that_it_keeps_its_time(anvil_chain: LocalChain, tmp_path: Path, run: Callable[..., CommandResult]) -> None:
    agents.trusted_config(anvil_chain, tmp_path, {}, TARGETS)
    agents.fund(anvil_chain, {"WETH": 5_000, "USDC": 5_000})
    order = (*SWAP, "--price", "3100", "USDC/WETH", "--send", "--yes", "--until")
    placed = run(*order, "4h", "--json").json["order"]
    repeated = run(*order, "2m").out
    assert mentions(repeated, f"Order {placed['id']}: ", "open since 20", f", until {placed['until']}")
    anvil_chain.warp(4 * 3_600 - 60)
    assert mentions(run(*order, "2m").out, f"; expired: expires {placed['until']} UTC, sooner than")
    assert mentions(run("limit").out, "expired: expires")


@pytest.mark.parametrize("price", [("3100", "USDC/WETH"), ("0.00032258064516129032258064516129", "WETH/USDC")])
def test_a_price_is_taken_in_either_direction(
    anvil_chain: LocalChain, tmp_path: Path, run: Callable[..., CommandResult], price: tuple[str, str]
) -> None:
    agents.trusted_config(anvil_chain, tmp_path, {}, TARGETS)
    agents.fund(anvil_chain, {"WETH": 5_000, "USDC": 5_000})
    result = run(*SWAP, "--price", *price, "--until", "4h")
    assert result.code == 0, result.why
    assert "Limit 3,100.00 USDC/WETH" in result.out
    assert "or 0.000322581 " in result.out
    assert mentions(result.out, "3,000.00 USDC/WETH", "0.000333333 WETH/USDC", "+3.33 %")


def test_a_price_for_buying_is_the_most_that_is_paid(anvil_chain: LocalChain, tmp_path: Path, run: Callable[..., CommandResult]) -> None:
    agents.trusted_config(anvil_chain, tmp_path, {}, TARGETS)
    agents.fund(anvil_chain, {"WETH": 5_000, "USDC": 5_000})
    swap = ("swap", "--in", "USDC", "--out", "WETH", "--amount", "100", "--price")
    bought = (*swap, "2900", "USDC/WETH", "--until", "4h", "--send", "--yes")
    placed = run(*bought, "--json").json
    assert placed["order"]["state"] == "open"
    assert placed["prices"]["limit"][1].startswith("2899.99") or placed["prices"]["limit"][1] == "2900 USDC/WETH"
    (order,) = run("orders", "--json").json["limit_orders"]
    assert (order["id"], order["off_bps"]) == (placed["order"]["id"], 345)
    assert "Limit orders" in run("orders").out
    wrong = run(*swap, "2900", "EUR/WETH", "--until", "4h", "--json")
    assert wrong.code == 2


def test_a_limit_far_from_the_market_is_asked_about(desk: Desk) -> None:
    swap = ("swap", "--in", "WETH", "--out", "USDC", "--amount", "0.1", "--price", "4000", "USDC/WETH", "--until", "4h", "--send")
    code, screen = at_terminal(desk, "n\n", *swap)
    assert code == 10
    assert mentions(screen, "20 %", "market")
    assert "+33.33 %" in screen
    assert desk.ask("limit")["orders"] == []
    assert desk.ask(*swap, "--yes")["order"]["state"] == "open"


@pytest.mark.parametrize(
    ("limits", "price", "code"),
    [
        pytest.param({"limits.gas_price": "0.0000001gwei"}, "2900", 10, id="refused by a guard"),
        pytest.param({}, "3100", 0, id="price not reached"),
        pytest.param({}, "2900", 0, id="planned"),
    ],
)
def test_dry_run_of_an_order__has_the_exit_code_of_its_plan(
    anvil_chain: LocalChain, tmp_path: Path, run: Callable[..., CommandResult], limits: dict[str, str], price: str, code: int
) -> None:
    agents.trusted_config(anvil_chain, tmp_path, limits, TARGETS)
    agents.fund(anvil_chain, {"WETH": 5_000, "USDC": 5_000})
    result = run("swap", "--in", "WETH", "--out", "USDC", "--amount", "0.1", "--price", price, "USDC/WETH", "--until", "4h")
    assert result.code == code, result.out
    assert "Order (not placed): " in result.out
    assert "; open" not in result.out
    assert "fills open limit orders" not in result.out


def test_a_refused_swap_shows_the_swap_and_not_the_drift(desk: Desk) -> None:
    result = desk.run("swap", "--in", "WETH", "--out", "USDC", "--amount", "100")
    assert result.code == 10
    assert mentions(result.out, "rebalance", "100 WETH", "USDC")
    assert "band" not in result.out
